"""Equations that `tests.fuzz_data` puts into fits of odd data."""

from skpou.physics import Equation, Unknown


def falling(u, x):
    """Du/dx_0 = -u, in whatever units."""
    return u.d(0) + u()


def bent(u, x, p):
    """Du/dx_0 = c u^2, c unknown."""
    return u.d(0) - p["c"] * u() ** 2


#: Equations; those of networks and sines take few steps, all of them few points.
EQUATIONS = [
    {"physics": Equation(falling, "sobol", n_points=50)},
    {
        "physics": Equation(bent, "chebyshev", n_points=50),
        "unknowns": {"c": Unknown(0.5, (-3.0, 3.0))},
    },
]
SOLVERS = {
    "HierarchicalPOURegressor": {"n_partitions": 2, "degree": 3},
    "LSGDRegressor": {"max_iter": 5},
    "MultiStageRegressor": {"n_stages": 1, "max_iter": 5},
}
#: Most columns of a case with equations.
COLUMNS_OF_EQUATIONS = 2
