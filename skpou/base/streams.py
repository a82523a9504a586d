"""Rows that are summed block by block: given in turn, on disk, or by many processes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, RowSample, Scaling, TensorState, target_unit
from skpou.core.linalg import (
    COPIES_SUMMED,
    RowSums,
    count,
    gather,
    gather_objects,
    row_blocks,
    rows_within,
)

#: Makes columns (n, p), the constant first, of points (n, k) in the unit box.
Columns = Callable[[Tensor], Tensor]
#: Largest target whose units do not overflow, nor bars that are thousands of them wide.
LARGEST_TARGET = {torch.float64: 1e303, torch.float32: 1e35}
NO_WEIGHT = "sample_weight must have at least one non-zero weight. All are zero."


def lies_on_disk(X: Any) -> bool:
    """Whether rows are read as they are sliced: a memory map, an HDF5 dataset, a zarr array."""
    if isinstance(X, np.memmap):
        return True
    module = type(X).__module__.partition(".")[0]
    return module in ("h5py", "zarr")


def check_bounds(bounds: Any, n_features: int) -> np.ndarray:
    """Bounds (n_features, 2), from below and above, of the columns of X.

    Raises
    ------
    ValueError
        If they have another shape, are not finite, or cross.
    """
    found = np.asarray(bounds, dtype=np.float64)
    if found.shape != (n_features, 2):
        raise ValueError(
            f"bounds must hold a lower and an upper bound of each of the {n_features} columns of "
            f"X, shape {(n_features, 2)}. Got shape {found.shape}."
        )
    for column, (low, high) in enumerate(found):
        if not (low < high and np.isfinite(high - low)):
            raise ValueError(
                f"bounds of column {column} of X must be finite, the lower below the upper. Got "
                f"{found[column].tolist()}."
            )
    return found


def edges_of(X: Tensor, weight: Tensor) -> Tensor:
    """Smallest and largest value (2, d) of each column over the rows of positive weight."""
    kept = X[weight > 0]
    if not len(kept):
        edge = X.new_full((X.shape[1],), torch.inf)
        return torch.stack([edge, -edge])
    return torch.stack([kept.amin(0), kept.amax(0)])


def joined_edges(edges: list[Tensor]) -> Tensor:
    """The edges (2, d) of all parts of the rows, of which these (2, d) are those of each."""
    found = torch.stack(edges)
    return torch.stack([found[:, 0].amin(0), found[:, 1].amax(0)])


def edges_of_all(edges: Tensor) -> Tensor:
    """The edges (2, d) over the rows of all processes."""
    return joined_edges(gather(edges))


def box_of_edges(edges: Tensor) -> Scaling:
    """Unit box between edges (2, d)."""
    return Scaling.from_box(edges, edges.new_ones(2))


def edges_of_bounds(bounds: Any, like: Tensor) -> Tensor:
    """The parameter `bounds` as edges (2, d), for points like `like` (n, d)."""
    edges = np.ascontiguousarray(check_bounds(bounds, like.shape[1]).T)
    return torch.as_tensor(edges, device="cpu").to(like.device)


def count_outside(X: Tensor, weight: Tensor, edges: Tensor) -> int:
    """Number of rows (n, d) of positive weight outside of edges (2, d)."""
    outside = ((X < edges[0]) | (X > edges[1])).any(1)
    return int((outside & (weight > 0)).sum())


def warn_of_rows_outside(n_outside: int) -> None:
    """Say how many rows lay outside the box, if any, at the line that called a fit."""
    if n_outside:
        warnings.warn(
            f"{n_outside} rows lie outside the box that bounds, or the first rows, gave. "
            "They count with the values that functions have there, which only go on as they are "
            "at the edge. Give bounds that hold all rows.",
            UserWarning,
            stacklevel=level_of_caller(),
        )


def level_of_caller() -> int:
    """Level of the first line outside of this package and of what wraps its methods.

    It is that of a warning in the function that asks.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.partition(".")[0] != "skpou" and name != "sklearn.base":
            break
        frame, level = frame.f_back, level + 1
    return level


def of_all_processes(*values: np.ndarray) -> list[np.ndarray]:
    """Arrays with the rows of all processes of a group behind each other."""
    tensors = (torch.as_tensor(value, device="cpu") for value in values)
    return [torch.cat(gather(tensor)).numpy() for tensor in tensors]


class Stream:
    """Rows that are read in blocks, as often as they are needed.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points; anything that has a shape and slices.
    y : array-like of shape (n,) or (n, m)
        Targets.
    sample_weight : array-like of shape (n,), default=None
        Weights.

    Raises
    ------
    ValueError
        If their lengths differ or X has not two axes.
    """

    def __init__(self, X: Any, y: Any, sample_weight: Any, batch_size: int):
        if y is None:
            raise ValueError("fit requires y to be passed, but the target y is None.")
        self.parts = [X, *(_sliceable(part) for part in (y, sample_weight))]
        self.batch_size = batch_size
        if len(X.shape) != 2 or not X.shape[0]:
            raise ValueError(f"X must have two axes and one row at least. Got shape {X.shape}.")
        lengths = [part.shape[0] for part in self.parts if part is not None]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: {lengths}"
            )

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        """Points, targets and weights of a block each, but for blocks without any weight."""
        for block in row_blocks(self.parts[0].shape[0], self.batch_size):
            X, y, weight = (None if p is None else _rows(p, block) for p in self.parts)
            if weight is None or bool((weight != 0).any()):
                yield X, y, weight


