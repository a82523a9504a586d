"""Equations in a fit: what is refused, and how well they are solved."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skpou import LSGDRegressor, MultiStageRegressor
from skpou.physics import Equation, Symmetry, Unknown
from tests.estimators import no_training
from tests.examples import slow

PI = np.pi
LINE = np.linspace(0, 1, 50)[:, None]


def decay(u, x, p):
    return u.d(0) + u()


def decay_at_a_rate(u, x, p):
    return u.d(0) + p["rate"] * u()


def poisson(u, x, p):
    return u.d(0, 0) + u.d(1, 1)


def sources(x):
    return -2 * PI**2 * torch.sin(PI * x[:, 0]) * torch.sin(PI * x[:, 1])


def advection(u, x, p):
    return u.d(1) + x[:, 0] * u.d(0)


def burgers(u, x, p):
    return -p["power"] * u() + ((1 + p["power"]) * x[:, 0] + u()) * u.d(0)


def logistic(u, x, p):
    return u.d(0) - p["rate"] * u() * (1 - u())


def rotation(u, x, p):
    return torch.stack([u[0].d(0) - u[1](), u[1].d(0) + u[0]()], 1)


def unit(u, x, p):
    return u() - 1


def curved(u, x, p):
    return u.d(0, 0)


def edges(n, low, high):
    t, one = np.linspace(low, high, n), np.ones(n)
    sides = [np.c_[t, low * one], np.c_[t, high * one], np.c_[low * one, t], np.c_[high * one, t]]
    return np.unique(np.concatenate(sides), axis=0)


def relative_error(model, exact, low, high, d, n=2000):
    X = np.random.default_rng(5).uniform(low, high, (n, d))
    y = exact(X)
    return np.sqrt(np.mean((model.predict(X) - y) ** 2) / np.mean(y**2))


# Accuracy


def test_poisson_in_the_plane():
    X = edges(40, -1, 1)
    model = LSGDRegressor(physics=Equation(poisson, "chebyshev", sources, n_points=900))
    model.fit(X, np.zeros(len(X)))
    exact = lambda X: np.sin(PI * X[:, 0]) * np.sin(PI * X[:, 1])  # noqa: E731
    assert relative_error(model, exact, -1, 1, 2) < 1e-13
    assert 0 < model.equation_residual_ < 1e-10
    assert model.basis_ == ["sine"]


def test_nonlinear_equation_in_the_plane():
    def cubic(u, x, p):
        return poisson(u, x, p) + u() ** 3

    def right_hand_side(x):
        exact = torch.sin(PI * x[:, 0]) * torch.sin(PI * x[:, 1])
        return exact**3 - 2 * PI**2 * exact

    X = edges(20, -1, 1)
    model = LSGDRegressor(physics=Equation(cubic, "chebyshev", right_hand_side, n_points=400))
    model.fit(X, np.zeros(len(X)))
    exact = lambda X: np.sin(PI * X[:, 0]) * np.sin(PI * X[:, 1])  # noqa: E731
    assert relative_error(model, exact, -1, 1, 2) < 1e-11


def test_advection_with_varying_velocity():
    t = np.linspace(0, 1, 40)
    X = np.unique(np.r_[np.c_[t, 0 * t], np.c_[0 * t, t]], axis=0)
    exact = lambda X: np.sin(PI * X[:, 0] * np.exp(-X[:, 1])) ** 2  # noqa: E731
    model = LSGDRegressor(physics=Equation(advection, "chebyshev", n_points=900)).fit(X, exact(X))
    assert relative_error(model, exact, 0, 1, 2) < 1e-11


def test_units_do_not_matter():
    """Seconds and microseconds: the derivatives are in units of y over X."""
    for unit in (1e-6, 1.0, 1e6):
        model = LSGDRegressor(
            unknowns={"rate": Unknown(0.7 / unit)},
            physics=Equation(decay_at_a_rate, 3 * unit * LINE),
        ).fit(3 * unit * LINE[::5], 1e3 * np.exp(-3 * LINE[::5, 0]))
        assert model.unknowns_["rate"] * unit == pytest.approx(1.0, abs=1e-10)


def test_no_data_at_all():
    """The equation alone: a particular solution where the operator leaves none free."""

    def shifted(u, x, p):
        return u() - x[:, 0] ** 2

    model = LSGDRegressor(physics=Equation(shifted, LINE)).fit(np.empty((0, 1)), np.empty(0))
    grid = np.linspace(0, 1, 77)[:, None]
    np.testing.assert_allclose(model.predict(grid), grid[:, 0] ** 2, atol=1e-12)


@pytest.mark.slow
def test_inverse_burgers():
    h = 1 - np.cos(np.arange(150) * PI / 149)
    points = np.r_[-h[:0:-1], h][:, None]
    model = LSGDRegressor(
        physics=[Equation(burgers, points, gradient_weight=0.15), Symmetry("odd", 0)],
        unknowns={"power": Unknown(0.6, bounds=(0.3, 1.3))},
    ).fit([[-2.0], [0.0], [2.0]], [1.0, 0.0, -1.0])
    assert abs(model.unknowns_["power"] - 0.5) < 1e-11
    assert set(model.unknowns_std_) == {"power"}
    U = np.linspace(-1, 1, 101)
    # The solution in implicit form: y = -U - U^3.
    np.testing.assert_allclose(model.predict((-U - U**3)[:, None]), U, atol=1e-11)
    y = np.linspace(0.1, 1.9, 7)[:, None]
    np.testing.assert_allclose(model.predict(-y), -model.predict(y), atol=1e-15)


@pytest.mark.slow
def test_rate_of_logistic_growth_from_noisy_data():
    inside = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.uniform(0, 6, 40))[:, None]
        y = 1 / (1 + 9 * np.exp(-1.3 * x[:, 0])) + 0.02 * rng.standard_normal(40)
        model = LSGDRegressor(
            physics=Equation(logistic, "chebyshev", n_points=100),
            unknowns={"rate": Unknown(1.0)},
        ).fit(x, y)
        deviation = model.unknowns_std_["rate"]
        assert 0.01 < deviation < 0.06
        assert 0.013 < model.noise_ < 0.027
        inside += abs(model.unknowns_["rate"] - 1.3) < 2 * deviation
    assert inside >= 4


@pytest.mark.parametrize("cls", [LSGDRegressor, *slow(MultiStageRegressor)])
def test_noise_that_varies_beside_equations(cls):
    """The noise grows tenfold along the line: so do the bars of the mixture, not its mean."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (400, 1))
    noise = 0.01 * 10 ** x[:, 0]
    y = np.exp(-1.3 * x[:, 0]) + noise * rng.standard_normal(400)
    options = {"physics": Equation(decay_at_a_rate, LINE), "unknowns": {"rate": Unknown(1.0)}}
    plain = cls(**options).fit(x, y)
    model = cls(density="mixture", **options).fit(x, y)
    ends = np.array([[0.05], [0.95]])
    np.testing.assert_array_equal(model.predict(ends), plain.predict(ends))
    low, high = model.predict(ends, return_std=True)[1]
    assert 0.008 < low < 0.017
    assert 0.06 < high < 0.12
    fresh = rng.uniform(0, 1, (2000, 1))
    shown = np.exp(-1.3 * fresh[:, 0]) + 0.01 * 10 ** fresh[:, 0] * rng.standard_normal(2000)
    gain = model.log_density(fresh, shown) - plain.log_density(fresh, shown)
    assert gain.mean() > 0.15
    with no_training(), pytest.raises(ValueError, match="X has no rows"):
        cls(density="mixture", physics=Equation(decay, LINE)).fit(np.empty((0, 1)), [])


