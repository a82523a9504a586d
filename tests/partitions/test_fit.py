"""Training of pieces from samples to mixture: accuracy, automatic choices, small data."""

import numpy as np
import pytest
import torch

from skpou.partitions.fit import PieceOptions, fit_pieces
from tests.contracts import DTYPES, TrainingContract
from tests.examples import five_pieces, kink, relative_rms, rows_of, slow, tensor, wave


def train(X, y, seed=0, weight=None, dtype=torch.float64, report=None, labels=None, **options):
    rows = rows_of(X, y, weight, dtype)
    rng = np.random.default_rng(seed)
    return fit_pieces(rows, PieceOptions(**options), rng, labels, report)


def predict(result, X):
    like = result.state.experts[-1].coef
    parts = result.state.components(tensor(X, like.dtype), harden=True)
    return parts.expectation().numpy()


class TestFixedDegree(TrainingContract):
    options = PieceOptions(sizes=(6,), degree=2)
    function, n, d = staticmethod(kink), 150, 2

    def make_rows(self, order=None, times=1, dtype=torch.float64):
        rng = np.random.default_rng(0)
        X = rng.random((self.n, self.d))
        y = self.function(X) + 1e-3 * rng.standard_normal(self.n)
        order = np.arange(self.n) if order is None else order
        return rows_of(np.tile(X[order], (times, 1)), np.tile(y[order], times), None, dtype)

    def run(self, rows, rng, report=None):
        return fit_pieces(rows, self.options, rng, report=report)

    def test_last_report_is_no_reason_to_lose_the_fit(self):
        _, rows, full, lines = self.usual()
        late = self.interrupted(rows, len(lines))
        error = self.predict(late.state, rows.X) - self.predict(full.state, rows.X)
        assert float(error.square().mean().sqrt()) < 0.1


class TestTree(TestFixedDegree):
    options = PieceOptions(sizes=(2, 3), degree=1)


class TestAutomatic(TestFixedDegree):
    options = PieceOptions()
    function, n, d = staticmethod(wave(3)), 100, 1


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quadratic_wave_is_found_to_round_off(p, seed):
    X = np.random.default_rng(seed).random((300, 1))
    result = train(X, wave(p)(X), seed, sizes=(2 * p,), degree=2)
    assert result.state.n_leaves == p
    assert relative_rms(result.state, wave(p), 1) <= 1e-13
    assert result.code == "converged"


@pytest.mark.parametrize("seed", [0, 1])
def test_five_quartics_are_found_to_round_off(seed):
    X = np.random.default_rng(seed).random((2500, 2))
    result = train(X, five_pieces(X), seed, sizes=(8,), degree=4)
    assert result.state.n_leaves == 5
    assert relative_rms(result.state, five_pieces, 2) <= 1e-13


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_plane_with_noise_is_one_plane(seed):
    rng = np.random.default_rng(seed)
    X = rng.random((400, 2))
    plane = 1 + X @ [2.0, -1.0]
    result = train(X, plane + 0.1 * rng.standard_normal(400), seed)
    assert result.chosen["degree"] == 1
    assert result.state.n_leaves == 1
    # The error of three coefficients from 400 samples.
    assert np.sqrt(np.square(predict(result, X)[:, 0] - plane).mean()) < 3 * 0.1 * (3 / 400) ** 0.5
    noise = float(result.state.experts[0].noise)
    assert abs(noise / 0.01 - 1) < 4 * (2 / 400) ** 0.5


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_quadratic_is_one_quadratic(noise):
    def quadratic(X):
        return X[:, 0] ** 2 - 2 * X[:, 0] * X[:, 1] + 0.5 * X[:, 1]

    rng = np.random.default_rng(1)
    X = rng.random((400, 2))
    result = train(X, quadratic(X) + noise * rng.standard_normal(400))
    assert result.chosen["degree"] == 2
    assert result.state.n_leaves == 1
    assert relative_rms(result.state, quadratic, 2) < (1e-13 if not noise else 0.01)


def test_pieces_and_degree_of_a_noisy_wave_are_chosen():
    rng = np.random.default_rng(2)
    X = rng.random((500, 1))
    result = train(X, wave(3)(X) + 0.01 * rng.standard_normal(500))
    assert 2 <= result.chosen["degree"] <= 4
    assert 3 <= result.state.n_leaves <= 5
    assert relative_rms(result.state, wave(3), 1) < 0.02


