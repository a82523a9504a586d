"""Sparse grids: counts, points, and values against a naive product in exact arithmetic."""

import itertools
import math
import pickle

import mpmath
import numpy as np
import pytest
import torch

from skpou.sparse_grids.basis.grid import BASES, BOUNDARIES, SparseGrid, count_points
from tests.contracts import DTYPES, EPS, BasisContract
from tests.examples import slow

CASES = [(2, 1, "modified"), (2, 4, "modified"), (3, 3, "modified"), (1, 6, "modified")]
CASES += [(5, 2, "modified"), (2, 4, "zero"), (3, 3, "zero"), (2, 3, "full"), (3, 2, "full")]
CASES += [(2, 3, "truncated"), (3, 2, "truncated"), (0, 3, "modified"), (0, 2, "truncated")]
QUADRATIC = [(2, 4, "modified"), (1, 6, "modified"), (3, 3, "zero"), (2, 3, "full")]
QUADRATIC += [(2, 3, "truncated")]


def interior_points(d, n):
    """Points of a regular grid without boundary: sum of 2^s C(d - 1 + s, s) for s < n."""
    if d == 0:
        return int(n >= 1)
    return sum(2**s * math.comb(d - 1 + s, s) for s in range(n))


def closed_form(d, n, boundary):
    """Points by the number b of coordinates that lie on a face."""
    if boundary in ("zero", "modified"):
        return interior_points(d, n)
    # Level 0 leaves one more level to the other coordinates; as level 1 it does not.
    return sum(
        2**b * math.comb(d, b) * interior_points(d - b, n + b if boundary == "full" else n)
        for b in range(d + 1)
    )


def hat(level, index, boundary, x):
    """One function of Eq. 2.3 at x, in mpmath; outside the box the piece at the face goes on."""
    if level == 0:
        return x if index else 1 - x
    if boundary == "modified" and level == 1:
        return mpmath.mpf(1)
    first, last = index == 1, index == 2**level - 1
    if boundary == "modified" and first and x < mpmath.mpf(2) / 2**level:
        return 2 - 2**level * x
    if boundary == "modified" and last and x >= 1 - mpmath.mpf(2) / 2**level:
        return 2**level * x + 1 - index
    value = 1 - abs(2**level * x - index)
    outside = (x < 0 and first) or (x > 1 and last)
    return value if outside and boundary != "modified" else max(value, mpmath.mpf(0))


class TestSparseGrid(BasisContract):
    @pytest.fixture(params=CASES, ids=str)
    def basis(self, request):
        return SparseGrid(*request.param)

    def naive(self, basis, x):
        return [
            mpmath.fprod(
                hat(l, i, basis.boundary, v) for l, i, v in zip(level, index, x, strict=True)
            )
            for level, index in zip(*(a.tolist() for a in basis.levels_and_indices()), strict=True)
        ]


def parabola(level, index, boundary, x):
    """One function of the quadratic basis at x, in mpmath; outside the box its tangent goes on."""
    inside = min(max(x, mpmath.mpf(0)), mpmath.mpf(1))
    slope = mpmath.diff(lambda t: polynomial(level, index, boundary, t, inside), inside)
    return polynomial(level, index, boundary, inside, inside) + (x - inside) * slope


def polynomial(level, index, boundary, x, at):
    """The polynomial at x that the function is at another point."""
    if level == 0:
        return x if index else 1 - x
    if boundary == "modified" and level == 1:
        return mpmath.mpf(1)
    h = mpmath.mpf(2) ** -level
    first, last = index == 1, index == 2**level - 1
    belongs = (index - 1) * h <= at < (index + 1) * h or (last and at == 1)
    if not belongs:
        return mpmath.mpf(0)
    if boundary == "modified" and (first or last):
        z = x if first else 1 - x
        if level == 2:
            return 2 - z / h
        # One at h, zero at 2 h and 4 h.
        return (z - 2 * h) * (z - 4 * h) / (3 * h * h)
    return (x - (index - 1) * h) * ((index + 1) * h - x) / h**2


class TestQuadraticGrid(TestSparseGrid):
    @pytest.fixture(params=QUADRATIC, ids=str)
    def basis(self, request):
        return SparseGrid(*request.param, basis="quadratic")

    def naive(self, basis, x):
        return [
            mpmath.fprod(
                parabola(l, i, basis.boundary, mpmath.mpf(v))
                for l, i, v in zip(level, index, x, strict=True)
            )
            for level, index in zip(*(a.tolist() for a in basis.levels_and_indices()), strict=True)
        ]


class TestGridOfChosenVectors(TestSparseGrid):
    @pytest.fixture
    def basis(self):
        # Downward closed, but no regular grid: products' parents are no neighbours.
        vectors = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (2, 0, 0)]
        vectors += [(2, 0, 1), (0, 0, 2), (3, 0, 0), (3, 0, 1), (0, 1, 2), (0, 2, 0)]
        return SparseGrid(3, 4, "modified", np.array(vectors))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("d", range(6))
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_number_of_points(d, n, boundary):
    grid = SparseGrid(d, n, boundary)
    assert grid.n_columns == closed_form(d, n, boundary)
    assert (grid.n_columns, grid.n_subspaces) == count_points(d, n, boundary)
    assert len(np.unique(grid.points(), axis=0)) == grid.n_columns


