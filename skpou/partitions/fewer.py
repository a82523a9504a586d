"""Exactly so many pieces, no worse than fewer of them or than those of a lower degree.

The descent of many soft gates has many ends, and the more gates the more of them are bad: twice the
pieces were seen to err a thousand times as much. So there are other candidates, all judged alike by
rows that are left out: pieces that have grown from fewer ones and from those of a lower degree;
and with noise, which more pieces only follow, fewer. Pieces that are not needed stay empty.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import BestSoFar, Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import NUMERICAL_FAILURES, TINY, triangular_factor
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.grown import EMPTY, can_grow, grow, grown_pieces, unknowns
from skpou.partitions.parted import LEAST_DEGREE, TrainPart, parted_pieces, parts_of
from skpou.partitions.pieces.problem import ROUND_OFF, compact
from skpou.partitions.pieces.spaces import space_columns

#: Factor between the numbers of pieces that are compared: all together cost twice the largest.
FACTOR = 2
#: Pieces up to which fewer are not tried where rows are plenty.
SURE = 8
#: Part of the residual's variance that nearest rows share, from which on it is the pieces' and not
#: noise, and they are worth growing.
SHARED = 0.5
#: Error of sharp pieces over that of as many soft ones from which on these join smoothly: beside a
#: kink the softness of a gate costs what it gains elsewhere.
JOINS = 50.0
#: Rows whose nearest ones are asked, and standard errors of what those of noise share.
ROWS_ASKED, NOTICED = 1000, 3.0
#: Factor of the least error so far beyond which half as many pieces are not tried either.
WORSE = 1.5
#: Rows for each unknown below which left-out rows tell nothing: gates have met them all.
ROWS_AN_UNKNOWN = 2
#: Rows for each unknown above which so few pieces are kept: noise moves the mean by a fifth of its
#: size.
ROWS_ENOUGH = 25
#: Columns of a polynomial beyond which every piece has a row for each of its unknowns.
MANY_COLUMNS = 100
#: Rows on which pieces are judged: more only cost time.
MOST_ROWS = 4000
#: Folds of rows that are left out.
N_FOLDS = 5
#: Errors, in units of round-off and of y, at which a number of pieces is exact and no other tried.
EXACT, LEAST_ERROR = 0.1, 1e-12
#: Factor of the least error within which descents are close, and steps that these go on for, and
#: how often.
CLOSE, MORE, ROUNDS = 3.0, 50, 3
#: Steps of the last descent of pieces that were just found: their first one has come as far.
FIRST_STEPS = 5
#: Steps of a descent that goes on from the same pieces of hardly other rows.
AGAIN = 10
#: Errors, in units of these, from which a descent is quicker at its end than others begin; and
#: factor by which pieces on their way may err more than others at their end.
NEARLY, HOPE = 1e5, 100.0
#: Seed of the draws of rows: the same for every fit.
ROWS_SEED = 3


def fit_no_worse(
    rows: Rows, options: PieceOptions, rng: np.random.Generator, report: Report | None = None
) -> TrainingResult:
    """`fit_pieces` for exactly so many pieces, or fewer and empty ones where these err less.

    Candidates descend for some steps, and the best of them to its end.

    Parameters
    ----------
    options : PieceOptions
        One size, a degree, and `exactly`.
    """
    asked = math.prod(options.sizes or (1,))
    most = min(asked, _carried(rows, options))
    report = report or (lambda line: None)
    options = replace(options, restarted=False, padded_to=asked)
    rows_an_unknown = rows.n_rows / (most * unknowns(rows, options))
    alone = rows_an_unknown < ROWS_AN_UNKNOWN

    def of_number(number: int, rng: np.random.Generator, cells=None) -> TrainingResult:
        some = replace(options, sizes=(number,))
        if not alone and most > 1:
            some = replace(some, most_steps=FIRST_STEPS)
        return fit_pieces(rows, some, rng, cells, report)

    # So many as are asked for start as they would alone.
    first = of_number(most, rng)
    if most == 1 or (alone and options.soft):
        return first
    contest = _Contest(rows, first, report)
    with handing_over(contest.interrupted):
        error = contest.show(first, str(most), most)
        if error <= contest.judge.exact:
            return contest.winner()
        full = replace(options, sizes=(most,))
        if _show_parted(contest, rows, full, asked, report) or alone:
            return contest.winner()
        if contest.judge.shared_by_neighbours(first) > SHARED:
            if error <= NEARLY * contest.judge.exact:
                contest.descend_to_end(full, noisy=False)
            if contest.best.score > contest.judge.exact:
                for found in grown_pieces(rows, full, first):
                    contest.show(found, f"{most} grown", most)
                contest.descend_to_end(full, noisy=False)
        else:
            if most > SURE or rows_an_unknown <= ROWS_ENOUGH:
                for number in _numbers(most)[1:]:
                    found = of_number(
                        number, np.random.default_rng(number), first.chosen.get("cells")
                    )
                    error = contest.show(found, str(number), number)
                    if error <= contest.judge.exact or error > WORSE * contest.best.score:
                        break
            contest.descend_to_end(full, noisy=True)
    return contest.winner()


def _show_parted(
    contest: _Contest, rows: Rows, options: PieceOptions, asked: int, report: Report
) -> bool:
    """Whether pieces between kinks err so much less than others that these need not go on."""
    chosen = contest.first.chosen
    smooth = chosen.get("smooth") or chosen.get("left", 0.0) > JOINS * contest.best.score
    if options.soft or (smooth and (options.degree or 0) >= LEAST_DEGREE):
        return False
    parts = parts_of(rows, options, chosen.get("finer"))
    if parts is None:
        return False
    report(f"kinks separate {int(parts.max()) + 1} parts")

    found = parted_pieces(rows, replace(options, padded_to=asked), parts, _part_trainer(report))
    if found is None:
        return False
    least = contest.best.score
    (most,) = options.sizes or (1,)
    error = contest.show(found, f"{most} parted", most)
    return error <= max(contest.judge.exact, least / HOPE)


def _part_trainer(report: Report) -> TrainPart:
    """How the pieces of one part are found: as those of all rows are."""

    def train(rows: Rows, options: PieceOptions) -> TrainingResult:
        return fit_no_worse(rows, options, np.random.default_rng(0), report)

    return train


def fit_again(
    rows: Rows, options: PieceOptions, found: TrainingResult, report: Report | None = None
) -> TrainingResult:
    """As many soft pieces for hardly other rows, from where they were.

    Parameters
    ----------
    options : PieceOptions
        One size, a degree, and `exactly`.
    found : TrainingResult
        Of `fit_no_worse`, with pieces that `can_grow`.
    """
    contest = _Contest(rows, found, report or (lambda line: None))
    with handing_over(contest.interrupted):
        asked = math.prod(options.sizes or (1,))
        number = used_pieces(found, rows)
        some = replace(options, sizes=(number,), padded_to=asked, most_steps=AGAIN)
        contest.show(grow(rows, some, found, noisy=True), f"{number} again", number)
    return contest.winner()


def grown_where_better(
    first: TrainingResult, rows: Rows, options: PieceOptions, report: Report | None = None
) -> TrainingResult:
    """Soft pieces that have grown in place of others where left-out rows are predicted better.

    Below sharp gates those of each part grow by themselves.

    Parameters
    ----------
    first : TrainingResult
        Of `fit_pieces` on these rows.
    options : PieceOptions
        What pieces were found with; without one size and a degree they stay.
    """
    sizes = options.sizes or ()
    if len(sizes) != 1 or options.degree is None:
        return first
    report = report or (lambda line: None)
    if first.state.tree.first_soft == 1:
        found = _grown_in_parts(first, rows, options, report)
        # Those that were to be soft have been asked already.
        return found if options.soft else _soft_where_better(found, rows, options, report)
    if not can_grow(first):
        return first
    if rows.n_rows < ROWS_AN_UNKNOWN * sizes[0] * unknowns(rows, options):
        return first
    full = replace(options, exactly=True)
    contest, grown = (_Contest(rows, first, report) for _ in range(2))
    with handing_over(contest.interrupted):
        error = contest.show(first, str(sizes[0]), sizes[0])
        if error <= contest.judge.exact or contest.judge.shared_by_neighbours(first) <= SHARED:
            return first
        for found in grown_pieces(rows, full, first):
            grown.show(found, f"{sizes[0]} grown", sizes[0])
        if not grown.best.is_empty and grown.best.score < HOPE * error:
            grown.descend_to_end(full, noisy=False)
            contest.show(*grown.best.best[:1], f"{sizes[0]} grown", sizes[0])
    return contest.winner()


def _grown_in_parts(
    first: TrainingResult, rows: Rows, options: PieceOptions, report: Report
) -> TrainingResult:
    """Pieces below sharp gates, or such that have grown in each part where these are better."""
    contest, parts = _Contest(rows, first, report), compact(first.state.tree.choose(rows.X)[0])
    (most,) = options.sizes or (1,)
    if int(parts.max()) + 1 == most or contest.judge.shared_by_neighbours(first) <= SHARED:
        return first
    with handing_over(contest.interrupted):
        if contest.show(first, str(most), most) <= contest.judge.exact:
            return first
        found = parted_pieces(rows, options, parts, _part_trainer(report))
        if found is not None:
            contest.show(found, f"{most} parted", most)
    # Starts are compared by the pieces that they have found.
    return replace(contest.best.best[0], score=first.score)


def _soft_where_better(
    sharp: TrainingResult, rows: Rows, options: PieceOptions, report: Report
) -> TrainingResult:
    """Soft pieces in place of sharp ones that leave more than noise, where they err far less.

    What is smooth was cut into pieces that sharp gates separate, as if at kinks, with one order of
    the columns and not with another: the errors were 2e-4 and 6e-9.
    """
    judge = Judge(rows)
    error = judge(sharp)
    if error <= judge.exact or judge.is_noise(sharp):
        return sharp
    message = "The pieces are kept; whether soft ones are better is not known."
    with handing_over(lambda: replace(sharp, code="interrupted", message=message)):
        some = replace(options, soft=True)
        soft = fit_pieces(rows, some, np.random.default_rng(ROWS_SEED), None, report)
        soft = grown_where_better(soft, rows, some, report)
        expected = judge(soft)
    report(f"soft pieces: expected error {expected:.3g}, {error:.3g} of sharp ones")
    # Starts are compared by the pieces that they have found.
    return replace(soft, score=sharp.score) if JOINS * expected < error else sharp


#: Expected error, and pieces with their number.
_Shown = tuple[float, tuple[TrainingResult, int]]


class _Contest:
    """Pieces that are judged alike, and the best of them.

    Parameters
    ----------
    first : TrainingResult
        What is kept if nothing has been shown.
    """

    def __init__(self, rows: Rows, first: TrainingResult, report: Report):
        self.rows = rows
        self.judge = Judge(rows)
        self.best: BestSoFar[tuple[TrainingResult, int]] = BestSoFar()
        self.shown: list[_Shown] = []
        self.first = first
        self.report = report

    def show(self, found: TrainingResult, what: str, number: int) -> float:
        """Expected error of so many pieces, the best of which are kept."""
        error = self.judge(found)
        self.shown.append((error, (found, number)))
        self.best.show((found, number), error)
        self.report(f"{what} pieces: expected error {error:.3g}")
        return error

    def descend_to_end(self, options: PieceOptions, noisy: bool) -> None:
        """Let the best descend to its end, if its gates are soft.

        Without noise those that are close go on together first: their order is chance.
        """
        near = self._close(self.shown)
        for _ in range(ROUNDS):
            if noisy or len(near) < 2:
                break
            near = self._close([self._go_on(one, options, noisy, MORE) for _, one in near])
        self._go_on(self.best.best, options, noisy)

    def _close(self, shown: list[_Shown]) -> list[_Shown]:
        least = min((error for error, _ in shown), default=math.inf)
        return [one for one in shown if one[0] <= CLOSE * least and one[0] > self.judge.exact]

    def _go_on(
        self,
        one: tuple[TrainingResult, int],
        options: PieceOptions,
        noisy: bool,
        steps: int = PieceOptions.most_steps,
    ) -> _Shown:
        """What a further descent leads to, if gates are soft."""
        found, number = one
        if not can_grow(found) or number == 1:
            return math.inf, one
        now = replace(options, sizes=(number,), most_steps=steps)
        found = grow(self.rows, now, found, noisy)
        return self.show(found, f"{number} further", number), (found, number)

    def winner(self) -> TrainingResult:
        """The best; its score is the expected error, by which starts are compared."""
        return replace(self.best.best[0], score=self.best.score)

    def interrupted(self) -> TrainingResult:
        """The best so far, marked as such."""
        message = "The best pieces found so far are kept."
        kept = self.first if self.best.is_empty else self.winner()
        return replace(kept, code="interrupted", message=message)


def used_pieces(found: TrainingResult, rows: Rows) -> int:
    """Number of partitions that are not empty."""
    share = found.state.tree.log_proba(rows.X).exp()
    return int((share.amax(0) > EMPTY).sum())


def _carried(rows: Rows, options: PieceOptions) -> int:
    """Most pieces for which there are rows, where polynomials are so large that more cost minutes.

    Small ones share their rows, and hold by their ridge.
    """
    if space_columns(options.space, rows.n_features, options.degree or 0) <= MANY_COLUMNS:
        return math.prod(options.sizes or (1,))
    return max(rows.n_rows // unknowns(rows, options), 1)


def _numbers(most: int) -> list[int]:
    """The number of pieces that is asked for and its halves, the largest first."""
    numbers = [most]
    while numbers[-1] > 1:
        numbers.append(numbers[-1] // FACTOR)
    return numbers


class Judge:
    """Expected errors of mixtures, whatever their gates: those at left-out folds.

    Leave-one-out is blind where a row alone tells of a coefficient: pieces of hardly more rows than
    columns meet them all. So folds are left out.
    """

    def __init__(self, rows: Rows):
        n, rng = rows.n_rows, np.random.default_rng(ROWS_SEED)
        drawn = rng.permutation(n)[:MOST_ROWS]
        order = torch.as_tensor(np.sort(drawn), device=rows.X.device)
        self.some = rows.subset(order)
        self.root = self.some.weight.sqrt()[:, None]
        self.fold = torch.as_tensor(rng.permutation(len(drawn)) % N_FOLDS, device=order.device)

        size = float(rows.y.square().mean().sqrt()) or 1.0
        round_off = ROUND_OFF * torch.finfo(rows.y.dtype).eps
        self.exact = max(EXACT * round_off, LEAST_ERROR) * size

    def shared_by_neighbours(self, found: TrainingResult) -> float:
        """Correlation of what is left at rows and at the nearest others; noise has none."""
        some = self.some.subset(
            torch.arange(min(ROWS_ASKED, len(self.fold)), device=self.fold.device)
        )
        left = (some.y - found.state.mean(some.X)) * some.weight.sqrt()[:, None]
        if some.n_rows < 2:
            return 0.0
        points = some.X.cpu().numpy()
        nearest = cKDTree(points).query(points, k=[2])[1][:, 0]
        near = left[torch.as_tensor(nearest, device=left.device)]
        return float((left * near).sum() / left.square().sum().clamp_min(TINY))

    def is_noise(self, found: TrainingResult) -> bool:
        """Whether what is left may be noise, as far as nearest rows tell."""
        n_asked = min(ROWS_ASKED, len(self.fold))
        return self.shared_by_neighbours(found) <= NOTICED / n_asked**0.5

    def __call__(self, found: TrainingResult) -> float:
        """Error at left-out folds for the gates and the ridge that were found; inf on failure."""
        columns = found.state.columns(self.some.X)
        used = (columns != 0).any(0)
        columns = columns[:, used]
        norm = float((columns * self.root).square().sum(0).max()) ** 0.5
        ridge = max(float(found.chosen["alpha"]), torch.finfo(columns.dtype).eps) * norm
        try:
            error = self._left_out(columns, ridge)
        except NUMERICAL_FAILURES:
            return math.inf
        return error if math.isfinite(error) else math.inf

    def _left_out(self, columns: Tensor, ridge: float) -> float:
        """Root mean square error (weighted) of each fold by the others."""
        q, y = columns.shape[1], self.some.y
        stacked = torch.cat([columns, y], 1) * self.root
        prior = stacked.new_zeros((q, stacked.shape[1]))
        prior[:, :q].diagonal().fill_(ridge)
        square = y.new_zeros(())
        for fold in range(min(N_FOLDS, len(y))):
            out = self.fold == fold
            R = triangular_factor(torch.cat([stacked[~out], prior]))
            coef = torch.linalg.solve_triangular(R[:q, :q], R[:q, q:], upper=True)
            square = square + (stacked[out, q:] - stacked[out, :q] @ coef).square().sum()
        return float((square / (self.some.weight.sum() * y.shape[1])).sqrt())
