"""Fit random estimators to random odd data, and look for what no fit may do.

``python -m tests.fuzz --seconds 600 --seed 1000 --jobs 2`` fits the seeds from 1000 on, prints a
line for each that fails and a summary; its exit status is 1 if any does. ``--only SEED`` fits one
and prints its data. A seed always draws the same case: see `tests.fuzz_data`.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import pickle
import re
import signal
import sys
import time
import traceback
import warnings
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

from tests.fuzz_data import MADE_OF_OTHERS, draw_case

#: Seconds of the processor that a fit may take: at once, for every row of an output, and for every
#: iteration of a network of a given size.
SECONDS, SECONDS_A_ROW, SECONDS_AN_ITERATION = 5.0, 0.05, 0.05
#: Factor on these where others are fitted inside, where an equation is solved, or where each block
#: of rows takes the matrix of a whole grid with it.
SECONDS_OF_MANY = 6.0
#: Spreads of y (max - min) by which predictions in the box of the rows may leave its range.
SPREADS_BEYOND = 3.0
#: Least weight of a row beside the heaviest one, to which estimators raise smaller ones.
LEAST_WEIGHT = 1e-12
#: By how much less than the largest class a classifier may get right at its own rows.
LEAST_SHARE = 0.25


@dataclass
class Outcome:
    """What became of a case.

    Attributes
    ----------
    seed : int
    name : str
        Of the estimator's class.
    text : str
        The case in words.
    refused : str
        Message of the error that refused the case and named the cause; "" if it was fitted.
    failures : list of str
        What was wrong.
    trace : str
        Traceback of the error, of either kind.
    seconds : dict
        Those of the processor for the fit and for the predictions.
    """

    seed: int
    name: str
    text: str
    refused: str = ""
    failures: list = field(default_factory=list)
    trace: str = ""
    seconds: dict = field(default_factory=dict)


class Hang(BaseException):
    """Too much time has passed."""


@contextlib.contextmanager
def stopped_after(seconds):
    """Raise `Hang` in the block after so many seconds of the processor, where signals can."""

    def stop(*_):
        raise Hang(f"stopped after {seconds:.0f} s")

    if not hasattr(signal, "SIGPROF"):
        yield
        return
    earlier = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)


# One case


def run_seed(seed):
    """The `Outcome` of a seed."""
    return run_case(draw_case(seed))


def run_case(case, estimator=None):
    """The `Outcome` of a case, with another estimator than its own if one is given."""
    outcome = Outcome(case.seed, case.name, str(case))
    model = estimator or case.estimator()
    allowed = seconds_allowed(case)
    with warnings.catch_warnings(record=True) as caught, stopped_after(3 * allowed):
        warnings.simplefilter("always")
        try:
            with _timed(outcome, "fit"):
                fitted = _fit(model, case, outcome)
            if fitted:
                with _timed(outcome, "predictions"):
                    outcome.failures += wrong_predictions(model, case)
        except (Exception, Hang) as error:
            stage = "predictions" if "fit" in outcome.seconds else "fit"
            outcome.failures.append(f"{stage}: {type(error).__name__}: {error}")
            outcome.trace = traceback.format_exc()
    outcome.failures += [
        f"{part} took {seconds:.1f} s, more than {allowed:.1f}"
        for part, seconds in outcome.seconds.items()
        if seconds > allowed
    ]
    outcome.failures += dict.fromkeys(wrong_warnings(caught))
    return outcome


def seconds_allowed(case):
    """Seconds of the processor that the fit may take, and that all predictions may take."""
    params = case.estimator().get_params()
    network = params.get("hidden_layer_sizes", "auto") != "auto"
    if "gate" in params:
        network = params["gate"] in ("mlp", "residual")
    iterations = params["max_iter"] if network else 0
    many = case.name in MADE_OF_OTHERS or "physics" in case.params or case.n_blocks > 1
    seconds = SECONDS + SECONDS_A_ROW * case.y.size + SECONDS_AN_ITERATION * iterations
    return seconds * (SECONDS_OF_MANY if many else 1.0)


@contextlib.contextmanager
def _timed(outcome, part):
    start = time.process_time()
    yield
    outcome.seconds[part] = time.process_time() - start


def _fit(model, case, outcome):
    """Fit; whether the case was not refused with a message that names the cause."""
    try:
        if case.n_blocks > 1:
            _fit_blocks(model, case)
        else:
            model.fit(case.points(case.X), case.targets(case.y), sample_weight=case.weight)
    except (ValueError, TypeError) as error:
        if not names_cause(str(error), model):
            raise
        outcome.refused = f"{type(error).__name__}: {error}"
        outcome.trace = traceback.format_exc()
        return False
    return True


def _fit_blocks(model, case):
    classes = {"classes": np.unique(case.y)} if hasattr(model, "predict_proba") else {}
    for index in np.array_split(np.arange(len(case.X)), case.n_blocks):
        weight = None if case.weight is None else case.weight[index]
        points, y = case.points(case.X[index]), case.targets(case.y[index])
        model.partial_fit(points, y, sample_weight=weight, **classes)


def names_cause(message, estimator):
    """Whether an error names an argument, a column or a parameter, and does so rightly.

    No case holds NaN or infinity, nor does any array lack rows.
    """
    names = ["X", "y", "[Ss]ample.weights?", "[Cc]olumns?", *estimator.get_params()]
    named = re.search(rf"(?<!\w)({'|'.join(names)})(?!\w)", message)
    return bool(named) and not re.search(r"NaN|infinity|\b0 sample", message)


def wrong_warnings(caught):
    """Yield what is wrong about warnings: those that are neither expected nor the package's."""
    for warning in caught:
        kind = warning.category
        if issubclass(kind, ConvergenceWarning | DataConversionWarning):
            continue
        # The package's own warnings point at the line that called fit.
        if kind is UserWarning and Path(warning.filename) == Path(__file__):
            continue
        place = f"{Path(warning.filename).name}:{warning.lineno}"
        yield f"{kind.__name__} at {place}: {str(warning.message)[:100]}"


