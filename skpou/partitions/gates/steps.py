"""Gates in expectation maximization: random starts, starts from a tree, and their M-step."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import COPIES_SUMMED, row_blocks, rows_within
from skpou.core.optim import Adam
from skpou.networks import Network, NetworkBasis, box
from skpou.partitions.gates.logistic import MOST_STEPS, fit_logistic
from skpou.partitions.gates.tree import (
    GateForm,
    GateLevel,
    NetworkForm,
    PartitionTree,
    coordinate_columns,
    log_softmax_among_siblings,
    product_with_children,
)

#: Ridges of gates that start from labels; a weaker last one gives sharper gates.
START_RIDGES = (1e-1, 1e-2, 1e-3)
#: Least mean square distance to the nearest centre; without columns all are 0.
LEAST_WIDTH = 1e-6
#: Size of a random change of logits relative to theirs: it parts, and keeps where they were.
SPLIT = 0.1


# Starts


def random_gates(
    form: GateForm | NetworkForm, sizes: tuple[int, ...], X: Tensor, rng: np.random.Generator
) -> list[GateLevel]:
    """Random gates with exactly ``prod(sizes)`` leaves.

    All layers of networks start by Box initialization, the outputs too. Polynomial logits
    start as normalised Gaussian radial functions about random samples, drawn among those of
    the parent, which have the samples' distance from the next centre for their width.

    Parameters
    ----------
    sizes : tuple of int
        Number of children of every node on each level.
    X : Tensor of shape (n, d)
        Samples in the unit box.

    Returns
    -------
    list of GateLevel
        The coarsest level first.
    """
    levels: list[GateLevel] = []
    n_parents = 1
    for size in sizes:
        parent = torch.arange(n_parents, device=X.device).repeat_interleave(size)
        if isinstance(form, NetworkForm):
            levels.append(_box_level(form, parent, n_parents, X, rng))
        else:
            above = torch.zeros((len(X), 1), dtype=X.dtype, device=X.device)
            if levels:
                above = PartitionTree(X.shape[1], levels).log_proba(X)
            levels.append(_radial_level(form, parent, above, X, rng))
        n_parents = len(parent)
    return levels


def _box_level(
    form: NetworkForm, parent: Tensor, n_parents: int, X: Tensor, rng: np.random.Generator
) -> GateLevel:
    """One network for each parent, Box initialization in all its layers."""
    network = form.network(X.shape[1])
    hidden = torch.stack([box(network, rng, X) for _ in range(n_parents)])
    output = Network(network.hidden_layer_sizes[-1], (len(parent),))
    weight, bias = output.unflatten(box(output, rng, X))[0]
    theta = torch.cat([bias[:, None], weight], 1)
    return GateLevel(parent, theta, 0, network=NetworkBasis(network, hidden))


def _radial_level(
    form: GateForm, parent: Tensor, log_above: Tensor, X: Tensor, rng: np.random.Generator
) -> GateLevel:
    """Logits ``-|x - p_k|^2 / (2 h^2)`` about samples p_k, up to what siblings share."""
    n, d = X.shape
    basis = form.basis(d)
    probability = log_above.exp().cpu().numpy().astype(float)
    centres = np.empty(len(parent), dtype=np.int64)
    family = parent.cpu().numpy()
    for node in range(int(family.max()) + 1):
        p = probability[:, node] / probability[:, node].sum()
        children = np.flatnonzero(family == node)
        enough = np.count_nonzero(p) >= len(children)
        centres[children] = rng.choice(n, len(children), replace=not enough, p=p)
    P = X[torch.as_tensor(centres, device=X.device)]
    width = float(torch.cdist(X, P).amin(1).square().mean().clamp_min(LEAST_WIDTH))
    theta = X.new_zeros((len(P), basis.n_columns))
    # p . x - |p|^2 / 2 in t = 2 x - 1; the square of x is common to all siblings.
    theta[:, coordinate_columns(basis)] = 0.5 * P / width
    theta[:, 0] = (0.5 * P.sum(1) - 0.5 * P.square().sum(1)) / width
    return GateLevel(parent, theta, form.degree, isotropic=form.isotropic)


def gates_from_tree(
    form: GateForm | NetworkForm,
    tree: PartitionTree,
    X: Tensor,
    weight: Tensor,
    rng: np.random.Generator,
) -> list[GateLevel]:
    """Soft gates that part the samples as a tree does.

    Soft gates of the same form are taken as they are. Others are replaced by logistic
    regression on the partitions that they choose; networks keep the hidden layers of their Box
    initialization then, and only their outputs are fitted.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Samples in the unit box.
    weight : Tensor of shape (n,)
        Frequency weights.
    """
    if all(_is_of_form(gate, form) for gate in tree.levels):
        return [_copy(gate) for gate in tree.levels]
    levels = []
    for node, gate in zip(tree.choose(X), tree.levels, strict=True):
        parent = gate.parent
        if isinstance(form, NetworkForm):
            level = _box_level(form, parent, int(parent.max()) + 1, X, rng)
            level.theta.zero_()
        else:
            theta = X.new_zeros((len(parent), form.basis(X.shape[1]).n_columns))
            level = GateLevel(parent, theta, form.degree, isotropic=form.isotropic)
        share = torch.nn.functional.one_hot(node, len(parent)).to(X.dtype)
        features = level.basis(X.shape[1]).matrix(X)
        level.theta = fit_gates(features, share, weight, parent, level.theta, START_RIDGES)
        levels.append(level)
    return levels


def _is_of_form(gate: GateLevel, form: GateForm | NetworkForm) -> bool:
    if gate.sharp:
        return False
    if isinstance(form, NetworkForm):
        return gate.network is not None and gate.network.network == form.network(
            gate.network.n_features
        )
    return gate.network is None and GateForm(gate.degree, gate.isotropic) == form


def _copy(gate: GateLevel) -> GateLevel:
    network = gate.network and NetworkBasis(gate.network.network, gate.network.theta.clone())
    return GateLevel(
        gate.parent, gate.theta.clone(), gate.degree, isotropic=gate.isotropic, network=network
    )


# M-step


def fit_gates(
    features: Tensor,
    share: Tensor,
    weight: Tensor,
    parent: Tensor,
    theta: Tensor,
    ridges: tuple[float, ...],
    max_iter: int = MOST_STEPS,
) -> Tensor:
    """Logits that maximise ``sum_nk w_nk log pi_k`` (Eqs. 19, 38 to 40), convex in theta.

    Families of equal size are solved in one batch.

    Parameters
    ----------
    features : Tensor of shape (n, q) or (G, n, q)
        Gate features, common or of each parent.
    share : Tensor of shape (n, N)
        Posterior w.
    weight : Tensor of shape (n,)
        Frequency weights.
    parent : Tensor of shape (N,), int64
        Parent of each partition.
    theta : Tensor of shape (N, q)
        Start.
    ridges : tuple of float
        Ridges in turn; see `fit_logistic`.
    max_iter : int, default=MOST_STEPS
        Newton steps for each ridge.

    Returns
    -------
    Tensor of shape (N, q)
    """
    result = theta.clone()
    for children in families_of(parent):
        targets, own_weight = family_targets(share[:, children], weight)
        result[children] = fit_logistic(
            features if features.ndim == 2 else features[parent[children[:, 0]]],
            targets,
            children.shape[1],
            own_weight,
            ridges,
            result[children],
            max_iter,
        )
    return result


def families_of(parent: Tensor) -> list[Tensor]:
    """Children (F, K) of the parents that have K of them, for every K of two at least."""
    counts, found = torch.bincount(parent), []
    for size in torch.unique(counts).tolist():
        if size < 2:
            continue
        families = torch.nonzero(counts == size).squeeze(1)
        members = torch.isin(parent, families)
        order = torch.argsort(parent[members], stable=True)
        found.append(torch.nonzero(members).squeeze(1)[order].reshape(-1, size))
    return found


def family_targets(share: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Shares within families (F, n, K), and weights (F, n), of posteriors (n, F, K)."""
    mass = share.sum(2)
    targets = share / mass.clamp_min(torch.finfo(mass.dtype).tiny)[..., None]
    return targets.transpose(0, 1), (weight[:, None] * mass).T


