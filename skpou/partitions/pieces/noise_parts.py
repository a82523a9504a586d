"""Parts of the pieces that differ in their noise alone, which one polynomial hides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.partitions.gates.logistic import fit_logistic
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from skpou.partitions.pieces.problem import PieceProblem

#: Fewest samples of a part: their noise is known to a fifth.
LEAST_ROWS = 15
#: Ridges of the gates, one after the other: the second fit begins where the first has ended.
GATE_RIDGES = (1e-1, 1e-2)


def split_by_noise(problem: PieceProblem, labels: Tensor, residual: Tensor, most: int) -> Tensor:
    """Labels (n,) of parts whose noise differs, as many as an information criterion has.

    The part with the most to gain is halved along one of the columns; a half costs a variance and
    a gate.

    Parameters
    ----------
    labels : Tensor of shape (n,), int64
        Pieces 0 .. K-1.
    residual : Tensor of shape (n, m)
        What the pieces leave.
    """
    labels = labels.clone()
    square = residual.square() * problem.rows.weight[:, None] + problem.rows.within
    price = (residual.shape[1] + problem.n_gate_columns) * math.log(problem.n)
    count = int(labels.max()) + 1
    while count < most:
        tried = [
            _best_half(problem, torch.nonzero(labels == part).squeeze(1), square)
            for part in range(count)
        ]
        gain, half = max(tried, key=lambda one: one[0])
        if gain <= price:
            break
        labels[half] = count
        count += 1
    return labels


def _best_half(problem: PieceProblem, members: Tensor, square: Tensor) -> tuple[float, Tensor]:
    """Gain of twice the log likelihood by a noise of its own for half of some samples."""
    best, half = -math.inf, members[:0]
    if len(members) < 2 * LEAST_ROWS:
        return best, half
    weight = problem.rows.weight
    for column in problem.rows.X[members].T:
        order = members[torch.argsort(column, stable=True)]
        parts = order[: len(order) // 2], order[len(order) // 2 :]
        gain = _misfit(square[members], weight[members], problem.floor)
        gain -= sum(_misfit(square[part], weight[part], problem.floor) for part in parts)
        if gain > best:
            best, half = gain, parts[1]
    return best, half


def _misfit(square: Tensor, weight: Tensor, floor: float) -> float:
    total = weight.sum()
    return float((total * (square.sum(0) / total + floor**2).log()).sum())


def tree_of_labels(problem: PieceProblem, labels: Tensor, form: GateForm) -> PartitionTree:
    """Soft gates of one level that part the samples as labels do."""
    features = form.basis(problem.d).matrix(problem.rows.X)
    count = int(labels.max()) + 1
    theta = fit_logistic(features, labels, count, problem.rows.weight, GATE_RIDGES)
    parent = torch.zeros(count, dtype=torch.int64, device=labels.device)
    gate = GateLevel(parent, theta, form.degree, isotropic=form.isotropic)
    return PartitionTree(problem.d, [gate])
