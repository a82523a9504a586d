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
    doubted,
    fitted_model,
    held_by_bounds,
    judged,
    undetermined,
)
from skpou.equations.problem import Problem
from skpou.equations.search import EquationOptions
from skpou.equations.sentences import Sentence
from skpou.equations.smoothness import told_by_smoothness

# fmt: off
__all__ = ["DOUBTFUL", "FAR", "PHYSICS_CONSTRAINTS", "UNSOLVED", "CollocationSystem",
           "EquationOptions", "EquationsMixin", "Iterate", "Physics", "PhysicsMixin", "Problem",
           "Sentence", "Tangent", "criterion", "doubted", "fitted_model", "held_by_bounds",
           "hidden_jump", "inside", "judged", "norm", "residual_on_lines", "stacked",
           "told_by_smoothness", "undetermined"]
# fmt: on
