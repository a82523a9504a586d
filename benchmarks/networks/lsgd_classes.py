"""LSGDClassifier: digits, moons, spirals and MNIST beside rivals; loss against epochs and seconds.

Errors are shares of wrong classes and mean cross entropies, at rows that were not fitted and at
those that were. MNIST is 10,000 images, 8000 to fit, in twenty principal components; without the
file its rows are missing. An epoch is a pass over the rows.
"""

import numpy as np
from sklearn.datasets import load_digits, make_moons
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.shared import harness
from skpou import LSGDClassifier

SEEDS = 3
WIDTH, BATCH = 24, 64
#: Passes of the descents over images, and rows a step: Newton's method for every pass is slow.
MNIST_PASSES, MNIST_BATCH, COMPONENTS = 15, 256, 20
#: Epochs of gradient descent, and of the others.
LONG, SHORT = 100, 10
#: Ridges of both there: the default of gradient descent, and one that hardly binds. Newton's method
#: ends where the ridge lets it, at once; gradient descent has not felt it after so many epochs.
RIDGES = (1e-2, 1e-4)
COLORS = {"gd": "#d55e00", "lsgd": "#0072b2"}


def spirals(n, seed):
    """Two arms of one turn and a half with noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    angle = 3 * np.pi * np.sqrt(rng.random(n)) + 0.5
    arm = angle[:, None] * np.c_[np.cos(angle), np.sin(angle)] * (1 - 2 * label)[:, None]
    return arm + 0.3 * rng.standard_normal((n, 2)), label


def digits(seed):
    X, y = load_digits(return_X_y=True)
    return train_test_split(X, y, test_size=0.25, random_state=seed)


def tasks(seed, quick):
    """Name, and rows and classes to fit and to test."""
    yield "digits", digits(seed)
    for name, make in (
        ("moons", lambda s: make_moons(1000, noise=0.2, random_state=s)),
        ("spirals", lambda s: spirals(1000, s)),
    ):
        (X, y), (X_test, y_test) = make(seed), make(1000 + seed)
        yield name, (X, X_test, y, y_test)
    images = harness.mnist_images(quick) if seed == 0 else None
    if images is not None:
        X, y = images[0].astype(float), images[1]
        parts = train_test_split(X, y, test_size=0.2, random_state=0)
        reduced = PCA(COMPONENTS, random_state=0).fit(parts[0])
        yield "MNIST", (*(reduced.transform(p) for p in parts[:2]), *parts[2:])


def methods(task, seed):
    """Estimators by name."""
    large = task in ("MNIST", "digits")  # thousands of parameters
    descent = {"batch_size": MNIST_BATCH, "max_iter": MNIST_PASSES} if large else {}
    solver = "lsgd" if large else "varpro"
    own = {"solver": solver, "random_state": seed, **descent}
    scaled = lambda model: make_pipeline(StandardScaler(), model)  # noqa: E731
    network = MLPClassifier((WIDTH,), max_iter=500, random_state=seed)
    found = {f"skpou, {solver}": LSGDClassifier((WIDTH,), **own)}
    if not large:
        deep = {"architecture": "residual", "init": "box"}
        found["skpou, residual, box"] = LSGDClassifier((12, 12), **deep, **own)
    return found | {
        "MLPClassifier": scaled(network),
        "LogisticRegression": scaled(LogisticRegression(max_iter=1000)),
    }


def compare(seeds, quick):
    """Errors of all methods on all tasks."""
    table, runs = harness.Table(), {}
    for seed in range(seeds):
        for task, (X, X_test, y, y_test) in tasks(seed, quick):
            for name, model in methods(task, seed).items():
                seconds = harness.fit(model, X, y)
                shares, own = model.predict_proba(X_test), model.predict_proba(X)
                runs.setdefault((task, name), []).append(
                    (
                        np.mean(model.classes_[shares.argmax(1)] != y_test),
                        log_loss(y_test, shares, labels=model.classes_),
                        np.mean(model.classes_[own.argmax(1)] != y),
                        log_loss(y, own, labels=model.classes_),
                        seconds,
                    )
                )
    keys = ("error", "cross entropy", "error at the rows", "cross entropy at the rows", "fit (s)")
    for (task, name), found in runs.items():
        middle = np.median(found, axis=0)
        row = {"task": task, "method": name} | dict(zip(keys, map(float, middle), strict=True))
        table.add(row | {"seeds": len(found)})
    return table


def descents(batch, ridge, seeds):
    """Least losses so far and seconds of both descents from the same starts, with one ridge."""
    X, _, y, _ = digits(0)
    curves = {}
    for solver, most in (("gd", LONG), ("lsgd", SHORT)):
        runs = []
        for seed in range(seeds):
            model = LSGDClassifier(
                (WIDTH,), solver=solver, init="box", alpha=ridge, batch_size=batch, max_iter=most,
                tol=0, random_state=seed,
            )  # fmt: skip
            seconds = harness.fit(model, X, y)
            runs.append((np.minimum.accumulate(model.loss_curve_), seconds))
        curves[solver] = runs
    return curves


def epochs(seeds, quick):
    """Losses at the rows against epochs, gradient descent ten times as long."""
    table, drawn = harness.Table(), {}
    for batch, ridge in ((b, r) for b in (None, BATCH) for r in RIDGES):
        task = f"digits, {batch or 'all'} rows a step, ridge {ridge:g}"
        drawn[task] = descents(batch, ridge, 1 if quick else seeds)
        target = np.median([curve[-1] for curve, _ in drawn[task]["gd"]])
        for solver, runs in drawn[task].items():
            last = float(np.median([curve[-1] for curve, _ in runs]))
            row = {"task": task, "method": solver, "epochs": len(runs[0][0]), "least loss": last}
            reach = [next((i + 1 for i, v in enumerate(c) if v <= target), None) for c, _ in runs]
            known = [r for r in reach if r is not None]
            row["epochs to the loss of gd"] = int(np.median(known)) if known else None
            row |= {"fit (s)": float(np.median([t for _, t in runs])), "seeds": len(runs)}
            bounds = [(f"loss of gd after {LONG}", last, target)] if solver != "gd" else []
            table.add(row, bounds)
    if not quick:
        draw(drawn)
    return table


def draw(found):
    """Losses against epochs, and against seconds as if all epochs took the same."""
    from matplotlib.figure import Figure

    harness.figure(1)  # The style of all figures
    drawn = Figure(figsize=(9, 2.8 * len(found)), layout="constrained")
    axes = drawn.subplots(len(found), 2, sharey="row")
    for (left, right), (task, solvers) in zip(axes, found.items(), strict=True):
        for solver, runs in solvers.items():
            for i, (curve, seconds) in enumerate(runs):
                steps = np.arange(1, len(curve) + 1)
                style = {"color": COLORS[solver], "lw": 1.2, "label": None if i else solver}
                left.loglog(steps, curve, **style)
                right.loglog(steps * seconds / len(curve), curve, **style)
        left.set(xlabel="epochs", ylabel="mean cross entropy", title=task)
        right.set(xlabel="seconds")
        left.legend(frameon=False)
    harness.save(drawn, "lsgd_classes")


SECTIONS = {"tables": compare, "epochs": epochs}
