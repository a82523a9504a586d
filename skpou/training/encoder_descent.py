"""First-order training of an encoder in front of a sparse grid (Zhang 2021, section 3.2.2)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.bases.encoders import Encoder
from skpou.bases.sparse_grid_evaluation import DenseColumns
from skpou.bases.sparse_grids import SparseGrid
from skpou.solvers.grid_rows import GridRows
from skpou.solvers.ridge import factored
from skpou.solvers.statistics import row_blocks
from skpou.training.descents import minibatches
from skpou.training.encoded_grids import FAR
from skpou.training.encoder_varpro import Trained
from skpou.training.first_order import Adam, GradientDescent
from skpou.training.rows import Rows
from skpou.training.sparse_grid_classes import N_STEPS, log_shares, shares_of_classes
from skpou.training.sparse_grid_solution import GIVEN_DECAY

OPTIMIZERS = {"adam": Adam, "sgd": GradientDescent}
#: One-cycle schedule (Smith 2018): share of the steps that rise, first and last rate.
RISING, FIRST_RATE, LAST_RATE = 0.3, 1 / 25, 1e-4
#: Rows a step where the coefficients are solved for, for each function of the grid, and at least.
ROWS_A_FUNCTION, LEAST_ROWS = 16, 4096
#: Numbers of a dense basis matrix that may be differentiated through.
DENSE_NUMBERS = 20_000_000
#: Conjugate gradient steps of the iterative solution (thesis: t of Eq. 3.13).
INNER_STEPS = 3
#: Ridge of alpha="auto": of a regression, and of classes.
REGRESSION_ALPHA, CLASS_ALPHA = 1e-4, 1e-2
#: Weight of the pull inwards on latent coordinates, whose loss is of order one.
PULL = 1.0
#: Rows that are evaluated together.
EVALUATED = 4096


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


class Objective(ABC):
    """Loss of a minibatch for the embedding of its rows.

    Parameters
    ----------
    grid : SparseGrid
        The grid.
    rows : Rows
        All rows to fit to.
    options : DescentOptions
    rng : numpy.random.Generator
        Source of the first coefficients.
    """

    def __init__(
        self, grid: SparseGrid, rows: Rows, options: DescentOptions, rng: np.random.Generator
    ):
        self.grid, self.rows, self.options = grid, rows, options
        self.costs = torch.as_tensor(grid.costs(), device=rows.X.device).to(rows.X.dtype)[:, None]
        self.alpha = self.default_alpha if options.alpha is None else options.alpha
        self.coef = self.first_coef(rng)

    default_alpha = REGRESSION_ALPHA

    def first_coef(self, rng: np.random.Generator) -> Tensor:
        """Coefficients (G, m) to start from."""
        return self.rows.y.new_zeros((self.grid.n_columns, self.rows.n_outputs))

    @property
    def parameters(self) -> list[Tensor]:
        """What is descended besides the encoder's parameters."""
        return []

    def penalty(self) -> Tensor:
        """Ridge (G, 1) of the coefficients in a mean of squares."""
        return self.alpha**2 * GIVEN_DECAY**self.costs

    def batch_size(self) -> int:
        """Rows a step."""
        enough = max(LEAST_ROWS, ROWS_A_FUNCTION * self.grid.n_columns)
        return max(min(enough, DENSE_NUMBERS // self.grid.n_columns), 1)

    @abstractmethod
    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean over the rows of a minibatch, differentiable by the embedding u."""

    def error(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum over rows of the loss for the coefficients as they are, no ridge."""
        values = self.grid.evaluate(u, self.coef)
        return weight @ (y - values).square().mean(1)


class JointSquares(Objective):
    """Coefficients descended along with the encoder, squared errors (SGD of the thesis)."""

    def first_coef(self, rng: np.random.Generator) -> Tensor:
        """Draws of standard deviation 0.1, halved from level to level."""
        shape = (self.grid.n_columns, self.rows.n_outputs)
        draws = torch.as_tensor(rng.standard_normal(shape)).to(self.rows.y)
        return (0.1 * draws * 0.5**self.costs).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """The coefficients."""
        return [self.coef]

    def batch_size(self) -> int:
        """As asked for."""
        return self.options.batch_size

    def ridge(self) -> Tensor:
        """The ridge's share of the loss."""
        return (self.penalty() * self.coef.square()).sum() / self.coef.shape[1]

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`."""
        return self.error(u, y, weight) / weight.sum() + self.ridge()


class JointSoftmax(JointSquares):
    """Coefficients descended along with the encoder, cross entropy (Eq. 3.23)."""

    default_alpha = CLASS_ALPHA

    def __init__(self, *args):
        super().__init__(*args)
        share = shares_of_classes(self.rows) + 1 / self.rows.total_weight
        self.offset = (share / share.sum()).log()

    def error(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy."""
        logits = self.grid.evaluate(u, self.coef) + self.offset
        return -(weight @ (y * torch.log_softmax(logits, 1)).sum(1))


class SolvedSquares(Objective):
    """Coefficients by least squares for every step (LS, Algorithm 1 of the thesis).

    At the solution the loss does not change with the coefficients to first order, so that nothing
    need be differentiated through the solution.
    """

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`."""
        with torch.no_grad():
            rows = GridRows(self.grid, u.detach(), weight)
            ridge = weight.sum() * self.penalty()
            gram = rows.gram()
            gram.diagonal().add_(ridge[:, 0])
            factor, _ = factored(gram, 0.0)
            self.coef = torch.cholesky_solve(rows.rmatmul(y * rows.root), factor)
        return self.error(u, y, weight) / weight.sum()


class IteratedSquares(Objective):
    """A few conjugate gradient steps from the last coefficients (ILS, Algorithm 2)."""

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`; the steps are differentiated through (Eq. 3.13)."""
        root = weight.sqrt()[:, None]
        K = DenseColumns.apply(u, self.grid.plan, self.grid.factors) * root
        total = weight.sum()
        penalty = total * self.penalty()
        diagonal = (K.square().sum(0)[:, None] + penalty).clamp_min(1e-300)
        c = self.coef
        r = y * root - K @ c
        s = K.T @ r - penalty * c
        z = s / diagonal
        p, gamma = z, (s * z).sum(0)
        for _ in range(INNER_STEPS):
            q = K @ p
            bent = (q.square().sum(0) + (penalty * p.square()).sum(0)).clamp_min(1e-300)
            length = gamma / bent
            c, r = c + length * p, r - length * q
            s = K.T @ r - penalty * c
            z = s / diagonal
            following = (s * z).sum(0)
            p, gamma = z + following / gamma.clamp_min(1e-300) * p, following
        self.coef = c.detach()
        return r.square().sum() / (total * y.shape[1])


class DensityShares(Objective):
    """Densities of the classes in the box of the grid, judged by Bayes' rule.

    The coefficients ``c = (R + lambda S)^-1 Phi' t / W`` are linear in the rows and differentiated
    through; each row is left out of its own density. See `sparse_grid_classes.DensityProblem`.
    """

    default_alpha = 0.03

    def __init__(self, *args):
        super().__init__(*args)
        mass, stiffness = self.grid.mass_and_stiffness(self.rows.X)
        root = mass.diagonal().rsqrt()[:, None]
        step = mass + self.alpha**2 / N_STEPS * stiffness
        factor, _ = factored(step * root * root.T, 1e-12)
        smoother = root * torch.cholesky_solve(root * torch.eye(len(mass)).to(mass), factor)
        for _ in range(N_STEPS - 1):
            smoother = root * torch.cholesky_solve(root * (mass @ smoother), factor)
        self.smoother = smoother

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`."""
        K = DenseColumns.apply(u, self.grid.plan, self.grid.factors)
        total = weight.sum()
        own = weight[:, None] * y
        smoothed = K @ self.smoother
        coef = self.smoother @ (K.T @ own) / total
        itself = own * (smoothed * K).sum(1, keepdim=True) / total
        self.coef = coef.detach()
        shares = log_shares(K @ coef - itself, 1 / math.sqrt(float(total)))
        return -(own * shares).sum() / total

    def error(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy."""
        values = self.grid.evaluate(u, self.coef)
        floor = 1 / math.sqrt(self.rows.total_weight)
        return -(weight @ (y * log_shares(values, floor)).sum(1))


def objective_for(method: str | None, coef_solver: str) -> type[Objective]:
    """Loss of a classification method (None: regression) and a solver of the coefficients."""
    if method == "density":
        return DensityShares
    if coef_solver in ("direct", "varpro"):
        return SolvedSquares
    if coef_solver == "iterative":
        return IteratedSquares
    return JointSoftmax if method == "softmax" else JointSquares


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


def descend_encoder(
    encoder: Encoder,
    grid: SparseGrid,
    rows: Rows,
    held_out: Rows | None,
    method: str | None,
    options: DescentOptions,
    rng: np.random.Generator,
    trained: Trained,
    report: Callable[[str], None] | None = None,
) -> None:
    """Passes over shuffled rows with a one-cycle schedule; the best state is kept.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    grid : SparseGrid
        The grid.
    rows, held_out : Rows
        Those to fit to, and those that judge; None: the former judge.
    method : {"softmax", "one_hot", "density"} or None
        None for a regression.
    options : DescentOptions
    rng : numpy.random.Generator
        Order of the rows, first coefficients.
    trained : Trained
        Filled on the way, so that an interrupt leaves it usable.
    report : callable, default=None
        Takes a line for every pass.
    """
    objective = objective_for(method, options.coef_solver)(grid, rows, options, rng)
    encoder.train()
    parameters = [p.requires_grad_() for p in encoder.parameters()] + objective.parameters
    trained.keep(encoder, grid.level, math.inf, coef=objective.coef.detach().clone())
    mover = OPTIMIZERS[options.optimizer](parameters, options.learning_rate)
    n, size = rows.n_rows, objective.batch_size()
    n_steps, step, since_best = options.max_iter * -(-n // size), 0, 0
    judged = rows if held_out is None else held_out
    for _ in range(options.max_iter):
        total = 0.0
        for index in minibatches(n, size, rng):
            where = index if isinstance(index, slice) else index.to(rows.X.device)
            y, weight = rows.y[where], rows.weight[where]
            step += 1
            if len(y) == 1 < n:
                continue  # Batch normalisation refuses one row.
            mover.learning_rate = options.learning_rate * one_cycle(step, n_steps)
            with torch.enable_grad():
                z = encoder.latent(rows.X[where], weight)
                loss = objective.loss(encoder.squashed(z), y, weight) + pull_inside(z)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            mover.step([torch.zeros_like(p) if g is None else g
                        for p, g in zip(parameters, gradients, strict=True)])  # fmt: skip
            total += float(loss.detach() * weight.sum())
        mean = total / rows.total_weight
        trained.n_iter += 1
        if not math.isfinite(mean):
            trained.code = "non_finite"
            break
        trained.curve.append(mean)
        # Without held-out rows a pass's own mean is a free, if late, judgement.
        score = mean if held_out is None else evaluate(encoder, objective, judged)
        if report is not None:
            report(f"pass {trained.n_iter}: loss {mean:.4e}, score {score:.4e}")
        since_best = 0 if score < trained.score * (1 - options.tol) else since_best + 1
        if score <= trained.score:
            trained.keep(encoder, grid.level, score, coef=objective.coef.detach().clone())
        if held_out is not None and since_best >= options.n_iter_no_change:
            trained.code = "converged"
            break
        if mean <= options.tol**2 or (held_out is None and _is_flat(trained.curve, options)):
            trained.code = "converged"
            break
    else:
        # The rate has gone down to nothing: a loss that still falls has been cut short.
        curve, tail = trained.curve, max(options.max_iter // 10, 1)
        falling = len(curve) > tail and min(curve) < 0.9 * min(curve[:-tail])
        trained.code = "max_iter" if falling else "converged"
    encoder.eval().requires_grad_(False)


def _is_flat(curve: list[float], options: DescentOptions) -> bool:
    """Whether the last passes changed the loss by no more than the tolerance."""
    last = curve[-options.n_iter_no_change - 1 :]
    if len(last) <= options.n_iter_no_change:
        return False
    return max(last) - min(last) <= options.tol * abs(last[-1])
