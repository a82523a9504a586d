"""How pieces of the data are found.

For each degree: A, many small cells with a polynomial each; B, samples choose among those of near
cells (`pieces.cells`); C, cells are merged to the pieces of best score (`pieces.merging`). Of the
best degree: D, roots where neighbouring pieces cross (`pieces.interfaces`); E, the tree of groups
that kinks separate (`pieces.plan`); then gates that follow the roots, and experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import LONG_SEEDS, Report, Rows, TrainingResult
from skpou.core.linalg import TINY, evidence_ridge
from skpou.partitions.blends.blends import Blend, BlendOptions, compose
from skpou.partitions.blends.ladder import fit_ladder
from skpou.partitions.blends.nested import fit_tree
from skpou.partitions.gates.tree import GateForm, PartitionTree
from skpou.partitions.joint import blend_options
from skpou.partitions.mixtures.experts import fit_level_experts, gates_follow, refit_by_gates
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.options import PieceOptions
from skpou.partitions.pieces.counts import split_pieces
from skpou.partitions.pieces.exact import exact_pieces, may_be_strips
from skpou.partitions.pieces.gate_tree import fit_gate_tree, fit_root_gate
from skpou.partitions.pieces.interfaces import NodeModels, find_interface
from skpou.partitions.pieces.merging import (
    SWEEPS,
    MergeHistory,
    merge_multilevel,
    polished,
    score,
    smooth,
)
from skpou.partitions.pieces.plan import Plan, plan_tree
from skpou.partitions.pieces.problem import PieceProblem, Pieces, compact, price_of_parameter
from skpou.partitions.pieces.race import DegreeRace
from skpou.partitions.pieces.segments import MOST_ROWS, likeliest_shifts
from skpou.partitions.pieces.spaces import space_columns

#: Rows from which on degrees that cannot win are not merged, and up to which all are held at once.
RACED_ROWS, MOST_RACED_ROWS = 250, 20_000
#: Degree from which pieces tell whether there is hope: up to it they cost the least.
PILOT_DEGREE = 2
#: Part of a hopeless residual below which pieces are kept, however they join.
CLEARLY = 1e-2
#: Most columns in which pieces that slopes do not tell apart may be: in more, few rows are beside
#: any boundary, and tables are smooth.
MOST_APART = 3
#: Rows that a line is determined by.
N_ENDS = 2
#: Rows for each parameter of a piece and its gate: half of them tell how well it fits.
ROWS_A_PARAMETER = 2
#: Factor by which a sharp gate may raise the residual of parts that it cuts otherwise than found.
MOST_MISPLACED = 2
#: Degrees of the segments of a line in which shifts are looked for: of level and slope, and of the
#: curvature where the degree is free. Parabolas that are asked for are mostly for something smooth.
SHIFTS, FREE_SHIFTS = (0, 1), (0, 1, 2)


def affordable_forms(forms: tuple[GateForm, ...], rows: Rows) -> tuple[GateForm, ...]:
    """Shapes of gates that the rows can carry: quadratic logits have (d + 1)(d + 2) / 2 columns."""
    n_columns = forms[0].basis(rows.n_features).n_columns
    carried = rows.n_rows >= PieceOptions.rows_a_gate_column * n_columns
    if forms[0].degree < 2 or (carried and n_columns <= PieceOptions.most_gate_columns):
        return forms
    return (GateForm(1),)


#: Tree, the leaf of each sample (of a soft part the part), and the number of sharp levels.
_Separated = tuple[PartitionTree, Tensor, int]


@dataclass
class _Candidate:
    """One degree's problem and the history of its merging."""

    problem: PieceProblem
    history: MergeHistory
    score: float = math.inf
    #: Whether all its pieces are known to be apart.
    apart: bool = False

    @property
    def labels(self) -> Tensor:
        """Pieces of best score; one where none was offered."""
        if self.history.labels is not None:
            return self.history.labels
        return torch.zeros(self.problem.n, dtype=torch.int64, device=self.problem.rows.X.device)


