"""The density of what a mean leaves over: Gaussians of several widths, gated over the points.

The gates are softmax functions, affine in the points and in the mean itself. They are fitted to
errors of predictions that never saw their row, whose variance beyond the noise is known: the
width of component k at row i is ``s_k sqrt(1 + u_i)``, with u_i the variance of the mean over
that of the noise. Intervals come out calibrated without data set aside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from scipy.stats import chi2
from torch import Tensor

from skpou.core import Pairs, TensorState
from skpou.core.linalg import LEAST_SPREAD, TINY, evenly

#: Gate inputs are cut at so many standard deviations.
LARGEST_INPUT = 4.0
#: Numbers of components that are tried: doubled, as a few more or less hardly change a density.
COUNTS = (1, 2, 4, 8)
#: Folds of the rows that judge them, and fewest rows that can judge: four a fold.
N_FOLDS, FEWEST_JUDGES = 5, 20
#: Part of the ridge that the gates' constants have: how often a component counts is free.
RIDGE_OF_CONSTANT = 0.01
#: Factors of the errors' standard deviation between which components begin.
FIRST_SPREADS = (0.4, 1.8)
#: Ridge of the gates, and rows' worth of prior in the width of a component.
RIDGE, PRIOR_ROWS = 1.0, 3.0
#: Steps of expectation maximization: for good, and to judge a number of components.
STEPS, TRIAL_STEPS = 40, 25
#: Steps for one variance where something is added to it.
VARIANCE_STEPS = 10
#: Most rows that judge the number of components.
MOST_ROWS = 10_000
#: Rows with more than this leverage on themselves count as if they had no more: what is left would
#: be round-off. Columns that are as many as rows leave hardly more of errors as large as y.
LARGEST_LEVERAGE = 1 - 1e-9
#: Rounding of y matters unless the errors are this much smaller.
EXACT = 0.05
#: Standard errors by which a gain is hardly ever above zero by chance.
CLEAR_GAIN = 2.0
#: Standard errors by which the kurtosis of even noise is hardly ever exceeded, and how often chance
#: may pass for noise that varies: what is tried then must still predict left-out rows better.
LONG_TAILS, BY_CHANCE = 3.0, 0.01
#: Variance of a component relative to that of all that round-off may leave.
LEAST_VARIANCE = 1e-12
#: Variance of the kurtosis of normal numbers, times their number.
KURTOSIS_OF_NOISE = 24
#: Rows for each column from which on squares are columns, too.
ROWS_A_COLUMN = 4


@dataclass(frozen=True)
class Residue:
    """Errors of predictions that never saw their row.

    Some parts (f) of the rows at once have this as first axis of all that has an axis of rows.

    Attributes
    ----------
    inputs : Tensor of shape (n, q)
        What the gates may depend on, not yet standardized: points, then the mean.
    error : Tensor of shape (n,)
        Left-out errors.
    spread : Tensor of shape (n,)
        Variance of the predictions over that of the noise.
    weight : Tensor of shape (n,)
        Frequencies.
    added : Tensor of shape (n,), default=None
        Variance of the predictions that does not go with the noise.
    """

    inputs: Tensor
    error: Tensor
    spread: Tensor
    weight: Tensor
    added: Tensor | None = None

    def subset(self, index: Tensor) -> Residue:
        """Some of the rows."""
        added = None if self.added is None else self.added[index]
        return Residue(
            self.inputs[index], self.error[index], self.spread[index], self.weight[index], added
        )

    def variance(self) -> float:
        """Of the noise, if it is the same everywhere."""
        variance = (self.weight @ self.squares()) / self.weight.sum()
        for _ in range(0 if self.added is None else VARIANCE_STEPS):
            informed = self.informed(variance)
            variance = (self.weight @ (informed * self.squares())) / (self.weight @ informed)
            variance = variance.clamp_min(LEAST_VARIANCE * float(self.error.square().max()))
        return float(variance)

    def squares(self) -> Tensor:
        """What each error (n,) says the variance of the noise is."""
        square = self.error.square()
        return (square if self.added is None else square - self.added) / (1 + self.spread)

    def informed(self, variance: Tensor) -> Tensor:
        """How much each error says of it, (n, ...), where the noise has a variance; at most 1.

        It is the Fisher information, in units of that without what is added.
        """
        if self.added is None:
            return variance.new_ones((len(self.error), *variance.shape))
        shape = (-1,) + (1,) * variance.ndim
        own = variance * (1 + self.spread).reshape(shape)
        return (own / (own + self.added.reshape(shape))).square().reshape(-1, *variance.shape)


@dataclass(frozen=True)
class ResidueDensity(TensorState):
    """Gated widths of the noise.

    Attributes
    ----------
    centre, width : Tensor of shape (q,)
        Standardize the gates' inputs.
    gates : Tensor of shape (q + 1, K)
        Coefficients of the gates' logits: the constant first.
    variance : Tensor of shape (K,)
        Variances of the components.
    """

    centre: Tensor
    width: Tensor
    gates: Tensor
    variance: Tensor

    @classmethod
    def single(cls, variance: float, like: Tensor) -> ResidueDensity:
        """One Gaussian everywhere."""
        empty = like.new_zeros(0, dtype=torch.float64)
        one = like.new_ones(1, dtype=torch.float64)
        return cls(empty, empty, one[:, None] * 0, variance * one)

    @property
    def n_components(self) -> int:
        """Number K of components."""
        return len(self.variance)

    def features(self, inputs: Tensor) -> Tensor:
        """Constant and standardized inputs, (n, q + 1)."""
        if self.n_components == 1:
            return inputs.new_ones((len(inputs), 1))
        return _features(inputs, self.centre, self.width)

    def at(self, points: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the gates (n, K) and the variances (K,) at points with their means."""
        if self.n_components == 1:
            return self.variance.new_zeros((len(points), 1)), self.variance
        inputs = torch.cat([points, mean[:, None]], 1).to(self.variance)
        return torch.log_softmax(self.features(inputs) @ self.gates, 1), self.variance

    def scaled(self, factor: float) -> ResidueDensity:
        """The same with all variances multiplied."""
        return ResidueDensity(self.centre, self.width, self.gates, factor * self.variance)

    def log_density(self, residue: Residue) -> tuple[Tensor, Tensor]:
        """Of the errors of each row: of each component with its gate, and of all; (n, K), (n,)."""
        rows = self.features(residue.inputs).T
        joint = _log_joint(rows, self.gates, self.variance, residue)
        return joint.T, torch.logsumexp(joint, 0)


