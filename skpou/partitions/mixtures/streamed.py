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

from skpou.core import (
    BestSoFar,
    Blocks,
    Report,
    Rows,
    TotalDegreePolynomials,
    TrainingResult,
    handing_over,
)
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
from skpou.partitions.gates.tree import GateLevel, PartitionTree, log_softmax_of_rows
from skpou.partitions.mixtures.em import EMOptions
from skpou.partitions.mixtures.experts import experts_of_factors
from skpou.partitions.mixtures.likelihood import noise_of_experts, posterior
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.problem import PieceProblem

#: Most cycles over all rows: pieces are there already, what is left is the sample's error.
MOST_CYCLES = 10
#: Parts of a Newton step: those of the second pass are tried where the whole one does not help.
LENGTHS = ((1.0,), (0.5, 0.25, 0.125))
#: Numbers of posteriors that are held at a time: they should stay in a core's cache.
POSTERIORS = 100_000


@dataclass
class _Sums:
    """What one pass tells of the state as it is.

    Attributes
    ----------
    factors : list of Tensor (N, P + m, P + m)
        Of the experts of every level.
    mass : list of Tensor (N,)
    gradients : list of Tensor (N, q)
        Of what the gates of every level lower, their cross entropy (Eqs. 19, 38 and 39).
    entropies : list of Tensor (N,)
        What each partition has in it.
    total : Tensor of shape (3,)
        Sums of the weights, of the log densities, and of the mean squares of residuals.
    """

    factors: list[Tensor]
    mass: list[Tensor]
    gradients: list[Tensor]
    entropies: list[Tensor]
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
    """Some rows with what the state makes of them, partitions before rows.

    Attributes
    ----------
    weighted : Tensor (n, P + m)
        Root of the weights times columns and targets.
    features : list of Tensor (n, q)
        Of the gates of every level.
    gates : list of Tensor (N, n)
        Logarithms of the gates of every level.
    shares : list of Tensor (N, n)
        Posteriors of every level.
    density : Tensor (n,)
        Log densities of the finest.
    square : Tensor (n,)
        Mean squares of its residuals.
    """

    weight: Tensor
    weighted: Tensor
    features: list[Tensor]
    gates: list[Tensor]
    shares: list[Tensor]
    density: Tensor
    square: Tensor


