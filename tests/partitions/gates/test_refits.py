"""Left-out errors of partitions whose gates are fitted anew without the rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou import POURegressor
from skpou.core import Rows
from skpou.core.models import left_out_errors, residual_makers, sets_of_levels
from skpou.core.optim import ProjectedProblem, levenberg_marquardt
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.partitions.gates.refits import GateRefits, SoftGates
from skpou.partitions.gates.tree import GateLevel, PartitionTree
from tests.partitions.gates.test_products import points


def growing_wave(X):
    return np.exp(X[:, 0]) * np.sin(4 * X[:, 1])


def grid(n, m):
    axes = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, m), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], 1)


def test_bars_know_that_gates_were_found_with_all_rows():
    X, fresh = grid(11, 11), np.random.default_rng(2).random((1000, 2))
    model = POURegressor().fit(X, growing_wave(X))
    mean, std = model.predict(fresh, return_std=True)
    error = np.abs(mean - growing_wave(fresh))
    # Coefficients alone, solved for anew, hold 5 %.
    assert np.mean(error <= 3 * std) > 0.97
    assert np.median(std) < 1e-4


def two_pieces(X, degree=1, tilt=2.0, n_empty=0, sharp=False):
    """Two linear pieces with a soft gate across the first column, and what they predict."""
    theta = torch.tensor([[0.0, 0.0, tilt], [0.0, 0.0, -tilt]], dtype=torch.float64)
    parent = torch.zeros(2, dtype=torch.int64)
    level = GateLevel(parent, theta, 1, sharp=sharp).padded(2 + n_empty)
    coef = torch.zeros((2 + n_empty, 3, 1), dtype=torch.float64)
    coef[0, :, 0] = torch.tensor([1.0, 0.5, 2.0])
    coef[1, :, 0] = torch.tensor([-1.0, 1.0, 0.3])
    polynomials = TotalDegreePolynomials(2, degree).matrix(X)
    tree = PartitionTree(2, [level])
    return SoftGates.of(tree, polynomials, coef, X, 1e-10)


def rows_of(gates, X):
    y = gates.basis.matrix(gates.theta) @ gates.coef
    return Rows(X, y, torch.ones(len(X), dtype=X.dtype), torch.zeros_like(y))


def test_empty_pieces_and_sharp_gates_are_not_moved():
    X = points(40)
    assert two_pieces(X, n_empty=3).theta.numel() == 6
    assert two_pieces(X, sharp=True) is None


def test_networks_are_not_moved():
    X = np.random.default_rng(0).random((60, 2))
    model = POURegressor(2, 1, gate="mlp", max_iter=3)
    with pytest.warns(UserWarning):
        model.fit(X, growing_wave(X))
    mixture = model._mixture(torch.as_tensor(X))
    assert mixture.soft_gates(rows_of(two_pieces(points(60)), points(60))) is None


def test_left_out_errors_to_first_order_are_those_of_a_fit_without_the_rows():
    X = points(60)
    gates = two_pieces(X)
    rows = rows_of(gates, X)
    rows = Rows(X, rows.y + 1e-3 * torch.sin(9 * X[:, :1]), rows.weight, rows.within)
    problem = ProjectedProblem(gates.basis, rows.y, rows.weight)
    fit = levenberg_marquardt(problem, gates.theta, max_iter=100).state
    gates = replace(gates, theta=fit.theta, coef=fit.coef)
    part = np.arange(0, 60, 8)
    descended = gates.without(rows, part).numpy()
    found = left_out_errors(GateRefits(gates, rows), rows, [part]).error
    alone = left_out_errors(residual_makers(gates.basis.matrix(fit.theta)), rows, [part]).error
    far, coefficients_alone = (
        np.linalg.norm(error - descended) / np.linalg.norm(descended) for error in (found, alone)
    )
    assert far < 1e-3 < 0.05 < coefficients_alone


def test_levels_that_are_even_are_left_out_by_descents():
    X = torch.as_tensor(grid(7, 9))
    gates = two_pieces(X)
    rows = rows_of(gates, X)
    rows = Rows(X, rows.y + 1e-3 * torch.sin(9 * X[:, :1]), rows.weight, rows.within)
    sets = [np.arange(k, 63, 8) for k in range(8)]
    sets += [np.flatnonzero(X[:, 0].numpy() == level) for level in np.linspace(0, 1, 7)[1:3]]
    refits = GateRefits(gates, rows)
    found = refits.of_target(0).left_out_errors(rows, sets)
    assert found.refitted and set(refits._descended) == {part.tobytes() for part in sets[8:]}
    assert sum(len(numbers) for numbers in sets_of_levels(found, X.numpy()).values()) == 2
    of_levels = found.group >= 8
    np.testing.assert_array_equal(found.variance[of_levels], found.noise[of_levels])
