"""What is special to HierarchicalPOURegressor: the tree, refits, warm starts, interrupts."""

import copy
import functools
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor
from skpou.base import estimator
from skpou.partitions.estimators import discovery, hierarchical
from skpou.partitions.mixtures.mixture import Mixture
from tests.estimators import (
    QUERY,
    assert_same_bits,
    kinked,
    predictions,
    same_bits,
    stepped,
    stepped_mean,
)
from tests.examples import slow

X, Y = stepped()
QUICK = {"n_partitions": 2, "degree": 1}


@functools.cache
def _fitted(**params):
    return HierarchicalPOURegressor(**params).fit(X, Y)


def fitted(**params):
    """Copy of that estimator after a fit to `X` and `Y`."""
    return copy.deepcopy(_fitted(**params))


def zigzag(x):
    """Four lines: a jump at 0 between two pairs that meet at kinks."""
    return np.select([x < -0.5, x < 0, x < 0.5], [0 * x, 2 * x + 1, 1 - x], 0.5)


LINE = np.sort(np.random.default_rng(0).uniform(-1, 1, (200, 1)), axis=0)


@pytest.fixture(scope="module")
def tree():
    """Two coarse partitions with two fine ones in each."""
    return HierarchicalPOURegressor((2, 2), 1, alpha=0.0).fit(LINE, zigzag(LINE[:, 0]))


# Accuracy


@pytest.mark.parametrize("gate", ["quadratic", "linear"])
@pytest.mark.parametrize("sizes", ["auto", 4, (2, 2)], ids=str)
def test_piecewise_linear_function_is_recovered_between_the_samples(sizes, gate):
    model = HierarchicalPOURegressor(sizes, gate=gate).fit(LINE, zigzag(LINE[:, 0]))
    grid = np.linspace(-1, 1, 999)
    gap = np.abs(grid) > 0.05  # No sample says where between its neighbours the jump is.
    error = np.abs(model.predict(grid[:, None]) - zigzag(grid))[gap]
    assert error.max() < 1e-13
    assert len(model.coef_) == 4


@pytest.mark.parametrize("bound", [1, 2, 3, (2,), (1, 2), (2, 1)], ids=str)
def test_bounds_of_partitions_hold(bound):
    model = HierarchicalPOURegressor(bound, 1).fit(LINE, zigzag(LINE[:, 0]))
    assert len(model.coef_) <= np.prod(bound)
    if isinstance(bound, tuple):
        for parent, most in zip(model.tree_, bound, strict=True):
            assert np.bincount(parent).max() <= most


@pytest.mark.parametrize("bound", [np.int64(2), (np.int64(2), np.int32(2))], ids=str)
def test_numpy_ints_are_ints(bound):
    plain = tuple(map(int, bound)) if isinstance(bound, tuple) else int(bound)
    results = [HierarchicalPOURegressor(b, np.int64(1)).fit(X, Y) for b in (bound, plain)]
    assert_same_bits(predictions(results[0]), predictions(results[1]))


def test_bound_may_exceed_the_number_of_rows():
    model = HierarchicalPOURegressor(10**9, 1).fit(X, Y)
    assert np.sqrt(np.mean((model.predict(QUERY) - stepped_mean(QUERY)) ** 2)) < 0.1


@pytest.mark.parametrize("tol", [0.0, 1e-3, 1.0, 1e300])
def test_any_tolerance_fits(tol):
    assert np.isfinite(HierarchicalPOURegressor(**QUICK, tol=tol).fit(X, Y).predict(QUERY)).all()


def test_ridge_shrinks_the_polynomials():
    rough, smooth = (HierarchicalPOURegressor(1, 1, alpha=a).fit(X, Y) for a in (0.0, 10.0))
    assert rough.alpha_ == 0.0
    assert smooth.alpha_ == 10.0
    assert (np.abs(smooth.coef_[0, 1:]) < 0.1 * np.abs(rough.coef_[0, 1:]).max()).all()
    design = np.column_stack([np.ones(len(X)), X])
    exact = design @ np.linalg.lstsq(design, Y, rcond=None)[0]
    np.testing.assert_allclose(rough.predict(X), exact, atol=1e-12)


