"""SparseGridRegressor: rates, refinement, error bars, units, attributes, what goes wrong."""

import functools
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skpou import SparseGridRegressor
from skpou.sparse_grids import fit
from skpou.sparse_grids import solution as sparse_grid_solution
from skpou.sparse_grids.basis.grid import BOUNDARIES, count_points
from tests.base.test_interoperability import documented, odd_parts
from tests.estimators import assert_same_bits, no_training, predictions, same_bits
from tests.examples import slow

#: Parameters of every path through the fit.
PATHS = {
    "columns": {"level": 4},
    "rows": {"level": 8},
    "iterative": {"level": 4, "solver": "iterative"},
    "refined": {"level": 2, "n_refinements": 4},
}
each_path = pytest.mark.parametrize("path", PATHS)


def smooth(X):
    return np.sin(3 * X[:, 0]) * np.exp(X[:, 1])


def kinked(X):
    return np.abs(X[:, 0] - 0.4) + np.sin(4 * X[:, 1]) * X[:, 0]


def peak(X):
    return np.exp(-300 * ((X[:, :2] - [0.3, 0.7]) ** 2).sum(1)) + 0.5 * X[:, 0]


def sample(function, n, noise=0.0, seed=0, d=2):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    return X, function(X) + noise * rng.standard_normal(n)


FRESH = np.random.default_rng(100).random((4000, 2))


def rms(model, function):
    """Error on fresh points."""
    return np.sqrt(np.mean((model.predict(FRESH) - function(FRESH)) ** 2))


# Errors


@pytest.mark.parametrize(
    ("boundary", "levels", "slowest", "fastest"),
    [
        ("full", range(1, 6), 3.5, 4.5),
        *slow(("modified", range(3, 8), 3.5, 8), ("truncated", range(2, 7), 3.5, 4.5)),
    ],
)
def test_error_of_a_smooth_function_falls_as_the_square_of_the_mesh(
    boundary, levels, slowest, fastest
):
    """By 4 from level to level, but for the growth of a logarithm and what faces still cost."""
    X, y = sample(smooth, 2000)
    errors = [rms(SparseGridRegressor(l, boundary=boundary).fit(X, y), smooth) for l in levels]
    ratios = np.divide(errors[:-1], errors[1:])
    assert (ratios > slowest).all(), ratios
    assert (ratios < fastest).all(), ratios
    assert errors[-1] < 2e-4


@pytest.mark.slow
def test_functions_of_few_columns_need_no_more_points_in_many():
    X, y = sample(lambda X: smooth(X) + np.abs(X[:, 4] - 0.5), 4000, d=8)
    fresh, truth = sample(lambda X: smooth(X) + np.abs(X[:, 4] - 0.5), 1000, d=8, seed=1)
    model = SparseGridRegressor().fit(X, y)
    assert (model.level_, len(model.coef_)) == (4, count_points(8, 4, "modified")[0])
    assert np.sqrt(np.mean((model.predict(fresh) - truth) ** 2)) < 0.02 * truth.std()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_outside_the_box_outermost_pieces_go_on(boundary):
    X, y = sample(smooth, 500, noise=0.01)
    model = SparseGridRegressor(3, boundary=boundary).fit(X, y)
    for start, step in (([1.1, 0.4], [0.5, 0]), ([0.4, -0.1], [0, -0.5])):
        ray = np.array(start) + np.arange(6)[:, None] * step
        mean, std = model.predict(ray, return_std=True)
        np.testing.assert_allclose(np.diff(mean, 2), 0, atol=1e-9)
        assert (np.diff(std) > 0).all()
        assert abs(mean[1] - mean[0]) > 0.01


def test_zero_boundary_is_the_mean_on_the_faces():
    X, y = sample(smooth, 300)
    model = SparseGridRegressor(4, boundary="zero").fit(X, y)
    t = np.linspace(0, 1, 9)
    for column, side in ((0, X.min(0)), (1, X.max(0))):
        face = X.min(0) + t[:, None] * np.ptp(X, axis=0)
        face[:, column] = side[column]
        np.testing.assert_allclose(model.predict(face), y.mean(), rtol=0, atol=1e-12)


