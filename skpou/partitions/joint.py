"""Variable projection of all gates of a tree at once, and how soft parts are trained."""

from __future__ import annotations

import math

import torch

from skpou.core import Rows, TrainingResult, handing_over
from skpou.partitions.blends.blends import Blend, BlendOptions, BlendTrainer, compose
from skpou.partitions.gates.tree import GateForm, PartitionTree
from skpou.partitions.mixtures.experts import fit_level_experts
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.options import PieceOptions
from skpou.partitions.pieces.problem import PieceProblem

#: Rows times columns squared times steps of a default fit, which should not keep anybody waiting,
#: and relative error of an exact fit of a given number that other starts are tried above.
DEFAULT_BUDGET, FAR = 2e9, 1e-8


def fit_blend(rows: Rows, options: PieceOptions, tree: PartitionTree) -> TrainingResult:
    """Variable projection of all gates at once, from the partitions that a tree chooses.

    Parameters
    ----------
    options : PieceOptions
        A degree, the gates' shape, ridge and steps.
    tree : PartitionTree
        Partitions to start from; their number stays.

    Returns
    -------
    TrainingResult
        Its state is a `Mixture` of a single blend, its score the leave-one-out error.
    """
    with handing_over():
        form = options.gates[0]
        degree = 1 if options.degree is None else options.degree
        problem = PieceProblem(rows, degree, tol=options.tol, space=options.space)
        everything = torch.arange(problem.n, device=rows.X.device)
        trainer = BlendTrainer(problem, everything, blend_options(options))
        blend = trainer.train(tree.choose(rows.X), [gate.parent for gate in tree.levels])
        return result_of_blend(problem, blend, form, options.alpha)


def result_of_blend(
    problem: PieceProblem, blend: Blend, form: GateForm, alpha: float | None, padded_to: int = 0
) -> TrainingResult:
    """Mixture of a single blend, its experts by all samples.

    Parameters
    ----------
    alpha : float or None
        Ridge relative to the largest column norm; None: by log evidence.
    padded_to : int, default=0
        Partitions of one level, of which those beyond the blend's are empty.
    """
    # One part: below no level of its own.
    levels = compose([blend], form)
    if padded_to > levels[-1].n_partitions:
        levels = [levels[0].padded(padded_to)]
    trained = PartitionTree(problem.d, levels)
    nowhere = torch.zeros(problem.n, dtype=torch.int64, device=problem.rows.X.device)
    experts, alpha = fit_level_experts(problem, trained, nowhere, 0, alpha)
    result = blend.result
    return TrainingResult(
        state=Mixture(trained, experts, problem.degree, 0, problem.space),
        score=result.score,
        n_iter=max(result.n_iter, 1),
        curve=result.curve or [result.score],
        chosen={"degree": problem.degree, "alpha": alpha, "gate": form},
    )


def blend_options(options: PieceOptions) -> BlendOptions:
    """How soft parts are trained, from how pieces are found."""
    sizes = options.sizes
    return BlendOptions(
        form=options.gates[0],
        alpha=options.alpha,
        tol=options.tol,
        max_iter=min(options.most_steps, options.max_iter),
        most_leaves=options.most_soft_pieces if sizes is None else sizes[-1],
        budget=DEFAULT_BUDGET if sizes is None else BlendOptions.budget,
        further=sizes is None,
        restart_above=FAR if sizes is not None and options.restarted else math.inf,
    )
