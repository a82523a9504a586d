"""What the levels of a column cannot tell from the rows: its aliases.

Between two levels any parabola that vanishes at both may be added to a fit, between three any cubic
one: no left-out row or level says how large it is. Where products with other columns are told, so
is the degree of the function, by those of each degree; an additive one has none, and what says how
large a further power is, is by how much the ones that are told fall off.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skpou.core import judging_generator
from skpou.core.linalg import TINY
from skpou.core.models.level_error import LevelError
from skpou.core.models.model import Predictor
from skpou.core.models.power_function import WeighedKernels

#: Most levels of a column of several: more tell by themselves, left out one at a time.
MOST_LEVELS = 4
#: Fewest rows for each level: as many as have anything in common with those of another level.
ROWS_A_LEVEL = 2
#: Rows at which the mean is looked at with each level.
MOST_ROWS = 128
#: Least part of a power's size that the next one's is, where nothing tells.
LEAST_FALL = 0.25
#: Spread of the slope along a column over rows, in units of the slope, from which on products of
#: columns are told.
CLEAR_PRODUCTS = 0.1
#: Points at which what vanishes at all levels is looked at.
N_BETWEEN = 101


def aliased_levels(
    model: Predictor, X: Tensor, found: Sequence[LevelError], target: int
) -> list[LevelError]:
    """Errors between levels, with those of one target that no left-out level tells.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows.
    X : Tensor of shape (n, d)
        Rows in the scaled box.
    found : sequence of LevelError
        What left-out levels tell.
    """
    known = {one.column: one for one in found}
    for column, levels in columns_of_few_levels(X.cpu().numpy()).items():
        size = _size(model, X, column, levels, target)
        one = known.get(column)
        if one is None:
            none = WeighedKernels.none().arrays()
            one = LevelError(column, levels, none, 0.0, levels[:1], np.ones(1))
        known[column] = one.at_least(size)
    return [known[column] for column in sorted(known)]


def columns_of_few_levels(X: np.ndarray) -> dict[int, np.ndarray]:
    """Those of several columns of X (n, d) that have aliases, and their levels."""
    n, d = X.shape
    found = {column: np.unique(values) for column, values in enumerate(X.T)} if d > 1 else {}
    return {
        column: levels
        for column, levels in found.items()
        if 2 <= len(levels) <= min(MOST_LEVELS, n // ROWS_A_LEVEL)
    }


def _size(model: Predictor, X: Tensor, column: int, places: np.ndarray, target: int) -> float:
    """Standard deviation between two levels of what is not told of a column."""
    chosen = np.sort(judging_generator().permutation(len(X))[:MOST_ROWS])
    rows = X[torch.as_tensor(chosen, device=X.device)]
    means = []
    for place in places:
        moved = rows.clone()
        moved[:, column] = float(place)
        means.append(model.mean(moved)[:, target].double().cpu().numpy())
    count, width = len(places), float(places[-1] - places[0])
    values, sizes = np.stack(means), []
    for degree in range(1, count):
        # Divided differences; the last has the degree that is told the least.
        values = np.diff(values, axis=0) / (places[degree:] - places[:-degree])[:, None]
        sizes.append(values * _largest(degree, width))
    typical = [math.sqrt(np.mean(size**2)) for size in sizes]
    spread = float(sizes[0].std(1).mean())
    additive = max(1 - spread / max(typical[0], TINY) / CLEAR_PRODUCTS, 0.0)
    falls = [after / max(before, TINY) for before, after in itertools.pairwise(typical)]
    fall = min(max([LEAST_FALL, *falls[-1:]]), 1.0)
    at = np.linspace(places[0], places[-1], N_BETWEEN)
    vanishing = np.abs(np.prod(at[:, None] - places, axis=1))
    return additive * fall * typical[-1] * float(vanishing.max()) / _largest(count, width)


def _largest(degree: int, width: float) -> float:
    """Least maximum that a monic polynomial has on an interval: that of Chebyshev's."""
    return 2 * (width / 4) ** degree
