"""Classes on a sparse grid: densities against closed forms and naive sums, optimality, ridges."""

import math

import numpy as np
import pytest
import torch

from skpou.core.rows import Rows, merge_rows
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.class_model import log_shares
from skpou.sparse_grids.classes import (
    ALPHAS,
    METHODS,
    N_STEPS,
    DensityProblem,
    choose_class_level,
    fit_classes,
)
from skpou.sparse_grids.solution import GridOptions
from tests.examples import slow


def make_rows(n=200, n_classes=3, seed=0, repeat=False):
    """Points of a uniform mixture of classes that follow stripes, blurred."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    if repeat:
        X = np.round(4 * X) / 4
    labels = (n_classes * (0.8 * X[:, 0] + 0.2 * rng.random(n))).astype(int)
    indicators = np.eye(n_classes)[labels]
    return merge_rows(torch.tensor(X), torch.tensor(indicators), torch.ones(n, dtype=torch.float64))


def fit(rows, method, **options):
    return fit_classes(rows, method, GridOptions(**options), np.random.default_rng(0))


# Positive shares


def test_log_shares_keep_the_order_and_add_up_to_one():
    values = torch.tensor([[2.0, 1.0, 0.0], [-1e3, -1.0, -1e8], [0.0, 0.0, 0.0]]).double()
    logs = log_shares(values, 1e-3)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(3).double())
    assert torch.isfinite(logs).all()
    assert (logs.argsort(1)[:2] == values.argsort(1)[:2]).all()
    torch.testing.assert_close(
        logs[0].exp(), torch.tensor([2, 1, 5e-4]).double() / 3, atol=1e-3, rtol=0
    )


# Densities


def test_density_is_the_minimum_of_its_functional():
    rows, grid = make_rows(), SparseGrid(2, 3)
    problem = DensityProblem(rows, grid)
    indicators = rows.weight[:, None] * rows.y
    right = grid.matrix(rows.X).T @ indicators / rows.weight.sum()
    mass, stiffness = grid.mass_and_stiffness(rows.X)
    step = mass + 0.1**2 / N_STEPS * stiffness
    expected = torch.linalg.solve(step, right)
    for _ in range(N_STEPS - 1):
        expected = torch.linalg.solve(step, mass @ expected)
    torch.testing.assert_close(problem.solve(0.1), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("boundary", ["modified", "full", "truncated"])
def test_densities_integrate_to_the_shares_of_the_classes(boundary):
    rows = make_rows()
    grid = SparseGrid(2, 3, boundary)
    problem = DensityProblem(rows, grid)
    t = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    X = torch.cartesian_prod(t, t)
    for alpha in (1e-2, 1.0):
        mass = grid.evaluate(X, problem.solve(alpha)).mean(0)
        torch.testing.assert_close(mass, rows.y.mean(0), rtol=1e-6, atol=1e-8)


def test_wide_smoothing_leaves_the_shares():
    rows = make_rows()
    density = SparseGrid(2, 3).evaluate(rows.X, DensityProblem(rows, SparseGrid(2, 3)).solve(100.0))
    torch.testing.assert_close(density, rows.y.mean(0).expand_as(density), rtol=1e-3, atol=1e-3)


def test_density_of_many_rows_is_that_of_their_distribution():
    # Density 2 x of the one class against a uniform one: x / (x + 1/2) is its probability.
    rng = np.random.default_rng(1)
    x = np.concatenate([np.sqrt(rng.random(20_000)), rng.random(20_000)])
    indicators = np.eye(2)[np.repeat([0, 1], 20_000)]
    weight = torch.ones(len(x), dtype=torch.float64)
    rows = merge_rows(torch.tensor(x[:, None]), torch.tensor(indicators), weight)
    grid = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None]
    found = fit(rows, "density").state.log_proba(grid).exp()[:, 0]
    np.testing.assert_allclose(found, (grid / (grid + 0.5))[:, 0], atol=0.03)


@pytest.mark.parametrize("repeat", [False, True])
def test_leave_one_out_is_that_of_fits_without_the_row(repeat):
    rows, grid = make_rows(40, 2, repeat=repeat), SparseGrid(2, 2)
    judged = torch.arange(rows.n_rows)
    lines = []
    DensityProblem(rows, grid).best_alpha(judged, lines.append)
    scores = [float(line.split()[-1]) for line in lines]
    total = rows.total_weight
    naive = []
    for alpha in ALPHAS[::6]:
        score = 0.0
        for i in range(rows.n_rows):
            others = rows.subset(torch.tensor([j for j in range(rows.n_rows) if j != i]))
            coef = DensityProblem(others, grid).solve(alpha) * (others.total_weight / total)
            density = grid.evaluate(rows.X[i : i + 1], coef)
            own = rows.weight[i] * rows.y[i]
            score -= 2 * float((own * log_shares(density, 1 / total)).sum())
        naive.append(score)
    np.testing.assert_allclose(scores[::6], naive, rtol=1e-4)


# Regression and logistic regression


def test_one_hot_probabilities_are_regressions():
    rows = make_rows()
    model = fit(rows, "one_hot", level=3).state
    functions = model.functions(rows.X)
    torch.testing.assert_close(functions.sum(1), torch.ones(rows.n_rows).double())
    assert (functions - rows.y).square().mean() < 0.06


@pytest.mark.parametrize("method", METHODS)
def test_one_and_two_classes(method):
    one = fit(make_rows(n_classes=1), method, level=2).state
    X = torch.rand(5, 2, dtype=torch.float64)
    assert (one.log_proba(X) == 0).all()
    two = fit(make_rows(n_classes=2), method, level=2).state
    assert two.coef.shape == (5, 2)
    proba = two.log_proba(torch.tensor([[0.1, 0.5], [0.9, 0.5]]).double()).exp()
    assert proba[0, 0] > 0.9
    assert proba[1, 1] > 0.9


# All


@pytest.mark.parametrize("method", ["density", "one_hot", *slow("softmax")])
def test_probabilities_of_stripes(method):
    rows = make_rows(800)
    result = fit(rows, method)
    x = torch.tensor([[0.2, 0.5], [0.6, 0.3], [0.95, 0.9]]).double()
    assert (result.state.log_proba(x).argmax(1) == torch.arange(3)).all()
    assert result.score < 0.35
    # Outside the box nothing changes any more.
    far = torch.tensor([[7.0, 0.5]]).double()
    torch.testing.assert_close(result.state.log_proba(far), result.state.log_proba(far.clamp(0, 1)))


@pytest.mark.parametrize("method", ["density", "one_hot", *slow("softmax")])
def test_chosen_alpha_predicts_better_than_extreme_ones(method):
    rows, test = make_rows(300), make_rows(3000, seed=1)

    def loss(result):
        return -float((test.y * result.state.log_proba(test.X)).sum()) / test.n_rows

    chosen = loss(fit(rows, method, level=5))
    assert chosen < loss(fit(rows, method, level=5, alpha=1.0))
    assert chosen < loss(fit(rows, method, level=5, alpha=1e-5))


@pytest.mark.parametrize("method", METHODS)
def test_order_of_rows_does_not_matter(method):
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 2)), np.eye(2)[rng.integers(2, size=60)]
    order = rng.permutation(60)
    first, second = (
        fit(merge_rows(torch.tensor(X[i]), torch.tensor(y[i]), torch.ones(60).double()), method)
        for i in (slice(None), order)
    )
    assert torch.equal(first.state.coef, second.state.coef)


def test_level():
    assert choose_class_level(2, GridOptions(), "density") == 6
    assert choose_class_level(8, GridOptions(), "softmax") == 3
    assert choose_class_level(2, GridOptions(max_points=100), "one_hot") == 4
    assert choose_class_level(2, GridOptions(level=8), "density") == 8
    with pytest.raises(ValueError, match="Even level 1"):
        choose_class_level(5, GridOptions(boundary="full", max_points=10), "softmax")


def test_fine_grids_take_alpha_from_a_coarser_one():
    rows = make_rows(300, 2)
    fine = fit(rows, "density", level=8)
    coarse = fit(rows, "density")
    assert fine.state.grid.n_columns == 1793
    assert fine.chosen["alpha"] == coarse.chosen["alpha"]


@pytest.mark.parametrize("method", METHODS)
def test_arrays_rebuild_the_model(method):
    model = fit(make_rows(), method, level=3).state
    again = type(model).from_arrays(model.arrays(), model.coef)
    X = torch.rand(9, 2, dtype=torch.float64)
    assert torch.equal(again.log_proba(X), model.log_proba(X))
    assert math.isclose(again.floor, model.floor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_of_shares_are_finite_far_above_the_floor(dtype):
    """In single precision a value's square swallows that of the floor."""
    values = torch.tensor([[0.3, -0.2], [1e-3, 0.0]], dtype=dtype, requires_grad=True)
    logs = log_shares(values, 1e-6)
    assert float(logs[0, 0].detach()) == pytest.approx(0.0, abs=1e-6)
    logs.sum().backward()
    assert bool(torch.isfinite(values.grad).all())
    # d log(v) / dv above the floor, less the share of it in the sum
    assert float(values.grad[0, 0]) == pytest.approx(-1 / 0.3, rel=1e-5)