# The tree


def test_tree_lists_the_parents_of_every_level(tree):
    assert len(tree.tree_) == 2
    above = 1
    for parent in tree.tree_:
        assert parent.dtype.kind == "i"
        assert set(parent.tolist()) == set(range(above))
        above = len(parent)
    assert above == len(tree.coef_) == len(tree.noise_) == 4


def test_coarse_partitions_are_the_sum_of_their_children(tree):
    fine, coarse = tree.partition_proba(LINE), tree.partition_proba(LINE, level=0)
    np.testing.assert_allclose(fine.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(fine @ np.eye(2)[tree.tree_[1]], coarse, atol=1e-12)
    for level, proba in ((None, fine), (1, fine), (0, coarse)):
        assert same_bits(tree.partition_proba(LINE, level), proba)
        chosen = tree.predict_partition(LINE, level)
        assert chosen.dtype == np.int64
        assert (proba[np.arange(len(LINE)), chosen] == proba.max(1)).all()
    assert (tree.tree_[1][tree.predict_partition(LINE)] == tree.predict_partition(LINE, 0)).all()


def test_coarse_level_has_one_polynomial_a_coarse_partition(tree):
    values = zigzag(LINE[:, 0])
    coarse, std = tree.predict(LINE, return_std=True, level=0)
    partition = tree.predict_partition(LINE, level=0)
    for rows in (partition == 0, partition == 1):
        line = np.polynomial.Polynomial.fit(LINE[rows, 0], values[rows], 1)
        np.testing.assert_allclose(coarse[rows], line(LINE[rows, 0]), atol=1e-12)  # Eq. 36
        rms = np.sqrt(np.mean((coarse[rows] - values[rows]) ** 2))
        np.testing.assert_allclose(std[rows], rms, rtol=0.2)
    assert same_bits(tree.predict(LINE, level=1), tree.predict(LINE))
    assert np.abs(tree.predict(LINE) - values).max() < 1e-13


# Attributes


@pytest.mark.parametrize("shape", [(), (2,)], ids=["one target", "two targets"])
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_prediction_from_the_attributes_by_hand(shape, degree):
    points = np.column_stack([X[:, 0], np.full(len(X), 7.0), 1e3 * X[:, 1]])
    targets = 100 + 5 * (Y if not shape else np.column_stack([Y, Y**2]))
    model = HierarchicalPOURegressor(2, degree).fit(points, targets)
    box = model.scaling_
    t = (points[:, box["columns"]] - box["offset"]) / box["width"]
    legendre = [np.polynomial.legendre.legvander(2 * column - 1, degree) for column in t.T]
    exponents = [(i, j) for i in range(degree + 1) for j in range(degree + 1) if i + j <= degree]
    exponents.sort(key=lambda e: (sum(e), e))
    phi = np.column_stack([legendre[0][:, i] * legendre[1][:, j] for i, j in exponents])
    coef = model.coef_.reshape(len(model.coef_), len(exponents), -1)
    assert model.coef_.shape == (len(coef), len(exponents), *shape)
    by_hand = np.einsum("nk,np,kpm->nm", model.partition_proba(points), phi, coef)
    np.testing.assert_allclose(by_hand.reshape(len(X), *shape), model.predict(points), rtol=1e-12)
    assert model.noise_.shape == (len(coef), *shape)


@pytest.mark.parametrize("noise", [0.1, *slow(0.01, 1.0)])
def test_noise_is_near_the_truth(noise):
    points, targets = kinked(800, noise=noise)
    model = HierarchicalPOURegressor(2, 1).fit(points, targets)
    np.testing.assert_allclose(model.noise_, noise, rtol=0.15)
    scaled = HierarchicalPOURegressor(2, 1).fit(points, 1024 * targets)
    assert same_bits(scaled.noise_, 1024 * model.noise_)


def test_noise_may_differ_between_partitions():
    points = np.random.default_rng(0).uniform(-1, 1, (800, 1))
    level = np.where(points[:, 0] < 0, 0.02, 0.2)
    targets = 3 * (points[:, 0] > 0) + level * np.random.default_rng(1).standard_normal(800)
    model = HierarchicalPOURegressor(2, 1).fit(points, targets)
    std = model.predict([[-0.7], [0.7]], return_std="noise")[1]
    np.testing.assert_allclose(std, [0.02, 0.2], rtol=0.25)


def test_chosen_values_are_reported_and_parameters_kept():
    model = HierarchicalPOURegressor().fit(X, Y)
    assert isinstance(model.degree_, int)
    assert isinstance(model.alpha_, float)
    assert isinstance(model.n_iter_, int)
    assert model.n_iter_ >= 1
    assert np.isfinite(model.loss_curve_).all()
    assert model.get_params() == HierarchicalPOURegressor().get_params()


# Refit


def test_refit_sets_the_attribute_and_lowers_the_error():
    values = np.sin(3 * LINE[:, 0])
    model = HierarchicalPOURegressor(2, 1).fit(LINE, values)
    before = np.abs(model.predict(LINE) - values).max()
    gates = model.partition_proba(LINE)
    assert model.refit(LINE, values, degree=5) is model
    assert (model.degree, model.degree_) == (1, 5)
    assert np.abs(model.predict(LINE) - values).max() < 0.01 * before
    assert same_bits(model.partition_proba(LINE), gates)
    assert model.coef_.shape[1] == 6
    model.refit(LINE, values)
    assert model.degree_ == 5
    model.fit(LINE, values)
    assert model.degree_ == 1


def test_refit_takes_other_targets_also_in_number():
    model = fitted(**QUICK)
    targets = np.column_stack([2 * Y + 1, X[:, 1]])
    model.refit(X, targets)
    mean, std = model.predict(QUERY, return_std=True)
    assert mean.shape == std.shape == (len(QUERY), 2)
    np.testing.assert_allclose(mean[:, 1], QUERY[:, 1], atol=1e-2)
    alone = fitted(**QUICK).predict(QUERY)
    np.testing.assert_allclose(mean[:, 0], 2 * alone + 1, rtol=0.05, atol=0.02)
    model.refit(X, Y[:, None])
    assert model.predict(QUERY).shape == (len(QUERY), 1)


def test_refit_of_the_same_data_changes_little():
    model = HierarchicalPOURegressor(**QUICK, alpha=1e-6).fit(X, Y)
    before = model.predict(QUERY)
    np.testing.assert_allclose(model.refit(X, Y).predict(QUERY), before, atol=0.02)


def test_refit_weights_are_repetitions():
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    first, second = (fitted(**QUICK) for _ in range(2))
    first.refit(X, -Y, sample_weight=weight)
    second.refit(np.repeat(X, weight, axis=0), np.repeat(-Y, weight))
    assert_same_bits(predictions(first), predictions(second))


@pytest.mark.parametrize("sizes", [2, (2, 2)], ids=str)
@pytest.mark.parametrize("rows", ["one piece", "one row", "outside"])
def test_refit_where_a_partition_has_no_rows(sizes, rows):
    model = fitted(n_partitions=sizes, degree=1)
    if rows == "outside":
        model.refit(X + 10, Y)
    else:
        chosen = X[:, 0] > 0.3 if rows == "one piece" else np.arange(len(X)) == 4
        model.refit(X[chosen], Y[chosen])
    for kind, value in predictions(model).items():
        assert np.isfinite(value).all(), kind


# Training: starts, iterations, reports


def test_best_of_n_init_is_kept(monkeypatch):
    results = []
    fit_pieces = discovery.fit_pieces

    def recorded(*args, **kwargs):
        results.append(fit_pieces(*args, **kwargs))
        results[-1].score = [3.0, 1.0, 2.0][len(results) - 1]
        results[-1].n_iter = 100 + len(results)
        return results[-1]

    monkeypatch.setattr(discovery, "fit_pieces", recorded)
    model = HierarchicalPOURegressor(**QUICK, n_init=3).fit(X, Y)
    assert len(results) == 3
    assert model.n_iter_ == 102


def test_max_iter_warns_with_numbers_and_advice():
    match = r"max_iter=1 .*relative change .* \d\.\de.*[Ii]ncrease max_iter"
    with pytest.warns(ConvergenceWarning, match=match) as caught:
        model = HierarchicalPOURegressor(2, 1, max_iter=1).fit(X, Y)
    assert caught[0].filename == __file__
    assert model.n_iter_ >= 1
    assert np.isfinite(model.predict(QUERY)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HierarchicalPOURegressor(2, 1).fit(X, Y)


@pytest.mark.parametrize("verbose", [0, 1, True])
def test_verbose(verbose, capsys):
    model = HierarchicalPOURegressor(**QUICK, verbose=verbose).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    if verbose:
        assert len(lines) >= model.n_iter_ - 1
        assert all(line.startswith("[HierarchicalPOURegressor] ") for line in lines)
    else:
        assert not lines


# Warm start


@pytest.mark.parametrize("degree", [1, "auto"])
def test_warm_start_goes_on_from_the_partitions(degree):
    model = HierarchicalPOURegressor((2, 2), degree, warm_start=True)
    cold = model.fit(LINE, zigzag(LINE[:, 0])).n_iter_
    model.fit(LINE, 3 * zigzag(LINE[:, 0]))
    assert model.n_iter_ <= cold
    np.testing.assert_allclose(model.predict(LINE), 3 * zigzag(LINE[:, 0]), atol=1e-12)
    moved = LINE + 0.1
    np.testing.assert_allclose(
        model.fit(moved, zigzag(LINE[:, 0])).predict(moved), zigzag(LINE[:, 0]), atol=1e-12
    )


def test_warm_start_without_an_earlier_fit_is_a_fit():
    first = HierarchicalPOURegressor(**QUICK, warm_start=True).fit(X, Y)
    assert_same_bits(predictions(first), predictions(fitted(**QUICK)))


@pytest.mark.parametrize(
    ("sizes", "points", "match"),
    [
        (3, X, r"warm_start=True needs the n_partitions of the last fit, \(2,\). Got 3"),
        ("auto", X, r"warm_start=True needs the n_partitions of the last fit.* Got 'auto'"),
        (2, X[:, :1], "warm_start=True needs the columns of the last fit.* Got 1"),
        (2, np.column_stack([X, X[:, 0] ** 2]), "warm_start=True needs the columns .* Got 3"),
        (2, np.column_stack([X, 0 * Y]), "warm_start=True needs the columns .* Got 3"),
        (2, X * [1, 0], "warm_start=True needs the columns of the last fit.* Got 1"),
    ],
    ids=["another bound", "no bound", "fewer columns", "more", "a constant more", "one constant"],
)
def test_warm_start_after_another_shape_is_refused(sizes, points, match):
    model = fitted(**QUICK, warm_start=True)
    before = predictions(model)
    model.set_params(n_partitions=sizes)
    with pytest.raises(ValueError, match=match):
        model.fit(points, Y)
    assert_same_bits(predictions(model), before)


# Interrupts


def press_at(monkeypatch, n_lines):
    """Raise KeyboardInterrupt instead of printing that line of the report."""
    count = 0

    def press(*args, **kwargs):
        nonlocal count
        count += 1
        if count == n_lines:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", press)


@pytest.mark.parametrize("n_init", [1, 2])
@pytest.mark.parametrize("n_lines", [1, 2, 3])
@pytest.mark.parametrize("earlier", [False, True], ids=["first fit", "second fit"])
def test_interrupt_keeps_the_best_so_far(monkeypatch, n_lines, earlier, n_init):
    model = HierarchicalPOURegressor(2, 1, verbose=1, n_init=n_init)
    if earlier:
        model.set_params(verbose=0).fit(X[:, :1], -Y).set_params(verbose=1)
    press_at(monkeypatch, n_lines)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y)
    monkeypatch.undo()
    if caught:
        assert "interrupted" in str(caught[0].message)
        assert all(np.isfinite(value).all() for value in predictions(model).values())
        assert model.n_iter_ >= 1
    elif earlier:  # There was nothing yet: the earlier fit stays.
        assert np.isfinite(model.predict(X[:, :1])).all()
    else:
        assert not hasattr(model, "scaling_")


def test_interrupt_of_a_later_start_keeps_the_first(monkeypatch):
    lines = []
    monkeypatch.setattr("builtins.print", lambda *args, **kwargs: lines.append(args))
    first = HierarchicalPOURegressor(**QUICK, verbose=1).fit(X, Y)
    press_at(monkeypatch, len(lines) + 1)
    model = HierarchicalPOURegressor(**QUICK, n_init=3, verbose=1)
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="interrupted") as caught:
        model.fit(X, Y)
    monkeypatch.undo()
    assert_same_bits(predictions(model), predictions(first))
    assert "not sharpened" not in str(caught[0].message)  # That start was complete.


