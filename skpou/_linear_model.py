"""What regressors share whose model is a sum of linear combinations of columns."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou._base import BaseRegressor, Prepared
from skpou._density import ResidueDensityMixin
from skpou.bases.networks import Network
from skpou.training.linear_model import LinearModel
from skpou.training.mixture import Components
from skpou.training.records import TrainingResult


class LinearModelRegressor(ResidueDensityMixin, BaseRegressor):
    """Regressor with a `LinearModel` for its state."""

    def _network_sizes(self, of_fixed_sizes: dict[str, Any]) -> tuple[int, ...] | None:
        """hidden_layer_sizes as a tuple, or None for "auto", when others must keep defaults."""
        given = self.hidden_layer_sizes
        if isinstance(given, str):
            for name, default in of_fixed_sizes.items():
                value = getattr(self, name)
                if value != default:
                    raise ValueError(
                        f"{name}={value!r} shapes a network of a given size: it must be "
                        f"{default!r} while hidden_layer_sizes='auto'."
                    )
            return None
        sizes = (given,) if isinstance(given, Integral) else tuple(given)
        architecture = getattr(self, "architecture", "plain")
        network = Network(1, sizes, architecture, self.activation)  # refuses bad sizes
        return network.hidden_layer_sizes

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
        )

    def _model(self, like: Tensor) -> LinearModel:
        return LinearModel.from_arrays(self.model_, like)

    def _of_targets(self, values: np.ndarray):
        """Drop the axis of a single target if y had none."""
        return values[..., 0] if self._target_ndim == 1 else values

    @property
    def coef_(self):
        """Coefficients of all columns in units of y."""
        check_is_fitted(self)
        coef = np.concatenate([stage["coef"] for stage in self.model_["stages"]])
        return self._of_targets(coef * self.scaling_["scale"])

    @property
    def intercept_(self):
        """Mean of y."""
        check_is_fitted(self)
        return self._of_targets(self.scaling_["mean"])

    @property
    def noise_(self):
        """Noise standard deviation in units of y."""
        check_is_fitted(self)
        return self._of_targets(np.sqrt(self.model_["noise"]) * self.scaling_["scale"])

    @property
    def basis_(self):
        """Names of the bases."""
        check_is_fitted(self)
        return [stage["kind"] for stage in self.model_["stages"]]

    # Prediction

    def _components(self, points: Tensor, posterior: bool) -> Components:
        return self._with_density(self._model(points), points, posterior)

    def _mean_gradient(self, points: Tensor) -> Tensor:
        return self._model(points).gradient(points)

    def _numbers_per_row(self) -> int:
        return self._model(torch.zeros(0)).numbers_per_row()

    def predict(self, X, return_std=False):
        """Predict the mean of y, and its standard deviation.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, "epistemic" or "noise", default=False
            True: also the predictive standard deviation, of noise and model together.
            ``"noise"``: that of the noise alone. ``"epistemic"``: that of the mean, by the
            posterior of the coefficients; outside the box of the data it grows with the distance.

        Returns
        -------
        mean : ndarray or Tensor of shape (n,) or (n, n_outputs)
        std : ndarray or Tensor of the same shape
            In units of y; only if asked for.
        """
        return self._predict(X, return_std)
