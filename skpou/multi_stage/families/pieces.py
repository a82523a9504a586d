"""The family of pieces: polynomials that sharp gates separate, for targets with kinks and jumps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skpou.core import Basis, TotalDegreePolynomials
from skpou.partitions import PartitionTree, PieceOptions, fit_sharp_pieces, have_sharp_pieces
from skpou.search import LAVISH, Candidate, RidgePath, Seen, Task

#: Error relative to the rms of y below which no kink is left in what a smooth basis leaves over.
ENOUGH = 1e-6
#: Fewest rows: two pieces and the gate between them take about as many parameters as half of them.
FEWEST_ROWS = 20
#: Factor by which pieces must be better at least, as the best of a search among many.
HANDICAP = 1.1
#: Rows that are looked at first, where there are at least so many times more.
PILOT_ROWS, TIMES_MORE = 600, 2
#: Stream of the task's seed: any number that no other family has.
STREAM = 12


class PieceColumns(Basis, kind="pieces"):
    """Polynomials of each leaf of a tree of gates, times the leaf's share of the point.

    Parameters
    ----------
    tree : PartitionTree
        Gates: sharp ones at kinks, soft ones below.
    """

    def __init__(self, tree: PartitionTree, degree: int):
        self.tree, self.degree, self.n_features = tree, degree, tree.n_features
        self.polynomials = TotalDegreePolynomials(tree.n_features, degree)
        self.n_pieces = tree.levels[-1].n_partitions
        self.n_columns = self.n_pieces * self.polynomials.n_columns
        # Which piece a point outside is in decides which of them runs away.
        self.n_running = self.n_columns

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate; see `Basis.matrix`."""
        return (self._shares(X)[:, :, None] * self.polynomials.matrix(X)[:, None]).flatten(1)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Derivatives, across sharp gates those of the piece; see `Basis.partial`."""
        rate = self.tree.log_proba_partial(X.double(), feature).to(X)
        slopes = rate[:, :, None] * self.polynomials.matrix(X)[:, None]
        slopes += self.polynomials.partial(X, feature)[:, None]
        return (self._shares(X)[:, :, None] * slopes).flatten(1)

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """Each point by its own piece's polynomial, if there is one; see `Basis.evaluate`."""
        if self.tree.first_soft < len(self.tree.levels):
            return super().evaluate(X, coef)
        leaf = self.tree.choose(X.double())[-1]
        own = coef.to(X).reshape(self.n_pieces, -1, coef.shape[1])[leaf]
        return (self.polynomials.matrix(X)[..., None] * own).sum(1)

    def _shares(self, X: Tensor) -> Tensor:
        return self.tree.log_proba(X.double(), harden=True).exp().to(X)

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {"tree": self.tree.arrays(), "degree": self.degree, "n_features": self.n_features}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> PieceColumns:
        """Rebuild from `arrays`, on the device of `like`."""
        tree = PartitionTree.from_arrays(arrays["n_features"], arrays["tree"], like.double())
        return cls(tree, arrays["degree"])


def pieces_candidate(task: Task, basis: PieceColumns) -> Candidate:
    """Coefficients of found pieces by evidence, with their errors calibrated between the rows."""
    rows = task.rows
    path = RidgePath(basis.matrix(rows.X), rows)
    alpha, score = path.evidence()
    spread, dof = path.spread(alpha), path.dof(alpha)
    gap = spread * path.probed(alpha, basis.matrix(task.probes))
    # Left-out errors do not know that edges were searched for, too (as of `grow_units`).
    edges = sum(gate.theta.numel() - gate.theta.shape[1] for gate in basis.tree.levels)
    n, found = rows.n_rows, dof + edges
    return Candidate.from_path(
        "pieces",
        basis,
        path,
        alpha,
        gap,
        evidence=score,
        n_units=basis.n_columns,
        handicap=max(HANDICAP, (n + found) / max(n - found, 1.0)),
    )


class SharpPieces:
    """Pieces of HierarchicalPOURegressor, where all that separates them are kinks and jumps.

    Tried where columns are few enough for gates, and smooth bases leave more than digits that is
    no noise, or let in so much noise that pieces may let in less. Smooth functions have no sharp
    pieces, and then none are offered.
    """

    name: ClassVar[str] = "pieces"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Where something is left that may be kinks; see `Family.worth_trying`."""
        free = task.alpha is None and not task.is_table and task.rows.n_rows >= FEWEST_ROWS
        lavish = seen.best.dof > LAVISH * task.rows.n_rows
        return free and self._left(seen) > ENOUGH and (lavish or not seen.noise)

    @staticmethod
    def _left(seen: Seen) -> float:
        return min(max(c.calibrated, c.leave_one_out) for c in seen.candidates)

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """One search for pieces; see `Family.fit`."""
        options, rows = PieceOptions(tol=task.tol), task.rows
        # Pieces of low degree that leave more at their own rows than others err at left-out ones
        # are hopeless: it spares smooth targets most of the search.
        hopeless = self._left(seen)
        if rows.n_rows >= TIMES_MORE * PILOT_ROWS:
            some = task.generator(STREAM).choice(rows.n_rows, PILOT_ROWS, replace=False)
            pilot = rows.subset(torch.as_tensor(np.sort(some), device=rows.X.device))
            # Few rows find fewer pieces than many, but some of them.
            if not have_sharp_pieces(pilot, options, task.generator(STREAM), hopeless):
                return
            hopeless = math.inf
        found = fit_sharp_pieces(rows, options, task.generator(STREAM), hopeless)
        if found is not None and found.state.n_leaves > 1:
            basis = PieceColumns(found.state.tree, found.state.degree)
            yield seen.with_candidate(pieces_candidate(task, basis))
