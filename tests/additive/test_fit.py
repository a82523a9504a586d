"""Which terms are found, and the block over all columns."""

import numpy as np
import pytest
import torch

from skpou.additive.basis import spline_basis
from skpou.additive.fit import (
    MOST_FOUND,
    AdditiveOptions,
    fit_additive,
    merge_pairs,
    searched_factor,
    stacked_shares,
)
from skpou.additive.remainder import Pilot, with_remainder
from skpou.additive.terms import TargetRows, TermSearch
from skpou.core.rows import Pairs
from tests.examples import rows_of, tensor


def sample(function, n, d, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = function(2 * X - 1)
    y = (y - y.mean()) / y.std() + noise * rng.standard_normal(n)
    return tensor(X), tensor((y - y.mean()) / y.std())


def search(function, n, d, max_order=3, max_columns=800, **options):
    X, y = sample(function, n, d, **options)
    weight = torch.ones(n, dtype=torch.float64)
    basis = spline_basis(X, weight, 16, False)
    return TermSearch(TargetRows(X, y, weight, 0.0), basis, 8, max_order, max_columns, 100)


def dof_of(candidate):
    result = {}
    for block, dof in zip(candidate.blocks, candidate.dof_of_blocks(), strict=True):
        result[block.columns] = result.get(block.columns, 0) + dof
    return result


def test_pairs_and_triples_are_found():
    task = search(lambda X: np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2] * (1 + X[:, 3]), 800, 5)
    found = dof_of(task.grow(task.first()))
    pairs = {columns for columns, dof in found.items() if len(columns) == 2 and dof > 1}
    assert {(1, 2)} <= pairs
    assert found[(1, 2, 3)] > 1
    assert found[(0,)] > 3
    assert found[(1, 2, 3)] > max(d for columns, d in found.items() if 4 in columns and columns[1:])


def test_few_rows_and_many_columns_keep_the_pair_that_matters():
    task = search(lambda X: X[:, 0] + 2 * X[:, 1] * X[:, 2], 150, 30)
    best = task.grow(task.first())
    found = dof_of(best)
    assert found[(1, 2)] == max(dof for columns, dof in found.items() if len(columns) == 2)
    assert best.fit.total_dof < 0.7 * 150
    error = best.fit.left_out(task.rows.y)[0]
    assert float(error.square().mean()) < 0.5


@pytest.mark.parametrize("max_columns", [30, 120])
def test_most_columns_of_the_basis(max_columns):
    task = search(lambda X: np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2], 300, 3, 3, max_columns)
    best = task.grow(task.first())
    assert best.basis.n_columns <= max_columns


def test_exact_gradient_of_the_pilot():
    rng = np.random.default_rng(0)
    T = tensor(rng.standard_normal((80, 3)))
    pilot = Pilot(T, T, torch.sin(T.sum(1)), tensor(rng.uniform(0.5, 2, 80)), seed=1)
    theta = np.array([-0.3, -1.0, 0.2, -1.2, -0.7, -2.3])
    _, gradient = pilot.evidence(theta, T)
    for k, step in enumerate(1e-6 * np.eye(6)):
        ahead, behind = (pilot.evidence(theta + s * step, T)[0] for s in (1, -1))
        assert gradient[k] == pytest.approx((ahead - behind) / 2e-6, rel=1e-6, abs=1e-6)


def test_pilot_turns_to_the_direction_that_matters():
    rng = np.random.default_rng(0)
    T = tensor(rng.standard_normal((300, 4)))
    direction = np.array([0.5, 0.5, -0.5, 0.5])
    y = torch.sin(T @ tensor(2 * direction))
    fit = Pilot(T, T, y, torch.ones(300, dtype=torch.float64), seed=1).best()
    assert fit.is_rotated
    assert abs(float(fit.rotation[:, 0] @ tensor(direction))) > 0.99
    scales = np.exp(fit.theta[:4])
    assert scales[0] > 5 * scales[1:].max()


@pytest.mark.slow
def test_block_over_all_columns_is_taken_where_it_helps():
    task = search(lambda X: np.sin(0.9 * X.sum(1)), 500, 6)
    best = task.grow(task.first())
    rng = np.random.default_rng(0)
    whole = with_remainder(task, best, rng)
    assert whole.blocks[-1].order == 0
    before, after = (float(c.fit.left_out(task.rows.y)[0].square().mean()) for c in (best, whole))
    assert after < 0.5 * before
    task = search(lambda X: X[:, 0], 200, 6, noise=30.0)
    best = task.grow(task.first())
    assert with_remainder(task, best, rng) is best


def test_new_weights_merge_repeated_targets():
    pairs = Pairs(torch.tensor([0, 0, 1]), tensor([[1.0], [4.0], [2.0]]), tensor([1.0, 2, 1]))
    mean, weight, within = merge_pairs(pairs, tensor([1.0, 3.0, 0.5]), 2)
    np.testing.assert_allclose(mean, [13 / 4, 2])
    np.testing.assert_allclose(weight, [4, 0.5])
    np.testing.assert_allclose(within, [(9 / 4) ** 2 + 3 * (3 / 4) ** 2, 0])


def test_shares_go_to_the_better_density():
    log_density = torch.tensor([[0.0, -2.0]] * 50, dtype=torch.float64)
    shares = stacked_shares(log_density, torch.ones(50, dtype=torch.float64))
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > 0.95


def test_pure_noise_and_exact_targets():
    rng = np.random.default_rng(0)
    X = rng.random((200, 4))
    options = AdditiveOptions()
    noise = rng.standard_normal(200)
    noise = (noise - noise.mean()) / noise.std()
    result = fit_additive(rows_of(X, noise), options, np.random.default_rng(0))
    parts = result.state.components(tensor(rng.random((500, 4))))
    assert float(parts.expectation().square().mean()) < 0.1
    std = sum(parts.variances()).sqrt()
    np.testing.assert_allclose(std, 1, atol=0.15)
    line = X @ [1.0, -2.0, 0.0, 0.5]
    line = (line - line.mean()) / line.std()
    result = fit_additive(rows_of(X, line), options, np.random.default_rng(0))
    assert result.code == "converged"
    parts = result.state.components(tensor(X))
    np.testing.assert_allclose(parts.expectation()[:, 0], line, atol=1e-12)
    assert float(sum(parts.variances()).sqrt().max()) < 1e-11


def test_bars_know_how_many_strengths_were_found():
    class Fit:
        dof = torch.tensor([1.0, 1.0, 0.01, 2.5, 0.3])

    assert searched_factor(Fit, 100.0) == pytest.approx(100 / 97)
    assert searched_factor(Fit, 1e6) == pytest.approx(1, abs=1e-5)
    assert searched_factor(Fit, 4.0) == MOST_FOUND


def test_intervals_of_few_rows_hold_what_they_say():
    inside = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.random((400, 6))
        y = np.sin(4 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.standard_normal(400)
        rows = rows_of(X[:100], y[:100])
        options = AdditiveOptions(mixture=False, remainder=False, transforms=(False,))
        model = fit_additive(rows, options, np.random.default_rng(0)).state
        parts = model.components(tensor(X[100:]))
        variance = (parts.noise + parts.epistemic).numpy().ravel()
        error = y[100:] - model.mean(tensor(X[100:])).numpy()[:, 0]
        inside.append(np.mean(np.abs(error) < 0.6745 * np.sqrt(variance)))
    assert np.mean(inside) == pytest.approx(0.5, abs=0.05)
