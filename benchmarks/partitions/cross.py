"""A sine on the arms of a cross: the talk's table of partitions against degrees, all trainings.

501 points on each axis, the origin once; errors at 20,001 points of the cross between them.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import POURegressor
from skpou.datasets import make_cross

NUMBERS = (1, 2, 4, 8, 16)
DEGREES = (0, 1, 2, 3, 4)
RESIDUAL = {"gate": "residual", "hidden_layer_sizes": (8, 8)}
#: Name of each training and its parameters.
TRAININGS = {
    "default": {},
    "random start": {"init": "box"},
    "residual gates": RESIDUAL,
    "two-phase LSGD": {"init": "box", "solver": "lsgd"},
}


def cross(n_axis):
    """Points (2 n_axis - 1, 2) of the cross at equal distances."""
    axis = np.linspace(-1, 1, n_axis)
    other = axis[axis != 0]
    zero = np.zeros_like
    return np.vstack([np.column_stack([axis, zero(axis)]), np.column_stack([zero(other), other])])


def measure(estimator):
    """Fit and judge between the points; see `harness.measure`."""
    target = lambda X: make_cross(X=X)[1]  # noqa: E731
    X, X_test = cross(501), cross(10_001) + 0.0
    seconds = harness.fit(estimator, X, target(X))
    error = harness.rms(estimator.predict(X_test) - target(X_test))
    coef = getattr(estimator, "coef_", None)
    return harness.Run(error, seconds, 0.0, None if coef is None else len(coef))


def draw(errors):
    drawn, axes = harness.figure(len(TRAININGS))
    drawn.set_size_inches(13, 3.6)
    for ax, name in zip(axes, TRAININGS, strict=True):
        for degree in DEGREES:
            middles = [harness.spread(errors[name, n, degree]) for n in NUMBERS]
            ax.errorbar(
                NUMBERS,
                [middle for middle, _ in middles],
                np.array([part for _, part in middles]).T,
                marker="o",
                markersize=3,
                label=f"degree {degree}",
            )
        ax.set(title=name, xlabel="partitions", xscale="log", yscale="log")
        ax.set_xticks(NUMBERS, [str(n) for n in NUMBERS])
        ax.minorticks_off()
    axes[0].set_ylabel("rms error")
    axes[-1].legend(frameon=False)
    harness.save(drawn, "cross")


def run(seeds, quick):
    table, errors = harness.Table(), {}
    for name, parameters in TRAININGS.items():
        for n in NUMBERS:
            for degree in DEGREES:
                largest = (n, degree) == (16, 4)
                repeats = seeds if largest else min(seeds, 1 if quick else 3)
                runs = [
                    measure(POURegressor(n, degree, random_state=seed, **parameters))
                    for seed in range(repeats)
                ]
                bounded = largest and name != "two-phase LSGD"
                bounds = {"error": 1e-12, "seconds": 8} if bounded else {}
                table.add_runs(f"{n} x degree {degree}", name, runs, **bounds)
                errors[name, n, degree] = [run.error for run in runs]
    for name, make in harness.rivals(1001, 2, quick).items():
        repeats = harness.rival_seeds(name, 1001, seeds)
        table.add_runs("cross", name, [measure(make()) for _ in range(repeats)])
    draw(errors)
    return table
