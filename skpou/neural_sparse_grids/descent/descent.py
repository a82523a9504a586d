"""First-order training of an encoder in front of a sparse grid (Zhang 2021, section 3.2.2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.core import Blocks, Report, Rows
from skpou.core.linalg import row_blocks
from skpou.core.optim import Adam, GradientDescent, minibatches
from skpou.neural_sparse_grids.descent.objectives import DescentOptions, Objective, squares_for
from skpou.neural_sparse_grids.encoders.encoder import Encoder
from skpou.neural_sparse_grids.encoders.trained import Trained
from skpou.neural_sparse_grids.projected.rows import FAR
from skpou.sparse_grids import SparseGrid

OPTIMIZERS = {"adam": Adam, "sgd": GradientDescent}
#: One-cycle schedule (Smith 2018): share of the steps that rise, first and last rate. The first two
#: are torch's own; the last is small enough for the coefficients to settle.
RISING, FIRST_RATE, LAST_RATE = 0.3, 1 / 25, 1e-4
#: Weight of the pull inwards on latent coordinates, whose loss is of order one.
PULL = 1.0
#: Rows that are evaluated together: enough to keep the processor busy, and few for any memory.
EVALUATED = 4096
#: A loss that has fallen by more than a tenth in the last tenth of the passes, where the rate is
#: below a twentieth of the highest, was cut short.
TAIL, FALLEN = 10, 0.9


class MoreRows(NamedTuple):
    """Rows that are read in blocks, and how many there are, those of weight 0 included."""

    blocks: Blocks
    n_rows: int


def pull_inside(z: Tensor) -> Tensor:
    """Penalty on latent coordinates that are squashed onto a face, where steps have no effect."""
    return PULL * (z.abs() - FAR).clamp_min(0).square().sum(1).mean()


def one_cycle(step: int, n_steps: int) -> float:
    """Learning rate at a step, relative to the highest: up, then down to next to nothing."""
    top = max(RISING * n_steps, 1.0)
    if step < top:
        first, last, share = FIRST_RATE, 1.0, step / top
    else:
        first, last, share = 1.0, LAST_RATE, (step - top) / max(n_steps - top, 1.0)
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


def evaluate(encoder: Encoder, objective: Objective, rows: Rows) -> float:
    """Mean loss of rows for the parameters as they are."""
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        terms = [
            objective.error(encoder(rows.X[b]), rows.y[b], rows.weight[b])
            for b in row_blocks(rows.n_rows, EVALUATED)
        ]
    encoder.train(training)
    return float(torch.stack(terms).sum()) / rows.total_weight


def take_step(
    encoder: Encoder,
    objective: Objective,
    parameters: list[Tensor],
    mover: Adam | GradientDescent,
    X: Tensor,
    y: Tensor,
    weight: Tensor,
) -> float:
    """One step for a minibatch; its loss before, NaN where there could be no step."""
    with torch.enable_grad():
        z = encoder.latent(X, weight)
        if not bool(torch.isfinite(z).all()):
            return math.nan  # No grid has a place for it.
        loss = objective.loss(encoder.squashed(z), y, weight) + pull_inside(z)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    steps = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]
    if not all(bool(torch.isfinite(step).all()) for step in steps):
        return math.nan  # A finite loss may have such a gradient: no step along it.
    mover.step(steps)
    return float(loss.detach())


def passes(
    encoder: Encoder,
    objective: Objective,
    rows: Rows,
    options: DescentOptions,
    rng: np.random.Generator,
    more: MoreRows | None = None,
) -> Iterator[float]:
    """Passes over shuffled rows with a one-cycle schedule; yields the mean loss of each.

    Where there are more rows, their blocks follow in each pass. A loss that is not finite ends
    its pass.
    """
    parameters = [p.requires_grad_() for p in encoder.parameters()] + objective.parameters
    mover: Any = OPTIMIZERS[options.optimizer](parameters, options.learning_rate)
    n, size = rows.n_rows + (0 if more is None else more.n_rows), objective.batch_size()
    n_steps, step = options.max_iter * -(-n // (size or n)), 0
    for _ in range(options.max_iter):
        total = of_all = 0.0
        for X, y, weight in _minibatches_of_all(rows, more, size, rng):
            step += 1
            of_batch = float(weight.sum())
            of_all += of_batch
            if len(y) == 1 < n:
                continue  # Batch normalisation refuses one row.
            # Each block ends with a smaller batch: there may be a few steps more than foreseen.
            mover.learning_rate = options.learning_rate * one_cycle(min(step, n_steps), n_steps)
            loss = take_step(encoder, objective, parameters, mover, X, y, weight)
            total += loss * of_batch
            if not math.isfinite(total):
                break
        yield total / of_all


def _minibatches_of_all(
    rows: Rows, more: MoreRows | None, size: int | None, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Points, targets and weights of shuffled batches of the rows, then of those of each block."""
    for part in itertools.chain([rows], () if more is None else more.blocks()):
        if not part.n_rows:
            continue
        for index in minibatches(part.n_rows, size, rng):
            where = index if isinstance(index, slice) else index.to(part.X.device)
            yield part.X[where], part.y[where], part.weight[where]


