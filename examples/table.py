"""Take a noisy table apart into effects of single columns and of pairs, with error bars.

Friedman's first function of ten columns, five of which matter, with noise that is five times as
large at one end of the fourth column as at the other:

    python examples/table.py --output table.png
"""

import argparse
import time

import numpy as np

from skpou import AdditivePOURegressor

COLUMNS = range(5)


def target(X):
    """A pair, a parabola and two lines."""
    pair = 10 * np.sin(np.pi * X[:, 0] * X[:, 1])
    return pair + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]


def width(X):
    """Standard deviation of the noise."""
    return 0.4 * 5 ** X[:, 3]


def rows(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 10))
    return X, target(X) + width(X) * rng.standard_normal(n)


def truth(column, grid):
    """Effect of one column: the target's mean over all others."""
    others = np.random.default_rng(9).random((4000, 10))
    values = []
    for value in grid:
        others[:, column] = value
        values.append(target(others).mean())
    return np.array(values) - np.mean(values)


def draw(model, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 6, figsize=(14, 3), layout="constrained")
    grid = np.linspace(0.01, 0.99, 99)
    for column, ax in zip(COLUMNS, axes):
        X = np.full((99, 10), 0.5)
        X[:, column] = grid
        value, std = (
            part[:, model.terms_.index((column,))]
            for part in model.predict_terms(X, return_std=True)
        )
        expected = truth(column, grid)
        ax.fill_between(grid, value - 2 * std, value + 2 * std, color="#0072b2", alpha=0.25, lw=0)
        ax.plot(grid, value, color="#0072b2")
        ax.plot(grid, expected + (value - expected).mean(), "--", color="0.3", lw=1)
        ax.set(title=f"column {column}", xlabel="x", ylim=(-7, 7))
    axes[0].set_ylabel("main effect and 2 standard deviations")
    X = np.full((99, 10), 0.5)
    X[:, 3] = grid
    noise = model.predict(X, return_std="noise")[1]
    axes[5].plot(grid, noise, color="#d55e00")
    axes[5].plot(grid, width(X), "--", color="0.3", lw=1)
    axes[5].set(title="noise along column 3", xlabel="x", ylim=(0, None))
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="table.png", help="file of the figure")
    path = parser.parse_args().output

    X, y = rows(600, seed=0)
    start = time.perf_counter()
    # Without the block over all columns, which would take over from the effects.
    model = AdditivePOURegressor(remainder=False).fit(X, y)
    print(f"{len(model.terms_)} terms, {time.perf_counter() - start:.1f} s")
    size = model.predict_terms(X).std(0)
    for place in np.argsort(-size)[:6]:
        term, dof = model.terms_[place], model.effective_dof_[place]
        print(f"  columns {term}: size {size[place]:.2f}, {dof:.1f} degrees of freedom")
    fresh, targets = rows(5000, seed=1)
    error = np.sqrt(np.mean((model.predict(fresh) - target(fresh)) ** 2))
    print(f"rms error {error:.2f}; noise between 0.4 and 2")
    for share in (0.5, 0.9):
        low, high = model.predict_quantile(fresh, [0.5 - share / 2, 0.5 + share / 2]).T
        inside = np.mean((low < targets) & (targets < high))
        print(f"{100 * share:.0f} % intervals hold {100 * inside:.1f} % of new rows")
    draw(model, path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
