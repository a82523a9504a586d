"""One to five parabolas, Fig. 4 of Trask et al. (MSML 2022), with twice as many fine partitions.

Sizes (p, 2) for p parabolas in the continuous form of Eq. 46, degree 2, 300 random points; errors
on 5001 points, relative. The paper's training runs for 1000 V-cycles, and for 500 with a falling
sigma (noise="anneal"). Beside it stands a deterministic POU-net of 2 p partitions, Eqs. 1 and 2:
solver="varpro" with radial gates, the training of Lee et al. with Levenberg-Marquardt steps in
place of Adam's; networks as gates take no part in that solver. scikit-learn's multilayer
perceptrons of two layers of 64 stand in for the residual network. The default is five seeds; ten
take more than six minutes.
"""

import numpy as np

from benchmarks.shared import harness
from benchmarks.trask_2022 import paper
from skpou import HierarchicalPOURegressor
from skpou.datasets import make_piecewise_quadratic

SEEDS = 5
N_SAMPLES = 300
PIECES = (1, 2, 3, 4, 5)
CYCLES = {"after": 1000, "anneal": 500}
X_TEST = np.linspace(0, 1, 5001)[:, None]
ANNEALED, NET = "EM, annealed", "POU-net, varpro"
ADAM, LBFGS = "perceptron, Adam", "perceptron, L-BFGS"
COLORS = {
    paper.EM: paper.RED,
    ANNEALED: paper.ORANGE,
    NET: paper.GREEN,
    ADAM: paper.PINK,
    LBFGS: paper.SKY,
    paper.OURS: paper.BLUE,
}
MACHINE = 1e-14
PRINTED = {paper.EM: "machine precision", NET: "< 1e-2", ADAM: "poor"}


def make(method, p, seed, quick):
    """Estimator of a method for p parabolas."""
    if method in (paper.EM, ANNEALED):
        noise = "after" if method == paper.EM else "anneal"
        cycles = CYCLES[noise] // (10 if quick else 1)
        return paper.printed((p, 2), 2, seed, cycles=cycles, noise=noise)
    if method == NET:
        return HierarchicalPOURegressor(
            2 * p, 2, solver="varpro", init="box", gate="rbf", random_state=seed
        )
    if method == paper.OURS:
        return paper.ours((p, 2), 2, seed)
    return harness.neural_network("adam" if method == ADAM else "lbfgs")


def train(method, p, seeds, quick):
    """Errors, seconds, histories (of EM) and models of all seeds."""
    truth = make_piecewise_quadratic(X=X_TEST, n_pieces=p)[1]
    errors, times, histories, models = [], [], [], []
    for seed in range(seeds):
        X, y = make_piecewise_quadratic(N_SAMPLES, n_pieces=p, random_state=seed)
        model = make(method, p, seed, quick)
        if method in (paper.EM, ANNEALED):
            seconds, *history = paper.history(model, X, y)
            histories.append(history)
        else:
            seconds = paper.fit(model, X, y)
        errors.append(paper.error(model, X_TEST, truth))
        times.append(seconds)
        models.append(model)
    return errors, times, histories, models


def draw(found):
    drawn, axes = paper.panels(2, 2, 5, 3.6)
    x = X_TEST[:, 0]
    p = max(PIECES)
    model, exact = found[paper.EM, p][3][0], found[paper.OURS, p][3][0]
    top = axes[0, 0]
    top.plot(x, make_piecewise_quadratic(X=X_TEST, n_pieces=p)[1], color="0.7", linewidth=4)
    top.plot(x, model.predict(X_TEST), color=paper.RED, linewidth=1.2)
    top.plot(x, exact.predict(X_TEST), "--", color=paper.BLUE, linewidth=1.2)
    top.legend(["target", paper.EM, paper.OURS], frameon=False, ncols=3, loc="upper center")
    top.set(title=f"{p} parabolas", xlabel="x", ylabel="y", ylim=(-0.05, 1.25))
    paper.partitions(axes[0, 1], model, x)
    axes[0, 1].set(title=f"partitions, {paper.EM}", xlabel="x", ylabel="probability")
    for method, color in COLORS.items():
        errors = np.transpose([found[method, k][0] for k in PIECES])
        paper.band(axes[1, 0], PIECES, errors, color, method, style="-o")
    axes[1, 0].set(title="error", xlabel="parabolas", ylabel="relative error", yscale="log")
    axes[1, 0].set_xticks(PIECES)
    axes[1, 0].legend(frameon=False, fontsize=7.5, loc="center", bbox_to_anchor=(0.62, 0.42))
    colors = (paper.BLUE, paper.SKY, paper.GREEN, paper.ORANGE, paper.RED)
    cycles = np.arange(1, CYCLES["after"] + 1, 10)
    for k, color in zip(PIECES, colors):
        residuals = paper.on_cycles(found[paper.EM, k][2], cycles)
        running = np.minimum.accumulate(residuals, axis=1)
        paper.band(axes[1, 1], cycles, running, color, f"p = {k}")
    axes[1, 1].set(title=f"running minimum, {paper.EM}", xlabel="V-cycles", yscale="log")
    axes[1, 1].set(ylabel="residual / standard deviation of y", xscale="log")
    axes[1, 1].legend(frameon=False, fontsize=7.5)
    harness.save(drawn, "piecewise_quadratic")


def run(seeds, quick):
    table = harness.Table()
    found = {}
    for method in COLORS:
        for p in PIECES[::4] if quick else PIECES:
            found[method, p] = errors, times, histories, _ = train(method, p, seeds, quick)
            row = {"method": method, "parabolas": p, "paper prints": PRINTED.get(method, "")}
            row |= paper.statistics_columns("error", errors)
            rises = [residuals[-1] / residuals.min() for _, residuals in histories]
            row["last / least residual"] = max(rises) if rises else None
            row |= {"fit (s)": float(np.median(times)), "seeds": seeds}
            bounded = method in (paper.EM, paper.OURS)
            worst = [("round-off 1e-14, worst", max(errors), MACHINE)]
            table.add(row, worst if bounded else ())
    if not quick:
        draw(found)
    return table
