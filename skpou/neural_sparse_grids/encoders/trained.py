"""The best that the training of an encoder has reached."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from skpou.neural_sparse_grids.encoders.encoder import Encoder


@dataclass
class Trained:
    """What a training has reached.

    Attributes
    ----------
    state : dict of Tensor
        Best parameters of the encoder, as its `state_dict`.
    level : int
        Level of the grid that goes with them.
    score : float
        What ranks states; lower is better.
    coef : Tensor or None
        Coefficients that were trained along, (G, m); None: they are to be solved for.
    determined : float
        Number of the encoder's parameters that the data determine.
    code : str
        As in `TrainingResult`.
    chosen : dict
        Ridges found on the way.
    """

    state: dict[str, Tensor] | None = None
    level: int = 1
    score: float = math.inf
    coef: Tensor | None = None
    determined: float = 0.0
    curve: list[float] = field(default_factory=list)
    n_iter: int = 0
    code: str = "max_iter"
    chosen: dict[str, Any] = field(default_factory=dict)

    def keep(self, encoder: Encoder, level: int, score: float, **others: Any) -> None:
        """Keep the encoder's parameters as the best so far."""
        self.state = {k: v.detach().clone() for k, v in encoder.state_dict().items()}
        self.level, self.score = level, score
        for name, value in others.items():
            setattr(self, name, value)
