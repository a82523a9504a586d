"""Equations for a fit: residuals that a model must make small beside the data.

An `Equation` is a hyper-parameter of an estimator: it pickles, copies and clones as plain values
do. What the estimator makes of it is in `skpou.equations.problem`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import sobol_points

__all__ = ["Condition", "Equation", "Field", "Symmetry", "Unknown"]

SAMPLERS = ("sobol", "chebyshev", "uniform")
#: Points of a sampler in one, two, three and more dimensions.
N_POINTS = (400, 1600, 3000)


class Equation:
    """A differential equation that holds at given points.

    Parameters
    ----------
    residual : callable
        ``residual(u, x, p)``, or ``residual(u, x)`` where nothing is unknown, returns what must
        equal the target, a tensor of shape (n,), or (n, k) for a system of k equations. It works
        pointwise, with torch's functions. ``u()`` is the solution at the points, ``u.d(0)`` its
        derivative along the first column of X, ``u.d(0, 1)`` a mixed and ``u.d(0, 0)`` a second
        derivative, each of shape (n,), in units of y and X. With several outputs ``u[1]`` is the
        second of them: ``u[1].d(0)``. ``x`` are the points (n, d), ``p`` maps the names of the
        unknowns to numbers. A function that is importable lets the estimator be pickled.
    points : array-like of shape (n, d) or {"sobol", "chebyshev", "uniform"}
        Where the equation holds: points, or how they are placed in a box. ``"chebyshev"`` is a
        grid that is denser towards the faces of the box.
    target : float, array-like of shape (n,) or (n, k), or callable, default=0.0
        Right-hand side; a callable takes the points.
    weight : "auto", "balanced" or float, default="auto"
        The mean square of the equation is divided by that of its rows in the least-squares
        matrix, as that of the data is; a positive number multiplies its root. ``"auto"``: 1, and
        more where the data are noisy, so that their noise is not shared with the equation.
        ``"balanced"``: the squares of the weights of equation and data are
        gamma = L_d / (L_e + L_d) and 1 - gamma, where L_d and L_e are their losses [1]_; under
        ``solver="adam_lbfgs"`` both fall at one rate. Other networks have the weight 1.
    gradient_weight : float, default=0.0
        Weight, at least 0, of the equation's own gradient, which vanishes wherever the equation
        holds everywhere [2]_. The target must then be a number or a callable.
    n_points : int, default=None
        Number of points of a sampler; None: 400, 1600 or 3000 in 1, 2 or more dimensions.
    box : array-like of shape (d, 2), default=None
        Lower and upper ends of a sampler's box; None: the box of X and of all points given.
    name : str, default=None
        Name in messages; None: that of the function.

    References
    ----------
    .. [1] Y. Wang, C.-Y. Lai, "Multi-stage neural networks: function approximator of machine
       precision", J. Comput. Phys. 504, 2024.
    .. [2] J. Yu, L. Lu, X. Meng, G. E. Karniadakis, "Gradient-enhanced physics-informed neural
       networks for forward and inverse PDE problems", Comput. Methods Appl. Mech. Eng. 393, 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import LSGDRegressor
    >>> from skpou.physics import Equation
    >>> def decay(u, x, p):
    ...     return u.d(0) + u()
    >>> equation = Equation(decay, np.linspace(0, 3, 100)[:, None])
    >>> model = LSGDRegressor(physics=equation).fit([[0.0]], [1.0])
    >>> bool(abs(model.predict([[3.0]])[0] - np.exp(-3)) < 1e-10)
    True
    """

    def __init__(
        self,
        residual: Callable[..., Any],
        points: Any,
        target: Any = 0.0,
        *,
        weight: str | float = "auto",
        gradient_weight: float = 0.0,
        n_points: int | None = None,
        box: Any = None,
        name: str | None = None,
    ):
        if not callable(residual):
            raise TypeError(
                f"residual must be a function of (u, x, p) or of (u, x). Got {residual!r}."
            )
        self.residual = residual
        self.name = str(name or getattr(residual, "__name__", type(residual).__name__))
        self.takes_constants = _takes_constants(residual, self.name)
        self.points = self._checked_points(points)
        self.target = target if callable(target) else self._finite(target, "target")
        self.weight = self._checked_weight(weight)
        self.gradient_weight = self._checked_number(gradient_weight, "gradient_weight")
        self.n_points = self._checked_count(n_points)
        self.box = None if box is None else self._checked_box(box)
        if self.gradient_weight and not callable(target) and np.ndim(self.target):
            raise ValueError(
                f"gradient_weight={gradient_weight!r} of equation {self.name!r} needs a target "
                "whose gradient is known: a number or a function of the points. Got an array."
            )

    def __repr__(self) -> str:
        points = self.points
        where = repr(points) if isinstance(points, str) else f"{len(points)} points"
        return f"{type(self).__name__}({self.name}, {where})"

    def evaluate(self, u: Field, x: Tensor, p: Mapping[str, Any]) -> Any:
        """Evaluate the residual, which need not take the unknowns.

        Parameters
        ----------
        u, x, p : Field, Tensor, Constants
            What `residual` takes.

        Returns
        -------
        Tensor or sequence of Tensor
            What `residual` returns.
        """
        takes_constants = self.__dict__.get("takes_constants", True)  # Saved before it was known.
        try:
            return self.residual(u, x, p) if takes_constants else self.residual(u, x)
        except RuntimeError as error:
            if "numpy()" not in str(error):
                raise
            message = f"The residual of equation {self.name!r} must use torch's functions, such as "
            raise TypeError(message + "torch.sin, in place of numpy's.") from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Equation:
        # Clones share the function, which need not be importable for that.
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """State, if the functions in it can be found again by their names."""
        for role, function in (("residual", self.residual), ("target", self.target)):
            if callable(function) and not _is_importable(function):
                raise ValueError(
                    f"The {role} {function!r} of equation {self.name!r} cannot be pickled, since "
                    "it cannot be imported by its name. Define it with def at the top level of a "
                    "module."
                )
        return self.__dict__

    # Checks

    def _checked_points(self, points: Any) -> Any:
        if isinstance(points, str):
            if points not in SAMPLERS:
                raise ValueError(
                    f"points of equation {self.name!r} must be an array or one of "
                    f"{', '.join(map(repr, SAMPLERS))}. Got {points!r}."
                )
            return points
        array = self._finite(points, "points")
        if array.ndim != 2 or not array.size:
            raise ValueError(
                f"points of equation {self.name!r} must have shape (n, d) with n and d at least 1."
                f" Got shape {array.shape}."
            )
        return array

    def _finite(self, value: Any, name: str) -> np.ndarray:
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} of equation {self.name!r} must hold numbers. Got {value!r}."
            ) from error
        if not np.isfinite(array).all():
            raise ValueError(f"{name} of equation {self.name!r} contains NaN or infinity.")
        return array

    def _checked_number(self, value: Any, name: str) -> float:
        if not _is_real(value) or not 0 <= value < np.inf:
            raise ValueError(
                f"{name} of equation {self.name!r} must be a number of at least 0. Got {value!r}."
            )
        return float(value)

    def _checked_weight(self, weight: Any) -> str | float:
        if isinstance(weight, str) and weight in ("auto", "balanced"):
            return weight
        if not _is_real(weight) or not 0 < weight < np.inf:
            raise ValueError(
                f"weight of equation {self.name!r} must be 'auto', 'balanced' or a positive "
                f"number. Got {weight!r}."
            )
        return float(weight)

    def _checked_count(self, n_points: Any) -> int | None:
        if n_points is None:
            return None
        if not isinstance(n_points, Integral) or isinstance(n_points, bool) or n_points < 2:
            raise ValueError(
                f"n_points of equation {self.name!r} must be an int of at least 2. "
                f"Got {n_points!r}."
            )
        return int(n_points)

    def _checked_box(self, box: Any) -> np.ndarray:
        array = self._finite(box, "box")
        if array.ndim != 2 or array.shape[1] != 2 or not (array[:, 0] <= array[:, 1]).all():
            raise ValueError(
                f"box of equation {self.name!r} must have shape (d, 2), lower and upper ends. "
                f"Got {box!r}."
            )
        return array


class Condition(Equation):
    """A condition that the solution obeys at given points, beside an `Equation`.

    Dirichlet: ``lambda u, x: u()``; Neumann: ``lambda u, x: u.d(0)``; Robin: ``lambda u, x:
    u.d(0) + 2 * u()``. It has the weight of data, and is no part of ``equation_residual_``.

    Parameters
    ----------
    residual : callable
        ``residual(u, x, p)`` or ``residual(u, x)``, as that of an `Equation`.
    points : array-like of shape (n, d)
        Where it holds, in units of X. Points that fill a box, or a face or an edge of one, stand
        for all of it where the target is a number or a function: each piece of a partition then
        places its own.
    target : float, array-like of shape (n,) or (n, k), or callable, default=0.0
        Right-hand side; a callable takes the points.
    weight : "auto", "balanced" or float, default="auto"
        As that of an `Equation`.
    name : str, default=None
        Name in messages; None: that of the function.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import HierarchicalPOURegressor
    >>> from skpou.physics import Condition, Equation
    >>> line = np.linspace(0, 1, 50)[:, None]
    >>> oscillation = Equation(lambda u, x: u.d(0, 0) + 400 * u(), line)
    >>> slope = Condition(lambda u, x: u.d(0), [[0.0]], 20.0)
    >>> model = HierarchicalPOURegressor(physics=[oscillation, slope]).fit([[0.0]], [0.0])
    >>> bool(abs(model.predict([[1.0]])[0] - np.sin(20)) < 1e-8)
    True
    """

    def __init__(
        self,
        residual: Callable[..., Any],
        points: Any,
        target: Any = 0.0,
        *,
        weight: str | float = "auto",
        name: str | None = None,
    ):
        if isinstance(points, str):
            raise ValueError(
                f"points of a condition must be an array of shape (n, d). Got {points!r}."
            )
        super().__init__(residual, points, target, weight=weight, name=name)


class Unknown:
    """A constant of an equation that is fitted with the solution.

    Parameters
    ----------
    init : float
        First value.
    bounds : tuple of two floats, default=None
        Values that it may take. The equation may have spurious minima: with bounds of all unknowns
        sine features try several starts between them; without, and on pieces and in networks of
        a given size, init alone is tried. A ConvergenceWarning says where it ends at a bound.

    Raises
    ------
    ValueError
        If the bounds are not in order or init lies outside them.
    """

    def __init__(self, init: float, bounds: tuple[float, float] | None = None):
        if not _is_real(init) or not np.isfinite(init):
            raise ValueError(f"init of an unknown must be a finite number. Got {init!r}.")
        self.init = float(init)
        self.bounds = None
        if bounds is None:
            return
        pair = tuple(bounds) if isinstance(bounds, Iterable) else (bounds,)
        if len(pair) != 2 or not all(_is_real(v) for v in pair) or not pair[0] < pair[1]:
            raise ValueError(
                f"bounds of an unknown must be two numbers, the lower first. Got {bounds!r}."
            )
        low, high = float(pair[0]), float(pair[1])
        if not low <= self.init <= high:
            raise ValueError(f"init={init!r} lies outside bounds={bounds!r}.")
        self.bounds = (low, high)

    def __repr__(self) -> str:
        return f"Unknown({self.init!r}, bounds={self.bounds!r})"


class Symmetry:
    """A symmetry that the solution is known to have, for the basis to have it too.

    Parameters
    ----------
    kind : {"odd", "even", "periodic"}
        ``u(c - h) = -u(c + h)`` along the coordinate, the same without the sign, or
        ``u(x + period) = u(x)``.
    coordinate : int
        Column of X.
    center : float, default=0.0
        The point c, in units of X, of an odd or even function.
    period : float, default=None
        Of a periodic one, positive.
    """

    def __init__(
        self, kind: str, coordinate: int, *, center: float = 0.0, period: float | None = None
    ):
        if kind not in ("odd", "even", "periodic"):
            raise ValueError(f"kind must be 'odd', 'even' or 'periodic'. Got {kind!r}.")
        whole = isinstance(coordinate, Integral) and not isinstance(coordinate, bool)
        if not whole or coordinate < 0:
            raise ValueError(f"coordinate must be a column of X, from 0. Got {coordinate!r}.")
        if not _is_real(center) or not np.isfinite(center):
            raise ValueError(f"center must be a finite number. Got {center!r}.")
        if (period is None) == (kind == "periodic"):
            raise ValueError(f"period goes with kind='periodic' alone. Got {period!r}.")
        if period is not None and not (_is_real(period) and 0 < period < np.inf):
            raise ValueError(f"period must be a positive number. Got {period!r}.")
        self.kind, self.coordinate = kind, int(coordinate)
        self.center = float(center)
        self.period = None if period is None else float(period)

    def __repr__(self) -> str:
        extra = f"period={self.period}" if self.period else f"center={self.center}"
        return f"Symmetry({self.kind!r}, {self.coordinate}, {extra})"


class Field:
    """The solution as a residual sees it: ``u()``, ``u.d(0)``, ``u[1].d(0, 0)``.

    Parameters
    ----------
    values : mapping
        Tensors (n,) for (output, coordinates), coordinates sorted; missing ones are asked for.
    ask : callable
        Takes a key that `values` lacks and returns its tensor.
    shape : tuple of two int
        Number of columns of X and of outputs.
    output : int or None
        The output in question; None: the only one.
    """

    def __init__(
        self,
        values: Mapping[tuple[int, tuple[int, ...]], Tensor],
        ask: Callable[[tuple[int, tuple[int, ...]]], Tensor],
        shape: tuple[int, int],
        output: int | None = None,
    ):
        self._values, self._ask, self._shape, self._output = values, ask, shape, output

    def __getitem__(self, output: int) -> Field:
        n_outputs = self._shape[1]
        if self._output is not None:
            raise TypeError("u[i] is one output already.")
        if not isinstance(output, Integral) or not 0 <= output < n_outputs:
            raise ValueError(f"u[{output!r}]: y has {n_outputs} output(s), counted from 0.")
        return Field(self._values, self._ask, self._shape, int(output))

    def __iter__(self):
        return iter([self[i] for i in range(self._shape[1])])

    def __call__(self, *points: Any) -> Tensor:
        """Values at the points."""
        if points:
            raise TypeError("u() takes no points: it is the solution at those of the equation.")
        return self._get(())

    def d(self, *coordinates: int) -> Tensor:
        """Derivative along columns of X, one after the other.

        Parameters
        ----------
        *coordinates : int
            Columns, counted from 0, at least one: ``u.d(0, 0)`` is a second derivative.

        Returns
        -------
        Tensor of shape (N,)
            At the points.
        """
        if not coordinates:
            raise TypeError("u.d needs the columns of X to differentiate along, such as u.d(0).")
        for j in coordinates:
            if not isinstance(j, Integral) or isinstance(j, bool) or not 0 <= j < self._shape[0]:
                inner = ", ".join(map(repr, coordinates))
                raise ValueError(f"u.d({inner}): X has {self._shape[0]} column(s), counted from 0.")
        return self._get(tuple(sorted(int(j) for j in coordinates)))

    def _get(self, coordinates: tuple[int, ...]) -> Tensor:
        if self._output is None and self._shape[1] > 1:
            raise ValueError(f"y has {self._shape[1]} outputs: write u[0]() and u[0].d(0), ...")
        key = (self._output or 0, coordinates)
        found = self._values.get(key)
        return self._ask(key) if found is None else found


class Constants(dict):
    """Values of the unknowns by name; a wrong name is an error that lists the right ones."""

    def __missing__(self, name: str) -> Any:
        """Refuse a name that nobody declared."""
        raise ValueError(
            f"An equation asks for p[{name!r}], but unknowns has "
            f"{sorted(self) if self else 'none'}."
        )


def sampled(kind: str, n: int, low: np.ndarray, high: np.ndarray, seed: int) -> np.ndarray:
    """About n points of a sampler in a box, (n, d)."""
    d = len(low)
    if kind == "chebyshev":
        side = max(2, round(n ** (1 / d)))
        line = 0.5 - 0.5 * np.cos(np.pi * np.arange(side) / (side - 1))
        unit = np.stack(np.meshgrid(*[line] * d, indexing="ij"), -1).reshape(-1, d)
    elif kind == "sobol":
        unit = sobol_points(d, n, seed).numpy()
    else:
        unit = np.random.default_rng(seed).random((n, d))
    return low + (high - low) * unit


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _takes_constants(residual: Callable[..., Any], name: str) -> bool:
    """Whether a residual takes (u, x, p) rather than (u, x).

    Raises
    ------
    TypeError
        If it takes neither.
    """
    try:
        signature = inspect.signature(residual)
    except (TypeError, ValueError):  # Some callables written in C have none.
        return True

    def takes(n_arguments: int) -> bool:
        try:
            signature.bind(*[None] * n_arguments)
        except TypeError:
            return False
        return True

    if takes(3):
        # A third argument with a value of its own, as k in (u, x, k=k), is not for the unknowns.
        third = list(signature.parameters.values())[2:3]
        has_default = any(one.default is not inspect.Parameter.empty for one in third)
        return not (takes(2) and has_default and third[0].name != "p")
    if takes(2):
        return False
    raise TypeError(
        f"The residual of equation {name!r} must take (u, x, p), or (u, x) where nothing is "
        f"unknown. Got {signature}."
    )


def _is_importable(function: Callable[..., Any]) -> bool:
    """Whether pickle can write a callable: by its name, or as an instance of a class."""
    name = getattr(function, "__qualname__", None)
    if name is None or getattr(function, "__self__", None) is not None:
        return True  # An instance or a bound method, which pickle by their class
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is function


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Numbers as a tensor of the kind of another."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)