def _sliceable(value: Any) -> Any:
    if value is None or isinstance(value, Tensor | np.ndarray) or lies_on_disk(value):
        return value
    return np.asarray(value)


def _rows(value: Any, block: slice) -> Any:
    return value.iloc[block] if hasattr(value, "iloc") else value[block]


@dataclass
class Summary(TensorState):
    """What is kept of rows: sums for a linear fit, and a sample for what is no sum.

    Attributes
    ----------
    edges : Tensor of shape (2, d)
        Corners of the box, in units of X.
    sample : RowSample
        Rows in units of X and y.
    """

    parts: ClassVar[dict[str, Any]] = {"sums": RowSums, "sample": RowSample}

    edges: Tensor
    sums: RowSums
    sample: RowSample
    n_outside: int = 0

    @cached_property
    def box(self) -> Scaling:
        """The unit box between the edges."""
        return box_of_edges(self.edges)

    @classmethod
    def empty(cls, edges: Tensor, n_columns: int, n_outputs: int) -> Summary:
        """Of no rows yet, for a basis of so many columns."""
        sums = RowSums.empty(n_columns, n_outputs, edges)
        sample = RowSample.empty(edges.shape[1], n_outputs, edges)
        return cls(edges, sums, sample)

    @classmethod
    def of_sample(cls, edges: Tensor, sample: RowSample) -> Summary:
        """Of these rows alone, for a basis that is only a constant."""
        result = cls.empty(edges, 1, sample.y.shape[1])
        result.sample = sample
        result.sums.add(sample.X.new_ones((len(sample.X), 1)), sample.y, sample.weight)
        return result

    def add(
        self, X: Tensor, y: Tensor, weight: Tensor, columns: Columns, dtype: torch.dtype
    ) -> None:
        """Add rows (n, d), (n, m), (n,), in units of X and y; points are rounded to `dtype`."""
        self.sample.add(X, y, weight)
        self.add_sums(X, y, weight, columns, dtype)

    def add_sums(
        self, X: Tensor, y: Tensor, weight: Tensor, columns: Columns, dtype: torch.dtype
    ) -> None:
        """Add rows of which the sample knows already."""
        target_unit(y, weight, LARGEST_TARGET[dtype])  # refuses what overflows
        self.n_outside += count_outside(X, weight, self.edges)
        points = self.points(X, dtype)
        size = rows_within(COPIES_SUMMED * self.sums.n_columns)
        for block in row_blocks(len(points), size):
            self.sums.add(columns(points[block]), y[block], weight[block])

    def points(self, X: Tensor, dtype: torch.dtype) -> Tensor:
        """Points in the unit box, in float64, rounded to `dtype`."""
        return self.box.points(X).to(dtype).to(torch.float64)

    def of_all_processes(self, with_sample: bool = True) -> Summary:
        """Over the rows of all processes of a group, the same bits on each."""
        if count() == 1:
            return self
        sample = sample_of_all_processes(self.sample) if with_sample else self.sample
        n_outside = sum(gather_objects(self.n_outside))
        return Summary(self.edges, self.sums.of_all_processes(), sample, n_outside)

    def scaled(self) -> Scaling:
        """The box with mean and scale of the targets over all rows."""
        mean, rms = self.sums.mean(), self.sums.rms()
        # What round-off of equal targets leaves over is no spread.
        exact = rms <= torch.finfo(rms.dtype).eps * mean.abs() * self.sums.count**0.5
        size = torch.where(mean != 0, mean.abs(), 1.0)
        scale = torch.where(exact | (rms == 0), size, rms)
        box = self.box
        return Scaling(box.columns, box.offset, box.width, mean, scale)

    def rows(self, scaling: Scaling, dtype: torch.dtype) -> Rows:
        """The sample in scaled units."""
        y = scaling.targets(self.sample.y).to(dtype)
        weight = self.sample.weight.to(dtype)
        return Rows(self.points(self.sample.X, dtype).to(dtype), y, weight, torch.zeros_like(y))


def sample_of_all_processes(sample: RowSample) -> RowSample:
    """That of the rows of all processes of a group."""
    result = RowSample.empty(sample.X.shape[1], sample.y.shape[1], sample.X)
    names = ("X", "y", "weight", "key")
    for parts in zip(*(gather(getattr(sample, name)) for name in names), strict=True):
        result.merge(RowSample(*parts))
    return result


def check_summary(summary: Summary, n_columns: int, n_outputs: int) -> None:
    """Refuse rows or parameters that do not go with the rows before.

    Raises
    ------
    ValueError
        If so.
    """
    found = summary.sums.factor.shape[1] - summary.sums.n_columns
    if n_outputs != found:
        raise ValueError(f"y has {n_outputs} outputs, but {found} in the first partial_fit.")
    if n_columns != summary.sums.n_columns:
        raise ValueError(
            f"The parameters now ask for {n_columns} columns, but for {summary.sums.n_columns} in "
            "the first partial_fit. Keep them, or fit a new estimator."
        )
