"""Fits to rows by their precision, where the noise varies; see `skpou.core.models.noise_law`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skpou.base.outliers import Prepared
from skpou.core import Rows, TrainingInterrupted, TrainingResult
from skpou.core.linalg import count
from skpou.core.models import (
    FEWEST_OF_LAW,
    FEWEST_OF_TABLE,
    Interpolant,
    LeftOut,
    NoiseLaw,
    Predictor,
    WithNoiseLaw,
    errors_of_law,
    fit_noise_law,
    has_even_noise,
    is_of_form,
)

#: Powers of the precision by which rows count, one after the other, each by the law that the errors
#: of the fit before tell: where few rows count for nearly all, a form is wrong at the others.
POWERS = (0.5, 1.0)
#: Most rows that tell a law: more tell no more.
MOST_ROWS = 20_000


class _Told(NamedTuple):
    """A law of the noise, the fit whose errors told it, and the rows of that fit."""

    law: NoiseLaw
    fit: TrainingResult
    prepared: Prepared


def _is_better(found: _Told, before: _Told, first: _Told) -> bool:
    """Whether left-out rows are likelier for a fit than for another, and no further than at first.

    Each may differ by chance, by one standard error of the paired differences.
    """
    (square, density), (_, density_before) = map(_left_out_by, (found, before))
    return _is_more(density - density_before) and not _is_more(square - _left_out_by(first)[0])


def _left_out_by(told: _Told) -> tuple[Tensor, Tensor]:
    """Squared errors (k,) at rows that are left out, and the logarithms of their densities."""
    errors = errors_of_law(told.fit.state, told.prepared.rows)
    return errors.square, errors.log_density(told.law.log_factor(errors.points, errors.mean))


def _is_more(difference: Tensor) -> bool:
    """Whether paired differences (k,) have a mean of more than its standard error."""
    return float(difference.mean()) > float(difference.std()) / math.sqrt(len(difference))


class NoiseLawMixin:
    """Regressor that fits to rows by their precision where the noise clearly varies."""

    #: How the noise varies: state of a `NoiseLaw`.
    _noise_law: dict[str, Any] | None

    def _knows_law(self) -> bool:
        """Whether the noise may vary by a law.

        Not where it was asked to be the same everywhere, nor where the density of the model is what
        its training maximises.
        """
        of_training = getattr(self, "solver", "auto") == "em"
        return getattr(self, "density", "auto") != "gaussian" and not of_training

    def _by_precision(
        self,
        result: TrainingResult,
        prepared: Prepared,
        train: Callable[[Prepared], TrainingResult],
    ) -> tuple[TrainingResult, Prepared]:
        """The result and its rows; where the noise varies, of a fit to these by their precision.

        It is kept where left-out rows are both likelier for it and no further from it.
        """
        self._noise_law = None
        rows = prepared.rows
        few = rows.n_rows < FEWEST_OF_LAW or rows.n_rows > MOST_ROWS
        # In tables what looks like noise that varies is as often what the columns do not tell.
        few |= not 0 < rows.n_features < FEWEST_OF_TABLE
        if few or rows.n_outputs > 1 or count() > 1:
            return result, prepared
        if not self._knows_law() or has_even_noise(result.state, rows):
            return result, prepared
        law = fit_noise_law(errors_of_law(result.state, rows))
        if law is None:
            return result, prepared
        alike = prepared._replace(rows=rows.times(torch.ones_like(rows.weight)))
        told = first = _Told(law, result, alike)
        # What a form misses looks like noise, too, and a fit that looks away from it errs there.
        for power in () if is_of_form(result.state, rows, law) else POWERS:
            try:
                weighed = self._fit_by(told, power, train)
            except TrainingInterrupted:
                break
            if weighed is not None and _is_better(weighed, told, first):
                told = weighed
        self._noise_law = told.law.arrays()
        return told.fit, told.prepared

    @staticmethod
    def _fit_by(
        told: _Told, power: float, train: Callable[[Prepared], TrainingResult]
    ) -> _Told | None:
        """A fit by a power of the precision, with the law of its errors; None: it has none."""
        rows = told.prepared.rows.alike()
        log_factor = told.law.log_factor(rows.X, told.fit.state.mean(rows.X)[:, 0])
        weighed = told.prepared._replace(rows=rows.times((-power * log_factor).exp()))
        fit = train(weighed)
        law = fit_noise_law(errors_of_law(fit.state, weighed.rows))
        return None if law is None else _Told(law, fit, weighed)

    def _law_beside_process(self, prepared: Prepared) -> None:
        """The law by left-out errors of a process, where it predicts in place of the fit."""
        instead = (self.__dict__.get("_restraint") or {}).get("interpolant")
        if self.__dict__.get("_noise_law") is None or instead is None:
            return
        rows = prepared.rows.to(torch.float64)
        law = fit_noise_law(errors_of_law(Interpolant.from_arrays(instead, rows.X), rows))
        if law is not None:
            self._noise_law = law.arrays()

    def _told_by_law(self, left_out: list[LeftOut], model: Predictor, rows: Rows) -> list[LeftOut]:
        """Left-out errors whose noise is that of the law, where rows count by a power of it."""
        law = self._law(rows.X)
        if law is None or rows.precision is None:
            return left_out
        factor = law.log_factor(rows.X, model.mean(rows.X)[:, 0]).exp() * rows.precision
        of_row = factor.cpu().numpy()[:, None]
        return [
            replace(
                one,
                noise=one.noise * of_row[one.row],
                variance=one.variance + one.noise * (of_row[one.row] - 1),
            )
            for one in left_out
        ]

    def _usual_factor(self) -> float:
        """Mean over the rows by which a law multiplies the variance of the fit's noise."""
        state = self.__dict__.get("_noise_law")
        return 1.0 if state is None else state["usual"]

    def _law(self, like: Tensor) -> NoiseLaw | None:
        state = self.__dict__.get("_noise_law")
        return None if state is None else NoiseLaw.from_arrays(state, like)

    def _with_law(self, model: Predictor, like: Tensor) -> Predictor:
        """The model with noise that varies, where it does."""
        law = self._law(like)
        return model if law is None else WithNoiseLaw(model, law)
