"""How far a solution on pieces is from its equations and conditions, and what is said about it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skpou.equations import Problem
from skpou.partitions.equations.boxes import Boxes, evaluate
from skpou.physics import Constants


def fresh_residuals(
    problem: Problem, boxes: Boxes, coef, unknowns: Tensor, singular: np.ndarray | None
) -> tuple[list[float], float]:
    """Root mean squares of the equations at fresh points, and all relative to their terms.

    Towards corners terms and residual grow beyond bounds: where there are some, both are counted as
    changes of the solution, which a derivative times the width of a piece to its order is.
    """
    terms = [term for term in problem.fresh if not term.is_condition]
    parts = [_squares(problem, term, boxes, coef, unknowns) for term in terms]
    residuals = [math.sqrt(part) for part, _ in parts]
    if singular is not None and singular.any():
        parts = [_squares(problem, term, boxes, coef, unknowns, changes=True) for term in terms]
    squares, sizes = (sum(column) for column in zip(*parts, strict=True))
    return residuals, math.sqrt(squares / sizes) if sizes else 0.0


def broken_conditions(problem: Problem, boxes: Boxes, coef, unknowns: Tensor) -> float:
    """Largest root mean square of a condition at its points, relative to its terms."""
    worst = 0.0
    for term in problem.terms:
        if term.is_condition:
            squares, terms = _squares(problem, term, boxes, coef, unknowns)
            worst = max(worst, math.sqrt(squares / terms) if terms else 0.0)
    return worst


def _squares(
    problem: Problem, term, boxes: Boxes, coef, unknowns: Tensor, changes: bool = False
) -> tuple[float, float]:
    """Mean squares of a term's residual at its points, and of what it consists of."""
    values, terms, factor = {}, 0.0, torch.ones((), dtype=term.x.dtype, device=term.x.device)
    points = term.points.cpu().numpy()
    if changes:
        order = max(len(key[1]) for key in term.pointwise.keys)
        width = boxes.width.prod(1) ** (order / boxes.width.shape[1])
        factor = torch.as_tensor(width[boxes.locate(points)], device=term.x.device)[:, None]
    for key in term.pointwise.keys:
        orders = [0] * boxes.low.shape[1]
        for j in problem.scaled(key):
            orders[j] += 1
        part = evaluate(boxes, coef, points, tuple(orders))[:, key[0]]
        values[key] = problem.unit(key) * part + problem.shift(key)
    constants = Constants(zip(problem.names, unknowns, strict=True))
    result, slopes, _ = term.pointwise.linearise(values, term.x, constants)
    for key, slope in slopes.items():
        natural = problem.unit(key) * 2 ** len(key[1])
        size = factor * values[key].abs().clamp_min(natural)[:, None]
        terms += float((slope * size).square().mean())
    return float((factor * (result - term.target)).square().mean()), terms
