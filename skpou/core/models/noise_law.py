"""How the noise varies: its variance as a smooth function of the points and of the mean.

The logarithm of the variance is a sum of functions of the columns and of one of the mean, which is
counted on a scale between a straight and a logarithmic one: noise in proportion to the mean, or to
a power of it, is a line there. Each function is a line and a series of cosines on [0, 1] whose
coefficients have priors that fall with the frequency, as those of a smoothing spline [1]_ do. The
priors' sizes are those under which the left-out errors are likeliest (MacKay's updates [2]_): a
column of which the noise does not depend has none left.

References
----------
.. [1] G. Wahba, "Spline Models for Observational Data", SIAM (1990), Section 2.1.
.. [2] D. J. C. MacKay, "Bayesian interpolation", Neural Computation 4 (1992), Section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from skpou.core.linalg import TINY
from skpou.core.models.components import Components
from skpou.core.models.model import Predictor, SameMean
from skpou.core.models.residue_density import is_gain
from skpou.core.models.tails import mixed_widths
from skpou.core.state import TensorState

#: Cosines of each function; of more columns than so many each has its line alone.
N_COSINES, MOST_CURVED = 10, 8
#: Power of the frequency by which the priors' standard deviations fall: of a function whose first
#: derivative is square integrable up to one with two derivatives.
FALLS = 1.5
#: Where the logarithmic scale of the mean begins, in units of its range from its end; the last is
#: all but a straight one. Noise over three decades is told by the first.
BEGINS = (1e-3, 1e-2, 1e-1, 10.0)
#: Least range of the mean, in units of the errors, for noise to depend on it: that of a constant
#: is round-off.
LEAST_RANGE = 1e-3
#: Far from the rows' means the scale goes on up to so many ranges from its end.
FARTHEST = 3.0
#: First standard deviation of all coefficients, of the logarithm of the variance, least and largest
#: ones: seven is three decades of noise.
FIRST_SIZE, LEAST_SIZE, LARGEST_SIZE = 1.0, 1e-3, 7.0
#: Most jumps along columns, places that are tried in each, fewest rows beside one, and the part of
#: its information that the smooth functions may leave: no more is known of it.
MOST_JUMPS, N_PLACES, FEWEST_BESIDE, LEAST_OWN = 4, 40, 8, 1e-3
#: Steps of Fisher's scoring, each with new priors, the longest change of a logarithm in a step, and
#: the change of the objective with which they end.
STEPS, LONGEST, ENOUGH = 60, 2.0, 1e-3
#: Steps after which the likeliest scale of the mean alone goes on.
STEPS_OF_RACE = 10
#: Steps from the law of all rows to that of a part.
STEPS_OF_PART = 8
#: Degrees of freedom of the density of the errors, with tails that forgive a few of them, and the
#: standard deviations from which on an error counts no more for the level.
DEGREES, FAR = 8.0, 4.0
#: Constant of the logarithm of that density, Student's t of unit scale.
LOG_OF_T = (
    math.lgamma(DEGREES / 2) - math.lgamma((DEGREES + 1) / 2) + 0.5 * math.log(math.pi * DEGREES)
)
#: Folds of the rows that judge, and fewest rows that a law can be told from.
N_FOLDS, FEWEST_OF_LAW = 5, 50
#: Least logarithm of the level: errors that are all zero have none, and a law begins somewhere.
LEAST_LEVEL = -100.0
#: Ridge of the information relative to its largest diagonal, so that columns that repeat others, as
#: jumps at neighbouring places do, can be factored: far below any prior's precision.
RIDGE = 1e-10
#: Least part of the largest variance: beyond three decades of noise rows are all but exact.
LEAST_PART = 1e-7
#: Most posterior variance of the logarithm: a factor of e either way. A law that is known less well
#: than this has more in its widest part than in all others.
MOST_DOUBT = 1.0
#: Share of such rows from which on a law is not told.
MOST_EXACT = 0.02
#: Nodes and weights of the rule of Gauss and Hermite with three nodes, for a standard normal.
NODES, SHARES = (math.sqrt(3.0), 0.0, -math.sqrt(3.0)), (1 / 6, 2 / 3, 1 / 6)


@dataclass(frozen=True)
class Scale(TensorState):
    """A scale from 0 to 1 of the mean, from straight to logarithmic.

    Attributes
    ----------
    low, width : float
        End of the means' range where the scale begins, and their range with its sign.
    begins : float
        Part of the range at which the logarithm takes over.
    """

    low: float
    width: float
    begins: float

    def __call__(self, mean: Tensor) -> Tensor:
        """Places of means; above 1 where these are beyond the other end."""
        part = ((mean - self.low) / self.width).clamp(0, FARTHEST)
        return torch.log1p(part / self.begins) / math.log1p(1 / self.begins)


@dataclass(frozen=True)
class Jumps(TensorState):
    """Places where the variance may jump along a column.

    Attributes
    ----------
    column : Tensor of shape (J,), int64
    place : Tensor of shape (J,)
    """

    column: Tensor
    place: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Jumps:
        """No places."""
        return cls(like.new_zeros(0, dtype=torch.int64), like.new_zeros(0))

    def also(self, others: Jumps) -> Jumps:
        """These and others."""
        return Jumps(torch.cat([self.column, others.column]), torch.cat([self.place, others.place]))

    def __call__(self, points: Tensor) -> Tensor:
        """On which side (n, J), -1/2 or 1/2, points (n, d) are."""
        return torch.where(points[:, self.column] > self.place, 0.5, -0.5).to(points)


@dataclass(frozen=True)
class NoiseLaw(TensorState):
    """Logarithm of the factor of the noise's variance.

    Attributes
    ----------
    coef : Tensor of shape (q,)
        The constant first, then lines and cosines of each function, then jumps.
    scale : Scale or None
        That of the mean; None: it has no function.
    usual : float
        Mean of the factor over the rows.
    least : float
        Least logarithm.
    root : Tensor of shape (q, q)
        Inverse of the Cholesky factor of the coefficients' posterior precision.
    """

    parts: ClassVar[dict[str, Any]] = {"scale": Scale, "jumps": Jumps}

    coef: Tensor
    scale: Scale | None
    jumps: Jumps
    usual: float
    least: float
    root: Tensor

    def log_factor(self, points: Tensor, mean: Tensor) -> Tensor:
        """Logarithms (n,) at points (n, d) with their means (n,), in float64.

        Beside the box columns count as at its nearest point; the mean goes on.
        """
        return self.at(points, mean)[0]

    def at(self, points: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms (n,), see `log_factor`, and their posterior variances (n,)."""
        points, mean = points.to(self.coef), mean.to(self.coef)
        Z = _columns(points.clamp(0, 1), mean, self.scale, self.jumps)
        doubt = (Z @ self.root.T).square().sum(1)
        return (Z @ self.coef).clamp_min(self.least), doubt.clamp_max(MOST_DOUBT)