# Refinement


@pytest.mark.parametrize("noise", [0.01, *slow(0.0)])
def test_refinement_beats_the_regular_grid_of_as_many_points(noise):
    X, y = sample(peak, 4000, noise)
    regular = SparseGridRegressor(6).fit(X, y)
    refined = SparseGridRegressor(n_refinements=12, max_points=310).fit(X, y)
    assert refined.level_ == 3
    assert len(refined.coef_) < len(regular.coef_) == 321
    assert rms(refined, peak) < rms(regular, peak) / 5
    regular, refined = (
        np.mean(np.abs(model.grid_points_ - [0.3, 0.7]).max(1) < 0.15)
        for model in (regular, refined)
    )
    assert refined > 3 * regular  # shares of the points that are near the peak


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("max_points", [150, *slow(200, 321)])
def test_refinement_ends_at_max_points(boundary, max_points):
    model = SparseGridRegressor(2, boundary=boundary, n_refinements=20, max_points=max_points)
    model.fit(*sample(peak, 2000))
    assert 0.6 * max_points < len(model.coef_) <= max_points
    assert model.n_iter_ < 21


def test_refined_grid_holds_the_ancestors_of_its_points():
    X, y = sample(peak, 2000)
    model = SparseGridRegressor(2, n_refinements=8).fit(X, y)
    points = (model.grid_points_ - X.min(0)) / np.ptp(X, axis=0)
    index = np.round(points * 2**16).astype(int)
    np.testing.assert_allclose(index / 2**16, points, rtol=0, atol=1e-12)
    known = {tuple(point) for point in index}
    assert len(known) == len(index) > 60
    for point in known:
        for j, i in enumerate(point):
            spacing = i & -i  # of the points of its level
            if spacing < 2**15:
                parent = next(p for p in (i - spacing, i + spacing) if p & -p == 2 * spacing)
                assert (*point[:j], parent, *point[j + 1 :]) in known


def test_best_grid_of_a_refinement_is_kept():
    """Pure noise: refinement ends two steps after the best grid, which is the coarsest here."""
    X, y = sample(lambda X: 0 * X[:, 0], 300, noise=1.0)
    model = SparseGridRegressor(2, n_refinements=20).fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) < 10
    assert int(np.argmin(model.loss_curve_)) == model.n_iter_ - 3
    for steps in range(1, model.n_iter_):
        other = SparseGridRegressor(2, n_refinements=steps).fit(X, y)
        assert other.loss_curve_ == model.loss_curve_[: steps + 1]
        best = int(np.argmin(other.loss_curve_))
        assert (len(other.coef_) == len(model.coef_)) == (best == model.n_iter_ - 3)


def test_loss_of_a_refinement_is_the_held_out_error_in_units_of_the_variance():
    X, y = sample(peak, 4000, 0.05)
    # With a law of noise, which the peak is taken for on coarse grids, it is in the law's units.
    model = SparseGridRegressor(n_refinements=12, density="gaussian").fit(X, y)
    assert model.loss_curve_[0] > 1.5 * min(model.loss_curve_)
    expected = (rms(model, peak) ** 2 + 0.05**2) / y.var()
    # The error of a mean square from 600 rows is 6 %.
    np.testing.assert_allclose(min(model.loss_curve_), expected, rtol=0.18)


def test_share_of_the_points_that_are_refined():
    X, y = sample(peak, 1000)
    sizes = [
        len(SparseGridRegressor(4, n_refinements=1, refine_fraction=f).fit(X, y).coef_)
        for f in (1e-9, 0.2, 0.5, 1.0)
    ]
    assert 49 < sizes[0] == sizes[1] < sizes[2] < sizes[3]


def test_rows_held_out_depend_on_the_random_state():
    X, y = sample(peak, 500, 0.1)
    curves = [
        SparseGridRegressor(n_refinements=2, random_state=seed).fit(X, y).loss_curve_
        for seed in (None, None, 1, 2)
    ]
    assert curves[0] == curves[1]
    assert len({tuple(curve) for curve in curves}) == 3


# Error bars


