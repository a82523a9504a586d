"""Equations on pieces: published and closed solutions, bars, unknowns, and what is refused."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from skpou.partitions.equations import whole
from skpou.physics import Condition, Equation, Symmetry, Unknown
from tests.estimators import errors, no_training

PI = np.pi
LINE = np.linspace(0, 1, 50)[:, None]
NOTHING = np.empty((0, 2)), np.empty(0)


def decay(u, x):
    return u.d(0) + u()


def decay_at_a_rate(u, x, p):
    return u.d(0) + p["rate"] * u()


def poisson(u, x):
    return u.d(0, 0) + u.d(1, 1)


def rotation(u, x):
    return torch.stack([u[0].d(0) - u[1](), u[1].d(0) + u[0]()], 1)


def edges(n, low, high):
    t, one = np.linspace(low, high, n), np.ones(n)
    sides = [np.c_[t, low * one], np.c_[t, high * one], np.c_[low * one, t], np.c_[high * one, t]]
    return np.unique(np.concatenate(sides), axis=0)


def test_layer_is_found_without_being_told():
    """A layer of width 1e-4 at one end: pieces are cut towards it, and only there."""
    width = 1e-4
    equation = Equation(lambda u, x: u.d(0) - width * u.d(0, 0), "chebyshev")
    model = HierarchicalPOURegressor(physics=equation).fit([[0.0], [1.0]], [0.0, 1.0])
    error, inside = errors(model, lambda X: np.exp((X[:, 0] - 1) / width), 0.99, 1, 1)
    assert error < 1e-9
    assert inside > 0.97
    assert len(model.coef_) < 40
    smallest = (model.model_["high"] - model.model_["low"]).min()
    assert smallest < 1e-3


def test_poisson_on_boxes():
    def sources(x):
        return -2 * PI**2 * torch.sin(PI * x[:, 0]) * torch.sin(PI * x[:, 1])

    X = edges(40, -1, 1)
    model = HierarchicalPOURegressor(physics=Equation(poisson, "chebyshev", sources))
    model.fit(X, np.zeros(len(X)))
    exact = lambda X: np.sin(PI * X[:, 0]) * np.sin(PI * X[:, 1])  # noqa: E731
    error, inside = errors(model, exact, -1, 1, 2)
    assert error < 1e-11
    assert inside > 0.97
    assert 0 < model.equation_residual_ < 1e-9
    # Values and slopes go on across the faces of the pieces.
    cut = model.model_["high"][0, 0]
    assert 0 < cut < 1
    ends = 2 * (cut + np.array([-1e-12, 1e-12])) - 1
    gradient = model.predict_gradient(np.c_[ends, [0.3, 0.3]])
    np.testing.assert_allclose(gradient[0], gradient[1], atol=1e-9)


def test_steep_reaction_is_marched():
    """Logistic growth of a bump, on which networks are known to fail."""
    x = np.linspace(0, 2 * PI, 200)

    def bump(x):
        return torch.exp(-((x[:, 0] - PI) ** 2) * 8 / PI**2)

    equation = Equation(
        lambda u, x: u.d(1) - 5 * u() * (1 - u()), "sobol", box=[[0, 2 * PI], [0, 0.2]]
    )
    start = Condition(lambda u, x: u(), np.c_[x, 0 * x], bump)
    model = HierarchicalPOURegressor(physics=[equation, start]).fit(*NOTHING)

    def exact(X):
        first = bump(torch.tensor(X)).numpy()
        grown = first * np.exp(5 * X[:, 1])
        return grown / (grown + 1 - first)

    error, inside = errors(model, exact, [0, 0], [2 * PI, 0.2], 2)
    assert error < 1e-8
    assert inside > 0.97
    assert isinstance(model.equation_residual_, float)  # Of the equation; a condition has none.


@pytest.mark.slow
def test_viscous_burgers():
    """The standard test of the field, against the solution of Cole and Hopf."""
    viscosity = 0.01 / PI
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, 201)
    X = np.unique(np.r_[np.c_[x, 0 * x], np.c_[0 * t - 1, t], np.c_[0 * t + 1, t]], axis=0)
    y = np.where(X[:, 1] == 0, -np.sin(PI * X[:, 0]), 0.0)
    equation = Equation(lambda u, x: u.d(1) + u() * u.d(0) - viscosity * u.d(0, 0), "sobol")
    model = HierarchicalPOURegressor(physics=equation).fit(X, y)

    def exact(X):
        z, w = np.polynomial.hermite.hermgauss(200)
        place = X[:, :1] - 2 * np.sqrt(viscosity * X[:, 1:]) * z
        power = -np.cos(PI * place) / (2 * PI * viscosity)
        f = w * np.exp(power - power.max(1, keepdims=True))
        return -(np.sin(PI * place) * f).sum(1) / f.sum(1)

    error, inside = errors(model, exact, [-1, 1e-3], [1, 1], 2)
    assert error < 1e-8
    assert inside > 0.97


def test_periodic_waves_with_a_velocity():
    """A second derivative along the marched column: values and velocities are carried."""
    x = np.linspace(0, 2, 200)
    physics = [
        Equation(lambda u, x: u.d(1, 1) - u.d(0, 0), "sobol", box=[[0, 2], [0, 0.2]]),
        Condition(lambda u, x: u(), np.c_[x, 0 * x], lambda x: torch.sin(PI * x[:, 0])),
        Condition(lambda u, x: u.d(1), np.c_[x, 0 * x]),
        Symmetry("periodic", 0, period=2.0),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)
    exact = lambda X: np.sin(PI * X[:, 0]) * np.cos(PI * X[:, 1])  # noqa: E731
    assert errors(model, exact, [0, 0], [2, 0.2], 2)[0] < 1e-9
    ends = model.predict([[0.0, 0.1], [2.0, 0.1]])
    assert abs(ends[0] - ends[1]) < 1e-9


def test_system_of_two_outputs():
    model = HierarchicalPOURegressor(physics=Equation(rotation, 6 * LINE))
    model.fit([[0.0]], [[0.0, 1.0]])
    grid = np.linspace(0, 6, 99)
    mean, std = model.predict(grid[:, None], return_std=True)
    np.testing.assert_allclose(mean, np.c_[np.sin(grid), np.cos(grid)], atol=1e-9)
    assert std.shape == mean.shape
    assert model.coef_.shape[2] == 2


def test_rate_from_noisy_data():
    deviations = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.uniform(0, 3, 60))[:, None]
        y = np.exp(-1.3 * x[:, 0]) + 0.02 * rng.standard_normal(60)
        equation = Equation(decay_at_a_rate, "chebyshev")
        model = HierarchicalPOURegressor(physics=equation, unknowns={"rate": Unknown(1.0)})
        model.fit(x, y)
        assert 0.013 < model.noise_[0] < 0.027
        deviations.append((model.unknowns_["rate"] - 1.3) / model.unknowns_std_["rate"])
    assert np.sum(np.abs(deviations) < 2) >= 3
    assert np.abs(deviations).max() < 4


def test_unknown_of_a_marched_equation():
    """Derivatives with respect to the unknown travel with the slabs."""
    x, rng = np.linspace(0, 1, 100), np.random.default_rng(0)
    X = np.c_[rng.random(50), rng.uniform(0.1, 1, 50)]
    exact = lambda X: np.sin(PI * X[:, 0]) * np.exp(-0.7 * X[:, 1])  # noqa: E731
    physics = [
        Equation(lambda u, x, p: u.d(1) - p["k"] * u.d(0, 0) / PI**2, "sobol"),
        Condition(lambda u, x: u(), np.c_[x, 0 * x], lambda x: torch.sin(PI * x[:, 0])),
        Condition(lambda u, x: u(), np.c_[0 * x, x]),
        Condition(lambda u, x: u(), np.c_[0 * x + 1, x]),
    ]
    model = HierarchicalPOURegressor(physics=physics, unknowns={"k": Unknown(0.4)})
    model.fit(X, exact(X))
    assert abs(model.unknowns_["k"] - 0.7) < 1e-8
    assert errors(model, exact, 0, 1, 2)[0] < 1e-8
    _, std = model.predict(X, return_std="epistemic")
    assert std.max() < 1e-6


def test_domain_by_points_of_ones_own():
    """Laplace's equation in a disc, from points inside and on the circle."""
    rng = np.random.default_rng(0)
    inner = rng.uniform(-1, 1, (3000, 2))
    inner = inner[(inner**2).sum(1) < 1]
    angle = np.linspace(0, 2 * PI, 200, endpoint=False)
    circle = np.c_[np.cos(angle), np.sin(angle)]
    exact = lambda X: np.exp(X[:, 0]) * np.cos(X[:, 1])  # noqa: E731
    model = HierarchicalPOURegressor(physics=Equation(poisson, inner)).fit(circle, exact(circle))
    grid = 0.99 * inner[:500]
    np.testing.assert_allclose(model.predict(grid), exact(grid), atol=1e-7)


