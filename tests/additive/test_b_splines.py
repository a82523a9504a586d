"""Splines of one column: partition of unity, order of smoothness, straight ends, transforms."""

import numpy as np
import pytest
import torch

from skpou.additive.b_splines import (
    EXTENSION,
    SplineColumn,
    bspline_matrix,
    choose_knots,
    fit_column,
    likeliest_exponent,
    smooth_order,
    yeo_johnson,
    yeo_johnson_slope,
)
from skpou.additive.spline_columns import SplineColumns
from tests.contracts import same_bits


def tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=float))


def coordinate_of(column, x):
    return SplineColumns([column]).coordinates(x[:, None])[:, 0]


def functions_of(column, x):
    splines = SplineColumns([column])
    return splines.functions(splines.coordinates(x[:, None]))[0]


def slopes_of(column, x):
    splines, X = SplineColumns([column]), x[:, None]
    return splines.slopes(splines.coordinates(X), splines.coordinate_slopes(X))[0]


def skewed(n=200, seed=0):
    return tensor(np.random.default_rng(seed).gamma(1.0, size=n))


def with_ends(inner):
    inner = tensor(inner)
    return torch.cat([inner[:1].expand(3), inner, inner[-1:].expand(3)])


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_power_transform_against_its_definition(exponent):
    z = np.array([-3.0, -0.5, -1e-9, 0.0, 1e-9, 0.7, 4.0])
    up = np.log1p(z.clip(0)) if exponent == 0 else ((1 + z.clip(0)) ** exponent - 1) / exponent
    other, size = 2 - exponent, 1 - z.clip(None, 0)
    down = -np.log(size) if other == 0 else -(size**other - 1) / other
    expected = np.where(z >= 0, up, down)
    np.testing.assert_allclose(yeo_johnson(tensor(z), exponent), expected, rtol=1e-7, atol=1e-15)
    h = 1e-6
    difference = (yeo_johnson(tensor(z) + h, exponent) - yeo_johnson(tensor(z) - h, exponent)) / 2
    np.testing.assert_allclose(yeo_johnson_slope(tensor(z), exponent), difference / h, rtol=1e-6)


def test_exponent_makes_a_column_gaussian():
    z = skewed(2000).log()
    z = (z - z.mean()) / z.std()
    share = torch.full((2000,), 1 / 2000, dtype=torch.float64)
    normal = tensor(np.random.default_rng(1).standard_normal(2000))
    assert abs(likeliest_exponent(normal, share) - 1) <= 0.25
    bent = torch.expm1(normal / 2)  # its inverse is the logarithm, exponent 0
    t = yeo_johnson(bent, likeliest_exponent(bent, share))
    t = (t - t.mean()) / t.std()
    assert abs(float((t**3).mean())) < 0.3


@pytest.mark.parametrize("inner", [[0, 1], [0, 0.1, 0.5, 2], list(range(9))])
def test_bsplines_are_a_partition_of_unity(inner):
    knots = with_ends(inner)
    t = torch.linspace(float(knots[0]), float(knots[-1]), 101, dtype=torch.float64)
    B = bspline_matrix(t, knots)
    assert B.shape == (101, len(inner) + 2)
    assert (B >= -1e-15).all()
    np.testing.assert_allclose(B.sum(1), 1, rtol=1e-14)
    for derivative in (1, 2):
        np.testing.assert_allclose(bspline_matrix(t, knots, derivative).sum(1), 0, atol=1e-9)


def test_bsplines_reproduce_cubics_and_their_derivatives():
    knots = with_ends([0.0, 0.3, 0.45, 1.0])
    t = torch.linspace(0, 1, 40, dtype=torch.float64)
    B = bspline_matrix(t, knots)
    for power in range(4):
        coef = torch.linalg.pinv(B) @ t**power
        np.testing.assert_allclose(B @ coef, t**power, atol=1e-12)
        slope = power * t ** max(power - 1, 0)
        np.testing.assert_allclose(bspline_matrix(t, knots, 1) @ coef, slope, atol=1e-10)
        bend = power * (power - 1) * t ** max(power - 2, 0)
        np.testing.assert_allclose(bspline_matrix(t, knots, 2) @ coef, bend, atol=1e-8)


