"""TransformedRegressor: a regressor of the logarithm of y, or of another transform of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from sklearn.base import MultiOutputMixin, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import (
    BaseRegressor,
    DocumentedEstimator,
    HasMethods,
    StrOptions,
    check_coverage,
    check_quantiles,
    check_return_std,
    check_weights,
    fit_context,
    of_all_processes,
    origin_of,
    sections_of,
    target_values,
)
from skpou.sparse_grids import SparseGridRegressor
from skpou.transformed.transforms import Transform, fit_transform, from_arrays

#: Levels of the central interval whose half is a normal density's standard deviation.
ONE_DEVIATION = tuple(ndtr([-1.0, 1.0]))
#: How far quantiles may cross by round-off, in units of the larger.
ROUND_OFF = 1e-9


class HiddenParameter:
    """A parameter that lies in the instance's dict but is no attribute.

    scikit-learn takes anything with an attribute `transform` for a transformer of X.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        raise AttributeError(
            f"{self.name} is a parameter of {getattr(owner, '__name__', 'it')}, not a method. Its "
            f"value is get_params()[{self.name!r}]."
        )

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.name] = value


def inner_has(name: str) -> Any:
    """Whether the regressor inside has a method of that name, for `available_if`."""

    def check(self: TransformedRegressor) -> bool:
        getattr(getattr(self, "regressor_", None) or self._inner(), name)
        return True

    return available_if(check)


