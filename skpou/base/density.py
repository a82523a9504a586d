"""A choice of densities about the mean, for regressors whose own is one Gaussian a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from skpou.core import Rows
from skpou.core.models import Components, GaussianModel, fit_residues, mixed


class ResidueDensityMixin:
    """Regressor with a parameter ``density="gaussian" | "mixture"``.

    It comes before `FittedModelRegressor`. A subclass stores `_fitted_density` as `density_`.
    """

    density: str
    density_: list[dict[str, Any]] | None
    _model: Callable[[Tensor], GaussianModel]

    def _fitted_density(self, model: GaussianModel, rows: Rows) -> list[dict[str, Any]] | None:
        """State of the mixture of every target; None for one Gaussian."""
        return fit_residues(model, rows) if self.density == "mixture" else None

    def _components(self, points: Tensor, posterior: bool) -> Components:
        """The density of y at scaled points."""
        model = self._model(points)
        if self.density_ is None:
            return model.components(points, posterior)
        return mixed(model, self.density_, points, posterior)

    def _gates_per_row(self) -> int:
        """Number of targets that choose their components independently."""
        return len(self.density_ or ())
