"""Whether a Gaussian process predicts left-out rows better than a fit of few rows, and its bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, drawn_points
from skpou.core.draws import sobol_points
from skpou.core.linalg import NUMERICAL_FAILURES, TINY
from skpou.core.models.aliases import columns_of_few_levels
from skpou.core.models.covariance import median_std
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.end_tangents import EndTangents, fit_end_tangents
from skpou.core.models.form_error import fit_form_errors, no_form_errors
from skpou.core.models.interpolant import Interpolant
from skpou.core.models.kernel_average import likely_kernels, of_average
from skpou.core.models.kernel_left_out import kernel_left_out, left_out_anew
from skpou.core.models.level_error import sets_of_levels
from skpou.core.models.level_gaps import asked_by_gaps
from skpou.core.models.likely_kernels import (
    CONSTANT,
    MANY_ROWS,
    N_OTHERS,
    NUGGET,
    KernelChoice,
    evidence_of,
    is_bent,
    likeliest_kernel,
)
from skpou.core.models.local_size import LocalSize, fit_local_size
from skpou.core.models.mixed_residues import are_alike
from skpou.core.models.model import Predictor
from skpou.core.models.outside import Side, fit_side_doubts, sides_of
from skpou.core.models.process_fit import CLEAR_OF_NOISE, MOSTLY_NOISE
from skpou.core.models.tails import CLEAR_NOISE

#: Fewest rows, most of them, most columns, and fewest rows for each column: more rows tell a form.
FEWEST_ROWS, MOST_ROWS, MOST_FEATURES, ROWS_A_COLUMN = 4, 600, 8, 4
#: Rows that tell the kernel: of more, so many are drawn, and only a kernel without noise is asked
#: for. Error at left-out rows below which the form of so many needs no other: the trial costs a
#: tenth of a second, and forms that follow the rows so closely are rarely the wrong ones.
ROWS_OF_KERNEL, CLEAR_ERROR = 150, 1e-3
#: Most columns in which so many rows have near ones, whose errors are alike unless they are noise;
#: and medians of the size of errors beyond which they count no more: a few large ones are alike, or
#: not, by chance.
MOST_NEAR, FAR_ERROR = 2, 2.0
#: Error at left-out rows, in units of y, below which a form needs no other.
EXACT_ENOUGH = 1e-6
#: Part of the form's expected error that the process' must not exceed: half is what either may be
#: wrong by.
BETTER = 0.5
#: Standard deviations within which the largest of the left-out errors is to lie; and largest mean
#: square of those of each kind up to which a process is believed on designs of few levels, which
#: cannot tell what is between these.
LARGEST_BORNE_OUT, SQUARE_BORNE_OUT = 3.0, 1.5
#: Kernels that are asked for errors at the sides of the box and in gaps of levels, the likeliest:
#: each costs a solve for every side and gap, and the others hardly move the mean.
KERNELS_AGAIN = 3
#: Most rows whose kernel is chosen anew without each set, to say by how much its claims are too
#: small: so few rows that happen to be smooth, noise and all, choose one of no noise.
CHOSEN_ANEW = 12
#: Numbers of a kernel beside its rates: sizes of constant, line, process and noise. Not more rows
#: than numbers bear nothing out.
FURTHER_NUMBERS = 4
#: Errors' worth of belief in the claimed variance where left-out errors are smaller.
PRIOR_ERRORS = 8.0
#: The same for each column where they are smaller in some places: of the errors only those near
#: tell that, and in more columns fewer are near.
PRIOR_PLACES = 16.0
#: First kind of sets that are levels, those of the first column, after folds and neighbourhoods.
FIRST_COLUMN = 2
#: Share of the kernels with noise from which on few rows leave its size open: less is a tail of the
#: posterior. It is not a half, since a few rows of four columns hardly tell noise from waves.
LIKELY_NOISE = 0.1
#: Points of the box at which errors are expected.
N_PROBES = 128


#: Shares and kernels of one target.
Weighed = Sequence[tuple[float, KernelChoice]]


def taken_of(kernels: Weighed, d: int) -> int:
    """Numbers that rows have given to kernels, which averages over rates and noise leave free."""
    return d + N_OTHERS if len(kernels) == 1 else 1


def solved(rows: Rows, kernels: Sequence[Weighed], n_taken: int | None = None) -> Interpolant:
    """The processes of all targets with given kernels and their shares.

    By the rows that `n_taken` numbers leave; None: those of `taken_of`.
    """
    X, y, weight = rows.X, rows.y, rows.weight
    d = X.shape[1]
    taken = [taken_of(own, d) if n_taken is None else n_taken for own in kernels]
    flat = [(target, *one) for target, own in enumerate(kernels) for one in own]
    rates, variances = [], []
    shares = X.new_zeros((len(flat), len(kernels)))
    for number, (target, share, (kind, stretch, theta)) in enumerate(flat):
        size = evidence_of(rows, target, kind, stretch).size(theta, taken[target])
        noise = math.exp(theta[d + 1]) + NUGGET
        rates.append(np.exp(theta[:d]))
        variances.append([size * CONSTANT, size * math.exp(theta[d]), size, size * noise])
        shares[number, target] = share
    of_kernel = torch.as_tensor([target for target, _, _ in flat], device=X.device)
    intercept = (weight @ y) / weight.sum()
    empty = Interpolant(
        X,
        weight,
        torch.as_tensor([kind for _, _, (kind, _, _) in flat], device=X.device),
        X.new_tensor([stretch for _, _, (_, stretch, _) in flat]),
        X.new_tensor(np.stack(rates)),
        X.new_tensor(np.array(variances)),
        X.mean(0),
        intercept[of_kernel],
        torch.zeros_like(y[:, of_kernel]),
        torch.arange(len(kernels), device=X.device),
        shares,
        sizes=(None,) * len(kernels),
        tangents=(None,) * len(kernels),
    )
    steps = (y - intercept).T[of_kernel]
    coef = [
        torch.cholesky_solve(step[:, None], factor)
        for step, factor in zip(steps, empty._factors, strict=True)
    ]
    return replace(empty, coef=torch.cat(coef, 1))


def _left_out(rows: Rows, kernels: Weighed, sets: LeftOut) -> tuple[Weighed, LeftOut]:
    """Errors of fits of one target without each set, and the degrees that all rows leave.

    By those of the kernels whose covariances are positive without each set: those it is for.
    """
    taken = taken_of(kernels, rows.n_features)
    known, found = [], []
    for share, choice in kernels:
        try:
            found.append(kernel_left_out(rows, choice, sets, taken))
        except np.linalg.LinAlgError:
            continue
        known.append((share, choice))
    if not known:
        raise np.linalg.LinAlgError("no kernel's covariance is positive without some rows")
    total = sum(share for share, _ in known)
    known = [(share / total, choice) for share, choice in known]
    shares = [share for share, _ in known]
    degrees = solved(rows, [known]).degrees_left(0)
    error, variance = of_average(shares, [f.error for f in found], [f.variance for f in found])
    noise = np.tensordot(shares, np.stack([f.noise for f in found]), 1)
    count = np.array(shares) @ np.stack([f.count for f in found])
    beside = {"count": count, "degrees": degrees}
    return known, replace(found[0], error=error, variance=variance, noise=noise, **beside)


def _levels(left_out: LeftOut, X: np.ndarray) -> set[int]:
    """Numbers of the sets that are levels of a column."""
    return {number for column in sets_of_levels(left_out, X).values() for number in column}


def _counted(left_out: LeftOut, X: np.ndarray) -> np.ndarray:
    """Which errors are those of random folds and of levels, and known."""
    levels = _levels(left_out, X)
    sets = np.array([k < left_out.n_folds or k in levels for k in range(len(left_out.sets))])
    return sets[left_out.group] & np.isfinite(left_out.error[:, 0])


def _size(left_out: LeftOut, known: np.ndarray) -> float:
    """Root mean square of some of the errors."""
    error = left_out.error[known, 0]
    return math.sqrt(float(np.mean(error**2))) if len(error) else 0.0


def _tells_what_was_left(own: LeftOut, other: LeftOut, known: np.ndarray, y: np.ndarray) -> bool:
    """Whether a form leaves about all of y's variance, and another model clearly does not.

    Noise does not let errors be half as large, and of noise alone a search finds no process.
    """
    before, after = own.error[known, 0] ** 2, other.error[known, 0] ** 2
    gain = before - after
    clear = float(gain.mean()) > CLEAR_OF_NOISE * float(gain.std()) / math.sqrt(len(gain))
    return clear and float(before.mean()) > MOSTLY_NOISE * float(y[own.row[known]].var())


def _is_better(
    own: LeftOut, other: LeftOut, known: np.ndarray, expected: float, of_other: float
) -> bool:
    """Whether another model is the better one, by left-out errors and by what both expect.

    Errors at left-out rows of a form that was searched for are too small, and those of an exact
    fit say what is far from rows. So the other one need not have less of them, but as little; and
    what it expects between the rows counts, as far as its own left-out errors bear it out.
    """
    before, after = np.abs(own.error[known, 0]), np.abs(other.error[known, 0])
    floor = EXACT_ENOUGH * _size(own, known)
    gain = np.log((before + floor) / (after + floor))
    unsure = float(gain.std()) / math.sqrt(len(gain))
    before_all, after_all = _size(own, known), _size(other, known)
    if gain.mean() - unsure > -math.log(BETTER) and after_all < before_all:
        return True
    # Errors that are half as large as a whole are so by few rows, but not by one that is a kink.
    if gain.mean() > unsure and after_all < BETTER * before_all:
        return True
    ratio = float(np.mean(after**2 / np.maximum(other.variance[known, 0], TINY)))
    bears_out = math.sqrt(max(ratio, 1.0))
    # Many rows tell of a form what few do not.
    as_little = int(own.row.max()) < MANY_ROWS or after_all < before_all
    return as_little and float(gain.mean()) > 0 and bears_out * of_other < BETTER * expected


def _bears_out(left_out: LeftOut, X: np.ndarray) -> bool:
    """Whether left-out errors of each kind of sets are about as large as is claimed."""
    return all(
        float(square.max()) <= LARGEST_BORNE_OUT**2 and float(square.mean()) <= SQUARE_BORNE_OUT
        for square, _ in _squares(left_out, X).values()
    )


def _ratios(left_out: LeftOut) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the errors in units of what is claimed, and how many errors each is worth."""
    square = left_out.error[:, 0] ** 2 / np.maximum(left_out.variance[:, 0], TINY)
    worth = left_out.count / np.array([len(part) for part in left_out.sets])
    return square, worth[left_out.group]


