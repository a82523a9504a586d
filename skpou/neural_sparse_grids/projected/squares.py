"""Sparse grid functions of an encoder's output, as a projected least-squares problem.

The coefficients are eliminated (variable projection, as in `skpou.core.optim.varpro`), by the Gram
matrix of the grid's columns, which are many, sparse, and held by a ridge, or by that of the rows
where these are fewer. Both ridges, that of
the coefficients and that of the encoder's parameters, follow from the evidence of the data
(MacKay 1992), so that neither noise nor a network with more parameters than rows is memorised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import LEAST_ALPHA, factored, gram_of, row_blocks, rows_within
from skpou.core.optim import JACOBIAN_NUMBERS, DampedModel, spread_of
from skpou.neural_sparse_grids.encoders.encoder import Embedding, Encoder
from skpou.neural_sparse_grids.projected.rows import (
    EncodedRows,
    Ridges,
    embedding_or_none,
    pulled_rows,
    slopes_on_grid,
)
from skpou.sparse_grids import (
    GIVEN_DECAY,
    ROUND_OFF,
    GramProblem,
    GridRows,
    KernelProblem,
    RidgeSolution,
    SparseGrid,
    best_ridge,
    direct_problem,
)

#: Rows for each column of the grid from which on these are projected off by singular vectors: their
#: decomposition takes less time than a triangular factor of the rows' products.
ROWS_A_COLUMN = 5
#: First guesses of the noise's variance and of that of the encoder's parameters. From bold ones few
#: noisy rows are memorised at once; cautious ones flatten an embedding that is known to be good.
BOLD, CAUTIOUS = (1e-2, 1.0), (1.0, 0.1)
#: First ridge of alpha="auto": the evidence replaces it after a round.
FIRST_ALPHA = 1e-3


@dataclass
class EncodedFit:
    """Coefficients for one theta.

    Attributes
    ----------
    theta : Tensor of shape (k,)
        Parameters of the encoder.
    problem : GramProblem or KernelProblem
        Columns of the grid at the embedding.
    coef : Tensor of shape (G, m)
        Coefficients.
    residual : Tensor of shape (n, m)
        Weighted ``y - K c``.
    value : float
        Sum of squares with both ridges, averaged over targets.
    score : float
        Twice the negative log evidence, where it is known.
    determined : float
        Number of parameters of the encoder that the data determine, where it is known.
    """

    theta: Tensor
    embedding: Embedding
    problem: GramProblem | KernelProblem
    solution: RidgeSolution
    coef: Tensor
    residual: Tensor
    value: float
    score: float = math.inf
    determined: float = 0.0

    def __str__(self) -> str:
        solution = self.solution
        return (
            f"alpha {solution.alpha:.1e}, decay {solution.decay:g}, "
            f"{self.determined:.0f} of {len(self.theta)} parameters determined"
        )

    def rms(self) -> float:
        """Root mean square of the weighted residual."""
        return float(self.residual.square().mean().sqrt())


@dataclass(frozen=True)
class Products:
    """What a fit is linearised by, whatever the ridges of the encoder.

    Attributes
    ----------
    gram : Tensor of shape (k, k) or (n m, n m)
        Products of the columns of the projected Jacobian, or of its rows.
    rows : Tensor of shape (n m, k) or None
        The rows, where `gram` is of them.
    pull : Tensor of shape (k,)
        Half the gradient.
    """

    fit: EncodedFit
    grid: SparseGrid
    gram: Tensor
    rows: Tensor | None
    pull: Tensor

    def are_of(self, fit: EncodedFit, grid: SparseGrid) -> bool:
        """Whether another fit is the same one, bit for bit."""
        own, ridges = self.fit, (self.fit.solution.alpha, self.fit.solution.decay)
        return (
            (self.grid.level, self.grid.boundary) == (grid.level, grid.boundary)
            and ridges == (fit.solution.alpha, fit.solution.decay)
            and torch.equal(own.theta, fit.theta)
            and torch.equal(own.coef, fit.coef)
            and torch.equal(own.residual, fit.residual)
        )


class EncodedProblem(EncodedRows):
    """Least squares on a sparse grid for any parameters of the encoder.

    It has what `levenberg_marquardt` asks of a problem; the parameters are those of `EncodedRows`.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.root = self.rows.weight.sqrt()[:, None]
        self.rms = float((self.rows.y * self.root).square().mean().sqrt()) or 1.0

    def solve(self, theta: Tensor, ridge: float = 0.0) -> EncodedFit:
        """Eliminate the coefficients."""
        embedding, theta = embedding_or_none(self.encoded, theta)
        rows = GridRows(self.grid, embedding.u, self.rows.weight)
        # The largest column norm may change with the embedding; the ridge must not.
        scale = math.sqrt(self.rows.total_weight)
        return self._fit(theta, embedding, direct_problem(rows, self.rows.y, scale=scale))

    def _fit(
        self, theta: Tensor, embedding: Embedding, problem: GramProblem | KernelProblem
    ) -> EncodedFit:
        ridges = self.ridges
        solution = problem.solve(ridges.alpha, ridges.decay)
        coef = problem.of_columns(solution)
        residual = problem.y - problem.rows.matmul(coef)
        value = self.penalised(float((solution.rss + solution.size).mean()), theta, embedding)
        return EncodedFit(theta, embedding, problem, solution, coef, residual, value)

    def linearise(self, fit: EncodedFit) -> DampedModel:
        """Model of the residual that least squares leaves over (Kaufman 1975).

        In ``J'J - J'K (K'K + D)^-1 K'J`` the rows' part of the coefficients is projected off. A
        round begins where the last one has chosen its ridges: the products are those.
        """
        known = self.encoded.products
        if known is None or not known.are_of(fit, self.grid):
            n, m = fit.residual.shape
            slope = slopes_on_grid(self.grid, fit.embedding, fit.coef) * self.root[:, :, None]
            few = n * m <= self.encoded.n_parameters or isinstance(fit.problem, KernelProblem)
            products = (self._by_rows if few else self._by_columns)(fit, slope)
            known = self.encoded.products = Products(fit, self.grid, *products)
        gram, J, pull = known.gram.clone(), known.rows, known.pull.clone()
        if J is None:
            return self.damped(gram, pull, fit)
        inward, far = pulled_rows(self.encoded, fit.theta, fit.embedding, self.rows.weight)
        if len(inward):
            inward = math.sqrt(self.ridges.inward) * inward
            pull += math.sqrt(self.ridges.inward) * (inward.T @ far)
            beside = torch.cat([J, inward]) @ inward.T
            gram = torch.cat([torch.cat([gram, beside[: len(J)].T]), beside], 1)
            J = torch.cat([J, inward])
        return DampedModel(gram, J, pull, fit.theta, self.ridges.weight)

    def _by_columns(self, fit: EncodedFit, slope: Tensor) -> tuple[Tensor, None, Tensor]:
        """Projected ``J'J`` and half the gradient, by the products of both kinds of columns."""
        n, m = fit.residual.shape
        k = self.encoded.n_parameters
        gram = slope.new_zeros((k, k))
        cross = slope.new_zeros((m, self.grid.n_columns, k))
        pull = slope.new_zeros(k)
        d = fit.solution.decay ** (-0.5 * self.costs)
        columns = fit.problem.rows
        for block in row_blocks(n, rows_within(m * k, JACOBIAN_NUMBERS)):
            J = self.encoded_rows(block, fit, slope)
            for o in range(m):
                gram += gram_of(J[:, o])
                cross[o] += columns.products(block, J[:, o])
            pull -= torch.einsum("nok,no->k", J, fit.residual[block])
        for o in range(m):
            inner = torch.linalg.solve_triangular(
                fit.solution.factor, d[:, None] * cross[o], upper=False
            )
            gram -= gram_of(inner)
        return gram.div_(m), None, pull / m

    def _by_rows(self, fit: EncodedFit, slope: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """By the rows: with ``B = I + K D^-1 K'`` the projected Jacobian is ``B^-1/2 J``.

        Where it has fewer rows than columns it comes with the products of these instead.
        """
        n, m = fit.residual.shape
        J = self.encoded_rows(slice(0, n), fit, slope)
        pull = -torch.einsum("nok,no->k", J, fit.residual) / m
        J = self._projected(fit, J.reshape(n, -1)).reshape(n * m, -1) / math.sqrt(m)
        few = n * m <= J.shape[1]
        return gram_of(J.T if few else J), J if few else None, pull

    def _projected(self, fit: EncodedFit, J: Tensor) -> Tensor:
        """``B^-1/2 J``: of few columns ``K D^-1/2`` by their singular vectors, else ``L^-1 J``."""
        problem, solution = fit.problem, fit.solution
        ridge = problem.scale**2 * max(solution.alpha, LEAST_ALPHA) ** 2
        if isinstance(problem, KernelProblem):
            kernel = problem.kernel(solution.decay) / ridge
        else:
            d = solution.decay ** (-0.5 * self.costs)
            K = problem.rows.dense(slice(0, len(fit.residual))) * d / math.sqrt(ridge)
            if ROWS_A_COLUMN * K.shape[1] <= len(K):
                U, S, _ = torch.linalg.svd(K, full_matrices=False)
                taken = 1 - (1 + S.square()).rsqrt()
                return J - U @ (taken[:, None] * (U.T @ J))
            kernel = gram_of(K.T)
        L, _ = factored(kernel, 1.0)
        return torch.linalg.solve_triangular(L, J, upper=False)

    # Ridges by evidence

    def adapt(self, fit: EncodedFit) -> EncodedFit:
        """Ridges of larger evidence at a fit, and the fit for them with its score."""
        ridges, solution, n = self.ridges, fit.solution, self.rows.total_weight
        within = self.rows.within.sum(0)
        if not self.given:
            start = (ridges.alpha, ridges.decay)
            solution = best_ridge(fit.problem, n, within, start=start, stride=1)
        noise = (within + solution.rss + solution.size) / n + ROUND_OFF**2
        self.ridges = replace(ridges, alpha=solution.alpha, decay=solution.decay)
        fit = self._fit(fit.theta, fit.embedding, fit.problem)
        model = self.linearise(fit)
        number, log_det = model.determined() if model.is_finite() else (0.0, math.inf)
        size = float(fit.theta.square().sum())
        score = n * float((noise + self.ridges.weight * size / n).log().mean())
        score += solution.log_det + log_det
        spread = spread_of(fit.theta, number)
        self.ridges = Ridges(solution.alpha, solution.decay, float(noise.mean()), spread)
        solution = fit.solution
        value = self.penalised(
            float((solution.rss + solution.size).mean()), fit.theta, fit.embedding
        )
        return replace(fit, value=value, score=score, determined=number)

    def unexplained(self, theta: Tensor) -> float:
        """Noise of largest evidence for the encoder as it is, in units of the targets' variance."""
        problem = self.solve(theta).problem
        n, within = self.rows.total_weight, self.rows.within.sum(0)
        solution = best_ridge(problem, n, within)
        total = (problem.y.square().sum(0) + within).mean()
        return float((within + solution.rss + solution.size).mean() / total)

    def loss(self, fit: EncodedFit) -> float:
        """Mean square of the residual."""
        squares = fit.residual.square().sum(0) + self.rows.within.sum(0)
        return float(squares.mean()) / self.rows.total_weight

    def error(self, encoder: Encoder, fit: EncodedFit, held_out: Rows) -> float:
        """Mean square error on rows that were held out."""
        with torch.no_grad():
            values = self.grid.evaluate(encoder(held_out.X), fit.coef)
        squares = held_out.weight[:, None] * (held_out.y - values).square() + held_out.within
        return float(squares.sum(0).mean()) / held_out.total_weight

    def head_of(self, fit: EncodedFit) -> dict[str, Any]:
        """What a training has of a fit besides the encoder: coefficients or ridges."""
        chosen = {"alpha": fit.solution.alpha, "decay": fit.solution.decay}
        return {"determined": fit.determined, "chosen": chosen}


def first_ridges(alpha: float | None, cautious: bool = False) -> Ridges:
    """Ridges to start from; cautious ones take all for noise until the evidence says otherwise."""
    noise, spread = CAUTIOUS if cautious else BOLD
    return Ridges(FIRST_ALPHA if alpha is None else alpha, GIVEN_DECAY, noise, spread)