@pytest.mark.parametrize("noise", [0.05, 0.3])
@pytest.mark.parametrize(
    "params",
    [{"n_refinements": 5}, *slow({"level": 6}, {"level": 4, "solver": "iterative"})],
    ids=str,
)
def test_standard_deviations_are_honest(params, noise):
    shares, ratios, noises = [], [], []
    for seed in range(4):
        X, y = sample(kinked, 600, noise, seed)
        model = SparseGridRegressor(**params).fit(X, y)
        mean, std = model.predict(FRESH, return_std=True)
        epistemic, own = (model.predict(FRESH, return_std=s)[1] for s in ("epistemic", "noise"))
        np.testing.assert_allclose(std**2, epistemic**2 + own**2)
        assert (own == model.noise_).all()
        truth = kinked(FRESH)
        targets = truth + noise * np.random.default_rng(seed + 50).standard_normal(len(truth))
        shares.append(np.mean(np.abs(targets - mean) < 1.96 * std))
        ratios.append(np.sqrt(np.mean(((truth - mean) / epistemic) ** 2)))
        noises.append(model.noise_)
    assert abs(np.mean(shares) - 0.95) < 0.015
    assert 0.75 < np.mean(ratios) < 1.3
    np.testing.assert_allclose(np.mean(noises), noise, rtol=0.06)


# Targets and units


@each_path
def test_outputs_are_fitted_as_if_alone(path):
    X, first = sample(kinked, 200, 0.1)
    Y = np.column_stack([first, 3 - 20 * smooth(X)])
    # A refinement goes where any output asks for it; a given ridge is not shared.
    params = {**PATHS[path], "alpha": 0.01, "n_refinements": 0}
    both = SparseGridRegressor(**params).fit(X, Y)
    mean, std = both.predict(FRESH[:50], return_std=True)
    for output in (0, 1):
        model = SparseGridRegressor(**params).fit(X, Y[:, output])
        alone, its_std = model.predict(FRESH[:50], return_std=True)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
        close(mean[:, output], alone)
        close(std[:, output], its_std)
        close(both.coef_[:, output], model.coef_)
        close(both.noise_[output], model.noise_)
        assert both.intercept_[output] == pytest.approx(model.intercept_)


@each_path
def test_units_pass_through(path):
    X, y = sample(kinked, 200, 0.1)
    size, offset = np.array([1e3, 1e-6]), np.array([-7.0, 2e-6])
    one = SparseGridRegressor(**PATHS[path]).fit(X, y)
    two = SparseGridRegressor(**PATHS[path]).fit(size * X + offset, 40 - 25 * y)
    points = np.random.default_rng(1).uniform(-0.2, 1.2, (50, 2))
    mean, std = one.predict(points, return_std=True)
    other, its_std = two.predict(size * points + offset, return_std=True)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    close(other, 40 - 25 * mean)
    close(its_std, 25 * std)
    close(two.coef_, -25 * one.coef_)
    close(two.intercept_, 40 - 25 * one.intercept_)
    close(two.noise_, 25 * one.noise_)
    close((two.grid_points_ - offset) / size, one.grid_points_)
    assert two.alpha_ == pytest.approx(one.alpha_)


def test_a_gap_without_rows_is_not_known_well():
    # Exact data elsewhere: the prior alone speaks where a function of the grid has no rows.
    x = np.random.default_rng(0).random(60)
    X = np.r_[0.0, x[(x < 0.62) | (x > 0.76)], 1.0][:, None]
    model = SparseGridRegressor(4).fit(X, X[:, 0])
    mean, std = model.predict([[0.6875], [0.3]], return_std="epistemic")
    assert abs(mean[0] - 0.6875) < 3 * std[0]
    assert std[0] > 1e-4
    assert std[1] < 1e-2 * std[0]


def test_rows_of_weight_and_repeated_rows_are_the_same():
    X, y = sample(kinked, 100, 0.1)
    X[1] = X[0]
    weight = np.random.default_rng(2).integers(0, 3, 100)
    weight[:2] = 1
    weighted = SparseGridRegressor(4).fit(X, y, sample_weight=weight)
    repeated = SparseGridRegressor(4).fit(np.repeat(X, weight, 0), np.repeat(y, weight))
    assert_same_bits(predictions(weighted), predictions(repeated))