class GateStep(Protocol):
    """M-step of the gates of one level, which change in place.

    Attributes
    ----------
    log_gate : Tensor of shape (n, N)
        Their logarithms at all samples, after the last step.
    """

    gate: GateLevel
    log_gate: Tensor

    def step(self, share: Tensor, weight: Tensor) -> None:
        """One step towards a posterior (n, N)."""

    def refresh(self) -> None:
        """Evaluate `log_gate` again after the gates have been changed from outside."""


class NewtonStep:
    """A few Newton steps for polynomial logits, whose M-step is convex.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Samples.
    """

    #: Ridge relative to the mean weight of a child, and Newton steps for each M-step.
    ridge = 1e-10
    n_steps = 2

    def __init__(self, gate: GateLevel, X: Tensor):
        self.gate = gate
        self._features = gate.basis(X.shape[1]).matrix(X)
        self.refresh()

    def refresh(self) -> None:
        """See `GateStep`."""
        logits = self._features @ self.gate.theta.T
        self.log_gate = log_softmax_among_siblings(logits, self.gate.parent)

    def step(self, share: Tensor, weight: Tensor) -> None:
        """See `GateStep`."""
        gate, ridges = self.gate, (self.ridge,)
        theta = fit_gates(
            self._features, share, weight, gate.parent, gate.theta, ridges, self.n_steps
        )
        gate.theta.copy_(theta)
        self.refresh()


