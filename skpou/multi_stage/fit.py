"""Networks in stages: each fits what the ones before left over, scaled to unit size.

Source: Wang, Lai (2024), "Multi-stage neural networks: function approximator of machine
precision", J. Comput. Phys.; equations numbered as in W. Pan's lecture on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skpou.core import Report, Rows, TrainingInterrupted, TrainingResult
from skpou.core.models import LinearModel
from skpou.lsgd import NetworkOptions, fit_network
from skpou.multi_stage.families.additive import ENOUGH, Additive
from skpou.multi_stage.families.grid import Grids
from skpou.multi_stage.families.local import LocalBlocks
from skpou.multi_stage.families.pieces import SharpPieces
from skpou.multi_stage.options import HAND_OVER, HAND_OVER_RIDGE, MultiStageOptions
from skpou.multi_stage.recipe import RecipeTraining
from skpou.search import (
    ENOUGH_ROWS,
    AutomaticOptions,
    AutomaticSearch,
    Candidate,
    Family,
    GrownUnits,
    RoughSplines,
    Sines,
    Stages,
    are_few,
    fit_automatic,
)

#: What is tried, cheap families first: where pieces are exact, units are spared. With splines and
#: terms tried before them, units in several dimensions would add but digits to an error that is as
#: small as those stop at.
FAMILIES: tuple[Family, ...] = (
    Sines(),
    RoughSplines(),
    Additive(),
    SharpPieces(),
    GrownUnits(enough_in_space=ENOUGH),
    Grids(),
    LocalBlocks(),
)


def search_options(options: MultiStageOptions) -> AutomaticOptions:
    """What the search over families of bases is told."""
    return AutomaticOptions(
        families=FAMILIES,
        stages=Stages(options.most, fewest_rows=ENOUGH_ROWS),
        tol=options.tol,
        max_iter=options.max_iter,
    )


def _network_then_sines(
    rows: Rows, options: MultiStageOptions, rng: np.random.Generator, report: Report | None
) -> TrainingResult:
    """A network by variable projection, then sine features for what it leaves over."""
    network, several = options.given_network, options.most > 1
    # Smooth units: what they leave over is smooth, too, where that of steep ones sits at edges.
    smooth = network.activation != "relu"
    network_options = NetworkOptions(
        network,
        init="glorot" if smooth else "he",
        max_iter=options.max_iter,
        alpha=HAND_OVER_RIDGE if several else None,
        tol=max(options.tol, HAND_OVER) if several else options.tol,
        quick=not several,
    )
    try:
        first = fit_network(rows, network_options, rng, report)
    except TrainingInterrupted as stopped:
        if stopped.result is not None:
            stopped.result.chosen["scale_factors"] = (1.0,)
        raise
    first.chosen["scale_factors"] = (1.0,)
    model: LinearModel = first.state
    if not several or are_few(rows) or rows.X.dtype != torch.float64:
        return first
    search = AutomaticSearch(rows, search_options(options), rng, report)
    dof = min(network.n_parameters + network.n_columns, rows.total_weight / 2)
    start = Candidate("network", model.stages, first.score, first.score, dof, first.chosen["alpha"],
                      n_units=network.n_columns - 1, bandwidths=(1.0,))  # fmt: skip
    try:
        return _joined(first, search.refine(start))
    except TrainingInterrupted as stopped:
        more = stopped.result
        raise TrainingInterrupted(first if more is None else _joined(first, more)) from None


def _joined(first: TrainingResult, more: TrainingResult) -> TrainingResult:
    """Result of a network and of the stages behind it, if there are any."""
    if len(more.state.stages) == 1:
        ended = more if more.code == "interrupted" else first
        return replace(first, code=ended.code, message=ended.message)
    return replace(
        more,
        n_iter=first.n_iter + more.n_iter,
        curve=first.curve + [value**2 for value in more.curve],
        code=more.code,
        chosen={**more.chosen, "hidden_layer_sizes": first.chosen["hidden_layer_sizes"]},
    )


def fit_multi_stage(
    rows: Rows, options: MultiStageOptions, rng: np.random.Generator, report: Report | None = None
) -> TrainingResult:
    """Fit stages.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units, at least one.

    Returns
    -------
    TrainingResult
        Its state is a `LinearModel`; ``chosen["scale_factors"]`` has a factor for each stage.
    """
    if options.network is None:
        return fit_automatic(rows, search_options(options), rng, report)
    if options.solver == "adam_lbfgs":
        return RecipeTraining(rows, options, rng, report).run()
    return _network_then_sines(rows, options, rng, report)
