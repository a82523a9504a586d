"""Pieces found bottom-up: fine cells with local polynomials that compete for the samples.

A cell's polynomial is the best of several balls of samples near it, judged by leave-one-out,
which finds one-sided fits beside a kink. Cells are merged in `skpou.partitions.pieces.merging`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core.linalg import evenly, leave_one_out, row_blocks, rows_within
from skpou.partitions.pieces.problem import SPARE_OF_KEPT, Cells, PieceProblem, Pieces, compact

#: Balls that are tried in all when cells are few, and their rows times columns squared; at least
#: eight a cell.
MOST_BALLS, MOST_WORK = 4000, 5e9
#: Rows times columns squared from which on balls are compared by Gram matrices first, in a third of
#: the time, and how many of each cell are not decided on by these.
SCREENED_WORK, UNSCREENED = 5e7, 16

#: Leave-one-out error, in units of round-off, below which a fit to few samples is exact.
EXACT = 100.0
#: Sweeps of k-means: cells need be even only roughly, since they compete afterwards.
SWEEPS = 6
#: Balls that are tried in a cell at least.
LEAST_BALLS = 8
#: Samples over the number of columns of a ball: of one that is looked at where it is exact; at
#: least, where it is not. So many degrees of freedom tell its error.
SPARE_OF_EXACT, SPARE = 4, 6
#: Samples of a ball for each column, at least and at most, and its share of a cell between these:
#: small ones cross no interface, larger ones say more of the noise.
LEAST_A_COLUMN, MOST_A_COLUMN, SHARE_OF_CELL = 1.5, 4, 0.6
#: Samples of a cell for each column, and the most cells: more take long to merge.
CELL_A_COLUMN, SPARE_OF_CELL, MOST_CELLS = 1.6, 4, 1000
#: Samples of all starts together, and the most starts: on few samples one may miss a thin piece.
STARTED_SAMPLES, MOST_STARTS = 3000, 5
#: Rounds of competition, after which few samples change their cell.
N_ROUNDS = 4
#: Most rounds in which new balls are laid among what exact cells have left over.
MOST_PEELS = 4
#: Cells that a sample chooses among: those around its own, and more with every column.
NEAR, NEAR_A_COLUMN = 6, 3


def lloyd(
    X: np.ndarray,
    weight: np.ndarray,
    n_cells: int,
    rng: np.random.Generator,
    n_sweeps: int = SWEEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (M, d) and cells (n,) of a few weighted k-means sweeps from random samples."""
    centres = X[np.sort(rng.choice(len(X), n_cells, replace=False))].astype(float)
    for _ in range(n_sweeps):
        cell = cKDTree(centres).query(X)[1]
        total = np.bincount(cell, weight, n_cells)
        used = total > 0
        for j in range(X.shape[1]):
            sums = np.bincount(cell, weight * X[:, j], n_cells)
            centres[used, j] = sums[used] / total[used]
    return centres, cKDTree(centres).query(X)[1]


