"""Cuts towards corners: where they are found, and that they fill what they divide."""

import numpy as np
import pytest

from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.refinement import (
    GRADED,
    Shape,
    as_boxes,
    lone_corners,
    refined,
)


def around_the_corner(levels):
    """Pieces of an L, the quarter at (1, 0) left out, cut again and again at its inner corner."""
    low, high = [], []
    for level in range(1, levels + 1):
        h = 0.5**level / 2
        for i in range(4):
            for j in range(4):
                is_inner = i in (1, 2) and j in (1, 2)
                if not (i >= 2 and j < 2) and (not is_inner or level == levels):
                    low.append([0.5 + (i - 2) * h, 0.5 + (j - 2) * h])
                    high.append([0.5 + (i - 1) * h, 0.5 + (j - 1) * h])
    low, high = np.array(low), np.array(high)
    return Boxes(low, high, np.full(low.shape, 8))


def at_corner(boxes):
    return ((boxes.low <= 0.5) & (boxes.high >= 0.5)).all(1)


def test_corner_is_found_from_all_sides():
    boxes = around_the_corner(3)
    corners = lone_corners(boxes, at_corner(boxes), [0, 1])
    assert set(corners) == set(np.flatnonzero(at_corner(boxes)))
    assert len(corners) == 3
    for corner in corners.values():
        np.testing.assert_allclose(corner, 0.5)


@pytest.mark.parametrize("levels", [1, 3])
def test_lines_and_first_cuts_are_no_corners(levels):
    boxes = around_the_corner(levels)
    cut = at_corner(boxes) if levels == 1 else np.ones(boxes.n_boxes, dtype=bool)
    assert not lone_corners(boxes, cut, [0, 1])


def test_graded_cuts_fill_their_piece():
    boxes = around_the_corner(3)
    marks = at_corner(boxes)
    found = Shape(np.full((boxes.n_boxes, 2), 0.1), np.full((boxes.n_boxes, 2), 0.9))
    children = refined(boxes, found, np.full(boxes.n_boxes, 0.1), marks, [0, 1], 1e-10)
    finer = as_boxes(children)
    assert finer.n_boxes == boxes.n_boxes - 3 + 3 * (1 + 3 * GRADED)
    assert finer.width.prod(1).sum() == pytest.approx(0.75)
    smallest = boxes.width.min() / 2**GRADED
    assert finer.width.min() == smallest
    tiny = np.flatnonzero(finer.width[:, 0] == smallest)
    assert (np.abs(finer.low[tiny] - 0.5).max(1) <= 2 * smallest).all()
