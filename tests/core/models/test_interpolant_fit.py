"""Whether a Gaussian process predicts in place of a fit, and what its left-out errors ask for."""

from dataclasses import replace

import numpy as np
import torch

from skpou import AdditivePOURegressor, SparseGridRegressor
from skpou.core import Rows
from skpou.core.models import interpolant_fit, leave_out, residual_maker
from skpou.core.models.interpolant_fit import (
    _are_noise,
    _asked,
    _doubts_at_sides,
    _left_out,
    _may_be_better,
    _squares,
    solved,
)
from skpou.core.models.kernel_left_out import left_out_anew
from skpou.core.models.level_error import sets_of_levels
from skpou.core.models.likely_kernels import likeliest_kernel
from tests.examples import tensor


def rows_of(X, y):
    y = tensor(y)[:, None]
    return Rows(tensor(X), y, tensor(np.ones(len(X))), torch.zeros_like(y))


def interpolates(model):
    return bool((model._restraint or {}).get("interpolant"))


def left_out_by_the_process(X, y):
    rows = rows_of(X, y)
    chosen = likeliest_kernel(rows, 0)
    sets = leave_out([[residual_maker(tensor(np.ones((len(X), 1))), 0.0)]], rows)[0]
    return _left_out(rows, [(1.0, chosen)], sets)[1]


def test_left_out_errors_ask_for_a_factor_of_the_variance():
    x = np.linspace(0, 1, 30)[:, None]
    smooth_one = left_out_by_the_process(x, np.sin(9 * x[:, 0]))
    rooted = left_out_by_the_process(x, np.sqrt(x[:, 0]))
    assert _asked(_squares(smooth_one, x)) == 1
    assert _asked(_squares(rooted, x)) > 2

    def asked_by(size):
        error = size * np.sqrt(smooth_one.variance)
        return _asked(_squares(replace(smooth_one, error=error), x))

    assert 4 < asked_by(4) < 16
    # No bar is another one where an error passes three of them.
    assert asked_by(2.99) < asked_by(3.01) < 1.02 * asked_by(2.99)


def test_lines_along_one_column_bear_claims_out_by_themselves():
    side = np.linspace(0, 1, 9)
    X = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    found = left_out_by_the_process(X, np.sin(4 * X[:, 0]) * np.cos(3 * X[:, 1]))
    met = replace(found, error=0.5 * np.sqrt(found.variance))
    assert _asked(_squares(met, X)) == 1
    # The lines of a kink are missed by twice what is claimed, those of the other column met.
    lines = list(sets_of_levels(found, X)[0])
    factor = np.where(np.isin(found.group, lines), 2.0, 0.1)[:, None]
    parts = _squares(replace(found, error=factor * np.sqrt(found.variance)), X)
    together = {0: tuple(np.concatenate(part) for part in zip(*parts.values(), strict=True))}
    assert _asked(parts) > 1.2 * _asked(together)
    # They are few: twice the deviation is four times the variance, and more for their number.
    assert 4 < _asked(parts) < 16


def test_few_rows_choose_their_kernel_anew():
    rng = np.random.default_rng(5)
    X = np.sort(rng.random(6))[:, None]
    y = np.sin(3 * X[:, 0]) + X[:, 0] + 0.1 * rng.standard_normal(6)
    kept = left_out_by_the_process(X, y)
    assert _asked(_squares(kept, X)) == 1
    assert _asked(_squares(left_out_anew(rows_of(X, y), kept), X)) > 100
    # What is smooth without noise asks for little.
    y = np.exp(2 * X[:, 0])
    anew = left_out_anew(rows_of(X, y), left_out_by_the_process(X, y))
    assert _asked(_squares(anew, X)) < 10


def test_the_side_of_a_pole_is_doubted():
    x = np.sort(np.random.default_rng(0).uniform(0.02, 1, 60))[:, None]
    parts = {}
    for name, function in (("log", np.log), ("sine", np.sin)):
        rows = rows_of(x - x.min(), function(x[:, 0]))
        kernels = [(1.0, likeliest_kernel(rows, 0))]
        parts[name] = np.asarray(_doubts_at_sides(rows, kernels)["parts"])
    assert parts["log"][0, 0] > 0.3
    assert parts["log"][0, 1] == 0 and not parts["sine"].any()


def test_more_exact_rows_are_interpolated_by_a_kernel_of_some():
    X = np.sort(np.random.default_rng(4).uniform(1, 50, 180))[:, None]
    new = np.linspace(*X[[0, -1], 0], 500)[:, None]
    model = SparseGridRegressor().fit(X, X[:, 0] ** -0.3)
    mean, std = model.predict(new, return_std=True)
    error = mean - new[:, 0] ** -0.3
    assert interpolates(model) and np.abs(error).max() < 1e-3
    assert np.mean(np.abs(error) <= 3 * std) > 0.97
    # Noise is left to the process beside the fit.
    noise = 0.01 * np.random.default_rng(5).standard_normal(180)
    assert not interpolates(SparseGridRegressor().fit(X, X[:, 0] ** -0.3 + noise))


def test_errors_unlike_those_of_the_nearest_rows_are_noise():
    rng = np.random.default_rng(3)
    X = rng.random((200, 2))
    wave = np.sin(12 * X[:, 0] + 5 * X[:, 1])
    noise = rng.standard_normal(200)
    noise[:3] = 40.0

    def are_noise(X, errors):
        left_out = leave_out([[residual_maker(tensor(np.ones((200, 1))), 0.0)]], rows_of(X, errors))
        error = errors[left_out[0].row][:, None]
        return _are_noise(replace(left_out[0], error=error), rows_of(X, errors))

    assert are_noise(X, noise) and not are_noise(X, wave)
    # Of many columns no row is near another.
    assert not are_noise(rng.random((200, 3)), noise)


def test_all_kernels_are_asked_only_where_the_likeliest_may_be_better(monkeypatch):
    rng = np.random.default_rng(8)
    X = rng.random((24, 2))
    line = X @ [1.0, -0.5]
    asked = []

    def likely(rows, target, likeliest):
        asked.append(likeliest)
        return [(1.0, likeliest)]

    monkeypatch.setattr(interpolant_fit, "likely_kernels", likely)
    AdditivePOURegressor().fit(X, line + 0.1 * rng.standard_normal(24))
    assert not asked
    assert interpolates(AdditivePOURegressor().fit(X, np.sin(3 * X[:, 0] * X[:, 1])))
    assert asked


def test_what_the_likeliest_kernel_expects_is_borne_out():
    x = np.linspace(0, 1, 24)[:, None]
    rows = rows_of(x, np.sin(9 * x[:, 0]))
    own = left_out_by_the_process(x, np.sin(9 * x[:, 0]))
    worse = replace(own, error=1.5 * own.error, variance=0 * own.variance)
    likeliest, known = likeliest_kernel(rows, 0), np.ones(len(own.error), dtype=bool)
    probes = tensor(np.linspace(0, 1, 64)[:, None])
    process = solved(rows, [[(1.0, likeliest)]], n_taken=1)
    (claimed,) = process.components(probes).variances()[1].median(0).values.sqrt().tolist()

    def may_be_better(other, expected):
        return _may_be_better(rows, likeliest, other, known, expected, probes)

    # Errors a little less decide only beside a claim of less than half.
    assert may_be_better(worse, 2.1 * claimed) and not may_be_better(worse, 1.9 * claimed)
    assert not may_be_better(replace(own, error=0.9 * own.error), 2.1 * claimed)