@pytest.mark.parametrize("given", ["together", "apart"])
def test_system(given):
    """u' = v, v' = -u; as one equation with two components, or as two."""
    if given == "together":
        physics = Equation(rotation, 6 * LINE)
    else:
        physics = [
            Equation(lambda u, x, p: u[0].d(0) - u[1](), 6 * LINE),
            Equation(lambda u, x, p: u[1].d(0) + u[0](), 6 * LINE),
        ]
    model = LSGDRegressor(physics=physics).fit([[0.0]], [[0.0, 1.0]])
    grid = np.linspace(0, 6, 99)
    exact = np.c_[np.sin(grid), np.cos(grid)]
    np.testing.assert_allclose(model.predict(grid[:, None]), exact, atol=1e-11)
    mean, std = model.predict(grid[:, None], return_std=True)
    assert std.shape == mean.shape


def test_periodic_solution():
    equation = Equation(
        lambda u, x, p: u.d(0, 0) - u(), 2 * PI * LINE, lambda x: -2 * torch.cos(x[:, 0])
    )
    symmetry = Symmetry("periodic", 0, period=2 * PI)
    model = LSGDRegressor(physics=[equation, symmetry]).fit([[0.0]], [1.0])
    grid = np.linspace(0, 2 * PI, 60)
    np.testing.assert_allclose(model.predict(grid[:, None]), np.cos(grid), atol=1e-12)
    ends = model.predict([[0.0], [2 * PI]])
    assert abs(ends[0] - ends[1]) < 1e-14


