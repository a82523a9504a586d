"""Parts of a fit at the same time, in threads, with the same bits for any number of them.

Threads, not processes: the parts share the rows, and most of their time is spent in linear algebra,
which lets other threads run. Each has as many threads of torch as the caller: sums of other parts
would have other last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import joblib
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Threads of the fit that runs. A new thread knows of none: within it nothing runs in parallel.
_N_JOBS: ContextVar[int | None] = ContextVar("n_jobs", default=None)


@contextmanager
def jobs(n_jobs: int | None) -> Iterator[None]:
    """What is called inside may run in so many threads, as joblib counts them; None: in one."""
    token = _N_JOBS.set(n_jobs)
    try:
        yield
    finally:
        _N_JOBS.reset(token)


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Results of a function for some items, in their order.

    Parameters
    ----------
    function : callable
        It may be called in several threads at a time; results must not depend on the order.
    """
    items, n_jobs = list(items), _N_JOBS.get()
    if n_jobs in (None, 1) or len(items) < 2:
        return [function(item) for item in items]
    gradients = torch.is_grad_enabled()

    def call(item: Item) -> Result:
        # Modes of torch are each thread's own.
        with torch.set_grad_enabled(gradients):
            return function(item)

    parallel = joblib.Parallel(n_jobs=min(n_jobs, len(items)), require="sharedmem")
    return parallel(joblib.delayed(call)(item) for item in items)