def in_an_l(seed):
    """Points in an L, conditions on its edges, and a solution singular at its corner."""
    inner = np.random.default_rng(seed).uniform(-1, 1, (6000, 2))
    inner = inner[~((inner[:, 0] > 0) & (inner[:, 1] < 0))]
    s, t = np.linspace(0, 1, 50), np.linspace(-1, 1, 50)

    def exact(X):
        angle = torch.remainder(torch.atan2(X[:, 1], X[:, 0]), 2 * PI)
        return torch.hypot(X[:, 0], X[:, 1]) ** (2 / 3) * torch.sin(2 / 3 * angle)

    zero = [np.c_[s, 0 * s], np.c_[0 * s, -s]]
    given = [np.c_[t, 0 * t + 1], np.c_[0 * t - 1, t], np.c_[-s, 0 * s - 1], np.c_[0 * s + 1, s]]
    edges = [Condition(lambda u, x: u(), points) for points in zero]
    edges += [Condition(lambda u, x: u(), points, exact) for points in given]
    return inner, edges, exact


@pytest.mark.slow
def test_singular_corner_of_an_l():
    """Conditions on edges hold in pieces below or above them, and cuts go to one point."""
    inner, edges, exact = in_an_l(0)
    model = HierarchicalPOURegressor(physics=[Equation(poisson, inner), *edges], tol=1e-7)
    model.fit(*NOTHING)
    grid = inner[:1000]
    error = model.predict(grid) - exact(torch.tensor(grid)).numpy()
    assert np.sqrt(np.mean(error**2)) < 2e-3
    width = model.model_["high"] - model.model_["low"]
    centre = (model.model_["high"] + model.model_["low"]) / 2
    assert (np.abs(centre - 0.5).max(1) < 2 * width[:, 0])[width[:, 0] < 0.02].all()


