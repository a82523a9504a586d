"""Additive models fitted to sums over rows, which need not be in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.additive.b_splines import fit_column
from skpou.additive.basis import AdditiveBasis
from skpou.additive.fit import AdditiveOptions, TargetFit, first_splines
from skpou.additive.given import given_terms
from skpou.additive.members import Expert, Member
from skpou.additive.model import AdditiveModel, TargetModel
from skpou.additive.terms import (
    COLD,
    DECAYS,
    ENOUGH,
    FIRST_NOISE,
    Candidate,
    first_variances,
    groups_of,
)
from skpou.core import LONG_SEEDS, BestSoFar, Pairs, Report, Rows, TrainingResult, pairs_of
from skpou.core.linalg import EvidenceFit, EvidenceProblem, RowSums, times_upper
from skpou.core.models import (
    ResidueDensity,
    choose_components,
    fit_density,
    left_out,
    noise_floor,
    slope_rows,
)

#: Points of a column's box that stand for rows where its functions are made from the box alone:
#: many more than functions, so that these hardly depend on how many.
BOX_POINTS = 513


@dataclass(frozen=True)
class AdditiveColumns:
    """A constant, then the columns of the bases of all targets.

    Attributes
    ----------
    bases : tuple of AdditiveBasis
        One for each target, or one for all.
    found : tuple of Candidate
        What a search has found with each basis; empty where there was none.
    """

    bases: tuple[AdditiveBasis, ...]
    found: tuple[Candidate, ...] = ()

    @property
    def n_columns(self) -> int:
        """Number of columns, the constant among them."""
        return 1 + sum(basis.n_columns - 1 for basis in self.bases)

    def __call__(self, X: Tensor) -> Tensor:
        """Columns at points X (n, d)."""
        parts = [basis.matrix(X)[:, 1:] for basis in self.bases]
        return torch.cat([X.new_ones((len(X), 1)), *parts], 1)

    def of(self, output: int) -> tuple[AdditiveBasis, list[int]]:
        """Basis of a target, and the numbers of its columns."""
        number = min(output, len(self.bases) - 1)
        start = 1 + sum(basis.n_columns - 1 for basis in self.bases[:number])
        basis = self.bases[number]
        return basis, [0, *range(start, start + basis.n_columns - 1)]


def columns_of_box(n_features: int, options: AdditiveOptions, like: Tensor) -> AdditiveColumns:
    """Columns from the unit box alone: knots at equal distances, the terms that are given.

    Where none are given there are all main effects, and all pairs if they fit.
    """
    n_splines = first_splines(n_features, options)
    basis = AdditiveBasis(n_features, (), (), ())
    if n_features:
        x = torch.linspace(0, 1, BOX_POINTS, dtype=torch.float64, device="cpu").to(like.device)
        column = fit_column(x, torch.ones_like(x), n_splines, False)
        basis = AdditiveBasis(n_features, range(n_features), [column] * n_features, ())
    terms = options.terms
    if terms is None:
        mains: list[tuple[int, ...]] = [(j,) for j in range(n_features)]
        pairs: list[tuple[int, ...]] = [(i, j) for j in range(n_features) for i in range(j)]
        with_pairs = options.max_order > 1 and 1 + 2 * len(mains) + len(pairs) < options.max_columns
        terms = tuple(mains + pairs * with_pairs)
    blocks = given_terms(basis, terms, n_splines, options.max_columns)
    return AdditiveColumns((basis.with_blocks(blocks),))


def columns_of_sample(
    sample: Rows, options: AdditiveOptions, rng: np.random.Generator, report: Report | None
) -> AdditiveColumns:
    """Columns that a search among some of the rows finds, for each target its own."""
    sample = sample.to(torch.float64)
    seed = rng.integers(LONG_SEEDS, size=2)
    found = []
    for output in range(sample.n_outputs):
        search = TargetFit(sample, output, options, np.random.default_rng(seed), report)
        found.append(max(search.terms(), key=lambda candidate: candidate.score))
    return AdditiveColumns(tuple(best.basis for best in found), tuple(found))


def fit_sums(
    sums: RowSums, y: Tensor, columns: AdditiveColumns, sample: Rows, options: AdditiveOptions
) -> TrainingResult:
    """Fit one additive model to each target, from sums over the rows.

    Parameters
    ----------
    sums : RowSums
        Of these columns.
    y : Tensor of shape (k, m)
        Targets, of about unit rms and zero mean, of the rows that stand for all.
    columns : AdditiveColumns
        Terms.
    sample : Rows
        Some rows, for the density of what the terms leave over, in the same units.
    """
    models, fits = [], []
    for output in range(y.shape[1]):
        basis, index = columns.of(output)
        found = columns.found[output] if columns.found else None
        fit = _fit_target(sums, y[:, output], basis, index, found, options)
        fits.append(fit)
        models.append(_with_density(basis, fit, pairs_of(sample, output), sample, options))
    return TrainingResult(
        AdditiveModel(models),
        score=-sum(fit.log_evidence for fit in fits),
        n_iter=max(fit.n_iter for fit in fits),
        code="converged" if all(fit.converged for fit in fits) else "max_iter",
        message=f"The log evidence was still rising after max_iter={options.max_iter} "
        "iterations. Raise max_iter or tol.",
    )


def _fit_target(
    sums: RowSums,
    y: Tensor,
    basis: AdditiveBasis,
    index: Sequence[int],
    found: Candidate | None,
    options: AdditiveOptions,
) -> EvidenceFit:
    """Strengths and coefficients of the terms of one target at the largest evidence."""
    F = sums.columns[:, list(index)]
    weight = torch.ones_like(y)
    enough = options.enough(sums.total)
    if found is not None:
        problem = EvidenceProblem(F, y, weight, 0.0, found.groups, sums.total)
        return problem.fit(found.fit.alpha, found.fit.noise, options.max_iter, enough)
    tried: BestSoFar[tuple[EvidenceProblem, EvidenceFit]] = BestSoFar()
    for decay in DECAYS:
        groups = groups_of(basis.blocks, decay, F)
        problem = EvidenceProblem(F, y, weight, 0.0, groups, sums.total)
        steps = min(COLD, options.max_iter)
        fit = problem.fit(first_variances(groups), FIRST_NOISE, steps, ENOUGH)
        tried.show((problem, fit), -fit.log_evidence)
    problem, fit = tried.best
    return problem.fit(fit.alpha, fit.noise, options.max_iter, enough)


def _with_density(
    basis: AdditiveBasis, fit: EvidenceFit, pairs: Pairs, sample: Rows, options: AdditiveOptions
) -> TargetModel:
    """The model of one target, its density that of the errors at some rows, each left out."""
    F = basis.matrix(sample.X)
    fitted, spread = F @ fit.coef, times_upper(F, fit.root).square().sum(1) / fit.noise
    residue = left_out(pairs, fitted, spread, basis.coordinates(sample.X))
    y = pairs.y[:, 0]
    floor = noise_floor(residue, y)
    n_components = 1
    if options.is_mixed(len(y)):
        n_components = choose_components(residue, floor)
    density = fit_density(residue, n_components, floor)
    if len(y) == 1:
        density = ResidueDensity.single(1.0, y)
    member = Member(fit.coef, fit.root, fit.noise, fit.dof[1:], 1.0, density)
    experts = (Expert(basis, (member,)),)
    X, weight = slope_rows(sample.X, sample.weight)
    squares = TargetModel(experts, 0.0).gradient(X).square().sum(1)
    return TargetModel(experts, float((weight @ squares / weight.sum()).sqrt()))
