"""Collector current of a bipolar transistor, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skpou.datasets.shared import BOLTZMANN, CHARGE, TEMPERATURE, generator, noisy, points

# An NPN transistor of small signals: saturation current, knee of high-level injection (A), Early
# voltages forward and reverse (V), reverse current gain, and the thermal voltage k T / q (V).
_IS, _IKF, _VAF, _VAR, _BR = 6.734e-15, 0.06678, 74.03, 20.0, 0.7371
_VT = BOLTZMANN * TEMPERATURE / CHARGE
# Ranges of the two voltages.
_LEAST, _MOST = (0.3, 0.1), (0.8, 5.0)


@generator(2, log=["boolean"])
def make_transistor(n_samples=1000, *, noise=0.0, random_state=None, X=None, log=True) -> Any:
    """Generate the collector current of an NPN transistor over its two voltages.

    Gummel and Poon's model at 27 degrees Celsius without resistances, which has a closed form:
    ``I = IS (exp(Vbe / Vt) - exp(Vbc / Vt)) / q - IS / BR (exp(Vbc / Vt) - 1)`` with
    ``Vbc = Vbe - Vce`` and the base charge ``q = q1 / 2 (1 + sqrt(1 + 4 q2))``,
    ``1 / q1 = 1 - Vbc / VAF - Vbe / VAR``, ``q2 = IS / IKF (exp(Vbe / Vt) - 1)``; IS = 6.734e-15 A,
    IKF = 0.06678 A, VAF = 74.03 V, VAR = 20 V, BR = 0.7371. The points are base-emitter voltages,
    drawn from [0.3, 0.8], and collector-emitter voltages, from [0.1, 5], in volt. Where the latter
    are below 0.2 V the transistor saturates: a steep edge along the surface.

    %(parameters)s
    log : bool, default=True
        Whether `y` is the decimal logarithm of the current in ampere (decades) or the current (A).

    %(returns)s
    y : ndarray of shape (n,)
        Values of log10(I / A), in [-9.2, -1], or I in ampere, without noise.

    %(raises)s
        Also if the current is not positive somewhere, for which it has no logarithm.

    Examples
    --------
    >>> from skpou.datasets import make_transistor
    >>> make_transistor(X=[[0.6, 5.0], [0.6, 0.1]])[1].round(4)
    array([-4.0851, -4.1365])
    """
    rng = check_random_state(random_state)
    X = points(X, n_samples, rng, _LEAST, _MOST, 2)
    base, collector = X[:, 0], X[:, 0] - X[:, 1]
    forward, reverse = np.exp(base / _VT), np.exp(collector / _VT)
    early = 1 / (1 - collector / _VAF - base / _VAR)
    charge = early / 2 * (1 + np.sqrt(1 + 4 * _IS / _IKF * (forward - 1)))
    current = _IS * (forward - reverse) / charge - _IS / _BR * (reverse - 1)
    if log and current.min() <= 0:
        row = int(np.argmin(current))
        raise ValueError(f"X has a current of {current[row]:.3g} A at {X[row].tolist()}: log=True "
                         "needs positive ones.")  # fmt: skip
    return X, noisy(np.log10(current) if log else current, noise, rng)
