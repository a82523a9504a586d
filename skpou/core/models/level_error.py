"""The error of a form between the levels of a column that takes few values.

On grids, lines and isotherms a left-out row has neighbours on its own line, and its error says
nothing of what is between the lines. Errors without all rows of a level do, along this column; what
several columns leave adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import ArrayState
from skpou.core.linalg import TINY
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.model import Predictor
from skpou.core.models.power_function import (
    ROUND_OFF_VARIANCE,
    NearRows,
    WeighedKernels,
    double,
    n_nearest,
    nearest,
)

#: Share of the error at left-out levels that is kept between the levels: a smooth kernel promises
#: more there than errors at levels can confirm. The next level is at half the distance, and so an
#: error of first order, that of a kink, is half as large.
SHARE_OF_ERROR = 0.5
#: Errors at left-out levels, in units of what is claimed of them, that are room enough: few levels
#: are luck.
ROOM = 2.0
#: Variance of errors, in units of y, from which on they may be those of noise.
NOISY = 1e-6
#: By how much the errors must be likelier with a size than as noise alone: as much as length and
#: size, two parameters, cost in Akaike's criterion.
LEAST_GAIN = 2.0
#: Rows next to each, of which the one whose error is nearest tells noise from an error of the form.
N_NEIGHBOURS = 4
#: Levels' worth of prior in the local size of the errors, and its largest value.
PRIOR_LEVELS, MOST_RATIO = 1.0, 1e4


@dataclass(frozen=True)
class LevelError(ArrayState):
    """A variance of one target's mean along one column.

    Attributes
    ----------
    levels : ndarray of shape (k,)
        Its values in the scaled box, ascending.
    kernels : dict
        See `WeighedKernels`.
    least : float
        Standard deviation in the middle between two levels that no kernel goes below.
    places : ndarray of shape (l,)
        Levels that were left out.
    ratio : ndarray of shape (l,)
        Mean square of the errors there over the one expected.
    """

    column: int
    levels: np.ndarray
    kernels: dict[str, Any]
    least: float
    places: np.ndarray
    ratio: np.ndarray

    def variance(self, X: np.ndarray) -> np.ndarray:
        """Variance (n,) at scaled points X (n, d)."""
        x, kernels = X[:, self.column], WeighedKernels(**self.kernels)
        values, of_point = np.unique(x, return_inverse=True)
        rows = NearRows.of(values[:, None], self.levels[:, None], self._tree)
        power = kernels.variance(rows)
        right = np.clip(np.searchsorted(self.levels, values), 1, len(self.levels) - 1)
        low, high = self.levels[right - 1], self.levels[right]
        share = np.clip((values - low) / (high - low), 0, 1)
        outside = (values < self.levels[0]) | (values > self.levels[-1])
        between = np.where(outside, 1.0, 4 * share * (1 - share))
        result = power * self._local(values) + self.least**2 * between
        return result[of_point]

    def _local(self, values: np.ndarray) -> np.ndarray:
        """Local size of the squared errors beside the expected one, at least 1."""
        width = np.diff(self.levels).mean()
        weight = np.exp(-0.5 * ((values[:, None] - self.places) / width) ** 2)
        local = (weight @ self.ratio + PRIOR_LEVELS) / (weight.sum(1) + PRIOR_LEVELS)
        return np.maximum(local, 1.0)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.levels[:, None])

    def at_least(self, size: float) -> LevelError:
        """The same with such a standard deviation in the middle between two levels at least."""
        return replace(self, least=max(self.least, size))


def sets_of_levels(left_out: LeftOut, X: np.ndarray) -> dict[int, dict[int, float]]:
    """For each column with levels the sets that hold all rows of one, and its value."""
    found: dict[int, dict[int, float]] = {}
    for number in range(left_out.n_folds, len(left_out.sets)):
        rows = left_out.sets[number]
        for column, values in enumerate(X.T):
            value = values[rows[0]]
            if len(rows) == (values == value).sum() and (values[rows] == value).all():
                found.setdefault(column, {})[number] = float(value)
    return found


def is_noisy(variance: np.ndarray, varies: bool) -> bool:
    """Whether left-out errors of these variances are of noise: where it varies, half of them."""
    return bool((np.median(variance) if varies else variance.min()) >= NOISY)


def fit_level_errors(
    left_out: LeftOut, X: np.ndarray, sets: dict[int, dict[int, float]], varies: bool = False
) -> list[LevelError]:
    """One for each column whose left-out levels leave more than noise.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows in the scaled box.
    sets : dict
        See `sets_of_levels`.
    varies : bool, default=False
        Whether the noise is not the same everywhere.
    """
    error, variance, noise = (
        np.where(np.isfinite(part[:, 0]), part[:, 0], 0.0)
        for part in (left_out.error, left_out.variance, left_out.noise)
    )
    noisy = is_noisy(variance, varies)
    if noisy:
        # The posterior knows the coefficients alone, and is no excuse for errors of the form.
        variance = noise * _noise_by_row(left_out, error, variance, X)[left_out.row]
    starts = np.cumsum([0, *(len(part) for part in left_out.sets)])
    found = []
    for column, numbers in sets.items():
        levels = np.unique(X[:, column])
        places = np.array(list(numbers.values()))
        parts = [slice(starts[g], starts[g + 1]) for g in numbers]
        square = np.array([(error[p] ** 2).mean() for p in parts])
        expected = np.array([variance[p].mean() for p in parts])
        others = np.stack([levels[levels != place] for place in places])
        rows = _without(places, others)
        worth = np.array([left_out.count[g] for g in numbers])
        kernels, gain = WeighedKernels.likeliest(square, expected, rows, worth)
        if noisy and gain < LEAST_GAIN:
            continue
        own = kernels.variance(rows)
        total = own + expected + ROUND_OFF_VARIANCE
        sizes = np.repeat(total, [len(left_out.sets[g]) for g in numbers])
        errors = np.concatenate([error[p] for p in parts])
        kernels = kernels.holding(errors / np.sqrt(sizes), float((own / total).mean()))
        ratio = (square - expected) / np.maximum(kernels.variance(rows), TINY)
        least = SHARE_OF_ERROR * float(np.sqrt(np.maximum(square - expected, 0).mean()))
        found.append(
            LevelError(
                column, levels, kernels.arrays(), least, places, np.clip(ratio, 0, MOST_RATIO)
            )
        )
    return found


def claimed_too_much(left_out: LeftOut, sets: dict[int, dict[int, float]]) -> float:
    """Factor, at most 1, of a variance that errors of one target at left-out levels ask for."""
    square = left_out.error[:, 0] ** 2 / left_out.variance[:, 0]
    asked = 0.0
    for numbers in sets.values():
        parts = np.array([square[left_out.group == g].mean() for g in numbers])
        asked = max(asked, ROOM**2 * float(parts.mean()), float(parts.max()))
    return min(asked, 1.0) if np.isfinite(asked) else 1.0


def on_levels(X: np.ndarray, errors: Sequence[LevelError]) -> np.ndarray:
    """Points X (n, d) moved to the nearest level of each column that has an error of its own."""
    X = X.copy()
    for one in errors:
        middle = (one.levels[1:] + one.levels[:-1]) / 2
        X[:, one.column] = one.levels[np.searchsorted(middle, X[:, one.column])]
    return X


class KnownLevels(Protocol):
    """What a target's levels tell of a model's variance between them."""

    @property
    def across(self) -> float | None:
        """Factor of what the variance grows by between levels; None where they do not tell."""
        ...

    @property
    def level_errors(self) -> tuple[LevelError, ...]:
        """Errors between the levels of columns."""
        ...


def narrowed(
    parts: Components, X: Tensor, model: Predictor, known: Sequence[KnownLevels]
) -> Components:
    """A model's components at X, each target with no more variance between levels than it asks."""
    if all(one.across is None for one in known):
        return parts
    epistemic = parts.epistemic.expand_as(parts.mean).clone()
    points = X.detach().cpu().double().numpy()
    for target, one in enumerate(known):
        if one.across is not None:
            at = torch.as_tensor(on_levels(points, one.level_errors), device=X.device)
            there = model.components(at.to(X)).epistemic.expand_as(parts.mean)[..., target]
            own = epistemic[..., target]
            epistemic[..., target] = torch.minimum(own, there + one.across * (own - there))
    return replace(parts, epistemic=epistemic.clamp_min(0))


