"""Logistic regression behind an encoder: coefficients, model and evidence by dense matrices."""

import math

import numpy as np
import pytest
import torch

from skpou.core.optim import projected_softmax
from skpou.core.optim.projected_softmax import LEAST_SPREAD, MOST_SPREAD
from skpou.core.rows import Rows
from skpou.neural_sparse_grids.encoders.encoder import EncoderDerivatives
from skpou.neural_sparse_grids.projected import classes
from skpou.neural_sparse_grids.projected.classes import EncodedClasses, first_class_ridges
from skpou.neural_sparse_grids.projected.rows import Ridges
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.solution import GIVEN_DECAY
from tests.neural_sparse_grids.projected.test_squares import make_encoder, make_rows

CLASSES = [2, 3]


def sample(K, n=40, hard=True, seed=0):
    rows = make_rows(n, str(K), seed)
    if not hard:
        return rows
    y = torch.nn.functional.one_hot(rows.y.argmax(1), K).double()
    return Rows(rows.X, y, rows.weight, 0 * y)


def make(rows, ridges=None, given=True, level=3, encoder=None):
    """The problem, and the encoder's parameters; no latent coordinate is pulled inwards."""
    encoder = encoder or make_encoder(rows.X, gain=0.6)
    encoded = EncoderDerivatives(encoder, rows.X)
    ridges = ridges or Ridges(0.03, 4.0, 1.0, 2.0)
    problem = EncodedClasses(encoded, SparseGrid(2, level), rows, ridges, given)
    return problem, encoder.body.theta.clone()


class Dense:
    """Coefficients by damped Newton steps, class after class, and matrices at the solution."""

    def __init__(self, problem, theta):
        rows, ridges = problem.rows, problem.ridges
        self.problem, self.theta = problem, theta
        self.Phi = problem.grid.matrix(problem.encoded.embed(theta).u).numpy()
        self.w, self.t = rows.weight.numpy(), rows.y.numpy()
        self.K, self.G = self.t.shape[1], self.Phi.shape[1]
        share = self.w @ self.t + 1
        self.offset = np.log(share / share.sum())
        growth = np.repeat(ridges.decay ** problem.grid.costs(), self.K)
        self.penalty = ridges.alpha**2 * self.w.sum() * growth
        # Columns of all logits by all coefficients, (n, K, G K).
        self.A = np.einsum("ng,kl->nkgl", self.Phi, np.eye(self.K)).reshape(-1, self.K, growth.size)
        c = np.zeros(growth.size)
        for _ in range(200):
            value, gradient, H = self.derivatives(c)
            step = np.linalg.solve(H + np.diag(self.penalty), gradient)
            if gradient @ step < 1e-13 * value:
                break
            while self.derivatives(c - step)[0] > value:
                step /= 2
            c = c - step
        self.value, _, self.H = self.derivatives(c)
        self.coef = c.reshape(self.G, self.K)
        self.size = c @ (growth * c)

    def logits(self, c):
        z = self.offset + self.A @ c
        return z - z.max(1, keepdims=True)

    def curvature(self, pi):
        W = np.einsum("nk,kl->nkl", pi, np.eye(self.K)) - np.einsum("nk,nl->nkl", pi, pi)
        return self.w[:, None, None] * W

    def derivatives(self, c):
        z = self.logits(c)
        log_pi = z - np.log(np.exp(z).sum(1, keepdims=True))
        pi = np.exp(log_pi)
        value = -(self.w @ (self.t * log_pi).sum(1)) + self.penalty @ c**2 / 2
        slope = self.w[:, None] * (pi - self.t)
        gradient = np.einsum("nk,nkp->p", slope, self.A) + self.penalty * c
        H = np.einsum("nkp,nkl,nlq->pq", self.A, self.curvature(pi), self.A, optimize=True)
        return value, gradient, H

    def log_det(self):
        """That of ``I + H / penalty``, in columns whitened by the ridge."""
        root = np.sqrt(self.penalty)
        return np.linalg.slogdet(np.eye(root.size) + self.H / root / root[:, None])[1]

    def spent(self):
        return np.trace(np.linalg.solve(self.H + np.diag(self.penalty), self.H))

    def gram(self):
        """Gauss-Newton matrix of the encoder's parameters, the coefficients projected off."""
        step, problem, coef = 1e-6, self.problem, torch.tensor(self.coef)

        def functions(theta):
            return problem.grid.evaluate(problem.encoded.embed(theta).u, coef)

        unit = step * torch.eye(len(self.theta), dtype=torch.float64)
        parts = [functions(self.theta + e) - functions(self.theta - e) for e in unit]
        J = (torch.stack(parts, 2) / (2 * step)).numpy()
        z = self.logits(self.coef.reshape(-1))
        pi = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        both = np.concatenate([self.A, J], 2)
        M = np.einsum("nkp,nkl,nlq->pq", both, self.curvature(pi), both, optimize=True)
        p = self.penalty.size
        M[range(p), range(p)] += self.penalty
        return M[p:, p:] - M[p:, :p] @ np.linalg.solve(M[:p, :p], M[:p, p:])