@pytest.mark.parametrize(
    ("place", "name"),
    [(estimator, "merge_rows"), (hierarchical, "PieceOptions")],
    ids=["rows", "options"],
)
@pytest.mark.parametrize("earlier", [False, True], ids=["first fit", "second fit"])
def test_interrupt_before_training(monkeypatch, place, name, earlier):
    def press(*args, **kwargs):
        raise KeyboardInterrupt

    model = fitted(**QUICK) if earlier else HierarchicalPOURegressor(**QUICK)
    state = dict(vars(model))
    monkeypatch.setattr(place, name, press)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:, :1], np.column_stack([Y, Y]))
    assert vars(model) == state
    if earlier:
        monkeypatch.undo()
        assert_same_bits(predictions(model), predictions(fitted(**QUICK)))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_fault_while_the_result_is_stored(monkeypatch, error):
    model = fitted(**QUICK)
    before = predictions(model)

    def fail(self):
        raise error

    monkeypatch.setattr(Mixture, "arrays", fail)
    for attempt in (lambda: model.fit(-2 * X, Y), lambda: model.refit(2 * X, -3 * Y)):
        with pytest.raises(error):
            attempt()
    monkeypatch.undo()
    assert_same_bits(predictions(model), before)


def test_out_of_memory_on_the_device_gives_advice(monkeypatch):
    model = fitted(**QUICK)
    before = predictions(model)

    def fail(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(discovery, "fit_pieces", fail)
    match = "(?s)Tried to allocate 9 GiB.*batch_size.*device='cpu'"
    with pytest.raises(torch.cuda.OutOfMemoryError, match=match):
        model.fit(-X, Y)
    assert_same_bits(predictions(model), before)


@pytest.mark.parametrize("n", [21, 41, 51])
@pytest.mark.parametrize("shift", [0.0, 1e-16, 1e-14, 0.3])
def test_kinks_on_rows_and_beside_them(n, shift):
    x = np.linspace(0, 1, n)
    kink = x[n // 2] + shift * (x[1] if shift > 0.1 else 1.0)
    model = HierarchicalPOURegressor().fit(x[:, None], np.abs(x - kink))
    points = np.linspace(0, 1, 2001)
    error = model.predict(points[:, None]) - np.abs(points - kink)
    assert np.abs(error).max() < 1e-12
