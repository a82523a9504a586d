"""A Gaussian process in place of a fit of few rows, where it predicts left-out rows far better.

Few rows do not tell a form: what a search finds may be exact at the rows and off between them. A
process with a smooth kernel has no form to find, and its lengths are those of largest evidence
[1]_, Chapter 5, of two kernels: of functions that are as smooth as any, and of such as have two
derivatives. Its size is the best one for each set of lengths, so that it may exceed y's by far, as
it does where lengths are large: that limit is a polynomial.

References
----------
.. [1] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
   (2006).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.form_error import FormError, WithFormError, fit_form_errors

#: Fewest rows, most of them, most columns, and fewest rows for each column: more rows tell a form.
FEWEST_ROWS, MOST_ROWS, MOST_FEATURES, ROWS_A_COLUMN = 4, 64, 8, 4
#: Error at left-out rows, in units of y, below which a form needs no other.
EXACT_ENOUGH = 1e-8
#: Part of the form's left-out error that the process' must not exceed, as a mean of logarithms
#: less its standard error, and as a root mean square: half is what folds may be wrong by.
BETTER = 0.5
#: Noise beside the process' variance that bounds the condition of the covariances.
NUGGET = 1e-13
#: Variance of the constant beside the process'.
CONSTANT = 1.0
#: First rates in units of the box (over the root of the columns), noises and part of the line.
FIRST_RATES, FIRST_NOISES, FIRST_LINE = (0.7, 2.0, 6.0), (1e-8, 1e-3), 0.1
#: Bounds of the logarithms of the rates, of the line's variance and the noise's, in units of the
#: process': a line may be nothing, and all of the rows may be noise.
RATES, LINE, NOISE = (-4.0, 5.0), (-12.0, 8.0), (-40.0, 8.0)
#: Searches of each kernel, their steps, and those from where one has ended.
N_SEARCHES, N_STEPS, N_STEPS_AGAIN = 2, 60, 15
#: Centre and standard deviation of the logarithms of the rates, and that about their mean: a few
#: rows do not tell a length by themselves.
CENTRE, SPREAD, SPREAD_APART = math.log(1.5), 2.0, 1.5
#: Rates and variances are whole powers of two to this: round-off must not show.
STEP = 1 / 16
#: The kernels.
GAUSSIAN, MATERN = 0, 1


def _kernel(square: Any, kind: int, library: Any) -> tuple[Any, Any]:
    """Correlations at squared distances, and what times a step is minus their gradient."""
    if kind == GAUSSIAN:
        value = library.exp(-0.5 * square)
        return value, value
    r = library.sqrt(5 * square)
    fall = library.exp(-r)
    return (1 + r + r * r / 3) * fall, (5 / 3) * (1 + r) * fall


class _Evidence:
    """The evidence of rates, line and noise, for the size of the process that is best with them.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows in the unit box.
    y : ndarray of shape (n,)
        Targets about their mean.
    weight : ndarray of shape (n,)
        Their noise is divided by it.
    kind : int
        One of the kernels.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, kind: int):
        self.y, self.weight, self.kind = y, weight, kind
        n, d = X.shape
        columns = X.T[:, :, None] - X.T[:, None]
        self.squares = (columns**2).reshape(d, n * n)
        Z = X - X.mean(0)
        self.line = Z @ Z.T

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Its negative logarithm with the prior, and the gradient."""
        n, d = len(self.y), len(self.squares)
        rates, (line, noise) = theta[:d], np.exp(theta[d:])
        distance = (np.exp(2 * rates) @ self.squares).reshape(n, n)
        kernel, fall = _kernel(distance, self.kind, np)
        K = CONSTANT + line * self.line + kernel
        K[np.diag_indices(n)] += (noise + NUGGET) / self.weight
        try:
            factor = cho_factor(K, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return math.inf, np.zeros_like(theta)
        inverse = cho_solve(factor, np.eye(n), check_finite=False)
        alpha = cho_solve(factor, self.y, check_finite=False)
        size = max(float(self.y @ alpha) / n, np.finfo(float).tiny)
        slope = 0.5 * (inverse - np.outer(alpha, alpha) / size)
        mean = rates.mean()
        apart = (rates - mean) / SPREAD_APART**2
        value = 0.5 * n * math.log(size) + float(np.log(factor[0].diagonal()).sum())
        value += 0.5 * float(apart @ (rates - mean)) + 0.5 * ((mean - CENTRE) / SPREAD) ** 2
        gradient = np.empty_like(theta)
        gradient[:d] = -np.exp(2 * rates) * (self.squares @ (slope * fall).ravel())
        gradient[:d] += apart + (mean - CENTRE) / SPREAD**2 / d
        gradient[d] = line * float((slope * self.line).sum())
        gradient[d + 1] = noise * float(slope.diagonal() @ (1 / self.weight))
        return value, gradient

    def size(self, theta: np.ndarray) -> float:
        """The best variance of the process."""
        n, d = len(self.y), len(self.squares)
        distance = (np.exp(2 * theta[:d]) @ self.squares).reshape(n, n)
        K = CONSTANT + np.exp(theta[d]) * self.line + _kernel(distance, self.kind, np)[0]
        K[np.diag_indices(n)] += (np.exp(theta[d + 1]) + NUGGET) / self.weight
        factor = cho_factor(K, lower=True, check_finite=False)
        return max(float(self.y @ cho_solve(factor, self.y)) / n, np.finfo(float).tiny)

    def search(self, start: np.ndarray, n_steps: int) -> tuple[float, np.ndarray]:
        """The least value that a few steps reach, and where."""
        found = minimize(
            self,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[RATES] * len(self.squares) + [LINE, NOISE],
            options={"maxiter": n_steps, "maxfun": 2 * n_steps},
        )
        return float(found.fun), found.x


@dataclass(frozen=True)
class Interpolant:
    """Gaussian processes of all targets (m of them), each with a kernel of its own.

    Attributes
    ----------
    points : Tensor of shape (k, d)
        Rows in scaled units.
    weight : Tensor of shape (k,)
        Their noise is divided by it.
    kinds : Tensor of shape (m,)
        0 for the Gaussian kernel, 1 for Matern's with two derivatives.
    rates : Tensor of shape (m, d)
        Reciprocals of the lengths.
    variances : Tensor of shape (m, 4)
        Of constant, line, process and noise.
    centre : Tensor of shape (d,)
        Where the line is zero.
    intercept : Tensor of shape (m,)
        Mean of the targets.
    coef : Tensor of shape (k, m)
        Weights of the kernel's values.
    forms : tuple of FormError
        What errors at left-out rows add to the variances, for each target.
    """

    points: Tensor
    weight: Tensor
    kinds: Tensor
    rates: Tensor
    variances: Tensor
    centre: Tensor
    intercept: Tensor
    coef: Tensor
    forms: tuple[FormError, ...] = ()

    def _covariance(self, X: Tensor, Z: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances (n, k), the part of the process, and minus its gradient over the step."""
        constant, of_line, of_process, _ = self.variances[target]
        rates = self.rates[target]
        distance = torch.cdist(X * rates, Z * rates, compute_mode="donot_use_mm_for_euclid_dist")
        bent, fall = _kernel(distance.square(), int(self.kinds[target]), torch)
        bent, fall = of_process * bent, of_process * fall
        line = (X - self.centre) @ (Z - self.centre).T
        return constant + of_line * line + bent, bent, fall

    def _of_targets(self, of_one: Callable[[int], Tensor]) -> Tensor:
        return torch.stack([of_one(k) for k in range(len(self.intercept))], -1)

    def _slope(self, target: int) -> Tensor:
        """Slopes (d,) of the line."""
        return self.variances[target, 1] * self.coef[:, target] @ (self.points - self.centre)

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            coef = self.coef[:, k]
            bent = (self._covariance(Z, self.points, k)[1] * coef).sum(1)
            line = ((Z - self.centre) * self._slope(k)).sum(1)
            return self.intercept[k] + self.variances[k, 0] * coef.sum() + line + bent

        return self._of_targets(of_one).to(X.dtype)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            pull = self._covariance(Z, self.points, k)[2] * self.coef[:, k]
            inner = pull @ self.points - Z * pull.sum(1, keepdim=True)
            return self.rates[k].square() * inner + self._slope(k)

        return self._of_targets(of_one).to(X.dtype)

    @cached_property
    def _factors(self) -> list[Tensor]:
        factors = []
        for target, noise in enumerate(self.variances[:, 3]):
            K = self._covariance(self.points, self.points, target)[0]
            K.diagonal().add_(noise / self.weight)
            factors.append(torch.linalg.cholesky(K))
        return factors

    def _columns(self, X: Tensor, target: int) -> Tensor:
        """Columns (k, n) whose products are what the rows take off the covariances."""
        kernel = self._covariance(X, self.points, target)[0]
        return torch.linalg.solve_triangular(self._factors[target], kernel.T, upper=False)

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values, without the noise's."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            constant, of_line, of_process, _ = self.variances[k]
            prior = constant + of_process + of_line * (Z - self.centre).square().sum(1)
            return (prior - self._columns(Z, k).square().sum(0)).clamp_min(0)

        return self._of_targets(of_one)

    def covariance(self, X: Tensor) -> Tensor:
        """Covariance (n, n, m) of the values between points."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            columns = self._columns(Z, k)
            return self._covariance(Z, Z, k)[0] - columns.T @ columns

        return self._of_targets(of_one)

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d): one Gaussian, without the error of the form."""
        mean = self.mean(X)
        epistemic = self.variance(X).to(mean) if posterior else torch.zeros_like(mean)
        noise = self.variances[:, 3].to(mean).expand(len(mean), 1, -1)
        log_pi = torch.zeros_like(mean[:, :1])
        return Components(log_pi, mean[:, None], noise, epistemic[:, None])

    @cached_property
    def bars(self) -> WithFormError:
        """The same with all that is known of its errors."""
        return WithFormError(self, self.forms)

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        own = 6 * len(self.points) + self.points.shape[1] * (1 + self.coef.shape[1])
        return own + sum(form.points.size for form in self.forms[:1])

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        tensors = {k: v for k, v in vars(self).items() if k in _TENSORS}
        state: dict[str, Any] = {k: v.cpu().contiguous().numpy() for k, v in tensors.items()}
        return {**state, "forms": [form.arrays() for form in self.forms]}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Interpolant:
        """Rebuild from `arrays`, in float64 on the device of `like`."""
        forms = tuple(FormError(**form) for form in arrays["forms"])
        tensors = {k: torch.tensor(np.asarray(arrays[k]), device=like.device) for k in _TENSORS}
        return cls(**tensors, forms=forms)


