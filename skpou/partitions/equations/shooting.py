"""Unknown constants of equations that are marched: their derivatives travel with the slabs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, all_but
from skpou.core.linalg import TINY, free_rows, ridge_coefficients
from skpou.equations import Problem, inside
from skpou.partitions.equations.boxes import evaluate
from skpou.partitions.equations.columns import PieceColumns
from skpou.partitions.equations.march import March, NotMarched, Slab
from skpou.partitions.equations.model import variance_points
from skpou.partitions.equations.system import RIDGE

#: Most Gauss-Newton steps on the unknowns, and halvings of one.
STEPS, HALVINGS = 15, 6
#: Largest change of an unknown in one step, as a share of its size.
TRUST = 0.5
#: Tail of the coefficients in slabs beside noisy values, and noise in units of it that is enough.
COARSE, FINER = 1e-6, 1e3
#: Change of an unknown, in its standard deviations and relative to itself, that ends the steps.
LAST_DEVIATIONS, LAST_SHARE = 0.01, 1e-10
#: Variance of the values, in units of theirs, below which deviations are of round-off.
EXACT = 1e-16


class Shooting:
    """Least squares of measured values over the unknowns, each solve a march.

    Parameters
    ----------
    march : callable
        Takes a column, unknowns, rows, a tolerance and slabs to begin with, and returns a `March`
        that has not run.
    inner : ndarray of int
        Rows that are measured values.
    unknowns : Tensor of shape (q,)
        First values.
    """

    def __init__(self, march: Callable, rows: Rows, problem: Problem, column: int,
                 inner: np.ndarray, unknowns: Tensor):  # fmt: skip
        self.make, self.problem, self.column = march, problem, column
        index = torch.as_tensor(inner, device=rows.X.device)
        self.measured = rows.subset(index)
        self.given = rows.subset(all_but(rows.n_rows, index))
        self.unknowns = unknowns
        self.before: list[Slab] = []
        self.noise = rows.y.new_zeros(rows.n_outputs)
        self.deviations: list[float] = []
        self.R = torch.eye(len(unknowns), dtype=rows.X.dtype, device=rows.X.device)
        self.covariance = rows.X.new_zeros((len(unknowns), len(unknowns)))

    def run(self) -> March:
        """Steps on the unknowns; the march of the best.

        Slabs are as fine as the noise of the measured values asks for.
        """
        self.coarse = bool(len(self.unknowns))
        found = self._descended()
        deviation = float(found[1].square().mean().sqrt()) if len(found[1]) else 0.0
        if self.coarse and deviation < FINER * COARSE:
            self.coarse = False
            found = self._descended()
        march, residual, slopes = found
        self._judge(residual, slopes)
        return march

    def _descended(self) -> tuple[March, Tensor, Tensor]:
        """March, residuals and slopes after the last step."""
        limits = list(self.problem.unknowns.values())
        march, residual, slopes = self._solved(self.unknowns)
        for _ in range(STEPS if len(limits) and len(residual) else 0):
            step, R = ridge_coefficients(slopes, residual[:, None], RIDGE)
            step = step[:, 0]
            variance = float(residual.square().sum()) / max(len(residual) - len(limits), 1)
            most = TRUST * torch.maximum(self.unknowns.abs(), self.unknowns.new_tensor(TINY))
            step = torch.maximum(torch.minimum(step, most), -most)
            spread = self._covariance(R, variance).diagonal().sqrt()
            small = (step.abs() <= LAST_DEVIATIONS * spread) & (variance > EXACT)
            small |= step.abs() <= LAST_SHARE * self.unknowns.abs()
            if bool(small.all()):
                break
            moved = False
            for halving in range(HALVINGS):
                tried = inside(self.unknowns + 0.5**halving * step, limits)
                try:
                    found = self._solved(tried)
                except NotMarched:
                    continue  # There is no solution with such unknowns.
                if float(found[1].square().sum()) < float(residual.square().sum()):
                    self.unknowns, (march, residual, slopes), moved = tried, found, True
                    break
            if not moved:
                break
        return march, residual, slopes

    def _solved(self, unknowns: Tensor) -> tuple[March, Tensor, Tensor]:
        """March, weighted residuals (n m,) of the measured values and their slopes (n m, q)."""
        tol = COARSE if self.coarse else None
        # Slabs of the last solution, whose unknowns are others, are much the same.
        march = self.make(self.column, unknowns, self.given, tol, self.before).run()
        if len(unknowns) and march.end < 1.0:
            raise NotMarched(f"no solution after {march.end:.3g} of column {self.column}")
        self.before = march.slabs
        X = self.measured.X.cpu().numpy()
        q, m = len(unknowns), self.measured.n_outputs
        values = self.measured.y.new_zeros((len(X), m))
        slopes = values.new_zeros((len(X), m, q))
        for slab in march.slabs:
            index = np.flatnonzero(self._within(X, slab))
            at = torch.as_tensor(index, device=values.device)
            orders = (0,) * X.shape[1]
            values[at] = evaluate(slab.boxes, slab.coef, X[index], orders)
            for i, part in enumerate(slab.tangents):
                slopes[at, :, i] = evaluate(slab.boxes, part, X[index], orders)
        root = self.measured.weight.sqrt()[:, None]
        residual = (root * (self.measured.y - values)).reshape(-1)
        return march, residual, (root[..., None] * slopes).reshape(len(residual), q)

    def _within(self, X: np.ndarray, slab) -> np.ndarray:
        low = slab.boxes.low[0, self.column]
        after = X[:, self.column] > low if low > 0 else X[:, self.column] >= low
        return after & (X[:, self.column] <= slab.boxes.high[0, self.column])

    @staticmethod
    def _covariance(R: Tensor, variance: float) -> Tensor:
        eye = torch.eye(len(R), dtype=R.dtype, device=R.device)
        inverse = torch.linalg.solve_triangular(R, eye, upper=True)
        return variance * inverse @ inverse.T

    def _judge(self, residual: Tensor, slopes: Tensor) -> None:
        """Noise of the measured values, and the posterior of the unknowns."""
        n, m, q = self.measured.n_rows, self.measured.n_outputs, len(self.unknowns)
        squares = residual.reshape(n, m).square().sum(0) + self.measured.within.sum(0)
        total = float(self.measured.weight.sum())
        self.noise = squares / max(free_rows(total, q / m), TINY)
        if q and n:
            self.R = ridge_coefficients(slopes, residual[:, None], RIDGE)[1]
            self.covariance = self._covariance(self.R, float(self.noise.mean()))
        self.deviations = [math.sqrt(v) for v in self.covariance.diagonal().tolist()]

    def widened(self, deviation: Tensor, march: March) -> Tensor:
        """Deviations (E, k, m) with what the unknowns' uncertainty does to the solution."""
        if not len(self.unknowns):
            return deviation
        start, found = 0, []
        for slab in march.slabs:
            boxes = slab.boxes
            d = boxes.low.shape[1]
            nodes = variance_points(d)
            for e in range(boxes.n_boxes):
                phi = PieceColumns(boxes.degrees(e), nodes, deviation).derivative((0,) * d)
                moves = torch.stack([phi @ part[e] for part in slab.tangents], 2)
                variance = torch.einsum("kmi,ij,kmj->km", moves, self.covariance, moves)
                found.append((deviation[start].square() + variance.clamp_min(0)).sqrt())
                start += 1
        return torch.stack(found)
