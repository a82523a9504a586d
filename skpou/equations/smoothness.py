"""Unknowns that nothing but the smoothness of a solution tells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skpou.core.models import Stage
from skpou.equations.collocation import CollocationSystem, Iterate, stacked
from skpou.sines import Spectrum

#: Bandwidths of features, smooth and rough, their columns, and points for each of these.
SMOOTH, ROUGH, COLUMNS, POINTS_A_COLUMN = 8.0, 64.0, 300, 2
#: Factor by which rough functions take what smooth ones leave of an unknown's rows: equations and
#: data that determine it leave nearly all to both.
FALLS = 0.1
#: Ridge of the features, whose columns have norm 1.
RIDGE = 1e-12


def told_by_smoothness(system: CollocationSystem, iterate: Iterate) -> list[str]:
    """Unknowns of which other values have solutions, too, with fewer derivatives.

    An unknown is determined by what its derivative has in the rows of data and equations beyond
    those of all functions. Where that falls as the functions vary faster, it is the smoothness of
    the solution which tells it: the basis, and for networks the training.

    Parameters
    ----------
    system : CollocationSystem
        At the points of the solve.
    iterate : Iterate
        A solution in its basis.

    Returns
    -------
    list of str
    """
    if not len(iterate.unknowns):
        return []
    smooth, rough = (_beyond(system, iterate, bandwidth) for bandwidth in (SMOOTH, ROUGH))
    fallen = (rough < FALLS * smooth).tolist()
    return [name for name, has in zip(system.problem.names, fallen, strict=True) if has]


def _beyond(system: CollocationSystem, iterate: Iterate, bandwidth: float) -> Tensor:
    """Share (q,) of the unknowns' columns that features of a bandwidth leave over."""
    n, m = COLUMNS, system.n_outputs
    terms = [
        term if term.region is None or term.is_condition else term.denser(POINTS_A_COLUMN * n)
        for term in system.problem.terms
    ]
    solution = Stage(system.basis, iterate.coef, iterate.coef.new_zeros((0, 0)))
    one = (1.0,) * len(system.problem.scaling.columns)
    basis = Spectrum("flat", bandwidth, one).draw(n // 2, 0, system.rows.X)
    about = CollocationSystem(basis, system.rows, terms, system.problem, (*system.before, solution))
    blocks = about.blocks(about.zero(), iterate.unknowns)
    rows = stacked(blocks, about.scales(blocks))[1]
    size = rows.norm(dim=0)
    rows = rows / torch.where(size > 0, size, 1.0)
    features, unknowns = rows[:, : m * basis.n_columns], rows[:, m * basis.n_columns :]
    ridge = RIDGE * torch.diag_embed(features.new_ones(features.shape[1]))
    Q, _ = torch.linalg.qr(torch.cat([features, ridge]))
    Q = Q[: len(features)]
    return (unknowns - Q @ (Q.T @ unknowns)).norm(dim=0)


def loosened(
    R: Tensor,
    first: int,
    system: CollocationSystem,
    unknowns: Tensor,
    sigma: float,
    names: Sequence[str],
) -> Tensor:
    """Triangular factor in which some unknowns may be anywhere within their bounds.

    Parameters
    ----------
    R : Tensor of shape (q, q)
        Factor of the rows; that of the unknowns begins at `first`.
    sigma : float
        Standard deviation of the rows.
    names : sequence of str
        Their standard deviations are at least those of even distributions between their bounds,
        without these as large as they are.
    """  # fmt: skip
    R = R.clone()
    given = system.problem.unknowns.items()
    for j, ((name, unknown), value) in enumerate(zip(given, unknowns.tolist(), strict=True)):
        if name in names:
            low, high = unknown.bounds or (0.0, math.sqrt(12) * max(abs(value), abs(unknown.init)))
            most = math.sqrt(12) * sigma / (high - low)
            size = float(R[first + j, first + j].abs())
            R[first + j] *= min(1.0, most / size) if size > 0 else 1.0
    return R
