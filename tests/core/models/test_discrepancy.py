"""What noise hides of a form's error, against dense algebra and on forms that are too stiff."""

import numpy as np
import pytest
import torch

from skpou import LSGDRegressor
from skpou.core.models import discrepancy
from skpou.core.models.discrepancy import Discrepancy, fit_discrepancy


def ridge_fit(A, y, ridge=1e-3):
    """Influence ``G`` and residual of a ridge regression."""
    U, S, _ = torch.linalg.svd(A, full_matrices=False)
    G = U * (S.square() / (S.square() + ridge)).sqrt()
    return G, y - G @ (G.T @ y)


def matern(left, right, length):
    s = np.sqrt(5) * np.abs(left - right.T) / length
    return (1 + s + s**2 / 3) * np.exp(-s)


def found(X, A, y):
    G, residual = ridge_fit(A, y)
    return fit_discrepancy(X, np.ones(1), residual, G, y, torch.ones(len(y), dtype=y.dtype))


def test_a_known_size_gives_the_joint_posterior(monkeypatch):
    ratio, length, ridge = 0.5, 0.2, 1e-3
    monkeypatch.setattr(discrepancy, "CHOICES", (("matern52", length),))
    monkeypatch.setattr(discrepancy, "RATIOS", np.array([ratio]))
    rng = np.random.default_rng(0)
    X = np.linspace(0, 1, 14)[:, None]
    A = np.hstack([np.ones_like(X), X])
    y = A @ [0.3, -1.0] + 0.2 * np.sin(9 * X[:, 0]) + 0.1 * rng.standard_normal(14)
    variance = found(X, torch.as_tensor(A), torch.as_tensor(y)).variance(X)

    among = A @ A.T / ridge + ratio * matern(X, X, length)
    gain = among @ np.linalg.inv(among + np.eye(14))
    H = A @ np.linalg.solve(A.T @ A + ridge * np.eye(2), A.T)
    noise = y @ np.linalg.solve(among + np.eye(14), y) / (14 - np.trace(H))
    moved = gain @ y - H @ y
    expected = noise * np.diag(among - gain @ among - H) + moved**2
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


def test_all_standard_deviations_are_as_likely_beforehand(monkeypatch):
    length = 0.2
    monkeypatch.setattr(discrepancy, "CHOICES", (("matern52", length),))
    monkeypatch.setattr(discrepancy, "RATIOS", np.geomspace(1e-4, 1e4, 400))
    rng = np.random.default_rng(1)
    X = np.linspace(0, 1, 14)[:, None]
    y = torch.as_tensor(0.3 * rng.standard_normal(14))
    A = torch.as_tensor(np.hstack([np.ones_like(X), X]))
    (part,) = found(X, A, y).parts

    G, residual = ridge_fit(A, y)
    total, degrees = float(residual @ y), 14 - float(G.square().sum())
    deviations = np.linspace(0.0, np.sqrt(discrepancy.LARGEST * degrees / total), 400)
    K, R, left = matern(X, X, length), np.eye(14) - (G @ G.T).numpy(), residual.numpy()
    logs, sizes = [], []
    for ratio in deviations**2:
        solved = np.linalg.solve(np.eye(14) + ratio * K @ R, K @ left)
        square = total - ratio * left @ solved
        log_det = np.linalg.slogdet(np.eye(14) + ratio * K @ R)[1]
        logs.append(-0.5 * log_det - 0.5 * degrees * np.log(square))
        sizes.append(ratio * square / degrees)
    share = np.exp(np.array(logs) - max(logs))
    np.testing.assert_allclose(part["size"], share @ sizes / share.sum(), rtol=0.02)


