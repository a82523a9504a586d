"""E-steps, restrictions and bounds against mpmath and as identities (Trask et al. 2022)."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.partitions.gates.steps import cross_entropy
from skpou.partitions.gates.tree import GateLevel, PartitionTree
from skpou.partitions.mixtures.likelihood import log_normal, marginalise, posterior
from tests.contracts import DTYPES, from_mp
from tests.examples import evidence_lower_bound, tensor

# Parents of three levels with unequal numbers of children, an only child among them.
PARENTS = [[0, 0, 0], [0, 1, 1, 2, 2], [1, 0, 2, 2, 4, 3]]


def make_case(n=7, m=2, seed=0, spread=1.0, dtype=torch.float64):
    """Tree of linear gates in 2 dimensions, targets, and experts' values on the finest level."""
    rng = np.random.default_rng(seed)
    levels = [
        GateLevel(torch.tensor(parent), tensor(2 * rng.standard_normal((len(parent), 3)), dtype), 1)
        for parent in PARENTS
    ]
    N = len(PARENTS[-1])
    X, y = tensor(rng.random((n, 2)), dtype), tensor(rng.standard_normal((n, m)), dtype)
    mean = tensor(spread * rng.standard_normal((n, N, m)), dtype)
    variance = tensor(rng.uniform(0.01, 1, (N, m)), dtype)
    return PartitionTree(2, levels), X, y, mean, variance


def naive_joint(tree, X, y, mean, variance):
    """Products pi_i pi_ij ... N(y; mu, sigma^2) of every row and leaf, one by one (Eq. 34)."""
    rows = []
    for x, target, values in zip(X.tolist(), y.tolist(), mean.tolist(), strict=True):
        # Orthogonal polynomials of degree 1: the last coordinate comes first.
        features = [1, 2 * mpmath.mpf(x[1]) - 1, 2 * mpmath.mpf(x[0]) - 1]
        above = [mpmath.mpf(1)]
        for gate in tree.levels:
            logits = [mpmath.fdot(row, features) for row in gate.theta.tolist()]
            parent = gate.parent.tolist()
            total = [
                mpmath.fsum(mpmath.exp(v) for v, q in zip(logits, parent, strict=True) if q == p)
                for p in parent
            ]
            above = [
                above[p] * mpmath.exp(v) / t for p, v, t in zip(parent, logits, total, strict=True)
            ]
        joint = []
        for pi, mu, square in zip(above, values, variance.tolist(), strict=True):
            for t, c, s in zip(target, mu, square, strict=True):
                s = mpmath.mpf(s)
                distance = (mpmath.mpf(t) - mpmath.mpf(c)) ** 2
                pi *= mpmath.exp(-distance / (2 * s)) / mpmath.sqrt(2 * mpmath.pi * s)
            joint.append(pi)
        rows.append(joint)
    return mpmath.matrix(rows)


def log_joint(tree, X, y, mean, variance):
    return tree.log_proba(X) + log_normal(y, mean, variance)


# The last case's densities are far below the smallest float.
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("m", [1, 2])
def test_posterior_against_a_loop_in_50_digits(m, spread):
    case = make_case(m=m, spread=spread)
    share, density = posterior(log_joint(*case))
    with mpmath.workdps(50):
        joint = naive_joint(*case)
        n, N = joint.rows, joint.cols
        total = [mpmath.fsum(joint[i, k] for k in range(N)) for i in range(n)]
        expected = [[joint[i, k] / total[i] for k in range(N)] for i in range(n)]
        log_density = np.array([float(mpmath.log(value)) for value in total])
        expected = from_mp(mpmath.matrix(expected))
    # Round-off of exponents of size 1e4 is all that an exponential can keep.
    np.testing.assert_allclose(share, expected, rtol=1e-14 * max(1, 200 * spread**2), atol=1e-300)
    np.testing.assert_allclose(density, log_density, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_posterior_is_a_distribution_however_unlikely_the_targets(dtype):
    tree, X, y, mean, variance = make_case(dtype=dtype)
    share, density = posterior(log_joint(tree, X, 1e15 * y, mean, variance))
    assert torch.isfinite(share).all()
    assert torch.isfinite(density).all()
    torch.testing.assert_close(share.sum(1), torch.ones_like(density))


def test_marginalised_posterior_is_that_of_the_marginalised_mixture():
    """Eq. 35 from Eqs. 30 to 32: the coarse posterior under the density of the fine mixture."""
    case = make_case(50)
    tree = case[0]
    share = posterior(log_joint(*case))[0]
    below = tree.log_below(case[1], 1) + log_normal(*case[2:])
    ancestor = tree.ancestors(1)
    columns = [torch.logsumexp(below[:, ancestor == i], 1) for i in range(3)]
    expected = posterior(tree.log_proba(case[1], 0) + torch.stack(columns, 1))[0]
    middle = marginalise(share, tree.levels[2].parent)
    coarse = marginalise(middle, tree.levels[1].parent)
    torch.testing.assert_close(coarse, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(coarse.sum(1), torch.ones(50).double(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_loss_splits_into_that_of_the_coarse_gates_and_a_correction(seed):
    """Eqs. 41 to 44, for any distribution in place of the posterior."""
    tree, X, *_ = make_case(30, seed=seed)
    rng = np.random.default_rng(seed)
    share = tensor(rng.dirichlet(np.ones(len(PARENTS[2])), 30))
    weight = tensor(rng.uniform(0, 3, 30))
    whole = cross_entropy(share, tree.log_proba(X), weight)  # Eq. 41
    correction = cross_entropy(share, tree.log_conditional(X, 2), weight)
    middle = marginalise(share, tree.levels[2].parent)
    coarse = cross_entropy(middle, tree.log_proba(X, 1), weight)  # Eq. 40
    torch.testing.assert_close(whole, coarse + correction, rtol=1e-14, atol=0)  # Eq. 44


@pytest.mark.parametrize("seed", range(3))
def test_bound_is_below_the_likelihood_and_meets_it_at_the_posterior(seed):
    """Eq. 12: the gap is the divergence from the posterior."""
    case = make_case(20, seed=seed)
    joint = log_joint(*case)
    rng = np.random.default_rng(seed)
    weight = tensor(rng.uniform(0.1, 3, 20))
    share, density = posterior(joint)
    likelihood = float(weight @ density)
    assert evidence_lower_bound(share, joint, weight) == pytest.approx(likelihood, rel=1e-13)
    other = tensor(rng.dirichlet(np.ones(joint.shape[1]), 20))
    divergence = float(weight @ (other * (other.log() - share.log())).sum(1))
    bound = evidence_lower_bound(other, joint, weight)
    assert bound == pytest.approx(likelihood - divergence, rel=1e-12)
    assert divergence > 0


def test_vanished_partitions_add_nothing():
    share = tensor([[1.0, 0.0]])
    joint = tensor([[-2.0, -np.inf]])
    assert evidence_lower_bound(share, joint, tensor([3.0])) == -6.0
    assert float(cross_entropy(share, joint, tensor([3.0]))) == 2.0
