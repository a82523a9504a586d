"""Expectation maximization in V-cycles: monotone steps, restarts of partitions, what it reaches."""

import dataclasses

import numpy as np
import pytest
import torch

import skpou.partitions.mixtures.em as module
from skpou.core.linalg import statistics
from skpou.partitions.gates.tree import GateForm, NetworkForm
from skpou.partitions.mixtures.em import EMOptions, affordable_degree, fit_em
from skpou.partitions.mixtures.likelihood import log_normal, marginalise
from tests.contracts import DTYPES, TrainingContract, same_bits
from tests.examples import evidence_lower_bound, kink, relative_rms, rows_of, slow, tensor, wave

LINEAR, QUADRATIC, NETWORK = GateForm(1), GateForm(2), NetworkForm((6, 6))
QUICK = EMOptions(sizes=(3,), degree=1, form=LINEAR, max_iter=20)


def kinked_rows(n=150, noise=1e-2, seed=0, outputs=1):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    y = kink(X)[:, None] * np.arange(1, outputs + 1) + noise * rng.standard_normal((n, outputs))
    return rows_of(X, y / np.sqrt(np.mean(y**2, 0)))


def start(rows, seed=0, options=QUICK, **changes):
    """State of a training before its first cycle."""
    options = dataclasses.replace(options, **changes)
    return module._EM(rows, options, np.random.default_rng(seed), None, None)


def run(rows, seed=0, options=QUICK, **changes):
    return fit_em(rows, dataclasses.replace(options, **changes), np.random.default_rng(seed))


class TestLinearGates(TrainingContract):
    options = EMOptions(sizes=(2, 2), degree=1, form=LINEAR, max_iter=12)

    def make_rows(self, order=None, times=1, dtype=torch.float64):
        rng = np.random.default_rng(0)
        X = rng.random((60, 2))
        y = kink(X) + 1e-2 * rng.standard_normal(60)
        order = np.arange(60) if order is None else order
        return rows_of(np.tile(X[order], (times, 1)), np.tile(y[order], times), None, dtype)

    def run(self, rows, rng, report=None):
        return fit_em(rows, self.options, rng, report=report)


class TestNetworks(TestLinearGates):
    options = EMOptions(sizes=(2, 2), degree=1, form=NETWORK, noise="em", max_iter=12)


class TestBatches(TestLinearGates):
    options = EMOptions(sizes=(3,), degree=2, form=NETWORK, batch_size=16, max_iter=12)


class TestThreeLevels(TestLinearGates):
    options = EMOptions(
        sizes=(2, 1, 2), form=QUADRATIC, smoothing=(1, 2, 1), noise="anneal", max_iter=12
    )


# Steps


@pytest.mark.parametrize("noise", ["after", "em"])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("form", [LINEAR, QUADRATIC, GateForm(2, isotropic=True)], ids=repr)
def test_bound_rises_in_every_step(form, outputs, noise):
    """E-step, least squares, Eq. 18 and gates each raise Eq. 12, and the likelihood follows."""
    em = start(kinked_rows(outputs=outputs), form=form, noise=noise)
    rows = em.problem.rows

    def bound(share):
        mean = em._means(0, slice(None))
        joint = em.log_partitions(0) + log_normal(rows.y, mean, em.variance[0])
        return evidence_lower_bound(share, joint, rows.weight)

    share = torch.full((em.problem.n, 3), 1 / 3).double()
    values = [bound(share)]
    for _ in range(15):
        share, density, _ = em.expectation(0)
        values.append(bound(share))
        assert values[-1] == pytest.approx(float(rows.weight @ density), rel=1e-12)
        em.fit_experts(0, share)
        values.append(bound(share))
        em._step_gates(0, 0, share)
        values.append(bound(share))
    assert values[-1] > values[0] + 1
    assert np.diff(values).min() > -1e-9 * abs(values[-1])


def test_experts_of_a_level_are_weighted_least_squares():
    em = start(kinked_rows(outputs=2), noise="em", degree=2)
    share = em.expectation(0)[0]
    em.fit_experts(0, share)
    phi, y = em.problem.polynomials.numpy(), em.problem.rows.y.numpy()
    weight = em.problem.rows.weight.numpy()
    for k in range(3):
        root = np.sqrt(weight * share[:, k].numpy())[:, None]
        coef = np.linalg.lstsq(root * phi, root * y, rcond=None)[0]
        np.testing.assert_allclose(em.coef[0][k], coef, rtol=1e-9, atol=1e-11)  # Eq. 17
        square = ((root * (y - phi @ coef)) ** 2).sum(0) / (root**2).sum()
        np.testing.assert_allclose(em.variance[0][k], square, rtol=1e-9)  # Eq. 18


