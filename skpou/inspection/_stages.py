"""What each stage of a model leaves over, at the data and in amount."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skpou.base import check_matplotlib_support
from skpou.inspection._sections import (
    MANY_DOTS,
    Section,
    as_numpy,
    check_stages,
    column,
    given_target,
    panels,
    with_units,
)

#: Root mean squares that the colours of a map reach to: few residuals are beyond.
REACH = 2.5
#: Area of all dots of a map in square points, did that of one not fall a little more slowly than
#: their number rises: dots that cover each other still show where they lie. Fewer are not larger.
AREA, THINNER, FEW_DOTS = 2e3, 0.8, 60
#: Inches of a panel, and of the bar of colours beside all.
PANEL, BAR = (3.4, 3.0), 0.6


class StageDisplay:
    """Residual of every stage of a :class:`~skpou.MultiStageRegressor`, scaled to unit size.

    One panel a stage, along one feature or over two: what is left after it over its root mean
    square, which the title gives. A wave in it is what the next stage is for; noise is where stages
    end. Use :meth:`from_estimator` to create one. This is Fig. 1 of the lecture on multi-stage
    networks.

    Parameters
    ----------
    x : ndarray of shape (n,) or (n, 2)
        Coordinates of the data along the shown features.
    residuals : ndarray of shape (n_stages, n)
        Targets minus the prediction after each stage, in units of y.
    xlabel, ylabel : str, default=None
        Labels of the axes; `ylabel` is that of the second feature.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_stages,)
        Axes of the stages.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : list of matplotlib Line2D
        The points of each stage along one feature, else None.
    scatters_ : list of matplotlib PathCollection
        The points of each stage over two features, else None.
    colorbar_ : matplotlib Colorbar
        Scale of the residuals over two features, else None.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.inspection import StageDisplay
    >>> x = np.linspace(-1, 1, 200)
    >>> first, second = x**3 - 0.6 * x, 1e-3 * np.sin(20 * x)
    >>> display = StageDisplay(x, np.stack([first, second])).plot()
    >>> [ax.get_title() for ax in display.axes_]
    ['after stage 1: rms 1.5e-01', 'after stage 2: rms 7.0e-04']
    """

    def __init__(self, x, residuals, *, xlabel=None, ylabel=None) -> None:
        self.x, self.residuals = x, residuals
        self.xlabel, self.ylabel = xlabel, ylabel

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, feature=None, target=0, units=None, ax=None, **kwargs
    ) -> StageDisplay:
        """Draw the stages of a fitted estimator at given data.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `staged_predict`.
        X : array-like of shape (n, d)
            Points.
        y : array-like of shape (n,) or (n, n_outputs)
            Targets: those of the fit, or others.
        feature : int, str or tuple of two of them, default=None
            Column along the axis, or the two columns of a map, by index or by name. None: the map
            of two columns, else the first.
        target : int, default=0
            Output of y.
        units : dict of str, default=None
            Units by the names of columns, for the labels: ``{"voltage": "V"}``.
        ax : matplotlib Axes or array-like of them, default=None
            One for each stage, or one to be divided; None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` or ``Axes.scatter``.

        Returns
        -------
        StageDisplay

        Raises
        ------
        TypeError
            If the estimator has no `staged_predict`.
        ValueError
            If `feature`, `target`, X or y do not fit the estimator.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        check_stages(estimator)
        section = Section(estimator, X)
        y = given_target(section.values, y, target)
        if feature is None and section.values.shape[1] > 2:
            feature = 0
        shown = section.shown(feature)
        staged = [column(as_numpy(p), target, "y") for p in estimator.staged_predict(X)]
        labels = [with_units(section.labels, units)[i] for i in shown]
        values = section.values[:, shown]
        display = cls(
            values[:, 0] if len(shown) == 1 else values,
            y - np.stack(staged),
            xlabel=labels[0],
            ylabel=labels[-1] if len(shown) == 2 else None,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs) -> StageDisplay:
        """Draw one panel for each stage.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            One for each stage, or one to be divided; None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` or ``Axes.scatter``.

        Returns
        -------
        StageDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_stages = len(self.residuals)
        self.axes_ = panels(ax, 1, n_stages, figsize=(PANEL[0] * n_stages + BAR, PANEL[1]))
        self.figure_ = self.axes_[0].figure
        self.lines_ = self.scatters_ = self.colorbar_ = None
        sizes = [np.sqrt(np.mean(residual**2)) for residual in self.residuals]
        scaled = [r / (size or 1.0) for r, size in zip(self.residuals, sizes)]
        draw = self._plot_lines if np.ndim(self.x) == 1 else self._plot_maps
        draw(scaled, kwargs)
        for stage, (axis, size) in enumerate(zip(self.axes_, sizes), 1):
            axis.set(title=f"after stage {stage}: rms {size:.1e}", xlabel=self.xlabel)
        return self

    def _plot_lines(self, scaled, kwargs):
        order = np.argsort(self.x)
        style = {"marker": ".", "markersize": 3, "linewidth": 0.5, **kwargs}
        self.lines_ = []
        for axis, residual in zip(self.axes_, scaled):
            self.lines_ += axis.plot(self.x[order], residual[order], **style)
        self.axes_[0].set_ylabel("residual / rms")

    def _area(self):
        """Area of a dot, in square points."""
        return AREA / max(len(self.x), FEW_DOTS) ** THINNER

    def _plot_maps(self, scaled, kwargs):
        # A map that goes from dark to light: the sign is seen in grey, too.
        style = {"cmap": "cividis", "vmin": -REACH, "vmax": REACH, "linewidths": 0}
        style |= {"s": self._area(), "rasterized": len(self.x) > MANY_DOTS}
        style |= kwargs
        self.scatters_ = [
            axis.scatter(*self.x.T, c=residual, **style)
            for axis, residual in zip(self.axes_, scaled)
        ]
        self.axes_[0].set_ylabel(self.ylabel)
        self.colorbar_ = self.figure_.colorbar(
            self.scatters_[-1], ax=list(self.axes_), label="residual / rms", extend="both"
        )