class StackedDensities(NamedTuple):
    """Densities of M residues with K components each.

    Those of `ResidueDensity`: centre, width (M, 1, q), gates (M, q + 1, K), variance (M, K).
    """

    centre: Tensor
    width: Tensor
    gates: Tensor
    variance: Tensor

    @classmethod
    def of(cls, densities: Sequence[ResidueDensity]) -> StackedDensities:
        """Put together densities of as many components."""
        centre, width, gates, variance = (
            torch.stack([getattr(one, part.name) for one in densities])
            for part in fields(ResidueDensity)
        )
        return cls(centre[:, None], width[:, None], gates, variance)

    def log_gates(self, points: Tensor, mean: Tensor) -> Tensor:
        """Logarithms (n, M, K) of the gates at points (n, q - 1), each with its mean (n, M)."""
        n, (M, K) = len(points), self.variance.shape
        if K == 1:
            return self.variance.new_zeros((n, M, 1))
        inputs = torch.cat([points.expand(M, -1, -1), mean.T[..., None]], 2).to(self.variance)
        Z = ((inputs - self.centre) / self.width).clamp(-LARGEST_INPUT, LARGEST_INPUT)
        logits = torch.baddbmm(self.gates[:, :1], Z, self.gates[:, 1:])
        return torch.log_softmax(logits, 2).transpose(0, 1)


