"""What fitted estimators say about themselves in words: `summary`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from skpou.core import TotalDegreePolynomials, largest_powers, to_powers

#: Terms of a polynomial that are written out, and columns that are listed one by one.
MOST_TERMS, MOST_COLUMNS = 15, 12
#: Targets whose polynomials are written out.
MOST_TARGETS = 4
#: Terms of this share of the largest are round-off: away from 0 the powers of a column are so much
#: alike that a thousand units of it may be in each, and cancel.
ROUND_OFF = 1e-12
#: What the scores of a search are, and which one is taken.
SCORES = {
    "score": "score: twice the negative log evidence and the price of gates; the least is taken",
    "left_out": "errors at rows left out and expected between the rows, over the rms of y; the "
    "least product is taken, unless levels of columns left out speak against it",
}


def number(value: Any) -> str:
    """A number with six significant digits."""
    return f"{float(value):.6g}"


def numbers(values: Any) -> str:
    """One number, or a list of them."""
    return ", ".join(number(value) for value in np.ravel(values))


def column_names(model: Any) -> list[str]:
    """Names of the columns of X; x0, x1, ... where they had none."""
    names = getattr(model, "feature_names_in_", None)
    count = range(model.n_features_in_)
    return [f"x{j}" for j in count] if names is None else [str(name) for name in names]


def polynomial_text(
    powers: np.ndarray, coef: np.ndarray, names: Sequence[str], box: dict[str, np.ndarray]
) -> str:
    """Sum of products of powers, ``1 - 2 x0 + 3 x0^2 x1``, without terms of nothing but round-off.

    Parameters
    ----------
    powers : ndarray of shape (M, k)
        Of the columns that vary.
    coef : ndarray of shape (M,)
    box : dict of ndarray
        Columns that vary, lower corner and sides of the box of the data.
    """
    sizes = np.abs(coef) * largest_powers(powers, box["offset"], box["width"])
    if not np.isfinite(sizes).all():
        return "no finite coefficients: powers of X overflow"
    used, terms = [names[j] for j in box["columns"]], []
    for value, row, size in zip(coef, powers, sizes):
        factors = [f"{name}^{p}" if p > 1 else name for name, p in zip(used, row) if p]
        if size > ROUND_OFF * sizes.max():
            terms.append(f"{'-' if value < 0 else '+'} {' '.join([number(abs(value)), *factors])}")
    text = " ".join(terms[:MOST_TERMS]) or "+ 0"
    text = text[2:] if text.startswith("+") else f"-{text[2:]}"
    more = len(terms) - MOST_TERMS
    return f"{text} ... and {more} more terms" if more > 0 else text


def head(model: Any) -> list[str]:
    """Class, columns with the box of the data, targets."""
    box, names = model.scaling_, column_names(model)
    lines = [type(model).__name__, "", "Columns, in the box of the data"]
    place = {int(j): k for k, j in enumerate(box["columns"])}
    for j, name in enumerate(names[:MOST_COLUMNS]):
        where = "constant, without a part in the model"
        if j in place:
            low, width = box["offset"][place[j]], box["width"][place[j]]
            where = f"from {number(low)} to {number(low + width)}"
        lines.append(f"  {name}: {where}")
    if len(names) > MOST_COLUMNS:
        lines.append(f"  ... and {len(names) - MOST_COLUMNS} more")
    if hasattr(model, "classes_"):
        return [*lines, "", f"Classes: {', '.join(map(str, model.classes_))}"]
    spread = f"mean {numbers(box['mean'])}, rms about it {numbers(box['scale'])}"
    return [*lines, "", f"Targets: {len(box['scale'])}, {spread}"]


def tail(model: Any) -> list[str]:
    """Ridge, and the models that a search compared."""
    lines = []
    if hasattr(model, "alpha_"):
        given = model.get_params().get("alpha")
        how = ", as given" if given is not None else ""
        if given == "auto":
            how = ", chosen" if hasattr(model, "classes_") else ", chosen by the log evidence"
        lines += ["", f"Ridge alpha: {number(model.alpha_)}{how}"]
    tried = getattr(model, "_tried", [])
    if tried:
        rule = SCORES["score" if "score" in tried[0] else "left_out"]
        lines += ["", "Search, what was taken marked *", f"  {rule}"]
    for other in tried:
        scores = {"score": "score", "left_out": "left out", "calibrated": "between the rows"}
        found = [f"{word} {number(other[key])}" for key, word in scores.items() if key in other]
        mark = "*" if other["taken"] else " "
        lines.append(f"  {mark} {', '.join([other['what'], *found])}")
    return lines


def process_lines(model: Any) -> list[str]:
    """Gaussian processes that predict in place of the form, or beside it."""
    restraint = getattr(model, "_restraint", None) or {}
    instead, beside = restraint.get("interpolant"), restraint.get("process")
    lines = []
    if instead is not None:
        targets = np.ravel(instead["targets"])
        all_of_them = len(targets) == len(model.scaling_["scale"])
        which = "" if all_of_them else f" of targets {', '.join(map(str, targets))}"
        lines += [
            "",
            f"Gaussian process in place of the form: predictions{which}, bars and noise are its",
            "  It met left-out rows better; coefficients and noise in this text are the form's",
        ]
    if beside is not None and np.any(beside["share"]):
        lines += ["", f"Gaussian process beside the form, of weight {numbers(beside['share'])}"]
    return lines


def stage_lines(model: Any) -> list[str]:
    """Bases of a sum of linear combinations, and what each leaves over where that is known."""
    box, names = model.scaling_, column_names(model)
    left = getattr(model, "residual_rms_", None)
    lines = ["", f"Model: mean of y + {len(model.model_['stages'])} stage(s)"]
    for index, stage in enumerate(model.model_["stages"]):
        text = f"  {index + 1}. {_stage(stage)}"
        if left is not None:
            text += f"; leaves {numbers(left[index])} (rms, in units of y)"
        lines.append(text)
        if stage["kind"] == "polynomials":
            lines += _stage_polynomials(stage, box, names)
    return lines


def _stage(stage: dict[str, Any]) -> str:
    basis, n_columns = stage["basis"], len(stage["coef"])
    match stage["kind"]:
        case "network":
            sizes = ", ".join(map(str, basis["hidden_layer_sizes"]))
            return f"{basis['architecture']} network ({sizes}), {basis['activation']}"
        case "polynomials":
            return f"polynomial of degree {basis['degree']}, {n_columns} terms"
        case "sine":
            h, largest = len(basis["phases"]), np.abs(basis["frequencies"]).max(initial=0.0)
            # Frequencies are for coordinates from -1 to 1.
            waves = f"up to {number(largest / np.pi)} waves across the box"
            return f"{h} sine features, {waves}, beside a plane; {n_columns} columns"
        case "symmetric sine":
            return f"sine features with symmetries, {n_columns} columns"
        case "units":
            words = ("steps (tanh)", "hinges (log cosh)", "bumps (Gaussian)", "peaks (Lorentz)")
            kinds = np.bincount(np.asarray(basis["kinds"]), minlength=len(words))
            found = [f"{k} {word}" for k, word in zip(kinds, words) if k]
            return f"{', '.join(found) or 'no units'}, beside {n_columns - kinds.sum()} columns"
        case "cubic_splines":
            return f"cubic spline, {len(basis['knots'])} knots at rows"
        case "polyharmonic":
            return f"polyharmonic spline of power {basis['power']}, {len(basis['centres'])} centres"
        case "additive":
            return f"sum of functions of few columns, {n_columns} columns"
        case kind:
            return f"{kind}, {n_columns} columns"


def _stage_polynomials(stage: dict, box: dict, names: Sequence[str]) -> list[str]:
    """The polynomial of every target in units of X and y, without the mean of y."""
    degree = stage["basis"]["degree"]
    exponents = TotalDegreePolynomials(len(box["columns"]), degree).exponents
    raw = to_powers(exponents, stage["coef"] * box["scale"], box["offset"], box["width"])
    return [f"     {polynomial_text(exponents, coef, names, box)}" for coef in raw.T[:MOST_TARGETS]]


def noise_lines(values: Any) -> list[str]:
    """Line of the noise."""
    return ["", f"Noise, standard deviation: {numbers(values)} (in units of y)"]


def joined(lines: Iterable[str]) -> str:
    """Lines as one text."""
    return "\n".join(lines)