# Predictions


def wrong_predictions(model, case):
    """Yield what is wrong about predictions at the rows and at fresh ones."""
    classifier = hasattr(model, "predict_proba")
    results_of = class_results if classifier else regression_results
    copy = pickle.loads(pickle.dumps(model))
    wrong_there = wrong_classes if classifier else wrong_regression
    own, y = case.X[case.kept], case.y[case.kept]
    for where, X, y_there in (("its rows", own, y), ("fresh rows", case.fresh, None)):
        results = results_of(model, X, y_there, case)
        arrays = {kind: to_array(value) for kind, (value, _) in results.items()}
        for kind, (value, shape) in results.items():
            for wrong in _wrong_array(arrays[kind], shape, kind, case):
                yield f"{kind} at {where}: {wrong}"
            tensor = "tensor" in case.container and arrays[kind].dtype.kind in "biuf"
            if isinstance(value, torch.Tensor) != tensor:
                yield f"{kind} at {where}: {type(value).__name__} for {case.container}"
        again = results_of(copy, X, y_there, case)
        other = [k for k, (value, _) in again.items() if not _same_bits(arrays[k], to_array(value))]
        if other:
            yield f"{other[0]} and {len(other) - 1} more at {where}: other bits after pickling"
        for wrong in wrong_there(model, arrays, y_there, case):
            yield f"{wrong} at {where}"


def to_array(value):
    """A tensor, or what is an array already, as an array."""
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _same_bits(a, b):
    if a.dtype == object:  # Labels: their bits are addresses.
        return np.array_equal(a, b)
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def _wrong_array(array, shape, kind, case):
    if array.shape != shape:
        yield f"shape {array.shape} instead of {shape}"
    if array.dtype.kind != "f":
        return
    if (kind == "gradient" and case.is_steep) or case.may_be_infinite:
        array = np.where(np.isinf(array), 0.0, array)
    if not np.isfinite(array).all():
        number = int((~np.isfinite(array)).sum())
        yield f"{number} of {array.size} not finite, such as {array[~np.isfinite(array)][0]}"


def regression_results(model, X, y, case):
    """Predictions of every kind: by name the result and its right shape.

    `y` are the targets of these rows, if they are known.
    """
    points, (k, d) = case.points(X), X.shape
    alike = (k, *case.y.shape[1:])
    results = {"mean": (model.predict(points), alike)}
    for kind in (True, "epistemic", "noise"):
        mean, std = model.predict(points, return_std=kind)
        results[f"std {kind}"], results[f"mean with std {kind}"] = (std, alike), (mean, alike)
    results["quantiles"] = model.predict_quantile(points), (*alike, 3)
    results["samples"] = model.sample_y(points, 2), (*alike, 2)
    results["gradient"] = model.predict_gradient(points), (*alike, d)
    if y is not None:
        results["log_density"] = model.log_density(points, case.targets(y)), (k,)
    if hasattr(model, "staged_predict"):
        for stage, mean in enumerate(model.staged_predict(points)):
            results[f"stage {stage}"] = mean, alike
    if hasattr(model, "predict_partition"):
        share = model.partition_proba(points)
        results["share of partitions"] = share, (k, share.shape[1])
        results["partition"] = model.predict_partition(points), (k,)
    if hasattr(model, "predict_terms"):
        terms = model.predict_terms(points)
        results["terms"] = terms, (*alike, terms.shape[-1])
    return results | _embedding(model, points, k)


