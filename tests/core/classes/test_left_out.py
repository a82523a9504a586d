"""Logits of left-out observations: those of fits without them."""

import numpy as np
import pytest
import torch

from skpou.core.classes import left_out_logits, left_out_of_columns
from skpou.core.optim import DenseRows, MultinomialRidge
from tests.examples import tensor


def problem(K, n=40, p=3, seed=0):
    """Columns, indicators of classes drawn by them, and weights, one of which is two."""
    rng = np.random.default_rng(seed)
    Phi = rng.standard_normal((n, p))
    logits = Phi @ rng.standard_normal((p, K)) + 0.5 * rng.standard_normal((n, K))
    weight = np.ones(n)
    weight[4] = 2
    return tensor(Phi), tensor(np.eye(K)[logits.argmax(1)]), tensor(weight)


def solved(Phi, y, weight, ridge):
    fit = MultinomialRidge(
        DenseRows(Phi, weight.sqrt()[:, None]), y, Phi.new_zeros(y.shape[1]), Phi.new_zeros(3)
    )
    return fit.fit(np.sqrt(ridge) / fit.scale, 1.0)[0]


def jacobian_of(Phi, K):
    """Derivatives (n, K, p K) of a block's logits by the coefficients of all columns."""
    eye = torch.eye(K, dtype=torch.float64)
    return lambda block: torch.einsum("np,kl->nklp", Phi[block], eye).flatten(2)


@pytest.mark.parametrize("K", [2, 3])
def test_one_observation_is_left_out(K):
    Phi, y, weight = problem(K)
    ridge = 2.0
    coef = solved(Phi, y, weight, ridge)
    found = left_out_of_columns(Phi @ coef, y, weight, Phi, tensor(np.full(3, ridge)))
    for row in (0, 4, 11):
        less = weight.clone()
        less[row] -= 1  # Of two equal observations one stays.
        kept = less > 0
        expected = Phi[row] @ solved(Phi[kept], y[kept], less[kept], ridge)
        moved = (expected - Phi[row] @ coef).norm()
        # They differ by what Newton's second step would change.
        assert moved > 1e-3
        assert (found[row] - expected).norm() < 0.3 * moved


@pytest.mark.parametrize("K", [2, 3])
def test_both_ways_agree(K):
    Phi, y, weight = problem(K)
    logits, ridge = tensor(np.random.default_rng(1).standard_normal((40, K))), tensor([1, 2, 3.0])

    some = torch.tensor([1, 4, 30])
    known = logits, y, weight
    found = left_out_logits(*known, jacobian_of(Phi, K), ridge.repeat(K), some)
    torch.testing.assert_close(found, left_out_of_columns(*known, Phi, ridge, some))
    torch.testing.assert_close(found, left_out_of_columns(*known, Phi, ridge)[some])


@pytest.mark.parametrize("K", [2, 3])
def test_more_parameters_than_logits(K):
    """Ridges as far apart as those of coefficients and of an encoder; a block of rows at a time."""
    Phi, y, weight = problem(K, n=8, p=30)
    rng = np.random.default_rng(1)
    logits, ridge = tensor(rng.standard_normal((8, K))), tensor(10.0 ** rng.uniform(-3, 1, 30))

    some = torch.tensor([1, 4, 6])
    known = logits, y, weight
    found = left_out_logits(*known, jacobian_of(Phi, K), ridge.repeat(K), some)
    torch.testing.assert_close(found, left_out_of_columns(*known, Phi, ridge, some))


def test_many_classes_with_two_threads():
    """Batches of systems of 160 classes: factors of several at once fail on some processors."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((4, 160), generator=generator, dtype=torch.float64)
    targets = torch.eye(160, dtype=torch.float64)[:4]
    Phi = torch.randn((4, 2), generator=generator, dtype=torch.float64)
    weight, ridge = Phi.new_ones(4), Phi.new_ones(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = left_out_of_columns(logits, targets, weight, Phi, ridge)
    finally:
        torch.set_num_threads(threads)
    for row in (0, 3):
        alone = left_out_of_columns(logits, targets, weight, Phi, ridge, torch.as_tensor([row]))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-10)
