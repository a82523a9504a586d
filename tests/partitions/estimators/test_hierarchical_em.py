"""HierarchicalPOURegressor trained as the paper prints it, and from random gates."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor
from tests.estimators import QUERY, assert_same_bits, predictions, same_bits, stepped
from tests.examples import slow

X, Y = stepped()
LINE = np.sort(np.random.default_rng(0).uniform(-1, 1, (200, 1)), axis=0)
WAVE = np.sin(4 * LINE[:, 0])


def em(n_partitions=2, degree=1, **params):
    params = {"gate": "linear", "init": "box", "solver": "em", "tol": 1e-2, **params}
    return HierarchicalPOURegressor(n_partitions, degree, **params)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


# Parameters


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_partitions": "auto"}, "init='box' needs n_partitions .* Got n_partitions='auto'"),
        ({"solver": "auto"}, "init='box' needs solver='em' or .* Got solver='auto'"),
        ({"solver": "varpro", "gate": "mlp"}, "gate='mlp' .*needs solver='em'. Got 'varpro'"),
        ({"smoothing": (0, 1)}, r"smoothing must hold three .* Got \(0, 1\)"),
        ({"smoothing": (0, 0, 0)}, r"smoothing must hold three .* Got \(0, 0, 0\)"),
        ({"smoothing": (0, -1, 1)}, r"smoothing must hold three .* Got \(0, -1, 1\)"),
        ({"smoothing": (0, 1.0, 1)}, r"smoothing must hold three .* Got \(0, 1.0, 1\)"),
        ({"smoothing": (True, 1, 1)}, r"smoothing must hold three .* Got \(True, 1, 1\)"),
        ({"gate": "mlp", "hidden_layer_sizes": 10}, "'hidden_layer_sizes' parameter .* Got 10"),
        ({"gate": "mlp", "hidden_layer_sizes": ()}, r"hidden_layer_sizes must .* Got \(\)"),
        ({"gate": "mlp", "hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes .* Got \(3, 0\)"),
        (
            {"gate": "residual", "hidden_layer_sizes": (3, 4)},
            r"hidden_layer_sizes must be equal .* Got \(3, 4\)",
        ),
        ({"n_partitions": 10**9}, "(?s)1000000000 partitions needs about .* GB.*n_partitions"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_used(params, match):
    with pytest.raises(ValueError, match=match):
        em(**params).fit(X, Y)


def test_parameters_of_other_solvers_are_not_looked_at():
    plain = HierarchicalPOURegressor(2, 1).fit(X, Y)
    other = HierarchicalPOURegressor(
        2, 1, smoothing=(0, 0, 0), hidden_layer_sizes=(1,), learning_rate=7.0, noise="em"
    ).fit(X, Y)
    assert_same_bits(predictions(plain), predictions(other))


# What comes out


@pytest.mark.parametrize("solver", ["em", "varpro"])
@pytest.mark.parametrize("sizes", [1, 5, (2, 3), *slow(((2, 2, 2),))], ids=str)
@pytest.mark.parametrize("gate", ["linear", "quadratic", "rbf"])
def test_box_gives_exactly_the_partitions_asked_for(sizes, gate, solver, quiet):
    model = em(sizes, gate=gate, solver=solver, max_iter=30).fit(LINE, WAVE)
    levels = sizes if isinstance(sizes, tuple) else (sizes,)
    assert [len(parent) for parent in model.tree_] == np.cumprod(levels).tolist()
    assert model.gate_ == gate
    assert model.score(LINE, WAVE) > 0.8 if np.prod(levels) > 1 else True


@pytest.mark.parametrize(("gate", "degree"), [("mlp", 1), *slow(("residual", "auto"))])
def test_networks_start_from_discovered_pieces(gate, degree, quiet):
    model = em("auto", degree, gate=gate, init="data", max_iter=50).fit(X, Y)
    assert model.gate_ == gate
    assert model.degree_ == 1
    assert len(model.coef_) == 2
    found = HierarchicalPOURegressor().fit(X, Y).predict_partition(X)
    assert np.mean(model.predict_partition(X) == found) > 0.9


def test_degree_is_two_or_what_the_rows_can_determine(quiet):
    assert em(4, "auto", max_iter=5).fit(LINE, WAVE).degree_ == 2
    assert em(4, "auto", max_iter=5).fit(LINE[:11], WAVE[:11]).degree_ == 1
    assert em(4, "auto", max_iter=5).fit(LINE[:5], WAVE[:5]).degree_ == 0
    assert em(4, "auto", max_iter=5, solver="varpro").fit(LINE, WAVE).degree_ == 2


def test_quadratic_gates_are_linear_where_rows_are_few(quiet):
    points = np.random.default_rng(0).uniform(size=(40, 4))
    model = em(gate="quadratic", max_iter=5).fit(points, points.sum(1))
    assert model.gate_ == "linear"


@pytest.mark.parametrize("noise", ["after", "em", "anneal"])
def test_curve_and_iterations(noise):
    model = em(3, 2, noise=noise, max_iter=120).fit(LINE, WAVE)
    assert len(model.loss_curve_) == model.n_iter_ <= 120
    assert np.isfinite(model.loss_curve_).all()
    if noise != "anneal":  # Losses under one noise and another do not compare.
        assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_coarse_level_predicts_and_fine_is_better(quiet):
    model = em((3, 2), 2, max_iter=150, tol=1e-14).fit(LINE, WAVE)
    fine, coarse = (np.abs(model.predict(LINE, level=k) - WAVE).max() for k in (None, 0))
    assert fine < coarse < 0.2


def test_refit_solves_for_all_experts_at_once(quiet):
    """With the gates kept, higher degrees converge fast, as Fig. 3 has it."""
    model = em((3, 2), 2, max_iter=100).fit(LINE, WAVE)
    gates = model.partition_proba(LINE)
    errors = []
    for degree in (2, 4, 6):
        model.refit(LINE, WAVE, degree=degree)
        errors.append(np.abs(model.predict(LINE) - WAVE).max())
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 1e-3 * errors[0]
    assert same_bits(model.partition_proba(LINE), gates)
    std = model.predict(LINE, return_std=True)[1]
    assert np.isfinite(std).all()


@pytest.mark.parametrize("params", [{"gate": "mlp"}, {"gate": "residual", "batch_size": 20}, {}])
def test_seeds(params, quiet):
    first, second, other = (
        em(3, max_iter=10, random_state=seed, **params).fit(X, Y) for seed in (1, 1, 2)
    )
    assert_same_bits(predictions(first), predictions(second))
    assert not np.array_equal(first.predict(QUERY), other.predict(QUERY))
    best = em(3, max_iter=10, random_state=1, n_init=4, **params).fit(X, Y)
    rms = [np.sqrt(np.mean((model.predict(X) - Y) ** 2)) for model in (best, first)]
    assert rms[0] < 1.2 * rms[1]


# Warnings, warm starts, interrupts


@pytest.mark.parametrize("gate", ["linear", "mlp"])
def test_max_iter_warns_with_numbers_and_advice(gate):
    match = r"max_iter=3 .*relative change .* \d\.\de.*Increase max_iter"
    with pytest.warns(ConvergenceWarning, match=match) as caught:
        model = em(gate=gate, max_iter=3).fit(X, Y)
    assert caught[0].filename == __file__
    assert model.n_iter_ == 3


def test_non_finite_loss_warns():
    match = "cycle 1 is not finite.*Lower learning_rate"
    with pytest.warns(ConvergenceWarning, match=match):
        model = em(gate="mlp", learning_rate=1e308).fit(X, Y)
    assert all(np.isfinite(value).all() for value in predictions(model).values())


@pytest.mark.parametrize("gate", ["linear", "mlp"])
def test_warm_start_goes_on_from_the_gates(gate, quiet):
    model = em((2, 2), gate=gate, max_iter=10, warm_start=True, tol=0.0).fit(LINE, WAVE)
    cold = model.loss_curve_
    model.fit(LINE, WAVE)
    assert model.loss_curve_[0] < 0.5 * (cold[0] + cold[-1])
    assert model.loss_curve_[-1] < cold[-1]
    assert [len(parent) for parent in model.tree_] == [2, 4]
    # Another box: the gates go with it.
    before = model.score(LINE, WAVE)
    assert model.fit(LINE + 5, WAVE).score(LINE + 5, WAVE) > before - 0.1
    # Another form of gates: the partitions stay, as far as it can follow them.
    model.set_params(gate="rbf").fit(LINE, WAVE)
    assert model.gate_ == "rbf"
    assert model.score(LINE, WAVE) > before - 0.1


def test_warm_start_after_another_solver(quiet):
    model = HierarchicalPOURegressor((2, 2), 1, warm_start=True).fit(LINE, WAVE)
    leaves = len(model.coef_)
    model.set_params(solver="em", max_iter=20).fit(LINE, WAVE)
    assert len(model.coef_) == leaves
    model.set_params(solver="auto").fit(LINE, WAVE)
    assert model.score(LINE, WAVE) > 0.9


@pytest.mark.parametrize("n_lines", [1, 5])
def test_interrupt_keeps_the_best_cycle(monkeypatch, n_lines):
    count = 0

    def press(*args, **kwargs):
        nonlocal count
        count += 1
        if count == n_lines:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", press)
    model = em((2, 2), gate="mlp", max_iter=50, verbose=1)
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match=f"{n_lines} cycles"):
        model.fit(X, Y)
    monkeypatch.undo()
    assert model.n_iter_ == n_lines
    assert all(np.isfinite(value).all() for value in predictions(model).values())


def test_noise_that_varies_parts_the_discovered_pieces(quiet):
    """One mean for all rows is one piece, but not one noise."""
    rng = np.random.default_rng(0)
    x = 10 * rng.random(600)
    y = 5 / (x + 1) * rng.standard_normal(600)
    model = HierarchicalPOURegressor(6, 0, solver="em", noise="em", max_iter=60).fit(x[:, None], y)
    near, far = model.predict([[0.5], [9.0]], return_std=True)[1]
    assert near / far > 4  # 6.7 in truth
    even = HierarchicalPOURegressor(6, 0, solver="em", noise="em", max_iter=60)
    assert len(even.fit(x[:, None], rng.standard_normal(600)).coef_) == 1