def _without(places: np.ndarray, others: np.ndarray) -> NearRows:
    """Left-out levels (l,) and for each the others (l, k), nearest first."""
    order = np.argsort(np.abs(others - places[:, None]), axis=1, kind="stable")
    near = np.take_along_axis(others, order, 1)[:, : n_nearest(others.shape[1], 1)]
    return NearRows(double(places[:, None]), double(near[..., None]))


def _noise_by_row(
    left_out: LeftOut, error: np.ndarray, variance: np.ndarray, X: np.ndarray
) -> np.ndarray:
    """What noise makes (n,) of the squared error of each row over the expected one, at least 1.

    Noise that varies is as large at a row that is left out in a random fold as with its level. An
    error of the form is about that of a neighbour: the least difference from one is what is noise.
    """
    in_folds = left_out.group < left_out.n_folds
    of_row = np.zeros(len(X))
    of_row[left_out.row[in_folds]] = error[in_folds] / np.sqrt(variance[in_folds])
    near = cKDTree(X).query(X, k=min(N_NEIGHBOURS + 1, len(X)))[1][:, 1:]
    square = (of_row[:, None] - of_row[near]) ** 2 / 2
    return np.maximum(square.min(1), 1.0)


def rows_near(Z: np.ndarray, left_out: LeftOut, some: np.ndarray) -> np.ndarray:
    """For each left-out row the nearest rows (l, k) that were not left out with it."""
    count = n_nearest(len(Z) - max(len(part) for part in left_out.sets), Z.shape[1])
    near = np.empty((len(some), count), dtype=np.int64)
    for group in np.unique(left_out.group[some]):
        others = np.setdiff1d(np.arange(len(Z)), left_out.sets[group])
        mine = left_out.group[some] == group
        near[mine] = others[nearest(cKDTree(Z[others]), Z[left_out.row[some[mine]]], count)]
    return near
