"""Functions and labels of the papers; see the door for the sources."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skpou.base import COUNT, NOT_NEGATIVE, StrOptions
from skpou.datasets.shared import BOLTZMANN, CHARGE, TEMPERATURE, generator, noisy, points


def _bump(x):
    return np.exp(-0.5 * ((x - 0.5) / 0.05) ** 2)


def _triangle(z):
    """Triangle wave of period 1: -1 at the integers, 0 halfway between them."""
    return 2 * np.abs(z - np.floor(z + 0.5)) - 1


def _quadratic_wave(z, printed):
    """Square of the triangle wave, or the form printed with the 1 inside the bars."""
    if printed:
        return (2 * np.abs(z - np.floor(z + 0.5) - 1)) ** 2
    return _triangle(z) ** 2


@generator(1)
def make_bump(n_samples=1000, *, noise=0.0, random_state=None, X=None) -> Any:
    """Generate the Gaussian bump ``exp(-((x - 0.5) / 0.05)**2 / 2)`` on [0, 1].

    The target of Sec. 5.1 of Trask et al. (MSML 2022), first display.

    %(parameters)s

    %(returns)s
    y : ndarray of shape (n,)
        Target, in (0, 1] without noise.

    %(raises)s

    Examples
    --------
    >>> from skpou.datasets import make_bump
    >>> make_bump(X=[[0.5]])[1]
    array([1.])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, 0.0, 1.0)
    return X, noisy(_bump(X[:, 0]), noise, rng)


@generator(1)
def make_sine_bump(n_samples=1000, *, noise=0.0, random_state=None, X=None) -> Any:
    """Generate a sine with a narrow Gaussian bump on [0, 1].

    ``sin(2 pi x) + exp(-((x - 0.5) / 0.05)**2 / 2)``, Eq. 45 of Trask et al. (MSML 2022).

    %(parameters)s

    %(returns)s
    y : ndarray of shape (n,)
        Target, about -1 to 1.05 without noise.

    %(raises)s

    Examples
    --------
    >>> from skpou.datasets import make_sine_bump
    >>> make_sine_bump(X=[[0.25]])[1].round(3)
    array([1.])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, 0.0, 1.0)
    return X, noisy(np.sin(2 * np.pi * X[:, 0]) + _bump(X[:, 0]), noise, rng)


@generator(1, n_pieces=[COUNT], printed=["boolean"])
def make_piecewise_quadratic(
    n_samples=1000, *, noise=0.0, random_state=None, X=None, n_pieces=5, printed=False
) -> Any:
    """Generate a continuous wave of parabolas on [0, 1], kinked at the integers of ``p x``.

    ``(2 |z - floor(z + 1/2)| - 1)**2`` with ``z = p x``, Eq. 46 of Trask et al. (MSML 2022) with
    the 1 outside the bars, where Eq. 23 of Lee et al. (AAAI-MLPS 2021, talk) has it: ``p`` pieces,
    for ``p = 1`` the single parabola ``(2 x - 1)**2``.

    %(parameters)s
    n_pieces : int, default=5
        Number of parabolas ``p``, at least 1.
    printed : bool, default=False
        Whether to take Eq. 46 as printed, ``(2 |z - floor(z + 1/2) - 1|)**2``. It ranges over
        (1, 9] and jumps at the half-integers of ``p x``: ``p + 1`` pieces.

    %(returns)s
    y : ndarray of shape (n,)
        Target, in [0, 1] (printed: (1, 9]) without noise.

    %(raises)s

    Examples
    --------
    >>> from skpou.datasets import make_piecewise_quadratic
    >>> make_piecewise_quadratic(n_pieces=2, X=[[0.0], [0.25], [0.5]])[1]
    array([1., 0., 1.])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, 0.0, 1.0)
    return X, noisy(_quadratic_wave(n_pieces * X[:, 0], printed), noise, rng)


