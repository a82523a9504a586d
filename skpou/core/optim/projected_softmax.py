"""Softmax heads whose columns have parameters of their own: the coefficients projected off.

The coefficients are eliminated by Newton's method, and steps of the columns' parameters are
Gauss-Newton steps on the cross entropy. Ridges follow from Laplace's approximation of the evidence
(MacKay 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core.linalg import (
    LEAST_ALPHA,
    TINY,
    add_gram,
    factored,
    lower_inverse,
    row_blocks,
    rows_within,
    symmetric,
    whitened_factor,
)
from skpou.core.optim.softmax import WeightedRows, hessian

#: Numbers of a Jacobian that are formed at a time, 64 MB.
JACOBIAN_NUMBERS = 8_000_000
#: Bounds of the variance of the parameters of the columns, whose inputs are of order one.
LEAST_SPREAD, MOST_SPREAD = 1e-2, 1e2
#: Least number of parameters that data determine, and least square of all coefficients: both are
#: divided by, or are what is.
LEAST_DETERMINED, LEAST_SQUARE = 1e-3, 1e-12


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
        # The sum of what is not finite is not finite.
        return bool(torch.isfinite(self.gram.sum()) and torch.isfinite(self.pull).all())

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
        step = -self._solve(gradient, self.weight + damping * scale + TINY)
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
        inverse = lower_inverse(factor).square().sum()
        log_det = float(2 * factor.diagonal().log().sum()) - len(factor) * math.log(used)
        return max(len(factor) - used * float(inverse), 0.0), log_det


@dataclass
class ProjectedCurvature:
    """Gauss-Newton matrix of the columns' parameters, the coefficients projected off.

    Attributes
    ----------
    gram : Tensor of shape (k, k)
        The matrix.
    factor : Tensor of shape (K p, K p)
        Lower Cholesky factor of the Hessian in the coefficients, class by class; in their
        difference, (p, p), where there are two.
    own : Tensor of shape (K p,) or (p,)
        The ridge in it: at least that for which it can be factored.
    """

    gram: Tensor
    factor: Tensor
    own: Tensor

    def log_det(self) -> float:
        """Logarithm of the determinant of the Hessian over that of the ridge."""
        return float(2 * self.factor.diagonal().log().sum() - self.own.log().sum())


@dataclass
class SoftmaxHead:
    """Logistic regression at its coefficients, as the parameters of its columns see it.

    Attributes
    ----------
    rows : WeightedRows
        The columns at the rows.
    targets : Tensor of shape (n, K)
        Share of every class at each row.
    pi : Tensor of shape (n, K)
        Probabilities.
    growth : Tensor of shape (p,)
        Growth of the ridge from column to column.
    strength : float
        Root of the ridge of growth 1.
    """

    rows: WeightedRows
    targets: Tensor
    pi: Tensor
    growth: Tensor
    strength: float

    @property
    def is_binary(self) -> bool:
        """Whether one function, the difference of two, is enough."""
        return self.pi.shape[1] == 2

    def pull(self, slope: Tensor) -> Tensor:
        """Derivatives (n, d) of the negative log likelihood, from those (n, K, d) of the logits."""
        weight = self.rows.root.square()
        return torch.einsum("nk,nkd->nd", (self.pi - self.targets) * weight, slope)

    def curvature(
        self, slope: Tensor, jacobian: Callable[[slice, Tensor], Tensor], n_parameters: int
    ) -> ProjectedCurvature:
        """Gauss-Newton matrix of the columns' parameters, the coefficients projected off.

        Parameters
        ----------
        slope : Tensor of shape (n, K, d)
            Derivatives of the logits, by d coordinates.
        jacobian : callable
            Derivatives (k, m, n_parameters), by the parameters, of functions at some rows whose
            derivatives by the coordinates are (n, m, d): takes the rows and these.
        """
        pi, rows, p = self.pi, self.rows, self.rows.n_columns
        # Rows of B J with B'B = diag(pi) - pi pi'; one is enough for two classes.
        if self.is_binary:
            share = pi.prod(1, keepdim=True).sqrt()
            bent = share[:, :, None] * (slope[:, 1:] - slope[:, :1])
        else:
            share = pi.sqrt()
            mean = torch.einsum("nk,nkd->nd", pi, slope)
            bent = share[:, :, None] * (slope - mean[:, None])
        bent = bent * rows.root[:, :, None]
        m = bent.shape[1]
        gram = bent.new_zeros((n_parameters, n_parameters))
        cross = bent.new_zeros((m, p, n_parameters))
        for block in row_blocks(len(pi), rows_within(m * n_parameters, JACOBIAN_NUMBERS)):
            J, Phi = jacobian(block, bent), rows.dense(block)
            for o in range(m):
                add_gram(gram, J[:, o])
                cross[o].addmm_((Phi * share[block, o : o + 1]).T, J[:, o])
        factor, own = self.hessian_factor()
        inner = torch.linalg.solve_triangular(
            factor, cross.reshape(m * p, n_parameters), upper=False
        )
        return ProjectedCurvature(symmetric(gram) - inner.T @ inner, factor, own)

    def hessian_factor(self) -> tuple[Tensor, Tensor]:
        """`factor` and `own` of `ProjectedCurvature`."""
        p, growth = self.rows.n_columns, self.growth
        strength = max(self.strength, LEAST_ALPHA * float(self.rows.root.norm()))
        if self.is_binary:
            H = self.pi.new_zeros((p, p))
            weight = self.pi.prod(1)
            for block in row_blocks(len(weight), rows_within(2 * p, JACOBIAN_NUMBERS)):
                Phi = self.rows.dense(block)
                add_gram(H, Phi * weight[block, None].sqrt())
            strength *= math.sqrt(0.5)  # Both are half the difference.
        else:
            H = hessian(self.rows, self.pi)
            growth = growth.repeat(self.pi.shape[1])
        factor, used = whitened_factor(symmetric(H), growth, strength)
        return growth.sqrt()[:, None] * factor, used * growth

    def evident_ridge(self, coef: Tensor, factor: Tensor, own: Tensor) -> float:
        """Root of the ridge of larger evidence, from what the rows determine of the coefficients.

        Parameters
        ----------
        coef : Tensor of shape (p, K)
        factor, own : Tensor
            See `ProjectedCurvature`.
        """
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False).square().sum(0)
        spent = max(float(len(factor) - (own * inverse).sum()), LEAST_DETERMINED)
        unit = float((coef.square() * self.growth[:, None]).sum())
        return math.sqrt(spent / max(unit, LEAST_SQUARE))


def spread_of(
    values: Tensor, determined: float, least: float = LEAST_SPREAD, most: float = MOST_SPREAD
) -> float:
    """Variance, within bounds, of parameters of which so many are determined.

    MacKay, "Bayesian interpolation", 1992, Eq. 4.6.
    """
    spread = float(values.square().sum()) / max(determined, LEAST_DETERMINED)
    return min(max(spread, least), most)
