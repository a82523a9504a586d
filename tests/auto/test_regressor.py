"""AutoRegressor as users meet it: who predicts, with what bars, the same bits for any n_jobs."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpou import AutoRegressor, HierarchicalPOURegressor, SparseGridRegressor
from tests import fuzz
from tests.auto.members import Constant, Failing, Line, Wild
from tests.estimators import assert_same_bits, kinked, kinked_mean, predictions
from tests.examples import slow
from tests.fuzz_data import draw_case

#: A process whose kernel is given: fitted in no time.
PROCESS = GaussianProcessRegressor(RBF(0.7) + WhiteKernel(0.0025), optimizer=None, normalize_y=True)
#: Two quick members that tell noise from what they do not know.
NAMES = [SparseGridRegressor(level=2), "SparseGridRegressor"]
#: The first cases of the fuzzer for this class.
CASES = [seed for seed in range(60) if draw_case(seed).name == "SparseGridRegressor"]
X, Y = kinked(60)
QUERY = np.random.default_rng(5).uniform(-1, 1, (9, 2))


@pytest.fixture(scope="module")
def mixed():
    """A stack of a process and a sparse grid, to targets with noise."""
    return AutoRegressor([PROCESS, "SparseGridRegressor"]).fit(X, Y)


def test_kinks_are_met_by_pieces():
    x = np.linspace(-1, 1, 41)[:, None]
    model = AutoRegressor().fit(x, np.abs(x[:, 0] - 0.23))
    # The second finds the same pieces.
    names = [type(member).__name__ for member in model.estimators_]
    assert names == ["HierarchicalPOURegressor", "MultiStageRegressor"]
    between = np.linspace(-1, 1, 1001)[:, None]
    assert np.abs(model.predict(between) - np.abs(between[:, 0] - 0.23)).max() < 1e-9


def test_a_stack_is_better_than_a_wrong_member():
    """The likeliest rows decide, not the order of the members."""
    T, t = kinked(2000, seed=1)
    model = AutoRegressor([Constant(0.0, 1.0), HierarchicalPOURegressor(2, 1), *NAMES]).fit(X, Y)
    assert not any(isinstance(member, Constant) for member in model.estimators_)
    alone = [HierarchicalPOURegressor(2, 1).fit(X, Y), SparseGridRegressor().fit(X, Y)]
    best = max(member.log_density(T, t).mean() for member in alone)
    assert model.log_density(T, t).mean() > best - 0.1
    least = min(np.std(member.predict(T) - kinked_mean(T)) for member in alone)
    assert np.std(model.predict(T) - kinked_mean(T)) < 1.5 * least


def test_intervals_that_are_counted(mixed):
    """They hold the wanted share of the rows set aside to the row, whatever the members say."""
    T, t = kinked(150, seed=2)
    sure = AutoRegressor([Line(std=1e-3), Constant(0.0, 1e-3)]).fit(X, Y)
    for model in (copy.deepcopy(mixed), sure):
        low, high = model.conformalize(T, t).predict_interval(T, coverage=0.9).T
        slack = 1e-12  # the last of these rows lies on the end of its interval
        inside = (low - slack <= t) & (t <= high + slack)
        assert inside.sum() == np.ceil(151 * 0.9)


def test_leaderboard_and_summary(mixed):
    board = pd.DataFrame(mixed.leaderboard_)
    assert board.columns.tolist() == ["member", "rows", "log_density", "error", "seconds", "weight"]
    # The grid's bars know left-out rows: it need not race.
    assert (board["member"][board["rows"] < 60] == "GaussianProcessRegressor").all()
    whole = board[board["rows"] == 60]
    np.testing.assert_array_equal(whole["weight"], mixed.weights_)
    assert whole["weight"].sum() == 1
    assert (np.diff(whole["weight"]) <= 0).all()
    assert (board["seconds"] >= 0).all()
    text = mixed.summary()
    assert "all 60 distinct points" in text
    assert all(name in text for name in board["member"])


def test_moments_are_those_of_the_mixture(mixed):
    assert len(mixed.estimators_) == 2
    means, stds = np.array([m.predict(QUERY, return_std=True) for m in mixed.estimators_]).swapaxes(
        0, 1
    )
    w = mixed.weights_[:, None]
    mean, std = mixed.predict(QUERY, return_std=True)
    np.testing.assert_allclose(mean, (w * means).sum(0), rtol=1e-13)
    wider = (mixed.widened_ @ mixed.factors_**2)[:, None]
    variance = (w * (wider * stds**2 + (means - mean) ** 2)).sum(0)
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-12)


def test_quantiles_invert_the_distribution(mixed):
    levels = [0.01, 0.5, 0.975]
    quantiles = mixed.predict_quantile(QUERY, levels)
    reached = mixed.predict_cdf(QUERY, quantiles)
    np.testing.assert_allclose(reached, np.tile(levels, (9, 1)), rtol=1e-9)
    slope = (mixed.predict_cdf(QUERY, quantiles + 1e-6) - reached)[:, 1] / 1e-6
    density = np.exp(mixed.log_density(QUERY, quantiles[:, 1] + 5e-7))
    np.testing.assert_allclose(slope, density, rtol=1e-5)


def test_gradient(mixed):
    step = 1e-5 * np.eye(2)
    rise = [mixed.predict(QUERY + h) - mixed.predict(QUERY - h) for h in step]
    np.testing.assert_allclose(mixed.predict_gradient(QUERY).T, np.array(rise) / 2e-5, atol=1e-6)


def test_members_that_do_not_tell_noise_are_named(mixed):
    for kind in ("noise", "epistemic"):
        with pytest.raises(TypeError, match="GaussianProcessRegressor does not tell noise from"):
            mixed.predict(QUERY, return_std=kind)
    with pytest.raises(TypeError, match="GaussianProcessRegressor does not tell noise from"):
        mixed.predict(QUERY, return_cov="epistemic")


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_parts_of_the_std_in_units_whose_squares_are_no_numbers(size):
    """Warnings are errors here; a member that does not tell the parts is still found."""
    model = AutoRegressor([SparseGridRegressor(level=2)]).fit(X, size * Y)
    parts = [model.predict(QUERY, return_std=kind)[1] for kind in ("noise", "epistemic")]
    total = model.predict(QUERY, return_std=True)[1]
    np.testing.assert_allclose(np.hypot(*parts), total, rtol=1e-9)
    model.estimators_ = [Line(std=0.1 * size).fit(X, Y)]
    with pytest.raises(TypeError, match="Line does not tell noise from"):
        model.predict(QUERY, return_std="noise")


def test_several_outputs():
    targets = np.column_stack([Y, 2 - 3 * Y, X[:, 1]])
    model = AutoRegressor([PROCESS, "SparseGridRegressor"], random_state=1).fit(X, targets)
    mean, std = model.predict(QUERY, return_std=True)
    assert mean.shape == std.shape == (9, 3)
    assert model.predict_gradient(QUERY).shape == (9, 3, 2)
    quantiles = model.predict_quantile(QUERY)
    assert quantiles.shape == (9, 3, 3)
    np.testing.assert_allclose(
        model.predict_cdf(QUERY, quantiles),
        np.broadcast_to([0.05, 0.5, 0.95], (9, 3, 3)),
        # One of the members has a std of 4e-10 of the third: round-off of the quantile over it.
        rtol=1e-5,
    )
    assert model.sample_y(QUERY, 4).shape == (9, 3, 4)
    assert model.log_density(QUERY, mean).shape == (9,)
    assert model.score(X, targets) > 0.9


def test_weights_are_repetitions():
    weight = np.random.default_rng(0).integers(0, 3, 60)
    points = X.copy()
    points[:20] = points[20:40]  # The same points with other targets.
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(60), weight))
    weighted, repeated = AutoRegressor(NAMES), AutoRegressor(NAMES)
    weighted.fit(points, Y, sample_weight=weight)
    repeated.fit(points[order], Y[order])
    assert_same_bits(predictions(weighted, QUERY), predictions(repeated, QUERY))


@pytest.mark.slow
def test_the_same_bits_for_any_number_of_processes(mixed):
    parallel = AutoRegressor([PROCESS, "SparseGridRegressor"], n_jobs=2).fit(X, Y)
    for name in ("predict", "predict_quantile", "sample_y"):
        np.testing.assert_array_equal(getattr(parallel, name)(QUERY), getattr(mixed, name)(QUERY))
    for key in ("member", "rows", "log_density", "error", "weight"):
        np.testing.assert_array_equal(parallel.leaderboard_[key], mixed.leaderboard_[key])


def test_n_members():
    members = [Line(std=0.5), Line(std=0.4), Constant(0.5, 0.7), *NAMES]
    for n_members in (1, 2):
        model = AutoRegressor(members, n_members=n_members).fit(X, Y)
        assert 1 <= len(model.estimators_) <= n_members


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rows_do_not_race(n):
    model = AutoRegressor().fit(X[:n], Y[:n])
    assert type(model.estimators_[0]) is HierarchicalPOURegressor
    assert np.isfinite(model.predict(QUERY)).all()
    assert "There was no race" in model.summary()


def test_few_doses_with_many_rows_are_fitted_by_all():
    """Members are compared: none has to be left out for that, and rows count, not doses."""
    rng = np.random.default_rng(0)
    x = np.repeat([0, 1, 2, 4, 8.0], 6)[:, None]
    model = AutoRegressor().fit(x, np.exp(-x[:, 0]) + 0.1 * rng.standard_normal(30))
    names = {"HierarchicalPOURegressor", "MultiStageRegressor", "AdditivePOURegressor"}
    assert set(model.leaderboard_["member"]) == names
    std = model.predict([[0.0], [2.0]], return_std=True)[1]
    assert ((std > 0.06) & (std < 0.2)).all()
    # Those that need rows left out do not take part.
    alone = AutoRegressor([PROCESS, "SparseGridRegressor"]).fit(x, x[:, 0] + rng.random(30))
    assert alone.leaderboard_["member"].tolist() == ["SparseGridRegressor"]


def test_given_members_stay_as_they_are():
    member = SparseGridRegressor(level=2)
    model = AutoRegressor([member]).fit(X, Y)
    assert not hasattr(member, "n_features_in_")
    assert model.estimators_[0].level == 2
    np.testing.assert_array_equal(model.predict(QUERY), member.fit(X, Y).predict(QUERY))


@pytest.mark.parametrize("member", [Wild(std=0.1), Line(std=np.nan)])
def test_a_dropped_member_is_told(member):
    """One far from all targets, ones with bars that are no numbers: they do not even doubt."""
    model = AutoRegressor([member, Told(0.0, 0.6)])
    if isinstance(member, Wild):
        model.fit(X, X[:, 0])
    else:
        with pytest.warns(UserWarning, match="members: Line failed, and is left out: .* no dens"):
            model.fit(X, X[:, 0])
    assert [type(kept) for kept in model.estimators_] == [Told]
    assert model.doubter_ is None
    assert np.isfinite(model.predict(QUERY, return_std=True)[1]).all()
    assert f"{type(member).__name__} was dropped: with all rows" in model.summary()
    assert model.leaderboard_["rows"].tolist()[-2:] == [60, 60]


@pytest.mark.parametrize("std", [np.nan, -0.1])
def test_bars_that_are_no_numbers_are_refused(std):
    """With nobody in their place there is no prediction."""
    for members in ([Line(std=std)], [Line(std=std), Line(std=std)]):
        with pytest.raises(ValueError, match=rf"Line.predict.* a standard deviation of {std} "):
            AutoRegressor(members).fit(X, Y)


def test_a_doubter_is_no_wider_than_its_errors():
    """Bars a thousand times the spread, for which nobody vouches, are not those of the stack."""
    y = X[:, 0] + 0.1 * np.random.default_rng(0).standard_normal(60)
    model = AutoRegressor([Told(0.0, 0.6), Constant(0.0, 1e3)]).fit(X, y)
    assert model.doubter_.std == 1e3
    assert model.predict(QUERY, return_std=True)[1].max() == pytest.approx(0.6, rel=0.1)
    assert model.doubter_factor_ == pytest.approx(y.std() / 1e3, rel=0.3)


def test_failures():
    with pytest.raises(ValueError, match="too many rows for me"):
        AutoRegressor([Failing()]).fit(X, Y)
    model = AutoRegressor([Failing(), "SparseGridRegressor"])
    with pytest.warns(UserWarning, match="members: Failing failed, and is left out: too many rows"):
        model.fit(X, Y)
    assert "Failing failed" in model.summary()
    # Weights that are no repetitions, to one who takes none.
    both = AutoRegressor([PROCESS, "SparseGridRegressor"])
    with pytest.warns(UserWarning, match="GaussianProcessRegressor takes no sample_weight"):
        both.fit(X, Y, sample_weight=np.linspace(0.5, 1.5, 60))
    with pytest.raises(TypeError, match="members"):
        model.set_params(members=[StandardScaler()]).fit(X, Y)
    with pytest.raises(ValueError, match=r"'members' parameter of .* Got 'all'"):
        model.set_params(members="all").fit(X, Y)
    with pytest.raises(ValueError, match=r"'n_members' parameter of .* Got 0"):
        AutoRegressor(n_members=0).fit(X, Y)
    assert np.isfinite(model.predict(QUERY)).all()


def test_warnings_of_whole_fits_are_handed_on():
    member = HierarchicalPOURegressor(2, 1, gate="linear", init="box", solver="em", max_iter=1)
    with pytest.warns(ConvergenceWarning) as caught:
        AutoRegressor([member]).fit(X, Y)
    assert caught[0].filename == __file__


def test_in_a_pipeline_and_a_search():
    pipeline = make_pipeline(StandardScaler(), AutoRegressor(["SparseGridRegressor"])).fit(X, Y)
    mean, std = pipeline.predict(QUERY, return_std=True)
    assert mean.shape == std.shape == (9,)
    inside = AutoRegressor([make_pipeline(StandardScaler(), SparseGridRegressor())]).fit(X, Y)
    np.testing.assert_allclose(inside.predict(QUERY), mean, atol=0.05)
    search = GridSearchCV(
        AutoRegressor(["SparseGridRegressor"]),
        {"members": [["SparseGridRegressor"], [SparseGridRegressor(level=2)]]},
        cv=2,
    )
    assert search.fit(X, Y).best_score_ > 0.5


def test_saving(mixed):
    again = pickle.loads(pickle.dumps(mixed))
    np.testing.assert_array_equal(again.predict_quantile(QUERY), mixed.predict_quantile(QUERY))
    state = copy.deepcopy(mixed).__getstate__()
    for weights in (np.array([0.7, 0.7]), np.array([np.nan, 1.0]), np.ones(1)):
        with pytest.raises(ValueError, match="saved AutoRegressor is damaged"):
            AutoRegressor().__setstate__({**state, "weights_": weights})
    skops = pytest.importorskip("skops.io")
    model = AutoRegressor(NAMES).fit(X, Y)
    data = skops.dumps(model)
    own = skops.get_untrusted_types(data=data)
    assert all(name.startswith("skpou.") for name in own)
    loaded = skops.loads(data, trusted=own)
    assert_same_bits(predictions(loaded, QUERY), predictions(model, QUERY))


class Told(Constant):
    """Is taken at its word."""

    bars_are_calibrated = True


class Steps:
    """A callback that counts, and may end the fit."""

    def __init__(self, most=None):
        self.most, self.lines, self.wanted = most, [], None

    def setup(self, estimator, context):
        self.wanted = context.max_subtasks

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata):
        if context.task_name != "step":
            return False
        self.lines.append(metadata["report"])
        return len(self.lines) == self.most

    def teardown(self, estimator, context):
        pass


@pytest.mark.parametrize("members", [NAMES, [Line(std=0.1), Constant(50.0, 0.1), Constant()]])
def test_progress_knows_its_end(members):
    pytest.importorskip("sklearn.callback", reason="callbacks came with 1.9")
    steps = Steps()
    AutoRegressor(members).set_callbacks(steps).fit(X, Y)
    assert len(steps.lines) == steps.wanted
    early = Steps(most=1)
    model = AutoRegressor(members).set_callbacks(early).fit(X, Y)
    assert len(model.estimators_) == 1
    assert np.isfinite(model.predict(QUERY)).all()


@pytest.mark.parametrize("seed", CASES[:3] + slow(*CASES[3:]))
def test_odd_data(seed):
    """Cases that the fuzzer draws for a sparse grid."""
    outcome = fuzz.run_case(draw_case(seed), AutoRegressor(NAMES))
    assert not outcome.failures, f"{outcome.text}\n{outcome.trace}"


def test_outliers_are_those_of_most_of_the_stack():
    """Rows in any order, twice, of weight 0: the numbers are those of the given rows."""
    rng = np.random.default_rng(0)
    x = rng.random((120, 1))
    y = np.sin(5 * x[:, 0]) + 0.05 * rng.standard_normal(120)
    far = [11, 47, 90]
    y[far] += [1.0, -1.2, 1.1]
    model = AutoRegressor(NAMES).fit(x, y)
    assert model.outliers_.tolist() == far
    assert "3 rows were set apart as outliers" in model.summary()
    assert np.sqrt(np.mean((model.predict(x) - np.sin(5 * x[:, 0])) ** 2)) < 0.03
    twice = AutoRegressor(NAMES).fit(np.r_[x, x], np.r_[y, y], np.r_[np.ones(120), np.zeros(120)])
    assert twice.outliers_.tolist() == far
    twice.fit(np.r_[x, x], np.r_[y, y])
    assert twice.outliers_.tolist() == [*far, *np.add(far, 120)]
    # A process sets nothing apart; alone it has no say, with a grid the heavier one has.
    assert AutoRegressor([PROCESS]).fit(x, y).outliers_.tolist() == []
    both = AutoRegressor([PROCESS, NAMES[1]]).fit(x, y)
    assert type(both.estimators_[0]) is SparseGridRegressor
    assert both.outliers_.tolist() == far
