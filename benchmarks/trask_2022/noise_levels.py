"""Three levels of noise, Appendix B and Figs. 8 and 9 of Trask et al. (MSML 2022).

sin(2 pi x) with a noise of 0 up to 1/2, 0.1 up to 3/4 and 0.5 beyond (the signs printed there are
reversed), and without any; 500 points, (8, 2) partitions, degree 2. The printed training keeps
sigma at 1 and estimates the noise at its end (noise="after") or in each cycle (noise="em").
Coverage is the share of the distribution of y, hence of all future measurements, inside the
intervals of 68 and 95 %, on a dense grid: no random test points. Each run has 300 V-cycles; the
paper's are longer.
"""

import numpy as np
from scipy.special import ndtr

from benchmarks.shared import harness
from benchmarks.trask_2022 import paper

N_SAMPLES = 500
SIZE, DEGREE = (8, 2), 2
CYCLES = 300
LEVELS = ((0.5, 0.0), (0.75, 0.1), (1.0, 0.5))  # end of the interval, standard deviation
METHODS = {"EM, after": "after", "EM, each cycle": "em", paper.OURS: None}
COLORS = dict(zip(METHODS, (paper.RED, paper.ORANGE, paper.BLUE)))
X_TEST = (np.arange(4000)[:, None] + 0.5) / 4000
PRINTED = {
    ("noisy", "EM, after"): "as accurate as each cycle",
    ("noisy", "EM, each cycle"): "as accurate as after",
    ("clean", "EM, after"): "4.03e-4",
    ("clean", "EM, each cycle"): "2.46e-3",
}


def noise_at(x):
    """Standard deviation of the noise."""
    return np.select([x <= end for end, _ in LEVELS], [sigma for _, sigma in LEVELS])


def data(kind, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((N_SAMPLES, 1))
    epsilon = rng.standard_normal(N_SAMPLES)
    scale = noise_at(X[:, 0]) if kind == "noisy" else 0.0
    return X, np.sin(2 * np.pi * X[:, 0]) + scale * epsilon


def coverage(model, x, sigma, share):
    """Part of the true distribution inside the model's central interval, on average."""
    tail = (1 - share) / 2
    low, high = model.predict_quantile(x[:, None], (tail, 1 - tail)).T
    truth = np.sin(2 * np.pi * x)
    return float(np.mean(ndtr((high - truth) / sigma) - ndtr((low - truth) / sigma)))


def judge(model, kind):
    """Error of the mean, and how well the error bars tell errors and noise."""
    x = X_TEST[:, 0]
    mean, std = model.predict(X_TEST, return_std=True)
    deviation = mean - np.sin(2 * np.pi * x)
    quiet = x <= 0.5 if kind == "noisy" else np.ones_like(x, dtype=bool)
    found = {"rms error": harness.rms(deviation), "max error": float(np.abs(deviation).max())}
    found["rms error, no noise"] = harness.rms(deviation[quiet])
    found["std / error, no noise"] = harness.rms(std[quiet]) / harness.rms(deviation[quiet])
    start = 0.5
    for end, sigma in LEVELS[1:] if kind == "noisy" else ():
        inside = (x > start) & (x <= end)
        for share in (0.68, 0.95):
            name = f"{100 * share:.0f} %, noise {sigma}"
            found[name] = 100 * coverage(model, x[inside], sigma, share)
        start = end
    return found


def train(method, kind, seeds, cycles):
    """Judgements, seconds, histories and models of all seeds."""
    found, times, histories, models = [], [], [], []
    for seed in range(seeds):
        X, y = data(kind, seed)
        if METHODS[method]:
            model = paper.printed(SIZE, DEGREE, seed, cycles=cycles, noise=METHODS[method])
            seconds, *history = paper.history(model, X, y)
            histories.append(history)
        else:
            model = paper.ours(SIZE, DEGREE, seed)
            seconds = paper.fit(model, X, y)
        found.append(judge(model, kind))
        times.append(seconds)
        models.append(model)
    return found, times, histories, models


def draw_fits(results):
    """Fig. 9: prediction with two standard deviations, error beside them, partitions."""
    kinds = [(kind, method) for kind in ("noisy", "clean") for method in METHODS]
    drawn, axes = paper.panels(len(kinds), 3, 4.6, 2.1, sharex=True)
    x = X_TEST[:, 0]
    truth = np.sin(2 * np.pi * x)
    for (kind, method), row in zip(kinds, axes):
        model = results[kind, method][3][0]
        mean, std = model.predict(X_TEST, return_std=True)
        row[0].plot(*data(kind, 0), ".", color="0.6", markersize=2)
        row[0].fill_between(x, mean - 2 * std, mean + 2 * std, color=COLORS[method], alpha=0.3)
        row[0].plot(x, mean, color=COLORS[method], linewidth=1.3)
        row[0].set(title=f"{kind}: {method}", ylabel="y")
        row[1].semilogy(x, np.abs(mean - truth) + 1e-17, color=COLORS[method], linewidth=0.8)
        row[1].semilogy(x, 2 * std + 1e-17, color="black", linewidth=1)
        row[1].set(ylabel="error, 2 std (black)", ylim=(1e-7 if kind == "noisy" else 1e-17, 10))
        paper.partitions(row[2], model, x)
        row[2].set(ylabel="probability")
    axes[0, 1].set_title("error (colour) and 2 std (black)")
    axes[0, 2].set_title("partitions")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    harness.save(drawn, "noise_levels")


def draw_histories(results):
    """Fig. 8: residual against cycles, mean and two standard deviations."""
    drawn, axes = paper.panels(1, 2, 5, 3.6)
    every = np.unique(np.geomspace(1, CYCLES - CYCLES // 100, 40).astype(int))
    for ax, kind in zip(axes[0], ("noisy", "clean")):
        for method, noise in METHODS.items():
            histories = results[kind, method][2]
            if noise:
                values = paper.on_cycles(histories, every)
                paper.band(ax, every, values, COLORS[method], method, width=2.0)
        ax.set(xscale="log", yscale="log", title=kind, xlabel="V-cycles")
        ax.set_ylabel("residual / standard deviation of y")
        ax.legend(frameon=False)
    harness.save(drawn, "noise_levels_history")


def bounds(means, kind):
    """Coverage within four points, standard deviation within a factor 3 of the error."""
    ratio = means["std / error, no noise"]
    found = [("std / error 1/3 to 3", abs(np.log(ratio)), np.log(3))]
    for share in (68, 95) if kind == "noisy" else ():
        worst = max(abs(means[f"{share} %, noise {sigma}"] - share) for _, sigma in LEVELS[1:])
        found.append((f"{share} % to 4 points", worst, 4.0))
    return found


def run(seeds, quick):
    table = harness.Table()
    results = {}
    for kind in ("noisy", "clean"):
        for method in METHODS:
            results[kind, method] = train(method, kind, seeds, CYCLES // (10 if quick else 1))
            found, times, _, models = results[kind, method]
            means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
            # Ratios and errors vary by factors, shares do not.
            for key in [key for key in means if "%" not in key]:
                means[key] = paper.log_normal([one[key] for one in found]).mean
            row = {"data": kind, "method": method}
            row["paper prints, error"] = PRINTED.get((kind, method), "")
            row["pieces"] = harness.digits(float(np.median([len(m.coef_) for m in models])))
            row |= {k: f"{v:.1f}" if "%" in k else v for k, v in means.items()}
            row |= {"fit (s)": float(np.median(times)), "seeds": seeds}
            table.add(row, bounds(means, kind))
    if not quick:
        draw_fits(results)
        draw_histories(results)
    return table
