"""Differential equations by one fit: advection, Poisson, Helmholtz, Burgers, logistic growth.

Errors are relative root mean squares at 10,000 fresh points. DeepXDE is run beside where it is
installed.
"""

import time

import numpy as np
import torch

from benchmarks.shared import harness
from skpou import LSGDRegressor
from skpou.physics import Equation, Symmetry, Unknown

PI, N_FRESH, SECONDS = np.pi, 10_000, 5.0
RATE, NOISE, GROWTH_SEEDS = 1.3, 0.02, 20
#: Steps of DeepXDE's Adam, and at most of its L-BFGS.
STEPS = 2000


# Equations


def advection(u, x, p):
    return u.d(1) + u.d(0)


def stretching_advection(u, x, p):
    return u.d(1) + x[:, 0] * u.d(0)


def second_derivative(u, x, p):
    return u.d(0, 0)


def laplacian(u, x, p):
    return u.d(0, 0) + u.d(1, 1)


def laplacian_in_space(u, x, p):
    return u.d(0, 0) + u.d(1, 1) + u.d(2, 2)


def helmholtz(u, x, p):
    return u.d(0, 0) + u.d(1, 1) + u()


def stiff_helmholtz(u, x, p):
    return u.d(0, 0) + u.d(1, 1) + 100 * u()


def burgers(u, x, p):
    return -p["lam"] * u() + ((1 + p["lam"]) * x[:, 0] + u()) * u.d(0)


def known_burgers(u, x, p):
    return -0.5 * u() + (1.5 * x[:, 0] + u()) * u.d(0)


def logistic(u, x, p):
    return u.d(0) - p["rate"] * u() * (1 - u())


# Problems: equation, exact solution, right-hand side by it, box, data, bound and goal


def sines(*waves):
    """Product of sines, for numpy and for torch."""

    def numbers(X):
        return np.prod([np.sin(w * PI * X[:, j]) for j, w in enumerate(waves)], 0)

    def tensors(x):
        return torch.stack([torch.sin(w * PI * x[:, j]) for j, w in enumerate(waves)]).prod(0)

    return numbers, tensors


def faces(d, side, low, high):
    """Points of a grid on all faces of a box."""
    if d == 1:
        return np.array([[low], [high]])
    t = np.linspace(low, high, side)
    grid = np.stack(np.meshgrid(*[t] * (d - 1), indexing="ij"), -1).reshape(-1, d - 1)
    found = [np.insert(grid, j, v, axis=1) for j in range(d) for v in (low, high)]
    return np.unique(np.concatenate(found), axis=0)


def inflow():
    """Points where advection starts: time 0, and the end at 0."""
    t = np.linspace(0, 1, 60)
    return np.unique(np.r_[np.c_[t, 0 * t], np.c_[0 * t, t]], axis=0)


def hump(x):
    return np.sin(PI * x) ** 2


def bump(x):
    return np.exp(-100 * (x - 0.3) ** 2)


def problems():
    """Name, equation, target, exact solution, box, points of data, bound, goal."""
    moved = inflow()
    yield "advection, sin^2", advection, 0.0, lambda X: hump(X[:, 0] - X[:, 1]), (0, 1), moved, \
        1e-14, None  # fmt: skip
    yield "advection, a = x", stretching_advection, 0.0, \
        lambda X: hump(X[:, 0] * np.exp(-X[:, 1])), (0, 1), moved, 2e-13, None  # fmt: skip
    yield "advection, bump", advection, 0.0, lambda X: bump(X[:, 0] - X[:, 1]), (0, 1), moved, \
        None, 1e-5  # fmt: skip
    wave, source = sines(30)
    yield "Poisson 1-D, sin(30 pi x)", second_derivative, \
        lambda x: -((30 * PI) ** 2) * source(x), wave, (0, 1), faces(1, 2, 0, 1), 1e-12, \
        None  # fmt: skip
    flat, flat_source = sines(1, 1)
    square = faces(2, 60, -1, 1)
    yield "Poisson 2-D", laplacian, lambda x: -2 * PI**2 * flat_source(x), flat, (-1, 1), square, \
        1e-14, None  # fmt: skip
    mixed, mixed_source = sines(1, 4)
    yield "Helmholtz (1, 4), k = 1", helmholtz, \
        lambda x: (1 - 17 * PI**2) * mixed_source(x), mixed, (-1, 1), square, 1e-9, \
        1e-12  # fmt: skip
    fine, fine_source = sines(4, 4)
    yield "Helmholtz (4, 4), k = 10", stiff_helmholtz, \
        lambda x: (100 - 32 * PI**2) * fine_source(x), fine, (-1, 1), square, 2e-6, \
        1e-9  # fmt: skip
    cube, cube_source = sines(1, 1, 1)
    yield "Poisson 3-D", laplacian_in_space, lambda x: -3 * PI**2 * cube_source(x), cube, \
        (-1, 1), faces(3, 12, -1, 1), None, 1e-8  # fmt: skip


