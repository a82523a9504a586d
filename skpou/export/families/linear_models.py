"""Programs of sums of columns: networks, sine features, grown units, polynomials, in stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skpou.core import TotalDegreePolynomials
from skpou.export.families.networks import hidden_layers
from skpou.export.families.partitions import blended, partitions
from skpou.export.families.program import Program, double
from skpou.export.families.sparse_grids import grid_values
from skpou.search import LARGEST_LOG
from skpou.sparse_grids import SparseGrid

#: Kinds of units by their index, as the search writes them.
RIDGE_UNITS, RADIAL_UNITS = {0: "tanh", 1: "log_cosh"}, {2: "exp_minus", 3: "inverse"}
#: Kind of a stage in stretched coordinates.
WARPED = "warped"


def linear_program(model: Any) -> Program:
    """Mean of a fitted regressor whose state is a sum of stages.

    Raises
    ------
    ValueError
        If a stage keeps the rows of the fit, or is made of splines of single columns.
    """
    for number, stage in enumerate(model.model_["stages"]):
        kind = stage["basis"]["kind"] if stage["kind"] == WARPED else stage["kind"]
        if kind not in STAGES:
            raise ValueError(
                f"Stage {number} of this {type(model).__name__} has the basis {kind!r}, "
                f"which has a column for every row of the fit, or each term of a table. "
                f"Only {', '.join(map(repr, STAGES))} can be exported: fit a LSGDRegressor, or a "
                "MultiStageRegressor with hidden_layer_sizes."
            )
    box = model.scaling_
    program = Program(model.n_features_in_, np.asarray(box["columns"]))
    points = (program.scale(box), program.scale(box, factor=2.0, shift=-1.0))
    parts: list[str] = []
    for stage in model.model_["stages"]:
        kind, basis, at = stage["kind"], stage["basis"], points
        if kind == WARPED:
            at = _stretched(program, points[0], double(basis["steps"]))
            kind, basis = basis["kind"], basis["base"]
        parts += STAGES[kind](program, at, basis, double(stage["coef"]))
    return program.in_units_of_y(program.add(parts), box)


# Stages: lists of vectors (m,) whose sum is the stage. Points are those in the unit box, and those
# in the box from -1 to 1.

Points = tuple[str, str]


def _stretched(program: Program, u: str, steps: np.ndarray) -> Points:
    """Points whose columns are stretched near 0, those whose step is not 0."""
    bent = steps > 0
    rate = np.where(bent, 1 / np.where(bent, steps, 1.0), 0.0)
    scale = np.where(bent, 1 / np.log1p(np.where(bent, rate, 1.0)), 0.0)
    moved = program.affine(
        program.apply(program.affine(u, np.diag(rate)), "stretch"), np.diag(scale)
    )
    u = program.add([moved, program.affine(u, np.diag(np.where(bent, 0.0, 1.0)))])
    return u, program.affine(u, 2 * np.eye(len(steps)), -np.ones(len(steps)))


def _network(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    units = hidden_layers(program, points[0], basis, basis["theta"])
    return [program.affine(units, coef[1:].T, coef[0])]


def _polynomials(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    return [program.affine(program.polynomials(points[1], basis["degree"]), coef.T)]


def _sines(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    return _sines_at(program, points[1], basis, coef)


def _sines_at(program: Program, t: str, basis: dict, coef: np.ndarray) -> list[str]:
    """Affine columns and polynomials times the root of the number of sines, sines, cosines."""
    h, k = len(basis["phases"]), program.size(t)
    unit = math.sqrt(max(2 * h, 1))
    n_smooth = len(coef) - 2 * h
    parts = [program.affine(t, unit * coef[1 : 1 + k].T, unit * coef[0])]
    if n_smooth > 1 + k:
        # Among the polynomials affine ones come first; they have other places here.
        curved = TotalDegreePolynomials(k, basis["degree"])
        full = np.zeros((curved.n_columns, coef.shape[1]))
        full[1 + k :] = unit * coef[1 + k : n_smooth]
        parts.append(program.affine(program.polynomials(t, basis["degree"]), full.T))
    if h:
        angle = program.affine(t, basis["frequencies"], basis["phases"])
        for function, own in (("sin", coef[n_smooth : n_smooth + h]), ("cos", coef[-h:])):
            parts.append(program.affine(program.apply(angle, function), own.T))
    return parts


def _symmetric_sines(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    """Sine features at the point and at its mirror images, with the signs of odd and even."""
    base, mirrors = basis["base"], basis["mirrors"]
    k = program.size(points[0])
    degree = base.get("degree", 1)
    n_columns = TotalDegreePolynomials(k, degree).n_columns + 2 * len(base["phases"])
    full = np.zeros((n_columns, coef.shape[1]))
    full[np.asarray(basis["columns"])] = coef
    parts: list[str] = []
    for chosen in itertools.product((False, True), repeat=len(mirrors)):
        turn, shift, sign = np.ones(k), np.zeros(k), 0.5 ** len(mirrors)
        for (feature, centre, own), reflected in zip(mirrors, chosen, strict=True):
            if reflected:
                # x -> 2 c - x is t -> 2 (2 c - 1) - t.
                turn[feature], shift[feature], sign = -1.0, 2 * (2 * centre - 1), sign * own
        t = program.affine(points[1], np.diag(turn), shift) if any(chosen) else points[1]
        parts += _sines_at(program, t, base, sign * full)
    return parts


def _units(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    """Columns 1, t or those of a background, then units of several kinds."""
    t, kinds = points[1], np.asarray(basis["kinds"])
    weights, biases = double(basis["weights"]), double(basis["biases"])
    n_fixed, k = len(coef) - len(kinds), program.size(t)
    if "background" in basis:
        parts = _sines_at(program, t, basis["background"], coef[:n_fixed])
    else:
        parts = [program.affine(t, coef[1 : 1 + k].T, coef[0])]
    for kind, function in {**RIDGE_UNITS, **RADIAL_UNITS}.items():
        own = np.flatnonzero(kinds == kind)
        if not len(own):
            continue
        if kind in RIDGE_UNITS:
            z = program.affine(t, weights[own], biases[own])
        else:
            rate = np.exp(2 * np.minimum(biases[own], LARGEST_LOG))
            z = program.distances(t, weights[own], rate)
        parts.append(program.affine(program.apply(z, function), coef[n_fixed + own].T))
    return parts


def _pieces(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    """Polynomials on the leaves of a tree of sharp gates."""
    pi = partitions(program, points[1], basis["tree"], {})
    polynomials = program.polynomials(points[1], basis["degree"])
    each = coef.reshape(-1, program.size(polynomials), coef.shape[1])
    return [blended(program, pi, polynomials, each)]


def _sparse_grid(program: Program, points: Points, basis: dict, coef: np.ndarray) -> list[str]:
    """Hats in units of their prior deviations, which fall from level to level."""
    grid = SparseGrid.from_arrays(basis)
    deviations = basis["decay"] ** (-0.5 * np.asarray(grid.costs(), dtype=float))
    return [program.sparse_grid(points[0], grid_values(grid, coef * deviations[:, None]))]


StageSteps = Callable[[Program, Points, dict, np.ndarray], Sequence[str]]

#: Stages by the name under which saved models keep their basis.
STAGES: dict[str, StageSteps] = {
    "network": _network,
    "polynomials": _polynomials,
    "sine": _sines,
    "symmetric sine": _symmetric_sines,
    "units": _units,
    "pieces": _pieces,
    "sparse_grid": _sparse_grid,
}
