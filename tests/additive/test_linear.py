"""Linear data are seen to be linear, and nothing else is."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from skpou import AdditivePOURegressor
from skpou.additive.basis import line_products, spline_basis
from skpou.additive.linear import FEWEST_ROWS, bends, linear_terms, neighbours
from skpou.additive.terms import TargetRows, TermSearch
from tests.examples import tensor


def search_of(function, n=800, d=6, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = function(X) + noise * rng.standard_normal(n)
    y = tensor((y - y.mean()) / y.std())
    weight = torch.ones(n).double()
    basis = spline_basis(tensor(X), weight, 8, False)
    return TermSearch(TargetRows(tensor(X), y, weight, 0.0), basis, 6, 3, 800, 100)


def plane(X):
    return X @ np.arange(X.shape[1]) * 0.5


def rough(X):
    return np.sign(np.sin(15 * X[:, :2])).prod(1)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_lines_are_all_of_a_plane(noise):
    candidate = linear_terms(search_of(plane, noise=noise))
    assert [block.key for block in candidate.blocks] == [((j,), (0,)) for j in range(6)]
    assert candidate.basis.n_columns == 7
    assert all(column.n_functions == 1 for column in candidate.basis.columns)


@pytest.mark.parametrize(
    "more",
    [
        lambda X: 3 * (X[:, 1] - 0.5) ** 2,
        lambda X: 4 * (X[:, 0] - 0.5) * (X[:, 4] - 0.5),
        lambda X: 0.3 * np.sin(4 * X).sum(1),
    ],
)
def test_a_bend_or_a_product_is_seen(more):
    assert linear_terms(search_of(lambda X: plane(X) + more(X))) is None


def test_errors_that_neighbours_share_are_seen():
    X = tensor(np.random.default_rng(0).random((800, 2)))
    assert neighbours(X, tensor(rough(X.numpy()))) > 5
    assert abs(neighbours(X, tensor(np.random.default_rng(1).standard_normal(800)))) < 2.5


def test_comparisons_are_standard_deviations_of_chance():
    search = search_of(plane)
    draws = np.random.default_rng(1).standard_normal((200, 800))
    found = torch.stack([bends(search, tensor(draw)) for draw in draws])
    np.testing.assert_allclose(found.square().mean(0), 1, atol=0.5)
    assert float(found.square().mean()) == pytest.approx(1, abs=0.05)
    products = torch.stack([line_products(search.values, tensor(draw))[0, 1:] for draw in draws])
    assert float(products.square().mean()) == pytest.approx(1, abs=0.15)


def test_few_rows_or_columns_are_searched():
    assert linear_terms(search_of(plane, FEWEST_ROWS - 1)) is None
    assert linear_terms(search_of(plane, d=3)) is None


def test_no_worse_than_a_linear_model():
    rng = np.random.default_rng(2)
    X, fresh = rng.standard_normal((1000, 30)), rng.standard_normal((2000, 30))
    slopes = rng.standard_normal(30)
    y = X @ slopes + 2 * rng.standard_normal(1000)
    model, line = AdditivePOURegressor().fit(X, y), LinearRegression().fit(X, y)
    errors = [np.sqrt(np.mean((m.predict(fresh) - fresh @ slopes) ** 2)) for m in (model, line)]
    assert errors[0] < 1.03 * errors[1]
    assert model.terms_ == [(j,) for j in range(30)]
    std = model.predict(X, return_std=True)[1]
    np.testing.assert_allclose(std, 2, rtol=0.15)