def relative(model, exact, low, high, d, seed):
    X = np.random.default_rng(30_000 + seed).uniform(low, high, (N_FRESH, d))
    y = exact(X)
    return harness.rms(model.predict(X) - y) / harness.rms(y)


def solve_linear(table, seeds):
    for name, equation, target, exact, (low, high), X, bound, goal in problems():
        d = X.shape[1]
        y = np.round(exact(X), 15)  # Zeros of sines are zeros.
        runs = []
        for seed in range(seeds):
            points = "chebyshev" if d < 3 else "sobol"
            model = LSGDRegressor(physics=Equation(equation, points, target), random_state=seed)
            seconds = harness.fit(model, X, y)
            error = relative(model, exact, low, high, d, seed)
            runs.append((error, seconds, model.equation_residual_))
        errors, fits, residuals = map(np.array, zip(*runs))
        bounds = [(f"error {bound:.0e}", errors.max(), bound)] if bound else []
        bounds += [(f"goal {goal:.0e}", errors.max(), goal)] if goal else []
        bounds.append((f"{SECONDS:g} s", float(np.median(fits)), SECONDS))
        table.add(row_of(name, "LSGDRegressor", errors, fits, residuals), bounds)


def row_of(task, method, errors, fits, residuals=None, key="error"):
    row = {
        "task": task,
        "method": method,
        f"median {key}": float(np.median(errors)),
        f"worst {key}": float(np.max(errors)),
        "fit (s)": float(np.median(fits)),
        "slowest fit (s)": float(np.max(fits)),
        "seeds": len(errors),
    }
    if residuals is not None:
        row["equation residual"] = float(np.median(residuals))
    return row


# Burgers


def self_similar(y):
    """U with y = -U - U^3, by Newton's iteration."""
    U = -y / 2
    for _ in range(100):
        U = U - (y + U + U**3) / (1 + 3 * U**2)
    return U


def middle_points(n=300):
    """Points from -2 to 2 that are denser towards 0, where the exponent shows."""
    half = 1 - np.cos(np.arange(n) * PI / (n - 1))
    return np.r_[-half[:0:-1], half][:, None]


def solve_burgers(table, seeds):
    X, y = [[-2.0], [0.0], [2.0]], [1.0, 0.0, -1.0]
    for inverse in (True, False):
        found, errors, fits = [], [], []
        for seed in range(seeds):
            unknowns = {"lam": Unknown(0.6, bounds=(0.3, 1.3))} if inverse else None
            equation = Equation(
                burgers if inverse else known_burgers, middle_points(), gradient_weight=0.15
            )
            model = LSGDRegressor(
                physics=[equation, Symmetry("odd", 0)], unknowns=unknowns, random_state=seed
            )
            fits.append(harness.fit(model, X, y))
            errors.append(relative(model, lambda X: self_similar(X[:, 0]), -2, 2, 1, seed))
            if inverse:
                found.append(abs(model.unknowns_["lam"] - 0.5))
        if inverse:
            bounds = [
                ("deviation of lambda from 1/2 1e-12", max(found), 1e-12),
                ("goal 1e-13", max(found), 1e-13),
                ("10 s", float(np.median(fits)), 10.0),
            ]
            row = row_of("Burgers, lambda unknown", "LSGDRegressor", errors, fits)
            row["median deviation of lambda from 1/2"] = float(np.median(found))
            row["worst deviation of lambda from 1/2"] = max(found)
            table.add(row, bounds)
        else:
            bounds = [("error 1e-12", max(errors), 1e-12), ("10 s", float(np.median(fits)), 10.0)]
            table.add(row_of("Burgers, lambda known", "LSGDRegressor", errors, fits), bounds)


# Logistic growth


def growth(x):
    return 1 / (1 + 9 * np.exp(-RATE * x[:, 0]))


def measured(seed):
    rng = np.random.default_rng(seed)
    X = np.sort(rng.uniform(0, 6, 40))[:, None]
    return X, growth(X) + NOISE * rng.standard_normal(40)


