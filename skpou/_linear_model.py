"""What regressors share whose model is a sum of linear combinations of columns."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou._base import Prepared
from skpou._density import ResidueDensityMixin
from skpou._fitted_model import FittedModelRegressor
from skpou.bases.networks import Network
from skpou.training.linear_model import LinearModel
from skpou.training.records import TrainingResult


class LinearModelRegressor(ResidueDensityMixin, FittedModelRegressor):
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

    @property
    def coef_(self):
        """Coefficients of all columns in units of y."""
        check_is_fitted(self)
        coef = np.concatenate([stage["coef"] for stage in self.model_["stages"]])
        return self._of_targets(coef * self.scaling_["scale"])

    @property
    def basis_(self):
        """Names of the bases."""
        check_is_fitted(self)
        return [stage["kind"] for stage in self.model_["stages"]]
