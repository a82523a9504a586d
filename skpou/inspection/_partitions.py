"""The partitions that an estimator divides its inputs into, along one or two features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length

from skpou.base import check_matplotlib_support
from skpou.inspection._boundaries import bisect, boundary_segments
from skpou.inspection._partition_maps import draw_boundaries, draw_legend, draw_map, draw_numbers
from skpou.inspection._sections import (
    BAND,
    CURVE,
    CURVE_POINTS,
    DATA,
    DOT,
    MANY_DOTS,
    PALETTE,
    REACH,
    SMALL_DOT,
    THIN,
    Section,
    as_numpy,
    check_resolution,
    column,
    distinct_colors,
    one_axes,
    target_name,
    with_units,
)

#: Points along each side of a map: boundaries are found between them, on the edges.
MAP_POINTS = 200


class PartitionDisplay:
    """The partitions that an estimator divides its inputs into.

    Along one feature: the fitted curve in one colour per partition with a band of two standard
    deviations and a line at each boundary. Over two features: a map of the most probable
    partition. Both may carry the data. Use :meth:`from_estimator` to create one. These are the
    partitions drawn in Figs. 2 and 5 of Trask, Henriksen, Martinez and Cyr (MSML 2022).

    Parameters
    ----------
    xx0 : ndarray of shape (m,) or (m1, m0)
        Increasing coordinates along one feature, or the first output of :func:`numpy.meshgrid`.
    partition : ndarray of int, of the shape of `xx0`
        Partition at each point.
    xx1 : ndarray of shape (m1, m0), default=None
        Second output of :func:`numpy.meshgrid`; None along one feature.
    prediction : ndarray of shape (m,), default=None
        Fitted values, in units of y; needed along one feature and unused over two.
    std : ndarray of shape (m,), default=None
        Standard deviations of the prediction, at least 0, in units of y; None draws no band.
    boundaries : ndarray of shape (n_boundaries,) or (n_segments, 2, 2), default=None
        Coordinates where the partition changes along one feature, of which None draws no lines;
        over two the ends of segments, of which None follows the cells of the grid.
    X : ndarray of shape (n, 1) or (n, 2), default=None
        The shown features of the data.
    y : ndarray of shape (n,), default=None
        Their targets; with None no data are drawn.
    xlabel, ylabel : str, default=None
        Labels of the axes.
    zlabel : str, default="y"
        Label of the scale of `y` over two features.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the figure.
    figure_ : matplotlib Figure
        Figure of the axes.
    partitions_ : ndarray of shape (n_partitions,)
        Partitions that occur in the figure, increasing.
    colors_ : ndarray of shape (n_partitions, 4)
        Their colours, RGBA in [0, 1].
    lines_ : list of matplotlib Line2D
        The curve of each partition; None over two features.
    bands_ : list of matplotlib PolyCollection
        The band of each partition; None without `std` and over two features.
    surface_ : matplotlib QuadMesh
        The map; None along one feature.
    boundaries_ : list of matplotlib artists
        At the boundaries: lines, one collection of segments, or a contour set per partition.
    texts_ : list of matplotlib Text
        Numbers of the partitions in the map, each in the middle of its largest part; None along
        one feature.
    legend_ : matplotlib Legend
        The partitions, or None where there are more than seven.
    scatter_ : matplotlib PathCollection
        The data; None without `y`.
    colorbar_ : matplotlib Colorbar
        Scale of `y` over two features, else None.

    Raises
    ------
    ValueError
        When plotted along one feature without `prediction`.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.inspection import PartitionDisplay
    >>> x = np.linspace(-1, 1, 101)
    >>> display = PartitionDisplay(
    ...     xx0=x, partition=(x > 0).astype(int), prediction=abs(x), boundaries=np.array([0.0])
    ... )
    >>> display.plot().partitions_
    array([0, 1])
    """

    def __init__(
        self,
        *,
        xx0,
        partition,
        xx1=None,
        prediction=None,
        std=None,
        boundaries=None,
        X=None,
        y=None,
        xlabel=None,
        ylabel=None,
        zlabel="y",
    ) -> None:
        self.xx0 = xx0
        self.partition = partition
        self.xx1 = xx1
        self.prediction = prediction
        self.std = std
        self.boundaries = boundaries
        self.X = X
        self.y = y
        self.xlabel = xlabel
        self.ylabel = ylabel
        self.zlabel = zlabel

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        ax=None,
        level=None,
        features=None,
        target=0,
        grid_resolution=None,
        return_std=True,
        units=None,
        **kwargs,
    ) -> PartitionDisplay:
        """Draw the partitions of a fitted estimator over the range of the data.

        Along one feature the boundaries are found by bisection of ``predict_partition`` between
        the points of the grid, to the last bit, over two on the edges of the grid, to a thousandth
        of its spacing; a partition narrower than this spacing may be missed.

        Parameters
        ----------
        estimator : fitted estimator
            With ``n_features_in_``, ``predict(X, return_std=...)`` and ``predict_partition(X)``,
            both with a parameter `level` if one is given here.
        X : array-like of shape (n, n_features)
            Data that set the range of the figure and the medians of the features not shown.
        y : array-like of shape (n,) or (n, n_outputs), default=None
            Targets to draw: as dots along one feature, as colours over two.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        level : int, default=None
            Level of the hierarchy, at least 0 (the coarsest); None is the finest.
        features : int, str or tuple of one or two of them, default=None
            Features to show, by index or by name in ``feature_names_in_``. None: all, of which
            there may then be no more than two.
        target : int, default=0
            Output to show, of several.
        grid_resolution : int, default=None
            Points along each feature, at least 2; None is 1000 along one and 200 over two.
        return_std : bool, "epistemic" or "noise", default=True
            Which standard deviation the band shows, as in ``predict``; False draws none. Without
            effect over two features.
        units : dict of str, default=None
            Units by the names of columns and target, for the labels: ``{"voltage": "V"}``.
        **kwargs : dict
            Passed on to :meth:`plot`.

        Returns
        -------
        display : PartitionDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `features`, `target`, `grid_resolution`, `X` or `y` do not fit the estimator or it
            has no ``predict_partition``.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skpou.inspection import PartitionDisplay
        >>> class Absolute:
        ...     n_features_in_ = 1
        ...
        ...     def predict(self, X, return_std=False):
        ...         return abs(X[:, 0])
        ...
        ...     def predict_partition(self, X):
        ...         return (X[:, 0] > 0).astype(int)
        >>> display = PartitionDisplay.from_estimator(
        ...     Absolute(), [[-1.0], [2.0]], return_std=False
        ... )
        >>> display.boundaries.round(12) + 0.0
        array([0.])
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        name = type(estimator).__name__
        if not hasattr(estimator, "predict_partition"):
            raise ValueError(
                f"{name} has no predict_partition, so there are no partitions to draw."
            )
        section = Section(estimator, X)
        shown = section.shown(features)
        n = check_resolution(grid_resolution, CURVE_POINTS if len(shown) == 1 else MAP_POINTS)
        of_target = target_name(y, target)
        if y is not None:
            y = column(y, target, "y")
            check_consistent_length(section.values, y)
        *labels, of_target = with_units([*section.labels, of_target], units)
        options = {} if level is None else {"level": level}

        def label(*coordinates):
            rows = section.rows(shown, *coordinates)
            return np.asarray(as_numpy(estimator.predict_partition(rows, **options)))

        given = {"X": section.values[:, shown], "y": y, "xlabel": labels[shown[0]]}
        grid = section.grid(shown, n)
        if len(shown) == 2:
            names = {"ylabel": labels[shown[1]], "zlabel": of_target}
            return cls(**_map_of(label, *grid), **names, **given).plot(ax=ax, **kwargs)

        def predict(x):
            rows = section.rows(shown, x)
            if return_std is False:
                return estimator.predict(rows, **options), None
            return estimator.predict(rows, return_std=return_std, **options)

        display = cls(**_curve_of(label, predict, grid[0], target), ylabel=of_target, **given)
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax=None,
        *,
        line_kw=None,
        band_kw=None,
        surface_kw=None,
        boundary_kw=None,
        scatter_kw=None,
    ) -> PartitionDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        line_kw : dict, default=None
            Arguments of ``ax.plot`` for the curve.
        band_kw : dict, default=None
            Arguments of ``ax.fill_between`` for the band of two standard deviations.
        surface_kw : dict, default=None
            Arguments of ``ax.pcolormesh`` for the map.
        boundary_kw : dict, default=None
            Arguments of ``ax.axvline``, or of the collection of segments, for the boundaries.
        scatter_kw : dict, default=None
            Arguments of ``ax.scatter`` for the data.

        Returns
        -------
        self : PartitionDisplay
            The display, with the attributes that end in an underscore.

        Raises
        ------
        ValueError
            Along one feature without `prediction`.

        Examples
        --------
        >>> import numpy as np
        >>> from skpou.inspection import PartitionDisplay
        >>> xx0, xx1 = np.meshgrid(np.linspace(0, 1, 50), np.linspace(0, 1, 50))
        >>> display = PartitionDisplay(xx0=xx0, xx1=xx1, partition=(xx1 > xx0**2).astype(int))
        >>> display.plot(boundary_kw={"linewidths": 2}).colors_.shape
        (2, 4)
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        if self.xx1 is None and self.prediction is None:
            raise ValueError("prediction is needed to draw partitions along one feature.")
        new_figure, ax = ax is None, one_axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.partitions_ = np.unique(self.partition)
        self.colors_ = distinct_colors(len(self.partitions_))
        # Artists, as far as they are drawn.
        self.lines_: Any = None
        self.bands_: Any = None
        self.scatter_: Any = None
        self.surface_ = self.colorbar_ = self.texts_ = self.legend_ = None
        self.boundaries_: list[Any] = []
        if self.xx1 is None:
            self._plot_curve(line_kw or {}, band_kw or {}, boundary_kw or {}, scatter_kw or {})
        else:
            self._plot_map(surface_kw or {}, boundary_kw or {}, scatter_kw or {})
        self._name_partitions(new_figure)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        return self

    def _plot_curve(self, line_kw, band_kw, boundary_kw, scatter_kw):
        ax = self.ax_
        if self.y is not None:
            style = {"s": SMALL_DOT, "color": DATA, "linewidths": 0, "label": "data", "zorder": 1}
            self.scatter_ = ax.scatter(self.X[:, 0], self.y, **style | scatter_kw)
        style = {"color": "0.2", "linewidth": THIN, "linestyle": ":", "zorder": 1.5}
        for boundary in () if self.boundaries is None else self.boundaries:
            self.boundaries_.append(ax.axvline(boundary, **style | boundary_kw))
        self.lines_, self.bands_ = [], None if self.std is None else []
        for part, color in zip(self.partitions_, self.colors_):
            inside = self.partition == part
            # Gaps instead of points left out: a partition may lie on both sides of another.
            curve = np.where(inside, self.prediction, np.nan)
            style = {"color": color, "linewidth": CURVE, "label": f"partition {part}"}
            self.lines_ += ax.plot(self.xx0, curve, **style | line_kw)
            if self.bands_ is not None:
                reach = REACH * self.std
                style = BAND | {"color": color, "label": f"{REACH} std"}
                band = ax.fill_between(self.xx0, curve - reach, curve + reach, **style | band_kw)
                self.bands_.append(band)

    def _plot_map(self, surface_kw, boundary_kw, scatter_kw):
        ax, grid = self.ax_, (self.xx0, self.xx1)
        rank = np.searchsorted(self.partitions_, self.partition)
        self.surface_ = draw_map(ax, grid, rank, self.colors_, surface_kw)
        self.boundaries_ = draw_boundaries(ax, grid, rank, self.boundaries, boundary_kw)
        self.texts_ = draw_numbers(ax, grid, rank, self.partitions_)
        if self.y is not None:
            style = {"c": self.y, "s": DOT, "cmap": "cividis", "edgecolors": "w"}
            style["linewidths"] = THIN / 2
            style["rasterized"] = len(self.y) > MANY_DOTS
            self.scatter_ = ax.scatter(*self.X.T, **style | scatter_kw)
            self.colorbar_ = self.figure_.colorbar(self.scatter_, ax=ax, label=self.zlabel)

    def _name_partitions(self, new_figure):
        """A legend: beside a new figure of a curve, below one of a map."""
        if len(self.partitions_) > len(PALETTE):
            return
        if self.xx1 is not None:
            alpha = self.surface_.get_alpha()
            names = (self.partitions_, self.colors_)
            self.legend_ = draw_legend(self.ax_, *names, alpha, new_figure)
            return
        data: list[Any] = [] if self.scatter_ is None else [self.scatter_]
        handles = [*data, *(self.lines_ or []), *(self.bands_ or [])[:1]]
        # A new figure has room beside the curve; "best" would look at every dot.
        place = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if new_figure else {}
        many = {"loc": "upper right"} if data and len(self.y) > MANY_DOTS else {}
        self.legend_ = self.ax_.legend(handles=handles, **many | place)


def _curve_of(label, predict, x, target):
    """Partitions, mean and standard deviation along one feature, with the boundaries."""
    below, above = bisect(label, x)
    # Both sides of every boundary, so that jumps are drawn as jumps.
    x = np.unique(np.concatenate([x, below, above]))
    prediction, std = predict(x)
    return {
        "xx0": x,
        "partition": label(x),
        "prediction": column(prediction, target, "the prediction"),
        "std": None if std is None else column(std, target, "the standard deviation"),
        "boundaries": above,
    }


def _map_of(label, xx0, xx1):
    """Partitions over two features, with the boundaries."""
    partition = label(xx0.ravel(), xx1.ravel()).reshape(xx0.shape)
    boundaries = boundary_segments(label, xx0, xx1, partition)
    return {"xx0": xx0, "xx1": xx1, "partition": partition, "boundaries": boundaries}
