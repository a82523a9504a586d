"""Softmax on the last hidden layer of a network: convex in the coefficients, which are eliminated.

The classification network is Eq. 3 of Cyr, Gulian, Patel, Perego, Trask (2020), as numbered in M.
Gulian's talk on it. For given hidden layers the output layer is multinomial logistic regression,
found by Newton's method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import LEAST_ALPHA
from skpou.core.optim import (
    DampedModel,
    DenseRows,
    Descent,
    MultinomialRidge,
    ProjectedCurvature,
    SoftmaxHead,
    logits_of_shares,
    spread_of,
)
from skpou.networks import NetworkColumns

#: Promised decrease of the objective that ends Newton's method, far below the decrease of 1 that
#: counts as progress, and its most steps.
NEWTON_TOL, NEWTON_STEPS = 1e-6, 30
#: First ridge of alpha="auto", and that of "gd", which has no evidence: as in `MultinomialRidge`
#: the logits are then known to be of order one.
FIRST_ALPHA = 1e-2
#: Largest ridge by evidence: the coefficients are next to nothing then.
MOST_ALPHA = 1.0
#: First variance of the parameters of the hidden layers, whose inputs are of order one.
FIRST_SPREAD = 1.0
#: Passes between two choices of the ridge, whose evidence takes a factor of the Hessian.
PASSES_A_RIDGE = 10


@dataclass
class ClassFit:
    """Coefficients for one theta.

    Attributes
    ----------
    theta : Tensor of shape (k,)
        Parameters of the hidden layers.
    coef : Tensor of shape (p, K)
        Coefficients.
    A : Tensor of shape (n, p)
        Weighted columns.
    pi : Tensor of shape (n, K)
        Probabilities.
    residual : Tensor of shape (n, K)
        Weighted errors ``sqrt(w) (pi - t)`` of the probabilities.
    nll : float
        Negative log likelihood, over the sum of the weights.
    value : float
        Twice the sum of the negative log likelihood, with both ridges.
    score : float
        Twice the negative log evidence, where it is known.
    """

    theta: Tensor
    coef: Tensor
    A: Tensor
    pi: Tensor
    residual: Tensor
    nll: float
    value: float
    score: float = math.inf

    def rms(self) -> float:
        """Root of twice the mean negative log likelihood."""
        return math.sqrt(max(2 * self.nll, 0.0))


class ClassProblem:
    """Logistic regression in the coefficients for any hidden layers.

    It has what `levenberg_marquardt` and `descend_hidden` ask of a problem.

    Parameters
    ----------
    rows : Rows
        Targets (n, K) are the shares of the classes at each row.
    alpha : float or None
        Ridge of the coefficients, relative to the norm of the constant column; None: by evidence.
    """

    rms = 1.0

    def __init__(self, basis: NetworkColumns, rows: Rows, alpha: float | None):
        self.basis, self.rows = basis, rows
        self.given = alpha is not None
        self.alpha = FIRST_ALPHA if alpha is None else alpha
        self.spread = FIRST_SPREAD
        self.root = rows.weight.sqrt()[:, None]
        self.total = rows.total_weight
        self.y = rows.y * self.root
        self.offset = logits_of_shares(rows)
        self.growth = rows.X.new_ones(basis.n_columns)
        self.recent: ClassFit | None = None

    @property
    def strength(self) -> float:
        """Root of the ridge of the coefficients."""
        return self.alpha * math.sqrt(self.total)

    def _columns(self, theta: Tensor) -> DenseRows:
        return DenseRows(self.basis.matrix(theta), self.root)

    def solve(self, theta: Tensor, ridge: float = 0.0) -> ClassFit:
        """Eliminate the coefficients, from those of the last call; the ridge is the problem's."""
        rows = self._columns(theta)
        if not bool(torch.isfinite(rows.matrix).all()):
            nothing = rows.matrix.new_zeros((rows.n_columns, self.y.shape[1]))
            fit = self._at(theta, DenseRows(torch.zeros_like(rows.matrix), self.root), nothing)
            return replace(fit, nll=math.nan, value=math.inf)
        problem = MultinomialRidge(rows, self.rows.y, self.offset, 0 * self.growth)
        # The largest column norm may change with the columns; the ridge must not.
        alpha = self.strength / problem.scale
        start = None if self.recent is None else self.recent.coef
        coef, _ = problem.fit(alpha, 1.0, start, tol=NEWTON_TOL, max_iter=NEWTON_STEPS)
        fit = self._at(theta, rows, coef)
        if math.isfinite(fit.value):
            self.recent = fit
        return fit

    def _at(self, theta: Tensor, rows: DenseRows, coef: Tensor) -> ClassFit:
        """The record of some coefficients."""
        residual, twice = self.left(rows.matrix, coef, self.y, self.root)
        pi = residual / self.root + self.rows.y
        value = twice + self.strength**2 * float(coef.square().sum())
        value += float(theta.square().sum()) / self.spread
        value = value if math.isfinite(value) else math.inf
        return ClassFit(theta, coef, rows.matrix, pi, residual, twice / (2 * self.total), value)

    def left(self, A: Tensor, coef: Tensor, y: Tensor, root: Tensor) -> tuple[Tensor, float]:
        """Weighted errors of the probabilities, and twice the negative log likelihood."""
        logs = torch.log_softmax(self.offset + A @ coef / root, 1)
        return root * logs.exp() - y, -2 * float((root * y * logs).sum())

    def head(self, fit: ClassFit) -> SoftmaxHead:
        """The coefficients' problem as the hidden layers see it."""
        rows = DenseRows(fit.A / self.root, self.root)
        return SoftmaxHead(rows, self.rows.y, fit.pi, self.growth, self.strength)

    def linearise(self, fit: ClassFit) -> DampedModel:
        """Gauss-Newton model of twice the negative log likelihood, coefficients projected off."""
        return self._model(fit)[0]

    def _model(self, fit: ClassFit) -> tuple[DampedModel, ProjectedCurvature]:
        slope = fit.coef.T.expand(len(fit.pi), *fit.coef.T.shape)
        pull = self.basis.gradient(fit.theta, fit.coef, self.root * fit.residual)

        def jacobian(block: slice, bent: Tensor) -> Tensor:
            return self.basis.rows(block).chain(fit.theta, bent[block])

        curvature = self.head(fit).curvature(slope, jacobian, self.basis.n_parameters)
        return DampedModel(curvature.gram, None, pull, fit.theta, 1 / self.spread), curvature

    def adapt(self, fit: ClassFit) -> ClassFit:
        """Ridges of larger evidence at a fit, and the fit for them with its score."""
        model, curvature = self._model(fit)
        number, log_det = model.determined() if model.is_finite() else (0.0, math.inf)
        score = fit.value + log_det + curvature.log_det()
        self._adapt_coefficients(fit, curvature.factor, curvature.own)
        self.spread = spread_of(fit.theta, number)
        return replace(self.solve(fit.theta), score=score)

    def adapt_coefficients(self, fit: ClassFit) -> None:
        """A ridge of the coefficients of larger evidence, the hidden layers as they are."""
        if not self.given:
            self._adapt_coefficients(fit, *self.head(fit).hessian_factor())

    def _adapt_coefficients(self, fit: ClassFit, factor: Tensor, own: Tensor) -> None:
        if not self.given:
            strength = self.head(fit).evident_ridge(fit.coef, factor, own)
            self.alpha = min(max(strength / math.sqrt(self.total), LEAST_ALPHA), MOST_ALPHA)


class ClassDescent(Descent):
    """`Descent` on the cross entropy: twice its sum stands for the sum of squares."""

    problem: ClassProblem

    def losses_per_row(self) -> int:
        """Twice the negative log likelihood counts as two."""
        return 2

    def residual(
        self, columns: Tensor, coef: Tensor, y: Tensor, root: Tensor
    ) -> tuple[Tensor, float]:
        """See `Descent.residual`."""
        return self.problem.left(columns, coef, y, root)

    def loss(self, fit: Any) -> float:
        """See `Descent.loss`."""
        return fit.nll


class EvidentRidge:
    """Ridge of a descent, chosen anew by evidence after every few passes.

    Parameters
    ----------
    problem : ClassProblem
        It keeps the ridge; `value` means nothing to it.
    """

    value = 0.0

    def __init__(self, problem: ClassProblem):
        self.problem = problem
        self.n_passes = 0

    def follow(self, relative_rms: float) -> bool:
        """Choose anew where it is time."""
        self.n_passes += 1
        recent = self.problem.recent
        if self.n_passes % PASSES_A_RIDGE != 1 or self.problem.given or recent is None:
            return False
        self.problem.adapt_coefficients(recent)
        return True
