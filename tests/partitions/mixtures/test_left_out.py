"""Rows that are left out to judge smooth functions."""

import numpy as np
import torch

from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.mixtures.left_out import LeftOutRows, are_inside
from tests.examples import rows_of


def test_rows_at_the_rim_are_not_among_their_neighbours():
    axes = [np.linspace(0, 1, n) for n in (6, 9)]
    X = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1)
    rim = ((X == 0) | (X == 1)).any(1)
    # Rows on a side lie between two others of it; the corners do not.
    corners = ((X == 0) | (X == 1)).all(1)
    inside = are_inside(X)
    assert inside[~rim].all()
    assert not inside[corners].any()
    assert are_inside(X[:, :1]).all()


def test_hardly_any_rows_inside_tell_nothing():
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    assert are_inside(np.stack([np.cos(angle), np.sin(angle)], 1)).all()


def test_contours_of_the_target_are_left_out_whole():
    rng = np.random.default_rng(1)
    level = np.repeat(np.arange(8.0), 12)
    X = np.stack([rng.random(96), 0.1 * level + 0.02 * rng.random(96)], 1)
    rows = rows_of(X, level - 3.5)
    plain, contours = LeftOutRows(rows), LeftOutRows(rows, of_targets=True)
    assert not plain.on_levels
    assert contours.on_levels
    found = contours.sets[contours.n_folds :]
    # The lowest and the highest would be extrapolated.
    assert len(found) == 6
    for part in found:
        assert len(part) == 12
        assert len(np.unique(contours.rows.y.numpy()[part])) == 1


def test_errors_at_the_rim_do_not_count_in_folds():
    X = np.random.default_rng(2).random((80, 2))
    some = LeftOutRows(rows_of(X, np.ones(80)))
    rim = ~are_inside(some.rows.X.numpy())
    assert 4 <= rim.sum() <= 20
    error = np.where(rim[np.concatenate(some.sets)], 1e3, 2.0)[:, None]
    np.testing.assert_allclose(some.pooled(error), 2.0)


def test_what_noise_may_make_of_a_gain():
    """The standard deviation of the gain over draws of the noise of 50 rows, left out twice."""
    rng = np.random.default_rng(4)
    some = LeftOutRows(rows_of(rng.random((50, 1)), np.ones(50)))
    row = np.concatenate(some.sets)
    apart = 0.3 * np.sin(np.arange(50))[row, None]
    gains, known = [], []
    for _ in range(300):
        noise = rng.normal(size=50)[row, None]
        gains.append(some.pooled(noise + apart) ** 2 - some.pooled(noise) ** 2)
        known.append(some.gain_known(noise, noise + apart))
    np.testing.assert_allclose(np.mean(known), np.std(gains), rtol=0.1)


def test_pieces_do_not_know_more_of_a_line_than_the_other_one_they_are_on():
    """Two lines beside a jump are met to the last digit; without one of them nothing is known."""
    rng = np.random.default_rng(6)
    X = np.stack([np.repeat(np.linspace(0, 1, 10), 61), rng.random(610)], 1)
    first = X[:, 0] < 0.15
    rows = rows_of(X, np.where(first, 5.0, X[:, 1]) + X[:, 0] * X[:, 1] ** 2)
    found = fit_pieces(
        rows, PieceOptions(sizes=(2,), degree=3), rng, torch.as_tensor(~first).long()
    ).state
    some = LeftOutRows(rows)
    error = np.abs(some.left_out_by(found)[:, 0])
    group = np.repeat(np.arange(len(some.sets)), [len(part) for part in some.sets])
    of_level = [error[group == k].max() for k in range(some.n_folds, len(some.sets))]
    assert len(of_level) == 8
    assert of_level[0] > 0.1
    assert max(of_level[1:]) < 1e-6