def test_gradient_and_weights_leave_the_solution():
    for options in ({"gradient_weight": 0.3}, {"weight": 10.0}, {"weight": "balanced"}):
        model = LSGDRegressor(physics=Equation(decay, LINE, **options)).fit([[0.0]], [1.0])
        np.testing.assert_allclose(model.predict(LINE), np.exp(-LINE[:, 0]), atol=1e-11)


def test_equations_without_a_solution_say_so():
    def contradiction(u, x, p):
        return torch.stack([u.d(0) - 1, u.d(0) + u() + 1], 1)

    with pytest.warns(ConvergenceWarning, match="The equations are not solved: .* residual is"):
        LSGDRegressor(physics=Equation(contradiction, LINE)).fit([[0.0]], [1.0])


# Parameters and plumbing


def test_importable_residual_pickles_and_clones():
    model = LSGDRegressor(physics=Equation(decay, LINE)).fit([[0.0]], [1.0])
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(copied.predict(LINE), model.predict(LINE))
    again = clone(model).fit([[0.0]], [1.0])
    np.testing.assert_array_equal(again.predict(LINE), model.predict(LINE))
    assert "decay, 50 points" in repr(model)


def test_skops():
    io = pytest.importorskip("skops.io")
    physics = [Equation(decay, LINE), Symmetry("periodic", 0, period=50.0)]
    model = LSGDRegressor(physics=physics).fit([[0.0]], [1.0])
    written = io.dumps(model)
    types = io.get_untrusted_types(data=written)
    assert all(name.startswith("skpou.") or name.endswith(".decay") for name in types)
    again = io.loads(written, trusted=types)
    np.testing.assert_array_equal(again.predict(LINE), model.predict(LINE))


def test_function_that_cannot_be_imported():
    equation = Equation(lambda u, x, p: u.d(0) + u(), LINE)
    model = clone(LSGDRegressor(physics=equation)).fit([[0.0]], [1.0])
    with pytest.raises(ValueError, match=r"cannot be pickled.*top level of a module"):
        pickle.dumps(model)


def test_grid_search_over_equations():
    search = GridSearchCV(
        LSGDRegressor(physics=Equation(decay, LINE)),
        {"physics": [Equation(decay, LINE), Equation(logistic, LINE)],
         "unknowns": [{"rate": Unknown(1.0)}, None]},
        cv=2,
        error_score=-99.0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Two of the pairs do not belong together.
        search.fit(LINE, np.exp(-LINE[:, 0]))
    assert search.best_params_["physics"].residual is decay
    assert search.best_score_ > 1 - 1e-12


def test_order_and_weights_of_rows():
    X, y = 3 * LINE[:8], np.exp(-3 * LINE[:8, 0])
    y[3] += 0.1
    equation = Equation(decay, 3 * LINE)
    order = np.random.default_rng(0).permutation(8)
    weight = np.array([1, 2, 0, 1, 1, 3, 1, 1])
    models = [
        LSGDRegressor(physics=equation).fit(X, y, sample_weight=weight),
        LSGDRegressor(physics=equation).fit(X[order], y[order], sample_weight=weight[order]),
        LSGDRegressor(physics=equation).fit(np.repeat(X, weight, 0), np.repeat(y, weight)),
    ]
    first, *others = (model.predict(LINE) for model in models)
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("exponent", [-60, -1, 30])
def test_powers_of_two_change_no_bit(exponent):
    unit = 2.0**exponent
    X, y = LINE[::7], np.exp(-LINE[::7, 0]) + 0.01 * np.cos(40 * LINE[::7, 0])
    first, second = (
        LSGDRegressor(physics=Equation(curved, "sobol", n_points=60)).fit(u * X, u * y)
        for u in (1.0, unit)
    )
    expected, got = (
        m.predict(u * LINE, return_std=True) for m, u in ((first, 1.0), (second, unit))
    )
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(unit * a, b)


def test_tensors_and_single_precision():
    model = LSGDRegressor(physics=Equation(decay, torch.tensor(LINE)), dtype="float32")
    result = model.fit(torch.zeros(1, 1), torch.ones(1)).predict(torch.tensor(LINE))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), np.exp(-LINE[:, 0]), atol=1e-6)


