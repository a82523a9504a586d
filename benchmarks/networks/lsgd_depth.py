"""Deep ReLU networks for one sine: He, Box and Box on the data's image, residual and plain.

Errors are root mean squares at fresh points; losses are mean squares at the 256 fitted ones.
"""

import numpy as np

from benchmarks.networks.lsgd import grid, sine
from benchmarks.shared import harness
from skpou import LSGDRegressor

WIDTH = 32
DEPTHS = (8, 16, 32, 64, 128)
INITS = {"data_box": "#0072b2", "box": "#e69f00", "he": "#d55e00"}
#: Starts of the nets that no bound is about.
OTHERS = 3
MAX_ITER = 100
LOSS, ERROR = 1e-8, 6e-4


def measure(architecture, depth, init, seed):
    """Loss, error on fresh points, seconds of the fit."""
    model = LSGDRegressor(
        (WIDTH,) * depth,
        activation="relu",
        architecture=architecture,
        init=init,
        max_iter=MAX_ITER,
        random_state=seed,
    )
    X, y = grid(), sine(grid())
    seconds = harness.fit(model, X, y)
    X_test = harness.fresh(1, seed)
    error = harness.rms(model.predict(X_test) - sine(X_test))
    return float(np.mean((model.predict(X) - y) ** 2)), error, seconds


def draw(found):
    drawn, axes = harness.figure(2)
    for ax, architecture in zip(axes, ("residual", "plain")):
        for init, color in INITS.items():
            depths = [d for a, d, i in found if (a, i) == (architecture, init)]
            errors = [[run[1] for run in found[architecture, d, init]] for d in depths]
            spreads = [harness.spread(some) for some in errors]
            ax.errorbar(
                depths,
                [middle for middle, _ in spreads],
                yerr=np.transpose([bars for _, bars in spreads]),
                color=color,
                marker="o",
                markersize=4,
                elinewidth=1,
                label=init,
            )
        ax.set(xscale="log", yscale="log", xlabel="layers", title=f"{architecture} networks")
        ax.set_xticks(DEPTHS, DEPTHS)
        ax.set_xticks([], minor=True)
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[0].set_ylabel("error on fresh points")
    axes[0].legend(frameon=False)
    harness.save(drawn, "lsgd_depth")


def run(seeds, quick):
    table = harness.Table()
    found = {}
    for architecture in ("residual", "plain"):
        for depth in DEPTHS[:2] if quick else DEPTHS:
            if architecture == "plain" and depth > 64:
                continue
            for init in INITS:
                bounded = (architecture, init) == ("residual", "data_box")
                count = seeds if bounded else min(OTHERS, seeds)
                runs = [measure(architecture, depth, init, seed) for seed in range(count)]
                found[architecture, depth, init] = runs
                losses, errors, fits = zip(*runs)
                row = {
                    "network": f"{architecture}, {depth} layers",
                    "init": init,
                    "median loss": float(np.median(losses)),
                    "worst loss": max(losses),
                    "median error": float(np.median(errors)),
                    "worst error": max(errors),
                    "fit (s)": float(np.median(fits)),
                    "slowest fit (s)": max(fits),
                    "seeds": count,
                }
                bounds = [
                    (f"loss {LOSS:.0e}", max(losses), LOSS),
                    (f"error {ERROR:.0e}", max(errors), ERROR),
                ]
                table.add(row, bounds if bounded and depth == DEPTHS[-1] else ())
    if not quick:
        draw(found)
    return table
