"""Fitted models and their predictive densities."""

from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.linear_model import LinearModel, Stage, finish, mean_slope
from skpou.core.models.mixed_residues import GaussianModel, fit_residues, mixed
from skpou.core.models.residue_density import (
    PRIOR_ROWS,
    GateSteps,
    Residue,
    ResidueDensity,
    choose_components,
    fit_density,
    is_gain,
    left_out,
    noise_floor,
    rounding,
)

__all__ = [
    "PRIOR_ROWS",
    "Components",
    "GateSteps",
    "GaussianModel",
    "IndependentComponents",
    "LinearModel",
    "Residue",
    "ResidueDensity",
    "Stage",
    "choose_components",
    "finish",
    "fit_density",
    "fit_residues",
    "is_gain",
    "left_out",
    "mean_slope",
    "mixed",
    "noise_floor",
    "rounding",
]
