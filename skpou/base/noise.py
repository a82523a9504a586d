"""Fits to rows by their precision, where the noise varies; see `skpou.core.models.noise_law`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skpou.base.outliers import Prepared
from skpou.core import Rows, TrainingInterrupted, TrainingResult
from skpou.core.linalg import count
from skpou.core.models import (
    FEWEST_OF_LAW,
    FEWEST_OF_TABLE,
    Errors,
    Interpolant,
    LeftOut,
    NoiseLaw,
    Predictor,
    WithNoiseLaw,
    errors_of_law,
    fit_noise_law,
    has_even_noise,
    is_better_by_law,
)

#: Fits by precision: the law is told better by errors of a fit that knows it.
N_FITS = 2
#: Powers of the precision: a form that not all rows follow is wrong where few count. Without any
#: the law is that of the noise alone.
POWERS = (1.0, 0.5, 0.0)
#: Change of the logarithm of the variances from which on it is worth another fit.
MUCH = 0.5
#: Most rows that tell a law: more tell no more.
MOST_ROWS = 20_000


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

        It is kept where it predicts rows that were left out better.
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
        first = errors_of_law(result.state, rows)
        law = fit_noise_law(first)
        if law is None:
            return result, prepared
        for power in POWERS:
            try:
                found = self._weighed(result, prepared, first, law, power, train)
            except TrainingInterrupted:
                break
            if found is not None:
                known, fit, weighed = found
                self._noise_law = known.arrays()
                return fit, weighed
        return result, prepared

    @staticmethod
    def _weighed(
        result: TrainingResult,
        prepared: Prepared,
        first: Errors,
        law: NoiseLaw,
        power: float,
        train: Callable[[Prepared], TrainingResult],
    ) -> tuple[NoiseLaw, TrainingResult, Prepared] | None:
        """The law and a fit by a power of the precision; None where it is not the better one."""
        fit, rows = result, prepared.rows
        for _ in range(N_FITS if power == 1 else 1):
            mean = fit.state.mean(rows.X)[:, 0]
            precision = (-power * law.log_factor(rows.X, mean)).exp()
            weighed = prepared._replace(rows=rows.times(precision))
            fit = train(weighed) if power else result
            errors = errors_of_law(fit.state, weighed.rows)
            found = fit_noise_law(errors)
            if found is None:
                return None
            now = found.log_factor(rows.X, fit.state.mean(rows.X)[:, 0])
            law, change = found, (power * now + precision.log()).std()
            if float(change) < MUCH:
                break
        if not is_better_by_law(errors, law, first):
            return None
        return law, fit, weighed

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
