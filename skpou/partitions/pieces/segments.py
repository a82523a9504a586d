"""Segments of a line of rows: the best cuts into 1, 2, 3, ... pieces, by dynamic programming.

Where rows are few and have one column, no cut need be missed. Source: Bellman and Roth (1969),
"Curve fitting by segmented straight lines", here for polynomials of any degree.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.pieces.problem import PieceProblem, compact, price_of_parameter

#: Most rows: the work grows with their square.
MOST_ROWS = 150
#: Parameters that a cut counts as: its place is searched for among all.
CUT_PARAMETERS = 2


def best_segments(problem: PieceProblem, most: int, least_rows: int) -> list[Tensor]:
    """Labels (n,) of the 1, 2, ... segments of least residual, at most `most`.

    Parameters
    ----------
    problem : PieceProblem
        Samples of one column, in its order.
    """
    n = problem.n
    cost = _segment_costs(problem)
    rows = np.arange(n)
    cost[rows[None] - rows[:, None] + 1 < least_rows] = np.inf
    # total[j]: least residual of rows 0 .. j in so many segments; cut[j]: start of the last one.
    total, cuts = cost[0], [np.zeros(n, dtype=np.int64)]
    found = [_labels(cuts, n, problem.rows.X.device)]
    for _ in range(1, min(most, n // least_rows)):
        joined = np.full((n, n), np.inf)
        joined[1:] = total[:-1, None] + cost[1:]
        cuts.append(joined.argmin(0))
        total = joined[cuts[-1], rows]
        if not np.isfinite(total[-1]):
            break
        found.append(_labels(cuts, n, problem.rows.X.device))
    return found


def max_segments(n_rows: int, n_columns: int) -> int:
    """Most segments whose polynomials and cuts leave rows to spare, at least 1."""
    return max((n_rows - 2 + CUT_PARAMETERS) // (n_columns + CUT_PARAMETERS), 1)


def criterion(problem: PieceProblem, labels: Tensor) -> float:
    """Bayesian information criterion of the polynomials of some segments of a line.

    The price of a parameter grows as rows to spare become few: by the factor ``n / (n - p - 1)``
    of the corrected criterion of Hurvich and Tsai (1989), "Regression and time series model
    selection in small samples".
    """
    pieces = problem.fit(compact(labels))
    m, n = problem.rows.n_outputs, problem.total_weight
    cuts = int((labels[1:] != labels[:-1]).sum())
    mean_square = float(pieces.rss.sum()) / n + problem.least_error**2
    fitted = pieces.n_pieces * problem.n_columns
    spare = problem.n - fitted - CUT_PARAMETERS * cuts - 1
    if spare <= 0:
        return math.inf
    price = price_of_parameter(n) * problem.n / spare
    return m * n * math.log(mean_square) + (m * fitted + CUT_PARAMETERS * cuts) * price


def likeliest_shifts(
    problems: list[PieceProblem], others: list[tuple[PieceProblem, Tensor]], most: int | None
) -> tuple[PieceProblem, Tensor] | None:
    """Best two or more segments of any degree, or None where others have a lower criterion.

    Parameters
    ----------
    problems : list of PieceProblem
        One for each degree.
    others : list of (PieceProblem, Tensor)
        What the segments are compared with: problems and labels (n,).
    most : int or None
        Most segments; None: as many as leave rows to spare.
    """
    shifts = []
    for problem in problems:
        bound = max_segments(problem.n, problem.n_columns)
        bound = bound if most is None else min(bound, most)
        segments = best_segments(problem, bound, problem.n_columns + 2)
        shifts += [(problem, labels) for labels in segments[1:]]
    best = min(shifts, key=lambda one: criterion(*one), default=None)
    if best is None or criterion(*best) >= min(criterion(*one) for one in others):
        return None
    return best


def _labels(cuts: list[np.ndarray], n: int, device: torch.device) -> Tensor:
    labels, end = np.zeros(n, dtype=np.int64), n
    for number in reversed(range(len(cuts))):
        start = int(cuts[number][end - 1])
        labels[start:end] = number
        end = start
    return torch.as_tensor(labels, device=device)


def _segment_costs(problem: PieceProblem) -> np.ndarray:
    """Residual sum of squares (n, n) of the rows i .. j; infinite below the diagonal.

    Residuals that are round-off are none, so that no cut hangs on them.
    """
    A, P, n = problem.weighted, problem.n_columns, problem.n
    within = problem.rows.within.mean(1)
    cost = torch.full((n, n), torch.inf, dtype=A.dtype, device=A.device)
    R = A.new_zeros((n, A.shape[1], A.shape[1]))
    spread = A.new_zeros(n)
    for length in range(1, n + 1):
        starts = n - length + 1
        last = torch.arange(length - 1, n, device=A.device)
        R, spread = _with_row(R[:starts], A[last]), spread[:starts] + within[last]
        rss = R[:, P:, P:].square().sum((1, 2)) / problem.rows.n_outputs
        none = rss <= length * problem.floor**2
        cost[last - length + 1, last] = torch.where(none, 0.0, rss) + spread
    return cost.cpu().numpy().astype(float)


def _with_row(R: Tensor, row: Tensor) -> Tensor:
    """Triangular factors (S, q, q) with one more row (S, q) each, by Givens rotations."""
    R, row = R.clone(), row.clone()
    for k in range(R.shape[-1]):
        size = torch.hypot(R[:, k, k], row[:, k])
        size = torch.where(size > 0, size, 1.0)
        sine = row[:, k] / size
        cosine = torch.where(sine == 0, 1.0, R[:, k, k] / size)
        own = R[:, k].clone()
        R[:, k] = cosine[:, None] * own + sine[:, None] * row
        row = cosine[:, None] * row - sine[:, None] * own
    return R
