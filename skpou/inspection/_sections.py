"""What figures have in common: outputs and columns by name, sections through the inputs, panels."""

import inspect

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, check_consistent_length

#: Okabe and Ito's blue for what a model says, and grey for what was measured: apart in grey, too.
MODEL, DATA = "#0072B2", "0.45"
#: Okabe and Ito's vermilion, for what is compared with the model.
OTHER = "#D55E00"
#: Widths in points of the curves that a figure is about, and of lines that help to read it.
CURVE, THIN = 2.0, 0.8
#: Standard deviations that bands and bars reach to; 95 % of a Gaussian.
REACH = 2
#: Bands let what lies behind them through; their edges are theirs alone.
BAND = {"alpha": 0.25, "linewidth": 0}
#: Areas in square points of dots whose colour is read, and of dots that show where rows are.
DOT, SMALL_DOT = 14, 6
#: Points from which on dots become bitmaps: a drawing of more would be slow to show.
MANY_DOTS = 2000
#: Points up to which dots have their full size.
FEW_DOTS = 500
#: Points of a curve: more than a figure has pixels across.
CURVE_POINTS = 1000
#: Okabe and Ito's colours, told apart under the common colour-vision deficiencies; black is left to
#: boundaries and yellow, faint as a line, comes last.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
#: Of more colours the next is a step of the golden ratio away, which never repeats and keeps
#: neighbours far apart, on the part of a map that is not too light on white.
GOLDEN_STEP, LIGHTEST = 0.6180339887498949, 0.92


