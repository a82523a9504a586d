"""What a fit leaves at its rows, smoothed from the nearest ones: each row a partition of its own.

Kriging with the kernel ``exp(-|z - z'|)`` in scaled coordinates, rough as a random walk, and a
nugget, the variance of the noise over that of the kernel. From a few dozen nearest rows it is as
good as from all, since the rows beyond are hidden behind these. A distinct row is one neighbour
whose nugget is divided by its count.

The mean has small steps where one row takes the place of another among the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core.linalg import COPIES_SUMMED, evenly, row_blocks, rows_within
from skpou.core.models.model import shared_tensor

#: Nearest rows of a point: between 40 and 80 errors are the same on tables of 900 to 9000 rows.
N_NEAREST = 50
#: Columns that a tree searches: with more it looks at nearly all rows. Beyond, rows are compared
#: along their leading directions first, and so many times the nearest ones in all columns then.
MOST_SEARCHED, CANDIDATES = 10, 2
#: Points up to which the distances to all rows cost less than a tree of them.
FEW_POINTS = 8
#: Rows that the leading directions are found from.
DIRECTION_ROWS = 2000
#: Part of the rows' range by which each is moved, some digits of single precision.
APART = 5e-7
#: Least square of a distance: its root has a slope.
LEAST_SQUARE = 1e-24
#: Share of the nugget that rounding of coordinates to single precision may make up.
ROUNDING_SHARE = 0.01


def moved_apart(points: np.ndarray) -> np.ndarray:
    """Points (N, d), moved by next to nothing, so that no two are at the same distance of others.

    Rows of a grid are: which of them are the nearest would hang on the last digit.
    """
    number = np.arange(1, len(points) + 1)[:, None]
    step = np.modf(number * np.sqrt(2 + np.arange(points.shape[1])))[0] - 0.5
    return points + APART * np.ptp(points, axis=0) * step if len(points) else points


class NearestRows:
    """Search for the nearest of given rows, on the host.

    Parameters
    ----------
    points : ndarray of shape (N, d)
        In scaled coordinates.
    """

    def __init__(self, points: np.ndarray):
        self.points = points

    @cached_property
    def directions(self) -> np.ndarray | None:
        """Leading directions (d, q) of the rows; None where all columns are searched."""
        if self.points.shape[1] <= MOST_SEARCHED:
            return None
        some = self.points[evenly(len(self.points), DIRECTION_ROWS)]
        _, vectors = np.linalg.eigh(np.cov(some.T, dtype=np.float64))
        return vectors[:, : -MOST_SEARCHED - 1 : -1]

    @cached_property
    def _searched(self) -> np.ndarray:
        return self.points if self.directions is None else self.points @ self.directions

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._searched)

    def find(self, Z: np.ndarray, count: int) -> np.ndarray:
        """Numbers (n, count) of the rows nearest to points Z (n, d), nearest first."""
        n_rows = len(self.points)
        count = min(count, n_rows)
        if self.directions is None:
            return self._search(Z, count)
        found = self._search(Z @ self.directions, min(CANDIDATES * count, n_rows))
        result = np.empty((len(Z), count), dtype=np.int64)
        for block in row_blocks(len(Z), rows_within(found.shape[1] * Z.shape[1])):
            square = np.square(self.points[found[block]] - Z[block, None]).sum(2)
            order = np.argsort(square, axis=1, kind="stable")[:, :count]
            result[block] = np.take_along_axis(found[block], order, 1)
        return result

    def _search(self, Z: np.ndarray, count: int) -> np.ndarray:
        if len(Z) > FEW_POINTS:
            workers = torch.get_num_threads()
            return self._tree.query(Z, k=count, workers=workers)[1].reshape(len(Z), count)
        result = np.empty((len(Z), count), dtype=np.int64)
        for row, z in enumerate(Z):
            offset = self._searched - z
            square = np.einsum("nd,nd->n", offset, offset)
            some = np.argpartition(square, count - 1)[:count]
            result[row] = some[np.argsort(square[some], kind="stable")]
        return result


def near_distances(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (n, m, m) among rows next to points, and (n, m) from them, by offsets (n, m, d)."""
    square = offset.square().sum(2)
    between = square[:, :, None] + square[:, None]
    between.baddbmm_(offset, offset.mT, alpha=-2)
    between.diagonal(dim1=1, dim2=2).zero_()  # Round-off there would be noise of the mean.
    return between.clamp_min_(LEAST_SQUARE).sqrt_(), square.clamp_min(LEAST_SQUARE).sqrt()


