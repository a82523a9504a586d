"""Expectation maximization in V-cycles (Trask et al. 2022, Algorithm 1) on any number of levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.core import BestSoFar, Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import (
    TINY,
    WeightedSums,
    back_substitute,
    ridge_factor,
    row_blocks,
    rows_within,
    split_factor,
    weighted_factors,
)
from skpou.partitions.gates.steps import (
    AdamStep,
    gates_from_tree,
    make_step,
    random_gates,
    split_direction,
)
from skpou.partitions.gates.tree import GateForm, NetworkForm, PartitionTree
from skpou.partitions.mixtures.experts import soft_experts
from skpou.partitions.mixtures.likelihood import (
    log_normal,
    marginalise,
    noise_of_experts,
    posterior,
)
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.pieces.spaces import POLYNOMIAL, space_columns

#: Rows from which on experts are fitted to sums of products, where these have digits enough:
#: many times as fast as factors of the rows, which keep all digits of few.
MANY_ROWS = 5000
#: Numbers that are held for each row and partition beside the values of its expert: gate, density,
#: posterior and their sum.
NUMBERS_A_PARTITION = 4
#: Lines of a whole report.
LINES = 100
#: Part of the cycles after which no partition is revived: those that are need the rest.
LAST_REVIVAL = 0.75
#: Part of the mean weight of partitions below which one has starved.
STARVED = 0.25


@dataclass(frozen=True)
class EMOptions:
    """How expectation maximization proceeds.

    Parameters
    ----------
    sizes : tuple of int, default=(8,)
        Number of children of every node on each level; without effect for a given start.
    degree : int, default=None
        Total degree of the experts; None: 2, or less where the rows are too few for it.
    smoothing : tuple of three int, default=(0, 1, 1)
        Relaxations of a level before and after that of the level above, and those of the
        coarsest level in between: S_pre, S_coarse, S_post.
    learning_rate : float, default=5e-3
        Step of Adam, which trains networks.
    noise : {"after", "em", "anneal"}, default="after"
        ``"after"``: sigma is 1 in training, and follows Eq. 18 at its end. ``"em"``: Eq. 18 in
        every relaxation. ``"anneal"``: sigma falls geometrically from 1 to 1e-4 over the cycles.
    alpha : float, default=None
        Ridge of the experts relative to the largest column norm; None: round-off in training,
        and by log evidence at its end.
    max_iter : int, default=1000
        Most V-cycles.
    tol : float, default=1e-14
        Relative residual, or relative change of the residual over a number of cycles, at which
        to stop.
    batch_size : int, default=None
        Rows for each step of Adam; None: all.
    least_change : float, default=1e-4
        Relative change of the residual over `patience` cycles below which nothing more is
        expected; `tol` where that is larger. With 0 for both there is no such end.
    space : str, default="polynomial"
        Space of the experts.
    """

    sizes: tuple[int, ...] = (8,)
    degree: int | None = None
    form: GateForm | NetworkForm = field(default_factory=GateForm)
    smoothing: tuple[int, int, int] = (0, 1, 1)
    learning_rate: float = 5e-3
    noise: str = "after"
    alpha: float | None = None
    max_iter: int = 1000
    tol: float = 1e-14
    batch_size: int | None = None
    least_change: float = 1e-4
    space: str = POLYNOMIAL

    #: Cycles over which a change is measured.
    patience = 20
    #: Last sigma of a geometric fall.
    last_sigma = 1e-4
    #: Fewest cycles for it; a faster fall freezes the first partitions.
    least_fall = 100
    #: Cycles between two looks for starved partitions.
    revival = 25


def fit_em(
    rows: Rows,
    options: EMOptions,
    rng: np.random.Generator,
    start: PartitionTree | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Train a mixture of experts by expectation maximization in V-cycles.

    The best state of all cycles is returned, not the last one, since cycles descend neither in
    the residual nor, on all levels together, in the likelihood. The best is that of least
    residual, which can be compared between cycles of different sigma; with ``noise="em"``, where
    sigma is that of the data, it is that of largest likelihood.

    Parameters
    ----------
    rows : Rows
        Samples in the unit box, targets of about unit rms.
    rng : numpy.random.Generator
        Draws the start and the batches.
    start : PartitionTree, default=None
        Partitions to start from, see `gates_from_tree`; None: random gates.

    Returns
    -------
    TrainingResult
        Its state is a `Mixture`, its curve the negative log-likelihood of the finest level for
        each observation after every cycle, its score the best rms residual of the finest level,
        or the best value of the curve with ``noise="em"``.
    """
    training = _EM(rows, options, rng, start, report)
    with handing_over(lambda: training.result("interrupted")):
        return training.run()