def rounding(y: Tensor) -> float:
    """Half the smallest gap between distinct values: no noise is known to be narrower."""
    distinct = torch.unique(y)
    return 0.5 * float(distinct.diff().min()) if len(distinct) > 1 else 0.0


def left_out(
    pairs: Pairs, fitted: Tensor, spread: Tensor, points: Tensor, factor: Tensor | float = 1.0
) -> Residue:
    """Errors of every pair of point and target where this pair alone is left out.

    Parameters
    ----------
    pairs : Pairs
        Distinct points and targets, of one target.
    fitted, spread : Tensor of shape (n,)
        Means at the points, and their variance over that of the noise.
    points : Tensor of shape (n, q)
        What gates may depend on besides the mean.
    factor : Tensor of shape (k,), default=1.0
        Of the pairs' weights in the fit.
    """
    variance = spread[pairs.point]
    y = pairs.y[:, 0]
    leverage = (pairs.weight * factor * variance).clamp_max(LARGEST_LEVERAGE)
    error = (y - fitted[pairs.point]) / (1 - leverage)
    # Without its row the mean of all rows would tell the row's target: that part stays.
    part = (pairs.weight * factor / pairs.weight.sum()).clamp_max(LARGEST_LEVERAGE)
    mean = y - error + torch.minimum(part, leverage) * error
    inputs = torch.cat([points[pairs.point], mean[:, None]], 1)
    return Residue(inputs, error, variance / (1 - leverage), pairs.weight)


def noise_floor(residue: Residue, y: Tensor) -> float:
    """Least standard deviation of a component: the rounding of y, unless the fit is exact."""
    floor = rounding(y)
    return 0.0 if residue.variance() ** 0.5 < EXACT * 2 * floor else floor


def _features(inputs: Tensor, centre: Tensor, width: Tensor) -> Tensor:
    """Constant and standardized inputs, (..., n, q + 1)."""
    Z = (inputs - centre[..., None, :]) / width[..., None, :]
    Z = Z.clamp(-LARGEST_INPUT, LARGEST_INPUT)
    return torch.cat([torch.ones_like(Z[..., :1]), Z], -1)


def _log_joint(rows: Tensor, gates: Tensor, variance: Tensor, residue: Residue) -> Tensor:
    """Log densities (..., K, n) of the errors under each component, with its gate."""
    own = variance[..., None] * (1 + residue.spread[..., None, :])
    if residue.added is not None:
        own = own + residue.added[..., None, :]
    square = residue.error.square()[..., None, :] / own
    gated = torch.log_softmax(gates.mT @ rows, -2)
    return gated - 0.5 * (square + torch.log(2 * math.pi * own))