# Left-out observations


@pytest.mark.parametrize("searched", [False, True], ids=["by solutions", "by the spectrum"])
def test_densities_without_an_observation(searched):
    rows, grid = make_rows(60, repeat=True), SparseGrid(2, 3)
    problem, judged = DensityProblem(rows, grid), torch.arange(rows.n_rows)
    alpha = problem.best_alpha(judged, None) if searched else 0.1
    model = fit(rows, "density", level=3, alpha=alpha).state
    found = problem.left_out(model, alpha, judged)
    pairs = rows.pairs()
    assert len(found.row) == pairs.n_rows > rows.n_rows
    for number in (0, 3, pairs.n_rows - 1):
        weight = pairs.weight.clone()
        weight[number] = (weight[number] - 1).clamp_min(0)
        less = Rows(pairs.X, pairs.y, weight, pairs.within)
        other = DensityProblem(less, grid, total=problem.weight).solve(alpha)
        expected = log_shares(grid.evaluate(pairs.X[[number]], other), model.floor)[0]
        torch.testing.assert_close(found.logits[number], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["one_hot", "softmax"])
def test_other_methods_without_an_observation(method):
    rows, given, some = make_rows(80), {"level": 3, "alpha": 0.1}, range(0, 80, 4)
    result = fit(rows, method, **given)
    others = []
    for number in some:
        kept = torch.arange(80) != number
        other = fit(rows.subset(kept), method, **given).state
        others.append(other.log_proba(rows.X[[number]])[0])
    y = rows.y[list(some)]
    own = (y * result.state.log_proba(rows.X[list(some)])).sum(1)
    exact = (y * torch.stack(others)).sum(1)
    told = (y * result.left_out.logits.log_softmax(1)[list(some)]).sum(1)
    assert exact.sum() < own.sum()
    if method == "one_hot":  # The centre and the ridge of a refit differ by the row's share.
        assert (told - exact).norm() < 0.3 * (exact - own).norm()
    else:  # Of a third of the rows less is known, but more than the shares.
        assert len(y) * math.log(1 / 3) < told.sum() < own.sum()
