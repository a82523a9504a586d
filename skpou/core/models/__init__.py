"""Fitted models and their predictive densities."""

from skpou.core.models.components import Components
from skpou.core.models.floor import worse_than_the_mean
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.linear_model import LinearModel, Stage, finish, mean_slope
from skpou.core.models.mixed_residues import MixedResidues, fit_residues
from skpou.core.models.model import ClassPredictor, Predictor
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

# fmt: off
__all__ = ["PRIOR_ROWS", "ClassPredictor", "Components", "GateSteps", "IndependentComponents",
           "LinearModel", "MixedResidues", "Predictor", "Residue", "ResidueDensity", "Stage",
           "choose_components", "finish", "fit_density", "fit_residues", "is_gain", "left_out",
           "mean_slope", "noise_floor", "rounding", "worse_than_the_mean"]
# fmt: on