def test_moments_of_a_coarse_partition_are_the_sums_of_its_childrens():
    """Eq. 36 with the weights of Eq. 35: the coarse normal equations add up the fine ones."""
    em = start(kinked_rows(), sizes=(2, 3))
    A, parent = em.problem.weighted, em.tree.levels[1].parent
    share = em.expectation(1)[0]
    fine = torch.einsum("na,nk,nb->kab", A, share, A)
    coarse = torch.einsum("na,nk,nb->kab", A, marginalise(share, parent), A)
    expected = torch.zeros_like(coarse).index_add_(0, parent, fine)
    torch.testing.assert_close(coarse, expected, rtol=1e-12, atol=1e-13)


def recorded_cycle(monkeypatch, **changes):
    """What a V-cycle does, in order."""
    em, log = start(kinked_rows(), **changes), []
    expectation, fit, step = em.expectation, em.fit_experts, em._step_gates
    monkeypatch.setattr(em, "expectation", lambda k: (log.append(f"E{k}"), expectation(k))[1])
    monkeypatch.setattr(em, "fit_experts", lambda k, w: (log.append(f"M{k}"), fit(k, w))[1])
    monkeypatch.setattr(
        em, "_step_gates", lambda k, s, w: (log.append(f"G{k}<{s}"), step(k, s, w))[1]
    )
    em.v_cycle(em.finest)
    return " ".join(log)


@pytest.mark.parametrize(
    ("sizes", "smoothing", "expected"),
    [
        ((3,), (0, 1, 1), "E0 M0 G0<0"),
        ((3,), (1, 0, 1), "E0 M0 G0<0"),
        ((2, 2), (0, 1, 1), "E1 G0<1 E0 M0 G0<0 E1 M1 G1<1"),
        ((2, 2), (1, 2, 0), "E1 M1 G1<1 E1 G0<1 E0 M0 G0<0 E0 M0 G0<0"),
        ((2, 1, 2), (0, 1, 1), "E2 G1<2 E1 G0<1 E0 M0 G0<0 E1 M1 G1<1 E2 M2 G2<2"),
    ],
    ids=str,
)
def test_order_of_a_cycle_is_that_of_algorithm_1(monkeypatch, sizes, smoothing, expected):
    assert recorded_cycle(monkeypatch, sizes=sizes, smoothing=smoothing) == expected


def test_momenta_of_the_levels_are_separate():
    em = start(kinked_rows(), form=NETWORK, sizes=(2, 2))
    em.v_cycle(1)
    # The restriction uses the coarse level's optimiser.
    assert [step._adam.n_steps for step in em.steps] == [2, 1]


def test_batches_go_through_all_rows_once(monkeypatch):
    em = start(kinked_rows(100), form=NETWORK, sizes=(2, 2), batch_size=30)
    seen = []
    for step in em.steps:
        moved = step.step_on
        monkeypatch.setattr(
            step, "step_on", lambda index, *a, moved=moved: (seen.append(index), moved(index, *a))
        )
    em.relax(1)
    assert [len(index) for index in seen] == [30, 30, 30, 10]
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(100))
    assert em.steps[1]._adam.n_steps == 4


def test_blocks_of_rows_do_not_matter(monkeypatch):
    rows = kinked_rows(200)
    expected = run(rows, sizes=(2, 2))
    for place in (module, statistics):
        monkeypatch.setattr(place, "rows_within", lambda *_: 17)
    got = run(rows, sizes=(2, 2))
    np.testing.assert_allclose(got.curve, expected.curve, rtol=1e-9)


# Weights


def test_pairs_of_equal_points_keep_their_own_posteriors():
    """Two targets at every point: two constants stay where they are, means would join them."""
    X = np.repeat(np.linspace(0, 1, 30)[:, None], 2, axis=0)
    y = np.tile([-1.0, 1.0], 30) + 0.1 * np.random.default_rng(1).standard_normal(60)
    em = start(rows_of(X, y), sizes=(2,), degree=0, noise="em")
    em.coef[0] = tensor([-1.0, 1.0]).reshape(2, 1, 1)
    em.variance[0].fill_(0.1)
    for _ in range(10):
        em.relax(0)
    np.testing.assert_allclose(em.coef[0][:, 0, 0], [y[::2].mean(), y[1::2].mean()], atol=1e-6)
    np.testing.assert_allclose(em.variance[0][:, 0], [y[::2].var(), y[1::2].var()], rtol=1e-4)
    np.testing.assert_allclose(em.log_partitions(0).exp(), 0.5, atol=0.05)


