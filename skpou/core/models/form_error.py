"""The error of a form between the rows, which the posterior of its coefficients does not know.

A fit that is exact at the rows says nothing between them. The variance that is added to the
posterior's is ``(s a(x) P(x))^2``: P the power function of a kernel, the standard deviation of a
Gaussian process without noise given the nearest rows, s its size, a the local size of the errors.
Kernel, length and s are those under which left-out errors of the chosen form are most likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows, judging_generator
from skpou.core.draws import sobol_points
from skpou.core.linalg import NUMERICAL_FAILURES, TINY
from skpou.core.models.aliases import aliased_levels
from skpou.core.models.cross_validation import (
    N_FOLDS,
    LeftOut,
    Makers,
    left_out_errors,
    makers_of_target,
    sets_to_leave_out,
)
from skpou.core.models.discrepancy import Discrepancy, hidden_by_noise
from skpou.core.models.jumps import Jumps, find_jumps
from skpou.core.models.level_error import (
    LEAST_GAIN,
    SHARE_OF_ERROR,
    LevelError,
    claimed_too_much,
    fit_level_errors,
    is_noisy,
    on_levels,
    rows_near,
    sets_of_levels,
)
from skpou.core.models.model import Predictor
from skpou.core.models.outside import Outside, Side, SideDoubts, fit_outside, runaway, sides_of
from skpou.core.models.power_function import NearRows, WeighedKernels, double

#: Left-out errors that kernel, length and size are chosen by.
MOST_ERRORS = 256
#: Rows at which the mean's slopes are taken.
MOST_SLOPES = 256
#: Columns along which the mean hardly changes count a twentieth of the steepest one.
LEAST_SCALE = 0.05
#: Errors near a point that tell their local size, as a share and at least; errors' worth of prior.
SHARE_NEAR, LEAST_NEAR, PRIOR_ERRORS = 1 / 8, 6, 3.0
#: Error of the solution itself, in units of y: no standard deviation is below it.
ROUND_OFF = 6e-13
#: Error, in units of y, beyond which nothing more is said.
MOST_ERROR = 1e8
#: Points of the box at which a model's own variance is asked for, and the part of that of errors at
#: left-out rows below which it does not know them: a fifth of their standard deviation.
N_PROBES, SURER = 64, 0.04
#: Largest ratio of a squared error to the one expected.
MOST_RATIO = 1e8
#: Slope, and distance between rows, of the unit box that are as good as none.
NO_SLOPE = NO_DISTANCE = 1e-12


@dataclass(frozen=True)
class FormError:
    """A variance of one target's mean beside that of the coefficients.

    Attributes
    ----------
    scales : ndarray of shape (d,)
        Factors of the scaled coordinates: how much the mean changes along each.
    points : ndarray of shape (k, d)
        Rows that are kept, in coordinates times `scales`; none where errors at left-out rows are
        no larger than the noise and the coefficients' posterior have them.
    kernels : dict
        See `WeighedKernels`; sizes are standard deviations s far from all rows, in scaled units.
    least : float
        Standard deviation between the rows that no kernel goes below.
    largest : float
        Largest target at the rows, in scaled units: what lies far beyond has not been seen.
    places : ndarray of shape (l, d)
        Where rows were left out.
    ratio, square : ndarray of shape (l,)
        Squared error there over the one expected, and by itself, both without the noise's part.
    levels : list of dict
        What is added between the levels of columns; see `LevelError`.
    discrepancy : dict, default=None
        What noise hides of the form's error, see `Discrepancy`; None where the fit is exact.
    knows_outside : bool, default=False
        Whether the model's own variance is that of the mean outside the box, too.
    sides : dict, default=None
        What part of the doubt counts nevertheless, see `SideDoubts`; None: none does.
    across : float, default=None
        Factor of what the model's own variance grows by between levels. None: they do not tell.
    outside : dict, default=None
        What part of the doubt outside the box is borne out, see `Outside`; None: nothing is.
    jumps : dict, default=None
        Where the mean jumps between rows, see `Jumps`; None where it does not.
    """

    scales: np.ndarray
    points: np.ndarray
    kernels: dict[str, Any]
    least: float
    largest: float
    places: np.ndarray
    ratio: np.ndarray
    square: np.ndarray
    levels: list[dict[str, Any]]
    discrepancy: dict[str, Any] | None = None
    knows_outside: bool = False
    sides: dict[str, np.ndarray] | None = None
    across: float | None = None
    outside: dict[str, Any] | None = None
    jumps: dict[str, np.ndarray] | None = None

    def variance(self, X: np.ndarray) -> np.ndarray:
        """Variance (n,) at scaled points X (n, d)."""
        result = np.zeros(len(X))
        for level in self.level_errors:
            result += level.variance(X)
        return result + self._between_rows(X)

    def jumped(self, X: np.ndarray) -> np.ndarray:
        """Variance (n,) by the places of jumps at scaled points X (n, d)."""
        return np.zeros(len(X)) if self._jumps is None else self._jumps.variance(X)

    def hidden(self, X: np.ndarray) -> np.ndarray:
        """What usual noise hides of the form's variance (n,) at scaled points X (n, d)."""
        found = self._discrepancy
        return np.zeros(len(X)) if found is None else found.variance(X)

    @property
    def usual_noise(self) -> float:
        """Variance of the noise by which `hidden` was told."""
        return 1.0 if self._discrepancy is None else self._discrepancy.noise

    def _between_rows(self, X: np.ndarray) -> np.ndarray:
        """Variance (n,) that errors at left-out rows have told, at scaled points X (n, d)."""
        if not len(self.points):
            return np.zeros(len(X))
        # How rough errors are along lines says nothing of what is across them.
        Z = (X if self.across is None else on_levels(X, self.level_errors)) * self.scales
        power = self._weighed.variance(NearRows.of(Z, self.points, self._tree_of_points))
        ratio, square = self._local(Z)
        floor = np.maximum(SHARE_OF_ERROR**2 * square, self.least**2)
        return power * np.maximum(ratio, 1.0) + floor

    @property
    def is_known(self) -> bool:
        """Whether rows tell a variance anywhere in the box."""
        return bool(len(self.points) or self.levels or self.jumps)

    def correlation(self, X: Tensor) -> Tensor:
        """The kernel (n, n) between scaled points X (n, d)."""
        if self._discrepancy is not None and not len(self.points):
            return self._discrepancy.correlation(X)
        Z = X * double(self.scales)
        distance = torch.cdist(Z, Z, compute_mode="donot_use_mm_for_euclid_dist")
        return WeighedKernels(**self.kernels).correlation(distance)

    def _local(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Local size (n,) of the squared errors beside the expected one, and by itself."""
        count = min(len(self.places), max(LEAST_NEAR, int(SHARE_NEAR * len(self.places))))
        distance, near = self._tree_of_places.query(Z, k=count)
        distance, near = distance.reshape(len(Z), count), near.reshape(len(Z), count)
        weight = np.exp(-0.5 * (distance / (distance[:, -1:] / 2 + NO_DISTANCE)) ** 2)
        total = weight.sum(1)
        ratio = ((weight * self.ratio[near]).sum(1) + PRIOR_ERRORS) / (total + PRIOR_ERRORS)
        size = (weight * np.sqrt(self.square[near])).sum(1) / total
        return ratio, size**2

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays, those left out that are as by default."""
        state = {part.name: getattr(self, part.name) for part in fields(self)}
        defaults = {part.name: part.default for part in fields(self) if part.default is not MISSING}
        return {k: v for k, v in state.items() if k not in defaults or v != defaults[k]}

    @cached_property
    def level_errors(self) -> tuple[LevelError, ...]:
        """What is added between the levels of columns."""
        return tuple(LevelError(**level) for level in self.levels)

    @cached_property
    def _jumps(self) -> Jumps | None:
        return None if self.jumps is None else Jumps(**self.jumps)

    @cached_property
    def _discrepancy(self) -> Discrepancy | None:
        return None if self.discrepancy is None else Discrepancy(**self.discrepancy)

    @cached_property
    def part_outside(self) -> Outside | None:
        """What part of the doubt outside the box is borne out."""
        return None if self.outside is None else Outside(**self.outside)

    def doubted(self, X: np.ndarray) -> np.ndarray:
        """Part (n,) of the doubt outside the box, at scaled points X (n, d)."""
        if not self.knows_outside:
            return np.ones(len(X))
        return np.zeros(len(X)) if self.sides is None else SideDoubts(**self.sides)(X)

    @cached_property
    def _weighed(self) -> WeighedKernels:
        return WeighedKernels(**self.kernels)

    @cached_property
    def _tree_of_points(self) -> cKDTree:
        return cKDTree(self.points)

    @cached_property
    def _tree_of_places(self) -> cKDTree:
        return cKDTree(self.places)


def leave_out(makers: Sequence[Makers], rows: Rows) -> list[LeftOut] | None:
    """Errors at left-out rows, in float64, one for each target; None: none can be left out.

    The makers are of the model's weighted columns, for one or several ridges: one list for all
    targets, or one for each. None, too, where columns cannot be solved for.
    """
    if rows.n_rows < 3 or not rows.n_features or not makers:
        return None
    sets = sets_to_leave_out(rows.X.cpu().numpy(), judging_generator())
    return _left_out_in(makers, rows, sets)


def _left_out_in(
    makers: Sequence[Makers], rows: Rows, sets: list[np.ndarray]
) -> list[LeftOut] | None:
    """Errors without each of some sets, one for each target; None where these are not found."""
    found: list[LeftOut] = []
    for target in range(rows.n_outputs):
        one = rows.of_target(target)
        own = makers_of_target(makers[min(target, len(makers) - 1)], target)
        try:
            left_out = _bounded(left_out_errors(own, one, sets))
            if isinstance(own, list):
                left_out = replace(left_out, maker=own[0])
        except NUMERICAL_FAILURES:
            return None
        if not len(_known(left_out)):
            return None
        found.append(left_out)
    return found


def leave_out_sides(
    makers: Sequence[Makers], rows: Rows
) -> tuple[list[Side], list[LeftOut]] | None:
    """Errors at rows next to the sides of the box, one for each target; see `leave_out`."""
    X = rows.X.cpu().numpy()
    sides = sides_of(X)
    if not sides or rows.n_rows < 3:
        return None
    folds = sets_to_leave_out(X, judging_generator())[: min(N_FOLDS, rows.n_rows)]
    found = _left_out_in(makers, rows, [*folds, *(side.rows for side in sides)])
    return None if found is None else (sides, found)


def fit_form_errors(
    model: Predictor,
    found: list[LeftOut],
    rows: Rows,
    sides: tuple[list[Side], list[LeftOut]] | None = None,
) -> list[FormError]:
    """For each target kernel, length and size under which its left-out errors are most likely.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows.
    found : list of LeftOut
        What `leave_out` returned for its columns.
    rows : Rows
        Those that are kept, in float64.
    sides : tuple, default=None
        What `leave_out_sides` returned for its columns. None: they do not tell.
    """
    X = rows.X.cpu().numpy()
    forms: list[FormError] = []
    sets = sets_of_levels(found[0], X) if found else {}
    slopes: np.ndarray | None = None
    claimed = _claimed(model, rows) if found else np.zeros(0)
    for target, left_out in enumerate(found):
        some = _known(left_out)
        if sets:
            # Without a neighbourhood of a grid only levels are extrapolated, as they are alone.
            some = some[left_out.group[some] < left_out.n_folds]
        some = some[~left_out.beyond(X)[some]]
        slopes = _slopes(model, rows.X) if slopes is None else slopes
        scales = np.maximum(slopes[:, target] / slopes[:, target].max(), LEAST_SCALE)
        left_out = _as_claimed(left_out, float(claimed[target]), some)
        varies = rows.precision is not None
        form = _calibrated(X * scales, scales, left_out, some, bool(sets), varies)
        form = form or _none(rows.n_features)
        told = fit_level_errors(left_out, X, sets, varies)
        across = claimed_too_much(left_out, sets) if told and left_out.refitted else None
        levels = [one.arrays() for one in aliased_levels(model, rows.X, told, target)]
        hidden = hidden_by_noise(X, scales, left_out, rows, target)
        largest = float(rows.y[:, target].abs().max())
        form = replace(form, discrepancy=hidden)
        form = replace(form, largest=largest, levels=levels, across=across)
        forms.append(form if sides is None else _with_sides(form, model, rows, sides, target))
    return forms


def _with_sides(
    form: FormError,
    model: Predictor,
    rows: Rows,
    sides: tuple[list[Side], list[LeftOut]],
    target: int,
) -> FormError:
    """The same with what rows at the sides of the box tell of one target."""

    def doubt_of(near: np.ndarray, there: np.ndarray) -> np.ndarray:
        points = (torch.as_tensor(part, device="cpu").to(rows.X) for part in (near, there))
        return runaway(model, *points)[:, target].double().cpu().numpy()

    found = fit_outside(sides[0], sides[1][target], rows.X.cpu().numpy(), doubt_of)
    return form if found is None else replace(form, outside=found.arrays())


def _known(left_out: LeftOut) -> np.ndarray:
    """Numbers of the errors of one target that are finite, and so are their variances."""
    return np.flatnonzero(np.isfinite(left_out.error) & np.isfinite(left_out.variance))


def _bounded(left_out: LeftOut) -> LeftOut:
    """The same with no error so large that its square overflows."""
    error = np.clip(left_out.error, -MOST_ERROR, MOST_ERROR)
    return replace(left_out, error=error, variance=np.minimum(left_out.variance, MOST_ERROR**2))


def _claimed(model: Predictor, rows: Rows) -> np.ndarray:
    """Median variance (m,) that the model promises for targets in the box, of each target.

    Where the noise varies it is that at the rows.
    """
    if rows.precision is not None:
        noise, epistemic = model.components(rows.X).variances()
        return (noise / rows.weight[:, None] + epistemic).double().median(0).values.cpu().numpy()
    probes = sobol_points(rows.n_features, N_PROBES, seed=0).to(rows.X)
    epistemic, noise = model.components(probes).variances()
    return (epistemic + noise).double().median(0).values.cpu().numpy()


def _as_claimed(left_out: LeftOut, claimed: float, some: np.ndarray) -> LeftOut:
    """The same with variances no larger than what the model promises, if it promises less by far.

    The variances are those of the noise with which errors are told. A form that takes the rows for
    exact has no such noise: what it errs by is all its own.
    """
    typical = float(np.median(left_out.variance[some])) if len(some) else 0.0
    if not claimed < SURER * typical:
        return left_out
    part = claimed / typical
    return replace(left_out, variance=part * left_out.variance, noise=part * left_out.noise)


def with_jumps(forms: Sequence[FormError], model: Predictor, rows: Rows) -> list[FormError]:
    """The same, which know where the model's mean jumps between the rows."""
    found = find_jumps(model, rows)
    return [
        form if jumps is None else replace(form, jumps=jumps.arrays())
        for form, jumps in zip(forms, found, strict=True)
    ]


def no_form_errors(rows: Rows) -> list[FormError]:
    """For each target that no error of the form is known between the rows, only outside of them."""
    largest = rows.y.double().abs().amax(0).tolist()
    return [replace(_none(rows.n_features), largest=value) for value in largest]


def _none(n_features: int) -> FormError:
    """No error of the form."""
    no_row = np.zeros((0, n_features))
    scales, no_ratio = np.ones(n_features), np.zeros(0)
    kernels = WeighedKernels.none().arrays()
    return FormError(scales, no_row, kernels, 0.0, 0.0, no_row, no_ratio, no_ratio, [])


def _slopes(model: Predictor, X: Tensor) -> np.ndarray:
    """Root mean squares (d, m) of the mean's gradient over some of the rows."""
    chosen = judging_generator().permutation(len(X))[:MOST_SLOPES]
    slopes = model.gradient(X[torch.as_tensor(np.sort(chosen), device=X.device)]).double()
    return slopes.square().mean(0).sqrt().cpu().numpy() + NO_SLOPE


def _calibrated(
    Z: np.ndarray,
    scales: np.ndarray,
    left_out: LeftOut,
    some: np.ndarray,
    gridded: bool,
    varies: bool,
) -> FormError | None:
    """From some of the errors; None where noise explains them, or nothing but levels tells it."""
    some = np.sort(judging_generator().permutation(some)[:MOST_ERRORS])
    row = left_out.row[some]
    error, variance = left_out.error[some, 0], left_out.variance[some, 0]
    rows = NearRows(double(Z[row]), double(Z[rows_near(Z, left_out, some)]))
    group = left_out.group[some]
    worth = (left_out.count / np.array([len(part) for part in left_out.sets]))[group]
    kernels, gain = WeighedKernels.likeliest(error**2, variance, rows, worth)
    # Length and size cost what two parameters do in Schwarz's criterion.
    least_gain = max(LEAST_GAIN, math.log(float(worth.sum())))
    noisy = is_noisy(variance, varies)
    if noisy and (gridded or gain < least_gain):
        return None
    expected = kernels.variance(rows)
    total = expected + variance + ROUND_OFF**2
    # Share of each error that is the form's: with noise there are tails that are not.
    own = expected / total if noisy else np.ones_like(total)
    # The likeliest kernel may be too smooth for some errors: these are held, too.
    kernels = kernels.holding(error / np.sqrt(total), float(own.mean()))
    expected = np.maximum(kernels.variance(rows), TINY)
    ratio = np.minimum((error**2 - variance) / expected, MOST_RATIO)
    ratio = np.where(own < 1, 1 + own * (ratio - 1), np.maximum(ratio, 0))
    # A smooth kernel promises more between the rows than errors at rows can confirm.
    least = SHARE_OF_ERROR * float(np.median(own * np.abs(error)))
    square = own * np.maximum(error**2 - variance, 0)
    return FormError(scales, Z, kernels.arrays(), least, 0.0, Z[row], ratio, square, [])
