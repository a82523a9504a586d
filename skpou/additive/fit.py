"""Training of additive models: terms by evidence, then the density of what they leave over."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.additive.basis import AdditiveBasis, spline_basis
from skpou.additive.given import given_terms
from skpou.additive.linear import linear_terms
from skpou.additive.local import (
    FEWEST_ASKED,
    FEWEST_ROWS,
    FittedTerms,
    JointResidue,
    TargetPairs,
    local_kernel,
)
from skpou.additive.members import Expert, Member
from skpou.additive.model import AdditiveModel, TargetModel
from skpou.additive.remainder import with_remainder
from skpou.additive.terms import PRUNED, Candidate, TargetRows, TermSearch
from skpou.core import LONG_SEEDS, Pairs, Report, Rows, TrainingResult, at_once, pairs_of
from skpou.core.linalg import EvidenceFit, EvidenceProblem, evenly
from skpou.core.models import (
    FEWEST_OF_TABLE,
    Residue,
    ResidueDensity,
    choose_components,
    fit_density,
    is_gain,
    left_out,
    noise_floor,
    slope_rows,
)

#: Functions of all main effects together, and the bounds of one column's to start with.
ALL_SPLINES, FEWEST_SPLINES, FIRST_SPLINES = 250, 4, 12
#: How many times as many a main effect may grow to.
MOST_SPLINES = 2
#: Most rows that judge terms; all rows fit the coefficients.
MOST_ROWS = 10_000
#: Log evidence by which a set of columns may be behind the best one and still have a share.
BEHIND = 20.0
#: Components of the density that gives the weights of the second round, and their bounds.
FIRST_COMPONENTS, LEAST_WEIGHT, LARGEST_WEIGHT = 4, 0.02, 50.0
#: Fewest rows for each component, and change of the log evidence that is round-off.
ROWS_A_COMPONENT, LEAST_CHANGE = 4, 1e-9
#: Iterations of the evidence after the weights have changed.
REFIT = 6
#: Most that the variances of the density are multiplied by, since strengths were found on its rows.
MOST_FOUND = 2.0
#: Steps of expectation maximization for the shares of members: they are few and settle soon.
STACKING_STEPS = 200


@dataclass(frozen=True)
class AdditiveOptions:
    """How an additive model is trained.

    Attributes
    ----------
    max_order : int
        Most columns in a term, from 1 to 3.
    n_splines : int or None
        Functions of each main effect; None: by the number of columns.
    remainder : bool
        Whether a block of kernel columns over all columns is tried.
    local : {"auto", True, False}
        Whether a local block is tried; ``"auto"``: in tables of enough rows.
    mixture : bool
        Whether the density is a mixture, and one Gaussian otherwise.
    transforms : tuple of bool
        Whether columns are transformed; both: as evidence says.
    tol : float
        Change of the log evidence a row at which the iterations end.
    terms : tuple of tuple of int or None
        Columns of every term; None: as evidence says.
    """

    max_order: int = 3
    n_splines: int | None = None
    remainder: bool = True
    local: str | bool = False
    mixture: bool = True
    max_columns: int = 800
    transforms: tuple[bool, ...] = (True, False)
    max_iter: int = 100
    tol: float = 1e-6
    terms: tuple[tuple[int, ...], ...] | None = None

    def is_mixed(self, n: int) -> bool:
        """Whether the density of so many errors may have several components."""
        return self.mixture and n >= ROWS_A_COMPONENT * FIRST_COMPONENTS

    def enough(self, total: float) -> float:
        """Change of the log evidence of so many rows that is none."""
        return max(self.tol * total, LEAST_CHANGE)


def fit_additive(
    rows: Rows,
    options: AdditiveOptions,
    rng: np.random.Generator,
    report: Report | None = None,
    known: AdditiveModel | None = None,
) -> TrainingResult:
    """Fit one additive model to each target.

    Parameters
    ----------
    rows : Rows
        Distinct rows, targets of unit rms.
    rng : Generator
        Chooses rows for the block over all columns where there are many.
    known : AdditiveModel, default=None
        Right after its training to nearly the same rows. Where these are more than judge terms its
        own are taken: a few rows less change the coefficients alone.
    """
    double = rows.to(torch.float64)
    seed = rng.integers(LONG_SEEDS, size=2)  # the same for all targets: together or one at a time
    functions = column_functions(double, options)
    fits = [
        TargetFit(double, k, options, np.random.default_rng(seed), report, functions)
        for k in range(rows.n_outputs)
    ]
    if known is not None and rows.n_rows > MOST_ROWS:
        for fit, target in zip(fits, known.targets, strict=True):
            fit.known = [expert.found for expert in target.experts if expert.found is not None]
    models = at_once(TargetFit.run, fits)
    steps = [step for fit in fits for step in fit.steps]
    converged = all(step.converged for step in steps)
    return TrainingResult(
        AdditiveModel(models),
        score=-sum(fit.score for fit in fits),
        n_iter=max(step.n_iter for step in steps),
        code="converged" if converged else "max_iter",
        message=f"The log evidence was still rising after max_iter={options.max_iter} "
        "iterations. Raise max_iter or tol.",
    )


def fit_terms(
    rows: Rows, options: AdditiveOptions, rng: np.random.Generator
) -> tuple[AdditiveBasis, EvidenceFit]:
    """Likeliest terms for rows with one target, and their coefficients, without a density."""
    search = TargetFit(rows, 0, options, rng, None)
    best = max(search.terms(), key=lambda candidate: candidate.score)
    return best.basis, search.converged(best)


def column_functions(rows: Rows, options: AdditiveOptions) -> Callable[[bool], AdditiveBasis]:
    """Functions of the columns, with or without a transform: the same for all targets."""
    first = first_splines(rows.X.shape[1], options)
    most = options.n_splines or MOST_SPLINES * first
    return functools.cache(lambda transform: spline_basis(rows.X, rows.weight, most, transform))


def first_splines(n_features: int, options: AdditiveOptions) -> int:
    """Functions of a main effect to start with."""
    few = min(max(ALL_SPLINES // max(n_features, 1), FEWEST_SPLINES), FIRST_SPLINES)
    return options.n_splines or few


def merge_pairs(pairs: Pairs, weight: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean target, weight and sum of squares about the mean of every point, for new weights."""

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(n).index_add_(0, pairs.point, values)

    y = pairs.y[:, 0]
    total = summed(weight)
    first = y.new_zeros(n).index_copy_(0, pairs.point.flip(0), y.flip(0))
    mean = first + summed(weight * (y - first[pairs.point])) / total
    return mean, total, summed(weight * (y - mean[pairs.point]).square())


