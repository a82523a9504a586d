"""Encoder and coefficients taught by one pass over each block of rows as it comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skpou.core import Rows, TrainingResult, to_tensor
from skpou.core.optim import minibatches
from skpou.neural_sparse_grids.descent.descent import OPTIMIZERS, take_step
from skpou.neural_sparse_grids.descent.objectives import JointSoftmax
from skpou.neural_sparse_grids.encoders.encoder import Encoder
from skpou.neural_sparse_grids.encoders.starts import start_encoder
from skpou.neural_sparse_grids.fit import NeuralGridOptions, fit_head, with_coef, with_slope
from skpou.neural_sparse_grids.heads import HEADS
from skpou.neural_sparse_grids.model import NeuralGrid, active_fraction, embedded, share_on_faces
from skpou.sparse_grids import GridClasses, SparseGrid


@dataclass
class Steps:
    """Where minibatches have come to, besides the encoder.

    Attributes
    ----------
    coef : Tensor of shape (G, m)
        Coefficients.
    offset : Tensor of shape (m,)
        What is added to logits: the logarithms of the classes' shares in the first block.
    mover : dict
        State of the optimiser.
    curve : list of float
        Mean loss of each.
    """

    coef: Tensor
    offset: Tensor
    mover: dict[str, Any]
    n_blocks: int
    curve: list[float]

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        mover = {k: _on_host(v) for k, v in self.mover.items()}
        tensors = {"coef": self.coef.cpu().numpy(), "offset": self.offset.cpu().numpy()}
        return {**tensors, "mover": mover, "n_blocks": self.n_blocks, "curve": list(self.curve)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Steps:
        """Rebuild from `arrays`, on the device and in the dtype of `like`."""

        def tensor(value: Any) -> Tensor:
            return to_tensor(value, like, like.dtype)

        mover = {
            k: [tensor(part) for part in v] if isinstance(v, list) else v
            for k, v in arrays["mover"].items()
        }
        coef, offset = tensor(arrays["coef"]), tensor(arrays["offset"])
        return cls(coef, offset, mover, int(arrays["n_blocks"]), list(arrays["curve"]))


def _on_host(value: Any) -> Any:
    if isinstance(value, list):
        return [part.detach().cpu().contiguous().numpy().copy() for part in value]
    return value


def teach_block(
    rows: Rows, encoder: Encoder, steps: Steps | None, options: NeuralGridOptions, seed: int
) -> tuple[TrainingResult, Steps]:
    """One pass over a block of rows, and the model after it.

    Parameters
    ----------
    rows : Rows
        Points in the unit box of the first block; targets in units of that block, or the shares of
        the classes.
    encoder : Encoder
        Changed in place; new where there are no steps yet.
    steps : Steps or None
        After the block before.
    options : NeuralGridOptions
        Of a regression, or of ``method="softmax"``.
    seed : int
        Of the start and the order of the rows.
    """
    number = 0 if steps is None else steps.n_blocks
    rng = np.random.default_rng([seed, number])
    grid = SparseGrid(options.form.n_components, options.level, options.boundary)
    if steps is None:
        encoder.eval().requires_grad_(False)
        start_encoder(encoder, rows, options.start, rng)
    # What later blocks are scaled by must not move beneath the grid.
    encoder.scaling.follows = False
    head = HEADS[options.method]("gradient", options.descent.alpha)
    objective = head.objective()(grid, rows, options.descent, rng)
    if steps is not None:
        objective.coef = steps.coef.clone().requires_grad_()
        if isinstance(objective, JointSoftmax):
            objective.offset = steps.offset
    encoder.train()
    parameters = [p.requires_grad_() for p in encoder.parameters()] + objective.parameters
    mover: Any = OPTIMIZERS[options.descent.optimizer](parameters, options.descent.learning_rate)
    if steps is not None:
        mover.restore(steps.mover)
    total, finite = 0.0, True
    for index in minibatches(rows.n_rows, objective.batch_size(), rng):
        where = index if isinstance(index, slice) else index.to(rows.X.device)
        X, y, weight = rows.X[where], rows.y[where], rows.weight[where]
        if len(y) == 1:
            continue  # Batch normalisation refuses one row.
        loss = take_step(encoder, objective, parameters, mover, X, y, weight)
        finite = finite and math.isfinite(loss)
        total += loss * float(weight.sum()) if math.isfinite(loss) else 0.0
    encoder.eval().requires_grad_(False)
    offset = getattr(objective, "offset", rows.y.new_zeros(rows.n_outputs))
    curve = [] if steps is None else steps.curve
    curve = [*curve, total / rows.total_weight]
    coef = objective.coef.detach().clone()
    after = Steps(coef, offset, mover.state(), number + 1, curve)
    return _result(rows, encoder, grid, after, options, rng, finite), after


def _result(
    rows: Rows,
    encoder: Encoder,
    grid: SparseGrid,
    steps: Steps,
    options: NeuralGridOptions,
    rng: np.random.Generator,
    finite: bool,
) -> TrainingResult:
    """The model, its error bars those of this block's rows."""
    latent = embedded(encoder, rows)
    state: Any
    coef = steps.coef.to(latent.X)
    if options.method is None:
        head = fit_head(latent, grid, options, rng)
        state, alpha = with_coef(head.state, coef, latent), head.chosen["alpha"]
    else:
        floor = 1 / latent.total_weight
        state = GridClasses(grid, coef, steps.offset.to(coef), "softmax", floor)
        given = options.descent.alpha
        alpha = JointSoftmax.default_alpha if given is None else given
    chosen = {
        "alpha": alpha,
        "level": options.level,
        "coef_solver": "gradient",
        "active_fraction": active_fraction(grid, latent.X),
        "on_faces": share_on_faces(latent.X, options.form.margin),
    }
    model = with_slope(NeuralGrid(encoder, state, latent.X[0, :0]), rows)
    message = (
        "The loss, or its slope, was not finite for some rows, which were left out. Lower "
        "learning_rate."
    )
    code = "converged" if finite else "non_finite"
    return TrainingResult(
        model, steps.curve[-1], steps.n_blocks, steps.curve, code, message * (not finite), chosen
    )
