"""What a Gaussian process without noise does not know between rows, its power function.

Kernels of several smoothnesses and lengths are weighed by how likely they make errors at rows that
were left out: few errors do not tell a smooth kernel from a rough one, and both count then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import ArrayState

#: Variance of round-off, of targets of unit root mean square: what is added to those that may be 0.
ROUND_OFF_VARIANCE = 1e-32
#: Nearest rows that a power function is made of, and for each column more up to a number: further
#: ones change it little.
LEAST_NEAREST, NEAREST_A_COLUMN, MOST_NEAREST = 8, 4, 30
#: Lengths of the kernels in units of the scaled box, two in each octave and a half: errors next to
#: rows hardly turn on less.
LENGTHS = tuple(np.geomspace(0.03, 3.0, 7))
#: Sizes in units of y's spread, three a decade, from round-off to what runs away.
SIZES = np.geomspace(1e-16, 1e2, 55)
#: Nugget of the kernel matrices, and least square of a power function: round-off.
NUGGET, LEAST_POWER = 1e-13, 1e-26
#: Kernels that are kept, and the share of the likeliest one's below which none is: each one costs
#: a factorization a point.
MOST_KERNELS, LEAST_SHARE = 3, 0.02
#: Share of the left-out errors that lie within so many standard deviations at least.
HELD, WITHIN = 0.95, 2.0


# In place on what is their own: a copy of all matrices takes as long as an exponential.
def _gaussian(r: Tensor) -> Tensor:
    return r.square().mul_(-0.5).exp_()


def _matern_five_halves(r: Tensor) -> Tensor:
    s = math.sqrt(5) * r
    fall, value = (-s).exp_(), 1 + s
    return value.add_(s.square_().div_(3)).mul_(fall)


def _matern_three_halves(r: Tensor) -> Tensor:
    s = math.sqrt(3) * r
    return (-s).exp_().mul_(s.add_(1))


def _exponential(r: Tensor) -> Tensor:
    return (-r).exp_()


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": _gaussian,
    "matern52": _matern_five_halves,
    "matern32": _matern_three_halves,
    "exponential": _exponential,
}


class NearRows:
    """Distances at points (l, d) to and among the rows (l, k, d) next to each."""

    def __init__(self, points: Tensor, near: Tensor):
        self.among = torch.cdist(near, near, compute_mode="donot_use_mm_for_euclid_dist")
        self.across = (near - points[:, None]).square().sum(2).sqrt()
        self.nugget = NUGGET * torch.eye(near.shape[1], dtype=near.dtype, device=near.device)
        #: Those that were computed: a factorization a point.
        self._powers: dict[tuple[str, float], Tensor] = {}

    @classmethod
    def of(cls, points: np.ndarray, rows: np.ndarray, tree: cKDTree | None = None) -> NearRows:
        """The rows (k, d), perhaps in a tree, nearest to each of the points (l, d)."""
        tree = cKDTree(rows) if tree is None else tree
        near = nearest(tree, points, n_nearest(*rows.shape))
        return cls(double(points), double(rows[near]))

    def power_function(self, kernel: str, length: float) -> Tensor:
        """Standard deviation (l,) of a unit Gaussian process at the points, given the rows."""
        if (kernel, length) not in self._powers:
            self._powers[kernel, length] = self._power_function(KERNELS[kernel], length)
        return self._powers[kernel, length]

    def _power_function(self, function: Callable[[Tensor], Tensor], length: float) -> Tensor:
        kernel = function(self.among / length).add_(self.nugget)
        factor, _ = torch.linalg.cholesky_ex(kernel)
        across = function(self.across / length)[..., None]
        reduced = torch.linalg.solve_triangular(factor, across, upper=False)
        square = 1 - reduced.square().sum((1, 2))
        return square.nan_to_num(1.0).clamp(LEAST_POWER, 1.0).sqrt()


def n_nearest(n_rows: int, n_features: int) -> int:
    """How many of the rows a power function is made of."""
    most = min(LEAST_NEAREST + NEAREST_A_COLUMN * n_features, MOST_NEAREST)
    return min(most, n_rows)


def nearest(tree: cKDTree, Z: np.ndarray, count: int) -> np.ndarray:
    """Numbers (n, count) of the points of a tree that are nearest to the points Z (n, d)."""
    return tree.query(Z, k=count)[1].reshape(len(Z), count)


def double(array: np.ndarray) -> Tensor:
    """A copy of the array as a tensor in float64 on the CPU: arrays of a model are read-only."""
    return torch.tensor(array, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class WeighedKernels(ArrayState):
    """Kernels with lengths, sizes and shares.

    Attributes
    ----------
    names : list of str
        Keys of `KERNELS`.
    lengths, sizes, shares : ndarray of shape (k,)
        In units of the points' coordinates and of y; the shares sum to 1.
    """

    names: list[str]
    lengths: np.ndarray
    sizes: np.ndarray
    shares: np.ndarray

    def variance(self, rows: NearRows) -> np.ndarray:
        """Variance (l,) at the points of `rows`."""
        result = np.zeros(len(rows.across))
        for name, length, size, share in zip(
            self.names, self.lengths, self.sizes, self.shares, strict=True
        ):
            result += share * (size * rows.power_function(name, float(length)).numpy()) ** 2
        return result

    def correlation(self, distance: Tensor) -> Tensor:
        """The mean kernel at distances, weighed by shares and squares of sizes."""
        weight = self.shares * self.sizes**2
        weight = weight / weight.sum() if weight.sum() > 0 else self.shares
        parts = zip(self.names, self.lengths, weight, strict=True)
        return torch.stack(
            [float(w) * KERNELS[name](distance / float(length)) for name, length, w in parts]
        ).sum(0)

    def holding(self, standardized: np.ndarray, share: float) -> WeighedKernels:
        """The same with sizes under which most of some errors lie within what is expected.

        Parameters
        ----------
        standardized : ndarray of shape (l,)
            Errors over their standard deviations.
        share : float
            Mean part of the variances that is that of the kernels: the rest does not grow.
        """
        far = max(float(np.quantile(np.abs(standardized), HELD)) / WITHIN, 1.0)
        sizes = self.sizes * (1 + (far - 1) * share)
        return WeighedKernels(self.names, self.lengths, sizes, self.shares)

    @classmethod
    def none(cls) -> WeighedKernels:
        """No variance anywhere."""
        return cls(["gaussian"], np.ones(1), np.zeros(1), np.ones(1))

    @classmethod
    def likeliest(
        cls, square: np.ndarray, variance: np.ndarray, rows: NearRows, worth: np.ndarray
    ) -> tuple[WeighedKernels, float]:
        """Those that make squared errors likely, and by how much more than no size at all.

        Parameters
        ----------
        square, variance : ndarray of shape (l,)
            Squared errors at left-out points, and what is expected of them without the kernels.
        rows : NearRows
            The points among the rows that stayed.
        worth : ndarray of shape (l,)
            How many independent errors each is worth.
        """
        choices = [(kernel, float(length)) for kernel in KERNELS for length in LENGTHS]
        sizes, scores = [], []
        for choice in choices:
            power = rows.power_function(*choice).numpy()
            total = (SIZES[:, None] * power) ** 2 + variance + ROUND_OFF_VARIANCE
            score = -0.5 * ((np.log(total) + square / total) * worth).sum(1)
            best = int(score.argmax())
            sizes.append(SIZES[best])
            scores.append(score[best])
        bare = variance + ROUND_OFF_VARIANCE
        gain = max(scores) + 0.5 * float(((np.log(bare) + square / bare) * worth).sum())
        share = np.exp(np.array(scores) - max(scores))
        kept = np.argsort(-share, kind="stable")[:MOST_KERNELS]
        kept = kept[share[kept] >= LEAST_SHARE]
        names = [choices[k][0] for k in kept]
        lengths = np.array([choices[k][1] for k in kept])
        found = cls(names, lengths, np.array(sizes)[kept], share[kept] / share[kept].sum())
        return found, float(gain)
