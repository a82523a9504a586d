"""Equations at fixed points: which derivatives they need, and how they change with these.

A residual sees the solution's derivatives as tensors with one number a point, and works pointwise.
So its derivative with respect to one of them is one number a point, too, and the matrix of the
linearised equation is a sum of derivative matrices with scaled rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Scaling
from skpou.equations.points import (
    FRESH_SEEDS,
    OF_PILOT,
    OF_TRIALS,
    PILOT_POINTS,
    HeldOut,
    equation_points,
    full_box,
    held_out,
    mixtures_of_neighbours,
    region_of,
)
from skpou.equations.pointwise import Key, Pointwise, Values
from skpou.physics import Condition, Constants, Equation, Field, Unknown, as_tensor

#: Difference of derivatives, relative to their size, that round-off explains.
SAME = 1e-11
#: Points for each parameter of a network, and most points that this asks for.
ROWS_A_PARAMETER, MOST_ADDED = 2, 3000
#: More residuals at a point than this, as many as there are points, are a slip.
MOST_EQUATIONS = 8
#: Terms of a solution may be so many times larger than their sum: the least ridge lets them grow.
LARGEST_TERMS = 1e15


@dataclass(frozen=True)
class Term:
    """An equation at fixed points.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        Points in units of X.
    points : Tensor of shape (n, k)
        The same in the unit box.
    target : Tensor of shape (n, k), (n, 1) or (1, 1)
        Right-hand side that the pointwise function does not contain.
    weight : float
        Relative to the data's.
    rule : {"auto", "balanced", ""}
        How the weight is chosen; ``""``: it is given.
    group : int
        Number of the equation that it belongs to.
    length : float
        Unit of length of a gradient, half a side of the box, which is weighted with the equation
        before it; 0 for the equation itself.
    region : Tensor of shape (2, k) or None
        Corners of the box, in units of the unit box, in which the equation holds wherever one
        likes; None: at the points alone.
    is_condition : bool
        Whether it is a `Condition`.
    """

    pointwise: Pointwise
    x: Tensor
    points: Tensor
    target: Tensor
    weight: float = 1.0
    rule: str = ""
    group: int = 0
    length: float = 0.0
    region: Tensor | None = None
    is_condition: bool = False

    @property
    def n_points(self) -> int:
        """Number n of points."""
        return len(self.x)

    def fitted(self, held: HeldOut, seed: int) -> Term:
        """The same equation at the points of a search, which are not too many."""
        term = self if held.x is not None else self.subset(held.fitted)
        if term.n_points <= PILOT_POINTS or term.points.shape[1] == 1:
            return term
        rng = np.random.default_rng([seed, OF_PILOT])
        index = np.sort(rng.choice(term.n_points, PILOT_POINTS, replace=False))
        return term.subset(torch.as_tensor(index, device=term.x.device))

    def judged(self, held: HeldOut, scaling: Scaling) -> Term:
        """The same equation at the points of the judgement."""
        if held.x is None:
            return self.subset(held.left_out)
        return self.moved(held.x, scaling.points(held.x))

    def denser(self, n: int) -> Term:
        """The same equation at no fewer than n points, those added between the others."""
        if n <= self.n_points:
            return self
        weights = mixtures_of_neighbours(self.points, n - self.n_points, self.group)

        def with_between(own: Tensor) -> Tensor:
            # Round-off must not take a point out of the box, where an equation may have no value.
            inner = (weights @ own).clamp(own.amin(0), own.amax(0))
            return torch.cat([own, inner])

        return self.moved(with_between(self.x), with_between(self.points))

    def subset(self, index: Tensor) -> Term:
        """The same equation at some of the points."""
        target = self.target[index] if len(self.target) > 1 else self.target
        return self.moved(self.x[index], self.points[index], target)

    def moved(self, x: Tensor, points: Tensor, target: Tensor | None = None) -> Term:
        """The same equation at other points."""
        target = self.target if target is None else target
        return replace(self, x=x, points=points, target=target)


@dataclass(frozen=True)
class Problem:
    """Equations in the units of a fit, with points for the solve and others to judge it.

    Attributes
    ----------
    terms : tuple of Term
        For the final solve.
    pilot, fresh : tuple of Term
        For the solves and the judgement of a search: no point is in both.
    scaling : Scaling
        Units of the derivatives.
    is_affine : bool
        Whether all residuals are affine in the solution, for one solve to suffice.
    """

    terms: tuple[Term, ...]
    pilot: tuple[Term, ...]
    fresh: tuple[Term, ...]
    unknowns: dict[str, Unknown]
    scaling: Scaling
    is_affine: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the unknowns."""
        return tuple(self.unknowns)

    def determining(self, n_parameters: int) -> Problem:
        """The same equations, those of whole regions at more points than parameters can follow.

        Fewer points would be obeyed by functions that are no solutions between them.
        """
        open_terms = [t for t in self.terms if t.region is not None and not t.is_condition]
        first = {t.group: t for t in open_terms}  # A gradient has the points of its equation.
        have = sum(t.n_points for t in first.values())
        if not have:
            return self
        factor = min(ROWS_A_PARAMETER * n_parameters, max(MOST_ADDED, have)) / have
        return replace(
            self,
            terms=tuple(
                t.denser(math.ceil(factor * t.n_points)) if t.group in first else t
                for t in self.terms
            ),
        )

    def unit(self, key: Key) -> float:
        """Derivative in units of y and X of a function with derivative 1 in scaled units."""
        output, coordinates = key
        scaling = self.scaling
        result = float(scaling.scale[output])
        for j in coordinates:
            result /= float(scaling.width[self.column(j)])
        return result

    def column(self, coordinate: int) -> int:
        """Position of a column of X among those that vary."""
        return self.scaling.columns.tolist().index(coordinate)

    def scaled(self, key: Key) -> tuple[int, ...]:
        """Coordinates of a key among the columns that vary."""
        return tuple(self.column(j) for j in key[1])

    def shift(self, key: Key) -> float:
        """What the mean of the targets adds to a derivative."""
        return 0.0 if key[1] else float(self.scaling.mean[key[0]])


