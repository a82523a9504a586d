"""The terms of an additive model: main effects with bands, pairs as maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skpou.base import check_matplotlib_support
from skpou.inspection._sections import (
    BAND,
    CURVE,
    DATA,
    MANY_DOTS,
    MODEL,
    REACH,
    SMALL_DOT,
    THIN,
    Section,
    as_numpy,
    check_resolution,
    given_target,
    panels,
    target_name,
    with_units,
)

#: Panels of a figure that is not told which terms to show, and in a row.
MOST_TERMS, IN_A_ROW = 9, 3
#: Columns of a term that is named by them, and terms without a panel that are named.
MOST_NAMES, MOST_WORDS = 3, 4
#: Share of the variance from which on a term is shown unasked: the eye sees no less.
LEAST_SHARE = 1e-3
#: Points of a curve, and along each side of a map: panels are small.
POINTS = (200, 50)
#: Contours of a map, so many that their numbers have room.
CONTOURS = 6
#: Inches of a panel, three of which fit on a page; look of the rows, over which a term is read.
PANEL, BEHIND = (3.7, 3.1), {"alpha": 0.4, "linewidths": 0}
#: Tenths of the data, and the height of their marks in heights of the axes.
TENTHS, TICK = np.linspace(0, 1, 11), 0.04


class TermsDisplay:
    """Contributions of the terms of a fitted :class:`~skpou.AdditivePOURegressor`.

    One panel a term, the largest first: a function of one column with a band of two standard
    deviations, or a map of a pair with contours. The title says the share of the variance of y that
    the term has over the data; terms overlap, so that shares need not add up. Marks along the axis
    are tenths of the data. Use :meth:`from_estimator` to create one.

    Parameters
    ----------
    terms : list of tuple of int
        Columns of each term, one or two.
    grids : list of tuple of ndarray
        Of each term: coordinates (m,), or the two outputs of :func:`numpy.meshgrid`.
    values : list of ndarray
        Contributions there, in units of y.
    stds : list of ndarray, default=None
        Their standard deviations; None draws no bands.
    X : ndarray of shape (n, n_features), default=None
        The data; None draws no marks of them.
    partial_residuals : list of ndarray, default=None
        Of each term: its contribution to the rows plus their residual, of shape (n,), drawn for
        main effects; None draws none.
    shares : ndarray of shape (n_terms,), default=None
        Of the variance of y, for the titles.
    undrawn : list of tuple, default=None
        Columns and share of terms that are not drawn; a new figure names those of at least a
        thousandth below its panels.
    labels : list of str, default=None
        Of all columns of X.
    ylabel : str, default="y"
        Label of the target.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_terms,)
        One a term.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_, bands_ : dict of int
        Curves and bands of the main effects, by the place of the term in `terms`.
    surfaces_ : dict of int
        Maps of the pairs.
    colorbars_ : dict of int
        Their scales.
    text_ : matplotlib Text
        Names and shares of what is not drawn, or None.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import AdditivePOURegressor
    >>> from skpou.inspection import TermsDisplay
    >>> X = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    >>> model = AdditivePOURegressor(remainder=False).fit(X, X[:, 0] + X[:, 1] * X[:, 2])
    >>> display = TermsDisplay.from_estimator(model, X)
    >>> sorted(display.terms[:2])
    [(0,), (1, 2)]
    """

    def __init__(
        self,
        terms,
        grids,
        values,
        stds=None,
        *,
        X=None,
        partial_residuals=None,
        shares=None,
        undrawn=None,
        labels=None,
        ylabel="y",
    ) -> None:
        self.terms, self.grids, self.values, self.stds = terms, grids, values, stds
        self.X, self.partial_residuals = X, partial_residuals
        self.shares, self.undrawn = shares, undrawn
        self.labels, self.ylabel = labels, ylabel

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        ax=None,
        terms=None,
        target=0,
        grid_resolution=None,
        units=None,
        **kwargs,
    ) -> TermsDisplay:
        """Draw the terms of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            With ``terms_`` and ``predict_terms(X, return_std=...)``.
        X : array-like of shape (n, n_features)
            Data that set the ranges and the shares.
        y : array-like of shape (n,) or (n, n_outputs), default=None
            Their targets: dots in main effects are then the contribution plus the residual of each
            row, what the other terms leave to it.
        ax : matplotlib Axes or array-like of them, default=None
            One for each term, or one of a grid of subplots, which is divided; None: a new figure.
        terms : list of tuple, default=None
            Terms to show, each of one or two columns by index or by name: ``[(0,), (1, 2)]``. None:
            the nine of the largest share, of at least a thousandth. Terms of more columns cannot be
            drawn.
        target : int, default=0
            Output to show, of several.
        grid_resolution : int, default=None
            Points along each column, at least 2; None is 200 for main effects and 50 for pairs.
        units : dict of str, default=None
            Units by the names of columns and target, for the labels: ``{"voltage": "V"}``.
        **kwargs : dict
            Passed on to :meth:`plot`.

        Returns
        -------
        TermsDisplay

        Raises
        ------
        TypeError
            If the estimator has no `predict_terms`.
        ValueError
            If `terms`, `target`, X or y do not fit, or no term can be drawn.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        if not hasattr(estimator, "predict_terms"):
            raise TypeError(f"{type(estimator).__name__} has no predict_terms.")
        check_is_fitted(estimator)
        section = Section(estimator, X)
        found = [tuple(int(j) for j in term) for term in estimator.terms_]
        (own,) = _contributions(estimator, X, target)
        predicted = np.asarray(as_numpy(estimator.predict(X)))
        predicted = predicted if predicted.ndim == 1 else predicted[:, target]
        name = target_name(y, target)
        residual = None
        spread = np.var(predicted)
        if y is not None:
            y = given_target(section.values, y, target)
            residual, spread = y - predicted, np.var(y)
        shares = np.var(own, axis=0) / (spread or 1.0)
        places = _chosen(terms, found, shares, section)
        curves = [
            _on_grid(estimator, section, found[k], k, target, grid_resolution) for k in places
        ]
        *labels, name = with_units([*section.labels, name], units)
        display = cls(
            [found[k] for k in places],
            *(list(parts) for parts in zip(*curves, strict=True)),
            X=section.values,
            partial_residuals=None if residual is None else [own[:, k] + residual for k in places],
            shares=shares[places],
            undrawn=[(found[k], float(shares[k])) for k in np.argsort(-shares) if k not in places],
            labels=labels,
            ylabel=name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self, ax=None, *, line_kw=None, band_kw=None, surface_kw=None, scatter_kw=None
    ) -> TermsDisplay:
        """Draw a panel for each term.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            One for each term, or one of a grid of subplots, which is divided; None: a new figure.
        line_kw : dict, default=None
            Arguments of ``Axes.plot`` for main effects.
        band_kw : dict, default=None
            Arguments of ``Axes.fill_between`` for their bands.
        surface_kw : dict, default=None
            Arguments of ``Axes.pcolormesh`` for pairs.
        scatter_kw : dict, default=None
            Arguments of ``Axes.scatter`` for the data.

        Returns
        -------
        TermsDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        count = len(self.terms)
        n_columns = min(count, IN_A_ROW)
        n_rows = -(-count // n_columns)
        if ax is not None and np.size(ax) > 1:
            self.axes_ = panels(ax, 1, count, figsize=None)
        else:
            size = PANEL[0] * n_columns, PANEL[1] * n_rows
            axes = panels(ax, n_rows, n_columns, figsize=size)
            for empty in axes[count:]:
                empty.remove()
            self.axes_ = axes[:count]
        self.figure_ = self.axes_[0].figure
        self.lines_: dict[int, Any] = {}
        self.bands_: dict[int, Any] = {}
        self.surfaces_: dict[int, Any] = {}
        self.colorbars_: dict[int, Any] = {}
        for k, (term, axis) in enumerate(zip(self.terms, self.axes_)):
            if len(term) == 1:
                self._plot_curve(k, axis, line_kw or {}, band_kw or {}, scatter_kw or {})
            else:
                self._plot_map(k, axis, surface_kw or {}, scatter_kw or {})
            names = [f"feature {j}" if self.labels is None else self.labels[j] for j in term]
            axis.set_xlabel(names[0])
            if self.shares is not None:
                axis.set_title(f"share {self.shares[k]:.1%}", fontsize="medium")
            if len(term) == 2:
                axis.set_ylabel(names[1])
            else:
                axis.set_ylabel(f"part of {self.ylabel}")
        self._share_heights()
        self.text_ = self._name_undrawn() if ax is None else None
        return self

    def _name_undrawn(self):
        """Terms without a panel, below all panels of a new figure."""
        words = []
        for term, share in self.undrawn or ():
            names = [f"feature {j}" if self.labels is None else self.labels[j] for j in term]
            name = " x ".join(names) if len(term) <= MOST_NAMES else f"{len(term)} columns together"
            if share >= LEAST_SHARE:
                words.append(f"{name} {share:.1%}")
        if not words:
            return None
        more = f" and {len(words) - MOST_WORDS} more" if len(words) > MOST_WORDS else ""
        text = "not drawn: " + ", ".join(words[:MOST_WORDS]) + more
        return self.figure_.supxlabel(text, fontsize="small")

    def _plot_curve(self, k, axis, line_kw, band_kw, scatter_kw):
        (x,), value = self.grids[k], self.values[k]
        column = None if self.X is None else self.X[:, self.terms[k][0]]
        if self.partial_residuals is not None and column is not None:
            many = len(column) > MANY_DOTS
            style = BEHIND | {"s": SMALL_DOT, "color": DATA, "rasterized": many}
            axis.scatter(column, self.partial_residuals[k], **style | {"zorder": 1} | scatter_kw)
        if self.stds is not None:
            reach = REACH * self.stds[k]
            style = BAND | {"color": MODEL, "zorder": 2}
            self.bands_[k] = axis.fill_between(x, value - reach, value + reach, **style | band_kw)
        style = {"color": MODEL, "linewidth": CURVE, "zorder": 3}
        (self.lines_[k],) = axis.plot(x, value, **style | line_kw)
        axis.axhline(0, color="0.3", linewidth=THIN, linestyle=":")
        if column is not None:
            tenths = np.unique(np.quantile(column, TENTHS))
            ends = axis.get_xaxis_transform()
            axis.vlines(tenths, 0, TICK, transform=ends, color="0.2", linewidth=THIN)

    def _plot_map(self, k, axis, surface_kw, scatter_kw):
        (xx0, xx1), value = self.grids[k], self.values[k]
        # From dark to light, with numbered contours: read in grey, too.
        style = {"cmap": "cividis", "shading": "nearest", "rasterized": True, "zorder": -1}
        self.surfaces_[k] = axis.pcolormesh(xx0, xx1, value, **style | surface_kw)
        if np.ptp(value) > 0:
            lines = axis.contour(xx0, xx1, value, levels=CONTOURS, colors="w", linewidths=THIN)
            axis.clabel(lines, fontsize="x-small")
        if self.X is not None:
            style = BEHIND | {"s": SMALL_DOT / 2, "color": "k", "rasterized": True}
            shown = self.X[:, list(self.terms[k])]
            axis.scatter(*shown.T, **style | scatter_kw)
        label = f"part of {self.ylabel}"
        self.colorbars_[k] = self.figure_.colorbar(self.surfaces_[k], ax=axis, label=label)

    def _share_heights(self):
        """One range for all main effects: their sizes are what one compares."""
        own = [self.axes_[k] for k in self.lines_]
        if own:
            limits = np.array([axis.get_ylim() for axis in own])
            for axis in own:
                axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _contributions(estimator, rows, target, **options):
    """What `predict_terms` returns, arrays (m, n_terms), of one output."""
    arrays = estimator.predict_terms(rows, **options)
    arrays = arrays if isinstance(arrays, tuple) else (arrays,)
    return [_of_output(np.asarray(as_numpy(a)), target) for a in arrays]


def _on_grid(estimator, section, columns, place, target, resolution):
    """Grid of a term's columns, and the contribution with its standard deviation there."""
    shown = list(columns)
    grid = section.grid(shown, check_resolution(resolution, POINTS[len(shown) - 1]))
    rows = section.rows(shown, *(xx.ravel() for xx in grid))
    arrays = _contributions(estimator, rows, target, return_std=True)
    return tuple(grid), *(a[:, place].reshape(grid[0].shape) for a in arrays)


def _of_output(values, target):
    """Contributions (m, n_terms) of one output."""
    n_outputs = 1 if values.ndim == 2 else values.shape[1]
    if not 0 <= target < n_outputs:
        raise ValueError(f"target={target} is no output of the estimator, which has {n_outputs}.")
    return values if values.ndim == 2 else values[:, target]


def _chosen(terms, found, shares, section):
    """Places of the terms to draw in those of the estimator, the largest first if none are given.

    Raises
    ------
    ValueError
        If one is not there or has more than two columns, or none can be drawn.
    """
    if terms is None:
        order = [int(k) for k in np.argsort(-shares, kind="stable") if len(found[k]) <= 2]
        if not order:
            raise ValueError(f"No term of one or two columns was found: terms_ is {found}.")
        large = [k for k in order if shares[k] >= LEAST_SHARE]
        return (large or order)[:MOST_TERMS]
    places = []
    for term in terms:
        columns = tuple(sorted(section.shown(term)))
        if columns not in found:
            raise ValueError(f"terms has {term!r}, which is none of terms_: {found}.")
        places.append(found.index(columns))
    if not places:
        raise ValueError("terms must hold a term. Got an empty list.")
    return places
