"""A local block beside the terms: its left-out errors against fits without the row."""

import pickle

import numpy as np
import pytest
import torch

from skpou import AdditivePOURegressor
from skpou.additive.basis import Block, spline_basis
from skpou.additive.local import FittedTerms, JointResidue, TargetPairs
from skpou.additive.terms import groups_of
from skpou.core import Pairs
from skpou.core.linalg import EvidenceProblem
from skpou.core.models import LocalBlock, LocalKernel, left_out
from tests.examples import tensor


def pairs_of_points(n=70, d=3, seed=0, repeated=8):
    """Points, some of them with two targets of different weights."""
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((n, d)))
    point = torch.cat([torch.arange(n), torch.arange(repeated)]).sort().values
    weight = tensor(rng.integers(1, 4, len(point)))
    y = torch.sin(5 * X[point, 0]) + X[point, 1] + 0.3 * tensor(rng.standard_normal(len(point)))
    return X, Pairs(point, y[:, None], weight)


def merged(X, pairs):
    n = len(X)
    weight = torch.zeros(n).double().index_add_(0, pairs.point, pairs.weight)
    y = torch.zeros(n).double().index_add_(0, pairs.point, pairs.weight * pairs.y[:, 0]) / weight
    return TargetPairs(X, y, weight, pairs)


def terms_of(rows, factor, alpha, noise):
    """Terms of given variances, the weights of the pairs multiplied by a factor."""
    basis = spline_basis(rows.X, torch.ones(len(rows.X)).double(), 4, False)
    blocks = [Block((j,), (first,), (last,)) for j in range(3) for first, last in ((0, 1), (1, 4))]
    basis = basis.with_blocks(blocks)
    return basis, fitted(basis, merged(rows.X, with_weight(rows.pairs, factor)), alpha, noise)


def with_weight(pairs, factor):
    return Pairs(pairs.point, pairs.y, pairs.weight * factor)


def fitted(basis, rows, alpha, noise):
    groups = groups_of(basis.blocks, 1.0, rows.X)
    problem = EvidenceProblem(basis.matrix(rows.X), rows.y, rows.weight, 0.0, groups)
    return problem.fit(alpha, noise, 1, 0.0)


@pytest.mark.parametrize(("counts", "nugget"), [(False, 0.4), (True, 0.4), (False, 1e-3)])
def test_left_out_errors_are_those_of_fits_without_the_observation(monkeypatch, counts, nugget):
    monkeypatch.setattr("skpou.core.models.local_block.N_NEAREST", 12)
    monkeypatch.setattr("skpou.core.models.local_block.APART", 0.0)
    X, pairs = pairs_of_points()
    rows = merged(X, pairs)
    factor = tensor(np.random.default_rng(1).uniform(0.5, 2, len(pairs.point)))
    alpha, noise = torch.tensor([100.0, 0.3, 0.05] * 2 + [0.2]).double(), 0.1
    basis, fit = terms_of(rows, factor, alpha, noise)
    residue = left_out(pairs, fit.fitted, fit.spread, basis.coordinates(X), factor)
    terms = FittedTerms(basis, fit, residue, factor)
    kernel = LocalKernel(tensor([4.0, 2.0, 0.0]), nugget, 0.25)
    joint = JointResidue(rows, kernel, [terms], floor=0.1 if counts else 0.0)
    found = joint.of(0, terms)
    for number in (0, 1, 9, 30):
        point = int(pairs.point[number])
        unit = 1.0 if counts else float(pairs.weight[number])
        weight = pairs.weight.clone()
        weight[number] -= unit
        kept = weight > 0
        less = Pairs(pairs.point[kept], pairs.y[kept], weight[kept])
        # Points that have lost their only target keep a place, with no weight.
        without = merged(X, Pairs(less.point, less.y, less.weight))
        used = without.weight > 0
        changed = merged(X, with_weight(less, factor[kept]))
        changed = TargetPairs(X[used], changed.y[used], changed.weight[used], less)
        again = fitted(basis, changed, alpha, noise)
        fitted_at = basis.matrix(X) @ again.coef
        left = (without.y - fitted_at)[used]
        block = LocalBlock.of_rows(kernel, X[used], without.weight[used], left[:, None])
        near = set(joint.near[point].tolist())
        # The same neighbours: with the row gone there is room for another one.
        size = len(near) if used[point] else len(near) - 1
        monkeypatch.setattr("skpou.core.models.local_block.N_NEAREST", size)
        smoothed = float(block.mean(X[point : point + 1])[0, 0])
        expected = float(pairs.y[number, 0] - fitted_at[point]) - smoothed
        assert float(found.error[number]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


# The regressor


def rough_table(n=600, d=4, seed=0):
    """A line, and levels of a column that has many: no few splines tell these."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    level = rng.integers(0, 60, n)
    X[:, 1] = level / 59
    steps = np.random.default_rng(9).standard_normal(60)
    return X, X[:, 0] + steps[level] + 0.05 * rng.standard_normal(n)


CHEAP = {
    "max_order": 1,
    "transform_columns": False,
    "density": "gaussian",
    "n_splines": 4,
    "remainder": "local",
}


@pytest.fixture(scope="module", autouse=True)
def few_judges():
    """Fewer rows and iterations for the scales: as good here, and cheap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skpou.core.models.local_scales.JUDGES", 150)
        patch.setattr("skpou.core.models.local_scales.ITERATIONS", 8)
        yield


@pytest.fixture(scope="module")
def rough():
    return AdditivePOURegressor(**CHEAP).fit(*rough_table())


def test_covariance_with_a_block_agrees_with_the_standard_deviation(rough):
    X = rough_table(seed=1)[0][:20]
    X[-1] += 3.0  # outside the box
    points = np.vstack([X, X[:1] + 1e-6])
    std = rough.predict(points, return_std="epistemic")[1]
    cov = rough.predict(points, return_cov="epistemic")[1]
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-9)
    correlation = cov / np.outer(std, std)
    assert np.linalg.eigvalsh(correlation).min() > -1e-9
    assert correlation[0, -1] > 0.95
    assert np.abs(correlation[0, 1:-1]).max() < 0.9


