"""A Gaussian process in place of a fit of few rows, where it predicts left-out rows far better.

Few rows do not tell a form: what a search finds may be exact at the rows and off between them. A
process with a smooth kernel has no form to find, and its lengths are those of largest evidence
[1]_, Chapter 5, of two kernels: of functions that are as smooth as any, and of such as have two
derivatives.

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
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.form_error import (
    FormError,
    WithFormError,
    fit_form_errors,
    no_form_errors,
)
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.kernel_left_out import kernel_left_out, left_out_anew
from skpou.core.models.level_error import sets_of_levels
from skpou.core.models.likely_kernels import (
    CONSTANT,
    MANY_ROWS,
    NUGGET,
    KernelChoice,
    correlation,
    evidence_of,
    likeliest_kernel,
    stretched,
)
from skpou.core.models.model import Predictor
from skpou.core.models.tails import CLEAR_NOISE
from skpou.core.sobol import sobol_points

#: Fewest rows, most of them, most columns, and fewest rows for each column: more rows tell a form.
FEWEST_ROWS, MOST_ROWS, MOST_FEATURES, ROWS_A_COLUMN = 4, 150, 8, 4
#: Error at left-out rows, in units of y, below which a form needs no other.
EXACT_ENOUGH = 1e-6
#: Part of the form's expected error that the process' must not exceed: half is what either may be
#: wrong by.
BETTER = 0.5
#: Largest left-out error, and largest mean square of those of random folds, of levels and of
#: neighbourhoods, in units of what the process claims, up to which its claims are borne out: a kink
#: or a length that varies shows in some errors, levels of another form in all of theirs.
LARGEST_BORNE_OUT, SQUARE_BORNE_OUT = 3.0, 1.5
#: Most rows whose kernel is chosen anew without each set, to say by how much its claims are too
#: small: so few rows that happen to be smooth, noise and all, choose one of no noise.
CHOSEN_ANEW = 12
#: Numbers of a kernel beside its rates: sizes of constant, line, process and noise. Not more rows
#: than numbers bear nothing out.
FURTHER_NUMBERS = 4
#: Errors' worth of belief in the claimed variance where left-out errors are smaller.
PRIOR_ERRORS = 8.0
#: Points of the box at which errors are expected.
N_PROBES = 128


@dataclass(frozen=True)
class Interpolant:
    """Gaussian processes of some targets (m of them), each with a kernel of its own.

    Attributes
    ----------
    points : Tensor of shape (k, d)
        Rows in scaled units.
    weight : Tensor of shape (k,)
        Their noise is divided by it.
    kinds : Tensor of shape (m,)
        0 for the Gaussian kernel, 1 for Matern's with two derivatives.
    stretches : Tensor of shape (m,)
        By how much ends of the box are drawn out, see `stretched`.
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
    targets : Tensor of shape (m,)
        Which of the outputs they predict, in order.
    forms : tuple of FormError
        What errors at left-out rows add to the variances, for each target.
    """

    points: Tensor
    weight: Tensor
    kinds: Tensor
    stretches: Tensor
    rates: Tensor
    variances: Tensor
    centre: Tensor
    intercept: Tensor
    coef: Tensor
    targets: Tensor
    forms: tuple[FormError, ...] = ()

    def with_those_of(self, other: Interpolant) -> Interpolant:
        """These and those of further targets at the same rows."""
        joined = {
            name: torch.cat(
                [getattr(self, name), getattr(other, name)], -1 if name == "coef" else 0
            )
            for name in _OF_TARGETS
        }
        return replace(self, **joined, forms=self.forms + other.forms)

    def with_variance(self, factor: float, form: FormError) -> Interpolant:
        """That of a single target with the same mean and so many times the variance."""
        return replace(
            self, variances=factor * self.variances, coef=self.coef / factor, forms=(form,)
        )

    def predicts_all(self, n_outputs: int) -> bool:
        """Whether no output is left to another model."""
        return len(self.intercept) == n_outputs

    def instead(self, values: Tensor, own: Tensor) -> Tensor:
        """Values (..., n_outputs) of all outputs, with those (..., m) of the processes in place."""
        result = values.clone()
        result[..., self.targets] = own.to(values)
        return result

    def beside(self, parts: Components, X: Tensor, posterior: bool = True) -> Components:
        """The density of all outputs at points X (n, d), with that of the processes in place."""
        own = self.bars.components(X, posterior)
        epistemic = own.epistemic.expand_as(own.mean)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            epistemic = epistemic / parts.log_pi.exp().square().sum(1)[:, None, None].to(epistemic)
        # A mixture of equal components is one of them.
        found = replace(
            parts,
            mean=self.instead(parts.mean, own.mean),
            noise=self.instead(parts.noise.expand_as(parts.mean), own.noise.expand_as(own.mean)),
            epistemic=self.instead(parts.epistemic.expand_as(parts.mean), epistemic),
        )
        if isinstance(found, IndependentComponents) and found.center is not None:
            return replace(found, center=self.instead(found.center, own.expectation()))
        return found

    def _covariance(self, X: Tensor, Z: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances (n, k), the part of the process, and minus its gradient over the step."""
        constant, of_line, of_process, _ = self.variances[target]
        rates = self.rates[target]
        X, Z = (stretched(part, float(self.stretches[target]), torch)[0] for part in (X, Z))
        distance = torch.cdist(X * rates, Z * rates, compute_mode="donot_use_mm_for_euclid_dist")
        bent, fall = correlation(distance.square(), int(self.kinds[target]), torch)
        bent, fall = of_process * bent, of_process * fall
        centre = self._centre(target)
        line = (X - centre) @ (Z - centre).T
        return constant + of_line * line + bent, bent, fall

    def _centre(self, target: int) -> Tensor:
        """Where the line is zero, in stretched coordinates."""
        return stretched(self.centre, float(self.stretches[target]), torch)[0]

    def _of_targets(self, of_one: Callable[[int], Tensor]) -> Tensor:
        return torch.stack([of_one(k) for k in range(len(self.intercept))], -1)

    def _slope(self, target: int) -> Tensor:
        """Slopes (d,) of the line in stretched coordinates."""
        points = stretched(self.points, float(self.stretches[target]), torch)[0]
        return self.variances[target, 1] * self.coef[:, target] @ (points - self._centre(target))

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            coef = self.coef[:, k]
            bent = (self._covariance(Z, self.points, k)[1] * coef).sum(1)
            at = stretched(Z, float(self.stretches[k]), torch)[0]
            line = ((at - self._centre(k)) * self._slope(k)).sum(1)
            return self.intercept[k] + self.variances[k, 0] * coef.sum() + line + bent

        return self._of_targets(of_one).to(X.dtype)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            pull = self._covariance(Z, self.points, k)[2] * self.coef[:, k]
            stretch = float(self.stretches[k])
            at, slope = stretched(Z, stretch, torch)
            points = stretched(self.points, stretch, torch)[0]
            inner = pull @ points - at * pull.sum(1, keepdim=True)
            return slope * (self.rates[k].square() * inner + self._slope(k))

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

    def degrees_left(self, target: int) -> float:
        """Degrees of freedom that the process leaves to the noise."""
        own = torch.cholesky_inverse(self._factors[target]).diagonal() / self.weight
        return float(self.variances[target, 3] * own.sum())

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values, without the noise's."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            constant, of_line, of_process, _ = self.variances[k]
            at = stretched(Z, float(self.stretches[k]), torch)[0]
            prior = constant + of_process + of_line * (at - self._centre(k)).square().sum(1)
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
_OF_TARGETS = ("kinds", "stretches", "rates", "variances", "intercept", "coef", "targets")


