"""A basis in coordinates whose columns are stretched near their least value: doses, sizes, prices.

Levels of a column that is multiplied from one to the next, often with a zero, are evenly spaced
under ``log(1 + x / c)`` with c about the least step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from skpou.core import BASES, Basis, to_tensor

#: A column is stretched where its middle value is below this part of the box ...
SKEWED = 0.2
#: ... by the quantile of its distances from the least value that counts as a step; no step is less
#: than a part of the box.
STEP_QUANTILE, LEAST_STEP = 0.1, 1e-4


class WarpedBasis(Basis, kind="warped"):
    """Functions of another basis at ``g_j(x_j) = log(1 + x_j / c_j) / log(1 + 1 / c_j)``.

    Below 0 each g goes on straight.

    Parameters
    ----------
    base : Basis
        Functions of the stretched coordinates.
    steps : Tensor of shape (d,)
        Positive c; infinite where a column stays as it is.
    """

    def __init__(self, base: Basis, steps: Tensor):
        self.base, self.steps = base, steps
        self.n_features, self.n_columns = base.n_features, base.n_columns
        self.n_running = base.n_running

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "kind": self.base.kind,
            "base": self.base.arrays(),
            # A state is finite: 0 stands for a column that stays as it is.
            "steps": torch.where(self.steps.isinf(), 0.0, self.steps).cpu().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> WarpedBasis:
        """Rebuild from `arrays`, on the device of `like`."""
        base = BASES[arrays["kind"]].from_arrays(arrays["base"], like)
        steps = to_tensor(arrays["steps"], like)
        return cls(base, torch.where(steps > 0, steps, math.inf))

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        return self.base.matrix(stretched(X, self.steps))

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """Values (n, m); see `Basis.evaluate`."""
        return self.base.evaluate(stretched(X, self.steps), coef)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        own = self.base.partial(stretched(X, self.steps), feature)
        return self._slopes(X)[:, feature, None] * own

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """Gradient by that of the base; see `Basis.evaluate_gradient`."""
        own = self.base.evaluate_gradient(stretched(X, self.steps), coef)
        return self._slopes(X)[..., None] * own

    def _slopes(self, X: Tensor) -> Tensor:
        """Derivatives (n, d) of the stretched coordinates."""
        c = self.steps.to(X)
        finite = torch.where(c.isinf(), 1.0, c)
        slopes = 1 / ((X.clamp_min(0) + finite) * torch.log1p(1 / finite))
        return torch.where(c.isinf(), 1.0, slopes)


def stretched(X: Tensor, steps: Tensor) -> Tensor:
    """Coordinates (n, d) under the logarithms; 0 and 1 stay."""
    c = steps.to(X)
    finite = torch.where(c.isinf(), 1.0, c)
    inside = X.clamp_min(0)
    moved = (torch.log1p(inside / finite) + (X - inside) / finite) / torch.log1p(1 / finite)
    return torch.where(c.isinf(), X, moved)


def steps_of(X: Tensor) -> Tensor | None:
    """Steps (d,) of the columns X (n, d) in the unit box; None where no column is skewed."""
    steps = torch.full_like(X[0], math.inf)
    for column, values in enumerate(X.T):
        levels = torch.unique(values)
        if len(levels) > 2 and float(levels.median()) < SKEWED:
            step = torch.quantile(levels[1:] - levels[0], STEP_QUANTILE, interpolation="lower")
            steps[column] = max(float(step), LEAST_STEP)
    return None if bool(steps.isinf().all()) else steps
