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
from skpou.core.linalg import LEAST_ALPHA
from skpou.core.optim import (
    DampedModel,
    ProjectedCurvature,
    SoftmaxHead,
    logits_of_shares,
    spread_of,
)
from skpou.neural_sparse_grids.encoders.encoder import Embedding, Encoder, EncoderDerivatives
from skpou.neural_sparse_grids.projected.rows import (
    EncodedRows,
    Ridges,
    embedding_or_none,
    slopes_on_grid,
)
from skpou.sparse_grids import GIVEN_DECAY, N_EXACT, GridMultinomialRidge, GridRows, SparseGrid

if TYPE_CHECKING:
    from typing import Self

#: Promised decrease of the objective that ends Newton's method, and its most steps. A step of the
#: encoder whose gain is not far above that could not be told from what Newton's method leaves.
NEWTON_TOL, NEWTON_STEPS = 1e-7, 30
#: First ridge of alpha="auto": the evidence replaces it after a round.
FIRST_ALPHA = 1e-2


@dataclass
class ClassesFit:
    """Coefficients for one theta.

    Attributes
    ----------
    theta : Tensor of shape (k,)
        Parameters of the encoder.
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
        self.offset = logits_of_shares(self.rows)
        self.last: Tensor | None = None
        self.scale = math.sqrt(self.rows.total_weight)

    def penalty(self) -> Tensor:
        """Ridge of every coefficient, (G,)."""
        return (self.ridges.alpha * self.scale) ** 2 * self.ridges.decay**self.costs

    def solve(self, theta: Tensor, ridge: float = 0.0) -> ClassesFit:
        """Eliminate the coefficients, from those of the last call."""
        embedding, theta = embedding_or_none(self.encoded, theta)
        rows = GridRows(self.grid, embedding.u, self.rows.weight)
        problem = GridMultinomialRidge(rows, self.rows.y, self.offset, self.costs, N_EXACT)
        # The problem's own scale may change with the embedding; the ridge must not.
        alpha = self.ridges.alpha * self.scale / problem.scale
        coef, _ = problem.fit(
            alpha, self.ridges.decay, self.last, tol=NEWTON_TOL, max_iter=NEWTON_STEPS
        )
        logits = problem.logits(coef)
        nll = problem.negative_log_likelihood(logits)
        value = 2 * nll + float((self.penalty()[:, None] * coef.square()).sum())
        value = self.penalised(value, theta, embedding)
        if math.isfinite(value):
            self.last = coef
        pi = torch.softmax(logits, 1)
        loss = nll / self.rows.total_weight
        return ClassesFit(theta, embedding, rows, coef, pi, loss, value)

    def linearise(self, fit: ClassesFit) -> DampedModel:
        """Gauss-Newton model of twice the negative log likelihood, coefficients projected off."""
        return self._model(fit)[0]

    def _head(self, fit: ClassesFit) -> SoftmaxHead:
        strength = self.ridges.alpha * self.scale
        growth = self.ridges.decay**self.costs
        return SoftmaxHead(fit.rows, self.rows.y, fit.pi, growth, strength)

    def _model(self, fit: ClassesFit) -> tuple[DampedModel, ProjectedCurvature]:
        slope = slopes_on_grid(self.grid, fit.embedding, fit.coef)
        head = self._head(fit)
        pull = self.encoded.pull_back(fit.theta, fit.embedding.columns, head.pull(slope))

        def jacobian(block: slice, bent: Tensor) -> Tensor:
            return self.encoded_rows(block, fit, bent)

        curvature = head.curvature(slope, jacobian, self.encoded.n_parameters)
        return self.damped(curvature.gram, pull, fit), curvature

    # Ridges by evidence

    def adapt(self, fit: ClassesFit) -> ClassesFit:
        """Ridges of larger evidence at a fit, and the fit for them with its score."""
        model, curvature = self._model(fit)
        number, log_det = model.determined() if model.is_finite() else (0.0, math.inf)
        log_det += curvature.log_det()
        score = fit.value + log_det
        alpha = self.ridges.alpha
        if not self.given:
            head = self._head(fit)
            alpha = head.evident_ridge(fit.coef, curvature.factor, curvature.own) / self.scale
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

    def head_of(self, fit: ClassesFit) -> dict[str, Any]:
        """What a training has of a fit besides the encoder: coefficients or ridges."""
        chosen = {k: getattr(self.ridges, k) for k in ("alpha", "decay", "spread")}
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
