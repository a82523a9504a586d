"""Products of sines and cosines of bounded total frequency on the unit box."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from skpou.core.polynomials import MOST_REMEMBERED, TotalDegreeProducts, total_degree_exponents


def count_waves(n_features: int, degree: int) -> int:
    """Number ``sum_a C(d, a) C(m, a) 2^a`` of products of total frequency m in d variables."""
    return sum(
        math.comb(n_features, active) * math.comb(degree, active) * 2**active
        for active in range(min(n_features, degree) + 1)
    )


@lru_cache(maxsize=MOST_REMEMBERED)
def _factors(n_features: int, degree: int) -> np.ndarray:
    """Factors of every product: 2 k - 1 is the sine of frequency k, 2 k its cosine."""
    rows = [
        choice
        for frequencies in total_degree_exponents(n_features, degree).tolist()
        for choice in itertools.product(*[(2 * k - 1, 2 * k) if k else (0,) for k in frequencies])
    ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), n_features)


class FourierProducts(TotalDegreeProducts, kind="fourier"):
    """Products of ``sin(pi k_j x_j)`` and ``cos(pi k_j x_j)`` with ``sum_j k_j <= degree``.

    Their common period is twice the box, so that a function need not be periodic in the box to
    be met: on a part of its period a Fourier series converges geometrically to any analytic
    function, by least squares (Huybrechs 2010, "On the Fourier extension of nonperiodic
    functions"). One that has the box for its period has even k alone.

    Products are sorted by total frequency, then lexicographically by their frequencies, sines
    before cosines, so that a basis of lower degree is a prefix.

    Parameters
    ----------
    n_features : int
        Number d of variables. With d = 0 the only function is the constant.
    degree : int
        Largest total frequency, in half periods a box, at least 0.
    """

    def __init__(self, n_features: int, degree: int):
        factors = _factors(n_features, degree).copy()
        super().__init__(n_features, degree, factors, 2 * degree + 1)

    def _values(self, t: Tensor, derivative: bool = False) -> Tensor:
        rate = math.pi * torch.arange(1, self.degree + 1, dtype=t.dtype, device=t.device)
        rate = rate.reshape(-1, *[1] * t.ndim)
        sine, cosine = torch.sin(rate * t), torch.cos(rate * t)
        pairs = torch.stack([rate * cosine, -rate * sine] if derivative else [sine, cosine], 1)
        first = torch.zeros_like(t) if derivative else torch.ones_like(t)
        return torch.cat([first[None], pairs.reshape(2 * self.degree, *t.shape)])
