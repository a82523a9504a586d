"""Neural sparse grids as classifiers: moons in 3-D, digits, MNIST, stuck starts, bursts.

MNIST is 10,000 images, 8000 to fit and 2000 to test; without the file its rows are missing. Other
heads are trained with an encoder of their own, and fitted to the embedding that a grid has trained.
"""

import time
import warnings
from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from benchmarks.shared import harness
from skpou import NeuralSparseGridClassifier, NeuralSparseGridRegressor, SparseGridClassifier
from skpou.core.optim.descents import minibatches
from skpou.core.optim.first_order import Adam
from skpou.core.rows import Rows, merge_rows
from skpou.datasets import make_two_moons_3d
from skpou.inspection import LatentGridDisplay
from skpou.neural_sparse_grids.descent.descent import one_cycle, pull_inside
from skpou.neural_sparse_grids.descent.objectives import DescentOptions
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderForm
from skpou.neural_sparse_grids.encoders.starts import start_encoder
from skpou.neural_sparse_grids.fit import NeuralGridOptions, fit_neural_sparse_grid
from skpou.nn import residual_encoder

SEEDS = 10
#: Learning rates of the thesis' table of bursts.
BURST_RATES = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
#: Points of a Gaussian process.
SOME = 800
NOISES = (0.1, 0.2)
#: Digits of 8 x 8 and MNIST: convolutions, eight components, a grid of level 2 or 3.
DIGITS = {"encoder": "cnn", "image_shape": (1, 8, 8), "n_components": 8, "level": 2}
DIGITS |= {"batch_size": 64, "max_iter": 15, "dtype": "float32"}
MNIST = DIGITS | {"image_shape": (1, 28, 28), "level": 3, "max_iter": 12}


