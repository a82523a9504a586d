"""What regressors share whose state is one model with a density and a gradient at every point."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base.density import ResidueDensityMixin
from skpou.base.regressor import BaseRegressor, Prepared
from skpou.base.summary import noise_lines, stage_lines
from skpou.core import TrainingResult
from skpou.core.models import LinearModel


class FittedModelRegressor(BaseRegressor):
    """Regressor that stores its model's arrays as `model_`.

    A subclass writes `_model`, and `_noise_variance` where that is not ``model_["noise"]``.
    """

    model_: Any

    def _as_stored(self, state: Any, like: Tensor) -> Any:
        # What is solved for in double precision may not survive to be rounded.
        if like.dtype == torch.float64:
            return state
        return type(state).from_arrays(state.arrays(), like)

    def _noise_variance(self) -> np.ndarray:
        """Variance of the noise of every target in scaled units."""
        return self.model_["noise"]

    def _of_targets(self, values: np.ndarray):
        """Drop the axis of a single target if y had none."""
        return values[..., 0] if self._target_ndim == 1 else values

    @property
    def intercept_(self) -> Any:
        """Mean of y."""
        check_is_fitted(self)
        return self._of_targets(self.scaling_["mean"])

    @property
    def noise_(self) -> Any:
        """Noise standard deviation in units of y, the usual one where it varies."""
        check_is_fitted(self)
        variance = self._usual_factor() * self._noise_variance()
        return self._of_targets(np.sqrt(variance) * self.scaling_["scale"])

    # Prediction

    def predict(self, X, return_std=False, return_cov=False) -> Any:
        """Predict the mean of y, and its standard deviation or covariance.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, "epistemic" or "noise", default=False
            True: also the predictive standard deviation, of noise and model together.
            ``"noise"``: that of the noise alone. ``"epistemic"``: that of the mean, by the
            posterior of the coefficients and by errors at rows that were left out; outside the
            box of the data it grows with the distance.
        return_cov : bool or "epistemic", default=False
            True: also the covariance of new measurements at all pairs of points, whose diagonal
            is the square of the standard deviation. ``"epistemic"``: that of the mean alone.

        Returns
        -------
        mean : ndarray or Tensor of shape (n,) or (n, n_outputs)
            In float64 also with ``dtype="float32"`` where y is too small or too far from zero,
            for its spread, to be held in single precision.
        std : ndarray or Tensor of the same shape
            In units of y; only if asked for.
        cov : ndarray or Tensor of shape (n, n) or (n, n, n_outputs)
            In squared units of y; only if asked for.

        Raises
        ------
        ValueError
            If both are asked for.
        """
        return self._predict(X, return_std, return_cov=return_cov)


class LinearModelRegressor(ResidueDensityMixin, FittedModelRegressor):
    """Regressor with a `LinearModel` for its state."""

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            model_=result.state.arrays(),
            density_=self._fitted_density(result.state, prepared.rows),
            alpha_=result.chosen["alpha"],
            hidden_layer_sizes_=result.chosen["hidden_layer_sizes"],
            n_iter_=result.n_iter,
            loss_curve_=result.curve,
            _tried=result.chosen.get("tried", []),
        )

    def _gaussian_model(self, like: Tensor) -> LinearModel:
        return LinearModel.from_arrays(self.model_, like)

    def _summary_lines(self) -> list[str]:
        return [*stage_lines(self), *noise_lines(self.noise_)]

    @property
    def coef_(self) -> Any:
        """Coefficients of all columns in units of y."""
        check_is_fitted(self)
        coef = np.concatenate([stage["coef"] for stage in self.model_["stages"]])
        return self._of_targets(coef * self.scaling_["scale"])

    @property
    def basis_(self) -> Any:
        """Names of the bases."""
        check_is_fitted(self)
        return [stage["kind"] for stage in self.model_["stages"]]
