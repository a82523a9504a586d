"""Unpacked models of the estimators that predicted last, so that one row need not unpack them anew.

A fitted estimator is plain arrays. What they unpack to is kept here, outside the estimator: it is
neither pickled nor copied nor cloned, and goes with the estimator. It is used as long as the
estimator holds the very objects that it was made of; these arrays are made read-only, so that none
can change in place unnoticed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from operator import is_
from typing import Any, TypeVar

import numpy as np

Part = TypeVar("Part")

#: Estimators whose models are kept, and bytes of the arrays of one beyond which it is not, since
#: unpacking then takes little beside what a prediction does with them.
MOST_KEPT, MOST_BYTES = 16, 2**26


class _State:
    """The objects that an estimator's attributes consist of, to tell whether they still do."""

    def __init__(self, estimator: Any, names: tuple[str, ...]):
        attributes = estimator.__dict__
        self.names = tuple(attributes)
        # Views of dicts and lists show what these will hold later, too.
        self.views: list[Any] = [attributes.values()]
        self.n_bytes = 0
        arrays = [array for name in names for array in self._walk(attributes.get(name))]
        self.lengths = [len(view) for view in self.views]
        self.values = tuple(chain.from_iterable(self.views))
        self.n_bytes = sum(array.nbytes for array in arrays)
        if self.is_small():
            for array in arrays:
                array.flags.writeable = False

    def _walk(self, value: Any) -> Iterator[np.ndarray]:
        """Arrays within a value; its containers join the views."""
        if isinstance(value, dict | list | tuple):
            view = value.values() if isinstance(value, dict) else value
            self.views.append(view)
            for part in view:
                yield from self._walk(part)
        elif isinstance(value, np.ndarray):
            yield value

    def is_small(self) -> bool:
        """Whether the arrays may be kept a second time."""
        return self.n_bytes <= MOST_BYTES

    def is_that_of(self, estimator: Any) -> bool:
        """Whether the estimator still consists of the same objects."""
        return (
            tuple(estimator.__dict__) == self.names
            and [len(view) for view in self.views] == self.lengths
            and all(map(is_, chain.from_iterable(self.views), self.values))
        )


class _Entry:
    """What one estimator unpacked to; `reference` forgets it when the estimator goes."""

    def __init__(self, reference: weakref.ref[Any], state: _State):
        self.reference, self.state = reference, state
        self.parts: dict[Hashable, Any] = {}


class UnpackedModels:
    """A small memory, safe in threads, of what estimators unpack to.

    Parameters
    ----------
    most : int
        Estimators that are remembered: those asked for last.
    """

    def __init__(self, most: int = MOST_KEPT):
        self._most = most
        self.forget_all()

    def forget_all(self) -> None:
        """Start anew, with a lock of its own: a process that was forked may have got a held one."""
        self._lock = threading.Lock()
        self._entries: dict[int, _Entry] = {}

    def get(
        self, estimator: Any, names: tuple[str, ...], key: Hashable, unpack: Callable[[], Part]
    ) -> Part:
        """What `unpack` returned for the estimator and the key, as long as its state is the same.

        Parameters
        ----------
        estimator : object
            Whose attributes make up the state.
        names : tuple of str
            Attributes whose containers and arrays are looked into.
        key : hashable
            What is unpacked: its kind, device and precision.
        unpack : callable
            Makes it, of the attributes and the key alone. Threads will share it.
        """
        number = id(estimator)
        with self._lock:
            entry = self._entries.pop(number, None)
            if entry is not None:
                self._entries[number] = entry  # Last in the order.
        if entry is not None and key in entry.parts and entry.state.is_that_of(estimator):
            return entry.parts[key]
        state = _State(estimator, names)
        part = unpack()
        # A fit in another thread may have come between.
        if state.is_small() and state.is_that_of(estimator):
            self._keep(estimator, state, key, part)
        return part

    def _keep(self, estimator: Any, state: _State, key: Hashable, part: Any) -> None:
        number = id(estimator)
        with self._lock:
            entry = self._entries.pop(number, None)
            if entry is None or not entry.state.is_that_of(estimator):
                # This is called before another object can have the number.
                forget = weakref.ref(estimator, lambda _: self._entries.pop(number, None))
                entry = _Entry(forget, state)
            entry.parts[key] = part
            self._entries[number] = entry
            while len(self._entries) > self._most:
                self._entries.pop(next(iter(self._entries)), None)

    def drop(self, estimator: Any) -> None:
        """Forget an estimator, which is about to be fitted."""
        self._entries.pop(id(estimator), None)

    def __len__(self) -> int:
        return len(self._entries)


#: That of this process.
UNPACKED = UnpackedModels()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=UNPACKED.forget_all)
