"""Soft pieces of a smooth part: gates moved by variable projection (step F)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from skpou.core import BestSoFar, TrainingResult
from skpou.core.optim import ProjectedFit, ProjectedProblem, RidgeSchedule, levenberg_marquardt
from skpou.partitions.gates.logistic import fit_logistic
from skpou.partitions.gates.products import FixedLogits, LinearLogits, Logits, PartitionPolynomials
from skpou.partitions.gates.tree import GateForm, GateLevel
from skpou.partitions.pieces.problem import PieceProblem

#: Ridges of the logistic starts; a weaker last one gives sharper first gates.
STARTS: tuple[tuple[float, ...], ...] = ((1e-1,), (1e-1, 1e-2), (1e-1, 1e-2, 1e-3))
#: Relative residual that is round-off in float64: descents below only wander.
LEAST_TOL = 1e-13
#: Relative decrease of the sum of squares below whose promise no step is tried: where less is
#: promised, the ridge falls.
NEGLIGIBLE = 1e-7
#: Steps of a first look, which a single piece needs no more of; and at least, however dear.
FIRST_LOOK, FEWEST_STEPS = 3, 5
#: Rows for each unknown, and fewest rows, that pilots keep where all that pieces leave is what they
#: cannot follow: gates move alike with fewer rows, and only the last descent needs all digits.
PILOT_ROWS, FEWEST_PILOT_ROWS = 6, 600


@dataclass(frozen=True)
class BlendOptions:
    """How blends are trained.

    Attributes
    ----------
    alpha : float or None
        Fixed ridge; None: tied to progress.
    max_iter : int
        Steps of variable projection for the final blend.
    pilot_iter : int
        Steps for each number of pieces that is compared.
    tol : float
        Relative residual at which to stop.
    most_leaves : int
        Most soft pieces of one part.
    budget : float
        Rows times columns squared times steps that the final descent may spend.
    restart_above : float
        Relative error of a noise-free fit above which the ladder's choice is descended to from
        every start; none by default.
    further : bool
        Let the ladder's choice go on where it has used all its steps, for as many again.
    least_rows : int
        Rows up to which a training keeps all.
    """

    form: GateForm = field(default_factory=GateForm)
    alpha: float | None = None
    max_iter: int = 300
    pilot_iter: int = 25
    tol: float = 1e-14
    most_leaves: int = 1000
    budget: float = 5e9
    restart_above: float = math.inf
    further: bool = False
    least_rows: int = 2500

    def ridge(self) -> RidgeSchedule:
        """New schedule; a given ridge stays."""
        return RidgeSchedule.of(self.alpha)


@dataclass
class Blend:
    """Soft gates and experts of one smooth part.

    Attributes
    ----------
    parents : list of Tensor of shape (N_l,), int64
        Tree within the part, the coarsest level first.
    theta : list of Tensor of shape (N_l, q)
        Logit coefficients of every level.
    coef : Tensor of shape (K, P, m)
        Experts of the leaves.
    result : TrainingResult
        Record of the training; its score is the leave-one-out error.
    """

    parents: list[Tensor]
    theta: list[Tensor]
    coef: Tensor
    result: TrainingResult

    @property
    def n_leaves(self) -> int:
        """Number K of leaves."""
        return len(self.parents[-1])


class BlendTrainer:
    """Variable projection on the gates of one part's samples.

    Parameters
    ----------
    index : Tensor of shape (n_g,), int64
        Samples of the part.
    fixed : list of Tensor of shape (N_l, q), default=()
        Coefficients of the coarsest levels' logits, which stay as they are.
    """

    #: Rows for each unknown that a training keeps; more rows only cost time.
    rows_an_unknown = 12
    #: Points between the rows at which a fit is judged.
    most_probes = 1000
    #: Rows times columns squared times steps that a pilot may spend.
    pilot_budget = 1.5e9
    #: Weight of the gates' coefficients in units of the ridge: without it gates may turn sharp
    #: between the samples.
    shrinkage = 1.0

    def __init__(
        self,
        problem: PieceProblem,
        index: Tensor,
        options: BlendOptions,
        fixed: Sequence[Tensor] = (),
    ):
        self.problem = problem
        self.index = index
        self.options = options
        self.fixed = fixed
        self.probes = self._probes()

    def _probes(self) -> Tensor:
        """Midpoints between samples of the part and their neighbours in it."""
        inside = torch.zeros(self.problem.n, dtype=torch.bool, device=self.index.device)
        inside[self.index] = True
        near = self.problem.neighbours[self.index]
        own = self.index[:, None].expand_as(near)
        valid = inside[near]
        first, second = own[valid], near[valid]
        if len(first) > self.most_probes:
            drawn = np.random.default_rng(1).choice(len(first), self.most_probes, replace=False)
            chosen = torch.as_tensor(np.sort(drawn), device=first.device)
            first, second = first[chosen], second[chosen]
        X = self.problem.rows.X
        return 0.5 * (X[first] + X[second])

    def _judge(self, parents: list[Tensor]) -> Callable[[ProjectedFit], float]:
        """The larger of the leave-one-out error and the calibrated error at the probes."""
        if not len(self.probes):
            return ProjectedFit.leave_one_out
        features = self.options.form.basis(self.problem.d).matrix(self.probes)
        polynomials = self.problem.basis.matrix(self.probes)
        basis = PartitionPolynomials(polynomials, self._logits(features, parents), parents)

        def judge(fit: ProjectedFit) -> float:
            return max(fit.leave_one_out(), fit.calibrated(basis.matrix(fit.theta)))

        return judge

    def _projected(self, index: Tensor, parents: list[Tensor]) -> ProjectedProblem:
        rows = self.problem.rows
        features = self.options.form.basis(self.problem.d).matrix(rows.X[index])
        logits = self._logits(features, parents)
        basis = PartitionPolynomials(self.problem.polynomials[index], logits, parents)
        return ProjectedProblem(basis, rows.y[index], rows.weight[index], self.shrinkage)

    def _logits(self, features: Tensor, parents: list[Tensor]) -> list[Logits]:
        """Logits of every level for some features (n, q): fixed ones, then those that move."""
        fixed: list[Logits] = [FixedLogits(features @ theta.T) for theta in self.fixed]
        return fixed + [LinearLogits(features, len(parent)) for parent in parents[len(fixed) :]]

    def thinned(self, n_unknowns: int, few: bool = False) -> Tensor:
        """Positions within the part of the rows to train on; as `few` as a pilot needs."""
        n = len(self.index)
        most = max(self.options.least_rows, self.rows_an_unknown * n_unknowns)
        if few:
            most = min(most, max(FEWEST_PILOT_ROWS, PILOT_ROWS * n_unknowns))
        if n <= most:
            return torch.arange(n, device=self.index.device)
        # A random subset: a stride through sorted rows would follow the lines of a grid.
        chosen = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
        return torch.as_tensor(chosen, device=self.index.device)

    def train(self, nodes: list[Tensor], parents: list[Tensor]) -> Blend:
        """Start from the node (n_g,) of each sample on every level of a tree, then descend."""
        pilot, problem = self.pilot(nodes, parents, steps=FIRST_LOOK)
        return self.descend_to_end(pilot, problem, parents)

    def pilot(
        self,
        nodes: list[Tensor],
        parents: list[Tensor],
        steps: int,
        starts: tuple[tuple[float, ...], ...] = STARTS,
        few: bool = False,
    ) -> tuple[TrainingResult, ProjectedProblem]:
        """Best of several logistic starts after a few steps, on `few` rows where they suffice.

        The problem is that of a descent to the end.
        """
        n_features = self.options.form.basis(self.problem.d).n_columns
        n_leaves = len(parents[-1])
        n_unknowns = n_leaves * (self.problem.n_columns + n_features)
        problem = self._projected(self.index[self.thinned(n_unknowns)], parents)
        thinned = self.thinned(n_unknowns, few)
        looked = problem
        if len(thinned) < len(problem.y):
            looked = self._projected(self.index[thinned], parents)
        tried: BestSoFar[TrainingResult] = BestSoFar()
        first = self.steps(problem, self.pilot_budget, FIRST_LOOK)
        for ridges in starts if n_leaves > 1 and first else starts[:1]:
            theta = self._start(looked, [node[thinned] for node in nodes], parents, ridges)
            result = self._descend(looked, theta, parents, first)
            tried.show(result, result.score)
        best = tried.best
        if steps > FIRST_LOOK and n_leaves > 1:
            steps = self.steps(problem, self.pilot_budget, steps)
            best = self._descend(looked, best.state.theta, parents, steps)
        return best, problem

    def descend_to_end(
        self, pilot: TrainingResult, problem: ProjectedProblem, parents: list[Tensor]
    ) -> Blend:
        """Descend to the end and solve for the experts on all samples of the part."""
        result = pilot
        steps = self.steps(problem, self.options.budget, self.options.max_iter)
        if len(parents[-1]) > 1 and steps:
            result = self._descend(problem, pilot.state.theta, parents, steps)
        return self._solved(result, parents)

    def go_on(self, blend: Blend, problem: ProjectedProblem) -> Blend:
        """Descend further from where a descent to the end has used all its steps."""
        result = blend.result
        ridge = self.options.ridge()
        ridge.follow(result.state.rms() / problem.rms)
        steps = self.steps(problem, self.options.budget, self.options.max_iter)
        further = self._descend(problem, result.state.theta, blend.parents, steps, ridge)
        return self._solved(further, blend.parents)

    def resume(self, theta: Tensor, error: float) -> Blend:
        """Descend to the end from coefficients (K, q) of the logits of one level.

        Parameters
        ----------
        theta : Tensor of shape (K, q)
            Of gates that were found before.
        error : float
            Relative residual that they came with: the ridge starts where theirs ended, or their
            coefficients would be lost at once.
        """
        parents = [torch.zeros(len(theta), dtype=torch.int64, device=theta.device)]
        thinned = self.thinned(len(theta) * (self.problem.n_columns + theta.shape[1]))
        problem = self._projected(self.index[thinned], parents)
        ridge = self.options.ridge()
        ridge.follow(error)
        steps = self.steps(problem, self.options.budget, self.options.max_iter)
        # Judged by left-out rows alone: what goes on from there is judged again.
        result = levenberg_marquardt(
            problem,
            theta.reshape(-1),
            max_iter=steps,
            ridge=ridge,
            tol=self._tol(),
            negligible=NEGLIGIBLE,
            patient=False,
        )
        return self._solved(result, parents)

    def follow(self, starts: Iterable[Tensor], parents: list[Tensor]) -> Blend:
        """Descend from coefficients (flat) of the logits that move, the best to the end.

        Parameters
        ----------
        starts : iterable of Tensor
            Where descents begin; each is looked at for as many steps as a pilot.
        parents : list of Tensor of shape (N_l,), int64
            Tree.
        """
        tried: BestSoFar[TrainingResult] = BestSoFar()
        for theta in starts:
            n_unknowns = len(parents[-1]) * self.problem.n_columns + len(theta)
            problem = self._projected(self.index[self.thinned(n_unknowns)], parents)
            steps = self.steps(problem, self.pilot_budget, self.options.pilot_iter)
            result = self._descend(problem, theta, parents, steps)
            tried.show(result, result.score)
        return self.descend_to_end(tried.best, problem, parents)

    def _solved(self, result: TrainingResult, parents: list[Tensor]) -> Blend:
        """Experts on all samples of the part for gates that were found."""
        theta = result.state.theta
        full = self._projected(self.index, parents)
        fit = full.solve(theta, result.chosen.get("ridge", RidgeSchedule.value))
        coef = fit.coef.reshape(len(parents[-1]), self.problem.n_columns, -1)
        own = self._columns(full).split(theta)[len(self.fixed) :]
        return Blend(parents, [*self.fixed, *own], coef, result)

    @staticmethod
    def _columns(problem: ProjectedProblem) -> PartitionPolynomials:
        """The columns of a problem of `_projected`."""
        return cast(PartitionPolynomials, problem.basis)

    def steps(self, problem: ProjectedProblem, budget: float, most: int) -> int:
        """Steps that a budget allows, between 5 and `most`; none where unknowns exceed the rows.

        Such rows are met without moving the gates.
        """
        if len(problem.y) < problem.basis.n_columns + problem.basis.n_parameters:
            return 0
        cost = len(problem.y) * problem.basis.n_columns**2
        return min(most, max(FEWEST_STEPS, int(budget / cost)))

    def _descend(
        self,
        problem: ProjectedProblem,
        theta: Tensor,
        parents: list[Tensor],
        steps: int,
        ridge: RidgeSchedule | None = None,
    ) -> TrainingResult:
        return levenberg_marquardt(
            problem,
            theta,
            max_iter=steps,
            ridge=ridge or self.options.ridge(),
            tol=self._tol(),
            judge=self._judge(parents),
            negligible=NEGLIGIBLE,
            patient=False,
        )

    def _tol(self) -> float:
        """Relative residual at which to stop."""
        return max(self.options.tol, LEAST_TOL)

    def _start(
        self,
        problem: ProjectedProblem,
        nodes: list[Tensor],
        parents: list[Tensor],
        ridges: tuple[float, ...],
    ) -> Tensor:
        """Logit coefficients (flat) of every level that moves, by logistic regression on labels."""
        parts = []
        for depth in range(len(self.fixed), len(parents)):
            node, parent = nodes[depth], parents[depth]
            features = cast(LinearLogits, self._columns(problem).logits[depth]).features
            theta = features.new_zeros((len(parent), features.shape[1]))
            for family in range(int(parent.max()) + 1):
                children = torch.nonzero(parent == family).squeeze(1)
                if len(children) < 2:
                    continue
                inside = torch.nonzero(parent[node] == family).squeeze(1)
                labels = torch.searchsorted(children, node[inside])
                weight = problem.root[inside, 0].square()
                theta[children] = fit_logistic(
                    features[inside], labels, len(children), weight, ridges
                )
            parts.append(theta.reshape(-1))
        return torch.cat(parts)


def compose(blends: list[Blend], form: GateForm) -> list[GateLevel]:
    """Gate levels of several parts side by side, below one node for each part.

    All parts must have the same number of levels.
    """
    levels = []
    offset_above = torch.arange(len(blends), device="cpu").tolist()
    for depth in range(len(blends[0].parents)):
        parents, thetas, offsets, total = [], [], [], 0
        for part, blend in enumerate(blends):
            above = offset_above[part]
            parents.append(blend.parents[depth] + above)
            thetas.append(blend.theta[depth])
            offsets.append(total)
            total += len(blend.parents[depth])
        levels.append(
            GateLevel(torch.cat(parents), torch.cat(thetas), form.degree, False, form.isotropic)
        )
        offset_above = offsets
    return levels
