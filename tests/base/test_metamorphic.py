"""Changes of the data that change no prediction, or change it alike, for every public class.

On noisy rows, where the choice between models hangs by little. `tests/base/test_regressor.py` has
more such changes for other configurations of the regressors, on rows with hardly any noise.
"""

import functools
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.base import clone

import skpou
from skpou import (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDClassifier,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
    TransformedRegressor,
)
from skpou.physics import Equation, Unknown
from tests.estimators import same_bits

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
N = 48
X = RNG.uniform(-1, 1, (N, 2))
#: Positive, since one class takes logarithms; noise of a quarter of the spread.
Y = 3 + np.sin(2 * X[:, 0] + X[:, 1]) + 0.5 * X[:, 0] ** 2 + 0.2 * RNG.standard_normal(N)
#: Another output, of another shape and with noise of its own.
Z = 3 + X[:, 1] ** 2 - 0.7 * X[:, 0] + 0.2 * RNG.standard_normal(N)
LABELS = np.array(["low", "middle", "high"])[np.digitize(Y, [2.7, 3.5])]
WEIGHT = RNG.integers(0, 3, N)
ORDER = RNG.permutation(N)
QUERY = np.vstack([RNG.uniform(-0.95, 0.95, (59, 2)), [[1.3, -1.2]]])

#: Least share of the points where a change may move the mean by one standard deviation at most.
WITHIN = 0.95


def decay(u, x, p):
    """u' = -p u."""
    return u.d(0) + p["rate"] * u()


DECAY = Equation(decay, "sobol")
RATE = {"rate": Unknown(0.5)}


@dataclass
class Case:
    """An estimator and its rows.

    `units` and `turned` are how far other units and another order of the columns may move the
    mean, in its spread: by round-off, times what the training makes of it, and by none where the
    columns are sorted by what is in them. None: by a standard
    deviation at `WITHIN` of the points, since the rows that are drawn or set aside go by the
    order of the columns. `without` are the changes that do not apply.
    """

    estimator: object
    X: np.ndarray = field(default_factory=lambda: X)
    y: np.ndarray = field(default_factory=lambda: Y)
    units: float | None = 1e-9
    turned: float | None = 1e-9
    without: tuple = ()

    @property
    def takes_logarithms(self):
        return isinstance(self.estimator, TransformedRegressor)

    @property
    def query(self):
        return QUERY[:, : self.X.shape[1]]


#: An equation's own units would have to change with those of the data.
OF_EQUATIONS = ("powers", "units", "columns", "outputs", "skops")
#: The outputs of a network of a given size share its units: with another one they are another
#: model, which is what was asked for.
OF_NETWORKS = ("outputs",)
OF_CLASSES = ("outputs",)
NEURAL = {"hidden_layer_sizes": (4,), "level": 2, "max_iter": 8}

QUICK = {
    "pieces": Case(HierarchicalPOURegressor(2, 1)),
    "partitions": Case(
        POURegressor(2, 1, gate="linear", max_iter=20),
        units=1e-5,
        turned=None,
        without=("outputs",),
    ),
    "network": Case(
        LSGDRegressor((4,), alpha=1e-2, max_iter=40), units=1e-6, turned=0.0, without=OF_NETWORKS
    ),
    "stages": Case(MultiStageRegressor(1)),
    "terms": Case(AdditivePOURegressor(density="gaussian")),
    "grid": Case(SparseGridRegressor()),
    "neural grid": Case(
        NeuralSparseGridRegressor(**NEURAL), units=1e-6, turned=0.0, without=OF_NETWORKS
    ),
    "front door": Case(AutoRegressor(["SparseGridRegressor"])),
    "logarithms": Case(TransformedRegressor(SparseGridRegressor(level=3))),
    "densities": Case(SparseGridClassifier(level=2), y=LABELS, turned=None, without=OF_CLASSES),
    "indicators": Case(
        SparseGridClassifier(level=2, method="one_hot"), y=LABELS, without=OF_CLASSES
    ),
    "network classes": Case(
        LSGDClassifier((4,), max_iter=60), y=LABELS, turned=0.0, without=OF_CLASSES
    ),
    "neural classes": Case(
        NeuralSparseGridClassifier(**NEURAL), y=LABELS, turned=0.0, without=OF_CLASSES
    ),
    "equation on pieces": Case(
        HierarchicalPOURegressor(2, 4, physics=DECAY, unknowns=RATE),
        X[:, :1],
        without=OF_EQUATIONS,
    ),
}
#: Larger models, for the tests marked slow.
THOROUGH = {
    "pieces by default": Case(HierarchicalPOURegressor()),
    "partitions by default": Case(POURegressor(), units=None, without=("columns", "outputs")),
    "units by default": Case(LSGDRegressor(), turned=None),
    "stages by default": Case(MultiStageRegressor(), turned=None),
    "terms by default": Case(AdditivePOURegressor()),
    "parabolas": Case(SparseGridRegressor(basis="quadratic")),
    "front door by default": Case(
        AutoRegressor(["SparseGridRegressor", "AdditivePOURegressor"]), turned=None
    ),
    "logarithms of pieces": Case(TransformedRegressor(HierarchicalPOURegressor())),
    "softmax": Case(
        SparseGridClassifier(level=2, method="softmax"),
        y=LABELS,
        turned=None,
        without=OF_CLASSES,
    ),
    "equation": Case(
        LSGDRegressor(physics=DECAY, unknowns=RATE, max_iter=20), X[:, :1], without=OF_EQUATIONS
    ),
}
CASES = {**QUICK, **THOROUGH}
#: Processes, each of which has to import the package.
OF_PROCESSES = ("front door",)
#: What `test_rows_units_and_jobs_at_once` has together.
SLOW_WITH = dict.fromkeys(("rows", "powers", "n_jobs"), tuple(QUICK))