def _squares(left_out: LeftOut, X: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The ratios of each kind of sets: folds, neighbourhoods, and the levels of each column.

    The lines of a kink are wrong along one column, and those along all others are met.
    """
    levels = {
        number: FIRST_COLUMN + column
        for column, numbers in sets_of_levels(left_out, X).items()
        for number in numbers
    }
    kinds = np.array(
        [0 if k < left_out.n_folds else levels.get(k, 1) for k in range(len(left_out.sets))]
    )[left_out.group]
    square, worth = _ratios(left_out)
    return {int(kind): (square[kinds == kind], worth[kinds == kind]) for kind in np.unique(kinds)}


def _asked(parts: dict[int, tuple[np.ndarray, np.ndarray]]) -> float:
    """Factor of the variance that the ratios of each kind of sets ask for, at least 1.

    A variance that is too large stays: rows that are left out have others around them, as points
    near the ends of the box have not. Rows of a level share one error, and a belief in the claims
    would count more than the few there are.
    """
    means = []
    for kind, (square, worth) in parts.items():
        prior = PRIOR_ERRORS if kind < FIRST_COLUMN else 0.0
        means.append((float(worth @ square) + prior) / (float(worth.sum()) + prior))
    largest = max(float(square.max()) for square, _ in parts.values())
    return max(*means, largest / LARGEST_BORNE_OUT**2, 1.0)


def _asked_by_gaps(rows: Rows, kernels: Weighed, left_out: LeftOut, X: np.ndarray) -> float:
    """The factor that levels left out side by side ask for, where exact rows are few."""
    if len(X) > ROWS_OF_KERNEL or float(np.median(left_out.noise)) >= CLEAR_NOISE**2:
        return 1.0
    some = _leading(kernels)
    columns = sets_of_levels(left_out, X)
    return asked_by_gaps(X, columns, lambda sets: _left_out(rows, some, sets)[1])


def _leading(kernels: Weighed) -> Weighed:
    """The first of the kernels, whose mean it is, and the likeliest others."""
    others = sorted(kernels[1:], key=lambda one: -one[0])
    return [kernels[0], *others[: KERNELS_AGAIN - 1]]


def _doubts_at_sides(rows: Rows, kernels: Weighed) -> dict[str, np.ndarray] | None:
    """How far errors of the likeliest kernels at the sides of the box exceed what they claim."""
    sides = sides_of(rows.X.cpu().numpy())
    if not sides:
        return None
    nothing, none = np.zeros((0, 1)), np.zeros(0)
    sets = LeftOut([side.rows for side in sides], 0, nothing, nothing, nothing, none, none)
    _, found = _left_out(rows, _leading(kernels), sets)
    return fit_side_doubts(sides, found, rows.n_features).arrays()


def _tangents_at_ends(rows: Rows, kernels: Weighed) -> EndTangents | None:
    """Where a single column of exact rows goes on straight; see `fit_end_tangents`."""
    X, y = rows.X.cpu().numpy(), rows.y[:, 0].cpu().numpy()
    if rows.n_features > 1:
        return None

    def errors_of(side: Side) -> tuple[np.ndarray, np.ndarray]:
        gone = torch.as_tensor(side.rows, device=rows.X.device)
        others = np.setdiff1d(np.arange(rows.n_rows), side.rows)
        rest = rows.subset(torch.as_tensor(others, device=rows.X.device))
        process = solved(rest, [kernels[:1]], n_taken=1)
        edge = torch.full_like(rows.X[:1], side.edge)
        rise = process.gradient(edge)[0, 0] * (rows.X[gone, 0] - side.edge)
        there = process.mean(rows.X[gone])[:, 0], process.mean(edge)[0] + rise
        own, tangent = (y[side.rows] - mean.cpu().numpy() for mean in there)
        return own, tangent

    return fit_end_tangents(sides_of(X), X, errors_of)


def _with_local_size(left_out: LeftOut, X: np.ndarray) -> tuple[LocalSize | None, LeftOut]:
    """The local size of the errors, and what is claimed of them by it.

    Rows on the lines of a grid share the errors of these: too few to tell of places. And what few
    levels of a column cannot tell is in no error at a row.
    """
    if sets_of_levels(left_out, X) or columns_of_few_levels(X):
        return None, left_out
    square, worth = _ratios(left_out)
    total = np.bincount(left_out.row, weights=worth, minlength=len(X))
    mean = np.bincount(left_out.row, weights=worth * square, minlength=len(X))
    told = np.flatnonzero(total)
    is_noisy = np.median(left_out.noise) >= CLEAR_NOISE**2
    worth = np.minimum(total[told], 1.0)
    prior = PRIOR_PLACES * X.shape[1]
    size = fit_local_size(X[told], mean[told] / total[told], worth, prior, is_noisy)
    if size is None:
        return None, left_out
    factor = size(X)[left_out.row, None]
    variance, noise = factor * left_out.variance, factor * left_out.noise
    return size, replace(left_out, variance=variance, noise=noise)


def _kernels(
    rows: Rows, left_out: LeftOut, known: np.ndarray, expected: float, probes: Tensor
) -> Weighed:
    """All likely kernels; none where the likeliest says that they predict no better than a form."""
    likeliest = likeliest_kernel(rows, 0)
    if not _may_be_better(rows, likeliest, left_out, known, expected, probes):
        return []
    return likely_kernels(rows, 0, likeliest)


def _may_be_better(
    rows: Rows,
    likeliest: KernelChoice,
    left_out: LeftOut,
    known: np.ndarray,
    expected: float,
    probes: Tensor,
) -> bool:
    """Whether an average over kernels can be better than a form, by its first kernel.

    The average's errors are those of its first kernel. What it expects, by rows of which nothing
    is taken, is too little for all of them, and is taken to be borne out.
    """
    try:
        other = kernel_left_out(rows, likeliest, left_out)
        alone = solved(rows, [[(1.0, likeliest)]], n_taken=1)
        expects = median_std(alone, probes)[0]
    except NUMERICAL_FAILURES:
        return True  # Others may be sound.
    other = replace(other, variance=np.full_like(other.variance, math.inf))
    y = rows.y[:, 0].cpu().numpy()
    return _is_better(left_out, other, known, expected, expects) or _tells_what_was_left(
        left_out, other, known, y
    )


def _are_noise(left_out: LeftOut, rows: Rows) -> bool:
    """Whether errors at rows left out in folds are not like those of their nearest rows.

    A kernel without noise would foretell them from these.
    """
    known = (left_out.group < left_out.n_folds) & np.isfinite(left_out.error[:, 0])
    if rows.n_features > MOST_NEAR or not known.any():
        return False
    error = left_out.error[known, 0]
    far = FAR_ERROR * float(np.median(np.abs(error)))
    points = rows.X.cpu().numpy()[left_out.row[known]]
    return not are_alike(points, np.clip(error, -far, far))


def _kernel_without_noise(rows: Rows) -> Weighed:
    """The likeliest kernel of some rows, if by it they are exact."""
    some = rows.subset(torch.nonzero(drawn_points(rows, ROWS_OF_KERNEL)).squeeze(1))
    kind, stretch, theta = likeliest_kernel(some, 0)
    size = evidence_of(rows, 0, kind, stretch).size(theta, rows.n_features + N_OTHERS)
    if size * math.exp(theta[rows.n_features + 1]) >= CLEAR_NOISE**2:
        return []
    return [(1.0, (kind, stretch, theta))]


def _of_target(
    rows: Rows, left_out: LeftOut, expected: float, probes: Tensor
) -> tuple[Interpolant, LeftOut] | None:
    """The process of one target, and its errors at left-out rows; None where a fit is as good."""
    known = _counted(left_out, rows.X.cpu().numpy())
    many = rows.n_rows > ROWS_OF_KERNEL
    if is_bent(rows) or _size(left_out, known) <= (CLEAR_ERROR if many else EXACT_ENOUGH):
        return None
    try:
        if many:
            of_all = [] if _are_noise(left_out, rows) else _kernel_without_noise(rows)
        else:
            of_all = _kernels(rows, left_out, known, expected, probes)
        if not of_all:
            return None
        kernels, other = _left_out(rows, of_all, left_out)
        found = solved(rows, [kernels])
        likely_noise = found.share_with_noise(CLEAR_NOISE**2) >= LIKELY_NOISE
        X, y = rows.X.cpu().numpy(), rows.y[:, 0].cpu().numpy()
        if not (
            _is_better(left_out, other, known, expected, median_std(found, probes)[0])
            or _tells_what_was_left(left_out, other, known, y)
        ):
            return None
        size, other = _with_local_size(other, X)
        found, other = _judged(rows, kernels, replace(found, sizes=(size,)), other)
    except NUMERICAL_FAILURES:
        return None
    # Exact rows have no noise whose size few of them would leave open.
    is_noisy = likely_noise and float(np.median(other.noise)) >= CLEAR_NOISE**2
    return found, other if is_noisy else replace(other, variance=other.noise, degrees=math.inf)


def _judged(
    rows: Rows, kernels: Weighed, found: Interpolant, other: LeftOut
) -> tuple[Interpolant, LeftOut]:
    """The process with the variance that its errors at left-out rows ask for, and these."""
    X = rows.X.cpu().numpy()
    fewest = rows.n_rows <= rows.n_features + FURTHER_NUMBERS
    if fewest:
        # The noise that is claimed is that of all rows: others may explain any error by theirs.
        other = replace(left_out_anew(rows, other), noise=other.noise)
    if fewest or (columns_of_few_levels(X) and not _bears_out(other, X)):
        # What a kernel claims in vain has no part in what its errors are told by.
        plain = replace(other, variance=other.noise)
        return replace(found, forms=tuple(fit_form_errors(found, [plain], rows))), other
    factor = max(_asked(_squares(other, X)), _asked_by_gaps(rows, kernels, other, X))
    if rows.n_rows <= CHOSEN_ANEW:
        factor = max(factor, _asked(_squares(left_out_anew(rows, other), X)))
    (form,) = no_form_errors(rows)
    sides = _doubts_at_sides(rows, kernels)
    if float(np.median(other.noise)) < CLEAR_NOISE**2:
        tangents = _tangents_at_ends(rows, kernels)
        found = replace(found, tangents=(tangents,))
        if tangents is not None and sides is not None:
            sides["parts"][0, tangents.taken] = 0.0
    form = replace(form, knows_outside=True, sides=sides)
    return found.with_variance(factor, form), other


def fit_interpolant(
    rows: Rows,
    left_out: Sequence[LeftOut] | None,
    model: Predictor,
    alone: Callable[[int], tuple[Rows, LeftOut]] | None = None,
) -> tuple[Interpolant | None, Sequence[LeftOut] | None]:
    """The processes of few rows where they are better than a fit.

    Parameters
    ----------
    rows : Rows
        Those of the fit, in float64.
    left_out : sequence of LeftOut or None
        Errors of the fit at left-out rows, one a target; None where there are none.
    model : Predictor
        The fit, with what is known of its errors.
    alone : callable, default=None
        Rows of one of several targets and its errors, as they are without the others. None: those
        of all of them.

    Returns
    -------
    Interpolant or None
        Of the targets whose fit is not about as good, each by itself; None where there is none, or
        rows are too few or too many.
    sequence of LeftOut or None
        Errors of what predicts at left-out rows.
    """
    n, d = rows.X.shape
    few = 1 <= d <= MOST_FEATURES and max(FEWEST_ROWS, ROWS_A_COLUMN * d) <= n <= MOST_ROWS
    if not few or left_out is None:
        return None, left_out
    probes = sobol_points(d, N_PROBES, seed=0).to(rows.X)
    expected = median_std(model, probes)
    joined, told = None, list(left_out)
    for target in range(len(told)):
        if alone is None or len(told) == 1:
            one = rows.of_target(target)
        else:
            one, told[target] = alone(target)
        found = _of_target(one, told[target], expected[target], probes)
        if found is None:
            continue
        process = replace(found[0], targets=found[0].targets + target)
        joined = process if joined is None else joined.with_those_of(process)
        told[target] = found[1]
    return joined, told