def affordable_degree(
    n_rows: int, n_features: int, n_partitions: int, space: str = POLYNOMIAL
) -> int:
    """Degree 2, as in the paper, or the largest below it that the rows can determine."""
    for degree in (2, 1):
        if n_partitions * space_columns(space, n_features, degree) <= n_rows:
            return degree
    return 0


class _Parameters(NamedTuple):
    """What a cycle has come to, of every level."""

    theta: list[Tensor]
    hidden: list[Tensor | None]
    coef: list[Tensor]
    variance: list[Tensor]


def cycles_a_line(max_iter: int) -> int:
    """Cycles from one line of the report to the next: a hundredth of all."""
    return max(max_iter // LINES, 1)


class _EM:
    """State of the training: gates, experts and sigmas of every level."""

    def __init__(
        self,
        rows: Rows,
        options: EMOptions,
        rng: np.random.Generator,
        start: PartitionTree | None,
        report: Report | None,
    ):
        self.options, self.rng, self.report = options, rng, report
        pairs = rows.pairs()
        if start is None:
            gates = random_gates(options.form, options.sizes, rows.X, rng)
        else:
            gates = gates_from_tree(options.form, start, rows.X, rows.weight, rng)
        self.degree: Any = options.degree
        if self.degree is None:
            n_leaves = gates[-1].n_partitions
            self.degree = affordable_degree(rows.n_rows, rows.n_features, n_leaves, options.space)
        self.problem = PieceProblem(pairs, self.degree, space=options.space)
        self.tree = PartitionTree(pairs.n_features, gates)
        self.steps = [
            make_step(gate, pairs.X, options.learning_rate, options.batch_size) for gate in gates
        ]
        m = pairs.n_outputs
        #: Partitions of each level whose rows are factored.
        self.exact = [
            torch.full_like(gate.parent, pairs.n_rows < MANY_ROWS, dtype=torch.bool)
            for gate in gates
        ]
        self.variance = [pairs.y.new_ones((gate.n_partitions, m)) for gate in gates]
        self.coef: list[Tensor] = []
        for level in range(len(gates)):
            self.coef.append(pairs.y.new_empty(0))
            self.fit_experts(level, self.log_partitions(level).exp())
        self.curve: list[float] = []
        self.residuals: list[float] = []
        self.start_loss, rms = self.evaluate()
        self.best: BestSoFar[_Parameters] = BestSoFar()
        self.best.show(self._parameters(), self._score(self.start_loss, rms))

    # Cycles

    @property
    def finest(self) -> int:
        """Number of the finest level."""
        return len(self.tree.levels) - 1

    def run(self) -> TrainingResult:
        """Cycles until one of the criteria of `EMOptions` is met."""
        every = cycles_a_line(self.options.max_iter)
        for cycle in range(self.options.max_iter):
            self._set_sigma(cycle)
            self.v_cycle(self.finest)
            loss, rms = self.evaluate()
            if not (math.isfinite(loss) and math.isfinite(rms)):
                return self.result("non_finite")
            self.curve.append(loss)
            self.residuals.append(rms)
            self.best.show(self._parameters(), self._score(loss, rms))
            if self.report and cycle % every == 0:
                self.report(f"cycle {cycle + 1}: loss {loss:.6g}, residual {rms:.3e}")
            if self._converged(cycle):
                return self.result("converged")
            if (
                cycle + 1
            ) % self.options.revival == 0 and cycle < LAST_REVIVAL * self.options.max_iter:
                self.revive()
        return self.result("converged" if self._fell_slowly() else "max_iter")

    def v_cycle(self, level: int) -> None:
        """Algorithm 1 below `level`; the level above is trained by a cycle of its own."""
        before, coarse, after = self.options.smoothing
        if level == 0:
            # A single level has nothing else to do.
            for _ in range(max(coarse, 1) if self.finest == 0 else coarse):
                self.relax(0)
            return
        for _ in range(before):
            self.relax(level)
        self.restrict(level)
        self.v_cycle(level - 1)
        # Prolongation: the gates of the levels above are part of the finer ones.
        for _ in range(after):
            self.relax(level)

    def relax(self, level: int) -> None:
        """One EM iteration on a level: E-step, least squares, step of its gates."""
        share = self.expectation(level)[0]  # Eqs. 13, 33 and 34
        self.fit_experts(level, share)  # Eqs. 17, 36 and 37
        self._step_gates(level, level, share)  # Eqs. 19, 38 and 39

    def restrict(self, level: int) -> None:
        """Align the gates of the level above with the marginalised posterior, Eq. 40."""
        share = marginalise(self.expectation(level)[0], self.tree.levels[level].parent)  # Eq. 35
        self._step_gates(level - 1, level, share)

    def _step_gates(self, level: int, source: int, share: Tensor) -> None:
        """Move the gates of `level` towards the posterior of level `source`."""
        step, weight, n = self.steps[level], self.problem.rows.weight, self.problem.n
        if not (isinstance(step, AdamStep) and step.in_batches):
            step.step(share, weight)
            return
        order = torch.as_tensor(self.rng.permutation(n), device=share.device)
        for block in row_blocks(n, self.options.batch_size or n):
            index = order[block]
            own = self._batch_posterior(source, index)
            for above in range(source, level, -1):
                own = marginalise(own, self.tree.levels[above].parent)
            step.step_on(index, own, weight[index])
        step.refresh()

    # E-step

    def log_partitions(self, level: int, rows: slice | Tensor = slice(None)) -> Tensor:
        """Logarithms of the partitions of a level at samples, Eq. 22."""
        log_pi = self.steps[0].log_gate[rows]
        for depth in range(1, level + 1):
            parent = self.tree.levels[depth].parent
            log_pi = log_pi[:, parent] + self.steps[depth].log_gate[rows]
        return log_pi

    def _means(self, level: int, rows: slice | Tensor) -> Tensor:
        """Values (n, N, m) of the experts at samples, Eq. 7."""
        return torch.einsum("np,kpm->nkm", self.problem.polynomials[rows], self.coef[level])

    def expectation(self, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """E-step: posterior (n, N), log-density (n,), squared residual of the mean (n, m)."""
        results = []
        N, m = self.coef[level].shape[0], self.problem.rows.n_outputs
        size = rows_within(N * (m + NUMBERS_A_PARTITION))
        for block in row_blocks(self.problem.n, size):
            y, mean = self.problem.rows.y[block], self._means(level, block)
            log_pi = self.log_partitions(level, block)
            share, density = posterior(log_pi + log_normal(y, mean, self.variance[level]))
            expected = torch.einsum("nk,nkm->nm", log_pi.exp(), mean)  # Eq. 8
            results.append((share, density, (y - expected).square()))
        parts = zip(*results, strict=True)
        share, density, square = (torch.cat(part) for part in parts)
        return share, density, square

    def _batch_posterior(self, level: int, index: Tensor) -> Tensor:
        """Posterior at some samples, by the gates as they are after the last step."""
        X = self.problem.rows.X[index]
        log_pi = self.tree.log_proba(X, level)
        mean = self._means(level, index)
        likelihood = log_normal(self.problem.rows.y[index], mean, self.variance[level])
        return posterior(log_pi + likelihood)[0]

    def evaluate(self) -> tuple[float, float]:
        """Negative log-likelihood for each observation, and rms residual, of the finest level."""
        _, density, square = self.expectation(self.finest)
        weight = self.problem.rows.weight / self.problem.total_weight
        return -float(weight @ density), math.sqrt(float((weight @ square).mean()))

    def _score(self, loss: float, rms: float) -> float:
        """What the best cycle is least in; infinite if it is not finite."""
        # Under Eq. 18 the likelihood is the aim; any other sigma is not that of the data.
        score = loss if self.options.noise == "em" else rms
        return score if math.isfinite(score) else math.inf

    # M-step of the experts

    def fit_experts(self, level: int, share: Tensor) -> None:
        """Weighted least squares of all partitions of a level, Eqs. 17, 36 and 37."""
        P = self.problem.n_columns
        alpha = max(self.options.alpha or 0.0, torch.finfo(share.dtype).eps)
        factors = self._factors(level, share)
        self.coef[level] = back_substitute(*split_factor(ridge_factor(factors, P, alpha), P)[:2])
        if self.options.noise == "em":
            variance = noise_of_experts(factors, self.coef[level], self.problem.rows.weight @ share)
            self.variance[level] = variance.clamp_min(self.problem.floor**2)

    def _factors(self, level: int, share: Tensor) -> Tensor:
        """Triangular factors (N, P + m, P + m) of the partitions of a level."""
        rows = self.problem.weighted
        if bool(self.exact[level].all()):
            return weighted_factors(rows, share)
        sums = WeightedSums(rows.shape[1], self.exact[level], rows)
        sums.add(rows, share)
        factors, lost = sums.factors()
        if bool(lost.any()):
            factors[lost] = weighted_factors(rows, share[:, lost])
            self.exact[level] = self.exact[level] | lost
        return factors

    def _set_sigma(self, cycle: int) -> None:
        """Geometric fall of sigma over the cycles."""
        if self.options.noise != "anneal":
            return
        progress = cycle / max(self.options.max_iter - 1, 1)
        sigma = self.options.last_sigma**progress
        for variance in self.variance:
            variance.fill_(sigma**2)

    # Starved partitions

    def revive(self) -> None:
        """Split the sibling of largest weighted residual for each partition that has starved."""
        weight, P = self.problem.rows.weight, self.problem.n_columns
        for level, gate in enumerate(self.tree.levels):
            share = self.expectation(level)[0]
            mass = weight @ share
            least = min(P, STARVED * float(mass.mean()))
            starved = torch.nonzero(mass < least).squeeze(1).tolist()
            if not starved:
                continue
            residual = (self.problem.rows.y[:, None] - self._means(level, slice(None))).square()
            misfit = weight @ (share * residual.sum(2))
            misfit[mass < 2 * least] = -1.0
            for node in starved:
                siblings = torch.nonzero(gate.parent == gate.parent[node]).squeeze(1)
                donor = siblings[misfit[siblings].argmax()]
                if misfit[donor] <= 0:
                    continue
                change = split_direction(gate.theta[donor], self.rng)
                gate.theta[node] = gate.theta[donor] - change
                gate.theta[donor] += change
                self.coef[level][node] = self.coef[level][donor]
                misfit[donor] = -1.0
            self.steps[level].refresh()

    # End

    def _converged(self, cycle: int) -> bool:
        """Whether the residual is round-off, or has stood still for a number of cycles."""
        options, residuals = self.options, self.residuals
        if residuals[-1] <= max(options.tol, self.problem.least_noise):
            return True
        if options.noise == "anneal" or cycle < options.patience:
            return False
        least = max(options.tol, options.least_change)
        if not least:  # Cycles may well repeat each other bit for bit.
            return False
        recent, losses = (part[-options.patience - 1 :] for part in (residuals, self.curve))
        # A change of the loss is one of the logarithm of sigma, hence relative, too.
        still = max(losses) - min(losses) <= least
        return still and max(recent) - min(recent) <= least * recent[-1]

    def _fell_slowly(self) -> bool:
        """Whether sigma has fallen as it should."""
        options = self.options
        return options.noise == "anneal" and options.max_iter >= options.least_fall

    def _parameters(self) -> _Parameters:
        gates = self.tree.levels
        return _Parameters(
            [gate.theta.clone() for gate in gates],
            [None if gate.network is None else gate.network.theta.clone() for gate in gates],
            [coef.clone() for coef in self.coef],
            [variance.clone() for variance in self.variance],
        )

    def result(self, code: str) -> TrainingResult:
        """Experts with noise and posterior factors for the best state so far."""
        best = self.best.best
        for gate, theta, hidden, step in zip(
            self.tree.levels, best.theta, best.hidden, self.steps, strict=True
        ):
            gate.theta.copy_(theta)
            if gate.network is not None and hidden is not None:
                gate.network.theta.copy_(hidden)
            step.refresh()
        self.coef, self.variance = best.coef, best.variance
        experts: list[Experts] = []
        alpha = self.options.alpha
        for level in reversed(range(len(self.steps))):
            share = self.expectation(level)[0]
            fitted, alpha = soft_experts(self.problem, share, alpha)  # Eq. 18
            experts.insert(0, fitted)
        return TrainingResult(
            state=Mixture(self.tree, experts, self.degree, space=self.options.space),
            score=self.best.score,
            n_iter=max(len(self.curve), 1),
            curve=self.curve or [self.start_loss],
            code=code,
            message=self._message(code),
            chosen={"degree": self.degree, "alpha": alpha, "gate": self.options.form},
        )

    def _message(self, code: str) -> str:
        if code == "converged":
            return ""
        if code == "interrupted":
            return f"The best of {len(self.residuals)} cycles is kept."
        if code == "non_finite":
            return (
                f"The loss of cycle {len(self.residuals) + 1} is not finite; the best cycle "
                "before it is kept. Lower learning_rate."
            )
        change = 0.0
        if len(self.residuals) > 1:
            last = self.residuals[-1 - min(self.options.patience, len(self.residuals) - 1) :]
            change = (max(last) - min(last)) / max(last[-1], TINY)
        return (
            f"Training stopped at max_iter={self.options.max_iter} cycles (relative change "
            f"of the residual over the last {self.options.patience} cycles {change:.1e}). "
            "Increase max_iter."
        )