# From equations to terms


def compile_problem(
    equations: list[Equation],
    unknowns: dict[str, Unknown],
    scaling: Scaling,
    n_features: int,
    seed: int,
) -> Problem:
    """Trace the equations at their points.

    Parameters
    ----------
    scaling : Scaling
        Box of the points and units of the targets.
    seed : int
        Of samplers, fresh points and trial functions.

    Raises
    ------
    ValueError
        If an equation cannot be evaluated as it should, or an unknown is in none of them.
    """
    rng = np.random.default_rng([seed, OF_TRIALS])
    like = scaling.offset
    constants = Constants({k: as_tensor(v.init, like) for k, v in unknowns.items()})
    low, high = full_box(scaling, n_features)
    terms: list[Term] = []
    pilot: list[Term] = []
    fresh: list[Term] = []
    used: set[str] = set()
    affine = True
    for group, equation in enumerate(equations):
        x = as_tensor(equation_points(equation, low, high, seed + group), like)
        tracer = Tracer(equation, x, constants, scaling, rng)
        used |= tracer.used
        affine &= tracer.is_affine
        held = held_out(equation, x, low, high, seed + FRESH_SEEDS + group, tracer.target)
        region = region_of(equation, x, low, high, tracer.target)
        for pointwise, target, weight, length in tracer.parts():
            term = Term(
                pointwise,
                x,
                scaling.points(x),
                target,
                weight,
                equation.weight if isinstance(equation.weight, str) else "",
                group,
                length,
                None if region is None else scaling.points(region),
                isinstance(equation, Condition),
            )
            terms.append(term)
            pilot.append(term.fitted(held, seed + group))
            if not length:  # The gradient is judged with the equation itself.
                fresh.append(term.judged(held, scaling))
    unused = sorted(set(unknowns) - used)
    if unused:
        raise ValueError(f"unknowns {unused} are in none of the equations.")
    affine &= not unknowns
    return Problem(tuple(terms), tuple(pilot), tuple(fresh), unknowns, scaling, affine)