@generator(2, kind=[StrOptions({"smooth", "kinked"})], printed=["boolean"])
def make_curved_ridge(
    n_samples=1000, *, noise=0.0, random_state=None, X=None, kind="smooth", printed=False
) -> Any:
    """Generate a wave across the parabolas ``s = x2 - (x1 - 1/2)**2`` on the unit square.

    Sec. 5.3 of Trask et al. (MSML 2022): ``sin(2 pi s)`` (Eq. 47, smooth) or the piecewise
    quadratic wave of ``4 s`` (Eq. 48, kinked, five pieces), the latter with the 1 outside the bars
    as in :func:`make_piecewise_quadratic`.

    %(parameters)s
    kind : {"smooth", "kinked"}, default="smooth"
        Eq. 47 or Eq. 48.
    printed : bool, default=False
        Whether to take Eq. 48 as printed, which jumps and has six pieces; only with "kinked".

    %(returns)s
    y : ndarray of shape (n,)
        Target, in [-1, 1] (smooth), [0, 1] (kinked) or (1, 9] (printed) without noise.

    %(raises)s
        Also if `printed` is set for "smooth".

    Examples
    --------
    >>> from skpou.datasets import make_curved_ridge
    >>> make_curved_ridge(kind="kinked", X=[[0.5, 0.125], [0.5, 0.25]])[1]
    array([0., 1.])
    """
    if printed and kind == "smooth":
        raise ValueError("printed=True has no meaning for kind='smooth': Eq. 47 has no misprint.")
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, 0.0, 1.0, 2)
    s = X[:, 1] - (X[:, 0] - 0.5) ** 2
    y = np.sin(2 * np.pi * s) if kind == "smooth" else _quadratic_wave(4 * s, printed)
    return X, noisy(y, noise, rng)


# Silicon diode: saturation current, knee of high-level injection, recombination current (A),
# series resistance (ohm).
_IS, _IKF, _ISR, _RS = 2.52e-14, 0.05, 1e-16, 0.568
# Its emission coefficients times the thermal voltage k T / q (V).
_N_VT, _NR_VT = (n * BOLTZMANN * TEMPERATURE / CHARGE for n in (1.15, 2.0))
# What SPICE adds to the square of the depletion region's voltage, which vanishes at 1 V, and half
# the grading coefficient 1/2 of an abrupt junction.
_NO_DEPLETION, _GRADING = 0.005, 0.25
# Newton steps, of which about ten are taken, and the last one in the logarithm of the current: they
# converge quadratically, so that what is left of such a step is rounding.
_MOST_STEPS, _LAST_STEP = 100, 1e-8
# Of a Swiss roll: first and last angle, and height.
_ROLL, _ROLL_HEIGHT = (1.5 * np.pi, 4.5 * np.pi), 3


def _log_junction_current(u):
    """Logarithm of the current at junction voltages ``u > 0`` and its derivative in ``u``."""
    # In logarithms throughout: no overflow at any voltage, full relative accuracy at 1e-14 A.
    log_ideal = np.log(_IS) + u / _N_VT + np.log(-np.expm1(-u / _N_VT))
    log_ratio = (log_ideal - np.log(_IKF)) / 2
    diffusion = log_ideal - np.logaddexp(0, log_ratio)
    d_diffusion = (1 - 0.5 / (1 + np.exp(-log_ratio))) / (-_N_VT * np.expm1(-u / _N_VT))
    depletion = (1 - u) ** 2 + _NO_DEPLETION
    recombination = np.log(_ISR) + u / _NR_VT + np.log(-np.expm1(-u / _NR_VT))
    recombination += _GRADING * np.log(depletion)
    d_recombination = -1 / (_NR_VT * np.expm1(-u / _NR_VT)) - 0.5 * (1 - u) / depletion
    total = np.logaddexp(diffusion, recombination)
    share = np.exp(recombination - total)
    return total, (1 - share) * d_diffusion + share * d_recombination


