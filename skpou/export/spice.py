"""Programs as subcircuits for circuit simulators: one behavioural source for each output."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.polynomial import legendre

from skpou.core import sobol_points
from skpou.export.families import KINDS, Program, Step, program_of
from skpou.export.table import unnamed

#: Largest exponent: the exponential and its square, which slopes hold, stay far from overflow.
LARGEST_EXPONENT = 80.0
#: Scalars of more characters than this get a node where they are used again: each use would
#: repeat them.
LONGEST_INLINE = 4000
#: Characters of a line: some simulators read no more than a few hundred.
LINE = 98
#: Points of a face of the box over which slopes beyond it are averaged.
FACE_POINTS = 64

#: Functions of `apply`, of a text without side effects.
FUNCTION_TEXTS = {
    "tanh": "tanh({z})",
    "sin": "sin({z})",
    "cos": "cos({z})",
    "relu": "max({z},0)",
    "log_cosh": "(abs({z})+ln(1+exp(-2*abs({z})))-0.69314718055994531)",
    "exp_minus": "exp(-({z}))",
    "inverse": "(1/(1+{z}))",
    "stretch": "(ln(1+max({z},0))+min({z},0))",
}


@dataclass(frozen=True)
class Scalar:
    """Linear combination of texts, and a constant: sums of sums stay one sum."""

    terms: dict[str, float] = field(default_factory=dict)
    constant: float = 0.0

    @classmethod
    def of(cls, text: str) -> Scalar:
        """One text."""
        return cls({text: 1.0})

    def plus(self, other: Scalar, factor: float = 1.0) -> Scalar:
        """Sum with a multiple of another."""
        terms = dict(self.terms)
        for text, value in other.terms.items():
            terms[text] = terms.get(text, 0.0) + factor * value
        return Scalar(terms, self.constant + factor * other.constant)

    def times(self, factor: float) -> Scalar:
        """Multiple."""
        return Scalar().plus(self, factor)

    def text(self) -> str:
        """Expression in parentheses, or a single number or text."""
        parts = [] if self.constant == 0 and self.terms else [_number(self.constant)]
        for text, value in self.terms.items():
            if value:
                parts.append(text if value == 1 else f"{_number(value)}*{text}")
        # Spaces are where lines may be broken.
        return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})" if parts else "0"


def _number(value: float) -> str:
    """A number with all digits; negative ones in parentheses."""
    return repr(float(value)) if value >= 0 else f"({float(value)!r})"


def _product(first: Scalar, second: Scalar) -> Scalar:
    for one, other in ((first, second), (second, first)):
        if not any(one.terms.values()):
            return other.times(one.constant)
    return Scalar.of(f"{first.text()}*{second.text()}")


def to_spice(
    model: Any, *, name: str = "model", output: str = "current", fit_alone: bool = False
) -> str:
    """Subcircuit of a fitted regressor's mean, for ngspice and simulators of its kind.

    Its pins are one for each column of X, one for each output, and a reference: the columns are
    the voltages of their pins against the reference. A two-terminal device whose current was
    fitted by its voltage is ``X1 anode anode cathode model``; a transistor whose collector and
    base current were fitted by base and collector voltage is
    ``X1 base collector collector base emitter model``.

    Outside the box of the data, where iterations of a simulator come by, the mean of the nearest
    point of the box goes on linearly, by the mean slope of the face. Inside the box it is that of
    ``predict`` as far as the simulator keeps the digits of numbers: ngspice 39 keeps eleven in an
    expression. Gates that switch sharply are as steep as they are.

    Parameters
    ----------
    model : estimator
        Fitted, as for `to_c`. Expressions grow with the model: pieces and a few dozen units are
        quick to simulate, hundreds of sine features or grid points are not.
    name : str, default="model"
        Name of the subcircuit: letters, digits and underscores.
    output : {"current", "voltage"}, default="current"
        ``"current"``: each output is a current, in amperes, from its pin to the reference.
        ``"voltage"``: it is the voltage of its pin against the reference.
    fit_alone : bool, default=False
        Write the mean of the fit also where ``predict`` gives way to a linear model, as it may in
        noisy tables; False refuses such a model.

    Returns
    -------
    str
        Lines from ``.subckt`` to ``.ends``.

    Raises
    ------
    TypeError
        If the model is of another class.
    ValueError
        If name or output are none of these, or a stage of the model cannot be exported.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import HierarchicalPOURegressor
    >>> from skpou.export import to_spice
    >>> V = np.linspace(-1, 1, 200)[:, None]
    >>> model = HierarchicalPOURegressor().fit(V, 1e-3 * np.maximum(V[:, 0], 0))
    >>> to_spice(model, name="ideal").splitlines()[2]
    '.subckt ideal x1 y1 ref'
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"name must be letters, digits and underscores. Got {name!r}.")
    if output not in ("current", "voltage"):
        raise ValueError(f"output must be 'current' or 'voltage'. Got {output!r}.")
    program = program_of(model, fit_alone)
    writer = _Writer(program, model.scaling_)
    results = writer.run()
    slopes = _slopes_outside(model, program)
    pins = [f"x{j + 1}" for j in range(program.n_features)]
    targets = [f"y{i + 1}" for i in range(program.n_outputs)]
    lines = [
        f"* Mean of a fitted {type(model).__name__}: outputs are "
        + ("currents from y to ref" if output == "current" else "voltages between y and ref"),
        *_box_comment(model, pins),
        f".subckt {name} {' '.join([*pins, *targets, 'ref'])}",
        *(_source(node, "V", text) for node, text in writer.nodes.items()),
    ]
    for i, (pin, mean) in enumerate(zip(targets, results, strict=True)):
        whole = mean
        for k, column in enumerate(program.columns):
            node = f"V(x{int(column) + 1},ref)"
            low, high = writer.low[k], writer.high[k]
            for text, slope in (
                (f"min({node} - {_number(low)}, 0)", slopes[k, 0, i]),
                (f"max({node} - {_number(high)}, 0)", slopes[k, 1, i]),
            ):
                whole = whole.plus(Scalar.of(text), slope)
        lines.append(_source(pin, output[0].upper().replace("C", "I"), whole.text()))
    return "\n".join([*lines, f".ends {name}", ""])


