"""Fits and predictions of Dask's arrays and data frames, whose parts stay on their workers.

The workers form one group of processes, as those that torchrun starts: each holds some rows, and
all end with the same model. Estimators whose fit is a sum over rows send no row when `batch_size`
is given; the others gather all rows on every worker. The user guide has the list.
"""

from __future__ import annotations

import copy
import datetime
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch.distributed as dist

__all__ = ["fit", "predict", "score"]

#: Seconds that workers wait for each other at the start, and between looks whether all live.
PATIENCE, LOOK = 60, 0.5


def fit(estimator: Any, X: Any, y: Any, sample_weight: Any = None, client: Any = None) -> Any:
    """Fit an estimator to the parts of Dask collections where they are.

    Parameters
    ----------
    estimator : estimator
        Of skpou; fitted in place.
    X : dask.array.Array or dask.dataframe.DataFrame of shape (n, d)
        Points. Columns are in one chunk, or brought into one.
    y : dask.array.Array, dask.dataframe.Series or DataFrame of shape (n,) or (n, n_outputs)
        Targets, or class labels, in parts like those of X.
    sample_weight : dask.array.Array or dask.dataframe.Series of shape (n,), default=None
        Weights.
    client : distributed.Client, default=None
        None: the one in use.

    Returns
    -------
    estimator
        The same estimator.

    Raises
    ------
    ImportError
        If dask or distributed is not installed.
    TypeError
        If X, y or weights are no Dask collections.
    RuntimeError
        If a worker dies.
    """
    distributed = _import("distributed")
    client = distributed.get_client() if client is None else client
    parts = client.compute(_parts(X, y, sample_weight))
    sizes = client.gather(client.map(_length, parts))
    parts = [part for part, size in zip(parts, sizes, strict=True) if size]
    if not parts:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    places = client.who_has(parts)
    # Several workers may be threads of one process, which is in a group but once.
    holders = {part.key: sorted(places[part.key])[0] for part in parts}
    processes = client.run(_process, workers=sorted(set(holders.values())))
    of_process: dict[Any, tuple[str, list[Any]]] = {}
    for part in parts:
        holder = holders[part.key]
        of_process.setdefault(processes[holder], (holder, []))[1].append(part)
    members = list(of_process.values())
    first = members[0][0]
    meeting = urlparse(first).hostname or "localhost"
    port = client.run(_free_port, workers=[first])[first] if len(members) > 1 else 0
    unfitted = copy.deepcopy(estimator)
    tasks = {
        worker: client.submit(
            _fit_parts,
            unfitted,
            held,
            rank,
            len(members),
            (meeting, port),
            workers=[worker],
            allow_other_workers=False,
            pure=False,
        )
        for rank, (worker, held) in enumerate(members)
    }
    fitted = _first_result(client, tasks, first)
    vars(estimator).clear()
    vars(estimator).update(vars(fitted))
    return estimator


def _first_result(client: Any, tasks: dict[str, Any], first: str) -> Any:
    """What the first worker has found, once all have ended; no task waits for a dead worker."""
    distributed = _import("distributed")
    waiting = list(tasks.values())
    try:
        while waiting:
            alive = client.nthreads()
            dead = [worker for worker in tasks if worker not in alive]
            if dead:
                raise RuntimeError(f"The worker {dead[0]} died during a fit. Fit again.")
            try:
                done, rest = distributed.wait(waiting, timeout=LOOK, return_when="FIRST_COMPLETED")
            except (TimeoutError, distributed.TimeoutError):
                continue
            for task in done:
                task.result()
            waiting = list(rest)
    except BaseException:
        client.cancel(list(tasks.values()), force=True)
        raise
    return tasks[first].result()


def predict(estimator: Any, X: Any) -> Any:
    """Predict lazily: nothing is computed until the result is.

    Parameters
    ----------
    estimator : estimator
        A fitted one of skpou.
    X : dask.array.Array or dask.dataframe.DataFrame of shape (n, d)
        Points.

    Returns
    -------
    dask.array.Array or dask.dataframe.Series or DataFrame of shape (n,) or (n, n_outputs)
        As `estimator.predict` has it, in the parts of X; frames keep index and divisions.

    Raises
    ------
    ImportError
        If dask is not installed.
    TypeError
        If X is no Dask collection.
    """
    _check_collection(X, "X")
    like = _row_like(estimator, X)
    with np.errstate(all="ignore"):
        one = np.asarray(estimator.predict(like))
    if _is_frame(X):
        return X.map_partitions(_predict_frame, estimator, one[:0], meta=_framed(one, like)[:0])
    X = X.rechunk({1: -1})
    meta = one[:0]
    if one.ndim == 1:
        return X.map_blocks(_predict_block, estimator, meta, drop_axis=1, meta=meta)
    chunks = (X.chunks[0], (one.shape[1],))
    return X.map_blocks(_predict_block, estimator, meta, chunks=chunks, meta=meta)