def kernel_system(offset: Tensor, nugget: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances among the m rows next to points, (n, m, m), and with the points, (n, m).

    By scaled offsets (n, m, d) from the points, and the variance (n, m) of the noise at each row
    over that of the kernel, which the first include.
    """
    between, away = near_distances(offset)
    among = between.neg_().exp_()
    among.diagonal(dim1=1, dim2=2).add_(nugget)
    return among, away.neg_().exp_()


@dataclass(frozen=True)
class LocalKernel:
    """What says how values go on between the rows.

    Attributes
    ----------
    scales : Tensor of shape (d,)
        Factors of the coordinates: one over the kernel's length along each.
    nugget : float
        Variance of the noise of a row of weight 1 over that of the kernel.
    variance : float
        That of the kernel.
    """

    scales: Tensor
    nugget: float
    variance: float


@dataclass(frozen=True)
class LocalBlock:
    """Values at rows, smoothed among the nearest of them.

    Attributes
    ----------
    points : Tensor of shape (N, d)
        Rows in scaled coordinates; in single precision where that loses nothing.
    weight : Tensor of shape (N,)
        Their counts.
    values : Tensor of shape (N, M)
        What M fits leave at the rows.
    """

    kernel: LocalKernel
    points: Tensor
    weight: Tensor
    values: Tensor
    dof: float = 0.0

    @classmethod
    def of_rows(cls, kernel: LocalKernel, X: Tensor, weight: Tensor, values: Tensor) -> LocalBlock:
        """Block over rows X (N, d), their weights (N,) and values (N, M)."""
        scaled = moved_apart((X.double() * kernel.scales).cpu().numpy())
        points = torch.as_tensor(scaled, device=X.device)
        largest = float(points.abs().max()) if points.numel() else 0.0
        lost = largest * torch.finfo(torch.float32).eps
        exact = lost > ROUNDING_SHARE * kernel.nugget
        dtype = torch.float64 if exact else torch.float32
        points, weight, values = (part.to(dtype).contiguous() for part in (points, weight, values))
        return cls(kernel, points, weight, values)

    @cached_property
    def nearest(self) -> NearestRows:
        """The search among the rows, made once a prediction."""
        return NearestRows(self.points.cpu().numpy())

    def with_values(self, values: Tensor) -> LocalBlock:
        """The same rows with other values (N, M); the search among them is shared."""
        other = replace(self, values=values)
        other.__dict__["nearest"] = self.nearest
        return other

    def _systems(self, X: Tensor):
        """For blocks of points: nearest rows, offsets, Cholesky factor, covariances with them."""
        Z = X.double() * self.kernel.scales
        found = self.nearest.find(Z.cpu().numpy(), N_NEAREST)
        near = torch.as_tensor(found, device=Z.device)
        for block in row_blocks(len(Z), rows_within(self.numbers_per_row())):
            rows = near[block]
            offset = self.points[rows].double() - Z[block, None]
            nugget = self.kernel.nugget / self.weight[rows].double()
            among, across = kernel_system(offset, nugget)
            yield rows, offset, torch.linalg.cholesky_ex(among)[0], across

    def mean(self, X: Tensor) -> Tensor:
        """Smoothed values (n, M) at points X (n, d)."""
        return self.posterior(X)[0]

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Smoothed values (n, M) at points X (n, d), and the variance (n,) of the truth there."""
        means, variances = [X.new_zeros((0, self.values.shape[1]), dtype=torch.float64)], []
        for rows, _, factor, across in self._systems(X):
            right = torch.cat([across[..., None], self.values[rows].double()], 2)
            reduced = torch.linalg.solve_triangular(factor, right, upper=False)
            own, values = reduced[..., :1], reduced[..., 1:]
            means.append((own.mT @ values)[:, 0])
            variances.append((1 - own.square().sum((1, 2))).clamp_min(0) * self.kernel.variance)
        return torch.cat(means), torch.cat([X.new_zeros(0, dtype=torch.float64), *variances])

    def correlation(self, X: Tensor) -> Tensor:
        """Correlations (n, n) of the truth between points X (n, d), before any row was seen."""
        Z = X.double() * self.kernel.scales
        return torch.cdist(Z, Z, compute_mode="donot_use_mm_for_euclid_dist").neg_().exp_()

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, M) of the smoothed values, the nearest rows staying the same."""
        parts = [X.new_zeros((0, X.shape[1], self.values.shape[1]), dtype=torch.float64)]
        for rows, offset, factor, across in self._systems(X):
            solved = torch.cholesky_solve(self.values[rows].double(), factor)
            distance = offset.square().sum(2).clamp_min(LEAST_SQUARE).sqrt()
            slope = (across / distance)[..., None] * offset * self.kernel.scales
            parts.append(slope.mT @ solved)
        return torch.cat(parts)

    def smoother(self, index: Tensor, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How the smoothed values at some of the rows come from those at the rows near them.

        Parameters
        ----------
        index : Tensor of shape (l,)
            Numbers of the rows.
        X : Tensor of shape (N, d)
            All rows.

        Returns
        -------
        near : Tensor of shape (l, m)
            Numbers of the nearest rows, the row itself among them.
        share : Tensor of shape (l, m)
            Factors of their values.
        variance : Tensor of shape (l,)
            That of the truth about the smoothed value.
        """
        near, shares, variances = [], [], []
        for rows, _, factor, across in self._systems(X[index]):
            share = torch.cholesky_solve(across[..., None], factor)[..., 0]
            near.append(rows)
            shares.append(share)
            variances.append((1 - (share * across).sum(1)).clamp_min(0) * self.kernel.variance)
        return torch.cat(near), torch.cat(shares), torch.cat(variances)

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        n_rows, d = self.points.shape
        m = min(N_NEAREST, n_rows)
        return COPIES_SUMMED * m * (m + d)

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "scales": self.kernel.scales.cpu().numpy(),
            "nugget": self.kernel.nugget,
            "variance": self.kernel.variance,
            "points": self.points.cpu().numpy(),
            "weight": self.weight.cpu().numpy(),
            "values": self.values.cpu().numpy(),
            "dof": self.dof,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> LocalBlock:
        """Rebuild from `arrays`, on the device of `like`; the rows are not copied there."""
        scales, points, weight, values = (
            shared_tensor(arrays[name], like) for name in ("scales", "points", "weight", "values")
        )
        kernel = LocalKernel(scales, float(arrays["nugget"]), float(arrays["variance"]))
        return cls(kernel, points, weight, values, float(arrays["dof"]))
