"""Exactness amid noise: the rule of succession, and a density that allows for it."""

import numpy as np
import torch

from skpou.core import Rows
from skpou.core.models import Components, wrong_claims
from tests.examples import tensor


class Parted:
    """Below one half of the first column exactly 0, above it noise of variance 1."""

    def components(self, X, posterior=True):
        low = (X[:, 0] < 0.5).double()
        log_pi = torch.log(torch.stack([low, 1 - low], 1))
        zero = torch.zeros((len(X), 2, 1)).double()
        return Components(log_pi, zero, tensor([[1e-28], [1.0]]), zero)


def rows_of(X, y):
    return Rows(tensor(X), tensor(y)[:, None], torch.ones(len(X)).double(), tensor(0 * y)[:, None])


def parted(d):
    X = np.random.default_rng(0).random((40, d))
    X[:, 0] = np.linspace(0, 1, 40)
    y = np.where(X[:, 0] < 0.5, 0.0, np.random.default_rng(1).standard_normal(40))
    y[3] = 0.7
    return rows_of(X, y)


def test_a_row_that_is_not_met_counts_as_the_rule_of_succession_says():
    found = wrong_claims(Parted(), parted(4))
    np.testing.assert_allclose(found.chance, [[2 / 22], [0.0]])
    np.testing.assert_allclose(found.noise, 0.5, rtol=1e-6)
    X = tensor([[0.2, 0.5, 0.5, 0.5], [0.8, 0.5, 0.5, 0.5]])
    parts = found.doubted(Parted().components(X))
    torch.testing.assert_close(parts.expectation(), torch.zeros((2, 1)).double())
    noise = parts.variances()[0][:, 0]
    torch.testing.assert_close(noise, tensor([0.5 * 2 / 22, 1.0]), rtol=1e-6, atol=0)
    wide = torch.log(tensor(2 / 22)) - 0.5 * (1 / 0.5 + np.log(2 * np.pi * 0.5))
    density = parts.log_density(torch.ones((2, 1)).double())
    torch.testing.assert_close(density[0], wide, rtol=1e-6, atol=0)


def test_gates_of_few_columns_are_believed():
    assert wrong_claims(Parted(), parted(3)) is None
