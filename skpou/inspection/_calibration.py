"""Whether predicted densities hold what they promise, and how sharp they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom, norm

from skpou.base import check_coverage, check_matplotlib_support
from skpou.inspection._sections import (
    BAND,
    THIN,
    Section,
    as_numpy,
    column,
    finite_columns,
    given_target,
    panels,
    target_name,
    with_units,
)

#: Levels between 0 and 1 at which chance is looked at: steps of a hundredth.
N_LEVELS = 99
#: Simulated samples for the band of chance. Its quantile of 5 % then rests on a hundred of them.
N_SIMULATIONS = 2000
#: Probability that a calibrated model stays inside the band at all levels.
CONFIDENCE = 0.95
#: Ratio of the ends of an axis up to which these three labels a decade have room.
FEW_DECADES, TICKS = 100, (1, 2, 5)
#: Inches of a panel: about a square, with its labels.
PANEL = (4.4, 4.0)
#: Label of the line that is no estimator's; legends leave out what begins with an underscore.
DIAGONAL = "_diagonal"


def chance_band(n, levels) -> Any:
    """Shares of n uniform values below each level that chance allows, at all levels together.

    Binomial intervals of one probability at every level, such that a uniform sample leaves none of
    them with probability `CONFIDENCE`, by simulation: algorithm 1 of T. Säilynoja, P.-C. Bürkner,
    A. Vehtari, "Graphical test for discrete uniformity and its applications in goodness-of-fit
    evaluation and multiple sample comparison", Statistics and Computing 32 (2022).

    Parameters
    ----------
    n : int
        Values, at least 1.
    levels : ndarray of shape (k,)
        Increasing, in (0, 1).

    Returns
    -------
    lower, upper : ndarray of shape (k,)
    """
    rng = np.random.default_rng(0)
    cells = np.diff(np.concatenate([[0.0], levels, [1.0]]))
    counts = rng.multinomial(n, cells, size=N_SIMULATIONS)[:, :-1].cumsum(1)
    # Two-sided tail probability of every count; the least of a sample is how rare it is.
    tails = np.minimum(binom.cdf(counts, n, levels), binom.sf(counts - 1, n, levels))
    rare = np.quantile(2 * tails.min(1), 1 - CONFIDENCE)
    lower, upper = binom.ppf([[rare / 2], [1 - rare / 2]], n, levels) / n
    return lower, upper


class CalibrationDisplay:
    """Reliability of a predictive density, and its sharpness.

    Left: the share of targets below each predicted quantile against the probability of that
    quantile. A density that holds what it promises is on the diagonal up to chance; the grey band
    is what chance allows: a calibrated density leaves it anywhere in one of twenty cases. Flatter
    than the diagonal in the middle means intervals that are too narrow, steeper ones too wide.
    Right: the widths of central intervals. Of two calibrated densities the sharper one is better;
    the dotted line is the width for which one needs no model, that of the same share of all
    targets. Use :meth:`from_estimator` or :meth:`from_predictions` to create one, with rows that
    were not fitted.

    Parameters
    ----------
    pit : ndarray of shape (n,)
        Predictive distribution function at the targets (probability integral transform), in
        [0, 1].
    widths : ndarray of shape (n,), default=None
        Widths of central intervals, in units of y; None draws no sharpness.
    coverage : float, default=0.9
        Probability of these intervals.
    spread : float, default=None
        Width of the central interval of all targets; None draws no line.
    name : str, default=None
        Of the estimator, for the legend.
    ylabel : str, default="y"
        Label of the target.

    Attributes
    ----------
    levels : ndarray of shape (k,)
        Probabilities of the quantiles.
    shares : ndarray of shape (k,)
        Shares of targets below them.
    lower, upper : ndarray of shape (k,)
        Band that chance allows.
    axes_ : ndarray of matplotlib Axes
        Reliability and sharpness.
    figure_ : matplotlib Figure
        Figure of the axes.
    line_ : matplotlib Line2D
        The reliability.
    band_ : matplotlib PolyCollection
        What chance allows; None on axes that have one.
    widths_ : matplotlib Line2D
        Share of rows with narrower intervals; None without `widths`.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.inspection import CalibrationDisplay
    >>> y = np.random.default_rng(0).standard_normal(500)
    >>> display = CalibrationDisplay.from_predictions(y, np.zeros(500), np.full(500, 0.5))
    >>> inside = (display.lower <= display.shares) & (display.shares <= display.upper)
    >>> bool(inside.all())  # The standard deviation is twice as large.
    False
    """

    def __init__(
        self, pit, widths=None, *, coverage=0.9, spread=None, name=None, ylabel="y"
    ) -> None:
        self.pit, self.widths = pit, widths
        self.coverage, self.spread = coverage, spread
        self.name, self.ylabel = name, ylabel
        self.levels = np.arange(1, N_LEVELS + 1) / (N_LEVELS + 1)
        self.shares = np.searchsorted(np.sort(pit), self.levels, side="right") / len(pit)
        self.lower, self.upper = chance_band(len(pit), self.levels)

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, target=0, coverage=0.9, name=None, units=None, ax=None, **kwargs
    ) -> CalibrationDisplay:
        """Judge the predictive density of a fitted regressor at rows that were not fitted.

        Parameters
        ----------
        estimator : fitted regressor
            With `predict_cdf` and `predict_quantile`, as all of skpou; of any other the density is
            taken for Gaussian, with mean and standard deviation of
            ``predict(X, return_std=True)``.
        X : array-like of shape (n, n_features)
            Points.
        y : array-like of shape (n,) or (n, n_outputs)
            Their targets.
        target : int, default=0
            Output to judge, of several.
        coverage : float, default=0.9
            Probability of the intervals whose widths are shown, in (0, 1).
        name : str, default=None
            For the legend; None: the name of the class.
        units : dict of str, default=None
            Unit of the target by its name: ``{"y": "mm"}``.
        ax : matplotlib Axes or array-like of two, default=None
            One of a grid of subplots, which is divided, or two, such as ``axes_`` of another
            display to compare with; None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` of the reliability.

        Returns
        -------
        CalibrationDisplay

        Raises
        ------
        TypeError
            If the estimator has neither a density nor a standard deviation.
        ValueError
            If `target`, `coverage`, X or y do not fit.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        coverage = check_coverage(coverage)
        section = Section(estimator, X)
        of_target = target_name(y, target)
        targets = given_target(section.values, y, target)
        labels = {"ylabel": with_units([of_target], units)[0]}
        labels["name"] = type(estimator).__name__ if name is None else name
        if not hasattr(estimator, "predict_cdf"):
            mean, std = _moments(estimator, X)
            mean, std = column(mean, target, "the prediction"), column(std, target, "std")
            return cls.from_predictions(
                targets, mean, std, coverage=coverage, ax=ax, **labels, **kwargs
            )
        # The thresholds of all outputs at once, as the estimator wants them.
        y = np.asarray(as_numpy(y), dtype=np.float64)
        pit = column(estimator.predict_cdf(X, y), target, "y")
        tail = (1 - coverage) / 2
        bounds = np.asarray(as_numpy(estimator.predict_quantile(X, (tail, 1 - tail))))
        bounds = bounds if bounds.ndim == 2 else bounds[:, target]
        widths = bounds[:, 1] - bounds[:, 0]
        display = cls(pit, widths, coverage=coverage, spread=_spread(targets, coverage), **labels)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, y_true, y_mean, y_std, *, coverage=0.9, name=None, ylabel="y", ax=None, **kwargs
    ) -> CalibrationDisplay:
        """Judge Gaussian predictions.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            Targets.
        y_mean, y_std : array-like of shape (n,)
            Predicted means and standard deviations, the latter above 0.
        coverage : float, default=0.9
            Probability of the intervals whose widths are shown, in (0, 1).
        name : str, default=None
            For the legend.
        ylabel : str, default="y"
            Label of the target.
        ax : matplotlib Axes or array-like of two, default=None
            As in :meth:`from_estimator`.
        **kwargs : dict
            Passed on to ``Axes.plot`` of the reliability.

        Returns
        -------
        CalibrationDisplay

        Raises
        ------
        ValueError
            If the arguments differ in length, are not finite, or a standard deviation is not
            above 0.
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        coverage = check_coverage(coverage)
        given = {"y_true": y_true, "y_mean": y_mean, "y_std": y_std}
        y_true, y_mean, y_std = finite_columns(given).values()
        if not (y_std > 0).all():
            raise ValueError(f"y_std must be above 0. Got {y_std.min():.3g}.")
        display = cls(
            norm.cdf(y_true, y_mean, y_std),
            2 * norm.ppf((1 + coverage) / 2) * y_std,
            coverage=coverage,
            spread=_spread(y_true, coverage),
            name=name,
            ylabel=ylabel,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs) -> CalibrationDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            One of a grid of subplots, which is divided, or one a panel: reliability, and sharpness
            where there are widths. Axes with curves keep their band. None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot`` of the reliability.

        Returns
        -------
        CalibrationDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_panels = 1 if self.widths is None else 2
        self.axes_ = panels(ax, 1, n_panels, figsize=(PANEL[0] * n_panels, PANEL[1]))
        self.figure_ = self.axes_[0].figure
        self.band_ = self.widths_ = None
        axis = self.axes_[0]
        if not axis.lines:
            axis.plot([0, 1], [0, 1], ":", color="0.35", linewidth=THIN, label=DIAGONAL)
            style = BAND | {"color": "0.3", "zorder": 0, "label": f"chance ({CONFIDENCE:.0%})"}
            ends = [np.concatenate([[0], edge, [1]]) for edge in (self.lower, self.upper)]
            levels = np.concatenate([[0], self.levels, [1]])
            self.band_ = axis.fill_between(levels, *ends, **style)
        style = _next_style(axis) | {"label": self.name} | kwargs
        (self.line_,) = axis.plot(self.levels, self.shares, **style)
        axis.set(
            xlim=(0, 1), ylim=(0, 1), aspect="equal",
            xlabel="probability of the quantile", ylabel="share of targets below it",
        )  # fmt: skip
        axis.legend(loc="upper left", fontsize="small")
        if self.widths is not None:
            self._plot_widths(self.axes_[1], style)
        return self

    def _plot_widths(self, axis, style):
        """Share of rows with narrower intervals, on a logarithmic axis: widths are ratios."""
        widths = np.sort(self.widths)
        look = {"color": self.line_.get_color(), "linestyle": style["linestyle"]}
        who = "" if self.name is None else f"{self.name}: "
        label = f"{who}median {np.median(widths):.3g}"
        fresh = not axis.lines
        self.widths_ = axis.ecdf(widths, label=label, **look)
        if self.spread and fresh:
            axis.axvline(self.spread, color="0.35", linestyle=":", label="all targets")
        if widths[0] > 0:
            axis.set_xscale("log")
            _few_ticks(axis)
        axis.set_xlabel(f"width of {self.coverage:.0%} intervals of {self.ylabel}")
        axis.set_ylabel("share of rows with narrower ones")
        axis.legend(loc="best", fontsize="small")


def _few_ticks(axis):
    """Plain numbers along a logarithmic axis; 1, 2 and 5 of each decade where these are few."""
    from matplotlib import ticker

    low, high = axis.get_xlim()
    subs = TICKS if high < FEW_DECADES * low else (1,)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _next_style(axis):
    """Colour and dashes for one more curve: told apart in grey, too."""
    curves = sum(line.get_label() != DIAGONAL for line in axis.lines)
    return {"color": f"C{curves}", "linestyle": ["-", "--", "-.", ":"][curves % 4]}


def _spread(y, coverage):
    """Width of the central interval of all targets."""
    tail = (1 - coverage) / 2
    low, high = np.quantile(y, [tail, 1 - tail])
    return high - low


def _moments(estimator, X):
    try:
        return estimator.predict(X, return_std=True)
    except TypeError as error:
        raise TypeError(
            f"{type(estimator).__name__} has neither predict_cdf nor predict(X, return_std=True), "
            "so there is no density to judge."
        ) from error
