"""Who races: the members by default, when each is worth a trial, and what a member must offer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skpou.additive import AdditivePOURegressor
from skpou.lsgd import LSGDRegressor
from skpou.multi_stage import MultiStageRegressor
from skpou.neural_sparse_grids import NeuralSparseGridRegressor
from skpou.partitions import HierarchicalPOURegressor, POURegressor
from skpou.sparse_grids import SparseGridRegressor

#: Regressors that may be named.
CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        AdditivePOURegressor,
        HierarchicalPOURegressor,
        LSGDRegressor,
        MultiStageRegressor,
        NeuralSparseGridRegressor,
        POURegressor,
        SparseGridRegressor,
    )
}
#: Columns up to which pieces are worth a trial: on tables of 11 to 31 columns the density gained by
#: it. With hundreds a fit takes many times as long as those of the others, and no piece is found.
MOST_COLUMNS_OF_PIECES = 40
#: Rows, and rows a column, that effects of columns take at least: with fewer all is shrunk away,
#: and looking for them is what costs most on small tables.
LEAST_ROWS_OF_TERMS, ROWS_A_COLUMN_OF_TERMS = 20, 8
#: Columns, and rows, from which on an encoder may find fewer directions that matter.
LEAST_COLUMNS_OF_ENCODERS, LEAST_ROWS_OF_ENCODERS = 6, 500


def _terms(n_rows: int, n_columns: int) -> bool:
    return n_rows >= max(LEAST_ROWS_OF_TERMS, ROWS_A_COLUMN_OF_TERMS * n_columns)


def _encoders(n_rows: int, n_columns: int) -> bool:
    return n_columns >= LEAST_COLUMNS_OF_ENCODERS and n_rows >= LEAST_ROWS_OF_ENCODERS


#: Members by default, and for how many different rows and columns each is worth a trial. The
#: first is the one that is taken where there are too few rows for a race.
RULES: dict[str, Callable[[int, int], bool]] = {
    "HierarchicalPOURegressor": lambda n, d: d <= MOST_COLUMNS_OF_PIECES,
    "MultiStageRegressor": lambda n, d: True,
    "AdditivePOURegressor": _terms,
    # On a line hat functions are what splines and pieces do better.
    "SparseGridRegressor": lambda n, d: d > 1,
    "NeuralSparseGridRegressor": _encoders,
}


def default_members(n_rows: int, n_columns: int, options: dict[str, Any]) -> list[Any]:
    """Unfitted members that are worth a trial on so many different rows.

    Parameters
    ----------
    n_rows, n_columns : int
        Number of distinct pairs of point and target, and of columns that vary.
    options : dict
        Parameters that all of them take: device, dtype, random_state.
    """
    return [
        CLASSES[name](**copy.deepcopy(options))
        for name, worth in RULES.items()
        if worth(n_rows, n_columns)
    ]


def named_member(name: str, options: dict[str, Any]) -> Any:
    """Unfitted regressor of skpou by the name of its class.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in CLASSES:
        raise ValueError(f"members must be names of {sorted(CLASSES)}, or regressors. Got {name!r}")
    return CLASSES[name](**copy.deepcopy(options))


def check_members(members: Sequence[Any]) -> None:
    """Refuse what is no regressor with error bars.

    Raises
    ------
    ValueError
        If there is no member.
    TypeError
        If one lacks fit or ``predict(X, return_std=True)``; it is named.
    """
    if not len(members):
        raise ValueError(f"members must hold at least one regressor. Got {members!r}.")
    for member in members:
        if isinstance(member, str):
            continue
        name = type(member).__name__
        predict = getattr(member, "predict", None)
        if isinstance(member, type) or not callable(getattr(member, "fit", None)) or not predict:
            raise TypeError(f"members must be regressors or names of such. Got {member!r}.")
        if not takes(predict, "return_std", or_any=True):
            raise TypeError(
                f"members: {name} has no predict(X, return_std=True), and without error bars "
                "there is no density to compare."
            )


def names_of(members: Sequence[Any]) -> list[str]:
    """Name of each member's class, numbered where there are several of one.

    A pipeline's is followed by that of its last step.
    """
    names = [_name(member) for member in members]
    return [
        f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _name(member: Any) -> str:
    name, steps = type(member).__name__, getattr(member, "steps", None)
    return f"{name} to {type(steps[-1][1]).__name__}" if isinstance(steps, list) and steps else name


def takes(method: Callable[..., Any], parameter: str, or_any: bool = False) -> bool:
    """Whether a method has a parameter of that name; with `or_any` also if it passes all on."""
    parameters = inspect.signature(method).parameters
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return parameter in parameters or (or_any and passes_on)


def fit_member(member: Any, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
    """Fit a member to distinct rows of given frequency.

    A member without `sample_weight` gets rows as often as they count.

    Raises
    ------
    TypeError
        If it has none, and the weights are no whole numbers.
    """
    if (weight == 1).all():
        return member.fit(X, y)
    if takes(member.fit, "sample_weight"):
        return member.fit(X, y, sample_weight=weight)
    index = _repeated(weight)
    if not len(index):
        raise TypeError(
            f"members: {type(member).__name__} takes no sample_weight, and weights that are no "
            "whole numbers are no repetitions of rows."
        )
    return member.fit(X[index], y[index])


def _repeated(weight: np.ndarray) -> np.ndarray:
    """Numbers of rows, each as often as it counts; none where weights are no whole numbers."""
    count = np.round(weight)
    if not (count == weight).all():
        return np.zeros(0, dtype=np.int64)
    return np.repeat(np.arange(len(weight)), count.astype(np.int64))


def outliers_of(model: Any, weight: np.ndarray) -> np.ndarray:
    """Which of the rows of `fit_member` (n,), bool, a fitted member has set apart."""
    found = np.zeros(len(weight), dtype=bool)
    numbers = np.asarray(getattr(model, "outliers_", ()))
    rows = np.arange(len(weight))
    if not (weight == 1).all() and not takes(model.fit, "sample_weight"):
        rows = _repeated(weight)
    # Others may mean something else by the name.
    are_rows = numbers.ndim == 1 and numbers.dtype.kind in "iu" and numbers.size > 0
    if are_rows and 0 <= numbers.min() and numbers.max() < len(rows):
        found[rows[numbers]] = True
    return found