class PieceTraining:
    """One discovery of pieces, step by step."""

    def __init__(self, rows: Rows, options: PieceOptions, report: Report | None):
        self.rows = rows
        self.options = replace(options, gates=affordable_forms(options.gates, rows))
        self.report = report
        self._best: _Candidate | None = None
        self.curve: list[float] = []
        self.tried: list[_Candidate] = []
        self.seeds: dict[int, int] = {}
        self.race = DegreeRace(self._problem, self.seeds)
        self.converged = True
        #: Fine cell of each row; None where they were not needed.
        self.cells: Tensor | None = None
        #: Whether no kinks separate the best pieces, of which there could have been more.
        self.is_smooth = False

    @property
    def begun(self) -> bool:
        """Whether there is something that a result can be made of."""
        return self._best is not None

    @property
    def best(self) -> _Candidate:
        """Candidate of best score."""
        if self._best is None:
            raise RuntimeError("Pieces have not been searched for yet.")
        return self._best

    # Search

    def search(
        self, rng: np.random.Generator, labels: Tensor | None, hopeless: float = math.inf
    ) -> bool:
        """Steps A to C for each candidate degree; keeps the best score. Whether there is hope."""
        degrees = self._candidate_degrees()
        self.seeds.update({degree: int(rng.integers(LONG_SEEDS)) for degree in degrees})
        # Those that may show that there is no hope come first.
        first = [] if math.isinf(hopeless) else [m for m in degrees if m <= PILOT_DEGREE]
        if any(self._is_exact(self._merged(degree, labels)) for degree in first):
            return True
        if PILOT_DEGREE in first and self._residual(self.best) > hopeless:
            return False
        others, raced = degrees[len(first) :], self._is_raced(labels)
        for degree in self.race.order(others) if raced else others:
            if raced and self.race.is_lost(degree, self.best.score if self.begun else math.inf):
                if self.report:
                    self.report(f"degree {degree}: cannot win")
                continue
            if self._is_exact(self._merged(degree, labels)):
                return True
        one_level = self.options.sizes is None or len(self.options.sizes) == 1
        line = self.rows.n_features == 1 and self.rows.n_rows <= MOST_ROWS
        if line and one_level and labels is None:
            self._try_shifts()
        return True

    def _merged(self, degree: int, labels: Tensor | None) -> _Candidate:
        """The pieces of a degree, told of."""
        candidate = self._merge(degree, labels)
        self.tried.append(candidate)
        if self.report:
            self.report(f"degree {degree}: score {candidate.score:.6g}")
        return candidate

    def _try_shifts(self) -> None:
        """Shifts of level, slope and curvature on a line of few rows: all of them can be tried.

        They count where they tell more than the best pieces, and than any one polynomial.
        """
        single = torch.zeros(self.rows.n_rows, dtype=torch.int64, device=self.rows.X.device)
        wholes = [(self.race.problem(degree), single) for degree in self._candidate_degrees()]
        tried = [*wholes, (self.best.problem, self.best.labels)]
        asked = self.options.degree
        degrees = FREE_SHIFTS if asked is None else [m for m in SHIFTS if m == asked]
        most = None if self.options.sizes is None else math.prod(self.options.sizes)
        found = likeliest_shifts([self.race.problem(degree) for degree in degrees], tried, most)
        if found is None:
            return
        problem, labels = found
        history = MergeHistory(labels, score(problem, problem.fit(labels)))
        self._best = _Candidate(problem, history, history.score, apart=True)

    def _is_raced(self, labels: Tensor | None) -> bool:
        """Whether rows are so many that looking at all degrees first saves time."""
        raced = RACED_ROWS <= self.rows.n_rows <= MOST_RACED_ROWS
        return raced and self.options.degree is None and labels is None

    def _candidate_degrees(self) -> list[int]:
        n, d = self.rows.X.shape
        if self.options.degree is not None:
            return [self.options.degree]
        # Through two rows there is always a line, and nothing tells how far it is off.
        unconfirmed = n <= N_ENDS and self.rows.total_weight <= n
        if d == 0 or n == 1 or unconfirmed:
            return [0]
        # A polynomial that half of the samples determine is the largest worth a try.
        chosen = [
            m
            for m in self.options.degrees
            if ROWS_A_PARAMETER * space_columns(self.options.space, d, m) <= n
        ]
        return [0, *(chosen or [1])]

    def _most_pieces(self, problem: PieceProblem) -> int:
        if self.options.sizes is not None:
            return math.prod(self.options.sizes)
        return self._most_carried(problem)

    def _most_carried(self, problem: PieceProblem) -> int:
        """Most pieces that the rows carry."""
        price = problem.n_columns + problem.n_gate_columns
        return int(np.clip(problem.n / (ROWS_A_PARAMETER * price), 1, self.options.most_pieces))

    def _problem(self, degree: int) -> PieceProblem:
        n_gate_columns = self.options.gates[0].basis(self.rows.n_features).n_columns
        return PieceProblem(self.rows, degree, n_gate_columns, self.options.tol, self.options.space)

    def _most_exact(self, problem: PieceProblem) -> int:
        """Most pieces where each has one row more than its polynomial needs."""
        if self.options.sizes is not None:
            return math.prod(self.options.sizes)
        return max(problem.n // (problem.n_columns + 1), 1)

    def _merge(self, degree: int, labels: Tensor | None) -> _Candidate:
        problem = self.race.problem(degree)
        history = MergeHistory(most_finer=self._most_carried(problem))
        candidate = _Candidate(problem, history)
        most = self._most_pieces(problem)
        single = torch.zeros(problem.n, dtype=torch.int64, device=self.rows.X.device)
        exact = exact_pieces(problem, self._most_exact(problem)) if labels is None else None
        # A constant is worth comparing as a whole, not as a piece.
        whole = most == 1 or (degree == 0 and self.options.degree is None)
        if self._best is None:
            history.labels = single
            self._best = candidate
        if exact is not None:
            history.offer_alone(score(problem, problem.fit(exact)), exact)
        elif self.race.enough.get(degree):
            history.offer_alone(score(problem, problem.fit(single)), single)
        elif whole or not problem.has_room:
            history.offer_alone(self._whole_score(problem, single), single)
        else:
            start = (
                self.race.start(degree)[1] if labels is None else smooth(problem, labels, SWEEPS)
            )
            self.cells = start.labels
            # Pieces of few rows may yet become exact.
            alone = self.best is candidate or problem.n < RACED_ROWS
            rival = math.inf if alone else self.best.score
            pieces = merge_multilevel(
                problem, start, most, self.options.max_iter, history, self.report, rival
            )
            history.labels = pieces.labels
        self.curve += history.scores
        self.converged &= history.converged
        candidate.score = history.score
        if candidate.score < self.best.score or self.best is candidate:
            self._best = candidate
        return candidate

    def _whole_score(self, problem: PieceProblem, single: Tensor) -> float:
        """Twice the negative log evidence of one polynomial, and the price of one gate."""
        factors = problem.fit(single).factors
        total = torch.full((1,), problem.total_weight, dtype=factors.dtype, device=factors.device)
        _, value = evidence_ridge(factors, problem.n_columns, total, problem.least_error)
        return value + problem.n_gate_columns * price_of_parameter(problem.total_weight)

    def _is_exact(self, candidate: _Candidate) -> bool:
        problem = candidate.problem
        if self._residual(candidate) > problem.least_error:
            return False
        labels = compact(candidate.labels)
        if int(labels.max()) == 0:
            return True
        # Two lines of a grid may lie on a plane: higher degrees may tell of larger pieces.
        return not may_be_strips(problem.rows.X, labels, problem.basis.n_factors)

    def _residual(self, candidate: _Candidate) -> float:
        """Root mean square of what pieces leave over at their rows."""
        pieces = candidate.problem.fit(compact(candidate.labels))
        return math.sqrt(float(pieces.rss.sum()) / candidate.problem.n)

    # Gates and experts

    def planned(self) -> tuple[Pieces, Plan]:
        """The best pieces, and the tree that separates them."""
        problem = self.best.problem
        pieces = problem.fit(compact(self.best.labels))
        return pieces, self._plan(problem, pieces)

    def resume(self, labels: Tensor) -> None:
        """Pieces (n,) of a given degree that another search has come by, polished."""
        problem = self.race.problem(self._candidate_degrees()[0])
        history = MergeHistory(polished(problem, labels).labels)
        self._best = _Candidate(problem, history)

    def parts(self) -> Tensor | None:
        """Part of each row (n,) that kinks and jumps separate; None where there is only one."""
        pieces, plan = self.planned()
        if pieces.n_pieces == 1 or not plan.first_soft:
            return None
        return torch.as_tensor(plan.levels[0], device=pieces.labels.device)[pieces.labels]

    def sharp(
        self, rng: np.random.Generator, hopeless: float, joined: bool = True
    ) -> tuple[Pieces, Plan] | None:
        """The same after a search; None where some pieces join smoothly, or there is no hope.

        If `joined`, those that leave next to nothing of what is hopeless may: beside kinks high
        degrees are split where a polynomial ends to follow, and gates below those are soft.
        """
        if not self.search(rng, None, hopeless):
            return None
        pieces, plan = self.planned()
        if plan.first_soft == len(plan.levels):
            return pieces, plan
        may_join = joined and math.isfinite(hopeless)
        is_clear = may_join and self._residual(self.best) < CLEARLY * hopeless
        if not is_clear:
            return None
        return pieces, plan if plan.first_soft else Plan(plan.levels, len(plan.levels))

    def sharpened(self) -> tuple[Pieces, Plan] | None:
        """The best pieces, all apart, where that is no stranger than that some join smoothly.

        It is not where there is no noise, which tells kinks from joints; nor where pieces are of
        the highest degree, as those are that a smooth function is cut into.
        """
        problem = self.best.problem
        pieces, plan = self.planned()
        one_level = self.options.sizes is None or len(self.options.sizes) == 1
        few_columns = one_level and problem.d <= MOST_APART
        own = few_columns and problem.degree < max(self._candidate_degrees())
        if self.options.soft or self.options.exactly or not own or pieces.n_pieces == 1:
            return None
        if plan.first_soft == len(plan.levels) or self._residual(self.best) <= problem.exact_error:
            return None
        return pieces, Plan(plan.levels[-1:], 1)

    def result(
        self, quick: bool = False, found: tuple[Pieces, Plan] | None = None
    ) -> TrainingResult:
        """Tree, gates and experts of the best pieces, `found` if steps D and E are done."""
        problem, history = self.best.problem, self.best.history
        tree, labels, first_soft = self._separated(*(found or self.planned()), quick)
        if self.options.exactly:
            level = tree.levels[0].padded(max(self._most_pieces(problem), self.options.padded_to))
            tree = PartitionTree(problem.d, [level])
        experts, alpha = fit_level_experts(problem, tree, labels, first_soft, self.options.alpha)
        code = "converged" if self.converged else "max_iter"
        message = "" if self.converged else self._not_converged()
        if quick:
            code = "interrupted"
            message = "The best pieces found so far are kept, with gates that were not sharpened."
        return TrainingResult(
            state=Mixture(tree, experts, problem.degree, first_soft, problem.space),
            score=history.score,
            n_iter=max(len(self.curve), 1),
            curve=self.curve or [history.score],
            code=code,
            message=message,
            chosen={
                "degree": problem.degree,
                "alpha": alpha,
                "gate": self.options.gates[0],
                "n_pieces": tree.levels[-1].n_partitions,
                "cells": self.cells if self.options.exactly else None,
                "finer": history.finer if history.finer_score < history.score else None,
                "smooth": self.is_smooth,
                "left": self._residual(self.best),
                "tried": [
                    {
                        "what": f"pieces of degree {c.problem.degree}",
                        "score": c.score,
                        "taken": c is self.best,
                    }
                    for c in sorted(self.tried, key=lambda one: one.problem.degree)
                ],
            },
        )

    def _separated(self, pieces: Pieces, plan: Plan, quick: bool) -> _Separated:
        """Gates between pieces, sharp or soft."""
        problem, exactly = self.best.problem, self.options.exactly
        if exactly and not plan.first_soft:
            pieces, plan = self._split(problem, pieces)
        if quick or plan.first_soft == len(plan.levels):
            built = self._sharp(problem, pieces, plan.levels, quick)
            if quick or not exactly or gates_follow(problem, built[1], built[0]):
                return built
            # Gates of one level that cannot follow the pieces do better as soft ones.
            pieces, plan = self._split(problem, pieces)
        return self._soft(problem, pieces, plan)

    def _not_converged(self) -> str:
        last = self.curve[-2:]
        change = abs(last[-1] - last[0]) / max(abs(last[-1]), TINY)
        return (
            f"Merging of pieces stopped at max_iter={self.options.max_iter} levels (last relative "
            f"change of the score {change:.1e}) and the rest was merged at once. Increase "
            "max_iter, or lower n_partitions or degree."
        )

    def _plan(self, problem: PieceProblem, pieces: Pieces) -> Plan:
        interface = None
        if self.best.apart and not self.options.soft:
            return Plan([np.arange(pieces.n_pieces)], 1)
        if pieces.n_pieces > 1:
            root = torch.zeros(pieces.n_pieces, dtype=torch.int64, device=pieces.labels.device)
            models = NodeModels(problem, pieces.coef, [])
            interface = find_interface(problem, pieces.labels, models, pieces.error, root)
        plan = plan_tree(problem, pieces, interface, self.options.sizes)
        fewer = pieces.n_pieces < self._most_pieces(problem)
        self.is_smooth = fewer and (interface is None or not plan.first_soft)
        if self.options.exactly:
            kinked = interface is not None and plan.first_soft == len(plan.levels)
            return Plan(plan.levels[-1:], int(kinked and not self.options.soft))
        if not self.options.soft or pieces.n_pieces == 1:
            return plan
        asked = self.options.sizes is not None and len(self.options.sizes) > 1
        return Plan(plan.levels if asked else plan.levels[-1:], 0)

    def _split(self, problem: PieceProblem, pieces: Pieces) -> tuple[Pieces, Plan]:
        """As many pieces as one soft level has partitions."""
        pieces = split_pieces(problem, pieces, self._most_pieces(problem))
        return pieces, Plan([np.arange(pieces.n_pieces)], 0)

    def _sharp(
        self, problem: PieceProblem, pieces: Pieces, levels: list[np.ndarray], quick: bool
    ) -> _Separated:
        """Sharp gates on every level; the tree, the leaf of each sample, no soft level."""
        forms = self.options.gates
        tree = fit_gate_tree(problem, pieces, levels, forms, quick)
        chosen = refit_by_gates(problem, pieces, tree)
        noisy = float(chosen.rss.sum()) > problem.exact_rss
        if noisy and not quick and pieces.n_pieces > 1:
            # Labels that follow the noise bias the first experts; those of the gates do not.
            tree = fit_gate_tree(problem, chosen, levels, forms, quick)
            chosen = refit_by_gates(problem, chosen, tree)
        return tree, chosen.labels, len(levels)

    def _soft(self, problem: PieceProblem, pieces: Pieces, plan: Plan) -> _Separated:
        """Blends below sharp gates, or one blend alone."""
        options = blend_options(self.options)
        labels = torch.zeros_like(pieces.labels)
        if plan.first_soft:
            labels = torch.as_tensor(plan.levels[0], device=labels.device)[pieces.labels]
        n_parts = int(labels.max()) + 1
        below = plan.levels[plan.first_soft :]
        blends = [
            self._blend(problem, pieces, torch.nonzero(labels == part).squeeze(1), below, options)
            for part in range(n_parts)
        ]
        soft = compose(blends, options.form)
        if not plan.first_soft:
            return PartitionTree(problem.d, soft), labels, 0
        models = NodeModels(problem, torch.cat([blend.coef for blend in blends]), soft)
        gate = fit_root_gate(problem, labels, models, self.options.gates)
        tree = PartitionTree(problem.d, [gate, *soft])
        return tree, self._cleaned(tree, labels, models, problem), 1

    def _cleaned(
        self, tree: PartitionTree, labels: Tensor, models: NodeModels, problem: PieceProblem
    ) -> Tensor:
        """Parts as the sharp gate cuts them, unless that misplaces samples."""
        chosen = tree.log_proba(problem.rows.X, 0, harden=True).argmax(1)
        square = (problem.rows.y[:, None] - models.values(problem.rows.X)).square().mean(2)
        own, new = (square.gather(1, part[:, None]).sum() for part in (labels, chosen))
        allowed = MOST_MISPLACED * float(own) + problem.exact_rss
        return chosen if float(new) <= allowed else labels

    def _blend(
        self,
        problem: PieceProblem,
        pieces: Pieces,
        index: Tensor,
        below: list[np.ndarray],
        options: BlendOptions,
    ) -> Blend:
        """Soft pieces of one part: a ladder of numbers, or the tree that was asked for."""
        leaves, labels = torch.unique(pieces.labels[index], return_inverse=True)
        if len(below) == 1:
            numbers = (len(leaves),) if self.options.exactly else None
            return fit_ladder(problem, index, labels, options, numbers)
        nodes, parents = [], []
        above = torch.zeros(len(leaves), dtype=torch.int64, device=index.device)
        for level in below:
            names = torch.as_tensor(level, device=index.device)[leaves]
            _, node = torch.unique(names, return_inverse=True)
            parent = torch.zeros(int(node.max()) + 1, dtype=torch.int64, device=index.device)
            parent[node] = above
            nodes.append(node[labels])
            parents.append(parent)
            above = node
        sizes = (self.options.sizes or ())[-len(below) :]
        return fit_tree(problem, index, nodes, parents, options, sizes)