@dataclass(frozen=True)
class WithNoiseLaw(SameMean):
    """A predictor whose noise has another variance elsewhere.

    Attributes
    ----------
    model : Predictor
        Fitted to rows by their precision: what it knows of its mean stays.
    laws : tuple of NoiseLaw or None
        Of the factor by which the variance of each target's noise is multiplied.
    """

    model: Predictor
    laws: tuple[NoiseLaw | None, ...]

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the model's mean."""
        return self.model.covariance(X)  # type: ignore[attr-defined]

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d).

        With the posterior of the law's coefficients, which is nearly normal in the logarithm of the
        variance, it is an integral over this by the quadrature of Gauss and Hermite.
        """
        parts = self.model.components(X, posterior)
        mean = parts.expectation()
        log_factor, doubt = mean.new_zeros((2, *mean.shape), dtype=torch.float64)
        for target, law in enumerate(self.laws):
            if law is not None:
                log_factor[:, target], doubt[:, target] = law.at(X, mean[:, target])
        noise = parts.noise.expand_as(parts.mean) * log_factor.exp().to(parts.mean)[:, None]
        parts = replace(parts, noise=noise)
        if not posterior:
            return parts
        shares, nodes = doubt.new_tensor(SHARES), doubt.new_tensor(NODES)[:, None]
        # As of a mean of few squares, the likeliest variance is below the median of its posterior.
        widths = (0.5 * doubt[:, None] + doubt.sqrt()[:, None] * nodes).exp()
        return mixed_widths(parts, shares, widths, torch.ones_like(widths))


def _columns(points: Tensor, mean: Tensor, scale: Scale | None, jumps: Jumps) -> Tensor:
    """Constant, lines and cosines of each function, and sides of the jumps, (n, q)."""
    frequency = torch.arange(1, N_COSINES + 1, dtype=points.dtype, device=points.device)
    columns = [torch.ones_like(mean)[:, None]]
    for place, is_curved in zip(*_places(points, mean, scale), strict=True):
        columns.append(2 * place[:, None] - 1)
        if is_curved:
            columns.append(torch.cos(math.pi * place.clamp(0, 1)[:, None] * frequency))
    if len(jumps.column):
        columns.append(jumps(points))
    return torch.cat(columns, 1)


def _places(points: Tensor, mean: Tensor, scale: Scale | None) -> tuple[list[Tensor], list[bool]]:
    """Arguments (n,) of every function, and whether it is more than a line."""
    places = list(points.T)
    curved = [len(places) <= MOST_CURVED] * len(places)
    if scale is not None:
        places.append(scale(mean))
        curved.append(True)
    return places, curved


def _priors(curved: list[bool], n_jumps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The number (q,) of each column's prior, and what this is multiplied by (q,)."""
    frequency = torch.arange(1, N_COSINES + 1, dtype=like.dtype, device=like.device)
    group, falls = [0], [1.0]
    for number, is_curved in enumerate(curved):
        group.append(2 * number + 1)
        falls.append(1.0)
        if is_curved:
            group += [2 * number + 2] * N_COSINES
            falls += (frequency**-FALLS).tolist()
    group += range(2 * len(curved) + 1, 2 * len(curved) + 1 + n_jumps)
    falls += [1.0] * n_jumps
    return torch.tensor(group, device=like.device), like.new_tensor(falls)


