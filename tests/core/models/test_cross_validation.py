"""Left-out errors by the residual maker against fits that are done again."""

import numpy as np
import pytest
import torch

from skpou.core.models.cross_validation import (
    N_FOLDS,
    RIDGES,
    OwnResidualMaker,
    left_out_errors,
    residual_maker,
    residual_makers,
    sets_to_leave_out,
)
from tests.examples import rows_of, tensor


def problem(n=40, q=6, m=2, seed=0):
    """Rows with weights, and columns at them."""
    rng = np.random.default_rng(seed)
    rows = rows_of(rng.random((n, 2)), rng.standard_normal((n, m)), rng.integers(1, 4, n))
    return rows, tensor(rng.standard_normal((n, q)))


def refitted(A, y, weight, ridge, part):
    """Errors at rows that a ridge regression has not seen."""
    kept = np.setdiff1d(np.arange(len(A)), part)
    W = weight[kept, None]
    coef = np.linalg.solve(A[kept].T @ (W * A[kept]) + ridge * np.eye(A.shape[1]),
                           A[kept].T @ (W * y[kept]))  # fmt: skip
    return y[part] - A[part] @ coef


@pytest.mark.parametrize(("n", "q"), [(40, 6), (12, 30)])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_errors_are_those_of_fits_without_the_rows(n, q, ridge):
    rows, A = problem(n, q)
    sets = [np.array([0, 3, 5]), np.array([7]), np.arange(n // 2)]
    maker = residual_maker(A * rows.weight.sqrt()[:, None], ridge)
    found = left_out_errors([maker], rows, sets)
    numbers = A.numpy(), rows.y.numpy(), rows.weight.numpy()
    expected = np.concatenate([refitted(*numbers, ridge, part) for part in sets])
    np.testing.assert_allclose(found.error, expected, rtol=1e-8, atol=1e-10)
    assert found.row.tolist() == [0, 3, 5, 7, *range(n // 2)]
    assert found.group.tolist() == [0, 0, 0, 1] + [2] * (n // 2)


def test_count_of_independent_errors_is_that_of_their_mean_square():
    """Simulated: noise alone is left out row by row, an unknown slope moves a whole set."""
    x = np.concatenate([np.linspace(-0.01, 0.01, 30), np.full(10, 10.0)])
    A, sets = tensor(np.stack([np.ones(40), x], 1)), [np.arange(0, 30, 3), np.arange(30, 40)]
    y = np.random.default_rng(0).standard_normal((40, 4000))
    rows = rows_of(x[:, None] + 1e-9 * np.arange(40)[:, None], y)
    found = left_out_errors([residual_maker(A, 1e-12)], rows, sets)
    noise = rows.y.square().mean().item()
    residual = (rows.y - A @ torch.linalg.lstsq(A, rows.y).solution).square().sum(0) / 38
    ratio = found.error**2 / (found.variance / residual.numpy() * noise)
    for k, part in enumerate((slice(0, 10), slice(10, 20))):
        assert 2 / ratio[part].mean(0).var() == pytest.approx(found.count[k], rel=0.15)
    assert found.count[0] > 8 and found.count[1] == pytest.approx(1, abs=0.01)


def test_interpolation_loses_no_digits():
    """More columns than rows and next to no ridge: I - H itself would be round-off."""
    x = np.linspace(0, 1, 12)
    rows = rows_of(x[:, None], np.sin(7 * x))
    A = tensor(np.random.default_rng(0).standard_normal((12, 20)))
    sets = [np.array([k]) for k in range(12)]
    found = left_out_errors([residual_maker(A, 1e-20)], rows, sets)
    kernel = A.numpy() @ A.numpy().T
    for k in range(12):
        kept = np.delete(np.arange(12), k)
        weights = np.linalg.solve(kernel[np.ix_(kept, kept)], kernel[kept, k])
        assert abs(found.error[k, 0] - (rows.y[k, 0] - weights @ rows.y[kept, 0].numpy())) < 1e-9


def without(A, y, ridge, part):
    """Errors at rows that a ridge regression has not seen, by singular values."""
    kept = np.setdiff1d(np.arange(len(A)), part)
    U, S, V = np.linalg.svd(A[kept], full_matrices=False)
    return y[part] - A[part] @ (V.T @ ((S / (S**2 + ridge**2))[:, None] * (U.T @ y[kept])))


def test_lines_that_are_met_to_round_off_are_told_by_a_larger_ridge():
    """Sines along a line have few digits between them: its block of I - H is round-off."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.repeat(np.linspace(0, 1, 8), 20), rng.random(160)])
    rows = rows_of(X, np.tanh(6 * (X.sum(1) - 0.9)))
    angles = X @ rng.normal(size=(2, 90)) * 3
    A = np.hstack([np.sin(angles), np.cos(angles)])
    A /= np.sqrt((A**2).sum(0))
    sets = sets_to_leave_out(X, np.random.default_rng(0), neighbourhoods=False)
    largest = np.linalg.norm(A, 2)
    makers = residual_makers(tensor(A))
    for ridge, maker, all_told in zip(RIDGES[::4], makers[::4], (False, True, True), strict=True):
        found = left_out_errors([maker], rows, sets)
        assert found.told.all() == all_told
        for number in np.flatnonzero(found.told):
            expected = without(A, rows.y.numpy(), ridge * largest, sets[number])
            size = np.abs(expected).max()
            np.testing.assert_allclose(
                found.error[found.group == number], expected, rtol=0, atol=0.1 * size
            )
    assert left_out_errors(makers, rows, sets).told.all()


def test_a_leverage_above_one_is_round_off():
    """Where G has lost its digits, the columns tell the errors."""
    rows, A = problem(m=1)
    Q, _ = torch.linalg.qr(A * rows.weight.sqrt()[:, None])
    residual = rows.y * rows.weight.sqrt()[:, None]
    residual = residual - Q @ (Q.T @ residual)
    sets = [np.arange(5), np.arange(5, 12)]
    rough = OwnResidualMaker(Q * (1 + 1e-2), residual, 34.0, A * rows.weight.sqrt()[:, None])
    found = left_out_errors([rough], rows, sets)
    exact = left_out_errors([residual_maker(A * rows.weight.sqrt()[:, None], 1e-20)], rows, sets)
    np.testing.assert_allclose(found.error, exact.error, rtol=1e-6)


def test_the_fit_as_it_is():
    rows, A = problem()
    root = rows.weight.sqrt()[:, None]
    Q, _ = torch.linalg.qr(A * root)
    residual = rows.y * root - Q @ (Q.T @ (rows.y * root))
    own = OwnResidualMaker(Q, residual, 34.0)
    sets = [np.array([0, 3, 5]), np.array([7])]
    expected = left_out_errors([residual_maker(A * root, 0.0)], rows, sets)
    found = left_out_errors([own], rows, sets)
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-9)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-9)
    one = left_out_errors([own.of_target(1)], rows, sets)
    np.testing.assert_array_equal(one.error[:, 0], found.error[:, 1])


def test_variances_are_those_of_noise():
    """Errors in units of their standard deviation, where the columns are the truth's."""
    rng = np.random.default_rng(1)
    X, A = rng.random((400, 1)), rng.standard_normal((400, 30))
    y = A @ rng.standard_normal(30) + 0.1 * rng.standard_normal(400)
    order = np.lexsort(X.T)
    rows = rows_of(X[order], y[order])
    maker = residual_maker(tensor(A[order]), 1e-12)
    sets = sets_to_leave_out(rows.X.numpy(), rng)
    found = left_out_errors([maker], rows, sets)
    assert np.mean(found.error**2 / found.variance) == pytest.approx(1, abs=0.15)


def test_of_ridges_as_good_in_folds_the_most_careful_counts():
    rows, A = problem(60, 4)
    makers = residual_makers(A)
    sets = sets_to_leave_out(rows.X.numpy(), np.random.default_rng(0))
    found = left_out_errors(makers, rows, sets)
    others = [left_out_errors([maker], rows, sets) for maker in makers]
    assert any(np.array_equal(found.error, one.error) for one in others)


def test_sets_of_a_grid_hold_its_inner_levels():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(7.0), indexing="ij"), -1).reshape(-1, 2)
    sets = sets_to_leave_out(grid, np.random.default_rng(0), neighbourhoods=False)
    folds, levels = sets[:N_FOLDS], sets[N_FOLDS:]
    assert sorted(np.concatenate(folds)) == list(range(35))
    found = set()
    for part in levels:
        (column,) = (j for j in range(2) if len(set(grid[part, j])) == 1)
        found.add((column, grid[part[0], column]))
    assert found == {(0, v) for v in (1, 2, 3)} | {(1, v) for v in (1, 2, 3, 4, 5)}
    assert {len(part) for part in levels} == {5, 7}


@pytest.mark.parametrize("n", [3, 5, 30, 200])
def test_sets_leave_something(n):
    X = np.random.default_rng(0).random((n, 3))
    for part in sets_to_leave_out(X, np.random.default_rng(0)):
        assert 0 < len(part) < n
        assert len(set(part)) == len(part)
