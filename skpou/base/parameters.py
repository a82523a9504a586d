"""Constraints of parameters that recur, and what parameters stand for."""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skpou.base.compat import Interval, StrOptions
from skpou.core import SEEDS

AUTO = StrOptions({"auto"})
#: Ints of at least 1, and of at least 0.
COUNT, COUNT_OR_NONE = (Interval(Integral, least, None, closed="left") for least in (1, 0))
#: Numbers of at least 0, above 0, and between 0 and 1.
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")  # 0: no noise, no ridge.
POSITIVE = Interval(Real, 0, None, closed="neither")  # 0 would be no unit.
SHARE = Interval(Real, 0, 1, closed="neither")  # 0 and 1 would be nothing and all.
#: Numbers of jobs as joblib counts them: -1 are all processors, -2 all but one.
N_JOBS = [Interval(Integral, None, -1, closed="right"), COUNT, None]

#: Parameters that say how a fit is done, not what of.
WITHOUT_SHAPE = frozenset(
    ("device", "dtype", "max_iter", "n_init", "n_jobs", "random_state", "tol", "verbose")
)
#: What is compared by its value.
PLAIN = (str, int, float, tuple)


#: Numbers of 32 bits of which numpy makes the state of a generator, 128 bits.
STATE_WORDS = 4
#: Share of the physical memory that a fit may take; the rest is for the system, the data and what
#: is freed late.
SHARE_OF_MEMORY = 0.8
#: Bytes of a float64, and in a GB.
BYTES, GIGA = 8, 1e9


def unless_auto(value: Any, kind: Callable[[Any], Any] = float) -> Any:
    """None for "auto" and None; anything else as a plain number."""
    return None if value is None or isinstance(value, str) else kind(value)


def random_generator(random_state: Any) -> np.random.Generator:
    """One generator for a whole fit.

    None is a fixed start: a default fit gives the same bits twice.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(SEEDS, size=STATE_WORDS))
    return np.random.default_rng(seed_of(random_state))


def drawing_generator(random_state: Any) -> np.random.Generator:
    """One generator for the draws of a call: None draws anew, from numpy's global source."""
    return random_generator(check_random_state(None) if random_state is None else random_state)


def seed_of(random_state: Any) -> int:
    """A seed for parts of a fit that draw in an order of their own; 0 for None.

    Raises
    ------
    ValueError
        If it is none of what scikit-learn takes, nor a Generator.
    """
    if isinstance(random_state, np.random.Generator | np.random.RandomState):
        return int(random_generator(random_state).integers(SEEDS))
    seed = 0 if random_state is None else random_state
    if not isinstance(seed, Integral) or isinstance(seed, bool) or int(seed) < 0:
        raise ValueError(
            "random_state must be None, an int of at least 0, a RandomState or a Generator. "
            f"Got {random_state!r}."
        )
    return int(seed)


def check_coverage(coverage: Any) -> float:
    """The coverage as a float.

    Raises
    ------
    ValueError
        If it is no number between 0 and 1, exclusive.
    """
    number = isinstance(coverage, Real) and not isinstance(coverage, bool | np.bool_)
    if not number or not 0 < float(coverage) < 1:
        raise ValueError(f"coverage must lie between 0 and 1, exclusive. Got {coverage!r}.")
    return float(coverage)


def check_quantiles(quantiles: Any) -> np.ndarray:
    """The probabilities as an array (k,).

    Raises
    ------
    ValueError
        If one is no number between 0 and 1, exclusive.
    """
    levels = np.atleast_1d(np.asarray(quantiles))
    numeric = levels.dtype.kind in "fiu" and levels.ndim == 1
    if not numeric or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles must lie between 0 and 1, exclusive. Got {quantiles!r}.")
    return levels


def check_return_std(return_std: Any) -> None:
    """Refuse anything but a bool and the names of the two parts.

    Raises
    ------
    ValueError
        If so.
    """
    named = isinstance(return_std, str) and return_std in ("epistemic", "noise")
    if not (named or isinstance(return_std, bool | np.bool_)):
        raise ValueError(
            f"return_std must be False, True, 'epistemic' or 'noise'. Got {return_std!r}."
        )


def gigabytes(numbers: float) -> float:
    """GB that so many float64 take."""
    return BYTES / GIGA * numbers


def refuse_beyond_memory(needed: float, what: str, advice: str) -> None:
    """Refuse a size before anything is allocated, where the machine tells its memory.

    Parameters
    ----------
    what, advice : str
        What needs them, and what to lower.

    Raises
    ------
    ValueError
        If that is more than four fifths of the physical memory.
    """
    if not hasattr(os, "sysconf"):  # Windows
        return
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGA
    if needed > SHARE_OF_MEMORY * physical:
        raise ValueError(
            f"{what} needs about {needed:.3g} GB of {physical:.3g} GB. Lower {advice}."
        )


def check_joint(joint: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(joint, bool | np.bool_):
        raise ValueError(f"joint must be False or True. Got {joint!r}.")


def check_n_samples(n_samples: Any) -> None:
    """Refuse what is no number of draws."""
    whole = isinstance(n_samples, int | np.integer) and not isinstance(n_samples, bool)
    if not whole or n_samples < 1:
        raise ValueError(f"n_samples must be an int of at least 1. Got {n_samples!r}.")


def is_by_default(estimator: Any) -> bool:
    """Whether no parameter that shapes the model differs from its default."""
    given, usual = (one.get_params(deep=False) for one in (estimator, type(estimator)()))
    return all(
        value is usual[name] or (isinstance(value, PLAIN) and value == usual[name])
        for name, value in given.items()
        if name not in WITHOUT_SHAPE
    )
