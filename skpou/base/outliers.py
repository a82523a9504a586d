"""Fits without the rows that lie far from all others; see `skpou.core.models.outliers`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, Scaling, TrainingInterrupted, TrainingResult, group_rows
from skpou.core.linalg import count
from skpou.core.models import (
    FEWEST_OF_OUTLIERS,
    LeftOutErrors,
    OutlierSplit,
    Predictor,
    WithOutliers,
    are_clustered,
    beside_an_exact_fit,
    fitted_alone,
    left_out_by_leverage,
    log_density_of,
    may_hold_outliers,
    split_exact,
    split_outliers,
    stands_out,
    without_clusters,
)

#: Fits without outliers: each finds others that those before had hidden, or fitted alone.
MOST_FITS = 3
#: Outliers that may come to light after the last fit, over those it was done without: where there
#: are more, each fit finds others, and the rows are not of two kinds.
MOST_NEW = 0.5


class Given(NamedTuple):
    """Validated rows as they came, on the device of the fit.

    Attributes
    ----------
    X, y, weight : Tensor of shape (n, d), (n, m) and (n,)
    """

    X: Tensor
    y: Tensor
    weight: Tensor


class Prepared(NamedTuple):
    """Training data in the units and on the device of the fit."""

    rows: Rows
    scaling: Scaling
    target_ndim: int
    given: Given | None = None


class _Pairs:
    """Distinct pairs of point and target, and what a fit to some of them leaves at all."""

    def __init__(self, given: Given, prepared: Prepared):
        dtype = prepared.rows.X.dtype
        used = torch.nonzero(given.weight > 0).squeeze(1)
        points = prepared.scaling.points(given.X[used]).to(dtype).double()
        group, first = group_rows(torch.cat([points, given.y[used]], 1))
        self.used, self.group, self.given = used, group, given
        self.X, self.y = points[first].to(dtype), given.y[used[first]]
        weight = given.weight[used]
        self.weight = weight.new_zeros(len(first)).index_add_(0, group, weight)

    def rows_of(self, pairs: Tensor) -> Tensor:
        """Which given rows (n,), bool, are in some of the pairs (k,), bool."""
        result = torch.zeros_like(self.given.weight, dtype=torch.bool)
        result[self.used] = pairs[self.group]
        return result

    def errors(
        self,
        model: Predictor,
        prepared: Prepared,
        kept: Tensor,
        how: Callable[..., list[LeftOutErrors] | None] = left_out_by_leverage,
    ) -> list[LeftOutErrors] | None:
        """Left-out errors of every target in scaled units, for a fit to those that were kept."""
        fitted = self.weight * kept
        if prepared.rows.repeats is None:
            fitted = fitted / fitted[kept].mean()
        y = prepared.scaling.targets(self.y)
        return how(model, self.X, y, fitted, self.weight)


class _Judged(NamedTuple):
    """What is far from a fit, by its errors at all pairs.

    Attributes
    ----------
    found : list of OutlierSplit or None
        For each target, without rows side by side that err alike.
    clustered : bool
        Whether far rows lie side by side more than chance has it.
    alone : ndarray of shape (k,), bool
        Pairs that a part of the fit is there for alone.
    doubted : ndarray of shape (k,), bool
        Those of them that are far from what pairs nearby tell.
    log_density : ndarray of shape (k,)
        Of the errors of each pair, times its frequency, in units of y.
    """

    found: list[OutlierSplit | None]
    clustered: bool
    alone: np.ndarray
    doubted: np.ndarray
    log_density: np.ndarray

    def far(self) -> np.ndarray:
        """Pairs (k,), bool, that are far in any target."""
        far = np.zeros_like(self.alone)
        for own in self.found:
            if own is not None:
                far |= own.far
        return far


class OutlierMixin:
    """Regressor that sets outliers apart: it fits anew to the other rows.

    The density contains them as a wide component of their share.
    """

    _merged: Callable[..., Any]
    _torch_dtype: Callable[..., torch.dtype]
    _training_on: Callable[..., Any]
    _best_of: Callable[..., TrainingResult]
    _no_worse_than_the_mean: Callable[..., TrainingResult]
    _regular_density_of: Callable[..., Any]
    #: Rows, share and variance of the outliers of the last fit.
    _outliers: dict[str, Any] | None

    outliers_: np.ndarray

    def _set_outliers(self, state: dict[str, Any] | None) -> None:
        self._outliers = state
        self.outliers_ = np.zeros(0, dtype=np.int64) if state is None else state["rows"]

    def _density_of(self, points: Tensor) -> Predictor:
        """The density of all rows, outliers among them."""
        model, state = self._regular_density_of(points), self.__dict__.get("_outliers")
        if state is None or getattr(self, "density", None) == "gaussian":
            return model
        return WithOutliers(model, state["share"], state["variance"])

    def _best_no_worse(self, train: Any, n_init: int, prepared: Prepared) -> TrainingResult:
        """Best of several starts, or what is simpler where it is worse than the mean."""
        with self._training_on(prepared):
            result = self._best_of(train, n_init)
        return self._no_worse_than_the_mean(result, prepared)

    def _without_outliers(
        self,
        result: TrainingResult,
        prepared: Prepared,
        train: Callable[[Prepared], TrainingResult],
        roughly: Callable[[Prepared], TrainingResult] | None = None,
    ) -> tuple[TrainingResult, Prepared]:
        """The result and its rows; where there are outliers, those of a fit without them.

        It is kept where it predicts rows that were left out, outliers among them, better. `train`
        fits to other rows, `roughly` does in less time: doubts that it does not share end there.
        """
        self._set_outliers(None)
        given = prepared.given
        if given is None or prepared.rows.total_weight < FEWEST_OF_OUTLIERS or count() > 1:
            return result, prepared
        if not prepared.rows.n_features or not may_hold_outliers(result.state, prepared.rows):
            return result, prepared
        pairs = _Pairs(given, prepared)
        kept = torch.ones_like(pairs.weight, dtype=torch.bool)
        first = now = self._judged(result.state, prepared, pairs, kept)
        fit, rows = result, prepared
        for number in range(MOST_FITS):
            if now is None:
                return result, prepared
            out = now.far() if number else now.far() | now.doubted
            far = torch.as_tensor(out, device=kept.device)
            if not out.any() or torch.equal(far, ~kept):
                break
            kept = ~far
            rows = self._prepared_without(prepared, pairs, kept)
            try:
                if roughly is not None and not now.far().any():
                    rough = self._judged(roughly(rows).state, rows, pairs, kept)
                    if rough is not None and not (rough.far() & out).any():
                        return result, prepared
                fit = train(rows)
            except TrainingInterrupted:
                return result, prepared
            now = self._judged(fit.state, rows, pairs, kept)
        if first is None or now is None or not _is_settled(now, first, kept):
            return result, prepared
        self._set_outliers(_state(now, pairs, kept))
        return fit, rows

    def _prepared_without(self, prepared: Prepared, pairs: _Pairs, kept: Tensor) -> Prepared:
        """Some of the pairs, in the same box."""
        X, y, weight = pairs.given
        weight = weight * pairs.rows_of(kept)
        return self._prepared(Given(X, y, weight), prepared.target_ndim, prepared.scaling)

    def _prepared(self, given: Given, ndim: int, box: Scaling | None) -> Prepared:
        """Distinct rows in scaled units."""
        rows, scaling, unit = self._merged(*given, box)
        rows = rows.in_units(scaling.mean / unit, scaling.scale / unit, self._torch_dtype())
        return Prepared(rows, scaling, ndim, given)

    @staticmethod
    def _judged(
        model: Predictor, prepared: Prepared, pairs: _Pairs, kept: Tensor
    ) -> _Judged | None:
        """What is far from a fit to some pairs; None where it is exact and does not tell.

        An exact one tells where it has been done without some pairs.
        """
        errors, split = pairs.errors(model, prepared, kept), split_outliers
        if errors is None and not kept.all():
            errors = pairs.errors(model, prepared, kept, beside_an_exact_fit)
            split = split_exact
        if errors is None:
            return None
        of_all = [(one, split(one)) for one in errors]
        clustered = any(own and are_clustered(own, one) for one, own in of_all)
        # In units of y: those of two fits differ.
        unit = float(prepared.scaling.scale.log().sum())
        density = errors[0].weight * (sum(log_density_of(one, own) for one, own in of_all) - unit)
        own_parts = [fitted_alone(one) for one in errors]
        doubted = [stands_out(*pair) for pair in zip(errors, own_parts, strict=True)]
        own_part, doubt = np.any(own_parts, axis=0), np.any(doubted, axis=0)
        found = [own and without_clusters(own, one) for one, own in of_all]
        return _Judged(found, clustered, own_part, doubt, density)


def _is_settled(judged: _Judged, first: _Judged, kept: Tensor) -> bool:
    """Whether rows without which a fit was done are its outliers, and it is the better for it."""
    out, far = (~kept).cpu().numpy(), judged.far()
    new = (far & ~out).sum()
    if judged.clustered or not out.any() or (out & ~far).any() or new > MOST_NEW * out.sum():
        return False
    # How likely rows are that a fit has a part for is not known, but that each took a parameter is,
    # which counts as in the Bayesian information criterion.
    spared = 0.5 * math.log(len(out)) * (out & first.alone).sum()
    gain = (judged.log_density - first.log_density)[~(first.alone | judged.alone)]
    return bool(gain.sum() + spared > 0)


def _state(judged: _Judged, pairs: _Pairs, kept: Tensor) -> dict[str, Any]:
    """Numbers of the rows, and for each target share and variance of its wide component."""
    found = judged.found
    return {
        "rows": torch.nonzero(pairs.rows_of(~kept)).squeeze(1).cpu().numpy(),
        "share": np.array([0.0 if own is None else own.share for own in found]),
        "variance": np.array([1.0 if own is None else own.wide**2 for own in found]),
    }
