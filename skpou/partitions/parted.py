"""Partitions of one level, some of which kinks and jumps separate and others blend.

Soft gates that are moved all at once have to become sharp at every kink and stay soft elsewhere,
and most descents end before. So the parts between kinks are found first, each has a blend of its
own, and the sharp gates between the parts are added to those inside of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, TrainingResult
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from skpou.partitions.mixtures.experts import fit_level_experts
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.options import PieceOptions
from skpou.partitions.pieces.counts import split_pieces
from skpou.partitions.pieces.gate_tree import fit_root_gate
from skpou.partitions.pieces.interfaces import Interface, NodeModels, find_interface
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.training import PieceTraining, affordable_forms

#: Least degree of the pieces that tell where kinks are: those of a lower one have kinks everywhere.
LEAST_DEGREE = 2
#: Difference of the logits of two parts at the rows beside their boundary: the share of the other
#: part is round-off there.
APART = 40.0
#: Factor of the logits between parts that meet in a kink, and the largest: the kink moves by what
#: logits inside of the parts differ by over it, and their digits are lost with it. Both errors are
#: about 1e-10 at the first.
FACTOR_OF_KINKS, MOST_FACTOR = 1e6, 1e8
#: Weight of the wish for small levels of the parts' logits beside one crossing.
LEAST_PULL = 1e-6
#: Share of the rows that gates may put into another part: more are a kink that they cannot follow.
MOST_MISPLACED = 0.01
#: Rows for each unknown of a part's pieces.
ROWS_AN_UNKNOWN = 2

#: Exactly so many soft pieces of some rows.
TrainPart = Callable[[Rows, PieceOptions], TrainingResult]


def parts_of(rows: Rows, options: PieceOptions, finer: Tensor | None) -> Tensor | None:
    """Part of each row (n,) that kinks and jumps separate; None where there is only one.

    Parameters
    ----------
    rows : Rows
        Distinct samples in the unit box, targets of about unit rms.
    options : PieceOptions
        A degree; its sizes are those of other pieces.
    finer : Tensor of shape (n,), int64, or None
        As many pieces of this degree as rows carry, from another search; None: search for them.
    """
    degree = max(options.degree or 0, LEAST_DEGREE)
    free = replace(options, sizes=None, exactly=False, soft=False, degree=degree)
    training = PieceTraining(rows, free, None)
    if finer is None or degree != options.degree:
        training.search(np.random.default_rng(0), None)
    else:
        training.resume(finer)
    return training.parts()


def parted_pieces(
    rows: Rows, options: PieceOptions, parts: Tensor, train: TrainPart
) -> TrainingResult | None:
    """So many pieces, soft within parts (n,) and sharp between them.

    With `exactly` they are those of one level, otherwise the parts are a level of their own.

    Parameters
    ----------
    rows : Rows
        Distinct samples in the unit box, targets of about unit rms.
    options : PieceOptions
        One size and a degree.
    parts : Tensor of shape (n,), int64
        From `parts_of`.
    train : callable
        Finds the pieces of one part.

    Returns
    -------
    TrainingResult or None
        None where there are fewer pieces than parts, or gates cannot separate these.
    """
    (most,), degree = options.sizes or (1,), options.degree or 0
    n_parts = int(parts.max()) + 1
    if n_parts > most:
        return None
    form = affordable_forms(options.gates, rows)[0]
    problem = PieceProblem(rows, degree, tol=options.tol, space=options.space)
    forms = (form,) if options.exactly else options.gates
    curved = PieceProblem(rows, max(degree, LEAST_DEGREE), tol=options.tol, space=options.space)
    if not _can_separate(curved, parts, forms):
        return None
    found, error = [], []
    for part, number in enumerate(_numbers(problem, parts, most, form)):
        own = rows.subset(torch.nonzero(parts == part).squeeze(1))
        some = replace(
            options, sizes=(number,), gates=(form,), soft=True, exactly=True, padded_to=0
        )
        found.append(train(own, some))
        error.append(_residual(found[-1], own))
    levels = [one.state.tree.levels[0] for one in found]
    theta = torch.cat([_coefficients(level, form, problem.d) for level in levels])
    above = torch.cat([torch.full_like(level.parent, part) for part, level in enumerate(levels)])
    soft = GateLevel(above, theta, form.degree, False, form.isotropic)
    coef = torch.cat([one.state.experts[0].coef for one in found])
    models = NodeModels(problem, coef, [soft])
    gate = fit_root_gate(problem, parts, models, forms)
    if options.exactly:
        root = torch.zeros_like(parts[:n_parts])
        kinks = find_interface(problem, parts, models, torch.stack(error), root)
        together = flat_level(gate, soft, rows.X, parts, kinks)
        tree = PartitionTree(problem.d, [together.padded(max(most, options.padded_to))])
    else:
        tree = PartitionTree(problem.d, [gate, soft])
    first_blended = len(tree.levels) - 1
    nodes = tree.choose(rows.X)[0] if first_blended else torch.zeros_like(parts)
    experts, alpha = fit_level_experts(problem, tree, nodes, first_blended, options.alpha)
    curve = [one.score for one in found]
    return TrainingResult(
        state=Mixture(tree, experts, degree, first_blended, options.space),
        score=max(curve),
        n_iter=sum(one.n_iter for one in found),
        curve=curve,
        chosen={"degree": degree, "alpha": alpha, "gate": form, "parts": n_parts},
    )


def _can_separate(problem: PieceProblem, parts: Tensor, forms: tuple[GateForm, ...]) -> bool:
    """Whether gates choose the part of nearly all rows, as far as one polynomial a part tells.

    Cuts of a line always do.
    """
    if problem.d == 1:
        return True
    models = NodeModels(problem, problem.fit(parts).coef, [])
    gate = fit_root_gate(problem, parts, models, forms)
    chosen = PartitionTree(problem.d, [gate]).choose(problem.rows.X)[0]
    return float((chosen != parts).to(torch.float64).mean()) <= MOST_MISPLACED


def _numbers(problem: PieceProblem, parts: Tensor, most: int, form: GateForm) -> list[int]:
    """Pieces of each part: as many as halves of the largest misfit, and as its rows can carry."""
    whole = problem.fit(parts)
    n_gate = form.basis(problem.d).n_columns
    carried = whole.count // (ROWS_AN_UNKNOWN * (problem.n_columns + n_gate))
    few = whole.count < PieceOptions.rows_a_gate_column * n_gate
    alone = few | (whole.rss <= whole.count * problem.exact_error**2)
    carried = torch.where(alone, 1, carried.clamp_min(1))
    labels = split_pieces(problem, whole, most, carried).labels
    return [len(labels[parts == part].unique()) for part in range(whole.n_pieces)]


def _residual(found: TrainingResult, rows: Rows) -> Tensor:
    """Root mean square of what the pieces of a part leave over at its rows."""
    return (rows.y - found.state.mean(rows.X)).square().mean().sqrt()


def _coefficients(level: GateLevel, form: GateForm, n_features: int) -> Tensor:
    """Coefficients (K, q) of a level's logits in the columns of a form; zeros of a single piece."""
    if level.n_partitions > 1:
        return level.theta
    return level.theta.new_zeros((1, form.basis(n_features).n_columns))


