"""Several outputs, each on an encoder and a grid of its own.

One embedding of few coordinates cannot hold the directions of all outputs where each has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import (
    Report,
    Rows,
    TrainingInterrupted,
    TrainingResult,
    handing_over,
    tell,
)
from skpou.core.models import Components, Makers
from skpou.neural_sparse_grids.encoders.encoder import Encoder
from skpou.neural_sparse_grids.fit import NOTHING_FOUND
from skpou.neural_sparse_grids.model import NeuralGrid

#: Most outputs that are fitted apart: an embedding of many is what they have in common.
MOST_APART = 4
#: Part of an output's noise that the encoder of another must leave less than for a training to go
#: on from there: a smaller gain may be luck, and is not worth the time.
CLEARLY = 0.8


@dataclass(frozen=True)
class GridsApart:
    """Outputs on grids of their own, independent of each other.

    Attributes
    ----------
    own : tuple of NeuralGrid
        That of each output.
    """

    own: tuple[NeuralGrid, ...]

    def _joined(self, of_one: Callable[[NeuralGrid], Tensor]) -> Tensor:
        """What is asked of the model of each output, whose last axis is its output."""
        return torch.cat([of_one(model) for model in self.own], -1)

    def encoder(self, X: Tensor) -> Tensor:
        """Embeddings of points, those of one output after those of another."""
        return self._joined(lambda model: model.encoder(X))

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) at points X (n, k)."""
        return self._joined(lambda model: model.mean(X))

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, k, m) of the mean; see `NeuralGrid.gradient`."""
        return self._joined(lambda model: model.gradient(X))

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at the points X: one Gaussian each."""
        parts = [model.components(X, posterior) for model in self.own]
        names = ("mean", "noise", "epistemic")
        joined = (torch.cat([getattr(part, name) for part in parts], -1) for name in names)
        return Components(parts[0].log_pi, *joined)

    def beyond(self, X: Tensor) -> Tensor:
        """The part (n, m) of the mean's variance that grows with the distance from the box."""
        return self._joined(lambda model: model.beyond(X))

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the mean for the encoders as they are, in float64."""
        return self._joined(lambda model: model.covariance(X))

    def residual_makers(self, rows: Rows) -> list[Makers]:
        """Those of each output's model, one list for each; none where one cannot tell."""
        found = [model.residual_makers(rows.of_target(k)) for k, model in enumerate(self.own)]
        return [makers[0] for makers in found] if all(found) else []

    def flattened(self, targets: Tensor) -> GridsApart:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        each = zip(self.own, targets[:, None], strict=True)
        return GridsApart(tuple(model.flattened(target) for model, target in each))

    def numbers_per_row(self) -> int:
        """Numbers that a prediction allocates for each point, to size blocks of rows."""
        return max(model.numbers_per_row() for model in self.own)

    # State

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {"own": [model.arrays() for model in self.own]}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> GridsApart:
        """Rebuild from `arrays`, on the device and in the dtype of `like`."""
        return cls(tuple(NeuralGrid.from_arrays(one, like) for one in arrays["own"]))


def fit_apart(
    n_outputs: int,
    train: Callable[[int | None, Report | None, Encoder | None], TrainingResult],
    noise_on: Callable[[int, NeuralGrid], float],
    report: Report | None = None,
) -> TrainingResult:
    """Fit each output by itself, and again where the encoder of others serves it better.

    All are fitted together, too, where one finds nothing by itself.

    Parameters
    ----------
    train : callable
        Fits one of the outputs, by its number, or all together (None), from an encoder if one is
        given; its state is a `NeuralGrid`.
    noise_on : callable
        Variance of the noise of an output with the encoder and the grid of another as they are.

    Raises
    ------
    TrainingInterrupted
        On Ctrl-C. Outputs whose training had not begun are their mean.
    """
    done: list[TrainingResult] = []

    def so_far(now: TrainingResult | None) -> TrainingResult | None:
        if now is None:
            return None
        none = torch.ones(1, dtype=torch.bool, device=now.state.slope.device)
        flat = replace(now, state=now.state.flattened(none))
        return together([*done, now, *[flat] * (n_outputs - len(done) - 1)])

    def told(line: str, result: Callable[[], TrainingResult | None] | None = None) -> None:
        line = f"output {len(done)}, {line}"
        if result is None:
            report(line)  # type: ignore[misc]
        else:
            tell(report, line, lambda: so_far(result()))  # type: ignore[arg-type]

    told.takes_models = True  # type: ignore[attr-defined]
    for output in range(n_outputs):
        try:
            done.append(train(output, report and told, None))
        except TrainingInterrupted as stopped:
            raise TrainingInterrupted(so_far(stopped.result)) from None
    message = "The outputs as they were fitted by themselves are kept."
    with handing_over(lambda: replace(together(done), code="interrupted", message=message)):
        found = [one.state for one in done]
        if any(float(model.head.noise) > NOTHING_FOUND for model in found):
            found.append(train(None, None, None).state)
        return together(
            [_from_another(k, done[k], found, train, noise_on) for k in range(n_outputs)]
        )


def _from_another(
    output: int,
    own: TrainingResult,
    found: list[NeuralGrid],
    train: Callable[[int | None, Report | None, Encoder | None], TrainingResult],
    noise_on: Callable[[int, NeuralGrid], float],
) -> TrainingResult:
    """The fit of an output, or one from the encoder of others that leaves clearly less noise."""
    others = [model for k, model in enumerate(found) if k != output]
    noise = float(own.state.head.noise)
    least, nearest = min(((noise_on(output, other), k) for k, other in enumerate(others)))
    if not least < CLEARLY * noise:
        return own
    again = train(output, None, others[nearest].encoder)
    return again if float(again.state.head.noise) < noise else own


def together(results: list[TrainingResult]) -> TrainingResult:
    """The result of all outputs of those of each; it has converged if all have."""
    worst = next((one for one in results if one.code != "converged"), results[0])
    longest = max(len(one.curve) for one in results)
    # A fit that has ended stays where it is.
    curves = [
        [*one.curve, *(one.curve or [0.0])[-1:] * (longest - len(one.curve))] for one in results
    ]
    joined: dict[str, Callable[..., Any]] = {
        "alpha": max,
        "level": max,
        "active_fraction": np.mean,
        "on_faces": np.mean,
    }
    told = {
        name: of_all([one.chosen[name] for one in results])
        for name, of_all in joined.items()
        if name in worst.chosen
    }
    return replace(
        worst,
        state=GridsApart(tuple(one.state for one in results)),
        score=float(np.mean([one.score for one in results])),
        n_iter=max(one.n_iter for one in results),
        curve=np.mean(curves, 0).tolist(),
        chosen={**worst.chosen, **told},
    )