def test_noise_that_hides_a_kink_of_the_curvature_makes_no_blend_of_it():
    rng = np.random.default_rng(0)
    X = rng.random((120, 1))

    def bent(X):
        return X[:, 0] + 2 * np.maximum(X[:, 0] - 0.6, 0) ** 2

    state = train(X, bent(X) + 1e-3 * rng.standard_normal(120)).state
    assert (state.n_leaves, state.degree, state.tree.first_soft) == (2, 2, 1)
    points = np.linspace(0, 1, 1001)[:, None]
    error = state.mean(tensor(points)).numpy()[:, 0] - bent(points)
    assert np.sqrt(np.mean(error**2)) < 4e-4


def test_a_noisy_kink_along_a_line_enters_no_corner():
    """A quadratic gate has a second branch, which did: the error there was 1.4."""
    rng = np.random.default_rng(2)
    X = rng.random((300, 2))

    def bent(X):
        return X[:, 0] + 3 * np.maximum(X[:, 0] + 0.5 * X[:, 1] - 0.8, 0) ** 2

    state = train(X, bent(X) + 1e-3 * rng.standard_normal(300), degree=2).state
    points = rng.random((4000, 2))
    assert np.abs(state.mean(tensor(points)).numpy()[:, 0] - bent(points)).max() < 2e-3


def test_jump_is_exact_on_both_sides():
    rng = np.random.default_rng(3)
    X = rng.random((200, 1))
    y = np.where(X[:, 0] < 0.4, 1 + X[:, 0], -(X[:, 0] ** 2))
    result = train(X, y, sizes=(4,), degree=2)
    low, high = X[X < 0.4].max(), X[X > 0.4].min()
    fresh = np.linspace(0, 1, 2001)[:, None]
    sure = (fresh[:, 0] <= low) | (fresh[:, 0] >= high)
    exact = np.where(fresh[:, 0] < 0.4, 1 + fresh[:, 0], -(fresh[:, 0] ** 2))
    assert result.state.n_leaves == 2
    assert np.abs(predict(result, fresh)[:, 0] - exact)[sure].max() < 1e-13


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("d", [0, 1, 2])
def test_constant_target(value, d):
    X = np.random.default_rng(4).random((50, d))
    result = train(X, np.full(50, value))
    assert result.state.n_leaves == 1
    assert result.chosen["degree"] == 0
    fresh = np.random.default_rng(5).random((20, d))
    np.testing.assert_allclose(predict(result, fresh), value, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("d", [1, 30])
@pytest.mark.parametrize("options", [{}, {"sizes": (2, 2), "degree": 1}, {"degree": 3}])
def test_few_rows(n, d, dtype, options):
    if d == 30 and options.get("degree") == 3:
        options = {"degree": 2}  # 496 columns are enough more than rows.
    rng = np.random.default_rng(n)
    X, y = rng.random((n, d)), rng.standard_normal((n, 2))
    result = train(X, y, dtype=dtype, **options)
    prediction = predict(result, np.concatenate([X, rng.random((5, d))]))
    assert np.isfinite(prediction).all()
    if n == 1:
        # One sample is all there is to know: nothing may draw its prediction towards zero.
        tolerance = 1e-8 if dtype == torch.float64 else 1e-3
        np.testing.assert_allclose(prediction[0], y[0], rtol=tolerance, atol=tolerance)
    variance, epistemic = result.state.components(tensor(X, dtype)).variances()
    assert (variance > 0).all()
    assert torch.isfinite(variance).all()
    assert torch.isfinite(epistemic).all()


def test_two_rows_lie_on_the_line():
    result = train([[0.2], [0.8]], [1.0, 3.0], degree=1)
    np.testing.assert_allclose(predict(result, [[0.2], [0.8]])[:, 0], [1.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("y", [(3.0, 7.0), (3.0, -1.0)])
def test_no_line_is_sure_of_two_rows_alone(y):
    X = [[2.0], [4.0]]
    noise, epistemic = train(X, y).state.components(tensor(X)).variances()
    assert (noise + epistemic >= np.var(y)).all()


@pytest.mark.parametrize("alpha", [None, 0.0, 1e-8])
def test_more_columns_than_rows_interpolate(alpha):
    X = np.random.default_rng(6).random((20, 30))
    result = train(X, X.sum(1), degree=1, alpha=alpha)
    np.testing.assert_allclose(predict(result, X)[:, 0], X.sum(1), rtol=1e-6)
    assert np.isfinite(predict(result, 1 - X)).all()


@pytest.mark.parametrize("d", [0, 1])
def test_equal_points_with_different_targets(d):
    rng = np.random.default_rng(7)
    X = np.repeat(rng.random((40, d)), 10, axis=0)
    noise = 0.2 * rng.standard_normal(400)
    result = train(X, 2 + (X.sum(1) if d else 0) + noise)
    assert result.state.n_leaves == 1
    expected = 2 + (X.sum(1) if d else 0)
    assert np.abs(predict(result, X)[:, 0] - expected).max() < 0.1
    # Repeated points say what the noise is.
    assert abs(float(result.state.experts[0].noise) / noise.var() - 1) < 0.1


def test_no_features_give_the_mean_and_the_variance():
    y = np.random.default_rng(8).standard_normal((60, 2))
    result = train(np.empty((60, 0)), y, weight=np.full(60, 1.0))
    expected = np.tile(y.mean(0), (3, 1))
    np.testing.assert_allclose(predict(result, np.empty((3, 0))), expected, atol=0.02)
    np.testing.assert_allclose(result.state.experts[0].noise[0], y.var(0, ddof=1), rtol=0.05)


def test_several_outputs_share_their_pieces():
    X = np.random.default_rng(9).random((400, 1))

    def three(X):
        hat = np.abs(X[:, 0] - 0.37)
        return np.stack([hat, 2 - 3 * hat, X[:, 0] ** 2], 1)

    result = train(X, three(X), sizes=(4,), degree=2)
    assert result.state.n_leaves == 2
    assert result.state.experts[-1].coef.shape == (2, 3, 3)
    assert relative_rms(result.state, three, 1) < 1e-13


@pytest.mark.parametrize("function", [wave(3), kink])
def test_single_precision(function):
    d = 1 if function is not kink else 2
    X = np.random.default_rng(10).random((500, d))
    result = train(X, function(X), dtype=torch.float32, sizes=(6,), degree=2)
    fresh = np.random.default_rng(11).random((2000, d))
    prediction = predict(result, fresh)
    assert prediction.dtype == np.float32
    assert np.isfinite(prediction).all()
    assert np.sqrt(np.square(prediction[:, 0] - function(fresh)).mean()) < 1e-3


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 3), *slow(((3,),), ((2, 2),), ((2, 1, 2),))])
def test_sizes_are_upper_bounds(sizes):
    X = np.random.default_rng(12).random((400, 1))
    result = train(X, wave(5)(X), sizes=sizes, degree=2)
    levels = result.state.tree.levels
    assert len(levels) == len(sizes)
    for gate, size in zip(levels, sizes, strict=True):
        assert int(torch.bincount(gate.parent).max()) <= size
    assert np.isfinite(predict(result, X)).all()


