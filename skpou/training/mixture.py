"""The mixture of polynomial experts that every training returns, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.bases.partitions import PartitionTree, rank_among_siblings
from skpou.bases.polynomials import TotalDegreePolynomials


@dataclass
class Experts:
    """The polynomial experts of one level.

    Attributes
    ----------
    coef : Tensor of shape (N, P, m)
        Coefficients in the orthogonal polynomials of total degree at most the mixture's.
    factor : Tensor of shape (N, P, P), or (G, K P, K P) for a blend
        Upper triangular factor R of each expert's weighted design matrix, ridge rows included:
        the coefficients' posterior covariance is ``sigma^2 (R' R)^-1``. The experts that a blend
        adds up were solved for jointly: one factor for each of the G blends, the identity where
        a blend has fewer than the largest number K of experts that have samples.
    noise : Tensor of shape (N, m)
        Variance sigma^2 of each expert and target, Eq. 18 with the degrees of freedom taken off.
    """

    coef: Tensor
    factor: Tensor
    noise: Tensor


@dataclass
class Components:
    """The Gaussian components of ``p(y | x)`` at some points.

    Attributes
    ----------
    log_pi : Tensor of shape (n, N)
        Logarithms of the partitions at the points.
    mean : Tensor of shape (n, N, m)
        The experts' values, Eq. 7.
    noise : Tensor of shape (N, m) or (n, N, m)
        The components' noise variances.
    epistemic : Tensor of shape (n, N, m)
        Variances of the experts' values under their coefficients' posterior.
    """

    log_pi: Tensor
    mean: Tensor
    noise: Tensor
    epistemic: Tensor

    @property
    def variance(self) -> Tensor:
        """Predictive variance of each component, (n, N, m)."""
        return self.noise + self.epistemic

    def expectation(self) -> Tensor:
        """Mean of y, Eq. 8, of shape (n, m)."""
        return torch.einsum("nk,nkm->nm", self.log_pi.exp(), self.mean)

    def variances(self) -> tuple[Tensor, Tensor]:
        """Variances (n, m) of y: by Eq. 9, and of its mean through the coefficients.

        Eq. 9 is summed about the mean, ``sum_i pi_i (sigma_i^2 + (mu_i - E[Y])^2)``, which has
        no cancellation. The mean ``sum_i pi_i mu_i`` of independent experts has the variance
        ``sum_i pi_i^2 s_i^2``.
        """
        pi = self.log_pi.exp()
        spread = (self.mean - self.expectation()[:, None]).square()
        noise = torch.einsum("nk,nkm->nm", pi, self.noise + spread)  # Eq. 9
        epistemic = torch.einsum("nk,nkm->nm", pi.square(), self.epistemic)
        return noise, epistemic

    def log_density(self, y: Tensor) -> Tensor:
        """Logarithm of the density of Eq. 4 at targets y (n, m); shape (n,)."""
        variance = self.variance
        square = (y[:, None] - self.mean).square() / variance
        log_normal = -0.5 * (square + variance.log() + np.log(2 * np.pi)).sum(2)
        return torch.logsumexp(self.log_pi + log_normal, dim=1)

    def quantiles(self, probabilities: Tensor, n_bisections: int = 80) -> Tensor:
        """Quantiles of each target's mixture distribution, by bisection.

        Parameters
        ----------
        probabilities : Tensor of shape (k,)
            Between 0 and 1, exclusive.
        n_bisections : int, default=80
            Halvings of the bracket that the components' own quantiles give.

        Returns
        -------
        Tensor of shape (n, m, k)
        """
        pi = self.log_pi.exp()
        std = self.variance.sqrt()
        z = torch.special.ndtri(probabilities)
        present = (pi > torch.finfo(pi.dtype).eps)[..., None, None]
        own = self.mean[..., None] + std[..., None] * z
        low = torch.where(present, own, torch.inf).amin(1)
        high = torch.where(present, own, -torch.inf).amax(1)
        for _ in range(n_bisections if pi.shape[1] > 1 else 0):
            middle = low + 0.5 * (high - low)
            reduced = (middle[:, None] - self.mean[..., None]) / std[..., None]
            below = torch.einsum("nk,nkmq->nmq", pi, torch.special.ndtr(reduced)) < probabilities
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low + 0.5 * (high - low)

    def sample(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Draws of y from given random numbers.

        Parameters
        ----------
        uniform : Tensor of shape (n, s)
            Uniform on [0, 1): pick the components.
        normal : Tensor of shape (n, m, s)
            Standard normal: the components' deviations.

        Returns
        -------
        Tensor of shape (n, m, s)
        """
        cumulative = self.log_pi.exp().cumsum(1)
        total = cumulative[:, -1:]
        pick = torch.searchsorted(cumulative, uniform * total, right=True)
        pick = pick.clamp_max(cumulative.shape[1] - 1)
        index = pick[:, None, :].expand(-1, self.mean.shape[2], -1)
        mean = self.mean.transpose(1, 2).gather(2, index)
        std = self.variance.sqrt().expand_as(self.mean).transpose(1, 2).gather(2, index)
        return mean + std * normal


