"""Products of a tree of gates and polynomials: the columns of a partition of unity network."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.bases.base import ParametricBasis
from skpou.bases.partitions import log_softmax_among_siblings


class PartitionPolynomials(ParametricBasis):
    """Columns ``pi_k(x; theta) Phi_j(x)`` at fixed points, Eq. 1 of Trask et al. (2022).

    The partitions pi_k are the leaves of a tree of softmax gates; theta holds the logits'
    coefficients of all levels, level by level, row by row.

    Parameters
    ----------
    polynomials : Tensor of shape (n, P)
        Polynomials at the points.
    features : list of Tensor of shape (n, q_l)
        Gate features of every level at the points, the coarsest first.
    parents : list of Tensor of shape (N_l,), int64
        Parent of every partition on the level above.
    """

    def __init__(self, polynomials: Tensor, features: list[Tensor], parents: list[Tensor]):
        self.polynomials = polynomials
        self.features = features
        self.parents = parents
        self.n_leaves = len(parents[-1])
        self.n_columns = self.n_leaves * polynomials.shape[1]
        self._sizes = [
            len(parent) * part.shape[1] for parent, part in zip(parents, features, strict=True)
        ]
        self.n_parameters = sum(self._sizes)

    def split(self, theta: Tensor) -> list[Tensor]:
        """Logit coefficients (N_l, q_l) of every level."""
        parts = theta.split(self._sizes)
        return [
            part.reshape(len(parent), -1) for part, parent in zip(parts, self.parents, strict=True)
        ]

    def partitions(self, theta: Tensor) -> list[Tensor]:
        """Values pi (n, N_l) of every level's partitions, Eq. 22."""
        pi = torch.ones_like(self.polynomials[:, :1])
        levels = []
        for part, features, parent in zip(
            self.split(theta), self.features, self.parents, strict=True
        ):
            gate = log_softmax_among_siblings(features @ part.T, parent).exp()
            pi = pi[:, parent] * gate
            levels.append(pi)
        return levels

    def matrix(self, theta: Tensor) -> Tensor:
        """Columns; see `ParametricBasis.matrix`."""
        pi = self.partitions(theta)[-1]
        return (pi[:, :, None] * self.polynomials[:, None, :]).reshape(len(pi), self.n_columns)

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivative of the blend by the chain rule down the tree.

        With f_k the blend below node k, the derivative of the whole with respect to the node's
        logit is ``pi_k (f_k - f_parent(k))``.
        """
        levels = self.partitions(theta)
        n, m = len(self.polynomials), coef.shape[1]
        experts = torch.einsum("np,kpm->nkm", self.polynomials, coef.reshape(self.n_leaves, -1, m))
        weighted = levels[-1][..., None] * experts  # pi_k f_k of the leaves
        parts = []
        for pi, features, parent in zip(
            reversed(levels), reversed(self.features), reversed(self.parents), strict=True
        ):
            n_parents = int(parent.max()) + 1
            above = weighted.new_zeros((n, n_parents, m)).index_add_(1, parent, weighted)
            mass = pi.new_zeros((n, n_parents)).index_add_(1, parent, pi)
            # pi_k f_parent without a division by a parent that has vanished
            share = pi / mass[:, parent].clamp_min(torch.finfo(pi.dtype).tiny)
            slope = weighted - share[..., None] * above[:, parent]
            by_logit = slope.transpose(1, 2)[..., None] * features[:, None, None, :]
            parts.append(by_logit.reshape(n, m, len(parent) * features.shape[1]))
            weighted = above
        return torch.cat(parts[::-1], dim=2)
