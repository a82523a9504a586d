"""Pieces are joined where one holds the same function."""

import numpy as np
import pytest
import torch

from skpou.partitions.equations.boxes import Boxes, evaluate
from skpou.partitions.equations.coarsening import coarser, joined
from skpou.partitions.equations.columns import exponents
from skpou.partitions.equations.refinement import Child, as_boxes, prolonged

WHOLE = Boxes(np.zeros((1, 2)), np.ones((1, 2)), np.array([[8, 4]]))


def halves(column):
    """A polynomial on the box, and on the two halves of it along a column."""
    coef = [torch.tensor(np.random.default_rng(0).standard_normal((45, 2)))]
    middle = np.ones(2)
    middle[column] = 0.5
    children = [
        Child(0, np.zeros(2), middle, (8, 4)),
        Child(0, 1 - np.where(middle == 1, 1, middle), np.ones(2), (8, 4)),
    ]
    return coef, as_boxes(children), prolonged(WHOLE, coef, children)


@pytest.mark.parametrize("column", [0, 1])
def test_halves_of_a_polynomial_are_joined_to_it(column):
    coef, _, parts = halves(column)
    degree, merged = joined(column, (8, 4), parts[0], (8, 4), parts[1])
    assert degree == (8, 4)
    points = np.random.default_rng(1).random((50, 2))
    wanted = evaluate(WHOLE, coef, points, (0, 1))
    np.testing.assert_allclose(evaluate(WHOLE, [merged], points, (0, 1)), wanted, atol=1e-11)


def test_halves_of_total_degree_are_joined():
    degree, rng = (4,) * 4, np.random.default_rng(0)
    whole = Boxes(np.zeros((1, 4)), np.ones((1, 4)), np.array([degree]))
    coef = [torch.tensor(rng.standard_normal((70, 1)))]
    middle = np.array([1.0, 0.5, 1.0, 1.0])
    children = [
        Child(0, np.zeros(4), middle, degree),
        Child(0, 1 - np.where(middle == 1, 1, middle), np.ones(4), degree),
    ]
    parts = prolonged(whole, coef, children)
    _, merged = joined(1, degree, parts[0], degree, parts[1])
    np.testing.assert_allclose(merged, coef[0], atol=1e-12)


def test_what_needs_its_pieces_keeps_them():
    """Random coefficients have large tails, those that decay have none."""
    coef, boxes, parts = halves(0)
    assert coarser(boxes, parts, [0], np.ones(2), 1e-6).n_boxes == 2
    smooth = [coef[0] * torch.tensor(10.0 ** -exponents((8, 4))[:, :1])]
    children = [Child(0, boxes.low[e], boxes.high[e], (8, 4)) for e in range(2)]
    found = coarser(boxes, prolonged(WHOLE, smooth, children), [0], np.ones(2), 1e-6)
    np.testing.assert_array_equal(found.high - found.low, np.ones((1, 2)))
