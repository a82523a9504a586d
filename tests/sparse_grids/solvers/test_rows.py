"""Products with the weighted rows of a sparse grid, kept, sparse or in blocks, against dense."""

import numpy as np
import pytest
import torch

from skpou.sparse_grids.basis.grid import BOUNDARIES, SparseGrid
from skpou.sparse_grids.solvers import rows as grid_rows
from skpou.sparse_grids.solvers.rows import GridRows

DOUBLE = torch.float64
STORES = [{}, {"sparse": True}, {"batch_size": 7}, {"batch_size": 1000}, "too many"]


def make(store, n=40, boundary="modified", active=None, monkeypatch=None, seed=0):
    """Rows, and the matrix they stand for."""
    rng = np.random.default_rng(seed)
    X, weight = torch.tensor(rng.uniform(-0.1, 1.1, (n, 2))), torch.tensor(rng.uniform(0.1, 3, n))
    grid = SparseGrid(2, 4, boundary)
    if store == "too many":
        monkeypatch.setattr(grid_rows, "MAX_KEPT", n * grid.n_subspaces - 1)
        store = {"sparse": True}
    if active is not None:
        active = torch.tensor(rng.permutation(grid.n_columns)[:active])
    rows = GridRows(grid, X, weight, active, **store)
    A = weight.sqrt()[:, None] * grid.matrix(X)
    return rows, A if active is None else A[:, active]


@pytest.fixture(params=STORES, ids=str)
def store(request):
    return request.param


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("active", [None, 1, 20])
def test_products_are_those_of_the_dense_matrix(store, boundary, active, monkeypatch):
    rows, A = make(store, boundary=boundary, active=active, monkeypatch=monkeypatch)
    rng = np.random.default_rng(1)
    c, r = torch.tensor(rng.standard_normal((A.shape[1], 3))), torch.tensor(rng.random((40, 3)))
    assert (rows.n_rows, rows.n_columns) == A.shape
    torch.testing.assert_close(rows.matmul(c), A @ c)
    torch.testing.assert_close(rows.rmatmul(r), A.T @ r)
    torch.testing.assert_close(rows.column_squares(), A.square().sum(0))
    torch.testing.assert_close(rows.gram(), A.T @ A)


@pytest.mark.parametrize("active", [None, 20])
def test_part_of_the_gram_matrix(store, active, monkeypatch):
    monkeypatch.setattr(grid_rows, "PANEL", 6)
    rows, A = make(store, active=active, monkeypatch=monkeypatch)
    p = A.shape[1]
    for first, last in [(0, p), (0, 1), (0, 13), (5, 18), (12, p), (p - 1, p), (p, p), (7, 7)]:
        expected = A[:, first:last].T @ A[:, :last]
        torch.testing.assert_close(rows.gram(first, last), expected)


def test_blocks_hold_every_row_once(store, monkeypatch):
    rows, A = make(store, active=20, monkeypatch=monkeypatch)
    for budget in (None, 1, 9, 10_000):
        total = torch.zeros(40, 21, dtype=DOUBLE)
        for block, values, columns in rows.blocks(budget):
            assert budget is None or len(values) <= budget
            total[block] += torch.zeros(len(values), 21, dtype=DOUBLE).scatter_add(
                1, columns, values
            )
        torch.testing.assert_close(total[:, :20], A)


def test_other_weights(store, monkeypatch):
    rows, A = make(store, active=20, monkeypatch=monkeypatch)
    weight = torch.tensor(np.random.default_rng(2).random(40))
    weight[3] = 0
    c, before = torch.ones(20, 1, dtype=DOUBLE), rows.gram()
    twice = rows.weighted(weight).weighted(weight)
    torch.testing.assert_close(twice.matmul(c), weight[:, None] * A @ c)
    torch.testing.assert_close(twice.rmatmul(c[:1].expand(40, 1)), (weight @ A)[:, None])
    torch.testing.assert_close(twice.gram(), A.T @ (weight.square()[:, None] * A))
    torch.testing.assert_close(twice.column_squares(), weight.square() @ A.square())
    assert torch.equal(rows.gram(), before)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(store, n, monkeypatch):
    rows, A = make(store, n=n, monkeypatch=monkeypatch)
    c = torch.ones(A.shape[1], 2, dtype=DOUBLE)
    torch.testing.assert_close(rows.matmul(c), A @ c)
    torch.testing.assert_close(rows.rmatmul(A @ c), A.T @ A @ c)
    torch.testing.assert_close(rows.gram(), A.T @ A)


