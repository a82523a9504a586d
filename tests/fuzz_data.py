"""What `tests.fuzz` fits: an estimator, its parameters and odd data, all drawn from one seed."""

import inspect
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

import skpou
from tests.fuzz_containers import CONTAINERS
from tests.fuzz_equations import COLUMNS_OF_EQUATIONS, EQUATIONS, SOLVERS

#: Seeds from here on draw what the quick ones before, which the tests run, leave out: estimators
#: that are made of others, equations, and rows that come in blocks.
FIRST_OF_ALL = 1000
MADE_OF_OTHERS = ("AutoRegressor", "TransformedRegressor")
ESTIMATORS = [n for n in skpou.__all__ if n[0] != "_" and n not in MADE_OF_OTHERS]

#: Seeds from here on draw what has come since, too: tests remember cases of those before.
FIRST_WITH_EXPERTS = 1_300_000

#: Rows of a case, largest, and fresh rows, at which it is predicted only.
MOST_ROWS, N_FRESH = 200, 20

#: Values (n,) of a column of some kind, given the column before it.
COLUMNS = {
    "uniform": lambda n, rng, before: rng.random(n),
    "normal": lambda n, rng, before: rng.standard_normal(n),
    "constant": lambda n, rng, before: np.full(n, rng.choice([0.0, 1.0, -3.7, 1e9, 1e-300])),
    "duplicated": lambda n, rng, before: before.copy(),
    "collinear": lambda n, rng, before: 2 * before + 1,
    "codes": lambda n, rng, before: rng.integers(0, rng.integers(2, 12), n).astype(float),
    "binary": lambda n, rng, before: rng.integers(0, 2, n).astype(float),
    "heavy": lambda n, rng, before: rng.standard_cauchy(n) ** rng.choice([1, 3]),
    "log": lambda n, rng, before: 10 ** rng.uniform(-12, 12, n),
    "offset": lambda n, rng, before: 1e9 + rng.choice([1e-3, 1.0, 1e-6]) * rng.random(n),
    "tiny": lambda n, rng, before: 1e-300 * rng.random(n),
    "huge": lambda n, rng, before: 1e300 * (rng.random(n) - 0.5),
    "even": lambda n, rng, before: np.linspace(0, 1, n),
    "clustered": lambda n, rng, before: rng.integers(0, 3, n) + 1e-3 * rng.standard_normal(n),
    "ties": lambda n, rng, before: np.round(4 * rng.random(n)) / 4,
    "outlier": lambda n, rng, before: np.append(1e6, rng.standard_normal(n - 1)),
    "subnormal": lambda n, rng, before: 5e-324 * rng.integers(0, 50, n),
}

#: Values (n,) of a target of some kind, given a random combination s (n,) of the columns in the
#: unit box, the first of these columns z (n,), and noise (n,), which may be zero.
TARGETS = {
    "smooth": lambda s, z, noise, rng: np.sin(s) + noise,
    "polynomial": lambda s, z, noise, rng: s**2 - s + noise,
    "kink": lambda s, z, noise, rng: np.abs(s - np.median(s)) + noise,
    "jump": lambda s, z, noise, rng: np.sign(s - np.median(s)) + 0.3 * s + noise,
    "noise": lambda s, z, noise, rng: rng.standard_normal(len(s)),
    "heavy noise": lambda s, z, noise, rng: np.sin(s) + 0.1 * rng.standard_t(1, len(s)),
    "growing noise": lambda s, z, noise, rng: np.sin(s) + z * rng.standard_normal(len(s)),
    "constant": lambda s, z, noise, rng: np.full(
        len(s), rng.choice([0, 1, -1e5, 1e-300, 1e300, 0.1])
    ),
    "two values": lambda s, z, noise, rng: (rng.random(len(s)) < 0.3).astype(float),
    "counts": lambda s, z, noise, rng: rng.poisson(np.exp(1.5 * np.sin(s))).astype(float),
    "small": lambda s, z, noise, rng: (np.sin(s) + noise) * 10 ** rng.uniform(-300, -10),
    "big": lambda s, z, noise, rng: (np.sin(s) + noise) * 10 ** rng.uniform(10, 300),
    "offset": lambda s, z, noise, rng: 1e12 + np.sin(s) + noise,
    "spike": lambda s, z, noise, rng: np.eye(1, len(s), rng.integers(len(s)))[0],
}

