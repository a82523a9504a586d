"""Calibrated probabilities of classes, from observations that the models do not know.

A classifier's logits, beyond those of the classes' shares, are multiplied by a factor (Guo, Pleiss,
Sun, Weinberger 2017), and those of a `LogisticCompanion` by another are added: the factors are
those under which left-out observations are most likely.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from skpou.core import Rows, TensorState
from skpou.core.classes.companion import MOST_ROWS, LogisticCompanion, fit_companion_of_classes
from skpou.core.linalg import NUMERICAL_FAILURES, evenly
from skpou.core.models import ClassPredictor
from skpou.core.optim import logits_of_shares

#: Largest factor: few rows would make too sure of classes that are well apart.
MOST_FACTOR = 4.0
#: Standard deviations before any row has been seen: of the sum of the factors about one, and of
#: each about its part, which tells models apart that say the same.
DEVIATION, PART_DEVIATION = 0.5, 2.0
#: Newton steps for the factors, the most halvings of one, and the gain that ends them.
N_STEPS, MAX_HALVINGS, TOL = 50, 30, 1e-10
#: Gain in log likelihood for which a companion is kept: two units of evidence, one a factor.
LEAST_GAIN = 1.0
#: Fewest observations that say how sure a model is.
FEWEST_ROWS = 10
#: Change of a factor that is none.
NO_CHANGE = 1e-3
#: Logits beyond which a class is certain: left-out rows of exact fits may be anywhere.
CERTAIN = 1e3


@dataclass(frozen=True)
class LeftOutClasses:
    """Logits of a model at observations that it does not know.

    Attributes
    ----------
    row : Tensor of shape (k,), int64
        Their numbers in `Rows.pairs` of the rows that were fitted.
    logits : Tensor of shape (k, K)
    """

    row: Tensor
    logits: Tensor


def observations_at(rows: Rows, some: Tensor) -> tuple[Tensor, Tensor]:
    """Observations at some points: numbers in `Rows.pairs`, and the place of each in `some`.

    Parameters
    ----------
    some : Tensor of shape (k,), int64
        Numbers of distinct points.
    """
    place = torch.full((rows.n_rows,), -1, device=some.device)
    place[some] = torch.arange(len(some), device=some.device)
    if rows.repeats is not None:
        place = place[rows.repeats.point]
    number = torch.nonzero(place >= 0).squeeze(1)
    return number, place[number]


def _loss(
    factors: Tensor, parts: Tensor, offset: Tensor, y: Tensor, weight: Tensor
) -> tuple[float, float]:
    """Negative log likelihood, and what the factors' prior adds."""
    logs = torch.log_softmax(offset + parts @ factors, 1)
    prior = 0.5 * float(((factors.sum() - 1) / DEVIATION).square())
    prior += 0.5 * float(((factors - 1 / len(factors)) / PART_DEVIATION).square().sum())
    return -float((weight[:, None] * y * logs).sum()), prior


