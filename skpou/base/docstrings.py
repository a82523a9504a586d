"""Docstrings whose sections are written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def sections_of(other: Callable[..., Any]) -> Callable[[Method], Method]:
    """Give a method the sections of another one's docstring: what both take, return and raise.

    Parameters
    ----------
    other : callable
        Whose docstring has a section "Parameters".

    Returns
    -------
    callable
        Decorator of a method that has a summary of its own.
    """

    def decorate(method: Method) -> Method:
        written = inspect.getdoc(other)
        if written and method.__doc__:  # Python may leave out all docstrings.
            sections = written[written.index("Parameters\n-") :]
            method.__doc__ = f"{inspect.cleandoc(method.__doc__)}\n\n{sections}\n"
        return method

    return decorate
