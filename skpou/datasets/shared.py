"""What the generators share: parameters, points and noise."""

import numpy as np
from sklearn.utils import check_array

from skpou.base import COUNT, NOT_NEGATIVE, validate_params

#: Boltzmann constant (J/K) and elementary charge (C) of CODATA 2014, which ngspice 39 uses, and 27
#: degrees Celsius in kelvin.
BOLTZMANN, CHARGE, TEMPERATURE = 1.38064852e-23, 1.6021766208e-19, 300.15

_PARAMETERS = """Parameters
    ----------
    n_samples : int, default=1000
        Number of points drawn, at least 1.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise on `y`, in units of `y`, at least 0.
    random_state : int, RandomState instance or None, default=None
        Source of the points and the noise.
    X : array-like of shape (n, %(d)s), default=None
        Points to evaluate at instead of drawing; `n_samples` is then ignored."""
_RETURNS = """Returns
    -------
    X : ndarray of shape (n, %(d)s)
        Points, float64."""
_RAISES = """Raises
    ------
    ValueError
        If a parameter is out of its range or `X` has another shape."""


def generator(n_features, **own):
    """Check the shared parameters and a generator's `own` when called; complete its docstring."""
    constraints = {
        "n_samples": [COUNT],
        "noise": [NOT_NEGATIVE],
        "random_state": ["random_state"],
        "X": ["array-like", None],
    } | own
    shared = {
        "parameters": _PARAMETERS % {"d": n_features},
        "returns": _RETURNS % {"d": n_features},
        "raises": _RAISES,
    }

    def decorate(function):
        if function.__doc__:  # stripped under python -OO
            function.__doc__ %= shared
        return validate_params(constraints, prefer_skip_nested_validation=True)(function)

    return decorate


def points(X, n_samples, rng, low, high, n_features=1):
    """Return the given points as float64, checked, or draw them uniformly from a box."""
    if X is None:
        return rng.uniform(low, high, size=(n_samples, n_features))
    X = check_array(X, dtype=np.float64, input_name="X")
    if X.shape[1] != n_features:
        raise ValueError(f"X must have shape (n, {n_features}), got {X.shape}.")
    return X


def noisy(y, noise, rng):
    """Add Gaussian noise; a clean target is returned untouched."""
    return y + noise * rng.standard_normal(y.shape) if noise else y
