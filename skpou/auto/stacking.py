"""Weights of densities under which left-out targets are most likely."""

from __future__ import annotations

import torch
from torch import Tensor

#: Most steps of expectation maximisation, and the gain a row that ends them. Nothing near the
#: optimum is worth more: weights are known to a hundredth at best.
MAX_STEPS, LEAST_GAIN = 2000, 1e-9


#: Weights are whole multiples of this: round-off of the densities must not show in a prediction.
STEP = 2.0**-10


def stacking_weights(log_density: Tensor, weight: Tensor, prior_rows: Tensor) -> Tensor:
    """Weights of a mixture of K densities that maximise the log density of rows.

    The objective ``sum_i w_i log sum_k pi_k p_ik + sum_k a_k log pi_k`` is concave in pi, and
    each step of expectation maximisation raises it [1]_, Eq. 2.

    Parameters
    ----------
    log_density : Tensor of shape (n, K)
        Logarithms of the densities at left-out rows.
    weight : Tensor of shape (n,)
        How often each row counts.
    prior_rows : Tensor of shape (K,)
        Rows that each density is credited with beforehand: few rows do not rule one out.

    Returns
    -------
    Tensor of shape (K,)
        Not negative; they add up to one.

    References
    ----------
    .. [1] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, "Using stacking to average Bayesian
       predictive distributions", Bayesian Analysis 13 (2018).
    """
    pi = torch.full_like(log_density[0], 1 / log_density.shape[1])
    total = weight.sum() + prior_rows.sum()
    before = -torch.inf
    for _ in range(MAX_STEPS):
        joint = log_density + pi.log()
        value = float(weight @ joint.logsumexp(1) + torch.xlogy(prior_rows, pi).sum())
        if value - before <= LEAST_GAIN * float(total):
            break
        before = value
        pi = (weight @ joint.softmax(1) + prior_rows) / total
    return pi


def pooled(log_density: Tensor, pi: Tensor) -> Tensor:
    """Logarithm (n,) of the mixture's density."""
    return (log_density + pi.log()).logsumexp(1)


def without_small(
    log_density: Tensor, weight: Tensor, prior_rows: Tensor, least: float, most: int
) -> Tensor:
    """The same weights with the small ones zero: at least `least` each, at most `most` of them.

    What is small goes one at a time, and the others are weighed anew; then all are rounded.
    """
    kept = torch.arange(log_density.shape[1], device=log_density.device)
    while True:
        pi = stacking_weights(log_density[:, kept], weight, prior_rows[kept])
        if len(kept) == 1 or (float(pi.min()) >= least and len(kept) <= most):
            result = torch.zeros_like(prior_rows)
            result[kept] = (pi / STEP).round() * STEP
            result[int(result.argmax())] += 1 - result.sum()
            return result
        kept = kept[torch.arange(len(kept), device=kept.device) != int(pi.argmin())]