def _newton(parts: Tensor, offset: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Factors (m,) of parts (k, K, m) that minimise the loss with its prior: convex."""
    m = parts.shape[2]
    factors = parts.new_full((m,), 1 / m)
    value = sum(_loss(factors, parts, offset, y, weight))
    for _ in range(N_STEPS):
        pi = torch.softmax(offset + parts @ factors, 1)
        gradient = torch.einsum("k,kc,kcm->m", weight, pi - y, parts)
        gradient += (factors.sum() - 1) / DEVIATION**2
        gradient += (factors - 1 / m) / PART_DEVIATION**2
        centred = parts - torch.einsum("kc,kcm->km", pi, parts)[:, None]
        H = torch.einsum("k,kc,kcm,kcl->ml", weight, pi, centred, centred)
        H = H + 1 / DEVIATION**2 + torch.eye(m, dtype=H.dtype, device=H.device) / PART_DEVIATION**2
        step, length = torch.linalg.solve(H, gradient), 1.0
        for _ in range(MAX_HALVINGS):
            new = sum(_loss(factors - length * step, parts, offset, y, weight))
            if new <= value:
                break
            length /= 2
        else:
            return factors
        factors, gain, value = factors - length * step, value - new, new
        if gain <= TOL * (1 + abs(value)):
            return factors
    return factors


def best_factors(
    logits: Sequence[Tensor], offset: Tensor, targets: Tensor, weight: Tensor
) -> tuple[list[float], float]:
    """Factors on what several logits add to an offset, and the negative log likelihood with them.

    Parameters
    ----------
    logits : sequence of Tensor of shape (k, K)
        Of observations that the models do not know.
    offset : Tensor of shape (K,)
        Logits of the classes' shares.
    targets : Tensor of shape (k, K)
        Shares of the classes.
    weight : Tensor of shape (k,)

    Returns
    -------
    factors : list of float
        From 0 to `MOST_FACTOR`, of which those that are not zero minimise the loss.
    loss : float
        Mean negative log likelihood.
    """
    parts = torch.stack([torch.nan_to_num(part - offset) for part in logits], 2)
    parts = parts.clamp(-CERTAIN, CERTAIN)
    # Constants in all logits say nothing, and would only spoil the digits.
    parts = parts - parts.mean(1, keepdim=True)
    m = parts.shape[2]
    best, least, loss = parts.new_zeros(m), math.inf, math.inf
    for size in range(m + 1):
        for some in itertools.combinations(range(m), size):
            factors = parts.new_zeros(m)
            if some:
                found = _newton(parts[:, :, list(some)], offset, targets, weight)
                if bool((found < 0).any()):
                    continue
                factors[list(some)] = found.clamp_max(MOST_FACTOR)
            own, prior = _loss(factors, parts, offset, targets, weight)
            if own + prior < least:
                best, least, loss = factors, own + prior, own
    return best.tolist(), loss / float(weight.sum())


@dataclass(frozen=True)
class Calibration(TensorState):
    """Factors on the logits of a model and of its companion, beyond those of the shares.

    Attributes
    ----------
    offset : Tensor of shape (K,)
        Logits of the classes' shares.
    """

    parts: ClassVar[dict[str, Any]] = {"companion": LogisticCompanion}

    factor: float
    companion_factor: float
    offset: Tensor
    companion: LogisticCompanion | None


@dataclass(frozen=True)
class CalibratedClasses:
    """A model with its calibration, as `ClassPredictor`."""

    model: ClassPredictor
    calibration: Calibration

    def log_proba(self, X: Tensor) -> Tensor:
        """Logarithms (n, K) of the classes' probabilities."""
        given, own = self.calibration, self.model.log_proba(X)
        logits = given.offset + given.factor * (own.to(given.offset) - given.offset)
        if given.companion is not None:
            beyond = given.companion.logits(X) - given.companion.offset
            logits = logits + given.companion_factor * beyond
        return torch.log_softmax(logits, 1).to(own)

    def numbers_per_row(self) -> int:
        """Numbers that `log_proba` allocates for each point, to size blocks of rows."""
        companion = self.calibration.companion
        own = 3 * len(self.calibration.offset)
        own += 0 if companion is None else companion.numbers_per_row()
        return self.model.numbers_per_row() + own


def calibrate(rows: Rows, left_out: LeftOutClasses) -> Calibration | None:
    """Factors for a model, with a companion where left-out observations are better for it.

    Parameters
    ----------
    rows : Rows
        Those that were fitted; targets are the shares of the classes at each.
    left_out : LeftOutClasses
        What the model says of some observations that it does not know.

    Returns
    -------
    Calibration or None
        None where it changes nothing, and where rows are too few to tell.
    """
    offset = logits_of_shares(rows.to(torch.float64))
    pairs = rows.to(torch.float64).pairs()
    y, weight = pairs.y[left_out.row], pairs.weight[left_out.row]
    total = float(weight.sum())
    if rows.n_outputs < 2 or total < FEWEST_ROWS:
        return None
    own = left_out.logits.to(offset)
    (factor,), loss = best_factors([own], offset, y, weight)
    found = _companion_at(pairs, left_out.row)
    if found is not None:
        companion, logits = found
        beyond = logits - companion.offset + offset
        both, joined = best_factors([own, beyond], offset, y, weight)
        if both[1] > 0 and (loss - joined) * total > LEAST_GAIN:
            return Calibration(both[0], both[1], offset, companion)
    return None if abs(factor - 1) < NO_CHANGE else Calibration(factor, 0.0, offset, None)


def _companion_at(pairs: Rows, row: Tensor) -> tuple[LogisticCompanion, Tensor] | None:
    """A companion of the rows, and its logits at some that it does not know, either."""
    n = pairs.n_rows
    if not pairs.n_features:
        return None
    known = torch.arange(n, device=row.device)
    if n > MOST_ROWS:
        # Those at which the model is judged, and others evenly from the sorted rows.
        others = known[evenly(n, MOST_ROWS - min(len(row), MOST_ROWS // 2))]
        known = torch.unique(torch.cat([row[: MOST_ROWS // 2], others]))
    part = pairs if len(known) == n else pairs.subset(known)
    try:
        companion, left_out = fit_companion_of_classes(part)
    except NUMERICAL_FAILURES:
        return None
    logits = companion.logits(pairs.X[row])
    place = torch.searchsorted(known, row).clamp_max(len(known) - 1)
    is_known = known[place] == row
    logits[is_known] = left_out[place[is_known]]
    return (companion, logits) if bool(torch.isfinite(companion.coef).all()) else None
