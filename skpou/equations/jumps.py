"""Where a network obeys equations at any few points and is no solution: looked for along lines.

Two steep units may add a step that is narrower than the distance of the points. The equations hold
on both sides of it, and the residual at some hundred points may miss it. Points that follow each
other closely on a line do not, and where the step is narrower still, values and slopes on the line
contradict each other: the integral of the slope lacks the jump.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.core.models import Stage
from skpou.equations.collocation import CollocationSystem
from skpou.equations.problem import Term

#: Lines through a box of several columns, and the pieces that a line is cut into.
LINES, PIECES = 16, 512
#: Distances of even points within which the box of all points is as good as that of the equation.
NEAR = 1.5
#: What a smooth function lacks in a piece falls eightfold with its half: less than that is a jump.
STAYS = 0.5


def residual_on_lines(system: CollocationSystem, coef: Tensor, unknowns: Tensor) -> float:
    """Residual of equations that hold in a box, along lines, over the size of their terms.

    Parameters
    ----------
    system : CollocationSystem
        Equations at the points of the solve, with the basis of the solution.
    coef : Tensor of shape (p, m)
        Coefficients.
    unknowns : Tensor of shape (q,)
        Constants.
    """
    columns, moved = system.problem.scaling.columns, []
    for term, box in _in_boxes(system):
        points = torch.cat([_points_on(line) for line in _lines(box, term.n_points)])
        x = term.x[:1].repeat(len(points), 1)
        x[:, columns] = system.problem.scaling.offset + system.problem.scaling.width * points
        moved.append(term.moved(x, points))
    return system.at(moved).relative_residual(coef, unknowns)


def _in_boxes(system: CollocationSystem) -> list[tuple[Term, Tensor]]:
    """Equations, neither conditions nor gradients, that hold wherever one likes in a box (2, d)."""
    return [
        (term, term.region)
        for term in system.terms
        if term.region is not None and not term.is_condition and not term.length
    ]


def hidden_jump(system: CollocationSystem, coef: Tensor) -> float:
    """Largest jump between the points of equations that hold in a box, over the solution's range.

    Parameters
    ----------
    system : CollocationSystem
        Equations at the points of the solve, with the basis of the solution.
    coef : Tensor of shape (p, m)
        Coefficients.
    """
    stages = (*system.before, Stage(system.basis, coef, coef.new_zeros((0, 0))))
    worst = 0.0
    for term, box in _in_boxes(system):
        for line in _lines(box, term.n_points):
            worst = max(worst, _jump_along(line, stages, term.points))
    return worst


def _lines(box: Tensor, n_points: int) -> Tensor:
    """Ends (k, 2, d) of the lines, each from a face of the equation's box to the opposite one.

    A box that ends a point's distance before that of all points is taken to go on up to there:
    inner points of a grid leave out the data at its boundary.
    """
    low, high = box
    near = NEAR * n_points ** (-1 / int((high > low).sum().clamp_min(1)))
    low = torch.where((high > low) & (low < near), torch.zeros_like(low), low)
    high = torch.where((high > low) & (high > 1 - near), torch.ones_like(high), high)
    d = len(low)
    n_lines = LINES if d > 1 else 1
    share = np.random.default_rng(0).random((n_lines, 2, d))
    across = np.arange(n_lines) % d
    share[np.arange(n_lines), 0, across], share[np.arange(n_lines), 1, across] = 0.0, 1.0
    return low + (high - low) * torch.as_tensor(share, dtype=low.dtype, device=low.device)


def _points_on(line: Tensor) -> Tensor:
    """Even points (PIECES + 1, d) from one end (2, d) to the other."""
    share = torch.linspace(0, 1, PIECES + 1, dtype=line.dtype, device=line.device)[:, None]
    return line[0] + share * (line[1] - line[0])


def _jump_along(line: Tensor, stages: tuple[Stage, ...], known: Tensor) -> float:
    """Largest jump on one line, over the range of the solution there."""
    points, way = _points_on(line), line[1] - line[0]
    values = torch.stack([stage.mean(points) for stage in stages]).sum(0)
    slopes = _slopes(points, way, stages)
    extent = float((values.amax(0) - values.amin(0)).max())
    fine, coarse = (_lacking(values[::k], slopes[::k]) for k in (1, 2))
    at = int(fine.argmax())
    jump = float(fine[at])
    if not extent or jump < STAYS * float(coarse[at // 2]):
        return 0.0
    inside = known[((known > points[at]) & (known < points[at + 1])).all(1)]
    if len(way) == 1 and len(inside):
        steepest = float(_slopes(inside, way, stages).abs().max()) / PIECES
        if steepest > STAYS * jump:
            return 0.0  # A layer that points lie in is no secret; others in the piece miss it.
    return jump / extent


def _slopes(points: Tensor, way: Tensor, stages: tuple[Stage, ...]) -> Tensor:
    """Derivatives (n, m) along a line, of which `way` is the whole length."""
    parts = [
        float(step) * (stage.basis.derivative(points, (j,)) @ stage.coef)
        for stage in stages
        for j, step in enumerate(way)
    ]
    return torch.stack(parts).sum(0)


def _lacking(values: Tensor, slopes: Tensor) -> Tensor:
    """What the trapezoidal rule on the slopes lacks of the change in each piece, the worst output.

    It is at most the change: a slope that meets the step by chance is no larger jump.
    """
    change = values[1:] - values[:-1]
    steps = (slopes[1:] + slopes[:-1]) / (2 * len(change))
    return torch.minimum((change - steps).abs(), change.abs()).amax(1)