# Attributes


@each_path
def test_prediction_is_the_sum_of_surpluses_times_hats(path):
    X, y = sample(kinked, 150, 0.05)
    model = SparseGridRegressor(**PATHS[path]).fit(X, y)
    u = (FRESH[:40] - X.min(0)) / np.ptp(X, axis=0)
    points = (model.grid_points_ - X.min(0)) / np.ptp(X, axis=0)
    total = np.full(40, model.intercept_)
    for point, surplus in zip(points, model.coef_, strict=True):
        term = np.full(40, surplus)
        for j in range(2):
            level = next(l for l in range(1, 20) if abs(point[j] * 2**l % 1 - 0.5) > 0.499)
            index, t = round(point[j] * 2**level), 2**level * u[:, j]
            if level > 1:  # level 1 is constant
                hat = 1 - np.abs(t - index)
                hat = 2 - t if index == 1 else hat
                hat = t + 1 - index if index == 2**level - 1 else hat
                term *= np.maximum(hat, 0)
        total += term
    np.testing.assert_allclose(model.predict(FRESH[:40]), total, rtol=1e-10, atol=1e-10)


@each_path
@pytest.mark.parametrize("n_outputs", [None, 1, 2])
def test_attributes(path, n_outputs):
    X, y = sample(kinked, 150, 0.05)
    Y = y if n_outputs is None else np.column_stack([y, -y])[:, :n_outputs]
    model = SparseGridRegressor(**PATHS[path]).fit(X, Y)
    names = set(documented(SparseGridRegressor.__doc__, "Attributes"))
    found = {name for name in dir(model) if name.endswith("_") and not name.startswith("_")}
    assert names - found == {"feature_names_in_"}
    assert found < names
    n_points, shape = len(model.grid_points_), () if n_outputs is None else (n_outputs,)
    assert model.grid_points_.shape == (n_points, 2)
    assert model.coef_.shape == (n_points, *shape)
    assert np.shape(model.intercept_) == np.shape(model.noise_) == shape
    np.testing.assert_allclose(model.intercept_, Y.mean(0))
    assert model.level_ == PATHS[path]["level"]
    assert model.n_features_in_ == 2
    assert 1e-6 <= model.alpha_ <= 1
    assert model.level_weight_ in (4, 16, 64)
    if path == "refined":
        assert model.n_iter_ == len(model.loss_curve_) > 1
    else:
        assert n_points == count_points(2, model.level_, "modified")[0]
        assert len(model.loss_curve_) == 1
        assert model.n_iter_ == 1  # by the whole Gram matrix the iterative solution takes one
    assert not odd_parts(vars(model))


def test_constant_columns_have_no_grid_points():
    X, y = sample(kinked, 100, 0.05)
    plain = SparseGridRegressor(3).fit(X, y)
    wider = SparseGridRegressor(3).fit(np.insert(X, 1, 7.0, axis=1), y)
    assert np.isnan(wider.grid_points_[:, 1]).all()
    assert same_bits(wider.grid_points_[:, [0, 2]], plain.grid_points_)
    queries = np.insert(FRESH[:9], 1, -1.0, axis=1)
    assert same_bits(wider.predict(queries), plain.predict(FRESH[:9]))


@pytest.mark.parametrize("params", [{}, {"n_refinements": 3}, {"solver": "iterative"}], ids=str)
def test_few_rows_and_constant_targets(params):
    for n in (1, 2, 5):
        X, y = sample(kinked, n)
        mean, std = SparseGridRegressor(**params).fit(X, y).predict(X, return_std=True)
        np.testing.assert_allclose(mean, y, atol=0.3)
        assert np.isfinite(std).all()
    X, _ = sample(kinked, 50)
    model = SparseGridRegressor(**params).fit(X, np.full(50, 4.25))
    assert (model.predict(FRESH[:9]) == 4.25).all()


# Copies