def _draw_candidates(
    cell: np.ndarray, n_cells: int, most: int, rng: np.random.Generator
) -> np.ndarray:
    """Samples at which balls are tried: of `most` each cell's part, but some of each."""
    n_draws = max(LEAST_BALLS, most // n_cells)
    shuffled = rng.permutation(len(cell))
    order = shuffled[np.argsort(cell[shuffled], kind="stable")]
    count = np.bincount(cell, minlength=n_cells)
    start = np.cumsum(count) - count
    rank = np.arange(len(cell)) - start[cell[order]]
    return np.sort(order[rank < n_draws])


def _balls(
    problem: PieceProblem, centres: np.ndarray, size: int, among: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Polynomial (b, P, m) and leave-one-out error (b,) of the samples nearest to each centre.

    `among` restricts the samples of the balls to some of them.
    """
    rows, coefs, errors = problem.rows, [], []
    points = problem.host_points[centres]
    tree = problem.tree if among is None else cKDTree(problem.host_points[among])
    for block in row_blocks(len(points), rows_within(2 * size * problem.n_columns)):
        near = tree.query(points[block], size)[1].reshape(-1, size)
        ball = problem._tensor(near if among is None else among[near])
        coef, error = leave_one_out(problem.polynomials[ball], rows.y[ball], rows.weight[ball])
        coefs.append(coef)
        errors.append(error)
    return torch.cat(coefs), torch.cat(errors)


class _Remembered:
    """What a function makes of centres, remembered for the last ones: of few samples all are tried.

    Parameters
    ----------
    function : callable
        Takes the problem, the centres and the samples of a ball.
    """

    def __init__(self, function: Callable[[PieceProblem, np.ndarray, int], Any]):
        self.function = function
        self._tried: np.ndarray | None = None
        self._known: Any = None

    def __call__(self, problem: PieceProblem, tried: np.ndarray, size: int) -> Any:
        if self._tried is None or not np.array_equal(tried, self._tried):
            self._tried, self._known = tried, self.function(problem, tried, size)
        return self._known


def _rests(problem: PieceProblem, tried: np.ndarray, size: int) -> np.ndarray:
    """What the balls of centres leave (b,), as Gram matrices tell with half the digits."""
    size = min(problem.n, size)
    P, points, left = problem.n_columns, problem.host_points[tried], []
    for block in row_blocks(len(tried), rows_within(2 * size * P)):
        ball = problem._tensor(problem.tree.query(points[block], size)[1].reshape(-1, size))
        A = problem.weighted[ball]
        L, failed = torch.linalg.cholesky_ex(A.mT @ A)
        rss = L[:, P:, P:].square().sum((1, 2))
        # What has no factor is of deficient rank, or exact: the orthogonal factors tell.
        left.append(torch.where(failed > 0, 0.0, rss))
    return torch.cat(left).cpu().numpy()


def _screened(
    problem: PieceProblem,
    tried: np.ndarray,
    cell: np.ndarray,
    size: int,
    rests: Callable[[PieceProblem, np.ndarray, int], np.ndarray] = _rests,
) -> np.ndarray:
    """Centres `tried` (b,) in each cell (b,) whose balls of `size` samples leave the least.

    As Gram matrices tell with half the digits; `rests` makes what the balls leave.
    """
    by_rest = np.argsort(rests(problem, tried, size), kind="stable")
    by_cell = by_rest[np.argsort(cell[by_rest], kind="stable")]
    _, first, count = np.unique(cell[by_cell], return_index=True, return_counts=True)
    rank = np.arange(len(by_cell)) - np.repeat(first, count)
    return np.sort(tried[by_cell[rank < UNSCREENED]])


def _two_sizes(
    problem: PieceProblem, centres: np.ndarray, size: int, among: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Polynomials and errors of balls of a comfortable size, or of the least where it is exact."""
    n = problem.n if among is None else len(among)
    coef, error = _balls(problem, centres, min(n, size), among)
    small = problem.n_columns + SPARE_OF_EXACT
    if small < min(n, size):
        # So few samples prove nothing about a noisy fit, but an exact one is no accident.
        small_coef, small_error = _balls(problem, centres, small, among)
        exact = (small_error < EXACT * problem.floor) & (small_error < error)
        coef = torch.where(exact[:, None, None], small_coef, coef)
        error = torch.where(exact, small_error, error)
    return coef, error


def _best_of_each(cell: np.ndarray, error: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cells that occur in `cell`, and the position of each one's smallest error."""
    by_error = np.argsort(error.cpu().numpy(), kind="stable")
    used, first = np.unique(cell[by_error], return_index=True)
    return used, by_error[first]


def _ball_size(problem: PieceProblem, n_cells: int) -> int:
    P = problem.n_columns
    of_cell = int(SHARE_OF_CELL * problem.n / n_cells)
    return max(P + SPARE, int(LEAST_A_COLUMN * P), min(of_cell, MOST_A_COLUMN * P))


def _best_balls(
    problem: PieceProblem,
    n_cells: int,
    rng: np.random.Generator,
    rests: Callable[[PieceProblem, np.ndarray, int], np.ndarray],
    fits: Callable[[PieceProblem, np.ndarray, int], tuple[Tensor, Tensor]],
) -> Cells:
    """Step A: each cell takes the polynomial of the ball with the least leave-one-out error."""
    weight = problem.rows.weight.cpu().numpy()
    centres, cell = lloyd(problem.host_points, weight, n_cells, rng)
    size = _ball_size(problem, n_cells)
    work = min(size, problem.n) * problem.n_columns**2
    tried = _draw_candidates(cell, n_cells, min(MOST_BALLS, int(MOST_WORK / work)), rng)
    if len(tried) * work > SCREENED_WORK:
        tried = _screened(problem, tried, cell[tried], size, rests)
    coef, error = fits(problem, tried, size)
    _, best = _best_of_each(cell[tried], error)
    index = problem._tensor(best)
    error = error[index]
    usable = torch.isfinite(error)
    rms = float(problem.rows.y.square().mean().sqrt())
    width2 = float(np.median(((problem.host_points - centres[cell]) ** 2).sum(1)))
    return Cells(
        torch.where(usable[:, None, None], coef[index], 0.0),
        torch.where(usable, error, rms),
        problem.host_points[tried[best]].astype(float),
        max(width2, np.finfo(float).tiny),
    )


def _peel(problem: PieceProblem, cells: Cells, pieces: Pieces) -> Cells | None:
    """New balls among the samples that no exact cell holds, or None if there is nothing to gain.

    Around a thin piece every ball reaches into its neighbours. Once those are known exactly
    and set aside, the balls of what remains follow the piece.
    """
    exact = pieces.error < EXACT * problem.floor
    labels = pieces.labels.cpu().numpy()
    among = np.flatnonzero(~exact.cpu().numpy()[labels])
    if not bool(exact.any()) or len(among) < problem.n_columns + SPARE:
        return None
    tried = among[evenly(len(among), MOST_BALLS)]
    coef, error = _two_sizes(problem, tried, _ball_size(problem, len(cells.coef)), among)
    used, best = _best_of_each(labels[tried], error)
    index, target = problem._tensor(best), problem._tensor(used)
    better = error[index] < pieces.error[target]
    if not bool(better.any()):
        return None
    index, target = index[better], target[better]
    best = best[better.cpu().numpy()]
    new_coef, new_error = cells.coef.clone(), cells.error.clone()
    new_coef[target], new_error[target] = coef[index], error[index]
    centres = cells.centres.copy()
    centres[target.cpu().numpy()] = problem.host_points[tried[best]]
    return Cells(new_coef, new_error, centres, cells.width2)


def _compete(problem: PieceProblem, cells: Cells) -> tuple[Cells, Pieces]:
    """Step B, one round: every sample picks a near cell that explains it; poor cells die."""
    n_cells = len(cells.coef)
    n_near = min(NEAR_A_COLUMN * problem.d + NEAR, n_cells)
    distance, near = cKDTree(cells.centres).query(problem.host_points, n_near)
    distance2 = problem._tensor(distance.reshape(problem.n, n_near) ** 2).to(cells.coef.dtype)
    near = problem._tensor(near.reshape(problem.n, n_near))
    index = torch.arange(problem.n, device=near.device)
    score = problem.surprise(cells, index, near)
    score += distance2 * (0.5 / (cells.width2 * problem.d))
    choice = near.gather(1, score.argmin(1, keepdim=True)).squeeze(1)
    keep = torch.bincount(choice, minlength=n_cells) >= problem.n_columns + SPARE_OF_KEPT
    if bool(keep.any()) and not bool(keep.all()):
        score = torch.where(keep[near], score, torch.inf)
        choice = near.gather(1, score.argmin(1, keepdim=True)).squeeze(1)
        lost = torch.nonzero(~keep[near].any(1)).squeeze(1)
        if len(lost):
            kept = np.flatnonzero(keep.cpu().numpy())
            found = cKDTree(cells.centres[kept]).query(problem.host_points[lost.cpu().numpy()])[1]
            choice[lost] = problem._tensor(kept[found])
    pieces = problem.fit(compact(choice))
    labels = pieces.labels.cpu().numpy()
    total = np.bincount(labels)
    centres = [np.bincount(labels, column) / total for column in problem.host_points.T]
    survivors = Cells(pieces.coef, pieces.error, np.stack(centres, 1), cells.width2)
    return survivors, pieces


def fine_cells(problem: PieceProblem, rng: np.random.Generator) -> Pieces:
    """Steps A and B: many small cells whose polynomials have competed for the samples.

    Where samples are few, a thin piece may miss every cell of one start; the best of several
    starts is kept.

    Parameters
    ----------
    problem : PieceProblem
        Samples; at least one feature.
    rng : numpy.random.Generator
        Draws the first centres and the balls.

    Returns
    -------
    Pieces
        One piece if the samples carry no more.
    """
    P = problem.n_columns
    n_cells = int(np.clip(problem.n / (CELL_A_COLUMN * P + SPARE_OF_CELL), 2, MOST_CELLS))
    if not problem.has_room or problem.d == 0:
        return problem.fit(torch.zeros(problem.n, dtype=torch.int64, device=problem.rows.X.device))
    tried: list[tuple[float, Pieces]] = []
    rests, fits = _Remembered(_rests), _Remembered(_two_sizes)
    for _ in range(int(np.clip(STARTED_SAMPLES // problem.n, 1, MOST_STARTS))):
        cells = _best_balls(problem, n_cells, rng, rests, fits)
        for _ in range(MOST_PEELS):
            for _ in range(N_ROUNDS):
                cells, pieces = _compete(problem, cells)
            peeled = _peel(problem, cells, pieces)
            if peeled is None:
                break
            cells = peeled
        surprise = (pieces.error.square() + problem.floor**2).log()
        tried.append((float((pieces.weight * surprise).sum()), pieces))
    return min(tried, key=lambda one: one[0])[1]
