"""Which pieces are cut, and which get a higher degree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import TINY
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import (
    TOTAL_DEGREE_FROM,
    PieceColumns,
    exponents,
    gauss,
    tensor_nodes,
)
from skpou.partitions.equations.system import Coefficients

#: Degrees in the order in which they are raised.
DEGREES = (5, 8, 12, 16)
#: The same for total degrees, of which every one doubles the columns.
TOTAL_DEGREES = (4, 6, 8, 9, 10)
#: The first one.
FIRST_DEGREE = 8
#: Pieces with less than this share of the largest error wait.
SHARE = 0.03
#: Coefficients of smooth functions decay ever faster: by this power of the rate so far.
FASTER = 1.5
#: Share of the largest tail from which on a piece is refined along a column, too.
ALONG = 0.03
#: Factor of one more degree from which on a function is not smooth.
SLOW = 0.6
#: Coefficient, relative to the solution, that is round-off whatever the degree.
NO_COEFFICIENT = 1e-18
#: Largest factor of one more degree that is told: coefficients that grow are no series.
FASTEST_GROWTH = 10.0
#: Tail, in units of the tolerance, that more degrees may miss and still be raised for.
NEARLY = 30
#: Halvings at once towards a corner that the last two halvings approached, too.
GRADED = 3
#: Width of pieces that were cut so often that the digits of their places mean something.
NOT_FIRST = 1 / 8
#: Least width of a piece, as a share of the box.
LEAST_WIDTH = 2.0**-40

#: Lower and upper corner (d,) of a piece.
Piece = tuple[np.ndarray, np.ndarray]


@dataclass
class Shape:
    """How the coefficients of the pieces decay.

    Attributes
    ----------
    tail : ndarray of shape (E, d)
        Size of the last two degrees along each column, relative to that of the solution.
    rate : ndarray of shape (E, d)
        Factor of one more degree.
    """

    tail: np.ndarray
    rate: np.ndarray


def sizes_by_degree(degree: tuple[int, ...], coef: Tensor, j: int) -> np.ndarray:
    """Root mean squares (p + 1, m) of the parts of each degree along a column."""
    index = exponents(degree)
    squares = coef.cpu().numpy() ** 2 / np.prod(2 * index + 1, axis=1)[:, None]
    top = max(degree) if len(degree) >= TOTAL_DEGREE_FROM else degree[j]
    found = np.zeros((top + 1, coef.shape[1]))
    np.add.at(found, index[:, j], squares)
    return np.sqrt(found)


def _of_squares(boxes: Boxes, coef: Coefficients) -> Coefficients:
    """Coefficients of the solution on the squares that stand for pieces with moving edges.

    Polynomials of the boxes around them are free beyond the edges, and their coefficients
    tell little.
    """
    if boxes.edges is None:
        return coef
    found = []
    for e, part in enumerate(coef):

        def values(nodes, e=e, part=part):
            return _values(boxes.degrees(e), part, boxes.local(e, boxes.points(e, nodes)))

        found.append(projected(boxes.degrees(e), values, part))
    return found


def solution_size(boxes: Boxes, coef: Coefficients) -> np.ndarray:
    """Root mean square (m,) of the solution over all pieces, by their volumes."""
    coef = _of_squares(boxes, coef)
    volume = boxes.width.prod(1)
    squares = np.zeros(coef[0].shape[1])
    for e, part in enumerate(coef):
        weight = np.prod(2 * exponents(boxes.degrees(e)) + 1, axis=1)[:, None]
        squares += volume[e] * (part.cpu().numpy() ** 2 / weight).sum(0)
    return np.sqrt(squares / volume.sum())


def shape(boxes: Boxes, coef: Coefficients, size: np.ndarray) -> Shape:
    """Decay of the coefficients of all pieces."""
    coef = _of_squares(boxes, coef)
    E, d = boxes.low.shape
    tail, rate = np.zeros((E, d)), np.zeros((E, d))
    for e, part in enumerate(coef):
        for j in range(d):
            A = (sizes_by_degree(boxes.degrees(e), part, j) / size).max(1) + NO_COEFFICIENT
            p = len(A) - 1
            if p < 2:
                continue
            tail[e, j] = math.hypot(A[p], A[p - 1])
            # Odd and even degrees may vanish by turns.
            envelope = np.maximum(A[:-1], A[1:])
            middle = len(envelope) // 2
            drop = envelope[-1] / envelope[middle]
            rate[e, j] = min(drop ** (1 / max(len(envelope) - 1 - middle, 1)), FASTEST_GROWTH)
    return Shape(tail, rate)


@dataclass
class Child:
    """A piece of a refined partition and the one it comes from."""

    parent: int
    low: np.ndarray
    high: np.ndarray
    degree: tuple[int, ...]
    inside: bool = False


def refined(
    boxes: Boxes,
    found: Shape,
    error: np.ndarray,
    marks: np.ndarray,
    directions: list[int],
    tol: float,
    top: int = DEGREES[-1],
    single: bool = False,
) -> list[Child]:
    """Cut or raise the marked pieces along the columns where they need it.

    Parameters
    ----------
    error : ndarray of shape (E,)
        Error of each piece in units of the tails; at least its largest tail.
    marks : ndarray of bool of shape (E,)
    directions : list of int
        Columns that may be refined.
    tol : float
        Tail that is small enough.
    single : bool, default=False
        Cut along one column only.
    """
    plans = [
        _plan(boxes, e, found, error[e], directions, tol, top, single)
        if marks[e]
        else (list(boxes.degrees(e)), [])
        for e in range(boxes.n_boxes)
    ]
    several = len(directions) > 1 and not single
    full = np.array([several and len(cuts) == len(directions) for _, cuts in plans])
    corners = lone_corners(boxes, full, directions)
    children = []
    for e, (degree, cuts) in enumerate(plans):
        pieces = halves((boxes.low[e], boxes.high[e]), cuts)
        for _ in range(GRADED - 1 if e in corners else 0):
            distances = [_distance(piece, corners[e], directions) for piece in pieces]
            pieces += halves(pieces.pop(int(np.argmin(distances))), cuts)
        inside = bool(boxes.inside[e])
        children += [Child(e, low, high, tuple(degree), inside) for low, high in pieces]
    return children


def _plan(
    boxes: Boxes, e: int, found: Shape, error: float, directions: list[int], tol: float, top: int,
    single: bool,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Degrees of a piece, and the columns along which it is cut."""
    degree, cuts = list(boxes.degrees(e)), list[int]()
    tails = found.tail[e, directions]
    # What the tails do not show, as a misfit of the data, has their directions.
    tails = tails * (max(error / max(tails.max(), TINY), 1.0))
    worst = tails.max()
    for j, tail in zip(directions, tails, strict=True):
        if (
            (single and (cuts or tail < worst))
            or tail < ALONG * worst
            or (tail < tol and tail < worst)
        ):
            continue
        if _raises(degree[j], tail, found.rate[e, j], tol, top):
            degree[j] = next((p for p in ladder(len(degree)) if p > degree[j]), degree[j])
        elif boxes.width[e, j] > LEAST_WIDTH:
            cuts.append(j)
    if cuts and not single and found.rate[e, cuts].max() > SLOW:
        # No degree helps where a function is not smooth.
        degree = [min(p, FIRST_DEGREE) if j in cuts else p for j, p in enumerate(degree)]
    return degree, cuts