def test_no_columns_of_the_data(store, monkeypatch):
    """Without dimensions there is one function, the constant."""
    monkeypatch.setattr(grid_rows, "MAX_KEPT", 4 if store == "too many" else 10)
    options = {} if store == "too many" else store
    weight = torch.arange(1.0, 6.0, dtype=DOUBLE)
    rows = GridRows(SparseGrid(0, 3), torch.zeros(5, 0, dtype=DOUBLE), weight, **options)
    assert rows.gram().tolist() == [[pytest.approx(15)]]
    torch.testing.assert_close(rows.matmul(weight.new_ones(1, 1))[:, 0], weight.sqrt())


def test_weights_are_repetitions(store, monkeypatch):
    options = {} if store == "too many" else store
    rng, grid = np.random.default_rng(3), SparseGrid(3, 3)
    X, count = torch.tensor(rng.random((20, 3))), torch.tensor(rng.integers(1, 4, 20))
    one = GridRows(grid, X, count.double(), **options)
    other = GridRows(grid, X.repeat_interleave(count, 0), torch.ones(int(count.sum())).double())
    torch.testing.assert_close(one.gram(), other.gram())
    torch.testing.assert_close(one.column_squares(), other.column_squares())


@pytest.mark.parametrize("decay", [4.0, 64.0])
def test_kernel_of_chosen_columns(decay):
    """That of all columns, in their order, is the closed form of the regular grid."""
    rng = np.random.default_rng(0)
    X, weight = torch.tensor(rng.random((40, 3))), torch.tensor(rng.random(40) + 0.1)
    grid = SparseGrid(3, 4)
    order = torch.tensor(rng.permutation(grid.n_columns))
    chosen = GridRows(grid, X, weight, order)
    torch.testing.assert_close(
        chosen.kernel(decay), GridRows(grid, X, weight).kernel(decay), rtol=1e-12, atol=1e-14
    )
    some = GridRows(grid, X, weight, order[:50])
    A = some.dense(slice(0, 40))
    torch.testing.assert_close(some.kernel(decay), A @ torch.diag(decay ** -some.costs()) @ A.T)


def test_dense_products_are_those_of_the_entries():
    rng = np.random.default_rng(1)
    rows = GridRows(SparseGrid(2, 4), torch.tensor(rng.random((30, 2))), torch.ones(30).double())
    coef, residual = (
        torch.tensor(rng.random((rows.n_columns, 3))),
        torch.tensor(rng.random((30, 3))),
    )
    dense = rows.made_dense()
    torch.testing.assert_close(dense.matmul(coef), rows.matmul(coef))
    torch.testing.assert_close(dense.rmatmul(residual), rows.rmatmul(residual))
    weighted = dense.weighted(torch.full((30,), 4.0).double())
    torch.testing.assert_close(weighted.matmul(coef), 2 * rows.matmul(coef))


@pytest.mark.parametrize("few_entries", [True, False])
@pytest.mark.parametrize("active", [None, 20])
def test_products_at_some_rows(few_entries, active, monkeypatch):
    monkeypatch.setattr(grid_rows, "SPARSE", 0 if few_entries else 1000)
    rows, A = make({}, active=active)
    J = torch.tensor(np.random.default_rng(2).random((12, 7)))
    torch.testing.assert_close(rows.products(slice(5, 17), J), A[5:17].T @ J)
