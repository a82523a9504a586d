"""The model of a solution: polynomials on boxes that fill a box, with their error bars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import to_tensor
from skpou.core.models import Components
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import PieceColumns, exponents
from skpou.partitions.equations.edges import Edges

#: Nodes a direction at which a piece keeps the variance of the solution; two in many dimensions.
VARIANCE_NODES = (5, 5, 4, 3, 2)


def variance_nodes(d: int) -> int:
    """Nodes a direction."""
    return VARIANCE_NODES[min(d, len(VARIANCE_NODES)) - 1] if d else 1


def variance_points(d: int) -> np.ndarray:
    """Their places (k, d) in [-1, 1]^d."""
    line = np.linspace(-1, 1, variance_nodes(d))
    return np.stack(np.meshgrid(*[line] * d, indexing="ij"), -1).reshape(-1, d)


@dataclass(frozen=True)
class Pieces:
    """Solution in scaled units: points in the unit box, targets of unit rms.

    Attributes
    ----------
    coef : list of Tensor of shape (N_e, m)
        Coefficients of the products of Legendre polynomials of each piece.
    deviation : Tensor of shape (E, k, m)
        Standard deviations of the solution at `variance_points`.
    noise : Tensor of shape (m,)
        Variance of the data about the solution.
    slope : Tensor of shape (m,)
        Root mean square of the solution's gradient: outside of the pieces the standard deviation
        grows by this for each unit of distance.
    """

    boxes: Boxes
    coef: list[Tensor]
    deviation: Tensor
    noise: Tensor
    slope: Tensor

    def located(self, X: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Piece of each point, and the nearest point of that piece."""
        points = X.double().cpu().numpy()
        nearest = points.clip(0, 1)
        chosen = self.boxes.locate(nearest)
        for i in np.flatnonzero(chosen < 0):
            inside = nearest[i].clip(self.boxes.low, self.boxes.high)
            chosen[i] = int(((inside - nearest[i]) ** 2).sum(1).argmin())
            nearest[i] = inside[chosen[i]]
        return chosen, nearest

    def derivatives(
        self, X: Tensor, orders: tuple[int, ...], where: tuple[np.ndarray, np.ndarray]
    ) -> Tensor:
        """Derivatives (n, m) in the pieces at the points that `located` found."""
        chosen, nearest = where
        like = self.coef[0]
        result = like.new_zeros((len(X), like.shape[1]))
        _, group = np.unique(self.boxes.degree, axis=0, return_inverse=True)
        group = group.reshape(-1)
        for g in np.unique(group[chosen]):
            pieces = np.flatnonzero(group == g)
            index = np.flatnonzero(group[chosen] == g)
            rank = np.searchsorted(pieces, chosen[index])
            local = self.boxes.local(chosen[index], nearest[index])
            degree = self.boxes.degrees(int(pieces[0]))
            columns = PieceColumns(degree, local, like)
            matrix = columns.derivative(orders)
            scale = np.prod((2 / self.boxes.width[chosen[index]]) ** np.array(orders), axis=1)
            coef = torch.stack([self.coef[e] for e in pieces])
            coef = coef[torch.as_tensor(rank, device=like.device)]
            values = torch.einsum("nk,nkm->nm", matrix, coef)
            at = torch.as_tensor(index, device=like.device)
            result[at] = values * torch.as_tensor(scale, device=like.device)[:, None]
        return result

    def _unit(self, feature: int | None) -> tuple[int, ...]:
        return tuple(int(j == feature) for j in range(self.boxes.low.shape[1]))

    def mean(self, X: Tensor) -> Tensor:
        """Solution (n, m); outside of the pieces it goes on with the slope of the nearest point."""
        where = self.located(X)
        mean = self.derivatives(X, self._unit(None), where)
        beyond = X.double() - torch.as_tensor(where[1], device=X.device)
        outside = torch.nonzero((beyond != 0).any(1)).squeeze(1)
        if len(outside):
            index = outside.cpu().numpy()
            part = (where[0][index], where[1][index])
            for j in range(X.shape[1]):
                slope = self.derivatives(X[outside], self._unit(j), part)
                mean[outside] += beyond[outside, j, None] * slope
        return mean.to(X.dtype)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the solution."""
        where = self.located(X)
        parts = [self.derivatives(X, self._unit(j), where) for j in range(X.shape[1])]
        return torch.stack(parts, 1).to(X.dtype)

    def epistemic(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the solution."""
        chosen, nearest = self.located(X)
        d, k = X.shape[1], variance_nodes(X.shape[1])
        local = (self.boxes.nodes(chosen, nearest).clip(-1, 1) + 1) / 2 * (k - 1)
        first = np.minimum(local.astype(int), k - 2)
        share = local - first
        deviation = self.deviation.cpu().numpy()
        found = np.zeros((len(X), deviation.shape[2]))
        for corner in np.ndindex(*[2] * d):
            index = np.zeros(len(X), dtype=int)
            weight = np.ones(len(X))
            for j, side in enumerate(corner):
                index = index * k + first[:, j] + side
                weight *= share[:, j] if side else 1 - share[:, j]
            found += weight[:, None] * deviation[chosen, index]
        distance = ((X.double().cpu().numpy() - nearest) ** 2).sum(1)
        slope = self.slope.square().cpu().numpy()
        variance = found**2 + distance[:, None] * slope
        if X.dtype != torch.float64:
            # Points and values are rounded.
            variance = variance + torch.finfo(X.dtype).eps ** 2 * (1 + slope)
        return torch.as_tensor(variance, dtype=X.dtype, device=X.device)

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at the points X: one Gaussian each."""
        mean = self.mean(X)[:, None, :]
        noise = self.noise.to(X)[None]
        epistemic = self.epistemic(X)[:, None, :] if posterior else torch.zeros_like(mean)
        return Components(X.new_zeros((len(X), 1)), mean, noise, epistemic)

    def log_pi(self, X: Tensor) -> Tensor:
        """Logarithms (n, E) of the partition: 0 in the piece of a point."""
        chosen, _ = self.located(X)
        result = X.new_full((len(X), self.boxes.n_boxes), -torch.inf)
        at = torch.as_tensor(chosen, device=X.device)
        return result.scatter_(1, at[:, None], 0.0)

    def padded(self) -> np.ndarray:
        """Coefficients (E, M, m) in the products of the highest degree of all pieces."""
        top = tuple(int(p) for p in self.boxes.degree.max(0))
        position = {tuple(row): i for i, row in enumerate(exponents(top))}
        result = np.zeros((len(self.coef), len(position), self.coef[0].shape[1]))
        for e, part in enumerate(self.coef):
            index = [position[tuple(row)] for row in exponents(self.boxes.degrees(e))]
            result[e, index] = part.cpu().numpy()
        return result

    def flattened(self, targets: Tensor) -> Pieces:
        """The same with some targets (m,), bool, replaced by their mean."""
        return replace(
            self,
            coef=[part.masked_fill(targets, 0.0) for part in self.coef],
            deviation=self.deviation.masked_fill(targets, 0.0),
            noise=self.noise.masked_fill(targets, 1.0),
            slope=self.slope.masked_fill(targets, 0.0),
        )

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        widest = max(part.numel() for part in self.coef)
        return 3 * widest + self.boxes.n_boxes * self.boxes.low.shape[1]

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        edges = self.boxes.edges
        moving = {} if edges is None else {"edges": edges.series, "edge_column": edges.column}
        return {
            **moving,
            "low": self.boxes.low,
            "high": self.boxes.high,
            "degree": self.boxes.degree.astype(np.int64),
            "coef": np.concatenate([part.cpu().numpy() for part in self.coef]),
            "deviation": self.deviation.cpu().numpy(),
            "noise": self.noise.cpu().numpy(),
            "slope": self.slope.cpu().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Pieces:
        """Rebuild from `arrays`, on the device of `like`, in float64."""
        low, high, degree = (np.asarray(arrays[name]) for name in ("low", "high", "degree"))
        edges = None
        if "edges" in arrays:
            series = np.asarray(arrays["edges"])
            # Which of them are kinked matters to a solve alone.
            edges = Edges(int(arrays["edge_column"]), series, np.zeros(len(low), dtype=bool))
        boxes = Boxes(low, high, degree, edges=edges)
        sizes = [len(exponents(boxes.degrees(e))) for e in range(boxes.n_boxes)]

        def tensor(name: str) -> Tensor:
            return to_tensor(arrays[name], like)

        coef = tensor("coef")
        if len(coef) != sum(sizes):
            raise ValueError(f"the pieces have {sum(sizes)} columns, but {len(coef)} coefficients.")
        parts = list(coef.split(sizes))
        return cls(boxes, parts, tensor("deviation"), tensor("noise"), tensor("slope"))