def halves(piece: Piece, cuts: list[int]) -> list[Piece]:
    """What a box is cut into in the middle of some columns."""
    pieces = [piece]
    for j in cuts:
        found = []
        for first, last in pieces:
            middle = (first[j] + last[j]) / 2
            end, start = last.copy(), first.copy()
            end[j] = start[j] = middle
            found += [(first, end), (start, last)]
        pieces = found
    return pieces


def _distance(piece: Piece, corner: np.ndarray, directions: list[int]) -> float:
    low, high = piece
    return float(np.abs(((low + high) / 2)[directions] - corner).max())


def lone_corners(boxes: Boxes, cut: np.ndarray, directions: list[int]) -> dict[int, np.ndarray]:
    """Corners towards which pieces were cut twice in a row, and are again.

    Pieces are halves of halves of the box: binary digits of their places tell their ancestors.
    Where several parts of a piece are cut, what is resolved is more than a point.

    Parameters
    ----------
    cut : ndarray of bool of shape (E,)
        Pieces that are cut along all columns.
    directions : list of int
        Columns that may be cut.

    Returns
    -------
    dict of int to ndarray
        Corner by piece.
    """
    width = boxes.width[:, directions]
    place = np.round(boxes.low[:, directions] / width).astype(np.int64)
    parents: dict[tuple, list[int]] = {}
    for e in np.flatnonzero(cut).tolist():
        parents.setdefault((*width[e], *(place[e] // 2)), []).append(e)
    found: dict[int, np.ndarray] = {}
    for e, *more in parents.values():
        last = place[e] & 1
        if not more and (last == (place[e] >> 1) & 1).all() and (width[e] <= NOT_FIRST).all():
            found[e] = (place[e] + last) * width[e]
    return found


def ladder(d: int) -> tuple[int, ...]:
    """Degrees in d columns."""
    return TOTAL_DEGREES if d >= TOTAL_DEGREE_FROM else DEGREES


def _raises(degree: int, tail: float, rate: float, tol: float, top: int) -> bool:
    """Whether degrees that may be had would make the tail small enough, or nearly."""
    if degree >= top:
        return False
    if degree < FIRST_DEGREE:
        return True
    if rate >= 1.0:
        return False
    return tail * rate ** (FASTER * (top - degree)) < NEARLY * tol


def as_boxes(children: list[Child]) -> Boxes:
    """The refined partition."""
    return Boxes(
        np.array([child.low for child in children]),
        np.array([child.high for child in children]),
        np.array([child.degree for child in children]),
        np.array([child.inside for child in children]),
    )


def prolonged(boxes: Boxes, coef: Coefficients, children: list[Child]) -> Coefficients:
    """The same function on a refined partition."""
    found = []
    for child in children:
        e = child.parent
        old = boxes.degrees(e)
        same = bool((child.low == boxes.low[e]).all() and (child.high == boxes.high[e]).all())
        if same and old == child.degree:
            found.append(coef[e])
        elif same:
            found.append(copied(old, coef[e], child.degree))
        else:
            low, high = boxes.local(e, child.low), boxes.local(e, child.high)
            middle, half = (low + high) / 2, (high - low) / 2

            def values(nodes, e=e, old=old, middle=middle, half=half):
                return _values(old, coef[e], middle + half * nodes)

            found.append(projected(child.degree, values, coef[e]))
    return found


def copied(old: tuple[int, ...], coef: Tensor, new: tuple[int, ...]) -> Tensor:
    """Coefficients of the same polynomial in the columns of another degree."""
    position = {tuple(row): i for i, row in enumerate(exponents(new))}
    result = coef.new_zeros((len(position), coef.shape[1]))
    for i, row in enumerate(exponents(old)):
        at = position.get(tuple(row))
        if at is not None:
            result[at] = coef[i]
    return result


def _values(degree: tuple[int, ...], coef: Tensor, points: np.ndarray) -> Tensor:
    columns = PieceColumns(degree, points, coef)
    return columns.derivative((0,) * len(degree)) @ coef


def projected(degree: tuple[int, ...], function, like: Tensor) -> Tensor:
    """Coefficients (N, m) of a function of points of [-1, 1]^d, by Gauss' quadrature."""
    counts = [p + 2 for p in degree]
    nodes = tensor_nodes(counts)
    weight = np.ones(1)
    for n in counts:
        weight = np.multiply.outer(weight, gauss(n)[1]).reshape(-1)
    values = function(nodes)
    columns = PieceColumns(degree, nodes, like)
    matrix = columns.derivative((0,) * len(degree))
    norms = np.prod(2 * exponents(degree) + 1, axis=1)
    scaled = torch.as_tensor(weight, device=like.device)[:, None] * values
    return torch.as_tensor(norms, device=like.device, dtype=like.dtype)[:, None] * (
        matrix.T @ scaled
    )