def fitted(make, seed, X, y, X_test, y_test):
    """Accuracy, seconds, and the fitted classifier."""
    model = make(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*of the embeddings lie within")
        seconds = harness.fit(model, X, y)
    return float(np.mean(model.predict(X_test) == y_test)), seconds, model


class OfSome:
    """Gaussian process of the first points: of all it would take hours."""

    def __init__(self):
        process = GaussianProcessClassifier(ConstantKernel() * RBF(2.0), random_state=0)
        self.process = make_pipeline(StandardScaler(), process)

    def fit(self, X, y):
        self.process.fit(X[:SOME], y[:SOME])

    def predict(self, X):
        return self.process.predict(X)


def rivals():
    """Other methods, and how many samples they get."""

    def network(seed):
        return MLPClassifier((25, 25), max_iter=300, random_state=seed)

    found = {
        "SVC": (lambda seed: make_pipeline(StandardScaler(), SVC(C=10)), 3),
        "15 nearest neighbours": (lambda seed: KNeighborsClassifier(15), 3),
        "MLPClassifier": (lambda seed: make_pipeline(StandardScaler(), network(seed)), 3),
        "HistGradientBoosting": (lambda seed: HistGradientBoostingClassifier(random_state=seed), 3),
        f"Gaussian process of {SOME} points": (lambda seed: OfSome(), 1),
    }
    try:
        from xgboost import XGBClassifier

        found["xgboost"] = (lambda seed: XGBClassifier(n_jobs=1, random_state=seed), 3)
    except ImportError:
        pass
    return found


def add(table, task, method, runs, bounds=(), **more):
    row = {"task": task, "method": method, "accuracy": f"{np.mean([r[0] for r in runs]):.4f}"}
    row |= more | {"fit (s)": float(np.median([r[1] for r in runs])), "seeds": len(runs)}
    table.add(row, bounds)


def moons(seeds, quick):
    """Accuracy less that of Bayes' rule on the same test points."""
    table = harness.Table()

    def ours(**params):
        return lambda seed: NeuralSparseGridClassifier(**params, random_state=seed)

    methods = {
        "skpou": (ours(), seeds),
        "skpou, one_hot": (ours(method="one_hot"), 3),
        "skpou, density": (ours(method="density", max_iter=100), 3),
        "skpou, gradient": (ours(coef_solver="gradient", max_iter=30), 3),
    }
    for noise in NOISES:
        for method, (make, samples) in (methods | ({} if quick else rivals())).items():
            runs, gaps = [], []
            for seed in range(min(seeds, samples)):
                X, y = make_two_moons_3d(8000, noise=noise, random_state=seed)
                bayes = make_two_moons_3d(noise=noise, X=X[6800:])[1]
                runs.append(fitted(make, seed, X[:6800], y[:6800], X[6800:], y[6800:]))
                gaps.append(runs[-1][0] - np.mean(bayes == y[6800:]))
            seconds = float(np.median([r[1] for r in runs]))
            bounds = [("-0.002", -float(np.mean(gaps)), 0.002), ("3 s", seconds, 3)]
            more = {"less Bayes": f"{np.mean(gaps):+.4f}"}
            task = f"moons, noise {noise}"
            add(table, task, method, runs, bounds if method == "skpou" else (), **more)
    return table


def digits(seeds, quick):
    """Handwritten digits of 8 x 8, 15 % of them the test."""
    table = harness.Table()
    X, y = load_digits(return_X_y=True)
    plain = {"n_components": 8, "level": 2, "batch_size": 64, "max_iter": 30}
    ours = {
        "skpou, cnn": lambda seed: NeuralSparseGridClassifier(**DIGITS, random_state=seed),
        "skpou, mlp": lambda seed: NeuralSparseGridClassifier((128,), **plain, random_state=seed),
    }
    methods = {method: (make, seeds) for method, make in ours.items()}
    for method, (make, samples) in (methods | ({} if quick else rivals())).items():
        runs = []
        for seed in range(min(seeds, samples)):
            parts = train_test_split(X, y, test_size=0.15, random_state=seed)
            runs.append(fitted(make, seed, parts[0], parts[2], parts[1], parts[3]))
        accuracy, seconds = (float(np.mean([run[i] for run in runs])) for i in range(2))
        bounds = [("0.98", -accuracy, -0.98), ("5 s", seconds, 5)]
        add(table, "digits", method, runs, bounds if method == "skpou, cnn" else ())
    return table


class OwnEncoder:
    """The same encoder trained in the same way with another head than a grid."""

    def __init__(self, head, seed):
        self.head, self.seed = head, seed

    def fit(self, X, y):
        n, size, passes = len(X), MNIST["batch_size"], MNIST["max_iter"]
        points, labels = torch.tensor(X / 255), torch.tensor(y.astype(np.int64))
        form = EncoderForm("cnn", X.shape[1], MNIST["n_components"], (),
                           image_shape=MNIST["image_shape"])  # fmt: skip
        box = (torch.zeros(X.shape[1]), torch.ones(X.shape[1]))
        torch.manual_seed(self.seed)
        self.encoder = Encoder(form, torch.arange(X.shape[1]), *box).to(torch.float32)
        self.head = self.head()
        rng = np.random.default_rng(self.seed)
        rows = Rows(points, torch.eye(10)[labels], torch.ones(n), torch.zeros(n, 10))
        start_encoder(self.encoder.eval().requires_grad_(False), rows, "scale", rng)
        self.encoder.scaling.follows = True
        self.encoder.train().requires_grad_(True)
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        mover, step = Adam(parameters, 1e-2), 0
        for _ in range(passes):
            for index in minibatches(n, size, rng):
                mover.learning_rate = 1e-2 * one_cycle(step := step + 1, passes * -(-n // size))
                z = self.encoder.latent(points[index], rows.weight[index])
                logits = self.head(self.encoder.squashed(z))
                loss = torch.nn.functional.cross_entropy(logits, labels[index]) + pull_inside(z)
                mover.step(list(torch.autograd.grad(loss, parameters)))
        self.encoder.eval()

    @torch.no_grad()
    def predict(self, X):
        return self.head(self.encoder(torch.tensor(X / 255))).argmax(1).numpy()


def linear_head():
    return nn.Linear(8, 10)


def dense_head():
    """As many parameters as a grid of level 3 in 8 dimensions, for 10 classes (Eq. 3.27)."""
    return nn.Sequential(nn.Linear(8, 84), nn.Tanh(), nn.Linear(84, 10))


def mnist(seeds, quick):
    """One split; heads side by side behind the same kind of encoder, and on one embedding."""
    table, images = harness.Table(), harness.mnist_images(quick)
    if images is None:
        return table
    X, y = images
    order = np.random.default_rng(0).permutation(len(X))
    a, b = order[:8000], order[8000:]
    parts, task = (X[a], y[a], X[b], y[b]), "MNIST, 8000 images"
    run = fitted(lambda s: NeuralSparseGridClassifier(**MNIST, random_state=s), 0, *parts)
    model = run[2]
    add(table, task, "cnn, grid of level 3", [run], [("0.985", -run[0], -0.985)])
    latent = model.transform(X[a]), y[a], model.transform(X[b]), y[b]
    heads = {
        "cnn, linear head": (lambda s: OwnEncoder(linear_head, s), parts),
        "cnn, dense head": (lambda s: OwnEncoder(dense_head, s), parts),
        "the grid's embedding, linear head": (lambda s: LogisticRegression(max_iter=1000), latent),
        "the grid's embedding, dense head": (
            lambda s: MLPClassifier((84,), max_iter=200, random_state=s), latent,
        ),
        "the grid's embedding, grid again": (
            lambda s: SparseGridClassifier(3, method="softmax", alpha=1e-2), latent,
        ),
    }  # fmt: skip
    for method, (make, data) in heads.items():
        add(table, task, method, [fitted(make, 0, *data)])
    flat = MNIST | {"n_components": 2, "level": 5}
    run = fitted(lambda s: NeuralSparseGridClassifier(**flat, random_state=s), 0, *parts)
    add(table, task, "cnn, grid of level 5, two components", [run])
    draw(run[2], X[b], y[b])
    for n in (2, 6):
        alone = make_pipeline(PCA(n), SparseGridClassifier())
        found = [fitted(lambda s, alone=alone: alone, 0, *parts)]
        add(table, task, f"grid on {n} principal components", found)
    return table


def draw(model, X, y):
    """Embedding of test images in the grid's box."""
    drawn, ax = harness.figure(1)
    LatentGridDisplay.from_estimator(model, X, y, ax=ax)
    ax.set_title("test images in the box of the grid")
    harness.save(drawn, "neural_sparse_grid_mnist")


def robustness(seeds, quick):
    """Starts that could get stuck, and bursts of the loss."""
    table = harness.Table()
    stuck(table, seeds)
    bursts(table, seeds)
    return table


def stuck(table, seeds):
    """Digits, embeddings forced into the corners of the box at the start."""
    X, y = load_digits(return_X_y=True)
    accuracies, seconds = [], []
    for seed in range(seeds):
        A, B, a, b = train_test_split(X, y, test_size=0.15, random_state=seed)
        width = np.where(np.ptp(A, axis=0) > 0, np.ptp(A, axis=0), 1)
        points, test = (torch.tensor((v - A.min(0)) / width) for v in (A, B))
        rows = merge_rows(
            points, torch.eye(10, dtype=torch.float64)[a], torch.ones(len(A)).double()
        )
        form = EncoderForm("mlp", 64, 8, (64,))
        torch.manual_seed(seed)
        box = torch.zeros(64, dtype=torch.float64), torch.ones(64, dtype=torch.float64)
        encoder = Encoder(form, torch.arange(64), *box).to(torch.float64)
        descent = DescentOptions("gradient", batch_size=64, max_iter=30)
        options = NeuralGridOptions(form, 3, method="softmax", descent=descent, gain=6.0)
        start = time.process_time()
        result = fit_neural_sparse_grid(rows, encoder, options, np.random.default_rng(seed))
        seconds.append(time.process_time() - start)
        with torch.no_grad():
            predicted = result.state.log_proba(test).argmax(1).numpy()
        accuracies.append(float(np.mean(predicted == b)))
    runs = list(zip(accuracies, seconds))
    add(table, "digits, start in the corners", "skpou, mlp", runs,
        [("least 0.85", -min(accuracies), -0.85)], worst=f"{min(accuracies):.4f}")  # fmt: skip


def bursts(table, seeds):
    """Models whose loss is over three times the median of the last passes' (Swiss roll)."""
    from benchmarks.grids.neural_sparse_grids import data

    during = returned = 0
    seconds = []
    for seed in range(seeds):
        X, y, *_ = data("S0", seed)
        model = NeuralSparseGridRegressor(
            coef_solver="gradient",
            learning_rate=5e-3,
            batch_size=64,
            max_iter=30,
            random_state=seed,
        )
        seconds.append(harness.fit(model, X, y))
        curve = np.array(model.loss_curve_)
        running = np.array([np.median(curve[max(i - 8, 0) : i + 1]) for i in range(len(curve))])
        during += bool((curve[8:] > 3 * running[8:]).any())
        final = np.mean((model.predict(X) - y) ** 2) / np.var(y)
        returned += bool(final > 3 * np.median(curve[-8:]))
    row = {"task": "bursts of the loss, rate 5e-3", "method": "skpou, gradient"}
    row |= {"while training": during, "returned": returned}
    row |= {"fit (s)": float(np.median(seconds)), "seeds": seeds}
    table.add(row, [("none returned", returned, 0)])


def boundaries(seeds, quick):
    """Table 3.8 of the thesis: treatments of the boundary, on digits."""
    table = harness.Table()
    X, y = load_digits(return_X_y=True)
    some = DIGITS | {"max_iter": 2 if quick else 8, "n_components": 3, "level": 4}
    for boundary in ("modified", "zero", "full", "truncated"):
        runs = []
        for seed in range(1 if quick else min(seeds, 2)):
            A, B, a, b = train_test_split(X, y, test_size=0.15, random_state=seed)
            make = partial(NeuralSparseGridClassifier, **some, boundary=boundary)
            runs.append(fitted(lambda s, make=make: make(random_state=s), seed, A, a, B, b))
        add(table, "digits, three components", f"boundary {boundary}", runs)
    return table


def burst_rates(seeds, quick):
    """Table 3.11 of the thesis: share of the runs whose loss bursts, against the learning rate."""
    table = harness.Table()
    for solver in ("gradient", "direct", "iterative"):
        for rate in BURST_RATES[:1] if quick else BURST_RATES:
            count = 1 if quick else min(seeds, 2)
            found = [burst(solver, rate, seed, 5 if quick else 30) for seed in range(count)]
            row = {"task": "bursts of the loss", "method": solver, "learning rate": rate}
            table.add(row | {"share": float(np.mean(found)), "seeds": count})
    return table


def burst(solver, rate, seed, passes):
    """Whether the loss is ever over three times the median of the last passes'."""
    from benchmarks.grids.neural_sparse_grids import data

    X, y, *_ = data("S0", seed)
    model = NeuralSparseGridRegressor(coef_solver=solver, learning_rate=rate, batch_size=64,
                                      max_iter=passes, init="scale", random_state=seed)  # fmt: skip
    harness.fit(model, X[:2000], y[:2000])
    curve = np.array(model.loss_curve_)
    running = np.array([np.median(curve[max(i - 8, 0) : i + 1]) for i in range(len(curve))])
    return bool((curve[8:] > 3 * running[8:]).any())


def residual(seeds, quick):
    """The deeper encoder beside the three convolutions, on digits."""
    table = harness.Table()
    X, y = load_digits(return_X_y=True)
    deep = {key: value for key, value in DIGITS.items() if key != "image_shape"}
    deep |= {"encoder": residual_encoder, "max_iter": 2 if quick else 15}
    runs = []
    for seed in range(1 if quick else min(seeds, 2)):
        A, B, a, b = train_test_split(X, y, test_size=0.15, random_state=seed)
        runs.append(
            fitted(lambda s: NeuralSparseGridClassifier(**deep, random_state=s), seed, A, a, B, b)
        )
    add(table, "digits", "residual encoder", runs)
    return table


SECTIONS = {"moons": moons, "digits": digits, "robustness": robustness, "mnist": mnist}
SECTIONS |= {"boundaries": boundaries, "burst_rates": burst_rates, "residual": residual}
