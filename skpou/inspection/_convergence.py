"""How the error falls: against a parameter, the stages of a model, or the steps of a training."""

from __future__ import annotations

from numbers import Real

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import validation_curve
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skpou.base import check_matplotlib_support
from skpou.inspection._sections import (
    BAND,
    as_numpy,
    check_stages,
    given_target,
    one_axes,
    target_name,
    with_units,
)

#: Ratio of the largest to the smallest value of a parameter from which on its axis is logarithmic.
WIDE = 10
#: Marks and dashes of curves, which are told apart in grey, too.
MARKS, DASHES = "osD^vP", ("-", "--", "-.", ":")
#: Points up to which each has a mark.
FEW_POINTS = 30
LEFT_OUT, GIVEN, FITTED = "left-out rows", "given rows", "fitted rows"


class ConvergenceDisplay:
    """Error of a model against what it is given: partitions, degree, iterations.

    Use :meth:`from_estimator` for the error against a parameter, at left-out or at given rows, or
    against the stages of a fitted model, and :meth:`from_loss_curves` for trainings.

    Parameters
    ----------
    curves : dict of tuple of two array-like
        By name: values along the axis, of shape (k,), and errors, of shape (k,) or (k, n_folds).
        Of several folds the root mean square is drawn, with a band from the least to the largest.
    xlabel, ylabel : str, default=None
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the figure.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : list of matplotlib Line2D
        One a curve.
    bands_ : list of matplotlib PolyCollection
        From the least to the largest error of the folds, of the curves that have any.
    legend_ : matplotlib Legend
        Names of the curves; None for a single one.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.inspection import ConvergenceDisplay
    >>> n = np.array([1, 2, 4, 8, 16])
    >>> display = ConvergenceDisplay({"cubic": (n, 1.0 / n**4)}, xlabel="pieces").plot()
    >>> display.ax_.get_xscale(), display.ax_.get_yscale()
    ('log', 'log')
    """

    def __init__(self, curves, *, xlabel=None, ylabel=None) -> None:
        self.curves, self.xlabel, self.ylabel = curves, xlabel, ylabel

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        param_name=None,
        param_range=None,
        X_test=None,
        y_test=None,
        cv=None,
        n_jobs=None,
        units=None,
        ax=None,
        **kwargs,
    ) -> ConvergenceDisplay:
        """Draw root mean square errors against a parameter, or against stages.

        Parameters
        ----------
        estimator : regressor
            Cloned and fitted for every value of the parameter. Without `param_name` one that is
            fitted, with `staged_predict`.
        X : array-like of shape (n, n_features)
            Points to fit to; without `param_name` those where the error of each stage is taken.
        y : array-like of shape (n,) or (n, n_outputs)
            Their targets; the error of several outputs is the mean of their errors.
        param_name : str, default=None
            Parameter, as ``set_params`` takes it. None: errors against the stages of `estimator`.
        param_range : array-like, default=None
            Its values, needed with `param_name`.
        X_test, y_test : array-like, default=None
            Rows at which the error is taken, instead of left-out ones.
        cv : int, cross-validation generator or iterable, default=None
            How rows are left out, as in :func:`sklearn.model_selection.validation_curve`; None: 5
            folds.
        n_jobs : int, default=None
            Fits at a time, of those with left-out rows.
        units : dict of str, default=None
            Unit of the target by its name, for the label: ``{"y": "mm"}``.
        ax : matplotlib Axes, default=None
            None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        TypeError
            If there is no `param_name` and the estimator has no `staged_predict`.
        ValueError
            If only one of `param_name` and `param_range`, or of `X_test` and `y_test`, is given.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> from skpou.inspection import ConvergenceDisplay
        >>> X = np.linspace(0, 1, 200)[:, None]
        >>> display = ConvergenceDisplay.from_estimator(
        ...     DecisionTreeRegressor(random_state=0), X, X[:, 0],
        ...     param_name="max_leaf_nodes", param_range=[2, 4, 8], X_test=X, y_test=X[:, 0],
        ... )
        >>> display.curves["given rows"][1].round(3)
        array([0.145, 0.073, 0.036])
        """  # fmt: skip
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        _check_pair("param_name", param_name, "param_range", param_range)
        _check_pair("X_test", X_test, "y_test", y_test)
        of_target = with_units([target_name(y)], units)[0]
        ylabel = f"root mean square error of {of_target}"
        if param_name is None:
            return cls(_of_stages(estimator, X, y), xlabel="stage", ylabel=ylabel).plot(
                ax=ax, **kwargs
            )
        values = list(param_range)
        if param_name not in estimator.get_params():
            raise ValueError(f"{type(estimator).__name__} has no parameter {param_name!r}.")
        if X_test is None:
            fitted, left_out = validation_curve(
                estimator, X, y, param_name=param_name, param_range=values, cv=cv, n_jobs=n_jobs,
                scoring="neg_root_mean_squared_error", error_score="raise",
            )  # fmt: skip
            errors = {LEFT_OUT: -left_out, FITTED: -fitted}
        else:
            errors = {GIVEN: [], FITTED: []}
            for value in values:
                model = clone(estimator).set_params(**{param_name: value}).fit(X, y)
                errors[GIVEN].append(_rms(y_test, model.predict(X_test)))
                errors[FITTED].append(_rms(y, model.predict(X)))
        curves = {name: (values, np.asarray(found)) for name, found in errors.items()}
        return cls(curves, xlabel=param_name, ylabel=ylabel).plot(ax=ax, **kwargs)

    @classmethod
    def from_loss_curves(cls, estimators, *, names=None, ax=None, **kwargs) -> ConvergenceDisplay:
        """Draw what trainings have noted after every step: ``loss_curve_``.

        What a loss is, the documentation of each estimator says.

        Parameters
        ----------
        estimators : fitted estimator or list of them
            With ``loss_curve_``.
        names : list of str, default=None
            For the legend; None: the names of the classes.
        ax : matplotlib Axes, default=None
            None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        TypeError
            If an estimator has no ``loss_curve_``.
        ValueError
            If there are not as many names as estimators, or two are the same.
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        """
        check_matplotlib_support(f"{cls.__name__}.from_loss_curves")
        estimators = list(estimators) if isinstance(estimators, list | tuple) else [estimators]
        for estimator in estimators:
            check_is_fitted(estimator)
            if not hasattr(estimator, "loss_curve_"):
                raise TypeError(f"{type(estimator).__name__} has no loss_curve_.")
        if names is None:
            names = [type(estimator).__name__ for estimator in estimators]
            repeated = len(set(names)) < len(names)
            names = [f"{name} {i}" if repeated else name for i, name in enumerate(names, 1)]
        if len(names) != len(estimators) or len(set(names)) < len(names):
            raise ValueError(f"names must be {len(estimators)} different ones. Got {names!r}.")
        curves = {}
        for name, estimator in zip(names, estimators):
            losses = np.asarray(as_numpy(estimator.loss_curve_), dtype=np.float64)
            curves[name] = (np.arange(1, len(losses) + 1), losses)
        return cls(curves, xlabel="step", ylabel="loss").plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs) -> ConvergenceDisplay:
        """Draw the curves.

        Axes are logarithmic where all values are positive and differ by a factor of ten or more;
        values that are no numbers stand side by side.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        ConvergenceDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        ax = one_axes(ax)
        self.ax_, self.figure_, self.lines_, self.bands_ = ax, ax.figure, [], []
        self.legend_ = None
        places, ticks = _places([values for values, _ in self.curves.values()])
        for k, ((name, (_, errors)), x) in enumerate(zip(self.curves.items(), places)):
            folds = np.asarray(errors, dtype=np.float64).reshape(len(x), -1)
            mark = MARKS[k % len(MARKS)] if len(x) <= FEW_POINTS else ""
            style = {"marker": mark, "linestyle": DASHES[k % len(DASHES)], "label": name}
            # The sign of a loss counts, and a single value is itself.
            one = folds.shape[1] == 1
            middle = folds[:, 0] if one else np.sqrt(np.mean(folds**2, axis=1))
            self.lines_ += ax.plot(x, middle, **style | kwargs)
            if not one:
                look = BAND | {"color": self.lines_[-1].get_color()}
                self.bands_.append(ax.fill_between(x, folds.min(1), folds.max(1), **look))
        self._scale(np.concatenate(places), ticks)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        if len(self.curves) > 1:
            self.legend_ = ax.legend()
        return self

    def _scale(self, x, ticks):
        """Logarithmic axes where that shows more."""
        errors = np.concatenate([np.ravel(errors) for _, errors in self.curves.values()])
        if ticks is not None:
            self.ax_.set_xticks(range(len(ticks)), ticks)
        elif _is_wide(x):
            self.ax_.set_xscale("log")
        elif (x == np.round(x)).all():
            self.ax_.xaxis.get_major_locator().set_params(integer=True)
        if _is_wide(errors):
            self.ax_.set_yscale("log")


def _check_pair(name, value, other, its_value):
    if (value is None) != (its_value is None):
        given = name if its_value is None else other
        raise ValueError(f"{name} and {other} go together. Got only {given}.")


def _rms(y, predicted):
    """Root mean square error, the mean of those of several outputs."""
    y = check_array(as_numpy(y), ensure_2d=False, dtype=np.float64, input_name="y")
    difference = y - np.asarray(as_numpy(predicted)).reshape(y.shape)
    return np.sqrt(np.mean(difference**2, axis=0)).mean()


def _of_stages(estimator, X, y):
    """Error after each stage of a fitted model."""
    check_is_fitted(estimator)
    check_stages(estimator)
    given_target(X, y, 0)
    errors = [_rms(y, predicted) for predicted in estimator.staged_predict(X)]
    return {GIVEN: (np.arange(1, len(errors) + 1), np.array(errors))}


def _places(values):
    """Coordinates of the values of each curve; tick labels where some are no numbers, else None."""
    every = [value for own in values for value in own]
    if all(isinstance(value, Real) and not isinstance(value, bool) for value in every):
        return [np.asarray(own, dtype=np.float64) for own in values], None
    ticks = list(dict.fromkeys(str(value) for value in every))
    return [np.array([ticks.index(str(value)) for value in own]) for own in values], ticks


def _is_wide(values):
    """Whether all are positive and span a factor of ten."""
    return values.min() > 0 and values.max() >= WIDE * values.min()
