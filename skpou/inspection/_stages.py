"""What each stage of a model leaves over, at the data and in amount."""

import numpy as np
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from skpou.base import check_matplotlib_support


class StageDisplay:
    """Residual of every stage of a :class:`~skpou.MultiStageRegressor`, scaled to unit size.

    One panel a stage along one feature: what is left after it over its root mean square, which the
    title gives. A wave in it is what the next stage is for; noise is where stages end. Use
    :meth:`from_estimator` to create one. This is Fig. 1 of the lecture on multi-stage networks.

    Parameters
    ----------
    x : ndarray of shape (n,)
        Coordinates of the data along the shown feature.
    residuals : ndarray of shape (n_stages, n)
        Targets minus the prediction after each stage, in units of y.
    xlabel : str, default=None
        Label of the axis.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_stages,)
        Axes of the stages.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : list of matplotlib Line2D
        The points of each stage.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import MultiStageRegressor
    >>> from skpou.inspection import StageDisplay
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> y = np.exp(X[:, 0])
    >>> model = MultiStageRegressor(hidden_layer_sizes=(10,)).fit(X, y)
    >>> display = StageDisplay.from_estimator(model, X, y)  # doctest: +SKIP
    """

    def __init__(self, x, residuals, *, xlabel=None):
        self.x, self.residuals, self.xlabel = x, residuals, xlabel

    @classmethod
    def from_estimator(cls, estimator, X, y, *, feature=0, target=0, ax=None, **kwargs):
        """Draw the stages of a fitted estimator at given data.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `staged_predict`.
        X : array-like of shape (n, d)
            Points.
        y : array-like of shape (n,) or (n, n_outputs)
            Targets: those of the fit, or others.
        feature : int, default=0
            Column of X along the axis.
        target : int, default=0
            Output of y.
        ax : array-like of matplotlib Axes, default=None
            One for each stage; None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        StageDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        if not hasattr(estimator, "staged_predict"):
            raise TypeError(f"{type(estimator).__name__} has no staged_predict.")
        y = check_array(y, ensure_2d=False, input_name="y")
        check_consistent_length(X, y)
        points = check_array(X, input_name="X")
        for name, value, count in (
            ("feature", feature, points.shape[1]),
            ("target", target, 1 if y.ndim == 1 else y.shape[1]),
        ):
            if not 0 <= value < count:
                raise ValueError(f"{name}={value!r} must be at least 0 and below {count}.")
        residuals = y - np.stack([np.asarray(p) for p in estimator.staged_predict(X)])
        if residuals.ndim == 3:
            residuals = residuals[:, :, target]
        names = getattr(estimator, "feature_names_in_", None)
        label = f"x{feature}" if names is None else names[feature]
        return cls(points[:, feature], residuals, xlabel=label).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw one panel for each stage.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, default=None
            One for each stage; None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        StageDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_stages = len(self.residuals)
        if ax is None:
            from matplotlib import pyplot as plt

            _, ax = plt.subplots(1, n_stages, figsize=(3.4 * n_stages, 3), squeeze=False,
                                 layout="constrained")  # fmt: skip
        self.axes_ = np.asarray(ax).reshape(-1)
        if len(self.axes_) != n_stages:
            raise ValueError(f"ax must hold {n_stages} axes, one a stage. Got {len(self.axes_)}.")
        self.figure_ = self.axes_[0].figure
        self.lines_ = []
        order = np.argsort(self.x)
        style = {"marker": ".", "markersize": 3, "linewidth": 0.5, **kwargs}
        for stage, (axis, residual) in enumerate(zip(self.axes_, self.residuals), 1):
            size = np.sqrt(np.mean(residual**2))
            scaled = residual[order] / (size or 1.0)
            self.lines_ += axis.plot(self.x[order], scaled, **style)
            axis.set(title=f"after stage {stage}: rms {size:.1e}", xlabel=self.xlabel)
        self.axes_[0].set_ylabel("residual / rms")
        return self
