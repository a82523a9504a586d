"""The additive family: its errors and its posterior against dense matrices and refits."""

import numpy as np
import pytest
import torch

from skpou.additive.fit import AdditiveOptions, fit_terms
from skpou.core.models.linear_model import LinearModel
from skpou.multi_stage.families import additive as additive_family
from skpou.multi_stage.families.additive import FEWEST_ROWS, fit_additive_family
from tests.examples import rows_of, tensor


def table(n=100, noise=0.3, seed=0):
    """A sum of functions of few columns; some points have several targets."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    X[: n // 4] = X[-(n // 4) :]
    y = np.sin(5 * X[:, 0]) + X[:, 1] * X[:, 2] + noise * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std(), rng.integers(1, 4, n)


@pytest.fixture(scope="module")
def fitted():
    """Candidate, and the terms that it is made of."""
    rows = rows_of(*table())
    probes = tensor(np.random.default_rng(1).random((50, 4)))
    candidate = fit_additive_family(rows, probes, np.random.default_rng(0))
    basis, fit = fit_terms(rows, AdditiveOptions(remainder=False), np.random.default_rng(0))
    return rows, probes, candidate, basis, fit


def test_left_out_error_is_that_of_refits_without_a_point(fitted):
    rows, _, candidate, basis, fit = fitted
    F, weight = basis.matrix(rows.X).numpy(), rows.weight.numpy()
    prior = np.linalg.inv((fit.root @ fit.root.T).numpy()) - F.T @ (weight[:, None] * F) / fit.noise
    y, within, square = rows.y[:, 0].numpy(), rows.within.numpy(), 0.0
    for i in range(rows.n_rows):
        kept = np.arange(rows.n_rows) != i
        A = F[kept].T * weight[kept]
        coef = np.linalg.solve(A @ F[kept] / fit.noise + prior, A @ y[kept] / fit.noise)
        square += weight[i] * (y[i] - F[i] @ coef) ** 2
    expected = np.sqrt((square + within.sum()) / weight.sum())
    assert candidate.leave_one_out == pytest.approx(expected, rel=1e-6)
    assert 0.3 < candidate.leave_one_out < 0.6


def test_calibrated_error_adds_the_variance_at_the_probes(fitted):
    rows, probes, candidate, basis, fit = fitted
    covariance = (fit.root @ fit.root.T).numpy()
    F, weight = basis.matrix(rows.X).numpy(), rows.weight.numpy()
    hat = weight * np.einsum("np,pq,nq->n", F, covariance, F) / fit.noise
    square = weight * np.square(rows.y[:, 0].numpy() - F @ fit.coef.numpy())
    spread = ((square / (1 - hat)).sum() + float(rows.within.sum())) / weight.sum()
    P = basis.matrix(probes).numpy()
    gap = spread * np.mean(np.einsum("np,pq,nq->n", P, covariance, P)) / fit.noise
    assert candidate.gap_variance == pytest.approx(gap, rel=1e-9)
    assert candidate.calibrated == pytest.approx(np.sqrt(spread + gap), rel=1e-9)
    assert candidate.dof == pytest.approx(hat.sum(), rel=1e-6)


def test_stage_has_the_mean_and_the_posterior_of_the_terms(fitted):
    rows, probes, candidate, basis, fit = fitted
    (stage,) = candidate.stages
    assert torch.equal(stage.factor, stage.factor.triu())
    X = torch.cat([rows.X, probes])
    torch.testing.assert_close(candidate.mean(X)[:, 0], basis.matrix(X) @ fit.coef)
    zero = torch.zeros(1).double()
    model = LinearModel(candidate.stages, zero + fit.noise, zero)
    expected = (basis.matrix(X) @ fit.root).square().sum(1, keepdim=True)
    torch.testing.assert_close(model.epistemic(X), expected, rtol=1e-7, atol=0)


def test_order_and_repetition_of_rows_do_not_matter(fitted):
    _, probes, expected, *_ = fitted
    X, y, weight = table()
    order = np.random.default_rng(2).permutation(weight.sum())
    rows = rows_of(*(np.repeat(part, weight, 0)[order] for part in (X, y)))
    found = fit_additive_family(rows, probes, np.random.default_rng(0))
    assert found.leave_one_out == expected.leave_one_out
    assert found.calibrated == expected.calibrated
    assert torch.equal(found.mean(probes), expected.mean(probes))


def test_errors_of_exact_targets_are_round_off():
    X = table(60)[0]
    y = X @ [1.0, -2.0, 0.0, 0.5]
    rows = rows_of(X, (y - y.mean()) / y.std())
    found = fit_additive_family(rows, rows.X[:10], np.random.default_rng(0))
    assert 0 <= found.leave_one_out < 1e-13
    assert 0 < found.calibrated < 1e-12
    assert torch.isfinite(found.stages[0].factor).all()


@pytest.mark.parametrize(
    ("n", "d", "m"), [(200, 3, 1), (4 * FEWEST_ROWS - 1, 4, 1), (200, 4, 2), (81, 4, 1)]
)
def test_other_rows_have_no_candidate(n, d, m, monkeypatch):
    monkeypatch.setattr(additive_family, "MOST_ROWS", 80)
    rng = np.random.default_rng(0)
    rows = rows_of(rng.random((n, d)), rng.standard_normal((n, m)))
    assert fit_additive_family(rows, rows.X, rng) is None


def test_columns_without_effect_or_without_values_of_their_own():
    X, y, _ = table(80)
    X = np.column_stack([X, X[:, 0], np.zeros(80)])
    rows = rows_of(X, y)
    found = fit_additive_family(rows, rows.X[:10], np.random.default_rng(0))
    basis = found.stages[0].basis
    assert basis.kept == (0, 1, 2, 3)
    assert np.isfinite(found.leave_one_out)