def test_max_iter_is_reported():
    X = np.random.default_rng(13).random((400, 1))
    result = train(X, wave(5)(X), sizes=(5,), degree=2, max_iter=1)
    assert result.code == "max_iter"
    assert "max_iter=1" in result.message


def test_labels_to_start_from():
    X = np.sort(np.random.default_rng(14).random((300, 1)), axis=0)
    labels = torch.as_tensor(np.floor(5 * X[:, 0])).long()
    result = train(X, wave(5)(X), labels=labels, sizes=(5,), degree=2)
    assert result.state.n_leaves == 5
    assert relative_rms(result.state, wave(5), 1) < 1e-13


def test_weights_equal_repeated_rows():
    rng = np.random.default_rng(15)
    X = rng.integers(0, 30, (200, 1)) / 30
    y = wave(2)(X) + 0.05 * rng.standard_normal(200)
    times = rng.integers(0, 4, 200)
    first = train(X, y, weight=times, sizes=(4,), degree=2)
    second = train(np.repeat(X, times, 0), np.repeat(y, times), sizes=(4,), degree=2)
    fresh = np.linspace(0, 1, 101)[:, None]
    assert np.array_equal(predict(first, fresh), predict(second, fresh))


def test_given_ridge_is_used():
    rng = np.random.default_rng(16)
    X = rng.random((100, 1))
    result = train(X, X[:, 0] + 0.1 * rng.standard_normal(100), degree=1, sizes=(1,), alpha=1e3)
    assert result.chosen["alpha"] == 1e3
    assert np.abs(predict(result, X)).max() < 1e-3