def _log_diode_current(voltage):
    """Solve ``l = log I_junction(V - R exp(l))`` by Newton steps kept inside a bracket."""
    # The root lies below both the current without resistance and that of the resistance alone; at
    # half the voltage the same two bounds are on its other side.
    low, high = (
        np.minimum(_log_junction_current(u)[0], np.log(u / _RS)) for u in (voltage / 2, voltage)
    )
    log_current = low.copy()
    for _ in range(_MOST_STEPS):
        drop = _RS * np.exp(log_current)
        junction, slope = _log_junction_current(voltage - drop)
        residual = log_current - junction
        low = np.where(residual <= 0, log_current, low)
        high = np.where(residual > 0, log_current, high)
        step = -residual / (1 + slope * drop)
        moved = log_current + step
        outside = (moved < low) | (moved > high)
        moved = np.where(outside, (low + high) / 2, moved)
        converged = np.all(np.abs(moved - log_current) < _LAST_STEP)
        log_current = moved
        if converged:
            break
    return log_current


@generator(1, log=["boolean"])
def make_diode(n_samples=1000, *, noise=0.0, random_state=None, X=None, log=True) -> Any:
    """Generate the forward current of a silicon diode with series resistance.

    The task of Sec. 5.4 of Trask et al. (MSML 2022), on SPICE's diode model at 27 degrees Celsius:
    ``I = I_D / (1 + sqrt(I_D / IKF)) + I_R`` with ``I_D = IS (exp((V - I RS) / (N Vt)) - 1)`` and
    the recombination current ``I_R`` (0.2 %% of I at 0.01 V, 1e-8 of it at 1.2 V); IS = 2.52e-14 A,
    N = 1.15, RS = 0.568 ohm, IKF = 0.05 A, ISR = 1e-16 A, NR = 2. Solved to round-off by Newton
    steps in log I; ngspice 39 gives the same to 1.4e-8 relative over all 13 decades. The points
    are voltages, in volt: drawn from [0.01, 1.208], given ones positive.

    %(parameters)s
    log : bool, default=True
        Whether `y` is the decimal logarithm of the current in ampere (decades) or the current (A).

    %(returns)s
    y : ndarray of shape (n,)
        Values of log10(I / A), in [-14, -0.38], or I in ampere, in [1e-14, 0.42], without noise.

    %(raises)s
        Also if a voltage is not positive.

    Examples
    --------
    >>> from skpou.datasets import make_diode
    >>> make_diode(X=[[0.6], [1.2]], log=False)[1].round(7)
    array([1.430000e-05, 4.007177e-01])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, 0.01, 1.208)
    if X.min() <= 0:
        raise ValueError(f"X must hold positive voltages (forward bias), got {X.min()} V.")
    log_current = _log_diode_current(X[:, 0])
    y = log_current / np.log(10) if log else np.exp(log_current)
    return X, noisy(y, noise, rng)


@generator(2)
def make_cross(n_samples=1000, *, noise=0.0, random_state=None, X=None) -> Any:
    """Generate a sine along both arms of a cross, a one-dimensional manifold in the plane.

    ``sin(2 pi x1)`` where ``x2 = 0`` and ``sin(2 pi x2)`` where ``x1 = 0``, in [-1, 1]^2: the
    smooth example of Lee et al. (AAAI-MLPS 2021, display before Eq. 23 of the talk). Half of the
    points (the larger half of an odd number) are drawn on the first axis; given points must have a
    zero coordinate each.

    %(parameters)s

    %(returns)s
    y : ndarray of shape (n,)
        Target, in [-1, 1] without noise.

    %(raises)s
        Also if a point of `X` lies off the cross.

    Examples
    --------
    >>> from skpou.datasets import make_cross
    >>> make_cross(X=[[0.25, 0.0], [0.0, -0.25]])[1]
    array([ 1., -1.])
    """
    rng = check_random_state(random_state)
    if X is None:
        position = rng.uniform(-1, 1, n_samples)
        on_second = rng.permutation(n_samples) >= (n_samples + 1) // 2
        X = np.column_stack([position * ~on_second, position * on_second])
    X = points(X, n_samples, rng, -1.0, 1.0, 2)
    off = np.flatnonzero(X.all(axis=1))
    if off.size:
        raise ValueError(f"X must lie on the axes; row {off[0]} is {X[off[0]].tolist()}.")
    return X, noisy(np.sin(2 * np.pi * X.sum(axis=1)), noise, rng)


@generator(1, frequency=[COUNT], squared=["boolean"])
def make_triangle_wave(
    n_samples=1000, *, noise=0.0, random_state=None, X=None, frequency=4, squared=False
) -> Any:
    """Generate a triangle wave or its square on [0, 1].

    ``TRI(x; p) = 2 |p x - floor(p x + 1/2)| - 1``, Eq. 23 of Lee et al. (AAAI-MLPS 2021, talk):
    ``p`` periods of two linear pieces; its square has ``p`` parabolas. So 2^k pieces need the
    frequency 2^(k - 1), squared 2^k.

    %(parameters)s
    frequency : int, default=4
        Number of periods ``p`` on [0, 1], at least 1.
    squared : bool, default=False
        Whether to return the piecewise quadratic square.

    %(returns)s
    y : ndarray of shape (n,)
        Target, in [-1, 0] ([0, 1] squared) without noise.

    %(raises)s

    Examples
    --------
    >>> from skpou.datasets import make_triangle_wave
    >>> make_triangle_wave(frequency=2, X=[[0.0], [0.125], [0.25]])[1]
    array([-1. , -0.5,  0. ])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, 0.0, 1.0)
    y = _triangle(frequency * X[:, 0])
    return X, noisy(y**2 if squared else y, noise, rng)