#: Weights (n,) of some kind.
WEIGHTS = {
    "none": lambda n, rng: None,
    "integers": lambda n, rng: rng.integers(0, 3, n).astype(float),
    "floats": lambda n, rng: 2 * rng.random(n) + 1e-3,
    "ratios of 1e24": lambda n, rng: 10 ** rng.uniform(-12, 12, n),
}

#: Class labels of numbers (n,) from 0 on.
LABELS = {
    "int": lambda codes: 10 * codes - 7,
    "str": lambda codes: np.array([f"class {code}" for code in codes]),
    "bool": lambda codes: codes > 0,
    "float": lambda codes: codes.astype(float),
}


#: Kinds that are drawn more often than the others: what most data are.
USUAL = {"uniform": 2, "smooth": 2, "none": 3, "float64": 5}

GRID = {
    "boundary": (0.5, ["zero", "full", "truncated"]),
    "basis": (0.4, ["quadratic"]),
    "alpha": (0.3, [0.0, 1e-6, 1.0]),
    "max_points": (0.4, [1, 30, 3000]),
}
NEURAL_GRID = {
    "hidden_layer_sizes": (1.0, [1, 3, (8,), (4, 4)]),
    "n_components": (0.4, [1, 3, 4]),
    "level": (1.0, [1, 2, 3, 5]),
    "boundary": (0.4, ["zero", "full", "truncated"]),
    "margin": (0.3, [0.1, 0.4]),
    "activation": (0.4, ["relu", "sin"]),
    "coef_solver": (0.7, ["gradient", "direct", "iterative", "varpro"]),
    "optimizer": (0.3, ["sgd"]),
    "batch_size": (0.2, [1, 16]),
    "max_iter": (1.0, [1, 5, 30]),
    "alpha": (0.3, [0.0, 1e-4, 1.0]),
    "early_stopping": (0.4, [True, False]),
    "validation_fraction": (0.2, [0.01, 0.9]),
    "n_iter_no_change": (0.2, [1]),
}
MEMBERS = ["SparseGridRegressor", "AdditivePOURegressor", "HierarchicalPOURegressor"]
#: Of each parameter the share of the cases that set it, and the values.
PARAMETERS = {
    "HierarchicalPOURegressor": {
        "n_partitions": (0.6, [1, 2, 3, 8, (2,), (2, 2), (3, 2), (2, 2, 2)]),
        "degree": (0.5, [0, 1, 2, 3, 7]),
        "solver": (0.4, ["varpro", "em"]),
        "gate": (0.4, ["linear", "rbf", "mlp", "residual"]),
        "init": (0.4, ["box"]),
        "noise": (0.4, ["em", "anneal"]),
        "smoothing": (0.4, [(1, 1, 1), (0, 2, 0), (1, 0, 1)]),
        "batch_size": (0.2, [1, 7, 100]),
        "alpha": (0.3, [0.0, 1e-6, 1.0, 1e6]),
        "n_init": (0.2, [2]),
        "max_iter": (0.2, [1, 3]),
    },
    "POURegressor": {
        "n_partitions": (1.0, [1, 2, 3, 5, 20]),
        "degree": (0.6, [0, 1, 3]),
        "gate": (0.5, ["quadratic", "linear", "mlp", "residual"]),
        "init": (0.4, ["box"]),
        "solver": (0.4, ["lsgd"]),
        "pre_iter": (0.2, [0, 1]),
        "alpha": (0.3, [0.0, 1e-6, 1.0]),
        "n_init": (0.2, [2]),
        "max_iter": (1.0, [1, 10, 50]),
    },
    "AdditivePOURegressor": {
        "max_order": (0.4, [1, 2]),
        "n_splines": (0.4, [1, 2, 5, 12]),
        "remainder": (0.4, [False, "columns", "local", "both"]),
        "density": (0.4, ["gaussian"]),
        "max_columns": (0.4, [1, 5, 50]),
        "transform_columns": (0.4, [True, False]),
        "terms": (0.2, [[(0,)], [0]]),
        "batch_size": (0.2, [1, 7]),
        "max_iter": (0.4, [1, 3]),
    },
    "LSGDRegressor": {
        "hidden_layer_sizes": (0.75, [1, 3, (8,), (4, 4), (5, 5, 5), (30,)]),
        "activation": (0.4, ["relu", "sin"]),
        "architecture": (0.3, ["residual"]),
        "init": (0.4, ["box", "data_box", "he", "glorot"]),
        "solver": (0.6, ["lsgd", "lbfgs", "gd"]),
        "alpha": (0.3, [0.0, 1e-6, 1.0]),
        "batch_size": (0.3, [1, 8]),
        "max_iter": (1.0, [1, 10, 60]),
        "density": (0.4, ["mixture"]),
        "n_init": (0.15, [2]),
    },
    "LSGDClassifier": {
        "hidden_layer_sizes": (0.75, [1, 3, (4, 4)]),
        "activation": (0.4, ["relu", "sin"]),
        "architecture": (0.3, ["residual"]),
        "init": (0.4, ["box", "data_box", "he", "glorot"]),
        "solver": (0.6, ["lsgd", "gd"]),
        "alpha": (0.3, [0.0, 1e-6, 1.0]),
        "batch_size": (0.3, [1, 8]),
        "max_iter": (1.0, [1, 10, 30]),
        "n_init": (0.15, [2]),
    },
    "MultiStageRegressor": {
        "n_stages": (0.4, [1, 2, 3]),
        "hidden_layer_sizes": (0.5, [3, (8,), (4, 4)]),
        "activation": (0.4, ["sin"]),
        "solver": (0.4, ["adam_lbfgs"]),
        "scale_factor": (0.4, [1.0, 20.0]),
        "max_iter": (1.0, [1, 20]),
        "density": (0.4, ["mixture"]),
    },
    "SparseGridRegressor": {
        **GRID,
        "level": (0.6, [1, 2, 3, 6]),
        "solver": (0.5, ["direct", "iterative"]),
        "n_refinements": (0.4, [1, 4]),
        "refine_fraction": (0.2, [0.3, 1.0]),
        "density": (0.3, ["mixture"]),
        "batch_size": (0.2, [1, 7]),
    },
    "SparseGridClassifier": {
        **GRID,
        "level": (0.6, [1, 2, 4]),
        "method": (0.6, ["one_hot", "softmax"]),
        "batch_size": (0.2, [1, 7]),
    },
    "NeuralSparseGridRegressor": {
        **NEURAL_GRID,
        "init": (0.4, ["whiten", "isomap", "scale"]),
    },
    "NeuralSparseGridClassifier": {
        **NEURAL_GRID,
        "method": (0.4, ["one_hot", "density"]),
    },
}
PARAMETERS |= {
    "AutoRegressor": {
        "members": (1.0, [MEMBERS[:1], MEMBERS[:2], [MEMBERS[0], MEMBERS[2]]]),
        "n_members": (0.5, [1, 2]),
    },
    "TransformedRegressor": {
        "regressor": (
            1.0,
            [
                skpou.SparseGridRegressor(level=2),
                skpou.SparseGridRegressor(level=2, density="mixture"),
                skpou.HierarchicalPOURegressor(2, 1),
                skpou.AdditivePOURegressor(1),
            ],
        ),
        "transform": (1.0, ["log", "yeo-johnson", (np.arcsinh, np.sinh)]),
    },
}
#: Shares of the cases from `FIRST_OF_ALL` on with equations and in blocks, where that can be.
SHARE_OF_EQUATIONS, SHARE_IN_BLOCKS = 0.3, 0.3
#: Share of the cases from `FIRST_WITH_EXPERTS` on, of classes with pieces, that oscillate.
SHARE_OF_EXPERTS = 0.2
#: Largest slope, in units of y over X, that must be a finite number.
MOST_SLOPE = 1e290
#: Size of y from which, and below whose reciprocal, a transform's inverse may leave what float64
#: holds: a quarter of its powers of ten. Behind an arcsinh targets of both signs are a deviation
#: of as much, and three of them from the mean all powers.
MOST_TRANSFORMED = 1e75
#: Parameters that only shape a network of a given size.
OF_NETWORKS = ("activation", "architecture", "init", "solver", "alpha", "batch_size", "max_iter")