class TransformedRegressor(MultiOutputMixin, RegressorMixin, DocumentedEstimator):
    """Another regressor, of a transform of y, whose predictions come back in units of y.

    For positive targets over several powers of ten, with relative errors, or whose errors are
    skewed. Unlike scikit-learn's `TransformedTargetRegressor` it brings back the error bars too:
    a density in the transformed units is one in units of y, by the change of variables
    ``p(y | x) = p(t(y) | x) |t'(y)|``.

    Parameters
    ----------
    regressor : estimator, default=None
        Regressor of the transformed targets; it is cloned. One of skpou, or any other with `fit`
        and `predict`: where it knows ``predict(X, return_std=True)`` alone, such as a Gaussian
        process or a pipeline with a regressor of skpou at its end, its density is taken for one
        Gaussian a point. None: ``SparseGridRegressor()``, which takes milliseconds.
    transform : {"log", "yeo-johnson"} or tuple of two callables, default="log"
        ``"log"``: the natural logarithm, of positive y. ``"yeo-johnson"``: powers on both sides
        of the mean [1]_, for y of any sign, the exponent of every output by maximum likelihood
        between 0 and 2, within which any prediction can be brought back. ``(function,
        inverse)``: an increasing or decreasing function of y and its inverse, element by element
        on numpy arrays; both must be importable for a model to be saved.

    Attributes
    ----------
    regressor_ : estimator
        The fitted regressor of the transformed targets.
    transform_ : dict
        Kind and fitted constants of the transform.
    n_features_in_ : int
        Number of columns of X, where the regressor knows it.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    See Also
    --------
    sklearn.compose.TransformedTargetRegressor : The mean alone, for any transformer.

    References
    ----------
    .. [1] I.-K. Yeo, R. A. Johnson, "A new family of power transformations to improve normality
       or symmetry", Biometrika 87, 2000.

    Examples
    --------
    >>> from skpou import HierarchicalPOURegressor, TransformedRegressor
    >>> from skpou.datasets import make_diode
    >>> X, current = make_diode(200, log=False, random_state=0)  # V, A, over 13 decades
    >>> model = TransformedRegressor(HierarchicalPOURegressor(8)).fit(X, current)
    >>> median, std = model.predict([[0.6]], return_std=True)
    >>> print(f"{median[0]:.5g} A")
    1.4269e-05 A
    >>> bool(std[0] < 0.01 * median[0])
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        "regressor": [HasMethods(["fit", "predict"]), None],
        "transform": [StrOptions({"log", "yeo-johnson"}), tuple],
    }
    transform = HiddenParameter()

    def __init__(self, regressor=None, transform="log") -> None:
        self.regressor = regressor
        self.transform = transform

    def get_params(self, deep=True) -> Any:
        """Parameters of this regressor and of the one inside.

        Parameters
        ----------
        deep : bool, default=True
            Also those of the regressor inside, as ``regressor__name``.

        Returns
        -------
        dict
        """
        params = {"regressor": self.regressor, "transform": self.__dict__["transform"]}
        if deep and hasattr(self.regressor, "get_params"):
            inner = self.regressor.get_params(deep=True)
            params.update({f"regressor__{name}": value for name, value in inner.items()})
        return params

    def __sklearn_tags__(self):
        """Those of the regressor inside; a logarithm needs positive y."""
        tags, inner = super().__sklearn_tags__(), get_tags(self._inner())
        tags.input_tags = inner.input_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags.multi_output = inner.target_tags.multi_output
        tags.target_tags.positive_only = isinstance(self._kind(), str) and self._kind() == "log"
        return tags

    def _inner(self) -> Any:
        return SparseGridRegressor() if self.regressor is None else self.regressor

    def _kind(self) -> Any:
        return self.__dict__["transform"]

    # Training

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None) -> TransformedRegressor:
        """Fit the transform to y, and the regressor to the transformed targets.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Weights of the rows, of which skpou's regressors make frequencies. They are handed on
            only if given.

        Returns
        -------
        self : TransformedRegressor

        Raises
        ------
        ValueError
            If a target has no transformed value, such as zero under a logarithm, or if `transform`
            is no pair of a function and its inverse.
        """
        self._check_pair()
        if y is None:
            raise ValueError(
                "This TransformedRegressor estimator requires y to be passed, but the target y is "
                "None."
            )
        values = _targets(y)
        weight, given = np.ones(len(values)), {}
        if sample_weight is not None:
            weight = check_weights(_array(sample_weight), np.empty((len(values), 1)), np.float64)
            given = {"sample_weight": sample_weight}
        kept = weight > 0
        if not len(values):
            raise ValueError("Found array with 0 sample(s) in y while a minimum of 1 is required.")
        # One transform for the rows of all processes that call fit together.
        transform = fit_transform(self._kind(), *of_all_processes(values[kept], weight[kept]))
        targets = np.zeros_like(values)  # Where rows are removed any number will do.
        targets[kept] = transform.forward(values[kept])
        inner = clone(self._inner())
        try:
            inner.fit(X, targets, **given)
        except KeyboardInterrupt:
            # On Ctrl-C regressors of skpou hold the best model so far.
            if _is_fitted(inner):
                self._store(inner, transform, values.ndim)
            raise
        self._store(inner, transform, values.ndim)
        return self

    def _check_pair(self) -> None:
        pair = self._kind()
        if isinstance(pair, tuple) and not (len(pair) == 2 and all(map(callable, pair))):
            raise ValueError(
                f"transform must be 'log', 'yeo-johnson' or (function, inverse). Got {pair!r}."
            )

    def _store(self, inner: Any, transform: Transform, target_ndim: int) -> None:
        names = ("n_features_in_", "feature_names_in_")
        for name in names:
            self.__dict__.pop(name, None)
        self.__dict__.update(
            {name: getattr(inner, name) for name in names if hasattr(inner, name)},
            regressor_=inner,
            transform_=transform.arrays(),
            _target_ndim=target_ndim,
        )

    # Prediction

    def _fitted(self) -> Transform:
        check_is_fitted(self, "regressor_")
        return from_arrays(self.transform_)

    def _moments(self, X: Any, return_std: bool | str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in transformed units."""
        try:
            mean, std = self.regressor_.predict(X, return_std=return_std)
        except TypeError as error:
            raise TypeError(
                f"regressor={self._inner()!r} predicts no standard deviation: {error}"
            ) from error
        return _array(mean), _array(std)

    def _quantiles(self, X: Any, levels: Any) -> np.ndarray:
        """Quantiles (n, ..., k) in units of y, of increasing levels (k,)."""
        transform, levels = self._fitted(), np.asarray(levels, dtype=np.float64)
        inner = levels if transform.increasing else 1 - levels
        if hasattr(self.regressor_, "predict_quantile"):
            found = _array(self.regressor_.predict_quantile(X, inner))
        else:
            mean, std = self._moments(X, True)
            found = mean[..., None] + std[..., None] * ndtri(inner)
        return self._ordered(transform.inverse(found))

    def _ordered(self, values: np.ndarray) -> np.ndarray:
        """Quantiles that do not cross, unless they are those of an inverse that turns round."""
        size = np.abs(values).max(-1, keepdims=True, initial=0.0)
        with np.errstate(invalid="ignore"):
            crossed = np.diff(values, axis=-1) < -ROUND_OFF * size
        if crossed.any():
            row = int(np.argwhere(crossed)[0, 0])
            raise ValueError(
                f"transform={self._kind()!r}: the inverse must increase or decrease throughout all "
                f"that may be predicted. In row {row} of X the quantiles {values[row]} cross."
            )
        # Functions as given may round one up and the next down.
        return np.maximum.accumulate(values, axis=-1)

    def predict(self, X, return_std=False) -> Any:
        """Predict the median of y, and half the width of its central 68 % interval.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, "epistemic" or "noise", default=False
            True: also half of the central 68.27 % interval, which for one Gaussian is the
            standard deviation. ``"epistemic"``, ``"noise"``: that of the part alone, taken for
            Gaussian in the transformed units; only with a regressor of skpou inside.

        Returns
        -------
        median : ndarray or Tensor of shape (n,) or (n, n_outputs)
        std : ndarray or Tensor of the same shape
            In units of y; only if asked for.
        """
        check_return_std(return_std)
        transform, whole = self._fitted(), hasattr(self.regressor_, "predict_quantile")
        if isinstance(return_std, str) and not whole:
            raise ValueError(
                f"return_std={return_std!r} needs a regressor of skpou. Got {self._inner()!r}."
            )
        if whole:
            median = self._quantiles(X, [0.5])[..., 0]
        else:
            median = transform.inverse(_array(self.regressor_.predict(X)))
        if not return_std:
            return _like(X, median)
        if isinstance(return_std, str):
            mean, std = self._moments(X, return_std)
            ends = transform.inverse(np.stack([mean - std, mean + std], -1))
        else:
            ends = self._quantiles(X, ONE_DEVIATION)
        return _like(X, median), _like(X, np.abs(_width(ends)) / 2)

    @sections_of(BaseRegressor.predict_quantile)
    def predict_quantile(self, X, quantiles=(0.05, 0.5, 0.95)) -> Any:
        """Quantiles of the predictive density; they never cross."""
        levels = check_quantiles(quantiles)
        order = np.argsort(levels, kind="stable")
        found = self._quantiles(X, levels[order])
        return _like(X, found[..., np.argsort(order, kind="stable")])

    @sections_of(BaseRegressor.predict_interval)
    def predict_interval(self, X, coverage=0.9) -> Any:
        """Central intervals for new measurements, those of `conformalize` after a call of it."""
        coverage, transform = check_coverage(coverage), self._fitted()
        if not hasattr(self.regressor_, "predict_interval"):
            return _like(X, self._quantiles(X, [(1 - coverage) / 2, (1 + coverage) / 2]))
        ends = transform.inverse(_array(self.regressor_.predict_interval(X, coverage)))
        return _like(X, self._ordered(ends if transform.increasing else ends[..., ::-1]))

    @inner_has("conformalize")
    @sections_of(BaseRegressor.conformalize)
    def conformalize(self, X, y) -> Any:
        """Calibrate `predict_interval` by rows that took no part in the fit.

        Central intervals go over into each other by the transform: what the regressor inside
        guarantees for its own holds in units of y. See `HierarchicalPOURegressor.conformalize`.
        """
        self.regressor_.conformalize(X, self._fitted().forward(_targets(y)))
        return self

    @inner_has("summary")
    def summary(self) -> str:
        """Describe the fitted regressor inside, whose targets are those behind the transform.

        Returns
        -------
        str
            Some lines; nothing of it is meant to be read by programs.
        """
        self._fitted()
        given = self._kind()
        kind = given if isinstance(given, str) else "a pair of functions"
        head = f"TransformedRegressor, transform: {kind}; y below is what it makes of y"
        return f"{head}\n\n{self.regressor_.summary()}"

    @inner_has("log_density")
    @sections_of(BaseRegressor.log_density)
    def log_density(self, X, y, *, joint=False) -> Any:
        """Logarithm of the predictive density ``p(y | x)``, by the change of variables.

        A target without a transformed value is an error, too.
        """
        transform, values = self._fitted(), _targets(y)
        targets = transform.forward(values)
        given = {"joint": joint} if joint else {}
        inside = _array(self.regressor_.log_density(X, targets, **given))
        slopes = transform.log_slope(values, targets).reshape(len(values), -1)
        return _like(X, inside + (slopes.sum() if joint else slopes.sum(1)))

    @inner_has("predict_cdf")
    @sections_of(BaseRegressor.predict_cdf)
    def predict_cdf(self, X, y) -> Any:
        """Probability that a target is at most y, for each output on its own.

        A threshold without a transformed value is an error, too.
        """
        transform = self._fitted()
        below = _array(self.regressor_.predict_cdf(X, transform.forward(_targets(y))))
        return _like(X, below if transform.increasing else 1 - below)

    @inner_has("sample_y")
    @sections_of(BaseRegressor.sample_y)
    def sample_y(self, X, n_samples=1, random_state=0, *, joint=False) -> Any:
        """Draw targets from the predictive density."""
        transform = self._fitted()
        given = {"joint": joint} if joint else {}
        draws = self.regressor_.sample_y(X, n_samples, random_state, **given)
        return _like(X, transform.inverse(_array(draws)))

    @inner_has("predict_gradient")
    @sections_of(BaseRegressor.predict_gradient)
    def predict_gradient(self, X) -> Any:
        """Gradient of the predicted median by the chain rule.

        It is that of what the inverse makes of the mean inside, which is the median wherever the
        density inside is symmetric.
        """
        transform = self._fitted()
        gradient = _array(self.regressor_.predict_gradient(X))
        slope = transform.inverse_slope(_array(self.regressor_.predict(X)))[..., None]
        # A slope beyond all numbers is infinite, and none where the inverse is flat.
        with np.errstate(over="ignore", invalid="ignore"):
            return _like(X, np.where(slope == 0, 0.0, slope * gradient))

    score = BaseRegressor.score


def _array(value: Any) -> np.ndarray:
    """An array in float64 of what came as an array or a tensor."""
    value = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    return np.asarray(value, dtype=np.float64)


def _targets(y: Any) -> np.ndarray:
    """Finite real targets (n,) or (n, m) as an array."""
    return _array(target_values(y))


def _like(X: Any, result: np.ndarray) -> Any:
    """The result as X was: an array, or a tensor on its device."""
    tensor = torch.tensor(np.ascontiguousarray(result), dtype=torch.float64, device="cpu")
    return origin_of(X).send(tensor)


def _width(ends: np.ndarray) -> np.ndarray:
    """Differences of upper and lower ends along the last axis; infinite where both are."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(ends[..., 1] - ends[..., 0], nan=np.inf, posinf=np.inf, neginf=-np.inf)


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True
