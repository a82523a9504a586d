"""The Gaussian process in place of a fit of few rows: its formulas, its choice, its bars."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    POURegressor,
    SparseGridRegressor,
)
from skpou.core import Rows, merge_rows
from skpou.core.models import Restrained
from skpou.core.models.components import Components
from skpou.core.models.form_error import no_form_errors
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.interpolant import Interpolant
from skpou.core.models.interpolant_fit import (
    solved as processes_of,
)
from skpou.core.models.likely_kernels import (
    GAUSSIAN,
    MATERN,
    STRETCHES,
    Evidence,
    evidence_of,
    likeliest_kernel,
    of_column,
    stretched,
    stretches_of,
)
from tests.examples import slow, tensor

NEW = np.linspace(0, 1, 301)[:, None]


def rows_of(X, y, weight=None):
    y = tensor(y)[:, None] if np.ndim(y) == 1 else tensor(y)
    weight = np.ones(len(X)) if weight is None else weight
    return Rows(tensor(X), y, tensor(weight), torch.zeros_like(y))


def smooth(X):
    return np.sin(5 * X[:, 0]) / (1 + X.sum(1))


def of_kernels(rows, choices):
    """The processes of targets with one kernel each."""
    return processes_of(rows, [[(1.0, one)] for one in choices])


def choice(kind, stretch):
    return kind, stretch, np.log(np.r_[np.linspace(1.0, 2.0, len(stretch)), 0.3, 1e-4])


def interpolates(model):
    return bool((model._restraint or {}).get("interpolant"))


@pytest.fixture(
    scope="module", params=[(GAUSSIAN, (0.0, 0.0)), (MATERN, (30.0,)), (MATERN, (0.0, 0.2))]
)
def solved(request):
    kind, stretch = request.param
    d = len(stretch)
    rng = np.random.default_rng(3)
    X = rng.random((12, d))
    rows = rows_of(X, np.c_[smooth(X), -3 * smooth(X)], rng.integers(1, 4, 12).astype(float))
    return rows, of_kernels(rows, [choice(kind, stretch)] * 2), d


def dense(found, rows, X, target):
    """Posterior mean and variance by the textbook (Rasmussen, Williams 2006, 2.25)."""
    constant, line, bent, noise = found.variances[target].tolist()
    stretch, rates = found.stretches[target].tolist(), found.rates[target].numpy()
    at, Z, centre = (
        stretched(np.asarray(part), stretch, np)[0]
        for part in (X, rows.X.numpy(), found.centre.numpy())
    )

    def kernel(A, B):
        r = np.sqrt((((A[:, None] - B) * rates) ** 2).sum(2))
        s = np.sqrt(5) * r
        smooth = np.exp(-0.5 * r**2)
        rough = (1 + s + s**2 / 3) * np.exp(-s)
        own = smooth if int(found.kinds[target]) == GAUSSIAN else rough
        return constant + line * (A - centre) @ (B - centre).T + bent * own

    y = rows.y[:, target].numpy() - found.intercept[target].item()
    K = kernel(Z, Z) + np.diag(noise / rows.weight.numpy())
    columns = kernel(at, Z)
    mean = found.intercept[target].item() + columns @ np.linalg.solve(K, y)
    return mean, np.diag(kernel(at, at) - columns @ np.linalg.solve(K, columns.T))


def test_predictions_are_the_posterior_of_the_process(solved):
    rows, found, d = solved
    X = np.random.default_rng(5).random((30, d)) * 1.4 - 0.2
    mean, variance = found.mean(tensor(X)).numpy(), found.variance(tensor(X)).numpy()
    for target in range(2):
        expected = dense(found, rows, X, target)
        np.testing.assert_allclose(mean[:, target], expected[0], rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(variance[:, target], expected[1], rtol=1e-6, atol=1e-9)
    diagonal = found.covariance(tensor(X)).diagonal(dim1=0, dim2=1).T.numpy()
    np.testing.assert_allclose(diagonal, variance, rtol=1e-6, atol=1e-9)


def test_gradient_is_that_of_the_mean(solved):
    _, found, d = solved
    X = tensor(np.random.default_rng(6).random((9, d)) * 1.3 - 0.15).requires_grad_()
    exact = [torch.autograd.grad(found.mean(X)[:, k].sum(), X)[0] for k in range(2)]
    torch.testing.assert_close(found.gradient(X.detach()), torch.stack(exact, -1))


def test_far_outside_a_mean_goes_on_along_its_tangent():
    x = tensor(np.linspace(0, 1, 12)[:, None])
    rows = rows_of(x, smooth(x.numpy()))
    found = of_kernels(rows, [choice(GAUSSIAN, (0.0,))])
    found = found.with_variance(1.0, no_form_errors(rows)[0])
    held = Restrained(found, None, tensor([-0.5]), tensor([0.5]), interpolant=found)
    X = tensor([[0.5], [1.05], [1.4], [1.7], [2.5], [-0.3], [-1.2]])
    near = X.clamp(0, 1)
    tangent = found.mean(near) + found.gradient(near)[:, 0] * (X - near)
    share = (1 / found.variance(X)).clamp_max(1)
    assert (share[:3] == 1).all() and (share[3:5] < 1).all()
    # Where the process is less sure than the range of y is wide, that counts for the rest; and what
    # leaves this range by more than the range comes back to the tangent.
    expected = tangent + share * (found.mean(X) - tangent)
    part = (1 / (expected - expected.clamp(-0.5, 0.5))).square()
    within = tangent.clamp(-1.5, 1.5)
    back = torch.lerp(within, expected.clamp(-1.5, 1.5), part.clamp_max(1))
    expected = torch.where((share < 1) & (part < 1), back, expected)
    assert part[3] < 1 and tangent[3].abs() < 1.5
    assert abs(expected[4, 0] - tangent[4, 0]) < 0.5 < abs(found.mean(X)[4, 0] - tangent[4, 0])
    torch.testing.assert_close(held.mean(X), expected)
    torch.testing.assert_close(held.components(X).expectation(), expected)
    step = 1e-6
    slope = (held.mean(X + step) - held.mean(X - step)) / (2 * step)
    torch.testing.assert_close(held.gradient(X)[:, 0], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [GAUSSIAN, MATERN])
def test_slopes_of_the_evidence(kind):
    X = np.random.default_rng(7).random((15, 2))
    evidence = evidence_of(rows_of(X, smooth(X)), 0, kind, (0.0, 0.0))
    theta = choice(kind, (0.0, 0.0))[2]
    for k, slope in enumerate(evidence(theta)[1]):
        step = 1e-5 * np.eye(4)[k]
        quotient = (evidence(theta + step)[0] - evidence(theta - step)[0]) / 2e-5
        assert slope == pytest.approx(quotient, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", [GAUSSIAN, MATERN])
def test_evidence_of_repeated_measurements_is_that_of_all_of_them(kind):
    """The one of means and sums of squares, up to a constant, is that of rows by themselves."""
    rng = np.random.default_rng(8)
    # Symmetric: the line is about the middle of the doses, however often each was tried.
    x = np.array([[0.0], [0.1], [0.4], [0.6], [0.9], [1.0]])
    every = np.repeat(x, [1, 3, 2, 2, 3, 1], 0)
    y = smooth(every) + 0.2 * rng.standard_normal(len(every))
    y -= y.mean()
    merged = merge_rows(tensor(every), tensor(y)[:, None], torch.ones(len(y)).double())
    found = evidence_of(merged, 0, kind, (0.0, 0.0))
    whole = Evidence(every, y, np.ones(len(y)), kind)
    theta = np.log([[3.0, 0.2, 0.1], [1.0, 0.1, 0.5], [6.0, 0.5, 1e-2], [3.0, 0.2, 1e-3]])
    apart = [found(one)[0] - whole(one)[0] for one in theta]
    np.testing.assert_allclose(apart, apart[0], atol=1e-6)
    np.testing.assert_allclose(
        [found(t)[1] for t in theta], [whole(t)[1] for t in theta], rtol=1e-5
    )
    np.testing.assert_allclose(found.size(theta[0], 3), whole.size(theta[0], 3), rtol=1e-6)


def test_noise_is_that_of_doses_which_were_tried_again_and_again():
    rng = np.random.default_rng(9)
    doses = np.array([0, 1, 2, 4, 8, 16, 32.0])
    x = np.repeat(doses, 4)[:, None]
    y = 8 / (1 + (x[:, 0] / 3) ** 2.5) + 0.5 * rng.standard_normal(len(x))
    model = MultiStageRegressor().fit(x, y)
    std = model.predict(doses[:, None], return_std=True)[1]
    assert ((std > 0.3) & (std < 1.2)).all()


@pytest.mark.parametrize("seed", range(6))
def test_even_rows_some_of_which_are_missing_are_not_stretched(seed):
    kept = np.random.default_rng(seed).choice(19, 13, replace=False)
    assert stretches_of(np.sort(kept)[:, None] / 18.0) == [(0.0,)]


def test_a_stretch_that_makes_two_rows_one_is_none():
    """Rows over 24 decades whose upper end is drawn out."""
    x = np.geomspace(1e-24, 1, 15)
    with np.errstate(all="raise"):
        assert min(stretches_of(x[:, None])) >= (0.0,)


@pytest.mark.parametrize(
    "place", [np.geomspace(1, 1e4, 15), 1 / (1 + np.exp(-np.linspace(-5, 5, 15)))]
)
def test_rows_that_are_placed_so_are_stretched(place):
    x = (place - place.min()) / np.ptp(place)
    assert len(stretches_of(x[:, None])) > 1


def test_four_noisy_rows_claim_the_size_of_their_errors():
    x, y = np.array([[1.0], [2.0], [5.0], [7.0]]), np.array([8.3, 10.3, 15.6, 19.8])
    for noise in (np.zeros(4), np.array([0.0, 2.0, -2.0, 0.5])):
        model = LSGDRegressor(random_state=0).fit(x, y + noise)
        points = np.array([[3.0], [4.0]])
        mean, std = model.predict(points, return_std=True)
        error = mean - np.interp(points[:, 0], x[:, 0], y)
        assert (np.abs(error) < 3 * std).all()


def doses(n_groups=2):
    """Eight doses, each twice as large as the one before, and none, in some groups."""
    dose = np.r_[0.0, 2.0 ** np.arange(8)] / 128
    return np.column_stack([np.tile(dose, n_groups), np.repeat(np.linspace(0, 1, n_groups), 9)])


def test_of_several_columns_those_that_are_placed_so_are_stretched():
    none, some = stretches_of(doses())
    assert none == (0.0, 0.0)
    assert some[0] > 1
    assert some[1] == 0
    assert stretches_of(np.random.default_rng(0).random((60, 3))) == [(0.0, 0.0, 0.0)]


def test_doses_in_groups_are_predicted_by_a_stretched_process():
    X = doses()
    y = np.log(X[:, 0] + 0.02) + 0.2 * X[:, 1]
    chosen = likeliest_kernel(rows_of(X, y), 0)
    assert chosen[1][0] > 1
    found = of_kernels(rows_of(X, y), [chosen])
    at = np.column_stack([np.geomspace(0.003, 1, 40), np.tile([0.0, 1.0], 20)])
    error = found.mean(tensor(at))[:, 0].numpy() - np.log(at[:, 0] + 0.02) - 0.2 * at[:, 1]
    assert np.abs(error).max() < 0.05


def test_kernels_saved_with_one_stretch_are_read(solved):
    _, found, d = solved
    arrays = found.arrays()
    arrays["stretches"] = np.zeros(2)
    read = type(found).from_arrays(arrays, found.points)
    assert read.stretches.shape == (2, d)


@pytest.mark.parametrize("stretch", STRETCHES)
def test_stretched_coordinates_fill_the_box(stretch):
    x = np.linspace(-0.3, 1.3, 41)
    value, slope = of_column(x, stretch, np)
    ends, _ = of_column(np.array([0.0, 1.0]), stretch, np)
    np.testing.assert_allclose(ends, [0, 1], atol=1e-15)
    quotient = (of_column(x + 1e-7, stretch, np)[0] - of_column(x - 1e-7, stretch, np)[0]) / 2e-7
    np.testing.assert_allclose(slope, quotient, rtol=1e-4)
    assert (np.diff(value) > 0).all()


def test_only_rows_that_are_placed_so_are_stretched():
    even, series = np.linspace(0, 1, 12), np.geomspace(1, 200, 12) / 200
    assert likeliest_kernel(rows_of(even[:, None], np.sqrt(even)), 0)[1] == (0.0,)
    assert likeliest_kernel(rows_of(series[:, None], np.log(series)), 0)[1][0] > 0


@pytest.mark.parametrize("missing", [None, 3])
def test_rows_dense_at_both_ends_are_stretched_at_both(missing):
    x = 0.5 * (1 - np.cos(np.linspace(0, np.pi, 16)))
    x = x if missing is None else np.delete(x, missing)

    def y(x):
        return np.log((0.02 + x) / (1.02 - x))

    chosen = likeliest_kernel(rows_of(x[:, None], y(x)), 0)
    assert 0 < chosen[1][0] < 1
    found = of_kernels(rows_of(x[:, None], y(x)), [chosen])
    at = np.linspace(0, 1, 101)
    error = found.mean(tensor(at[:, None]))[:, 0].numpy() - y(at)
    assert np.abs(error).max() < 0.02


@pytest.mark.parametrize(("n", "seed"), [(5, 7), *slow((5, 0), (5, 1))])
def test_noise_that_happens_to_be_smooth_on_few_rows_is_not_claimed_away(n, seed):
    rng = np.random.default_rng(seed)
    X = np.sort(rng.random(n))[:, None]
    y = np.sin(3 * X[:, 0]) + X[:, 0] + 0.1 * rng.standard_normal(n)
    new = np.linspace(X[0], X[-1], 50)
    mean, std = MultiStageRegressor().fit(X, y).predict(new, return_std=True)
    error = mean - np.sin(3 * new[:, 0]) - new[:, 0]
    # A kernel without noise claims a tenth of the error and less.
    assert np.sqrt(np.mean(error**2)) < 3 * np.sqrt(np.mean(std**2))


def test_a_factor_of_the_variance_leaves_the_mean(solved):
    rows, found, d = solved
    (form, _) = no_form_errors(rows)
    less = found.with_variance(0.25, form)
    X = tensor(np.random.default_rng(9).random((7, d)))
    torch.testing.assert_close(less.mean(X), found.mean(X), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(less.variance(X), 0.25 * found.variance(X), rtol=1e-6, atol=1e-12)


def test_a_believed_process_knows_its_own_variance_outside():
    X = np.linspace(0, 1, 14)[:, None]
    model = SparseGridRegressor().fit(X, smooth(X))
    outside = np.r_[np.linspace(-0.15, -0.05, 9), np.linspace(1.05, 1.15, 9)][:, None]
    mean, std = model.predict(outside, return_std=True)
    error = np.abs(mean - smooth(outside))
    assert np.mean(error <= 3 * std) > 0.97
    # Half the rise of the tangent, that of a form of which nothing is known there, is far more.
    rise = 0.1 * np.abs(model.predict_gradient(X[[0, -1]])).min()
    assert np.median(std) < 0.1 * rise


def test_the_state_survives_pickling(solved):
    _, found, d = solved
    X = tensor(np.random.default_rng(8).random((5, d)))
    again = Interpolant.from_arrays(pickle.loads(pickle.dumps(found.arrays())), X)
    assert torch.equal(again.mean(X), found.mean(X))


@pytest.mark.parametrize("kind", [AdditivePOURegressor, SparseGridRegressor])
def test_few_exact_rows_of_a_smooth_function(kind):
    X = np.linspace(0, 1, 14)[:, None]
    model = kind().fit(X, smooth(X))
    mean, std = model.predict(NEW, return_std=True)
    error = np.abs(mean - smooth(NEW))
    assert interpolates(model)
    assert error.max() < 1e-5
    assert np.mean(error <= 3 * std) > 0.97
    assert np.median(std) < 1e-4
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(NEW), mean)


def test_two_outputs_and_their_units():
    X = np.linspace(0, 1, 12)[:, None]
    Y = np.c_[smooth(X), 1e5 * smooth(X) - 7e6]
    mean, std = SparseGridRegressor().fit(X, Y).predict(NEW, return_std=True)
    np.testing.assert_allclose(mean[:, 1], 1e5 * mean[:, 0] - 7e6, atol=1)
    np.testing.assert_allclose(std[:, 1], 1e5 * std[:, 0], rtol=1e-2)


@pytest.fixture(scope="module")
def noisy_and_smooth():
    X, rng = np.linspace(0, 1, 14)[:, None], np.random.default_rng(2)
    Y = np.c_[2 * X + 0.1 * rng.standard_normal((14, 1)), smooth(X)]
    return X, Y


@pytest.fixture(scope="module")
def beside_noise(noisy_and_smooth):
    return SparseGridRegressor().fit(*noisy_and_smooth)


def test_each_output_has_a_process_or_not_by_itself(noisy_and_smooth):
    X, Y = noisy_and_smooth
    both, *alone = (AdditivePOURegressor().fit(X, y) for y in (Y, *Y.T))
    assert [interpolates(one) for one in alone] == [False, True]
    assert both._restraint["interpolant"]["targets"].tolist() == [1]
    new = np.linspace(-0.2, 1.2, 41)[:, None]
    gradient, quantiles = both.predict_gradient(new), both.predict_quantile(new, [0.1, 0.7])
    for k, one in enumerate(alone):
        for kind in ("noise", "epistemic", True):
            for together, own in zip(
                both.predict(new, return_std=kind), one.predict(new, return_std=kind), strict=True
            ):
                np.testing.assert_allclose(together[:, k], own, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(gradient[:, k], one.predict_gradient(new), rtol=1e-6)
        np.testing.assert_allclose(
            quantiles[:, k], one.predict_quantile(new, [0.1, 0.7]), rtol=1e-6
        )
    y = both.predict(new)
    density = sum(one.log_density(new, y[:, k]) for k, one in enumerate(alone))
    np.testing.assert_allclose(both.log_density(new, y), density, rtol=1e-6)


def test_draws_of_both_kinds_of_outputs_have_their_density(beside_noise):
    both, new = beside_noise, np.linspace(0.02, 0.98, 15)[:, None]
    draws, probabilities = both.sample_y(new, 4000), [0.1, 0.7]
    quantiles = both.predict_quantile(new, probabilities)
    below = (draws[..., None] <= quantiles[:, :, None]).mean(2)
    np.testing.assert_allclose(below, np.broadcast_to(probabilities, below.shape), atol=0.03)


def test_draws_of_functions_and_covariances_of_both_kinds_of_outputs(beside_noise):
    both, new = beside_noise, np.linspace(0.02, 0.98, 15)[:, None]
    std, own = (both.predict(new, return_std=kind)[1] for kind in (True, "epistemic"))
    draws = both.sample_y(new, 4000, joint=True)
    np.testing.assert_allclose(draws[:, 1].std(-1), std[:, 1], rtol=0.1)
    _, cov = both.predict(new, return_cov="epistemic")
    np.testing.assert_allclose(np.sqrt(np.einsum("iik->ik", cov)), own, rtol=1e-6)


@pytest.mark.parametrize("independent", [False, True])
def test_a_process_in_place_of_one_target_of_a_mixture(independent):
    rng = np.random.default_rng(4)
    pi = tensor(rng.random((30, 3, 2) if independent else (30, 3)))
    mean, noise, epistemic = (tensor(rng.random((30, 3, 2))) for _ in range(3))
    kind = IndependentComponents if independent else Components
    parts = kind((pi / pi.sum(1, keepdim=True)).log(), mean, noise, epistemic)
    X, new = rng.random((12, 2)), tensor(rng.random((30, 2)))
    rows = rows_of(X, smooth(X))
    found = replace(
        of_kernels(rows, [choice(GAUSSIAN, (0.0, 0.0))]),
        targets=torch.tensor([1]),
        forms=tuple(no_form_errors(rows)),
    )
    together, own = found.beside(parts, new), found.bars.components(new)
    for got, first, second in zip(
        (together.expectation(), *together.variances()),
        (parts.expectation(), *parts.variances()),
        (own.expectation(), *own.variances()),
        strict=True,
    ):
        torch.testing.assert_close(got[:, :1], first[:, :1])
        torch.testing.assert_close(got[:, 1:], second)
    y = tensor(rng.random((30, 5, 2)))
    torch.testing.assert_close(together.cumulative(y)[..., 0], parts.cumulative(y)[..., 0])
    if independent:
        torch.testing.assert_close(together.cumulative(y)[..., 1:], own.cumulative(y[..., 1:]))


def test_the_choice_of_a_kernel_does_not_see_round_off():
    X = np.random.default_rng(9).random((40, 2))
    found = [likeliest_kernel(rows_of(X, smooth(X) * (1 + k * 1e-15)), 0) for k in range(3)]
    for one in found[1:]:
        assert one[:2] == found[0][:2]
        np.testing.assert_array_equal(one[2], found[0][2])


def test_what_is_asked_for_and_what_is_exact_stay():
    X = np.linspace(0, 1, 14)[:, None]
    assert not interpolates(SparseGridRegressor(level=3).fit(X, smooth(X)))
    assert not interpolates(POURegressor(4, 1).fit(X, smooth(X)))
    assert not interpolates(LSGDRegressor((4,), random_state=0).fit(X, smooth(X)))
    assert not interpolates(HierarchicalPOURegressor().fit(X, np.abs(X[:, 0] - 0.4)))


def test_lines_that_meet_between_rows_are_no_smooth_function():
    x = np.arange(20.0)
    y = np.interp(x, [0, 4.5, 9.5, 14.5, 19], [0, 9, -1, 9, 0])
    model = SparseGridRegressor().fit(x[:, None], y)
    assert not interpolates(model)


def test_calibration_points_in_a_geometric_series():
    resistance = np.geomspace(500, 3e4, 10)

    def kelvin(r):
        return 1 / (1 / 298 + np.log(r / 1e4) / 3950)

    model = HierarchicalPOURegressor().fit(resistance[:, None], kelvin(resistance))
    new = np.linspace(500, 3e4, 401)
    assert np.abs(model.predict(new[:, None]) - kelvin(new)).max() < 1.0


@pytest.mark.parametrize("function", [np.sqrt, np.log, lambda r: r / (3e3 + r)])
def test_beyond_the_last_calibration_point(function):
    points = np.geomspace(500, 3e4, 13)
    model = AdditivePOURegressor().fit(points[:, None], function(points))
    new = np.linspace(3.01e4, 3.4e4, 20)
    mean, std = model.predict(new[:, None], return_std=True)
    error = np.abs(mean - function(new))
    assert interpolates(model)
    assert error.max() < 1e-3 * np.std(function(points))
    assert np.all(error <= 4 * std)
