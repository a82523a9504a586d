"""The local family: what the best linear model leaves at each row, smoothed among the nearest.

Each row is a partition of its own, as in the local block of AdditivePOURegressor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from skpou.core import Basis
from skpou.core.linalg import LARGEST_LEVERAGE
from skpou.core.models import (
    LeftOver,
    LinearModel,
    LocalBlock,
    Stage,
    fit_local_kernel,
    is_gain,
    slope_rows,
)
from skpou.search import Candidate, GrownUnits, Seen, Task

#: Rows from which the nearest may tell what columns miss, and up to which they are all judged.
FEWEST_ROWS, MOST_ROWS = 500, 20_000
#: Error relative to the rms of y below which smooth bases resolve what rough detail does not.
ENOUGH = 1e-2
#: Least part of a smoothed value that is not the row's own: round-off.
LEAST_FREE = 1e-9
#: Share of the rows that the degrees of freedom may reach: beyond, too few are left that tell how
#: large the noise is.
LARGEST_SHARE = 0.5
#: Factor by which a block must be better at least, as its lengths were found on the same rows.
HANDICAP = 1.1
#: Least share of the squared error that is the block's not knowing, whatever the noise explains.
LEAST_SHARE = 0.01
#: Stream of the task's seed.
STREAM = 14


class LocalColumns(Basis, kind="local"):
    """Shares of the values at all rows in the smoothed one: next to none but of the nearest.

    Parameters
    ----------
    block : LocalBlock
        Rows, whatever its values.
    unit : float
        What the block's variances are divided by: one is that of the model's noise.
    """

    follows_rows = True

    def __init__(self, block: LocalBlock, unit: float):
        self.block, self.unit = block, unit
        self.n_columns, self.n_features = block.points.shape

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate; see `Basis.matrix`."""
        return self.evaluate(X, torch.eye(self.n_columns, dtype=torch.float64, device=X.device))

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Derivatives, the nearest rows staying the same; see `Basis.partial`."""
        unit = torch.eye(self.n_columns, dtype=torch.float64, device=X.device)
        return self.evaluate_gradient(X, unit)[:, feature]

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """By the nearest rows alone; see `Basis.evaluate`."""
        return self.block.with_values(coef).mean(X).to(X)

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """By the nearest rows alone; see `Basis.evaluate_gradient`."""
        return self.block.with_values(coef).gradient(X).to(X)

    def posterior_columns(self, X: Tensor) -> Tensor:
        """Deviation (n, 1) of the truth about the smoothed value, over that of the noise."""
        return self._deviation(self.block.posterior(X)[1])

    def evaluate_beside(self, X: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
        """Both of the same nearest rows; see `Basis.evaluate_beside`."""
        mean, variance = self.block.with_values(coef).posterior(X)
        return mean.to(X), self._deviation(variance)

    def _deviation(self, variance: Tensor) -> Tensor:
        return (variance / self.unit).sqrt()[:, None]

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        rows = {key: part for key, part in self.block.arrays().items() if key != "values"}
        return {**rows, "unit": self.unit}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> LocalColumns:
        """Rebuild from `arrays`, on the device of `like`."""
        none = arrays["points"][:, :0]
        block = LocalBlock.from_arrays({**arrays, "values": none}, like)
        return cls(block, float(arrays["unit"]))


@dataclass(frozen=True)
class JointErrors:
    """A linear model and a block behind it, at rows of which each is left out with all its weight.

    Attributes
    ----------
    base, joint : Tensor of shape (n,)
        Errors of the model, and of both together.
    leverage, own : Tensor of shape (n,)
        Of each row on its own value in the model, and in the block.
    smoothed : Tensor of shape (n,)
        Values of the block, no row left out.
    around : Tensor of shape (n,)
        Variance of the truth about the block without the row.
    """

    base: Tensor
    joint: Tensor
    leverage: Tensor
    own: Tensor
    smoothed: Tensor
    around: Tensor

    @classmethod
    def of(
        cls, block: LocalBlock, X: Tensor, weight: Tensor, value: Tensor, solved: Tensor
    ) -> JointErrors:
        """Those of a block; see ``skpou.additive.local`` for the formula.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            All rows.
        weight, value : Tensor of shape (n,)
            Their weights, and what the model leaves there.
        solved : Tensor of shape (q, n)
            The model's columns: products are covariances for unit noise.
        """
        number = torch.arange(len(value), device=value.device)
        near, share, around = block.smoother(number, X)
        own = (share * (near == number[:, None])).sum(1)
        # What a row tells the columns, it tells the values at the rows near it.
        indices = torch.stack([number.repeat_interleave(near.shape[1]), near.flatten()])
        size = (len(value), len(value))
        shares = torch.sparse_coo_tensor(indices, share.flatten(), size, check_invariants=False)
        told = weight * (torch.sparse.mm(shares, solved.T) * solved.T).sum(1)
        leverage = (weight * solved.square().sum(0)).clamp_max(LARGEST_LEVERAGE)
        base, smoothed = value / (1 - leverage), (share * value[near]).sum(1)
        free = (1 - own).clamp_min(LEAST_FREE)
        joint = (base * (1 - told) - smoothed) / free
        return cls(base, joint, leverage, own, smoothed, around / free)


def fit_local_family(task: Task, base: Candidate) -> Candidate | None:
    """A linear model of one stage, and a local block behind it.

    Parameters
    ----------
    task : Task
        Rows with one target.

    Returns
    -------
    Candidate or None
        None where left-out rows are not predicted better, or too few degrees of freedom are left.
    """
    rows, weight = task.rows, task.rows.weight
    value = (rows.y - base.mean(rows.X))[:, 0]
    solved = base.stages[0].solved(rows.X)
    leverage = (weight * solved.square().sum(0)).clamp_max(LARGEST_LEVERAGE)
    over = LeftOver(rows.X, value, value / (1 - leverage), weight, weight, 0.0)
    slopes = _slopes(base, rows.X, weight)
    kernel = fit_local_kernel(over, slopes.cpu().numpy(), task.generator(STREAM))
    if kernel is None:
        return None
    block = LocalBlock.of_rows(kernel, rows.X, weight, value[:, None])
    found = JointErrors.of(block, rows.X, weight, value, solved)
    total, within = rows.total_weight, float(rows.within.sum())
    before, after = (float(weight @ e.square()) / total for e in (found.base, found.joint))
    gain = found.base.square() / before - found.joint.square() / after + math.log(before / after)
    dof = base.dof + float((found.own * (1 - leverage)).sum())
    if dof > LARGEST_SHARE * min(rows.n_rows, total) or not is_gain(0.5 * gain, weight):
        return None
    square = after + within / total
    noise = (float(weight @ (value - found.smoothed).square()) + within) / (total - dof)
    # Noise and block together are as wide as what is left out errs, on average.
    known = noise * float(weight @ (1 / (1 - leverage))) / total
    around = float(weight @ found.around) / total
    unit = noise * around / max(square - known, LEAST_SHARE * square)
    columns = LocalColumns(block, max(unit, torch.finfo(value.dtype).tiny))
    stage = Stage(columns, value[:, None], value.new_ones((1, 1)))
    return replace(
        base,
        family="local",
        stages=(*base.stages, stage),
        leave_one_out=math.sqrt(square),
        calibrated=math.sqrt(square + base.gap_variance),
        dof=dof,
        handicap=HANDICAP * base.handicap,
        bandwidths=(*base.bandwidths, 0.0),
    )


def _slopes(base: Candidate, X: Tensor, weight: Tensor) -> Tensor:
    """Root mean square (d,) of the gradient along each column."""
    X, weight = slope_rows(X, weight)
    zero = weight.new_zeros(1)
    gradient = LinearModel(base.stages, zero, zero).gradient(X)[..., 0]
    return (weight @ gradient.square() / weight.sum()).sqrt()


class LocalBlocks:
    """What the best linear model leaves, smoothed among the 50 nearest rows.

    Tried in tables, for one target and from 500 rows on, where it is more than digits and more
    stages may follow. It comes last: what others find does not depend on it.
    """

    name: ClassVar[str] = "local"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Where rows are many and rough detail may be left; see `Family.worth_trying`."""
        rows = task.rows
        many = FEWEST_ROWS <= rows.n_rows <= MOST_ROWS and rows.n_outputs == 1
        wanted = task.is_table and task.alpha is None and task.stages.most > 1
        return many and wanted and seen.least_left_out > ENOUGH and self._base(seen) is not None

    @staticmethod
    def _base(seen: Seen) -> Candidate | None:
        """The best of the linear models whose columns were neither searched for nor are rows."""
        plain = [
            c
            for c in seen.candidates
            if c.family != GrownUnits.name
            and len(c.stages) == 1
            and not c.stages[0].basis.follows_rows
            and c.stages[0].factor.ndim == 2
        ]
        return min(plain, key=lambda c: c.score(True), default=None)

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """One block behind the best; see `Family.fit`."""
        base = self._base(seen)
        found = None if base is None else fit_local_family(task, base)
        if found is not None:
            # Sines behind it would fit what is left of noise.
            yield replace(seen.with_candidate(found), exhausted=found)