@each_path
def test_copies_and_repetitions_have_the_same_bits(path):
    X, y = sample(kinked, 150, 0.05)
    model = SparseGridRegressor(**PATHS[path]).fit(X, y)
    expected = predictions(model, FRESH[:20])
    assert_same_bits(predictions(pickle.loads(pickle.dumps(model)), FRESH[:20]), expected)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert not hasattr(twin, "model_")
    order = np.random.default_rng(3).permutation(150)
    assert_same_bits(predictions(twin.fit(X[order], y[order]), FRESH[:20]), expected)


# What goes wrong


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"level": 0}, "'level' parameter of .* Got 0"),
        ({"level": 31}, r"'level' parameter of .*range \[1, 30\].* Got 31"),
        ({"boundary": "periodic"}, "'boundary' parameter of .*'truncated'.* Got 'periodic'"),
        ({"alpha": -1e-9}, "'alpha' parameter of .* Got -1e-09"),
        ({"solver": "cholesky"}, "'solver' parameter of .*'iterative'.* Got 'cholesky'"),
        ({"n_refinements": -1}, "'n_refinements' parameter of .* Got -1"),
        ({"refine_fraction": 0}, "'refine_fraction' parameter of .* Got 0"),
        ({"refine_fraction": 1.01}, "'refine_fraction' parameter of .* Got 1.01"),
        ({"max_points": 0}, "'max_points' parameter of .* Got 0"),
        ({"density": "uniform"}, "'density' parameter of .*'mixture'.* Got 'uniform'"),
        ({"batch_size": 0}, "'batch_size' parameter of .* Got 0"),
        ({"level": 9, "max_points": 4096}, "level=9 .* 2 .* 4097 .* max_points=4096. Lower"),
        (
            {"boundary": "full", "max_points": 16},
            "Even level 1 with boundary='full' in 2 .* 17 grid points, more than max_points=16",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_refinements", [0, 2])
def test_parameters_that_cannot_be(params, match, n_refinements):
    model = SparseGridRegressor(**{"n_refinements": n_refinements} | params)
    with no_training(), pytest.raises(ValueError, match=match):
        model.fit(*sample(kinked, 30))


def test_iterations_used_up(monkeypatch):
    few = functools.partial(sparse_grid_solution.IterativeProblem, max_iter=3)
    monkeypatch.setattr(sparse_grid_solution, "IterativeProblem", few)
    monkeypatch.setattr(sparse_grid_solution, "N_EXACT", 1)
    model = SparseGridRegressor(4, alpha=1e-4, solver="iterative")
    with pytest.warns(ConvergenceWarning, match=r"all 3 iterations\. Raise alpha") as caught:
        model.fit(*sample(kinked, 200))
    assert caught[0].filename == __file__
    assert model.n_iter_ == 3


@pytest.mark.parametrize("after", [1, 2, 3])
def test_interrupted_refinement_leaves_the_best_grid(after, monkeypatch):
    X, y = sample(peak, 500)
    monkeypatch.setattr(fit, "PATIENCE", 100)
    expected = SparseGridRegressor(n_refinements=2).fit(X, y)
    lines = []

    def stop(line, **kwargs):
        lines.append(line)
        if len(lines) == after:
            raise KeyboardInterrupt

    model = SparseGridRegressor(n_refinements=9, verbose=1)
    monkeypatch.setattr("builtins.print", stop)
    with pytest.warns(UserWarning, match="interrupted") as w, pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert [str(r.filename) for r in w] == [__file__]
    assert model.loss_curve_[:after] == expected.loss_curve_[:after]
    if after == 3:
        assert same_bits(model.predict(FRESH[:9]), expected.predict(FRESH[:9]))


def test_reports(capsys):
    X, y = sample(kinked, 100, 0.1)
    SparseGridRegressor(3, verbose=1).fit(X, y)
    assert capsys.readouterr().out.startswith("[SparseGridRegressor] alpha ")
    model = SparseGridRegressor(2, n_refinements=2, verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[SparseGridRegressor] 5 points, alpha ")
    assert sum(" points, " in line for line in lines) == model.n_iter_
    SparseGridRegressor(3, solver="iterative", verbose=1).fit(X, y)
    assert "iterations, alpha" in capsys.readouterr().out
