"""What regressors share whose model is a sum of linear combinations of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base.density import ResidueDensityMixin
from skpou.base.fitted_model import FittedModelRegressor
from skpou.base.regressor import Prepared
from skpou.base.summary import noise_lines, stage_lines
from skpou.core import TrainingResult
from skpou.core.models import LinearModel


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