class AdamStep:
    """One gradient step of Adam for all networks of a level, with momenta of their own.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Samples.
    batch_size : int, default=None
        Most rows a gradient; None: all rows at once.
    """

    def __init__(
        self, gate: GateLevel, X: Tensor, learning_rate: float, batch_size: int | None = None
    ):
        if gate.network is None:
            raise TypeError("Adam steps move the gates of networks; these are polynomials.")
        self.gate, self.X, self._network = gate, X, gate.network
        self.in_batches = batch_size is not None and batch_size < len(X)
        self._theta = gate.theta.requires_grad_()
        self._hidden = self._network.theta.requires_grad_()
        # The gate shares the storage, but is no part of any graph.
        gate.theta = self._theta.detach()
        self._network.theta = self._hidden.detach()
        self._adam = Adam([self._theta, self._hidden], learning_rate)
        self.refresh()

    def evaluate(self, X: Tensor) -> Tensor:
        """Logarithms of the gates at some points, with the graph of their gradient."""
        with torch.enable_grad():
            columns = self._network.network.forward(self._hidden, X)
            logits = product_with_children(columns, self._theta, self.gate.parent)
            return log_softmax_among_siblings(logits, self.gate.parent)

    def refresh(self) -> None:
        """See `GateStep`."""
        if self.in_batches:
            numbers = self.gate.numbers_per_row() + self.gate.n_partitions
            blocks = row_blocks(len(self.X), rows_within(COPIES_SUMMED * numbers))
            self.log_gate = torch.cat([self.evaluate(self.X[block]).detach() for block in blocks])
        else:
            # The evaluation after one step serves the gradient of the next one, too.
            self._graph = self.evaluate(self.X)
            self.log_gate = self._graph.detach()

    def step(self, share: Tensor, weight: Tensor) -> None:
        """See `GateStep`."""
        self._descend(self._graph, share, weight)
        self.refresh()

    def step_on(self, rows: Tensor, share: Tensor, weight: Tensor) -> None:
        """One step on some rows; `log_gate` stays what it was."""
        self._descend(self.evaluate(self.X[rows]), share, weight)

    def _descend(self, log_gate: Tensor, share: Tensor, weight: Tensor) -> None:
        with torch.enable_grad():
            loss = cross_entropy(share, log_gate, weight)
        self._adam.step(list(torch.autograd.grad(loss, self._adam.parameters)))


def make_step(gate: GateLevel, X: Tensor, learning_rate: float, batch_size: int | None) -> GateStep:
    """M-step that suits the gates."""
    if gate.network:
        return AdamStep(gate, X, learning_rate, batch_size)
    return NewtonStep(gate, X)


def split_direction(theta: Tensor, rng: np.random.Generator) -> Tensor:
    """Random change of logits (q,) that parts two equal partitions."""
    size = SPLIT * max(float(theta.norm()), 1.0) / math.sqrt(len(theta))
    return size * torch.as_tensor(rng.standard_normal(len(theta)), device="cpu").to(theta)


def cross_entropy(share: Tensor, log_gate: Tensor, weight: Tensor) -> Tensor:
    """Negative mean of ``sum_k w_k log pi_k`` over the rows, Eqs. 19 and 38 to 40.

    Of a posterior w (n, N) and logarithms (n, N) of the gates or their products.
    """
    # A gate that has vanished together with its posterior adds nothing.
    product = torch.where(share > 0, share * log_gate, 0.0)
    return -(weight @ product.sum(1)) / weight.sum()
