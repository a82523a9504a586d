"""Multinomial logistic regression on a sparse grid of an encoder's output, projected.

As in `skpou.neural_sparse_grids.projected.squares` the coefficients are eliminated, here by
Newton's method, and the encoder's steps are Gauss-Newton steps on the cross entropy. Ridges follow
from Laplace's approximation of the evidence (MacKay 1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import row_blocks, rows_within
from skpou.neural_sparse_grids.encoders.encoder import Embedding, Encoder, EncoderDerivatives
from skpou.neural_sparse_grids.projected.rows import (
    JACOBIAN_NUMBERS,
    DampedModel,
    EncodedRows,
    Ridges,
    add_gram,
    embedding_or_none,
    slopes_on_grid,
    spread_of,
    symmetric,
)
from skpou.sparse_grids import (
    GIVEN_DECAY,
    LEAST_ALPHA,
    N_EXACT,
    GridRows,
    MultinomialRidge,
    SparseGrid,
    hessian,
    shares_of_classes,
    whitened_factor,
)

if TYPE_CHECKING:
    from typing import Self

#: Promised decrease of the objective that ends Newton's method, and its most steps.
NEWTON_TOL, NEWTON_STEPS = 1e-7, 30
#: First ridge of alpha="auto".
FIRST_ALPHA = 1e-2


@dataclass
class ClassesFit:
    """Coefficients for one theta.

    Attributes
    ----------
    theta : Tensor of shape (k,)
        Parameters of the encoder.
    embedding : Embedding
        Of the rows.
    rows : GridRows
        Columns of the grid at the embedding.
    coef : Tensor of shape (G, K)
        Coefficients.
    pi : Tensor of shape (n, K)
        Probabilities.
    loss : float
        Mean negative log likelihood.
    value : float
        Twice its sum, with both ridges.
    score : float
        Twice the negative log evidence, where it is known.
    determined : float
        Number of parameters that the data determine, where it is known.
    """

    theta: Tensor
    embedding: Embedding
    rows: GridRows
    coef: Tensor
    pi: Tensor
    loss: float
    value: float
    score: float = math.inf
    determined: float = 0.0

    def __str__(self) -> str:
        return f"{self.determined:.0f} of {len(self.theta)} parameters determined"

    def rms(self) -> float:
        """Root of twice the mean negative log likelihood."""
        return math.sqrt(max(2 * self.loss, 0.0))


class EncodedClasses(EncodedRows):
    """Logistic regression on a sparse grid for any parameters of the encoder.

    It has what `levenberg_marquardt` asks of a problem; the parameters are those of `EncodedRows`.
    """

    rms = 1.0

    def __init__(self, *args: Any):
        super().__init__(*args)
        share = shares_of_classes(self.rows) + 1 / self.rows.total_weight
        self.offset = (share / share.sum()).log()
        self.last: Tensor | None = None
        self.scale = math.sqrt(self.rows.total_weight)

    def penalty(self) -> Tensor:
        """Ridge of every coefficient, (G,)."""
        return (self.ridges.alpha * self.scale) ** 2 * self.ridges.decay**self.costs

    def solve(self, theta: Tensor, ridge: float = 0.0) -> ClassesFit:
        """Eliminate the coefficients, from those of the last call."""
        embedding, theta = embedding_or_none(self.encoded, theta)
        rows = GridRows(self.grid, embedding.u, self.rows.weight)
        problem = MultinomialRidge(rows, self.rows.y, self.offset, self.costs, N_EXACT)
        # The problem's own scale may change with the embedding; the ridge must not.
        alpha = self.ridges.alpha * self.scale / problem.scale
        coef, _ = problem.fit(
            alpha, self.ridges.decay, self.last, tol=NEWTON_TOL, max_iter=NEWTON_STEPS
        )
        logits = problem.logits(coef)
        nll = problem.negative_log_likelihood(logits)
        value = 2 * nll + float((self.penalty()[:, None] * coef.square()).sum())
        value = self.held(value, theta, embedding)
        if math.isfinite(value):
            self.last = coef
        pi = torch.softmax(logits, 1)
        loss = nll / self.rows.total_weight
        return ClassesFit(theta, embedding, rows, coef, pi, loss, value)

    def linearise(self, fit: ClassesFit) -> DampedModel:
        """Gauss-Newton model of twice the negative log likelihood, coefficients projected off."""
        return self._model(fit)[0]

    def _model(self, fit: ClassesFit) -> tuple[DampedModel, Tensor, Tensor]:
        """The model, the Cholesky factor of the coefficients' Hessian, and the ridge in it."""
        slope = slopes_on_grid(self.grid, fit.embedding, fit.coef)
        pi, weight = fit.pi, self.rows.weight
        n, K = pi.shape
        k, G = self.encoded.n_parameters, self.grid.n_columns
        # Rows of B J with B'B = diag(pi) - pi pi'; one is enough for two classes.
        binary = K == 2
        mean = torch.einsum("nk,nkd->nd", pi, slope)
        size = pi.sqrt()
        if binary:
            bent = pi.prod(1).sqrt()[:, None, None] * (slope[:, 1:] - slope[:, :1])
            factor = pi.prod(1, keepdim=True).sqrt()
        else:
            bent = size[:, :, None] * (slope - mean[:, None])
            factor = size
        bent = bent * weight.sqrt()[:, None, None]
        steep = torch.einsum("nk,nkd->nd", (pi - self.rows.y) * weight[:, None], slope)
        pull = self.encoded.pull_back(fit.theta, fit.embedding.columns, steep)
        m = bent.shape[1]
        gram = slope.new_zeros((k, k))
        cross = slope.new_zeros((m, G, k))
        for block in row_blocks(n, rows_within(m * k, JACOBIAN_NUMBERS)):
            J = self.encoded_rows(block, fit, bent)
            Phi = fit.rows.dense(block)
            for o in range(m):
                add_gram(gram, J[:, o])
                cross[o].addmm_((Phi * factor[block, o : o + 1]).T, J[:, o])
        gram = symmetric(gram)
        L, own = self._hessian_factor(fit, binary)
        inner = torch.linalg.solve_triangular(L, cross.reshape(m * G, k), upper=False)
        gram -= inner.T @ inner
        return self.damped(gram, pull, fit), L, own

    def _hessian_factor(self, fit: ClassesFit, binary: bool) -> tuple[Tensor, Tensor]:
        """Factor of the Hessian in the coefficients, class by class; their difference for two.

        Returns the ridge in it, too: at least that for which it can be factored.
        """
        if binary:
            H = fit.rows.weighted(fit.pi.prod(1)).gram()
            return self._factored(H, 0.5)  # Both are half the difference.
        return self._factored(symmetric(hessian(fit.rows, fit.pi)), 1.0)

    def _factored(self, H: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Factor of a Hessian with a share of the ridge, by columns whitened by their decay."""
        growth = (self.ridges.decay**self.costs).repeat(len(H) // len(self.costs))
        strength = math.sqrt(share) * max(self.ridges.alpha, LEAST_ALPHA) * self.scale
        factor, used = whitened_factor(H, growth, strength)
        return growth.sqrt()[:, None] * factor, used * growth

    # Ridges by evidence

    def adapt(self, fit: ClassesFit) -> ClassesFit:
        """Ridges of larger evidence at a fit, and the fit for them with its score."""
        model, L, own = self._model(fit)
        number, log_det = model.determined() if model.is_finite() else (0.0, math.inf)
        log_det += float(2 * L.diagonal().log().sum() - own.log().sum())
        score = fit.value + log_det
        alpha = self.ridges.alpha
        if not self.given:
            eye = torch.eye(len(L), dtype=L.dtype, device=L.device)
            inverse = torch.linalg.solve_triangular(L, eye, upper=False).square().sum(0)
            spent = max(float(len(L) - (own * inverse).sum()), 1e-3)
            unit = (fit.coef.square() * (self.ridges.decay**self.costs)[:, None]).sum()
            alpha = math.sqrt(spent / max(float(unit), 1e-12)) / self.scale
            alpha = min(max(alpha, LEAST_ALPHA), 1.0)
        self.ridges = Ridges(alpha, self.ridges.decay, 1.0, spread_of(fit.theta, number))
        return replace(self.solve(fit.theta), score=score, determined=number)

    def unexplained(self, theta: Tensor) -> float:
        """Nothing: classes have regions, which coarse grids see."""
        return 0.0

    def loss(self, fit: ClassesFit) -> float:
        """Mean negative log likelihood."""
        return fit.loss

    def error(self, encoder: Encoder, fit: ClassesFit, held_out: Rows) -> float:
        """Mean negative log likelihood of rows that were held out."""
        with torch.no_grad():
            logits = self.grid.evaluate(encoder(held_out.X), fit.coef) + self.offset
        terms = held_out.weight @ (held_out.y * torch.log_softmax(logits, 1)).sum(1)
        return -float(terms) / held_out.total_weight

    def kept(self, fit: ClassesFit) -> dict[str, Any]:
        """What the training keeps of a fit besides the encoder."""
        chosen = {"alpha": self.ridges.alpha, "decay": self.ridges.decay}
        return {"determined": fit.determined, "coef": fit.coef, "chosen": chosen}

    def on_grid(self, encoded: EncoderDerivatives, grid: SparseGrid, rows: Rows) -> Self:
        """See `EncodedRows.on_grid`.

        Coefficients start from those of this grid, which is a part of a finer one.
        """
        result = super().on_grid(encoded, grid, rows)
        if self.last is not None:
            rest = self.last.new_zeros((grid.n_columns, self.last.shape[1]))
            result.last = torch.cat([self.last, rest])[: grid.n_columns]
        return result


def first_class_ridges(alpha: float | None) -> Ridges:
    """Ridges to start from."""
    return Ridges(FIRST_ALPHA if alpha is None else alpha, GIVEN_DECAY, 1.0)
