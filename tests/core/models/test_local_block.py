"""Smoothing from the nearest rows: against dense kriging, single rows and counts."""

import numpy as np
import pytest
import torch

from skpou.core.models import LocalBlock, LocalKernel
from skpou.core.models.local_block import FEW_POINTS, N_NEAREST, NearestRows, moved_apart
from tests.contracts import same_bits
from tests.examples import tensor

SCALES = tensor([4.0, 1.0, 0.0])


def block_of(n, nugget=0.2, seed=0, weight=None):
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((n, 3)))
    weight = torch.ones(n).double() if weight is None else weight
    values = torch.stack([torch.sin(9 * X[:, 0]), tensor(rng.standard_normal(n))], 1)
    kernel = LocalKernel(SCALES, nugget, 1.7)
    return LocalBlock.of_rows(kernel, X, weight, values), X, values


def dense(X, values, T, nugget, weight):
    """Kriging from all rows: means and variance, by their definition."""
    Z, U = (part.numpy() * SCALES.numpy() for part in (X, T))
    among = np.exp(-np.sqrt(np.square(Z[:, None] - Z).sum(2)))
    across = np.exp(-np.sqrt(np.square(U[:, None] - Z).sum(2)))
    share = across @ np.linalg.inv(among + nugget * np.diag(1 / weight))
    return share @ values.numpy(), 1.7 * (1 - (share * across).sum(1))


def test_few_rows_are_dense_kriging():
    rng = np.random.default_rng(1)
    weight = tensor(rng.integers(1, 5, 40))
    block, X, values = block_of(40, weight=weight)
    T = tensor(rng.uniform(-0.2, 1.2, (30, 3)))
    mean, variance = block.posterior(T)
    expected = dense(X, values, T, 0.2, weight.numpy())
    np.testing.assert_allclose(mean, expected[0], atol=1e-5)
    np.testing.assert_allclose(variance, expected[1], atol=1e-5)


def test_a_count_is_so_many_equal_rows():
    weight = torch.ones(30).double()
    weight[4] = 3.0
    block, X, values = block_of(30, weight=weight)
    index = torch.cat([torch.arange(30), torch.tensor([4, 4])])
    T = tensor(np.random.default_rng(2).random((20, 3)))
    expected = dense(X[index], values[index], T, 0.2, np.ones(32))
    np.testing.assert_allclose(block.posterior(T)[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(block.posterior(T)[1], expected[1], atol=1e-5)


def test_the_nearest_of_many_rows_are_as_good_as_all():
    block, X, values = block_of(600, nugget=0.05)
    T = tensor(np.random.default_rng(3).random((50, 3)))
    mean, variance = dense(X, values, T, 0.05, np.ones(600))
    found = block.posterior(T)
    assert np.abs(found[0].numpy() - mean).max() < 0.03 * np.abs(mean).max()
    np.testing.assert_allclose(found[1], variance, rtol=0.02)


def test_gradient_against_differences():
    block, _, _ = block_of(N_NEAREST - 5)
    T, step = tensor(np.random.default_rng(4).random((20, 3))), 1e-6
    gradient = block.gradient(T)
    for j in range(3):
        move = step * torch.eye(3).double()[j]
        expected = (block.mean(T + move) - block.mean(T - move)) / (2 * step)
        torch.testing.assert_close(gradient[:, j], expected, rtol=1e-5, atol=1e-6)
    assert not gradient[:, 2].any()


def test_shares_are_those_of_the_smoothed_values():
    block, X, values = block_of(200)
    index = torch.tensor([0, 3, 150])
    near, share, variance = block.smoother(index, X)
    mean, expected = block.posterior(X[index])
    smoothed = (share[..., None] * values[near]).sum(1)
    torch.testing.assert_close(smoothed, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance, expected)
    assert (near == index[:, None]).any(1).all()


def test_rows_one_by_one_are_those_of_a_block_also_on_grids():
    axes = np.meshgrid(*3 * [np.linspace(0, 1, 9)], indexing="ij")
    grid = np.stack([axis.ravel() for axis in axes], 1)
    search = NearestRows(moved_apart(grid * [1.3, 0.7, 1.1]))
    points = grid[5::11] * [1.3, 0.7, 1.1]
    together = search.find(points, 20)
    assert len(points) > FEW_POINTS
    one_by_one = np.concatenate([search.find(point[None], 20) for point in points])
    np.testing.assert_array_equal(np.sort(together), np.sort(one_by_one))


def test_leading_directions_find_the_nearest_of_many_columns():
    rng = np.random.default_rng(5)
    points = rng.standard_normal((2000, 16)) * np.geomspace(1, 0.02, 16)
    search = NearestRows(points)
    assert search.directions.shape == (16, 10)
    fresh = rng.standard_normal((40, 16)) * np.geomspace(1, 0.02, 16)
    found = search.find(fresh, 20)
    square = np.square(points - fresh[:, None]).sum(2)
    expected = np.argsort(square, 1)[:, :20]
    kept = [len(set(a) & set(b)) for a, b in zip(found, expected, strict=True)]
    assert np.mean(kept) > 19
    nearest = np.take_along_axis(square, found, 1)
    assert (np.diff(nearest) >= 0).all()


@pytest.mark.parametrize(("nugget", "dtype"), [(0.2, np.float32), (1e-9, np.float64)])
def test_state_survives_as_arrays_in_the_precision_that_holds_it(nugget, dtype):
    block, X, _ = block_of(100, nugget)
    arrays = block.arrays()
    assert arrays["points"].dtype == arrays["values"].dtype == dtype
    again = LocalBlock.from_arrays(arrays, X)
    for one, other in zip(again.posterior(X[:20] + 0.01), block.posterior(X[:20] + 0.01)):
        assert same_bits(one, other)


def test_no_points_are_no_predictions():
    block, X, _ = block_of(20)
    mean, variance = block.posterior(X[:0])
    assert mean.shape == (0, 2)
    assert variance.shape == (0,)
    assert block.gradient(X[:0]).shape == (0, 3, 2)