@pytest.mark.slow
def test_smaller_tolerances_are_not_worse_at_a_corner():
    """What the corner does to the solution elsewhere is measured, and no pieces are too light."""
    inner, edges, exact = in_an_l(1)
    found = []
    for tol in (1e-5, 1e-7):
        model = HierarchicalPOURegressor(physics=[Equation(poisson, inner), *edges], tol=tol)
        mean, std = model.fit(*NOTHING).predict(inner, return_std="epistemic")
        error = np.abs(mean - exact(torch.tensor(inner)).numpy())
        assert np.mean(error <= 3 * std) > 0.9
        found.append(np.sqrt(np.mean(error**2)))
    assert found[1] < 0.5 * found[0] < 1e-2


def test_exactly_so_many_pieces():
    model = POURegressor(3, 9, physics=Equation(decay, 3 * LINE)).fit([[0.0]], [1.0])
    assert len(model.coef_) == 3
    assert (model.degree_ == 9).all()
    np.testing.assert_allclose(model.predict(3 * LINE), np.exp(-3 * LINE[:, 0]), atol=1e-9)


def test_boxes_that_do_not_resolve_a_solution_are_not_sure():
    """A bump that drifts, on eight parabolas: they follow neither it nor its data."""
    x = np.linspace(0, 1, 60)
    X = np.unique(np.r_[np.c_[x, 0 * x], np.c_[0 * x, x], np.c_[0 * x + 1, x]], axis=0)

    def exact(X):
        width = 0.005 + 0.01 * X[:, 1]
        return np.sqrt(0.005 / width) * np.exp(-((X[:, 0] - 0.3 - X[:, 1] / 2) ** 2) / 4 / width)

    equation = Equation(lambda u, x: u.d(1) + 0.5 * u.d(0) - 0.01 * u.d(0, 0), "sobol")
    with pytest.warns(ConvergenceWarning, match="boxes do not resolve"):
        model = POURegressor(8, 2, physics=equation).fit(X, exact(X))
    error, inside = errors(model, exact, [0, 0], [1, 1], 2)
    assert error > 0.1 and inside > 0.9


