"""SG++ in a process of its own: ``PYTHON benchmarks/grids/sgpp.py TASK IN.npz OUT.npz``.

pysgpp 3.3 needs numpy < 2 and lives in another environment, whose interpreter the variable
SKPOU_PYSGPP names. This file is run by that interpreter and imports numpy and pysgpp alone; see
`call` for the other side.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

#: Points refined in a step, as in SG++'s own examples; share of the rows held out; patience.
REFINED, HELD_OUT, PATIENCE = 20, 0.15, 3
#: Most steps of conjugate gradients for a grid, and the decrease of the gradient that ends them.
MAX_ITER, TOL = 200, 1e-6


def interpreter():
    """Python of the environment with pysgpp, or None."""
    return os.environ.get("SKPOU_PYSGPP")


def call(task, **arrays):
    """Run a task there, with one thread; returns its arrays."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = (str(Path(folder, name)) for name in ("in.npz", "out.npz"))
        np.savez(given, **arrays)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        command = [interpreter(), __file__, task, given, found]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return dict(np.load(found))


def evaluation(pysgpp, grid, X, streaming=True):
    """Products with the basis matrix (mult) and its transpose (multTranspose)."""
    kind = "STREAMING" if streaming else "DEFAULT"
    configuration = pysgpp.OperationMultipleEvalConfiguration(
        getattr(pysgpp, f"OperationMultipleEvalType_{kind}"),
        pysgpp.OperationMultipleEvalSubType_DEFAULT,
    )
    return pysgpp.createOperationMultipleEval(grid, X, configuration)


def regular(pysgpp, n_features, level):
    grid = pysgpp.Grid.createModLinearGrid(n_features)
    grid.getGenerator().regular(level)
    return grid


def speed(pysgpp, X, level, streaming):
    """Least seconds of an evaluation at points and of the transposed product."""
    grid = regular(pysgpp, X.shape[1], int(level))
    data = pysgpp.DataMatrix(X)  # Kept: the operation holds no reference.
    operation = evaluation(pysgpp, grid, data, bool(streaming))
    coef, values = pysgpp.DataVector(grid.getSize(), 0.5), pysgpp.DataVector(len(X), 0.5)
    seconds = []
    for product, arguments in (
        (operation.mult, (coef, values)),
        (operation.multTranspose, (values, coef)),
    ):
        seconds.append([])
        for _ in range(3):
            start = time.process_time()
            product(*arguments)
            seconds[-1].append(time.process_time() - start)
    return {"n_points": grid.getSize(), "seconds": np.min(seconds, axis=1)}


class Fit:
    """Ridge regression on a grid by conjugate gradients; products by the streaming operation."""

    def __init__(self, pysgpp, grid, X, y, ridge):
        self.pysgpp, self.grid, self.y = pysgpp, grid, y
        self.data = pysgpp.DataMatrix(X)
        self.operation = evaluation(pysgpp, grid, self.data)
        self.ridge = ridge * len(y)

    def values(self, coef):
        result = self.pysgpp.DataVector(len(self.y))
        self.vector = self.pysgpp.DataVector(coef)
        self.operation.mult(self.vector, result)
        return np.array(result.array())

    def transposed(self, residual):
        result = self.pysgpp.DataVector(self.grid.getSize())
        self.vector = self.pysgpp.DataVector(residual)
        self.operation.multTranspose(self.vector, result)
        return np.array(result.array())

    def solve(self, coef):
        r = self.transposed(self.y - self.values(coef)) - self.ridge * coef
        size = np.linalg.norm(self.transposed(self.y))
        p, rr = r.copy(), r @ r
        for _ in range(MAX_ITER):
            if rr <= (TOL * size) ** 2:
                break
            q = self.transposed(self.values(p)) + self.ridge * p
            length = rr / (p @ q)
            coef = coef + length * p
            r -= length * q
            rr, before = r @ r, rr
            p = r + rr / before * p
        return coef


def regression(pysgpp, X, y, X_test, level, ridge, max_points):
    """Refine by surpluses while rows held out are predicted better, then fit to all rows."""
    start = time.process_time()
    order = np.random.default_rng(0).permutation(len(X))
    held_out, kept = np.split(order, [int(HELD_OUT * len(X))])
    grid = regular(pysgpp, X.shape[1], int(level))
    coef = np.zeros(grid.getSize())
    best, since = (np.inf, None, 0), 0
    while True:
        coef = Fit(pysgpp, grid, X[kept], y[kept], float(ridge)).solve(coef)
        residual = y[held_out] - Fit(pysgpp, grid, X[held_out], y[held_out], 0).values(coef)
        error = float(np.mean(residual**2))
        since = 0 if error < best[0] else since + 1
        if since == 0:
            best = error, pysgpp.Grid.unserialize(grid.serialize()), coef
        if since >= PATIENCE or grid.getSize() >= max_points:
            break
        surplus = pysgpp.DataVector(coef)
        functor = pysgpp.SurplusRefinementFunctor(surplus, REFINED, 0.0)
        grid.getGenerator().refine(functor)
        coef = np.append(coef, np.zeros(grid.getSize() - len(coef)))
    error, grid, coef = best
    coef = Fit(pysgpp, grid, X, y, float(ridge)).solve(coef)
    seconds = time.process_time() - start
    predicted = Fit(pysgpp, grid, X_test, np.zeros(len(X_test)), 0).values(coef)
    return {
        "predicted": predicted,
        "n_points": grid.getSize(),
        "seconds": seconds,
        "held_out": error,
    }


def main():
    import pysgpp

    task, given, found = sys.argv[1:]
    np.savez(found, **globals()[task](pysgpp, **dict(np.load(given))))


if __name__ == "__main__":
    main()