def _box_comment(model: Any, pins: Sequence[str]) -> list[str]:
    names = [str(n) for n in getattr(model, "feature_names_in_", pins)]
    box, parts = model.scaling_, []
    for k, j in enumerate(box["columns"]):
        low, width = float(box["offset"][k]), float(box["width"][k])
        name = re.sub(r"[^\w .,-]", "_", names[j], flags=re.ASCII)
        parts.append(f"{pins[j]} ({name}) {low:.6g} to {low + width:.6g}")
    return [f"* Box of the data, in volts: {', '.join(parts) or 'a single point'}"]


def _source(pin: str, kind: str, text: str) -> str:
    """Behavioural source from a pin to the reference, its expression on as many lines as needed."""
    line = f"B{pin} {pin} ref {kind}={text}"
    return "\n+ ".join(textwrap.wrap(line, LINE, break_long_words=False, break_on_hyphens=False))


def _slopes_outside(model: Any, program: Program) -> np.ndarray:
    """Mean slopes (k, 2, m) along each column on the lower and the upper face of the box."""
    box, k = model.scaling_, len(program.columns)
    slopes = np.zeros((k, 2, program.n_outputs))
    unit = sobol_points(k, FACE_POINTS, 0).numpy() if k > 1 else np.zeros((1, k))
    for feature in range(k):
        for side in range(2):
            face = unit.copy()
            face[:, feature] = side
            # A constant column has no part.
            points = np.zeros((len(face), program.n_features))
            points[:, program.columns] = box["offset"] + box["width"] * face
            gradient = unnamed(model).predict_gradient(points)
            gradient = gradient.reshape(len(face), -1, program.n_features)
            slopes[feature, side] = gradient[:, :, program.columns[feature]].mean(0)
    return slopes


