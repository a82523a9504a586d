"""What projected problems on a sparse grid of an encoder's output share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import row_blocks
from skpou.neural_sparse_grids.encoders.encoder import Embedding, EncoderDerivatives
from skpou.sparse_grids import SparseGrid, factored

if TYPE_CHECKING:
    from typing import Self

#: Numbers of a Jacobian that are formed at a time.
JACOBIAN_NUMBERS = 8_000_000
#: Latent coordinate from which on a penalty pulls inwards, 0.03 from the face, and its weight.
FAR, INWARD = 2.0, 0.1
#: Bounds of the variance of an encoder's standardised parameters.
LEAST_SPREAD, MOST_SPREAD = 1e-2, 1e2


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
    spread: float = 1.0

    @property
    def weight(self) -> float:
        """Ridge of the squared parameters of the encoder, beside a sum of squares."""
        return self.noise / self.spread

    @property
    def inward(self) -> float:
        """Weight of the pull inwards on latent coordinates."""
        return INWARD * self.noise


@dataclass
class DampedModel:
    """Gauss-Newton model of the projected problem, by the smaller of two Gram matrices.

    Attributes
    ----------
    gram : Tensor
        ``J'J`` (k, k), or ``JJ'`` over the rows where these are fewer.
    rows : Tensor or None
        J (n m, k) where the Gram matrix is that of the rows.
    pull : Tensor of shape (k,)
        ``J'r``, half the gradient of the sum of squares.
    theta : Tensor of shape (k,)
        Parameters.
    weight : float
        Ridge of the parameters.
    """

    gram: Tensor
    rows: Tensor | None
    pull: Tensor
    theta: Tensor
    weight: float

    def is_finite(self) -> bool:
        """Whether a step can be computed."""
        return bool(torch.isfinite(self.gram).all() and torch.isfinite(self.pull).all())

    def _solve(self, right: Tensor, shift: float) -> Tensor:
        """``(J'J + shift)^-1 right``."""
        if self.rows is None:
            return torch.cholesky_solve(right[:, None], factored(self.gram, shift)[0])[:, 0]
        inner = torch.cholesky_solve((self.rows @ right)[:, None], factored(self.gram, shift)[0])[
            :, 0
        ]
        return (right - self.rows.T @ inner) / shift

    def step(self, damping: float) -> tuple[Tensor, float]:
        """Damped step (k,) and the decrease of the value that the model promises."""
        scale = float(self.gram.diagonal().sum()) / len(self.theta)
        gradient = self.pull + self.weight * self.theta
        step = -self._solve(gradient, self.weight + damping * scale + 1e-300)
        if self.rows is None:
            curved = float(step @ (self.gram @ step))
        else:
            curved = float((self.rows @ step).square().sum())
        curved += self.weight * float(step.square().sum())
        return step, -float(2 * gradient @ step) - curved

    def determined(self) -> tuple[float, float]:
        """What the data say about the parameters under the ridge w.

        Returns
        -------
        number : float
            Parameters that the data determine, ``k - w trace((J'J + w)^-1)``.
        log_det : float
            ``log det(I + J'J / w)``.
        """
        factor, used = factored(self.gram, self.weight)
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False).square().sum()
        log_det = float(2 * factor.diagonal().log().sum()) - len(factor) * math.log(used)
        return max(len(factor) - used * float(inverse), 0.0), log_det


class EncodedRows:
    """What problems on a sparse grid share for any parameters of the encoder.

    Parameters
    ----------
    encoded : EncoderDerivatives
        Encoder at the rows.
    grid : SparseGrid
        The grid.
    rows : Rows
        Targets of about unit rms or shares of classes, weights.
    ridges : Ridges
        First ones; those in use are an attribute.
    given : bool
        Whether `ridges.alpha` stays.
    """

    def __init__(
        self,
        encoded: EncoderDerivatives,
        grid: SparseGrid,
        rows: Rows,
        ridges: Ridges,
        given: bool,
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

    def held(self, value: float, theta: Tensor, embedding: Embedding) -> float:
        """A value with what holds the encoder: its ridge, and the pull inwards."""
        value += self.ridges.weight * float(theta.square().sum())
        value += self.ridges.inward * outside(embedding.z, self.rows.weight)
        return value if math.isfinite(value) else math.inf

    def damped(self, gram: Tensor, pull: Tensor, fit: Fit) -> DampedModel:
        """Model with the pull inwards, which is added to both in place."""
        J, far = pulled_rows(self.encoded, fit.theta, fit.embedding, self.rows.weight)
        gram += self.ridges.inward * (J.T @ J)
        pull += self.ridges.inward * (J.T @ far)
        return DampedModel(gram, None, pull, fit.theta, self.ridges.weight)


def spread_of(theta: Tensor, determined: float) -> float:
    """Variance of the parameters that the data determine (MacKay 1992, Eq. 4.6)."""
    spread = float(theta.square().sum()) / max(determined, 1e-3)
    return min(max(spread, LEAST_SPREAD), MOST_SPREAD)


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
    u = embedding.u
    result = u.new_empty((len(u), coef.shape[1], u.shape[1]))
    with torch.enable_grad():
        points = u.detach().clone().requires_grad_()
        for output in range(coef.shape[1]):
            value = grid.evaluate(points, coef[:, output : output + 1]).sum()
            result[:, output] = torch.autograd.grad(value, points)[0]
    return result * embedding.slope[:, None]


def symmetric(lower: Tensor) -> Tensor:
    """Symmetric matrix from its lower part."""
    return torch.tril(lower) + torch.tril(lower, -1).T


def add_gram(total: Tensor, J: Tensor, panel: int = 256) -> None:
    """Add the lower part of ``J'J``, panel by panel."""
    for part in row_blocks(len(total), panel):
        total[part, : part.stop].addmm_(J[:, part].T, J[:, : part.stop])
