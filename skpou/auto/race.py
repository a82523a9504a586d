"""Successive halving: members are fitted to small samples, the best to larger ones."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from torch import Tensor

from skpou.auto.members import fit_member
from skpou.auto.predictive import MemberDensity, unit_of
from skpou.auto.stacking import pooled, without_small
from skpou.core import Report, Rows
from skpou.core.models import MOST_TOGETHER, N_FOLDS, sets_to_leave_out

#: Distinct points that a race takes at least; with fewer nothing can be left out.
LEAST_POINTS = 8
#: Points up to which three fits leave rows out, and two: each has few rows to judge by. Up to the
#: last number a sample is all that is not left out: trials of half the rows cost about as much.
MOST_FITS, THREE_FITS, TWO_FITS, WHOLE_SAMPLES = 3, 60, 200, 400
#: Share of the points in the samples of the first rung, and in those of the last.
SMALL, LARGE = 1 / 8, 1 / 2
#: Small samples have so many points at least, and are not worth their fits beyond this share of the
#: large ones.
LEAST_SMALL, WORTH = 200, 1 / 4
#: Points up to which members that can be taken at their word are fitted to all of them at once:
#: with more, samples tell which are not worth it; races of 2600 took twice as long.
AT_THEIR_WORD = 5000
#: Points above which the large samples have so small a share.
MANY, LARGE_OF_MANY = 2000, 1 / 4
#: Folds that one fit leaves out: a quarter of the rows.
FOLDS_A_FIT = N_FOLDS // 4
#: Standard deviations below this part of the spread of y count as this part: where data are exact
#: nobody knows the seventh digit of the error from a few rows.
LEAST_STD = 1e-6
#: Log densities (natural, a row) that are as good as equal: the smaller error then decides.
ABOUT = 0.05
#: A member is dropped on the way when its log density is lower by this than the best, or its error
#: larger by this factor than the least; two stay in any case.
HOPELESS, HOPELESS_ERROR = 3.0, 10.0
#: Relative error that counts as none, round-off: a member that has no larger one ends the race.
ROUND_OFF = 1e-12
#: Factors by which bars that the left-out rows find too narrow are widened.
FACTORS = (1.0, 4.0, 16.0, 64.0, 256.0)
#: Rows that each member is credited with, and weights that are too small to be known from rows.
PRIOR_ROWS, LEAST_WEIGHT = 2.0, 0.05
#: Log density of a row that no member's is below, and relative error that none's is above: they are
#: the worst either way, and their squares are numbers.
LEAST_LOG_DENSITY, MOST_RELATIVE = -1e12, 1e100


@dataclass(frozen=True)
class Data:
    """Distinct pairs of point and target, in a fixed order.

    Attributes
    ----------
    X : ndarray of shape (n, d)
    y : ndarray of shape (n, m)
    weight : ndarray of shape (n,)
        How often each pair was given.
    point : ndarray of shape (n,)
        Number of the distinct point of each pair.
    spread : ndarray of shape (m,)
        Root mean square of each target about its mean; that of a constant target is its size.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    point: np.ndarray
    spread: np.ndarray

    @classmethod
    def from_rows(cls, rows: Rows, spread: np.ndarray) -> Data:
        """Of merged rows in units of X and y."""
        pairs, point = rows.pairs(), np.arange(rows.n_rows)
        if rows.repeats is not None:
            point = rows.repeats.point.cpu().numpy()
        X, y, weight = (part.cpu().numpy() for part in (pairs.X, pairs.y, pairs.weight))
        return cls(X, y, weight, point, spread)

    @property
    def n_points(self) -> int:
        """Number of distinct points."""
        return int(self.point[-1]) + 1

    @property
    def points(self) -> np.ndarray:
        """The distinct points."""
        return self.X[np.unique(self.point, return_index=True)[1]]

    def at(self, points: np.ndarray) -> Data:
        """All pairs at some of the distinct points."""
        some = np.flatnonzero(np.isin(self.point, points))
        return Data(self.X[some], self.y[some], self.weight[some], self.point[some], self.spread)

    def targets(self) -> np.ndarray:
        """Targets as members take them: without an axis where there is one output."""
        return self.y[:, 0] if self.y.shape[1] == 1 else self.y