def descend_encoder(
    encoder: Encoder,
    grid: SparseGrid,
    rows: Rows,
    held_out: Rows | None,
    kind: type[Objective] | None,
    options: DescentOptions,
    rng: np.random.Generator,
    trained: Trained,
    report: Report | None = None,
    more: MoreRows | None = None,
) -> None:
    """Follow `passes`, and keep the best state.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    rows, held_out : Rows
        Those to fit to, and those that judge; None: the former judge.
    kind : type of Objective or None
        What is minimised; None: the squares of a regression.
    rng : numpy.random.Generator
        Order of the rows, first coefficients.
    trained : Trained
        Filled on the way, so that an interrupt leaves it usable.
    more : MoreRows, default=None
        Rows that each pass goes on with.
    """
    objective = (kind or squares_for(options.coef_solver))(grid, rows, options, rng)
    encoder.train()
    trained.keep(encoder, grid.level, math.inf, coef=objective.coef.detach().clone())
    since_best = 0
    judged = rows if held_out is None else held_out
    for mean in passes(encoder, objective, rows, options, rng, more):
        trained.n_iter += 1
        if not math.isfinite(mean):
            trained.code = "non_finite"
            break
        trained.curve.append(mean)
        # Without held-out rows a pass's own mean is a free, if late, judgement.
        score = mean if held_out is None else evaluate(encoder, objective, judged)
        since_best = 0 if score < trained.score * (1 - options.tol) else since_best + 1
        if score <= trained.score:
            trained.keep(encoder, grid.level, score, coef=objective.coef.detach().clone())
        if report is not None:
            report(f"pass {trained.n_iter}: loss {mean:.4e}, score {score:.4e}")
        if held_out is not None and since_best >= options.n_iter_no_change:
            trained.code = "converged"
            break
        if mean <= options.tol**2 or (held_out is None and _is_flat(trained.curve, options)):
            trained.code = "converged"
            break
    else:
        # The rate has gone down to nothing: a loss that still falls has been cut short.
        curve, tail = trained.curve, max(options.max_iter // TAIL, 1)
        falling = len(curve) > tail and min(curve) < FALLEN * min(curve[:-tail])
        trained.code = "max_iter" if falling else "converged"
    encoder.eval().requires_grad_(False)


def _is_flat(curve: list[float], options: DescentOptions) -> bool:
    """Whether the last passes changed the loss by no more than the tolerance."""
    last = curve[-options.n_iter_no_change - 1 :]
    if len(last) <= options.n_iter_no_change:
        return False
    return max(last) - min(last) <= options.tol * abs(last[-1])
