"""What all regressors share: how they train, and what left-out rows say of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skpou.base import validation
from skpou.base.noise import NoiseLawMixin
from skpou.base.outliers import Given, OutlierMixin, Prepared
from skpou.base.predictions import PredictiveRegressor
from skpou.core import Rows, Scaling, TrainingInterrupted, TrainingResult
from skpou.core.linalg import gather
from skpou.core.models import (
    FormError,
    LeftOut,
    Makers,
    Predictor,
    Restrained,
    WithFormError,
    fit_companion,
    fit_form_errors,
    fit_interpolant,
    fit_process,
    fit_tails,
    joined_errors,
    kept_rows,
    leave_out,
    leave_out_sides,
    restrained,
    with_jumps,
    worse_than_the_mean,
)


class BaseRegressor(OutlierMixin, NoiseLawMixin, PredictiveRegressor):
    """Regressor with a predictive density at every point: one Gaussian, or a mixture of them.

    A subclass calls `_prepare`, trains and stores arrays by `_train_and_store`, and writes
    `_store_result` and `_model`; predictions of every kind follow.
    """

    #: Whether bars between the rows are set by errors at left-out rows, so that they may be taken
    #: at their word.
    bars_are_calibrated = True

    # Written by a subclass

    def fit(self, X, y, sample_weight=None) -> Any:
        """Train on rows, alone or weighted.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Frequency weights: weight 2 is the row twice, weight 0 the row removed.

        Returns
        -------
        self : estimator
        """
        raise NotImplementedError

    def _model(self, like: Tensor) -> Predictor:
        """The fitted model in scaled units, on the device and in the dtype of `like`.

        It is unpacked from the stored arrays: once a prediction, not once a block of rows.
        """
        raise NotImplementedError

    def _may_give_way(self) -> bool:
        """Whether the mean gives way to a linear model where it knows less."""
        return True

    def _may_lean(self) -> bool:
        """Whether the mean may lean on a Gaussian process: not where its form was asked for."""
        return False

    def _may_interpolate(self) -> bool:
        """Whether a Gaussian process may predict instead where rows are few."""
        return self._may_lean()

    def _left_out_to_lean(
        self, model: Any, rows: Rows, left_out: list[LeftOut]
    ) -> tuple[Rows, list[LeftOut] | None]:
        """Rows, and errors at left-out ones that those of a Gaussian process are compared with."""
        return rows, left_out

    def _left_out_alone(
        self, model: Any, rows: Rows, left_out: list[LeftOut], target: int
    ) -> tuple[Rows, LeftOut]:
        """The same of one of several targets, as without the others."""
        return rows.of_target(target), left_out[target]

    def _evaluate(self, points: Tensor) -> None:
        model = self._restrained(self._model(points), points)
        m = len(self.scaling_["scale"])
        parts = model.components(points).log_density(points.new_zeros((1, m)))
        if model.mean(points).shape != (1, m) or parts.shape != (1,):
            raise ValueError(f"predictions of {m} outputs have another shape.")

    # Training

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        box: Scaling | None = None,
        beside: Callable[[Tensor], Tensor] | None = None,
    ) -> Prepared:
        """Validate, move, scale and merge the training data as given to fit.

        `box` keeps the box and the columns of an earlier fit; `beside` maps X (n, d) to further
        points (k, d) for the box to hold: then n may be 0.
        """
        X, y, weight = self._given_rows(X, y, sample_weight, box is None, beside is not None)
        ndim = y.ndim
        if beside is not None:
            further = beside(X)
            ones = further.new_ones(len(further))
            box = Scaling.from_box(torch.cat([X, further]), torch.cat([weight, ones]))
        return self._prepared(Given(X, y[:, None] if ndim == 1 else y, weight), ndim, box)

    def _given_rows(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True, may_be_empty: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Validated points (n, d), targets (n,) or (n, m) and weights (n,), on the device.

        Those of all processes, where several call fit together.
        """
        X, y, weight = self._own_rows(X, y, sample_weight, reset, may_be_empty)
        X, y, weight = (torch.cat(gather(part)) for part in (X, y, weight))
        return X, y, weight

    def _own_rows(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True, may_be_empty: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same of this process alone, once all agree that they go together."""
        with self._alike() as facts:
            return self._validated_rows(X, y, sample_weight, reset, facts, may_be_empty)

    def _validated_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        reset: bool,
        facts: dict[str, Any],
        may_be_empty: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same without a word to other processes; `facts` takes what they must agree on."""
        facts["dtype of X"] = str(getattr(X, "dtype", None))
        device = validation.resolve_device(self.device, validation.origin_of(X))
        X, y, weight = validation.training_data(
            self, X, y, sample_weight, reset=reset, may_be_empty=may_be_empty
        )
        facts["number of columns"] = X.shape[1]
        facts["shape of a target"] = tuple(y.shape[1:])
        X, y, weight = (validation.owned(part, torch.float64, device) for part in (X, y, weight))
        return X, y, weight

    def _train_and_store(
        self,
        train: Any,
        n_init: int,
        prepared: Prepared,
        again: Callable[[Prepared], Any] | None = None,
    ) -> TrainingResult:
        """Best of several starts, stored; what an interrupt leaves is stored, too.

        `again` makes a training of the rows without outliers; None: none are set apart.
        """
        self._noise_law = None
        if again is not None:
            self._set_outliers(None)
        try:
            result = self._best_no_worse(train, n_init, prepared)
            if again is not None:
                anew = lambda rest: self._best_no_worse(again(rest), n_init, rest)  # noqa: E731
                result, prepared = self._without_outliers(result, prepared, anew)
                result, prepared = self._by_precision(result, prepared, anew)
        except TrainingInterrupted as stopped:
            if stopped.result is not None:
                self._judge_between_rows(stopped.result.state, prepared)
            return self._keep_interrupted(stopped, prepared)
        self._judge_between_rows(result.state, prepared)
        self._law_beside_process(prepared)
        self._store_result(result, prepared)
        return result

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
        makers = self._residual_makers(model, rows)
        left_out, forms = leave_out(makers, rows), []
        if left_out is not None:
            left_out = self._told_by_law(left_out, model, rows)
            sides = leave_out_sides(makers, rows)
            if sides is not None:
                sides = sides[0], self._told_by_law(sides[1], model, rows)
            forms = fit_form_errors(model, left_out, rows, sides)
            forms = with_jumps(forms, model, prepared.rows)
            self._form_error = [form.arrays() for form in forms]
        companion = fit_companion(model, rows, left_out) if self._may_give_way() else None
        told: Sequence[LeftOut] | None = left_out
        process, interpolant, of_told = None, None, rows
        if leans and self._may_interpolate() and left_out is not None:
            own = left_out
            some, left_out = self._left_out_to_lean(model, rows, own)
            known = self._with_form_error(model) or model
            interpolant, told = fit_interpolant(
                some, left_out, known, lambda k: self._left_out_alone(model, rows, own, k)
            )
            of_told = some
        predicts_all = interpolant is not None and interpolant.predicts_all(rows.n_outputs)
        if leans and self._may_lean() and left_out is not None and not predicts_all:
            errors = companion and left_out and joined_errors(companion, some, left_out)
            beside_line = restrained(model, companion, some)
            noise = beside_line.components(some.X).variances()[0]
            process = fit_process(some, left_out, errors or None, noise)
            if process is not None and interpolant is not None:
                process = process.without(interpolant.targets)
        of_form = forms if interpolant is None else []
        tails = fit_tails(of_told, told, of_form, self._may_be_heavy(of_told.n_outputs))
        beside = (companion, prepared.rows, process, tails, interpolant)
        self._restraint = restrained(model, *beside).arrays()

    def _residual_makers(self, model: Any, rows: Rows) -> list[Makers]:
        """What errors at left-out rows are found by; nothing where the model cannot tell."""
        residual_makers = getattr(model, "residual_makers", None)
        return [] if residual_makers is None else residual_makers(rows)

    def _with_form_error(self, model: Predictor) -> WithFormError | None:
        """The model whose epistemic variance knows the error of its form, where that is known."""
        state = self.__dict__.get("_form_error")
        if state is None:
            return None
        return WithFormError(model, tuple(FormError(**form) for form in state))

    def _restrained(self, model: Predictor, like: Tensor) -> Predictor:
        """The model as it predicts: it gives way where it knows little."""
        state = self.__dict__.get("_restraint")
        return model if state is None else Restrained.from_arrays(model, state, like)

    def _mean_of(self, points: Tensor, view: Callable[[Any], Predictor] | None = None) -> Predictor:
        """The model, or a part of it that `view` makes, for means alone."""
        if view is not None:
            return view(self._unpacked_model(points))
        return self._unpacked("mean", points, self._unpack_mean)

    def _unpack_mean(self, like: Tensor) -> Predictor:
        return self._restrained(self._unpacked_model(like), like)

    def _regular_density_of(
        self, points: Tensor, view: Callable[[Any], Predictor] | None = None
    ) -> Predictor:
        """The model, or a part that `view` makes, with what is known of its errors; no outliers."""
        if view is not None:
            model = view(self._unpacked_model(points))
            return self._with_law(self._with_form_error(model) or model, points)
        return self._unpacked("density", points, self._unpack_density)

    def _unpack_density(self, like: Tensor) -> Predictor:
        mean = self._mean_of(like)
        if not isinstance(mean, Restrained):
            return self._with_law(self._with_form_error(mean) or mean, like)
        # What it leans on is unpacked once for both.
        return self._with_law(replace(mean, bars=self._with_form_error(mean.model)), like)

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
