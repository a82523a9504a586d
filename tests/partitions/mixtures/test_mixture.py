"""What a mixture predicts, against naive loops, quadrature, scipy and differences."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from skpou.core.models.components import Components
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.partitions.gates.tree import GateLevel, PartitionTree
from skpou.partitions.mixtures.experts import fit_experts_to_gates
from skpou.partitions.mixtures.mixture import Experts, Mixture
from tests.contracts import same_bits
from tests.examples import SHAPES, make_mixture, rows_of, tensor

ALL = ["one", "flat", "two"]


def points(n=6, d=2, seed=1):
    return tensor(np.random.default_rng(seed).random((n, d)))


def naive_components(mixture, x, level):
    """(pi, mean (N, m), epistemic (N, m)) at one point, straight from the formulas."""
    pi = mixture.tree.log_proba(x[None], level)[0].exp().numpy()
    experts = mixture.experts[level]
    phi = TotalDegreePolynomials(mixture.tree.n_features, mixture.degree).matrix(x[None])[0]
    mean, epistemic = [], []
    for coef, factor, noise in zip(experts.coef, experts.factor, experts.noise, strict=True):
        mean.append((phi @ coef).numpy())
        covariance = np.linalg.inv((factor.T @ factor).numpy())
        epistemic.append(noise.numpy() * float(phi.numpy() @ covariance @ phi.numpy()))
    return pi, np.array(mean), np.array(epistemic)


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize("m", [1, 2])
def test_mean_and_variances_against_naive_loops(shape, m):
    mixture, X = make_mixture(shape, m=m), points()
    for level in range(len(SHAPES[shape])):
        parts = mixture.at(level).components(X)
        noise, epistemic = parts.variances()
        for i, x in enumerate(X):
            pi, mu, posterior = naive_components(mixture, x, level)
            sigma2 = mixture.experts[level].noise.numpy()
            np.testing.assert_allclose(parts.epistemic[i], posterior, rtol=1e-10)
            for k in range(m):
                expectation = sum(p * mean for p, mean in zip(pi, mu[:, k], strict=True))  # Eq. 8
                second = sum(p * (s + u**2) for p, s, u in zip(pi, sigma2[:, k], mu[:, k]))
                eq9 = second - expectation**2
                through = sum(p**2 * e for p, e in zip(pi, posterior[:, k], strict=True))
                np.testing.assert_allclose(parts.expectation()[i, k], expectation, rtol=1e-12)
                np.testing.assert_allclose(noise[i, k], eq9, rtol=1e-11)
                np.testing.assert_allclose(epistemic[i, k], through, rtol=1e-10)


def test_variance_has_no_cancellation():
    # Means of 1e9 with a noise of 1e-6: the difference of Eq. 9 would be wrong by 1e2.
    mean = tensor([[[1e9], [1e9]]])
    noise = tensor([[1e-12], [1e-12]])
    log_pi = tensor([[0.3, 0.7]]).log()
    variance, epistemic = Components(log_pi, mean, noise, 0 * mean).variances()
    assert abs(float(variance) - 1e-12) < 1e-24
    assert float(epistemic) == 0


@pytest.mark.parametrize("seed", range(5))
def test_variances_are_never_negative(seed):
    mixture = make_mixture(seed=seed, spread=10.0 ** (3 * seed))
    mixture.experts[-1].noise *= 1e-30
    X = 3 * points(200, seed=seed) - 1
    for variance in mixture.components(X).variances():
        assert torch.isfinite(variance).all()
        assert (variance >= 0).all()


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize("spread", [0.1, 5.0])
def test_quantiles_against_roots_of_the_distribution(shape, spread):
    mixture, X = make_mixture(shape, spread=spread), points()
    parts = mixture.components(X)
    probabilities = tensor([1e-6, 0.025, 0.3, 0.5, 0.8, 0.999])
    got = parts.quantiles(probabilities)
    assert got.shape == (len(X), 6, 2)
    assert (got.diff(dim=1) > 0).all()
    pi, std = parts.log_pi.exp().numpy(), parts.variance.sqrt().numpy()
    for i in range(len(X)):
        for k in range(2):
            mu, s = parts.mean[i, :, k].numpy(), std[i, :, k]
            for j, q in enumerate(probabilities.tolist()):
                expected = brentq(
                    lambda t, i=i, mu=mu, s=s, q=q: pi[i] @ norm.cdf((t - mu) / s) - q,
                    (mu - 12 * s).min(),
                    (mu + 12 * s).max(),
                    xtol=1e-13,
                )
                tail = min(q, 1 - q)
                assert abs(float(got[i, j, k]) - expected) < 1e-12 + 1e-14 / tail


def test_quantiles_ignore_components_that_are_absent():
    mean = tensor([[[0.0], [1e6]]])
    log_pi = tensor([[0.0, -torch.inf]])
    parts = Components(log_pi, mean, tensor([[1.0], [1.0]]), 0 * mean)
    got = parts.quantiles(tensor([0.1, 0.5, 0.9]))[0, :, 0].numpy()
    np.testing.assert_allclose(got, norm.ppf([0.1, 0.5, 0.9]), atol=1e-12)


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize("posterior", [False, True])
def test_density_integrates_to_one(shape, posterior):
    mixture, X = make_mixture(shape, m=1), points(3)
    parts = mixture.components(X, posterior=posterior)
    low = float((parts.mean - 12 * parts.variance.sqrt()).min())
    high = float((parts.mean + 12 * parts.variance.sqrt()).max())

    def density(y, i):
        return float(parts.log_density(torch.full((3, 1), y, dtype=X.dtype))[i].exp())

    for i in range(3):
        breaks = sorted(parts.mean[i, :, 0].tolist())
        assert abs(quad(density, low, high, (i,), points=breaks, limit=200)[0] - 1) < 1e-8


def test_density_against_scipy():
    mixture, X = make_mixture(m=2), points()
    parts = mixture.components(X)
    y = tensor(np.random.default_rng(2).standard_normal((6, 2)))
    std = parts.variance.sqrt()
    for i in range(6):
        single = norm.pdf(y[i].numpy(), parts.mean[i].numpy(), std[i].numpy()).prod(1)
        expected = np.log(parts.log_pi[i].exp().numpy() @ single)
        np.testing.assert_allclose(parts.log_density(y)[i], expected, rtol=1e-11)
    # Far away the density underflows, its logarithm does not.
    assert torch.isfinite(parts.log_density(y + 1e6)).all()


@pytest.mark.parametrize("shape", ALL)
def test_samples_have_the_mean_and_the_variance(shape):
    mixture, X = make_mixture(shape), points(3)
    parts = mixture.components(X)
    rng = np.random.default_rng(3)
    s = 200_000
    draws = parts.sample(tensor(rng.random((3, s))), tensor(rng.standard_normal((3, s, 2))))
    assert draws.shape == (3, s, 2)
    mean = parts.expectation()
    within = torch.einsum("nk,nkm->nm", parts.log_pi.exp(), parts.epistemic)
    variance = parts.variances()[0] + within
    error = (draws.mean(1) - mean).abs() / (variance / s).sqrt()
    assert error.max() < 4.5
    assert (draws.var(1) / variance - 1).abs().max() < 0.03


def test_samples_pick_components_by_their_share():
    mean = torch.arange(4.0).double()[None, :, None]
    pi = tensor([[0.0, 0.25, 0.75, 0.0]])
    parts = Components(pi.log(), mean, torch.full((4, 1), 1e-20).double(), 0 * mean)
    last = float(np.nextafter(1.0, 0.0))
    uniform = tensor([[0.0, 0.2499999, 0.25, 0.9, last]])
    got = parts.sample(uniform, torch.zeros((1, 5, 1)).double())
    assert got[0, :, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradient_against_central_differences(shape, d):
    mixture, X, h = make_mixture(shape, d=d), points(d=d), 1e-5
    for level in range(len(SHAPES[shape])):
        gradient = mixture.at(level).gradient(X)
        assert gradient.shape == (6, d, 2)
        for j in range(d):
            step = h * torch.eye(d, dtype=X.dtype)[j]
            ahead = mixture.at(level).components(X + step).expectation()
            behind = mixture.at(level).components(X - step).expectation()
            expected = (ahead - behind) / (2 * h)
            torch.testing.assert_close(gradient[:, j], expected, rtol=1e-7, atol=1e-7)


def test_samples_without_the_coefficients_posterior():
    mixture, X = make_mixture(), points(3)
    parts = mixture.components(X, posterior=False)
    uniform, normal = tensor(np.full((3, 4), 0.5)), tensor(np.ones((3, 4, 2)))
    draws = parts.sample(uniform, normal)
    pick = (parts.log_pi.exp().cumsum(1) > 0.5).to(torch.int8).argmax(1)
    expected = parts.mean[torch.arange(3), pick] + parts.noise[pick].sqrt()
    torch.testing.assert_close(draws, expected[:, None].expand(-1, 4, -1))


def test_gradient_across_sharp_gates_is_that_of_the_chosen_piece():
    mixture, X = make_mixture("flat", sharp=(0,)), points(20)
    chosen = mixture.tree.log_proba(X).argmax(1)
    gradient = mixture.gradient(X)
    for j in range(2):
        slopes = torch.einsum("np,kpm->nkm", mixture.basis.partial(X, j), mixture.experts[0].coef)
        expected = slopes[torch.arange(20), chosen]
        torch.testing.assert_close(gradient[:, j], expected, rtol=1e-12, atol=1e-12)


def test_no_features():
    mixture = make_mixture("flat", d=0)
    X = torch.empty((4, 0), dtype=torch.float64)
    assert mixture.gradient(X).shape == (4, 0, 2)
    assert mixture.components(X).expectation().shape == (4, 2)


@pytest.mark.parametrize("posterior", [False, True])
def test_no_rows_and_rows_on_their_own(posterior):
    mixture, X = make_mixture(), points()
    full = mixture.components(X, posterior=posterior)
    one = mixture.components(X[2:3], posterior=posterior)
    none = mixture.components(X[:0], posterior=posterior)
    for part in (none.expectation(), *none.variances()):
        assert part.shape == (0, 2)
    assert mixture.gradient(X[:0]).shape == (0, 2, 2)
    torch.testing.assert_close(one.expectation(), full.expectation()[2:3], rtol=1e-14, atol=1e-14)
    for a, b in zip(one.variances(), full.variances(), strict=True):
        torch.testing.assert_close(a, b[2:3], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("shape", ALL)
def test_state_survives_as_arrays(shape):
    mixture, X = make_mixture(shape, sharp=(0,)), points()
    again = Mixture.from_arrays(2, 2, mixture.arrays(), X)
    for harden in (False, True):
        got, expected = again.components(X, harden=harden), mixture.components(X, harden=harden)
        for name in ("log_pi", "mean", "noise", "epistemic"):
            assert same_bits(getattr(got, name), getattr(expected, name))
    assert same_bits(again.gradient(X), mixture.gradient(X))
    assert again.n_leaves == len(SHAPES[shape][-1])
    assert again.numbers_per_row() == mixture.numbers_per_row() > 0
    single = Mixture.from_arrays(2, 2, mixture.arrays(), X.float())
    assert single.components(X.float()).expectation().dtype == torch.float32


# Shape, first blended level, sharp levels.
BLENDED = {
    "one": ("one", 0, ()),
    "flat": ("flat", 0, ()),
    "two": ("two", 0, ()),
    "blends": ("two", 1, ()),
    "sharp": ("two", 1, (0,)),
}


def members_of(tree, first):
    """Leaves below each partition of the level above `first`, climbing one leaf at a time."""
    members = {}
    for leaf in range(tree.levels[-1].n_partitions):
        node = leaf
        for gate in reversed(tree.levels[first:]):
            node = int(gate.parent[node])
        members.setdefault(node, []).append(leaf)
    return [members[node] for node in sorted(members)]


def make_blended(name, d=2, m=2, seed=0):
    """Mixture whose last levels are blended, with random joint factors."""
    shape, first, sharp = BLENDED[name]
    plain, rng = make_mixture(shape, d=d, m=m, sharp=sharp, seed=seed), np.random.default_rng(8)
    last, P = plain.experts[-1], plain.basis.n_columns
    members = members_of(plain.tree, first)
    factor = np.tile(np.eye(max(map(len, members)) * P), (len(members), 1, 1))
    for g, leaves in enumerate(members):
        size = len(leaves) * P
        own = np.triu(rng.standard_normal((size, size))) / size + 2 * np.eye(size)
        factor[g, :size, :size] = own
    experts = [*plain.experts[:-1], Experts(last.coef, tensor(factor), last.noise)]
    return Mixture(plain.tree, experts, plain.degree, first)


def naive_blends(mixture, x):
    """(pi, mean, noise, epistemic) of the blends at one point, straight from the formulas."""
    tree, first, experts = mixture.tree, mixture.first_blended, mixture.experts[-1]
    leaf = tree.log_proba(x[None])[0].exp().numpy()
    above = tree.log_proba(x[None], first - 1)[0].exp().numpy() if first else np.ones(1)
    phi = mixture.basis.matrix(x[None])[0].numpy()
    coef, sigma2 = experts.coef.numpy(), experts.noise.numpy()
    mean, noise, epistemic = [], [], []
    for g, leaves in enumerate(members_of(tree, first)):
        inside = leaf[leaves] / above[g]
        mean.append(sum(w * phi @ coef[k] for w, k in zip(inside, leaves, strict=True)))
        noise.append(sum(w * sigma2[k] for w, k in zip(inside, leaves, strict=True)))
        size = len(leaves) * len(phi)
        R = experts.factor[g].numpy()[:size, :size]
        column = np.concatenate([w * phi for w in inside])
        epistemic.append(noise[-1] * (column @ np.linalg.inv(R.T @ R) @ column))
    return above, np.array(mean), np.array(noise), np.array(epistemic)


@pytest.mark.parametrize("name", BLENDED)
@pytest.mark.parametrize("m", [1, 2])
def test_blends_are_the_components_of_the_finest_level(name, m):
    mixture, X = make_blended(name, m=m), points()
    parts = mixture.components(X)
    noise, epistemic = parts.variances()
    bare = mixture.components(X, posterior=False)
    assert not bare.epistemic.any()
    leaves = mixture.tree.log_proba(X).exp()
    phi = mixture.basis.matrix(X)
    whole = torch.einsum("nk,np,kpm->nm", leaves, phi, mixture.experts[-1].coef)  # Eq. 1
    torch.testing.assert_close(parts.expectation(), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(bare.expectation(), parts.expectation())
    for i, x in enumerate(X):
        pi, mean, sigma2, posterior = naive_blends(mixture, x)
        np.testing.assert_allclose(parts.log_pi[i].exp(), pi, rtol=1e-12)
        np.testing.assert_allclose(parts.mean[i], mean, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(parts.noise[i], sigma2, rtol=1e-12)
        np.testing.assert_allclose(bare.noise[i], sigma2, rtol=1e-12)
        np.testing.assert_allclose(parts.epistemic[i], posterior, rtol=1e-10)
        eq9 = pi @ (sigma2 + mean**2) - (pi @ mean) ** 2
        np.testing.assert_allclose(noise[i], eq9, rtol=1e-10)
        np.testing.assert_allclose(epistemic[i], pi**2 @ posterior, rtol=1e-10)


def test_coarse_levels_of_a_blended_mixture_are_mixtures():
    mixture, X = make_blended("two"), points()
    plain = Mixture(mixture.tree, mixture.experts[:1] * 2, mixture.degree)
    got, expected = mixture.at(0).components(X), plain.at(0).components(X)
    for name in ("log_pi", "mean", "noise", "epistemic"):
        assert same_bits(getattr(got, name), getattr(expected, name))


@pytest.mark.parametrize("name", BLENDED)
@pytest.mark.parametrize("d", [1, 2])
def test_gradient_of_blends_against_central_differences(name, d):
    mixture, X, h = make_blended(name, d=d), points(d=d), 1e-5
    for level in range(len(mixture.tree.levels)):
        gradient = mixture.at(level).gradient(X)
        for j in range(d):
            step = h * torch.eye(d, dtype=X.dtype)[j]
            part = mixture.at(level)
            ahead, behind = (
                part.components(X + s * step, harden=True).expectation() for s in (1, -1)
            )
            expected = (ahead - behind) / (2 * h)
            torch.testing.assert_close(gradient[:, j], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", BLENDED)
def test_blends_survive_as_arrays(name):
    mixture, X = make_blended(name), points()
    again = Mixture.from_arrays(2, 2, mixture.arrays(), X)
    assert again.first_blended == mixture.first_blended
    for level in range(len(mixture.tree.levels)):
        for harden in (False, True):
            got = again.at(level).components(X, harden=harden)
            expected = mixture.at(level).components(X, harden=harden)
            for part in ("log_pi", "mean", "noise", "epistemic"):
                assert same_bits(getattr(got, part), getattr(expected, part)), part
        assert same_bits(again.at(level).gradient(X), mixture.at(level).gradient(X))


@pytest.mark.parametrize("posterior", [False, True])
def test_blends_give_densities_quantiles_and_samples(posterior):
    mixture, X = make_blended("blends", m=1), points(3)
    parts = mixture.components(X, posterior=posterior)
    pi, std = parts.log_pi.exp().numpy(), parts.variance.sqrt().expand_as(parts.mean).numpy()
    y = tensor([[0.3], [-1.0], [2.0]])
    q = parts.quantiles(tensor([0.2, 0.9]))[..., 0]
    draws = parts.sample(tensor(np.full((3, 1), 0.4)), torch.ones((3, 1, 1)).double())[:, 0, 0]
    for i in range(3):
        mu, s = parts.mean[i, :, 0].numpy(), std[i, :, 0]
        density = np.log(pi[i] @ norm.pdf(float(y[i]), mu, s))
        np.testing.assert_allclose(parts.log_density(y)[i], density, rtol=1e-11)
        below = [pi[i] @ norm.cdf(float(value), mu, s) for value in q[i]]
        np.testing.assert_allclose(below, [0.2, 0.9], rtol=1e-10)
        k = int(np.searchsorted(np.cumsum(pi[i]), 0.4))
        np.testing.assert_allclose(draws[i], mu[k] + s[k], rtol=1e-12)
    assert mixture.components(X[:0], posterior=posterior).expectation().shape == (0, 1)


def three_levels():
    """A sharp cut at 1/2, and two soft levels below it; the first cuts at 1/4 and 3/4."""
    cut = GateLevel(torch.tensor([0, 0]), tensor([[0.0, -1e8], [0.0, 1e8]]), 1, True)
    theta = tensor([[0.0, 0.0], [2.0, 4.0], [0.0, 0.0], [-2.0, 4.0]])
    last = tensor(3 * np.random.default_rng(2).standard_normal((5, 2)))
    soft = [
        GateLevel(torch.tensor([0, 0, 1, 1]), theta, 1),
        GateLevel(torch.tensor([0, 1, 1, 2, 3]), last, 1),
    ]
    return PartitionTree(1, [cut, *soft])


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("alpha", [1e-6, 0.1])
def test_experts_of_blends_are_joint_on_every_level_and_others_those_of_their_piece(first, alpha):
    tree, rng = three_levels(), np.random.default_rng(5)
    X = rng.random((80, 1))
    y = np.column_stack([np.sin(6 * X[:, 0]), X[:, 0] ** 2]) + 0.1 * rng.standard_normal((80, 2))
    rows = rows_of(X, y, rng.integers(1, 4, 80))
    experts, used = fit_experts_to_gates(rows, tree, 1, alpha, first)
    assert used == alpha
    phi = TotalDegreePolynomials(1, 1).matrix(rows.X).numpy()
    y, weight = rows.y.numpy(), rows.weight.numpy()

    def ridge(A, w):
        gram = A.T @ (w[:, None] * A)
        gram = gram + alpha**2 * gram.diagonal().max() * np.eye(A.shape[1])
        return np.linalg.solve(gram, A.T @ (w[:, None] * y)), gram

    for depth in range(first):
        # Eq. 36; above a blend the posterior weights are indicators.
        pi = tree.log_proba(rows.X, depth, harden=True).exp().numpy()
        pi = np.eye(pi.shape[1])[pi.argmax(1)]
        for k, share in enumerate(pi.T):
            coef, gram = ridge(phi, weight * share)
            np.testing.assert_allclose(experts[depth].coef[k], coef, rtol=1e-8, atol=1e-9)
            R = experts[depth].factor[k].numpy()
            np.testing.assert_allclose(R.T @ R, gram, rtol=1e-10, atol=1e-10)
    chosen = np.zeros(len(X))
    if first:
        chosen = tree.log_proba(rows.X, first - 1, harden=True).argmax(1).numpy()
    for depth in range(first, 3):
        upper = PartitionTree(1, tree.levels[: depth + 1])
        inside = upper.log_below(rows.X, first).exp().numpy()
        for g, leaves in enumerate(members_of(upper, first)):
            own = chosen == g
            A = np.hstack([inside[:, k : k + 1] * phi for k in leaves])
            coef, gram = ridge(A, weight * own)
            got = experts[depth].coef[leaves].reshape(-1, 2)
            np.testing.assert_allclose(got, coef, rtol=1e-6, atol=1e-6)
            R, size = experts[depth].factor[g].numpy(), len(gram)
            np.testing.assert_allclose(R[:size, :size].T @ R[:size, :size], gram, atol=1e-10)
            np.testing.assert_array_equal(R[size:], np.eye(len(R))[size:])
            np.testing.assert_array_equal(R[:, size:], np.eye(len(R))[:, size:])


@pytest.mark.parametrize("first", [0, 1])
def test_coarse_levels_of_a_blend_add_up_as_its_leaves_do(first):
    tree, X = three_levels(), np.random.default_rng(5).random((80, 1))
    rows = rows_of(X, np.sin(6 * X[:, 0]))
    experts, _ = fit_experts_to_gates(rows, tree, 1, 1e-6, first)
    mixture = Mixture(tree, experts, 1, first)
    for level in range(first, 2):
        coarse = mixture.at(level)
        assert coarse.first_blended == first
        parts = coarse.components(rows.X)
        # One component for each blend: none of several that lie apart.
        assert parts.mean.shape[1] == (2 if first else 1)
        pi = tree.log_proba(rows.X, level).exp()
        phi = TotalDegreePolynomials(1, 1).matrix(rows.X)
        summed = torch.einsum("nk,np,kpm->nm", pi, phi, experts[level].coef)
        torch.testing.assert_close(parts.expectation(), summed, rtol=1e-12, atol=1e-12)
        residual = (coarse.mean(rows.X) - rows.y).square().mean().sqrt()
        assert 0.3 < float(parts.variance.sqrt().mean() / residual) < 3


def test_noise_of_a_blend_is_found_where_it_is():
    # Two soft halves; the noise of the right one is ten times that of the left one.
    rng = np.random.default_rng(6)
    X = rng.random((2000, 1))
    scale = np.where(X[:, 0] < 0.5, 0.02, 0.2)
    y = np.sin(3 * X[:, 0]) + scale * rng.standard_normal(2000)
    gate = GateLevel(torch.tensor([0, 0]), tensor([[0.0, -200.0], [0.0, 200.0]]), 1)
    tree = PartitionTree(1, [gate])
    experts, _ = fit_experts_to_gates(rows_of(X, y), tree, 3, None, 0)
    parts = Mixture(tree, experts, 3, 0).components(tensor([[0.2], [0.8]]))
    np.testing.assert_allclose(parts.noise.sqrt().ravel(), [0.02, 0.2], rtol=0.15)
    assert (parts.epistemic.sqrt() < 0.3 * parts.noise.sqrt()).all()


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("alpha", [None, 1e-3, 0.0])
def test_parts_without_samples_leave_predictions_finite(first, alpha):
    tree, X = three_levels(), 0.4 * np.random.default_rng(7).random((60, 1))
    experts, _ = fit_experts_to_gates(rows_of(X, np.sin(X[:, 0])), tree, 1, alpha, first)
    mixture = Mixture(tree, experts, 1, first)
    parts = mixture.components(points(50, 1), harden=True)
    for values in (parts.expectation(), *parts.variances()):
        assert torch.isfinite(values).all()


@pytest.mark.parametrize("alpha", [None, 1e-3, 0.0])
def test_blended_piece_that_has_vanished_leaves_predictions_finite(alpha):
    gate = GateLevel(torch.tensor([0, 0, 0]), tensor([[0.0, 1.0], [0.0, -1.0], [-2e3, 0.0]]), 1)
    tree, X = PartitionTree(1, [gate]), np.random.default_rng(7).random((60, 1))
    experts, _ = fit_experts_to_gates(rows_of(X, np.sin(X[:, 0])), tree, 1, alpha, 0)
    parts = Mixture(tree, experts, 1, 0).components(points(50, 1))
    for values in (parts.expectation(), *parts.variances()):
        assert torch.isfinite(values).all()
