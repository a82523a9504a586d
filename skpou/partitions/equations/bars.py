"""Error bars of a solution on pieces: what its rows say, and what its columns leave out."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import free_rows
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import PieceColumns
from skpou.partitions.equations.model import variance_points
from skpou.partitions.equations.newton import Solved
from skpou.partitions.equations.refinement import shape
from skpou.partitions.equations.system import System

#: Variance for a noise of 1 that only directions have which the rows leave open.
OPEN_SPREAD = 1e14
#: Draws that stand for a posterior: their variance is right to sqrt(2 / 64) = 18 %.
DRAWS = 64


def values_at_nodes(boxes: Boxes, e: int, like: Tensor) -> Tensor:
    """Columns (k, N) of a piece at `variance_points`."""
    degree = boxes.degrees(e)
    if boxes.edges is not None:
        local = boxes.local(e, boxes.points(e, variance_points(len(degree))))
        return PieceColumns(degree, local, like).derivative((0,) * len(degree))
    return _kept_values(degree, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
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
    n_rows = sum(len(rows) for rows in elimination.own)
    n_rows += sum(len(pair.rows) for pair in elimination.pairs)
    used = sum(elimination.sizes) + elimination.q
    return solved.squares / max(free_rows(n_rows, used), 1.0)


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
    left_out = left_out + 10 * eps * system.tensor(size)
    if system.boxes.edges is None:
        # Slabs are solved for given unknowns; what these add comes later.
        held = system.column is not None
        spread = spreads(system, solved.elimination.covariances(held)[0])
    else:
        spread = drawn_spreads(system, solved)
    rows = row_variance(solved)
    variance = left_out[:, None].square() + spread * rows
    is_open = float(spread.max()) > OPEN_SPREAD
    if is_open:
        # What no row determines may be as large as the solution.
        variance = variance + system.tensor(size).square() * spread / spread.mean()
    return OwnErrors(left_out, rows, variance, is_open)


def deviations(system: System, solved: Solved, size: np.ndarray) -> Tensor:
    """Standard deviations (E, k, m) of the solution at `variance_points`."""
    return own_errors(system, solved, size).variance.sqrt()


def noise_variance(
    system: System, solved: Solved, misfit: Tensor
) -> tuple[Tensor, Tensor, list[float]]:
    """Variance (m,) of noisy data, deviations (E, k, m) of the solution, and of the unknowns.

    The data have a small weight; equations hold beside them.
    """
    covariances, of_unknowns = solved.elimination.covariances()
    share = 0.0
    for e, columns, _, root in system.data:
        phi = columns.derivative((0,) * system.d)
        N = columns.n_columns
        own = covariances[e][:N, :N]
        share += float(torch.einsum("kn,np,kp,k->", phi, own, phi, root.square()))
    total = float(system.rows.weight.sum())
    noise = misfit * total / free_rows(total, share)
    # The rows of the data count with their weight: so does the noise of all rows.
    unit = noise.mean() * system.data_unit
    spread = spreads(system, covariances) * unit
    eps = torch.finfo(noise.dtype).eps
    return noise, (spread + eps**2).sqrt(), (of_unknowns.diagonal() * unit).sqrt().tolist()
