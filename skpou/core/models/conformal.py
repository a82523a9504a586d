"""Central intervals of a predictive density, ordered by one number, and the number of a target.

The interval of score r is the central one of the probability that a normal density has within r
standard deviations. A target's score is that of the interval on whose end it lies. What share of
fresh targets lies within score r is counted, not believed: see V. Vovk, A. Gammerman, G. Shafer,
"Algorithmic learning in a random world" (2005), chapter 2, and for split conformal intervals J.
Lei et al., J. Am. Stat. Assoc. 113 (2018), Algorithm 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.core.models.components import Components

#: Score up to which intervals are those of the density: 3e-5 lies beyond it on each side, which
#: single precision still tells from 0 and 1. From there on the interval is stretched about the
#: median, so that it reaches every target however far in the tails.
REACH = 4.0
#: Round-off in a product of coverage and rows, which must not cost a rank.
ROUND_OFF = 1e-12


def interval_scores(parts: Components, y: Tensor) -> Tensor:
    """Scores (n, m) of targets y (n, m), in float64, each output by itself.

    For one Gaussian a point it is the distance from the mean in standard deviations.
    """
    below, above = parts.tails(y)
    score = -torch.special.ndtri(torch.minimum(below, above).clamp_max(0.5))
    beyond = score > REACH
    if beyond.any():
        low, median, high = _reaches(parts, y.new_full((y.shape[1],), REACH)).double().unbind(1)
        reach = torch.where(below < above, median - low, high - median)
        stretched = REACH * (y.double() - median).abs() / reach
        score = torch.where(beyond, stretched.nan_to_num(torch.inf).clamp_min(REACH), score)
    return score


def interval_of_score(parts: Components, score: Tensor) -> Tensor:
    """Ends (n, 2, m) of the intervals that have the scores (m,)."""
    low, median, high = _reaches(parts, score.clamp_max(REACH)).unbind(1)
    stretch = (score / REACH).clamp_min(1.0).to(median)
    return torch.stack([median - stretch * (median - low), median + stretch * (high - median)], 1)


def _reaches(parts: Components, score: Tensor) -> Tensor:
    """Lower ends, medians and upper ends (n, 3, m) at scores (m,) of at most `REACH`."""
    signed = torch.stack([-score, 0 * score, score])
    return parts.quantiles(torch.special.ndtr(signed).to(parts.mean))


def least_rows(coverage: float) -> int:
    """Fewest rows whose largest score covers a fresh row with at least this probability."""
    rows = max(math.ceil(coverage / (1 - coverage) * (1 - ROUND_OFF)), 1)
    return rows if conformal_rank(rows, coverage) <= rows else rows + 1


def conformal_rank(n_rows: int, coverage: float) -> int:
    """Rank k, from 1, of the score that covers a fresh exchangeable row: k / (n + 1) >= coverage.

    It exceeds the number of rows where these are too few.
    """
    return max(math.ceil((n_rows + 1) * coverage * (1 - ROUND_OFF)), 1)
