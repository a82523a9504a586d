"""Which regressor? Members race on a kinked function with noise, and a figure shows how.

The target has a kink along a parabola, a wave along the second column, and noise of standard
deviation 0.02 at 2000 points:

    python examples/which_one.py --output which_one.png
"""

import argparse

import numpy as np

from skpou import AutoRegressor
from skpou.inspection import LeaderboardDisplay


def target(X):
    """A kink along a parabola, and a wave along the second column."""
    return np.abs(X[:, 0] - X[:, 1] ** 2) + 0.3 * np.sin(8 * X[:, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="which_one.png", help="file of the figure")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.random((2000, 2))
    y = target(X) + 0.02 * rng.standard_normal(len(X))
    model = AutoRegressor().fit(X, y)
    print(model.summary())

    points = rng.random((5000, 2))
    mean, std = model.predict(points, return_std=True)
    print(f"error {np.sqrt(np.mean((mean - target(points)) ** 2)):.4f}, std {std.mean():.4f}")
    LeaderboardDisplay.from_estimator(model).figure_.savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
