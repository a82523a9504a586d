"""What errors at rows that are left out say of a regressor: its bars and its mean between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from skpou.base.estimator import TorchEstimator
from skpou.core import Rows, Scaling, TrainingResult
from skpou.core.models import (
    FormError,
    LeftOut,
    Predictor,
    Restrained,
    WithFormError,
    degrees_of_noise,
    fit_companion,
    fit_form_errors,
    fit_process,
    joined_errors,
    kept_rows,
    leave_out,
    restrained,
    worse_than_the_mean,
)


class Prepared(NamedTuple):
    """Training data in the units and on the device of the fit."""

    rows: Rows
    scaling: Scaling
    target_ndim: int


class JudgedRegressor(TorchEstimator):
    """Regressor whose density is that of its model as left-out rows judge it.

    A subclass calls `_no_worse_than_the_mean` and `_judge_between_rows` for what it has fitted, and
    predicts by `_mean_of` and `_density_of`.
    """

    #: Whether bars between the rows are set by errors at left-out rows, so that they may be taken
    #: at their word.
    bars_are_calibrated = True

    def _may_give_way(self) -> bool:
        """Whether the mean gives way to a linear model where it knows less."""
        return True

    def _may_lean(self) -> bool:
        """Whether the mean may lean on a Gaussian process: not where its form was asked for."""
        return False

    def _left_out_to_lean(
        self, model: Any, rows: Rows, left_out: list[LeftOut]
    ) -> tuple[Rows, list[LeftOut] | None]:
        """Rows, and errors at left-out ones that those of a Gaussian process are compared with."""
        return rows, left_out

    def _judge_between_rows(self, model: Any, prepared: Prepared, leans: bool = True) -> None:
        """Store what errors at rows that are left out tell of the model between the rows.

        That is the error of its form, and how it is restrained where it knows little; see
        `WithFormError` and `Restrained`. Whether it leans on a Gaussian process is not asked where
        the errors are those of a part of it.
        """
        self._form_error: list[dict[str, Any]] | None = None
        self._restraint: dict[str, Any] | None = None
        if not prepared.rows.n_rows:
            return
        rows = kept_rows(prepared.rows)
        residual_makers = getattr(model, "residual_makers", None)
        left_out = None if residual_makers is None else leave_out(residual_makers(rows), rows)
        if left_out is not None:
            forms = fit_form_errors(model, left_out, rows)
            self._form_error = [form.arrays() for form in forms]
        companion = fit_companion(model, rows, left_out) if self._may_give_way() else None
        process, degrees = None, degrees_of_noise(rows, left_out)
        if leans and self._may_lean() and left_out is not None:
            some, left_out = self._left_out_to_lean(model, rows, left_out)
            errors = companion and left_out and joined_errors(companion, model, some, left_out)
            process = fit_process(some, left_out, errors or None)
            degrees = degrees_of_noise(some, left_out)
        self._restraint = restrained(model, companion, prepared.rows, process, degrees).arrays()

    def _with_form_error(self, model: Predictor) -> WithFormError | None:
        """The model whose epistemic variance knows the error of its form, where that is known."""
        state = self.__dict__.get("_form_error")
        if state is None:
            return None
        return WithFormError(model, tuple(FormError(**form) for form in state))

    def _restrained(
        self, model: Predictor, like: Tensor, bars: WithFormError | None = None
    ) -> Predictor:
        """The model, and it with `bars`, as it predicts: it gives way where it knows little."""
        state = self.__dict__.get("_restraint")
        if state is None:
            return bars or model
        return Restrained.from_arrays(model, state, like, bars)

    def _mean_of(self, points: Tensor, view: Callable[[Any], Predictor] | None = None) -> Predictor:
        """The model, or a part of it that `view` makes, for means alone."""
        if view is not None:
            return view(self._unpacked_model(points))
        return self._unpacked("mean", points, self._unpack_mean)

    def _unpack_mean(self, like: Tensor) -> Predictor:
        return self._restrained(self._unpacked_model(like), like)

    def _density_of(
        self, points: Tensor, view: Callable[[Any], Predictor] | None = None
    ) -> Predictor:
        """The model, or a part of it that `view` makes, with all that is known of its errors."""
        if view is not None:
            model = view(self._unpacked_model(points))
            return self._with_form_error(model) or model
        return self._unpacked("density", points, self._unpack_density)

    def _unpack_density(self, like: Tensor) -> Predictor:
        model = self._unpacked_model(like)
        return self._restrained(model, like, self._with_form_error(model))

    def _simpler(self, prepared: Prepared) -> TrainingResult | None:
        """The best simpler fit to the same rows, for a fit that is worse than the mean there."""
        return None

    def _no_worse_than_the_mean(self, result: TrainingResult, prepared: Prepared) -> TrainingResult:
        """The result, or what is simpler where a target is further from the rows than its mean."""
        rows = prepared.rows
        worse = worse_than_the_mean(self._as_stored(result.state, rows.X), rows)
        if not worse.any():
            return result
        message = (
            f"The fit was further from its own rows than the mean of y in {int(worse.sum())} of "
            f"{rows.n_outputs} outputs. A simpler fit is kept, at worst the mean. {result.message}"
        )
        chosen = self._simpler(prepared) or result
        worse = worse_than_the_mean(self._as_stored(chosen.state, rows.X), rows)
        if worse.any():
            chosen = replace(chosen, state=chosen.state.flattened(worse))
        return replace(chosen, code="worse_than_the_mean", message=message.strip())

    def _as_stored(self, state: Any, like: Tensor) -> Any:
        """The model that predicts in the precision of `like`, for a state of training."""
        return state
