"""The mixture of polynomial experts that every training returns, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, to_array, to_tensor
from skpou.core.models import (
    MOST_TOGETHER,
    Components,
    Makers,
    Refits,
    is_exact,
    own_maker,
    prior_residual_makers,
    residual_makers,
)
from skpou.partitions.gates.refits import GateRefits, SoftGates
from skpou.partitions.gates.tree import PartitionTree, rank_among_siblings
from skpou.partitions.pieces.spaces import POLYNOMIAL, space_basis

#: Variance of the noise, in units of y, up to which it may be what the form leaves and no noise of
#: the rows: gates are then solved for anew without them.
NOT_OF_ROWS = 1e-6
#: Numbers that are held for each point: of a polynomial by itself and in a leaf, its products and
#: variances; of a value in a leaf, mean, variances and their parts; of the widest gate, its columns
#: and logits.
A_POLYNOMIAL, IN_A_LEAF, A_VALUE, A_GATE = 2, 3, 6, 3
#: Rows up to which columns are decomposed where those of a posterior have not the digits to tell
#: what is left out: polynomials across two lines leave nothing of either.
MOST_DECOMPOSED = 3000


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
    prior : Tensor of shape (N, P), default=None
        Prior standard deviations of the coefficients in units of the noise's, of experts that
        were found with one; None: one ridge for all.
    """

    coef: Tensor
    factor: Tensor
    noise: Tensor
    prior: Tensor | None = None

    def prior_array(self) -> dict[str, np.ndarray]:
        """The prior as numpy array, if there is one."""
        return {} if self.prior is None else {"prior": to_array(self.prior)}


