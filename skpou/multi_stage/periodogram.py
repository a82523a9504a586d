"""The dominant frequency of scattered values, and whether they are more than white noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import evenly

#: Most rows, and about the number of frequencies, that are looked at: some 30 million sines.
MOST_ROWS, MOST_FREQUENCIES = 4000, 8192
#: A frequency step is this part of one period over the box: peaks lie between whole periods too.
STEP = 0.5
#: Chance that white noise has a peak counted as a signal: one needless stage in a thousand fits.
CHANCE = 1e-3
#: Frequencies of a whole grid for each of a random one, rows that have a periodogram, and
#: frequencies whose waves are held at a time.
WHOLE, FEWEST_ROWS, AT_A_TIME = 4, 4, 1024


@dataclass(frozen=True)
class Peak:
    """Largest peak of a periodogram.

    Attributes
    ----------
    frequency : Tensor of shape (d,)
        In periods over half the side of the box.
    share : float
        Part of the mean square that a sine of this frequency explains.
    expected : float
        Share that white noise exceeds with the probability `CHANCE`.
    """

    frequency: Tensor
    share: float
    expected: float

    @property
    def is_signal(self) -> bool:
        """Whether the peak stands out of white noise."""
        return self.share > self.expected


def frequency_grid(n: int, d: int) -> np.ndarray:
    """Frequencies (k, d) up to the Nyquist limit of n even points, one of each pair of opposites.

    In periods over half the side of the box: n^(1/d) / 4 is the limit along each coordinate. Where
    the grid would be too fine, random ones of it.
    """
    highest = n ** (1 / d) / 4
    count = max(round(highest / (STEP / 2)), 1)
    size = 2 * count + 1
    if size**d <= WHOLE * MOST_FREQUENCIES:
        axes = [np.arange(-count, count + 1)] * d
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
        grid = grid[size**d // 2 + 1 :]
    else:
        grid = np.random.default_rng(0).integers(-count, count + 1, (MOST_FREQUENCIES, d))
        grid = grid[(grid != 0).any(1)]
    return grid * (STEP / 2)


def dominant_frequency(X: Tensor, values: Tensor, weight: Tensor) -> Peak:
    """Peak of the periodogram, summed over the targets.

    On even points of a line it is that of a discrete Fourier transform with half its steps; at
    scattered points, in any dimension, sums over the points take its place.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Distinct points of the unit box.
    values : Tensor of shape (n, m)
        Values at the points.
    weight : Tensor of shape (n,)
        Frequency weights.
    """
    n, d = X.shape
    if not d or n < FEWEST_ROWS:
        return Peak(X.new_zeros(d), 0.0, 1.0)
    some = evenly(n, MOST_ROWS)
    X, values, weight = X[some], values[some], weight[some]
    share = weight / weight.sum()
    centred = values - share @ values
    energy = float((share @ centred.square()).sum())
    frequencies = torch.as_tensor(frequency_grid(len(X), d), device="cpu").to(X)
    if energy <= 0:
        return Peak(X.new_zeros(d), 0.0, 1.0)
    power = []
    for block in frequencies.split(AT_A_TIME):
        angle = 2 * math.pi * (2 * X - 1) @ block.T
        weighted = share[:, None] * centred
        power.append(
            (torch.cos(angle).T @ weighted).square().sum(1)
            + (torch.sin(angle).T @ weighted).square().sum(1)
        )
    # A sine of amplitude a has the sums a / 2 and the mean square a^2 / 2.
    shares = 2 * torch.cat(power) / energy
    best = int(shares.argmax())
    # The union bound over all of them; weights leave fewer samples, in effect.
    expected = 2 * float(share.square().sum()) * math.log(len(frequencies) / CHANCE)
    return Peak(frequencies[best], min(float(shares[best]), 1.0), expected)
