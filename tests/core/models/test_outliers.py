"""Outliers: told apart from skewed and varying noise, peaks and jumps; the density with them."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skpou.core.models.components import Components
from skpou.core.models.outliers import (
    LARGEST_LEVERAGE,
    LeftOutErrors,
    WithOutliers,
    are_clustered,
    beside_an_exact_fit,
    left_out_by_leverage,
    split_exact,
    split_outliers,
    stands_out,
    without_clusters,
)
from tests.core.models.test_mixed_residues import BASIS, linear
from tests.examples import rows_of, tensor


def errors_of(error, x=None, mean=None):
    """Left-out errors along a line, or at given points."""
    n = len(error)
    x = np.arange(n) / n if x is None else x
    mean = np.zeros(n) if mean is None else mean
    X = x.reshape(n, -1)
    return LeftOutErrors(X, mean + error, mean, error, np.ones(n), np.ones(n), np.zeros(n))


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def test_share_and_widths_of_a_mixture_are_found():
    rng, n = np.random.default_rng(5), 4000
    is_wide = rng.random(n) < 0.03
    error = 2 * np.where(is_wide, 12, 1) * rng.standard_normal(n)
    found = split_outliers(errors_of(error))
    assert found.share == pytest.approx(0.03, abs=3 * np.sqrt(0.03 / n))
    assert found.narrow == pytest.approx(2, abs=3 * 2 / np.sqrt(2 * n))
    assert found.wide == pytest.approx(24, rel=3 / np.sqrt(2 * 0.03 * n))
    centred = error - np.median(error)
    far = np.abs(centred) > 5 * 2
    assert np.array_equal(found.far[far], np.ones(far.sum(), dtype=bool))
    assert not found.far[np.abs(centred) < 3 * 2].any()


@pytest.mark.parametrize("sign", ["one", "both"])
def test_rows_beyond_the_others_are_far(sign):
    error = noise(400)
    far = np.arange(20, 400, 40)
    error[far] += 15 * (1 if sign == "one" else np.resize([1, -1], len(far)))
    assert set(np.flatnonzero(split_outliers(errors_of(error)).far)) == set(far)


KINDS = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "lognormal": lambda rng, n: np.exp(0.7 * rng.standard_normal(n)),
    "uniform": lambda rng, n: rng.random(n),
    "varied": lambda rng, n: (0.02 + np.linspace(0, 1, n) ** 2) * rng.standard_normal(n),
    "counts": lambda rng, n: rng.poisson(3, n) - 3.0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_noise_without_outliers_has_none(kind):
    rng = np.random.default_rng(3)
    assert all(split_outliers(errors_of(KINDS[kind](rng, 300))) is None for _ in range(20))


def test_a_peak_that_was_missed_is_none():
    error = noise(200)
    error[[100, 101, 102]] += [12, 25, 12]
    found = split_outliers(errors_of(error))
    assert found.far[101]
    assert not without_clusters(found, errors_of(error)).far.any()
    assert are_clustered(found, errors_of(error))


@pytest.mark.parametrize(("size", "stays"), [(1e-4, False), (1e-2, True)])
def test_what_a_form_leaves_everywhere_holds_no_small_outliers(size, stays):
    """Neighbours share waves of errors: a row stands out where no form may err as much."""
    error = size * (np.sin(np.arange(300) / 4) + 0.1 * noise(300))
    error[[40, 200]] += 30 * size
    errors = errors_of(error, mean=np.linspace(-1.5, 1.5, 300))
    found = split_outliers(errors)
    assert found.far[[40, 200]].all()
    assert without_clusters(found, errors).far[[40, 200]].all() == stays


def test_neighbours_that_err_to_the_other_side_do_not_save_an_outlier():
    error = noise(200)
    error[[99, 100, 101]] += [-4, 25, -4]
    found = without_clusters(split_outliers(errors_of(error)), errors_of(error))
    assert found.far[100]


def test_two_far_rows_side_by_side_are_clustered_and_some_of_many_are_not():
    error = noise(200)
    error[[100, 101]] += [-15, 15]
    found = split_outliers(errors_of(error))
    assert are_clustered(found, errors_of(error))
    many = noise(200)
    many[[10, 60, 61, 90, 120, 150, 170, 185]] += 15
    found = split_outliers(errors_of(many))
    assert not are_clustered(found, errors_of(many))
    assert without_clusters(found, errors_of(many)).far.sum() == 8


@pytest.mark.parametrize(("size", "stays"), [(1e-3, True), (0.1, False)])
def test_the_last_row_is_none_where_there_is_hardly_noise(size, stays):
    error = size * noise(100)
    error[[0, 50]] += 30 * size
    mean = np.linspace(-1.5, 1.5, 100)
    at_end = errors_of(error, mean=mean)
    found = split_outliers(at_end)
    assert found.far[[0, 50]].all()
    far = without_clusters(found, at_end).far
    assert far[50] and far[0] != stays


def test_a_row_on_the_other_side_of_a_jump_is_none():
    n = 200
    mean = np.where(np.arange(n) < 80, 0.0, 20.0)
    error = noise(n)
    error[80] -= 20  # It is as the rows before it.
    at_jump = errors_of(error, mean=mean)
    assert split_outliers(at_jump).far[80]
    assert not without_clusters(split_outliers(at_jump), at_jump).far[80]
    error[80], error[140] = error[140], error[80]
    inside = errors_of(error, mean=mean)
    assert without_clusters(split_outliers(inside), inside).far[140]


def test_rows_beside_a_blurred_jump_are_none_and_others_are():
    rng, n = np.random.default_rng(2), 200
    X = rng.random((n, 2))
    y = 20 * (X[:, 0] > 0.5) + 100 * X[:, 1] + noise(n)
    # The fit leads half-way over the jump, and has missed the rows on both sides of it by much.
    order = np.argsort(X[:, 0])
    first = np.searchsorted(X[order, 0], 0.5)
    at = order[first - 1 : first + 1]
    error = noise(n, 1)
    error[at] = [-10, 10]
    far = np.argmin(np.sum((X - [0.2, 0.5]) ** 2, 1))
    error[far] += 10
    y[far] += 10
    errors = errors_of(error, X, y - error)
    found = split_outliers(errors)
    assert set(np.flatnonzero(found.far)) == {*at, far}
    assert np.flatnonzero(without_clusters(found, errors).far).tolist() == [far]


def test_targets_that_change_as_much_everywhere_save_no_outlier():
    n = 200
    error = noise(n)
    error[100] += 20
    errors = errors_of(error, mean=20 * np.sin(np.arange(n)))
    assert np.flatnonzero(without_clusters(split_outliers(errors), errors).far).tolist() == [100]


def test_a_bend_does_not_stand_out_and_an_outlier_does():
    rng = np.random.default_rng(0)
    X = rng.random((300, 2))
    y = np.abs(X[:, 0] - X[:, 1]) + 1e-3 * rng.standard_normal(300)
    bend = np.abs(X[:, 0] - X[:, 1]) < 0.02
    bend[np.argmax(X.sum(1))] = True  # the corner
    ones = np.ones(300)
    errors = LeftOutErrors(X, y, y, 0 * ones, ones, ones, 0.9 * bend)
    assert bend.sum() > 8
    assert not stands_out(errors, bend).any()
    far = np.flatnonzero(bend)[3]
    errors.y[far] += 0.5
    assert np.flatnonzero(stands_out(errors, bend)).tolist() == [far]
    # Too few others for a plane: those whose errors are far, or not known.
    few = LeftOutErrors(*(part[:12].copy() for part in errors))
    few.error[:] = 1e-3 * rng.standard_normal(12)
    few.error[4] = 0.5
    few.leverage[7] = LARGEST_LEVERAGE
    assert np.flatnonzero(stands_out(few, ones[:12] > 0)).tolist() == [4, 7]


def test_left_out_errors_are_those_of_fits_without_the_row():
    rng = np.random.default_rng(1)
    X = rng.random((30, 1))
    rows = rows_of(X, np.cos(2 * X) + 0.1 * rng.standard_normal((30, 1)))
    model = linear(rows)
    (found,) = left_out_by_leverage(model, rows.X, rows.y, rows.weight, rows.weight)
    for k in (0, 11, 29):
        rest = rows.subset(torch.arange(30) != k)
        phi = BASIS.matrix(rest.X)
        coef = torch.linalg.lstsq(phi, rest.y).solution
        alone = BASIS.matrix(rows.X[k : k + 1])
        expected = float(rows.y[k, 0] - (alone @ coef)[0, 0])
        assert found.error[k] == pytest.approx(expected, rel=1e-8)
        spread = float(alone @ torch.linalg.inv(phi.T @ phi) @ alone.T)
        assert found.factor[k] == pytest.approx(np.sqrt(1 + spread), rel=1e-8)
    unseen = left_out_by_leverage(model, rows.X, rows.y, 0 * rows.weight, rows.weight)[0]
    assert unseen.error == pytest.approx((rows.y - model.mean(rows.X))[:, 0].numpy())


@pytest.mark.parametrize(("n", "confirmed"), [(24, True), (20, False)])
def test_an_exact_fit_tells_outliers_where_other_rows_confirm_it(n, confirmed):
    """Three parameters: of 23 rows 20 are beyond these, of 19 no more than 16."""
    X = np.linspace(0, 1, n)[:, None]
    rows = rows_of(X, X**2 + (np.arange(n) == 9)[:, None])
    kept = rows.weight * (torch.arange(n) != 9)
    model = linear(rows.subset(kept > 0))
    assert left_out_by_leverage(model, rows.X, rows.y, kept, rows.weight) is None
    found = beside_an_exact_fit(model, rows.X, rows.y, kept, rows.weight)
    assert (found is not None) == confirmed
    if confirmed:
        split = split_exact(found[0])
        assert list(np.flatnonzero(split.far)) == [9]
        assert (split.share, split.wide) == pytest.approx((1 / n, abs(found[0].error[9])))
        slight = found[0]._replace(error=found[0].error * 1e-3)
        assert split_exact(slight) is None


class Fixed:
    """A predictor of a given density."""

    def __init__(self, parts):
        self.parts = parts

    def components(self, X, posterior=True):
        return self.parts


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_density_is_that_of_both_kinds_of_rows(shape):
    count, m = shape
    rng = np.random.default_rng(2)
    log_pi = torch.log_softmax(tensor(rng.normal(size=(5, count))), 1)
    mean, noise_of = tensor(rng.normal(size=(5, count, m))), tensor(rng.random((count, m)) + 0.1)
    epistemic = tensor(rng.random((5, count, m)))
    parts = Components(log_pi, mean, noise_of, epistemic)
    share, variance = np.full(m, 0.1), np.array([9.0, 25.0])[:m]
    density = WithOutliers(Fixed(parts), share, variance).components(tensor(np.zeros((5, 1))))
    y = rng.normal(size=(5, m))
    total = np.zeros((5, count))
    if count > 1 and m > 1:  # One row is an outlier in both targets.
        for part, extra in ((0.9, 0 * variance), (0.1, variance)):
            std = (noise_of + epistemic + tensor(extra)).sqrt().numpy()
            total += part * norm.pdf(y[:, None], mean.numpy(), std).prod(2)
        expected = np.log((log_pi.exp().numpy() * total).sum(1))
    else:
        each = 0.0
        for part, extra in ((0.9, 0 * variance), (0.1, variance)):
            std = (noise_of + epistemic + tensor(extra)).sqrt().numpy()
            pdf = norm.pdf(y[:, None], mean.numpy(), std)
            each = each + part * (log_pi.exp().numpy()[..., None] * pdf).sum(1)
        expected = np.log(each).sum(1)
    assert density.log_density(tensor(y)).numpy() == pytest.approx(expected, rel=1e-10)
    assert torch.allclose(density.expectation(), parts.expectation())


def test_single_precision_holds_the_density_beside_an_outlier_whose_square_it_does_not():
    ones = torch.ones((1, 1, 1))
    parts = Components(ones[..., 0] - 1, ones, ones, ones)
    density = WithOutliers(Fixed(parts), np.full(1, 0.1), np.full(1, 1e60)).components(ones[0])
    own = parts.quantiles(torch.tensor([0.5 - 0.4 / 0.9, 0.5, 0.5 + 0.4 / 0.9]))
    found = density.quantiles(torch.tensor([0.1, 0.5, 0.9]))
    assert torch.allclose(found, own, rtol=1e-4)