def _embedding(model, points, k):
    if not hasattr(model, "transform"):
        return {}
    return {"embedding": (model.transform(points), (k, len(model.get_feature_names_out())))}


def wrong_regression(model, arrays, y, case):
    """Yield what is wrong about predictions at rows with these targets, or with unknown ones."""
    for kind, array in arrays.items():
        if kind.startswith("std") and (array < 0).any():
            yield f"{kind} of {array.min():.3g}"
    if (np.diff(arrays["quantiles"], axis=-1) < 0).any():
        yield "quantiles cross"
    yield from _wrong_shares(arrays, "share of partitions")
    yield from _outside_box(arrays)
    mean = arrays["mean"]
    if mean.shape[1:] != case.y.shape[1:] or not case.follows_rows:
        return
    if y is not None and mean.shape == y.shape:
        fitted = ~np.isin(np.flatnonzero(case.kept), getattr(model, "outliers_", ()))
        yield from _worse_than_mean(mean, case, model.dtype, fitted)
    # The first block's box ends where later rows may lie.
    if case.params.get("alpha") != 0 and not case.has_negligible_rows and case.n_blocks == 1:
        yield from _beyond_range(mean, arrays["std True"], case)


def _wrong_shares(arrays, kind):
    shares = arrays.get(kind)
    if shares is None:
        return
    if (shares < 0).any() or np.abs(shares.sum(1) - 1).max() > 1e-5:
        yield f"{kind} from {shares.min():.3g} that add up to {shares.sum(1).max():.6g}"


def _outside_box(arrays):
    embedding = arrays.get("embedding")
    if embedding is not None and not ((embedding >= 0) & (embedding <= 1)).all():
        yield f"embedding from {embedding.min():.3g} to {embedding.max():.3g}"


def _in_units(case, mean):
    """Kept targets (n, m), predictions (k, m), in units of the largest, and these units."""
    y = case.y.reshape(len(case.y), -1)[case.kept]
    unit = np.abs(y).max(0)
    unit[unit == 0] = 1.0
    with np.errstate(over="ignore"):
        return y / unit, mean.astype(float).reshape(len(mean), -1) / unit


def _worse_than_mean(mean, case, dtype, fitted):
    """Yield outputs further from their rows than their weighted mean, beyond round-off.

    `fitted`: which of the kept rows; the fit is that of those that are no outliers.
    """
    y, mean = (part[fitted] for part in _in_units(case, mean))
    weight = np.ones(len(y)) if case.weight is None else case.weight[case.kept][fitted]
    weight = np.maximum(weight, LEAST_WEIGHT * weight.max())
    total = np.sqrt(np.average((y - np.average(y, 0, weight)) ** 2, 0, weight))
    left = np.sqrt(np.average((y - mean) ** 2, 0, weight))
    round_off = 1e3 * np.finfo(dtype).eps * total + 4 * np.finfo(mean.dtype).eps
    worse = ~(left <= (1 + 5e-7) * total + round_off) & (np.ptp(y, axis=0) > 0)
    for output in np.flatnonzero(worse):
        yield f"R2 of output {output} is {1 - (left[output] / total[output]) ** 2:.3g}"


def _beyond_range(mean, std, case):
    """Yield outputs that are predicted far beyond the range of the targets, and surely so.

    Without a ridge, which the user has asked for then, or at rows of next to no weight, nothing
    holds a prediction.
    """
    y, mean_ = _in_units(case, mean)
    std = _in_units(case, std)[1] if std.shape == mean.shape else 0.0
    round_off = 1e-6 if mean.dtype == np.float64 else 1e-5
    reach = SPREADS_BEYOND * np.ptp(y, axis=0) + round_off
    beyond = np.maximum(y.min(0) - mean_, mean_ - y.max(0))
    beyond = np.where(beyond > 3 * std, beyond, 0.0).max(0)
    for output in np.flatnonzero(beyond > reach):
        spread = max(float(np.ptp(y[:, output])), 1e-300)
        yield f"output {output} lies {beyond[output] / spread:.3g} spreads beyond y"


