"""Soft pieces that grow in number and in degree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou import POURegressor
from skpou.core import Rows
from skpou.core.models import residual_squares
from skpou.datasets import make_cross
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.gates.tree import GateForm
from skpou.partitions.grown import can_grow, grow, grown_pieces, halved, pieces_at


def smooth_rows():
    X = np.random.default_rng(0).random((150, 2))
    X, y = torch.as_tensor(X), torch.as_tensor(np.sin(7 * X[:, :1] + 3 * X[:, 1:]))
    return Rows(X, y, torch.ones(len(X), dtype=X.dtype), torch.zeros_like(y))


FORMS = {"quadratic": GateForm(2), "radial": GateForm(2, isotropic=True), "linear": GateForm(1)}


def options(number, degree, form="radial"):
    gates = (FORMS[form],)
    return PieceOptions(sizes=(number,), degree=degree, gates=gates, exactly=True, soft=True)


def left(rows, found):
    return float(residual_squares(found.state, rows).sum()) ** 0.5


def test_halves_together_are_nearly_the_whole():
    rows = smooth_rows()
    for form in FORMS:
        found = fit_pieces(rows, options(2, 1, form), np.random.default_rng(0))
        assert can_grow(found)
        theta = halved(found.state, rows, FORMS[form], 3)
        assert theta.shape == (3, FORMS[form].basis(2).n_columns)
        features = FORMS[form].basis(2).matrix(rows.X)
        share = torch.softmax(features @ theta.T, 1)
        whole = found.state.tree.log_proba(rows.X).exp()
        both = share[:, :2] + share[:, 2:]
        # The new one is a half of either; the tilt adds little to their sum.
        change = (both - whole).abs().mean(0)
        assert float(change.min()) < 0.03


def test_growing_leaves_less():
    rows = smooth_rows()
    found = fit_pieces(rows, options(2, 1), np.random.default_rng(0))
    more = grow(rows, options(4, 1), found)
    higher = grow(rows, options(2, 2), found)
    assert more.state.n_leaves == 4
    assert higher.state.n_leaves == 2
    assert higher.state.degree == 2
    assert left(rows, more) < 0.5 * left(rows, found)
    assert left(rows, higher) < left(rows, found)


def test_every_chain_ends_with_what_is_asked_for():
    rows = smooth_rows()
    found = list(grown_pieces(rows, options(4, 1)))
    assert [(one.state.n_leaves, one.state.degree) for one in found] == [(4, 1), (4, 1)]
    # Two constants have nothing to grow from, but another start.
    assert [one.state.n_leaves for one in grown_pieces(rows, options(2, 0))] == [2]
    # Fewer pieces are merged from those that are there.
    more = fit_pieces(rows, options(4, 1), np.random.default_rng(0))
    assert [one.state.n_leaves for one in grown_pieces(rows, options(4, 1), more)] == [4, 4]


def test_pieces_at_rows_are_numbered_without_gaps():
    rows = smooth_rows()
    found = fit_pieces(rows, replace(options(2, 1), padded_to=5), np.random.default_rng(0))
    labels = pieces_at(found, rows)
    assert found.state.n_leaves == 5
    assert labels.unique().tolist() == [0, 1]


@pytest.mark.slow
def test_more_pieces_and_higher_degrees_are_no_worse():
    axis = np.linspace(-1, 1, 81)
    zero = np.zeros_like(axis)
    X = np.unique(np.vstack([np.column_stack([axis, zero]), np.column_stack([zero, axis])]), axis=0)
    T = 0.999 * X
    y, truth = make_cross(X=X)[1], make_cross(X=T)[1]
    errors = [
        np.sqrt(np.mean((POURegressor(*size).fit(X, y).predict(T) - truth) ** 2))
        for size in ((2, 1), (4, 1), (4, 2), (2, 0), (4, 0))
    ]
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < errors[1]
    # Constants have no lower degree to grow from: other starts find these.
    assert errors[4] < 0.01 * errors[3]