def _solved(rows: Rows, choices: Sequence[KernelChoice]) -> Interpolant:
    """The processes of all targets with given kernels."""
    X, y, weight = rows.X, rows.y, rows.weight
    d = X.shape[1]
    rates, variances = [], []
    for target, (kind, stretch, theta) in enumerate(choices):
        size = evidence_of(rows, target, kind, stretch).size(theta)
        noise = math.exp(theta[d + 1]) + NUGGET
        rates.append(np.exp(theta[:d]))
        variances.append([size * CONSTANT, size * math.exp(theta[d]), size, size * noise])
    intercept = (weight @ y) / weight.sum()
    empty = Interpolant(
        X,
        weight,
        torch.as_tensor([kind for kind, _, _ in choices], device=X.device),
        X.new_tensor([stretch for _, stretch, _ in choices]),
        X.new_tensor(np.stack(rates)),
        X.new_tensor(np.array(variances)),
        X.mean(0),
        intercept,
        torch.zeros_like(y),
        torch.arange(len(choices), device=X.device),
    )
    coef = [
        torch.cholesky_solve(part[:, None], factor)
        for part, factor in zip((y - intercept).T, empty._factors, strict=True)
    ]
    return replace(empty, coef=torch.cat(coef, 1))


def _left_out(rows: Rows, choice: KernelChoice, sets: LeftOut) -> LeftOut:
    """Errors of fits of one target without each set, and the degrees that all rows leave."""
    degrees = _solved(rows, [choice]).degrees_left(0)
    return replace(kernel_left_out(rows, choice, sets), degrees=degrees)


def _counted(left_out: LeftOut, X: np.ndarray) -> np.ndarray:
    """Which errors are those of random folds and of levels, and known."""
    levels = {number for column in sets_of_levels(left_out, X).values() for number in column}
    sets = np.array([k < left_out.n_folds or k in levels for k in range(len(left_out.sets))])
    return sets[left_out.group] & np.isfinite(left_out.error[:, 0])