@pytest.mark.parametrize(
    ("d", "n", "boundary", "n_points", "n_subspaces"),
    [
        (8, 7, "modified", 141_569, 3003),
        (30, 4, "modified", 41_601, 5456),
        # Counted by hand from Eq. 2.16; modified hats need 127 and 36.
        (7, 3, "truncated", 53_217, 17_496),
        (7, 3, "modified", 127, 36),
        (1000, 3, "modified", 2_004_001, 501_501),
    ],
)
def test_known_counts(d, n, boundary, n_points, n_subspaces):
    assert count_points(d, n, boundary) == (n_points, n_subspaces)


def test_number_of_subspaces():
    for d, n in itertools.product(range(1, 7), range(1, 6)):
        assert SparseGrid(d, n).n_subspaces == math.comb(n - 1 + d, d)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_level_vectors_are_those_of_the_definition(boundary):
    d, n = 3, 3
    grid = SparseGrid(d, n, boundary)
    found = {tuple(row) for row in grid.factors.level[grid.plan.vectors].tolist()}
    least = 0 if boundary in ("full", "truncated") else 1
    expected = {
        l
        for l in itertools.product(range(least, n + d), repeat=d)
        if sum(max(v, 1) if boundary == "truncated" else v for v in l) <= n + d - 1  # Eq. 2.13
    }
    assert found == expected


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("d", [1, 2, 4])
def test_lower_grid_is_a_prefix(d, boundary):
    fine, coarse = SparseGrid(d, 4, boundary), SparseGrid(d, 3, boundary)
    np.testing.assert_array_equal(fine.points()[: coarse.n_columns], coarse.points())
    X = torch.as_tensor(np.random.default_rng(0).random((5, d)))
    torch.testing.assert_close(fine.matrix(X)[:, : coarse.n_columns], coarse.matrix(X))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_own_point_has_value_one_and_finer_functions_vanish_at_it(boundary):
    grid = SparseGrid(3, 3, boundary)
    K = grid.matrix(torch.as_tensor(grid.points())).numpy()
    costs = grid.costs()
    if boundary != "modified":  # whose functions at the faces are 1.5 and 2 at other points
        np.testing.assert_array_equal(np.diag(K), 1)
        assert not K[(costs[:, None] <= costs) & ~np.eye(len(K), dtype=bool)].any() or (
            boundary in ("full", "truncated")
        )
    assert np.linalg.matrix_rank(K) == len(K)


def test_rows_of_points():
    grid = SparseGrid(3, 4)
    vectors = grid._per_function(grid.plan.vectors)
    rows = grid.rows_of(vectors, grid.cells())
    np.testing.assert_array_equal(rows, np.arange(grid.n_columns))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("m", [1, 2, 5])
