"""The process beside a fit: a kernel by evidence, weight and variance by left-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, judging_generator
from skpou.core.linalg import NUMERICAL_FAILURES, TINY
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.likely_kernels import stretched, stretches_of
from skpou.core.models.process_companion import ProcessCompanion, known_part
from skpou.core.models.relevance import (
    MOST_FEATURES,
    Kernel,
    evident_kernel,
    refined_kernel,
    stretched_kernel,
)

#: Most rows: their covariance is factored, and they are kept.
MOST_ROWS = 600
#: Error at left-out rows, in units of y, below which a form needs nothing beside it.
CLEAR_ERROR = 1e-3
#: Rows' worth of belief that both are as good.
PRIOR_ROWS = 8.0
#: Part of the left-out error to which the weighted mean must bring it to be worth its evaluation,
#: and standard errors that the gain in squared errors must exceed: not one row alone says so. A
#: mean of two models is rather the better one beforehand.
WORTH, CLEAR = 0.99, 0.5
#: The standard errors where the form leaves all of y's variance, as it does of pure noise, too: by
#: chance the best of many kernels gains two of them. And the part left from which on the kernel's
#: search must stand without parts of the rows, however many there are.
CLEAR_OF_NOISE, MOSTLY_NOISE = 3.0, 0.8
#: Least weight that matters, and the step of the weights: round-off of the errors must not show.
LEAST_SHARE, STEP = 0.05, 2.0**-7
#: The weights that are compared.
SHARES = np.arange(0, 1 + STEP, STEP)
#: Rows for each number of the kernel below which its search must stand without parts of the rows:
#: the kernel remembers them; the number of parts; and what these errors count beside those of the
#: kernel of all rows. The form remembers all rows, too, and a kernel of three quarters knows less.
ROWS_A_NUMBER, N_PARTS, COUNTS_ANEW = 20, 4, 0.5
#: Most by which the variances are raised where left-out errors are larger than they say, or lowered
#: where they are smaller.
MOST_FACTOR = 10.0
#: Squared error over its variance from which on one row says no more: a form's run away.
MOST_RATIO = 25.0
#: Part of the noise in the process' variance from which on rows tell that variance: without noise
#: it is that between the rows.
NOISY_PART = 0.2
#: Shares of the process' variance in that of the weighted mean which are compared.
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Variance of the noise, in units of y, below which more rows tell shorter lengths from noise.
LITTLE_NOISE = 0.01
#: Least variance, in units of y, and least part of a process that its rows know.
ROUND_OFF, LEAST_TOLD = 1e-24, 1e-3
#: Log evidence by which stretched columns must make the rows likelier: the stretches are chosen.
LIKELIER = 2.0
#: Most principal components of more columns than a kernel has lengths for, and rows for each.
MOST_DIRECTIONS, ROWS_A_DIRECTION = 10, 8


def _fit_process(rows: Rows, like: ProcessCompanion | None = None) -> ProcessCompanion | None:
    """The processes of largest evidence on the rows, of full weight.

    With the coordinates of another one, from its rates, where there is one.
    """
    directions = _directions(rows) if like is None else like.directions
    stretches = None if like is None else like.stretches
    X, y, weight = _seen(rows.X, directions, stretches), rows.y, rows.weight
    of_targets = [replace(rows.of_target(k), X=X) for k in range(rows.n_outputs)]
    kernels = _evident_kernels(of_targets, like)
    if kernels is None:
        return None
    if like is None:
        if directions is None:
            stretches, kernels = _likelier_stretched(of_targets, kernels)
            X = _seen(rows.X, None, stretches)
        kernels = [
            _refined(replace(one, X=X), kernel)
            for one, kernel in zip(of_targets, kernels, strict=True)
        ]
    rates, variances = (
        torch.as_tensor(np.stack(part), device="cpu").to(X)
        for part in ([k.rates for k in kernels], [k.variances for k in kernels])
    )
    rough = torch.as_tensor([k.rough for k in kernels], device=X.device)
    intercept = (weight @ y) / weight.sum()
    ones = torch.ones_like(intercept)
    empty = ProcessCompanion(
        X, weight, rates, variances, X.mean(0), intercept, torch.zeros_like(y),
        share=ones, factor=ones, usual=ones, part=ones,
        rough=rough if bool(rough.any()) else None,
    )  # fmt: skip
    coef = [
        torch.cholesky_solve(part[:, None], factor)
        for part, factor in zip((y - intercept).T, empty._factors, strict=True)
    ]
    return replace(empty, coef=torch.cat(coef, 1), directions=directions, stretches=stretches)


def _seen(X: Tensor, directions: Tensor | None, stretches: Tensor | None) -> Tensor:
    """Points in the coordinates of the kernel."""
    X = X if directions is None else X @ directions
    return X if stretches is None else stretched(X, stretches.tolist(), torch)[0]


def _evident_kernels(
    of_targets: Sequence[Rows], like: ProcessCompanion | None
) -> list[Kernel] | None:
    """The kernel of largest evidence of each target; None where rows are too few to tell."""
    kernels: list[Kernel] = []
    for target, one in enumerate(of_targets):
        starts = None
        if like is not None:
            numbers = torch.cat([like.rates[target], like.variances[target]])
            starts = [numbers.cpu().numpy()]
        found = evident_kernel(one, starts, judging_generator(), rough=True)
        if found is None:
            return None
        kernels.append(found)
    return kernels


def _refined(rows: Rows, kernel: Kernel) -> Kernel:
    """The kernel of more rows, which tell shorter lengths from noise where there is little."""
    if kernel.variances[2] >= LITTLE_NOISE:
        return kernel
    return refined_kernel(rows, kernel, judging_generator())


def _likelier_stretched(
    of_targets: Sequence[Rows], kernels: list[Kernel]
) -> tuple[Tensor | None, list[Kernel]]:
    """Stretches (d,) under which the rows are likelier, if there are, and the kernels then."""
    X = of_targets[0].X
    stretches = stretches_of(X.cpu().numpy())[-1]
    if X.shape[1] == 1 or not any(stretches):
        return None, kernels
    gains, found = zip(
        *(
            stretched_kernel(one, kernel, stretches, judging_generator())
            for one, kernel in zip(of_targets, kernels, strict=True)
        ),
        strict=True,
    )
    if not sum(gains) > LIKELIER:
        return None, kernels
    return X.new_tensor(stretches), list(found)


def _directions(rows: Rows) -> Tensor | None:
    """Principal components (d, q) in which the rows have the range one, of too many columns.

    None where a kernel has a length for each column.
    """
    if rows.n_features <= MOST_FEATURES:
        return None
    centred = rows.X - rows.X.mean(0)
    spread = centred.square().mean(0).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    _, S, Vh = torch.linalg.svd(centred / spread, full_matrices=False)
    most = max(1, min(MOST_DIRECTIONS, rows.n_rows // ROWS_A_DIRECTION))
    rank = int((S > len(S) * torch.finfo(S.dtype).eps * S[:1]).sum())
    V = Vh[: min(most, rank)].T
    # The largest entry of each is positive: a decomposition leaves the sign open.
    V = V * V.gather(0, V.abs().argmax(0, keepdim=True)).sign() / spread[:, None]
    seen = rows.X @ V
    return V / (seen.amax(0) - seen.amin(0))


def _anew(process: ProcessCompanion, rows: Rows) -> Tensor | None:
    """Errors (n, m) of processes that were searched for without the part that a row is in."""
    part = judging_generator().permutation(rows.n_rows) % N_PARTS
    errors = torch.zeros_like(rows.y)
    for number in range(N_PARTS):
        others, left_out = (
            torch.as_tensor(np.flatnonzero(some), device=errors.device)
            for some in (part != number, part == number)
        )
        found = _fit_process(rows.subset(others), process)
        if found is None:
            return None
        errors[left_out] = rows.y[left_out] - found.mean(rows.X[left_out])
    return errors


def fit_process(
    rows: Rows,
    left_out: Sequence[LeftOut] | None,
    errors: Sequence[np.ndarray] | None = None,
    noise: Tensor | None = None,
) -> ProcessCompanion | None:
    """The process beside a fit, where left-out errors of the weighted mean are less.

    Parameters
    ----------
    rows : Rows
        Those of the fit, in float64.
    left_out : sequence of LeftOut or None
        Errors of the fit at left-out rows, one a target; None where there are none.
    errors : sequence of ndarray, default=None
        The same errors where something else is joined with the fit already.
    noise : Tensor of shape (n, m), default=None
        Variance of the noise that the fit promises at the rows. None: that of the left-out errors.
    """
    if left_out is None or rows.n_rows > MOST_ROWS or rows.n_features < 1:
        return None
    errors = [one.error[:, 0] for one in left_out] if errors is None else errors
    if (
        max(_in_folds(one, error, rows)[3] for one, error in zip(left_out, errors, strict=True))
        < CLEAR_ERROR
    ):
        return None
    try:
        process = _fit_process(rows)
        if process is None:
            return None
        others, variances = process.left_out(left_out[0].sets)
    except NUMERICAL_FAILURES:
        return None
    told = list(zip(left_out, errors, strict=True))
    found = _weighed(process, others, variances, told, rows, noise)
    enough = rows.n_rows >= ROWS_A_NUMBER * (process.rates.shape[1] + 3)
    noisy = torch.as_tensor(_mostly_noise(left_out, errors, rows), device=others.device)
    counts = torch.where(noisy, 1.0, 0.0 if enough else COUNTS_ANEW).to(others)
    if found is None or not bool(counts.any()):
        return found
    try:
        anew = _anew(process, rows)
    except NUMERICAL_FAILURES:
        return None
    if anew is None:
        return found.without(noisy)
    anew = anew[torch.as_tensor(left_out[0].row, device=anew.device)]
    others = (1 - counts) * others + counts * anew
    again = _weighed(process, others, variances, told, rows, noise)
    return None if again is None else again.without(found.share == 0)


def _weighed(
    process: ProcessCompanion,
    others: Tensor,
    variances: Tensor,
    told: Sequence[tuple[LeftOut, np.ndarray]],
    rows: Rows,
    noise: Tensor | None,
) -> ProcessCompanion | None:
    """The process with its weight beside the fit in every target; None where it has none.

    `others` and `variances` (k, m) are its errors and variances at left-out rows, `told` the fit's
    errors there, one pair a target, `noise` (n, m) as of `fit_process`.
    """
    judged = [
        _weigh(
            one,
            error,
            others[:, k].cpu().numpy(),
            variances[:, k].cpu().numpy(),
            rows,
            rows.y[:, k].cpu().numpy(),
            process.variances[k].cpu().numpy(),
            None if noise is None else noise[:, k].double().cpu().numpy(),
        )
        for k, (one, error) in enumerate(told)
    ]
    share, factor, usual, part = (rows.y.new_tensor(p) for p in zip(*judged, strict=True))
    if not bool((share > 0).any()):
        return None
    return replace(process, share=share, factor=factor, usual=usual, part=part)


def _in_folds(
    left_out: LeftOut, error: np.ndarray, rows: Rows
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Which errors are those of random folds, they and their weights, and their rms."""
    known = (left_out.group < left_out.n_folds) & np.isfinite(error)
    weight = rows.weight.cpu().numpy()[left_out.row[known]]
    inner = error[known]
    total = max(float(weight.sum()), TINY)
    return known, inner, weight, math.sqrt(float(weight @ inner**2) / total)