class Rung(NamedTuple):
    """Fits of one size: points that are fitted, and that are left out, of each."""

    fits: list[tuple[np.ndarray, np.ndarray]]


def plan_rungs(data: Data, rng: np.random.Generator) -> list[Rung]:
    """What is fitted and what left out, from small samples to large ones.

    Left-out points are folds and, where columns have few values, whole levels.
    """
    n = data.n_points
    if n < LEAST_POINTS:
        return []
    n_fits = MOST_FITS if n <= THREE_FITS else 2 if n <= TWO_FITS else 1
    order, fits = rng.permutation(n), []
    for left_out in _left_out(data.points, n_fits, rng):
        fits.append((order[~np.isin(order, left_out)], left_out))
    if n <= WHOLE_SAMPLES:
        return [Rung([(np.sort(others), left_out) for others, left_out in fits])]
    small, large = max(LEAST_SMALL, int(SMALL * n)), int(LARGE * n)
    sizes = (small, large) if small <= WORTH * large else (large,)
    if n > MANY:
        sizes = (small, int(LARGE_OF_MANY * n))
    return [Rung([(np.sort(others[:size]), out) for others, out in fits]) for size in sizes]


def _left_out(X: np.ndarray, n_fits: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Points that each fit leaves out: some folds, and a level of a column if there are any."""
    n, some = len(X), np.arange(len(X))
    # A fold of more rows is not kept: its rows say the same as those of a part.
    most = N_FOLDS * MOST_TOGETHER
    if n > most:
        some = np.sort(rng.permutation(n)[:most])
    sets = sets_to_leave_out(X[some], rng, neighbourhoods=False)
    n_folds = min(N_FOLDS, len(some))
    # Of a part of the rows a level is not the whole level.
    folds, levels = sets[:n_folds], sets[n_folds:] if n <= most else []
    levels = [levels[k] for k in rng.permutation(len(levels))]
    for fit in range(n_fits):
        parts = folds[FOLDS_A_FIT * fit : FOLDS_A_FIT * (fit + 1)]
        together = np.unique(np.concatenate([*parts, *levels[fit : fit + 1]]))
        # Half of the rows must stay for the fit.
        few = len(together) <= len(some) // 2
        yield some[together if few else np.unique(np.concatenate(parts))]


class Trial(NamedTuple):
    """A member fitted to some rows, judged at others.

    Attributes
    ----------
    log_density : ndarray of shape (k, S)
        At the left-out rows, for each factor that widens the bars; per unit of the spread of y.
    error : ndarray of shape (k, m)
        Target less mean, in units of the spread of y.
    failure : Exception or None
        What the fit ended with, if it did.
    """

    log_density: np.ndarray
    error: np.ndarray
    n_points: int
    seconds: float
    failure: Exception | None


def run_trial(member: Any, data: Data, fitted: np.ndarray, out: np.ndarray, threads: int) -> Trial:
    """Fit a copy of a member to some of the points and judge it at others."""
    start, train, test = time.process_time(), data.at(fitted), data.at(out)
    torch.set_num_threads(threads)
    unit = torch.as_tensor(unit_of(data.spread), device="cpu")
    y = torch.as_tensor(test.y, device="cpu") / unit
    spread = torch.as_tensor(data.spread, device="cpu") / unit
    failure: Exception | None = None
    log_density = np.full((len(test.y), len(FACTORS)), LEAST_LOG_DENSITY)
    error = np.full(test.y.shape, MOST_RELATIVE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = fit_member(copy.deepcopy(member), train.X, train.targets(), train.weight)
            density = MemberDensity(model, test.X, unit)
            logs = density.floored_log_density(y, FACTORS, LEAST_STD * spread).numpy()
            logs = logs + float(spread.log().sum())
            log_density = np.maximum(np.nan_to_num(logs, nan=-np.inf), LEAST_LOG_DENSITY)
            error = np.nan_to_num(((y - density.mean()) / spread).numpy(), nan=MOST_RELATIVE)
            error = np.clip(error, -MOST_RELATIVE, MOST_RELATIVE)
        # Whatever a member meets, the others go on.
        except Exception as caught:
            failure = caught
    return Trial(log_density, error, len(fitted), time.process_time() - start, failure)


class Standing(NamedTuple):
    """What the trials of one member in a rung say together.

    Attributes
    ----------
    weight : Tensor of shape (k,)
        Of the rows that were left out.
    log_density : Tensor of shape (k,)
        At these, with the bars as wide as they ask for.
    shares : Tensor of shape (S,)
        With what probability the bars are wider by each factor.
    score : float
        Mean of the log density.
    error : float
        Root mean square, in units of the spread of y.
    """

    weight: Tensor
    log_density: Tensor
    shares: Tensor
    score: float
    error: float
    n_outputs: int


def standing_of(trials: Sequence[Trial], weight: Tensor) -> Standing:
    """Put the trials of one member together."""
    logs = torch.as_tensor(np.concatenate([trial.log_density for trial in trials]), device="cpu")
    prior = torch.zeros_like(logs[0])
    prior[0] = PRIOR_ROWS
    shares = without_small(logs, weight, prior, LEAST_WEIGHT, len(FACTORS))
    wide_enough = pooled(logs, shares)
    error = np.concatenate([trial.error for trial in trials])
    square = float(weight @ torch.as_tensor(np.square(error).mean(1), device="cpu"))
    total = float(weight.sum())
    score = float(weight @ wide_enough) / total
    size = max((square / total) ** 0.5, ROUND_OFF)
    return Standing(weight, wide_enough, shares, score, size, error.shape[1])


@dataclass
class Race:
    """How far a race has come.

    Attributes
    ----------
    alive : list of int
        Members that race and are left, the leader first.
    trusted : list of int
        Members that need no race: their own bars tell how good they are.
    standings : dict of int to Standing
        Of the members in the last rung.
    board : list of dict
        A line for each member and rung.
    failures : dict of int to Exception
        First failure of each member that failed.
    """

    names: list[str]
    alive: list[int]
    trusted: list[int] = field(default_factory=list)
    standings: dict[int, Standing] = field(default_factory=dict)
    board: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[int, Exception] = field(default_factory=dict)


def count_trials(rungs: Sequence[Rung], n_racing: int, most: int) -> int:
    """Most trials that the rungs can take."""
    alive = [n_racing, *[min(n_racing, max(most, 2))] * len(rungs)]
    return sum(len(rung.fits) * k for rung, k in zip(rungs, alive))


def run_race(
    members: Sequence[Any],
    race: Race,
    data: Data,
    rungs: Sequence[Rung],
    most: int,
    n_jobs: int | None,
    report: Report,
) -> None:
    """Fit all members that race to small samples, those that may still win to larger ones.

    Parameters
    ----------
    members : sequence of regressor
        Unfitted.
    race : Race
        What is found is written here, so that it is not lost where a report ends the race.
    data : Data
        All rows.
    rungs : sequence of Rung
        From `plan_rungs`.
    most : int
        Members that reach the last rung at most, or two.
    n_jobs : int or None
        Processes, as joblib takes them.
    report : callable
        Takes a line for each trial, `count_trials` of them.
    """
    planned = len(race.alive)
    for rung in rungs if planned else ():
        before = len(race.board)
        _run_rung(members, race, data, rung, n_jobs, report)
        for _ in range((planned - (len(race.board) - before)) * len(rung.fits)):
            report("not needed")
        race.alive = _survivors(race, most)
        planned = min(planned, max(most, 2))


def _run_rung(
    members: Sequence[Any], race: Race, data: Data, rung: Rung, n_jobs: int | None, report: Report
) -> None:
    """Trials of all members that are left; none where one has been exact before."""
    if any(is_exact(standing) for standing in race.standings.values()):
        return
    weight = torch.as_tensor(
        np.concatenate([data.at(out).weight for _, out in rung.fits]), device="cpu"
    )
    race.standings, alive = {}, list(race.alive)
    trials = _trials(members, alive, data, rung, n_jobs)
    for k in alive:
        own = []
        for fit in range(len(rung.fits)):
            own.append(next(trials))
            report(_line(race.names[k], own[-1], fit, len(rung.fits)))
        race.standings[k] = standing_of(own, weight)
        failure = next((trial.failure for trial in own if trial.failure), None)
        if failure is not None:
            race.failures.setdefault(k, failure)
        race.board.append(_board_line(race.names[k], own, race.standings[k], data))
        race.alive = _order(race, alive)
        if is_exact(race.standings[k]):
            break


def is_exact(standing: Standing) -> bool:
    """Whether a member is as good as floating-point numbers allow: no other can be better."""
    best = -standing.n_outputs * math.log(LEAST_STD * math.sqrt(2 * math.pi)) - ABOUT
    return standing.error <= ROUND_OFF and standing.score >= best


def _trials(
    members: Sequence[Any], alive: Sequence[int], data: Data, rung: Rung, n_jobs: int | None
) -> Iterator[Trial]:
    """All trials of a rung, in order, as they are done."""
    # Each worker with as many threads as the caller: sums of other parts have other last bits.
    threads = torch.get_num_threads()
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    return parallel(
        joblib.delayed(run_trial)(members[k], data, fitted, out, threads)
        for k in alive
        for fitted, out in rung.fits
    )


def _line(name: str, trial: Trial, fit: int, n_fits: int) -> str:
    which = f", part {fit + 1} of {n_fits}" if n_fits > 1 else ""
    if trial.failure is not None:
        return f"{name} failed: {type(trial.failure).__name__}: {trial.failure}"
    return (
        f"{name}{which}: {trial.n_points} points, "
        f"log density {trial.log_density[:, 0].mean():.4g} at {len(trial.error)} left-out rows"
    )


def _board_line(
    name: str, trials: Sequence[Trial], standing: Standing, data: Data
) -> dict[str, Any]:
    failed = any(trial.failure is not None for trial in trials)
    score = standing.score - float(np.log(data.spread).sum())
    return {
        "member": name,
        "rows": int(np.mean([trial.n_points for trial in trials])),
        "log_density": np.nan if failed else score,
        "error": np.nan if failed else standing.error,
        "seconds": sum(trial.seconds for trial in trials),
    }


def _order(race: Race, alive: Sequence[int]) -> list[int]:
    """Members with a standing, the leader first."""
    known = sorted(k for k in alive if k in race.standings and k not in race.failures)
    standings = [race.standings[k] for k in known]
    order = order_of([one.score for one in standings], [one.error for one in standings])
    return [known[i] for i in order]


def order_of(scores: Sequence[float], errors: Sequence[float]) -> list[int]:
    """Numbers of members, the leader first: the least error among the about likeliest."""
    best = max(scores, default=0.0)

    def key(k: int) -> tuple[bool, float, int]:
        about = scores[k] >= best - ABOUT
        return (not about, errors[k] if about else -scores[k], k)

    return sorted(range(len(scores)), key=key)


def _survivors(race: Race, most: int) -> list[int]:
    """Members that go on: at least two where there are, no more than `most` otherwise."""
    order = race.alive
    if not order:
        return order
    best = max(race.standings[k].score for k in order)
    least = min(race.standings[k].error for k in order)

    def may_win(k: int) -> bool:
        standing = race.standings[k]
        near = standing.score >= best - HOPELESS
        return near or standing.error <= HOPELESS_ERROR * least

    return [k for i, k in enumerate(order[: max(most, 2)]) if i < 2 or may_win(k)]
