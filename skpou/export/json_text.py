"""Programs as JSON, and the schema of what is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from skpou.export.families import FUNCTIONS, KINDS, OPERATIONS, program_of

#: Version of the format; a reader should refuse others.
VERSION = 1

#: Kinds of values in the schema.
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_MATRIX = {"type": "array", "items": _NUMBERS}
_COUNT = {"type": "integer", "minimum": 0}  # Of indices, too: they begin at 0.
_INDICES = {"type": "array", "items": _COUNT}
_INDEX_ROWS = {"type": "array", "items": _INDICES}

#: What each operation has besides "name", "operation", "inputs" and "size".
_VALUES: dict[str, dict[str, Any]] = {
    "scale": {
        "columns": _INDICES,
        "offset": _NUMBERS,
        "width": _NUMBERS,
        "factor": {"type": "number"},
        "shift": {"type": "number"},
    },
    "affine": {"matrix": _MATRIX, "bias": _NUMBERS},
    "apply": {"function": {"enum": sorted(FUNCTIONS)}},
    "distances": {"centres": _MATRIX, "rate": _NUMBERS},
    "legendre": {"degree": _COUNT},
    "products": {"parent": _INDICES, "factor": _INDICES},
    "softmax": {"group": _INDICES, "sharp": {"type": "boolean"}},
    "multiply": {"left": _INDICES, "right": _INDICES},
    "sum": {"group": _INDICES},
    "add": {},
    "sparse_grid": {
        "kind": {"type": "array", "items": {"enum": list(KINDS)}},
        "shift": _INDICES,
        "vectors": _INDEX_ROWS,
        "first": _INDICES,
        "coef": _MATRIX,
    },
}


def _step_schema(operation: str) -> dict[str, Any]:
    values = _VALUES[operation]
    return {
        "type": "object",
        "description": f"Entry i is {OPERATIONS[operation]}.",
        "properties": {
            "name": {"type": "string"},
            "operation": {"const": operation},
            "inputs": {"type": "array", "items": {"type": "string"}},
            "size": _COUNT,
            **values,
        },
        "required": ["name", "operation", "inputs", "size", *values],
        "additionalProperties": False,
    }


#: Schema of what `to_json` writes, by JSON Schema, draft 2020-12.
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Mean of a fitted skpou regressor",
    "description": "Steps that each make a vector from earlier ones. The input x of the first is "
    "a row of X; the result of the last is the mean of y.",
    "type": "object",
    "properties": {
        "format": {"const": "skpou"},
        "version": {"const": VERSION},
        "estimator": {"type": "string"},
        "n_features": {"type": "integer", "minimum": 1},
        "feature_names": {"type": ["array", "null"], "items": {"type": "string"}},
        "n_outputs": {"type": "integer", "minimum": 1},
        "box": {
            "type": "object",
            "description": "Range of the data along the columns that vary.",
            "properties": {"columns": _INDICES, "low": _NUMBERS, "high": _NUMBERS},
            "required": ["columns", "low", "high"],
        },
        "noise": _MATRIX,
        "steps": {"type": "array", "items": {"oneOf": [_step_schema(op) for op in OPERATIONS]}},
    },
    "required": [
        "format",
        "version",
        "estimator",
        "n_features",
        "feature_names",
        "n_outputs",
        "box",
        "noise",
        "steps",
    ],
    "additionalProperties": False,
}


def to_json(model: Any, *, fit_alone: bool = False) -> str:
    """JSON of a fitted regressor's mean.

    It is a list of steps, from a row of X to the mean of y, in which each makes a vector from
    earlier ones by one of eleven operations: affine maps, functions of entries, products of
    Legendre polynomials, softmax, sparse grids. `SCHEMA` describes it; a reader in NumPy has some
    fifty lines (``examples/read_json.py``). Numbers keep all of their digits.

    Parameters
    ----------
    model : estimator
        Fitted, as for `to_c`.
    fit_alone : bool, default=False
        Write the mean of the fit also where ``predict`` gives way to a linear model, as it may in
        noisy tables; False refuses such a model.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If the model is of another class.
    ValueError
        If a stage of the model cannot be exported.

    Examples
    --------
    >>> import json
    >>> import numpy as np
    >>> from skpou import HierarchicalPOURegressor
    >>> from skpou.export import to_json
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> text = to_json(HierarchicalPOURegressor().fit(X, np.abs(X[:, 0])))
    >>> print(*[step["operation"] for step in json.loads(text)["steps"]])
    scale legendre products affine softmax legendre products affine multiply sum affine
    """
    program, box = program_of(model, fit_alone), model.scaling_
    names = getattr(model, "feature_names_in_", None)
    low = np.asarray(box["offset"], dtype=np.float64)
    noise = np.asarray(model.noise_, dtype=np.float64).reshape(-1, program.n_outputs)
    text = {
        "format": "skpou",
        "version": VERSION,
        "estimator": type(model).__name__,
        "n_features": program.n_features,
        "feature_names": None if names is None else [str(name) for name in names],
        "n_outputs": program.n_outputs,
        "box": {
            "columns": program.columns.tolist(),
            "low": low.tolist(),
            "high": (low + box["width"]).tolist(),
        },
        "noise": noise.tolist(),
        "steps": [
            {
                "name": step.name,
                "operation": step.operation,
                "inputs": list(step.inputs),
                "size": step.size,
                **{key: _plain(key, value) for key, value in step.values.items()},
            }
            for step in program.steps
        ],
    }
    return json.dumps(text, allow_nan=False)


def _plain(key: str, value: Any) -> Any:
    if key == "kind":
        return [KINDS[number] for number in value]
    return value.tolist() if isinstance(value, np.ndarray) else value