def _unexplained(y: np.ndarray, weight: np.ndarray, size: float) -> float:
    """Part of the variance of targets (n,) that is left by errors of such an rms, at most 1."""
    variance = float(weight @ (y - weight @ y / weight.sum()) ** 2) / float(weight.sum())
    return min(size**2 / max(variance, ROUND_OFF), 1.0)


def _mostly_noise(
    left_out: Sequence[LeftOut], errors: Sequence[np.ndarray], rows: Rows
) -> list[bool]:
    """Whether left-out rows say of each target that the form leaves most of it."""
    found = []
    for k, (one, error) in enumerate(zip(left_out, errors, strict=True)):
        known, _, weight, size = _in_folds(one, error, rows)
        y = rows.y[:, k].cpu().numpy()[one.row[known]]
        found.append(bool(len(y)) and _unexplained(y, weight, size) > MOSTLY_NOISE)
    return found


def _likeliest_share(
    own: np.ndarray, other: np.ndarray, told: np.ndarray, weight: np.ndarray
) -> float:
    """Weight of the process that leaves the least squared errors, a half where all are alike."""
    step = own - other
    # What is far worse than the other is not believed to be as good.
    square = min(float(weight @ part**2) for part in (step, own, other)) / len(own)
    scores = [
        float(weight @ (own - share * told * step) ** 2) + PRIOR_ROWS * square * (share - 0.5) ** 2
        for share in SHARES
    ]
    return float(SHARES[int(np.argmin(scores))])


