"""The end of a race: the fits to all rows, and which densities are stacked."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch

from skpou.auto.claims import (
    COLUMNS_OF_BOX,
    MOST_ERROR,
    Claim,
    chance_of_error,
    claim_of,
    contradicted,
    is_calibrated,
    jumps,
    probes_of,
    weights_by_claims,
)
from skpou.auto.members import fit_member
from skpou.auto.race import FACTORS, LEAST_WEIGHT, PRIOR_ROWS, Data, Race, is_exact, order_of
from skpou.auto.stacking import without_small
from skpou.base import StopRequested
from skpou.core import Report

#: Points between rows at which a mean is looked at, as many again in the box of the rows where
#: these have few columns, and distance from all targets, in units of their range, that no mean may
#: have there where another keeps within.
N_BETWEEN, BEYOND = 1000, 1.0
#: How many times as far as most members a mean may be there where most leave the range: means that
#: go on towards the same pole differ by less.
FARTHER = 10.0
#: Fits to all rows of some members, in order, as they are done.
Fits = Callable[..., Iterator[tuple[int, "Whole"]]]
#: Members that are fitted before one that is exact ends the fits: another must not contradict it;
#: and that leave the range of the targets together where these may well grow beyond it.
LEAST_FITS = 2


class Whole(NamedTuple):
    """A member fitted to all rows.

    Attributes
    ----------
    model : regressor or None
        None where the fit failed.
    messages : list of Warning
        What the fit warned of.
    is_wild : bool
        Whether the mean leaves the range of the targets by far between the rows.
    claim : Claim or None
        What it says of targets between the rows.
    beyond : ndarray of shape (2, m) or None
        How far the mean leaves the range of the targets above and below there, at most, in units of
        the range; None where it is no number.
    """

    model: Any
    seconds: float
    messages: list[Warning]
    failure: Exception | None
    is_wild: bool = False
    claim: Claim | None = None
    beyond: np.ndarray | None = None

    @property
    def is_good(self) -> bool:
        """Whether it may predict: its bars are numbers, too."""
        has_bars = self.claim is None or np.isfinite(self.claim.score)
        return self.failure is None and not self.is_wild and bool(has_bars)


@dataclass(frozen=True)
class Outcome:
    """Fitted members, the heaviest first, and their weights.

    Attributes
    ----------
    weights : ndarray of shape (K,)
    shares : ndarray of shape (K, S)
        With what probability each is widened by each of `FACTORS`.
    others : dict of int to Whole
        Other fits to all rows: less likely ones, and those that failed or were wild.
    doubter : regressor or None
        Fitted member whose bars and whose distance are how far the stack may be off.
    doubt : float
        Chance that it is.
    doubter_factor : float
        Factor of the doubter's standard deviations, at most 1.
    """

    members: list[int]
    whole: list[Whole]
    weights: np.ndarray
    shares: np.ndarray
    others: dict[int, Whole]
    doubter: Any = None
    doubt: float = 0.0
    doubter_factor: float = 1.0


def outcome_of(
    members: Sequence[Any], race: Race, data: Data, most: int, n_jobs: int | None, report: Report
) -> Outcome:
    """Fit the members that are left to all rows, and stack the densities of the best.

    A member that fails there, or leaves the range of the targets by far between the rows where most
    others do not, is left out; where all do, the next one takes their place.

    Raises
    ------
    Exception
        The first failure, where no member can be fitted.
    """

    def fits(
        which: Sequence[int], until: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, Whole]]:
        for k, one in zip(which, _whole_fits(members, which, data, n_jobs)):
            yield k, one
            what = "fitted to all rows" if one.failure is None else f"failed: {one.failure}"
            what += ", but far from all targets between them" if one.is_wild else ""
            report(f"{race.names[k]} {what}")
            if until():
                return

    if race.trusted:
        return _by_claims(race, data, most, fits)
    likely, weights, shares = stack(race, most)
    second = [k for k in race.alive if k not in likely and k in race.standings]
    alone = len(likely) == 1 and likely[0] in race.standings
    second = second[:1] if alone and not is_exact(race.standings[likely[0]]) else []
    whole = excused(dict(fits([*likely, *second])))
    good = [i for i, k in enumerate(likely) if whole[k].is_good]
    if not good:
        likely, weights, shares = _in_their_place(len(members), race, whole, fits)
        good = [0]
    weights = weights[good] / weights[good].sum()
    return _outcome([likely[i] for i in good], weights, shares[good], whole, race, data)


def _by_claims(race: Race, data: Data, most: int, fits: Fits) -> Outcome:
    """The stack of members of which some are taken at their word."""
    whole: dict[int, Whole] = {}
    try:
        which = sorted([*race.trusted, *race.alive])
        for k, one in fits(which, lambda: _none_is_better(whole, data)):
            whole[k] = one
    except StopRequested:
        most = 1
    whole = excused(whole)
    claims = {k: one.claim for k, one in whole.items() if one.is_good and one.claim is not None}
    if not claims:
        n_members = len(race.names)
        likely, weights, shares = _in_their_place(n_members, race, whole, fits)
        return _outcome(likely, weights, shares, whole, race, data)
    scores, errors, own = [], [], _as_they_are(1)[0]
    # Errors with noise, where one does not tell it from the rest.
    told = all(is_calibrated(whole[k].model) for k in claims)
    for k, claim in claims.items():
        standing = race.standings.get(k)
        # What left-out rows say of one that is not taken at its word.
        scores.append(claim.score if standing is None else min(claim.score, standing.score))
        error = claim.error if told else claim.total
        errors.append(error if standing is None else max(error, standing.error))
    good = list(claims)
    chosen, weights = weights_by_claims(scores, errors, most)
    order = np.argsort(-weights, kind="stable")
    likely = [good[chosen[i]] for i in order]
    of_members = {k: s.shares.numpy() for k, s in race.standings.items()}
    shares = np.stack([of_members.get(k, own) for k in likely])
    return _outcome(likely, weights[order], shares, whole, race, data)


def _none_is_better(whole: dict[int, Whole], data: Data) -> bool:
    """Whether one is exact, and nothing says that it is not."""
    good = [one for one in whole.values() if one.is_good]
    return len(whole) >= LEAST_FITS and any(
        one.claim is not None and one.claim.exact and not _may_be_wrong(one, good, data)
        for one in good
    )


def _may_be_wrong(one: Whole, others: Sequence[Whole], data: Data) -> bool:
    """Whether a fit that takes itself for exact jumps, or another often contradicts it."""
    claims = [other.claim for other in others if other is not one and other.claim is not None]
    against = one.claim is not None and any(contradicted(one.claim, claim) for claim in claims)
    return against or jumps(one.model, data)


def _outcome(
    likely: list[int],
    weights: np.ndarray,
    shares: np.ndarray,
    whole: dict[int, Whole],
    race: Race,
    data: Data,
) -> Outcome:
    """The stack of some of the whole fits, and who doubts it."""
    others = {k: one for k, one in whole.items() if k not in likely}
    stacked = [whole[k] for k in likely]
    outcome = Outcome(likely, stacked, weights, shares, others)
    claims = {k: one.claim for k, one in others.items() if one.is_good and one.claim is not None}
    if claims:
        known = list(claims.values())
        order = order_of([claim.score for claim in known], [claim.error for claim in known])
        number = list(claims)[order[0]]
    elif len(likely) > 1:
        number = likely[-1]
    else:
        return outcome
    second = whole[number]
    exact = all(one.claim is not None and one.claim.exact for one in stacked)
    if exact and not any(_may_be_wrong(one, [second], data) for one in stacked):
        return outcome
    doubt, factor = chance_of_error(data.n_points), _factor_of_bars(second, race, number)
    return replace(outcome, doubter=second.model, doubt=doubt, doubter_factor=factor)


def _factor_of_bars(one: Whole, race: Race, number: int) -> float:
    """By what the bars of a doubter are narrowed: no wider than its errors at left-out rows.

    Bars of any width may come from a member that nobody vouches for, and a small chance of them
    would be most of the stack's variance.
    """
    standing = race.standings.get(number)
    if standing is None or one.claim is None:
        return 1.0
    return min(1.0, standing.error / one.claim.total)


def _in_their_place(
    n_members: int, race: Race, whole: dict[int, Whole], fits: Fits
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Another member, where none is good: in the order of the race; else a wild one.

    Raises
    ------
    Exception
        The first failure, where no member can be fitted.
    """
    unfitted = [k for k in race.alive if k not in whole and k in race.standings]
    for k in [*whole, *unfitted]:
        if k not in whole:
            whole.update(fits([k]))
        if whole[k].is_good:
            return [k], np.ones(1), _as_they_are(1)
    others = [k for k in range(n_members) if k not in whole and k not in race.failures]
    while True:
        fitted = [k for k, one in whole.items() if one.failure is None]
        if fitted:
            return fitted[:1], np.ones(1), _as_they_are(1)
        for k, one in whole.items():
            race.failures.setdefault(k, one.failure or RuntimeError())
        if not others:
            raise next(iter(race.failures.values()))
        whole.update(fits([others.pop(0)]))