def test_growth_from_noisy_values_without_a_first_one():
    """From nothing neither the rate nor the capacity moves: steps begin near the values."""
    t = np.linspace(0, 8, 40)[:, None]
    values = 2 / (1 + 19 * np.exp(-1.2 * t[:, 0]))
    y = values + 0.02 * np.random.default_rng(8).standard_normal(40)
    equation = Equation(
        lambda u, x, p: u.d(0) - p["rate"] * u() * (1 - u() / p["capacity"]),
        np.linspace(0, 8, 200)[:, None],
    )
    unknowns = {"rate": Unknown(1.0), "capacity": Unknown(1.0)}
    model = HierarchicalPOURegressor(physics=equation, unknowns=unknowns).fit(t, y)
    for name, wanted in (("rate", 1.2), ("capacity", 2.0)):
        assert abs(model.unknowns_[name] - wanted) < 3 * model.unknowns_std_[name] < 0.2
    mean, std = model.predict(t, return_std="epistemic")
    assert (np.abs(mean - values) <= 3 * std).mean() > 0.9 and std.max() < 0.05


def test_low_degrees():
    """Parabolas have no degrees between which to see coefficients fall."""
    model = POURegressor(8, 2, physics=Equation(decay, 3 * LINE)).fit([[0.0]], [1.0])
    np.testing.assert_allclose(model.predict(3 * LINE), np.exp(-3 * LINE[:, 0]), atol=0.02)


@pytest.mark.parametrize("cls", [LSGDRegressor, HierarchicalPOURegressor])
def test_bars_in_float32_hold_its_round_off(cls):
    model = cls(physics=Equation(decay, 3 * LINE), dtype="float32").fit([[0.0]], [1.0])
    X = np.random.default_rng(0).uniform(0, 3, (500, 1))
    mean, std = model.predict(X, return_std="epistemic")
    assert mean.dtype == np.float32
    assert np.mean(np.abs(mean - np.exp(-X[:, 0])) <= 3 * std) > 0.97
    assert 2e-8 < std.max() < 1e-5


def test_roots_and_logarithms_of_nothing():
    """The slope of a root at 0 is no number; a logarithm there has no value."""
    root = Equation(lambda u, x: u.d(0) + torch.sqrt(u()), LINE)
    model = HierarchicalPOURegressor(physics=root).fit([[0.0]], [1.0])
    np.testing.assert_allclose(model.predict(LINE), (1 - LINE[:, 0] / 2) ** 2, atol=1e-9)
    still = Equation(lambda u, x: u.d(0) - torch.sqrt(u()), LINE)
    assert abs(HierarchicalPOURegressor(physics=still).fit([[0.0]], [0.0]).predict([[1.0]])) < 0.3
    with pytest.raises(ValueError, match="residual of equation 'logarithm' is not finite at the"):
        HierarchicalPOURegressor(
            physics=Equation(lambda u, x: u.d(0) - torch.log(u()), LINE, name="logarithm")
        ).fit([[0.0]], [0.0])


def test_partitions_are_those_of_the_boxes():
    model = POURegressor(2, 9, physics=Equation(decay, 3 * LINE)).fit([[0.0]], [1.0])
    ends = model.predict_partition([[0.1], [2.9]])
    assert ends[0] != ends[1]
    np.testing.assert_array_equal(model.partition_proba([[0.1], [2.9]]).sum(1), 1.0)
    assert [len(level) for level in model.tree_] == [2]
    with pytest.raises(ValueError, match="level must be None or an int between 0 and 0"):
        model.predict([[0.1]], level=1)
    with pytest.raises(ValueError, match="refit solves"):
        model.refit(LINE, LINE[:, 0])


def test_saved_and_cloned():
    model = HierarchicalPOURegressor(physics=Equation(decay, LINE)).fit([[0.0]], [1.0])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(LINE), model.predict(LINE))
    twin = clone(model).fit([[0.0]], [1.0])
    np.testing.assert_array_equal(twin.predict(LINE), model.predict(LINE))
    # Without equations nothing of them is left.
    model.set_params(physics=None).fit(LINE, LINE[:, 0])
    assert not hasattr(model, "equation_residual_")
    assert hasattr(model, "mixture_")


