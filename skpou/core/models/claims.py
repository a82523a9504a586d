"""Components that claim exactness amid noise: how often a row is not of theirs.

A gate of many columns can part the few rows that are met to the last digit from all others. What it
parts so is wrong for some of the rows that come: by the rule of succession for one more than were
seen to be, of two more than were seen at all [1]_, Section 2.1.

References
----------
.. [1] A. Gelman et al., "Bayesian Data Analysis", 3rd ed., CRC Press (2013).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from skpou.core import Rows
from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.linear_companion import FEWEST_OF_TABLE
from skpou.core.models.model import Predictor

#: Standard deviation over that of all the noise below which a component claims to be exact.
SURER = 1e-3
#: Residual over the same from which on a row is not met.
MISSED = 1e-2


@dataclass(frozen=True)
class WrongClaims:
    """How often each component's claim is wrong, and the noise then.

    Attributes
    ----------
    chance : ndarray of shape (N, m)
        0 where nothing is claimed.
    noise : ndarray of shape (m,)
        Variance of all the noise.
    """

    chance: np.ndarray
    noise: np.ndarray

    def doubted(self, parts: Components) -> Components:
        """The density with a wide component of the same mean beside each that claims too much."""
        some = np.flatnonzero((self.chance > 0).any(1))
        index = torch.as_tensor(some, device=parts.mean.device)
        chance = torch.as_tensor(self.chance.max(1), device=parts.mean.device).to(parts.log_pi)
        # Copied: stored arrays may be read-only, of which torch warns.
        width = torch.tensor(self.noise, device=parts.mean.device).to(parts.mean)
        noise = parts.noise.expand_as(parts.mean)
        wide = torch.maximum(noise[:, index], width)
        return replace(
            parts,
            log_pi=torch.cat(
                [parts.log_pi + torch.log1p(-chance), parts.log_pi[:, index] + chance[index].log()],
                1,
            ),
            mean=torch.cat([parts.mean, parts.mean[:, index]], 1),
            noise=torch.cat([noise, wide], 1),
            epistemic=torch.cat([parts.epistemic, parts.epistemic[:, index]], 1),
        )

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        return {"chance": self.chance, "noise": self.noise}


def wrong_claims(model: Predictor, rows: Rows) -> WrongClaims | None:
    """What rows say of the components that claim exactness; None where none does.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows.
    rows : Rows
        In float64.
    """
    if rows.n_features < FEWEST_OF_TABLE:
        return None
    parts = model.components(rows.X, posterior=False)
    if isinstance(parts, IndependentComponents) or parts.noise.ndim != 2 or len(parts.noise) < 2:
        return None
    weight = rows.weight.cpu().numpy()
    noise = parts.noise.double().cpu().numpy()
    component = parts.log_pi.argmax(1).cpu().numpy()
    count = np.bincount(component, weights=weight, minlength=len(noise))
    overall = count @ noise / count.sum()
    exact = noise < SURER**2 * overall
    if not exact.any():
        return None
    residual = (rows.y - parts.expectation().double()).abs().cpu().numpy()
    missed = residual > MISSED * np.sqrt(overall)
    wrong = np.stack(
        [np.bincount(component, weights=weight * m, minlength=len(noise)) for m in missed.T], 1
    )
    return WrongClaims(np.where(exact, (wrong + 1) / (count[:, None] + 2), 0.0), overall)
