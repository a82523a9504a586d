"""Error bars of a solution on pieces: what its rows say, and what its columns leave out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import free_rows
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import PieceColumns
from skpou.partitions.equations.elimination import OPEN
from skpou.partitions.equations.model import variance_points
from skpou.partitions.equations.newton import Solved
from skpou.partitions.equations.refinement import shape, solution_size
from skpou.partitions.equations.system import System

#: Variance for a noise of 1 that only directions have which the rows leave open.
OPEN_SPREAD = 1e14
#: Draws that stand for a posterior: their variance is right to sqrt(2 / 64) = 18 %.
DRAWS = 64
#: Degrees whose columns at the points of variances are kept: of high ones in space they take MB.
DEGREES_KEPT = 64
#: Least share of a value that other values foretell: what is left is round-off of one.
LEAST_FREE = 1e-6
#: Round-off of values, in units of the precision: sums over the columns of a piece have about that.
VALUES_ROUND_OFF = 10


def values_at_nodes(boxes: Boxes, e: int, like: Tensor) -> Tensor:
    """Columns (k, N) of a piece at `variance_points`."""
    degree = boxes.degrees(e)
    if boxes.edges is not None:
        local = boxes.local(e, boxes.points(e, variance_points(len(degree))))
        return PieceColumns(degree, local, like).derivative((0,) * len(degree))
    return _kept_values(degree, like.dtype, like.device)


@functools.lru_cache(maxsize=DEGREES_KEPT)
def _kept_values(degree, dtype, device) -> Tensor:
    like = torch.empty(0, dtype=dtype, device=device)
    columns = PieceColumns(degree, variance_points(len(degree)), like)
    return columns.derivative((0,) * len(degree))


def spreads(system: System, covariances: list[Tensor]) -> Tensor:
    """Variances (E, k, m) of the solution at `variance_points` for a noise of 1."""
    m, found = system.m, []
    for e, covariance in enumerate(covariances):
        phi = values_at_nodes(system.boxes, e, system.like)
        N = phi.shape[1]
        parts = []
        for i in range(m):
            own = covariance[i * N : (i + 1) * N, i * N : (i + 1) * N]
            parts.append(((phi @ own) * phi).sum(1).clamp_min(0))
        found.append(torch.stack(parts, 1))
    return torch.stack(found)


def drawn_spreads(system: System, solved: Solved) -> Tensor:
    """The same by draws from the posterior, for columns that are nearly dependent.

    So are those of a box around a piece with moving edges. In a covariance their large entries
    cancel, in draws the roots of these.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = system.sizes
    drawn = torch.randn((sum(sizes), DRAWS), generator=generator, dtype=torch.float64, device="cpu")
    draws = drawn.to(system.like).split(sizes)
    none = [draw[:, :0] for draw in draws]
    found = []
    for e, part in enumerate(solved.elimination.responses(none, draws)):
        phi = values_at_nodes(system.boxes, e, system.like)
        N = phi.shape[1]
        values = [phi @ part[i * N : (i + 1) * N] for i in range(system.m)]
        found.append(torch.stack([v.square().mean(1) for v in values], 1))
    return torch.stack(found)


def row_variance(solved: Solved) -> float:
    """Mean square of the rows about the solution, degrees of freedom taken off."""
    elimination = solved.elimination
    used = sum(elimination.sizes) + elimination.q
    return solved.squares / max(free_rows(elimination.n_rows, used), 1.0)


@dataclass(frozen=True)
class OwnErrors:
    """Errors that the pieces of a system add to what they are given.

    Attributes
    ----------
    left_out : Tensor of shape (E, m)
        Size of the columns that are not there, and of round-off.
    rows : float
        Variance of the rows.
    variance : Tensor of shape (E, k, m)
        Of the solution at `variance_points`.
    is_open : bool
        Whether the rows leave directions open.
    """

    left_out: Tensor
    rows: float
    variance: Tensor
    is_open: bool


