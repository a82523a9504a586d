"""Groups of processes, as torchrun starts them: each brings rows, and all end with one model.

Everything is gathered in the order of the ranks and then computed alike on each, so that all hold
the same bits.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

#: Whether what runs has the rows of all processes already.
_ALONE = contextvars.ContextVar("alone", default=False)
#: Groups for numbers on the CPU beside a default group whose backend is for other devices.
_BESIDE: dict[int, Any] = {}


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A block in which this process is the only one: it has the rows of all."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def count() -> int:
    """Number of processes that bring rows; 1 where none were started together."""
    if _ALONE.get() or not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size()


def _group() -> Any:
    """The default group, or one beside it whose backend takes numbers on the CPU."""
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    key = id(dist.group.WORLD)
    if key not in _BESIDE:
        _BESIDE[key] = dist.new_group(backend="gloo")
    return _BESIDE[key]


def _together(collective: Callable[..., Any], *args: Any) -> None:
    try:
        collective(*args, group=_group())
    except RuntimeError as error:
        raise RuntimeError(
            f"Process {dist.get_rank()} of {dist.get_world_size()} lost another one during a fit: "
            f"it has died, failed, or does not call the same method. {error}"
        ) from error


def gather_objects(value: Any) -> list[Any]:
    """A small value of every process, in the order of their ranks."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    _together(dist.all_gather_object, found, value)
    return found


def gather(tensor: Tensor) -> list[Tensor]:
    """A tensor of every process, in the order of their ranks; they differ in length alone."""
    if count() == 1:
        return [tensor]
    lengths = gather_objects(len(tensor))
    padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]), device="cpu")
    padded[: len(tensor)] = tensor
    found = [torch.empty_like(padded) for _ in lengths]
    _together(dist.all_gather, found, padded)
    return [part[:n].to(tensor.device) for part, n in zip(found, lengths, strict=True)]


def sum_of_all(tensor: Tensor) -> Tensor:
    """Sum of a tensor of every process, the same bits on each."""
    return tensor if count() == 1 else torch.stack(gather(tensor)).sum(0)


def check_alike(facts: dict[str, Any], fault: Exception | None = None) -> None:
    """Compare what all processes must have in common.

    Parameters
    ----------
    fault : Exception, default=None
        Why this process can not go on: the others must not wait for it.

    Raises
    ------
    Exception
        The fault, where there is one.
    RuntimeError
        If another process has one.
    ValueError
        If the facts differ.
    """
    if count() == 1:
        if fault is not None:
            raise fault
        return
    found = gather_objects((facts, None if fault is None else f"{type(fault).__name__}: {fault}"))
    if fault is not None:
        raise fault
    for rank, (_, words) in enumerate(found):
        if words is not None:
            raise RuntimeError(f"Process {rank} of {len(found)} refused its rows. {words}")
    for rank, (others, _) in enumerate(found):
        for name, value in found[0][0].items():
            if others.get(name) != value:
                raise ValueError(
                    f"All processes must have the same {name}. Process 0 has {value!r}, process "
                    f"{rank} has {others.get(name)!r}."
                )
