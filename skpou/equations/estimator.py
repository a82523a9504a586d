"""What estimators with equations share: their parameters, data without rows, reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import LinearModelRegressor, Prepared, seed_of
from skpou.core import Rows, TrainingResult
from skpou.equations.fit import fit_equations
from skpou.equations.problem import Problem, compile_problem
from skpou.equations.search import EquationOptions
from skpou.physics import Condition, Equation, Symmetry, Unknown

#: Largest value of an output, in units of the machine epsilon times the largest one of another,
#: between which it is zero to round-off: so is sin(pi) beside sin(1). Smaller ones have units of
#: their own.
LEAST_ROUND_OFF, MOST_ROUND_OFF = 1e-3, 4.0
#: Of `_parameter_constraints`.
PHYSICS_CONSTRAINTS: dict[str, list] = {
    "physics": [None, Equation, list, tuple],
    "unknowns": [None, dict],
}


class Physics(NamedTuple):
    """The parameters `physics` and `unknowns`, found to be good."""

    equations: list[Equation]
    symmetries: list[Symmetry]
    unknowns: dict[str, Unknown]

    @property
    def points(self) -> list[np.ndarray]:
        """Points and boxes' corners that are given."""
        found = []
        for equation in self.equations:
            if not isinstance(equation.points, str):
                found.append(equation.points)
            elif equation.box is not None:
                found.append(equation.box.T)
        return found


def parse_physics(physics: Any, unknowns: Any) -> Physics | None:
    """Equations, symmetries and unknowns; None where there are none.

    Raises
    ------
    TypeError
        If something else is among them.
    ValueError
        If there are unknowns or symmetries without an equation.
    """
    if physics is None:
        if unknowns:
            raise ValueError(f"unknowns={unknowns!r} belong to equations, but physics is None.")
        return None
    items = list(physics) if isinstance(physics, list | tuple) else [physics]
    for item in items:
        if not isinstance(item, Equation | Symmetry):
            raise TypeError(
                "physics must be an Equation or a list of them, with Symmetry where one is known."
                f" Got {item!r}."
            )
    equations = [item for item in items if isinstance(item, Equation)]
    if all(isinstance(equation, Condition) for equation in equations):
        raise ValueError(
            f"physics must hold at least one Equation, beside conditions. Got {physics!r}."
        )
    given = unknowns or {}
    if not isinstance(given, Mapping):
        raise TypeError(f"unknowns must map names to Unknown. Got {unknowns!r}.")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, Unknown):
            raise TypeError(
                f"unknowns must map names to Unknown(init, bounds). Got {name!r}: {value!r}."
            )
    symmetries = [item for item in items if isinstance(item, Symmetry)]
    columns = [symmetry.coordinate for symmetry in symmetries]
    if len(set(columns)) < len(columns):
        raise ValueError(f"physics holds two symmetries along one coordinate: {symmetries!r}.")
    return Physics(equations, symmetries, dict(given))


