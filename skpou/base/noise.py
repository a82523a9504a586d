"""Fits to rows by their precision, where the noise varies; see `skpou.core.models.noise_law`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
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
    is_gain,
    is_of_form,
    residues_of,
)

#: Powers of the precision by which rows count, one after the other, each by the law that the errors
#: of the fit before tell: where few rows count for nearly all, a form is wrong at the others.
POWERS = (0.5, 1.0)
#: Most rows that tell a law: more tell no more.
MOST_ROWS = 20_000


class _FitWithLaw(NamedTuple):
    """A law of the noise, the fit whose errors told it, and the rows of that fit."""

    law: NoiseLaw
    fit: TrainingResult
    prepared: Prepared


def _is_better(found: _FitWithLaw, before: _FitWithLaw, first: _FitWithLaw) -> bool:
    """Whether left-out rows are clearly likelier for a fit, and no further from it than at first.

    Further they may be by chance: by one standard error of the paired differences.
    """
    errors, density = _left_out_by(found)
    _, density_before = _left_out_by(before)
    further = errors.square - _left_out_by(first)[0].square
    by_chance = float(further.std()) / math.sqrt(len(further))
    likelier = is_gain(density - density_before, errors.weight)
    return likelier and float(further.mean()) <= by_chance


def _left_out_by(told: _FitWithLaw) -> tuple[Errors, Tensor]:
    """Errors at rows that are left out, and the logarithms of their densities (k,)."""
    errors = _errors_of(told.fit, told.prepared.rows)
    return errors, errors.log_density(told.law.log_factor(errors.points, errors.mean))


def _errors_of(fit: TrainingResult, rows: Rows) -> Errors:
    """Left-out errors of the single target of a fit."""
    return errors_of_law(residues_of(fit.state, rows)[0], rows)


class NoiseLawMixin:
    """Regressor that fits to rows by their precision where the noise clearly varies."""

    #: How the noise varies: state of a `NoiseLaw` for each target, or None.
    _noise_law: list[dict[str, Any] | None] | None

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

        It is kept where left-out rows are both likelier for it and no further from it. Several
        targets have a law each, and share their rows: these count alike.
        """
        self._noise_law = None
        rows = prepared.rows
        few = rows.n_rows < FEWEST_OF_LAW or rows.n_rows > MOST_ROWS
        # In tables what looks like noise that varies is as often what the columns do not tell.
        few |= not 0 < rows.n_features < FEWEST_OF_TABLE
        if few or count() > 1 or not self._knows_law():
            return result, prepared
        found = residues_of(result.state, rows)
        laws = [
            None if has_even_noise(one) else fit_noise_law(errors_of_law(one, rows))
            for one in found
        ]
        if not any(laws):
            return result, prepared
        alike = prepared._replace(rows=rows.times(torch.ones_like(rows.weight)))
        first = laws[0]
        if len(laws) == 1 and first is not None:
            told = _FitWithLaw(first, result, alike)
            # What a form misses looks like noise, too, and a fit that looks away from it errs.
            if not is_of_form(found[0], first):
                told = self._best_by_precision(told, train)
            self._noise_law = [told.law.arrays()]
            return told.fit, told.prepared
        self._noise_law = [None if law is None else law.arrays() for law in laws]
        return result, alike

    def _best_by_precision(
        self, first: _FitWithLaw, train: Callable[[Prepared], TrainingResult]
    ) -> _FitWithLaw:
        """The fit by the largest power of the precision that left-out rows agree to."""
        told = first
        for power in POWERS:
            try:
                weighed = self._fit_by(told, power, train)
            except TrainingInterrupted:
                break
            if weighed is None or not _is_better(weighed, told, first):
                break
            told = weighed
        return told

    @staticmethod
    def _fit_by(
        told: _FitWithLaw, power: float, train: Callable[[Prepared], TrainingResult]
    ) -> _FitWithLaw | None:
        """A fit by a power of the precision, with the law of its errors; None: it has none."""
        rows = told.prepared.rows.alike()
        log_factor = told.law.log_factor(rows.X, told.fit.state.mean(rows.X)[:, 0])
        weighed = told.prepared._replace(rows=rows.times((-power * log_factor).exp()))
        fit = train(weighed)
        law = fit_noise_law(_errors_of(fit, weighed.rows))
        return None if law is None else _FitWithLaw(law, fit, weighed)

    def _law_beside_process(self, prepared: Prepared) -> None:
        """Laws by left-out errors of a process, for targets that it predicts in place of a fit."""
        instead = (self.__dict__.get("_restraint") or {}).get("interpolant")
        laws = self.__dict__.get("_noise_law")
        if laws is None or instead is None:
            return
        rows = prepared.rows.to(torch.float64)
        process = Interpolant.from_arrays(instead, rows.X)
        rows = rows.of_targets(process.targets)
        for target, found in zip(process.targets.tolist(), residues_of(process, rows), strict=True):
            law = laws[target] and fit_noise_law(errors_of_law(found, rows))
            if law is not None:
                laws[target] = law.arrays()

    def _told_by_law(self, left_out: list[LeftOut], model: Predictor, rows: Rows) -> list[LeftOut]:
        """Left-out errors whose noise is that of the law, where rows count by a power of it."""
        laws = self._laws(rows.X)
        if laws is None or rows.precision is None:
            return left_out
        mean = model.mean(rows.X)
        told = []
        for target, (law, one) in enumerate(zip(laws, left_out, strict=True)):
            if law is not None:
                factor = law.log_factor(rows.X, mean[:, target]).exp() * rows.precision
                of_row = factor.cpu().numpy()[one.row, None]
                variance = one.variance + one.noise * (of_row - 1)
                one = replace(one, noise=one.noise * of_row, variance=variance)
            told.append(one)
        return told

    def _may_be_heavy(self, n_outputs: int) -> list[bool]:
        """Which targets' noise may have tails of its own: one that varies has them by its law."""
        states = self.__dict__.get("_noise_law") or [None] * n_outputs
        return [self._knows_law() and state is None for state in states]

    def _usual_factor(self) -> Any:
        """Means (m,) over the rows by which laws multiply the variance of the fit's noise, or 1."""
        states = self.__dict__.get("_noise_law")
        return 1.0 if states is None else np.array([s["usual"] if s else 1.0 for s in states])

    def _laws(self, like: Tensor) -> list[NoiseLaw | None] | None:
        states = self.__dict__.get("_noise_law")
        return states and [state and NoiseLaw.from_arrays(state, like) for state in states]

    def _with_law(self, model: Predictor, like: Tensor) -> Predictor:
        """The model with noise that varies, where it does."""
        laws = self._laws(like)
        return model if laws is None else WithNoiseLaw(model, tuple(laws))