class Mixture:
    """Polynomial experts on every level of a tree of partitions (Trask et al. 2022).

    Works in scaled units: points in the unit box, targets of about unit rms.

    Partitions from level `first_blended` on add up to one function, as in Eq. 1: their experts
    were solved for jointly and mean nothing alone. A component of the density is then the blend
    below a partition of the level above. Other levels are mixtures, Eq. 4.

    Parameters
    ----------
    experts : list of Experts
        One set a level; the finest are the model, coarser ones its restrictions (Eq. 36).
    first_blended : int, default=None
        First level whose partitions are blended; None: no level is.
    space : str, default="polynomial"
        Space that the experts come from, see `spaces`.
    """

    def __init__(
        self,
        tree: PartitionTree,
        experts: list[Experts],
        degree: int,
        first_blended: int | None = None,
        space: str = POLYNOMIAL,
    ):
        self.tree = tree
        self.experts = experts
        self.degree = degree
        self.space = space
        self.first_blended = len(tree.levels) if first_blended is None else first_blended
        self.basis = space_basis(space, tree.n_features, degree)

    @property
    def n_leaves(self) -> int:
        """Number of partitions on the finest level."""
        return self.tree.levels[-1].n_partitions

    def at(self, level: int | None) -> Mixture:
        """The mixture that ends at one level of the tree; None: the finest, the mixture itself."""
        depth = self.tree.depth(level)
        if depth == len(self.tree.levels):
            return self
        tree = PartitionTree(self.tree.n_features, self.tree.levels[:depth])
        experts = self.experts[:depth]
        # Coarse experts of earlier releases were solved for one by one, their factors are as wide.
        together = experts[-1].factor.shape[-1] > self.basis.n_columns
        first_blended = min(self.first_blended, depth) if together else None
        return Mixture(tree, experts, self.degree, first_blended, self.space)

    def components(self, X: Tensor, posterior: bool = True, harden: bool = False) -> Components:
        """Components of ``p(y | x)`` at points X (n, d) on the finest level.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        posterior : bool, default=True
            Also evaluate the epistemic variances; zeros otherwise.
        harden : bool, default=False
            Let sharp gates choose outright.
        """
        X = X.to(self.experts[-1].coef)
        if self.first_blended < len(self.tree.levels):
            return self._blends(X, harden, posterior)
        log_pi = self.tree.log_proba(X, harden=harden)
        experts = self.experts[-1]
        phi = self.basis.matrix(X)
        mean = torch.einsum("np,kpm->nkm", phi, experts.coef)
        if not posterior:
            return Components(log_pi, mean, experts.noise, torch.zeros_like(mean[:1]))
        # ||R^-T phi||^2: a norm, so never negative.
        epistemic = self._reduced(phi, X).square().sum(1).T[..., None] * experts.noise
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
        epistemic = self._reduced(phi, X, weight).square().sum(1).T[..., None] * noise
        return Components(log_pi, mean, noise, epistemic)

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) of y, Eq. 8."""
        return self.components(X, posterior=False).expectation()

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean by the product rule; across sharp gates of the piece."""
        coef = self.experts[-1].coef
        X = X.to(coef)
        pi = self.tree.log_proba(X, harden=True).exp()
        values = torch.einsum("np,kpm->nkm", self.basis.matrix(X), coef)
        mean = torch.einsum("nk,nkm->nm", pi, values)
        deviation = values - mean[:, None]
        columns = []
        for feature in range(self.tree.n_features):
            slope = torch.einsum("np,kpm->nkm", self.basis.partial(X, feature), coef)
            gate_slope = self.tree.log_proba_partial(X, feature)
            total = slope + gate_slope[..., None] * deviation
            columns.append(torch.einsum("nk,nkm->nm", pi, total))
        if not columns:
            return mean.new_zeros((len(X), 0, mean.shape[1]))
        return torch.stack(columns, 1)

    def residual_makers(self, rows: Rows, gates: bool = True) -> list[Makers]:
        """Of the polynomials times the partitions, for every ridge where the fit is exact.

        Soft gates were found with the rows that are left out, and would be others without: their
        coefficients are solved for anew, too, to first order. That needs `gates`. Without, whole
        levels that the posterior has not the digits to tell of are told by other ridges.
        """
        prior = self.experts[-1].prior
        if prior is not None:
            columns = self.columns(rows.X) * prior.reshape(-1)
            weighted = columns.double() * rows.weight.sqrt()[:, None]
            tell = Refits.tell(weighted, rows.X)
            return [Refits(weighted) if tell else prior_residual_makers(weighted)]
        few, noise = rows.n_rows <= MOST_TOGETHER, self.experts[-1].noise
        moved = gates and few and float(noise.max()) <= NOT_OF_ROWS
        own = self.soft_gates(rows) if moved else None
        if not few or not is_exact(noise):
            judged = not gates and rows.n_rows <= MOST_DECOMPOSED
            told_by = self.columns(rows.X) if judged else None
            maker = own_maker(self, self._influence(rows.X), rows, told_by)
            return [[maker]] if own is None else [GateRefits(own, rows, maker)]
        if own is not None:
            return [GateRefits(own, rows)]
        return [residual_makers(self.columns(rows.X).double() * rows.weight.sqrt()[:, None])]

    def soft_gates(self, rows: Rows) -> SoftGates | None:
        """The polynomials in partitions at the rows; None where no soft gate can be moved."""
        X = rows.X.double()
        coef = self.experts[-1].coef
        residual = float(self.experts[-1].noise.max()) ** 0.5
        return SoftGates.of(self.tree, self.basis.matrix(X), coef, X, residual)

    def columns(self, X: Tensor) -> Tensor:
        """Polynomials times partitions (n, N P)."""
        X = X.to(self.experts[-1].coef)
        pi, phi = self.tree.log_proba(X, harden=True).exp(), self.basis.matrix(X)
        return (pi[:, :, None] * phi[:, None]).reshape(len(X), -1)

    def _influence(self, X: Tensor) -> Tensor:
        """Columns (n, q) in which the coefficients' covariance is that of the noise, times pi."""
        X = X.to(self.experts[-1].factor)
        reduced, log_pi = self._reduced(self.basis.matrix(X), X), self._log_shares(X)
        return (reduced * log_pi.exp().T[:, None]).permute(2, 0, 1).reshape(len(X), -1)

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the mean, Eq. 8, of independent experts, in float64."""
        X = X.to(self.experts[-1].factor)
        reduced = self._reduced(self.basis.matrix(X), X).double()
        parts = self.components(X, posterior=False)
        root = parts.noise.double().sqrt().expand(parts.mean.shape)
        weight = parts.log_pi.double().exp()[..., None] * root
        shared = weight.new_zeros((len(X), len(X), weight.shape[2]))
        for k, columns in enumerate(reduced):
            own = weight[:, k]
            shared += (columns.T @ columns)[..., None] * own[:, None] * own
        return shared

    def _reduced(self, phi: Tensor, X: Tensor, weight: Tensor | None = None) -> Tensor:
        """Columns (G, q, n) of every expert or blend: products are covariances for unit noise.

        `weight` are the partitions within their blends, where these are known.
        """
        first, factor, columns = self.first_blended, self.experts[-1].factor, phi.T[None]
        if first < len(self.tree.levels):
            weight = self.tree.log_below(X, first).exp() if weight is None else weight
            columns = blend_columns(weight, phi, self.tree.ancestors(first))
            columns = columns[:, : factor.shape[-1]]
        return torch.linalg.solve_triangular(factor.mT, columns, upper=False)

    def _log_shares(self, X: Tensor) -> Tensor:
        """Logarithms (n, G) of the experts' partitions, or of the blends; sharp gates choose."""
        first = self.first_blended
        if first == len(self.tree.levels):
            return self.tree.log_proba(X, harden=True)
        return self.tree.log_proba(X, first - 1, harden=True) if first else X.new_zeros((len(X), 1))

    def flattened(self, targets: Tensor) -> Mixture:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        experts = [
            replace(
                part,
                coef=part.coef.masked_fill(targets, 0.0),
                noise=part.noise.masked_fill(targets, 1.0),
            )
            for part in self.experts
        ]
        return Mixture(self.tree, experts, self.degree, self.first_blended, self.space)

    def numbers_per_row(self) -> int:
        """Numbers that `components` allocates for each point, to size blocks of rows."""
        n_leaves, (_, P, m) = self.n_leaves, self.experts[-1].coef.shape
        widest = max(level.numbers_per_row() for level in self.tree.levels)
        columns = (IN_A_LEAF * n_leaves + A_POLYNOMIAL) * P
        return columns + A_VALUE * n_leaves * m + A_GATE * widest

    def arrays(self) -> list[dict]:
        """State as numpy arrays and numbers, one dict a level, the coarsest first."""
        return [
            {
                **gates,
                # Contiguous: saving makes it so, and another layout gives other last bits.
                "coef": to_array(experts.coef),
                "factor": to_array(experts.factor),
                "noise": to_array(experts.noise),
                "blended": depth >= self.first_blended,
                **experts.prior_array(),
                **({} if self.space == POLYNOMIAL else {"space": self.space}),
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
            return to_tensor(array, like, like.dtype)

        experts = [
            Experts(
                tensor(level["coef"]),
                tensor(level["factor"]),
                tensor(level["noise"]),
                tensor(level["prior"]) if "prior" in level else None,
            )
            for level in arrays
        ]
        for gates, part in zip(tree.levels, experts, strict=True):
            if not gates.n_partitions == len(part.coef) == len(part.noise):
                raise ValueError(f"{gates.n_partitions} partitions have {len(part.coef)} experts.")
        first_blended = sum(not level["blended"] for level in arrays)
        return cls(tree, experts, degree, first_blended, arrays[-1].get("space", POLYNOMIAL))


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
    n_blends = int(ancestor.max()) + 1
    if n_blends == 1:
        spread = weight.T[None]
    else:
        rank = rank_among_siblings(ancestor)
        spread = weight.new_zeros((n_blends, int(rank.max()) + 1, len(weight)))
        spread[ancestor, rank] = weight.T
    size = spread.shape[1] * phi.shape[1]
    return (spread[:, :, None] * phi.T).reshape(n_blends, size, len(phi))
