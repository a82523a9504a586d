"""The box of a sparse grid with the embeddings that an encoder places in it."""

from __future__ import annotations

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from skpou.base import check_matplotlib_support
from skpou.inspection._sections import (
    MODEL,
    PALETTE,
    SMALL_DOT,
    THIN,
    as_numpy,
    column,
    distinct_colors,
    one_axes,
)

#: Ends of both axes: the faces of the box and dots on them are seen whole.
ENDS = (-0.03, 1.03)
#: Height of the grid points along a single axis, in heights of the axes: marks stand on it.
FOOT = 0.015
#: Sizes in points of grid points along an axis and in a square, where thousands stay apart; and
#: factor of the dots of a legend, whose colours are to be told.
TICK, CROSS, ENLARGED = 8, 3.5, 2.5
#: Colours of matplotlib's cycle.
CYCLE = 10


class LatentGridDisplay:
    """Embeddings of data in the unit box of a sparse grid, and the points of the grid.

    With one component the embeddings are drawn against their targets or classes, with two or more
    as points of a square, coloured by them. Use :meth:`from_estimator` to create one. These are
    Figs. 3.7 and 3.28 of Zhen Zhang, "Neural Sparse Grids for High-Dimensional Data"
    (TU Munich, 2021).

    Parameters
    ----------
    u : ndarray of shape (n, 1) or (n, 2)
        Shown coordinates of the embeddings.
    grid_points : ndarray of shape (n_points, 1) or (n_points, 2)
        The same coordinates of the grid points.
    y : ndarray of shape (n,), default=None
        Targets, or labels of classes.
    classes : ndarray of shape (n_classes,), default=None
        Labels, if `y` holds classes.
    xlabel, ylabel : str, default=None
        Labels of the axes; with one component `ylabel` is that of the targets.
    zlabel : str, default="y"
        What the colours or the legend show.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the figure.
    figure_ : matplotlib Figure
        Figure of the axes.
    scatters_ : list of matplotlib PathCollection
        The embeddings, one for each class or one in all.
    grid_ : matplotlib Line2D
        The grid points; with one component marks along the axis.
    faces_ : list of matplotlib artists
        Faces of the box.
    colorbar_ : matplotlib Colorbar
        Scale of the targets over two components, else None.
    legend_ : matplotlib Legend
        The classes, else None.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.inspection import LatentGridDisplay
    >>> u = np.array([[0.2, 0.3], [0.7, 0.5]])
    >>> display = LatentGridDisplay(u, np.array([[0.5, 0.5]]), y=np.array([1.0, 2.0]))
    >>> len(display.plot().scatters_)
    1
    """

    def __init__(
        self, u, grid_points, *, y=None, classes=None, xlabel=None, ylabel=None, zlabel="y"
    ) -> None:
        self.u, self.grid_points = u, grid_points
        self.y, self.classes = y, classes
        self.xlabel, self.ylabel, self.zlabel = xlabel, ylabel, zlabel

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, components=None, target=0, ax=None, **kwargs
    ) -> LatentGridDisplay:
        """Draw the embeddings of data by a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `transform` into the unit box and `grid_points_`.
        X : array-like of shape (n, d)
            Points.
        y : array-like of shape (n,) or (n, n_outputs), default=None
            Targets, or labels if the estimator is a classifier.
        components : int or tuple of one or two int, default=None
            Latent coordinates to show. None: the first two, or the only one.
        target : int, default=0
            Output to show, of several.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        **kwargs : dict
            Passed on to :meth:`plot`.

        Returns
        -------
        LatentGridDisplay

        Raises
        ------
        TypeError
            If the estimator has no grid behind an encoder.
        ValueError
            If `components`, `target` or `y` do not fit.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        name = type(estimator).__name__
        if not hasattr(estimator, "transform") or not hasattr(type(estimator), "grid_points_"):
            raise TypeError(f"{name} has no grid behind an encoder.")
        check_is_fitted(estimator)
        u = np.asarray(as_numpy(estimator.transform(X)))
        points = estimator.grid_points_
        shown = _components(components, u.shape[1])
        label = str(getattr(y, "name", None) or "y")
        classes = None
        if y is not None and is_classifier(estimator):
            y = np.asarray(as_numpy(y)).reshape(-1)
            classes = np.unique(y)
            label = label if label != "y" else "class"
        elif y is not None:
            y = column(y, target, "y")
        if y is not None:
            check_consistent_length(u, y)
        names = [f"$u_{i + 1}$" for i in shown]
        along = names[1] if len(shown) == 2 else label
        # Of points that differ in a coordinate that is not shown one is enough.
        points = np.unique(points[:, shown], axis=0)
        display = cls(
            u[:, shown], points, y=y, classes=classes, xlabel=names[0], ylabel=along, zlabel=label
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, scatter_kw=None, grid_kw=None, face_kw=None) -> LatentGridDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        scatter_kw : dict, default=None
            Arguments of ``ax.scatter`` for the embeddings.
        grid_kw : dict, default=None
            Arguments of ``ax.plot`` for the grid points.
        face_kw : dict, default=None
            Arguments of ``ax.plot`` for the faces of the box.

        Returns
        -------
        LatentGridDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        ax = one_axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.colorbar_ = self.legend_ = None
        flat = self.u.shape[1] == 1
        self._plot_embeddings(flat, scatter_kw or {})
        style = {"color": "0.3", "linewidth": 1.0, "zorder": 1, **(face_kw or {})}
        marks = {"linestyle": "none", "color": "0.35", "zorder": 3}
        if flat:
            self.faces_ = [ax.axvline(x, **style) for x in (0.0, 1.0)]
            marks |= {"marker": "|", "markersize": TICK, "transform": ax.get_xaxis_transform()}
            heights = np.full(len(self.grid_points), FOOT)
        else:
            self.faces_ = ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], **style)
            marks |= {"marker": "+", "markersize": CROSS, "markeredgewidth": THIN}
            heights = self.grid_points[:, 1]
            ax.set(ylim=ENDS, aspect="equal")
            ax.spines[:].set_visible(False)  # The faces frame the figure.
        (self.grid_,) = ax.plot(self.grid_points[:, 0], heights, **marks | (grid_kw or {}))
        ax.set(xlim=ENDS, xlabel=self.xlabel, ylabel=self.ylabel)
        return self

    def _plot_embeddings(self, flat, scatter_kw):
        """Draw the embeddings: classes one by one, targets as heights or colours."""
        ax = self.ax_
        style = {"s": SMALL_DOT, "linewidths": 0, "zorder": 2}
        if self.classes is not None:
            colors = _class_colors(len(self.classes))
            self.scatters_ = []
            for i, (label, color) in enumerate(zip(self.classes, colors)):
                part = self.u[self.y == label]
                heights = np.full(len(part), i) if flat else part[:, 1]
                own = {"color": color, "label": str(label)} | style | scatter_kw
                self.scatters_.append(ax.scatter(part[:, 0], heights, **own))
            if flat:
                ax.set_yticks(range(len(self.classes)), [str(c) for c in self.classes])
                ax.set_ylim(-0.5, len(self.classes) - 0.5)
                return
            place = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
            self.legend_ = ax.legend(title=self.zlabel, markerscale=ENLARGED, **place)
            return
        if self.y is None:
            heights = np.zeros(len(self.u)) if flat else self.u[:, 1]
            style["color"] = MODEL
            if flat:
                ax.set_yticks([])
        elif flat:
            heights, style["color"] = self.y, MODEL
        else:
            heights, style["c"], style["cmap"] = self.u[:, 1], self.y, "viridis"
        self.scatters_ = [ax.scatter(self.u[:, 0], heights, **style | scatter_kw)]
        if "c" in style:
            self.colorbar_ = self.figure_.colorbar(self.scatters_[0], ax=ax, label=self.zlabel)


def _class_colors(n):
    """Return n distinct RGBA colours, those of matplotlib's cycle for up to ten classes."""
    import matplotlib as mpl

    if len(PALETTE) < n <= CYCLE:
        return mpl.colormaps["tab10"](np.arange(n))
    return distinct_colors(n)


def _components(components, n_components):
    """One or two different latent coordinates."""
    if components is None:
        return list(range(min(n_components, 2)))
    shown = [components] if np.ndim(components) == 0 else list(components)
    whole = all(
        isinstance(i, (int, np.integer)) and not isinstance(i, bool) and 0 <= i < n_components
        for i in shown
    )
    if not whole or len(shown) not in (1, 2) or len(set(shown)) < len(shown):
        raise ValueError(
            f"components must be one or two different ints below {n_components}. "
            f"Got {components!r}."
        )
    return [int(i) for i in shown]
