"""Fit a wave on a slope in stages, down to machine precision between the samples.

Left: what each stage leaves over, scaled to unit size. Right: the error between the samples after
each stage, beside that of a cubic spline:

    python examples/stages.py --output stages.png
"""

import argparse
import time

import numpy as np
from scipy.interpolate import CubicSpline

from skpou import MultiStageRegressor
from skpou.inspection import StageDisplay


def target(x):
    """The target of the papers on multi-stage networks."""
    return np.sin(2 * x + 1) + 0.2 * np.exp(1.3 * x)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="stages.png", help="file of the figure")
    path = parser.parse_args().output

    import matplotlib.pyplot as plt

    x = np.linspace(-1, 1, 300)
    grid = np.linspace(-1, 1, 10_001)
    start = time.perf_counter()
    model = MultiStageRegressor(hidden_layer_sizes=(20, 20, 20)).fit(x[:, None], target(x))
    print(f"{model.basis_}, {time.perf_counter() - start:.2f} s")
    for stage, (left, predicted) in enumerate(
        zip(model.residual_rms_, model.staged_predict(grid[:, None])), 1
    ):
        between = np.sqrt(np.mean((predicted - target(grid)) ** 2))
        print(f"stage {stage}: rms {left:.1e} at the samples, {between:.1e} between them")
    automatic = MultiStageRegressor().fit(x[:, None], target(x))
    error = automatic.predict(grid[:, None]) - target(grid)
    print(f"by default: {automatic.basis_}, rms {np.sqrt(np.mean(error**2)):.1e} between them")

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    n_stages = model.n_stages_
    figure, axes = plt.subplots(1, n_stages + 1, figsize=(3.6 * (n_stages + 1), 3.4),
                                layout="constrained")  # fmt: skip
    StageDisplay.from_estimator(model, x[:, None], target(x), ax=axes[:-1], color="#0072b2")
    curves = {"cubic spline": CubicSpline(x, target(x))(grid)}
    for stage, predicted in enumerate(model.staged_predict(grid[:, None]), 1):
        curves[f"after stage {stage}"] = predicted
    colors = ("#e69f00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7")
    for (name, predicted), color in zip(curves.items(), colors):
        error = np.abs(predicted - target(grid)) + 1e-17
        axes[-1].semilogy(grid, error, color=color, linewidth=0.8, label=name)
    axes[-1].set(
        title="error between the samples", xlabel="x", ylabel="|error|", ylim=(1e-18, 1e-2)
    )
    axes[-1].legend(frameon=False, loc="upper center", ncols=2)
    figure.savefig(path, dpi=110)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
