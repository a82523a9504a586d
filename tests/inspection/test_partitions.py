"""The display of partitions, on stub estimators whose boundaries are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

from skpou.inspection import PartitionDisplay  # noqa: E402

BOUNDARY = 0.3


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Stub:
    """Two pieces that meet in a jump at ``X[:, 0] = boundary + sum of the other features``."""

    def __init__(self, n_features=1, n_outputs=None, boundary=BOUNDARY, labels=(0, 1)):
        self.n_features_in_ = n_features
        self.n_outputs = n_outputs
        self.boundary = boundary
        self.labels = np.array(labels)
        self.levels = []
        self.stds = []

    def _right(self, X):
        assert X.shape[1] == self.n_features_in_
        X = np.asarray(X)
        return X[:, 0] >= self.boundary + X[:, 1:].sum(axis=1)

    def predict(self, X, return_std=False, level=None):
        self.levels.append(level)
        self.stds.append(return_std)
        y = np.where(self._right(X), 2.0, -1.0)
        if self.n_outputs is not None:
            y = y[:, None] + 10.0 * np.arange(self.n_outputs)
        return (y, np.full_like(y, 0.25)) if return_std else y

    def predict_partition(self, X, level=None):
        self.levels.append(level)
        return self.labels[self._right(X).astype(int)]


class Many(Stub):
    """Twelve intervals of equal width on [0, 1]."""

    def predict_partition(self, X):
        return np.clip(np.floor(12 * X[:, 0]), 0, 11).astype(int)


X_LINE = np.linspace(0, 1, 21)[:, None]
X_PLANE = np.random.default_rng(0).uniform(size=(60, 2))


# One feature.


@pytest.mark.parametrize("boundary", [0.3, 1 / 3, 0.0, -1e-9, 1e-17, 0.7])
@pytest.mark.parametrize("grid_resolution", [2, 37, None])
def test_boundary_is_exact(boundary, grid_resolution):
    display = PartitionDisplay.from_estimator(
        Stub(boundary=boundary), 2 * X_LINE - 1, grid_resolution=grid_resolution
    )
    # The first float of the right piece; near zero a hundred halvings of the spacing.
    np.testing.assert_allclose(display.boundaries, [boundary], rtol=1e-15, atol=2e-30)
    assert display.boundaries_[0].get_xdata()[0] == display.boundaries[0]


def test_a_jump_is_drawn_between_adjacent_floats():
    display = PartitionDisplay.from_estimator(Stub(), X_LINE)
    left, right = (line.get_data() for line in display.lines_)
    last = left[0][~np.isnan(left[1])].max()
    first = right[0][~np.isnan(right[1])].min()
    assert first == BOUNDARY
    assert last == np.nextafter(BOUNDARY, 0)
    np.testing.assert_array_equal(np.unique(left[1][~np.isnan(left[1])]), [-1])
    np.testing.assert_array_equal(np.unique(right[1][~np.isnan(right[1])]), [2])


@pytest.mark.parametrize(("stub", "n"), [(Stub(labels=(3, 9)), 2), (Many(), 12)])
def test_one_colour_a_partition(stub, n):
    display = PartitionDisplay.from_estimator(stub, X_LINE, return_std=False)
    assert len(display.lines_) == n
    assert len({tuple(color) for color in display.colors_.round(6)}) == n
    for line, color in zip(display.lines_, display.colors_):
        assert matplotlib.colors.to_rgba(line.get_color()) == pytest.approx(color)
    assert len(display.boundaries_) == n - 1
    assert display.bands_ is None


def test_boundaries_of_many_partitions():
    display = PartitionDisplay.from_estimator(Many(), X_LINE, return_std=False)
    np.testing.assert_allclose(display.boundaries, np.arange(1, 12) / 12, rtol=4e-16)


def test_partition_numbers_are_kept():
    display = PartitionDisplay.from_estimator(Stub(labels=(9, 3)), X_LINE)
    np.testing.assert_array_equal(display.partitions_, [3, 9])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["partition 3", "partition 9", "2 std"]


def test_a_single_partition_has_no_boundary():
    display = PartitionDisplay.from_estimator(Stub(boundary=5.0), X_LINE)
    assert len(display.boundaries) == len(display.boundaries_) == 0
    assert len(display.lines_) == 1


def test_the_band_is_two_standard_deviations_wide():
    display = PartitionDisplay.from_estimator(Stub(), X_LINE)
    lower, upper = (band.get_paths()[0].vertices[:, 1] for band in display.bands_)
    assert (lower.min(), lower.max()) == (-1.5, -0.5)
    assert (upper.min(), upper.max()) == (1.5, 2.5)


@pytest.mark.parametrize("return_std", [True, "epistemic", "noise", False])
def test_return_std_is_passed_on(return_std):
    stub = Stub()
    display = PartitionDisplay.from_estimator(stub, X_LINE, return_std=return_std)
    assert stub.stds == [return_std]
    assert (display.std is None) == (return_std is False)


@pytest.mark.parametrize("n_features", [1, 2])
@pytest.mark.parametrize("level", [None, 0, 1])
def test_level_is_passed_on(level, n_features):
    stub = Stub(n_features)
    X = X_LINE if n_features == 1 else X_PLANE
    PartitionDisplay.from_estimator(stub, X, level=level)
    assert set(stub.levels) == {level}


def test_data_are_drawn_when_y_is_given():
    y = np.sin(X_LINE[:, 0])
    display = PartitionDisplay.from_estimator(Stub(), X_LINE, y)
    np.testing.assert_array_equal(display.scatter_.get_offsets(), np.c_[X_LINE, y])
    assert PartitionDisplay.from_estimator(Stub(), X_LINE).scatter_ is None


def test_target_selects_an_output():
    y = np.c_[X_LINE, 5 + X_LINE]
    display = PartitionDisplay.from_estimator(Stub(n_outputs=2), X_LINE, y, target=1)
    np.testing.assert_array_equal(np.unique(display.prediction), [9, 12])
    np.testing.assert_array_equal(display.y, y[:, 1])


def test_torch_tensors_are_accepted():
    X, y = torch.tensor(X_LINE), torch.tensor(X_LINE[:, 0], requires_grad=True)
    display = PartitionDisplay.from_estimator(Stub(), X, y)
    np.testing.assert_array_equal(display.y, X_LINE[:, 0])


def test_constant_data_get_a_range():
    display = PartitionDisplay.from_estimator(Stub(), [[0.1], [0.1]])
    assert (display.xx0[0], display.xx0[-1]) == (-0.4, 0.6)
    np.testing.assert_allclose(display.boundaries, [BOUNDARY])


# Two features and more.


def test_map_of_two_features():
    display = PartitionDisplay.from_estimator(Stub(2), X_PLANE, X_PLANE[:, 0])
    assert display.partition.shape == (200, 200)
    np.testing.assert_array_equal(display.partition, display.xx0 >= BOUNDARY + display.xx1)
    np.testing.assert_array_equal(
        np.asarray(display.surface_.get_array()).ravel(), display.partition.ravel()
    )
    assert len(display.colors_) == 2
    assert display.lines_ is None
    np.testing.assert_array_equal(display.scatter_.get_offsets(), X_PLANE)
    np.testing.assert_array_equal(display.scatter_.get_array(), X_PLANE[:, 0])
    assert display.colorbar_.ax.get_ylabel() == "y"


def test_boundaries_of_a_map_are_smooth():
    display = PartitionDisplay.from_estimator(Stub(2), X_PLANE, grid_resolution=20)
    (lines,) = display.boundaries_
    vertices = np.vstack(lines.get_segments())
    spacing = display.xx0[0, 1] - display.xx0[0, 0]
    # A contour of the labels themselves would run up to half a spacing away.
    assert np.abs(vertices[:, 0] - BOUNDARY - vertices[:, 1]).max() < 2e-3 * spacing
    # From one side of the box to the other, without a gap.
    length = np.linalg.norm(np.diff(display.boundaries, axis=1), axis=2).sum()
    low, high = X_PLANE.min(axis=0), X_PLANE.max(axis=0)
    across = min(high[0] - BOUNDARY, high[1]) - max(low[0] - BOUNDARY, low[1])
    assert length == pytest.approx(np.sqrt(2) * across, rel=1e-3)


def test_boundaries_without_an_estimator_follow_the_cells():
    xx0, xx1 = np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 20))
    partition = (xx0 >= BOUNDARY).astype(int)
    display = PartitionDisplay(xx0=xx0, xx1=xx1, partition=partition).plot()
    vertices = np.vstack([path.vertices for path in display.boundaries_[0].get_paths()])
    assert np.abs(vertices[:, 0] - BOUNDARY).max() < 1 / 19


def test_pieces_of_a_map_have_numbers_and_a_legend():
    display = PartitionDisplay.from_estimator(Stub(2, labels=(4, 7)), X_PLANE)
    assert [text.get_text() for text in display.texts_] == ["4", "7"]
    for text, label in zip(display.texts_, (4, 7)):
        x0, x1 = text.get_position()
        assert (x0 >= BOUNDARY + x1) == (label == 7)
    names = [text.get_text() for text in display.legend_.get_texts()]
    assert names == ["partition 4", "partition 7"]
    many = PartitionDisplay.from_estimator(Many(2), X_PLANE)
    assert many.legend_ is None
    assert len(many.texts_) == 12


def test_three_pieces_meet_in_a_point():
    class Three(Stub):
        def predict_partition(self, X):
            return np.where(X[:, 0] < 0.51, 0, np.where(X[:, 1] < 0.49, 1, 2))

    X = np.array([[0.0, 0.0], [1.0, 1.0]])
    segments = PartitionDisplay.from_estimator(Three(2), X, grid_resolution=11).boundaries
    upright = np.abs(segments[:, :, 0] - 0.51).max(axis=1) < 1e-4
    assert np.abs(np.diff(segments[upright, :, 1])).sum() > 0.8
    meeting = segments[(segments > 0.45).all(axis=(1, 2)) & (segments < 0.61).all(axis=(1, 2))]
    assert len(meeting) == 3


def test_map_covers_the_range_of_the_data():
    display = PartitionDisplay.from_estimator(Stub(2), X_PLANE, grid_resolution=10)
    corners = [[grid.min(), grid.max()] for grid in (display.xx0, display.xx1)]
    np.testing.assert_array_equal(corners, np.c_[X_PLANE.min(axis=0), X_PLANE.max(axis=0)])
    assert display.scatter_ is None


def test_many_features_need_a_choice():
    with pytest.raises(ValueError, match=r"3 features.*features=\(i, j\).*medians"):
        PartitionDisplay.from_estimator(Stub(3), np.zeros((4, 3)))


def test_other_features_are_fixed_at_their_medians():
    X = np.random.default_rng(1).uniform(size=(31, 3))
    medians = np.median(X, axis=0)
    display = PartitionDisplay.from_estimator(Stub(3), X, features=(2, 0))
    right = display.xx1 >= BOUNDARY + medians[1] + display.xx0
    np.testing.assert_array_equal(display.partition, right)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("feature 2", "feature 0")
    curve = PartitionDisplay.from_estimator(Stub(3, boundary=-0.5), X, features=0)
    np.testing.assert_allclose(curve.boundaries, [-0.5 + medians[1] + medians[2]])


def test_names_label_the_axes_and_choose_features():
    stub = Stub(2)
    stub.feature_names_in_ = np.array(["voltage", "current"], dtype=object)
    seen = []
    predict_partition = stub.predict_partition
    stub.predict_partition = lambda X: seen.append(list(X.columns)) or predict_partition(X)
    X = pd.DataFrame(X_PLANE, columns=stub.feature_names_in_)
    display = PartitionDisplay.from_estimator(stub, X)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("voltage", "current")
    assert all(columns == ["voltage", "current"] for columns in seen)
    y = pd.Series(X_PLANE[:, 0], name="power")
    display = PartitionDisplay.from_estimator(stub, X, y)
    assert display.colorbar_.ax.get_ylabel() == "power"
    units = {"voltage": "V", "power": "W"}
    display = PartitionDisplay.from_estimator(stub, X, y, features="voltage", units=units)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("voltage (V)", "power (W)")


# Drawing.


def test_axes_are_used_and_returned():
    figure, ax = plt.subplots()
    display = PartitionDisplay.from_estimator(Stub(), X_LINE, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    again = display.plot()
    assert again is display
    assert again.ax_ is not ax


def test_styles_are_passed_on():
    display = PartitionDisplay.from_estimator(
        Stub(),
        X_LINE,
        X_LINE[:, 0],
        line_kw={"linewidth": 5},
        band_kw={"alpha": 0.5},
        boundary_kw={"color": "r"},
        scatter_kw={"s": 33},
    )
    assert {line.get_linewidth() for line in display.lines_} == {5}
    assert {band.get_alpha() for band in display.bands_} == {0.5}
    assert display.boundaries_[0].get_color() == "r"
    assert display.scatter_.get_sizes() == [33]
    display = PartitionDisplay.from_estimator(Stub(2), X_PLANE, surface_kw={"alpha": 1.0})
    assert display.surface_.get_alpha() == 1.0


def test_a_curve_needs_a_prediction():
    display = PartitionDisplay(xx0=np.arange(3.0), partition=np.zeros(3, int))
    with pytest.raises(ValueError, match="prediction is needed"):
        display.plot()


# What is refused.


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"features": (0, 5)}, "5 is neither an index below 2"),
        ({"features": -1}, "-1 is neither an index"),
        ({"features": True}, "True is neither an index"),
        ({"features": "voltage"}, "'voltage' is neither an index"),
        ({"features": (1, 1)}, r"two different features, got \(1, 1\)"),
        ({"features": ()}, r"two different features, got \(\)"),
        ({"units": {"speed": "m/s"}}, "units has 'speed', which is none of"),
        ({"grid_resolution": 1}, "grid_resolution must be at least 2, got 1"),
        ({"y": np.zeros(60), "target": 1}, "target=1 is no output of y, which has 1"),
        ({"features": 0, "target": -1}, "target=-1 is no output of the"),
        ({"y": np.zeros(3)}, "inconsistent numbers of samples"),
        ({"X": np.zeros((4, 3))}, "X has 3 features, Stub was fitted on 2"),
        ({"X": np.full((4, 2), np.nan)}, "X contains NaN"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        PartitionDisplay.from_estimator(Stub(2), **{"X": X_PLANE} | parameters)


def test_estimators_without_partitions_are_refused():
    with pytest.raises(ValueError, match="object has no predict_partition"):
        PartitionDisplay.from_estimator(object(), X_LINE)


def test_unfitted_estimators_are_refused():
    stub = Stub()
    del stub.n_features_in_
    with pytest.raises(NotFittedError, match="Stub instance is not fitted"):
        PartitionDisplay.from_estimator(stub, X_LINE)
