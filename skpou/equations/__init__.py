"""Differential equations in the fit."""

from skpou.equations.collocation import CollocationSystem, Iterate, criterion, norm, stacked
from skpou.equations.estimator import PHYSICS_CONSTRAINTS, EquationsMixin, Physics, PhysicsMixin
from skpou.equations.jumps import hidden_jump, residual_on_lines
from skpou.equations.newton import inside
from skpou.equations.posterior import (
    DOUBTFUL,
    FAR,
    UNSOLVED,
    Tangent,
    broken_message,
    doubted,
    fitted_model,
    held_by_bounds,
    held_message,
    judged,
    jump_message,
    open_message,
    undetermined,
    undetermined_message,
    unmet_message,
    unsolved_message,
)
from skpou.equations.problem import Problem
from skpou.equations.search import EquationOptions
from skpou.equations.smoothness import smoothness_message, told_by_smoothness

# fmt: off
__all__ = [
    "DOUBTFUL",
    "FAR",
    "PHYSICS_CONSTRAINTS",
    "UNSOLVED",
    "CollocationSystem",
    "EquationOptions",
    "EquationsMixin",
    "Iterate",
    "Physics",
    "PhysicsMixin",
    "Problem",
    "Tangent",
    "broken_message",
    "criterion",
    "doubted",
    "fitted_model",
    "held_by_bounds",
    "held_message",
    "hidden_jump",
    "inside",
    "judged",
    "jump_message",
    "norm",
    "open_message",
    "residual_on_lines",
    "smoothness_message",
    "stacked",
    "told_by_smoothness",
    "undetermined",
    "undetermined_message",
    "unmet_message",
    "unsolved_message",
]
# fmt: on
