"""Products of a tree of gates and polynomials: the columns of a partition of unity network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from skpou.core import ParametricBasis
from skpou.networks import NetworkColumns
from skpou.partitions.gates.tree import log_softmax_among_siblings


class Logits(Protocol):
    """Logits of one level's N gates at fixed points, as functions of their parameters.

    Attributes
    ----------
    n_parameters : int
        Number of entries of their share of theta.
    """

    n_parameters: int

    def rows(self, index: slice | Tensor) -> Logits:
        """The same logits at some of the points."""

    def values(self, theta: Tensor) -> Tensor:
        """Logits (n, N)."""

    def chain(self, theta: Tensor, slope: Tensor) -> Tensor:
        """Derivatives (n, m, k) of m functions of the logits, from those (n, m, N) by logit."""

    def pull_back(self, theta: Tensor, slope: Tensor) -> Tensor:
        """Gradient (k,) of a function, from its derivatives (n, N) by logit."""


class LinearLogits:
    """Logits that are linear in theta: an (N, q) matrix, row by row, of coefficients.

    Parameters
    ----------
    features : Tensor of shape (n, q)
        Gate features at the points.
    """

    def __init__(self, features: Tensor, n_partitions: int):
        self.features = features
        self.n_partitions = n_partitions
        self.n_parameters = n_partitions * features.shape[1]

    def rows(self, index: slice | Tensor) -> LinearLogits:
        """See `Logits`."""
        return LinearLogits(self.features[index], self.n_partitions)

    def values(self, theta: Tensor) -> Tensor:
        """See `Logits`."""
        return self.features @ theta.reshape(self.n_partitions, -1).T

    def chain(self, theta: Tensor, slope: Tensor) -> Tensor:
        """See `Logits`."""
        return (slope[..., None] * self.features[:, None, None, :]).flatten(2)

    def pull_back(self, theta: Tensor, slope: Tensor) -> Tensor:
        """See `Logits`."""
        return (slope.T @ self.features).reshape(-1)


class FixedLogits:
    """Logits that stay as they are: gates that were found before, below which others are moved.

    Parameters
    ----------
    fixed : Tensor of shape (n, N)
        Logits at the points.
    """

    n_parameters = 0

    def __init__(self, fixed: Tensor):
        self.fixed = fixed

    def rows(self, index: slice | Tensor) -> FixedLogits:
        """See `Logits`."""
        return FixedLogits(self.fixed[index])

    def values(self, theta: Tensor) -> Tensor:
        """See `Logits`."""
        return self.fixed

    def chain(self, theta: Tensor, slope: Tensor) -> Tensor:
        """See `Logits`."""
        return slope.new_zeros((*slope.shape[:2], 0))

    def pull_back(self, theta: Tensor, slope: Tensor) -> Tensor:
        """See `Logits`."""
        return slope.new_zeros(0)


class NetworkLogits:
    """Logits that are the outputs of a network (Eq. 21 of Trask et al. 2022).

    Theta holds the parameters of the hidden layers, then the (N, p) coefficients of the
    network's columns, row by row.
    """

    def __init__(self, columns: NetworkColumns, n_partitions: int):
        self.columns = columns
        self.n_partitions = n_partitions
        self.n_parameters = columns.n_parameters + n_partitions * columns.n_columns

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the hidden layers (k,), and coefficients (N, p)."""
        hidden, outputs = theta.split(
            [self.columns.n_parameters, self.n_partitions * self.columns.n_columns]
        )
        return hidden, outputs.reshape(self.n_partitions, -1)

    def rows(self, index: slice | Tensor) -> NetworkLogits:
        """See `Logits`."""
        return NetworkLogits(self.columns.rows(index), self.n_partitions)

    def values(self, theta: Tensor) -> Tensor:
        """See `Logits`."""
        hidden, outputs = self.split(theta)
        return self.columns.matrix(hidden) @ outputs.T

    def chain(self, theta: Tensor, slope: Tensor) -> Tensor:
        """See `Logits`."""
        hidden, outputs = self.split(theta)
        by_output = slope[..., None] * self.columns.matrix(hidden)[:, None, None, :]
        by_hidden = self.columns.chain(hidden, slope @ outputs)
        return torch.cat([by_hidden, by_output.flatten(2)], 2)

    def pull_back(self, theta: Tensor, slope: Tensor) -> Tensor:
        """See `Logits`."""
        hidden, outputs = self.split(theta)
        by_output = slope.T @ self.columns.matrix(hidden)
        by_hidden = self.columns.pull_back(hidden, slope @ outputs)
        return torch.cat([by_hidden, by_output.reshape(-1)])


