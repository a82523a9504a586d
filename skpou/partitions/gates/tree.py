"""Partitions of unity: softmax gates, and trees of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Basis, TotalDegreePolynomials, to_array, to_tensor
from skpou.networks import Network, NetworkBasis

#: Depth of an empty partition's logit below another one, and that relative to the largest
#: coefficient: its probability is 0 in float64, and the difference is no round-off.
BELOW, BELOW_COEFFICIENTS = 1e3, 1e-6


class RadialQuadratics(Basis):
    """The constant, the coordinates and ``sum_j P_2(2 x_j - 1)``: logits of radial gates."""

    def __init__(self, n_features: int):
        self.n_features = n_features
        self.n_columns = n_features + 2

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate; see `Basis.matrix`."""
        t = 2 * X - 1
        square = (1.5 * t.square() - 0.5).sum(1, keepdim=True)
        return torch.cat([torch.ones_like(square), t, square], 1)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives along one coordinate; see `Basis.partial`."""
        slopes = torch.zeros((len(X), self.n_columns), dtype=X.dtype, device=X.device)
        slopes[:, 1 + feature] = 2.0
        slopes[:, -1] = 6 * (2 * X[:, feature] - 1)
        return slopes


def gate_basis(n_features: int, degree: int, isotropic: bool = False) -> Basis:
    """Basis of a gate's logits: all polynomials of a total degree, or the radial quadratics."""
    return RadialQuadratics(n_features) if isotropic else TotalDegreePolynomials(n_features, degree)


def gate_polynomials(state: dict, n_features: int) -> tuple[int, np.ndarray] | None:
    """Degree, and coefficients (N, q) in total-degree polynomials, of a stored level's logits.

    None where they are outputs of networks; `state` is what `GateLevel.arrays` returned.
    """
    theta = np.asarray(state["theta"], dtype=np.float64)
    if "network" in state:
        return None
    if not state["isotropic"]:
        return state["gate_degree"], theta
    exponents = TotalDegreePolynomials(n_features, 2).exponents
    total, highest = exponents.sum(1), exponents.max(1, initial=0)
    full = np.zeros((len(theta), len(exponents)))
    full[:, 0] = theta[:, 0]
    full[:, (total == 2) & (highest == 2)] = theta[:, -1:]
    for column in np.flatnonzero(total == 1):
        full[:, column] = theta[:, 1 + int(exponents[column].argmax())]
    return 2, full


def coordinate_columns(basis: Basis) -> list[int]:
    """Columns of a gate's basis that hold the coordinates ``2 x_j - 1``, in the order of j."""
    d = basis.n_features
    if isinstance(basis, TotalDegreePolynomials):
        # Exponents are sorted lexicographically: the last coordinate comes first.
        return list(range(d, 0, -1))
    return list(range(1, d + 1))


@dataclass(frozen=True)
class GateForm:
    """Shape of a gate's logits.

    Attributes
    ----------
    degree : int
        Total degree of the logits as polynomials.
    isotropic : bool
        Radial quadratics only; `degree` is 2 then.
    """

    degree: int = 2
    isotropic: bool = False

    def basis(self, n_features: int) -> Basis:
        """Basis of the logits in d dimensions."""
        return gate_basis(n_features, self.degree, self.isotropic)


@dataclass(frozen=True)
class NetworkForm:
    """Shape of a gate whose logits are the outputs of a network; see `Network`.

    Attributes
    ----------
    architecture : {"plain", "residual"}
        Whether the layers after the first add to their input.
    """

    hidden_layer_sizes: tuple[int, ...] = (10, 10)
    architecture: str = "plain"
    activation: str = "tanh"

    def network(self, n_features: int) -> Network:
        """Hidden layers of a gate in d dimensions."""
        return Network(n_features, self.hidden_layer_sizes, self.architecture, self.activation)


