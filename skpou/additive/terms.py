"""Which terms an additive model has, and how many functions each: chosen by evidence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.additive.basis import AdditiveBasis, Block, line_products
from skpou.core import BestSoFar, Report
from skpou.core.linalg import EvidenceFit, EvidenceProblem, Groups

#: Kinds of groups whose prior variances lean on each other.
LINE, SPLINE, PAIR, TRIPLE, REMAINDER = 1, 2, 3, 4, 5
#: Prior variance of a group's values before the data speak, in units of that of y.
FIRST_VARIANCE = {LINE: 0.3, SPLINE: 0.1, PAIR: 0.02, TRIPLE: 0.005, REMAINDER: 0.3}
#: That of the constant, which is next to free: targets have about zero mean.
CONSTANT_VARIANCE = 100.0
#: Variance of the noise before they speak, and part of a first variance that a warm start has at
#: least: what was idle may come back.
FIRST_NOISE, LEAST_START = 0.1, 1e-3
#: How fast the prior variance of ever rougher functions falls: powers that are tried.
DECAYS = (1.0, 1.5, 2.0)
#: Log evidence by which a power may be behind the best one for the next to be tried.
BEHIND_BEST = 5
#: Most functions a column in the pairs to start with, and in pairs and triples that grew.
FIRST_PAIR, LARGEST_PAIR, LARGEST_TRIPLE = 6, 10, 5
#: Most columns of the basis before it grows.
FIRST_COLUMNS = 500
#: Degrees of freedom below which a term goes, and beyond which it gets so many times the functions.
PRUNED, ACTIVE, GROWTH = 0.05, 1.0, 1.6
#: Most pairs that join at a time, and standard deviations by which they must stand out.
NEW_PAIRS, STRIKING = 5, 3.0
#: Share of the functions of a main effect that asks for more of them.
STRAINED = 0.5
#: Share of the rows that the degrees of freedom may reach, and most rounds of growth.
LARGEST_SHARE, ROUNDS = 0.7, 3
#: Iterations of a cold and of a warm start, and the change of the log evidence that ends them.
COLD, WARM, ENOUGH = 25, 9, 0.05
#: Rows for each function of a main effect where rows are few, and the part of the pairs that have
#: room which is tried, too.
ROWS_A_FUNCTION, FEWER_PAIRS = 4, 4


@dataclass(frozen=True)
class TargetRows:
    """Distinct rows of one target.

    Attributes
    ----------
    X : Tensor of shape (n, d)
        Points in the unit box.
    y : Tensor of shape (n,)
        Mean target at each point, of about unit rms over all.
    weight : Tensor of shape (n,)
        Frequencies.
    within : float
        Weighted sum of squares of repeated targets about their means.
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    within: float

    @property
    def n_rows(self) -> int:
        """Number n of distinct points."""
        return len(self.X)

    def subset(self, index: Tensor, within: Tensor) -> TargetRows:
        """Some of the rows; `within` is that of each of all rows."""
        return TargetRows(
            self.X[index], self.y[index], self.weight[index], float(within[index].sum())
        )


@dataclass(frozen=True)
class Candidate:
    """Terms with their fit.

    Attributes
    ----------
    decay : float
        Power at which the prior variance of rougher functions falls.
    groups : Groups
        One for the constant, one for each block.
    fit : EvidenceFit
        At the rows of the search.
    score : float
        Log evidence less the number of terms; minus infinity where rows do not carry them.
    """

    basis: AdditiveBasis
    decay: float
    groups: Groups
    fit: EvidenceFit
    score: float

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Terms."""
        return self.basis.blocks

    def start(self) -> Start:
        """Its variances, for other terms."""
        keys = [block.key for block in self.blocks]
        alpha = dict(zip(keys, self.fit.alpha[1:].tolist(), strict=True))
        return Start(alpha, float(self.fit.alpha[0]), self.fit.noise)

    def without_idle(self) -> list[Block]:
        """Main effects, and other terms that have degrees of freedom."""
        pairs = zip(self.blocks, self.dof_of_blocks(), strict=True)
        return [block for block, dof in pairs if block.order == 1 or dof > PRUNED]

    def dof_of_blocks(self) -> list[float]:
        """Effective degrees of freedom of each term."""
        return self.fit.dof[1:].clamp_min(0).tolist()


@dataclass(frozen=True)
class Start:
    """Variances that an iteration starts from.

    Attributes
    ----------
    alpha : dict
        Prior variance of each block, by its key.
    constant : float
        That of the constant.
    """

    alpha: dict[tuple[tuple[int, ...], tuple[int, ...]], float]
    constant: float
    noise: float


def kind_of(block: Block) -> int:
    """Kind of a term's group."""
    if block.order == 1:
        return LINE if block.first == (0,) else SPLINE
    return {0: REMAINDER, 2: PAIR, 3: TRIPLE}[block.order]


