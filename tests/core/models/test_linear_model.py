"""Linear models: mean, gradient, posterior, state."""

import numpy as np
import pytest
import torch

from skpou.additive.basis import Block, spline_basis
from skpou.core.fourier import FourierProducts
from skpou.core.models.linear_model import BASES, LinearModel, Stage, mean_slope, model_of_stages
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.multi_stage.families.grid import GridColumns
from skpou.multi_stage.families.local import LocalColumns
from skpou.multi_stage.families.pieces import PieceColumns
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkBasis
from skpou.search.bases.cubic_splines import CubicSplines
from skpou.search.bases.polyharmonic import PolyharmonicSplines
from skpou.search.bases.units import UnitBasis, Units
from skpou.search.bases.warped import WarpedBasis
from skpou.sines.features import SineFeatures
from skpou.sines.symmetric import SymmetricFeatures
from tests.examples import tensor


def bases(rng):
    network = Network(2, (3,))
    units = Units(torch.tensor([0, 2]), tensor(rng.random((2, 2))), tensor(rng.random(2)))
    return [
        NetworkBasis(network, tensor(rng.standard_normal(network.n_parameters))),
        TotalDegreePolynomials(2, 2),
        SineFeatures(tensor(rng.standard_normal((3, 2))), tensor(rng.random(3))),
        UnitBasis(units, 2, tensor([0.5, 2.0])),
        PolyharmonicSplines(tensor(rng.random((3, 2))), tensor([1.0, 0.5]), 3, 0.5),
        SymmetricFeatures(
            SineFeatures(tensor(rng.standard_normal((3, 2))), tensor(rng.random(3))),
            [],
            torch.arange(5),
        ),
        SineFeatures(tensor(rng.standard_normal((3, 2))), tensor(rng.random(3)), degree=3),
        splines(tensor(rng.random((20, 2)))),
        FourierProducts(2, 2),
        WarpedBasis(TotalDegreePolynomials(2, 2), tensor([0.1, torch.inf])),
    ]


def splines(X):
    basis = spline_basis(X, torch.ones(len(X)).double(), 4, False)
    return basis.with_blocks([Block((0,), (0,), (4,)), Block((0, 1), (0, 0), (2, 2))])


def make_model(count=4, m=2, seed=0):
    rng = np.random.default_rng(seed)
    stages = []
    for basis in bases(rng)[:count]:
        q = basis.posterior_columns(tensor([[0.5, 0.5]])).shape[1]
        factor = np.triu(rng.standard_normal((q, q))) + 4 * np.eye(q)
        coef = tensor(rng.standard_normal((basis.n_columns, m)))
        stages.append(Stage(basis, coef, tensor(factor)))
    return LinearModel(tuple(stages), tensor([0.3, 2.0][:m]), tensor([1.0, 5.0][:m]))


POINTS = tensor(np.random.default_rng(5).random((7, 2)))


def test_every_kind_of_basis_is_tried():
    # Splines of one column, grids, neighbours, and pieces, which jump, have tests of their own.
    others = {CubicSplines, GridColumns, LocalColumns, PieceColumns}
    found = {type(basis) for basis in bases(np.random.default_rng(0))}
    assert found == set(BASES.values()) - others


def test_mean_is_the_sum_of_the_stages():
    model = make_model()
    expected = sum(stage.basis.matrix(POINTS) @ stage.coef for stage in model.stages)
    torch.testing.assert_close(model.mean(POINTS), expected)


def test_gradient_against_differences():
    model, step = make_model(), 1e-6
    gradient = model.gradient(POINTS)
    for feature in range(2):
        shift = step * torch.eye(2, dtype=torch.float64)[feature]
        difference = (model.mean(POINTS + shift) - model.mean(POINTS - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, feature], difference, rtol=1e-6, atol=1e-7)


def test_posterior_against_the_inverse():
    model = make_model(count=1)
    stage = model.stages[0]
    A, R = stage.basis.matrix(POINTS), stage.factor
    variance = (A @ torch.linalg.inv(R.T @ R) * A).sum(1)
    torch.testing.assert_close(model.epistemic(POINTS), variance[:, None] * model.noise)


def test_outside_the_box_the_slope_takes_over():
    model = make_model()
    edge, outside = tensor([[1.0, 0.5]]), tensor([[3.0, 0.5]])
    more = model.epistemic(outside) - model.epistemic(edge)
    # Where the polynomials are steeper than the mean at the data, their slope.
    polynomials = LinearModel(model.stages[1:2], model.noise, model.slope).gradient(outside)
    steepness = torch.maximum(model.slope.square(), polynomials.square().sum(1))
    torch.testing.assert_close(more, 4 * steepness)


def test_bars_hold_a_polynomial_that_runs_away():
    basis = TotalDegreePolynomials(1, 3)
    coef = tensor([[0.0], [0.1], [0.0], [1.0]])
    factor = 1e6 * torch.eye(4, dtype=torch.float64)
    model = LinearModel((Stage(basis, coef, factor),), tensor([1e-8]), tensor([1.0]))
    edge, far = tensor([[1.0]]), tensor([[4.0]])
    run = (model.mean(far) - model.mean(edge)).abs()
    assert float(model.epistemic(far).sqrt()) > float(run)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_state_survives_arrays(dtype):
    model = make_model()
    other = LinearModel.from_arrays(model.arrays(), POINTS)
    points = POINTS.to(dtype)
    one, two = (vars(m.components(points)) for m in (model, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert other.mean(points).dtype == dtype


def test_slope_is_the_root_mean_square_of_the_gradient():
    model, weight = make_model(), tensor(np.arange(1, 8))
    squares = model.gradient(POINTS).square().sum(1)
    expected = ((weight[:, None] * squares).sum(0) / weight.sum()).sqrt()
    torch.testing.assert_close(mean_slope(model, POINTS, weight), expected)
    done = model_of_stages(model.stages, model.noise, POINTS, weight)
    torch.testing.assert_close(done.slope, expected)


def test_no_columns():
    model = make_model()
    assert model.gradient(POINTS[:, :0]).shape == (7, 0, 2)