@dataclass
class GateLevel:
    """The gates of one level of a tree: a softmax among the children of each parent.

    Parameters
    ----------
    parent : Tensor of shape (N,), int64
        Index of each partition's parent on the level above (0 on the first level).
    theta : Tensor of shape (N, q)
        Coefficients of the logits in the gate's basis: polynomials, or the network's columns.
    degree : int
        Total degree of the logits as polynomials: 1 for linear, 2 for quadratic gates.
    sharp : bool, default=False
        Whether the gates switch within far less than the distance between samples, so that a
        derivative across them is that of the chosen piece.
    isotropic : bool, default=False
        Radial logits ``a + b . x + c |x|^2``: Gaussian radial functions, normalised. `degree`
        is 2 then.
    network : NetworkBasis, default=None
        Hidden layers of the parents' networks (Eq. 21), one row of its theta a parent; `degree`
        and `isotropic` have no meaning then.
    """

    parent: Tensor
    theta: Tensor
    degree: int
    sharp: bool = False
    isotropic: bool = False
    network: NetworkBasis | None = None

    @property
    def n_partitions(self) -> int:
        """Number N of partitions on this level."""
        return len(self.parent)

    def basis(self, n_features: int) -> Basis:
        """Basis of the logits; that of networks has one matrix for each parent."""
        return self.network or gate_basis(n_features, self.degree, self.isotropic)

    def has_features_of(self, other: GateLevel) -> bool:
        """Whether its logits are polynomials of the same columns."""
        polynomial = self.network is None and other.network is None
        return polynomial and (self.degree, self.isotropic) == (other.degree, other.isotropic)

    def padded(self, n_partitions: int) -> GateLevel:
        """The same gates of a first level with empty partitions up to a number."""
        missing = n_partitions - self.n_partitions
        if missing <= 0:
            return self
        # The logit of the first partition, far below it everywhere.
        extra = self.theta[:1].repeat(missing, 1)
        extra[:, 0] -= BELOW + BELOW_COEFFICIENTS * float(self.theta.abs().max())
        parent = torch.cat([self.parent, self.parent.new_zeros(missing)])
        return replace(self, parent=parent, theta=torch.cat([self.theta, extra]))

    def numbers_per_row(self) -> int:
        """Numbers that the logits' features take for each point."""
        return self.theta.shape[1] * (len(self.network.theta) if self.network else 1)

    def arrays(self) -> dict:
        """State as numpy arrays, numbers and strings."""
        state = {
            "parent": self.parent.cpu().numpy(),
            "theta": to_array(self.theta),
            "gate_degree": int(self.degree),
            "sharp": bool(self.sharp),
            "isotropic": bool(self.isotropic),
        }
        if self.network:
            layers = self.network.arrays()
            del layers["n_features"]
            state["network"] = layers
        return state

    @classmethod
    def from_arrays(cls, n_features: int, state: dict, like: Tensor) -> GateLevel:
        """Rebuild from `arrays`, on the device and in the dtype of `like`."""

        def tensor(array) -> Tensor:
            return to_tensor(array, like, like.dtype)

        network = None
        if "network" in state:
            layers = dict(state["network"])
            theta = tensor(layers.pop("theta"))
            network = NetworkBasis(Network(n_features, **layers), theta)
        return cls(
            to_tensor(state["parent"], like),
            tensor(state["theta"]),
            state["gate_degree"],
            state["sharp"],
            state["isotropic"],
            network,
        )