def groups_of(blocks: Sequence[Block], decay: float, like: Tensor) -> Groups:
    """One group a term; prior variances fall with the order of its functions."""
    shapes, index = [like.new_ones(1)], [0]
    known: dict[tuple, Tensor] = {}  # of as many functions
    for number, block in enumerate(blocks, 1):
        key = block.first, block.last, block.order
        if key not in known:
            known[key] = _shape_of(block, decay, like)
        shapes.append(known[key])
        index += [number] * block.size
    kinds = [0, *(kind_of(block) for block in blocks)]
    return Groups(
        torch.tensor(index, device=like.device),
        torch.cat(shapes),
        torch.tensor(kinds, device=like.device),
    )


def _shape_of(block: Block, decay: float, like: Tensor) -> Tensor:
    """Prior variance of each column of a term, relative to the term's."""
    shape = like.new_ones(1)
    power = 0.0 if block.order == 0 else -2 * decay
    for first, last in zip(block.first, block.last, strict=True):
        order = torch.arange(first, last, dtype=like.dtype, device=like.device)
        # The line is order 1 of products; a spline alone starts behind it.
        order = order + (1 if first == 0 else 0)
        shape = (shape[:, None] * order**power).reshape(-1)
    return shape


def first_variances(groups: Groups) -> Tensor:
    """Prior variances of the groups before the data speak."""
    total = groups.shape.new_zeros(len(groups.kind))
    total.index_add_(0, groups.index, groups.shape)
    values = [FIRST_VARIANCE.get(kind, CONSTANT_VARIANCE) for kind in groups.kind.tolist()]
    return torch.tensor(values, dtype=total.dtype, device=total.device) / total


