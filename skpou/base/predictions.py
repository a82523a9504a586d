"""Predictions of every kind, in units of y: moments, gradients, quantiles, densities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from torch import Tensor

from skpou.base import validation
from skpou.base.estimator import TorchEstimator
from skpou.base.intervals import IntervalMixin
from skpou.base.joint import JointMixin
from skpou.base.parameters import check_joint, check_quantiles, check_return_std
from skpou.core import Scaling
from skpou.core.models import Predictor

#: Size of y from which on single precision holds its errors, too, and distance of y from zero, in
#: units of its spread, up to which it rounds to less than a thousandth of the spread.
LEAST_SINGLE, MOST_OFFSET = 1e-30, 1e4


class PredictiveRegressor(
    IntervalMixin, JointMixin, MultiOutputMixin, RegressorMixin, TorchEstimator
):
    """Regressor with a predictive density at every point: one Gaussian, or a mixture of them."""

    _target_ndim: int

    def _gates_per_row(self) -> int:
        """Number of targets that choose their components independently; 0: all together."""
        return 0

    @staticmethod
    def _scaled_targets(y: Any, points: Tensor, scaling: Scaling) -> Tensor:
        """Targets (n, m) of these points in scaled units, in float64.

        Raises
        ------
        ValueError
            If they are not as many as the points, or of another number of outputs than in fit.
        """
        y = validation.owned(validation.target_values(y), torch.float64, points.device)
        y = y.reshape(len(y), -1)
        wanted = (len(points), len(scaling.scale))
        if tuple(y.shape) != wanted:
            raise ValueError(f"y must hold {wanted} values for these X. Got {tuple(y.shape)}.")
        return scaling.targets(y)

    def _leave(self, result: Tensor, origin: validation.Origin) -> Any:
        """Results (n, ..., m) as (n, m, ...), or (n, ...) if y had no axis; as what X was."""
        result = result.to(origin.dtype or self._result_dtype())
        single = self._target_ndim == 1
        return origin.send(result.squeeze(-1) if single else result.moveaxis(-1, 1).contiguous())

    def _units(self, like: Tensor) -> tuple[Scaling, torch.dtype | None]:
        return Scaling.from_arrays(self.scaling_, like), self._result_dtype()

    def _result_dtype(self) -> torch.dtype:
        """Single precision only where it was asked for and holds y, its offset and its size."""
        mean, scale = np.abs(self.scaling_["mean"]), self.scaling_["scale"]
        held = (scale > LEAST_SINGLE) & (mean < MOST_OFFSET * scale)
        return self._torch_dtype() if held.all() else torch.float64

    @torch.inference_mode(False)
    def _predict(
        self,
        X: Any,
        return_std: bool | str,
        view: Callable[[Any], Predictor] | None = None,
        return_cov: bool | str = False,
    ) -> Any:
        """Mean and standard deviation, or covariance, of the model or a part that `view` makes."""
        check_return_std(return_std)
        if return_cov or not isinstance(return_cov, bool | np.bool_):
            if return_std:
                raise ValueError(
                    "At most one of return_std and return_cov may be asked for. Got "
                    f"return_std={return_std!r} and return_cov={return_cov!r}."
                )
            return self._predict_covariance(X, return_cov, view)
        points, scaling, origin = self._query(X)
        unpack = self._regular_density_of if return_std else self._mean_of
        model = unpack(points, view)
        if not return_std:
            mean = self._in_blocks(points, model, lambda x, _: model.mean(x))
            return self._leave(scaling.original_targets(mean), origin)

        def moments(x: Tensor, _: slice) -> tuple[Tensor, Tensor]:
            parts = model.components(x)
            noise, epistemic = parts.variances()
            parts_of = {"noise": noise, "epistemic": epistemic}
            variance = parts_of.get(str(return_std), noise + epistemic)
            return parts.expectation(), variance.sqrt()

        mean, std = self._in_blocks(points, model, moments)
        return (
            self._leave(scaling.original_targets(mean), origin),
            self._leave(scaling.scale * std, origin),
        )

    @torch.inference_mode(False)
    def predict_gradient(self, X) -> Any:
        """Gradient of the predicted mean.

        Across a sharp gate it is that of the chosen piece.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n, d) or (n, n_outputs, d)
            Derivatives in units of y over units of X; zero along constant columns, and along
            those whose range is below the smallest normal number, 2.2e-308: a slope over it has no
            digits, and overflows.
        """
        points, scaling, origin = self._query(X)
        model = self._mean_of(points)
        reduced = self._in_blocks(points, model, lambda x, _: model.gradient(x))
        shape = (len(points), self.n_features_in_, len(scaling.scale))
        gradient = torch.zeros(shape, dtype=torch.float64, device=points.device)
        slopes = (reduced * scaling.scale / scaling.width[:, None]).to(torch.float64)
        constant = scaling.width < torch.finfo(torch.float64).tiny
        gradient[:, scaling.columns] = slopes.masked_fill_(constant[:, None], 0.0)
        steep = gradient.abs().max() if gradient.numel() else 0.0
        if steep > torch.finfo(torch.float32).max:  # Steps of X may be smaller than any float32.
            gradient = gradient.squeeze(-1) if self._target_ndim == 1 else gradient.moveaxis(-1, 1)
            return origin.send(gradient.contiguous())
        return self._leave(gradient, origin)

    @torch.inference_mode(False)
    def predict_quantile(self, X, quantiles=(0.05, 0.5, 0.95)) -> Any:
        """Quantiles of the predictive density; they never cross.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Probabilities between 0 and 1, exclusive.

        Returns
        -------
        ndarray or Tensor of shape (n, n_quantiles) or (n, n_outputs, n_quantiles)
            In units of y.

        Raises
        ------
        ValueError
            If a probability does not lie between 0 and 1.
        """
        levels = check_quantiles(quantiles)
        points, scaling, origin = self._query(X)
        order = np.argsort(levels, kind="stable")
        probabilities = torch.tensor(levels[order], dtype=points.dtype, device=points.device)
        model = self._density_of(points)
        values = self._in_blocks(
            points, model, lambda x, _: model.components(x).quantiles(probabilities)
        )
        values = torch.cummax(scaling.original_targets(values), dim=1).values
        back = torch.tensor(np.argsort(order, kind="stable"), device=points.device)
        return self._leave(values[:, back], origin)

    @torch.inference_mode(False)
    def predict_cdf(self, X, y) -> Any:
        """Probability that a target is at most y, for each output on its own.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs), or of one axis more
            Thresholds, in units of y. With a last axis of several for each target it is what
            `predict_quantile` returns.

        Returns
        -------
        ndarray or Tensor of the shape of y
            Values of the distribution function.

        Raises
        ------
        ValueError
            If X and y differ in length or y has another number of outputs than in fit.
        """
        points, scaling, origin = self._query(X)
        y = validation.owned(validation.target_values(y, most_axes=3), torch.float64, points.device)
        shape, several = y.shape, y.ndim > self._target_ndim
        wanted = (len(points), *([len(scaling.scale)] if self._target_ndim == 2 else []))
        if y.ndim > self._target_ndim + 1 or tuple(shape[: self._target_ndim]) != wanted:
            raise ValueError(
                f"y must hold {wanted} values for these X, or several of each. Got {tuple(shape)}."
            )
        y = y.reshape(len(y), len(scaling.scale), -1 if several else 1)
        values = scaling.targets(y.mT).to(points.dtype)
        model = self._density_of(points)
        below = self._in_blocks(
            points, model, lambda x, rows: model.components(x).cumulative(values[rows])
        )
        return origin.send(below.mT.reshape(shape).to(self._torch_dtype()))

    @torch.inference_mode(False)
    def log_density(self, X, y, *, joint=False) -> Any:
        """Logarithm of the predictive density ``p(y | x)``.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets; several outputs give their joint density.
        joint : bool, default=False
            True: one number, the density of the targets of all points together. It is that of the
            Gaussian with the covariance of ``predict(X, return_cov=True)``; outputs are
            independent.

        Returns
        -------
        ndarray or Tensor of shape (n,), or () if `joint`
            Natural logarithm, per unit of y.

        Raises
        ------
        ValueError
            If X and y differ in length or y has another number of outputs than in fit, or `joint`
            is asked of a regressor without covariances.
        """
        check_joint(joint)
        points, scaling, origin = self._query(X)
        targets = self._scaled_targets(y, points, scaling)
        units = scaling.scale.log().sum()
        if joint:
            density = points.new_tensor(self._joint_log_density(points, scaling, targets))
            return origin.send((density - len(points) * units).to(self._torch_dtype()))
        model, targets = self._density_of(points), targets.to(points.dtype)
        density = self._in_blocks(
            points, model, lambda x, rows: model.components(x).log_density(targets[rows])
        )
        return origin.send((density - units).to(self._torch_dtype()))

    def score(self, X, y, sample_weight=None) -> float:
        """Coefficient of determination R^2 of the prediction.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            True targets.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float
        """
        values = [y, self.predict(X), sample_weight]
        y, predicted, weight = (
            validation.check_tensor(v, "y").cpu().numpy() if isinstance(v, Tensor) else v
            for v in values
        )
        from sklearn.metrics import r2_score  # Late: it imports for long.

        return float(r2_score(y, predicted, sample_weight=weight))
