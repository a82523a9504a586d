"""The end of a race: which densities are stacked, and the fits to all rows."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch

from skpou.auto.members import fit_member
from skpou.auto.race import FACTORS, LEAST_WEIGHT, PRIOR_ROWS, Data, Race
from skpou.auto.stacking import without_small
from skpou.core import Report

#: Errors of the members of a stack relative to the leader's: a mean with a share of a larger error
#: would lose what the leader knows.
MOST_ERROR = 2.0
#: Points between rows at which a mean is looked at, as many again in the box of the rows up to so
#: many columns (in more of them the box is mostly empty), and distance from all targets, in units
#: of their range, that no mean may have there where another keeps within.
N_BETWEEN, COLUMNS_OF_BOX, BEYOND = 1000, 3, 1.0


class Whole(NamedTuple):
    """A member fitted to all rows.

    Attributes
    ----------
    model : regressor or None
        None where the fit failed.
    seconds : float
    messages : list of Warning
        What the fit warned of.
    failure : Exception or None
    is_wild : bool
        Whether the mean leaves the range of the targets by far between the rows.
    """

    model: Any
    seconds: float
    messages: list[Warning]
    failure: Exception | None
    is_wild: bool = False


@dataclass(frozen=True)
class Outcome:
    """Fitted members, the heaviest first, and their weights.

    Attributes
    ----------
    members : list of int
        Their numbers.
    whole : list of Whole
    weights : ndarray of shape (K,)
    shares : ndarray of shape (K, S)
        With what probability each is widened by each of `FACTORS`.
    dropped : dict of int to Whole
        Fits to all rows that failed or were wild.
    """

    members: list[int]
    whole: list[Whole]
    weights: np.ndarray
    shares: np.ndarray
    dropped: dict[int, Whole]


def finish(
    members: Sequence[Any],
    race: Race,
    data: Data,
    most: int,
    n_jobs: int | None,
    report: Report,
) -> Outcome:
    """Stack the densities of the best and fit these to all rows.

    A member that fails there, or leaves the range of the targets by far between the rows, is left
    out; where all do, the next one takes their place.

    Raises
    ------
    Exception
        The first failure, where no member can be fitted.
    """

    def fits(which: list[int]) -> list[Whole]:
        return list(_whole_fits(members, race.names, which, data, n_jobs, report))

    kept, weights, shares = stack(race, most)
    whole = fits(kept)
    good = [i for i, one in enumerate(whole) if one.failure is None and not one.is_wild]
    if not good:
        # In the order of the race.
        for k in [k for k in race.alive if k not in kept and k in race.standings]:
            other = fits([k])
            if other[0].failure is None and not other[0].is_wild:
                return Outcome([k], other, np.ones(1), _as_they_are(1), dict(zip(kept, whole)))
        good = [i for i, one in enumerate(whole) if one.failure is None]
    others = [k for k in range(len(members)) if k not in (*kept, *race.failures)]
    while not good:
        for k, one in zip(kept, whole):
            race.failures.setdefault(k, one.failure or RuntimeError())
        if not others:
            raise next(iter(race.failures.values()))
        kept, weights, shares = [others.pop(0)], np.ones(1), _as_they_are(1)
        whole = fits(kept)
        good = [i for i, one in enumerate(whole) if one.failure is None]
    weights = weights[good] / weights[good].sum()
    dropped = {k: whole[i] for i, k in enumerate(kept) if i not in good}
    which = [kept[i] for i in good]
    return Outcome(which, [whole[i] for i in good], weights, shares[good], dropped)


def stack(race: Race, most: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Members of the stack, the weights of their densities, and by what their bars are widened.

    Parameters
    ----------
    race : Race
        After its last rung.
    most : int
        Most members of the stack.

    Returns
    -------
    members : list of int
        The heaviest first.
    weights : ndarray of shape (K,)
    shares : ndarray of shape (K, S)
        Of each factor of `FACTORS`.
    """
    known = [k for k in race.alive if k in race.standings]
    if not known:
        return race.alive[:1], np.ones(len(race.alive[:1])), _as_they_are(len(race.alive[:1]))
    leader = race.standings[known[0]]
    near = [k for k in known if race.standings[k].error <= MOST_ERROR * leader.error]
    logs = torch.stack([race.standings[k].log_density for k in near], 1)
    assert race.weight is not None
    prior = torch.full_like(logs[0], PRIOR_ROWS)
    pi = without_small(logs, race.weight, prior, LEAST_WEIGHT, most).numpy()
    order = [i for i in np.argsort(-pi, kind="stable") if pi[i] > 0]
    kept = [near[i] for i in order]
    shares = torch.stack([race.standings[k].shares for k in kept]).numpy()
    return kept, pi[order], shares


def _as_they_are(n_members: int) -> np.ndarray:
    """Shares of bars that nothing widens."""
    shares = np.zeros((n_members, len(FACTORS)))
    shares[:, 0] = 1.0
    return shares


def _whole_fits(
    members: Sequence[Any],
    names: Sequence[str],
    which: Sequence[int],
    data: Data,
    n_jobs: int | None,
    report: Report,
) -> Iterator[Whole]:
    """Fits to all rows, in order, as they are done."""
    threads = torch.get_num_threads()
    fits = joblib.Parallel(n_jobs=n_jobs, return_as="generator")(
        joblib.delayed(_fit_whole)(members[k], data, threads) for k in which
    )
    for k, whole in zip(which, fits):
        what = "fitted to all rows" if whole.failure is None else f"failed: {whole.failure}"
        what += ", but far from all targets between them" if whole.is_wild else ""
        report(f"{names[k]} {what}")
        yield whole


def _fit_whole(member: Any, data: Data, threads: int) -> Whole:
    start = time.process_time()
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = copy.deepcopy(member)
            fit_member(model, data.X, data.targets(), data.weight)
            wild = is_wild(model, data)
        # Whatever a member meets, the others go on.
        except Exception as failure:
            return Whole(None, time.process_time() - start, [], failure)
    messages = [one.message for one in caught if isinstance(one.message, Warning)]
    return Whole(model, time.process_time() - start, messages, None, wild)


def is_wild(model: Any, data: Data) -> bool:
    """Whether a mean leaves the range of the targets by far somewhere between the rows."""
    rng, points, n = np.random.default_rng(0), data.points, data.n_points
    d = points.shape[1]
    first, second = points[rng.integers(n, size=(2, N_BETWEEN))]
    between = [first + rng.random((N_BETWEEN, 1)) * (second - first)]
    if d <= COLUMNS_OF_BOX:
        corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * d), -1).reshape(-1, d)
        share = np.concatenate([corners, rng.random((N_BETWEEN, d))])
        between.append((1 - share) * points.min(0) + share * points.max(0))
    mean = np.asarray(model.predict(np.concatenate(between)), dtype=float)
    mean = mean.reshape(-1, data.y.shape[1])
    low, high = data.y.min(0), data.y.max(0)
    width = np.maximum(high - low, data.spread)
    outside = np.maximum(low - mean, mean - high) > BEYOND * width
    return bool(outside.any() or np.isnan(mean).any())
