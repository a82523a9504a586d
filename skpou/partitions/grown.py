"""Soft pieces that go on from a fit with fewer of them, or with polynomials of a lower degree.

Whatever fewer pieces can say more can, too: a partition that is halved with the same polynomial on
both sides is still the same function. So a descent from there is no worse than where it began,
which one from a start of its own may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, TrainingResult
from skpou.core.models import residual_squares
from skpou.partitions.blends.blends import BlendTrainer
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.gates.tree import GateForm, coordinate_columns
from skpou.partitions.joint import blend_options, result_of_blend
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.pieces.problem import PieceProblem, compact
from skpou.partitions.pieces.spaces import space_columns
from skpou.partitions.training import affordable_forms

#: Largest share of a partition at any row below which it is empty.
EMPTY = 1e-6
#: Difference of the logits of two halves over a standard deviation of their rows: small enough for
#: their sum to be what the whole was, large enough for their columns to differ.
TILT = 0.5
#: Pieces that others grow from.
FEWEST = 2
#: Steps of each descent that another one goes on from: it need not be at its end.
STEPS = 30
#: Rows for each unknown, and fewest rows, that descents keep where all that is left is what pieces
#: cannot follow: more rows only average noise.
ROWS_AN_UNKNOWN, FEWEST_ROWS = 12, 600


def grown_pieces(
    rows: Rows, options: PieceOptions, more: TrainingResult | None = None
) -> Iterator[TrainingResult]:
    """Soft pieces that have grown in number, and others that have grown in degree.

    All are on their way, so that what cannot win need not go to its end; see `grow`. Constants have
    no lower degree to grow from: they have other starts.

    Parameters
    ----------
    options : PieceOptions
        One size, a degree and `exactly`.
    more : TrainingResult, default=None
        As many pieces of these rows: fewer ones are merged from them.
    """
    (most,), degree = options.sizes or (1,), options.degree or 0
    options = replace(options, gates=affordable_forms(options.gates, rows)[:1], padded_to=0)
    some = replace(options, soft=True, restarted=False, most_steps=STEPS)
    few = _few_rows(rows, most * unknowns(rows, options))
    numbers = [most]
    while numbers[0] >= 2 * FEWEST:
        numbers.insert(0, numbers[0] // 2)
    chains = [[(number, degree) for number in numbers], [(most, k) for k in range(degree + 1)]]
    for chain in chains:
        if len(chain) == 1:
            continue
        number, k = chain[0]
        labels = pieces_at(more, few) if more is not None and k == degree else None
        found = fit_pieces(few, replace(some, sizes=(number,), degree=k), _drawn(number), labels)
        for number, k in chain[1:]:
            if not can_grow(found):
                break
            on = rows if (number, k) == (most, degree) else few
            found = grow(on, replace(some, sizes=(number,), degree=k), found)
        else:
            yield found
    if degree == 0 and most > 1:
        yield fit_pieces(few, replace(some, restarted=True), _drawn(most))


def _drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def pieces_at(found: TrainingResult, rows: Rows) -> Tensor:
    """Number of the piece at each row (n,), those without rows left out."""
    return compact(found.state.tree.choose(rows.X)[-1])


def _few_rows(rows: Rows, n_unknowns: int) -> Rows:
    """Some of the rows, enough for a start."""
    most = max(ROWS_AN_UNKNOWN * n_unknowns, FEWEST_ROWS)
    if rows.n_rows <= most:
        return rows
    chosen = np.sort(_drawn(0).choice(rows.n_rows, most, replace=False))
    return rows.subset(torch.as_tensor(chosen, device=rows.X.device))


def unknowns(rows: Rows, options: PieceOptions) -> int:
    """Coefficients of one piece and its gate."""
    gate = affordable_forms(options.gates, rows)[0].basis(rows.n_features).n_columns
    return gate + space_columns(options.space, rows.n_features, options.degree or 0)


def can_grow(found: TrainingResult) -> bool:
    """Whether pieces have one level of soft gates that are no networks, none of them sharp."""
    levels = found.state.tree.levels
    if "parts" in found.chosen:
        return False
    return len(levels) == 1 and not levels[0].sharp and levels[0].network is None


def grow(
    rows: Rows, options: PieceOptions, found: TrainingResult, noisy: bool = False
) -> TrainingResult:
    """As many soft pieces as `options` says, by a descent from these, fewer or of a lower degree.

    Parameters
    ----------
    options : PieceOptions
        One size and a degree.
    found : TrainingResult
        Of such rows and the same form of gates; see `can_grow`.
    noisy : bool, default=False
        Whether all rows tell, for there is noise to be averaged.
    """
    form = affordable_forms(options.gates, rows)[0]
    problem = PieceProblem(rows, options.degree or 0, tol=options.tol, space=options.space)
    everything = torch.arange(problem.n, device=rows.X.device)
    how = blend_options(replace(options, gates=(form,)))
    if not noisy:
        how = replace(how, least_rows=FEWEST_ROWS)
    trainer = BlendTrainer(problem, everything, how)
    theta = halved(found.state, rows, form, (options.sizes or (1,))[0])
    left = float(residual_squares(found.state, rows).mean()) / rows.total_weight
    size = float(rows.y.square().mean()) or 1.0
    blend = trainer.resume(theta, (left / size) ** 0.5)
    return result_of_blend(problem, blend, form, options.alpha, options.padded_to)


def halved(mixture: Mixture, rows: Rows, form: GateForm, n_pieces: int) -> Tensor:
    """Coefficients (n_pieces, q) of logits: those of the partitions that have rows, and of halves.

    The partition of the largest misfit is halved across the column along which it is longest.
    """
    level = mixture.tree.levels[0]
    share = mixture.tree.log_proba(rows.X).exp()
    used = share.amax(0) > EMPTY
    theta, share = level.theta[used], share[:, used]
    square = (rows.y - mixture.mean(rows.X)).square().mean(1) * rows.weight
    columns = coordinate_columns(form.basis(rows.n_features))
    position = 2 * rows.X - 1
    while len(theta) < n_pieces:
        weight = share * rows.weight[:, None]
        k = int((share * square[:, None]).sum(0).argmax())
        total = weight[:, k].sum()
        centre = (weight[:, k, None] * position).sum(0) / total
        spread = (weight[:, k, None] * (position - centre).square()).sum(0) / total
        column = int(spread.argmax())
        tilt = torch.zeros_like(theta[k])
        scale = TILT / spread[column].sqrt().clamp_min(torch.finfo(theta.dtype).eps)
        tilt[columns[column]] = scale
        tilt[0] = -scale * centre[column]
        logit = scale * (position[:, column] - centre[column])
        upper = share[:, k] * torch.sigmoid(2 * logit)
        share = torch.cat([share, upper[:, None]], 1)
        share[:, k] -= upper
        # Two halves have twice the weight of one: their sum is to be the whole.
        doubled = weight[:, k] @ torch.logaddexp(logit, -logit) / total
        theta[k, 0] -= doubled
        theta = torch.cat([theta, (theta[k] + tilt)[None]])
        theta[k] -= tilt
    return theta
