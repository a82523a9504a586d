"""Mixtures of shrunken polynomials with affine gates: pieces of tables with noise.

One polynomial is fitted to all rows, the prior variance of each degree by evidence. The experts
deviate from it as far as that prior allows, so that a piece needs fewer rows than its polynomial
has columns. Expectation maximization works with left-out errors: no expert takes rows for which
it is good only because it has seen them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, TotalDegreePolynomials
from skpou.core.linalg import EvidenceFit, EvidenceProblem, Groups, lower_inverse
from skpou.core.models import PRIOR_ROWS, GateSteps, rounding
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree, coordinate_columns
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.cells import lloyd

#: Shape of the gates' logits.
FORM = GateForm(1)
#: Steps of expectation maximization, and those of the evidence of the common polynomial.
STEPS, EVIDENCE_STEPS = 30, 60
#: Mean change of the rows' shares at which expectation maximization rests: what follows moves the
#: densities by less than which rows are left out.
AT_REST = 1e-3
#: Share of a row that its own cluster takes in the start.
FIRST_SHARE = 0.9
#: Weight of the target beside the columns in the clusters of the start.
TARGET_WEIGHT = 1.5
#: Least variance of an expert relative to that of all.
LEAST_VARIANCE = 1e-12
#: Standard deviation of a column of the unit box that is constant.
CONSTANT = 1e-9
#: Prior variance of the constant, which is free, and variance of the noise before the rows speak.
FREE, FIRST_NOISE = 1e6, 0.1
#: Change of the log evidence a row that ends its search.
ENOUGH = 1e-6
#: Random points for each polynomial: they determine all of them.
POINTS_A_COLUMN = 3


class CommonPolynomial:
    """One polynomial for all rows, in standardized columns.

    Parameters
    ----------
    rows : Rows
        Distinct points in the unit box with one target of about unit rms.
    degree : int
        Total degree, at least 1.

    Attributes
    ----------
    fit : EvidenceFit
        Its coefficients, and prior variances by degree.
    floor : float
        Least variance of an expert: y is rounded.
    """

    def __init__(self, rows: Rows, degree: int):
        self.rows = pairs = rows.pairs()
        self.degree = degree
        self.n_features = rows.n_features
        self.basis = TotalDegreePolynomials(rows.n_features, degree)
        X = pairs.X.double()
        self.weight = pairs.weight.double()
        self.y = pairs.y[:, 0].double()
        self.share = self.weight / self.weight.sum()
        self.centre = self.share @ X
        self.width = _spread(self.share, X - self.centre)
        raw = self._raw(X)
        self.mean = self.share @ raw
        self.scale = _spread(self.share, raw - self.mean)
        self.mean[0], self.scale[0] = 0.0, 1.0
        self.F = (raw - self.mean) / self.scale
        self.Z = torch.cat([torch.ones_like(raw[:, :1]), (X - self.centre) / self.width], 1)
        order = torch.as_tensor(self.basis.exponents.sum(1), device=X.device)
        ones = torch.ones_like(self.mean)
        kinds = torch.arange(degree + 1, device=X.device)
        self.groups = Groups(order, ones, kinds)
        alpha = 1.0 / torch.bincount(order)
        alpha[0] = FREE
        problem = EvidenceProblem(self.F, self.y, self.weight, 0.0, self.groups)
        self.fit: EvidenceFit = problem.fit(
            alpha.to(ones), FIRST_NOISE, EVIDENCE_STEPS, ENOUGH * len(X)
        )
        self.floor = max(rounding(self.y) ** 2, LEAST_VARIANCE * self.fit.noise)

    @property
    def ridge(self) -> float:
        """Ridge of the highest degree relative to the norm of its columns."""
        variance = float(self.fit.alpha[-1] * self.weight.sum())
        return math.sqrt(self.fit.noise / variance)

    def _raw(self, X: Tensor) -> Tensor:
        return self.basis.matrix(0.5 + 0.5 * (X - self.centre) / self.width)

    # In the box

    def _to_box(self) -> Tensor:
        """Upper triangular matrix M with ``F = phi M``, phi the polynomials of the unit box."""
        P = self.basis.n_columns
        X = torch.tensor(
            np.random.default_rng(0).random((POINTS_A_COLUMN * P, self.n_features)), device="cpu"
        )
        phi = self.basis.matrix(X.to(self.F.device))
        columns = (self._raw(X.to(self.F.device)) - self.mean) / self.scale
        L = torch.linalg.cholesky(phi.T @ phi)
        M = torch.cholesky_solve(phi.T @ columns, L)
        M = M + torch.cholesky_solve(phi.T @ (columns - phi @ M), L)
        # Columns are stretched one by one: no power of any of them becomes a higher one.
        return M.triu()

    def mixture(self, fits: list[EvidenceFit], common: Tensor, gates: Tensor) -> Mixture:
        """Experts `common` and what the fits add to it, with gates (d + 1, K) over ``Z``."""
        M = self._to_box()
        noise = torch.stack([self.y.new_tensor(fit.noise) for fit in fits])
        coef = torch.stack([M @ (common + fit.coef) for fit in fits])
        factors = [self._factor(fit, M) for fit in fits]
        theta = self._logits(gates)
        like = self.rows.X.dtype
        parent = torch.zeros(len(fits), dtype=torch.int64, device=M.device)
        tree = PartitionTree(self.n_features, [GateLevel(parent, theta.to(like), FORM.degree)])
        parts = (coef[..., None], torch.stack(factors), noise[:, None])
        return Mixture(tree, [Experts(*(part.to(like) for part in parts))], self.degree)

    def _factor(self, fit: EvidenceFit, M: Tensor) -> Tensor:
        """R with the posterior covariance ``noise (R' R)^-1`` of the coefficients in the box."""
        return math.sqrt(fit.noise) * lower_inverse((M @ fit.root).T).T.contiguous()

    def _logits(self, gates: Tensor) -> Tensor:
        """Coefficients (K, d + 1) of the logits in the gates' basis."""
        slope = 0.5 * gates[1:] / self.width[:, None]
        theta = torch.zeros_like(gates.T)
        theta[:, coordinate_columns(FORM.basis(self.n_features))] = slope.T
        theta[:, 0] = gates[0] + ((1 - 2 * self.centre) @ slope)
        return theta


def _spread(share: Tensor, deviation: Tensor) -> Tensor:
    """Standard deviations of columns, 1 for those that are constant."""
    width = (share @ deviation.square()).sqrt()
    return torch.where(width > CONSTANT, width, 1.0)


def fit_shrunk_experts(
    common: CommonPolynomial, n_experts: int, rng: np.random.Generator
) -> Mixture:
    """Expectation maximization for so many experts, from clusters of the rows.

    Parameters
    ----------
    common : CommonPolynomial
        What the experts deviate from.
    """
    F, Z, weight = common.F, common.Z, common.weight
    gates = Z.new_zeros((Z.shape[1], n_experts))
    if n_experts == 1:
        return common.mixture([common.fit], torch.zeros_like(common.fit.coef), gates)
    target = common.y - F @ common.fit.coef
    alpha = common.fit.alpha.clone()
    alpha[0] = 1.0
    overall = common.fit.noise
    share = _clusters(common, n_experts, rng)
    variance = Z.new_full((n_experts,), max(overall, common.floor))
    steps = GateSteps(Z, weight)
    fits: list[EvidenceFit] = []
    for _ in range(STEPS):
        fits = [
            EvidenceProblem(F, target, weight * part, 0.0, common.groups).fit(alpha, s2, 1, 0.0)
            for part, s2 in zip(share.T, variance.tolist(), strict=True)
        ]
        left = [fit.left_out(target) for fit in fits]
        error, spread = (torch.stack(part, 1) for part in zip(*left, strict=True))
        square = ((weight[:, None] * share) * error.square() / (1 + spread)).sum(0)
        count = weight @ share
        variance = (square + 0.5 * PRIOR_ROWS * overall) / (count + PRIOR_ROWS)
        variance = variance.clamp_min(common.floor)
        total = variance * (1 + spread)
        log_normal = -0.5 * (error.square() / total + total.log())
        before, share = share, torch.softmax(torch.log_softmax(Z @ gates, 1) + log_normal, 1)
        gates = steps.ascend(gates, share)
        if float(common.share @ (share - before).abs().sum(1)) < AT_REST:
            break
    return common.mixture(fits, common.fit.coef, gates)


def _clusters(common: CommonPolynomial, n_experts: int, rng: np.random.Generator) -> Tensor:
    """Shares (n, K) of clusters in randomly stretched columns and the target."""
    stretch = rng.gamma(2, 0.5, common.n_features)
    columns = common.Z[:, 1:].cpu().numpy() * stretch
    target = TARGET_WEIGHT * common.y.cpu().numpy()
    points = np.column_stack([columns, target])
    cell = lloyd(points, common.weight.cpu().numpy(), n_experts, rng)[1]
    labels = torch.as_tensor(cell, device=common.Z.device)
    own = torch.nn.functional.one_hot(labels, n_experts).to(common.Z)
    return FIRST_SHARE * own + (1 - FIRST_SHARE) / n_experts
