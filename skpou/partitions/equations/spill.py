"""What corners that no degree resolves do to the solution elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.equations import Problem
from skpou.partitions.equations.boxes import Boxes, evaluate
from skpou.partitions.equations.model import variance_points
from skpou.partitions.equations.refinement import Child
from skpou.partitions.equations.system import Coefficients
from skpou.partitions.equations.terms import SAME

#: Changes of the solution fall from one cut at a corner to the next by this factor at first, and
#: at least by the other one: cuts are three halvings, of which each falls by about .4.
FIRST_FALL, LEAST_FALL = 0.5, 0.9
#: Power of the width below which a cut lowers a tail where no degree helps: corners by less than 2,
#: what is smooth by the degree.
SINGULAR = 4.0


class Spill:
    """What corners that no degree resolves do to the solution elsewhere.

    Their misfit is shared with all pieces through the least squares, and no tail shows that. What
    one more cut at a corner changes does; what is left are the terms of a geometric series.

    Attributes
    ----------
    singular : ndarray of bool of shape (E,)
        Pieces whose tails fell by a small power of their width when they were cut.
    pieces : ndarray of bool of shape (E,)
        Those of them whose residual is not small enough.
    """

    def __init__(self, problem: Problem):
        term = next((t for t in problem.terms if not t.is_condition), problem.terms[0])
        self.points = term.points.cpu().numpy()
        self.deviation: Tensor | None = None
        self.last: tuple[Boxes, Coefficients] | None = None
        self.change, self.left = 0.0, np.inf
        self.was_cut = False
        self.singular = np.zeros(1, dtype=bool)
        self._children: list[Child] = []
        self._tails = self._scale = np.ones(1)

    def measure(
        self, boxes: Boxes, coef: Coefficients, tails: np.ndarray, misfit: np.ndarray, tol, size
    ) -> float:
        """Relative root mean square of it, at most the largest misfit of such a piece."""
        scale = boxes.width.prod(1) ** (1 / boxes.width.shape[1])
        was_cut = np.zeros(boxes.n_boxes, dtype=bool)
        if self._children:
            # Pieces beyond the domain are gone.
            lows = {tuple(low) for low in boxes.low}
            parents = [c.parent for c in self._children if tuple(c.low) in lows]
            before = self._scale[parents]
            slow = tails * (before / scale) ** SINGULAR > self._tails[parents]
            was_cut = before > scale
            self.singular = np.where(was_cut, slow, self.singular[parents])
        self.pieces = self.singular & (misfit > tol)
        self._tails, self._scale = tails, scale
        self.deviation = None
        if not self.singular.any():
            return 0.0
        most = float(misfit[self.singular].max())
        self.deviation = coef[0].new_tensor(most * size).expand(boxes.n_boxes, 1, -1)
        if self.last is not None and self.was_cut:
            moved = (
                _change((boxes, coef), self.last, self.points).square().mean(0).sqrt().cpu().numpy()
            )
            change = float((moved / size).max())
            fall = min(change / self.change, LEAST_FALL) if self.change else FIRST_FALL
            self.left, self.change = change * fall / (1 - fall), change
            if self.left < most:
                nodes = (variance_points(boxes.low.shape[1]) + 1) / 2
                points = boxes.low[:, None] + boxes.width[:, None] * nodes
                points = points.reshape(-1, boxes.low.shape[1])
                field = _change((boxes, coef), self.last, points)
                squares = field.square().reshape(boxes.n_boxes, len(nodes), -1).mean(1, True)
                self.deviation = fall / (1 - fall) * squares.sqrt()
                # Where the last solution was of the corner itself, it tells no change.
                near = torch.as_tensor(was_cut, device=squares.device)
                self.deviation[near] = self.deviation.amax(0)
        self.last = boxes, coef
        return min(self.left, most)

    def around(self, boxes: Boxes, marks: np.ndarray) -> np.ndarray:
        """Pieces at the corner of one that is cut, as wide or wider: their misfit spills, too."""
        found = np.zeros(boxes.n_boxes, dtype=bool)
        for e in np.flatnonzero(self.pieces & marks):
            # The corner that a half of a half of the box shares with what it is a half of.
            place = np.round(boxes.low[e] / boxes.width[e]).astype(np.int64)
            corner = (place + (place & 1)) * boxes.width[e]
            touching = (boxes.low <= corner + SAME).all(1) & (boxes.high >= corner - SAME).all(1)
            found |= touching & (boxes.width >= boxes.width[e] - SAME).all(1)
        return found

    def pass_on(self, children: list[Child]) -> None:
        """Take the next partition."""
        self._children = children


def _change(
    new: tuple[Boxes, Coefficients], old: tuple[Boxes, Coefficients], points: np.ndarray
) -> Tensor:
    """Change (n, m) from one solution to another at some points."""
    orders = (0,) * points.shape[1]
    return evaluate(*new, points, orders) - evaluate(*old, points, orders)
