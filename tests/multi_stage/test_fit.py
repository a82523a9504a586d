"""Stages: starts, scale factors, residues, noise, posteriors, when they end, interruption."""

import math

import numpy as np
import pytest
import torch

from skpou.core.records import TrainingInterrupted
from skpou.multi_stage import recipe as module
from skpou.multi_stage.fit import fit_multi_stage
from skpou.multi_stage.options import MOST_STAGES, MultiStageOptions
from skpou.multi_stage.recipe import RecipeTraining, scaled_start, scattered, sees
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkBasis
from tests.contracts import same_bits
from tests.examples import rows_of, tensor

KINDS = {
    "auto": {"n_stages": 2},
    "varpro": {"network": Network(1, (5, 6)), "max_iter": 30},
    "adam_lbfgs": {"network": Network(1, (5, 6)), "solver": "adam_lbfgs", "max_iter": 40},
}


def make_rows(n=60, d=1, m=1, noise=0.0, weight=None, dtype=torch.float64):
    rng = np.random.default_rng(0)
    X = rng.random((n, d))
    y = np.sin(np.outer(X.sum(1), 5 + np.arange(m))) + noise * rng.standard_normal((n, m))
    return rows_of(X, (y - y.mean(0)) / (y.std(0) + 1e-300), weight, dtype)


def fit(rows, report=None, seed=0, **options):
    options = MultiStageOptions(**options)
    return fit_multi_stage(rows, options, np.random.default_rng(seed), report)


def recipe(rows, sizes=(5, 6), seed=0, **options):
    options = {"max_iter": 60} | options
    network = Network(rows.n_features, sizes)
    options = MultiStageOptions(network, solver="adam_lbfgs", **options)
    return RecipeTraining(rows, options, np.random.default_rng(seed))


def rms(rows, values):
    return float((rows.weight @ values.square()).mean() / rows.weight.sum()) ** 0.5


# The recipe's stages


def test_columns_that_are_orthogonal_to_a_target_do_not_see_it():
    """Odd units and an even target; units elsewhere than in the middle see it."""
    X = tensor(np.linspace(0, 1, 31)[:, None])
    network, rng = Network(1, (6,)), np.random.default_rng(0)
    theta = scaled_start(network, 1.0, rng, X)
    odd, even = torch.sin(6 * (X - 0.5)), torch.cos(6 * (X - 0.5))
    even = even - even.mean()
    columns = NetworkBasis(network, theta).matrix(X)
    assert sees(columns, odd)
    assert not sees(columns, even)
    assert sees(columns, torch.cat([odd, even], 1))
    assert sees(columns, 0 * even)  # Nothing to be seen, and nothing to be mended.
    moved = scattered(network, theta, rng)
    assert sees(NetworkBasis(network, moved).matrix(X), even)
    weight, bias = network.unflatten(moved)[0]
    zeros = -bias / weight[:, 0]
    assert 0 < float(zeros.min()) < float(zeros.max()) < 1


def test_most_stages():
    assert MultiStageOptions().most == MOST_STAGES
    assert MultiStageOptions(n_stages=7).most == 7


@pytest.mark.parametrize("factor", [1.0, 9.0])
def test_start_is_that_of_points_from_minus_one_to_one(factor):
    rows = make_rows(d=2, m=3)
    network = Network(2, (5, 6), first_activation="sin")
    theta = scaled_start(network, factor, np.random.default_rng(0), rows.X)
    rng = np.random.default_rng(0)
    a = 2 * rows.X.numpy() - 1
    for index, (n_out, n_in) in enumerate(network.shapes):
        bound = math.sqrt(6 / (n_in + n_out))
        z = a @ rng.uniform(-bound, bound, (n_out, n_in)).T
        a = np.tanh(z) if index else np.sin(factor * z)
    np.testing.assert_allclose(network.forward(theta, rows.X)[:, 1:], a, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2])