@dataclass
class Case:
    """One fit.

    Attributes
    ----------
    seed : int
    name : str
        Of the estimator's class.
    params : dict
    X, fresh : ndarray of shape (n, d) and (N_FRESH, d)
        Rows of the fit, and others in their box; in float64, whatever container they go into.
    y : ndarray of shape (n,) or (n, n_outputs)
    weight : ndarray of shape (n,), or None
    container : str
        Key of `CONTAINERS`.
    kinds : str
        Kinds of the columns, the target and the weights.
    n_blocks : int
        Blocks of rows that `partial_fit` takes; 1: all go to `fit`.
    """

    seed: int
    name: str
    params: dict
    X: np.ndarray
    fresh: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    container: str
    kinds: str
    n_blocks: int = 1

    @property
    def kept(self):
        """Rows (n,), bool, of positive weight."""
        return np.ones(len(self.X), bool) if self.weight is None else self.weight > 0

    @property
    def has_negligible_rows(self):
        """Whether some weights are a millionth of the largest at most."""
        weight = self.weight
        return weight is not None and weight[self.kept].min() < 1e-6 * weight.max()

    def estimator(self):
        """The unfitted estimator."""
        cls = getattr(skpou, self.name)
        seeded = "random_state" in inspect.signature(cls).parameters
        return cls(**({"random_state": 0} if seeded else {}), **self.params)

    @property
    def follows_rows(self):
        """Whether the mean must be near its rows: no equation, median or minibatch moves it."""
        neural_blocks = self.n_blocks > 1 and self.name.startswith("Neural")
        return not (
            "physics" in self.params or self.name == "TransformedRegressor" or neural_blocks
        )

    @property
    def is_steep(self):
        """Whether a slope from row to row may overflow."""
        gaps = [np.diff(np.unique(column)) for column in self.X[self.kept].T]
        least = min((gap.min() for gap in gaps if len(gap)), default=1.0)
        # Where others are fitted inside, it is to targets in units of their spread.
        rise = 1.0 if self.name == "AutoRegressor" else 0.0
        # A solution may rise where the targets do not.
        rise = np.abs(self.y).max() if "physics" in self.params else rise
        with np.errstate(over="ignore"):
            return max(np.ptp(self.y, axis=0).max(), rise) / least > MOST_SLOPE

    @property
    def may_be_infinite(self):
        """Whether what is predicted may lie beyond the largest number: infinity is said then."""
        if self.name != "TransformedRegressor":
            return False
        size = np.abs(self.y).max()
        # Bars at rows of next to no weight are as wide as they like, and then transformed back.
        return self.has_negligible_rows or not 1 / MOST_TRANSFORMED < size < MOST_TRANSFORMED

    def points(self, X):
        """Points (k, d) in the case's container."""
        return CONTAINERS[self.container](X)

    def targets(self, y):
        """Targets (k,) or (k, m) in a container that goes with that of the points."""
        numeric = y.dtype.kind == "f"
        if "tensor" in self.container and numeric:
            return torch.tensor(y)
        if self.container == "list":
            return y.tolist()
        if "pandas" in self.container and y.ndim == 1:
            y = pd.Series(y, name="y")
            return y.astype("Float64") if numeric and self.container != "pandas" else y
        if self.container == "polars" and y.ndim == 1:
            import polars

            return polars.Series("y", y)
        return y

    def __str__(self):
        params = ", ".join(f"{key}={value!r}" for key, value in self.params.items())
        n, d = self.X.shape
        return (
            f"seed {self.seed}: {self.name}({params}), X {n} x {d} in {self.container}, "
            f"y {self.y.shape}, {self.kinds}, {self.n_blocks} blocks"
        )


