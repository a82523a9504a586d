"""A choice of densities about the mean, for regressors whose own is one Gaussian a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from skpou.base.compat import StrOptions
from skpou.core import Rows, drawn_points, with_all_targets
from skpou.core.models import MixedResidues, NoiseLaw, Predictor, better_residues, fit_residues

#: What fits a density to what a model leaves over, by its name: it takes the model, rows and laws
#: of the noise, and returns the state of `MixedResidues`.
DENSITIES: dict[str, Callable[..., list[dict[str, Any]]]] = {"mixture": fit_residues}
#: What the parameter may be: one Gaussian, one of these, or whatever left-out errors speak for.
DENSITY = StrOptions({"auto", "gaussian", *DENSITIES})
#: Rows that tell how wide the noise is where: more tell no more.
MOST_ROWS = 20_000


class ResidueDensityMixin:
    """Regressor with a parameter `density`, see `DENSITY`.

    It comes before the base that predicts. A subclass writes `_gaussian_model` in place of
    `_model`, and stores `_fitted_density` as `density_`; models of earlier releases have none.
    """

    density: str
    density_: list[dict[str, Any]] | None
    _gaussian_model: Callable[[Tensor], Predictor]
    _laws: Callable[[Tensor], list[NoiseLaw | None] | None]

    def _fitted_density(self, model: Predictor, rows: Rows) -> list[dict[str, Any]] | None:
        """State of the mixture of every target; None for one Gaussian.

        None, too, where a process predicts all targets in place of the model, unless one of
        `DENSITIES` was asked for: no density of the model counts then.
        """
        if rows.n_rows > MOST_ROWS:
            rows = with_all_targets(rows, drawn_points(rows, MOST_ROWS))
        if self.density in DENSITIES:
            return DENSITIES[self.density](model, rows, self._laws(rows.X))
        if self.density != "auto" or getattr(self, "physics", None) is not None:
            return None
        instead = (self.__dict__.get("_restraint") or {}).get("interpolant")
        if instead is not None and len(instead["targets"]) == rows.n_outputs:
            return None
        return better_residues(model, rows, self._laws(rows.X))

    def _model(self, like: Tensor) -> Predictor:
        """The fitted model, with the density that was fitted to what it leaves over."""
        model, density = self._gaussian_model(like), self.__dict__.get("density_")
        return model if density is None else MixedResidues.from_states(model, density, like)

    def _gates_per_row(self) -> int:
        """Number of targets that choose their components independently."""
        return len(self.__dict__.get("density_") or ())
