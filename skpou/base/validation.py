"""Input from users to tensors: arrays, data frames and torch tensors, checked before any work."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from skpou.base.compat import check_columns, check_weights

#: Types of numbers that are taken as they are.
PLAIN = (np.dtype(np.float64), np.dtype(np.float32))


@dataclass(frozen=True)
class Origin:
    """How points came in, so that results go out alike.

    Attributes
    ----------
    is_tensor : bool
        Whether X was a torch tensor.
    device : torch.device
        Its device; the CPU for anything else.
    dtype : torch.dtype, default=None
        That of results in units of y, where it is known.
    """

    is_tensor: bool
    device: torch.device
    dtype: torch.dtype | None = None

    def send(self, result: Tensor) -> Any:
        """Return a tensor on the device of X, or a numpy array."""
        return result.to(self.device) if self.is_tensor else result.cpu().numpy()


def origin_of(X: Any) -> Origin:
    """Where X lives."""
    if isinstance(X, Tensor):
        return Origin(True, X.device)
    return Origin(False, torch.device("cpu"))


def resolve_device(device: str, origin: Origin) -> torch.device:
    """Turn the parameter `device` into a device that exists.

    Raises
    ------
    ValueError
        If there is no such device; says what there is.
    """
    if device == "auto":
        if origin.is_tensor:
            return origin.device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if device not in present:
        reason = "" if count else f" CUDA is not available to torch {torch.__version__}."
        raise ValueError(f"device must be 'auto' or one of {present}. Got {device!r}.{reason}")
    return torch.device(device)


def check_tensor(value: Tensor, name: str) -> Tensor:
    """Dense detached real tensor of a usable dtype.

    Raises
    ------
    TypeError
        For sparse, quantized or meta tensors.
    ValueError
        For complex ones.
    """
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        kind = "meta" if value.is_meta else str(value.layout)
        raise TypeError(f"{name} must be a dense CPU or CUDA tensor. Got a {kind} tensor.")
    if value.is_complex():
        raise ValueError(f"Complex data not supported. {name} has dtype {value.dtype}.")
    value = value.detach().resolve_neg()
    if value.dtype in (torch.float64, torch.float32):
        return value
    return value.to(torch.float64)


def _refuse_odd_input(value: Any, name: str) -> None:
    """Raise for what scikit-learn would take silently: masks, dates, categories, Dask's."""
    if hasattr(value, "__dask_graph__"):
        raise TypeError(
            f"{name} is a Dask collection, all of which would come into memory. "
            "skpou.dask.fit(estimator, X, y), skpou.dask.predict and skpou.dask.score take it."
        )
    if np.ma.isMaskedArray(value):
        raise TypeError(f"{name} is a masked array, whose mask would be lost. Pass a plain array.")
    first = value[0] if isinstance(value, list) and len(value) else None
    dates = np.datetime64 | datetime.date
    if isinstance(first, list | tuple) and any(isinstance(v, dates) for v in first):
        raise TypeError(f"{name} holds datetime values. Convert dates to numbers.")
    if hasattr(value, "dtypes") and hasattr(value, "columns"):
        columns = [(str(c), str(t)) for c, t in zip(value.columns, value.dtypes, strict=True)]
    else:
        columns = [(name, str(getattr(value, "dtype", "")))]
    for column, dtype in columns:
        lower = dtype.lower()
        if lower.startswith(("datetime", "timedelta", "<m8", ">m8", "period")):
            raise TypeError(
                f"Column {column!r} of {name} holds {dtype} values. Convert dates to numbers, "
                "such as seconds since a reference."
            )
        if lower.startswith(("category", "categorical")):
            raise ValueError(
                f"Column {column!r} of {name} is categorical. Encode categories as numbers first, "
                "for example with OneHotEncoder."
            )


def _refuse_strings(X: Any) -> None:
    """Raise for arrays of strings, which would be read as numbers where they look like them."""
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind in ("U", "S", "T"):
        found = np.asarray(X).reshape(-1)[:1].tolist()
        raise ValueError(
            f"could not convert strings such as {found} in X to numbers. Encode them first."
        )


def _check_target_type(y: Any) -> None:
    if scipy.sparse.issparse(y):
        raise TypeError("Sparse data was passed for y, but dense data is required.")
    dtype = getattr(y, "dtype", None)
    kind = getattr(dtype, "kind", "") if dtype is not None else ""
    if isinstance(y, list | tuple) and len(y):
        kind = np.asarray(y).dtype.kind if not isinstance(y[0], Tensor) else ""
    if kind in ("U", "S", "T") or str(dtype).startswith(("str", "string")):
        raise ValueError("y must be numeric, but holds strings. Encode them as numbers first.")


