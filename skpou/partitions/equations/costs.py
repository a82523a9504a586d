"""What a solve on pieces takes, before it is begun: multiplications and memory."""

from __future__ import annotations

import numpy as np

from skpou.core import Rows
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import exponents
from skpou.partitions.equations.elimination import memory, minimum_degree

#: Bytes of a solve that are too many, since other programs have theirs; and in a GB.
MOST_BYTES, GIGA = 2e9, 1e9
#: Those of a number, copies of what is kept, with the covariances, and of the largest front.
NUMBER, COPIES, COPIES_OF_FRONT = 8, 2, 3
#: Rows of a piece for each of its columns, about.
ROWS_PER_COLUMN = 2


def work(boxes: Boxes, rings: frozenset[int], m: int) -> float:
    """About how many multiplications an elimination takes."""
    sizes = [m * len(exponents(boxes.degrees(e))) for e in range(boxes.n_boxes)]
    touching = [(face.below, face.above) for face in boxes.faces(rings)]
    order, others = minimum_degree(sizes, touching)
    # A factorisation of twice as many rows, and the reflections of the other columns.
    total = sum(
        4.0 * sizes[e] ** 2 * (sizes[e] + 2 * k) for e, k in zip(order, others, strict=True)
    )
    return total


def solve_bytes(boxes: Boxes, rings: frozenset[int], rows: Rows) -> float:
    """About how many bytes a solve takes."""
    m, d = rows.n_outputs, rows.n_features
    sizes = [m * len(exponents(boxes.degrees(e))) for e in range(boxes.n_boxes)]
    own = [ROWS_PER_COLUMN * size for size in sizes]
    pairs = []
    for face in boxes.faces(rings):
        degree = np.maximum(boxes.degree[face.below], boxes.degree[face.above]) + 2
        # Values and slopes.
        n = 2 * m * int(np.delete(degree, face.axis).prod()) if d > 1 else 2 * m
        pairs.append((face.below, face.above, n))
    kept, largest = memory(sizes, own, pairs)
    return NUMBER * (COPIES * kept + COPIES_OF_FRONT * largest)
