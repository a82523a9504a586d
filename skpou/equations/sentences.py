"""What is said of a solution that is none, or not known."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Sentence(str, Enum):
    """Templates, to be formatted.

    Shares are those of the size of the equations' terms, or of the values and the range of the
    solution.
    """

    OPEN = (
        "Equations, conditions and data leave {} direction{} of the solution open: of many "
        "solutions one is given. Add the conditions that are missing."
    )
    UNSOLVED = (
        "The equations are not solved: at fresh points their residual is {:.1e} of the size of "
        "their terms. HierarchicalPOURegressor resolves steep fronts and layers; or give more "
        "points or other starts, or check that equations and data have a common solution."
    )
    UNSOLVED_BY_PIECES = (
        "The equations are not solved: at fresh points their residual is {:.1e} of the size of "
        "their terms. Allow more pieces, give more points, or check that they and the data have "
        "a common solution."
    )
    FAR = (
        "The equations hold to {:.1e} of the size of their terms only, at fresh points: the "
        "basis does not resolve the solution. HierarchicalPOURegressor resolves steep fronts and "
        "layers; or give more points."
    )
    UNMET = (
        "Values on faces of the box are not met: they are off by {:.1e} of their size. They are "
        "noisy, or contradict each other or the equations."
    )
    JUMPS = (
        "The equations are not solved: between their points the solution jumps by {:.1e} of its "
        "range, where no residual tells of it. Take hidden_layer_sizes='auto', solver='lsgd' or "
        "HierarchicalPOURegressor."
    )
    BROKEN = (
        "Conditions are not met: at their points they are off by {:.1e} of the size of their "
        "terms. Check that they, the data and the equations do not contradict each other."
    )
    UNDETERMINED = (
        "The unknowns {} are not determined: other values of them solve the equations as well. "
        "Give more data, or hold one of them."
    )
    HELD = (
        "The unknowns {} ended at a bound, where their standard deviations say nothing. Widen "
        "the bounds, or check the equations and the data."
    )
    SMOOTH_ALONE = (
        "The unknowns {} are told by the smoothness of the solution alone: other values have "
        "solutions with fewer derivatives, and a network may end at any of them. Give more data, "
        "or take hidden_layer_sizes='auto', which goes from smooth to rough."
    )
    COARSE = (
        "The boxes do not resolve the solution: equations, faces or data are off by {:.1e} of "
        "its size. Raise n_partitions or degree; HierarchicalPOURegressor chooses both."
    )
    UNCERTAIN = (
        "Pieces do not resolve the solution: it is known to {:.1e} of its size only. Where "
        "equations hold at given points, more of these allow more pieces; else raise "
        "n_partitions."
    )
    TOO_LARGE = (
        "Pieces do not resolve the solution to tol: more of them would take above {:g} GB of "
        "memory. Check that equations, conditions and data have a common solution, or raise tol."
    )
    ENDED = (
        "No solution is found beyond {:.6g} of column {}: there it grows without bound, or is "
        "not smooth. Its last values stand for what comes after; end the points and data before."
    )

    def about(self, names: Iterable[str]) -> str:
        """The sentence about these unknowns."""
        return self.format(", ".join(map(repr, names)))