class Tracer:
    """Which derivatives and unknowns an equation asks for, and whether it is affine in them.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Its points.
    """

    def __init__(
        self,
        equation: Equation,
        x: Tensor,
        constants: Constants,
        scaling: Scaling,
        rng: np.random.Generator,
    ):
        self.equation, self.x, self.rng, self.scaling = equation, x, rng, scaling
        self.shape = (x.shape[1], len(scaling.scale))
        self.used: set[str] = set()
        self.columns = scaling.columns.tolist()
        keys: dict[Key, Tensor] = {}

        def ask(key: Key) -> Tensor:
            for j in key[1]:
                if j not in self.columns:
                    raise ValueError(
                        f"Equation {equation.name!r} differentiates along column {j} of X, which "
                        "takes a single value."
                    )
            keys[key] = self._draw()
            return keys[key]

        class Recorder(Constants):
            def __getitem__(inner, name: str) -> Any:
                self.used.add(name)
                return super().__getitem__(name)

        result = equation.evaluate(Field(keys, ask, self.shape), x, Recorder(constants))
        self.target = self._right_hand_side(self._checked(result))
        self.pointwise = Pointwise(self._evaluate, tuple(keys), equation.name)
        if not keys:
            raise ValueError(f"The residual of equation {equation.name!r} does not contain u.")
        self.is_affine = self._examine(constants)

    def _draw(self) -> Tensor:
        return as_tensor(self.rng.standard_normal(len(self.x)), self.x)

    def _checked(self, result: Any) -> Tensor:
        """Result (n, k) of a residual, if it has the right shape."""
        name, n = self.equation.name, len(self.x)
        if not isinstance(result, Tensor):
            several = isinstance(result, tuple | list)
            advice = " torch.stack(..., 1) makes one of a system." if several else ""
            raise TypeError(
                f"The residual of equation {name!r} must return a tensor. "
                f"Got {type(result).__name__}.{advice}"
            )
        if not result.is_floating_point():
            raise TypeError(
                f"The residual of equation {name!r} must be real: parts of complex numbers are "
                f"equations of their own. Got {result.dtype}."
            )
        if result.ndim not in (1, 2) or len(result) != n or result.numel() == 0:
            raise ValueError(
                f"The residual of equation {name!r} must return a tensor of shape ({n},) or "
                f"({n}, k) for {n} points. Got shape {tuple(result.shape)}."
            )
        if n > MOST_EQUATIONS and result.ndim == 2 and result.shape[1] == n:
            raise ValueError(
                f"The residual of equation {name!r} has shape {tuple(result.shape)} for {n} "
                "points: x is (n, d), so that x in place of x[:, 0] makes a row of every point."
            )
        return result.reshape(n, -1)

    def _right_hand_side(self, result: Tensor) -> Tensor:
        """Constant part of the target (n, k), (n, 1) or (1, 1)."""
        target, name = self.equation.target, self.equation.name
        if callable(target):
            self._called_target(self.x)  # Its errors come before any work.
            return as_tensor([[0.0]], self.x)
        values = as_tensor(target, self.x)
        n, k = result.shape
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim and values.shape not in ((n, 1), (n, k)):
            raise ValueError(
                f"target of equation {name!r} must be a number or have shape ({n},) or ({n}, {k})."
                f" Got shape {np.shape(target)}."
            )
        return values.reshape(-1, values.shape[-1] if values.ndim else 1)

    def _called_target(self, x: Tensor) -> Tensor:
        target: Any = self.equation.target
        values = target(x)
        if not isinstance(values, Tensor):
            values = as_tensor(values, x)
        if values.ndim not in (1, 2) or len(values) != len(x):
            raise ValueError(
                f"target of equation {self.equation.name!r} must return shape ({len(x)},) or "
                f"({len(x)}, k) for {len(x)} points. Got shape {tuple(values.shape)}."
            )
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"target of equation {self.equation.name!r} is not finite.")
        return values.reshape(len(x), -1)

    def _evaluate(self, values: Values, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
        def ask(key: Key) -> Tensor:
            raise ValueError(
                f"Equation {self.equation.name!r} asks for other derivatives than at first: "
                f"u[{key[0]}].d{key[1]}."
            )

        result = self.equation.evaluate(Field(values, ask, self.shape), x, p)
        result = result.reshape(len(x), -1)
        return result - self._called_target(x) if callable(self.equation.target) else result

    def _examine(self, constants: Constants) -> bool:
        """Whether derivatives agree for all trial functions; refuses what is never finite."""
        self._refuse_columns_too_short()
        found, finite = [], torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        # Positive, negative, small, any: a logarithm or a root needs the right ones.
        for shape in (torch.abs, lambda v: -v.abs(), lambda v: torch.sigmoid(v), lambda v: v):
            values = {key: self._size(key) * shape(self._draw()) for key in self.pointwise.keys}
            result, slopes, _ = self.pointwise.linearise(values, self.x, constants)
            finite |= torch.isfinite(result).all(1)
            found.append(torch.stack([self._size(key) * slope for key, slope in slopes.items()]))
        if not bool(finite.all()):
            where = self.x[int(torch.nonzero(~finite)[0])].tolist()
            raise ValueError(
                f"The residual of equation {self.equation.name!r} is not finite at x = {where}, "
                "whatever u of the size of y is."
            )
        self._refuse_what_mixes_points(values, result, constants)
        size = float(found[0].abs().max())
        apart = max(float((part - found[0]).abs().max()) for part in found[1:])
        return apart <= SAME * size  # False for NaN

    def _refuse_what_mixes_points(self, values: Values, result: Tensor, constants) -> None:
        """Refuse a residual whose values at some points are others without the other points."""
        half = len(self.x) // 2
        some = {key: value[:half] for key, value in values.items()}
        try:
            alone = self.pointwise.function(some, self.x[:half], constants).detach()
        except (IndexError, RuntimeError, ValueError):  # It holds numbers for all of its points.
            return
        apart = (alone - result[:half]).abs().nan_to_num().max() if half else 0.0
        if float(apart) > SAME * float(result.abs().nan_to_num().max()):
            raise ValueError(
                f"The residual of equation {self.equation.name!r} must work pointwise, but its "
                "value at a point depends on the other points."
            )

    def _refuse_columns_too_short(self) -> None:
        for key in self.pointwise.keys:
            if not math.isfinite(LARGEST_TERMS * self._size(key)):
                j = min(key[1], key=lambda j: float(self.scaling.width[self.columns.index(j)]))
                width = float(self.scaling.width[self.columns.index(j)])
                raise ValueError(
                    f"Equation {self.equation.name!r} differentiates along column {j} of X, which "
                    f"spans {width:.3g} only: the derivative overflows in float64."
                )

    def _size(self, key: Key) -> float:
        """What a value or derivative may be in units of y and X."""
        output, coordinates = key
        scaling = self.scaling
        size = float(scaling.scale[output])
        if not coordinates:
            size = max(size, abs(float(scaling.mean[output])))
        for j in coordinates:
            size /= float(scaling.width[self.columns.index(j)])
        return size

    def parts(self) -> list[tuple[Pointwise, Tensor, float, float]]:
        """The equation, then its gradient: pointwise function, target, weight and length."""
        equation = self.equation
        weight = equation.weight if isinstance(equation.weight, float) else 1.0
        parts = [(self.pointwise, self.target, weight, 0.0)]
        if equation.gradient_weight:
            zero = as_tensor([[0.0]], self.x)
            for j, width in zip(self.columns, self.scaling.width.tolist(), strict=True):
                along = self.pointwise.along(j)
                parts.append((along, zero, equation.gradient_weight, width / 2))
        return parts
