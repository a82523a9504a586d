"""The display of the latent box: embeddings, grid points, faces."""

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402

from skpou import NeuralSparseGridClassifier, NeuralSparseGridRegressor  # noqa: E402
from skpou.inspection import LatentGridDisplay  # noqa: E402
from tests.estimators import kinked  # noqa: E402

X, Y = kinked(80, noise=0.02)
LABELS = np.array(["low", "middle", "high"])[np.digitize(Y, np.quantile(Y, [0.3, 0.6]))]
FEW = {"hidden_layer_sizes": (4,), "level": 3, "max_iter": 10, "coef_solver": "gradient"}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def regressor(n_components):
    targets = np.stack([Y, -(Y**2)], 1)
    return NeuralSparseGridRegressor(**FEW, n_components=n_components).fit(X, targets)


def classifier(n_components):
    return NeuralSparseGridClassifier(**FEW, n_components=n_components).fit(X, LABELS)


@pytest.mark.parametrize(
    ("n_components", "components", "shown"),
    [(2, None, [0, 1]), (3, None, [0, 1]), (3, (2, 0), [2, 0]), (2, 1, [1]), (1, None, [0])],
)
@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_embeddings_and_grid_points(n_components, components, shown):
    model, targets = regressor(n_components), np.stack([Y, -(Y**2)], 1)
    figure, ax = plt.subplots()
    display = LatentGridDisplay.from_estimator(
        model, X, targets, components=components, target=1, ax=ax, scatter_kw={"s": 9}
    )
    assert (display.ax_, display.figure_) == (ax, figure)
    u = model.transform(X)[:, shown]
    (scatter,) = display.scatters_
    heights = u[:, 1] if len(shown) == 2 else targets[:, 1]
    np.testing.assert_array_equal(scatter.get_offsets(), np.stack([u[:, 0], heights], 1))
    assert scatter.get_sizes() == [9]
    drawn = np.stack(display.grid_.get_data(), 1)[:, : len(shown)]
    of_grid = {tuple(p) for p in model.grid_points_[:, shown]}
    assert {tuple(p) for p in drawn} == of_grid
    assert len(drawn) == len(of_grid)
    assert ax.get_xlabel() == f"$u_{shown[0] + 1}$"
    if len(shown) == 2:
        np.testing.assert_array_equal(scatter.get_array(), targets[:, 1])
        assert display.colorbar_.ax.get_ylabel() == "y"
        assert ax.get_ylabel() == f"$u_{shown[1] + 1}$"
    for face in display.faces_:
        assert set(np.ravel(face.get_xdata())) <= {0.0, 1.0}


@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_classes_have_colours_and_names(n_components):
    model = classifier(n_components)
    display = LatentGridDisplay.from_estimator(model, torch.tensor(X), LABELS)
    u = model.transform(X)
    names = sorted(set(LABELS))
    colors = {tuple(s.get_facecolor()[0]) for s in display.scatters_}
    assert len(colors) == len(display.scatters_) == 3
    for name, scatter in zip(names, display.scatters_, strict=True):
        np.testing.assert_array_equal(scatter.get_offsets()[:, 0], u[LABELS == name, 0])
    texts = display.ax_.get_yticklabels() if n_components == 1 else display.legend_.get_texts()
    assert [text.get_text() for text in texts] == names


@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_without_targets(n_components):
    display = LatentGridDisplay.from_estimator(regressor(n_components), X)
    assert len(display.scatters_[0].get_offsets()) == len(X)
    assert display.colorbar_ is display.legend_ is None


@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_bad_arguments():
    draw = LatentGridDisplay.from_estimator
    with pytest.raises(NotFittedError):
        draw(NeuralSparseGridRegressor(), X, Y)
    with pytest.raises(TypeError, match="PCA has no grid"):
        draw(PCA().fit(X), X)
    model = regressor(2)
    for wrong in [2, -1, (0, 0), (0, 1, 2), (), "ab", True, 0.5]:
        with pytest.raises(ValueError, match="components must be one or two"):
            draw(model, X, components=wrong)
    with pytest.raises(ValueError, match="target=1"):
        draw(model, X, Y, target=1)
    with pytest.raises(ValueError, match="inconsistent"):
        draw(model, X, Y[1:])