def target_values(y: Any, most_axes: int = 2) -> Any:
    """Finite real targets (n,) or (n, m) for an evaluation, as an array or a tensor."""
    if isinstance(y, Tensor):
        return _finite_tensor(y, "y", tuple(range(1, most_axes + 1)))
    _refuse_odd_input(y, "y")
    _check_target_type(y)
    # A list becomes an array first: check_array looks for NaN in a list before None becomes one.
    y = np.asarray(y) if isinstance(y, (list, tuple)) else y
    values = check_array(
        y,
        ensure_2d=False,
        allow_nd=most_axes > 2,
        dtype="numeric",
        input_name="y",
        ensure_min_samples=0,
        ensure_min_features=0 if most_axes > 2 else 1,
    )
    if values.ndim > most_axes:
        raise ValueError(
            f"Expected array of at most {most_axes} axes for y, got {values.ndim}D array instead."
        )
    return values.astype(np.float64)


def _explained(error: ValueError, X: Any, name: str) -> ValueError:
    """Add to a message about values in which column they are, and what to do about strings."""
    text, where = str(error), ""
    if "could not convert" in text:
        where = _first_column(X, lambda column: np.asarray(column, dtype=float))
        text += f". Encode strings and categories in {name} as numbers first."
    elif "contains NaN" in text or "contains infinity" in text:
        where = _first_column(X, _refuse_non_finite)
    return ValueError(where + text)


def _refuse_non_finite(column: Any) -> None:
    if not np.isfinite(np.asarray(column, dtype=float)).all():
        raise ValueError


def _first_column(X: Any, check: Callable[[Any], Any]) -> str:
    """Words that name the first column of a data frame that a check refuses; "" without names."""
    for name in getattr(X, "columns", ()):
        try:
            check(X[name])
        except (ValueError, TypeError):
            return f"Column {str(name)!r}: "
    return ""


def _cpu_array(value: Any, name: str) -> Any:
    """CPU tensors as numpy views; anything else as it is, after the checks of its type."""
    if isinstance(value, Tensor):
        return check_tensor(value, name).numpy()
    _refuse_odd_input(value, name)
    return value


def _finite_tensor(value: Tensor, name: str, dims: tuple[int, ...]) -> Tensor:
    """Checks of scikit-learn for a tensor that should not travel through the host."""
    value = check_tensor(value, name)
    if value.ndim not in dims:
        wanted = " or ".join(f"{n}D" for n in dims)
        raise ValueError(f"Expected {wanted} array for {name}, got {value.ndim}D array instead.")
    if not len(value):
        raise ValueError(f"Found array {name} with 0 sample(s) while a minimum of 1 is required.")
    if value.ndim == 2 and not value.shape[1]:
        raise ValueError(f"Found array {name} with 0 feature(s) while a minimum of 1 is required.")
    if bool(torch.isnan(value).any()):
        raise ValueError(f"Input {name} contains NaN.")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"Input {name} contains infinity or a value too large for its dtype.")
    return value


