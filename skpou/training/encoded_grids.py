"""Sparse grid functions of an encoder's output, as a projected least-squares problem.

The coefficients are eliminated (variable projection, as in `skpou.training.varpro`), by the Gram
matrix of the grid's columns: these are many, sparse, and held by a ridge. Both ridges, that of
the coefficients and that of the encoder's parameters, follow from the evidence of the data
(MacKay 1992), so that neither noise nor a network with more parameters than rows is memorised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skpou.bases.encoders import Embedding, Encoder, EncoderDerivatives
from skpou.bases.sparse_grids import SparseGrid
from skpou.solvers.grid_rows import GridRows
from skpou.solvers.ridge import GramProblem, RidgeSolution, best_ridge, factored
from skpou.solvers.statistics import row_blocks, rows_within
from skpou.training.rows import Rows
from skpou.training.sparse_grid_solution import GIVEN_DECAY, ROUND_OFF

if TYPE_CHECKING:
    from typing import Self

    from skpou.training.encoded_classes import ClassesFit

#: Numbers of a Jacobian that are formed at a time.
JACOBIAN_NUMBERS = 8_000_000
#: First guesses of the noise's variance and of that of the encoder's parameters. From bold ones few
#: noisy rows are memorised at once; cautious ones flatten an embedding that is known to be good.
BOLD, CAUTIOUS = (1e-2, 1.0), (1.0, 0.1)
#: Latent coordinate from which on a penalty pulls inwards, 0.03 from the face, and its weight.
FAR, INWARD = 2.0, 0.1
#: Bounds of the variance of an encoder's standardised parameters.
LEAST_SPREAD, MOST_SPREAD = 1e-2, 1e2


@dataclass(frozen=True)
class Ridges:
    """Strength of both ridges.

    Attributes
    ----------
    alpha, decay : float
        Of the coefficients, see `skpou.solvers.ridge`.
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
class EncodedFit:
    """Coefficients for one theta.

    Attributes
    ----------
    theta : Tensor of shape (k,)
        Parameters of the encoder.
    embedding : Embedding
        Of the rows.
    problem : GramProblem
        Columns of the grid at the embedding.
    solution : RidgeSolution
        Coefficients for the ridge.
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
    problem: GramProblem
    solution: RidgeSolution
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

    def encoded_rows(self, block: slice, fit: EncodedFit | ClassesFit, slope: Tensor) -> Tensor:
        """Jacobian (n, m, k) of the weighted values at some rows, the coefficients fixed."""
        part = self.encoded.rows(block)
        return part.jacobian(fit.theta, fit.embedding.columns[block], slope[block])

    def held(self, value: float, theta: Tensor, embedding: Embedding) -> float:
        """A value with what holds the encoder: its ridge, and the pull inwards."""
        value += self.ridges.weight * float(theta.square().sum())
        value += self.ridges.inward * outside(embedding.z, self.rows.weight)
        return value if math.isfinite(value) else math.inf

    def damped(self, gram: Tensor, pull: Tensor, fit: EncodedFit | ClassesFit) -> DampedModel:
        """Model with the pull inwards, which is added to both in place."""
        J, far = pulled_rows(self.encoded, fit.theta, fit.embedding, self.rows.weight)
        gram += self.ridges.inward * (J.T @ J)
        pull += self.ridges.inward * (J.T @ far)
        return DampedModel(gram, None, pull, fit.theta, self.ridges.weight)


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
        problem = GramProblem(rows, self.rows.y, self.costs)
        # The largest column norm may change with the embedding; the ridge must not.
        problem.scale = math.sqrt(self.rows.total_weight)
        return self._fit(theta, embedding, problem)

    def _fit(self, theta: Tensor, embedding: Embedding, problem: GramProblem) -> EncodedFit:
        ridges = self.ridges
        solution = problem.solve(ridges.alpha, ridges.decay)
        residual = problem.y - problem.rows.matmul(solution.coef)
        value = self.held(float((solution.rss + solution.size).mean()), theta, embedding)
        return EncodedFit(theta, embedding, problem, solution, residual, value)

    def linearise(self, fit: EncodedFit) -> DampedModel:
        """Model of the residual that least squares leaves over (Kaufman 1975).

        In ``J'J - J'K (K'K + D)^-1 K'J`` the rows' part of the coefficients is projected off.
        """
        n, m = fit.residual.shape
        slope = slopes_on_grid(self.grid, fit.embedding, fit.solution.coef) * self.root[:, :, None]
        d = fit.solution.decay ** (-0.5 * self.costs)
        k = self.encoded.n_parameters
        if n * m <= k:
            return self._dual(fit, slope, d)
        gram = slope.new_zeros((k, k))
        cross = slope.new_zeros((m, self.grid.n_columns, k))
        pull = slope.new_zeros(k)
        kept = fit.problem.rows
        for block in row_blocks(n, rows_within(m * k, JACOBIAN_NUMBERS)):
            J = self.encoded_rows(block, fit, slope)
            K = dense_columns(kept, block)
            for o in range(m):
                add_gram(gram, J[:, o])
                cross[o].addmm_(K.T, J[:, o])
            pull -= torch.einsum("nok,no->k", J, fit.residual[block])
        gram = symmetric(gram)
        for o in range(m):
            inner = torch.linalg.solve_triangular(
                fit.solution.factor, d[:, None] * cross[o], upper=False
            )
            gram -= inner.T @ inner
        return self.damped(gram / m, pull / m, fit)

    def _dual(self, fit: EncodedFit, slope: Tensor, d: Tensor) -> DampedModel:
        """By the rows: with ``B = I + K D^-1 K' = L L'`` the projected Jacobian is ``L^-1 J``."""
        n, m = fit.residual.shape
        J = self.encoded_rows(slice(0, n), fit, slope)
        ridge = fit.problem.scale**2 * max(fit.solution.alpha, 1e-6) ** 2
        K = dense_columns(fit.problem.rows, slice(0, n)) * d / math.sqrt(ridge)
        L, _ = factored(K @ K.T, 1.0)
        pull = -torch.einsum("nok,no->k", J, fit.residual) / m
        J = torch.linalg.solve_triangular(L, J.reshape(n, -1), upper=False)
        J = J.reshape(n * m, -1) / math.sqrt(m)
        inward, far = pulled_rows(self.encoded, fit.theta, fit.embedding, self.rows.weight)
        J = torch.cat([J, math.sqrt(self.ridges.inward) * inward])
        pull += self.ridges.inward * (inward.T @ far)
        return DampedModel(J @ J.T, J, pull, fit.theta, self.ridges.weight)

    # Ridges by evidence

    def adapt(self, fit: EncodedFit) -> EncodedFit:
        """Ridges of larger evidence at a fit, and the fit for them with its score."""
        ridges, solution, n = self.ridges, fit.solution, self.rows.total_weight
        within = self.rows.within.sum(0)
        if not self.given:
            start = (ridges.alpha, ridges.decay)
            solution = best_ridge(fit.problem, n, within, start=start, stride=1)
        noise = (within + solution.rss + solution.size) / n + ROUND_OFF**2
        fit = replace(fit, solution=solution)
        model = self.linearise(fit)
        number, log_det = model.determined() if model.is_finite() else (0.0, math.inf)
        size = float(fit.theta.square().sum())
        score = n * float((noise + self.ridges.weight * size / n).log().mean())
        score += solution.log_det + log_det
        spread = spread_of(fit.theta, number)
        self.ridges = Ridges(solution.alpha, solution.decay, float(noise.mean()), spread)
        fit = self._fit(fit.theta, fit.embedding, fit.problem)
        return replace(fit, score=score, determined=number)

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
            values = self.grid.evaluate(encoder(held_out.X), fit.solution.coef)
        squares = held_out.weight[:, None] * (held_out.y - values).square() + held_out.within
        return float(squares.sum(0).mean()) / held_out.total_weight

    def kept(self, fit: EncodedFit) -> dict[str, Any]:
        """What the training keeps of a fit besides the encoder."""
        chosen = {"alpha": fit.solution.alpha, "decay": fit.solution.decay}
        return {"determined": fit.determined, "chosen": chosen}


def first_ridges(alpha: float | None, cautious: bool = False) -> Ridges:
    """Ridges to start from; cautious ones take all for noise until the evidence says otherwise."""
    noise, spread = CAUTIOUS if cautious else BOLD
    return Ridges(1e-3 if alpha is None else alpha, GIVEN_DECAY, noise, spread)


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
    slope[torch.arange(len(rows)), 0, coordinates] = weight[rows].sqrt()
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


def dense_columns(rows: GridRows, block: slice) -> Tensor:
    """Weighted columns (n, G) of the grid at some rows."""
    values, columns = rows.entries(block)
    return values.new_zeros((len(values), rows.n_columns)).scatter_(1, columns, values)


def symmetric(lower: Tensor) -> Tensor:
    """Symmetric matrix from its lower part."""
    return torch.tril(lower) + torch.tril(lower, -1).T


def add_gram(total: Tensor, J: Tensor, panel: int = 256) -> None:
    """Add the lower part of ``J'J``, panel by panel."""
    for part in row_blocks(len(total), panel):
        total[part, : part.stop].addmm_(J[:, part].T, J[:, : part.stop])