def test_knots_are_the_values_where_these_are_few():
    values = [0.0, 0.0, 1.0, 5.0, 1.0, 0.0]
    np.testing.assert_array_equal(choose_knots(tensor(values), 10), [0, 1, 5])
    many = choose_knots(skewed(), 8)
    assert len(many) == 8
    mostly_zero = torch.cat([torch.zeros(95, dtype=torch.float64), tensor([1, 2, 3, 4, 5])])
    assert len(choose_knots(mostly_zero, 5)) >= 4


def test_functions_are_centred_orthonormal_and_ever_rougher():
    x = skewed()
    weight = tensor(np.random.default_rng(2).integers(1, 4, len(x)))
    column = fit_column(x, weight, 10, transform=False)
    values = functions_of(column, x)
    share = weight / weight.sum()
    np.testing.assert_allclose(share @ values, 0, atol=1e-12)
    gram = values.T @ (share[:, None] * values)
    np.testing.assert_allclose(gram, np.eye(10), atol=1e-8)
    roughness = smooth_order(coordinate_of(column, x), share, column.knots)[1]
    assert roughness[0] == 0
    assert (roughness.diff() > 0).all()
    line = values[:, 0]
    t = coordinate_of(column, x)
    np.testing.assert_allclose(line, (t - share @ t) / (share @ (t - share @ t) ** 2).sqrt())


@pytest.mark.parametrize("transform", [False, True])
def test_ends_are_straight_then_constant(transform):
    x = skewed()
    column = fit_column(x, torch.ones_like(x), 6, transform)
    t = torch.linspace(-6, 6, 400, dtype=torch.float64)
    low, high = float(column.knots[0]), float(column.knots[-1])
    # Back from coordinates to values, by bisection of the monotone map
    below, above = torch.full_like(t, -1e6), torch.full_like(t, 1e6)
    for _ in range(200):
        middle = 0.5 * (below + above)
        z = yeo_johnson((middle - column.centre) / column.width, column.exponent)
        less = (z - column.shift) / column.spread < t
        below, above = torch.where(less, middle, below), torch.where(less, above, middle)
    values = functions_of(column, 0.5 * (below + above))
    reach = EXTENSION * (high - low)
    straight = (t > high) & (t < min(high + reach, 4))
    if int(straight.sum()) > 3:
        np.testing.assert_allclose(values[straight].diff(n=2, dim=0), 0, atol=1e-6)
    constant = t > min(high + reach, 4)
    np.testing.assert_allclose(values[constant].diff(dim=0), 0, atol=1e-9)


@pytest.mark.parametrize(("values", "n_functions"), [([0, 1, 1, 0], 1), ([0, 1, 2, 2], 2)])
def test_columns_of_few_values_have_few_functions(values, n_functions):
    x = tensor(values)
    column = fit_column(x, torch.ones_like(x), 12, True)
    assert column.n_functions == n_functions
    assert torch.isfinite(functions_of(column, x)).all()


@pytest.mark.parametrize("transform", [False, True])
def test_slopes_against_differences_and_state_as_arrays(transform):
    x = skewed()
    column = fit_column(x, torch.ones_like(x), 8, transform)
    points = torch.linspace(-1, 20, 300, dtype=torch.float64)
    h = 1e-6
    difference = (functions_of(column, points + h) - functions_of(column, points - h)) / (2 * h)
    np.testing.assert_allclose(slopes_of(column, points), difference, atol=1e-5)
    again = SplineColumn.from_arrays(column.arrays(), x)
    assert same_bits(functions_of(again, points), functions_of(column, points))
