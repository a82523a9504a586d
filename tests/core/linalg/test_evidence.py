"""Grouped shrinkage: posterior, leave-one-out errors and evidence against direct formulas."""

import itertools
import math

import numpy as np
import pytest
import torch

from skpou.core.linalg.evidence import (
    MANY_ROWS,
    EvidenceProblem,
    Groups,
    lower_inverse,
    times_upper,
)
from tests.examples import tensor


def problem(n=60, sizes=(1, 3, 4), noise=0.3, seed=0, within=0.0, weights=None):
    rng = np.random.default_rng(seed)
    p = sum(sizes)
    F = rng.standard_normal((n, p))
    F[:, 0] = 1
    coef = np.zeros(p)
    coef[: 1 + sizes[1]] = 1.0
    y = F @ coef + noise * rng.standard_normal(n)
    weight = np.ones(n) if weights is None else weights(rng, n)
    groups = Groups(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        torch.linspace(1, 0.5, p, dtype=torch.float64),
        torch.tensor([0, *[1] * (len(sizes) - 1)]),
    )
    parts = (torch.as_tensor(part) for part in (F, y, weight))
    return EvidenceProblem(*parts, within, groups)


def start(task):
    return torch.full((task.n_groups,), 0.5, dtype=torch.float64)


def dense(task, alpha, noise):
    """Posterior covariance and mean by an explicit inverse."""
    prior = (alpha[task.groups.index] * task.groups.shape).numpy()
    F, y, w = task.F.numpy(), task.y.numpy(), task.weight.numpy()
    covariance = np.linalg.inv(F.T @ (w[:, None] * F) / noise + np.diag(1 / prior))
    return covariance, covariance @ (F.T @ (w * y)) / noise


def integers(rng, n):
    return rng.integers(1, 4, n).astype(float)


@pytest.mark.parametrize("n", [60, 4])
@pytest.mark.parametrize("weights", [None, integers])
def test_posterior_against_the_inverse(weights, n):
    task = problem(n, weights=weights)
    fit = task.fit(start(task), 0.2, 1, 0.0)
    covariance, mean = dense(task, start(task), 0.2)
    np.testing.assert_allclose(fit.root @ fit.root.T, covariance, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(fit.coef, mean, rtol=1e-9)
    F = task.F.numpy()
    spread = np.einsum("ij,jk,ik->i", F, covariance, F) / 0.2
    np.testing.assert_allclose(fit.spread, spread, rtol=1e-9)
    np.testing.assert_allclose(fit.leverage, task.weight.numpy() * spread, rtol=1e-9)
    np.testing.assert_allclose(fit.total_dof, fit.leverage.sum(), rtol=1e-9)


def test_left_out_errors_against_refits():
    task = problem(n=25)
    fit = task.fit(start(task), 0.2, 1, 0.0)
    error, spread = fit.left_out(task.y)
    for i in (0, 7, 24):
        kept = torch.arange(25) != i
        less = EvidenceProblem(task.F[kept], task.y[kept], task.weight[kept], 0.0, task.groups)
        covariance, mean = dense(less, start(task), 0.2)
        row = task.F[i].numpy()
        np.testing.assert_allclose(error[i], task.y[i] - row @ mean, rtol=1e-9)
        np.testing.assert_allclose(spread[i], row @ covariance @ row / 0.2, rtol=1e-9)


def test_evidence_is_the_density_of_the_targets():
    task = problem(n=20)
    fit = task.fit(start(task), 0.2, 1, 0.0)
    prior = (start(task)[task.groups.index] * task.groups.shape).numpy()
    F, y = task.F.numpy(), task.y.numpy()
    covariance = 0.2 * np.eye(20) + F @ np.diag(prior) @ F.T
    expected = -0.5 * (np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y))
    assert fit.log_evidence == pytest.approx(expected, rel=1e-10)


