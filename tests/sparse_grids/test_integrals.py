"""Integrals of grid functions against closed forms and quadrature; the quadratic basis in a fit."""

import numpy as np
import pytest
from scipy import stats

from skpou import SparseGridClassifier, SparseGridRegressor, export
from skpou.sparse_grids.basis.grid import BASES, BOUNDARIES
from tests.estimators import same_bits

RNG = np.random.default_rng(0)
LOW, HIGH = np.array([-1.0, 2.0]), np.array([3.0, 2.5])
X = np.vstack([LOW, HIGH, RNG.uniform(LOW, HIGH, (300, 2))])


def fitted(y, points=X, **params):
    return SparseGridRegressor(**{"level": 4, "alpha": 1e-9} | params).fit(points, y)


def by_quadrature(model, densities, n=32, low=LOW, high=HIGH):
    """Mean of the prediction by Gauss's rule on cells of the grid, under independent columns."""
    t, w = np.polynomial.legendre.leggauss(8)
    places = ((np.arange(n)[:, None] + (t + 1) / 2) / n).ravel()
    weight = np.tile(w / (2 * n), n)
    axes = [a + (b - a) * places for a, b in zip(low, high, strict=True)]
    weights = [weight * rho(axis) for rho, axis in zip(densities, axes, strict=True)]
    values = model.predict(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2))
    total = weights[0] @ values.reshape(len(places), -1) @ weights[1]
    return total / (weights[0].sum() * weights[1].sum())


def ones(x):
    return np.ones_like(x)


@pytest.mark.parametrize("basis", BASES)
def test_products_of_lines_have_closed_forms(basis):
    """Every grid of level 2 and more holds 3 + x1 x2."""
    model = fitted(3 + X[:, 0] * X[:, 1], boundary="full", basis=basis)
    middle = (LOW + HIGH) / 2
    assert model.integrate("uniform") == pytest.approx(3 + middle.prod(), rel=1e-7)
    volume = (HIGH - LOW).prod()
    assert model.integrate() == pytest.approx(volume * (3 + middle.prod()), rel=1e-7)
    assert type(model.integrate()) is float
    # Densities 1 + x1 and x2 of the columns: moments of polynomials
    found = model.integrate([lambda x: 1 + x, lambda x: x])
    first = np.polyint([1, 1, 0]), np.polyint([1, 1])
    second = np.polyint([1, 0, 0]), np.polyint([1, 0])
    means = [
        np.diff(np.polyval(up, [a, b]))[0] / np.diff(np.polyval(down, [a, b]))[0]
        for (up, down), a, b in zip((first, second), LOW, HIGH, strict=True)
    ]
    assert found == pytest.approx(3 + np.prod(means), rel=1e-7)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_integrals_are_those_of_the_prediction(boundary, basis):
    y = np.sin(3 * X[:, 0]) * X[:, 1] + np.abs(X[:, 0])
    model = fitted(y, boundary=boundary, basis=basis)
    assert model.integrate("uniform") == pytest.approx(by_quadrature(model, [ones, ones]))
    normal, beta = stats.norm(1.0, 0.5), stats.beta(2, 3, loc=2, scale=0.5)
    found = model.integrate([normal, beta])
    assert found == pytest.approx(by_quadrature(model, [normal.pdf, beta.pdf]), rel=1e-10)
    assert model.integrate([None, None]) == model.integrate("uniform")


def test_refined_grids_outputs_and_constant_columns():
    points = np.column_stack([X[:, 0], np.full(len(X), 7.0), X[:, 1]])
    y = np.exp(-20 * (X[:, 0] - 1) ** 2)
    model = fitted(np.column_stack([y, 2 * y + 1]), points, n_refinements=3, alpha="auto", level=2)
    mean = model.integrate("uniform")
    assert mean.shape == (2,)
    assert mean[1] == pytest.approx(2 * mean[0] + 1, rel=1e-9)
    np.testing.assert_allclose(model.integrate(), mean * 4 * 0.5)
    same = model.integrate([None, stats.norm(), None])
    np.testing.assert_array_equal(same, mean)
    other = model.integrate([stats.norm(1.0, 1e-2), None, None])
    assert other[0] > 3 * mean[0]