class Mixture:
    """Polynomial experts on every level of a tree of partitions (Trask et al. 2022).

    Works in scaled units: points in the unit box, targets of about unit rms.

    Partitions from level `first_blended` on add up to one function, as in Eq. 1: their experts
    were solved for jointly and mean nothing alone. A component of the density is then the blend
    below a partition of the level above. Other levels are mixtures, Eq. 4.

    Parameters
    ----------
    tree : PartitionTree
        Gates of every level.
    experts : list of Experts
        One set a level; the finest are the model, coarser ones its restrictions (Eq. 36).
    degree : int
        Total degree of the experts.
    first_blended : int, default=None
        First level whose partitions are blended; None: no level is.
    """

    def __init__(
        self,
        tree: PartitionTree,
        experts: list[Experts],
        degree: int,
        first_blended: int | None = None,
    ):
        self.tree = tree
        self.experts = experts
        self.degree = degree
        self.first_blended = len(tree.levels) if first_blended is None else first_blended
        self.basis = TotalDegreePolynomials(tree.n_features, degree)

    @property
    def n_leaves(self) -> int:
        """Number of partitions on the finest level."""
        return self.tree.levels[-1].n_partitions

    def components(
        self, X: Tensor, level: int | None = None, harden: bool = False, posterior: bool = True
    ) -> Components:
        """Components of ``p(y | x)`` at points X (n, d) on one level.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        level : int, default=None
            Level of the tree; None the finest.
        harden : bool, default=False
            Let sharp gates choose outright.
        posterior : bool, default=True
            Also evaluate the epistemic variances; zeros otherwise.

        Returns
        -------
        Components
        """
        depth = self.tree.depth(level)
        if depth == len(self.tree.levels) and self.first_blended < depth:
            return self._blends(X, harden, posterior)
        log_pi = self.tree.log_proba(X, level, harden)
        experts = self.experts[depth - 1]
        phi = self.basis.matrix(X)
        mean = torch.einsum("np,kpm->nkm", phi, experts.coef)
        if not posterior:
            return Components(log_pi, mean, experts.noise, torch.zeros_like(mean[:1]))
        # ||R^-T phi||^2: a norm, so never negative.
        reduced = torch.linalg.solve_triangular(experts.factor.mT, phi.T[None], upper=False)
        epistemic = reduced.square().sum(1).T[..., None] * experts.noise
        return Components(log_pi, mean, experts.noise, epistemic)

    def _blends(self, X: Tensor, harden: bool, posterior: bool) -> Components:
        """Components that are sums of experts over the blended levels."""
        first, experts = self.first_blended, self.experts[-1]
        ancestor = self.tree.ancestors(first)
        n_blends = int(ancestor.max()) + 1
        weight = self.tree.log_below(X, first).exp()
        phi = self.basis.matrix(X)
        values = torch.einsum("np,kpm->nkm", phi, experts.coef) * weight[..., None]
        shape = (len(X), n_blends, values.shape[2])
        mean = values.new_zeros(shape).index_add_(1, ancestor, values)
        noise = values.new_zeros(shape).index_add_(1, ancestor, weight[..., None] * experts.noise)
        log_pi = torch.zeros_like(weight[:, :1])
        if first:
            log_pi = self.tree.log_proba(X, first - 1, harden)
        if not posterior:
            return Components(log_pi, mean, noise, torch.zeros_like(mean[:1]))
        columns = blend_columns(weight, phi, ancestor)[:, : experts.factor.shape[-1]]
        reduced = torch.linalg.solve_triangular(experts.factor.mT, columns, upper=False)
        epistemic = reduced.square().sum(1).T[..., None] * noise
        return Components(log_pi, mean, noise, epistemic)

    def gradient(self, X: Tensor, level: int | None = None) -> Tensor:
        """Gradient (n, m, d) of the mean by the product rule; across sharp gates of the piece."""
        pi = self.tree.log_proba(X, level, harden=True).exp()
        coef = self.experts[self.tree.depth(level) - 1].coef
        values = torch.einsum("np,kpm->nkm", self.basis.matrix(X), coef)
        mean = torch.einsum("nk,nkm->nm", pi, values)
        deviation = values - mean[:, None]
        columns = []
        for feature in range(self.tree.n_features):
            slope = torch.einsum("np,kpm->nkm", self.basis.partial(X, feature), coef)
            gate_slope = self.tree.log_proba_partial(X, feature, level)
            total = slope + gate_slope[..., None] * deviation
            columns.append(torch.einsum("nk,nkm->nm", pi, total))
        if not columns:
            return mean.new_zeros((*mean.shape, 0))
        return torch.stack(columns, 2)

    def numbers_per_row(self) -> int:
        """Numbers that `components` allocates for each point, to size blocks of rows."""
        n_leaves, P = self.n_leaves, self.basis.n_columns
        widest = max(level.numbers_per_row() for level in self.tree.levels)
        return (3 * n_leaves + 2) * P + 6 * n_leaves * self.experts[-1].coef.shape[2] + 3 * widest

    def arrays(self) -> list[dict]:
        """State as numpy arrays and numbers, one dict a level, the coarsest first."""
        return [
            {
                **gates,
                # Contiguous: saving makes it so, and another layout gives other last bits.
                "coef": experts.coef.cpu().contiguous().numpy(),
                "factor": experts.factor.cpu().contiguous().numpy(),
                "noise": experts.noise.cpu().contiguous().numpy(),
                "blended": depth >= self.first_blended,
            }
            for depth, (gates, experts) in enumerate(
                zip(self.tree.arrays(), self.experts, strict=True)
            )
        ]

    @classmethod
    def from_arrays(cls, n_features: int, degree: int, arrays: list[dict], like: Tensor) -> Mixture:
        """Rebuild a mixture from `arrays`, on the device and in the dtype of `like`."""
        tree = PartitionTree.from_arrays(n_features, arrays, like)

        def tensor(array) -> Tensor:
            return torch.tensor(np.asarray(array), dtype=like.dtype, device=like.device)

        experts = [
            Experts(tensor(level["coef"]), tensor(level["factor"]), tensor(level["noise"]))
            for level in arrays
        ]
        first_blended = sum(not level["blended"] for level in arrays)
        return cls(tree, experts, degree, first_blended)


def blend_columns(weight: Tensor, phi: Tensor, ancestor: Tensor) -> Tensor:
    """Columns ``pi_k Phi_j`` of every blend at some points, zero where a blend has no k-th expert.

    Parameters
    ----------
    weight : Tensor of shape (n, N)
        Partitions of the leaves within their blends.
    phi : Tensor of shape (n, P)
        Polynomials.
    ancestor : Tensor of shape (N,), int64
        Blend of each leaf.

    Returns
    -------
    Tensor of shape (G, K P, n)
        K is the largest number of leaves in a blend; transposed for triangular solves.
    """
    rank = rank_among_siblings(ancestor)
    n_blends, widest = int(ancestor.max()) + 1, int(rank.max()) + 1
    spread = weight.new_zeros((n_blends, widest, len(weight)))
    spread[ancestor, rank] = weight.T
    size = widest * phi.shape[1]
    return (spread[:, :, None] * phi.T).reshape(n_blends, size, len(phi))