def draw_case(seed):
    """The `Case` of a seed."""
    rng = np.random.default_rng(seed)
    names = ESTIMATORS if seed < FIRST_OF_ALL else [*ESTIMATORS, *MADE_OF_OTHERS]
    name = names[seed % len(names)]
    params = {} if rng.random() < 0.45 else _parameters(name, rng)
    if name in MADE_OF_OTHERS:
        params = _parameters(name, rng)
    n = int(np.exp(rng.uniform(0, np.log(MOST_ROWS + 1))))
    container = _kind(rng, CONTAINERS)
    columns, points = _points(n + N_FRESH, rng)
    points = _rounded(points, container)
    target, y = _target(points, rng)
    weights = _kind(rng, WEIGHTS)
    weight = WEIGHTS[weights](n, rng)
    y = _classes(y[:n], rng) if name.endswith("Classifier") else _outputs(y[:n], rng)
    kinds = f"columns {', '.join(columns)}; target {target}; weights {weights}"
    case = Case(seed, name, params, points[:n], points[n:], y, weight, container, kinds)
    if case.kept.any():
        rows = case.X[case.kept]
        case.fresh = np.clip(case.fresh, rows.min(0), rows.max(0))
    return case if seed < FIRST_OF_ALL else _with_more(case, rng)