def each_case(change):
    """Parametrization by the cases that a change applies to, the larger models marked slow."""
    slow = {*THOROUGH, *SLOW_WITH.get(change, ())}
    names = [name for name, case in CASES.items() if change not in case.without]
    marked = [pytest.param(n, marks=[pytest.mark.slow] * (n in slow)) for n in names]
    return pytest.mark.parametrize("name", marked)


def fit(name, **changes):
    """The estimator after a fit to its rows, or to others."""
    case = CASES[name]
    rows = {"X": case.X, "y": case.y} | changes
    return clone(case.estimator).fit(**rows)


@functools.cache
def fitted(name):
    return fit(name)


def predicted(model, points):
    """What it says at points, by kind."""
    if hasattr(model, "predict_proba"):
        return {"proba": model.predict_proba(points), "label": model.predict(points)}
    mean, std = model.predict(points, return_std=True)
    quantiles, gradient = model.predict_quantile(points), model.predict_gradient(points)
    return {"mean": mean, "std": std, "quantiles": quantiles, "gradient": gradient}


@functools.cache
def expected(name):
    return predicted(fitted(name), CASES[name].query)


def assert_same(name, model):
    """Every kind of prediction has the bits of the shared fit."""
    found = predicted(model, CASES[name].query)
    other = [kind for kind, value in expected(name).items() if not same_bits(found[kind], value)]
    assert not other, f"other bits: {other}"


def assert_close(name, found, tolerance):
    """Means, or probabilities, up to round-off or up to the standard deviation."""
    wanted = expected(name)
    key = "proba" if "proba" in wanted else "mean"
    moved = np.abs(found - wanted[key])
    if tolerance is not None:
        assert moved.max() <= tolerance * np.ptp(wanted[key])
    elif key == "mean":
        assert np.mean(moved <= wanted["std"]) >= WITHIN
    else:
        # A probability has no standard deviation of its own; that of one draw is p (1 - p).
        assert np.mean(moved <= np.sqrt(wanted[key] * (1 - wanted[key]))) >= WITHIN


def mean_of(model, points):
    return model.predict_proba(points) if hasattr(model, "predict_proba") else model.predict(points)


def test_every_class_is_here():
    here = {type(case.estimator).__name__ for case in QUICK.values()}
    assert here == {name for name in skpou.__all__ if name[0] != "_"}


# The rows


@each_case("rows")
def test_a_fit_anew_in_another_order_of_rows_changes_no_bit(name):
    case = CASES[name]
    # A clone of the fitted model: a fit anew, too, has the same bits.
    assert_same(name, clone(fitted(name)).fit(case.X[ORDER], case.y[ORDER]))


@each_case("weights")
def test_weights_are_repeated_rows(name):
    case, order = CASES[name], np.random.default_rng(1).permutation(np.repeat(np.arange(N), WEIGHT))
    weighted = predicted(fit(name, sample_weight=WEIGHT), case.query)
    repeated = predicted(fit(name, X=case.X[order], y=case.y[order]), case.query)
    assert all(same_bits(weighted[kind], repeated[kind]) for kind in weighted)


# Units