def test_rough_detail_is_told_by_near_rows(rough):
    X, y = rough_table(seed=1)
    smooth = AdditivePOURegressor(**{**CHEAP, "remainder": False}).fit(*rough_table())
    errors = [np.sqrt(np.mean((model.predict(X) - y) ** 2)) for model in (rough, smooth)]
    assert errors[0] < 0.4 * errors[1]
    assert rough.log_density(X, y).mean() > smooth.log_density(X, y).mean() + 0.5
    assert smooth.model_[0]["local"] is None
    low, high = rough.predict_quantile(X, [0.05, 0.95]).T
    assert 0.85 < np.mean((low < y) & (y < high)) < 0.97


def test_terms_add_up_with_a_block(rough):
    X = np.random.default_rng(1).uniform(-0.2, 1.2, (40, 4))
    values = rough.predict_terms(X)
    np.testing.assert_allclose(values.sum(1) + rough.intercept_, rough.predict(X), atol=1e-9)
    place = rough.terms_.index((0, 1, 2, 3))
    assert rough.effective_dof_[place] > 20
    std = rough.predict_terms(X, return_std=True)[1]
    assert (std[:, place] > 0).all()


def test_gradient_with_a_block_against_differences(rough):
    X = np.random.default_rng(2).random((20, 4))
    gradient, step = rough.predict_gradient(X), 1e-7
    for j in range(4):
        move = step * np.eye(4)[j]
        expected = (rough.predict(X + move) - rough.predict(X - move)) / (2 * step)
        # Where one of the nearest rows takes the place of another there is a small step.
        close = np.isclose(gradient[:, j], expected, rtol=1e-3, atol=1e-3)
        assert close.mean() >= 0.9


def test_rows_one_by_one_and_pickles_predict_the_same(rough):
    X = rough_table(seed=1)[0][:20]
    alone = np.concatenate([rough.predict(row[None]) for row in X])
    np.testing.assert_allclose(alone, rough.predict(X), rtol=1e-9, atol=1e-9)
    state = rough.model_[0]["local"]
    assert all(isinstance(value, np.ndarray | float) for value in state.values())
    again = pickle.loads(pickle.dumps(rough))
    for one, other in zip(again.predict(X, return_std=True), rough.predict(X, return_std=True)):
        np.testing.assert_array_equal(one, other)


def test_weights_are_repeated_rows():
    X, y = rough_table(520)
    weight = np.random.default_rng(3).integers(1, 3, len(X))
    weighted = AdditivePOURegressor(**CHEAP).fit(X, y, sample_weight=weight)
    repeated = AdditivePOURegressor(**CHEAP).fit(X.repeat(weight, 0), y.repeat(weight))
    assert weighted.model_[0]["local"] is not None
    np.testing.assert_array_equal(weighted.predict(X[:50]), repeated.predict(X[:50]))


def test_several_targets_are_fitted_one_by_one(rough):
    X, y = rough_table()
    model = AdditivePOURegressor(**CHEAP).fit(X, np.column_stack([X[:, 2], y]))
    assert model.model_[0]["local"] is None
    np.testing.assert_allclose(model.predict(X[:30])[:, 1], rough.predict(X[:30]), rtol=1e-9)
    assert model.predict_gradient(X[:3]).shape == (3, 2, 4)
    std = [m.predict(X[:30], return_std=True)[1] for m in (model, rough)]
    np.testing.assert_allclose(std[0][:, 1], std[1], rtol=1e-9)


def test_std_grows_away_from_the_rows(rough):
    X = np.random.default_rng(4).random((30, 4))
    near = rough.predict(X, return_std="epistemic")[1]
    outside = np.array([2.0, 2.0, 2.0, 2.0]) * np.geomspace(1, 50, 8)[:, None]
    far = rough.predict(outside, return_std="epistemic")[1]
    assert far.min() > near.max()
    assert (np.diff(far) >= 0).all()


@pytest.mark.parametrize(
    ("remainder", "n", "has_block"),
    [("columns", 350, False), ("local", 350, True), ("auto", 350, False), ("auto", 520, True)],
)
def test_what_may_join_is_as_asked(remainder, n, has_block):
    # By default a block is tried from more rows on.
    model = AdditivePOURegressor(**{**CHEAP, "remainder": remainder}).fit(*rough_table(n))
    assert (model.model_[0]["local"] is not None) == has_block
    if remainder == "local":
        assert model.model_[0]["experts"][0]["basis"]["landmarks"] is None