def own_errors(system: System, solved: Solved, size: np.ndarray) -> OwnErrors:
    """Errors by the posterior of the coefficients, and by their tails.

    The posterior is that of rows that all have the noise of their misfit. It knows nothing of
    columns that are not there, of which the last ones tell.
    """
    found = shape(system.boxes, solved.coef, np.where(size > 0, size, 1.0))
    # The first two degrees that are left out, from the last two that are there.
    tail = (found.tail * np.minimum(found.rate, 1.0) ** 2).max(1)
    left_out = system.tensor(tail)[:, None] * system.tensor(size)
    # Values are right to round-off at best.
    eps = torch.finfo(left_out.dtype).eps
    left_out = left_out + VALUES_ROUND_OFF * eps * system.tensor(size)
    if system.boxes.edges is None:
        # Slabs are solved for given unknowns; what these add comes later.
        held = system.column is not None
        spread = spreads(system, solved.elimination.covariances(held)[0])
    else:
        spread = drawn_spreads(system, solved)
    rows = row_variance(solved)
    variance = left_out[:, None].square() + spread * rows
    opened = open_variance(system, solved, spread, size)
    return OwnErrors(left_out, rows, variance + opened, bool((opened > 0).any()))


def open_variance(system: System, solved: Solved, spread: Tensor, size: np.ndarray) -> Tensor:
    """Variance (E, k, m) of what no row determines: it may be as large as the solution."""
    is_open = float(spread.max()) > OPEN_SPREAD
    # The conditions of slabs are known, and their directions were counted before.
    is_open |= system.column is None and solved.elimination.n_open() > 0
    if not is_open:
        return torch.zeros_like(spread)
    squares = system.tensor(size).square()
    if system.rows.n_rows:
        # Of many solutions the smallest is given, which may be less than the data.
        squares = torch.maximum(squares, system.rows.y.square().mean(0))
    return squares * (spread * OPEN**2).clamp_max(1.0)


def deviations(system: System, solved: Solved, size: np.ndarray) -> Tensor:
    """Standard deviations (E, k, m) of the solution at `variance_points`."""
    return own_errors(system, solved, size).variance.sqrt()


def noise_variance(system: System, solved: Solved) -> tuple[Tensor, Tensor, list[float]]:
    """Variance (m,) of noisy data, deviations (E, k, m) of the solution, and of the unknowns.

    The data have a small weight; equations hold beside them.
    """
    covariances, of_unknowns = solved.elimination.covariances()
    noise, unit = noise_level(system, solved)
    spread = spreads(system, covariances)
    size = solution_size(system.boxes, solved.coef)
    variance = spread * unit + open_variance(system, solved, spread, size)
    eps = torch.finfo(noise.dtype).eps
    return noise, (variance + eps**2).sqrt(), (of_unknowns.diagonal() * unit).sqrt().tolist()


def _leverages(system: System, solved: Solved) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Residuals (n, m), shares (n, m) of the values in their own fit, and weights (n,) by piece."""
    covariances, _ = solved.elimination.covariances()
    found = []
    for (e, columns, y, root), index in zip(system.data, system.data_index, strict=True):
        phi = columns.derivative((0,) * system.d)
        N = columns.n_columns
        shares = []
        for i in range(system.m):
            own = covariances[e][i * N : (i + 1) * N, i * N : (i + 1) * N]
            shares.append(((phi @ own) * phi).sum(1) * root.square())
        weight = system.rows.weight[torch.as_tensor(np.asarray(index), device=y.device)]
        found.append((y - phi @ solved.coef[e], torch.stack(shares, 1), weight))
    return found


def left_out_error(system: System, solved: Solved) -> float:
    """Root mean square error of values that are left out, by the linearised solve.

    Leaving a value out of linear least squares divides its residual by 1 less its share.
    """
    squares = total = 0.0
    for left, share, weight in _leverages(system, solved):
        errors = left / (1 - share).clamp_min(LEAST_FREE)
        squares += float((weight[:, None] * errors.square()).sum())
        total += float(weight.sum()) * system.m
    return math.sqrt(squares / total) if total else math.nan


def noise_level(system: System, solved: Solved) -> tuple[Tensor, float]:
    """Variance (m,) of the values, and that of the rows of the system that it makes."""
    rows = system.rows
    squares, used = rows.within.sum(0), rows.y.new_zeros(rows.n_outputs)
    for left, share, weight in _leverages(system, solved):
        squares = squares + (weight[:, None] * left.square()).sum(0)
        used = used + share.sum(0)
    total = float(rows.weight.sum())
    free = [float(free_rows(total, float(part))) for part in used]
    noise = squares / squares.new_tensor(free)
    return noise, float(noise.mean()) * system.data_unit
