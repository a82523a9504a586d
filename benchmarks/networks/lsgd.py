"""One sine by 32 tanh units: four solvers, ranks of the first bases, images of the unit square.

After the figures of M. Gulian's talk on Cyr et al. (MSML 2020). Errors are root mean squares at
fresh points; losses are mean squares at the 256 fitted ones.
"""

import time

import numpy as np
import torch

from benchmarks.shared import harness
from skpou import LSGDRegressor
from skpou.networks.architecture import Network
from skpou.networks.initializations import INITIALIZATIONS

WIDTH, N, RUNS = 32, 256, 16
SOLVERS = {"varpro": "#0072b2", "lbfgs": "#009e73", "lsgd": "#e69f00", "gd": "#d55e00"}
INITS = ("box", "he", "glorot")
LAYERS = (1, 2, 4, 8)
ERROR, GOAL, SECONDS = 2e-10, 1e-11, 1.0


def sine(X):
    return np.sin(2 * np.pi * X[:, 0])


def grid():
    return np.linspace(0, 1, N)[:, None]


def solve(solver, runs):
    """Errors, seconds of fitting and predicting, and loss curves of runs from random starts."""
    X, y = grid(), sine(grid())
    found = []
    for seed in range(runs):
        model = LSGDRegressor((WIDTH,), solver=solver, init="box", random_state=seed)
        seconds = harness.fit(model, X, y)
        X_test = harness.fresh(1, seed)
        start = time.process_time()
        predicted = model.predict(X_test)
        predict = time.process_time() - start
        curve = np.var(y) * np.array(model.loss_curve_)
        found.append((harness.rms(predicted - sine(X_test)), seconds, predict, curve))
    return found


def rank(activation, init, seed):
    """Numerical rank of the columns, the constant included, before any training."""
    network = Network(1, (WIDTH,), activation=activation)
    X = torch.as_tensor(grid())
    theta = INITIALIZATIONS[init](network, np.random.default_rng(seed), X)
    return int(np.linalg.matrix_rank(network.forward(theta, X).numpy()))


def draw_curves(found):
    """Mean and deviation of the logarithm of the loss over the runs, against iterations."""
    drawn, ax = harness.figure(1)
    for solver, runs in found.items():
        length = max(len(curve) for *_, curve in runs)
        least = [np.minimum.accumulate(curve) for *_, curve in runs]
        # A run that has ended stays where it is.
        padded = [np.pad(c, (0, length - len(c)), mode="edge") for c in least]
        logs = np.log10(np.maximum(padded, 1e-32))
        mean, deviation = logs.mean(0), logs.std(0)
        steps = np.arange(1, length + 1)
        color = SOLVERS[solver]
        ax.plot(steps, 10**mean, color=color, label=solver)
        band = (10 ** (mean - deviation), 10 ** (mean + deviation))
        ax.fill_between(steps, *band, color=color, alpha=0.2, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="iterations", ylabel="mean square of the residual")
    ax.set(title=f"a sine by {WIDTH} tanh units, {RUNS} runs")
    ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.7))
    harness.save(drawn, "lsgd_curves")


def draw_images():
    """Where the layers of plain ReLU networks map the unit square, in principal components."""
    from matplotlib.figure import Figure

    harness.figure(1)  # The style of all figures
    side = np.linspace(0, 1, 60)
    square = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    colors = np.column_stack([square[:, 0], 0.35 + 0 * square[:, 0], square[:, 1]])
    network = Network(2, (WIDTH,) * max(LAYERS), activation="relu")
    drawn = Figure(figsize=(9, 6.6), layout="constrained")
    axes = drawn.subplots(len(INITS), len(LAYERS))
    X = torch.as_tensor(square)
    for row, init in zip(axes, INITS):
        theta = INITIALIZATIONS[init](network, np.random.default_rng(0), X)
        outputs = [values.output.numpy() for values in network.layers(theta, X)]
        for ax, layer in zip(row, LAYERS):
            image = outputs[layer - 1] - outputs[layer - 1].mean(0)
            _, size, axis = np.linalg.svd(image, full_matrices=False)
            ax.scatter(*(image @ axis[:2].T).T, c=colors, s=1.5, linewidths=0)
            share = size[1:].sum() / size.sum()
            ax.set_title(f"{init}, layer {layer}")
            ax.set_xlabel(f"beside the first: {100 * share:.0f} %", fontsize=8)
            ax.set_aspect("equal", adjustable="datalim")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    harness.save(drawn, "lsgd_images")


def run(seeds, quick):
    table = harness.Table()
    runs = 2 if quick else RUNS
    found = {solver: solve(solver, runs) for solver in SOLVERS}
    for solver, results in found.items():
        errors, fits, predicts, curves = zip(*results)
        row = {
            "task": f"sine, {WIDTH} tanh units",
            "method": solver,
            "median error": float(np.median(errors)),
            "worst error": max(errors),
            "median loss": float(np.median([curve.min() for curve in curves])),
            "iterations": float(np.median([len(curve) for curve in curves])),
            "fit (s)": float(np.median(fits)),
            "slowest fit (s)": max(fits),
            "predict (s)": float(np.median(predicts)),
            "seeds": runs,
        }
        bounds = [
            (f"error {ERROR:.0e}", max(errors), ERROR),
            (f"goal {GOAL:.0e}", max(errors), GOAL),
            (f"{SECONDS:g} s", float(np.median(fits)), SECONDS),
        ]
        table.add(row, bounds if solver == "varpro" else ())
    for activation in ("tanh", "relu"):
        for init in INITS:
            ranks = [rank(activation, init, seed) for seed in range(runs)]
            row = {"task": f"rank of {WIDTH + 1} columns, {activation}", "method": init}
            row |= {"rank": f"{min(ranks)} to {max(ranks)}", "seeds": runs}
            table.add(row)
    if not quick:
        draw_curves(found)
        draw_images()
    return table
