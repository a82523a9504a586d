"""What may be asked of descent through a sparse grid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DescentOptions:
    """How to descend; the names are those of the estimators' parameters."""

    coef_solver: str = "gradient"
    optimizer: str = "adam"
    learning_rate: float = 1e-2
    batch_size: int = 256
    max_iter: int = 200
    tol: float = 1e-8
    alpha: float | None = None
    n_iter_no_change: int = 10