@dataclass(frozen=True)
class Errors:
    """Left-out errors, whose variances are ``base * factor + added``.

    Attributes
    ----------
    points, mean : Tensor of shape (n, d) and (n,)
    square : Tensor of shape (n,)
        Of the errors.
    base : Tensor of shape (n,)
        Variances that the law multiplies.
    added : Tensor of shape (n,)
        Those that it does not.
    weight : Tensor of shape (n,)
        Frequencies.
    """

    points: Tensor
    mean: Tensor
    square: Tensor
    base: Tensor
    added: Tensor
    weight: Tensor

    def subset(self, index: Tensor) -> Errors:
        """Some of the rows."""
        return Errors(*(part[index] for part in vars(self).values()))

    def variance(self, log_factor: Tensor) -> tuple[Tensor, Tensor]:
        """Variances (n,) of the errors, and the part of each that the law multiplies."""
        own = self.base * log_factor.exp()
        total = own + self.added
        return total, own / total

    def log_density(self, log_factor: Tensor) -> Tensor:
        """Of each error (n,): that of Student's t of this width, which few errors do not move."""
        total = self.variance(log_factor)[0]
        tails = (DEGREES + 1) * torch.log1p(self.square / (DEGREES * total))
        return -0.5 * (tails + torch.log(total)) - LOG_OF_T

    def score(self, log_factor: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives (n,) of the log densities by the logarithms, and Fisher's information."""
        total, part = self.variance(log_factor)
        square = self.square / total
        pull = (DEGREES + 1) * square / (DEGREES + square) - 1
        information = 0.5 * DEGREES / (DEGREES + 3) * self.weight * part.square()
        return 0.5 * self.weight * part * pull, information

    def level(self, log_factor: Tensor) -> float:
        """Logarithm by which all factors rise to be those of variances, few errors apart."""
        total = self.variance(log_factor)[0]
        share = self.weight / self.weight.sum()
        return math.log(float(share @ (self.square / total).clamp_max(FAR**2)))


class _Fit:
    """Fisher's scoring for the coefficients of given columns."""

    def __init__(self, errors: Errors, scale: Scale | None, jumps: Jumps):
        self.errors, self.scale, self.jumps = errors, scale, jumps
        self.Z = _columns(errors.points, errors.mean, scale, jumps)
        curved = _places(errors.points, errors.mean, scale)[1]
        self.group, self.falls = _priors(curved, len(jumps.column), errors.points)

    def constant(self) -> Tensor:
        """Coefficients (q,) of the same factor everywhere."""
        coef = self.Z.new_zeros(self.Z.shape[1])
        share = self.errors.weight / self.errors.weight.sum()
        coef[0] = torch.log(share @ (self.errors.square / self.errors.base)).clamp_min(LEAST_LEVEL)
        return self.run(coef, self.falls * 0 + LEAST_SIZE**-2, STEPS_OF_PART, False)[0]

    def run(
        self, coef: Tensor, precision: Tensor, steps: int, updates: bool = True
    ) -> tuple[Tensor, Tensor, float]:
        """Coefficients (q,), precisions of their priors (q,), log evidence."""
        errors, evidence = self.errors, -math.inf
        precision = precision.clone()
        precision[0] = 0.0
        for _ in range(steps):
            score, information = errors.score(self.Z @ coef)
            factor = self._factor(information, precision)
            pull = self.Z.T @ score - precision * coef
            step = torch.cholesky_solve(pull[:, None], factor)[:, 0]
            largest = float((self.Z @ step).abs().max())
            coef = coef + step * min(1.0, LONGEST / max(largest, TINY))
            if updates:
                spread = torch.cholesky_inverse(factor).diagonal()
                precision = self._updated(coef, spread)
            before, evidence = evidence, self._evidence(coef, precision, factor)
            if abs(evidence - before) < ENOUGH:
                break
        return coef, precision, evidence

    def root(self, coef: Tensor, precision: Tensor) -> Tensor:
        """Inverse (q, q) of the Cholesky factor of the posterior precision of coefficients."""
        information = self.errors.score(self.Z @ coef)[1]
        factor = self._factor(information, precision)
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        return torch.linalg.solve_triangular(factor, identity, upper=False)

    def _factor(self, information: Tensor, precision: Tensor) -> Tensor:
        H = self.Z.T @ (information[:, None] * self.Z) + torch.diag(precision)
        H.diagonal().add_(RIDGE * H.diagonal().max())
        return torch.linalg.cholesky(H)

    def _updated(self, coef: Tensor, spread: Tensor) -> Tensor:
        """Precisions of the priors that are likelier."""
        n_groups = int(self.group.max()) + 1
        square = (coef.square() + spread) / self.falls.square()
        sums = coef.new_zeros(n_groups).index_add_(0, self.group, square)
        counts = coef.new_zeros(n_groups).index_add_(0, self.group, torch.ones_like(coef))
        size = (sums / counts).clamp(LEAST_SIZE**2, LARGEST_SIZE**2)[self.group]
        result = 1 / (size * self.falls.square())
        result[0] = 0.0
        return result

    def _evidence(self, coef: Tensor, precision: Tensor, factor: Tensor) -> float:
        """Laplace's approximation."""
        errors = self.errors
        likelihood = errors.weight @ errors.log_density(self.Z @ coef)
        prior = 0.5 * precision[1:].log().sum() - 0.5 * precision @ coef.square()
        return float(likelihood + prior - factor.diagonal().log().sum())


def _scales(errors: Errors) -> list[Scale | None]:
    """Scales of the mean that are tried: none where it is as good as constant."""
    low, high = float(errors.mean.min()), float(errors.mean.max())
    size = float(errors.square.mean().sqrt())
    if not high - low > LEAST_RANGE * size:
        return [None]
    rising = [Scale(low, high - low, begins) for begins in BEGINS]
    return [*rising, *(Scale(high, low - high, begins) for begins in BEGINS[:-1])]


def fit_noise_law(errors: Errors) -> NoiseLaw | None:
    """The likeliest law; None where left-out rows are not the likelier for it."""
    if len(errors.square) < FEWEST_OF_LAW:
        return None
    nowhere = Jumps.none(errors.points)
    starts = [_begun(_Fit(errors, scale, nowhere)) for scale in _scales(errors)]
    best = _further(max(starts, key=lambda found: found.evidence))
    for _ in range(MOST_JUMPS):
        place, n_places = _next_jump(best)
        if place is None:
            break
        found = _also(best, place)
        if found.evidence < best.evidence + math.log(n_places):
            break
        best = found
    if _is_exact(best) or not _predicts(errors, best):
        return None
    return _law(best)


class _Found(NamedTuple):
    """Coefficients (q,), precisions of their priors (q,) and log evidence of a fit."""

    fit: _Fit
    coef: Tensor
    precision: Tensor
    evidence: float


def _is_exact(found: _Found) -> bool:
    """Whether some rows are all but exact beside the others: no noise is a matter of the form."""
    variance = found.fit.Z @ found.coef + found.fit.errors.base.log()
    share = (variance < variance.max() + math.log(LEAST_PART)).to(variance).mean()
    return float(share) > MOST_EXACT


def _begun(fit: _Fit) -> _Found:
    first = 1 / (FIRST_SIZE * fit.falls).square()
    return _Found(fit, *fit.run(fit.constant(), first, STEPS_OF_RACE))


def _further(found: _Found) -> _Found:
    fit, coef, precision, _ = found
    return _Found(fit, *fit.run(coef, precision, STEPS))


def _also(found: _Found, place: Jumps) -> _Found:
    """The same with a further jump, from where it is."""
    fit = _Fit(found.fit.errors, found.fit.scale, found.fit.jumps.also(place))
    coef = torch.cat([found.coef, found.coef.new_zeros(1)])
    precision = torch.cat([found.precision, found.precision.new_full((1,), FIRST_SIZE**-2)])
    return _further(_Found(fit, coef, precision, found.evidence))


def _next_jump(found: _Found) -> tuple[Jumps | None, int]:
    """Where a jump would raise the likelihood most, to second order, and among how many places."""
    fit, X = found.fit, found.fit.errors.points
    levels = torch.arange(1, N_PLACES + 1, dtype=X.dtype, device="cpu").to(X) / (N_PLACES + 1)
    places = torch.quantile(X, levels, dim=0).T
    column = torch.arange(X.shape[1], device=X.device).repeat_interleave(N_PLACES)
    some = Jumps(column, places.reshape(-1))
    A, n_places = some(X), len(column)
    score, information = fit.errors.score(fit.Z @ found.coef)
    weighted = information[:, None] * A
    H = fit.Z.T @ (information[:, None] * fit.Z) + torch.diag(found.precision)
    across = fit.Z.T @ weighted
    own = (A * weighted).sum(0) - (across * torch.linalg.solve(H, across)).sum(0)
    few = torch.minimum((A > 0).sum(0), (A < 0).sum(0)) < FEWEST_BESIDE
    gain = (A.T @ score).square() / (2 * own.clamp_min(TINY))
    gain = torch.where(few | (own <= LEAST_OWN * (A * weighted).sum(0)), 0.0, gain)
    best = int(gain.argmax())
    if float(gain[best]) < math.log(n_places):
        return None, n_places
    return Jumps(some.column[best : best + 1], some.place[best : best + 1]), n_places


def _law(found: _Found) -> NoiseLaw:
    fit, coef = found.fit, found.coef.clone()
    errors, root = fit.errors, fit.root(coef, found.precision)
    coef[0] += errors.level(fit.Z @ coef)
    eta = fit.Z @ coef
    least = float(eta.max()) + math.log(LEAST_PART)
    usual = float(errors.weight @ eta.clamp_min(least).exp() / errors.weight.sum())
    return NoiseLaw(coef, fit.scale, fit.jumps, usual, least, root)


def _predicts(errors: Errors, found: _Found) -> bool:
    """Whether laws of four fifths of the rows predict the others better than one factor does."""
    fit, coef, precision, _ = found
    n = len(errors.square)
    fold = torch.arange(n, device=coef.device) % N_FOLDS
    gain = torch.zeros_like(errors.square)
    for k in range(N_FOLDS):
        others, judges = fold != k, fold == k
        part = _Fit(errors.subset(others), fit.scale, fit.jumps)
        own = part.run(coef, precision, STEPS_OF_PART, False)[0]
        one = part.constant()
        held = errors.subset(judges)
        gain[judges] = held.log_density(fit.Z[judges] @ own) - held.log_density(fit.Z[judges] @ one)
    return is_gain(gain, errors.weight)