class StreamedEM:
    """Cycles over all rows, from the mixture that a sample has found.

    Parameters
    ----------
    sample : PieceProblem
        The sample, with the space of the experts.
    found : TrainingResult
        Of `fit_em` on the sample.
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
        space = self.sample.basis
        #: A level whose gates have the columns of the experts, if any.
        self._columns_of_gate = next(
            (
                depth
                for depth, gate in enumerate(self.gates)
                if isinstance(space, TotalDegreePolynomials)
                and (gate.degree, gate.isotropic) == (space.degree, False)
            ),
            None,
        )
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
        features = list(self.tree.features(rows.X, range(len(self.gates))))
        own = self._columns_of_gate
        phi = self.sample.basis.matrix(rows.X) if own is None else features[own]
        columns, root = torch.cat([phi, rows.y], 1), rows.weight.sqrt()[:, None]
        gates, shares = [], []
        above: Tensor | None = None
        density = root[:, 0]
        for depth, (gate, coef, variance) in enumerate(
            zip(self.gates, self.coef, self.variance, strict=True)
        ):
            log_gate = log_softmax_of_rows(gate.theta @ features[depth].T, gate.parent)
            log_pi = log_gate if above is None else log_gate + above[gate.parent]
            above = log_pi
            joint = log_pi - 0.5 * (2 * math.pi * variance).log().sum(1, keepdim=True)  # Eq. 6
            residual = _residuals(coef, variance.sqrt(), columns)
            for part in residual:
                joint.addcmul_(part, part, value=-0.5)
            share, density = posterior(joint, 0)
            gates.append(log_gate)
            shares.append(share)
        pi, sigma = log_pi.exp(), variance.sqrt().T[..., None]
        square = (residual.mul_(sigma).mul_(pi)).sum(1).square().mean(0)  # Eq. 8
        return _Block(rows.weight, columns * root, features, gates, shares, density, square)

    def _sums(self) -> _Sums:
        like = self.coef[-1]
        products = self._new_sums(self.exact)
        mass = like.new_zeros(sum(self.sizes))
        entropy = torch.zeros_like(mass)
        total = like.new_zeros(3, dtype=torch.float64)
        gradients = [torch.zeros_like(gate.theta) for gate in self.gates]
        for block in self._read():
            shares = torch.cat(block.shares)
            products.add(block.weighted, shares.T)
            mass += shares @ block.weight
            of_rows = torch.stack([torch.ones_like(block.density), block.density, block.square])
            total += (of_rows @ block.weight).to(torch.float64)
            entropy += torch.cat(
                [
                    _cross_entropy(*pair, block)
                    for pair in zip(block.shares, block.gates, strict=True)
                ]
            )
            for gate, features, log_gate, share, gradient in zip(
                self.gates, block.features, block.gates, block.shares, gradients, strict=True
            ):
                rest = _of_parents(share, gate)[gate.parent].mul_(log_gate.exp()).sub_(share)
                gradient.addmm_(rest.mul_(block.weight), features)
        products.of_all_processes()
        mass, entropy, total = sum_of_all(mass), sum_of_all(entropy), sum_of_all(total)
        return _Sums(
            list(self._factors(products).split(self.sizes)),
            list(mass.split(self.sizes)),
            [sum_of_all(gradient) for gradient in gradients],
            list(entropy.split(self.sizes)),
            total,
        )

    def _new_sums(self, exact: Tensor) -> WeightedSums:
        n_columns = self.sample.n_columns + self.sample.rows.n_outputs
        return WeightedSums(n_columns, exact, self.coef[-1])

    def _factors(self, products: WeightedSums) -> Tensor:
        """Factors of all partitions; another pass for those whose fit is too close for products."""
        factors, lost = products.factors()
        if bool(lost.any()):
            again = self._new_sums(lost[lost])
            for block in self._read():
                again.add(block.weighted, torch.cat(block.shares)[lost].T)
            again.of_all_processes()
            factors[lost] = again.factors()[0]
            self.exact = self.exact | lost
        return factors

    # The M-step

    def _move(self, sums: _Sums) -> None:
        """Experts by least squares, gates by the first part of a Newton step that helps."""
        self._search(sums)
        P = self.sample.n_columns
        least = torch.finfo(self.coef[-1].dtype).eps
        alpha = max(self.options.alpha or 0.0, least)
        for level, factors in enumerate(sums.factors):
            self.coef[level] = back_substitute(
                *split_factor(ridge_factor(factors, P, alpha), P)[:2]
            )
            if self.options.noise == "em":
                variance = noise_of_experts(factors, self.coef[level], sums.mass[level])
                self.variance[level] = variance.clamp_min(self.sample.floor**2)

    def _search(self, sums: _Sums) -> None:
        """Move the gates of each parent by the first part of their step that helps."""
        directions = self._directions(sums)
        before = [
            _of_parents(entropy, gate)
            for entropy, gate in zip(sums.entropies, self.gates, strict=True)
        ]
        taken = [torch.zeros_like(value) for value in before]
        for lengths in LENGTHS:
            if all(bool(length.all()) for length in taken):
                break
            values = self._objectives(directions, lengths)
            for value, old, length in zip(values, before, taken, strict=True):
                lower = value < old
                first = value.new_tensor(lengths)[lower.to(torch.int64).argmax(0)]
                length.copy_(torch.where((length == 0) & lower.any(0), first, length))
        for gate, direction, length in zip(self.gates, directions, taken, strict=True):
            gate.theta -= length[gate.parent, None] * direction

    def _objectives(self, directions: list[Tensor], lengths: tuple[float, ...]) -> list[Tensor]:
        """Cross entropies (lengths, parents) after parts of a step: a pass over the rows."""
        moved = [
            [replace(gate, theta=gate.theta - length * step) for length in lengths]
            for gate, step in zip(self.gates, directions, strict=True)
        ]
        values = [step.new_zeros((len(lengths), len(step))) for step in directions]
        for block in self._read():
            for tried, features, share, value in zip(
                moved, block.features, block.shares, values, strict=True
            ):
                for gate, own in zip(tried, value, strict=True):
                    log_gate = log_softmax_of_rows(gate.theta @ features.T, gate.parent)
                    own += _cross_entropy(share, log_gate, block)
        return [
            torch.stack([_of_parents(own, gate) for own in sum_of_all(value)])
            for value, gate in zip(values, self.gates, strict=True)
        ]

    def _directions(self, sums: _Sums) -> list[Tensor]:
        """Steps (N, q) of every level: gradients of all rows, Hessians of the sample."""
        block = self._posteriors(self.sample.rows)
        rows_a_row = sums.weight() / float(block.weight.sum())
        result = []
        for level, (gate, gradient) in enumerate(zip(self.gates, sums.gradients, strict=True)):
            step = torch.zeros_like(gate.theta)
            for children in families_of(gate.parent):
                theta = gate.theta[children]
                hessian = rows_a_row * _logistic(level, children, block).derivatives(theta, 0.0)[1]
                # Logits that all children share are free.
                size = hessian.diagonal(dim1=-2, dim2=-1).amax(-1)
                ridge = NewtonStep.ridge * torch.where(size > 0, size, 1.0)
                hessian.diagonal(dim1=-2, dim2=-1).add_(ridge[:, None])
                downhill = gradient[children] + ridge[:, None, None] * theta
                step[children] = damped_direction(downhill, hessian, torch.zeros_like(size))
            result.append(step)
        return result


def _part(rows: Rows, block: slice) -> Rows:
    """Some rows, without a copy."""
    return Rows(rows.X[block], rows.y[block], rows.weight[block], rows.within[block])


def _residuals(coef: Tensor, sigma: Tensor, columns: Tensor) -> Tensor:
    """What experts leave of targets (m, N, n), in units of sigma (N, m), of columns and targets."""
    m = coef.shape[2]
    targets = torch.eye(m, dtype=coef.dtype, device=coef.device)
    of_columns = torch.cat([-coef, targets.expand(len(coef), -1, -1)], 1) / sigma[:, None]
    return (of_columns.permute(2, 0, 1).flatten(0, 1) @ columns.T).unflatten(0, (m, -1))


def _cross_entropy(share: Tensor, log_gate: Tensor, block: _Block) -> Tensor:
    """Negative sum (N,) over rows of ``w_k log pi_k`` (N, n)."""
    return -((share * log_gate) @ block.weight)


def _of_parents(values: Tensor, gate: GateLevel) -> Tensor:
    """Sums (G, ...) over the children of each parent of values (N, ...), as in Eq. 35."""
    n_parents = int(gate.parent.max()) + 1
    total = values.new_zeros((n_parents, *values.shape[1:]))
    return total.index_add_(0, gate.parent, values)


def _logistic(level: int, children: Tensor, block: _Block) -> MultinomialLogistic:
    """Logistic regression of some gates on the posteriors of their children in a block."""
    targets, weight = family_targets(block.shares[level].T[:, children], block.weight)
    return MultinomialLogistic(block.features[level], targets, children.shape[1], weight)


def fit_streamed_em(
    blocks: Blocks,
    sample: PieceProblem,
    found: TrainingResult,
    options: EMOptions,
    report: Report | None = None,
) -> TrainingResult:
    """Go on over all rows from what `fit_em` has found on some; see `StreamedEM`."""
    message = "The pieces that a sample of the rows has found are kept."
    with handing_over(lambda: replace(found, code="interrupted", message=message)):
        return StreamedEM(blocks, sample, found, options, report).run()
