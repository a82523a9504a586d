"""The display of a race: a row a member, dots of samples, weights."""

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402

from skpou import AutoRegressor  # noqa: E402
from skpou.inspection import LeaderboardDisplay  # noqa: E402

BOARD = {
    "member": np.array(["A", "B", "C", "D", "A", "B", "A", "B"]),
    "rows": np.array([50, 50, 50, 50, 200, 200, 400, 400]),
    "log_density": np.array([1.0, 2.0, -500.0, np.nan, 3.0, 2.5, np.nan, np.nan]),
    "error": np.zeros(8),
    "seconds": np.ones(8),
    "weight": np.array([0, 0, 0, 0, 0, 0, 0.75, 0.25]),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_a_row_a_member_the_heaviest_first():
    display = LeaderboardDisplay(BOARD).plot(linewidth=3)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["A", "B", "C", "D"]
    assert [text.get_text() for text in display.texts_] == ["0.75", "0.25", "–", "–"]
    a, b, c, d = display.lines_
    assert a.get_xdata().tolist() == [1.0, 3.0]
    assert b.get_xdata().tolist() == [2.0, 2.5]
    # Far below the best is at the edge, and what failed has no dot.
    assert -20 < c.get_xdata()[0] < 0
    assert not len(d.get_xdata())
    assert a.get_linewidth() == 3
    low, high = display.ax_.get_ylim()
    assert low > high, "the first is above"


def test_of_an_estimator():
    X = np.linspace(-1, 1, 40)[:, None]
    names = ["SparseGridRegressor", "SparseGridRegressor"]
    model = AutoRegressor(names).fit(X, np.exp(X[:, 0]))
    _, ax = plt.subplots()
    display = LeaderboardDisplay.from_estimator(model, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert len(display.lines_) == 2


def test_bad_arguments():
    X = np.arange(5.0)[:, None]
    with pytest.raises(NotFittedError):
        LeaderboardDisplay.from_estimator(AutoRegressor())
    with pytest.raises(TypeError, match="LinearRegression has no leaderboard_"):
        LeaderboardDisplay.from_estimator(LinearRegression().fit(X, X[:, 0]))