class TermSearch:
    """Search for the terms of one target over fixed columns.

    Parameters
    ----------
    rows : TargetRows
        Rows that judge.
    n_splines : int
        Functions of a main effect to start with; it may grow to all that its column has.
    max_order : int
        Most columns in a term, from 1 to 3.
    """

    def __init__(
        self,
        rows: TargetRows,
        basis: AdditiveBasis,
        n_splines: int,
        max_order: int,
        max_columns: int,
        max_iter: int,
        report: Report | None = None,
    ):
        self.rows, self.basis, self.report = rows, basis, report
        room = max_columns - 1
        self.n_splines = max(min(n_splines, room // max(len(basis.columns), 1)), 1)
        self.max_order, self.max_columns, self.max_iter = max_order, max_columns, max_iter
        self._last: tuple[AdditiveBasis, EvidenceProblem] | None = None
        self.T = basis.coordinates(rows.X)
        self.values = basis.functions(self.T)
        strength = [float((rows.weight * rows.y) @ value[:, 0]) for value in self.values]
        order = sorted(range(len(strength)), key=lambda j: -abs(strength[j]))
        self.first_columns = sorted(order[: max(room, 0)])

    # Fits

    def matrix(self, basis: AdditiveBasis) -> Tensor:
        """Columns at the rows."""
        return basis.from_functions(self.values, self.T)

    def fit(
        self,
        basis: AdditiveBasis,
        decay: float,
        start: Start | None = None,
        n_iter: int = WARM,
        rival: float = -torch.inf,
    ) -> Candidate:
        """Fit some terms, from the variances of an earlier fit where they are the same.

        Parameters
        ----------
        basis : AdditiveBasis
            Columns and terms.
        decay : float
            Power at which the prior variance of rougher functions falls.
        start : Start, default=None
            Variances to start from.
        n_iter : int, default=9
            Most iterations from these.
        rival : float, default=-inf
            Score that ends the iterations where it is out of reach.
        """
        groups = groups_of(basis.blocks, decay, self.T)
        alpha, noise = first_variances(groups), FIRST_NOISE
        if start is not None:
            alpha[0], noise = start.constant, start.noise
            for number, block in enumerate(basis.blocks, 1):
                first = float(alpha[number])
                alpha[number] = max(start.alpha.get(block.key, first), LEAST_START * first)
        rows = self.rows
        if self._last is None or self._last[0] is not basis:  # Else its sums are known.
            new = EvidenceProblem(self.matrix(basis), rows.y, rows.weight, rows.within, groups)
            self._last = basis, new
        problem = self._last[1].with_groups(groups)
        n_iter = COLD if start is None else n_iter
        steps, rival = min(n_iter, self.max_iter), rival + len(basis.blocks)
        fit = problem.fit(alpha, noise, steps, ENOUGH, rival=rival)
        score = fit.log_evidence - len(basis.blocks)
        if not fit.total_dof <= LARGEST_SHARE * self.rows.n_rows:
            score = -torch.inf
        return Candidate(basis, decay, groups, fit, score)

    # Terms

    def main_effects(self, n_splines: int | None = None) -> list[Block]:
        """A line and what bends it, for each column."""
        blocks = []
        for j in self.first_columns:
            column = self.basis.columns[j]
            blocks.append(Block((j,), (0,), (1,)))
            last = min(column.n_functions, n_splines or self.n_splines)
            if last > 1:
                blocks.append(Block((j,), (1,), (last,)))
        return blocks

    def product(self, columns: tuple[int, ...], n_functions: int) -> Block:
        """Products of at most so many functions a column."""
        last = tuple(min(n_functions, self.basis.columns[j].n_functions) for j in columns)
        return Block(columns, (0,) * len(columns), last)

    def ranked_pairs(self, candidate: Candidate) -> list[tuple[float, tuple[int, int]]]:
        """Pairs by how the lines' product goes with what a candidate leaves over.

        Returns
        -------
        list of (float, (int, int))
            The sum of products in units of its standard deviation, and the pair; largest first.
        """
        error = candidate.fit.left_out(self.rows.y)[0]
        ratio = line_products(self.values, self.rows.weight * error).abs().tolist()
        pairs = itertools.combinations(range(len(self.values)), 2)
        return sorted(((ratio[i][j], (i, j)) for i, j in pairs), key=lambda pair: -pair[0])

    def _best_pairs(self, blocks: list[Block]) -> list[tuple[int, int]]:
        """All pairs, ranked beside some main effects."""
        candidate = self.fit(self.basis.with_blocks(blocks), DECAYS[0])
        return [pair for _, pair in self.ranked_pairs(candidate)]

    def first_terms(self) -> list[Block]:
        """Main effects and all pairs, as many functions a pair as fit."""
        mains = self.main_effects()
        if self.max_order < 2:
            return mains
        pairs = list(itertools.combinations(range(len(self.values)), 2))
        size = 1 + sum(block.size for block in mains)
        if size + len(pairs) > self.max_columns:
            pairs = self._best_pairs(mains)[: max(self.max_columns - size, 0)]
        blocks = mains
        for n_functions in range(FIRST_PAIR, 0, -1):
            blocks = mains + [self.product(pair, n_functions) for pair in pairs]
            size = 1 + sum(block.size for block in blocks)
            if size <= min(FIRST_COLUMNS, self.max_columns):
                break
        return blocks

    def screened_terms(self) -> list[list[Block]]:
        """Smaller sets of terms, for rows that cannot carry the first ones."""
        n, mains = self.rows.n_rows, self.main_effects()
        few = self.main_effects(max(n // (ROWS_A_FUNCTION * max(len(self.values), 1)), 1))
        lines = [block for block in mains if block.first == (0,)]
        result = [mains, few, lines, []]
        if self.max_order >= 2 and len(self.values) > 1:
            pairs = self._best_pairs(few)
            for blocks, n_functions in ((mains, 2), (few, 2), (lines, 1)):
                # Together at most half as many columns as rows.
                room = n // 2 - 1 - sum(block.size for block in blocks)
                most = max(room // n_functions**2, 0)
                for count in {most, most // FEWER_PAIRS} - {0}:
                    result.append(
                        blocks + [self.product(pair, n_functions) for pair in pairs[:count]]
                    )
        return result

    # The search

    def first(self, given: list[Block] | None = None) -> Candidate:
        """Given terms, or main effects and pairs, in the decay of largest evidence."""
        blocks = self.first_terms() if given is None else given
        tried: BestSoFar[Candidate] = BestSoFar()
        start: Start | None = None
        basis = self.basis.with_blocks(blocks)
        for decay in DECAYS:
            candidate = self.fit(basis, decay, start)
            start = candidate.start()
            better = tried.show(candidate, -candidate.score)
            if not better and candidate.score < tried.best.score - BEHIND_BEST:
                break
        best = tried.best
        if best.score == -torch.inf and given is None:
            bases = [self.basis.with_blocks(blocks) for blocks in self.screened_terms()]
            best = max((self.fit(b, DECAYS[0]) for b in bases), key=lambda found: found.score)
        self.tell("first", best)
        return best

    def grow(self, best: Candidate) -> Candidate:
        """Drop idle terms, give busy ones more functions, and try triples, while it pays."""
        worth = [-torch.inf] * (self.max_order + 1)
        for _ in range(ROUNDS):
            grown = False
            for order in range(1, self.max_order + 1):
                # What fell short by more than has been gained since would do so again.
                blocks = self._grown_terms(best, order) if best.score > worth[order] else None
                if blocks is None:
                    continue
                basis = best.basis.with_blocks(blocks)
                candidate = self.fit(basis, best.decay, best.start(), rival=best.score)
                if candidate.score > best.score:
                    best, grown = candidate, True
                    self.tell("grown", best)
                else:
                    worth[order] = 2 * best.score - candidate.score
            if not grown:
                break
        return best

    def _grown_terms(self, candidate: Candidate, order: int) -> list[Block] | None:
        """Terms without the idle ones, and more of this order; None if nothing can grow."""
        blocks = candidate.without_idle()
        pairs = zip(candidate.blocks, candidate.dof_of_blocks(), strict=True)
        busy = [(block, dof) for block, dof in pairs if block in blocks]
        size = 1 + sum(block.size for block in blocks)
        wishes: list[tuple[float, Block | None, Block]] = []
        for block, dof in busy:
            least = STRAINED * block.size if order == 1 else ACTIVE
            if block.order == order and dof > least:
                finer = self._finer(block)
                if finer != block:
                    wishes.append((dof, block, finer))
        if order == 2:
            wishes += [(dof, None, block) for dof, block in self._new_pairs(candidate, busy)]
        if order == 3:
            wishes += [(dof, None, block) for dof, block in self._new_triples(busy)]
        wishes.sort(key=lambda wish: -wish[0])
        changed = False
        for _, old, new in wishes:
            more = new.size - (old.size if old else 0)
            if size + more > self.max_columns:
                continue
            size, changed = size + more, True
            if old:
                blocks[blocks.index(old)] = new
            else:
                blocks.append(new)
        return blocks if changed else None

    def _finer(self, block: Block) -> Block:
        if kind_of(block) == LINE:
            return block
        most = {2: LARGEST_PAIR, 3: LARGEST_TRIPLE}.get(block.order, self.max_columns)
        last = tuple(
            max(k, min(-int(-k * GROWTH // 1), most, self.basis.columns[j].n_functions))
            for j, k in zip(block.columns, block.last, strict=True)
        )
        return Block(block.columns, block.first, last)

    def _new_pairs(
        self, candidate: Candidate, busy: list[tuple[Block, float]]
    ) -> list[tuple[float, Block]]:
        """The few pairs that go best with what is left over, if there are any."""
        present = {block.columns for block, _ in busy}
        ranked = [
            (ratio, self.product(pair, 2))
            for ratio, pair in (self.ranked_pairs(candidate) if len(self.values) > 1 else [])
            if ratio > STRIKING and pair not in present
        ]
        return ranked[:NEW_PAIRS]

    def _new_triples(self, busy: list[tuple[Block, float]]) -> list[tuple[float, Block]]:
        """Triples of which at least two pairs are busy (heredity)."""
        active = {b.columns: dof for b, dof in busy if b.order == 2 and dof > ACTIVE}
        present = {b.columns for b, _ in busy}
        columns = sorted({j for pair in active for j in pair})
        found = []
        for triple in itertools.combinations(columns, 3):
            pairs = sorted(active.get(pair, 0.0) for pair in itertools.combinations(triple, 2))
            if pairs[1] > 0 and triple not in present:
                found.append((pairs[1], self.product(triple, 2)))
        return found

    def tell(self, what: str, candidate: Candidate) -> None:
        """Report a candidate."""
        if self.report is not None:
            self.report(
                f"{what}: {len(candidate.blocks)} terms, {candidate.basis.n_columns} columns, "
                f"{candidate.fit.total_dof:.1f} degrees of freedom, "
                f"log evidence {candidate.fit.log_evidence:.2f}"
            )
