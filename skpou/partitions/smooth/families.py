"""Two families for smooth functions: one polynomial of high degree, and even soft partitions.

The prior variance of the one polynomial's coefficients falls geometrically with the degree, at a
rate for each column: what a smooth function's do. So a direction in which rows lie on few lines
has a degree of its own. Even partitions are Gaussians of one width about evenly placed centres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import TotalDegreePolynomials, count_columns
from skpou.core.models import evident_rates
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree, coordinate_columns
from skpou.partitions.mixtures.left_out import LeftOutRows
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.cells import lloyd
from skpou.partitions.smooth.prior_fits import Columns, PriorFit

#: Most columns, so that a fit takes a part of a second; most of a degree, at all and for each row:
#: the prior, not the number, keeps the higher ones small.
MOST_COLUMNS, MOST_DEGREE, DEGREES_A_ROW = 250, 40, 2
#: Rates of the one polynomial: with larger ones it runs away at once outside the rows.
RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
#: Factors by which the rates of single columns are moved, one after the other.
STEPS = (2.0, 1.4)
#: Rate of a column below which it is as good as straight in the box.
LEAST_RATE = 1e-3
#: Prior standard deviation below which a coefficient is none: round-off of the constant.
NO_COEFFICIENT = 1e-17
#: Numbers of even partitions, two an octave, as many as few rows have.
COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
#: Their widths in units of the centres' distance, two an octave: from nearly sharp to so wide that
#: all partitions see all rows.
WIDTHS = (0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
#: Least rate of a column beside the largest.
LEAST_RATE_SHARE = 1e-2
#: Part of the centres' distance by which they may differ and be the same.
SAME = 0.2
#: Sweeps that place the centres.
SWEEPS = 20
#: Least width of a prior, in units of a coefficient that is none.
LEAST_WIDTH = 1e-3


@dataclass(frozen=True)
class Candidate:
    """One member of a family with what its prior makes of the rows.

    Attributes
    ----------
    mixture : callable
        Makes the fitted `Mixture`.
    """

    fit: PriorFit
    family: OnePolynomial | EvenPartitions
    parameters: tuple[float, ...]

    def mixture(self) -> Mixture:
        """The fitted model."""
        return self.family.mixture(self)

    def judged(self) -> Candidate:
        """The same with its error at left-out rows."""
        columns, width = self.family.model(*self.parameters)
        return replace(self, fit=columns.fit(width))

    def confirmed(self) -> Candidate:
        """The same with an error by fits without the rows, of the better of two noises."""
        columns, width = self.family.model(*self.parameters)
        noises = {self.fit.noise, max(self.fit.noise, self.fit.least_noise)}
        pooled = columns.rows.pooled
        errors = {noise: pooled(columns.left_out(width, noise)) for noise in sorted(noises)}
        noise = min(errors, key=errors.__getitem__)
        return replace(self, fit=replace(self.fit, left_out=errors[noise], noise=noise))

    def left_out(self) -> np.ndarray:
        """Errors (l, m) at left-out rows by fits without them."""
        columns, width = self.family.model(*self.parameters)
        return columns.left_out(width, self.fit.noise)

    def degrees(self) -> float:
        """Degrees of freedom that the fit takes."""
        columns, width = self.family.model(*self.parameters)
        return columns.degrees(width, self.fit.noise)


class OnePolynomial:
    """One polynomial for all rows; parameters are the rates (d,)."""

    def __init__(self, rows: LeftOutRows):
        self.rows = rows
        d, degree = rows.rows.n_features, 1
        most = min(MOST_DEGREE, DEGREES_A_ROW * rows.rows.n_rows)
        while degree < most and count_columns(d, degree + 1) <= MOST_COLUMNS:
            degree += 1
        self.basis = TotalDegreePolynomials(d, degree)
        self.columns = Columns(rows, self.basis.matrix(rows.rows.X))
        self.found: dict[tuple[float, ...], Candidate] = {}

    def _width(self, rates: tuple[float, ...], basis: TotalDegreePolynomials) -> Tensor:
        exponents = torch.as_tensor(basis.exponents, device=self.rows.y.device)
        logs = torch.tensor(rates, dtype=self.rows.y.dtype, device=exponents.device).log()
        return (exponents.to(logs) @ logs).exp().clamp_min(LEAST_WIDTH * NO_COEFFICIENT)

    def model(self, *rates: float) -> tuple[Columns, Tensor]:
        """Columns, and the prior standard deviations of their coefficients."""
        return self.columns, self._width(rates, self.basis)

    def _try(self, rates: tuple[float, ...]) -> Candidate:
        if rates not in self.found:
            fit = self.columns.fit(self.model(*rates)[1], self.rows.on_levels)
            self.found[rates] = Candidate(fit, self, rates)
        return self.found[rates]

    def candidates(self) -> list[Candidate]:
        """Rates that are the same for all columns, then the best of them column by column.

        Once by evidence, which knows noise, and once by left-out rows, which know lines.
        """
        d = self.basis.n_features
        even = [self._try((rate,) * d) for rate in RATES]
        if d > 1:
            for aim in ("evidence", "left_out")[: 1 + self.rows.on_levels]:
                best = min((getattr(one.fit, aim), i, one) for i, one in enumerate(even))[2]
                self._improve(best, aim)
        return list(self.found.values())

    def _improve(self, best: Candidate, aim: str) -> None:
        for step in STEPS:
            for column in range(self.basis.n_features):
                for factor in (step, 1 / step):
                    while True:
                        moved = list(best.parameters)
                        rate = min(max(moved[column] * factor, LEAST_RATE), RATES[-1])
                        moved[column] = float(f"{rate:.4g}")
                        other = self._try(tuple(moved))
                        if not getattr(other.fit, aim) < getattr(best.fit, aim):
                            break
                        best = other

    def mixture(self, chosen: Candidate) -> Mixture:
        """The polynomial of the degree up to which coefficients are any."""
        d, degree = self.basis.n_features, 0
        while degree < self.basis.degree and max(chosen.parameters) ** degree > NO_COEFFICIENT:
            degree += 1
        basis = TotalDegreePolynomials(d, degree)
        X = self.rows.rows.X
        parent = torch.zeros(1, dtype=torch.int64, device=X.device)
        tree = PartitionTree(d, [GateLevel(parent, X.new_zeros((1, 1)), 0, sharp=True)])
        columns = Columns(self.rows, basis.matrix(X))
        experts = _experts(columns, self._width(chosen.parameters, basis), chosen.fit.noise, 1)
        return Mixture(tree, [experts], degree)


class EvenPartitions:
    """Soft partitions of one width about even centres; the parameter is the width.

    Parameters
    ----------
    centres : ndarray of shape (K, d)
        In the box.
    form : GateForm
        Shape of the logits, of which only the affine part is used.
    rates : ndarray of shape (d,), default=None
        Factors of the columns, of geometric mean 1: partitions are narrow along large ones.
    """

    def __init__(
        self,
        rows: LeftOutRows,
        centres: np.ndarray,
        degree: int,
        form: GateForm,
        rates: np.ndarray | None = None,
    ):
        self.rows, self.form = rows, form
        self.rates = np.ones(centres.shape[1]) if rates is None else rates
        X = rows.rows.X
        self.centres = torch.as_tensor(centres, device=X.device).to(X)
        self.basis = TotalDegreePolynomials(X.shape[1], degree)
        self.polynomials = self.basis.matrix(X)

    def _tree(self, width: float) -> PartitionTree:
        K, d = self.centres.shape
        scale = self.centres.new_tensor((self.rates * K ** (1 / d) / width) ** 2)
        basis = self.form.basis(d)
        theta = self.centres.new_zeros((K, basis.n_columns))
        # Of -|x - c|^2 / 2 only what differs between centres, in coordinates 2 x - 1.
        theta[:, coordinate_columns(basis)] = 0.5 * scale * self.centres
        theta[:, 0] = 0.5 * (scale * (self.centres - self.centres.square())).sum(1)
        parent = torch.zeros(K, dtype=torch.int64, device=theta.device)
        gate = GateLevel(parent, theta, self.form.degree, isotropic=self.form.isotropic)
        return PartitionTree(d, [gate])

    def model(self, width: float) -> tuple[Columns, Tensor]:
        """Columns, and the prior standard deviations of their coefficients."""
        pi = self._tree(width).log_proba(self.rows.rows.X).exp()
        matrix = (pi[:, :, None] * self.polynomials[:, None]).reshape(len(pi), -1)
        columns = Columns(self.rows, matrix)
        return columns, torch.ones_like(columns.matrix[0])

    def candidates(self) -> list[Candidate]:
        """All widths."""
        models = {width: self.model(width) for width in WIDTHS}
        judged = self.rows.on_levels
        return [
            Candidate(of.fit(prior, judged), self, (width,))
            for width, (of, prior) in models.items()
        ]

    def mixture(self, chosen: Candidate) -> Mixture:
        """A blend of all partitions."""
        columns, prior = self.model(*chosen.parameters)
        experts = _experts(columns, prior, chosen.fit.noise, len(self.centres))
        return Mixture(self._tree(*chosen.parameters), [experts], self.basis.degree, 0)


def _experts(columns: Columns, width: Tensor, noise: float, n_experts: int) -> Experts:
    coef, factor, variance = columns.solve(width, noise)
    m = coef.shape[1]
    round_off = torch.finfo(variance.dtype).eps ** 2
    return Experts(
        coef.reshape(n_experts, -1, m),
        factor[None],
        (variance + round_off).expand(n_experts, m).contiguous(),
        (width / noise).reshape(n_experts, -1),
    )


def even_partitions(
    rows: LeftOutRows, counts: tuple[int, ...], degrees: tuple[int, ...], form: GateForm
) -> Iterator[EvenPartitions]:
    """Even partitions of every number and degree that is not too large.

    Parameters
    ----------
    counts, degrees : tuple of int
        Numbers of partitions and degrees of their polynomials.
    """
    d = rows.rows.n_features
    for degree in degrees:
        for count in counts:
            if count <= rows.rows.n_rows and count * count_columns(d, degree) <= MOST_COLUMNS:
                for centres in _centres(rows, count):
                    yield EvenPartitions(rows, centres, degree, form)


def scaled_partitions(
    rows: LeftOutRows, counts: tuple[int, ...], form: GateForm
) -> Iterator[EvenPartitions]:
    """Partitions with planes that are narrow along columns of short lengths, as codes are.

    Parameters
    ----------
    counts : tuple of int
        Numbers of partitions; without those that are too large.
    """
    X, d = rows.rows.X.cpu().numpy(), rows.rows.n_features
    rates = evident_rates(rows.rows, np.full(d, 1.0), np.random.default_rng(0))
    if rates is None:
        return
    rates = np.maximum(rates, LEAST_RATE_SHARE * rates.max())
    rates = rates / np.exp(np.log(rates).mean())
    weight = rows.rows.weight.cpu().numpy()
    for count in counts:
        if count <= rows.rows.n_rows and count * (1 + d) <= MOST_COLUMNS:
            among = lloyd(X * rates, weight, count, np.random.default_rng(0), SWEEPS)[0]
            yield EvenPartitions(rows, among / rates, 1, form, rates)


def _centres(rows: LeftOutRows, count: int) -> list[np.ndarray]:
    """Even in the box, of one column; and as the rows lie."""
    X, weight = rows.rows.X.cpu().numpy(), rows.rows.weight.cpu().numpy()
    among = lloyd(X, weight, count, np.random.default_rng(0), SWEEPS)[0]
    if X.shape[1] > 1:
        return [among]
    even = (np.arange(count)[:, None] + 0.5) / count
    among = np.sort(among, 0)
    return [even] if np.abs(among - even).max() < SAME / count else [even, among]
