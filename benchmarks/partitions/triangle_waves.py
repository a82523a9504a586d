"""Triangle waves and their squares with 2 to 32 pieces on one level, exact and with noise."""

import numpy as np

from benchmarks.shared import harness
from skpou import POURegressor
from skpou.datasets import make_triangle_wave

NOISE = 1e-3
N = 1001


def wave(n_pieces, squared):
    frequency = n_pieces if squared else n_pieces // 2
    return lambda X: make_triangle_wave(X=X, frequency=frequency, squared=squared)[1]


def oracle(n_pieces, squared, seed):
    """Error of least squares on the true pieces, from the targets that `harness.measure` draws."""
    X, X_test = np.linspace(0, 1, N)[:, None], harness.fresh(1, seed)
    function, degree = wave(n_pieces, squared), 2 if squared else 1
    y = function(X) + NOISE * np.random.default_rng(20_000 + seed).standard_normal(N)
    piece, piece_test = (np.floor(n_pieces * P[:, 0]).astype(int) for P in (X, X_test))
    predicted = np.zeros(len(X_test))
    for k in np.unique(piece):
        coef = np.polyfit(X[piece == k, 0], y[piece == k], min(degree, (piece == k).sum() - 1))
        predicted[piece_test == k] = np.polyval(coef, X_test[piece_test == k, 0])
    truth = function(X_test)
    return harness.rms(predicted - truth) / harness.rms(truth)


def run(seeds, quick):
    table = harness.Table()
    grid = np.linspace(0, 1, N)[:, None]
    for squared in (False, True):
        degree, kind = (2, "squared") if squared else (1, "triangle")
        for n_pieces in (2, 4, 8, 16, 32):
            function = wave(n_pieces, squared)

            def make(parts=n_pieces, degree=degree):
                return POURegressor(parts, degree)

            task = f"{kind}, {n_pieces} pieces"
            runs = [harness.measure(make(), function, 1, N, s, X=grid) for s in range(seeds)]
            table.add_runs(task, f"skpou, {n_pieces}, {degree}", runs, error=1e-13, seconds=1)
            noisy = [
                harness.measure(make(), function, 1, N, s, X=grid, noise=NOISE)
                for s in range(seeds)
            ]
            reference = [oracle(n_pieces, squared, seed) for seed in range(seeds)]
            table.add_runs(
                f"{task}, noise {NOISE:g}",
                f"skpou, {n_pieces}, {degree}",
                noisy,
                reference=reference,
                ratio=1.3,
            )
    for name, rival in harness.rivals(N, 1, quick).items():
        repeats = harness.rival_seeds(name, N, seeds)
        runs = [harness.measure(rival(), wave(8, False), 1, N, s, X=grid) for s in range(repeats)]
        table.add_runs("triangle, 8 pieces", name, runs)
    return table