class PartitionPolynomials(ParametricBasis):
    """Columns ``pi_k(x; theta) Phi_j(x)`` at fixed points, Eq. 1 of Trask et al. (2022).

    The partitions pi_k are the leaves of a tree of softmax gates; theta holds the logits'
    parameters, level by level.

    Parameters
    ----------
    polynomials : Tensor of shape (n, P)
        Polynomials at the points.
    logits : list of Logits
        Logits of every level at the points, the coarsest first.
    parents : list of Tensor of shape (N_l,), int64
        Parent of every partition on the level above.
    """

    def __init__(self, polynomials: Tensor, logits: list[Logits], parents: list[Tensor]):
        self.polynomials = polynomials
        self.logits = logits
        self.parents = parents
        self.n_leaves = len(parents[-1])
        self.n_columns = self.n_leaves * polynomials.shape[1]
        self._sizes = [part.n_parameters for part in logits]
        self.n_parameters = sum(self._sizes)
        #: One softmax of all, which is most of a small training.
        self._flat = len(parents) == 1 and not bool(parents[0].any())
        #: Partitions at the last theta: a step asks for columns, then for their derivatives.
        self._last: tuple[Tensor, list[Tensor]] | None = None

    @classmethod
    def of_features(
        cls, polynomials: Tensor, features: list[Tensor], parents: list[Tensor]
    ) -> PartitionPolynomials:
        """Columns for logits that are linear in the features (n, q_l) of every level."""
        logits: list[Logits] = [
            LinearLogits(part, len(parent)) for part, parent in zip(features, parents, strict=True)
        ]
        return cls(polynomials, logits, parents)

    def rows(self, index: slice | Tensor) -> PartitionPolynomials:
        """The same columns at some of the points."""
        logits = [part.rows(index) for part in self.logits]
        return PartitionPolynomials(self.polynomials[index], logits, self.parents)

    def split(self, theta: Tensor) -> list[Tensor]:
        """Parameters (N_l, k) of every level, if they are linear, row by row."""
        parts = theta.split(self._sizes)
        return [
            part.reshape(len(parent), -1) for part, parent in zip(parts, self.parents, strict=True)
        ]

    def partitions(self, theta: Tensor) -> list[Tensor]:
        """Values pi (n, N_l) of every level's partitions, Eq. 22."""
        last = self._last  # Threads may share the columns.
        if last is not None and torch.equal(last[0], theta):
            return last[1]
        levels = self._partitions(theta)
        if not theta.requires_grad:
            self._last = theta.clone(), levels
        return levels

    def _partitions(self, theta: Tensor) -> list[Tensor]:
        if self._flat:
            return [torch.softmax(self.logits[0].values(theta), 1)]
        pi = torch.ones_like(self.polynomials[:, :1])
        levels = []
        for part, logits, parent in zip(
            theta.split(self._sizes), self.logits, self.parents, strict=True
        ):
            pi = pi[:, parent] * log_softmax_among_siblings(logits.values(part), parent).exp()
            levels.append(pi)
        return levels

    def matrix(self, theta: Tensor) -> Tensor:
        """Columns; see `ParametricBasis.matrix`."""
        pi = self.partitions(theta)[-1]
        return (pi[:, :, None] * self.polynomials[:, None, :]).reshape(len(pi), self.n_columns)

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivative of the blend; see `ParametricBasis.jacobian`."""
        parts = zip(theta.split(self._sizes), self.logits, self._slopes(theta, coef), strict=True)
        return torch.cat([logits.chain(part, slope) for part, logits, slope in parts], 2)

    def gradient(self, theta: Tensor, coef: Tensor, cotangent: Tensor) -> Tensor:
        """Product J^T v with the transposed Jacobian, which is not formed.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        coef : Tensor of shape (p, m)
        cotangent : Tensor of shape (n, m)
            The vector v.

        Returns
        -------
        Tensor of shape (n_parameters,)
        """
        parts = zip(theta.split(self._sizes), self.logits, self._slopes(theta, coef), strict=True)
        return torch.cat(
            [
                logits.pull_back(part, torch.einsum("nm,nmk->nk", cotangent, slope))
                for part, logits, slope in parts
            ]
        )

    def _slopes(self, theta: Tensor, coef: Tensor) -> list[Tensor]:
        """Derivatives (n, m, N_l) of the blend by the logits, by the chain rule down the tree.

        With f_k the blend below node k, the derivative of the whole with respect to the node's
        logit is ``pi_k (f_k - f_parent(k))``.
        """
        levels = self.partitions(theta)
        n, m = len(self.polynomials), coef.shape[1]
        by_leaf = coef.reshape(self.n_leaves, -1, m)
        if self._flat:
            pi = levels[0]
            columns = by_leaf.permute(1, 2, 0).reshape(-1, m * self.n_leaves)
            weighted = pi[:, None] * (self.polynomials @ columns).view(n, m, -1)
            return [weighted - pi[:, None] * weighted.sum(2, keepdim=True)]
        experts = torch.einsum("np,kpm->nkm", self.polynomials, by_leaf)
        weighted = levels[-1][..., None] * experts  # pi_k f_k of the leaves
        slopes = []
        for pi, parent in zip(reversed(levels), reversed(self.parents), strict=True):
            n_parents = int(parent.max()) + 1
            above = weighted.new_zeros((n, n_parents, m)).index_add_(1, parent, weighted)
            mass = pi.new_zeros((n, n_parents)).index_add_(1, parent, pi)
            # pi_k f_parent without a division by a parent that has vanished
            share = pi / mass[:, parent].clamp_min(torch.finfo(pi.dtype).tiny)
            slopes.append((weighted - share[..., None] * above[:, parent]).transpose(1, 2))
            weighted = above
        return slopes[::-1]