def test_iterations_raise_the_evidence_to_a_maximum():
    task = problem(n=200)
    values = [task.fit(start(task), 0.5, k, 0.0, pseudo=0.0).log_evidence for k in range(1, 30)]
    assert values[-1] > values[0]
    best = task.fit(start(task), 0.5, 500, 1e-10, pseudo=0.0)
    assert best.converged
    for group in (1, 2):
        for factor in (0.7, 1.4):
            other = best.alpha.clone()
            other[group] *= factor
            assert task.fit(other, best.noise, 1, 0.0).log_evidence <= best.log_evidence + 1e-6
    assert best.noise**0.5 == pytest.approx(0.3, rel=0.15)
    assert best.dof[2] < 0.8 < 2.5 < best.dof[1]


def test_weights_are_repetitions():
    task = problem(weights=integers)
    repeated = task.weight.long()
    F, y = (part.repeat_interleave(repeated, 0) for part in (task.F, task.y))
    other = EvidenceProblem(F, y, torch.ones(len(y), dtype=torch.float64), 0.0, task.groups)
    one, two = (part.fit(start(task), 0.2, 30, 1e-9) for part in (task, other))
    np.testing.assert_allclose(one.coef, two.coef, rtol=1e-8)
    assert one.log_evidence == pytest.approx(two.log_evidence, rel=1e-9)


def test_means_with_the_spread_within_are_all_targets():
    task = problem(n=30)
    gap = 0.4
    F = task.F.repeat_interleave(2, 0)
    y = torch.stack([task.y - gap, task.y + gap], 1).reshape(-1)
    whole = EvidenceProblem(F, y, torch.ones(60, dtype=torch.float64), 0.0, task.groups)
    merged = EvidenceProblem(task.F, task.y, 2 * task.weight, 60 * gap**2, task.groups)
    one, two = (part.fit(start(task), 0.2, 20, 1e-9) for part in (whole, merged))
    assert one.log_evidence == pytest.approx(two.log_evidence, rel=1e-9)
    assert one.noise == pytest.approx(two.noise, rel=1e-8)


def test_collinear_columns_and_exact_targets():
    task = problem(n=80, sizes=(1, 3, 3), noise=0.0)
    F = torch.cat([task.F, task.F[:, 1:4] + 1e-9 * task.F[:, 4:7]], 1)
    groups = Groups(
        torch.cat([task.groups.index, torch.tensor([1, 1, 1])]),
        torch.cat([task.groups.shape, torch.ones(3, dtype=torch.float64)]),
        task.groups.kind,
    )
    twin = EvidenceProblem(F, task.y / task.y.std(), task.weight, 0.0, groups)
    fit = twin.fit(start(task), 0.1, 100, 1e-6)
    assert fit.converged
    assert math.isfinite(fit.log_evidence)
    assert (twin.y - fit.fitted).abs().max() < 1e-12
    assert fit.noise**0.5 < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_more_columns_than_rows_do_not_determine_that_there_is_no_noise(seed):
    rng = np.random.default_rng(seed)
    levels = np.array(list(itertools.product(range(2), range(3), range(3))))[rng.permutation(18)]
    columns = ((0, 1), (1, 1), (1, 2), (2, 1), (2, 2))
    mains = np.array([levels[:, j] == k for j, k in columns], float)
    Z = (mains[:, :12] - 0.5) * 2
    pairs = [Z[i] * Z[j] for i, j in itertools.combinations(range(5), 2)]
    F = tensor(np.array([np.ones(12), *Z, *pairs]).T)
    kind = torch.tensor([0, *[1] * 5, *[2] * 10])
    groups = Groups(torch.arange(16), torch.ones(16, dtype=torch.float64), kind)
    y = tensor(rng.standard_normal(12))
    task = EvidenceProblem(F, y, torch.ones(12, dtype=torch.float64), 0.0, groups)
    fit = task.fit(start(task), 0.1, 100, 1e-5)
    assert fit.coef.abs().max() < 100
    F = F.numpy()
    inverse = np.linalg.inv((F * fit.alpha.numpy()) @ F.T + fit.noise * np.eye(12))
    error = (y - fit.fitted) / (1 - fit.spread)
    np.testing.assert_allclose(error, (inverse @ y.numpy()) / inverse.diagonal(), rtol=1e-2)