def in_two(model):
    """Parameters for which it, and what it is made of, works in two threads or processes."""
    return {key: 2 for key in model.get_params() if key.split("__")[-1] == "n_jobs"}


def in_powers(case):
    """Factors, powers of two, of the columns and of y; None where y has no units to change.

    A logarithm turns a factor of y into a summand, which rounds. An equation has units of its own.
    """
    of_y = case.y.dtype.kind == "f" and not case.takes_logarithms and "powers" not in case.without
    return np.array([2.0**40, 2.0**-30]), 2.0**-20 if of_y else None


def assert_same_in_powers(name, model, size, unit):
    case = CASES[name]
    found = predicted(model, size * case.query)
    for kind in ("mean", "std", "quantiles", "proba", "label"):
        if kind in found:
            value = expected(name)[kind]
            assert same_bits(found[kind], value if unit is None else unit * value), kind


@each_case("at once")
def test_rows_units_and_jobs_at_once(name):
    """Another order of rows, powers of two and two threads, for which a clone is fitted anew."""
    case, (size, unit) = CASES[name], in_powers(CASES[name])
    if "powers" in case.without:
        size = np.ones(case.X.shape[1])
    model = clone(fitted(name))
    if name not in OF_PROCESSES:
        model.set_params(**in_two(model))
    y = case.y if unit is None else unit * case.y
    assert_same_in_powers(name, model.fit(size * case.X[ORDER], y[ORDER]), size, unit)


@each_case("powers")
def test_powers_of_two_change_no_bit(name):
    case, (size, unit) = CASES[name], in_powers(CASES[name])
    y = case.y if unit is None else unit * case.y
    assert_same_in_powers(name, fit(name, X=size * case.X, y=y), size, unit)


@each_case("units")
def test_units_of_x_and_y_do_not_matter(name):
    case = CASES[name]
    size, offset = np.array([3.7, 1e-4]), np.array([5.0, 2e-3])
    numeric = case.y.dtype.kind == "f"
    unit, shift = (7.3, 0.0 if case.takes_logarithms else -4.0) if numeric else (1.0, 0.0)
    model = fit(name, X=size * case.X + offset, y=unit * case.y + shift if numeric else case.y)
    found = mean_of(model, size * case.query + offset)
    assert_close(name, (found - shift) / unit, case.units)


# Columns and outputs


@each_case("columns")
def test_order_of_columns(name):
    case = CASES[name]
    model = fit(name, X=case.X[:, ::-1])
    assert_close(name, mean_of(model, case.query[:, ::-1]), case.turned)


@each_case("outputs")
def test_an_output_more_leaves_the_others(name):
    case = CASES[name]
    both = fit(name, y=np.column_stack([case.y, Z])).predict(case.query)
    assert_close(name, both[:, 0], None)


# Ways through a fitted model


@each_case("blocks")
def test_points_in_blocks_are_points_at_once(name):
    points = CASES[name].query
    blocks = [predicted(fitted(name), block) for block in np.array_split(points, [1, 8, 40])]
    for kind, value in expected(name).items():
        joined = np.concatenate([block[kind] for block in blocks])
        if value.dtype.kind == "f":
            np.testing.assert_allclose(joined, value, rtol=1e-9, atol=1e-11, err_msg=kind)
        else:
            assert np.array_equal(joined, value)


@each_case("threads")
def test_threads_of_torch(name):
    points, before = CASES[name].query, torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = predicted(fitted(name), points)
    finally:
        torch.set_num_threads(before)
    for kind, value in expected(name).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[kind], value, rtol=1e-9, atol=1e-11, err_msg=kind)


@each_case("threads")
def test_threads_that_share_a_model(name):
    points = CASES[name].query
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: predicted(fitted(name), points), range(8)))
    for found in results:
        assert all(same_bits(found[kind], value) for kind, value in expected(name).items())


@each_case("n_jobs")
def test_n_jobs_changes_no_bit(name):
    model = clone(CASES[name].estimator)
    model.set_params(**in_two(model))
    assert_same(name, model.fit(CASES[name].X, CASES[name].y))


@each_case("pickle")
def test_pickles_have_the_same_bits(name):
    assert_same(name, pickle.loads(pickle.dumps(fitted(name))))


@each_case("skops")
def test_files_of_skops_have_the_same_bits(name):
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(fitted(name))
    own = skops.get_untrusted_types(data=data)
    assert set(own) <= {f"skpou.{public}" for public in skpou.__all__}
    assert_same(name, skops.loads(data, trusted=own))