class _Writer:
    """Scalars of every step, and the nodes that some of them got.

    Parameters
    ----------
    box : dict of ndarray
        Columns that vary, lower corner and sides of the box of the data.
    """

    def __init__(self, program: Program, box: dict[str, np.ndarray]):
        self.program = program
        self.low = np.asarray(box["offset"], dtype=np.float64)
        self.high = self.low + box["width"]
        self.nodes: dict[str, str] = {}
        self.known: dict[str, list[Scalar]] = {}

    def run(self) -> list[Scalar]:
        """Scalars of the last step."""
        for step in self.program.steps:
            write: Callable[..., list[Scalar]] = getattr(self, f"_{step.operation}")
            found = write(step, *(self.known[v] for v in step.inputs if v in self.known))
            self.known[step.name] = self._shortened(found) if self._is_shared(step) else found
        return self.known[self.program.steps[-1].name]

    def _is_shared(self, step: Step) -> bool:
        """Whether scalars of a step are repeated where they are used."""
        users = [s for s in self.program.steps if step.name in s.inputs]
        wide = any(s.operation in ("softmax", "affine", "distances") for s in users)
        return bool(users) and (wide or len(users) > 1)

    def _shortened(self, scalars: list[Scalar]) -> list[Scalar]:
        """The same, long ones replaced by nodes."""
        found = []
        for scalar in scalars:
            text = scalar.text()
            found.append(self._node(text) if len(text) > LONGEST_INLINE else scalar)
        return found

    def _node(self, text: str) -> Scalar:
        name = f"n{len(self.nodes) + 1}"
        self.nodes[name] = text
        return Scalar.of(f"V({name},ref)")

    # Operations; a list of scalars each

    def _scale(self, step: Step) -> list[Scalar]:
        """Nodes: they are used all over, and linear inside the box."""
        found = []
        for i, column in enumerate(step.values["columns"].tolist()):
            pin = f"V(x{column + 1},ref)"
            inside = f"min(max({pin}, {_number(self.low[i])}), {_number(self.high[i])})"
            offset, width = (float(step.values[name][i]) for name in ("offset", "width"))
            unit = (
                f"{_number(step.values['factor'])}*(({inside}-{_number(offset)})/{_number(width)})"
            )
            found.append(self._node(f"{unit} + {_number(step.values['shift'])}"))
        return found

    def _affine(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        found = []
        for row, bias in zip(step.values["matrix"], step.values["bias"], strict=True):
            total = Scalar(constant=float(bias))
            for value, scalar in zip(row.tolist(), v, strict=True):
                total = total.plus(scalar, value) if value else total
            found.append(total)
        return found

    def _apply(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        text = FUNCTION_TEXTS[step.values["function"]]
        return [Scalar.of(text.format(z=scalar.text())) for scalar in v]

    def _distances(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        found = []
        for centre, rate in zip(step.values["centres"], step.values["rate"], strict=True):
            total = Scalar()
            for value, scalar in zip(centre.tolist(), v, strict=True):
                away = scalar.plus(Scalar(constant=-value)).text()
                total = total.plus(Scalar.of(f"{away}*{away}"), float(rate))
            found.append(total)
        return found

    def _legendre(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        found = []
        for scalar in v:
            t = scalar.text()
            for k in range(step.values["degree"] + 1):
                coef = legendre.leg2poly([0.0] * k + [1.0])[k % 2 :: 2].tolist()
                found.append(_even_or_odd(t, coef, k % 2))
        return found

    def _products(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        found = [Scalar(constant=1.0)]
        pairs = zip(step.values["parent"].tolist(), step.values["factor"].tolist(), strict=True)
        for parent, factor in list(pairs)[1:]:
            found.append(_product(found[parent], v[factor]))
        return found

    def _softmax(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        group, found = step.values["group"].tolist(), []
        for i, own in enumerate(v):
            total = Scalar(constant=1.0)
            for j, other in enumerate(v):
                if j != i and group[j] == group[i]:
                    difference = other.plus(own, -1.0).text()
                    total = total.plus(Scalar.of(f"exp(min({difference},{LARGEST_EXPONENT}))"))
            found.append(Scalar.of(f"(1/{total.text()})") if total.terms else total)
        return found

    def _multiply(self, step: Step, v: list[Scalar], w: list[Scalar]) -> list[Scalar]:
        pairs = zip(step.values["left"].tolist(), step.values["right"].tolist(), strict=True)
        return [_product(v[i], w[j]) for i, j in pairs]

    def _sum(self, step: Step, v: list[Scalar]) -> list[Scalar]:
        found = [Scalar()] * step.size
        for i, scalar in zip(step.values["group"].tolist(), v, strict=True):
            found[i] = found[i].plus(scalar)
        return found

    def _add(self, step: Step, *parts: list[Scalar]) -> list[Scalar]:
        found = parts[0]
        for part in parts[1:]:
            found = [a.plus(b) for a, b in zip(found, part, strict=True)]
        return found

    def _sparse_grid(self, step: Step, u: list[Scalar]) -> list[Scalar]:
        """All functions one by one: the point is inside the box."""
        values, found = step.values, [Scalar()] * step.size
        for vector, first in zip(values["vectors"].tolist(), values["first"].tolist(), strict=True):
            shifts = [int(values["shift"][factor]) for factor in vector]
            for cells in np.ndindex(*(1 << shift for shift in shifts)):
                number = first
                product = Scalar(constant=1.0)
                local = 0
                for feature, (factor, shift, cell) in enumerate(zip(vector, shifts, cells)):
                    local = (local << shift) + cell
                    hat = _hat(u[feature].text(), KINDS[values["kind"][factor]], shift, cell)
                    product = _product(product, hat)
                number += local
                for i, coef in enumerate(values["coef"][number].tolist()):
                    found[i] = found[i].plus(product, coef) if coef else found[i]
        return found


def _even_or_odd(t: str, coef: list[float], odd: int) -> Scalar:
    """Polynomial with every second power of t, by Horner's rule."""
    if len(coef) == 1 and not odd:
        return Scalar(constant=coef[0])
    text = _number(coef[-1])
    for value in reversed(coef[:-1]):
        text = f"({_number(value)} + {t}*{t}*{text})"
    return Scalar.of(t if odd and coef == [1.0] else f"{t}*{text}" if odd else text)


def _hat(u: str, kind: str, shift: int, cell: int) -> Scalar:
    """One-dimensional function of a sparse grid, for arguments in the unit interval."""
    if kind == "constant":
        return Scalar(constant=1.0)
    if kind in ("left", "right"):
        return Scalar.of(f"(1-{u})" if kind == "left" else u)
    cells = 1 << shift
    place = f"{_number(2.0 * cells)}*{u}"
    if kind == "modified" and cell == 0:
        return Scalar.of(f"max(0,2-{place})")
    if kind == "modified" and cell == cells - 1:
        return Scalar.of(f"max(0,{place}-{_number(2.0 * cells - 2)})")
    return Scalar.of(f"max(0,1-abs({place}-{_number(2.0 * cell + 1)}))")
