"""What members claim between the rows, and the weights by it."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from sklearn.gaussian_process import GaussianProcessRegressor

from skpou import HierarchicalPOURegressor, SparseGridRegressor
from skpou.auto.claims import (
    claim_of,
    contradicted,
    is_calibrated,
    jumps,
    probes_of,
    weights_by_claims,
)
from skpou.auto.race import order_of
from tests.auto.members import Constant, Line
from tests.auto.test_race import data_of


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).random((60, 2))
    return data_of(X, X[:, 0])


def fitted(member, data):
    return member.fit(data.X, data.targets())


def test_who_is_taken_at_its_word():
    assert is_calibrated(SparseGridRegressor())
    assert not is_calibrated(GaussianProcessRegressor())


@pytest.mark.parametrize("d", [1, 2, 5])
def test_probes_lie_between_the_rows(d):
    X = np.random.default_rng(1).normal(3, 2, (40, d))
    probes = probes_of(data_of(X, X[:, 0]))
    assert ((X.min(0) <= probes) & (probes <= X.max(0))).all()
    assert np.ptp(probes, axis=0) == pytest.approx(np.ptp(X, axis=0), rel=0.3)


def test_probes_are_where_new_rows_are():
    """Of doses that were tried four times each all but a few rows are at these again."""
    doses, new = np.arange(8.0)[:, None], np.array([[2.5]])
    X = np.concatenate([np.repeat(doses, 4, 0), new])
    data = data_of(X, np.random.default_rng(0).standard_normal(len(X)))
    probes = probes_of(data)
    at_doses = (probes == np.round(probes)).all(1)
    assert at_doses.mean() == pytest.approx(33 / 35, abs=0.01)
    assert set(probes[at_doses].ravel()) == set(doses.ravel())
    # One that was given twice is one: an exact number.
    once = data_of(doses[:, [0]], doses[:, 0], np.array([1, 2, 1, 1, 1, 1, 1, 1.0]))
    assert not (probes_of(once) == np.round(probes_of(once))).any()


def test_probes_are_other_combinations_of_levels():
    """Of a table of levels some combinations are missing: they are what is new."""
    hulls = np.random.default_rng(0).random((12, 4))
    every = np.column_stack([np.repeat(hulls, 9, 0), np.tile(np.linspace(0, 1, 9), 12)])
    shuffled = np.random.default_rng(1).permutation(every)
    rows, missing = shuffled[:80], shuffled[80:]
    probes = probes_of(data_of(rows, rows[:, 0]))
    assert {p.tobytes() for p in probes} == {p.tobytes() for p in missing}
    # A grid is whole, or all but: between its levels nothing is known.
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 2), -1).reshape(-1, 2)
    for points in (grid, grid[1:]):
        probes = probes_of(data_of(points, points[:, 0]))
        assert not (probes == np.round(probes)).any()
    # Scattered rows on some lines have none.
    lines = np.column_stack([np.repeat(np.arange(9.0), 10), np.random.default_rng(2).random(90)])
    assert not np.isin(probes_of(data_of(lines, lines[:, 1])), lines).any()


def test_probes_of_many_columns_are_as_far_from_rows_as_new_rows():
    rng = np.random.default_rng(0)
    rows, new = rng.random((300, 7)), rng.random((500, 7))
    rows[:, 6] = new[:, 6] = 0.0
    rows[:, 5], new[:, 5] = (X[:, 0] + X[:, 1] for X in (rows, new))
    probes = probes_of(data_of(rows, rows[:, 0]))
    found, expected = (np.median(cKDTree(rows).query(X)[0]) for X in (probes, new))
    # Points on the way to a near row are at a third of that.
    assert 0.6 * expected < found < 1.1 * expected
    inside = ((rows.min(0) < probes) & (probes < rows.max(0)))[:, :6].all(1)
    assert inside.mean() > 0.5
    # Columns that depend on others still do.
    assert probes[inside, 5] == pytest.approx(probes[inside, 0] + probes[inside, 1], abs=1e-12)


def test_probes_keep_values_that_recur():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.random((200, 3)), rng.integers(2, size=(200, 2))])
    probes = probes_of(data_of(rows, rows[:, 0]))
    assert set(np.unique(probes[:, 3:])) == {0.0, 1.0}
    others, box = probes[:, :3], (rows[:, :3].min(0), rows[:, :3].max(0))
    # But at the edge of the box, where those beyond it are taken to.
    assert not np.isin(others[(box[0] < others) & (others < box[1])], rows).any()


def test_the_score_is_the_expected_log_density(data):
    claim = claim_of(fitted(Line(std=0.2), data), data, probes_of(data))
    y = np.random.default_rng(0).normal(0, 0.2, 100_000)
    logs = -0.5 * (y / 0.2) ** 2 - np.log(0.2 * np.sqrt(2 * np.pi))
    assert claim.score == pytest.approx(logs.mean() + np.log(data.spread[0]), abs=0.01)
    assert claim.error == pytest.approx(0.2 / data.spread[0])
    assert not claim.exact


def test_what_is_infinite_is_the_least_likely(data):
    probes = probes_of(data)
    members = [Line(std=0.2), Line(std=np.inf)]
    claims = [claim_of(fitted(member, data), data, probes) for member in members]
    scores, errors = [c.score for c in claims], [c.error for c in claims]
    assert weights_by_claims(scores, errors, 3)[0] == [0]


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (Line(std=np.nan), "standard deviation of nan"),
        (Line(std=-0.1), "standard deviation of -0.1"),
        (Constant(np.nan), "mean of nan"),
    ],
)
def test_what_is_no_number_is_refused(data, member, what):
    with pytest.raises(ValueError, match=f"{what} between the rows, at 100% of the points"):
        claim_of(fitted(member, data), data, probes_of(data))


def test_order_and_weights():
    assert order_of([1.0, 1.02, 0.2], [0.1, 0.2, 0.01]) == [0, 1, 2]
    members, weights = weights_by_claims([1.0, 1.0, 0.9, 0.9], [0.1, 0.1, 0.1, 0.5], 3)
    assert members == [0, 1, 2]
    assert weights.sum() == 1
    assert weights[2] / weights[1] == pytest.approx(np.exp(-0.3), abs=0.01)
    # A larger error is left out, and what is much less likely.
    assert weights_by_claims([3.0, 2.9, 0.0], [0.1, 0.21, 0.1], 3)[0] == [0]
    assert weights_by_claims([1.0, 1.0], [0.1, 0.1], 1)[1].tolist() == [1.0]


def test_jumps_and_kinks(data):
    class Step(Line):
        def predict(self, X, return_std=False):
            return 1.0 * (super().predict(X) > 0.5)

    class Kink(Line):
        def predict(self, X, return_std=False):
            return 100 * np.maximum(super().predict(X) - 0.5, 0)

    assert jumps(fitted(Step(), data), data)
    assert not jumps(fitted(Kink(), data), data)


def test_bars_between_rows_order_members_as_new_rows_do():
    """A kink: pieces know it between the rows, and they say so."""
    x = np.linspace(-1, 1, 30)[:, None]
    line = data_of(x, np.abs(x[:, 0] - 0.21))
    models = [fitted(m, line) for m in (HierarchicalPOURegressor(), SparseGridRegressor())]
    pieces, grid = (claim_of(model, line, probes_of(line)) for model in models)
    assert pieces.exact
    assert not jumps(models[0], line)
    assert not contradicted(pieces, grid)
    assert contradicted(pieces, claim_of(fitted(Constant(0.0, 1e-3), line), line, probes_of(line)))
    T = np.random.default_rng(0).uniform(-1, 1, (500, 1))
    logs = models[1].log_density(T, np.abs(T[:, 0] - 0.21)) + np.log(line.spread[0])
    assert grid.score == pytest.approx(logs.mean(), abs=1.0)


def test_a_density_with_a_wide_component_expects_what_left_out_rows_have():
    """Its bars are those of the other rows: a Gaussian by them would expect more."""
    rng = np.random.default_rng(0)
    x = rng.random((3000, 1))
    width = np.where(rng.random(3000) < 0.06, 1.0, 0.05)
    y = np.sin(5 * x[:, 0]) + width * rng.standard_normal(3000)
    rows = data_of(x[:200], y[:200])
    model = fitted(SparseGridRegressor(), rows)
    assert len(model.outliers_)
    claim = claim_of(model, rows, probes_of(rows))
    found = model.log_density(x[200:], y[200:]).mean() + np.log(rows.spread[0])
    assert claim.score == pytest.approx(found, abs=0.15)
    gaussian = -np.log(claim.std / rows.spread).mean() - 0.5 * np.log(2 * np.pi) - 0.5
    assert gaussian > claim.score + 0.2
