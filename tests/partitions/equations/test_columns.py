"""Columns of pieces: derivatives of every order, and pieces that touch."""

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

from skpou.partitions.equations.boxes import Boxes, evaluate
from skpou.partitions.equations.columns import PieceColumns, exponents
from skpou.partitions.equations.refinement import Child, as_boxes, prolonged


@pytest.mark.parametrize("orders", [(0, 0), (1, 0), (0, 2), (3, 1)])
def test_derivatives_are_those_of_legendre_products(orders):
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    columns = PieceColumns((5, 3), points, torch.zeros(0, dtype=torch.float64))
    matrix = columns.derivative(orders).numpy()
    for k, (a, b) in enumerate(exponents((5, 3))):
        parts = [
            legendre.legval(points[:, j], legendre.legder([0] * p + [1], orders[j]))
            for j, p in enumerate((a, b))
        ]
        np.testing.assert_allclose(matrix[:, k], parts[0] * parts[1], atol=1e-11)


def test_many_dimensions_have_total_degree():
    assert exponents((3, 3, 3, 3)).sum(1).max() == 3
    assert len(exponents((3, 3))) == 16


def two_levels():
    """A left half, and a right half that is cut."""
    low = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]])
    high = np.array([[0.5, 1.0], [1.0, 0.5], [1.0, 1.0]])
    return Boxes(low, high, np.full((3, 2), 3))


def test_faces_are_what_pieces_share():
    faces = {(f.below, f.above, f.axis): (f.low, f.high) for f in two_levels().faces()}
    assert set(faces) == {(0, 1, 0), (0, 2, 0), (1, 2, 1)}
    np.testing.assert_array_equal(faces[0, 2, 0], ([0.5, 0.5], [0.5, 1.0]))


def test_rings_have_faces_across_the_ends():
    faces = two_levels().faces(frozenset([0]))
    across = [f for f in faces if f.axis == 0 and f.other == 0.0]
    assert {(f.below, f.above) for f in across} == {(1, 0), (2, 0)}


def test_points_are_located():
    points = np.array([[0.2, 0.7], [0.7, 0.2], [0.7, 0.8], [1.2, 0.1]])
    assert two_levels().locate(points).tolist() == [0, 1, 2, -1]


def test_refined_pieces_hold_the_same_function():
    boxes, rng = two_levels(), np.random.default_rng(1)
    coef = [torch.tensor(rng.standard_normal((16, 2))) for _ in range(3)]
    children = [
        Child(0, np.array([0.0, 0.0]), np.array([0.5, 0.5]), (3, 3)),
        Child(0, np.array([0.0, 0.5]), np.array([0.5, 1.0]), (3, 5)),
        Child(1, boxes.low[1], boxes.high[1], (4, 3)),
        Child(2, boxes.low[2], boxes.high[2], (3, 3)),
    ]
    finer = prolonged(boxes, coef, children)
    points = rng.random((50, 2))
    for orders in ((0, 0), (1, 2)):
        before = evaluate(boxes, coef, points, orders)
        after = evaluate(as_boxes(children), finer, points, orders)
        np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-11)