@generator(1)
def make_multiscale(n_samples=1000, *, noise=0.0, random_state=None, X=None) -> Any:
    """Generate the target of the multi-stage networks, ``sin(2 x + 1) + 0.2 exp(1.3 x)``.

    On [-1, 1]: Eq. 2 of the lecture on Wang and Lai (J. Comput. Phys. 2024), there with 300 points.

    %(parameters)s

    %(returns)s
    y : ndarray of shape (n,)
        Target, about -0.79 to 1.3 without noise.

    %(raises)s

    Examples
    --------
    >>> from skpou.datasets import make_multiscale
    >>> make_multiscale(X=[[-0.5]])[1].round(6)
    array([0.104409])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, -1.0, 1.0)
    x = X[:, 0]
    return X, noisy(np.sin(2 * x + 1) + 0.2 * np.exp(1.3 * x), noise, rng)


@generator(3, point_noise=[NOT_NEGATIVE], response=[StrOptions({"scaled", "printed", "height"})])
def make_swiss_roll(
    n_samples=1000, *, noise=0.0, random_state=None, X=None, point_noise=0.0, response="scaled"
) -> Any:
    """Generate a regression problem on the Swiss roll ``(t cos t, h, t sin t)``.

    Sec. 3.3.2 of Zhang (2021): t uniform on [3 pi/2, 9 pi/2], h on [0, 3]. The thesis has 8000
    points and both noises 0.1, under which its mean squared error of 4e-4 is out of reach. Given
    points are not displaced; on them t is ``hypot(x1, x3)``.

    %(parameters)s
    point_noise : float, default=0.0
        Standard deviation of the displacement of the drawn points, in units of `X`, at least 0.
    response : {"scaled", "printed", "height"}, default="scaled"
        "scaled": ``sin(5 pi s) + h**2``, ``s = t / (3 pi) - 1/2`` in [0, 1] along the roll;
        "printed": ``sin(5 pi t) + h**2``, 23.6 periods; "height": the square of the recorded
        (displaced) second column, with which the errors in the thesis agree best.

    %(returns)s
    y : ndarray of shape (n,)
        Target, in [-1, 10] without noise ("height": [0, 9] also without displacement).

    %(raises)s

    Examples
    --------
    >>> import numpy as np
    >>> from skpou.datasets import make_swiss_roll
    >>> make_swiss_roll(X=[[0.0, 2.0, -1.5 * np.pi], [0.0, 2.0, -3.5 * np.pi]])[1].round(3)
    array([4.   , 3.134])
    """
    rng = check_random_state(random_state)
    displaced = X is None
    if X is None:
        t, h = rng.uniform(*_ROLL, n_samples), rng.uniform(0, _ROLL_HEIGHT, n_samples)
        X = np.column_stack([t * np.cos(t), h, t * np.sin(t)])
    X = points(X, n_samples, rng, 0.0, 1.0, 3)
    t, h = np.hypot(X[:, 0], X[:, 2]), X[:, 1]
    if displaced:
        X = noisy(X, point_noise, rng)
    if response == "height":
        y = X[:, 1] ** 2
    else:
        y = np.sin(5 * np.pi * (t / (3 * np.pi) - 0.5 if response == "scaled" else t)) + h**2
    return X, noisy(y, noise, rng)


def _moon_log_density(X, moon, noise):
    """Log density, up to a constant, of points spread by `noise` around a half circle."""
    # Both moons look alike from their own centre once the lower one is turned over.
    x, z = (X[:, 0], X[:, 1]) if moon == 0 else (1 - X[:, 0], 0.5 - X[:, 1])
    density = np.full(len(x), -np.inf)
    noise = max(noise, 0.01)  # the rule hardly moves below, and quadrature needs ever more nodes
    n_nodes = int(np.ceil(max(64, 8 * np.pi / noise)))
    for angle in np.pi * (np.arange(n_nodes) + 0.5) / n_nodes:
        squares = (x - np.cos(angle)) ** 2 + (z - np.sin(angle)) ** 2
        density = np.logaddexp(density, -squares / (2 * noise**2))
    return density


@generator(3)
def make_two_moons_3d(n_samples=1000, *, noise=0.0, random_state=None, X=None) -> Any:
    """Generate two interleaved half circles with a third, uninformative coordinate.

    Sec. 3.4.2 of Zhang (2021): the points ``(cos a, sin a)`` (class 0) and ``(1 - cos a,
    1/2 - sin a)`` (class 1), a uniform on [0, pi], displaced in the plane by Gaussian noise, and a
    third coordinate uniform on [0, 1]. No classifier is right on more than 99.89 %% of the points
    at noise 0.1, 96.78 %% at 0.2. Given points are not displaced but classified by Bayes' rule at
    this `noise` (below 0.01: as at 0.01). Unlike elsewhere `noise` is in units of `X`.

    %(parameters)s

    %(returns)s
    y : ndarray of shape (n,)
        Classes 0 and 1, int64; drawn in equal numbers, one more of class 0 if `n_samples` is odd.

    %(raises)s

    Examples
    --------
    >>> from skpou.datasets import make_two_moons_3d
    >>> make_two_moons_3d(noise=0.2, X=[[0.0, 1.0, 0.5], [1.0, -0.5, 0.5]])[1]
    array([0, 1])
    """
    rng = check_random_state(random_state)
    if X is not None:
        X = points(X, n_samples, rng, 0.0, 1.0, 3)
        lower = _moon_log_density(X, 1, noise) > _moon_log_density(X, 0, noise)
        return X, lower.astype(np.int64)
    angle, height = rng.uniform(0, np.pi, n_samples), rng.uniform(0, 1, n_samples)
    y = (rng.permutation(n_samples) >= (n_samples + 1) // 2).astype(np.int64)
    x1, x2 = np.cos(angle), np.sin(angle)
    plane = np.column_stack([np.where(y, 1 - x1, x1), np.where(y, 0.5 - x2, x2)])
    return np.column_stack([noisy(plane, noise, rng), height]), y
