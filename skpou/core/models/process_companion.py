"""A Gaussian process on the same rows: where left-out rows ask for it, the mean leans on it.

What a form errs by on few rows with noise is variance for the most part, and that of two unlike
models is not the same: a weighted mean of both errs by less than either [1]_. The weight is the one
under which left-out errors are least, drawn towards one half where few rows tell. Where the process
knows less of itself than at the rows that told its weight, it has less: far from all rows it is its
own mean.
The variance is that of either, or between both, whichever left-out errors are likeliest under.

Of many columns, as those of spectra, the process sees principal components of equal range.

References
----------
.. [1] L. Breiman, "Stacked regressions", Machine Learning 24 (1996).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.relevance import (
    CONSTANT,
    MOST_FEATURES,
    Kernel,
    evident_kernel,
    gaussian,
    matern,
    refined_kernel,
)

#: Most rows: their covariance is factored, and they are kept.
MOST_ROWS = 600
#: Error at left-out rows, in units of y, below which a form needs nothing beside it.
CLEAR_ERROR = 1e-3
#: Rows' worth of belief that both are as good.
PRIOR_ROWS = 8.0
#: Part of the left-out error to which the weighted mean must bring it to be worth its evaluation,
#: and standard errors that the gain in squared errors must exceed: not one row alone says so.
WORTH, CLEAR = 0.99, 1.0
#: Least weight that matters, and the step of the weights: round-off of the errors must not show.
LEAST_SHARE, STEP = 0.05, 2.0**-7
SHARES = np.arange(0, 1 + STEP, STEP)
#: Rows for each number of the kernel below which its search must stand without parts of the rows:
#: the kernel remembers them; and the number of parts.
ROWS_A_NUMBER, N_PARTS = 20, 4
#: Most by which the variances are raised where left-out errors are larger than they say, or lowered
#: where they are smaller.
MOST_FACTOR = 10.0
#: Shares of the process' variance in that of the weighted mean which are compared.
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Variance of the noise, in units of y, below which more rows tell shorter lengths from noise.
LITTLE_NOISE = 0.01
#: Least variance, in units of y, and least part of a process that its rows know.
ROUND_OFF, LEAST_TOLD = 1e-24, 1e-3
#: Most principal components of more columns than a kernel has lengths for, and rows for each.
MOST_DIRECTIONS, ROWS_A_DIRECTION = 10, 8


@dataclass(frozen=True)
class ProcessCompanion:
    """Gaussian processes of all targets (m of them), each with a kernel and a weight.

    Attributes
    ----------
    points : Tensor of shape (k, d)
        Rows in scaled units.
    weight : Tensor of shape (k,)
        Their noise is divided by it.
    rates : Tensor of shape (m, d)
        Reciprocals of the lengths.
    variances : Tensor of shape (m, 3)
        Of line, process and noise.
    centre : Tensor of shape (d,)
        Where the line is zero.
    intercept : Tensor of shape (m,)
        Mean of the targets.
    coef : Tensor of shape (k, m)
        Weights of the kernel's values.
    share : Tensor of shape (m,)
        Weight beside the fit's; what has none is not evaluated.
    factor : Tensor of shape (m,)
        Of the variance of the weighted mean, that left-out errors ask for.
    usual : Tensor of shape (m,), default=None
        Part of the process that is known at the rows that told the weight. None: that is the same
        everywhere.
    part : Tensor of shape (m,), default=None
        Share of the process' variance in that of the weighted mean. None: that is the variance of a
        mixture of both, whose components stay as far apart as they are.
    rough : Tensor of shape (m,), default=None
        Whether the kernel is that of a rough process. None: all are smooth.
    directions : Tensor of shape (d, q), default=None
        The process sees these combinations of the columns; `points` are in their coordinates. None:
        the columns.
    """

    points: Tensor
    weight: Tensor
    rates: Tensor
    variances: Tensor
    centre: Tensor
    intercept: Tensor
    coef: Tensor
    share: Tensor
    factor: Tensor
    usual: Tensor | None = None
    part: Tensor | None = None
    rough: Tensor | None = None
    directions: Tensor | None = None

    def _seen(self, X: Tensor) -> Tensor:
        """Points in the coordinates of the kernel."""
        X = X.to(self.points)
        return X if self.directions is None else X @ self.directions

    def _kernel(self, X: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances (n, k) with the rows, the part that is not the line's, and how that falls."""
        rates, (of_line, of_process, _) = self.rates[target], self.variances[target]
        distance = torch.cdist(
            X * rates, self.points * rates, compute_mode="donot_use_mm_for_euclid_dist"
        )
        of_kind = matern if self.rough is not None and bool(self.rough[target]) else gaussian
        bent, fall = (of_process * part for part in of_kind(distance.square()))
        line = (X - self.centre) @ (self.points - self.centre).T
        return CONSTANT + of_line * line + bent, bent, fall

    def _of_targets(self, of_one: Callable[[int], Tensor], like: Tensor) -> Tensor:
        """What is asked for of every target with a weight, on a last axis; 0 for the others."""
        some = self.share.tolist()
        return torch.stack([of_one(k) if part else like for k, part in enumerate(some)], -1)

    def _slope(self, target: int) -> Tensor:
        """Slopes (d,) of the line."""
        return self.variances[target, 0] * self.coef[:, target] @ (self.points - self.centre)

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            coef = self.coef[:, k]
            bent = (self._kernel(X, k)[1] * coef).sum(1)
            line = ((X - self.centre) * self._slope(k)).sum(1)
            return self.intercept[k] + CONSTANT * coef.sum() + line + bent

        return self._of_targets(of_one, torch.zeros_like(X[:, 0]))

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            pull = self._kernel(X, k)[2] * self.coef[:, k]
            return self._bend(X, pull, k) + self._slope(k)

        return self._in_columns(self._of_targets(of_one, torch.zeros_like(X)))

    def _bend(self, X: Tensor, pull: Tensor, target: int) -> Tensor:
        """Gradient (n, q) of sums of the kernel's bent part, each fall times its weight, `pull`."""
        inner = pull @ self.points - X * pull.sum(1, keepdim=True)
        return self.rates[target].square() * inner

    def _in_columns(self, gradient: Tensor) -> Tensor:
        """Gradients (n, q, m) in the kernel's coordinates as those (n, d, m) in the columns."""
        if self.directions is None:
            return gradient
        return torch.einsum("dq,nqm->ndm", self.directions, gradient)

    @property
    def noise(self) -> Tensor:
        """Variance (m,) of the noise."""
        return self.variances[:, 2]

    @cached_property
    def _factors(self) -> list[Tensor]:
        factors = []
        for target, noise in enumerate(self.noise):
            K = self._kernel(self.points, target)[0]
            K.diagonal().add_(noise / self.weight)
            factors.append(torch.linalg.cholesky(K))
        return factors

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values, without the noise's."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            kernel = self._kernel(X, k)[0]
            columns = torch.linalg.solve_triangular(self._factors[k], kernel.T, upper=False)
            line = self.variances[k, 0] * (X - self.centre).square().sum(1)
            prior = CONSTANT + self.variances[k, 1] + line
            return (prior - columns.square().sum(0)).clamp_min(0)

        return self._of_targets(of_one, torch.zeros_like(X[:, 0]))

    def left_out(self, sets: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Errors (l, m) at rows that are left out in sets, and their variances (l, m)."""
        of_targets = []
        for factor, coef in zip(self._factors, self.coef.T, strict=True):
            inverse = torch.cholesky_inverse(factor)
            errors, variances = [], []
            for part in sets:
                index = torch.as_tensor(part, device=inverse.device)
                block = torch.linalg.inv(inverse[index][:, index])
                errors.append(block @ coef[index])
                variances.append(block.diagonal())
            of_targets.append((torch.cat(errors), torch.cat(variances)))
        error, variance = (torch.stack(part, 1) for part in zip(*of_targets, strict=True))
        return error, variance

    def _variance_gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the variance."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            kernel, _, fall = self._kernel(X, k)
            solved = torch.cholesky_solve(kernel.T, self._factors[k]).T
            pull = self._bend(X, solved * fall, k)
            from_line = X - self.centre - solved @ (self.points - self.centre)
            return 2 * (self.variances[k, 0] * from_line - pull)

        return self._in_columns(self._of_targets(of_one, torch.zeros_like(X)))

    def _told(self, variance: Tensor) -> Tensor:
        """Part (n, m) of the process that is known, of that at its rows, for its variance there."""
        assert self.usual is not None
        return _known_part(variance, self.variances[:, 1]) / self.usual

    def weight_at(self, X: Tensor, variance: Tensor | None = None) -> Tensor:
        """Weight (n, m) beside a fit's; `variance` is that of the values, where it is known."""
        if self.usual is None:
            return self.share.expand(len(X), -1)
        variance = self.variance(X) if variance is None else variance
        return self.share * self._told(variance).clamp_max(1)

    def beside(self, mean: Tensor, X: Tensor) -> Tensor:
        """The weighted mean (n, m) with a fit's at the same points."""
        return mean + self.weight_at(X).to(mean) * (self.mean(X).to(mean) - mean)

    def gradient_beside(self, gradient: Tensor, mean: Tensor, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the weighted mean with a fit's gradient and mean."""
        weight = self.weight_at(X)
        step = self.gradient(X).to(gradient) - gradient
        gradient = gradient + weight.to(gradient)[:, None] * step
        if self.usual is None:
            return gradient
        variance = self.variance(X)
        bends = (self._told(variance) < 1) & (variance < self.variances[:, 1])
        bend = -bends * self.share / (self.usual * self.variances[:, 1])
        apart = self.mean(X) - mean.to(self.points)
        return gradient + ((bend * apart)[:, None] * self._variance_gradient(X)).to(gradient)

    def with_density(self, parts: Components, X: Tensor, posterior: bool = True) -> Components:
        """A fit's density about the weighted mean, with the variance of both."""
        if self.part is None:
            return self._as_mixture(parts, X, posterior)
        mean, values = parts.expectation(), self.variance(X)
        step = self.mean(X).to(mean) - mean
        share = self.weight_at(X, values).to(mean)
        part = torch.where(share > 0, self.part.to(mean), 0.0)
        part = part * self._told(values).to(mean).clamp_max(1) if self.usual is not None else part
        factor = torch.where(share > 0, self.factor.to(mean), 1.0)
        of_own, of_other = (1 - part) * factor, part * factor
        # The components come closer as their own variances count for less.
        kept = of_own.sqrt().clamp_max(1)
        parts, apart = _drawn_together(parts, kept)
        beside = factor * share * (1 - share) * step.square() + (of_own - kept.square()) * apart
        if posterior:
            beside = beside + of_other * values.to(mean)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            beside = beside / parts.log_pi.exp().square().sum(1, keepdim=True)
        parts = moved(parts, share * step)
        return replace(
            parts,
            noise=parts.noise * of_own[:, None] + (of_other * self.noise.to(mean))[:, None],
            epistemic=parts.epistemic * of_own[:, None] + beside[:, None],
        )

    def _as_mixture(self, parts: Components, X: Tensor, posterior: bool) -> Components:
        """The same with the variance of a mixture of both."""
        noise, epistemic = parts.variances()
        own, mean = noise + epistemic, parts.expectation()
        step = self.mean(X).to(mean) - mean
        share = self.share.to(mean)
        other = self.noise.to(mean).expand_as(mean)
        if posterior:
            other = other + self.variance(X).to(mean)
        total = (1 - share) * own + share * other + share * (1 - share) * step.square()
        total = torch.where(share > 0, self.factor.to(mean) * total, own)
        added = (total - own).clamp_min(0)
        if not isinstance(parts, IndependentComponents):
            added = added / parts.log_pi.exp().square().sum(1, keepdim=True)
        less = (total / own.clamp_min(torch.finfo(own.dtype).tiny)).clamp_max(1)[:, None]
        parts = moved(parts, share * step)
        return replace(
            parts, noise=parts.noise * less, epistemic=parts.epistemic * less + added[:, None]
        )

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        return 8 * len(self.points) + self.points.shape[1] * (1 + self.coef.shape[1])

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        return {
            k: v.cpu().contiguous().numpy()
            for k, v in vars(self).items()
            if k in _FIELDS and v is not None
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> ProcessCompanion:
        """Rebuild from `arrays`, in float64 on the device of `like`."""
        return cls(
            **{k: torch.tensor(np.asarray(v), device=like.device) for k, v in arrays.items()}
        )


_FIELDS = tuple(ProcessCompanion.__dataclass_fields__)


def _known_part(variance: Any, prior: Any) -> Any:
    """Part of a process that is known: the prior variance has been cut by it."""
    return (1 - variance / prior).clip(0)


def _drawn_together(parts: Components, kept: Tensor) -> tuple[Components, Tensor]:
    """Components whose distances from the mean are multiplied, and their former mean square."""
    if parts.mean.shape[1] == 1:
        return parts, torch.zeros_like(kept)
    mean = parts.expectation()[:, None]
    apart = parts.mean - mean
    square = (parts._shares() * apart.square()).sum(1)
    return replace(parts, mean=mean + kept[:, None] * apart), square


def moved(parts: Components, step: Tensor) -> Components:
    """The same components about another mean."""
    if isinstance(parts, IndependentComponents) and parts.center is not None:
        return replace(parts, mean=parts.mean + step[:, None], center=parts.center + step)
    return replace(parts, mean=parts.mean + step[:, None])


def _fit_process(
    rows: Rows, starts: Sequence[np.ndarray] | None = None, directions: Tensor | None = None
) -> ProcessCompanion | None:
    """The processes of largest evidence on the rows, of full weight; from rates of each target."""
    X = rows.X if directions is None else rows.X @ directions
    y, weight = rows.y, rows.weight
    kernels: list[Kernel] = []
    for target in range(rows.n_outputs):
        only = slice(target, target + 1)
        one = Rows(X, y[:, only], weight, rows.within[:, only])
        start = None if starts is None else [starts[target]]
        found = evident_kernel(one, start, np.random.default_rng(9), rough=True)
        if found is None:
            return None
        if found.variances[2] < LITTLE_NOISE and starts is None:
            found = refined_kernel(one, found, np.random.default_rng(9))
        kernels.append(found)
    rates, variances = (
        torch.as_tensor(np.stack(part), device="cpu").to(X)
        for part in ([k.rates for k in kernels], [k.variances for k in kernels])
    )
    rough = torch.as_tensor([k.rough for k in kernels], device=X.device)
    intercept = (weight @ y) / weight.sum()
    ones = torch.ones_like(intercept)
    empty = ProcessCompanion(
        X, weight, rates, variances, X.mean(0), intercept, torch.zeros_like(y), ones, ones,
        rough=rough if bool(rough.any()) else None,
    )  # fmt: skip
    coef = [
        torch.cholesky_solve(part[:, None], factor)
        for part, factor in zip((y - intercept).T, empty._factors, strict=True)
    ]
    return replace(empty, coef=torch.cat(coef, 1), directions=directions)


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
    part = np.random.default_rng(9).permutation(rows.n_rows) % N_PARTS
    starts = list(process.rates.cpu().numpy())
    errors = torch.zeros_like(rows.y)
    for number in range(N_PARTS):
        kept, gone = (
            torch.as_tensor(np.flatnonzero(some), device=errors.device)
            for some in (part != number, part == number)
        )
        found = _fit_process(rows.subset(kept), starts, process.directions)
        if found is None:
            return None
        errors[gone] = rows.y[gone] - found.mean(rows.X[gone])
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

    Returns
    -------
    ProcessCompanion or None
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
        process = _fit_process(rows, None, _directions(rows))
        if process is None:
            return None
        others, variances = process.left_out(left_out[0].sets)
    except NUMERICAL_FAILURES:
        return None

    def weighed(others: Tensor) -> ProcessCompanion | None:
        judged = [
            _weigh(
                one,
                error,
                others[:, k].cpu().numpy(),
                variances[:, k].cpu().numpy(),
                rows,
                process.variances[k].cpu().numpy(),
                None if noise is None else noise[:, k].double().cpu().numpy(),
            )
            for k, (one, error) in enumerate(zip(left_out, errors, strict=True))
        ]
        share, factor, usual, part = (rows.y.new_tensor(p) for p in zip(*judged, strict=True))
        if not bool((share > 0).any()):
            return None
        return replace(process, share=share, factor=factor, usual=usual, part=part)

    found = weighed(others)
    n_rates = process.rates.shape[1]
    if found is None or rows.n_rows >= ROWS_A_NUMBER * (n_rates + 3):
        return found
    try:
        anew = _anew(process, rows)
    except NUMERICAL_FAILURES:
        return None
    return (
        None
        if anew is None
        else weighed(anew[torch.as_tensor(left_out[0].row, device=anew.device)])
    )


def _in_folds(
    left_out: LeftOut, error: np.ndarray, rows: Rows
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Which errors are those of random folds, they and their weights, and their rms."""
    known = (left_out.group < left_out.n_folds) & np.isfinite(error)
    weight = rows.weight.cpu().numpy()[left_out.row[known]]
    inner = error[known]
    total = max(float(weight.sum()), 1e-300)
    return known, inner, weight, math.sqrt(float(weight @ inner**2) / total)


def _weigh(
    left_out: LeftOut,
    error: np.ndarray,
    other: np.ndarray,
    variance: np.ndarray,
    rows: Rows,
    kernel: np.ndarray,
    noise: np.ndarray | None,
) -> tuple[float, float, float, float]:
    """Weight of the process beside a fit, factor of the variance, and `usual` and `part`."""
    alone = 0.0, 1.0, 1.0, 0.0
    known, own, weight, size = _in_folds(left_out, error, rows)
    if not len(own) or not size > CLEAR_ERROR:
        return alone
    variance, step = variance[known], own - other[known]
    told = _known_part(variance - kernel[2] / weight, kernel[1])
    usual = max(float(np.median(told)), LEAST_TOLD)
    told = np.minimum(told / usual, 1)
    # What is far worse than the other is not believed to be as good.
    square = min(float(weight @ part**2) for part in (step, own, other[known])) / len(own)
    scores = [
        float(weight @ (own - share * told * step) ** 2)
        + PRIOR_ROWS * square * (share - 0.5) ** 2
        for share in SHARES
    ]
    share = float(SHARES[int(np.argmin(scores))])
    at_rows = share * told
    joined = own - at_rows * step
    least = math.sqrt(float(weight @ joined**2) / float(weight.sum()))
    gain = own**2 - joined**2
    unsure = math.sqrt(float(weight**2 @ (gain - weight @ gain / weight.sum()) ** 2))
    clear = float(weight @ gain) > CLEAR * unsure
    if share < LEAST_SHARE or not least < WORTH * size or not clear:
        return alone
    own_variance = left_out.variance[known, 0]
    if noise is not None:
        promised = noise[left_out.row[known]] / weight
        own_variance = own_variance - left_out.noise[known, 0] + promised
    apart = at_rows * (1 - at_rows) * step**2
    best, factor, part = -math.inf, 1.0, 0.0
    for tried in PARTS:
        here = tried * told
        total = np.maximum((1 - here) * own_variance + here * variance + apart, ROUND_OFF)
        ratio = (float(weight @ (joined**2 / total)) + PRIOR_ROWS) / (weight.sum() + PRIOR_ROWS)
        ratio = float(np.clip(ratio, 1 / MOST_FACTOR, MOST_FACTOR))
        likely = -float(weight @ (np.log(ratio * total) + joined**2 / (ratio * total)))
        if likely > best:
            best, factor, part = likely, ratio, tried
    return share, factor, usual, part