def _size(left_out: LeftOut, known: np.ndarray) -> float:
    """Root mean square of some of the errors."""
    error = left_out.error[known, 0]
    return math.sqrt(float(np.mean(error**2))) if len(error) else 0.0


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
    if gain.mean() - unsure > -math.log(BETTER) and _size(other, known) < _size(own, known):
        return True
    ratio = float(np.mean(after**2 / np.maximum(other.variance[known, 0], 1e-300)))
    bears_out = math.sqrt(max(ratio, 1.0))
    # Many rows tell of a form what few do not.
    as_little = int(own.row.max()) < MANY_ROWS or _size(other, known) < _size(own, known)
    return as_little and float(gain.mean()) > 0 and bears_out * of_other < BETTER * expected


def _borne_out(left_out: LeftOut, X: np.ndarray) -> float | None:
    """Factor of the variance that left-out errors ask of a process; None where it claims too much.

    Each kind of sets is asked by itself. A variance that is too large is believed for some errors,
    and none of the errors may be too large for the smaller one: a place where a function is rougher
    than elsewhere is seen in a few.
    """
    parts = _squares(left_out, X)
    square = np.concatenate(parts)
    if not np.isfinite(square).all() or square.max() > LARGEST_BORNE_OUT**2:
        return None
    if max(float(part.mean()) for part in parts) > SQUARE_BORNE_OUT:
        return None
    factor = max(_asked(parts), float(square.max()) / LARGEST_BORNE_OUT**2)
    return min(factor, 1.0) if np.median(left_out.noise) < CLEAR_NOISE**2 else 1.0


def _squares(left_out: LeftOut, X: np.ndarray) -> list[np.ndarray]:
    """Squares of the errors in units of what is claimed, of each kind of sets."""
    levels = {number for column in sets_of_levels(left_out, X).values() for number in column}
    kinds = np.array(
        [0 if k < left_out.n_folds else 1 + (k in levels) for k in range(len(left_out.sets))]
    )[left_out.group]
    square = left_out.error[:, 0] ** 2 / np.maximum(left_out.variance[:, 0], 1e-300)
    return [square[kinds == kind] for kind in np.unique(kinds)]


def _asked(parts: Sequence[np.ndarray]) -> float:
    """Factor of the variance that such squares ask for."""
    return max((float(part.sum()) + PRIOR_ERRORS) / (len(part) + PRIOR_ERRORS) for part in parts)


def _is_bent(rows: Rows) -> bool:
    """Whether most rows of a single column are on a line with their neighbours, but not all.

    Where the lines meet between rows no smooth function says so.
    """
    if rows.n_features > 1 or rows.n_rows < FEWEST_ROWS:
        return False
    order = rows.X[:, 0].argsort()
    x, y = rows.X[order], rows.y[order]
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    off = (y[1:-1] - y[:-2] - share * (y[2:] - y[:-2])).abs().amax(1)
    return float(off.median()) < EXACT_ENOUGH < float(off.max())


def _of_target(
    rows: Rows, left_out: LeftOut, expected: float, probes: Tensor
) -> tuple[Interpolant, LeftOut] | None:
    """The process of one target, and its errors at left-out rows; None where a fit is as good."""
    known = _counted(left_out, rows.X.cpu().numpy())
    if _is_bent(rows) or _size(left_out, known) <= EXACT_ENOUGH:
        return None
    try:
        choice = likeliest_kernel(rows, 0)
        other = _left_out(rows, choice, left_out)
        found = _solved(rows, [choice])
        if not _is_better(left_out, other, known, expected, _median_std(found, probes)[0]):
            return None
        X = rows.X.cpu().numpy()
        factor = _borne_out(other, X)
        if rows.n_rows <= rows.n_features + FURTHER_NUMBERS:
            # The noise that is claimed is that of all rows: others may explain any error by theirs.
            factor, other = None, replace(left_out_anew(rows, other), noise=other.noise)
        elif factor is not None and rows.n_rows <= CHOSEN_ANEW:
            factor = max(factor, _asked(_squares(left_out_anew(rows, other), X)))
        plain = replace(other, variance=other.noise)
        if factor is None:
            # What a kernel claims in vain has no part in what its errors are told by.
            found = replace(found, forms=tuple(fit_form_errors(found, [plain], rows)))
        else:
            (form,) = no_form_errors(rows)
            found = found.with_variance(factor, replace(form, knows_outside=True))
    except NUMERICAL_FAILURES:
        return None
    # Exact rows have no noise whose size few of them would leave open.
    is_noisy = float(np.median(other.noise)) >= CLEAR_NOISE**2
    return found, other if is_noisy else plain


def _median_std(model: Predictor, probes: Tensor) -> list[float]:
    """Median standard deviation that a model claims for the mean of each of its targets."""
    epistemic = model.components(probes).variances()[1]
    return epistemic.double().median(0).values.sqrt().tolist()


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
    expected = _median_std(model, probes)
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