class EquationsMixin:
    """Regressor with the parameters `physics` and `unknowns`; it comes before `BaseRegressor`.

    A subclass calls `_physics` first, `_prepare_physics` in place of `_prepare`, and
    `_store_physics` with its results.
    """

    # Values for models that were saved before their class had these parameters.
    physics: Any = None
    unknowns: Any = None
    random_state: Any
    n_features_in_: int

    def _physics(self) -> Physics | None:
        return parse_physics(self.physics, self.unknowns)

    def _prepare_physics(
        self, X: Any, y: Any, sample_weight: Any, physics: Physics
    ) -> tuple[Prepared, Problem]:
        """Validate, move and scale data, of which there may be none, and trace the equations."""

        def beside(X: Tensor) -> Tensor:
            d = X.shape[1]
            for equation in physics.equations:
                self._check_width(equation, d)
            for symmetry in physics.symmetries:
                if symmetry.coordinate >= d:
                    raise ValueError(f"{symmetry!r}: X has {d} column(s), counted from 0.")
            found = [torch.as_tensor(part, dtype=X.dtype, device="cpu") for part in physics.points]
            if not len(X) and not found:
                raise ValueError(
                    "X has no rows, so that samplers of points need a box. Give box to Equation."
                )
            return torch.cat([X.new_empty((0, d)), *(part.to(X) for part in found)])

        prepared = self._prepare(X, y, sample_weight, beside=beside)  # type: ignore[attr-defined]
        if getattr(self, "density", None) == "mixture" and not prepared.rows.n_rows:
            raise ValueError(
                "density='mixture' is fitted to left-out data, but X has no rows: equations and "
                "conditions are all there is. It must be 'auto' or 'gaussian'."
            )
        prepared = self._without_round_off(prepared)
        scaling = prepared.scaling
        for symmetry in physics.symmetries:
            if symmetry.coordinate not in scaling.columns.tolist():
                raise ValueError(f"{symmetry!r}: that column of X takes a single value.")
        seed = seed_of(self.random_state)
        problem = compile_problem(
            physics.equations, physics.unknowns, scaling, self.n_features_in_, seed
        )
        if any(symmetry.kind == "odd" for symmetry in physics.symmetries):
            # An odd function has no mean to take off.
            zero = torch.zeros_like(scaling.mean)
            shifted = prepared.rows.in_units(
                -scaling.mean / scaling.scale, torch.ones_like(zero), prepared.rows.y.dtype
            )
            scaling = type(scaling)(
                scaling.columns, scaling.offset, scaling.width, zero, scaling.scale
            )
            prepared = prepared._replace(rows=shifted, scaling=scaling)
            problem = compile_problem(
                physics.equations, physics.unknowns, scaling, self.n_features_in_, seed
            )
        return prepared, problem

    def _without_round_off(self, prepared: Prepared) -> Prepared:
        """Outputs whose values are round-off of another's zero in units of that zero: 1."""
        scaling = prepared.scaling
        size = torch.maximum(scaling.mean.abs(), scaling.scale)
        share = size / (size.max() * torch.finfo(torch.float64).eps)
        of_zero = (share >= LEAST_ROUND_OFF) & (share <= MOST_ROUND_OFF)
        if not prepared.rows.n_rows or not bool(of_zero.any()):
            return prepared
        one, none = torch.ones_like(size), torch.zeros_like(size)
        unit = torch.where(of_zero, 1 / scaling.scale, one)
        shift = torch.where(of_zero, -scaling.mean / scaling.scale, none)
        rows = prepared.rows.in_units(shift, unit, prepared.rows.y.dtype)
        scaling = replace(
            scaling,
            mean=torch.where(of_zero, none, scaling.mean),
            scale=torch.where(of_zero, one, scaling.scale),
        )
        return prepared._replace(rows=rows, scaling=scaling)

    @staticmethod
    def _check_width(equation: Equation, d: int) -> None:
        points = equation.points if equation.box is None else equation.box.T
        if not isinstance(points, str) and points.shape[1] != d:
            what = "points" if equation.box is None else "box"
            raise ValueError(
                f"{what} of equation {equation.name!r} must have {d} column(s), as X. "
                f"Got {points.shape[1]}."
            )

    def _judge_between_rows(self, model: Any, prepared: Prepared, leans: bool = True) -> None:
        # Equations, not the rows beside them, say what is between the rows.
        if self.physics is None:
            super()._judge_between_rows(model, prepared, leans)  # type: ignore[misc]
        else:
            self.__dict__.update(_form_error=None, _restraint=None)

    def _no_worse_than_the_mean(self, result: TrainingResult, prepared: Prepared) -> TrainingResult:
        # Rows beside equations are boundary values, from which a solution may well depart.
        if self.physics is not None:
            return result
        return super()._no_worse_than_the_mean(result, prepared)  # type: ignore[misc]

    def _store_physics(self, result: TrainingResult) -> None:
        names = ("unknowns", "unknowns_std", "equation_residual")
        self.__dict__.update({f"_{name}": result.chosen.get(name) for name in names})

    def _summary_lines(self) -> list[str]:
        lines = super()._summary_lines()  # type: ignore[misc]
        state = self.__dict__
        if state.get("_equation_residual") is None:
            return lines
        if state["_unknowns"]:
            deviations = state["_unknowns_std"]
            lines += ["", "Unknown constants"]
            lines += [
                f"  {name}: {value:.10g}, standard deviation {deviations[name]:.2g}"
                for name, value in state["_unknowns"].items()
            ]
        rms = ", ".join(f"{value:.3g}" for value in state["_equation_residual"])
        return [*lines, "", f"Equations, rms of the residual on fresh points: {rms}"]

    def _of_physics(self, name: str) -> Any:
        check_is_fitted(self)
        value = self.__dict__.get(f"_{name}")
        if value is None:
            raise AttributeError(f"{name}_ exists where physics was given. It was None.")
        return value

    @property
    def unknowns_(self) -> Any:
        """Values of the unknowns by name."""
        return dict(self._of_physics("unknowns"))

    @property
    def unknowns_std_(self) -> Any:
        """Standard deviations of the unknowns by name."""
        return dict(self._of_physics("unknowns_std"))

    @property
    def equation_residual_(self) -> Any:
        """Root mean square of the residuals on fresh points, one for each equation."""
        value = self._of_physics("equation_residual")
        return value[0] if len(value) == 1 else list(value)


class PhysicsMixin(EquationsMixin, LinearModelRegressor):
    """Regressor with a `LinearModel`, and with equations on sine features."""

    def _equation_training(
        self, rows: Rows, problem: Problem, physics: Physics, options: EquationOptions
    ):
        """Training of sine features on equations, as `_best_of` calls it for every start."""
        report, rows = self._reporter(), rows.to(torch.float64)
        return lambda rng: fit_equations(rows, problem, options, rng, physics.symmetries, report)

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        super()._store_result(result, prepared)
        self._store_physics(result)