@pytest.mark.parametrize("form", [LINEAR, NETWORK], ids=["linear", "network"])
def test_weights_equal_repeated_rows(form):
    rng = np.random.default_rng(0)
    X, weight = rng.random((40, 2)), rng.integers(0, 4, 40)
    X[:10] = X[10:20]
    y = kink(X) + 0.1 * rng.standard_normal(40)
    order = rng.permutation(np.repeat(np.arange(40), weight))
    weighted = run(rows_of(X, y, weight), form=form)
    repeated = run(rows_of(X[order], y[order]), form=form)
    query = tensor(rng.random((20, 2)))
    first, second = (result.state.components(query) for result in (weighted, repeated))
    for name in ("log_pi", "mean", "noise", "epistemic"):
        assert same_bits(getattr(first, name), getattr(second, name)), name


# Starved partitions, non-finite losses


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("noise", ["after", "em", "anneal"])
@pytest.mark.parametrize("form", [QUADRATIC, NETWORK], ids=["quadratic", "network"])
def test_more_coefficients_than_rows(n, noise, form):
    result = run(kinked_rows(n), form=form, sizes=(2, 3), degree=2, noise=noise)
    query = tensor(np.random.default_rng(0).random((30, 2)))
    parts = result.state.components(query)
    for name in ("log_pi", "mean", "noise", "epistemic"):
        assert torch.isfinite(getattr(parts, name)).all(), name


@pytest.mark.parametrize("form", [LINEAR, NETWORK], ids=["linear", "network"])
def test_starved_partition_gets_half_of_the_worst_sibling(form):
    em = start(kinked_rows(), form=form)
    em.steps[0].gate.theta[1, 0] -= 200.0
    em.steps[0].refresh()
    mass = em.problem.rows.weight @ em.expectation(0)[0]
    assert mass[1] < 1e-9
    em.revive()
    after = em.problem.rows.weight @ em.expectation(0)[0]
    assert after[1] > 10
    assert torch.equal(em.coef[0][1], em.coef[0][0]) or torch.equal(em.coef[0][1], em.coef[0][2])
    for _ in range(5):
        em.v_cycle(0)
    assert all(np.isfinite(em.evaluate()))


def test_empty_partition_without_revival_is_harmless(monkeypatch):
    monkeypatch.setattr(module._EM, "revive", lambda self: None)
    em = start(kinked_rows(), noise="em")
    em.steps[0].gate.theta[1, 0] -= 1e5
    em.steps[0].refresh()
    result = em.run()
    assert np.isfinite(result.curve).all()
    assert torch.isfinite(result.state.experts[0].coef).all()
    assert torch.isfinite(result.state.experts[0].factor).all()


def test_last_finite_state_is_restored():
    result = run(kinked_rows(), form=NETWORK, learning_rate=1e308)
    assert result.code == "non_finite"
    assert "not finite" in result.message
    assert np.isfinite(result.curve).all()
    assert np.isfinite(result.score)
    query = tensor(np.random.default_rng(0).random((30, 2)))
    assert torch.isfinite(result.state.components(query).expectation()).all()


# Results


def test_best_cycle_is_returned(monkeypatch):
    em = start(kinked_rows(), form=NETWORK, max_iter=40)
    scripted, seen = iter([3.0, 1.0, 2.0, *range(4, 50)]), []

    def evaluate():
        seen.append(em.steps[0].gate.theta.clone())
        return 0.5, next(scripted)

    monkeypatch.setattr(em, "evaluate", evaluate)
    em.best.score = np.inf
    result = em.run()
    assert result.score == 1.0
    assert torch.equal(result.state.tree.levels[0].theta, seen[1])
    assert (result.code, result.n_iter) == ("max_iter", 40)
    assert "max_iter=40" in result.message


def test_noise_in_every_cycle_is_judged_by_the_likelihood():
    em = start(kinked_rows(), form=NETWORK, learning_rate=0.5, noise="em", max_iter=40)
    assert em.run().score == min(em.curve)


@pytest.mark.slow
def test_smooth_progress_stops_the_training():
    result = run(kinked_rows(noise=0.1), max_iter=1000)
    assert result.code == "converged"
    assert not result.message
    assert 20 < result.n_iter < 1000
    assert run(kinked_rows(), tol=0.5, max_iter=100).n_iter == 1