def owned(value: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Copy into memory of torch's own: unaligned foreign memory gives other last bits."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype).clone()
    # A copy of numpy's: it calls single rows contiguous whose strides are negative.
    return torch.tensor(np.array(value, order="C", ndmin=1), dtype=dtype, device=device)


def training_data(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    reset: bool = True,
    may_be_empty: bool = False,
) -> tuple[Any, Any, Any]:
    """Validated points (n, d), targets (n,) or (n, m) and weights (n,), as arrays or tensors.

    Tensors on an accelerator stay there; everything follows X.
    """
    if isinstance(X, Tensor) and X.device.type != "cpu" and (len(X) or not may_be_empty):
        return _accelerator_data(estimator, X, y, sample_weight, reset)
    if may_be_empty and isinstance(X, Tensor):
        X = check_tensor(X, "X").cpu()
    X, y = _cpu_array(X, "X"), _to_host(y, "y")
    _refuse_strings(X)
    _check_target_type(y)
    if may_be_empty and np.ndim(X) == 2 and not len(X):
        return _empty_data(estimator, X, y, reset)
    try:
        X, y = validate_data(
            estimator,
            X,
            y,
            reset=reset,
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
        )
    except ValueError as error:
        raise _explained(error, X, "X or y") from error
    y = np.asarray(y, dtype=np.float64)
    if np.isnan(y).any():
        raise ValueError("Input y contains NaN.")  # None in an array of objects
    weight = check_weights(_to_host(sample_weight, "sample_weight"), X, np.float64)
    return X, y, weight


def _empty_data(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[Any, Any, Any]:
    """Points (0, d), targets (0,) or (0, m) and weights (0,)."""
    X = validate_data(estimator, X, reset=reset, dtype=np.float64, ensure_min_samples=0)
    y = np.asarray(y, dtype=np.float64)
    if y.ndim not in (1, 2) or y.size or (y.ndim == 2 and not y.shape[1]):
        raise ValueError(
            f"X has no rows: y must have shape (0,) or (0, n_outputs). Got shape {y.shape}."
        )
    return X, y, np.empty(0)


def training_classes(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool = True
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Validated points (n, d), class numbers (n,), weights (n,), and the classes (K,), sorted.

    Classes whose rows all have weight 0 are none. A tensor X on an accelerator stays there.

    Raises
    ------
    ValueError
        If y does not hold classes.
    """
    if str(getattr(y, "dtype", "")).lower().startswith(("category", "categorical")):
        y = np.asarray(y)  # Categories are what classes are.
    if isinstance(y, Tensor) and not (y.is_floating_point() or y.is_meta):
        check_tensor(y, "y")
        y = y.cpu().numpy()  # Numbers of classes stay integers.
    else:
        y = _to_host(y, "y")
    if scipy.sparse.issparse(y):
        raise TypeError("Sparse data was passed for y, but dense data is required.")
    if isinstance(X, Tensor) and X.device.type != "cpu":
        X = _finite_tensor(X, "X", (2,))
        # Labels are checked beside points that stand for those on the device.
        labels = validate_data(estimator, np.zeros((len(X), 1)), y)[1]
        check_columns(estimator, X, reset=reset)
    else:
        X = _cpu_array(X, "X")
        _refuse_strings(X)
        try:
            X, labels = validate_data(estimator, X, y, reset=reset, dtype=[np.float64, np.float32])
        except ValueError as error:
            raise _explained(error, X, "X") from error
    check_classification_targets(labels)
    weight = _to_host(sample_weight, "sample_weight")
    weight = check_weights(weight, np.empty((len(X), 1)), np.float64)
    kept = weight > 0
    classes = np.unique(labels[kept])
    codes = np.searchsorted(classes, np.where(kept, labels, classes[0]))
    return X, codes, weight, classes


def _to_host(value: Any, name: str) -> Any:
    if isinstance(value, Tensor):
        return check_tensor(value, name).cpu().numpy()
    _refuse_odd_input(value, name)
    return value


def _accelerator_data(
    estimator: Any, X: Tensor, y: Any, sample_weight: Any, reset: bool
) -> tuple[Tensor, Tensor, Tensor]:
    X = _finite_tensor(X, "X", (2,))
    check_columns(estimator, X, reset=reset)
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target "
            "y is None."
        )
    y = _finite_tensor(
        y if isinstance(y, Tensor) else torch.as_tensor(np.array(y), device="cpu"), "y", (1, 2)
    )
    if len(y) != len(X):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[len(X), len(y)]}"
        )
    weight = check_weights(
        _to_host(sample_weight, "sample_weight"), np.empty((len(X), 1)), np.float64
    )
    return X, y.to(X.device), torch.as_tensor(weight, device=X.device)


def _is_plain(estimator: Any, X: Any) -> bool:
    """Whether these are points that scikit-learn would return as they are, without a warning.

    Anything else is left to `validate_data`, which takes fifty times as long for one row.
    """
    fitted = estimator.__dict__
    return (
        type(X) is np.ndarray
        and X.dtype in PLAIN
        and X.ndim == 2
        and X.shape[0] > 0
        and X.shape[1] == fitted.get("n_features_in_")
        and "feature_names_in_" not in fitted
        and bool(np.isfinite(X).all())
    )


def query_points(estimator: Any, X: Any) -> Any:
    """Validated points (n, d) for a fitted estimator."""
    if isinstance(X, Tensor) and X.device.type != "cpu":
        X = _finite_tensor(X, "X", (2,))
        check_columns(estimator, X, reset=False)
        return X
    if _is_plain(estimator, X):
        return X
    X = _cpu_array(X, "X")
    if _is_plain(estimator, X):
        return X
    _refuse_strings(X)
    try:
        return validate_data(estimator, X, reset=False, dtype=[np.float64, np.float32])
    except ValueError as error:
        raise _explained(error, X, "X") from error


def not_finite(state: Any, name: str) -> str:
    """Path of the first array of floats in a state that is not finite; "" if there is none."""
    if isinstance(state, dict):
        parts = [(f"{name}[{key!r}]", value) for key, value in state.items()]
    elif isinstance(state, list | tuple):
        parts = [(f"{name}[{i}]", value) for i, value in enumerate(state)]
    elif isinstance(state, np.ndarray) and state.dtype.kind == "f":
        return "" if np.isfinite(state).all() else name
    else:
        return ""
    return next((found for key, value in parts if (found := not_finite(value, key))), "")
