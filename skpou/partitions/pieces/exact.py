"""Exact pieces of few rows: one row more than a polynomial has coefficients is no accident.

Bottom-up discovery wants rows to spare. Where rows are few, all polynomials through a row and some
of its neighbours are tried instead; in one column, all segments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from skpou.core.linalg import triangular_factor
from skpou.partitions.pieces.cells import EXACT
from skpou.partitions.pieces.problem import ROUND_OFF, PieceProblem
from skpou.partitions.pieces.segments import MOST_ROWS, best_segments

#: Neighbours of a row beyond those that a polynomial needs, among which it finds its own piece.
SPARE_NEIGHBOURS = 3
#: Most polynomials that are tried.
MOST_TRIED = 20_000
#: Leverage from which on a row is met whatever its target: it proves nothing.
MOST_LEVERAGE = 0.999
#: How many nats exact rows must save beyond what the cuts cost: odds of twenty to one.
LEAST_SAVING = 3.0
#: Share of the range of y below which its step is round-off, not a step of a scale.
NO_STEP = 1e-9
#: Such shares that a common step has at least: Euclid's algorithm multiplies round-off.
ROUND_OFFS = 1e3


def exact_pieces(problem: PieceProblem, most: int) -> Tensor | None:
    """Labels (n,) of at most so many pieces, of P + 1 rows or more, whose polynomials meet them.

    None where there are none, or where rounded targets meet so many polynomials by accident.
    """
    labels = _segments(problem, most) if problem.d == 1 else _cover(problem, most)
    if labels is None or not _is_no_accident(problem, int(labels.max()) + 1):
        return None
    return None if may_be_a_sum(problem.rows.X, labels, problem.basis.n_factors) else labels


def _segments(problem: PieceProblem, most: int) -> Tensor | None:
    if problem.n > MOST_ROWS or not _may_be_exact(problem):
        return None
    allowed = problem.n * problem.floor**2
    for labels in best_segments(problem, most, problem.n_columns + 1):
        if float(problem.fit(labels).rss.sum()) <= allowed:
            return labels
    return None


def _may_be_exact(problem: PieceProblem) -> bool:
    """Whether each row is one of P + 1 in a row that a polynomial meets."""
    n, width = problem.n, problem.n_columns + 1
    if n < width:
        return False
    windows = torch.arange(n - width + 1, device=problem.rows.X.device)[:, None]
    windows = windows + torch.arange(width, device=windows.device)
    R = triangular_factor(problem.weighted[windows])
    rss = R[:, problem.n_columns :, problem.n_columns :].square().sum((1, 2))
    met = torch.zeros(n, dtype=torch.bool, device=windows.device)
    met[windows[rss <= n * problem.rows.n_outputs * problem.floor**2]] = True
    return bool(met.all())


def _is_no_accident(problem: PieceProblem, n_pieces: int) -> bool:
    """Whether the targets that follow from others say more than the cuts between pieces cost."""
    free = problem.n - n_pieces * problem.n_columns
    values = min(_n_values(column) for column in problem.rows.y.T.cpu().numpy().astype(float))
    values = min(values, 1 / _tolerance(problem))
    if problem.degree == 0 and values < 1 / NO_STEP:
        # Any smooth curve that is rounded has runs of equal targets.
        return n_pieces == 1
    cuts = (n_pieces - 1) * problem.d * math.log(problem.n)
    return free * problem.rows.n_outputs * math.log(values) >= cuts + LEAST_SAVING


def may_be_a_sum(X: Tensor, labels: Tensor, n_factors: int) -> bool:
    """Whether some piece takes no more values in any of several columns than there are factors.

    A polynomial, which has degree + 1 in a column, meets any sum of functions of the columns on
    such a grid: the corners of a cell lie on a plane.
    """
    return _fewest_values(X, labels, max) <= n_factors


def may_be_strips(X: Tensor, labels: Tensor, n_factors: int) -> bool:
    """Whether some piece takes no more values in one of several columns than there are factors.

    A polynomial meets any function of that column there: two neighbouring lines of a grid lie on a
    plane where all lines have the same slope.
    """
    return _fewest_values(X, labels, min) <= n_factors


def _fewest_values(X: Tensor, labels: Tensor, of_columns: Callable[[list[int]], int]) -> float:
    """Least number over pieces of the values that some of several columns take in them."""
    if X.shape[1] == 1:
        return math.inf
    columns, piece = X.cpu().numpy().T, labels.cpu().numpy()
    return min(
        of_columns([len(np.unique(column[piece == k])) for column in columns])
        for k in np.unique(piece)
    )


def _n_values(y: np.ndarray) -> float:
    """How many values a target may take: its range in units of the step that all share."""
    steps = np.unique(np.abs(y - y[0]))
    least = NO_STEP * float(steps[-1])
    unit = 0.0
    for step in steps[steps > least].tolist():
        unit = _common_divisor(unit, step, least)
        if not unit:
            return 1 / NO_STEP
    return 1 + float(steps[-1]) / unit if unit else 2.0


def _common_divisor(a: float, b: float, least: float) -> float:
    """Of two numbers up to round-off, by Euclid's algorithm; 0 where it is below `least`."""
    while b > least:
        a, b = b, math.fabs(math.remainder(a, b))
    return a if a > ROUND_OFFS * least else 0.0