class PartitionTree:
    """Products of softmax gates down a tree, Eqs. 20 to 22 of Trask et al. (2022).

    Parents may have unequal numbers of children; every level is evaluated in one batch.

    Parameters
    ----------
    levels : list of GateLevel
        From the coarsest to the finest.
    """

    def __init__(self, n_features: int, levels: list[GateLevel]):
        self.n_features = n_features
        self.levels = levels
        self._bases = [level.basis(n_features) for level in levels]
        for depth in range(1, len(levels)):
            if levels[depth].has_features_of(levels[depth - 1]):
                self._bases[depth] = self._bases[depth - 1]

    def depth(self, level: int | None = None) -> int:
        """Number of levels down to `level`, where None is the finest.

        Raises
        ------
        ValueError
            If there is no such level.
        """
        last = len(self.levels) - 1
        chosen = last if level is None else level
        if not 0 <= chosen <= last:
            raise ValueError(f"level must lie between 0 and {last}. Got {level!r}.")
        return chosen + 1

    def log_conditional(self, X: Tensor, level: int, features: Tensor | None = None) -> Tensor:
        """Logarithms (n, N_level) of the gates pi_{j | parent}(x) of one level, Eqs. 20 and 21.

        `features` are those of the logits at the points X (n, d); None: they are evaluated.
        """
        gate = self.levels[level]
        features = self._bases[level].matrix(X) if features is None else features
        logits = product_with_children(features, gate.theta, gate.parent)
        return log_softmax_among_siblings(logits, gate.parent)

    def features(self, X: Tensor, levels: range) -> Iterator[Tensor]:
        """Features of the logits at points X (n, d) on some levels; what levels share, once."""
        for depth in levels:
            if depth == levels.start or self._bases[depth] is not self._bases[depth - 1]:
                found = self._bases[depth].matrix(X)
            yield found

    def log_proba(self, X: Tensor, level: int | None = None, harden: bool = False) -> Tensor:
        """Logarithms of the partitions pi_i pi_ij ... down to `level`, Eq. 22.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        level : int, default=None
            Level of the tree, 0 the coarsest; None the finest.
        harden : bool, default=False
            Let sharp levels choose the most probable child outright.

        Returns
        -------
        Tensor of shape (n, N_level)
        """
        return self._log_products(X, range(self.depth(level)), harden)

    def log_below(self, X: Tensor, first: int) -> Tensor:
        """Logarithms (n, N) of the leaves' partitions given their ancestor above level `first`."""
        return self._log_products(X, range(first, len(self.levels)))

    def _log_products(self, X: Tensor, levels: range, harden: bool = False) -> Tensor:
        """Logarithms of the products of the gates of some levels."""
        log_pi = torch.zeros((len(X), 1), dtype=X.dtype, device=X.device)
        for depth, features in zip(levels, self.features(X, levels), strict=True):
            gate = self.levels[depth]
            log_gate = self.log_conditional(X, depth, features)
            if harden and gate.sharp:
                log_gate = _harden(log_gate, gate.parent)
            log_pi = log_gate if depth == levels.start else log_pi[:, gate.parent] + log_gate
        return log_pi

    def ancestors(self, first: int) -> Tensor:
        """Number of each leaf's ancestor on the level above `first`; 0 where `first` is 0."""
        node = torch.arange(self.levels[-1].n_partitions, device=self.levels[-1].parent.device)
        for gate in reversed(self.levels[first:]):
            node = gate.parent[node]
        return node

    def choose(self, X: Tensor) -> list[Tensor]:
        """Node (n,) of each point on every level, those above its most probable leaf."""
        node = self.log_proba(X, harden=True).argmax(1)
        nodes = [node]
        for gate in reversed(self.levels[1:]):
            node = gate.parent[node]
            nodes.insert(0, node)
        return nodes

    @property
    def first_soft(self) -> int:
        """First level that is not sharp; the number of levels if all are."""
        soft = [depth for depth, gate in enumerate(self.levels) if not gate.sharp]
        return soft[0] if soft else len(self.levels)

    def log_proba_partial(self, X: Tensor, feature: int, level: int | None = None) -> Tensor:
        """Derivatives of `log_proba` along one coordinate; sharp levels count as constant.

        Returns
        -------
        Tensor of shape (n, N_level)
        """
        slope = torch.zeros((len(X), 1), dtype=X.dtype, device=X.device)
        for depth in range(self.depth(level)):
            gate = self.levels[depth]
            slope = slope[:, gate.parent]
            if not gate.sharp:
                slope = slope + self.log_conditional_partial(X, feature, depth)
        return slope

    def log_conditional_partial(self, X: Tensor, feature: int, level: int) -> Tensor:
        """Derivatives (n, N_level) of `log_conditional` along one coordinate."""
        gate = self.levels[level]
        slopes = self._bases[level].partial(X, feature)
        logit_slope = product_with_children(slopes, gate.theta, gate.parent)
        pi = self.log_conditional(X, level).exp()
        mean = (pi * logit_slope) @ _membership(gate.parent, X)
        return logit_slope - mean[:, gate.parent]

    def arrays(self) -> list[dict]:
        """State as numpy arrays and numbers, one dict a level."""
        return [gate.arrays() for gate in self.levels]

    @classmethod
    def from_arrays(cls, n_features: int, arrays: list[dict], like: Tensor) -> PartitionTree:
        """Rebuild a tree from `arrays`, on the device and in the dtype of `like`."""
        return cls(n_features, [GateLevel.from_arrays(n_features, level, like) for level in arrays])


