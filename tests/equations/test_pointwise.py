"""Slopes of residuals, and their total derivatives along coordinates, against known functions."""

import numpy as np
import pytest
import torch

from skpou.equations.pointwise import Pointwise
from skpou.physics import Constants, Field
from tests.examples import tensor

N = 15
VALUES = [(0, ()), (0, (0,)), (1, ()), (1, (0, 1))]


def coupled(u, x, p):
    """Products of values, derivatives, points and unknowns, in two rows."""
    first = p["a"] * u[0]() * u[1].d(0, 1) + torch.sin(x[:, 0] * x[:, 1])
    second = torch.exp(u[0].d(0)) / (1 + p["b"] ** 2 * x[:, 1] ** 2) - u[1]() ** 3
    return torch.stack([first, second], 1)


def pointwise_of(residual, keys=VALUES, target=None):
    def function(values, x, p):
        def missing(key):
            raise AssertionError(key)

        result = residual(Field(values, missing, (2, 2)), x, p).reshape(len(x), -1)
        return result if target is None else result - target(x)

    return Pointwise(function, tuple(keys), "test")


def points(seed=0):
    return tensor(np.random.default_rng(seed).uniform(0.2, 1.3, (N, 2)))


def solution(x):
    """Two functions of the plane."""
    return [torch.sin(2 * x[:, 0]) * x[:, 1] ** 2, torch.exp(x[:, 0] - 0.5 * x[:, 1])]


def exact(keys, x):
    """Derivatives of the solution by torch."""
    x = x.clone().requires_grad_()
    found = {}
    for output, coordinates in keys:
        value = solution(x)[output]
        for j in coordinates:
            value = torch.autograd.grad(value.sum(), x, create_graph=True)[0][:, j]
        found[output, coordinates] = value.detach()
    return found


def constants(a=0.7, b=-1.3):
    return Constants(a=tensor(a), b=tensor(b))


def random_values(keys, seed=1):
    rng = np.random.default_rng(seed)
    return {key: tensor(rng.standard_normal(N)) for key in keys}


def quotients(pointwise, values, x, p, h=1e-6):
    """Slopes by differences."""
    by_value, by_unknown = {}, {}
    for key in pointwise.keys:
        one, two = (
            pointwise.function({**values, key: values[key] + s * h}, x, p).detach() for s in (1, -1)
        )
        by_value[key] = (one - two) / (2 * h)
    for name in p:
        one, two = (
            pointwise.function(values, x, Constants({**p, name: p[name] + s * h})).detach()
            for s in (1, -1)
        )
        by_unknown[name] = (one - two) / (2 * h)
    return by_value, by_unknown


@pytest.mark.parametrize("along", [(), (0,), (1,), (1, 0)])
def test_slopes_of_a_system_and_of_its_gradients(along):
    pointwise, x, p = pointwise_of(coupled), points(), constants()
    for j in along:
        pointwise = pointwise.along(j)
    values = random_values(pointwise.keys)
    result, by_value, by_unknown = pointwise.linearise(values, x, p)
    torch.testing.assert_close(result, pointwise.function(values, x, p).detach())
    expected = quotients(pointwise, values, x, p)
    assert set(by_value) == set(pointwise.keys)
    assert list(by_unknown) == ["a", "b"]
    for found, other in zip((by_value, by_unknown), expected, strict=True):
        for key, slope in found.items():
            torch.testing.assert_close(slope, other[key], rtol=1e-6, atol=1e-7)
            assert not slope.requires_grad


def along_by_torch(x, p, coordinates, target=None):
    """Residual of the solution as a function of the points, differentiated as a whole."""
    x = x.clone().requires_grad_()

    def ask(key):
        value = solution(x)[key[0]]
        for j in key[1]:
            value = torch.autograd.grad(value.sum(), x, create_graph=True)[0][:, j]
        return value

    result = coupled(Field({}, ask, (2, 2)), x, p)
    result = result if target is None else result - target(x)
    for j in coordinates:
        columns = [
            torch.autograd.grad(column.sum(), x, create_graph=True)[0][:, j]
            for column in result.unbind(1)
        ]
        result = torch.stack(columns, 1)
    return result.detach()


def right_hand_side(x):
    return torch.stack([x[:, 0] ** 3 * x[:, 1], torch.cos(x[:, 1])], 1)


@pytest.mark.parametrize("along", [(0,), (1,), (0, 0), (1, 0), (0, 1, 1)])
@pytest.mark.parametrize("target", [None, right_hand_side])
def test_total_derivatives_follow_the_chain_rule(along, target):
    pointwise, x, p = pointwise_of(coupled, target=target), points(), constants()
    for j in along:
        pointwise = pointwise.along(j)
    values = exact(pointwise.keys, x)
    found = pointwise.linearise(values, x, p)[0]
    torch.testing.assert_close(found, along_by_torch(x, p, along, target), rtol=1e-10, atol=1e-10)


def test_keys_of_a_gradient():
    found = pointwise_of(coupled).along(0)
    further = [(0, (0,)), (0, (0, 0)), (1, (0,)), (1, (0, 0, 1))]
    assert set(found.keys) == {*VALUES, *further}
    assert len(found.keys) == len(set(found.keys))
    assert found.name == "gradient of test"


@pytest.mark.parametrize(
    "residual",
    [
        lambda u, x, p: u[0].d(0),
        lambda u, x, p: x[:, 0] ** 2,
        lambda u, x, p: 0 * x[:, 1] + 3.0,
        lambda u, x, p: p["a"] * torch.ones_like(x[:, 0]),
        lambda u, x, p: torch.full((N,), 2.0, dtype=torch.float64),
    ],
    ids=["value", "points", "zero times", "unknown", "constant"],
)
@pytest.mark.parametrize("along", [False, True])
def test_slopes_of_what_does_not_matter_are_zero(residual, along):
    pointwise, x, p = pointwise_of(residual), points(), constants()
    pointwise = pointwise.along(0) if along else pointwise
    values = random_values(pointwise.keys)
    result, by_value, by_unknown = pointwise.linearise(values, x, p)
    assert result.shape == (N, 1)
    expected = quotients(pointwise, values, x, p)
    for found, other in zip((by_value, by_unknown), expected, strict=True):
        for key, slope in found.items():
            torch.testing.assert_close(slope, other[key], rtol=1e-7, atol=1e-8)


def test_every_point_is_on_its_own():
    pointwise, x, p = pointwise_of(coupled).along(1), points(), constants()
    values = random_values(pointwise.keys)
    whole = pointwise.linearise(values, x, p)
    order = torch.tensor([7, 2, 2, 11])
    part = pointwise.linearise({k: v[order] for k, v in values.items()}, x[order], p)
    torch.testing.assert_close(part[0], whole[0][order])
    for found, expected in zip(part[1:], whole[1:], strict=True):
        for key, slope in found.items():
            torch.testing.assert_close(slope, expected[key][order])


@pytest.mark.parametrize("grad", [False, True])
def test_nothing_is_left_behind_on_the_arguments(grad):
    pointwise, x, p = pointwise_of(coupled), points(), constants()
    values = random_values(pointwise.keys)
    with torch.set_grad_enabled(grad):
        result, _, _ = pointwise.linearise(values, x, p)
    assert not result.requires_grad
    assert not x.requires_grad
    assert not any(part.requires_grad for part in (*values.values(), *p.values()))
