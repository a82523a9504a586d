"""What the rows of a solution say about its coefficients, its unknowns and the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skpou.core import Basis
from skpou.core.linalg import free_rows, triangular_factor
from skpou.core.models import LinearModel, Stage, model_of_stages
from skpou.equations.collocation import CollocationSystem, Iterate, stacked
from skpou.equations.sentences import Sentence
from skpou.equations.smoothness import loosened
from skpou.physics import Unknown

#: Points at which open directions are looked for.
N_PROBES = 100
#: Change of the solution from a unit of the rows that no equation of a determined problem allows.
OPEN = 1e11
#: Units in the last place, of terms and of their sum, that round-off of a solve leaves.
ULPS = 10.0
#: Residual relative to an equation's terms that is no solution.
UNSOLVED = 0.05
#: The same of equations that are not affine: those without a solution leave a few hundredths at
#: the place that comes nearest to one.
DOUBTFUL = 0.01
#: Residual relative to an equation's terms, and bars of pieces relative to the solution, in units
#: of what was asked for, that are far from it: 1e-4 at the default `tol`. The solution may still be
#: as good as its error bars say.
FAR = 1e10
#: Singular value of the unknowns' rows, of columns of norm 1, that is none, and the share of its
#: direction that names an unknown.
ALIKE, SHARE = 1e-9, 0.1
#: Distance from a bound at which an unknown is held by it: in units of what lies between them, as
#: descents leave it, and of its standard deviation, which cannot tell it from the bound.
HELD, HELD_DEVIATIONS = 1e-6, 0.1
#: Singular value, in units of the relative ridge, that is the ridge's own.
OF_RIDGE = 3.0
#: Rounds of noise and of the prior that follows it: they settle within a percent.
PRIOR_ROUNDS = 3
#: Degrees of freedom that equations must leave to the data for these to tell their noise.
LEAST_LEFT = 0.5


@dataclass(frozen=True)
class Tangent:
    """Derivatives of a solution by parameters of its basis that were found with it.

    Parameters that are taken for given have seen all rows. With their derivatives beside the
    columns they are as free as the coefficients, to first order (MacKay, "The evidence framework
    applied to classification networks", 1992).

    Attributes
    ----------
    rows : Tensor of shape (N, k)
        Derivatives of the rows of data and equations, each times its factor.
    basis : Basis
        The solution's, with these derivatives behind its columns in `posterior_columns`.
    sizes : Tensor of shape (k,)
        How far the parameters are expected from where they are.
    """

    rows: Tensor
    basis: Basis
    sizes: Tensor

    @property
    def n_parameters(self) -> int:
        """Number k of parameters."""
        return self.rows.shape[1]


def rows_factor(
    system: CollocationSystem, iterate: Iterate, scales: Sequence[float], alpha: float
) -> tuple[Tensor, list[Tensor]]:
    """Triangular factor of the weighted rows, and their residuals."""
    if iterate.factor is not None:
        found = system.residuals(iterate.coef, iterate.unknowns)
        return iterate.factor, [s * r for s, r in zip(scales, found, strict=True)]
    blocks = system.blocks(iterate.coef, iterate.unknowns)
    residual, jacobian = stacked(blocks, scales)
    size = jacobian.square().sum(0).sqrt()
    # Unknowns have units of their own.
    size[: system.n_coefficients] = size[: system.n_coefficients].max()
    ridge = torch.diag_embed(alpha * torch.where(size > 0, size, 1.0))
    lengths = [len(block.residual) for block in blocks]
    return triangular_factor(torch.cat([jacobian, ridge])), list(residual.split(lengths))


def tangent_factor(
    system: CollocationSystem,
    iterate: Iterate,
    scales: Sequence[float],
    alpha: float,
    tangent: Tangent,
) -> tuple[Tensor, Tensor]:
    """Triangular factor of the rows and noise (m,) with the parameters of a basis free, too.

    In the factor's order they are between the coefficients and the unknowns. Those which no row
    tells have a normal prior of the size that was found, in units of the noise.
    """
    blocks = system.blocks(iterate.coef, iterate.unknowns)
    residual, jacobian = stacked(blocks, scales)
    parts = residual.split([len(block.residual) for block in blocks])
    first, last = system.n_coefficients, system.n_coefficients + tangent.n_parameters
    rows = torch.cat([jacobian[:, :first], tangent.rows, jacobian[:, first:]], 1)
    size = rows.norm(dim=0)
    size[:first] = size[:first].max()
    ridge = alpha * torch.where(size > 0, size, 1.0)
    own = ridge[first:last].clone()
    whole = triangular_factor(rows)
    for _ in range(PRIOR_ROUNDS):
        R = triangular_factor(torch.cat([whole, ridge.diag()]))
        noise = noise_variance(system, R, parts, scales, rows)
        prior = scales[0] * noise.mean().sqrt() / tangent.sizes
        ridge[first:last] = own + prior
    return R, noise


def noise_variance(
    system: CollocationSystem,
    R: Tensor,
    residual: Sequence[Tensor],
    scales: Sequence[float],
    rows: Tensor | None = None,
) -> Tensor:
    """Variance (m,) of the data about the solution.

    Degrees of freedom are what the equations leave to the data. At least it is the misfit of
    all rows, which stands for it where the data are too few to tell. With the derivatives `rows`
    of all of them its degrees of freedom are theirs, otherwise as many as there are columns.
    """
    m, total = system.n_outputs, float(system.rows.weight.sum())
    if rows is None:
        A = scales[0] * torch.block_diag(*[system.root[:, None] * system.phi] * m)
        A = torch.cat([A, A.new_zeros((len(A), len(R) - A.shape[1]))], 1)
    else:
        A = rows
    shares = torch.linalg.solve_triangular(R, A, upper=True, left=False).square().sum(1)
    dof = shares[: len(residual[0])].reshape(m, -1).sum(1)
    misfit = (residual[0] / scales[0]).reshape(m, -1).square().sum(1)
    squares, n = misfit + system.rows.within.sum(0), sum(map(len, residual))
    for term, part in zip(system.terms, residual[1:], strict=True):
        outputs = sorted({output for output, _ in term.pointwise.keys})
        misfit[outputs] += (part / scales[0]).square().sum() / len(outputs)
    # As if all outputs were like it: rows less columns are counted together. Equations determine
    # no more columns than they have rows.
    columns = min(len(R), float(dof.sum()) + sum(map(len, residual[1:])))
    columns = columns if rows is None else float(shares.sum())
    misfit = m * misfit / free_rows(n, columns)
    left = total - dof
    return torch.where(left > LEAST_LEFT, torch.maximum(squares / left, misfit), misfit.mean())


def output_factors(R: Tensor, system: CollocationSystem, k: int = 0) -> Tensor:
    """Factor (p, p) of the coefficients of one output; of several outputs one each, (m, p, p).

    All others are free: of rows that these cannot explain. With the others first in the order,
    the rows below theirs are what is left. The k parameters of the basis are part of each, (m,
    p + k, p + k).
    """
    m, p = system.n_outputs, system.n_columns
    if R.shape[1] == p + k:
        return R
    factors, shared = [], slice(m * p, m * p + k)
    for i in range(m):
        own = slice(i * p, (i + 1) * p)
        others = [R[:, : own.start], R[:, own.stop : shared.start], R[:, shared.stop :]]
        turned = torch.cat([*others, R[:, own], R[:, shared]], 1)
        factors.append(triangular_factor(turned)[-p - k :, -p - k :])
    return factors[0] if m == 1 else torch.stack(factors)


def last_deviations(R: Tensor, q: int, noise: Tensor) -> list[float]:
    """Standard deviations of the last q parameters, by the Gauss-Newton matrix."""
    if not q:
        return []
    eye = torch.eye(q, dtype=R.dtype, device=R.device)
    inverse = torch.linalg.solve_triangular(R[-q:, -q:], eye, upper=True)
    return (noise.mean() * inverse.square().sum(1)).sqrt().tolist()


def undetermined(R: Tensor, names: Sequence[str], ridge: float = 0.0) -> list[str]:
    """Unknowns whose triangular factor is singular, as far as digits and a relative ridge tell."""
    if not names:
        return []
    norms = R.norm(dim=0)
    if not bool((norms > 0).all()):
        return [name for name, norm in zip(names, norms.tolist(), strict=True) if not norm]
    _, singular, right = torch.linalg.svd(R / norms)
    gone = singular < max(ALIKE, OF_RIDGE * ridge) * singular[0]
    if not bool(gone.any()):
        return []
    alone = right[gone].abs().amax(0)
    return [name for name, share in zip(names, alone.tolist(), strict=True) if share > SHARE]


def _probes(points: Tensor) -> Tensor:
    """At most `N_PROBES` of some points, evenly in their order."""
    return points[:: max(1, len(points) // N_PROBES)][:N_PROBES]


def open_directions(
    system: CollocationSystem, R: Tensor, tangent: Tangent | None = None
) -> tuple[Tensor, Tensor]:
    """Directions that the rows leave open, and by how much a unit of their noise moves them.

    They are functions that change no row: singular vectors of the columns at some points in units
    of the posterior. Coefficients that matter nowhere, of which a rich basis has many, are none.

    Parameters
    ----------
    R : Tensor of shape (q, q)
        Triangular factor of the weighted rows.
    tangent : Tangent, default=None

    Returns
    -------
    directions : Tensor of shape (k, q)
        Orthonormal, in units of the posterior.
    sizes : Tensor of shape (k,)
        Root mean squares over the points.
    """
    fresh = [term.points for term in system.problem.fresh if not term.is_condition]
    points = _probes(torch.cat(fresh))
    phi = system.basis.matrix(points)
    columns = torch.block_diag(*[phi] * system.n_outputs)
    if tangent is not None:
        slopes = tangent.basis.posterior_columns(points)[..., system.n_columns :]
        columns = torch.cat([columns, slopes.reshape(len(columns), -1)], 1)
    q = len(R) - columns.shape[1]
    columns = torch.cat([columns, columns.new_zeros((len(columns), q))], 1)
    moved = torch.linalg.solve_triangular(R, columns, upper=True, left=False)
    if not bool(torch.isfinite(moved).all()):
        return R.new_zeros((0, len(R))), R.new_zeros(0)
    _, sizes, directions = torch.linalg.svd(moved / math.sqrt(len(phi)), full_matrices=False)
    return _confirmed(R, columns / math.sqrt(len(phi)), directions[sizes > OPEN])


def _confirmed(R: Tensor, columns: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Directions that are open by their own coefficients, and sizes, as `open_directions` has them.

    Beside one that is wide open, round-off of the solve looks like many more.
    """
    coef = torch.linalg.solve_triangular(R, directions.T, upper=True)
    Q, T = torch.linalg.qr(R @ coef)
    moved = torch.linalg.solve_triangular(T, columns @ coef, upper=True, left=False)
    _, sizes, turned = torch.linalg.svd(moved, full_matrices=False)
    is_open = sizes > OPEN
    return (turned @ Q.T)[is_open], sizes[is_open]


def widened(R: Tensor, directions: Tensor, sizes: Tensor, size: float) -> Tensor:
    """Factor with open directions that vary by a given size, in units of the noise."""
    grown = (size / sizes).clamp_min(1.0)
    change = directions.T @ ((1 / grown - 1)[:, None] * (directions @ R))
    return triangular_factor(R + change)


def held_by_bounds(
    unknowns: Mapping[str, Unknown], values: Mapping[str, float], deviations: Mapping[str, float]
) -> list[str]:
    """Names of the unknowns that ended at one of their bounds, or next to it."""
    held = []
    for name, unknown in unknowns.items():
        if unknown.bounds is not None:
            low, high = unknown.bounds
            near = max(HELD * (high - low), HELD_DEVIATIONS * deviations[name])
            if min(values[name] - low, high - values[name]) <= near:
                held.append(name)
    return held


def data_misfit(system: CollocationSystem, iterate: Iterate) -> float:
    """Root mean square of the data's residuals, in units of their deviations."""
    squares = (system.root[:, None] * (system.phi @ iterate.coef - system.y)).square().sum()
    return math.sqrt(float(squares) / (system.total * system.n_outputs))


def judged(
    system: CollocationSystem,
    iterate: Iterate,
    code: str,
    message: str,
    reported: Mapping[str, Any],
    tol: float = math.inf,
) -> tuple[str, str, bool]:
    """Code and message of a search, with what the solution does not obey or determine.

    `reported` is what `fitted_model` says, `tol` the residual that was asked for. The third is
    whether equations and conditions hold.
    """
    said = []
    left = system.fresh.relative_residual(iterate.coef, iterate.unknowns)
    off = data_misfit(system, iterate)
    if left > (UNSOLVED if system.problem.is_affine else DOUBTFUL):
        said.append(Sentence.UNSOLVED.format(left))
    broken = system.broken_conditions(iterate.coef, iterate.unknowns)
    if broken > UNSOLVED:
        said.append(Sentence.BROKEN.format(broken))
    on_faces = bool(((system.rows.X == 0) | (system.rows.X == 1)).any(1).all())
    if on_faces and off > UNSOLVED:
        said.append(Sentence.UNMET.format(off))
    holds = not said
    # What noisy data leave over is shared with the equations.
    if holds and left > max(FAR * tol, off):
        said.append(Sentence.FAR.format(left))
    if reported["undetermined"]:
        said.append(Sentence.UNDETERMINED.about(reported["undetermined"]))
    held = held_by_bounds(system.problem.unknowns, reported["unknowns"], reported["unknowns_std"])
    if held:
        said.append(Sentence.HELD.about(held))
    code = "max_iter" if said else code
    return code, " ".join([*said, message]).strip(), holds


def doubted(model: LinearModel, points: Tensor) -> LinearModel:
    """A function that solves nothing, with bars: it is off by its own size, or that of the data.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        Where the equations should hold.

    Returns
    -------
    LinearModel
        The same function; the median variance at the points is at least its mean square there.
    """
    points = _probes(points)
    last = model.stages[-1]
    shares = last.solved(points).square().sum(-2).reshape(-1, len(points)).median(1).values
    variance = (model.noise * shares).clamp_min(torch.finfo(shares.dtype).tiny)
    size = model.mean(points).square().mean(0).clamp_min(1.0)
    grown = (size / variance).clamp_min(1.0).sqrt()
    grown = grown[:, None, None] if last.factor.ndim > 2 else grown.max()
    return replace(model, stages=(*model.stages[:-1], replace(last, factor=last.factor / grown)))


def of_round_off(stage: Stage, points: Tensor) -> Tensor:
    """Variance (m,) of rows for which the solution is as uncertain as round-off of its sums.

    Of many rows without noise the posterior would know the mean to less than its last digit.
    """
    points = _probes(points)
    shares = stage.solved(points).square().sum(-2).reshape(-1, len(points)).mean(1)
    columns = stage.basis.matrix(points)
    sums, values = columns.square() @ stage.coef.square(), columns @ stage.coef
    squares = (ULPS * torch.finfo(shares.dtype).eps) ** 2 * (sums + values.square()).mean(0)
    return squares / shares.clamp_min(torch.finfo(shares.dtype).tiny)


def fitted_model(
    system: CollocationSystem,
    iterate: Iterate,
    scales: Sequence[float],
    alpha: float,
    tangent: Tangent | None = None,
    by_smoothness: Sequence[str] = (),
) -> tuple[LinearModel, dict[str, Any]]:
    """Model of a solution with its error bars, and what is reported about the equations.

    Parameters
    ----------
    system : CollocationSystem
        At the points of the solve.
    scales : sequence of float
        Factors of the rows.
    alpha : float
        Ridge relative to the largest column norm.
    tangent : Tangent, default=None
        Parameters of the basis that are free, too.
    by_smoothness : sequence of str
        Unknowns that `told_by_smoothness` names.
    """
    basis, k = system.basis, 0
    if tangent is None:
        R, residual = rows_factor(system, iterate, scales, alpha)
        noise = noise_variance(system, R, residual, scales)
    else:
        R, noise = tangent_factor(system, iterate, scales, alpha, tangent)
        basis, k = tangent.basis, tangent.n_parameters
    first, points = system.n_coefficients + k, system.terms[0].points
    alike = undetermined(R[first:, first:], system.problem.names, alpha)
    directions, sizes = open_directions(system, R, tangent)
    if len(sizes):
        size = max(1.0, float((system.basis.matrix(points) @ iterate.coef).square().mean().sqrt()))
        noise = noise.clamp_min((torch.finfo(R.dtype).eps / scales[0]) ** 2)
        R = widened(R, directions, sizes, size / (scales[0] * float(noise.mean().sqrt())))
    R = R / scales[0]
    stage = Stage(basis, iterate.coef, output_factors(R, system, k))
    noise = torch.maximum(noise, of_round_off(stage, points))
    if by_smoothness:
        sigma = float(noise.mean().sqrt())
        R = loosened(R, first, system, iterate.unknowns, sigma, by_smoothness)
        stage = replace(stage, factor=output_factors(R, system, k))
    deviations = last_deviations(R, len(iterate.unknowns), noise)
    X, weight = torch.cat([system.rows.X, points]), system.rows.weight
    weight = torch.cat([weight, weight.new_ones(len(points))])
    reported = _reported(system, iterate, deviations)
    reported |= {"n_open": len(sizes), "undetermined": alike, "by_smoothness": list(by_smoothness)}
    return model_of_stages((*system.before, stage), noise, X, weight), reported


def _reported(
    system: CollocationSystem, iterate: Iterate, deviations: Sequence[float]
) -> dict[str, Any]:
    """Unknowns with their deviations, and residuals of the equations at fresh points."""
    fresh = system.fresh.residuals(iterate.coef, iterate.unknowns)[1:]
    names = system.problem.names
    return {
        "unknowns": dict(zip(names, iterate.unknowns.tolist(), strict=True)),
        "unknowns_std": dict(zip(names, deviations, strict=True)),
        "equation_residual": [
            float(part.square().mean().sqrt())
            for term, part in zip(system.problem.fresh, fresh, strict=True)
            if not term.is_condition
        ],
    }