def test_scale_factor_is_the_angular_frequency_of_the_residue(d):
    frequency = np.array([3.0, -1.5])[:d]
    X = np.random.default_rng(0).random((600, d))
    training = recipe(rows_of(X, np.sin(2 * np.pi * (2 * X - 1) @ frequency)))
    assert training._network(0)[1] == 1
    assert training._network(0)[0].first_activation is None
    network, factor = training._network(1)
    assert network.first_activation == "sin"
    assert factor == pytest.approx(2 * np.pi * np.linalg.norm(frequency))
    assert recipe(training.rows, scale_factor=0.3)._network(1)[1] == 0.3
    slow = recipe(rows_of(X, 0 * X[:, 0]))
    assert slow._network(1)[1] == 1


@pytest.mark.parametrize("m", [1, 2])
def test_stages_add_up_and_their_curve_is_in_units_of_y(m):
    weight = np.random.default_rng(1).integers(1, 4, 60)
    rows = make_rows(m=m, weight=weight)
    training = recipe(rows, n_stages=2)
    result = training.run()
    assert len(result.state.stages) == len(result.chosen["scale_factors"]) == 2
    residue = rows.y - result.state.mean(rows.X)
    torch.testing.assert_close(training.residue, residue, rtol=0, atol=1e-12)
    assert result.score == pytest.approx(rms(rows, residue), rel=1e-9)
    first = rows.y - result.state.stages[0].mean(rows.X)
    assert result.score < 0.5 * rms(rows, first)
    curve = np.array(result.curve)
    assert curve[0] == pytest.approx(rms(rows, rows.y) ** 2)
    assert curve.min() == pytest.approx(result.score**2, rel=1e-6)
    # The second stage begins with what the first has left over.
    assert np.isclose(curve, rms(rows, first) ** 2, rtol=1e-9).sum() >= 2
    assert result.n_iter == len(curve)


def test_noise_takes_off_all_parameters():
    rows = make_rows(400, m=2, noise=0.3, weight=np.random.default_rng(1).integers(1, 3, 400))
    result = recipe(rows, (3,), n_stages=1).run()
    square = rows.weight @ (rows.y - result.state.mean(rows.X)).square() + rows.within.sum(0)
    dof = 4 + 3 * 2
    expected = square / (float(rows.weight.sum()) - dof)
    torch.testing.assert_close(result.state.noise, expected, rtol=1e-9, atol=0)
    few = make_rows(12, noise=0.3)
    result = recipe(few, (3,), n_stages=1).run()
    square = few.weight @ (few.y - result.state.mean(few.X)).square()
    torch.testing.assert_close(result.state.noise, square / 2, rtol=1e-9, atol=1e-30)


def test_posterior_is_that_of_the_last_layers():
    rows = make_rows(m=1, noise=0.1, weight=np.random.default_rng(1).integers(1, 4, 60))
    result = recipe(rows, (3,), n_stages=2, tol=1e-3).run()
    X = tensor(np.random.default_rng(2).random((20, 1)))
    expected = 0
    for stage in result.state.stages:
        A = NetworkBasis(stage.basis.network, stage.basis.theta).matrix(rows.X).numpy()
        phi = stage.basis.matrix(X).numpy()
        root = np.sqrt(rows.weight.numpy())[:, None]
        expected += np.square(np.linalg.lstsq((root * A).T, phi.T, rcond=None)[0]).sum(0)
        assert torch.equal(stage.factor, stage.factor.triu())
    found = result.state.epistemic(X)[:, 0] / result.state.noise
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_copies_of_a_target_are_alike():
    rows = make_rows(40, noise=0.02)
    rows = rows_of(rows.X, rows.y.expand(-1, 2))
    result = recipe(rows, (4,), n_stages=2, max_iter=30).run()
    mean = result.state.mean(rows.X)
    torch.testing.assert_close(mean[:, 0], mean[:, 1], rtol=0, atol=1e-9)
    torch.testing.assert_close(result.state.noise[0], result.state.noise[1], rtol=1e-9, atol=0)


def test_stage_that_gains_too_little_is_left_out(monkeypatch):
    training = recipe(make_rows(noise=0.0), n_stages=3, max_iter=20)
    assert training._add_stage(0)
    residue = training.residue
    monkeypatch.setattr(module, "HALF", 0.0)
    assert not training._add_stage(1)
    assert len(training.stages) == 1
    assert training.residue is residue