def test_orthogonal_factor_gives_what_cholesky_gives():
    task = problem()
    width = (start(task)[task.groups.index] * task.groups.shape).sqrt()
    gram, orthogonal = task._posterior(width, 0.2), task._orthogonal(width, 0.2)
    for one, two in zip(gram[:4], orthogonal[:4], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("noise", [0.2, 1e-4, 1e-7])
def test_few_rows_give_what_columns_give(noise):
    task = problem(n=12, sizes=(1, 9, 20))
    width = (start(task)[task.groups.index] * task.groups.shape).sqrt()
    rows, orthogonal = task._of_rows(width, noise), task._orthogonal(width, noise)
    for one, two in zip(rows[:3], orthogonal[:3], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7)
    # Values at the rows: at little noise all that is left over is of its size.
    fitted, expected = (task.F @ (width * found.mean) for found in (rows, orthogonal))
    np.testing.assert_allclose(fitted, expected, rtol=1e-12, atol=1e-6 * noise)
    assert not rows.inverse.numel()
    one, two = task.fit(start(task), noise, 1, 0.0), orthogonal.inverse * width
    np.testing.assert_allclose(one.root @ one.root.T, two.T @ two, rtol=1e-5, atol=1e-8)
    spread = (task.F @ two.T).square().sum(1) / noise
    np.testing.assert_allclose(one.spread, spread, rtol=1e-6)


@pytest.mark.parametrize("p", [1, 64, 200])
def test_inverse_of_a_triangle(p):
    L = torch.tril(torch.as_tensor(np.random.default_rng(0).standard_normal((p, p)))) * 0.1
    L.diagonal().add_(3.0)
    np.testing.assert_allclose(lower_inverse(L) @ L, np.eye(p), atol=1e-10)


def test_other_groups_of_the_same_columns_share_the_sums():
    task = problem()
    task.fit(start(task), 0.1, 3, 0.0)
    index = torch.where(task.groups.index == 2, 1, task.groups.index)
    groups = Groups(index, task.groups.shape, task.groups.kind[:2])
    other = task.with_groups(groups)
    assert other.gram is task.gram
    anew = EvidenceProblem(task.F, task.y, task.weight, task.within, groups)
    found, expected = (one.fit(start(one), 0.1, 5, 0.0) for one in (other, anew))
    assert found.log_evidence == pytest.approx(expected.log_evidence, rel=1e-12)
    torch.testing.assert_close(found.coef, expected.coef)


def test_what_is_left_over_is_the_same_by_sums():
    task = problem(noise=0.3)
    coef = torch.linspace(-1, 1, task.F.shape[1]).double()
    by_rows = task._square_of_rest(coef, 0.1)
    assert "gram" not in task.__dict__
    _ = task.gram
    assert task._square_of_rest(coef, 0.1) == pytest.approx(by_rows, rel=1e-12)


def test_products_with_an_upper_triangular_matrix():
    generator = torch.Generator().manual_seed(0)
    F = torch.randn(MANY_ROWS, 4, dtype=torch.float64, generator=generator)
    R = torch.randn(4, 4, dtype=torch.float64, generator=generator).triu()
    for rows in (F, F[:7], F.float(), F[::2][:7]):
        product = times_upper(rows, R.to(rows.dtype))
        torch.testing.assert_close(product, rows @ R.to(rows.dtype))
    # Zeros are left out, whatever is in their place.
    torch.testing.assert_close(times_upper(F, R + torch.ones(4, 4).double().tril(-1)), F @ R)