@pytest.mark.parametrize("cls", [LSGDRegressor, HierarchicalPOURegressor])
@pytest.mark.parametrize("n_missing", [0, 1])
def test_missing_conditions_are_counted(cls, n_missing):
    def curved(u, x):
        return u.d(0, 0) + 9 * u()

    X, y = np.array([[0.0], [1.0]])[: 2 - n_missing], np.array([0.0, np.sin(3.0)])
    model = cls(physics=Equation(curved, LINE))
    if n_missing:
        with pytest.warns(ConvergenceWarning, match="leave 1 direction of the solution open"):
            model.fit(X, y[:1])
        _, std = model.predict([[0.5]], return_std="epistemic")
        assert std[0] > 0.1
    else:
        model.fit(X, y)
        assert abs(model.predict([[0.5]])[0] - np.sin(1.5)) < 1e-10


@pytest.mark.parametrize(("n_partitions", "degree"), [(8, 2), (4, 5)])
def test_low_degrees_tell_of_a_face_without_conditions(n_partitions, degree):
    """What three faces leave open is no polynomial of a low degree, which seems determined."""

    def exact(X):
        return np.exp(X[:, 1]) * np.sin(X[:, 0])

    X = edges(40, 0, 1)
    X = X[(X[:, 1] < 1) | (X[:, 0] == 0) | (X[:, 0] == 1)]
    equation = Equation(poisson, "sobol", box=[[0, 1], [0, 1]])
    model = POURegressor(n_partitions=n_partitions, degree=degree, physics=equation)
    with pytest.warns(ConvergenceWarning, match=r"leave \d directions? of the solution open"):
        model.fit(X, exact(X))
    _, inside = errors(model, exact, 0, 1, 2)
    assert inside > 0.97
    # Neither with all faces nor by few values on each is anything said to be missing.
    for X in (edges(40, 0, 1), edges(6, 0, 1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(X, exact(X))
        assert not any("open" in str(warning.message) for warning in caught)


def test_memory_is_bounded(monkeypatch):
    """An end that heat does not come to: pieces are cut until they would take too much."""
    X = edges(40, 0, 1)
    y = np.where(X[:, 1] == 0, np.sin(PI * X[:, 0]), 0.0)
    y[X[:, 1] == 1] = np.sin(2 * PI * X[X[:, 1] == 1, 0])
    heat = Equation(lambda u, x: u.d(1) - 0.1 * u.d(0, 0), "sobol")
    monkeypatch.setattr(whole, "MOST_BYTES", 2e7)
    with pytest.warns(ConvergenceWarning, match="more of them would take above"):
        model = HierarchicalPOURegressor(physics=heat).fit(X, y)
    # Next there were 52 pieces, whose solve takes three times as much.
    assert 4 <= len(model.coef_) <= 16


def test_other_arguments_and_parameters_are_refused():
    for residual in (lambda u: u(), lambda u, x, p, q: u(), lambda: 0):
        with pytest.raises(TypeError, match=r"must take \(u, x, p\), or \(u, x\)"):
            Equation(residual, LINE)
    with pytest.raises(ValueError, match="points of a condition must be an array"):
        Condition(decay, "sobol")
    equation = Equation(decay, LINE)
    for options, match in (
        ({"gate": "linear"}, "gate='linear' is for gates"),
        ({"alpha": 0.1}, "alpha=0.1 is for gates"),
        ({"physics": [equation, Symmetry("odd", 0)]}, "pieces know symmetry 'periodic' alone"),
        ({"physics": [equation, Symmetry("periodic", 0, period=3.0)]}, "width of the box, 1.0"),
        ({"physics": decay}, "'physics' parameter"),
        ({"physics": None, "unknowns": {"rate": Unknown(1.0)}}, "but physics is None"),
    ):
        model = HierarchicalPOURegressor(**{"physics": equation, **options})
        with no_training(), pytest.raises(ValueError, match=match):
            model.fit([[0.0]], [1.0])


@pytest.mark.parametrize("cls", [LSGDRegressor, HierarchicalPOURegressor])
def test_what_mixes_points_is_refused(cls):
    mixed = Equation(lambda u, x: u.d(0) + u().mean(), LINE)
    with no_training(), pytest.raises(ValueError, match="must work pointwise"):
        cls(physics=mixed).fit([[0.0]], [1.0])


def test_arguments_with_values_are_no_unknowns():
    equations = [
        Equation(residual, LINE)
        for residual in (
            lambda u, x, k=2.0: u.d(0) + k * u(),
            lambda u, x, p=None: u.d(0) + 2 * u(),
            lambda u, x, *rest: u.d(0) + 2 * u(),
        )
    ]
    assert [equation.takes_constants for equation in equations] == [False, True, True]
    for equation in equations:
        model = HierarchicalPOURegressor(physics=equation).fit([[0.0]], [1.0])
        assert abs(model.predict([[1.0]])[0] - np.exp(-2)) < 1e-10


def test_unsolved_networks_name_pieces():
    def front(u, x, p):
        return u.d(0) * u() - 1e-3 * u.d(0, 0)

    points = np.linspace(-1, 1, 60)[:, None]
    with pytest.warns(ConvergenceWarning, match="HierarchicalPOURegressor"):
        LSGDRegressor(physics=Equation(front, points), max_iter=3).fit([[-1.0], [1.0]], [1, -1])


@pytest.mark.parametrize("options", [{}, {"hidden_layer_sizes": (30,), "max_iter": 3}])
def test_features_and_networks_tell_of_contradictory_conditions(options):
    start = [Condition(lambda u, x: u(), [[0.0]], value) for value in (1.0, 2.0)]
    with pytest.warns(ConvergenceWarning, match="Conditions are not met"):
        LSGDRegressor(physics=[Equation(decay, LINE), *start], **options).fit(LINE[:0], [])


def test_contradictions_and_undetermined_unknowns_are_warned_of():
    """Two values at one point, by conditions or beside data; a rate that is a sum of two."""
    start = [Condition(lambda u, x: u(), [[0.0]], value) for value in (1.0, 2.0)]
    with pytest.warns(ConvergenceWarning, match="Conditions are not met"):
        HierarchicalPOURegressor(physics=[Equation(decay, LINE), *start]).fit(NOTHING[0][:, :1], [])
    with pytest.warns(ConvergenceWarning, match="Conditions are not met"):
        HierarchicalPOURegressor(physics=[Equation(decay, LINE), start[1]]).fit([[0.0]], [1.0])
    both = Equation(lambda u, x, p: u.d(0) + (p["a"] + p["b"]) * u(), LINE)
    rates = {"a": Unknown(0.3), "b": Unknown(0.4)}
    X = LINE[::5]
    network = LSGDRegressor(hidden_layer_sizes=(8,), max_iter=5, n_init=1, random_state=0)
    for model in (HierarchicalPOURegressor(), LSGDRegressor(), network):
        with pytest.warns(ConvergenceWarning, match="'a', 'b' are not determined"):
            model.set_params(physics=both, unknowns=rates).fit(X, np.exp(-X[:, 0]))


@pytest.mark.parametrize("estimator", [HierarchicalPOURegressor, LSGDRegressor])
def test_what_solves_nothing_has_bars_of_its_size(estimator):
    """Either value at an end, both of which no line of slope one has, foretells the other by 2."""
    with pytest.warns(ConvergenceWarning, match="not solved"):
        model = estimator(physics=Equation(lambda u, x: u.d(0) - 1, "chebyshev"))
        model.fit([[0.0], [1.0]], [0.0, 3.0])
    std = model.predict(LINE, return_std=True)[1]
    assert np.median(std) > 0.5


@pytest.mark.parametrize(
    ("estimator", "degree"), [(POURegressor, 2), (HierarchicalPOURegressor, 1)]
)
def test_degrees_below_the_order_are_refused(estimator, degree):
    third = Equation(lambda u, x: u.d(0, 0, 0) - u(), LINE)
    with no_training(), pytest.raises(ValueError, match=f"degree={degree} is below the order"):
        estimator(degree=degree, physics=third).fit([[0.0]], [1.0])


@pytest.mark.parametrize("estimator", [HierarchicalPOURegressor, LSGDRegressor])
def test_conditions_alone_are_refused(estimator):
    alone = Condition(lambda u, x: u(), LINE, 1.0)
    with pytest.raises(ValueError, match="at least one Equation, beside conditions"):
        estimator(physics=alone).fit(NOTHING[0][:, :1], [])
