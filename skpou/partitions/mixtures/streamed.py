"""Expectation maximization over rows that are read block by block, as often as it takes.

Pieces are found on a sample of the rows. Cycles over all of them follow: one pass sums what experts
and gates need, for all levels together, another one looks along the gates' Newton steps. Nothing is
kept of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skpou.core import BestSoFar, Report, Rows, TrainingInterrupted, TrainingResult
from skpou.core.linalg import (
    back_substitute,
    ridge_factor,
    split_factor,
    triangular_factor,
    weighted_factors,
)
from skpou.partitions.gates.logistic import MultinomialLogistic, damped_direction
from skpou.partitions.gates.steps import NewtonStep, families_of, family_targets
from skpou.partitions.gates.tree import GateLevel, PartitionTree, log_softmax_among_siblings
from skpou.partitions.mixtures.em import EMOptions
from skpou.partitions.mixtures.experts import experts_of_factors
from skpou.partitions.mixtures.likelihood import log_normal, posterior
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.problem import PieceProblem

#: Reads all rows once, in scaled units.
Blocks = Callable[[], Iterator[Rows]]
#: Most cycles over all rows: pieces are there already, what is left is the sample's error.
MOST_CYCLES = 10
#: Parts of a Newton step that are tried, the first that helps is taken.
LENGTHS = (1.0, 0.5, 0.25, 0.125)


@dataclass
class _Family:
    """Gates of one level with the same number of children, solved for together.

    Attributes
    ----------
    level : int
    children : Tensor of shape (F, K), int64
    gradient, hessian, value : Tensor
        Sums over the rows: (F, K, q), (F, K q, K q), and objectives (F,) or (lengths, F).
    direction : Tensor of shape (F, K, q)
        Newton's.
    """

    level: int
    children: Tensor
    gradient: Tensor | float = 0.0
    hessian: Tensor | float = 0.0
    value: Tensor | float = 0.0
    direction: Tensor | float = 0.0


@dataclass
class _Sums:
    """What one pass tells of the state as it is.

    Attributes
    ----------
    factors : list of Tensor (N, P + m, P + m)
        Of the experts of every level.
    mass : list of Tensor (N,)
    weight, density, square : float
        Sums of the weights, of the log densities, and of the mean squares of residuals.
    families : list of _Family
    """

    factors: list[Tensor]
    mass: list[Tensor]
    families: list[_Family]
    weight: float = 0.0
    density: float = 0.0
    square: float = 0.0

    def loss(self) -> float:
        """Negative log-likelihood a row."""
        return -self.density / self.weight

    def rms(self) -> float:
        """Root mean square of the residual."""
        return math.sqrt(self.square / self.weight)


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
        self.coef = [part.coef.clone() for part in mixture.experts]
        # Sigma of training, not of the end: see `EMOptions`.
        sigma = {"after": 1.0, "anneal": options.last_sigma}.get(options.noise)
        self.variance = [
            part.noise.clone() if sigma is None else torch.full_like(part.noise, sigma**2)
            for part in mixture.experts
        ]

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
        d, basis = self.sample.d, self.sample.basis
        for rows in self.blocks():
            phi, root = basis.matrix(rows.X), rows.weight.sqrt()[:, None]
            features, shares = [], []
            above: Tensor | None = None
            density = square = root[:, 0]
            for gate, coef, variance in zip(self.gates, self.coef, self.variance, strict=True):
                features.append(gate.basis(d).matrix(rows.X))
                log_pi = log_softmax_among_siblings(features[-1] @ gate.theta.T, gate.parent)
                log_pi = log_pi if above is None else log_pi + above[:, gate.parent]
                above = log_pi
                mean = torch.einsum("np,kpm->nkm", phi, coef)
                share, density = posterior(log_pi + log_normal(rows.y, mean, variance))
                expected = torch.einsum("nk,nkm->nm", log_pi.exp(), mean)
                square = (rows.y - expected).square().mean(1)
                shares.append(share)
            weighted = torch.cat([phi * root, rows.y * root], 1)
            yield _Block(rows.weight, weighted, features, shares, density, square)

    def _sums(self) -> _Sums:
        size = self.sample.n_columns + self.sample.rows.n_outputs
        like = self.coef[-1]
        sums = _Sums(
            [like.new_zeros((gate.n_partitions, size, size)) for gate in self.gates],
            [like.new_zeros(gate.n_partitions) for gate in self.gates],
            [
                _Family(level, children)
                for level, gate in enumerate(self.gates)
                for children in families_of(gate.parent)
            ],
        )
        for block in self._read():
            sums.weight += float(block.weight.sum())
            sums.density += float(block.weight @ block.density)
            sums.square += float(block.weight @ block.square)
            for level, share in enumerate(block.shares):
                own = weighted_factors(block.weighted, share)
                sums.factors[level] = triangular_factor(torch.cat([sums.factors[level], own], 1))
                sums.mass[level] += share.T @ block.weight
            for family in sums.families:
                theta = self.gates[family.level].theta[family.children]
                gradient, hessian = _logistic(family, block).derivatives(theta, 0.0)
                family.gradient, family.hessian = (
                    family.gradient + gradient,
                    family.hessian + hessian,
                )
        return sums

    # The M-step

    def _move(self, sums: _Sums) -> None:
        """Experts by least squares, gates by the first part of a Newton step that helps."""
        self._search(sums.families)
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

    def _search(self, families: list[_Family]) -> None:
        """Move the gates, by another pass over the rows."""
        for family in families:
            theta = self.gates[family.level].theta[family.children]
            # Logits that all children share are free.
            hessian = family.hessian
            assert isinstance(hessian, Tensor)
            size = hessian.diagonal(dim1=-2, dim2=-1).amax(-1)
            ridge = NewtonStep.ridge * torch.where(size > 0, size, 1.0)
            hessian.diagonal(dim1=-2, dim2=-1).add_(ridge[:, None])
            family.direction = damped_direction(
                family.gradient + ridge[:, None, None] * theta, hessian, torch.zeros_like(size)
            )
        for block in self._read():
            for family in families:
                theta = self.gates[family.level].theta[family.children]
                problem = _logistic(family, block)
                tried = [
                    problem.objective(theta - length * family.direction, 0.0)
                    for length in (0.0, *LENGTHS)
                ]
                family.value = family.value + torch.stack(tried)
        for family in families:
            assert isinstance(family.value, Tensor)
            lower = family.value[1:] < family.value[0]
            lengths = family.value.new_tensor(LENGTHS)
            first = lower.to(torch.int64).argmax(0)
            length = torch.where(lower.any(0), lengths[first], 0.0)
            gate = self.gates[family.level]
            gate.theta[family.children] -= length[:, None, None] * family.direction


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