def test_cycles_go_on_where_no_change_is_asked_for():
    ends = [
        run(kinked_rows(noise=0.1), max_iter=150, tol=0.0, least_change=change)
        for change in (0.3, 0.1, 0.0)
    ]
    assert ends[0].n_iter < ends[1].n_iter < 150
    assert (ends[2].n_iter, ends[2].code) == (150, "max_iter")
    assert ends[2].curve[: ends[1].n_iter] == ends[1].curve


def test_noise_is_that_of_each_partition():
    rng = np.random.default_rng(0)
    X = rng.random((800, 1))
    level = np.where(X[:, 0] < 0.5, 0.02, 0.2)
    y = np.where(X[:, 0] < 0.5, -1, 1) + level * rng.standard_normal(800)
    for noise in ("after", "em", "anneal"):
        result = run(rows_of(X, y), sizes=(2,), noise=noise, max_iter=200)
        found = sorted(result.state.experts[0].noise[:, 0].sqrt().tolist())
        np.testing.assert_allclose(found, [0.02, 0.2], rtol=0.25)


@pytest.mark.parametrize(
    ("sizes", "form", "seed"),
    [((3,), QUADRATIC, 0), *slow(((3,), LINEAR, 0), ((3,), LINEAR, 1), ((3, 2), LINEAR, 1))],
    ids=str,
)
def test_falling_sigma_finds_the_pieces_of_a_wave(sizes, form, seed):
    X = np.random.default_rng(seed).random((300, 1))
    rows = rows_of(X, wave(3)(X) / np.sqrt(np.mean(wave(3)(X) ** 2)))
    options = EMOptions(sizes=sizes, degree=2, form=form, max_iter=200)
    falling = run(rows, seed, options, noise="anneal")
    assert falling.code == "converged"
    assert falling.score < 1e-4
    assert run(rows, seed, options).score > 10 * falling.score


def test_fall_that_is_too_fast_is_said():
    result = run(kinked_rows(), noise="anneal", max_iter=20)
    assert result.code == "max_iter"
    assert "max_iter=20" in result.message


@pytest.mark.slow
def test_networks_learn_a_bump():
    def bump(X):
        return np.exp(-0.5 * ((X[:, 0] - 0.5) / 0.05) ** 2)

    X = np.linspace(0, 1, 200)[:, None]
    options = EMOptions(sizes=(3, 2), form=NetworkForm(), learning_rate=0.02, max_iter=400)
    result = run(rows_of(X, bump(X)), options=options)
    assert relative_rms(result.state, bump, 1) < 0.1


@pytest.mark.parametrize("dtype", [DTYPES[0], *slow(*DTYPES[1:])])
def test_three_levels_predict_on_each(dtype):
    rng = np.random.default_rng(0)
    X = rng.random((300, 1))
    rows = rows_of(X, np.sin(9 * X[:, 0]), None, dtype)
    result = run(rows, sizes=(2, 2, 2), degree=1, max_iter=60)
    error = [
        float((result.state.at(level).components(rows.X).expectation() - rows.y).square().mean())
        for level in range(3)
    ]
    assert error[2] < error[1] < error[0]


@pytest.mark.parametrize(
    ("n", "d", "N", "expected"),
    [(1000, 2, 8, 2), (48, 2, 8, 2), (47, 2, 8, 1), (24, 2, 8, 1), (23, 2, 8, 0), (1, 0, 4, 0)],
)
def test_degree_that_rows_can_determine(n, d, N, expected):
    assert affordable_degree(n, d, N) == expected


@pytest.mark.parametrize("outputs", [1, 2])
def test_sums_of_products_are_what_many_rows_need(monkeypatch, outputs):
    """The same cycles, until a fit is so close that products lose it."""
    noisy, fresh = kinked_rows(400, outputs=outputs), torch.rand((50, 2), dtype=torch.float64)
    found = [run(noisy, max_iter=12).state.mean(fresh)]
    monkeypatch.setattr(module, "MANY_ROWS", 0)
    found.append(run(noisy, max_iter=12).state.mean(fresh))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)
    assert not start(noisy).exact[0].any()
    exact = start(rows_of(np.linspace(0, 1, 60)[:, None], np.linspace(-1, 1, 60)))
    assert exact.exact[0].all()
    exact.relax(0)
    assert exact.evaluate()[1] < 1e-14