def _is_worth_it(
    own: np.ndarray, joined: np.ndarray, weight: np.ndarray, size: float, left: float
) -> bool:
    """Whether errors of the weighted mean are clearly less; the form has left a part of y."""
    least = math.sqrt(float(weight @ joined**2) / float(weight.sum()))
    gain = own**2 - joined**2
    unsure = math.sqrt(float(weight**2 @ (gain - weight @ gain / weight.sum()) ** 2))
    clear = float(weight @ gain) > (CLEAR + (CLEAR_OF_NOISE - CLEAR) * left**2) * unsure
    return least < WORTH * size and clear


def _factor_at_rows(
    square: np.ndarray,
    weight: np.ndarray,
    variances: Callable[[float], np.ndarray],
    parts: Sequence[float],
    least: float,
) -> tuple[float, float]:
    """Likeliest factor of the variances, and the part of the process' in them, among some."""
    # The mean of repeated rows has one error, which says as much as that of a single one.
    weight = weight / weight.mean()
    best, factor, part = -math.inf, 1.0, 0.0
    for tried in parts:
        total = np.maximum(variances(tried), ROUND_OFF)
        each = np.minimum(square / total, MOST_RATIO)
        ratio = (float(weight @ each) + PRIOR_ROWS) / float(weight.sum() + PRIOR_ROWS)
        ratio = float(np.clip(ratio, least, MOST_FACTOR))
        likely = -float(weight @ (np.log(ratio * total) + square / (ratio * total)))
        if likely > best:
            best, factor, part = likely, ratio, tried
    return factor, part