@pytest.mark.parametrize("tol", [0.5, 1e-3])
def test_tolerance_is_relative_to_the_targets(tol):
    rows = make_rows()
    training = recipe(rows, tol=tol, max_iter=300)
    result = training.run()
    assert result.code == "converged"
    assert 0.1 * tol < result.score / rms(rows, rows.y) <= tol


def test_white_noise_ends_the_stages():
    rng = np.random.default_rng(0)
    noise = recipe(rows_of(rng.random((200, 1)), rng.standard_normal(200)))
    assert noise._is_white()
    assert not recipe(make_rows(200))._is_white()
    result = noise.run()
    assert (result.code, len(result.state.stages)) == ("converged", 1)


# Limits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "constant"), [(1, False), (2, False), (5, False), (9, True)])
def test_few_rows_and_constant_targets(kind, n, constant):
    rows = make_rows(n)
    if constant or n == 1:
        rows.y.zero_()
    result = fit(rows, **KINDS[kind])
    X = tensor(np.linspace(-0.5, 1.5, 9)[:, None])
    found = result.state.components(X)
    for name in ("mean", "noise", "epistemic"):
        assert torch.isfinite(getattr(found, name)).all(), name
    if constant or n == 1:
        assert float(result.state.mean(X).abs().max()) < 1e-9
    assert np.isfinite(result.score)
    assert len(result.chosen["scale_factors"]) == len(result.state.stages)


@pytest.mark.parametrize("solver", ["varpro", "adam_lbfgs"])
def test_no_column_that_varies(solver):
    rows = rows_of(np.zeros((8, 0)), np.random.default_rng(0).standard_normal((8, 1)))
    assert rows.n_rows == 1
    result = fit(rows, network=Network(0, (3,)), solver=solver, max_iter=300)
    torch.testing.assert_close(result.state.mean(rows.X), rows.y, rtol=0, atol=1e-4)
    deviation = (float(rows.within) / 8) ** 0.5
    assert float(result.state.noise) ** 0.5 == pytest.approx(deviation, rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_bits(kind):
    rows = make_rows()
    one, two = (fit(rows, **KINDS[kind]) for _ in range(2))
    assert same_bits(one.state.mean(rows.X), two.state.mean(rows.X))
    assert one.curve == two.curve
    assert one.chosen == two.chosen


def test_first_stage_alone_is_the_network():
    rows = make_rows()
    whole = fit(rows, **KINDS["varpro"])
    assert len(whole.state.stages) > 1
    assert whole.chosen["hidden_layer_sizes"] == (5, 6)
    assert whole.n_iter == len(whole.curve)
    single = fit(rows, **KINDS["varpro"], n_stages=1)
    assert len(single.state.stages) == 1
    assert single.chosen["scale_factors"] == (1.0,)
    low = fit(make_rows(dtype=torch.float32), **KINDS["varpro"])
    assert len(low.state.stages) == 1


# Interruption


@pytest.mark.parametrize("kind", KINDS)
def test_interrupt_leaves_a_usable_result(kind):
    """Whenever it comes: in the first line, in the last one, between two parts of training."""
    lines, rows = [], make_rows()
    whole = fit(rows, lines.append, **KINDS[kind])
    between = next((k for k, line in enumerate(lines, 1) if "left out" in line), 1)
    for n_calls in sorted({1, 2, between, between + 1, len(lines)}):
        count = 0

        def press(_, n_calls=n_calls):
            nonlocal count
            count += 1
            if count == n_calls:
                raise KeyboardInterrupt

        with pytest.raises(TrainingInterrupted) as caught:
            fit(rows, press, **KINDS[kind])
        result = caught.value.result
        if n_calls == 1 and result is None:
            continue  # There was nothing yet.
        assert result.code == "interrupted"
        assert result.message
        assert torch.isfinite(result.state.mean(rows.X)).all()
        assert len(result.chosen["scale_factors"]) == len(result.state.stages)
        assert result.n_iter == len(result.curve) <= whole.n_iter
        if kind != "auto":
            assert result.chosen["hidden_layer_sizes"] == (5, 6)
