"""Expectation maximization over rows in blocks."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor
from skpou.core import Rows
from skpou.partitions.mixtures.em import EMOptions, fit_em
from skpou.partitions.mixtures.experts import soft_experts
from skpou.partitions.mixtures.likelihood import log_normal, posterior
from skpou.partitions.mixtures.streamed import StreamedEM, fit_streamed_em
from skpou.partitions.pieces.problem import PieceProblem


def rows_of(n, seed=0):
    rng = np.random.default_rng(seed)
    X = torch.as_tensor(rng.random((n, 2)))
    y = (X[:, :1] - X[:, 1:]).abs() + 0.05 * torch.as_tensor(rng.standard_normal((n, 1)))
    weight = torch.as_tensor(rng.integers(1, 4, n).astype(float))
    return Rows(X, 3 * y, weight, torch.zeros_like(y))


def in_blocks(rows, size):
    def blocks():
        for start in range(0, rows.n_rows, size):
            yield rows.subset(torch.arange(start, min(start + size, rows.n_rows)))

    return blocks


SAMPLE, ALL = rows_of(150), rows_of(1000, 1)


@pytest.fixture(scope="module", params=["after", "em"])
def options(request):
    return EMOptions(sizes=(2, 3), degree=1, max_iter=8, noise=request.param)


@pytest.fixture(scope="module")
def found(options):
    return fit_em(SAMPLE, options, np.random.default_rng(0))


def test_sums_of_blocks_are_those_of_all_rows(options, found):
    """Loss, residual and experts as they follow from all rows at once."""
    em = StreamedEM(in_blocks(ALL, 170), PieceProblem(SAMPLE, 1), found, options)
    sums, problem = em._sums(), PieceProblem(ALL, 1)
    tree = found.state.tree
    means = torch.einsum("np,kpm->nkm", problem.polynomials, em.coef[-1])
    log_pi = tree.log_proba(ALL.X)
    share, density = posterior(log_pi + log_normal(ALL.y, means, em.variance[-1]))
    total = ALL.weight.sum()
    assert sums.loss() == pytest.approx(-float(ALL.weight @ density / total), rel=1e-12)
    residual = ALL.y - torch.einsum("nk,nkm->nm", log_pi.exp(), means)
    square = float(ALL.weight @ residual.square()[:, 0] / total)
    assert sums.rms() == pytest.approx(square**0.5, rel=1e-12)
    expected = soft_experts(problem, share, 1e-8)[0]
    em.options = EMOptions(sizes=(2, 3), degree=1, alpha=1e-8)
    experts = em._result(0.0, sums, [gate.theta for gate in em.gates], [0.0]).state.experts[-1]
    torch.testing.assert_close(experts.coef, expected.coef, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(experts.noise, expected.noise, rtol=1e-8, atol=1e-12)


def test_a_step_on_the_gates_goes_uphill(options, found):
    em = StreamedEM(in_blocks(ALL, 170), PieceProblem(SAMPLE, 1), found, options)
    losses = []
    for _ in range(3):
        sums = em._sums()
        losses.append(sums.loss())
        em._search(sums)
    assert losses[0] > losses[1] > losses[2]


def test_blocks_do_not_matter_and_cycles_fit_all_rows(options, found):
    problem = PieceProblem(SAMPLE, 1)
    results = [
        fit_streamed_em(in_blocks(ALL, size), problem, found, options) for size in (90, 1000)
    ]
    fresh = rows_of(400, 2)
    mean = [result.state.mean(fresh.X) for result in results]
    torch.testing.assert_close(*mean, rtol=1e-6, atol=1e-6)

    def error(state):
        return float((fresh.y - state.mean(fresh.X)).square().mean())

    assert error(results[0].state) < error(found.state)


def test_rows_on_disk_are_the_rows_in_memory(tmp_path):
    """Of fewer rows than a sample has, all are the sample: then cycles go on from its fit."""
    rng = np.random.default_rng(4)
    X = rng.uniform(-5, 5, (300, 2))
    y = np.abs(X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(300)
    np.save(tmp_path / "rows.npy", X)
    model = HierarchicalPOURegressor(
        (2, 2), 1, solver="em", init="box", noise="em", max_iter=40, batch_size=64
    )
    with pytest.warns(match="max_iter=40"):
        predictions = [
            model.fit(rows, y).predict(X, return_std=True)
            for rows in (np.load(tmp_path / "rows.npy", mmap_mode="r"), X)
        ]
    errors = [np.sqrt(np.mean((mean - y) ** 2)) for mean, _ in predictions]
    assert errors[0] < 1.1 * errors[1] and errors[0] < 0.2
    mean, std = predictions[0]
    assert 0.93 < (np.abs(mean - y) < 2 * std).mean() < 0.99


def test_more_rows_on_disk_than_a_sample_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("skpou.core.sample.MOST_ROWS", 200)
    rng = np.random.default_rng(5)
    X = np.memmap(tmp_path / "rows", float, "w+", shape=(3000, 2))
    X[:] = rng.random((3000, 2))
    truth = np.column_stack([X[:, 0] * X[:, 1], X[:, 0] ** 2])
    y = truth + 0.2 * rng.standard_normal(truth.shape)
    few = np.random.default_rng(0).choice(3000, 200, replace=False)
    model = HierarchicalPOURegressor(
        2, 2, solver="em", gate="linear", max_iter=60, batch_size=500, alpha=1e-6
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = model.fit(X, y).predict(np.asarray(X))
        part = model.fit(np.asarray(X[few]), y[few]).predict(np.asarray(X))
    # The experts hold the truth: what is left is noise, of fifteen times as many rows.
    assert np.sqrt(np.mean((whole - truth) ** 2)) < 0.5 * np.sqrt(np.mean((part - truth) ** 2))
    assert model.n_features_in_ == 2
