"""A Gaussian process on the same rows: where left-out rows ask for it, the mean leans on it.

What a form errs by on few rows with noise is variance for the most part, and that of two unlike
models is not the same: a weighted mean of both errs by less than either [1]_. The weight is the one
under which left-out errors are least, drawn towards one half where few rows tell.

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
from skpou.core.models.relevance import CONSTANT, MOST_FEATURES, evident_kernel

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
#: Rows for each number of the kernel below which its search must stand without parts of the rows:
#: the kernel remembers them; and the number of parts.
ROWS_A_NUMBER, N_PARTS = 20, 4
#: Most by which the variances are raised where left-out errors are larger than they say.
MOST_FACTOR = 10.0


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

    def _kernel(self, X: Tensor, target: int) -> tuple[Tensor, Tensor]:
        """Covariances (n, k) with the rows, and the part of them that is not the line's."""
        rates, (of_line, of_process, _) = self.rates[target], self.variances[target]
        distance = torch.cdist(
            X * rates, self.points * rates, compute_mode="donot_use_mm_for_euclid_dist"
        )
        bent = of_process * torch.exp(-0.5 * distance.square())
        line = (X - self.centre) @ (self.points - self.centre).T
        return CONSTANT + of_line * line + bent, bent

    def _of_targets(self, of_one: Callable[[int], Tensor], like: Tensor) -> Tensor:
        """What is asked for of every target with a weight, on a last axis; 0 for the others."""
        some = self.share.tolist()
        return torch.stack([of_one(k) if part else like for k, part in enumerate(some)], -1)

    def _slope(self, target: int) -> Tensor:
        """Slopes (d,) of the line."""
        return self.variances[target, 0] * self.coef[:, target] @ (self.points - self.centre)

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        X = X.to(self.points)

        def of_one(k: int) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            coef = self.coef[:, k]
            bent = (self._kernel(X, k)[1] * coef).sum(1)
            line = ((X - self.centre) * self._slope(k)).sum(1)
            return self.intercept[k] + CONSTANT * coef.sum() + line + bent

        return self._of_targets(of_one, torch.zeros_like(X[:, 0]))

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""
        X = X.to(self.points)

        def of_one(k: int) -> Tensor:
            pull = self._kernel(X, k)[1] * self.coef[:, k]
            inner = pull @ self.points - X * pull.sum(1, keepdim=True)
            return self.rates[k].square() * inner + self._slope(k)

        return self._of_targets(of_one, torch.zeros_like(X))

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
        X = X.to(self.points)

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

    def beside(self, mean: Tensor, X: Tensor) -> Tensor:
        """The weighted mean (n, m) with a fit's at the same points."""
        return mean + self.share.to(mean) * (self.mean(X).to(mean) - mean)

    def with_density(self, parts: Components, X: Tensor, posterior: bool = True) -> Components:
        """A fit's density about the weighted mean, with the variance of the mixture of both."""
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
            # The components' own variances of the mean count by the squares of their shares.
            added = added / parts.log_pi.exp().square().sum(1, keepdim=True)
        less = (total / own.clamp_min(torch.finfo(own.dtype).tiny)).clamp_max(1)[:, None]
        parts = moved(parts, share * step)
        return replace(
            parts, noise=parts.noise * less, epistemic=parts.epistemic * less + added[:, None]
        )

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        return 6 * len(self.points) + self.points.shape[1] * (1 + self.coef.shape[1])

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        return {k: v.cpu().contiguous().numpy() for k, v in vars(self).items() if k in _FIELDS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> ProcessCompanion:
        """Rebuild from `arrays`, in float64 on the device of `like`."""
        return cls(
            **{k: torch.tensor(np.asarray(v), device=like.device) for k, v in arrays.items()}
        )


_FIELDS = tuple(ProcessCompanion.__dataclass_fields__)


def moved(parts: Components, step: Tensor) -> Components:
    """The same components about another mean."""
    if isinstance(parts, IndependentComponents) and parts.center is not None:
        return replace(parts, mean=parts.mean + step[:, None], center=parts.center + step)
    return replace(parts, mean=parts.mean + step[:, None])


def _fit_process(rows: Rows, starts: Sequence[np.ndarray] | None = None) -> ProcessCompanion | None:
    """The processes of largest evidence on the rows, of full weight; from rates of each target."""
    X, y, weight = rows.X, rows.y, rows.weight
    kernels = []
    for target in range(rows.n_outputs):
        only = slice(target, target + 1)
        one = Rows(X, y[:, only], weight, rows.within[:, only])
        start = None if starts is None else [starts[target]]
        found = evident_kernel(one, start, np.random.default_rng(9))
        if found is None:
            return None
        kernels.append(found)
    rates, variances = (
        torch.as_tensor(np.stack(part), device="cpu").to(X) for part in zip(*kernels, strict=True)
    )
    intercept = (weight @ y) / weight.sum()
    ones = torch.ones_like(intercept)
    empty = ProcessCompanion(
        X, weight, rates, variances, X.mean(0), intercept, torch.zeros_like(y), ones, ones
    )
    coef = [
        torch.cholesky_solve(part[:, None], factor)
        for part, factor in zip((y - intercept).T, empty._factors, strict=True)
    ]
    return replace(empty, coef=torch.cat(coef, 1))


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
        found = _fit_process(rows.subset(kept), starts)
        if found is None:
            return None
        errors[gone] = rows.y[gone] - found.mean(rows.X[gone])
    return errors


def fit_process(
    rows: Rows, left_out: Sequence[LeftOut] | None, errors: Sequence[np.ndarray] | None = None
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

    Returns
    -------
    ProcessCompanion or None
    """
    if left_out is None or rows.n_rows > MOST_ROWS or not 1 <= rows.n_features <= MOST_FEATURES:
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

    def weighed(others: Tensor) -> ProcessCompanion | None:
        judged = [
            _weigh(one, error, others[:, k].cpu().numpy(), variances[:, k].cpu().numpy(), rows)
            for k, (one, error) in enumerate(zip(left_out, errors, strict=True))
        ]
        share, factor = (rows.y.new_tensor(part) for part in zip(*judged, strict=True))
        return replace(process, share=share, factor=factor) if bool((share > 0).any()) else None

    found = weighed(others)
    if found is None or rows.n_rows >= ROWS_A_NUMBER * (rows.n_features + 3):
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
    left_out: LeftOut, error: np.ndarray, other: np.ndarray, variance: np.ndarray, rows: Rows
) -> tuple[float, float]:
    """Weight of the process beside a fit, and the factor of the variance of both."""
    known, own, weight, size = _in_folds(left_out, error, rows)
    if not len(own) or not size > CLEAR_ERROR:
        return 0.0, 1.0
    other, step = other[known], own - other[known]
    square = float(weight @ step**2) / len(own)
    n = len(own)
    share = n * float(weight @ (own * step)) / len(own) + 0.5 * PRIOR_ROWS * square
    share = share / max((n + PRIOR_ROWS) * square, 1e-300)
    share = float(np.clip(round(share / STEP) * STEP, 0, 1))
    joined = own - share * step
    least = math.sqrt(float(weight @ joined**2) / float(weight.sum()))
    gain = own**2 - joined**2
    unsure = math.sqrt(float(weight**2 @ (gain - weight @ gain / weight.sum()) ** 2))
    clear = float(weight @ gain) > CLEAR * unsure
    if share < LEAST_SHARE or not least < WORTH * size or not clear:
        return 0.0, 1.0
    own_variance = left_out.variance[known, 0]
    total = (1 - share) * own_variance + share * variance[known] + share * (1 - share) * step**2
    ratio = float(weight @ (joined**2 / np.maximum(total, 1e-300))) / float(weight.sum())
    return share, float(np.clip(ratio, 1.0, MOST_FACTOR))
