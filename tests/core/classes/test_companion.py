"""The logistic regression beside other classifiers: lines, ramps, nothing."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skpou.core import merge_rows
from skpou.core.classes.companion import LogisticCompanion, fit_companion_of_classes
from tests.examples import tensor


def rows_from(X, labels, K=2):
    y = torch.eye(K, dtype=torch.float64)[torch.as_tensor(labels)]
    return merge_rows(tensor(X), y, tensor(np.ones(len(X))), counts=True)


def drawn(log_odds, rng):
    return (rng.random(len(log_odds)) < 1 / (1 + np.exp(-log_odds))).astype(int)


def error(companion, X, log_odds):
    """Mean distance from the probabilities by which classes were drawn."""
    found = torch.softmax(companion.logits(tensor(X)), 1)[:, 1].numpy()
    return np.abs(found - 1 / (1 + np.exp(-log_odds))).mean()


def test_a_line_needs_no_ramps():
    rng = np.random.default_rng(0)
    X, fresh = rng.random((400, 3)), rng.random((500, 3))

    def odds(X):
        return 6 * X[:, 0] - 4 * X[:, 1] - 1

    rows = rows_from(X, drawn(odds(X), rng))
    companion, left_out = fit_companion_of_classes(rows)
    assert left_out.shape == (400, 2)
    line = LogisticRegression(C=np.inf).fit(rows.X.numpy(), rows.y[:, 1].numpy())
    truth = 1 / (1 + np.exp(-odds(fresh)))
    likeliest = np.abs(line.predict_proba(fresh)[:, 1] - truth).mean()
    assert error(companion, fresh, odds(fresh)) < 1.2 * likeliest


def test_ramps_follow_a_column_of_long_tails():
    rng = np.random.default_rng(1)
    X, fresh = (np.column_stack([rng.random(n) ** 12, rng.random(n)]) for n in (600, 500))

    def odds(X):
        return 4 * np.sin(2 * np.pi * X[:, 0] ** (1 / 12))

    labels = drawn(odds(X), rng)
    companion, _ = fit_companion_of_classes(rows_from(X, labels))
    assert len(companion.feature)
    assert error(companion, fresh, odds(fresh)) < 0.08
    # A line sees little of it.
    assert np.abs(labels.mean() - 1 / (1 + np.exp(-odds(fresh)))).mean() > 0.3


def test_classes_that_nothing_tells_have_their_shares():
    rng = np.random.default_rng(2)
    X, labels = rng.random((300, 5)), (rng.random(300) < 0.3).astype(int)
    companion, _ = fit_companion_of_classes(rows_from(X, labels))
    found = torch.softmax(companion.logits(tensor(rng.random((100, 5)))), 1)[:, 1]
    assert (found - labels.mean()).abs().max() < 0.1


def test_more_columns_than_rows_go_by_principal_components():
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((90, 2))
    X = hidden @ rng.standard_normal((2, 700)) + 0.1 * rng.standard_normal((90, 700))
    X = (X - X.min(0)) / np.ptp(X, axis=0)
    labels = (hidden[:, 0] > 0).astype(int)
    companion, _ = fit_companion_of_classes(rows_from(X[:60], labels[:60]))
    assert companion.axes is not None
    assert companion.coef.shape[0] < 200
    right = companion.logits(tensor(X[60:])).argmax(1).numpy() == labels[60:]
    assert right.mean() > 0.85


@pytest.mark.parametrize("K", [2, 3])
def test_state_and_points_outside_the_box(K):
    rng = np.random.default_rng(4)
    X = rng.random((80, 2))
    companion, _ = fit_companion_of_classes(rows_from(X, (K * X[:, 0]).astype(int), K))
    again = LogisticCompanion.from_arrays(companion.arrays(), torch.zeros(0))
    points = tensor([[0.3, 1.7], [0.3, 1.0]])
    assert torch.equal(again.logits(points), companion.logits(points))
    torch.testing.assert_close(*companion.logits(points), rtol=1e-14, atol=0)
    assert companion.numbers_per_row() > 0
