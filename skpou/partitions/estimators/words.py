"""What the partitions of a fitted estimator are, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from skpou.base import column_names, number, polynomial_text
from skpou.core import FourierProducts, TotalDegreePolynomials, sobol_points, to_powers
from skpou.partitions.estimators.powers import raw_polynomials
from skpou.partitions.gates.tree import PartitionTree, gate_polynomials
from skpou.partitions.pieces.spaces import POLYNOMIAL, SPACES

#: Points of the box at which partitions are looked at, on a line and in more dimensions; on a line
#: a boundary is then found by halving.
ON_A_LINE, IN_A_BOX, N_HALVINGS = 4001, 4096, 60
#: Neighbours of a point that may lie in another partition.
NEIGHBOURS = 4
#: Pieces, boundaries and targets that are written out.
MOST_PIECES, MOST_BOUNDARIES, MOST_TARGETS = 40, 20, 4
#: Terms of a sum of waves, and ranges of a piece, that are written out: about a line of them.
MOST_TERMS, MOST_RANGES = 15, 4


def partition_lines(model: Any) -> list[str]:
    """Gates, pieces with their polynomials and noise, boundaries."""
    levels, names = model.mixture_, column_names(model)
    sizes = " -> ".join(str(len(level["parent"])) for level in levels)
    kinds = [
        "blended" if level["blended"] else "sharp" if level["sharp"] else "soft" for level in levels
    ]
    functions = f"{SPACES[model._space()].functions} of degree {model.degree_}"
    lines = ["", f"Pieces: {sizes}, {functions}; gates {model.gate_}, {' -> '.join(kinds)}"]
    if model._space() != POLYNOMIAL:
        lines.append("  Waves run in t, the columns scaled to go from 0 to 1 in the data's box.")
    if any(level["blended"] for level in levels):
        lines.append("  Blended pieces overlap: where they do, the mean lies between them.")
    tree = PartitionTree.from_arrays(
        model._n_varying(), levels, torch.zeros(0, dtype=torch.float64, device="cpu")
    )
    line = model._n_varying() == 1
    points = _on_a_line() if line else _in_a_box(model._n_varying())
    leaf = _leaves(tree, points)
    places = _intervals(tree, model) if line else _extents(points, leaf, model)
    lines += _piece_lines(model, places, names)
    if not line and model._n_varying():
        lines += _boundary_lines(model, points, leaf, names)
    return lines


def _leaves(tree: PartitionTree, points: np.ndarray) -> np.ndarray:
    """Most probable partition of points of the unit box."""
    found = tree.log_proba(torch.as_tensor(points, device="cpu"), harden=True)
    return found.argmax(1).numpy()


def _on_a_line() -> np.ndarray:
    return np.linspace(0, 1, ON_A_LINE)[:, None]


def _in_a_box(d: int) -> np.ndarray:
    return sobol_points(d, IN_A_BOX, 0).numpy() if d else np.zeros((1, 0))


def _original(model: Any, points: np.ndarray) -> np.ndarray:
    """Points of the unit box in units of X, the columns that vary alone."""
    return model.scaling_["offset"] + model.scaling_["width"] * points


# Where pieces are


def _intervals(tree: PartitionTree, model: Any) -> dict[int, str]:
    """Intervals of the pieces of a function of one column."""
    points = _on_a_line()
    leaf = _leaves(tree, points)
    steps = np.flatnonzero(np.diff(leaf))
    low, high = points[steps, 0], points[steps + 1, 0]
    left = leaf[steps]
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        same = _leaves(tree, middle[:, None]) == left if len(middle) else np.zeros(0, bool)
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    edges = _original(model, np.concatenate([[0.0], high, [1.0]])[:, None])[:, 0]
    found: dict[int, list[str]] = {}
    for k, owner in enumerate(leaf[np.concatenate([[0], steps + 1])].tolist()):
        found.setdefault(owner, []).append(f"{edges[k]:.10g} to {edges[k + 1]:.10g}")
    column = column_names(model)[int(model.scaling_["columns"][0])]
    return {owner: f"{column} from {' and '.join(parts)}" for owner, parts in found.items()}


def _extents(points: np.ndarray, leaf: np.ndarray, model: Any) -> dict[int, str]:
    """Shares of the box, and ranges of the columns, of the pieces."""
    X = _original(model, points)
    names = [column_names(model)[j] for j in model.scaling_["columns"]]
    found = {}
    for piece in np.unique(leaf).tolist():
        own = X[leaf == piece]
        ranges = [
            f"{name} {low:.3g} to {high:.3g}"
            for name, low, high in zip(names, own.min(0), own.max(0), strict=True)
        ]
        where = f" within {', '.join(ranges)}" if 0 < len(ranges) <= MOST_RANGES else ""
        found[piece] = f"{len(own) / len(X):.1%} of the box{where}"
    return found


def _piece_lines(model: Any, places: dict[int, str], names: list[str]) -> Iterator[str]:
    polynomial = model._space() == POLYNOMIAL
    raw = raw_polynomials(model) if polynomial else {"coef": model.coef_}
    N, P = raw["coef"].shape[:2]
    coef, noise = raw["coef"].reshape(N, P, -1), np.reshape(model.noise_, (N, -1))
    lost = raw["digits_lost"].reshape(N, -1).max(1) if polynomial else np.zeros(N)
    for piece in range(min(N, MOST_PIECES)):
        where = places.get(piece, "nowhere the leading one")
        bars = ", ".join(map(number, noise[piece]))
        digits = f"; powers of X lose {lost[piece]:.0f} digits" if lost[piece] >= 1 else ""
        yield f"  piece {piece}: {where}; noise {bars}{digits}"
        for target in coef[piece].T[:MOST_TARGETS]:
            if polynomial:
                powers = raw["powers"][:, model.scaling_["columns"]]
                yield f"    {polynomial_text(powers, target, names, model.scaling_)}"
            else:
                yield f"    {_wave_text(model, target, names)}"
    if N > MOST_PIECES:
        yield f"  ... and {N - MOST_PIECES} more"


def _wave_text(model: Any, coef: np.ndarray, names: list[str]) -> str:
    """The largest terms of a sum of waves, in their order."""
    factors = FourierProducts(model._n_varying(), model.degree_).factors
    used = [names[j] for j in model.scaling_["columns"]]
    largest = np.sort(np.argsort(-np.abs(coef), kind="stable")[:MOST_TERMS])
    terms = []
    for term in largest:
        waves = [
            f"{'sin' if factor % 2 else 'cos'}({_times((factor + 1) // 2)}pi t_{name})"
            for name, factor in zip(used, factors[term].tolist(), strict=True)
            if factor
        ]
        sign = "-" if coef[term] < 0 else "+"
        terms.append(" ".join([sign, number(abs(coef[term])), *waves]))
    more = len(coef) - len(terms)
    return " ".join(terms) + (f" ... and {more} smaller terms" if more else "")


def _times(k: int) -> str:
    return "" if k == 1 else f"{k} "


# Boundaries in several dimensions


def _boundary_lines(
    model: Any, points: np.ndarray, leaf: np.ndarray, names: list[str]
) -> Iterator[str]:
    """Equations of the boundaries between pieces that are neighbours somewhere."""
    pairs = _neighbours(points, leaf)
    if not pairs:
        return
    yield ""
    yield "Boundaries: the first piece is where the polynomial is positive"
    gates: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for first, second in pairs:
        gates.setdefault(_gate_between(model.mixture_, first, second), []).append((first, second))
    for (depth, a, b), members in list(gates.items())[:MOST_BOUNDARIES]:
        between = ", ".join(f"{first} | {second}" for first, second in members)
        yield f"  {between}: {_boundary(model, depth, a, b, names)}"
    if len(gates) > MOST_BOUNDARIES:
        yield f"  ... and {len(gates) - MOST_BOUNDARIES} more"


def _neighbours(points: np.ndarray, leaf: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of pieces, the smaller number first, that points next to each other lie in."""
    near = cKDTree(points).query(points, min(NEIGHBOURS + 1, len(points)))[1].reshape(len(leaf), -1)
    pairs = np.stack([np.repeat(leaf, near.shape[1]), leaf[near.reshape(-1)]], 1)
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    return [(int(a), int(b)) for a, b in pairs if a != b]


def _gate_between(levels: list[dict], first: int, second: int) -> tuple[int, int, int]:
    """Level on which two leaves part, and their ancestors there."""
    found = (len(levels) - 1, first, second)
    for depth in reversed(range(len(levels))):
        if first != second:
            found = (depth, first, second)
        parent = levels[depth]["parent"]
        first, second = int(parent[first]), int(parent[second])
    return found


def _boundary(model: Any, depth: int, first: int, second: int, names: list[str]) -> str:
    """Difference of two logits in powers of X, divided by its largest coefficient."""
    box, n_varying = model.scaling_, model._n_varying()
    polynomials = gate_polynomials(model.mixture_[depth], n_varying)
    if polynomials is None:
        return "by a network"
    degree, theta = polynomials
    exponents = TotalDegreePolynomials(n_varying, degree).exponents
    difference = theta[first] - theta[second]
    raw = to_powers(exponents, difference, box["offset"], box["width"])
    largest = np.abs(raw).max()
    return polynomial_text(exponents, raw / largest if largest > 0 else raw, names, box)