_TENSORS = tuple(name for name in Interpolant.__dataclass_fields__ if name != "forms")

#: Kernel, rates, line and noise of one target, the latter two over the process' variance.
_Choice = tuple[int, np.ndarray]


def _as_numpy(rows: Rows, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y, weight = (part.cpu().numpy() for part in (rows.X, rows.y[:, target], rows.weight))
    return X, y - weight @ y / weight.sum(), weight


def _rounded(theta: np.ndarray) -> np.ndarray:
    unit = STEP * math.log(2)
    return np.round(theta / unit) * unit


def _likeliest(rows: Rows, target: int) -> _Choice:
    """Of all kernels and starts."""
    X, y, weight = _as_numpy(rows, target)
    d = X.shape[1]
    starts = [
        np.r_[np.full(d, math.log(rate / math.sqrt(d))), math.log(FIRST_LINE), math.log(noise)]
        for rate in FIRST_RATES
        for noise in FIRST_NOISES
    ]
    ends = []
    for kind in (GAUSSIAN, MATERN):
        evidence = _Evidence(X, y, weight, kind)
        values = [evidence(start)[0] for start in starts]
        for k in np.argsort(values, kind="stable")[:N_SEARCHES]:
            value, theta = evidence.search(starts[k], N_STEPS)
            ends.append((value, kind, theta))
    _, kind, theta = min(ends, key=lambda end: end[0])
    return kind, _rounded(theta)


def _again(rows: Rows, target: int, choice: _Choice) -> _Choice:
    """From where a search has ended on more rows."""
    kind, theta = choice
    evidence = _Evidence(*_as_numpy(rows, target), kind)
    return kind, _rounded(evidence.search(theta, N_STEPS_AGAIN)[1])


def _solved(rows: Rows, choices: Sequence[_Choice]) -> Interpolant:
    """The processes of all targets with given kernels."""
    X, y, weight = rows.X, rows.y, rows.weight
    d = X.shape[1]
    rates, variances = [], []
    for target, (kind, theta) in enumerate(choices):
        size = _Evidence(*_as_numpy(rows, target), kind).size(theta)
        noise = math.exp(theta[d + 1]) + NUGGET
        rates.append(np.exp(theta[:d]))
        variances.append([size * CONSTANT, size * math.exp(theta[d]), size, size * noise])
    intercept = (weight @ y) / weight.sum()
    empty = Interpolant(
        X,
        weight,
        torch.as_tensor([kind for kind, _ in choices], device=X.device),
        X.new_tensor(np.stack(rates)),
        X.new_tensor(np.array(variances)),
        X.mean(0),
        intercept,
        torch.zeros_like(y),
    )
    coef = [
        torch.cholesky_solve(part[:, None], factor)
        for part, factor in zip((y - intercept).T, empty._factors, strict=True)
    ]
    return replace(empty, coef=torch.cat(coef, 1))


def _left_out(rows: Rows, choices: Sequence[_Choice], sets: LeftOut) -> list[LeftOut]:
    """Errors of fits without each set, for each target.

    Without a random fold the kernel is searched for anew: it remembers the rows. Few enough are
    kept that each is factored anew, too: round-off does not spoil errors far below y then.
    """
    of_sets = []
    for number, part in enumerate(sets.sets):
        kept, gone = (
            torch.as_tensor(some, device=rows.X.device)
            for some in (np.setdiff1d(np.arange(rows.n_rows), part), part)
        )
        rest = rows.subset(kept)
        own = choices
        if number < sets.n_folds:
            own = [_again(rest, target, choice) for target, choice in enumerate(choices)]
        found = _solved(rest, own)
        noise = found.variances[:, 3] / rows.weight[gone, None]
        of_sets.append((rows.y[gone] - found.mean(rows.X[gone]), found.variance(rows.X[gone]), noise))  # fmt: skip
    error, own, noise = (torch.cat(part).cpu().numpy() for part in zip(*of_sets, strict=True))
    known = np.ones(len(sets.sets), dtype=bool)
    count = np.array([len(part) for part in sets.sets], dtype=float)
    return [
        LeftOut(
            sets.sets, sets.n_folds, error[:, [k]], (own + noise)[:, [k]], noise[:, [k]], count, known
        )  # fmt: skip
        for k in range(rows.n_outputs)
    ]


def _size(own: LeftOut) -> float:
    """Root mean square of the errors in random folds."""
    known = (own.group < own.n_folds) & np.isfinite(own.error[:, 0])
    return math.sqrt(float(np.mean(own.error[known, 0] ** 2))) if known.any() else 0.0


def _is_better(own: LeftOut, other: LeftOut) -> bool:
    """Whether another model's errors in random folds are less by more than luck."""
    known = (own.group < own.n_folds) & np.isfinite(own.error[:, 0])
    before, after = np.abs(own.error[known, 0]), np.abs(other.error[known, 0])
    size = math.sqrt(float(np.mean(before**2)))
    floor = EXACT_ENOUGH * size
    gain = np.log((before + floor) / (after + floor))
    unsure = float(gain.std()) / math.sqrt(len(gain))
    least = math.sqrt(float(np.mean(after**2)))
    return least < BETTER * size and float(gain.mean()) - unsure > -math.log(BETTER)


def fit_interpolant(rows: Rows, left_out: Sequence[LeftOut] | None) -> Interpolant | None:
    """The processes of few rows where they predict left-out ones far better than a fit does.

    Parameters
    ----------
    rows : Rows
        Those of the fit, in float64.
    left_out : sequence of LeftOut or None
        Errors of the fit at left-out rows, one a target; None where there are none.

    Returns
    -------
    Interpolant or None
        None where a target's fit is about as good, or rows are too few or too many.
    """
    n, d = rows.X.shape
    if left_out is None or not 1 <= d <= MOST_FEATURES:
        return None
    if not max(FEWEST_ROWS, ROWS_A_COLUMN * d) <= n <= MOST_ROWS:
        return None
    if min(map(_size, left_out)) <= EXACT_ENOUGH:
        return None
    try:
        choices = [_likeliest(rows, target) for target in range(rows.n_outputs)]
        others = _left_out(rows, choices, left_out[0])
        if not all(_is_better(own, other) for own, other in zip(left_out, others, strict=True)):
            return None
        found = _solved(rows, choices)
        return replace(found, forms=tuple(fit_form_errors(found, others, rows)))
    except NUMERICAL_FAILURES:
        return None
