"""A choice of densities about the mean, for regressors whose own is one Gaussian a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from skpou.core import Rows
from skpou.core.models import MixedResidues, Predictor, better_residues, fit_residues


class ResidueDensityMixin:
    """Regressor with a parameter ``density="auto" | "gaussian" | "mixture"``.

    It comes before `FittedModelRegressor`. A subclass writes `_gaussian_model` in place of
    `_model`, and stores `_fitted_density` as `density_`.
    """

    density: str
    density_: list[dict[str, Any]] | None
    _gaussian_model: Callable[[Tensor], Predictor]

    def _fitted_density(self, model: Predictor, rows: Rows) -> list[dict[str, Any]] | None:
        """State of the mixture of every target; None for one Gaussian."""
        if self.density == "mixture":
            return fit_residues(model, rows)
        if self.density == "auto" and getattr(self, "physics", None) is None:
            return better_residues(model, rows)
        return None

    def _model(self, like: Tensor) -> Predictor:
        """The fitted model, with the density that was fitted to what it leaves over."""
        model = self._gaussian_model(like)
        if self.density_ is None:
            return model
        return MixedResidues.from_states(model, self.density_, like)

    def _gates_per_row(self) -> int:
        """Number of targets that choose their components independently."""
        return len(self.density_ or ())