def score(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Coefficient of determination R^2, or the share of rows that are classified rightly.

    Parameters
    ----------
    estimator : estimator
        A fitted one of skpou.
    X : dask.array.Array or dask.dataframe.DataFrame of shape (n, d)
        Points.
    y : dask.array.Array, dask.dataframe.Series or DataFrame of shape (n,) or (n, n_outputs)
        True targets or labels.
    sample_weight : dask.array.Array or dask.dataframe.Series of shape (n,), default=None
        Weights.

    Returns
    -------
    float
        As `estimator.score` has it.
    """
    dask = _import("dask")
    measure = _count_right if hasattr(estimator, "classes_") else _squares
    measured = [dask.delayed(measure)(estimator, part) for part in _parts(X, y, sample_weight)]
    found = [part for part in dask.compute(*measured) if part is not None]
    if hasattr(estimator, "classes_"):
        right, total = np.sum(found, 0)
        return float(right / total)
    total, mean, spread, rest = found[0]
    for more, other, inner, missed in found[1:]:
        # Sums of squares about the mean of both parts (Chan, Golub, LeVeque 1979).
        joint = total + more
        spread = spread + inner + (other - mean) ** 2 * total * more / joint
        mean, total, rest = mean + (other - mean) * more / joint, joint, rest + missed
    flat = spread == 0
    scores = np.where(flat, rest == 0, 1 - rest / np.where(flat, 1.0, spread))
    return float(scores.mean())


# Collections


def _import(name: str) -> Any:
    """One of the optional packages."""
    try:
        module = __import__(name)
    except ImportError as error:
        raise ImportError(
            f"skpou.dask needs {name}, which is not installed: pip install 'skpou[dask]'."
        ) from error
    return module


def _check_collection(value: Any, name: str) -> None:
    _import("dask")
    if not hasattr(value, "__dask_graph__"):
        raise TypeError(
            f"{name} must be a Dask array or data frame. Got {type(value).__name__}; what is in "
            "memory goes to the estimator's own methods."
        )


def _is_frame(value: Any) -> bool:
    return hasattr(value, "divisions")


def _parts(X: Any, y: Any, sample_weight: Any) -> list[Any]:
    """Delayed triples of points, targets and weights, or None in place of the latter."""
    dask = _import("dask")
    values = {"X": X, "y": y, "sample_weight": sample_weight}
    rows: Any = None if _is_frame(X) or not hasattr(X, "chunks") else X.chunks[0]
    columns = []
    for name, value in values.items():
        if value is None and name == "sample_weight":
            continue
        _check_collection(value, name)
        if not _is_frame(value):
            wanted = {axis: -1 for axis in range(1, value.ndim)}
            known = rows is not None and not np.isnan([*rows, *value.chunks[0]]).any()
            if known and sum(rows) == value.shape[0]:
                wanted[0] = rows
            value = value.rechunk(wanted)
        delayed = value.to_delayed()
        columns.append(list(np.asarray(delayed, dtype=object).ravel()))
    counts = [len(column) for column in columns]
    if len(set(counts)) > 1:
        raise ValueError(
            f"X, y and sample_weight must have as many parts each. Got {counts}. Repartition them."
        )
    if sample_weight is None:
        columns.append([None] * counts[0])
    return [dask.delayed(tuple)(list(part)) for part in zip(*columns, strict=True)]


def _length(part: tuple[Any, Any, Any]) -> int:
    return len(part[0])


def _joined(values: list[Any]) -> Any:
    if hasattr(values[0], "iloc"):
        return __import__("pandas").concat(values)
    return np.concatenate([np.asarray(value) for value in values])


# On the workers


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


def _fit_parts(
    estimator: Any, parts: list[Any], rank: int, n: int, meeting: tuple[str, int]
) -> Any:
    """Fit to the parts of one process; the first one hands the model back."""
    X, y, weight = (list(values) for values in zip(*parts, strict=True))
    given = {} if weight[0] is None else {"sample_weight": _joined(weight)}
    estimator = copy.deepcopy(estimator)
    with _group(rank, n, meeting):
        estimator.fit(_joined(X), _joined(y), **given)
    return estimator if rank == 0 else None


@contextmanager
def _group(rank: int, n: int, meeting: tuple[str, int]) -> Iterator[None]:
    if n == 1:
        yield
        return
    patience = datetime.timedelta(seconds=PATIENCE)
    store = dist.TCPStore(*meeting, n, is_master=rank == 0, timeout=patience)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _row_like(estimator: Any, X: Any) -> Any:
    """One row of the kind of X."""
    row = np.zeros((1, X.shape[1] if not _is_frame(X) else len(X.columns)))
    if not _is_frame(X):
        return row
    return __import__("pandas").DataFrame(row, columns=X.columns)


def _framed(values: np.ndarray, like: Any) -> Any:
    """Predictions with the index of the points."""
    pandas = __import__("pandas")
    if values.ndim == 1:
        return pandas.Series(values, index=like.index, name="prediction")
    return pandas.DataFrame(values, index=like.index)


def _predict_block(X: Any, estimator: Any, empty: np.ndarray) -> np.ndarray:
    return estimator.predict(X) if len(X) else empty


def _predict_frame(X: Any, estimator: Any, empty: np.ndarray) -> Any:
    return _framed(_predict_block(X, estimator, empty), X)


def _measured(estimator: Any, part: tuple[Any, Any, Any]) -> tuple[Any, Any, np.ndarray]:
    X, y, weight = part
    weight = np.ones(len(X)) if weight is None else np.asarray(weight, dtype=float)
    return np.asarray(y), np.asarray(estimator.predict(X)), weight


def _count_right(estimator: Any, part: tuple[Any, Any, Any]) -> np.ndarray | None:
    if not len(part[0]):
        return None
    y, predicted, weight = _measured(estimator, part)
    return np.array([weight[y == predicted].sum(), weight.sum()])


def _squares(estimator: Any, part: tuple[Any, Any, Any]) -> tuple[Any, ...] | None:
    """Weight, mean, sum of squares about it, and that of errors, of a part with any weight."""
    if not len(part[0]):
        return None
    y, predicted, weight = _measured(estimator, part)
    if not weight.any():
        return None
    y, predicted = (v.reshape(len(v), -1).astype(float) for v in (y, predicted))
    mean = np.average(y, axis=0, weights=weight)
    return weight.sum(), mean, weight @ (y - mean) ** 2, weight @ (y - predicted) ** 2