def _tolerance(problem: PieceProblem) -> float:
    """Residual of a polynomial that has met a row: that of `tol`, or round-off where it grows."""
    return max(problem.floor, EXACT * ROUND_OFF * torch.finfo(problem.rows.y.dtype).eps)


# Several columns


def _cover(problem: PieceProblem, most: int) -> Tensor | None:
    """Greedy cover by connected rows that one polynomial meets, the largest first."""
    sets = _exact_sets(problem)
    n, P = problem.n, problem.n_columns
    chosen: list[np.ndarray] = []
    left = np.ones(n, dtype=bool)
    while left.any():
        gain = (sets & left).sum(1) if len(sets) else np.zeros(1)
        if not gain.max() or len(chosen) == most:
            return None
        chosen.append(sets[int(gain.argmax())])
        left &= ~chosen[-1]
    # Rows where pieces meet go to the smaller one, which needs them more.
    labels = np.full(n, -1, dtype=np.int64)
    for number, rows in enumerate(sorted(chosen, key=lambda rows: -int(rows.sum()))):
        labels[rows] = number
    if np.bincount(labels, minlength=len(chosen)).min() < P + 1:
        return None
    return torch.as_tensor(labels, device=problem.rows.X.device)


def _exact_sets(problem: PieceProblem) -> np.ndarray:
    """Connected rows (s, n), bool, that the polynomial of some neighbours meets."""
    balls = _balls(problem)
    if balls is None:
        return np.zeros((0, problem.n), dtype=bool)
    A, y = problem.polynomials[balls], problem.rows.y[balls]
    Q, R = torch.linalg.qr(A)
    projected = Q.mT @ y
    residual = (y - Q @ projected).abs().amax((1, 2))
    told = Q.square().sum(2).amax(1) < MOST_LEVERAGE
    tolerance = _tolerance(problem)
    kept = torch.nonzero(told & (residual <= tolerance)).squeeze(1)
    coef = torch.linalg.solve_triangular(R[kept], projected[kept], upper=True)
    values = torch.einsum("np,bpm->bnm", problem.polynomials, coef)
    met = (values - problem.rows.y).abs().amax(2) <= tolerance
    met_by, seed = met.cpu().numpy(), balls[kept, 0].cpu().numpy()
    masks, which = np.unique(met_by, axis=0, return_inverse=True)
    found = [
        part
        for number, mask in enumerate(masks)
        for part in _connected(problem, mask, np.unique(seed[which.reshape(-1) == number]))
    ]
    return np.unique(np.array(found), axis=0) if found else np.zeros((0, problem.n), dtype=bool)


def _balls(problem: PieceProblem) -> Tensor | None:
    """Each row with P of its neighbours in every choice, (b, P + 1); None of too many."""
    P, n = problem.n_columns, problem.n
    near = min(P + SPARE_NEIGHBOURS, n - 1)
    if near < P or n * math.comb(near, P) > MOST_TRIED:
        return None
    nearest = problem.tree.query(problem.host_points, near + 1)[1]
    choices = np.array(list(itertools.combinations(range(1, near + 1), P)))
    own = np.repeat(nearest[:, :1], len(choices), 0)
    balls = np.concatenate([own, nearest[:, choices].reshape(-1, P)], 1)
    return torch.as_tensor(balls, device=problem.rows.X.device)


def _connected(problem: PieceProblem, mask: np.ndarray, seeds: np.ndarray) -> list[np.ndarray]:
    """Parts of some rows that neighbours connect, those that hold a seed."""
    near = problem.neighbours.cpu().numpy()
    first = np.repeat(np.arange(problem.n), near.shape[1])
    second = near.reshape(-1)
    inside = mask[first] & mask[second]
    ones = np.ones(int(inside.sum()))
    graph = coo_matrix((ones, (first[inside], second[inside])), shape=(problem.n, problem.n))
    part = connected_components(graph, directed=False)[1]
    return [mask & (part == number) for number in np.unique(part[seeds])]