def flat_level(
    gate: GateLevel, soft: GateLevel, X: Tensor, parts: Tensor, kinks: Interface
) -> GateLevel:
    """One level in place of two: logits of the parts, times a factor, and of the pieces in them.

    A softmax of these sums is the product of both levels' gates wherever parts are told apart.

    Parameters
    ----------
    gate : GateLevel
        Sharp gates of the parts.
    soft : GateLevel
        Gates of the pieces below, of the same form.
    X : Tensor of shape (n, d)
        Rows.
    parts : Tensor of shape (n,), int64
        Part of each.
    kinks : Interface
        Where the models of parts cross.
    """
    coarse = gate.theta / gate.theta.abs().max()
    theta = soft.theta.clone()
    theta[:, 0] += _level(soft, kinks)[soft.parent]
    if soft.n_partitions == gate.n_partitions:
        # Nothing is inside of which digits could be lost.
        factor = 1 / torch.finfo(coarse.dtype).eps
    else:
        basis = gate.basis(X.shape[1])
        least = FACTOR_OF_KINKS if len(kinks.roots) else APART
        apart = _apart(basis.matrix(X) @ coarse.T, _total(soft, theta, basis.matrix(X)), parts)
        factor = min(max(apart, least), MOST_FACTOR)
    # A power of two: boundaries do not move.
    theta = 2.0 ** math.ceil(math.log2(factor)) * coarse[soft.parent] + theta
    return GateLevel(torch.zeros_like(soft.parent), theta, soft.degree, False, soft.isotropic)


def _total(soft: GateLevel, theta: Tensor, features: Tensor) -> Tensor:
    """Logarithms (n, G) of the sums of each part's exponential logits."""
    logit = features @ theta.T
    n_parts = int(soft.parent.max()) + 1
    return torch.stack([logit[:, soft.parent == part].logsumexp(1) for part in range(n_parts)], 1)


def _apart(logit: Tensor, total: Tensor, parts: Tensor) -> float:
    """Factor of the logits of parts (n, G) from which on every row is in its own alone."""
    margin, ahead = (value.gather(1, parts[:, None]) - value for value in (logit, total))
    told = margin > 0
    return float(((APART - ahead) / margin)[told].max()) if bool(told.any()) else MOST_FACTOR


def _level(soft: GateLevel, kinks: Interface) -> Tensor:
    """What to add to each part's logits (G,) for their sums to be alike where models cross."""
    n_parts = int(soft.parent.max()) + 1
    total = _total(soft, soft.theta, soft.basis(kinks.roots.shape[1]).matrix(kinks.roots))
    sides = [torch.nn.functional.one_hot(side, n_parts) for side in (kinks.first, kinks.second)]
    sign = (sides[0] - sides[1]).to(total.dtype)
    # Parts that no kinks join may have any level: the smallest.
    square = sign.T @ sign + LEAST_PULL * torch.eye(n_parts, dtype=sign.dtype, device=sign.device)
    return torch.linalg.solve(square, -sign.T @ (sign * total).sum(1))