def as_numpy(values):
    """Return a torch tensor as a numpy array on the host, anything else unchanged."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def column(values, target, name):
    """Select one output of shape (n,) from an array of shape (n,) or (n, n_outputs)."""
    values = np.asarray(as_numpy(values))
    n_outputs = 1 if values.ndim == 1 else values.shape[1]
    if not 0 <= target < n_outputs:
        raise ValueError(f"target={target} is no output of {name}, which has {n_outputs}.")
    return values if values.ndim == 1 else values[:, target]


def given_target(X, y, target):
    """Targets (n,) of one output as finite numbers; there are as many as rows of X."""
    y = column(y, target, "y")
    y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    check_consistent_length(X, y)
    return y


def finite_columns(given):
    """Arrays (n,) of finite numbers by name, of one length."""
    arrays = {
        name: check_array(as_numpy(values), ensure_2d=False, dtype=np.float64, input_name=name)
        for name, values in given.items()
    }
    for name, values in arrays.items():
        if values.ndim != 1:
            raise ValueError(f"{name} must have one dimension. Got shape {values.shape}.")
    check_consistent_length(*arrays.values())
    return arrays


def dot_area(n, area):
    """Area of each of n dots, in square points: smaller where they would cover the figure."""
    return area * min(1.0, (FEW_DOTS / n) ** 0.5)


def distinct_colors(n):
    """Return n distinct RGBA colours, shape (n, 4), neighbours far apart."""
    import matplotlib as mpl

    if n <= len(PALETTE):
        return mpl.colors.to_rgba_array(PALETTE[:n])
    return mpl.colormaps["viridis"](LIGHTEST * (np.arange(n) * GOLDEN_STEP % 1))


def target_name(y, target=0):
    """Name of an output: that of a series or of a column of a frame, else "y"."""
    names = getattr(y, "columns", None)
    name = getattr(y, "name", None) if names is None else names[target]
    return "y" if name is None or name == "" else str(name)


def with_units(labels, units):
    """Labels with the units, in parentheses, that a dict has for some of them.

    Raises
    ------
    ValueError
        If it has a unit of something else.
    """
    units = {} if units is None else dict(units)
    for name in units:
        if name not in labels:
            raise ValueError(f"units has {name!r}, which is none of {labels}.")
    return [f"{label} ({units[label]})" if label in units else label for label in labels]


def axis(values, n):
    """Return n evenly spaced coordinates over the range of the values, one wide if they agree."""
    low, high = values.min(), values.max()
    return np.linspace(low, high, n) if high > low else np.linspace(low - 0.5, high + 0.5, n)


def feature_indices(features, n_features, names):
    """Translate `features` (None, an index or name, or one or two of them) into indices."""
    if features is None:
        if n_features > 2:
            raise ValueError(
                f"The estimator has {n_features} features and a figure shows one or two: name "
                "them as features=(i, j); the others are fixed at their medians."
            )
        return list(range(n_features))
    entries = [features] if isinstance(features, str) or np.ndim(features) == 0 else features
    names = [] if names is None else list(names)
    indices = []
    for entry in entries:
        if isinstance(entry, str) and entry in names:
            entry = names.index(entry)
        if isinstance(entry, (str, bool, np.bool_)) or not (
            isinstance(entry, (int, np.integer)) and 0 <= entry < n_features
        ):
            raise ValueError(
                f"features={features!r}: {entry!r} is neither an index below {n_features} nor "
                f"one of the feature names {names}."
            )
        indices.append(int(entry))
    if len(indices) not in (1, 2) or len(set(indices)) < len(indices):
        raise ValueError(f"features must be one or two different features, got {features!r}.")
    return indices


class Section:
    """Rows along some columns of given data, the other columns at their medians.

    Parameters
    ----------
    estimator : fitted estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are what X is compared with.
    X : array-like of shape (n, n_features)
        The data.

    Attributes
    ----------
    values : ndarray of shape (n, n_features)
        The data as numbers.
    names : ndarray of str or None
        Names of the columns that were fitted.
    labels : list of str
        Names, or "feature 0", "feature 1".
    medians : ndarray of shape (n_features,)
        Of the data.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If X is not finite or has another number of columns than the fit.
    """

    def __init__(self, estimator, X):
        name = type(estimator).__name__
        if not hasattr(estimator, "n_features_in_"):
            raise NotFittedError(f"This {name} instance is not fitted yet: call 'fit' first.")
        self.values = check_array(as_numpy(X), dtype=np.float64, input_name="X")
        n_features = estimator.n_features_in_
        if self.values.shape[1] != n_features:
            raise ValueError(
                f"X has {self.values.shape[1]} features, {name} was fitted on {n_features}."
            )
        self.names = getattr(estimator, "feature_names_in_", None)
        names = [f"feature {i}" for i in range(n_features)] if self.names is None else self.names
        self.labels = [str(name) for name in names]
        self.medians = np.median(self.values, axis=0)
        # Estimators fitted on a data frame warn on predicting from an array.
        self._like = X if self.names is not None and hasattr(X, "iloc") else None

    def shown(self, features):
        """Indices of one or two columns, by index or by name; None: all, of no more than two."""
        return feature_indices(features, self.values.shape[1], self.names)

    def rows(self, shown, *coordinates):
        """Rows with these coordinates (m,) in the shown columns, a frame where X was one."""
        rows = np.tile(self.medians, (len(coordinates[0]), 1))
        rows[:, shown] = np.column_stack(coordinates)
        return rows if self._like is None else type(self._like)(rows, columns=self._like.columns)

    def grid(self, shown, n):
        """Coordinates over the range of the data: (n,) along one column, two meshes over two."""
        axes = [axis(self.values[:, i], n) for i in shown]
        return axes if len(shown) == 1 else list(np.meshgrid(*axes))


def check_resolution(grid_resolution, default):
    """Points along each column: the given number, at least 2, or the default.

    Raises
    ------
    ValueError
        If it is smaller.
    """
    if grid_resolution is None:
        return default
    if grid_resolution < 2:
        raise ValueError(f"grid_resolution must be at least 2, got {grid_resolution}.")
    return grid_resolution


def predict_with_std(estimator, X, return_std="auto"):
    """Means, and standard deviations where the estimator has them, else None.

    With ``return_std="auto"`` the standard deviation is left out where there is none; with False it
    always is; anything else is handed on.
    """
    if return_std == "auto":
        takes = inspect.signature(estimator.predict).parameters
        return_std = "return_std" in takes
    if return_std is False:
        return estimator.predict(X), None
    mean, std = estimator.predict(X, return_std=return_std)
    return mean, std


def one_axes(ax, **figure):
    """The axes given, or those of a new figure."""
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained", **figure)[1] if ax is None else ax


def panels(ax, n_rows, n_columns, *, figsize, **grid):
    """Axes (n_rows * n_columns,) of a figure of several panels.

    Parameters
    ----------
    ax : matplotlib Axes, array-like of them or None
        None: a new figure. One of a grid: it is divided. Several: these.
    n_rows, n_columns : int
        Panels.
    figsize : tuple of two float
        Of a new figure, in inches.
    **grid : dict
        ``height_ratios`` or ``width_ratios``.

    Raises
    ------
    ValueError
        If `ax` holds another number of axes, or is one that cannot be divided.
    """
    from matplotlib import pyplot as plt
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    count = n_rows * n_columns
    if ax is None:
        figure = plt.figure(figsize=figsize, layout="constrained")
        spec = figure.add_gridspec(n_rows, n_columns, **grid)
        return np.array([figure.add_subplot(cell) for cell in spec])
    axes = np.asarray(ax, dtype=object).reshape(-1)
    if len(axes) == 1 < count:
        place = axes[0].get_subplotspec()
        if place is None:
            raise ValueError(f"ax must be of a grid of subplots, or hold {count} axes.")
        axes[0].set_axis_off()
        spec = GridSpecFromSubplotSpec(n_rows, n_columns, subplot_spec=place, **grid)
        return np.array([axes[0].figure.add_subplot(cell) for cell in spec])
    if len(axes) != count:
        raise ValueError(f"ax must hold {count} axes, one a panel. Got {len(axes)}.")
    return axes


def check_stages(estimator):
    """Refuse an estimator without stages.

    Raises
    ------
    TypeError
        If it has no `staged_predict`.
    """
    if not hasattr(estimator, "staged_predict"):
        raise TypeError(f"{type(estimator).__name__} has no staged_predict.")
