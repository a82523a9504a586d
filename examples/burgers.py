"""Find the exponent for which Burgers' equation has a smooth self-similar solution.

Near a shock the solution of u_t + u u_x = 0 looks the same at all scales: with the right lambda,
-lambda U + ((1 + lambda) y + U) U' = 0 for U(y). A smooth odd solution through U(2) = -1 exists for
lambda = 1/2. The fit is told no more than bounds for lambda:

    python examples/burgers.py --output burgers.png
"""

import argparse
import time

import numpy as np

from skpou import LSGDRegressor
from skpou.physics import Equation, Symmetry, Unknown


def self_similar(u, y, p):
    return -p["lambda"] * u() + ((1 + p["lambda"]) * y[:, 0] + u()) * u.d(0)


def points(n=300):
    """Denser towards 0, where the solution for a wrong exponent is not smooth."""
    half = 1 - np.cos(np.arange(n) * np.pi / (n - 1))
    return np.r_[-half[:0:-1], half][:, None]


def draw(model, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    U = np.linspace(-1, 1, 401)
    y = -U - U**3  # The solution in implicit form
    predicted = model.predict(y[:, None])
    left.plot(y, predicted, color="#0072b2", label="fit")
    left.plot([-2, 0, 2], [1, 0, -1], "o", color="0.3", label="given values")
    left.set(title=f"Solution, lambda = {model.unknowns_['lambda']:.13f}", xlabel="y", ylabel="U")
    left.legend(frameon=False)
    right.semilogy(y, np.abs(predicted - U) + 1e-18, color="#0072b2", lw=1)
    right.set(title="Error", xlabel="y", ylabel="|error|", ylim=(1e-18, 1e-12))
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="burgers.png", help="file of the figure")
    path = parser.parse_args().output

    equation = Equation(self_similar, points(), gradient_weight=0.15)
    model = LSGDRegressor(
        physics=[equation, Symmetry("odd", 0)],
        unknowns={"lambda": Unknown(0.6, bounds=(0.3, 1.3))},
    )
    start = time.perf_counter()
    model.fit([[-2.0], [0.0], [2.0]], [1.0, 0.0, -1.0])
    seconds = time.perf_counter() - start
    print(f"lambda - 1/2 = {model.unknowns_['lambda'] - 0.5:.1e} in {seconds:.1f} s")
    draw(model, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