def solve_growth(table, seeds):
    scores, errors, fits, deviations = [], [], [], []
    for seed in range(seeds):
        X, y = measured(seed)
        model = LSGDRegressor(
            physics=Equation(logistic, "chebyshev", n_points=150),
            unknowns={"rate": Unknown(1.0)},
            random_state=seed,
        )
        fits.append(harness.fit(model, X, y))
        deviations.append(model.unknowns_std_["rate"])
        scores.append(abs(model.unknowns_["rate"] - RATE) / deviations[-1])
        errors.append(relative(model, growth, X.min(), X.max(), 1, seed))
    outside = int(np.sum(np.array(scores) > 2))
    row = row_of("logistic growth, rate unknown", "LSGDRegressor", errors, fits)
    row["rates within 2 std"] = f"{seeds - outside} of {seeds}"
    row["median std of the rate"] = float(np.median(deviations))
    table.add(row, [("9 in 10 within 2 std", outside, seeds / 10)])


# DeepXDE


def deepxde_poisson(dde, seed):
    """Poisson's equation in the plane: 3 x 40 tanh units, Adam, then L-BFGS."""
    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    square = dde.geometry.Rectangle([-1, -1], [1, 1])

    def residual(x, u):
        laplace = dde.grad.hessian(u, x, i=0, j=0) + dde.grad.hessian(u, x, i=1, j=1)
        return laplace + 2 * PI**2 * torch.sin(PI * x[:, :1]) * torch.sin(PI * x[:, 1:])

    walls = dde.icbc.DirichletBC(square, lambda x: 0 * x[:, :1], lambda _, on: on)
    data = dde.data.PDE(square, residual, walls, num_domain=1600, num_boundary=240)
    model = dde.Model(data, dde.nn.FNN([2, 40, 40, 40, 1], "tanh", "Glorot uniform"))
    model.compile("adam", lr=1e-3)
    model.train(iterations=STEPS, display_every=100_000, verbose=0)
    model.compile("L-BFGS")
    model.train(display_every=100_000, verbose=0)
    return lambda X: model.predict(X)[:, 0]


def deepxde_burgers(dde, seed):
    """The self-similar Burgers equation with lambda unknown; the solution and lambda."""
    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    lam = dde.Variable(0.6, dtype=torch.float64)

    def residual(y, U):
        return -lam * U + ((1 + lam) * y + U) * dde.grad.jacobian(U, y)

    line = dde.geometry.Interval(-2, 2)
    known = dde.icbc.PointSetBC(np.array([[-2.0], [0.0], [2.0]]), np.array([[1.0], [0.0], [-1.0]]))
    data = dde.data.PDE(line, residual, known, num_domain=400, num_boundary=2)
    model = dde.Model(data, dde.nn.FNN([1, 20, 20, 20, 1], "tanh", "Glorot uniform"))
    model.compile("adam", lr=1e-3, external_trainable_variables=[lam])
    model.train(iterations=STEPS, display_every=100_000, verbose=0)
    model.compile("L-BFGS", external_trainable_variables=[lam])
    model.train(display_every=100_000, verbose=0)
    return (lambda X: model.predict(X)[:, 0]), float(lam)


def solve_by_deepxde(table, seeds):
    try:
        import deepxde as dde
    except ImportError:
        print("  DeepXDE is not installed: its rows are kept.")
        table.take_over("equations", lambda row: row["method"] == "DeepXDE")
        return
    dde.optimizers.config.set_LBFGS_options(maxiter=STEPS, maxfun=2 * STEPS)
    errors, fits = [], []
    exact, _ = sines(1, 1)
    for seed in range(seeds):
        start = time.process_time()
        predict = deepxde_poisson(dde, seed)
        fits.append(time.process_time() - start)
        X = np.random.default_rng(30_000 + seed).uniform(-1, 1, (N_FRESH, 2))
        errors.append(harness.rms(predict(X) - exact(X)) / harness.rms(exact(X)))
    table.add(row_of("Poisson 2-D", "DeepXDE", errors, fits))
    errors, fits, found = [], [], []
    for seed in range(seeds):
        start = time.process_time()
        predict, lam = deepxde_burgers(dde, seed)
        fits.append(time.process_time() - start)
        X = np.random.default_rng(30_000 + seed).uniform(-2, 2, (N_FRESH, 1))
        U = self_similar(X[:, 0])
        errors.append(harness.rms(predict(X) - U) / harness.rms(U))
        found.append(abs(lam - 0.5))
    row = row_of("Burgers, lambda unknown", "DeepXDE", errors, fits)
    row["median deviation of lambda from 1/2"], row["worst deviation of lambda from 1/2"] = (
        float(np.median(found)),
        max(found),
    )
    table.add(row)


def run(seeds, quick):
    table = harness.Table()
    solve_linear(table, seeds)
    solve_burgers(table, seeds)
    solve_growth(table, 4 if quick else GROWTH_SEEDS)
    if not quick:
        solve_by_deepxde(table, 1)
    return table
