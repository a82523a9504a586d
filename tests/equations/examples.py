"""Systems with known answers, in boxes and units of their own, for the tests of equations."""

import numpy as np
import torch

from skpou.core.rows import Rows
from skpou.core.scaling import Scaling
from skpou.equations.collocation import CollocationSystem
from skpou.equations.problem import compile_problem
from skpou.physics import Equation, Unknown
from skpou.sines.spectrum import Spectrum
from tests.examples import tensor

UNKNOWNS = {"a": Unknown(0.5), "b": Unknown(2.0, (1.0, 4.0))}


def coupled(u, x, p):
    """Two equations of two outputs, with products of everything."""
    first = p["a"] * u[0]() * u[1].d(0) + torch.sin(x[:, 1]) * u[0].d(1, 0)
    second = u[1].d(1, 1) - p["b"] * u[1]() ** 2 * x[:, 0]
    return torch.stack([first, second], 1)


def decay(u, x, p):
    return u.d(0) + u()


def decays(u, x, p):
    """The same for each of two outputs."""
    return torch.stack([u[0].d(0) + u[0](), u[1].d(0) + u[1]()], 1)


def units(low, high, mean, scale):
    """A box and units of the targets."""
    low, high = tensor(low), tensor(high)
    return Scaling(torch.arange(len(low)), low, high - low, tensor(mean), tensor(scale))


PLANE = units([1.0, -2.0], [4.0, 0.5], [0.3, -4.0], [2.0, 0.1])
LINE = units([0.0], [1.0], [0.0], [1.0])
LINES = units([0.0], [1.0], [0.0, 0.0], [1.0, 1.0])


def points_in(scaling, n, seed=0):
    low, width = scaling.offset.numpy(), scaling.width.numpy()
    return low + width * np.random.default_rng(seed).random((n, len(low)))


def random_rows(n, d=1, m=1, seed=0):
    rng = np.random.default_rng(seed)
    parts = rng.random((n, d)), rng.standard_normal((n, m)), rng.uniform(0.5, 3, n)
    X, y, weight = map(tensor, parts)
    return Rows(X, y, weight, torch.zeros_like(y))


def sines(d, n_sines=5, bandwidth=3.0, seed=0):
    return Spectrum("flat", bandwidth, (1.0,) * d).draw(n_sines, seed, tensor([0.0]))


def system_of(equations, scaling=LINE, unknowns=None, rows=None, n_sines=5, before=()):
    """A system at all points of some equations."""
    d, m = len(scaling.width), len(scaling.mean)
    equations = [equations] if isinstance(equations, Equation) else equations
    problem = compile_problem(equations, unknowns or {}, scaling, d, seed=0)
    rows = random_rows(12, d, m) if rows is None else rows
    return CollocationSystem(sines(d, n_sines), rows, problem.terms, problem, before)


def coupled_system(before=(), **options):
    equation = Equation(coupled, points_in(PLANE, 30), **options)
    rows = random_rows(12, 2, 2)
    return system_of(equation, PLANE, UNKNOWNS, rows, before=before)


def random_state(system, seed=0):
    """Coefficients and unknowns."""
    rng = np.random.default_rng(seed)
    shape = system.n_columns, system.n_outputs
    q = len(system.problem.unknowns)
    return tensor(rng.standard_normal(shape) / 3), tensor(rng.uniform(1, 2, q))