def test_a_stiff_form_is_not_trusted_and_the_right_one_is():
    covered, own_covered, sizes = [], [], []
    query = np.linspace(0, 1, 101)[:, None]
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = rng.random((30, 1))
        for bend in (0.0, 0.4):
            y = X[:, 0] - 0.5 + bend * np.sin(np.pi * X[:, 0] + seed)
            y = torch.as_tensor(y + 0.1 * rng.standard_normal(30))
            A = torch.as_tensor(np.hstack([np.ones_like(X), X]))
            hidden = found(X, A, y).variance(query)
            residual = ridge_fit(A, y)[1]
            noise = float(residual.square().sum()) / 28
            B = np.hstack([np.ones_like(query), query])
            coef = np.linalg.lstsq(A.numpy(), y.numpy(), rcond=None)[0]
            own = noise * np.einsum("ij,jk,ik->i", B, np.linalg.inv((A.T @ A).numpy()), B)
            true = query[:, 0] - 0.5 + bend * np.sin(np.pi * query[:, 0] + seed)
            error = np.abs(B @ coef - true)
            if bend:
                covered.append(np.mean(error <= 1.96 * np.sqrt(own + hidden)))
                own_covered.append(np.mean(error <= 1.96 * np.sqrt(own)))
            else:
                sizes.append(np.sqrt(hidden.mean() / noise))
    assert np.mean(covered) > 0.88 > np.mean(own_covered)
    assert np.median(sizes) < 0.5


def test_an_influence_of_other_weights_still_leaves_what_it_says():
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 1)), torch.as_tensor(rng.standard_normal(30))
    G, residual = ridge_fit(torch.as_tensor(np.hstack([np.ones_like(X), X])), y, 1e-12)
    for factor in (0.9, 1.3):
        own, left = discrepancy._influence_of(factor * G, y, residual)
        np.testing.assert_allclose(own @ own.T, G @ G.T, atol=1e-9)
        np.testing.assert_allclose(left, residual, atol=1e-9)
    same, left = discrepancy._influence_of(G, y, residual)
    assert same is G and left is residual


def test_what_a_fit_of_other_weights_explains_is_nothing_it_lacks():
    """Rows of little noise have most of the weight: the others' columns look hardly fitted."""
    rng = np.random.default_rng(0)
    x, few = rng.random(60), np.arange(60) < 30
    A = np.stack([few, few * x, ~few, ~few * x, ~few * np.sin(9 * x)], 1).astype(float)
    weight, ridge = np.where(few, 100.0, 1.0), 10.0
    y = A @ [1.0, 2.0, -1.0, 1.0, 2.0] + rng.standard_normal(60) / np.sqrt(weight)
    precision = A.T @ (weight[:, None] * A) + ridge * np.eye(5)
    residual = torch.as_tensor(y - A @ np.linalg.lstsq(A, y, rcond=None)[0])
    G = torch.as_tensor(A @ np.linalg.inv(np.linalg.cholesky(precision)).T)
    y = torch.as_tensor(y)
    own, left = discrepancy._influence_of(G, y, residual)
    assert float((y - G @ (G.T @ y)).norm()) > 1.5 * float(residual.norm())
    assert float(left.norm()) <= float(residual.norm()) * (1 + 1e-9)
    np.testing.assert_allclose(left, y - own @ (own.T @ y), atol=1e-12)


def test_state_goes_through_arrays():
    rng = np.random.default_rng(0)
    X = rng.random((20, 1))
    A = torch.as_tensor(np.hstack([np.ones_like(X), X]))
    made = found(X, A, torch.as_tensor(rng.standard_normal(20)))
    again = Discrepancy(**made.arrays())
    np.testing.assert_array_equal(made.variance(X), again.variance(X))


@pytest.mark.parametrize("n", [12, 100])
def test_bars_with_noise(n):
    """Few rows tell the noise badly; its bars and those of the mean make up all."""
    rng = np.random.default_rng(3)
    X = rng.random((n, 1))
    model = LSGDRegressor(density="gaussian").fit(X, X[:, 0] + 0.1 * rng.standard_normal(n))
    std, noise, own = (
        model.predict(X, return_std=kind)[1] for kind in (True, "noise", "epistemic")
    )
    np.testing.assert_allclose(std, np.hypot(noise, own), rtol=1e-9)
    factor = noise**2 / model.noise_**2
    np.testing.assert_allclose(factor, factor[0], rtol=1e-9)
    # k / (k - 2) for k = n - 2 degrees of freedom of a line, where these are few.
    expected = (n - 2) / (n - 4) if n < 30 else 1.0
    np.testing.assert_allclose(factor[0], expected, rtol=0.03)
    covariance = model.predict(X, return_cov="epistemic")[1]
    np.testing.assert_allclose(np.diag(covariance), own**2, rtol=1e-6)
