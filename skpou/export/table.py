"""Means on the points of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skpou.base import BaseRegressor, check_is_fitted

#: Points that are predicted together: their coordinates take a few MB.
BLOCK = 100_000


def to_table(model: Any, grid: Sequence[Any]) -> np.ndarray:
    """Mean of a fitted regressor on a grid: a look-up table.

    Parameters
    ----------
    model : estimator
        Any fitted regressor of this package.
    grid : sequence of array-like of shape (n_j,)
        Values of each column of X, in its units: one axis a column, rising.

    Returns
    -------
    ndarray of shape (n_1, ..., n_d) or (n_1, ..., n_d, n_outputs)
        Entry (i_1, .., i_d) belongs to the point ``(grid[0][i_1], .., grid[d - 1][i_d])``, as
        ``numpy.meshgrid`` has them with ``indexing="ij"`` and
        ``scipy.interpolate.RegularGridInterpolator`` takes them.

    Raises
    ------
    TypeError
        If the model is no regressor of this package.
    ValueError
        If the grid has not one axis for each column, or an axis is empty, not rising or not
        finite.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import SparseGridRegressor
    >>> from skpou.export import to_table
    >>> X = np.random.default_rng(0).random((300, 2))
    >>> model = SparseGridRegressor().fit(X, X[:, 0] * X[:, 1])
    >>> to_table(model, [np.linspace(0, 1, 5), np.linspace(0, 1, 3)]).shape
    (5, 3)
    """
    if not isinstance(model, BaseRegressor):
        raise TypeError(f"model must be a regressor of skpou. Got {type(model).__name__}.")
    check_is_fitted(model)
    axes = _axes(grid, model.n_features_in_)
    shape = tuple(len(axis) for axis in axes)
    count = int(np.prod(shape, dtype=np.int64))
    model, parts = unnamed(model), []
    for start in range(0, count, BLOCK):
        index = np.unravel_index(np.arange(start, min(start + BLOCK, count)), shape)
        points = np.stack([axis[i] for axis, i in zip(axes, index, strict=True)], 1)
        parts.append(model.predict(points))
    table = np.concatenate(parts)
    return table.reshape(*shape, *table.shape[1:])


def _axes(grid: Sequence[Any], n_features: int) -> list[np.ndarray]:
    try:
        axes = [np.asarray(axis, dtype=np.float64) for axis in grid]
    except (TypeError, ValueError) as error:
        raise ValueError(f"grid must hold an array of numbers for each column: {error}.") from error
    if len(axes) != n_features:
        raise ValueError(f"grid must have {n_features} axes, one a column of X. Got {len(axes)}.")
    for j, axis in enumerate(axes):
        if axis.ndim != 1 or not len(axis):
            raise ValueError(f"grid[{j}] must be a 1-D array, not empty. Got shape {axis.shape}.")
        if not np.isfinite(axis).all():
            raise ValueError(f"grid[{j}] holds values that are not finite.")
        if not (np.diff(axis) > 0).all():
            raise ValueError(f"grid[{j}] must rise. Got {axis[:5].tolist()} ...")
    return axes


def unnamed(model: Any) -> Any:
    """The fitted model, to which columns without names are those of the fit in their order."""
    state = {key: value for key, value in vars(model).items() if key != "feature_names_in_"}
    copy = object.__new__(type(model))
    vars(copy).update(state)
    return copy
