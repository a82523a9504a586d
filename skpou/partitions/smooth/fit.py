"""Smooth families in place of pieces where these predict left-out rows worse.

Pieces whose gates were moved need rows to spare, and rows everywhere: where these are few, or lie
on lines, what is smooth is better found without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from skpou.core import Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models import residual_squares
from skpou.partitions.fit import PieceOptions
from skpou.partitions.mixtures.left_out import LeftOutRows
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.pieces.exact import may_be_a_sum
from skpou.partitions.pieces.problem import ROUND_OFF
from skpou.partitions.pieces.spaces import POLYNOMIAL
from skpou.partitions.smooth.families import (
    COUNTS,
    Candidate,
    EvenPartitions,
    OnePolynomial,
    even_partitions,
    scaled_partitions,
)
from skpou.partitions.training import affordable_forms

#: Most rows, and most of rows on lines.
MOST_ROWS, MOST_ON_LINES = 600, 3000
#: Most columns of X where the number of pieces is free, and of so many as are asked for. In more
#: than the first, gates have unknowns for a part of the rows, and what these gain by them at
#: left-out rows, which they have met, makes up for the luck of a search among smooth functions. In
#: more than the second no gain was seen, and rows at the rim took seconds.
MOST_FEATURES, MOST_OF_GIVEN = 3, 5
#: How many of each family and degree, by evidence, are judged by left-out rows.
LIKELIEST = 5
#: How many of the best are confirmed by fits without the left-out rows.
CONFIRMED = 4
#: Left-out error of pieces, in units of y, below which there is nothing to gain.
NEGLIGIBLE = 1e-12
#: Factor by which pieces must predict left-out levels better, so that these are not remembered.
REMEMBERED = 30.0
#: Left-out errors of pieces, in units of their noise, that noise explains: those of folds and of
#: levels add up.
EXPLAINED = 2.0
#: Numbers of partitions that are scaled by the evidence: many, for columns of codes; and the error
#: at left-out rows, in units of y, below which columns are none.
SCALED_COUNTS, CLEAR_ERROR = (8, 20, 50), 0.05
#: Noise, in units of the distance of a target's levels, up to which they are levels: that of
#: rounding is 0.3.
LEVEL_NOISE = 0.1
#: Fewest rows.
LEAST_ROWS = 5
#: Degrees of the polynomials of even partitions, by the number of columns of X. Many constants in
#: partitions that overlap widely are what a Gaussian process makes of few rows.
DEGREES = {1: (0, 5), 2: (3, 5), 3: (2, 3)}
#: Residual, in units of y, beyond which round-off is no proof of pieces: single precision's is met
#: by the polynomials of anything smooth.
MOST_FLOOR = 1e-8
#: Ratio of the smallest to the largest diagonal entry of a factor of full rank.
FULL_RANK = 1e-7
#: Residual, in units of round-off, of pieces that meet all rows.
MEETS_ALL = 3


def smooth_where_better(
    pieces: TrainingResult, rows: Rows, options: PieceOptions, report: Report | None = None
) -> TrainingResult:
    """Smooth functions in place of pieces where left-out rows and levels are predicted better.

    Parameters
    ----------
    pieces : TrainingResult
        Of `fit_pieces` on these rows.
    """
    if not _is_case(rows, options) or _are_exact(pieces.state, rows):
        return pieces
    message = "The pieces are kept; whether a smooth function is better is not known."
    with handing_over(lambda: replace(pieces, code="interrupted", message=message)):
        some = LeftOutRows(rows, _lie_on_contours(pieces.state, rows))
        if rows.n_rows > MOST_ROWS and not some.on_levels:
            return pieces
        errors = some.left_out_by(pieces.state)
        own = some.pooled(errors)
        if own <= NEGLIGIBLE and not some.on_levels:
            return pieces
        best = _best(some, options)
        if best is None:
            return pieces
        if report:
            report(f"left-out error {own:.3g}, {best.fit.left_out:.3g} of smooth functions")
        # Gates that were found with all rows remember levels that are left out; cuts of a line
        # have been searched for no less than smooth functions.
        remembered = some.on_levels and own > EXPLAINED * _noise(pieces.state, rows)
        searched = rows.n_features == 1 and pieces.state.tree.first_soft
        even = searched or rows.n_features > MOST_FEATURES
        fair = REMEMBERED if remembered else 1.0 if even else 1 - 2 / rows.n_rows**0.5
        if not best.fit.left_out < own * fair:
            return pieces
        if searched and _is_luck(best, pieces.state, some, errors):
            return pieces
        state = _in_dtype(best.mixture(), rows)
    return replace(pieces, state=state, chosen=_chosen(state, rows, options))


def _is_case(rows: Rows, options: PieceOptions) -> bool:
    """Whether rows are few, or may lie on lines, and nothing is asked for that forbids it."""
    free = options.alpha is None and not options.soft and options.space == POLYNOMIAL
    one_level = options.sizes is None or len(options.sizes) == 1
    few = LEAST_ROWS <= rows.n_rows <= MOST_ON_LINES
    most = MOST_OF_GIVEN if options.exactly else MOST_FEATURES
    return free and one_level and few and 1 <= rows.n_features <= most


def _are_exact(mixture: Mixture, rows: Rows) -> bool:
    """Whether sharp pieces, each determined by its rows, meet all of them to round-off."""
    if mixture.tree.first_soft < len(mixture.tree.levels) or mixture.n_leaves == 1:
        return False
    diagonal = mixture.experts[-1].factor.diagonal(dim1=-2, dim2=-1).abs()
    full = bool((diagonal.amin(1) > FULL_RANK * diagonal.amax(1)).all())
    floor = MEETS_ALL * ROUND_OFF * torch.finfo(rows.y.dtype).eps
    if floor > MOST_FLOOR:
        return False
    left = float(residual_squares(mixture, rows).sum()) / (rows.total_weight * rows.n_outputs)
    if not full or left > floor**2:
        return False
    return not may_be_a_sum(rows.X, mixture.tree.choose(rows.X)[-1], mixture.basis.n_factors)


def _lie_on_contours(mixture: Mixture, rows: Rows) -> bool:
    """Whether equal targets can be no accident of their noise, or of rounding."""
    if rows.n_features == 1 or rows.n_outputs > 1:
        return False
    gaps = torch.unique(rows.y).diff()
    return len(gaps) > 0 and _noise(mixture, rows) <= LEVEL_NOISE * float(gaps.median())


def _best(rows: LeftOutRows, options: PieceOptions) -> Candidate | None:
    """The member of the families that predicts left-out rows best."""
    found: list[Candidate] = []
    d = rows.rows.n_features
    free = options.degree is None
    degrees = DEGREES[d] if options.degree is None else (options.degree,)
    most = COUNTS[-1] if options.sizes is None else options.sizes[0]
    counts = (most,) if options.exactly else tuple(k for k in COUNTS if k <= most)
    form = affordable_forms(options.gates, rows.rows)[0]
    families: list[OnePolynomial | EvenPartitions] = []
    if free and not options.exactly:
        families.append(OnePolynomial(rows))
    if not families or not rows.on_levels:
        # Partitions that are round know no direction in which rows are far apart.
        families += even_partitions(rows, counts, degrees, form)
    _extend(found, families)
    coded = free and not options.exactly and options.sizes is None and not form.isotropic
    if coded and d > 1 and min((one.fit.left_out for one in found), default=1.0) > CLEAR_ERROR:
        _extend(found, scaled_partitions(rows, SCALED_COUNTS, form))
    if not found:
        return None
    if not rows.on_levels:
        # Evidence knows noise; only lines are what left-out rows alone know.
        found = [one.judged() for one in _likeliest(found)]
    likely = sorted(found, key=lambda one: one.fit.left_out)[:CONFIRMED]
    return min((one.confirmed() for one in likely), key=lambda one: one.fit.left_out)


def _extend(found: list[Candidate], families: Iterable[OnePolynomial | EvenPartitions]) -> None:
    """Add the members of families that do not fail numerically."""
    for family in families:
        with contextlib.suppress(*NUMERICAL_FAILURES):
            found += family.candidates()


def _likeliest(found: list[Candidate]) -> list[Candidate]:
    """Those of largest evidence of each family and degree."""
    of_each: dict[tuple[type, int], list[Candidate]] = {}
    for one in sorted(found, key=lambda one: one.fit.evidence):
        of_each.setdefault((type(one.family), one.family.basis.degree), []).append(one)
    return [one for likely in of_each.values() for one in likely[:LIKELIEST]]


def _is_luck(best: Candidate, pieces: Mixture, rows: LeftOutRows, errors: np.ndarray) -> bool:
    """Whether a smooth function of more parameters gains no more on cuts than noise may make it.

    The rule of one standard error of Breiman et al. (1984), "Classification and Regression Trees",
    section 3.4.3, here of the difference of the two. Pieces whose `errors` (l, m) are larger
    without a cut, or with more parameters, have no claim to be the simpler ones.
    """
    cuts = pieces.n_leaves - 1
    # Each cut has one place, as smooth functions have a width.
    if not cuts or best.degrees() <= pieces.n_leaves * pieces.basis.n_columns + cuts:
        return False
    smooth = best.left_out()
    gain = rows.pooled(errors) ** 2 - rows.pooled(smooth) ** 2
    return gain <= rows.gain_known(smooth, errors)


def _noise(mixture: Mixture, rows: Rows) -> float:
    """Root mean square of the noise at the rows."""
    leaf = mixture.tree.choose(rows.X)[-1]
    return float(mixture.experts[-1].noise[leaf].mean()) ** 0.5


def _in_dtype(mixture: Mixture, rows: Rows) -> Mixture:
    """In the precision of the rows."""
    arrays = mixture.arrays()
    return Mixture.from_arrays(rows.n_features, mixture.degree, arrays, rows.X[:0])


def _chosen(mixture: Mixture, rows: Rows, options: PieceOptions) -> dict:
    form = affordable_forms(options.gates, rows)[0]
    # That of the constant, whose column has the norm of the weights.
    prior = max(float(part.prior.max()) for part in mixture.experts if part.prior is not None)
    ridge = 1 / (rows.total_weight**0.5 * prior)
    return {"degree": mixture.degree, "alpha": ridge, "gate": form}