def bare(problem, fit):
    """Value without what holds the encoder."""
    return fit.value - problem.penalised(0.0, fit.theta, fit.embedding)


# Coefficients


@pytest.mark.parametrize("K", CLASSES)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.03, 1e-3, 1e-5])
def test_coefficients_minimise_the_objective(K, hard, alpha):
    problem, theta = make(sample(K, hard=hard), Ridges(alpha, 4.0, 1.0, 2.0))
    expected = Dense(problem, theta)
    fit = problem.solve(theta)
    assert bare(problem, fit) == pytest.approx(2 * expected.value, rel=1e-6)
    pi = np.exp(expected.logits(expected.coef.reshape(-1)))
    np.testing.assert_allclose(fit.pi, pi / pi.sum(1, keepdims=True), rtol=0, atol=2e-3)
    nll = expected.value - expected.penalty @ expected.coef.reshape(-1) ** 2 / 2
    assert problem.loss(fit) == pytest.approx(nll / expected.w.sum(), rel=1e-2)
    assert fit.rms() == pytest.approx(math.sqrt(2 * problem.loss(fit)))


@pytest.mark.parametrize("K", CLASSES)
@pytest.mark.parametrize("alpha", [1e-2, 1e-5, 1e-6, 0.0])
def test_solution_does_not_depend_on_earlier_ones(K, alpha):
    """Where the last coefficients are far off, saturated rows have no curvature to start from."""
    for seed in range(2):
        rows, ridges = sample(K, 60, seed=seed), Ridges(alpha, 4.0, 1.0, 2.0)
        encoder, rng = make_encoder(rows.X, gain=1.0), np.random.default_rng(seed)
        problem, theta = make(rows, ridges, level=4, encoder=encoder)
        for _ in range(4):
            found = problem.solve(theta).value
            expected = make(rows, ridges, level=4, encoder=encoder)[0].solve(theta).value
            assert found == pytest.approx(expected, rel=1e-4)
            theta = theta + 0.3 * torch.tensor(rng.standard_normal(len(theta)))


@pytest.mark.parametrize("K", CLASSES)
def test_parameters_that_are_not_finite_leave_the_last_coefficients(K):
    problem, theta = make(sample(K))
    problem.solve(theta)
    before = problem.last.clone()
    assert problem.solve(theta * math.inf).value == math.inf
    assert torch.equal(problem.last, before)


# Model