def _factor_beyond(
    left_out: LeftOut,
    error: np.ndarray,
    other: np.ndarray,
    variance: np.ndarray,
    share: Callable[[np.ndarray], np.ndarray],
) -> float:
    """Mean square of the errors at whole levels and neighbourhoods, in units of the variance."""
    beyond = left_out.group >= left_out.n_folds
    beyond &= np.isfinite(error) & np.isfinite(left_out.variance[:, 0])
    here = share(variance[beyond])
    step = error[beyond] - other[beyond]
    total = (1 - here) * left_out.variance[beyond, 0] + here * variance[beyond]
    total = np.maximum(total + here * (1 - here) * step**2, ROUND_OFF)
    each = np.minimum((error[beyond] - here * step) ** 2 / total, MOST_RATIO)
    return float(each.mean()) if len(each) else 1.0


def _weigh(
    left_out: LeftOut,
    error: np.ndarray,
    other: np.ndarray,
    variance: np.ndarray,
    rows: Rows,
    y: np.ndarray,
    kernel: np.ndarray,
    noise: np.ndarray | None,
) -> tuple[float, float, float, float]:
    """Weight of the process beside a fit, factor of the variance, and `usual` and `part`."""
    alone = 0.0, 1.0, 1.0, 0.0
    known, own, weight, size = _in_folds(left_out, error, rows)
    if not len(own) or not size > CLEAR_ERROR:
        return alone
    at_rows, step = variance[known], own - other[known]
    told = known_part(at_rows - kernel[2] / weight, kernel[1])
    usual = max(float(np.median(told)), LEAST_TOLD)
    told = np.minimum(told / usual, 1)
    share = _likeliest_share(own, other[known], told, weight)
    joined = own - share * told * step
    left = _unexplained(y[left_out.row[known]], weight, size)
    if share < LEAST_SHARE or not _is_worth_it(own, joined, weight, size, left):
        return alone
    own_variance = left_out.variance[known, 0]
    if noise is not None:
        promised = noise[left_out.row[known]] / weight
        own_variance = own_variance - left_out.noise[known, 0] + promised
    apart = share * told * (1 - share * told) * step**2

    def variances(part: float) -> np.ndarray:
        return (1 - part * told) * own_variance + part * told * at_rows + apart

    noisy = float(np.median(kernel[2] / (weight * at_rows))) > NOISY_PART
    # Squares over variances count by how often a row is there, not by its precision.
    often = rows.alike().weight.cpu().numpy()[left_out.row[known]]
    if noisy and kernel[2] > CLEAR_ERROR**2:
        factor, part = _factor_at_rows(joined**2, often, variances, PARTS, 1 / MOST_FACTOR)
        return share, factor, usual, part
    factor, part = _factor_at_rows(joined**2, often, variances, (share,), 1.0)

    def share_of(variance: np.ndarray) -> np.ndarray:
        return share * np.minimum(known_part(variance, kernel[1]) / usual, 1)

    # Without noise rows on the lines of a grid say nothing of what is between these.
    beyond = _factor_beyond(left_out, error, other, variance, share_of)
    return share, min(max(factor, beyond), MOST_FACTOR), usual, part