def test_densities_of_classes_are_their_shares():
    labels = np.where(X[:, 0] > 2, "right", "left")
    model = SparseGridClassifier(level=3).fit(X, labels)
    shares = [np.mean(labels == name) for name in model.classes_]
    np.testing.assert_allclose(model.integrate("uniform"), shares, atol=1e-9)
    np.testing.assert_allclose(model.integrate(), 2 * np.array(shares), atol=1e-9)
    assert model.set_params(method="one_hot").fit(X, labels).integrate("uniform").sum() == (
        pytest.approx(1)
    )
    with pytest.raises(ValueError, match="method='softmax' are logits"):
        model.set_params(method="softmax", level=1).fit(X, labels).integrate()


@pytest.mark.parametrize(
    ("density", "error", "match"),
    [
        ("normal", ValueError, "density must be None, 'uniform' or a sequence.*Got 'normal'"),
        (3.0, ValueError, r"density must be None, 'uniform' or a sequence.*Got 3\.0"),
        ([None], ValueError, "density must have 2 entries, one a column"),
        ([None, 2.0], TypeError, r"density must hold None, functions or .* Got 2\.0"),
        ([None, lambda x: -x], ValueError, "density must be finite and at least 0"),
        ([lambda x: 0 * x, None], ValueError, r"density\[0\] is zero in all of the box"),
    ],
)
def test_bad_densities(density, error, match):
    with pytest.raises(error, match=match):
        fitted(X[:, 0], level=2).integrate(density)


# Parabolas


def test_parabolas_are_better_for_smooth_targets():
    def smooth(points):
        return np.sin(2 * points[:, 0]) * np.exp(points[:, 1])

    fresh = RNG.uniform(LOW, HIGH, (500, 2))
    points = RNG.uniform(LOW, HIGH, (1500, 2))
    errors = {
        basis: np.abs(
            fitted(smooth(points), points, level=6, basis=basis, alpha="auto").predict(fresh)
            - smooth(fresh)
        ).mean()
        for basis in BASES
    }
    assert 3 * errors["quadratic"] < errors["linear"]


@pytest.mark.parametrize("params", [{"n_refinements": 2, "alpha": "auto"}, {"boundary": "full"}])
def test_parabolas_are_kept_by_saving_and_their_gradients_are_right(params):
    model = fitted(np.sin(2 * X[:, 0]) + X[:, 1] ** 2, basis="quadratic", **params)
    assert ", quadratic" in model.summary()
    query = RNG.uniform(LOW - 0.3, HIGH + 0.3, (20, 2))
    again = SparseGridRegressor()
    again.__setstate__(model.__getstate__())
    assert same_bits(again.predict(query, return_std=True), model.predict(query, return_std=True))
    h = 1e-6
    for j in range(2):
        step = h * np.eye(2)[j]
        slope = (model.predict(query + step) - model.predict(query - step)) / (2 * h)
        np.testing.assert_allclose(model.predict_gradient(query)[:, j], slope, atol=1e-5)


def test_outside_the_box_tangents_go_on():
    model = fitted(X[:, 0] ** 2, basis="quadratic")
    at = model.predict([[3.0 + s, 2.2] for s in (0.0, 0.5, 1.0)])
    assert at[2] - at[1] == pytest.approx(at[1] - at[0], rel=1e-6)


def test_parabolas_are_not_exported():
    with pytest.raises(ValueError, match="basis='quadratic': grids are exported"):
        export.to_json(fitted(X[:, 0], level=2, basis="quadratic"))


def test_classes_by_parabolas():
    labels = (X[:, 0] > 1).astype(int)
    for method in ("density", "one_hot", "softmax"):
        model = SparseGridClassifier(level=3, method=method, basis="quadratic").fit(X, labels)
        assert model.score(X, labels) > 0.9
        assert model.model_["basis"] == "quadratic"
