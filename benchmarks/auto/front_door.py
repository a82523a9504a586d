"""Forty tasks for AutoRegressor, beside each default alone, a Gaussian process and boosting.

The tasks were chosen before any was fitted; half have noise. Log densities are those of new rows,
no larger than that of a standard deviation of a millionth of y's root mean square; errors are root
mean squares, where the truth is known from the truth without noise, in units of that of y.

What does not change with AutoRegressor, its members alone and the rivals, is in a table of its own,
``front_door_members.csv``; what stands there is not measured again. Remove the file to do so.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes

import skpou
from benchmarks.shared import harness
from benchmarks.tables.table_rivals import BOOSTING, GAUSSIAN_PROCESS, Boosting, GaussianProcess

#: Name of the table of the members alone and the rivals.
MEMBERS = "front_door_members"

SEEDS = 1
OURS = "AutoRegressor"
#: Defaults that are compared, each where it is a member by default.
SINGLE = (
    "HierarchicalPOURegressor",
    "MultiStageRegressor",
    "AdditivePOURegressor",
    "SparseGridRegressor",
    "NeuralSparseGridRegressor",
)
#: Test rows of functions, and rows of the fit of tables.
N_TEST, MOST_ROWS = 2000, 400
#: Least standard deviation of a density in units of y's rms.
FLOOR = 1e-6
#: Bounds: log density below the best's, error over the best's, seconds over the whole fits'.
DENSITY, ERROR, WORST_ERROR, SECONDS = 0.1, 1.25, 10.0, 1.5
#: Error, in units of y's rms, that counts as none.
ROUND_OFF = 1e-12
#: Shares of the tasks that are to be within these.
DENSITY_SHARE, ERROR_SHARE = 36 / 40, 34 / 40
EXACT, NOISY, TABLES = "exact", "noisy", "tables"
CASES = (EXACT, NOISY, TABLES)


class Task(NamedTuple):
    """Rows of a fit, new rows, and what errors are measured by."""

    X: np.ndarray
    y: np.ndarray
    T: np.ndarray
    t: np.ndarray
    truth: np.ndarray


class Scores(NamedTuple):
    log_density: float
    error: float
    seconds: float


# Functions of points in the unit box


def franke(X):
    x, y = 9 * X[:, 0], 9 * X[:, 1]
    return (
        0.75 * np.exp(-((x - 2) ** 2) / 4 - (y - 2) ** 2 / 4)
        + 0.75 * np.exp(-((x + 1) ** 2) / 49 - (y + 1) / 10)
        + 0.5 * np.exp(-((x - 7) ** 2) / 4 - (y - 3) ** 2 / 4)
        - 0.2 * np.exp(-((x - 4) ** 2) - (y - 7) ** 2)
    )


def borehole(X):
    """Flow through a borehole (Harper, Gupta 1983), eight columns."""
    low = np.array([0.05, 100, 63070, 990, 63.1, 700, 1120, 9855])
    high = np.array([0.15, 50000, 115600, 1110, 116, 820, 1680, 12045])
    rw, r, tu, hu, tl, hl, length, k = (low + (high - low) * X).T
    log = np.log(r / rw)
    return 2 * np.pi * tu * (hu - hl) / (log * (1 + 2 * length * tu / (log * rw**2 * k) + tu / tl))


def circuit(X):
    """Midpoint voltage of an amplifier without output transformer (Ben-Ari, Steinberg 2007)."""
    low, high = np.array([50, 25, 0.5, 1.2, 0.25, 50]), np.array([150, 70, 3, 2.5, 1.2, 300])
    b1, b2, f, c1, c2, beta = (low + (high - low) * X).T
    vb = 12 * b2 / (b1 + b2)
    gain = beta * (c2 + 9)
    return (
        (vb + 0.74) * gain / (gain + f) + 11.35 * f / (gain + f) + 0.74 * f * gain / (gain + f) / c1
    )


def friedman_1(X):
    wave = 10 * np.sin(np.pi * X[:, 0] * X[:, 1])
    return wave + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]


def circuit_parts(X):
    low, high = np.array([0, 40 * np.pi, 0, 1]), np.array([100, 560 * np.pi, 1, 11])
    r, omega, inductance, capacity = (low + (high - low) * X).T
    return r, omega * inductance - 1 / (omega * capacity)


def friedman_2(X):
    return np.hypot(*circuit_parts(X))


def friedman_3(X):
    resistance, reactance = circuit_parts(X)
    return np.arctan2(reactance, resistance + 1e-9)


def ishigami(X):
    a, b, c = (np.pi * (2 * X - 1)).T
    return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


def kinked_4(X):
    return np.abs(X[:, 0] - X[:, 1] ** 2) + X[:, 2] * X[:, 3]


def grid(*sizes):
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in sizes), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], 1)


def even(n):
    return lambda rng: np.linspace(0, 1, n)[:, None]


def scattered(n, d):
    return lambda rng: rng.random((n, d))


def lines(rng):
    return np.column_stack([np.repeat(np.linspace(0, 1, 9), 30), rng.random(270)])


def one(function):
    """A function of the first column."""
    return lambda X: function(X[:, 0])


#: Name: function, points.
EXACT_TASKS = {
    "1/(1+25x^2), 25 even": (one(lambda x: 1 / (1 + 25 * (2 * x - 1) ** 2)), even(25)),
    "tanh(30x-7), 60": (one(lambda x: np.tanh(30 * x - 7)), scattered(60, 1)),
    "abs(x-.37), 40 even": (one(lambda x: np.abs(x - 0.37)), even(40)),
    "sqrt(x), 40 even": (one(np.sqrt), even(40)),
    "sin(16 pi x^2), 200": (one(lambda x: np.sin(16 * np.pi * x**2)), scattered(200, 1)),
    "(x+.01)^-.3, 100": (one(lambda x: (x + 0.01) ** -0.3), scattered(100, 1)),
    "two slopes, 33 even": (one(lambda x: np.maximum(2 * x, 9 * x - 3)), even(33)),
    "exp(-2x) cos(5x), 15 even": (one(lambda x: np.exp(-2 * x) * np.cos(5 * x)), even(15)),
    "Franke, 100": (franke, scattered(100, 2)),
    "abs(x-y), 200": (lambda X: np.abs(X[:, 0] - X[:, 1]), scattered(200, 2)),
    "additive, 10 x 10": (lambda X: np.cos(5 * X[:, 0]) + X[:, 1] ** 3, lambda rng: grid(10, 10)),
    "ridge 1/(1+40(x-y^2)^2), 300": (
        lambda X: 1 / (1 + 40 * (X[:, 0] - X[:, 1] ** 2) ** 2),
        scattered(300, 2),
    ),
    "jump on a circle, 300": (
        lambda X: X[:, 0] + (np.hypot(X[:, 0] - 0.4, X[:, 1] - 0.5) < 0.3),
        scattered(300, 2),
    ),
    "wave on 9 lines x 30": (lambda X: np.sin(6 * X[:, 0] + 4 * X[:, 1]), lines),
    "Ishigami, 300": (ishigami, scattered(300, 3)),
    "product of 3, 5 x 5 x 5": (lambda X: np.prod(1 + X, axis=1), lambda rng: grid(5, 5, 5)),
    "kink in 4-D, 400": (kinked_4, scattered(400, 4)),
    "Friedman 1, 300": (friedman_1, scattered(300, 5)),
    "amplifier, 6-D, 500": (circuit, scattered(500, 6)),
    "borehole, 8-D, 300": (borehole, scattered(300, 8)),
}


def gaussian(std):
    return lambda rng, X, truth: truth + std * np.std(truth) * rng.standard_normal(len(X))


def growing(rng, X, truth):
    return truth + (0.02 + 0.6 * X[:, 0]) * rng.standard_normal(len(X))


def heavy(rng, X, truth):
    return truth + 0.1 * rng.standard_t(2, len(X))


def counts(rng, X, truth):
    return rng.poisson(np.exp(truth)).astype(float)


#: Name: function, points, targets drawn about the truth.
NOISY_TASKS = {
    "sine, 30, 10 %": (one(lambda x: np.sin(7 * x)), scattered(30, 1), gaussian(0.1)),
    "sine, 200, 30 %": (one(lambda x: np.sin(12 * x)), scattered(200, 1), gaussian(0.3)),
    "step, 100, 20 %": (one(lambda x: 1.0 * (x > 0.42)), even(100), gaussian(0.2)),
    "noise that grows, 130": (one(lambda x: np.sin(6 * x)), scattered(130, 1), growing),
    "hinge, 60, 5 %": (one(lambda x: np.maximum(x - 0.6, 0)), scattered(60, 1), gaussian(0.05)),
    "Franke, 150, 10 %": (franke, scattered(150, 2), gaussian(0.1)),
    "kinked ridge, 400, 2 %": (
        lambda X: np.abs(X[:, 0] - X[:, 1] ** 2),
        scattered(400, 2),
        gaussian(0.02),
    ),
    "heavy tails, 200": (lambda X: np.sin(5 * X[:, 0]) * X[:, 1], scattered(200, 2), heavy),
    "nothing but noise, 3-D, 100": (
        lambda X: np.zeros(len(X)),
        scattered(100, 3),
        lambda rng, X, truth: rng.standard_normal(len(X)),
    ),
    "counts, 200": (lambda X: 1.5 * np.sin(5 * X[:, 0]) + X[:, 1], scattered(200, 2), counts),
    "Friedman 2, 200, 20 %": (friedman_2, scattered(200, 4), gaussian(0.2)),
    "Friedman 3, 200, 20 %": (friedman_3, scattered(200, 4), gaussian(0.2)),
    "Friedman 1 in 10-D, 300, 20 %": (friedman_1, scattered(300, 10), gaussian(0.2)),
    "borehole, 400, 10 %": (borehole, scattered(400, 8), gaussian(0.1)),
}
#: Tables of ../shared/data/uci, and others.
TABLE_TASKS = ("yacht", "energy", "boston_housing", "concrete", "wine_red", "diabetes")


def function_task(name, seed):
    function, points, *noise = EXACT_TASKS.get(name) or NOISY_TASKS[name]
    rng = np.random.default_rng([seed, list({**EXACT_TASKS, **NOISY_TASKS}).index(name)])
    X = points(rng)
    T = X.min(0) + np.ptp(X, 0) * rng.random((N_TEST, X.shape[1]))
    y, t = function(X), function(T)
    truth = np.exp(t) if noise == [counts] else t
    for draw in noise:
        y, t = draw(rng, X, y), draw(rng, T, t)
    return Task(X, y, T, t, truth)


def table_task(name, seed):
    """Some rows of a table, the others new; None where the table is not there."""
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True, scaled=False)
    else:
        path = harness.shared("uci", f"{name}.npz")
        if not path.exists():
            return None
        with np.load(path) as data:
            X, y = data["X"].astype(float), data["y"].astype(float).ravel()
    order = np.random.default_rng([seed, len(y)]).permutation(len(y))
    n = min(MOST_ROWS, int(0.7 * len(y)))
    fit, test = order[:n], order[n : n + N_TEST]
    return Task(X[fit], y[fit], X[test], y[test], y[test])


def tasks_of(case):
    names = {EXACT: EXACT_TASKS, NOISY: NOISY_TASKS, TABLES: TABLE_TASKS}[case]
    return {name: table_task if case == TABLES else function_task for name in names}


# Scores


def log_density(model, X, y, floor):
    """Mean log density; Gaussian where the standard deviation is below the floor."""
    mean, std = model.predict(X, return_std=True)
    wide = np.maximum(std, floor)
    found = -0.5 * (np.log(2 * np.pi * wide**2) + ((y - mean) / wide) ** 2)
    own = std >= floor
    if own.any():
        # A mixture may have a part that is narrower than its standard deviation.
        peak = -0.5 * np.log(2 * np.pi) - np.log(floor)
        found[own] = np.minimum(model.log_density(X[own], y[own]), peak)
    return float(found.mean())


def measure(estimator, task):
    """Scores of an estimator, and the estimator fitted."""
    unit = harness.rms(task.y)
    seconds = harness.fit(estimator, task.X, task.y)
    density = log_density(estimator, task.T, task.t, FLOOR * unit) + np.log(unit)
    error = harness.rms(estimator.predict(task.T) - task.truth) / unit
    return Scores(density, error, seconds)


def methods(n, d):
    single = [name for name in SINGLE if name != "SparseGridRegressor" or d > 1]
    single = [name for name in single if name != "NeuralSparseGridRegressor" or (d > 5 and n > 499)]
    found = {name: getattr(skpou, name) for name in single}
    return found | {GAUSSIAN_PROCESS: GaussianProcess, BOOSTING: Boosting}


def scores_of_members(name, task, alone):
    """Scores of the members alone and of the rivals: those of the table, the others measured."""
    scores = {}
    for key, cls in methods(*task.X.shape).items():
        earlier = [row for row in alone.rows if (row["task"], row["method"]) == (name, key)]
        if not earlier:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = measure(cls(), task)
            values = {part: f"{value:.5g}" for part, value in found._asdict().items()}
            alone.add({"task": name, "method": key, **values})
            earlier = alone.rows[-1:]
        scores[key] = Scores(*(float(earlier[0][part]) for part in Scores._fields))
    return scores


def row_of(name, case, task, scores, whole):
    """One line of the table: ours, the best of the defaults, the rivals."""
    ours = scores[OURS]
    single = {key: value for key, value in scores.items() if key in SINGLE}
    likeliest = max(single, key=lambda key: single[key].log_density)
    closest = min(single, key=lambda key: single[key].error)
    row = {
        "task": name,
        "kind": case,
        "rows x columns": f"{task.X.shape[0]} x {task.X.shape[1]}",
        "log density": f"{ours.log_density:.2f}",
        "best default": f"{single[likeliest].log_density:.2f}",
        "which": likeliest.removesuffix("Regressor"),
        "error": ours.error,
        "least of a default": single[closest].error,
        "which ": closest.removesuffix("Regressor"),
    }
    for rival in (GAUSSIAN_PROCESS, BOOSTING):
        row[f"log density, {rival}"] = f"{scores[rival].log_density:.2f}"
        row[f"error, {rival}"] = scores[rival].error
    return row | {"fit (s)": ours.seconds, "whole fits (s)": whole}


def gaps(row):
    """Log density below the best default's, error over the least, seconds over the whole fits'."""
    error, least = (max(float(row[key]), ROUND_OFF) for key in ("error", "least of a default"))
    lost = float(row["best default"]) - float(row["log density"])
    return lost, error / least, float(row["fit (s)"]) / float(row["whole fits (s)"])


def run(seeds, quick, cases=CASES):
    table, alone = harness.Table(), harness.Table()
    alone.take_over(MEMBERS, lambda row: True)
    alone.rows = [{**row, "bound": "", "reached": ""} for row in alone.rows]
    if not quick:
        table.take_over("front_door", lambda row: row["kind"] not in (*cases, "all"))
        # Written before the last line, they have no columns of bounds.
        table.rows = [{**row, "bound": "", "reached": ""} for row in table.rows]
    for case in cases:
        for name, make in list(tasks_of(case).items())[:: 4 if quick else 1]:
            task = make(name, 0)
            if task is None:
                print(f"  {name}: no data, left out")
                continue
            scores = scores_of_members(name, task, alone)
            model = getattr(skpou, OURS)()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores[OURS] = measure(model, task)
            board = model.leaderboard_
            whole = float(board["seconds"][board["rows"] == board["rows"].max()].sum())
            table.add(row_of(name, case, task, scores, whole))
            if not quick:
                table.write("front_door")
                alone.write(MEMBERS)
    table.add(*last_line(table.rows))
    return table


def last_line(rows):
    """How many tasks are within the bounds; shares are negative, for a bound holds from above."""
    lost, ratio, seconds = np.array([gaps(row) for row in rows if row["kind"] != "all"]).T
    near, close = np.mean(lost <= DENSITY), np.mean(ratio <= ERROR)
    return {"task": f"all {len(lost)}", "kind": "all"}, [
        (f"density in {100 * near:.0f} %", -near, -DENSITY_SHARE),
        (f"error in {100 * close:.0f} %", -close, -ERROR_SHARE),
        (f"worst error {ratio.max():.2g} times", ratio.max(), WORST_ERROR),
        (f"seconds {np.median(seconds):.2g} times", np.median(seconds), SECONDS),
    ]