class TargetFit:
    """Training of the model of one target."""

    def __init__(
        self,
        rows: Rows,
        output: int,
        options: AdditiveOptions,
        rng: np.random.Generator,
        report: Report | None,
        functions: Callable[[bool], AdditiveBasis] | None = None,
    ):
        self.options, self.rng, self.report = options, rng, report
        self.functions = functions or column_functions(rows, options)
        n = rows.n_rows
        self.pairs = pairs_of(rows, output)
        self.X, self.n = rows.X, n
        self.y = self.pairs.y[:, 0]
        mean, total, within = rows.y[:, output], rows.weight, rows.within[:, output]
        self.all = TargetRows(rows.X, mean, total, float(within.sum()))
        self.judges = self.all
        if n > MOST_ROWS:
            # Spread over the targets: every k-th row by y.
            order = torch.argsort(mean, stable=True)[evenly(n, MOST_ROWS)]
            self.judges = self.all.subset(order.sort().values, within)
        self.steps: list[EvidenceFit] = []
        #: The last basis that was evaluated at the rows, and its columns.
        self.columns: tuple[AdditiveBasis, Tensor] | None = None
        self.score = -math.inf
        self.is_linear = False
        self.firsts: list[Member] = []
        #: Terms of the members, and those that need not be searched for.
        self.found: list[Candidate] = []
        self.known: list[Candidate] = []

    def run(self) -> TargetModel:
        """Choose the terms, fit them and the density."""
        found = self.found = self.terms()
        fits = self.steps = at_once(self.converged, found)
        floor = noise_floor(self._residue(found[0], fits[0]), self.y)
        pairs = list(zip(found, fits, strict=True))
        self.firsts = [self._first(*pair) for pair in pairs]
        members = at_once(lambda pair: self._weighted(*pair, floor), pairs)
        experts, log_density = self._experts(members, floor)
        model = TargetModel(experts, 0.0)
        X, weight = slope_rows(self.X, self.all.weight)
        gradient = model.gradient(X)
        squares = gradient.square().sum(1)
        model = replace(model, slope=float((weight @ squares / weight.sum()).sqrt()))
        if not self._tries_local():
            return model
        slopes = (weight @ gradient.square() / weight.sum()).sqrt()
        return self._with_local(model, members, log_density, slopes, floor)

    def _first(self, candidate: Candidate, fit: EvidenceFit) -> Member:
        """Fit to rows of equal widths."""
        density = ResidueDensity.single(fit.noise, self.y)
        prior = fit.alpha[candidate.groups.index] * candidate.groups.shape
        return Member(fit.coef, fit.root, fit.noise, fit.dof[1:], 1.0, density, prior)

    def _experts(
        self, members: list[list[FittedTerms]], floor: float
    ) -> tuple[tuple[Expert, ...], Tensor]:
        """Experts by their shares, and the log density (k,) of each pair that is left out."""
        experts, densities = [], []
        for found, first, weighted in zip(self.found, self.firsts, members, strict=True):
            own, log_density = self._pooled(weighted, floor)
            experts.append(Expert(found.basis, own, first, found))
            densities.append(log_density)
        stacked = torch.stack(densities, 1)
        shares = stacked_shares(stacked, members[0][0].residue.weight)
        shared = tuple(expert.times(share) for expert, share in zip(experts, shares, strict=True))
        return shared, torch.logsumexp(stacked + stacked.new_tensor(shares).log(), 1)

    def _tries_local(self) -> bool:
        """Whether a local block may pay: rows are enough, and something is left over."""
        if not self.options.local or self.is_linear or self.options.terms is not None:
            return False
        if self.options.local == "auto":
            return self.n >= FEWEST_ROWS and self.X.shape[1] >= FEWEST_OF_TABLE
        return self.n >= FEWEST_ASKED

    def _with_local(
        self,
        model: TargetModel,
        members: list[list[FittedTerms]],
        log_density: Tensor,
        slopes: Tensor,
        floor: float,
    ) -> TargetModel:
        """The model with a local block, if the density of left-out rows rises by it."""
        rows = TargetPairs(self.X, self.all.y, self.all.weight, self.pairs)
        first = replace(members[0][0], fit=self.steps[0], factor=1.0)
        kernel = local_kernel(rows, first, slopes, floor, self.rng)
        if kernel is None:
            return model
        joint = JointResidue(rows, kernel, [t for part in members for t in part], floor)
        number, behind = 0, []
        for part in members:
            residues = [joint.of(number + k, terms) for k, terms in enumerate(part)]
            number += len(part)
            count = choose_components(residues[0], floor) if self.options.is_mixed(self.n) else 1
            pairs = zip(part, residues, strict=True)
            behind.append([replace(t, residue=residue, count=count) for t, residue in pairs])
        experts, with_block = self._experts(behind, floor)
        gain = with_block - log_density[joint.index]
        if not is_gain(gain, behind[0][0].residue.weight):
            return model
        if self.report is not None:
            self.report(f"local block: {self.n} rows, nugget {kernel.nugget:.3g}")
        return replace(model, experts=experts, local=joint.finished(first))

    # Terms

    def terms(self) -> list[Candidate]:
        """Best terms over the columns with and without a transform; one or both of them."""
        if self.known:
            self.score = max(candidate.score for candidate in self.known)
            self.is_linear = self.known[0].basis.is_straight
            return self.known
        options, d = self.options, self.X.shape[1]
        first = first_splines(d, options)
        searches: list[TermSearch] = []
        for transform in sorted(options.transforms):
            basis = self.functions(transform)
            moved = any(column.exponent != 1 for column in basis.columns)
            if transform and not moved and len(options.transforms) > 1:
                continue  # The other basis is the same.
            search = TermSearch(
                self.judges,
                basis,
                first,
                options.max_order,
                options.max_columns,
                options.max_iter,
                self.report,
            )
            is_asked = not searches and options.terms is None
            linear = linear_terms(search) if is_asked else None
            if linear is not None:
                search.tell("lines alone", linear)
                self.is_linear, self.score = True, linear.score
                return [linear]
            searches.append(search)
        searches.reverse()  # Those with a transform come first.
        if options.terms is not None:
            given = [
                (search, given_terms(search.basis, options.terms, first, options.max_columns))
                for search in searches
            ]
            pairs = self._close([(search, search.first(blocks)) for search, blocks in given])
            self.score = max(candidate.score for _, candidate in pairs)
            return [candidate for _, candidate in pairs]
        pairs = list(zip(searches, at_once(TermSearch.first, searches), strict=True))
        pairs = self._close(pairs)
        pairs = at_once(lambda pair: (pair[0], pair[0].grow(pair[1])), pairs)
        if options.remainder:
            pairs = self._with_remainder(pairs)
        self.score = max(candidate.score for _, candidate in pairs)
        return [candidate for _, candidate in pairs]

    def _with_remainder(
        self, pairs: list[tuple[TermSearch, Candidate]]
    ) -> list[tuple[TermSearch, Candidate]]:
        """Try the block over all columns beside the best terms, then beside the others."""
        result: list[tuple[TermSearch, Candidate]] = []
        for search, candidate in sorted(pairs, key=lambda pair: -pair[1].score):
            with_block = candidate
            # Fewer columns are all in one term anyway; what failed once will fail again.
            wanted = len(search.values) > self.options.max_order
            if wanted and (not result or result[0][1].basis.landmarks is not None):
                with_block = with_remainder(search, candidate, self.rng)
            result.append((search, with_block))
        return result

    @staticmethod
    def _close(pairs: list[tuple[TermSearch, Candidate]]) -> list[tuple[TermSearch, Candidate]]:
        best = max(candidate.score for _, candidate in pairs)
        return [pair for pair in pairs if pair[1].score >= best - BEHIND]

    def _problem(self, candidate: Candidate, factor: Tensor | None = None) -> EvidenceProblem:
        """All rows, their weights multiplied by a factor for each pair."""
        known = self.columns  # Other threads may put theirs here.
        if known is None or known[0] is not candidate.basis:
            known = self.columns = None  # Of many rows two bases would be a lot of memory.
            known = self.columns = candidate.basis, candidate.basis.matrix(self.X)
        F = known[1]
        rows = self.all
        y, weight, within = rows.y, rows.weight, rows.within
        if factor is not None:
            y, weight, spread = merge_pairs(self.pairs, self.pairs.weight * factor, self.n)
            within = float(spread.sum())
        total = float(rows.weight.sum())
        return EvidenceProblem(F, y, weight, within, candidate.groups, total)

    def converged(self, candidate: Candidate) -> EvidenceFit:
        """Fit to all rows until the evidence stops to rise."""
        problem = self._problem(candidate)
        enough = self.options.enough(problem.total)
        start = candidate.fit
        return problem.fit(start.alpha, start.noise, self.options.max_iter, enough).with_spread()

    # Density

    def _residue(
        self, candidate: Candidate, fit: EvidenceFit, factor: Tensor | float = 1.0
    ) -> Residue:
        """Left-out errors under given factors of the weights."""
        points = candidate.basis.coordinates(self.X)
        return left_out(self.pairs, fit.fitted, fit.spread, points, factor)

    def _weighted(self, candidate: Candidate, fit: EvidenceFit, floor: float) -> list[FittedTerms]:
        """Fits of the same terms: one, or two whose weights are those of a first density."""
        basis = candidate.basis
        residue = self._residue(candidate, fit)
        if not self.options.is_mixed(self.n):
            return [FittedTerms(basis, fit, residue, 1.0)]
        if self.is_linear and choose_components(residue, floor) == 1:
            return [FittedTerms(basis, fit, residue, 1.0)]
        density = fit_density(residue, FIRST_COMPONENTS, floor)
        joint, log_density = density.log_density(residue)
        inputs = density.features(residue.inputs)
        fits: list[FittedTerms] = []
        for proportions in (
            torch.softmax(inputs @ density.gates, 1),
            torch.exp(joint - log_density[:, None]),
        ):
            factor = (proportions / density.variance).sum(1)
            factor = (factor / factor.median()).clamp(LEAST_WEIGHT, LARGEST_WEIGHT)
            share = self.pairs.weight / self.pairs.weight.sum()
            factor = factor / (share @ factor)
            problem = self._problem(candidate, factor)
            refit = problem.fit(fit.alpha, fit.noise, REFIT, 0.0).with_spread()
            residue = self._residue(candidate, refit, factor)
            count = fits[0].count if fits else choose_components(residue, floor)
            fits.append(FittedTerms(basis, refit, residue, factor, count))
        return fits

    def _pooled(self, fits: list[FittedTerms], floor: float) -> tuple[tuple[Member, ...], Tensor]:
        """Members over the same basis, and the log density of every pair when left out."""
        members, densities = [], []
        for terms in fits:
            fit = terms.fit
            density = fit_density(terms.residue, terms.count, floor)
            density = density.scaled(searched_factor(fit, float(self.all.weight.sum())))
            if len(self.y) == 1:
                # One row says nothing about noise: the size of its target stands for it.
                density = ResidueDensity.single(1.0, self.y)
            share = 1 / len(fits)
            members.append(Member(fit.coef, fit.root, fit.noise, fit.dof[1:], share, density))
            densities.append(density.log_density(terms.residue)[1] + math.log(share))
        return tuple(members), torch.logsumexp(torch.stack(densities), 0)


def searched_factor(fit: EvidenceFit, total: float) -> float:
    """What errors at left-out rows are too small by, squared: strengths were found on these rows.

    Each strength that counts takes a degree of freedom as a coefficient that was fitted would,
    ``n / (n - k)``. Without, intervals of 50 and 90 % held 48 and 88 % on 200 rows of six columns.

    Parameters
    ----------
    total : float
        Number n of observations.
    """
    found = float((fit.dof[1:] > PRUNED).sum())
    return min(total / max(total - found, 1.0), MOST_FOUND)


def stacked_shares(log_density: Tensor, weight: Tensor) -> list[float]:
    """Shares of k densities in the mixture that predicts left-out rows best, by frequencies (n,).

    `log_density` (n, k) is that of every row under every density.
    """
    k = log_density.shape[1]
    share = log_density.new_full((k,), 1 / k)
    for _ in range(STACKING_STEPS if k > 1 else 0):
        responsibility = torch.softmax(log_density + share.log(), 1)
        share = (weight @ responsibility + 1) / (weight.sum() + k)
    return share.tolist()
