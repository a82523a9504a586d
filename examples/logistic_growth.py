"""Learn the rate of a growth from noisy measurements, with its uncertainty.

A population grows by u' = r u (1 - u). Forty measurements with noise are known, the rate r is not.
The equation fills the gaps between the measurements and makes their error bars small:

    python examples/logistic_growth.py --output logistic_growth.png
"""

import argparse
import time

import numpy as np

from skpou import LSGDRegressor
from skpou.physics import Equation, Unknown

RATE, NOISE = 1.3, 0.02


def logistic(u, t, p):
    return u.d(0) - p["rate"] * u() * (1 - u())


def growth(t):
    return 1 / (1 + 9 * np.exp(-RATE * t))


def draw(t, y, model, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    grid = np.linspace(0, 8, 401)
    mean, std = model.predict(grid[:, None], return_std="epistemic")
    rate, deviation = model.unknowns_["rate"], model.unknowns_std_["rate"]
    left.plot(grid, mean, color="#0072b2", label="fit")
    left.plot(grid, growth(grid), "k--", lw=1, label="truth")
    left.plot(t, y, ".", color="0.3", ms=4, label="measurements")
    left.set(title=f"Rate {rate:.3f} +- {deviation:.3f} (true {RATE})", xlabel="t", ylabel="u")
    left.legend(frameon=False)
    right.fill_between(grid, -2 * std, 2 * std, color="#0072b2", alpha=0.25, lw=0,
                       label="2 standard deviations")  # fmt: skip
    right.plot(grid, mean - growth(grid), color="#0072b2", label="error of the fit")
    right.plot(t, y - growth(t), ".", color="0.3", ms=4, label="noise")
    right.set(title="Error", xlabel="t", ylabel="error")
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="logistic_growth.png", help="file of the figure")
    path = parser.parse_args().output

    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 6, 40))
    y = growth(t) + NOISE * rng.standard_normal(40)
    model = LSGDRegressor(
        physics=Equation(logistic, "chebyshev", box=[[0, 8]]), unknowns={"rate": Unknown(1.0)}
    )
    start = time.perf_counter()
    model.fit(t[:, None], y)
    seconds = time.perf_counter() - start
    rate, deviation = model.unknowns_["rate"], model.unknowns_std_["rate"]
    print(f"rate {rate:.3f} +- {deviation:.3f}, truly {RATE}, in {seconds:.1f} s")
    print(f"noise {model.noise_:.3f}, truly {NOISE}")
    draw(t, y, model, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
