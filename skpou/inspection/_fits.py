"""A fit with its data, its error bars and what it leaves over."""

from __future__ import annotations

import numpy as np

from skpou.base import check_matplotlib_support
from skpou.inspection._sections import (
    BAND,
    CURVE,
    CURVE_POINTS,
    DATA,
    DOT,
    MANY_DOTS,
    MODEL,
    OTHER,
    REACH,
    THIN,
    Section,
    check_resolution,
    column,
    dot_area,
    finite_columns,
    given_target,
    panels,
    predict_with_std,
    target_name,
    with_units,
)

#: Area of the mark of the largest residual on a map, in square points.
LARGEST_MARK = 60
#: Inches of a figure of curve and residuals, heights of the two, and inches of a map.
FIGURE, HEIGHTS, PANEL = (6.4, 5.4), [2.6, 1], (4.2, 3.6)
#: Area of the dots of a curve in square points, between those of maps and of sections.
DOT_OF_CURVE = 9
#: Points along each side of a map: standard deviations of more take their time.
MAP_POINTS = 100
#: Times the largest standard deviation is black: dots must be seen on the map of it.
LIGHTER = 1.7


class FitDisplay:
    """Data, the mean of a fit, its error bars, and the residuals below.

    Along one feature: data, mean and a band of two standard deviations, below it the residuals with
    the same band. Over two features: maps of the mean, with the data in the same colours, and of
    the standard deviation, and the residuals as triangles that point to where the data lie, the
    larger the further. Use :meth:`from_estimator` to create one.

    Parameters
    ----------
    xx0 : ndarray of shape (m,) or (m1, m0)
        Increasing coordinates along one feature, or the first output of :func:`numpy.meshgrid`.
    mean : ndarray of the shape of `xx0`
        Predicted means there, in units of y.
    X : ndarray of shape (n, 1) or (n, 2)
        The shown features of the data.
    y : ndarray of shape (n,)
        Their targets. Where the fit has other features, those that the data would have at their
        medians: mean plus residual.
    residuals : ndarray of shape (n,)
        Targets minus predictions of the rows.
    xx1 : ndarray of shape (m1, m0), default=None
        Second output of :func:`numpy.meshgrid`; None along one feature.
    std : ndarray of the shape of `xx0`, default=None
        Standard deviations on the grid, in units of y; None draws no bars.
    residual_std : ndarray of shape (n,), default=None
        Those of the rows.
    at_medians : bool, default=False
        Whether there are other features. The residuals then have bars of their own, since no band
        holds for all.
    xlabel, ylabel, zlabel : str, default=None
        Labels: of the features, and of the target, which is `ylabel` along one feature.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Fit and residuals; over two features mean, standard deviation (if there is one), residuals.
    figure_ : matplotlib Figure
        Figure of the axes.
    scatter_ : matplotlib PathCollection
        The data.
    line_ : matplotlib Line2D
        The mean along one feature, else None.
    band_ : matplotlib PolyCollection
        Two standard deviations along one feature, else None.
    surface_ : matplotlib QuadMesh
        The mean over two features, else None.
    std_surface_ : matplotlib QuadMesh
        The standard deviation over two features, else None.
    residuals_ : list of matplotlib PathCollection
        The residuals: one collection, or those above and those below the mean.
    text_ : matplotlib Text
        Root mean square of the residuals, and the share within two standard deviations.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.inspection import FitDisplay
    >>> x = np.linspace(0, 1, 50)
    >>> y = x**2 + 0.01 * np.cos(40 * x)
    >>> display = FitDisplay(xx0=x, mean=x**2, X=x[:, None], y=y, residuals=y - x**2)
    >>> display.plot().text_.get_text()
    'rms 0.0071'
    """

    def __init__(
        self,
        *,
        xx0,
        mean,
        X,
        y,
        residuals,
        xx1=None,
        std=None,
        residual_std=None,
        at_medians=False,
        xlabel=None,
        ylabel=None,
        zlabel=None,
    ) -> None:
        self.xx0, self.xx1 = xx0, xx1
        self.mean, self.std = mean, std
        self.X, self.y = X, y
        self.residuals, self.residual_std = residuals, residual_std
        self.at_medians = at_medians
        self.xlabel, self.ylabel, self.zlabel = xlabel, ylabel, zlabel

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        ax=None,
        features=None,
        target=0,
        grid_resolution=None,
        return_std="auto",
        units=None,
        **kwargs,
    ) -> FitDisplay:
        """Draw a fitted regressor with data: those of the fit, or others.

        Parameters
        ----------
        estimator : fitted regressor
            Of skpou or any other.
        X : array-like of shape (n, n_features)
            Points, which set the range of the figure and the medians of the features not shown.
        y : array-like of shape (n,) or (n, n_outputs)
            Their targets.
        ax : matplotlib Axes or array-like of them, default=None
            One of a grid of subplots, which is divided, or one for each panel; None: a new figure.
        features : int, str or tuple of one or two of them, default=None
            Features to show, by index or by name in ``feature_names_in_``. None: all, of which
            there may then be no more than two. The mean is drawn with the others at their medians,
            and the data are moved there: what is drawn is this mean plus their residual.
        target : int, default=0
            Output to show, of several.
        grid_resolution : int, default=None
            Points along each feature, at least 2; None is 1000 along one and 100 over two.
        return_std : "auto", bool, "epistemic" or "noise", default="auto"
            Which standard deviation the bars show, as in ``predict``; False draws none, ``"auto"``
            that of ``return_std=True`` where the estimator has it.
        units : dict of str, default=None
            Units by the names of columns and target, for the labels: ``{"voltage": "V"}``.
        **kwargs : dict
            Passed on to :meth:`plot`.

        Returns
        -------
        FitDisplay

        Raises
        ------
        ValueError
            If `features`, `target`, `grid_resolution`, `units`, X or y do not fit.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import BayesianRidge
        >>> from skpou.inspection import FitDisplay
        >>> X = np.linspace(0, 1, 30)[:, None]
        >>> y = 2 * X[:, 0] + 0.1 * np.cos(50 * X[:, 0])
        >>> model = BayesianRidge().fit(X, y)
        >>> display = FitDisplay.from_estimator(model, X, y, units={"y": "mm"})
        >>> display.axes_[0].get_ylabel()
        'y (mm)'
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        section = Section(estimator, X)
        shown = section.shown(features)
        n = check_resolution(grid_resolution, CURVE_POINTS if len(shown) == 1 else MAP_POINTS)
        name = target_name(y, target)
        y = given_target(section.values, y, target)
        *labels, name = with_units([*section.labels, name], units)
        data = section.values[:, shown]

        def predicted(points):
            mean, std = predict_with_std(estimator, points, return_std)
            std = None if std is None else column(std, target, "the standard deviation")
            return column(mean, target, "the prediction"), std

        grid = section.grid(shown, n)
        mean, std = predicted(section.rows(shown, *(xx.ravel() for xx in grid)))
        own, own_std = predicted(X)
        residuals = y - own
        others = len(section.labels) > len(shown)
        if others:
            y = predicted(section.rows(shown, *data.T))[0] + residuals
        where = {"xlabel": labels[shown[0]], "ylabel": name}
        if len(shown) == 2:
            where |= {"xx1": grid[1], "ylabel": labels[shown[1]], "zlabel": name}
        display = cls(
            xx0=grid[0],
            mean=mean.reshape(grid[0].shape),
            std=None if std is None else std.reshape(grid[0].shape),
            X=data,
            y=y,
            residuals=residuals,
            residual_std=own_std,
            at_medians=others,
            **where,
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, x, y_true, y_mean, y_std=None, *, xlabel=None, ylabel="y", ax=None, **kwargs
    ) -> FitDisplay:
        """Draw predictions at the data along one feature.

        Parameters
        ----------
        x : array-like of shape (n,)
            Feature along the axis.
        y_true, y_mean : array-like of shape (n,)
            Targets and predicted means.
        y_std : array-like of shape (n,), default=None
            Predicted standard deviations, at least 0.
        xlabel, ylabel : str
            Labels of feature and target.
        ax : matplotlib Axes or array-like of two, default=None
            As in :meth:`from_estimator`.
        **kwargs : dict
            Passed on to :meth:`plot`.

        Returns
        -------
        FitDisplay

        Raises
        ------
        ValueError
            If the arguments are not finite or differ in length, or a standard deviation is below
            0.
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        given = {"x": x, "y_true": y_true, "y_mean": y_mean}
        given |= {} if y_std is None else {"y_std": y_std}
        arrays = finite_columns(given)
        order = np.argsort(arrays["x"], kind="stable")
        x, y, mean = (arrays[name][order] for name in ("x", "y_true", "y_mean"))
        std = None if y_std is None else arrays["y_std"][order]
        if std is not None and (std < 0).any():
            raise ValueError(f"y_std must be at least 0. Got {std.min():.3g}.")
        display = cls(
            xx0=x,
            mean=mean,
            std=std,
            X=x[:, None],
            y=y,
            residuals=y - mean,
            residual_std=std,
            xlabel=xlabel,
            ylabel=ylabel,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self, ax=None, *, line_kw=None, band_kw=None, surface_kw=None, scatter_kw=None
    ) -> FitDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            One of a grid of subplots, which is divided, or one for each panel; None: a new figure.
        line_kw : dict, default=None
            Arguments of ``Axes.plot`` for the mean along one feature.
        band_kw : dict, default=None
            Arguments of ``Axes.fill_between`` for the bands.
        surface_kw : dict, default=None
            Arguments of ``Axes.pcolormesh`` for the map of the mean.
        scatter_kw : dict, default=None
            Arguments of ``Axes.scatter`` for the data.

        Returns
        -------
        FitDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.line_ = self.band_ = self.surface_ = self.std_surface_ = None
        if self.xx1 is None:
            self._plot_curve(ax, line_kw or {}, band_kw or {}, scatter_kw or {})
        else:
            self._plot_maps(ax, surface_kw or {}, scatter_kw or {})
        # A title says what the panel below it shows.
        style = {"fontsize": "small" if self.xx1 is None else "medium", "loc": "right", "pad": 3}
        self.text_ = self.axes_[-1].set_title(_words(self.residuals, self.residual_std), **style)
        return self

    def _plot_curve(self, ax, line_kw, band_kw, scatter_kw):
        self.axes_ = panels(ax, 2, 1, figsize=FIGURE, height_ratios=HEIGHTS)
        upper, lower = self.axes_
        self.figure_ = upper.figure
        lower.sharex(upper)
        upper.tick_params(labelbottom=False)
        x, many = self.X[:, 0], len(self.y) > MANY_DOTS
        style = {
            "s": dot_area(len(x), DOT_OF_CURVE),
            "color": DATA,
            "linewidths": 0,
            "zorder": 2,
            "rasterized": many,
        }
        style |= {"label": "data at the medians" if self.at_medians else "data"} | scatter_kw
        self.scatter_ = upper.scatter(x, self.y, **style)
        line = {"color": MODEL, "linewidth": CURVE, "zorder": 3, "label": "mean"}
        (self.line_,) = upper.plot(self.xx0, self.mean, **line | line_kw)
        band = BAND | {"color": MODEL, "zorder": 1} | band_kw
        if self.std is not None:
            reach = REACH * self.std
            label = {"label": f"{REACH} std"}
            self.band_ = upper.fill_between(
                self.xx0, self.mean - reach, self.mean + reach, **label | band
            )
            if not self.at_medians:
                lower.fill_between(self.xx0, -reach, reach, **band)
        if self.at_medians and self.residual_std is not None:
            reach = REACH * self.residual_std
            thin = BAND | {"color": MODEL, "linewidth": THIN, "rasterized": many}
            lower.vlines(x, self.residuals - reach, self.residuals + reach, **thin)
        lower.axhline(0, color=MODEL, linewidth=1, zorder=3)
        self.residuals_ = [lower.scatter(x, self.residuals, **style)]
        upper.set_ylabel(self.ylabel)
        lower.set(xlabel=self.xlabel, ylabel="residual")
        # "best" would look at every dot.
        upper.legend(loc="upper right" if many else "best")

    def _plot_maps(self, ax, surface_kw, scatter_kw):
        n_panels = 2 if self.std is None else 3
        self.axes_ = panels(ax, 1, n_panels, figsize=(PANEL[0] * n_panels, PANEL[1]))
        self.figure_ = self.axes_[0].figure
        many = len(self.y) > MANY_DOTS
        map_style = {"shading": "nearest", "rasterized": True, "zorder": -1}
        scale = {
            "cmap": "viridis",
            "vmin": min(self.mean.min(), self.y.min()),
            "vmax": max(self.mean.max(), self.y.max()),
        }
        first = self.axes_[0]
        self.surface_ = first.pcolormesh(
            self.xx0, self.xx1, self.mean, **scale | map_style | surface_kw
        )
        area = dot_area(len(self.y), DOT)
        style = {"s": area, "edgecolors": "w", "linewidths": area / (2 * DOT), "rasterized": many}
        self.scatter_ = first.scatter(*self.X.T, c=self.y, **scale | style | scatter_kw)
        self.figure_.colorbar(self.surface_, ax=first, label=self.zlabel)
        first.set_title("mean and data")
        if self.std is not None:
            second = self.axes_[1]
            self.std_surface_ = second.pcolormesh(
                self.xx0, self.xx1, self.std, **map_style | {
                    "cmap": "Greys", "vmin": 0, "vmax": LIGHTER * self.std.max(),
                },
            )  # fmt: skip
            second.plot(*self.X.T, ".", color="k", markersize=2, rasterized=many)
            self.figure_.colorbar(self.std_surface_, ax=second, label=f"std of {self.zlabel}")
            second.set_title("standard deviation")
        self.residuals_ = _draw_triangles(self.axes_[-1], self.X, self.residuals, many)
        for axis in self.axes_:
            axis.set_xlabel(self.xlabel)
        first.set_ylabel(self.ylabel)
        limits = {"xlim": first.get_xlim(), "ylim": first.get_ylim()}
        self.axes_[-1].set(**limits)


