"""Functions with known pieces, and mixtures with known numbers, for the tests of training."""

import numpy as np
import pytest
import torch

from skpou.core.polynomials import count_columns
from skpou.core.rows import merge_rows
from skpou.partitions.gates.tree import GateLevel, PartitionTree
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.problem import PieceProblem

#: Parents of each level of the trees that are tried; the second has unequal numbers of children.
SHAPES = {"one": [[0]], "flat": [[0, 0, 0]], "two": [[0, 0], [1, 0, 1, 1]]}


def slow(*cases):
    """Parameters of tests that `make test` leaves out; a tuple holds several arguments."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]


def tensor(array, dtype=torch.float64):
    return torch.as_tensor(np.asarray(array)).to(dtype)


def rows_of(X, y, weight=None, dtype=torch.float64):
    """Merged rows of arrays; targets of one dimension become a column."""
    X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
    y = y.reshape(len(X), -1)
    weight = np.ones(len(X)) if weight is None else np.asarray(weight, dtype=float)
    return merge_rows(tensor(X, dtype), tensor(y, dtype), tensor(weight, dtype))


def problem_of(function, n=300, d=1, degree=1, seed=0, noise=0.0, **options):
    """Samples of a function of points (n, d), uniform on the unit box, as a `PieceProblem`."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = np.asarray(function(X)).reshape(n, -1)
    y = y + noise * rng.standard_normal(y.shape)
    return PieceProblem(rows_of(X, y), degree, **options)


def labels_by(problem, function):
    """Labels from a function of the problem's points."""
    return torch.as_tensor(np.asarray(function(problem.rows.X.numpy()))).long()


def wave(p):
    """p parabolas that meet in kinks, one after the other, on [0, 1]."""
    return lambda X: (2 * np.abs(p * X[:, 0] - np.floor(p * X[:, 0])) - 1) ** 2


def five_pieces(X):
    """Five quartics that meet in kinks along parabolas, Eq. 48."""
    z = 4 * (X[:, 1] - (X[:, 0] - 0.5) ** 2)
    return (2 * np.abs(z - np.floor(z + 0.5)) - 1) ** 2


def kink(X):
    """Two parabolas that meet in a kink along a parabola."""
    return np.abs(parabola(X))


def parabola(X):
    """Zero on the kink of `kink`."""
    return X[:, 1] - 0.3 - 0.5 * X[:, 0] ** 2


def relative_error(mean, truth):
    """Root mean square error of predictions over the rms of the truth."""
    return float(np.sqrt(np.mean((mean - truth) ** 2) / np.mean(truth**2)))


def relative_rms(mixture, function, d, n=20_000, seed=99):
    """Error of a mixture's mean on fresh points, over the function's rms."""
    X = np.random.default_rng(seed).random((n, d))
    exact = np.asarray(function(X)).reshape(n, -1)
    mean = mixture.components(tensor(X), harden=True, posterior=False).expectation().numpy()
    return float(np.sqrt(np.square(mean - exact).mean() / np.square(exact).mean()))


def make_mixture(shape="two", d=2, m=2, degree=2, seed=0, scale=2.0, sharp=(), spread=1.0):
    """Mixture with random gates and experts on every level."""
    rng = np.random.default_rng(seed)
    P = count_columns(d, degree)
    levels, experts = [], []
    for depth, parent in enumerate(SHAPES[shape]):
        N = len(parent)
        theta = tensor(scale * rng.standard_normal((N, count_columns(d, 1))))
        levels.append(GateLevel(torch.tensor(parent), theta, 1, depth in sharp))
        factor = np.triu(rng.standard_normal((N, P, P))) + 4 * np.eye(P)
        experts.append(
            Experts(
                tensor(spread * rng.standard_normal((N, P, m))),
                tensor(factor),
                tensor(rng.uniform(0.01, 0.5, (N, m))),
            )
        )
    return Mixture(PartitionTree(d, levels), experts, degree)


def evidence_lower_bound(share, log_joint, weight):
    """Evidence lower bound of a mixture, Eq. 12 of Trask et al. 2022, with the shares' entropy."""
    energy = torch.where(share > 0, share * log_joint, 0.0) - torch.xlogy(share, share)
    return float(weight @ energy.sum(1))
