"""What `tests.fuzz_data` hands its points over in."""

import importlib.util
import tempfile

import numpy as np
import pandas as pd
import torch


def _memory_map(X):
    with tempfile.TemporaryFile() as file:
        np.memmap(file, dtype=float, mode="w+", shape=X.shape)[:] = X
        return np.memmap(file, dtype=float, mode="r", shape=X.shape)


def _read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


def _strided(X):
    wide = np.full((2 * X.shape[0], 3 * X.shape[1]), np.nan)
    wide[::2, ::3] = X
    return wide[::2, ::3]


def _frame(X):
    return pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])])


def _polars(X):
    import polars

    return polars.DataFrame({f"c{j}": X[:, j] for j in range(X.shape[1])})


#: Containers of points (n, d) in float64 that hold them exactly, after `_rounded`.
CONTAINERS = {
    "float64": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "int": lambda X: X.astype(np.int64),
    "bool": lambda X: X.astype(bool),
    "object": lambda X: X.astype(object),
    "pandas": _frame,
    "nullable pandas": lambda X: _frame(X).astype("Float64"),
    "Fortran order": np.asfortranarray,
    "read-only": _read_only,
    "strided": _strided,
    "negative strides": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "memory map": _memory_map,
    "list": lambda X: X.tolist(),
    "tensor": lambda X: torch.tensor(X),
    "float32 tensor": lambda X: torch.tensor(X, dtype=torch.float32),
}
if importlib.util.find_spec("polars"):
    CONTAINERS["polars"] = _polars
