"""Where equations are solved, and other points where they are judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Scaling
from skpou.physics import N_POINTS, Equation, as_tensor, sampled

#: Cells a side that points must fill for fresh ones to be drawn from their box.
CELLS = 8
#: Most points of the solves of a search in several dimensions.
PILOT_POINTS = 900
#: Of points that fill no box one in so many is left out; below so many points none is.
LEFT_OUT, FEW_POINTS = 5, 10
#: Fewest and most fresh points: a residual's root mean square is known to some per cent.
FEWEST_FRESH, MOST_FRESH = 200, 1000
#: Beside a seed, so that draws of unlike things from it have nothing in common: points left out,
#: points of a search, trial functions, points between others. Seeds of the points of an equation
#: are so far from those of its fresh ones.
OF_LEFT_OUT, OF_PILOT, OF_TRIALS, OF_BETWEEN, FRESH_SEEDS = 5, 7, 11, 13, 1000


def full_box(scaling: Scaling, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the box; those of columns that do not vary are NaN."""
    low, high = np.full(n_features, np.nan), np.full(n_features, np.nan)
    columns = scaling.columns.cpu().numpy()
    low[columns] = scaling.offset.cpu().numpy()
    high[columns] = low[columns] + scaling.width.cpu().numpy()
    return low, high


def equation_points(equation: Equation, low: np.ndarray, high: np.ndarray, seed: int) -> np.ndarray:
    """Points (n, d) of an equation; samplers without a box take that of all others."""
    if not isinstance(equation.points, str):
        return equation.points
    if equation.box is not None:
        low, high = equation.box.T
    if np.isnan(low).any():
        column = int(np.flatnonzero(np.isnan(low))[0])
        raise ValueError(
            f"points={equation.points!r} of equation {equation.name!r} needs a box, but column "
            f"{column} of X takes a single value. Give box."
        )
    n = equation.n_points or N_POINTS[min(len(low), len(N_POINTS)) - 1]
    return sampled(equation.points, n, low, high, seed)


@dataclass(frozen=True)
class HeldOut:
    """Points of one equation for a search and for its judgement.

    Attributes
    ----------
    fitted, left_out : Tensor of int64
        Rows of the equation's points that are fitted and that are left out.
    x : Tensor of shape (k, d) or None
        Fresh points instead; then all rows are fitted.
    """

    fitted: Tensor
    left_out: Tensor
    x: Tensor | None


def held_out(
    equation: Equation, x: Tensor, low: np.ndarray, high: np.ndarray, seed: int, target: Tensor
) -> HeldOut:
    """Fresh points where the equation holds in a whole box, every fifth of its points elsewhere."""
    n = len(x)
    rng = np.random.default_rng([seed, OF_LEFT_OUT])
    points = x.cpu().numpy()
    # A target that is given point by point is not known at others.
    fills = len(target) == 1 and (isinstance(equation.points, str) or fills_its_box(points))
    if fills:
        inner = rng.random((max(min(n, MOST_FRESH), FEWEST_FRESH), x.shape[1]))
        low, high = points.min(0), points.max(0)
        return HeldOut(
            torch.arange(0, device="cpu"),
            torch.arange(0, device="cpu"),
            as_tensor(low + (high - low) * inner, x),
        )
    order = torch.as_tensor(rng.permutation(n), device=x.device)
    cut = n // LEFT_OUT
    if n < FEW_POINTS:
        every = torch.arange(n, device=x.device)
        return HeldOut(every, every, None)
    return HeldOut(order[cut:].sort().values, order[:cut].sort().values, None)


def region_of(
    equation: Equation, x: Tensor, low: np.ndarray, high: np.ndarray, target: Tensor
) -> Tensor | None:
    """Corners (2, d) of the box, which may be flat, that points fill; None where they fill none.

    There an equation holds at any point, if its target is known at others.
    """
    if len(target) > 1:
        return None
    if isinstance(equation.points, str):
        corners = np.stack([low, high]) if equation.box is None else equation.box.T
        return as_tensor(corners, x)
    points = x.cpu().numpy()
    corners = np.stack([points.min(0), points.max(0)])
    varies = corners[1] > corners[0]
    if varies.any() and not fills_its_box(points[:, varies]):
        return None
    return as_tensor(corners, x)


def fills_its_box(points: np.ndarray) -> bool:
    """Whether points are in every cell of a regular partition of their box."""
    low, high = points.min(0), points.max(0)
    d = points.shape[1]
    if not (high > low).all() or CELLS**d > len(points):
        return False
    cells = np.minimum((CELLS * (points - low) / (high - low)).astype(int), CELLS - 1)
    return len(np.unique(cells, axis=0)) == CELLS**d


def mixtures_of_neighbours(points: Tensor, n: int, seed: int) -> Tensor:
    """Weights (n, N) of n points between N others, as dense as these everywhere.

    Each is a random convex combination of a point and of some of its nearest neighbours, as many
    of them as there are columns.
    """
    rng = np.random.default_rng([seed, OF_BETWEEN])
    own, d = len(points), points.shape[1]
    # On a grid a point has two neighbours along every column, and is the nearest to itself.
    nearest = torch.cdist(points, points).topk(min(2 * d + 1, own), largest=False).indices
    centers = np.resize(rng.permutation(own), n)
    others = nearest.cpu().numpy()[centers, 1:]
    # One more than columns: two may lie on opposite sides.
    chosen = np.take_along_axis(others, rng.random(others.shape).argsort(1)[:, : d + 1], 1)
    corners = np.c_[centers, chosen]
    weights = np.zeros((n, own))
    shares = rng.dirichlet(np.ones(corners.shape[1]), n)
    np.add.at(weights, (np.arange(n)[:, None], corners), shares)
    return as_tensor(weights, points)
