"""Sharp gates of a whole tree, from the finest level to the coarsest."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from skpou.partitions.pieces.interfaces import Interface, NodeModels, find_interface
from skpou.partitions.pieces.problem import PieceProblem, Pieces
from skpou.partitions.pieces.sharp_gates import (
    GateSamples,
    SharpGate,
    envelope_gates,
    fit_sharp_gate,
    guard_points,
    harden,
    interval_gate,
)

#: Residual, in units of that of the pieces or of round-off, with which gates are good enough.
GOOD_ENOUGH = 10


def fit_gate_tree(
    problem: PieceProblem,
    pieces: Pieces,
    levels: list[np.ndarray],
    forms: tuple[GateForm, ...],
    quick: bool = False,
) -> PartitionTree:
    """Gates of every level; each sees the models that the finer gates make of the pieces.

    Parameters
    ----------
    pieces : Pieces
        Labels and polynomials of the leaves.
    levels : list of ndarray of shape (K,)
        Node of every piece on every level, the coarsest first.
    forms : tuple of GateForm
        Shapes of the first level's gates to try; the first one serves all other gates.
    quick : bool, default=False
        Stop at the gates that the labels alone give.
    """
    gates: list[GateLevel] = []
    device = pieces.labels.device
    for depth in reversed(range(len(levels))):
        node = torch.as_tensor(levels[depth], device=device)
        parent = torch.zeros(int(node.max()) + 1, dtype=torch.int64, device=device)
        if depth:
            parent[node] = torch.as_tensor(levels[depth - 1], device=device)
        models = NodeModels(problem, pieces.coef, list(gates))
        fitter = _GateFit(problem, node[pieces.labels], parent, models)
        gates.insert(0, fitter.run(forms, quick))
    return PartitionTree(problem.d, gates)


def fit_root_gate(
    problem: PieceProblem, labels: Tensor, models: NodeModels, forms: tuple[GateForm, ...]
) -> GateLevel:
    """Sharp gate of the first level for the partition (n,) of each sample; see `fit_sharp_gate`.

    `models` are those of the partitions, through all finer gates.
    """
    root = torch.zeros(int(labels.max()) + 1, dtype=torch.int64, device=labels.device)
    return _GateFit(problem, labels, root, models).run(forms, quick=False)


class _GateFit:
    """The gates of one level.

    Parameters
    ----------
    labels : Tensor of shape (n,)
        Partition of each sample on this level.
    parent : Tensor of shape (N,)
        Parent of each partition.
    """

    def __init__(self, problem: PieceProblem, labels: Tensor, parent: Tensor, models: NodeModels):
        self.problem = problem
        self.labels = labels
        self.parent = parent
        self.models = models

    def run(self, forms: tuple[GateForm, ...], quick: bool) -> GateLevel:
        """Fit the gate of every parent that has a choice."""
        n_parents = int(self.parent.max()) + 1
        families = [torch.nonzero(self.parent == p).squeeze(1) for p in range(n_parents)]
        families = [children for children in families if len(children) > 1]
        theta = self.problem.rows.X.new_zeros((len(self.parent), 1))
        if not families:
            return GateLevel(self.parent, theta, 0, sharp=True)
        square = self._squared_residuals()
        interface = self._interface(square)
        fitted = []
        for children in families:
            tried = forms if n_parents == 1 else forms[:1]
            fitted.append(self._gate(children, square, interface, tried, quick))
        # All gates of a level have one form: only a single one may choose.
        form = fitted[0][1]
        theta = theta.new_zeros((len(self.parent), form.basis(self.problem.d).n_columns))
        for children, (part, _) in zip(families, fitted, strict=True):
            theta[children] = part
        return GateLevel(self.parent, theta, form.degree, True, form.isotropic)

    def _squared_residuals(self) -> Tensor:
        """Squared residual (n, N) of every sample under every partition's model."""
        values = self.models.values(self.problem.rows.X)
        return (self.problem.rows.y[:, None] - values).square().mean(2)

    def _interface(self, square: Tensor) -> Interface:
        own = square.gather(1, self.labels[:, None]).squeeze(1)
        total = own.new_zeros(len(self.parent)).index_add_(0, self.labels, own)
        count = torch.bincount(self.labels, minlength=len(self.parent)).clamp_min(1)
        error = (total / count).sqrt()
        return find_interface(self.problem, self.labels, self.models, error, self.parent)

    def _gate(
        self,
        children: Tensor,
        square: Tensor,
        interface: Interface,
        forms: tuple[GateForm, ...],
        quick: bool,
    ) -> tuple[Tensor, GateForm]:
        """Gate among the children of one parent."""
        problem = self.problem
        local = torch.full_like(self.parent, -1)
        local[children] = torch.arange(len(children), device=local.device)
        index = torch.nonzero(local[self.labels] >= 0).squeeze(1)
        labels = local[self.labels[index]]
        among = square[index][:, children]
        own = among.gather(1, labels[:, None])
        variance = float(problem.rows.y.var(0, correction=0).mean())
        excess = (among - own).clamp(0.0, variance)
        foreign = (self.labels[problem.neighbours] != self.labels[:, None]).any(1)
        near = foreign | foreign[problem.neighbours].any(1)
        # A sample that another model meets, too, as where a kink lies on it, is on either side.
        others = excess.scatter(1, labels[:, None], torch.inf).amin(1)
        told = others > problem.exact_error**2 + float(own.mean())
        if len(labels[told].unique()) == len(children):
            index, labels, excess, own = index[told], labels[told], excess[told], own[told]
        samples = GateSamples(problem.rows.X[index], labels, excess, near[index])
        roots = interface.select(local[interface.first] >= 0).localised(local)
        if quick:
            gate = SharpGate(samples, roots, len(children), forms[0])
            return harden(gate.fit(n_stages_without_gain=0)[0]), forms[0]
        rms = math.sqrt(float(own.mean()))
        good_enough = GOOD_ENOUGH * max(rms, problem.floor)
        intervals = interval_gate(samples, roots, forms[0]) if problem.d == 1 else None
        if intervals is not None:
            score = SharpGate(samples, roots, len(children), forms[0]).score(intervals)
            exact = rms <= problem.exact_error
            if exact or math.sqrt(score / len(samples.X)) < good_enough:
                return harden(intervals), forms[0]
        for form in forms if rms <= problem.exact_error else ():
            for theta in envelope_gates(self.models, children, form):
                score = SharpGate(samples, roots, len(children), form).score(theta)
                if math.sqrt(score / len(samples.X)) < good_enough:
                    return harden(theta), form
        guards = None
        if len(forms) > 1:
            guards = guard_points(problem, self.labels, roots, np.random.default_rng(0))
        return fit_sharp_gate(samples, roots, len(children), forms, good_enough, guards)
