"""Networks in stages on equations: the error after each stage, by both solvers.

After the figures of Wang and Lai (2024): equations on a line and in the plane, Burgers' equation
in self-similar coordinates with its exponent given and unknown, and logistic growth. Networks of
3 x 20 units on a line and 2 x 20 in the plane; the iterations are some hundreds, the papers' tens
of thousands. Errors are relative, at fresh points; the equation's residual is that at fresh points,
too.

Burgers' equation and its three values leave the exponent lambda open: for every lambda
``y = -U - |U|^(1 + 1 / lambda) sign(U)`` obeys them, and between the bounds only that of 1/2 is
smooth at 0. ``own error`` is the error beside the solution of the lambda that was found. One task
asks for the third derivative of the equation about 0, too, which those above 1/2 do not have.
"""

import time
import warnings

import numpy as np
import torch

from benchmarks.equations.equations import burgers, known_burgers, middle_points
from benchmarks.shared import harness
from skpou import MultiStageRegressor
from skpou.physics import Equation, Unknown

SEEDS = 1
N_FRESH = 5000
SOLVERS = ("adam_lbfgs", "varpro")
#: Most iterations of a stage, of each of its optimisers.
STEPS = {"adam_lbfgs": 300, "varpro": 60}
STEPS_IN_THE_PLANE = {"adam_lbfgs": 200, "varpro": 150}
#: Names of the tasks, each a row of a benchmark by itself.
CASES = (
    *("u' = f", "Poisson 1-D", "Poisson 2-D", "Burgers, known", "Burgers, unknown"),
    *("Burgers, smooth", "logistic"),
)
#: Points about 0 of the third derivative of Burgers' equation, and its weight: three derivatives
#: make its terms so much larger.
ABOUT_0, WEIGHT_ABOUT_0 = np.linspace(-0.2, 0.2, 41)[:, None], 0.01
#: Newton's steps of the exact solution, which has an infinite curvature at 0.
NEWTON = 200
#: What warnings of a false solution say; others tell of iterations that are used up.
WORDS = ("not solved", "ended at a bound", "told by the smoothness")
#: Panels of the figure side by side.
IN_A_ROW = 4
COLORS = {"adam_lbfgs": "#d55e00", "varpro": "#0072b2"}
LINE, PLANE = (20, 20, 20), (20, 20)
PI = np.pi


def forced(u, x):
    """Of u(x) = sin(2 x + 1) + 0.2 exp(1.3 x)."""
    return u.d(0) - 2 * torch.cos(2 * x[:, 0] + 1) - 0.26 * torch.exp(1.3 * x[:, 0])


def regression_target(X):
    return np.sin(2 * X[:, 0] + 1) + 0.2 * np.exp(1.3 * X[:, 0])


def wave_equation(u, x):
    """Poisson's equation with a source of high frequency."""
    return u.d(0, 0) + (6 * PI) ** 2 * torch.sin(6 * PI * x[:, 0])


def wave(X):
    return np.sin(6 * PI * X[:, 0])


def flat_equation(u, x):
    source = torch.sin(PI * x[:, 0]) * torch.sin(PI * x[:, 1])
    return u.d(0, 0) + u.d(1, 1) + 2 * PI**2 * source


def flat(X):
    return np.sin(PI * X[:, 0]) * np.sin(PI * X[:, 1])


def third_derivative(u, x, p):
    """Third derivative of Burgers' equation."""
    y, lam, slope, third = x[:, 0], p["lam"], u.d(0), u.d(0, 0, 0)
    by_fourth = ((1 + lam) * y + u()) * u.d(0, 0, 0, 0)
    return -lam * third + by_fourth + (3 * (1 + lam) + 4 * slope) * third + 3 * u.d(0, 0) ** 2


def similar(X, lam=0.5):
    """U with y = -U - |U|^(1 + 1 / lam) sign(U), by Newton's iteration."""
    y, power = X[:, 0], 1 + 1 / lam
    U = -y / 2
    for _ in range(NEWTON):
        size = np.abs(U) ** (power - 1)
        U = U - (y + U + size * U) / (1 + power * size)
    return U


def logistic(u, x):
    return u.d(0) - u() * (1 - u())


def grown(X):
    return 1 / (1 + 9 * np.exp(-X[:, 0]))


def edges(n):
    t = np.linspace(-1, 1, n)
    return np.unique(np.r_[np.c_[t, 0 * t - 1], np.c_[t, 0 * t + 1],
                           np.c_[0 * t - 1, t], np.c_[0 * t + 1, t]], axis=0)  # fmt: skip