@pytest.mark.parametrize("K", CLASSES)
@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_model_is_the_projected_gauss_newton_matrix(K, alpha, monkeypatch):
    monkeypatch.setattr(classes, "NEWTON_TOL", 1e-14)
    problem, theta = make(sample(K, hard=False), Ridges(alpha, 4.0, 1.0, 2.0))
    fit = problem.solve(theta)
    model = problem.linearise(fit)
    expected = Dense(problem, theta).gram()
    np.testing.assert_allclose(model.gram, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert model.weight == 0.5


@pytest.mark.parametrize("K", CLASSES)
def test_model_in_blocks(K, monkeypatch):
    problem, theta = make(sample(K, 50))
    fit = problem.solve(theta)
    whole = problem.linearise(fit)
    monkeypatch.setattr(projected_softmax, "JACOBIAN_NUMBERS", 1000)
    part = problem.linearise(fit)
    torch.testing.assert_close(part.gram, whole.gram)
    torch.testing.assert_close(part.pull, whole.pull)


# Evidence


@pytest.mark.parametrize("K", CLASSES)
@pytest.mark.parametrize("alpha", [0.3, 0.03, 1e-3, 1e-6])
def test_evidence_of_laplace(K, alpha):
    problem, theta = make(sample(K, hard=False), Ridges(alpha, 4.0, 1.0, 2.0))
    fit = problem.solve(theta)
    model = problem.linearise(fit)
    expected = fit.value + Dense(problem, theta).log_det()
    gram, eye = model.gram.numpy(), np.eye(len(theta))
    expected += np.linalg.slogdet(eye + gram / model.weight)[1]
    after = problem.adapt(fit)
    assert after.score == pytest.approx(expected, abs=2e-2)
    inverse = np.linalg.inv(gram + model.weight * eye)
    assert after.determined == pytest.approx(np.trace(gram @ inverse), rel=1e-6)


@pytest.mark.parametrize("K", CLASSES)
def test_evidence_without_a_ridge_is_finite(K):
    problem, theta = make(sample(K), Ridges(0.0, 4.0, 1.0, 2.0))
    after = problem.adapt(problem.solve(theta))
    assert math.isfinite(after.score)
    assert math.isfinite(after.value)


@pytest.mark.parametrize("K", CLASSES)
@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_ridges_after_mackay(K, alpha):
    problem, theta = make(sample(K, hard=False), Ridges(alpha, 16.0, 1.0, 2.0), given=False)
    dense = Dense(problem, theta)
    after = problem.adapt(problem.solve(theta))
    expected = math.sqrt(dense.spent() / dense.size / dense.w.sum())
    assert problem.ridges.alpha == pytest.approx(min(expected, 1.0), rel=1e-3)
    assert problem.ridges.decay == 16
    spread = float(theta @ theta) / after.determined
    assert problem.ridges.spread == pytest.approx(min(max(spread, LEAST_SPREAD), MOST_SPREAD))
    # The fit that is returned is the one for them.
    again = problem.solve(theta)
    assert after.value == pytest.approx(again.value, rel=1e-6)


def test_given_ridge_stays():
    problem, theta = make(sample(3), Ridges(0.07, 4.0, 1.0))
    fit = problem.adapt(problem.solve(theta))
    chosen = {"alpha": 0.07, "decay": 4.0, "spread": problem.ridges.spread}
    assert problem.head_of(fit)["chosen"] == chosen
    assert problem.head_of(fit)["coef"] is fit.coef
    assert first_class_ridges(0.5) == Ridges(0.5, GIVEN_DECAY, 1.0)


# Invariances


@pytest.mark.parametrize("K", CLASSES)
def test_order_of_rows_and_of_classes_does_not_matter(K):
    rows = sample(K)
    encoder = make_encoder(rows.X, gain=0.6)
    problem, theta = make(rows, given=False, encoder=encoder)
    expected = problem.adapt(problem.solve(theta))
    rng = np.random.default_rng(0)
    order, classes = torch.tensor(rng.permutation(40)), torch.arange(K).flip(0)
    y = rows.y[order][:, classes]
    other = Rows(rows.X[order], y, rows.weight[order], 0 * y)
    second, _ = make(other, given=False, encoder=encoder)
    found = second.adapt(second.solve(theta))
    assert found.score == pytest.approx(expected.score, rel=1e-5)
    assert second.ridges.alpha == pytest.approx(problem.ridges.alpha, rel=1e-4)
    torch.testing.assert_close(found.pi, expected.pi[order][:, classes], rtol=0, atol=1e-3)


@pytest.mark.parametrize("K", CLASSES)
def test_weights_are_repetitions(K):
    rows = sample(K, 25)
    count = torch.tensor(np.random.default_rng(0).integers(1, 4, 25))
    encoder = make_encoder(rows.X, gain=0.6)
    one = Rows(rows.X, rows.y, count.double(), 0 * rows.y)
    X, y = (part.repeat_interleave(count, 0) for part in (rows.X, rows.y))
    many = Rows(X, y, torch.ones(len(X)).double(), 0 * y)
    fits = []
    for part in (one, many):
        problem, theta = make(part, given=False, encoder=encoder)
        fit = problem.solve(theta)
        error = problem.error(encoder, fit, part)
        assert error == pytest.approx(fit.loss, rel=1e-9)
        fit = problem.adapt(fit)
        fits.append([fit.value, fit.score, fit.determined, fit.loss, problem.ridges.alpha, error])
    np.testing.assert_allclose(*fits, rtol=1e-5)


@pytest.mark.parametrize("K", CLASSES)
def test_error_on_rows_held_out(K):
    problem, theta = make(sample(K))
    held_out = sample(K, 15, hard=False, seed=7)
    fit = problem.solve(theta)
    encoder = problem.encoded.encoder
    logits = problem.grid.matrix(encoder(held_out.X)) @ fit.coef + problem.offset
    terms = (held_out.y * torch.log_softmax(logits, 1)).sum(1)
    expected = -float(held_out.weight @ terms / held_out.weight.sum())
    assert problem.error(encoder, fit, held_out) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "K"), [(1, 2), (1, 3), (2, 3), (5, 1), (5, 4)])
def test_few_rows_and_classes(n, K):
    y = torch.eye(K, dtype=torch.float64)[torch.arange(n) % K]
    rows = sample(2, n)
    problem, theta = make(Rows(rows.X, y, rows.weight, 0 * y), given=False)
    fit = problem.solve(theta)
    for _ in range(3):
        fit = problem.adapt(fit)
        assert math.isfinite(fit.score)
        step, promise = problem.linearise(fit).step(1.0)
        assert promise >= 0
        assert bool(torch.isfinite(step).all())
        # What is determined is no more than what the rows could say.
        assert 0 <= fit.determined <= n * max(K - 1, 0) + 1e-6


def test_coarser_grid_keeps_the_first_coefficients():
    problem, theta = make(sample(3), level=4)
    problem.solve(theta)
    coarse = problem.on_grid(problem.encoded, SparseGrid(2, 2), problem.rows)
    assert torch.equal(coarse.last, problem.last[: SparseGrid(2, 2).n_columns])
    expected = make(sample(3), level=2)[0].solve(theta).value
    assert coarse.solve(theta).value == pytest.approx(expected, rel=1e-6)