def test_attributes_without_equations():
    model = LSGDRegressor().fit(LINE, LINE[:, 0])
    assert not hasattr(model, "unknowns_")
    with pytest.raises(AttributeError, match="equation_residual_ exists where physics was given"):
        _ = model.equation_residual_


# What is refused


def wrong_shape(u, x, p):
    return u.d(0).sum()


def wrong_length(u, x, p):
    return u.d(0)[1:]


def not_a_tensor(u, x, p):
    return 0.0


def never_finite(u, x, p):
    return u.d(0) + torch.log(x[:, 0] - 0.5)


def without_solution(u, x, p):
    return x[:, 0]


def wrong_coordinate(u, x, p):
    return u.d(1)


def wrong_name(u, x, p):
    return u.d(0) - p["rates"] * u()


def wrong_output(u, x, p):
    return u[1].d(0)


@pytest.mark.parametrize(
    ("physics", "unknowns", "error", "match"),
    [
        (Equation(wrong_shape, LINE), None, ValueError, r"'wrong_shape' must .*\(50,\).*Got"),
        (Equation(wrong_length, LINE), None, ValueError, r"'wrong_length' .*Got shape \(49,\)"),
        (Equation(not_a_tensor, LINE), None, TypeError, "must return a tensor. Got float"),
        (Equation(lambda u, x: (u.d(0), u()), LINE), None, TypeError, r"Got tuple\. torch\.stack"),
        (Equation(lambda u, x: u.d(0) - 1j * u(), LINE), None, TypeError, "must be real.*complex"),
        (Equation(lambda u, x: u.d(0) - u(x), LINE), None, TypeError, r"u\(\) takes no points"),
        (Equation(never_finite, LINE), None, ValueError, "'never_finite' is not finite at x = "),
        (Equation(without_solution, LINE), None, ValueError, "does not contain u"),
        (Equation(wrong_coordinate, LINE), None, ValueError, r"u.d\(1\): X has 1 column"),
        (Equation(wrong_output, LINE), None, ValueError, r"u\[1\]: y has 1 output"),
        (Equation(wrong_name, LINE), {"rate": Unknown(1)}, ValueError,
         r"p\['rates'\], but unknowns has \['rate'\]"),
        (Equation(decay, LINE), {"rate": Unknown(1)}, ValueError, r"\['rate'\] are in none"),
        (None, {"rate": Unknown(1)}, ValueError, "unknowns=.*but physics is None"),
        (Equation(decay, LINE), {"rate": 1.0}, TypeError, "Unknown.*Got 'rate': 1.0"),
        (Equation(decay, np.c_[LINE, LINE]), None, ValueError,
         r"points of equation 'decay' must have 1 column\(s\), as X. Got 2"),
        (Equation(decay, "sobol", box=[[0, 1], [0, 1]]), None, ValueError, "box .*Got 2"),
        ([], None, ValueError, "at least one Equation"),
        ([decay], None, TypeError, "physics must be an Equation.*Got <function"),
        (3, None, ValueError, "'physics' parameter.*Got 3"),
        (Equation(decay, LINE, np.ones(49)), None, ValueError, r"target .*\(50,\).*\(49,\)"),
        (Equation(decay, LINE, lambda x: torch.full((50,), np.nan)), None, ValueError,
         "target of equation 'decay' is not finite"),
        ([Equation(decay, LINE), Symmetry("even", 1)], None, ValueError, "X has 1 column"),
        ([Equation(decay, LINE), *[Symmetry("even", 0)] * 2], None, ValueError, "two symmetries"),
    ],
)  # fmt: skip
def test_bad_physics(physics, unknowns, error, match):
    model = LSGDRegressor(physics=physics, unknowns=unknowns)
    with no_training(), pytest.raises(error, match=match):
        model.fit([[0.0]], [1.0])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (("decay", LINE), {}, TypeError, "residual must be a function.*'decay'"),
        ((decay, "random"), {}, ValueError, "points .* 'sobol', 'chebyshev', 'uniform'. Got"),
        ((decay, LINE[:, 0]), {}, ValueError, r"points .*shape \(n, d\).*\(50,\)"),
        ((decay, LINE * np.nan), {}, ValueError, "points of equation 'decay' contains NaN"),
        ((decay, LINE, np.inf), {}, ValueError, "target of equation 'decay' contains"),
        ((decay, LINE), {"weight": 0.0}, ValueError, "weight .*Got 0.0"),
        ((decay, LINE), {"weight": "heavy"}, ValueError, "weight .*'balanced'.*Got 'heavy'"),
        ((decay, LINE), {"gradient_weight": -1}, ValueError, "gradient_weight .*Got -1"),
        ((decay, LINE, np.ones(50)), {"gradient_weight": 1}, ValueError, "gradient_weight=1"),
        ((decay, "sobol"), {"n_points": 1}, ValueError, "n_points .*Got 1"),
        ((decay, "sobol"), {"box": [0, 1]}, ValueError, r"box .*\(d, 2\).*Got \[0, 1\]"),
    ],
)
def test_bad_equation(arguments, options, error, match):
    with pytest.raises(error, match=match):
        Equation(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((2.0, (0.0, 1.0)), r"init=2.0 lies outside bounds=\(0.0, 1.0\)"),
        ((0.5, (1.0, 0.0)), r"bounds .*the lower first. Got \(1.0, 0.0\)"),
        ((0.5, 3), "bounds .*Got 3"),
        ((np.nan,), "init .*Got nan"),
        (("a",), "init .*Got 'a'"),
    ],
)
def test_bad_unknown(arguments, match):
    with pytest.raises(ValueError, match=match):
        Unknown(*arguments)