def test_gradients_of_the_evaluation(boundary, m):
    grid = SparseGrid(2, 3, boundary)
    rng = np.random.default_rng(1)
    # Off the kinks, inside and outside the box.
    X = torch.as_tensor(rng.integers(-2, 18, (9, 2)) / 16 + 0.03).requires_grad_()
    coef = torch.as_tensor(rng.standard_normal((grid.n_columns, m))).requires_grad_()
    assert torch.autograd.gradcheck(grid.evaluate, (X, coef), eps=1e-7, atol=1e-6)
    np.testing.assert_allclose(
        grid.evaluate(X, coef).detach(), (grid.matrix(X) @ coef).detach(), atol=1e-14
    )


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize(
    ("boundary", "d"),
    # A full boundary in four dimensions has by far the most points.
    [pair for pair in itertools.product(BOUNDARIES, [1, 2, 3, 4]) if pair != ("full", 4)]
    + slow(("full", 4)),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation_and_gradients_equal_the_matrix(boundary, d, m, dtype):
    """Thousands of rows: several blocks, and through nodal values where d <= 3."""
    # Grids with points on the faces are large in four dimensions; two levels make several blocks.
    faces = boundary in ("full", "truncated")
    grid = SparseGrid(d, 2 if d == 4 and faces else 3, boundary)
    rng = np.random.default_rng(2)
    X = torch.as_tensor(rng.random((9000, d))).to(dtype)
    X[:4] = torch.tensor([0.0, 1.0, -0.3, 1.7], dtype=dtype)[:, None]
    X.requires_grad_()
    coef = torch.as_tensor(rng.standard_normal((grid.n_columns, m))).to(dtype).requires_grad_()
    assert grid._nodal_pays(len(X), m) == (d <= 3)
    values = grid.evaluate(X, coef)
    g = torch.as_tensor(rng.standard_normal(values.shape)).to(dtype)
    values.backward(g)
    with torch.no_grad():
        K = grid.matrix(X)
        expected, coef_gradient = K @ coef, K.T @ g
        partials = [((grid.partial(X, j) @ coef) * g).sum(1) for j in range(d)]
    tolerance = {"rtol": 0, "atol": 2e3 * EPS[dtype] * float(expected.detach().abs().max())}
    torch.testing.assert_close(values.detach(), expected, **tolerance)
    torch.testing.assert_close(coef.grad, coef_gradient, rtol=1e4 * EPS[dtype], atol=1e-3)
    # At a kink, where cells meet, one-sided derivatives may differ in single precision.
    gradient = torch.stack(partials, 1)
    off = (gradient - X.grad).abs().amax(1) > 1e4 * EPS[dtype] * gradient.abs().amax()
    assert off.double().mean() < (1e-2 if dtype == torch.float32 else 1e-9)


def test_nonzeros_make_up_the_matrix():
    grid = SparseGrid(4, 3)
    X = torch.as_tensor(np.random.default_rng(3).random((50, 4)))
    values, functions = grid.nonzeros(X)
    assert values.shape == functions.shape == (50, grid.n_subspaces)
    dense = torch.zeros(50, grid.n_columns, dtype=X.dtype).scatter_(1, functions, values)
    torch.testing.assert_close(dense, grid.matrix(X), rtol=0, atol=0)
    assert grid.nonzeros(X[:0])[0].shape == (0, grid.n_subspaces)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_kernel_is_the_weighted_sum_of_products(boundary):
    grid = SparseGrid(3, 3, boundary)
    rng = np.random.default_rng(4)
    X, Z = (torch.as_tensor(rng.uniform(-0.2, 1.2, (n, 3))) for n in (7, 5))
    weight = torch.as_tensor(4.0 ** -grid.costs())
    expected = (grid.matrix(X) * weight) @ grid.matrix(Z).T
    torch.testing.assert_close(grid.kernel(X, Z, 4.0), expected)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_mass_and_stiffness_matrices(boundary, basis):
    grid = SparseGrid(2, 3, boundary, basis=basis)
    cells = 2 ** int(grid.factors.level.max())
    t, w = np.polynomial.legendre.leggauss(4)
    nodes = (np.arange(cells)[:, None] + (t + 1) / 2).reshape(-1) / cells
    weight = np.tile(w / 2, cells) / cells
    X = torch.as_tensor(np.array(list(itertools.product(nodes, repeat=2))))
    W = torch.as_tensor(np.outer(weight, weight).reshape(-1))[:, None]
    values, slopes = grid.matrix(X), [grid.partial(X, feature) for feature in range(2)]
    mass, stiffness = grid.mass_and_stiffness(X)
    torch.testing.assert_close(mass, values.T @ (values * W))
    torch.testing.assert_close(stiffness, sum(slope.T @ (slope * W) for slope in slopes))


def test_pickle_after_use():
    grid = SparseGrid(2, 4)
    X = torch.as_tensor(np.random.default_rng(5).random((5000, 2)))
    coef = torch.ones((grid.n_columns, 1), dtype=X.dtype)
    first = grid.evaluate(X, coef)
    assert torch.equal(pickle.loads(pickle.dumps(grid)).evaluate(X, coef), first)


@pytest.mark.parametrize("level", [0, 31])
def test_level_out_of_range(level):
    with pytest.raises(ValueError, match=f"level must be an int from 1 to 30. Got {level}"):
        SparseGrid(2, level)


def test_unknown_basis():
    with pytest.raises(ValueError, match=r"'quadratic'.*Got 'cubic'"):
        SparseGrid(2, 3, basis="cubic")


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_of_the_quadratic_evaluation(boundary):
    grid = SparseGrid(2, 3, boundary, basis="quadratic")
    rng = np.random.default_rng(1)
    X = torch.as_tensor(rng.integers(-2, 18, (9, 2)) / 16 + 0.03).requires_grad_()
    coef = torch.as_tensor(rng.standard_normal((grid.n_columns, 2))).requires_grad_()
    assert torch.autograd.gradcheck(grid.evaluate, (X, coef), eps=1e-7, atol=1e-5)


def test_unknown_boundary():
    with pytest.raises(ValueError, match=r"'truncated'.*Got 'periodic'"):
        SparseGrid(2, 3, "periodic")


@pytest.mark.gpu
@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("m", [1, 4])
def test_cuda_equals_cpu(d, m):
    grid = SparseGrid(d, 4)
    rng = np.random.default_rng(6)
    results = []
    for device in ("cpu", "cuda"):
        X = torch.tensor(rng.random((3000, d)), device=device, requires_grad=True)
        coef = torch.tensor(rng.random((grid.n_columns, m)), device=device, requires_grad=True)
        rng = np.random.default_rng(6)
        X.data = torch.tensor(rng.random((3000, d)), device=device)
        coef.data = torch.tensor(rng.random((grid.n_columns, m)), device=device)
        grid.evaluate(X, coef).square().sum().backward()
        results.append(
            [part.detach().cpu() for part in (grid.evaluate(X, coef), X.grad, coef.grad)]
        )
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cpu, cuda)
