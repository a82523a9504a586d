"""The local block as a family of the search in stages."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.core import BASES
from skpou.core.models import LocalBlock, LocalKernel
from skpou.core.models.local_block import N_NEAREST
from skpou.multi_stage.families.local import JointErrors, LocalBlocks
from skpou.search import AutomaticOptions, Seen, Stages, Task, fit_automatic
from skpou.search.polynomials import Polynomials
from tests.examples import rows_of, tensor

#: What each of the levels of a column adds: no polynomial tells.
STEPS = np.random.default_rng(9).standard_normal(30)


def rough(X):
    """A line along one column, and steps along another one."""
    return X[:, 0] + STEPS[np.minimum((30 * X[:, 1]).astype(int), 29)]


def points(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    X[:, 1] = (np.floor(30 * X[:, 1]) + 0.5) / 30
    return X


def sample(function, n=600, noise=0.2, seed=0):
    X = points(n, seed)
    y = function(X) + noise * np.random.default_rng(seed + 50).standard_normal(n)
    return rows_of(X, (y - y.mean()) / y.std()), (y.mean(), y.std())


def searched(rows, *families):
    """Polynomials, and what else is tried."""
    options = AutomaticOptions(families=families, stages=Stages(fewest_rows=10_000))
    return fit_automatic(rows, options, np.random.default_rng(0))


@pytest.fixture(scope="module")
def found():
    """Unit of y, what polynomials alone and what both are."""
    rows, unit = sample(rough)
    return unit, searched(rows), searched(rows, LocalBlocks())


def test_rough_detail_is_told_by_the_nearest_rows(found):
    (mean, scale), alone, both = found
    assert [stage.basis.kind for stage in both.state.stages][1:] == ["local"]
    assert len(both.chosen["scale_factors"]) == 2
    fresh = points(1000, 1)
    truth = tensor((rough(fresh) - mean) / scale)
    errors = [
        float((result.state.mean(tensor(fresh))[:, 0] - truth).square().mean().sqrt())
        for result in (alone, both)
    ]
    assert errors[1] < 0.5 * errors[0]
    # Errors at left-out rows have the noise, too; bars are as wide as what is missed.
    expected = np.hypot(errors[1], 0.2 / scale)
    assert both.score == pytest.approx(expected, rel=0.15)
    components = both.state.components(tensor(fresh))
    total = float((components.noise + components.epistemic).mean().sqrt())
    assert total == pytest.approx(expected, rel=0.15)


def polynomials_of(rows):
    """The search so far, its only candidate a polynomial."""
    task = Task(rows, 0, None, 1, 0.0, Stages())
    return task, list(Polynomials().fit(task, Seen()))[-1]


def test_left_out_errors_are_those_of_fits_without_the_row():
    rows, _ = sample(rough, n=60)
    weight = tensor(np.random.default_rng(1).integers(1, 4, 60))
    rows = replace(rows, weight=weight)
    _, seen = polynomials_of(rows)
    (stage,) = seen.best.stages
    value = (rows.y - stage.mean(rows.X))[:, 0]
    kernel = LocalKernel(tensor([1.0, 2.0, 0.5, 9.0]), 0.3, 0.2)
    block = LocalBlock.of_rows(kernel, rows.X, weight, value[:, None])
    found = JointErrors.of(block, rows.X, weight, value, stage.solved(rows.X))
    F, R = stage.basis.matrix(rows.X), stage.factor
    for row in (0, 17, 42):
        kept = torch.arange(60) != row
        information = R.T @ R - weight[row] * torch.outer(F[row], F[row])
        coef = torch.linalg.solve(information, F[kept].T @ (weight * rows.y[:, 0])[kept])
        left = (rows.y[:, 0] - F @ coef)[:, None]
        others = LocalBlock.of_rows(kernel, rows.X[kept], weight[kept], left[kept])
        mean, variance = others.posterior(rows.X[row : row + 1])
        assert float(found.base[row]) == pytest.approx(float(left[row]), rel=1e-5)
        assert float(found.joint[row]) == pytest.approx(float(left[row] - mean[0]), rel=1e-3)
        assert float(found.around[row]) == pytest.approx(float(variance[0]), rel=1e-3)


def test_columns_are_the_shares_of_all_rows(found):
    _, _, both = found
    stage = both.state.stages[1]
    fresh = tensor(np.random.default_rng(2).random((5, 4)))
    F = stage.basis.matrix(fresh)
    torch.testing.assert_close(F @ stage.coef, stage.mean(fresh), rtol=1e-5, atol=1e-7)
    assert int((F != 0).sum(1).max()) == N_NEAREST
    step = 1e-6 * tensor([[0.0, 0.0, 0.0, 1.0]])
    rate = (stage.basis.matrix(fresh + step) - stage.basis.matrix(fresh - step)) / 2e-6
    torch.testing.assert_close(stage.basis.partial(fresh, 3), rate, rtol=1e-3, atol=1e-3)
    by_value = stage.basis.evaluate_gradient(fresh, stage.coef)[:, 3]
    torch.testing.assert_close(rate @ stage.coef, by_value, rtol=1e-3, atol=1e-3)
    again = BASES["local"].from_arrays(stage.basis.arrays(), fresh)
    assert torch.equal(again.matrix(fresh), F)
    mean, columns = again.evaluate_beside(fresh, stage.coef)
    assert torch.equal(mean, stage.mean(fresh))
    assert torch.equal(columns, stage.basis.posterior_columns(fresh))


def test_what_others_find_is_the_same_where_it_loses():
    rows, _ = sample(lambda X: X[:, 0] + X[:, 1] * X[:, 2], n=500)
    alone, both = searched(rows), searched(rows, LocalBlocks())
    fresh = tensor(points(200, 1))
    assert len(both.state.stages) == 1
    assert torch.equal(alone.state.mean(fresh), both.state.mean(fresh))
    assert torch.equal(alone.state.epistemic(fresh), both.state.epistemic(fresh))


@pytest.mark.parametrize(
    ("n", "d", "stages"), [(499, 4, Stages()), (600, 3, Stages()), (600, 4, Stages(1))]
)
def test_few_rows_few_columns_and_one_stage_are_left_to_others(n, d, stages):
    rng = np.random.default_rng(0)
    rows = rows_of(rng.random((n, d)), rng.standard_normal(n))
    task, seen = polynomials_of(rows)
    assert not LocalBlocks().worth_trying(replace(task, stages=stages), seen)


def test_many_rows_of_a_table_with_noise_are_worth_it():
    rng = np.random.default_rng(0)
    task, seen = polynomials_of(rows_of(rng.random((500, 4)), rng.standard_normal(500)))
    assert LocalBlocks().worth_trying(task, seen)
    assert not LocalBlocks().worth_trying(replace(task, alpha=1e-6), seen)