def tasks(quick):
    """Name, sizes, equations, unknowns, points of data, exact solution, box."""
    line, ends = np.linspace(-1, 1, 60)[:, None], np.array([[-1.0], [1.0]])
    yield CASES[0], LINE, Equation(forced, line), None, ends[:1], regression_target, (-1, 1)
    if quick:
        return
    yield CASES[1], LINE, Equation(wave_equation, line), None, ends, wave, (-1, 1)
    t = np.linspace(-1, 1, 12)
    square = np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2)
    yield CASES[2], PLANE, Equation(flat_equation, square), None, edges(12), flat, (-1, 1)
    given = np.array([[-2.0], [0.0], [2.0]])
    known = Equation(known_burgers, middle_points(40), gradient_weight=0.15)
    yield CASES[3], LINE, known, None, given, similar, (-2, 2)
    unknowns = {"lam": Unknown(0.6, bounds=(0.3, 1.3))}
    free = Equation(burgers, middle_points(40), gradient_weight=0.15)
    yield CASES[4], LINE, free, unknowns, given, similar, (-2, 2)
    about_0 = Equation(third_derivative, ABOUT_0, weight=WEIGHT_ABOUT_0)
    yield CASES[5], LINE, [free, about_0], unknowns, given, similar, (-2, 2)
    growth = Equation(logistic, np.linspace(0, 6, 40)[:, None])
    yield CASES[6], LINE, growth, None, np.zeros((1, 1)), grown, (0, 6)


def run(seeds, quick, cases=CASES):
    table = harness.Table()
    if len(cases) < len(CASES):
        table.take_over("equation_stages", lambda row: row["task"] not in cases)
    for name, sizes, physics, unknowns, X, exact, (low, high) in tasks(quick):
        if name not in cases:
            continue
        fresh = np.random.default_rng(30_000).uniform(low, high, (N_FRESH, X.shape[1]))
        truth, y = exact(fresh), np.round(exact(X), 15)
        for solver in SOLVERS:
            steps = (STEPS_IN_THE_PLANE if X.shape[1] > 1 else STEPS)[solver]
            for seed in range(seeds):
                model = MultiStageRegressor(
                    hidden_layer_sizes=sizes, solver=solver, physics=physics, unknowns=unknowns,
                    max_iter=30 if quick else steps, random_state=seed,
                )  # fmt: skip
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    start = time.process_time()
                    model.fit(X, y)
                    seconds = time.process_time() - start
                errors = [
                    harness.rms(mean - truth) / harness.rms(truth)
                    for mean in model.staged_predict(fresh)
                ]
                row = {"task": name, "method": solver, "stages": len(errors)}
                row |= {f"error, stage {i + 1}": error for i, error in enumerate(errors)}
                row["equation residual"] = float(np.max(model.equation_residual_))
                if unknowns:
                    lam = model.unknowns_["lam"]
                    row["deviation of lambda from 1/2"] = abs(lam - 0.5)
                    own = model.predict(fresh) - similar(fresh, lam)
                    row["own error"] = harness.rms(own) / harness.rms(truth)
                false = any(word in str(one.message) for one in caught for word in WORDS)
                row["warned of"] = "yes" if false else "no"
                row["scale factors"] = " ".join(harness.digits(v) for v in model.scale_factors_)
                table.add(row | {"fit (s)": seconds, "seed": seed})
    if not quick:
        draw(table.rows)
    return table


def draw(rows):
    """Error against stage."""

    def by_case(item):
        return CASES.index(item[0])

    found = {}
    for row in rows:
        errors = [float(row[k]) for i in range(4) if row.get(k := f"error, stage {i + 1}")]
        found.setdefault(row["task"], {}).setdefault(row["method"], []).append(errors)
    from matplotlib.figure import Figure

    harness.figure(1)  # The style of all figures
    drawn = Figure(figsize=(3 * IN_A_ROW, 5.4), layout="constrained")
    axes = drawn.subplots(2, IN_A_ROW, sharey=True).ravel()
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    for ax, (name, solvers) in zip(axes, sorted(found.items(), key=by_case)):
        for solver, runs in solvers.items():
            for i, errors in enumerate(runs):
                stages = np.arange(1, len(errors) + 1)
                label = None if i else solver
                ax.semilogy(stages, errors, "o-", color=COLORS[solver], label=label)
        ax.set(title=name, xlabel="stages", xticks=range(1, 5))
    for ax in axes[::IN_A_ROW]:
        ax.set_ylabel("relative error")
    drawn.axes[0].legend(frameon=False)
    harness.save(drawn, "equation_stages")
