"""Predictions at points that are not the user's: arrays, in the order of the columns."""

from __future__ import annotations

from typing import Any


def unnamed(model: Any) -> Any:
    """The fitted model, to which columns without names are those of the fit in their order."""
    state = {key: value for key, value in vars(model).items() if key != "feature_names_in_"}
    copy = object.__new__(type(model))
    vars(copy).update(state)
    return copy
