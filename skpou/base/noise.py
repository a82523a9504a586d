"""The law by which the noise varies; see `skpou.core.models.noise_law`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skpou.base.outliers import Prepared
from skpou.core import Rows
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
)

#: Most rows that tell a law: more tell no more.
MOST_ROWS = 20_000


class NoiseLawMixin:
    """Regressor whose noise follows a law where it clearly varies."""

    #: How the noise varies: state of a `NoiseLaw`.
    _noise_law: dict[str, Any] | None

    def _knows_law(self) -> bool:
        """Whether the noise may vary by a law.

        Not where it was asked to be the same everywhere, nor where the density of the model is what
        its training maximises.
        """
        of_training = getattr(self, "solver", "auto") == "em"
        return getattr(self, "density", "auto") != "gaussian" and not of_training

    def _with_law_of_noise(self, state: Predictor, prepared: Prepared) -> Prepared:
        """Find the law of the noise by left-out errors; the rows, with a word where there is one.

        The mean stays: fits to rows by their precision err less where the noise is small, but more
        by far where a form, and no noise, is what varies.
        """
        self._noise_law = None
        rows = prepared.rows
        few = rows.n_rows < FEWEST_OF_LAW or rows.n_rows > MOST_ROWS
        # In tables what looks like noise that varies is as often what the columns do not tell.
        few |= not 0 < rows.n_features < FEWEST_OF_TABLE
        if few or rows.n_outputs > 1 or count() > 1:
            return prepared
        if not self._knows_law() or has_even_noise(state, rows):
            return prepared
        law = fit_noise_law(errors_of_law(state, rows))
        if law is None:
            return prepared
        self._noise_law = law.arrays()
        return prepared._replace(rows=replace(rows, noise_varies=True))

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
        """Left-out errors whose noise is that of the law."""
        law = self._law(rows.X)
        if law is None:
            return left_out
        factor = law.log_factor(rows.X, model.mean(rows.X)[:, 0]).exp()
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
