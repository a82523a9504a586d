"""What regressors share whose state is one model with a density and a gradient at every point."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base.regressor import BaseRegressor


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