def rank_among_siblings(parent: Tensor) -> Tensor:
    """Position (N,) of each partition among those that share its parent, 0 the first."""
    counts = torch.bincount(parent)
    order = torch.argsort(parent, stable=True)
    start = counts.cumsum(0) - counts
    rank = torch.empty_like(parent)
    rank[order] = torch.arange(len(parent), device=parent.device) - start[parent[order]]
    return rank


def product_with_children(features: Tensor, theta: Tensor, parent: Tensor) -> Tensor:
    """Products (n, N) of features with each partition's coefficients (N, q).

    Features (n, q) are common to all partitions, those (G, n, q) of the parents (N,) of each.
    """
    if features.ndim == 2:
        return features @ theta.T
    rank = rank_among_siblings(parent)
    children = theta.new_zeros((len(features), int(rank.max()) + 1, theta.shape[1]))
    children = children.index_put((parent, rank), theta)
    return (features @ children.mT)[parent, :, rank].T


def _membership(parent: Tensor, like: Tensor) -> Tensor:
    """Indicator matrix (N, number of parents) of each partition's parent."""
    n_parents = int(parent.max()) + 1
    return torch.nn.functional.one_hot(parent, n_parents).to(dtype=like.dtype)


def _harden(log_gate: Tensor, parent: Tensor) -> Tensor:
    """Logarithm of the indicator of each parent's most probable child (the first of equals)."""
    hard = torch.full_like(log_gate, -torch.inf)
    for siblings in torch.unique(parent):
        children = torch.nonzero(parent == siblings).squeeze(1)
        best = children[log_gate[:, children].argmax(1, keepdim=True)]
        hard.scatter_(1, best, 0.0)
    return hard


def log_softmax_among_siblings(logits: Tensor, parent: Tensor) -> Tensor:
    """Log-softmax (n, N) within each group of columns, partitions that share a parent (N,)."""
    return log_softmax_of_rows(logits.T, parent).T


def log_softmax_of_rows(logits: Tensor, parent: Tensor) -> Tensor:
    """The same of logits (N, n), one row a partition.

    Along the samples: a softmax of few numbers behind each other takes many times as long.
    """
    n_parents = int(parent.max()) + 1
    if n_parents == 1:
        return torch.log_softmax(logits, 0)
    if len(parent) % n_parents == 0:
        # Families of one size, one behind the other, are an axis.
        families = parent.reshape(n_parents, -1)
        if bool((families == torch.arange(n_parents, device=parent.device)[:, None]).all()):
            shape = (n_parents, families.shape[1])
            return torch.log_softmax(logits.unflatten(0, shape), 1).flatten(0, 1)
    index = parent[:, None].expand(-1, logits.shape[1])
    largest = torch.full(
        (n_parents, logits.shape[1]), -torch.inf, dtype=logits.dtype, device=logits.device
    ).scatter_reduce(0, index, logits.detach(), "amax")
    shifted = logits - largest[parent]
    total = _membership(parent, logits).T @ shifted.exp()
    return shifted - total.log()[parent]