def _words(residuals, std):
    """Root mean square of the residuals, and the share within two standard deviations."""
    words = f"rms {np.sqrt(np.mean(residuals**2)):.2g}"
    if std is not None:
        within = np.mean(np.abs(residuals) <= REACH * std)
        words += f"; {within:.0%} within {REACH} std"
    return words


def _draw_triangles(axis, X, residuals, many):
    """Residuals as triangles, up and full or down and hollow; larger ones are further off."""
    size = np.abs(residuals)
    largest = size.max()
    area = LARGEST_MARK * size / (largest or 1.0)
    drawn = []
    for marker, color, face, chosen, label in (
        ("^", OTHER, OTHER, residuals > 0, "above the mean"),
        ("v", MODEL, "none", residuals <= 0, "below"),
    ):
        style = {"marker": marker, "edgecolors": color, "facecolors": face}
        style |= {"linewidths": THIN, "rasterized": many}
        drawn.append(axis.scatter(*X[chosen].T, s=area[chosen], label=label, **style))
    legend = axis.legend(
        title=f"residuals, up to {largest:.2g}", ncols=2, frameon=False, fontsize="small",
        loc="upper center", bbox_to_anchor=(0.5, -0.18), title_fontsize="small",
    )  # fmt: skip
    for handle in legend.legend_handles:
        handle.set_sizes([LARGEST_MARK / 2])
    return drawn
