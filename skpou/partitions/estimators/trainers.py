"""Ways of training that an estimator may choose besides the discovery of pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from skpou.core import Report, Rows, TrainingResult
from skpou.partitions.blends.soft_partitions import SoftOptions, fit_soft_partitions
from skpou.partitions.estimators.options import parse_form, parse_smoothing, total_partitions
from skpou.partitions.fit import PieceOptions, discover_tree, fit_pieces
from skpou.partitions.gates.steps import random_gates
from skpou.partitions.gates.tree import GateForm, PartitionTree
from skpou.partitions.joint import fit_blend
from skpou.partitions.mixtures.em import EMOptions, affordable_degree, fit_em
from skpou.partitions.pieces.noise_parts import split_by_noise, tree_of_labels
from skpou.partitions.pieces.problem import PieceProblem, compact
from skpou.partitions.training import affordable_forms

#: A training from a random start.
Train = Callable[[np.random.Generator], TrainingResult]


def joint_training(rows: Rows, options: PieceOptions) -> Train:
    """Variable projection of all gates from random ones, exactly as many as were asked for."""
    sizes, degree = options.sizes or (1,), options.degree
    if degree is None:
        degree = affordable_degree(
            rows.n_rows, rows.n_features, total_partitions(sizes), options.space
        )
    forms = affordable_forms(options.gates, rows)
    options = replace(options, degree=degree, gates=forms)

    def train(rng: np.random.Generator) -> TrainingResult:
        gates = random_gates(forms[0], sizes, rows.X, rng)
        return fit_blend(rows, options, PartitionTree(rows.n_features, gates))

    return train


def soft_training(
    rows: Rows, pieces: PieceOptions, options: SoftOptions, discover: bool, report: Report | None
) -> Train:
    """Soft gates of one level, from discovered pieces or from random ones.

    Parameters
    ----------
    discover : bool
        Whether to start from discovered pieces.
    """
    if isinstance(options.form, GateForm):
        options = replace(options, form=affordable_forms((options.form,), rows)[0])

    def train(rng: np.random.Generator) -> TrainingResult:
        start = discover_tree(rows, pieces, rng, report) if discover else None
        return fit_soft_partitions(rows, options, rng, start, report)

    return train


def em_training(
    rows: Rows,
    params: dict[str, Any],
    pieces: PieceOptions,
    last: PartitionTree | None,
    report: Report | None,
) -> Train:
    """Expectation maximization from random gates, from discovered pieces or from the last fit.

    Parameters
    ----------
    params : dict
        Parameters of the estimator, found to be good.
    pieces : PieceOptions
        The same as far as discovery knows them.
    last : PartitionTree, default=None
        Partitions to go on from, whatever `init` says.
    """
    options = em_options(rows, params, pieces)

    def train(rng: np.random.Generator) -> TrainingResult:
        start, degree = last, options.degree
        if start is None and params["init"] == "data":
            found = fit_pieces(rows, pieces, rng, report=report)
            start, degree = found.state.tree, found.chosen["degree"]
            if options.noise == "em" and len(start.levels) == 1:
                start = _parted_by_noise(rows, found, options)
        return fit_em(rows, replace(options, degree=degree), rng, start, report)

    return train


def em_options(rows: Rows, params: dict[str, Any], pieces: PieceOptions) -> EMOptions:
    """From the parameters of the estimator; see `em_training`."""
    form = parse_form(params["gate"], params["hidden_layer_sizes"], params["activation"])
    return EMOptions(
        sizes=pieces.sizes or (),
        degree=pieces.degree,
        form=affordable_forms((form,), rows)[0] if isinstance(form, GateForm) else form,
        smoothing=parse_smoothing(params["smoothing"]),
        learning_rate=float(params["learning_rate"]),
        noise=params["noise"],
        alpha=pieces.alpha,
        max_iter=pieces.max_iter,
        tol=pieces.tol,
        batch_size=params["batch_size"],
        least_change=float(params["least_change"]),
        space=pieces.space,
    )


def _parted_by_noise(rows: Rows, found: TrainingResult, options: EMOptions) -> PartitionTree:
    """The discovered pieces, cut where their noise differs: one polynomial hides that."""
    tree, mixture = found.state.tree, found.state
    problem = PieceProblem(rows, found.chosen["degree"], space=options.space)
    most = options.sizes[0] if options.sizes else PieceOptions.most_pieces
    labels = compact(tree.choose(rows.X)[-1])
    parts = split_by_noise(problem, labels, rows.y - mixture.mean(rows.X), most)
    if int(parts.max()) == int(labels.max()):
        return tree
    form = options.form if isinstance(options.form, GateForm) else GateForm()
    return tree_of_labels(problem, parts, form)
