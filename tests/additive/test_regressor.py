"""What is special to AdditivePOURegressor: its terms, odd columns, the mixture about the mean."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skpou import AdditivePOURegressor, LSGDRegressor, SparseGridRegressor
from skpou.additive import fit
from skpou.additive.terms import TermSearch
from skpou.core.models import keeping
from tests.examples import slow


def mean(X):
    return np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2]


def table(n=400, d=4, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, d))
    return X, mean(X) + noise * rng.standard_normal(n)


@pytest.fixture(scope="module")
def fitted():
    return AdditivePOURegressor().fit(*table())


def test_terms_and_intercept_add_up_to_the_prediction(fitted):
    X = np.random.default_rng(1).uniform(-1.3, 1.3, (50, 4))
    values = fitted.predict_terms(X)
    assert values.shape == (50, len(fitted.terms_))
    total = values.sum(1) + fitted.intercept_
    np.testing.assert_allclose(total, fitted.predict(X), rtol=1e-10, atol=1e-10)
    on_rows = fitted.predict_terms(table()[0])
    np.testing.assert_allclose(on_rows.mean(0), 0, atol=1e-10)


def test_terms_that_matter_are_named_and_sized(fitted):
    size = dict(zip(fitted.terms_, fitted.predict_terms(table()[0]).std(0), strict=True))
    assert {(0,), (1, 2)} == set(sorted(size, key=size.get)[-2:])
    dof = dict(zip(fitted.terms_, fitted.effective_dof_, strict=True))
    assert dof[0,] > 3
    assert sum(fitted.effective_dof_) < 200


def test_bands_of_terms_hold_their_truth(fitted):
    X = np.random.default_rng(1).uniform(-1, 1, (300, 4))
    value, std = fitted.predict_terms(X, return_std=True)
    place = fitted.terms_.index((0,))
    truth = np.sin(3 * X[:, 0])
    error = value[:, place] - (truth - np.sin(3 * table()[0][:, 0]).mean())
    assert np.mean(np.abs(error) < 3 * std[:, place]) > 0.9
    assert std[:, place].max() < 0.2


def test_several_targets_have_terms_of_their_own():
    X, y = table()
    targets = np.column_stack([y, X[:, 3]])
    model = AdditivePOURegressor(2).fit(X, targets)
    assert model.effective_dof_.shape == (2, len(model.terms_))
    values = model.predict_terms(X[:7])
    assert values.shape == (7, 2, len(model.terms_))
    np.testing.assert_allclose(values.sum(2) + model.intercept_, model.predict(X[:7]), atol=1e-10)
    np.testing.assert_allclose(model.predict(X)[:, 1], X[:, 3], atol=1e-8)


def test_most_columns_in_a_term():
    for order in (1, 2):
        model = AdditivePOURegressor(order, remainder=False).fit(*table())
        assert max(len(term) for term in model.terms_) == order
    main_effects = AdditivePOURegressor(1, remainder=False).fit(*table())
    error = np.std(main_effects.predict(table()[0]) - mean(table()[0]))
    assert error > 0.2  # The pair is missing.


def test_collinear_constant_and_duplicated_columns_are_ordinary():
    X, y = table()
    rng = np.random.default_rng(3)
    odd = np.column_stack(
        [X, X, X[:, :1] + X[:, 1:2], np.ones(400), X[:, :1] + 1e-9 * rng.standard_normal((400, 1))]
    )
    model = AdditivePOURegressor().fit(odd, y)
    error = np.sqrt(np.mean((model.predict(odd) - mean(X)) ** 2))
    assert error < 0.06
    columns = {column for term in model.terms_ for column in term}
    assert not columns & {4, 5, 6, 7, 9}


@pytest.mark.slow
def test_three_hundred_rows_of_thirty_columns():
    X, y = table(300, 30)
    model = AdditivePOURegressor(remainder=False, transform_columns=False).fit(X, y)
    fresh, targets = table(2000, 30, seed=1)
    error = np.sqrt(np.mean((model.predict(fresh) - mean(fresh)) ** 2))
    assert error < 0.25  # The standard deviation of the target is 0.8.
    low, high = model.predict_quantile(fresh, [0.05, 0.95]).T
    assert 0.8 < np.mean((low < targets) & (targets < high)) < 0.97


def widening(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 2))
    width = 0.05 * 10 ** (0.5 + 0.5 * X[:, 0])
    return X, X[:, 1] + width * rng.standard_normal(n), width


@pytest.mark.parametrize("make", [AdditivePOURegressor, *slow(LSGDRegressor), SparseGridRegressor])
def test_noise_that_grows_along_a_column(make):
    X, y, _ = widening(800, 0)
    fresh, targets, width = widening(3000, 1)
    mixture = make(density="mixture").fit(X, y)
    single = make(density="gaussian").fit(X, y)
    assert (
        mixture.log_density(fresh, targets).mean()
        > single.log_density(fresh, targets).mean() + 0.15
    )
    noise = mixture.predict(fresh, return_std="noise")[1]
    assert np.corrcoef(np.log(noise), np.log(width))[0, 1] > 0.95
    for share in (0.5, 0.9):
        low, high = mixture.predict_quantile(fresh, [0.5 - share / 2, 0.5 + share / 2]).T
        assert abs(np.mean((low < targets) & (targets < high)) - share) < 0.05


@pytest.mark.parametrize("make", [AdditivePOURegressor, LSGDRegressor, SparseGridRegressor])
def test_std_never_shrinks_on_the_way_out(make):
    X, y, _ = widening(300, 0)
    model = make(density="mixture").fit(X, y)
    for direction in np.random.default_rng(0).standard_normal((8, 2)):
        direction /= np.abs(direction).max()
        ray = np.geomspace(2, 1000, 40)[:, None] * direction
        for kind in (True, "epistemic"):
            std = model.predict(ray, return_std=kind)[1]
            assert (np.diff(std) >= 0).all()
            assert std[-1] > 100 * std[0]


@pytest.mark.parametrize("make", [AdditivePOURegressor, LSGDRegressor, SparseGridRegressor])
def test_pure_noise_has_its_mean_and_std(make):
    rng = np.random.default_rng(0)
    X, y = rng.random((300, 3)), 5 + 2 * rng.standard_normal(300)
    model = make(density="mixture").fit(X, y)
    predicted, std = model.predict(rng.random((500, 3)), return_std=True)
    assert np.abs(predicted - y.mean()).max() < 1.2
    np.testing.assert_allclose(std, 2, rtol=0.25)


@pytest.mark.slow
def test_rounded_targets_have_no_spikes():
    X, y = table(600, noise=0.5)
    rounded = np.round(2 * y)
    model = AdditivePOURegressor().fit(X, rounded)
    assert model.predict(X, return_std="noise")[1].min() >= 0.5
    assert model.log_density(X, model.predict(X)).max() <= -0.5 * np.log(2 * np.pi * 0.25)


def test_too_few_iterations_are_told():
    with pytest.warns(ConvergenceWarning, match="max_iter=2 iterations"):
        AdditivePOURegressor(max_iter=2, tol=0.0).fit(*table(100))


def test_options_keep_what_they_say():
    X, y = table(200)
    plain = AdditivePOURegressor(transform_columns=False, n_splines=1, remainder=False).fit(X, y)
    for target in plain.model_:
        for expert in target["experts"]:
            assert all(column["place"][2] == 1 for column in expert["basis"]["columns"])
            assert expert["basis"]["landmarks"] is None
            assert all(column["transform"].shape[1] == 1 for column in expert["basis"]["columns"])
    for most in (3, 40):
        small = AdditivePOURegressor(max_columns=most, remainder=False).fit(X, y)
        sizes = [len(m["coef"]) for e in small.model_[0]["experts"] for m in e["members"]]
        assert max(sizes) <= most


def test_an_even_function_on_a_symmetric_grid_is_not_known_between_its_levels():
    # Its slopes are zero, exactly: without a level nothing says so.
    grid = np.linspace(-5, 5, 8)
    X = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)

    def f(X):
        return np.cos(X[:, 0]) + np.sin(X[:, 1]) ** 2

    points = np.random.default_rng(0).uniform(-5, 4.5, (500, 2))
    mean, std = AdditivePOURegressor(random_state=0).fit(X, f(X)).predict(points, return_std=True)
    error = mean - f(points)
    assert np.sqrt(np.mean(error**2)) > 0.1  # Two rows a period do not tell it.
    assert np.mean(np.abs(error) < 3 * std) > 0.97


@pytest.mark.parametrize("n", [8, 12])
def test_little_noise_tells_no_more_of_what_is_between_levels(n):
    grid, rng = np.linspace(-5, 5, n), np.random.default_rng(1)
    X = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)

    def f(X):
        return np.cos(X[:, 0]) + np.sin(X[:, 1]) ** 2

    model = AdditivePOURegressor().fit(X, f(X) + 1e-3 * rng.standard_normal(len(X)))
    new = rng.uniform(-5, 4.5, (500, 2))
    mean, std = model.predict(new, return_std=True)
    assert np.mean(np.abs(mean - f(new)) <= 3 * std) > 0.97


def test_many_rows_with_outliers_keep_their_terms(monkeypatch):
    rng = np.random.default_rng(5)
    X, Z = rng.random((300, 2)), rng.random((200, 2))
    y = np.sin(5 * X[:, 0]) + X[:, 1] + 0.05 * rng.standard_normal(300)
    y[::60] += 4
    searches = []

    class Counted(TermSearch):
        def __init__(self, *args):
            searches.append(len(args[0].X))
            super().__init__(*args)

    monkeypatch.setattr(fit, "TermSearch", Counted)
    anew = AdditivePOURegressor(random_state=0).fit(X, y)
    n_anew = len(searches)
    searches.clear()
    monkeypatch.setattr(fit, "MOST_ROWS", 100)
    known = AdditivePOURegressor(random_state=0).fit(X, y)
    assert 0 < len(searches) < n_anew
    assert known.outliers_.tolist() == anew.outliers_.tolist() == list(range(0, 300, 60))
    truth = np.sin(5 * Z[:, 0]) + Z[:, 1]
    assert np.sqrt(np.mean((known.predict(Z) - truth) ** 2)) < 0.03


@pytest.mark.slow
def test_tables_of_more_rows_than_are_kept_know_their_errors(monkeypatch):
    # Far rows are noisier: of the farthest few alone the form would seem to err everywhere.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 4))
    truth = X[:, 0] + np.sin(2 * X[:, 1])
    far = np.abs(X).max(1) > 1.9
    y = truth + np.where(far, 1.0, 0.2) * rng.standard_normal(400)
    monkeypatch.setattr(keeping, "MOST_KEPT", 60)
    Z = 0.7 * rng.standard_normal((1000, 4))
    model = AdditivePOURegressor(max_order=1, remainder="columns", random_state=0).fit(X, y)
    mean, std = model.predict(Z, return_std="epistemic")
    ratio = (mean - Z[:, 0] - np.sin(2 * Z[:, 1])) / std
    assert 0.6 < np.sqrt(np.mean(ratio**2)) < 1.5