def test_no_rows_without_an_equation():
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        LSGDRegressor().fit(np.empty((0, 1)), np.empty(0))


def test_no_rows_and_no_box():
    with pytest.raises(ValueError, match="samplers of points need a box"):
        LSGDRegressor(physics=Equation(decay, "sobol")).fit(np.empty((0, 1)), np.empty(0))


def test_failed_fit_keeps_the_earlier_one():
    model = LSGDRegressor(physics=Equation(decay, LINE)).fit([[0.0]], [1.0])
    before = model.predict(LINE)
    with pytest.raises(ValueError, match="NaN"):
        model.fit([[0.0]], [np.nan])
    np.testing.assert_array_equal(model.predict(LINE), before)


def test_stages():
    """Every stage of MultiStageRegressor solves for what the ones before leave over."""
    X = edges(20, -1, 1)
    equation = Equation(poisson, "chebyshev", sources, n_points=400)
    model = MultiStageRegressor(physics=equation).fit(X, np.zeros(len(X)))
    exact = lambda X: np.sin(PI * X[:, 0]) * np.sin(PI * X[:, 1])  # noqa: E731
    assert relative_error(model, exact, -1, 1, 2) < 1e-12
    assert len(model.scale_factors_) == len(model.residual_rms_) == model.n_stages_
    *_, last = model.staged_predict(X)
    np.testing.assert_array_equal(last, model.predict(X))


def test_unknown_of_stages_without_rows():
    model = MultiStageRegressor(
        n_stages=2,
        physics=[Equation(decay_at_a_rate, LINE), Equation(decay, LINE), Equation(unit, LINE[:1])],
        unknowns={"rate": Unknown(0.5)},
    ).fit(np.empty((0, 1)), np.empty(0))
    assert model.unknowns_["rate"] == pytest.approx(1, abs=1e-8)
    np.testing.assert_allclose(model.predict(LINE), np.exp(-LINE[:, 0]), atol=1e-8)


def test_stages_of_networks():
    model = MultiStageRegressor(hidden_layer_sizes=(8,), physics=Equation(decay, LINE))
    model.fit([[0.0]], [1.0])
    np.testing.assert_allclose(model.predict(LINE), np.exp(-LINE[:, 0]), atol=1e-7)


# Numpy warns of torch's own hook first.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_a_residual_of_numpy_functions_is_told_of_torch():
    equation = Equation(lambda u, x: u.d(0) - np.sin(u()), np.linspace(0, 1, 20)[:, None], name="s")
    with pytest.raises(TypeError, match=r"'s' must use torch's functions, such as torch\.sin"):
        LSGDRegressor(physics=equation).fit([[0.0]], [1.0])


def test_bounds_lead_out_of_spurious_minima():
    """a^3 - 3 a = 5 at 2.279 alone, but its left-hand side has a maximum of 2 at -1."""
    line = np.linspace(0, 1, 9)[:, None]

    def rate(u, x, p):
        return u.d(0) - (p["a"] ** 3 - 3 * p["a"])

    def found(bounds):
        equation = Equation(rate, np.linspace(0, 1, 100)[:, None])
        model = LSGDRegressor(physics=equation, unknowns={"a": Unknown(-1.2, bounds)})
        return model.fit(line, 5 * line[:, 0]).unknowns_["a"]

    assert found((-1.8, 3.0)) == pytest.approx(2.2790187861665934, rel=1e-12)
    with pytest.warns(ConvergenceWarning, match="not solved"):
        assert found(None) < 0