def _sums(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums (..., K) of values (..., K, n) over the rows."""
    return values @ weight if weight.ndim == 1 else (values @ weight[..., None])[..., 0]


class GateSteps:
    """Steps for the coefficients of logits, shrunk by a ridge, towards responsibilities.

    Parameters
    ----------
    Z : Tensor of shape (..., n, q)
        Inputs of the gates, the constant first.
    weight : Tensor of shape (..., n)
        Frequencies.
    """

    #: Steps for each change of the responsibilities.
    n_steps = 2

    def __init__(self, Z: Tensor, weight: Tensor):
        # Rows last: sums over a few components are far quicker so.
        self.rows, self.weight = Z.mT.contiguous(), weight[..., None, :]
        self.ridge = Z.new_full((Z.shape[-1], 1), RIDGE)
        self.ridge[0] *= RIDGE_OF_CONSTANT
        # An upper bound of the logits' Hessian (Boehning 1992): one factorization for all steps.
        bound = 0.5 * Z.mT @ (weight[..., None] * Z) + torch.diag(self.ridge[:, 0])
        self.factor = torch.linalg.cholesky(bound)

    def ascend(self, gates: Tensor, responsibility: Tensor) -> Tensor:
        """Coefficients (..., q, K) after a few steps towards responsibilities (..., n, K)."""
        for _ in range(self.n_steps):
            gap = self.weight * (responsibility.mT - torch.softmax(gates.mT @ self.rows, -2))
            step = self.rows @ gap.mT - self.ridge * gates
            gates = gates + torch.cholesky_solve(step, self.factor)
        return gates


def fit_density(
    residue: Residue, n_components: int, floor: float, n_steps: int = STEPS
) -> ResidueDensity:
    """Expectation maximization for the gates and widths of so many components.

    Parameters
    ----------
    floor : float
        No component's standard deviation is less than this.
    n_steps : int, default=40
        Steps.
    """
    overall = residue.error.new_tensor(_overall(residue))
    if n_components == 1:
        least = _least(overall, floor)
        return ResidueDensity.single(float(torch.maximum(overall, least)), residue.error)
    return ResidueDensity(*_maximised(residue, overall, n_components, floor, n_steps))


def _overall(residue: Residue) -> float:
    """Variance of one Gaussian for all errors, above round-off."""
    return residue.variance() + torch.finfo(residue.error.dtype).eps ** 2


def _least(overall: Tensor, floor: float) -> Tensor:
    """Least variance of a component."""
    return (LEAST_VARIANCE * overall).clamp_min(floor**2)


def _maximised(
    residue: Residue, overall: Tensor, n_components: int, floor: float, n_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres, widths, gates and variances of a `ResidueDensity`, of several parts at once."""
    weight, spread = residue.weight, residue.spread[..., None, :]
    share = weight / weight.sum(-1, keepdim=True)
    centre = _sums(residue.inputs.mT, share)
    width = _sums((residue.inputs - centre[..., None, :]).square().mT, share).sqrt()
    width = torch.where(width > LEAST_SPREAD, width, 1.0)
    q, like = residue.inputs.shape[-1] + 1, residue.error
    first, last = map(math.log, FIRST_SPREADS)
    steps = torch.linspace(first, last, n_components, dtype=like.dtype, device="cpu")
    least, overall = _least(overall, floor)[..., None], overall[..., None]
    variance = overall * torch.exp(2 * steps).to(like.device)
    gates = like.new_zeros((*like.shape[:-1], q, n_components))
    gate_steps = GateSteps(_features(residue.inputs, centre, width), weight)
    scaled = weight * residue.squares()
    square_error = residue.error.square()[..., None, :]
    added = None if residue.added is None else residue.added[..., None, :]
    for _ in range(n_steps):
        # Components first, rows last: sums over the few are quicker so.
        noise = variance[..., None] * (1 + spread)
        own = noise if added is None else noise + added
        unlikely = 0.5 * (square_error / own + torch.log(own))
        responsibility = torch.softmax(gates.mT @ gate_steps.rows - unlikely, -2)
        informed = responsibility
        if added is not None:
            informed = responsibility * (noise / own).square()  # See `Residue.informed`.
        count = _sums(informed, weight)
        square = _sums(informed, scaled) + PRIOR_ROWS * 0.5 * overall
        variance = torch.maximum(square / (count + PRIOR_ROWS), least)
        gates = gate_steps.ascend(gates, responsibility.mT)
    return centre, width, gates, variance


def choose_components(residue: Residue, floor: float, noise: Tensor | None = None) -> int:
    """Number of components that predicts the errors of left-out rows best.

    It is 1, too, where the variances `noise` (n,) that a model gives its rows predict them as well.
    """
    n, device = len(residue.error), residue.error.device
    if n > MOST_ROWS:
        some = torch.arange(n, device=device)[evenly(n, MOST_ROWS)]
        residue, noise = residue.subset(some), None if noise is None else noise[some]
        n = len(residue.error)
    if n < FEWEST_JUDGES:
        return 1
    fold = torch.arange(n, device=device) % N_FOLDS
    others = [torch.nonzero(fold != k)[:, 0] for k in range(N_FOLDS)]
    overall = residue.error.new_tensor([_overall(residue.subset(index)) for index in others])
    best, best_terms = 1, None if noise is None else _of_variances(residue, noise)
    for count in COUNTS:
        terms = _left_out_density(residue, others, overall, count, floor)
        if best_terms is None or is_gain(terms - best_terms, residue.weight):
            best, best_terms = count, terms
    return best


def _left_out_density(
    residue: Residue, others: list[Tensor], overall: Tensor, n_components: int, floor: float
) -> Tensor:
    """Log density (n,) of each row's error by the rows of the other folds; all folds at once."""
    fold = torch.arange(len(residue.error), device=residue.error.device) % len(others)
    if n_components == 1:
        return _of_variances(residue, torch.maximum(overall, _least(overall, floor))[fold])
    # Folds of a row less have their first one once more, without weight.
    most = max(len(index) for index in others)
    index = torch.stack([torch.cat([part, part[: most - len(part)]]) for part in others])
    some = residue.subset(index)
    repeated = torch.arange(most, device=index.device) >= torch.tensor(
        [[len(part)] for part in others], device=index.device
    )
    some = replace(some, weight=some.weight.masked_fill(repeated, 0.0))
    centre, width, gates, variance = _maximised(some, overall, n_components, floor, TRIAL_STEPS)
    rows = _features(residue.inputs, centre, width).mT
    joint = _log_joint(rows, gates, variance, residue)
    return torch.logsumexp(joint, -2)[fold, torch.arange(len(fold), device=fold.device)]


def _of_variances(residue: Residue, noise: Tensor) -> Tensor:
    """Log density (n,) of each row's error under a variance of the noise at each."""
    own = noise * (1 + residue.spread)
    if residue.added is not None:
        own = own + residue.added
    return -0.5 * (residue.error.square() / own + torch.log(2 * math.pi * own))


def is_uneven(residue: Residue) -> bool:
    """Whether the errors look like anything but one Gaussian: a test, not yet a density.

    Squared errors that depend on the inputs or on their squares (Koenker, "A note on studentizing a
    test for heteroscedasticity", J. Econometrics 1981), or tails that a normal sample of this size
    has not got.
    """
    n = float(residue.weight.sum())
    if len(residue.error) < FEWEST_JUDGES:
        return False
    ratio = residue.squares() / max(residue.variance(), TINY)
    share = residue.weight / n
    excess = float(share @ ratio.square()) / float(share @ ratio) ** 2 - 3
    return excess > LONG_TAILS * math.sqrt(KURTOSIS_OF_NOISE / n) or varies(residue)


def varies(residue: Residue, by_chance: float = BY_CHANCE) -> bool:
    """Whether squared errors depend on the inputs or on their squares: Koenker's test.

    They seem to as often as `by_chance` has it where they do not.
    """
    n = float(residue.weight.sum())
    if len(residue.error) < FEWEST_JUDGES:
        return False
    ratio = residue.squares() / max(residue.variance(), TINY)
    share = residue.weight / n
    Z = residue.inputs - share @ residue.inputs
    Z = Z / (share @ Z.square()).sqrt().clamp_min(LEAST_SPREAD)
    if ROWS_A_COLUMN * (2 * Z.shape[1]) <= len(Z):
        Z = torch.cat([Z, Z.square()], 1)
    Z = torch.cat([Z, torch.ones_like(Z[:, :1])], 1)
    root = share.sqrt()[:, None]
    centred = root[:, 0] * (ratio - share @ ratio)
    Q = torch.linalg.qr(root * Z).Q
    explained = float((Q.T @ centred).square().sum() / centred.square().sum().clamp_min(TINY))
    return float(chi2.sf(n * explained, Z.shape[1] - 1)) < by_chance


def is_gain(difference: Tensor, weight: Tensor, errors: float = CLEAR_GAIN) -> bool:
    """Whether differences of log densities add up to more than some of their standard errors."""
    total = float(weight @ difference)
    mean = total / float(weight.sum())
    return total > errors * float((weight @ (difference - mean).square()).sqrt())