def class_results(model, X, y, case):
    """Predictions of every kind: by name the result and its right shape."""
    points, k, n_classes = case.points(X), len(X), len(model.classes_)
    results = {
        "classes": (model.predict(points), (k,)),
        "probabilities": (model.predict_proba(points), (k, n_classes)),
        "logarithms": (model.predict_log_proba(points), (k, n_classes)),
        "decisions": (model.decision_function(points), (k, n_classes) if n_classes > 2 else (k,)),
    }
    return results | _embedding(model, points, k)


def wrong_classes(model, arrays, y, case):
    """Yield what is wrong about classes of rows with these labels, or with unknown ones."""
    classes = arrays["classes"]
    if not np.isin(classes, model.classes_).all():
        yield "classes that are none"
    yield from _wrong_shares(arrays, "probabilities")
    yield from _outside_box(arrays)
    if y is not None and classes.shape == y.shape and case.follows_rows:
        weight = None if case.weight is None else case.weight[case.kept]
        right = np.average(classes == y, weights=weight)
        largest = max(np.average(y == label, weights=weight) for label in model.classes_)
        # Densities without a boundary vanish at the faces, where they then tell nothing.
        if right < largest - LEAST_SHARE and case.params.get("boundary") != "zero":
            yield f"{right:.2f} classes right, {largest:.2f} in the largest"


# Many cases


def outcomes(first, seconds, jobs):
    """Yield the outcomes of the seeds from the first on, as many as the time allows."""
    seeds, end = itertools.count(first), time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    while time.monotonic() < end:
        with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
            running = {}
            while running or time.monotonic() < end:
                while len(running) < jobs and time.monotonic() < end:
                    seed = next(seeds)
                    running[pool.submit(run_seed, seed)] = seed
                done, _ = concurrent.futures.wait(running, None, "FIRST_COMPLETED")
                try:
                    for future in done:
                        yield future.result()
                        del running[future]
                except BrokenProcessPool:
                    yield from (_crash(seed) for seed in running.values())
                    break


def _crash(seed):
    case = draw_case(seed)
    return Outcome(seed, case.name, str(case), failures=["this or another process died"])


def kind_of(text):
    """A message without its numbers, for counts."""
    return re.sub(r"-?\d[\d.]*(e[-+]?\d+)?", "#", text)[:110]


def report(outcome):
    """Print what failed, and where in the package."""
    print(f"{outcome.text}\n    {'; '.join(outcome.failures)}", flush=True)
    frames = re.findall(r'File ".*/(skpou/.*)", line (\d+), in (\w+)', outcome.trace)
    if frames:
        path = " > ".join(f"{file}:{line} {name}" for file, line, name in frames[-3:])
        print(f"    {path}", flush=True)


def summarize(results):
    """Print counts and the slowest; whether nothing failed."""
    refused = [o for o in results if o.refused]
    failed = [o for o in results if o.failures]
    print(f"\n{len(results)} fits, {len(refused)} refused by name, {len(failed)} failed")
    for title, kinds in (
        ("refused", [f"{o.name}: {kind_of(o.refused)}" for o in refused]),
        (
            "failed",
            [f"{o.name}: {kind}" for o in failed for kind in {kind_of(f) for f in o.failures}],
        ),
    ):
        for kind, number in collections.Counter(kinds).most_common():
            print(f"{number:6d} {title}  {kind}")
    slowest = sorted(results, key=lambda o: -sum(o.seconds.values()))[:5]
    for o in slowest:
        times = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in o.seconds.items())
        print(f"slow: {times}; {o.text}")
    return not failed


def show(seed):
    """Fit one seed, and print everything about it; whether it did not fail."""
    case, outcome = draw_case(seed), run_seed(seed)
    print(outcome.text)
    with np.printoptions(threshold=sys.maxsize, linewidth=100):
        for name in ("X", "y", "weight", "fresh"):
            print(f"{name} = {getattr(case, name)!r}")
    print(outcome.trace)
    print("refused:", outcome.refused or "no")
    print("failed:", *(outcome.failures or ["nothing"]), sep="\n    ")
    print("seconds:", outcome.seconds)
    return not outcome.failures


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="time to start fits in")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, help="fit this seed, and print its data")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.only is not None:
        return 0 if show(options.only) else 1
    results = []
    # Whoever stops it wants to know what was found so far.
    with contextlib.suppress(KeyboardInterrupt):
        for outcome in outcomes(options.seed, options.seconds, options.jobs):
            results.append(outcome)
            if outcome.failures:
                report(outcome)
    return 0 if summarize(results) else 1


if __name__ == "__main__":
    sys.exit(main())
