"""Expectation maximization over rows that are read block by block, as often as it takes.

Pieces are found on a sample of the rows. Cycles over all of them follow: one pass sums what experts
and gates need, for all levels together, another one looks along the gates' steps, those of Newton
with the curvature of the sample. Nothing is kept of a row. Of many processes each reads its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skpou.core import BestSoFar, Blocks, Report, Rows, TrainingInterrupted, TrainingResult
from skpou.core.linalg import (
    WeightedSums,
    back_substitute,
    ridge_factor,
    row_blocks,
    rows_within,
    split_factor,
    sum_of_all,
)
from skpou.partitions.gates.logistic import MultinomialLogistic, damped_direction
from skpou.partitions.gates.steps import NewtonStep, families_of, family_targets
from skpou.partitions.gates.tree import GateLevel, PartitionTree
from skpou.partitions.mixtures.em import EMOptions
from skpou.partitions.mixtures.experts import experts_of_factors
from skpou.partitions.mixtures.likelihood import log_normal, posterior
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.problem import PieceProblem

#: Most cycles over all rows: pieces are there already, what is left is the sample's error.
MOST_CYCLES = 10
#: Parts of a Newton step: those of the second pass are tried where the whole one does not help.
LENGTHS = ((1.0,), (0.5, 0.25, 0.125))
#: Numbers of posteriors that are held at a time: they should stay in a core's cache.
POSTERIORS = 200_000


@dataclass
class _Family:
    """Gates of one level with the same number of children, solved for together.

    Attributes
    ----------
    level : int
    children : Tensor of shape (F, K), int64
    gradient : Tensor of shape (F, K, q)
        Sum over the rows.
    """

    level: int
    children: Tensor
    gradient: Tensor


@dataclass
class _Sums:
    """What one pass tells of the state as it is.

    Attributes
    ----------
    factors : list of Tensor (N, P + m, P + m)
        Of the experts of every level.
    mass : list of Tensor (N,)
    total : Tensor of shape (3,)
        Sums of the weights, of the log densities, and of the mean squares of residuals.
    families : list of _Family
    """

    factors: list[Tensor]
    mass: list[Tensor]
    families: list[_Family]
    total: Tensor

    def weight(self) -> float:
        """Sum of the weights."""
        return float(self.total[0])

    def loss(self) -> float:
        """Negative log-likelihood a row."""
        return -float(self.total[1] / self.total[0])

    def rms(self) -> float:
        """Root mean square of the residual."""
        return math.sqrt(float(self.total[2] / self.total[0]))


@dataclass
class _Block:
    """Some rows with what the state makes of them.

    Attributes
    ----------
    weighted : Tensor (n, P + m)
        Root of the weights times columns and targets.
    features : list of Tensor (n, q)
        Of the gates of every level.
    shares : list of Tensor (n, N)
        Posteriors of every level.
    density : Tensor (n,)
        Log densities of the finest.
    square : Tensor (n,)
        Mean squares of its residuals.
    """

    weight: Tensor
    weighted: Tensor
    features: list[Tensor]
    shares: list[Tensor]
    density: Tensor
    square: Tensor


class StreamedEM:
    """Cycles over all rows, from the mixture that a sample has found.

    Parameters
    ----------
    blocks : callable
        Reads the rows.
    sample : PieceProblem
        The sample, with the space of the experts.
    found : TrainingResult
        Of `fit_em` on the sample.
    options : EMOptions
        The same.
    report : callable, default=None
        Receives a line a cycle.
    """

    def __init__(
        self,
        blocks: Blocks,
        sample: PieceProblem,
        found: TrainingResult,
        options: EMOptions,
        report: Report | None = None,
    ):
        self.blocks, self.sample, self.found = blocks, sample, found
        self.options, self.report = options, report
        mixture = found.state
        self.gates: list[GateLevel] = [
            replace(gate, theta=gate.theta.clone()) for gate in mixture.tree.levels
        ]
        #: Of these gates, which change in place.
        self.tree = PartitionTree(mixture.tree.n_features, self.gates)
        self.coef = [part.coef.clone() for part in mixture.experts]
        # Sigma of training, not of the end: see `EMOptions`.
        sigma = {"after": 1.0, "anneal": options.last_sigma}.get(options.noise)
        self.variance = [
            part.noise.clone() if sigma is None else torch.full_like(part.noise, sigma**2)
            for part in mixture.experts
        ]
        self.sizes = [gate.n_partitions for gate in self.gates]
        #: Partitions, those of all levels behind each other, whose rows are factored.
        self.exact = self.coef[-1].new_zeros(sum(self.sizes), dtype=torch.bool)

    def run(self) -> TrainingResult:
        """The best state of all cycles, judged by all rows."""
        best: BestSoFar[tuple[_Sums, list[Tensor]]] = BestSoFar()
        last, curve = math.inf, []
        still = max(self.options.tol, self.options.least_change)
        for cycle in range(MOST_CYCLES + 1):
            sums = self._sums()
            score = sums.loss() if self.options.noise == "em" else sums.rms()
            if not math.isfinite(score):
                break
            curve.append(sums.loss())
            if self.report:
                self.report(f"all rows, cycle {cycle}: loss {curve[-1]:.6g}, score {score:.6g}")
            best.show((sums, [gate.theta.clone() for gate in self.gates]), score)
            if abs(last - score) <= still * abs(score):
                break
            last = score
            if cycle < MOST_CYCLES:
                self._move(sums)
        if best.is_empty:
            raise FloatingPointError(
                "The mixture that a sample of the rows has found is not finite on all of them."
            )
        return self._result(best.score, *best.best, curve)

    def _result(
        self, score: float, sums: _Sums, thetas: list[Tensor], curve: list[float]
    ) -> TrainingResult:
        """Experts with noise and posterior factors, by the sums of the best cycle."""
        mixture, alpha = self.found.state, self.options.alpha
        experts: list[Experts] = []
        levels = [
            replace(gate, theta=theta) for gate, theta in zip(self.gates, thetas, strict=True)
        ]
        for factors, mass in zip(reversed(sums.factors), reversed(sums.mass), strict=True):
            part, alpha = experts_of_factors(self.sample, factors, mass, alpha)
            experts.insert(0, part)
        tree = PartitionTree(mixture.tree.n_features, levels)
        state = Mixture(tree, experts, mixture.degree, space=mixture.space)
        found = self.found
        chosen = {**found.chosen, "alpha": alpha}
        n_iter = found.n_iter + len(curve) - 1
        return replace(
            found, state=state, score=score, n_iter=n_iter, curve=found.curve + curve, chosen=chosen
        )

    # Passes over the rows

    def _read(self) -> Iterator[_Block]:
        """All rows, with the posteriors of the state as it is."""
        size = rows_within(sum(self.sizes), POSTERIORS)
        for rows in self.blocks():
            for block in row_blocks(rows.n_rows, size):
                yield self._posteriors(_part(rows, block))

    def _posteriors(self, rows: Rows) -> _Block:
        """Some rows, with the posteriors of the state as it is."""
        basis = self.sample.basis
        phi, root = basis.matrix(rows.X), rows.weight.sqrt()[:, None]
        features = list(self.tree.features(rows.X, range(len(self.gates))))
        shares = []
        above: Tensor | None = None
        density = square = root[:, 0]
        for depth, (coef, variance) in enumerate(zip(self.coef, self.variance, strict=True)):
            gate = self.gates[depth]
            log_pi = self.tree.log_conditional(rows.X, depth, features[depth])
            log_pi = log_pi if above is None else log_pi + above[:, gate.parent]
            above = log_pi
            mean = torch.einsum("np,kpm->nkm", phi, coef)
            share, density = posterior(log_pi + log_normal(rows.y, mean, variance))
            expected = torch.einsum("nk,nkm->nm", log_pi.exp(), mean)
            square = (rows.y - expected).square().mean(1)
            shares.append(share)
        weighted = torch.cat([phi * root, rows.y * root], 1)
        return _Block(rows.weight, weighted, features, shares, density, square)

    def _sums(self) -> _Sums:
        like = self.coef[-1]
        products = self._new_sums(self.exact)
        mass = like.new_zeros(sum(self.sizes))
        total = like.new_zeros(3, dtype=torch.float64)
        families = self._families()
        for block in self._read():
            shares = torch.cat(block.shares, 1)
            products.add(block.weighted, shares)
            mass += shares.T @ block.weight
            of_rows = torch.stack([torch.ones_like(block.density), block.density, block.square])
            total += (of_rows @ block.weight).to(torch.float64)
            for family in families:
                theta = self.gates[family.level].theta[family.children]
                family.gradient += _logistic(family, block).gradient(theta)
        products.of_all_processes()
        mass, total = sum_of_all(mass), sum_of_all(total)
        for family in families:
            family.gradient = sum_of_all(family.gradient)
        factors = self._factors(products)
        return _Sums(list(factors.split(self.sizes)), list(mass.split(self.sizes)), families, total)

    def _new_sums(self, exact: Tensor) -> WeightedSums:
        n_columns = self.sample.n_columns + self.sample.rows.n_outputs
        return WeightedSums(n_columns, exact, self.coef[-1])

    def _factors(self, products: WeightedSums) -> Tensor:
        """Factors of all partitions; another pass for those whose fit is too close for products."""
        factors, lost = products.factors()
        if bool(lost.any()):
            again = self._new_sums(lost[lost])
            for block in self._read():
                again.add(block.weighted, torch.cat(block.shares, 1)[:, lost])
            again.of_all_processes()
            factors[lost] = again.factors()[0]
            self.exact = self.exact | lost
        return factors

    def _families(self) -> list[_Family]:
        result = []
        for level, gate in enumerate(self.gates):
            for children in families_of(gate.parent):
                result.append(_Family(level, children, torch.zeros_like(gate.theta[children])))
        return result

    # The M-step

    def _move(self, sums: _Sums) -> None:
        """Experts by least squares, gates by the first part of a Newton step that helps."""
        self._search(sums)
        P = self.sample.n_columns
        least = torch.finfo(self.coef[-1].dtype).eps
        alpha = max(self.options.alpha or 0.0, least)
        for level, factors in enumerate(sums.factors):
            R, projected, _ = split_factor(ridge_factor(factors, P, alpha), P)
            self.coef[level] = back_substitute(R, projected)
            if self.options.noise == "em":
                R, projected, rss = split_factor(factors, P)
                rss = rss + (R @ self.coef[level] - projected).square().sum(1)
                mass = sums.mass[level][:, None]
                tiny = torch.finfo(mass.dtype).tiny
                variance = torch.where(mass > tiny, rss / mass.clamp_min(tiny), 1.0)  # Eq. 18
                self.variance[level] = variance.clamp_min(self.sample.floor**2)

    def _search(self, sums: _Sums) -> None:
        """Move the gates by the first part of their steps that helps."""
        families, directions = sums.families, self._directions(sums)
        taken = [torch.zeros_like(step[:, 0, 0]) for step in directions]
        for lengths in LENGTHS:
            if all(bool(length.all()) for length in taken):
                break
            values = self._objectives(families, directions, lengths)
            for value, length in zip(values, taken, strict=True):
                lower = value[1:] < value[0]
                first = value.new_tensor(lengths)[lower.to(torch.int64).argmax(0)]
                length.copy_(torch.where((length == 0) & lower.any(0), first, length))
        for family, direction, length in zip(families, directions, taken, strict=True):
            gate = self.gates[family.level]
            gate.theta[family.children] -= length[:, None, None] * direction

    def _objectives(
        self, families: list[_Family], directions: list[Tensor], lengths: tuple[float, ...]
    ) -> list[Tensor]:
        """Objectives (1 + lengths, F) before a step and after parts of it: a pass of the rows."""
        values = [step.new_zeros((1 + len(lengths), len(step))) for step in directions]
        for block in self._read():
            for family, direction, value in zip(families, directions, values, strict=True):
                theta = self.gates[family.level].theta[family.children]
                problem = _logistic(family, block)
                tried = [
                    problem.objective(theta - length * direction, 0.0) for length in (0.0, *lengths)
                ]
                value += torch.stack(tried)
        return [sum_of_all(value) for value in values]

    def _directions(self, sums: _Sums) -> list[Tensor]:
        """Steps (F, K, q) of families: gradients of all rows, Hessians of the sample."""
        block = self._posteriors(self.sample.rows)
        rows_a_row = sums.weight() / float(block.weight.sum())
        result = []
        for family in sums.families:
            theta = self.gates[family.level].theta[family.children]
            hessian = rows_a_row * _logistic(family, block).derivatives(theta, 0.0)[1]
            # Logits that all children share are free.
            size = hessian.diagonal(dim1=-2, dim2=-1).amax(-1)
            ridge = NewtonStep.ridge * torch.where(size > 0, size, 1.0)
            hessian.diagonal(dim1=-2, dim2=-1).add_(ridge[:, None])
            gradient = family.gradient + ridge[:, None, None] * theta
            result.append(damped_direction(gradient, hessian, torch.zeros_like(size)))
        return result


def _part(rows: Rows, block: slice) -> Rows:
    """Some rows, without a copy."""
    return Rows(rows.X[block], rows.y[block], rows.weight[block], rows.within[block])


def _logistic(family: _Family, block: _Block) -> MultinomialLogistic:
    """Logistic regression of some gates on the posteriors of their children in a block."""
    share = block.shares[family.level][:, family.children]
    targets, weight = family_targets(share, block.weight)
    features = block.features[family.level]
    return MultinomialLogistic(features, targets, family.children.shape[1], weight)


def fit_streamed_em(
    blocks: Blocks,
    sample: PieceProblem,
    found: TrainingResult,
    options: EMOptions,
    report: Report | None = None,
) -> TrainingResult:
    """Go on over all rows from what `fit_em` has found on some; see `StreamedEM`.

    Raises
    ------
    TrainingInterrupted
        On Ctrl-C, with what was found on the sample.
    """
    try:
        return StreamedEM(blocks, sample, found, options, report).run()
    except KeyboardInterrupt:
        message = "The pieces that a sample of the rows has found are kept."
        raise TrainingInterrupted(replace(found, code="interrupted", message=message)) from None
