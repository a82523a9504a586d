"""What projected problems on a sparse grid of an encoder's output share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.optim import DampedModel
from skpou.neural_sparse_grids.encoders.encoder import Embedding, EncoderDerivatives
from skpou.sparse_grids import SparseGrid

if TYPE_CHECKING:
    from typing import Self

#: Latent coordinate from which on a penalty pulls inwards, 0.03 from the face, and its weight.
FAR, INWARD = 2.0, 0.1
#: First variance of the parameters of the encoder, whose inputs are of order one.
FIRST_SPREAD = 1.0


class Fit(Protocol):
    """What is asked of a fit: parameters of the encoder, and the rows' embedding for them."""

    theta: Tensor
    embedding: Embedding


@dataclass(frozen=True)
class Ridges:
    """Strength of both ridges.

    Attributes
    ----------
    alpha, decay : float
        Of the coefficients, see `skpou.sparse_grids.solvers.ridge`.
    noise : float
        Variance of the noise, in whose units the parameters of the encoder are held.
    spread : float
        Variance of these parameters.
    """

    alpha: float
    decay: float
    noise: float
    spread: float = FIRST_SPREAD

    @property
    def weight(self) -> float:
        """Ridge of the squared parameters of the encoder, beside a sum of squares."""
        return self.noise / self.spread

    @property
    def inward(self) -> float:
        """Weight of the pull inwards on latent coordinates."""
        return INWARD * self.noise


class EncodedRows:
    """What problems on a sparse grid share for any parameters of the encoder.

    Parameters
    ----------
    encoded : EncoderDerivatives
        Encoder at the rows.
    rows : Rows
        Targets of about unit rms or shares of classes, weights.
    ridges : Ridges
        First ones; those in use are an attribute.
    given : bool
        Whether `ridges.alpha` stays.
    """

    def __init__(
        self, encoded: EncoderDerivatives, grid: SparseGrid, rows: Rows, ridges: Ridges, given: bool
    ):
        self.encoded, self.grid, self.rows = encoded, grid, rows
        self.ridges, self.given = ridges, given
        self.costs = torch.as_tensor(grid.costs(), device=rows.X.device).to(rows.X.dtype)

    def on_grid(self, encoded: EncoderDerivatives, grid: SparseGrid, rows: Rows) -> Self:
        """The problem on another grid, or for other rows, with the ridges that were found."""
        return type(self)(encoded, grid, rows, self.ridges, self.given)

    def encoded_rows(self, block: slice, fit: Fit, slope: Tensor) -> Tensor:
        """Jacobian (n, m, k) of the weighted values at some rows, the coefficients fixed."""
        part = self.encoded.rows(block)
        return part.jacobian(fit.theta, fit.embedding.columns[block], slope[block])

    def penalised(self, value: float, theta: Tensor, embedding: Embedding) -> float:
        """A value with what holds the encoder: its ridge, and the pull inwards."""
        value += self.ridges.weight * float(theta.square().sum())
        value += self.ridges.inward * outside(embedding.z, self.rows.weight)
        return value if math.isfinite(value) else math.inf

    def damped(self, gram: Tensor, pull: Tensor, fit: Fit) -> DampedModel:
        """Model with the pull inwards, which is added to both in place."""
        J, far = pulled_rows(self.encoded, fit.theta, fit.embedding, self.rows.weight)
        if len(J):
            gram += self.ridges.inward * (J.T @ J)
            pull += self.ridges.inward * (J.T @ far)
        return DampedModel(gram, None, pull, fit.theta, self.ridges.weight)


def embedding_or_none(encoded: EncoderDerivatives, theta: Tensor) -> tuple[Embedding, Tensor]:
    """Embedding for theta; where it is not finite, that for zero beside a theta of NaN."""
    embedding = encoded.embed(theta)
    if embedding.is_finite():
        return embedding, theta
    return encoded.embed(torch.zeros_like(theta)), theta * math.nan


def outside(z: Tensor, weight: Tensor) -> float:
    """Weighted sum of squares of how far latent coordinates lie beyond `FAR`.

    There they are squashed onto a face, where the functions of the grid hardly change and steps
    have no effect.
    """
    return float(weight @ (z.abs() - FAR).clamp_min(0).square().sum(1))


def pulled_rows(
    encoded: EncoderDerivatives, theta: Tensor, embedding: Embedding, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Residuals of `outside` that are not zero, (r,), and their Jacobian (r, k)."""
    excess = (embedding.z.abs() - FAR).clamp_min(0) * embedding.z.sign() * weight.sqrt()[:, None]
    rows, coordinates = torch.nonzero(excess, as_tuple=True)
    slope = excess.new_zeros((len(rows), 1, excess.shape[1]))
    slope[torch.arange(len(rows), device="cpu"), 0, coordinates] = weight[rows].sqrt()
    J = encoded.rows(rows).jacobian(theta, embedding.columns[rows], slope)[:, 0]
    return J, excess[rows, coordinates]


def slopes_on_grid(grid: SparseGrid, embedding: Embedding, coef: Tensor) -> Tensor:
    """Derivatives (n, m, d) of functions on a grid by the latent coordinates."""
    return grid.slopes(embedding.u, coef) * embedding.slope[:, None]