def _with_more(case, rng):
    """The case with an equation, or with rows in blocks, or as it is."""
    equation, blocks = rng.random(2) < (SHARE_OF_EQUATIONS, SHARE_IN_BLOCKS)
    if case.seed >= FIRST_WITH_EXPERTS:
        case = _with_experts(case, rng)
        if equation and case.name == "POURegressor" and case.X.shape[1] <= COLUMNS_OF_EQUATIONS:
            return replace(case, params={"n_partitions": 2, "degree": 3} | _pick(rng, EQUATIONS))
    if equation and case.name in SOLVERS and case.X.shape[1] <= COLUMNS_OF_EQUATIONS:
        return replace(case, params=SOLVERS[case.name] | _pick(rng, EQUATIONS))
    if not blocks or not hasattr(case.estimator(), "partial_fit"):
        return case
    return replace(case, n_blocks=min(int(rng.integers(2, 5)), len(case.X)))


def _with_experts(case, rng):
    """The case with pieces of sines and cosines, or as it is."""
    if not hasattr(case.estimator(), "experts") or rng.random() > SHARE_OF_EXPERTS:
        return case
    return replace(case, params=case.params | {"experts": "fourier"})


def _pick(rng, values):
    return values[int(rng.integers(len(values)))]


def _kind(rng, kinds):
    return _pick(rng, [kind for kind in kinds for _ in range(USUAL.get(kind, 1))])


def _parameters(name, rng):
    """Random parameters that go together."""
    params = {
        key: _pick(rng, values)
        for key, (share, values) in PARAMETERS[name].items()
        if rng.random() < share
    }
    if rng.random() < 0.3 and name != "TransformedRegressor":
        params["dtype"] = "float32"
    without = set()
    if name == "HierarchicalPOURegressor":
        if params.get("solver") != "em":
            without |= {"noise", "smoothing", "batch_size"}
            without |= {"gate"} if params.get("gate") in ("mlp", "residual") else set()
        else:
            params["max_iter"] = _pick(rng, [1, 5, 30])
        without |= set() if {"solver", "n_partitions"} <= params.keys() else {"init"}
    elif name in ("LSGDRegressor", "MultiStageRegressor"):
        without |= set() if "hidden_layer_sizes" in params else set(OF_NETWORKS)
        if "solver" not in params or without:
            without |= {"scale_factor"}
        if params.get("solver") not in ("lsgd", "gd"):
            without |= {"batch_size"}
    return {key: value for key, value in params.items() if key not in without}


def _points(n, rng):
    """Kinds of the columns, and rows (n, d) in random order.

    One half of the cases has at most one odd column.
    """
    d = _pick(rng, [1, 1, 1, 2, 2, 3, 4, 5, 7, 10])
    one_odd = rng.random() < 0.5
    kinds, columns = [], [rng.random(n)]
    for j in range(d):
        kind = "uniform" if one_odd and j else _kind(rng, COLUMNS)
        kinds.append(kind)
        columns.append(COLUMNS[kind](n, rng, columns[-1]))
    return kinds, np.column_stack(columns[1:])[rng.permutation(n)]


def _rounded(X, container):
    """Points that the container holds exactly."""
    if container == "float16":
        return np.clip(X, -6e4, 6e4).astype(np.float16).astype(float)
    if "float32" in container:
        return np.clip(X, -1e37, 1e37).astype(np.float32).astype(float)
    if container == "int":
        return np.clip(np.round(X * (10 if np.abs(X).max() < 100 else 1)), -1e15, 1e15)
    if container == "bool":
        return (np.median(X, 0) < X).astype(float)
    return X


def _target(X, rng):
    """Kind of a target, and its values (n,) at the points."""
    width = np.ptp(X, axis=0)
    box = (X - X.min(0)) / np.where(width > 0, width, 1)
    s = box @ (3 * rng.standard_normal(X.shape[1])) + 3 * rng.random()
    noise = rng.choice([0, 1e-3, 0.1]) * rng.standard_normal(len(X))
    kind = _kind(rng, TARGETS)
    return kind, TARGETS[kind](s, box[:, 0], noise, rng)


def _outputs(y, rng):
    """Targets (n,), or (n, m) of up to three outputs, the third a noisy one."""
    m = _pick(rng, [0, 0, 0, 0, 1, 2, 3])
    if not m:
        return y
    noise = np.abs(y).max() * rng.standard_normal(len(y))
    return np.column_stack([y, 2 * y, 3 * y + noise][:m])


def _classes(y, rng):
    """Up to five classes (n,) of about the same size, by the quantiles of a target."""
    n_classes = _pick(rng, [2, 2, 3, 5])
    edges = np.unique(np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1]))
    return LABELS[_pick(rng, list(LABELS))](np.searchsorted(edges, y))