def stack(race: Race, most: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Members of the stack, the weights of their densities, and by what their bars are widened.

    Parameters
    ----------
    race : Race
        After its last rung.

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
    prior = torch.full_like(logs[0], PRIOR_ROWS)
    pi = without_small(logs, leader.weight, prior, LEAST_WEIGHT, most).numpy()
    order = [i for i in np.argsort(-pi, kind="stable") if pi[i] > 0]
    likely = [near[i] for i in order]
    shares = torch.stack([race.standings[k].shares for k in likely]).numpy()
    return likely, pi[order], shares


def _as_they_are(n_members: int) -> np.ndarray:
    """Shares of bars that nothing widens."""
    shares = np.zeros((n_members, len(FACTORS)))
    shares[:, 0] = 1.0
    return shares


def _whole_fits(
    members: Sequence[Any], which: Sequence[int], data: Data, n_jobs: int | None
) -> Iterator[Whole]:
    """Fits to all rows, in order, as they are done."""
    threads = torch.get_num_threads()
    return joblib.Parallel(n_jobs=n_jobs, return_as="generator")(
        joblib.delayed(_fit_whole)(members[k], data, threads) for k in which
    )


def _fit_whole(member: Any, data: Data, threads: int) -> Whole:
    start = time.process_time()
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = copy.deepcopy(member)
            fit_member(model, data.X, data.targets(), data.weight)
            seconds = time.process_time() - start
            beyond, claim = distance_beyond(model, data), claim_of(model, data, probes_of(data))
        # Whatever a member meets, the others go on.
        except Exception as failure:
            return Whole(None, time.process_time() - start, [], failure)
    messages = [one.message for one in caught if isinstance(one.message, Warning)]
    is_wild = beyond is None or bool((beyond > BEYOND).any())
    return Whole(model, seconds, messages, None, is_wild, claim, beyond)


def excused(whole: dict[int, Whole]) -> dict[int, Whole]:
    """The fits, none of them wild where most leave the range: beside a pole targets go on to grow.

    Unless its mean goes much farther than most do.
    """
    told = [one.beyond for one in whole.values() if one.beyond is not None]
    half = max(len(whole) // 2, LEAST_FITS - 1)
    if len(told) <= half:
        return whole
    most = -np.sort(-np.stack(told), axis=0)[half]
    result = dict(whole)
    for k, one in whole.items():
        if one.is_wild and one.beyond is not None:
            with_most = (most > BEYOND) & (one.beyond <= FARTHER * most)
            result[k] = one._replace(is_wild=not ((one.beyond <= BEYOND) | with_most).all())
    return result


def distance_beyond(model: Any, data: Data) -> np.ndarray | None:
    """How far a mean leaves the range of the targets between the rows, as `Whole` has it."""
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
    if np.isnan(mean).any():
        return None
    return np.stack([(mean - high).max(0), (low - mean).max(0)]) / width
