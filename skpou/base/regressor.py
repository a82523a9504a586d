"""What all regressors share: units of the targets, and predictions of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from torch import Tensor

from skpou.base import validation
from skpou.base.estimator import TorchEstimator
from skpou.base.intervals import IntervalMixin
from skpou.base.joint import JointMixin
from skpou.base.parameters import check_quantiles, check_return_std
from skpou.core import Rows, Scaling, TrainingInterrupted, TrainingResult
from skpou.core.linalg import gather
from skpou.core.models import (
    FormError,
    LeftOut,
    Predictor,
    Restrained,
    WithFormError,
    degrees_of_noise,
    fit_companion,
    fit_form_errors,
    fit_interpolant,
    fit_process,
    joined_errors,
    kept_rows,
    leave_out,
    restrained,
    worse_than_the_mean,
)

#: Size of y from which on single precision holds its errors, too, and distance of y from zero, in
#: units of its spread, up to which it rounds to less than a thousandth of the spread.
LEAST_SINGLE, MOST_OFFSET = 1e-30, 1e4


class Prepared(NamedTuple):
    """Training data in the units and on the device of the fit."""

    rows: Rows
    scaling: Scaling
    target_ndim: int


class BaseRegressor(IntervalMixin, JointMixin, MultiOutputMixin, RegressorMixin, TorchEstimator):
    """Regressor with a predictive density at every point: one Gaussian, or a mixture of them.

    A subclass calls `_prepare`, trains and stores arrays by `_train_and_store`, and writes
    `_store_result` and `_model`; predictions of every kind follow.
    """

    #: Whether bars between the rows are set by errors at left-out rows, so that they may be taken
    #: at their word.
    bars_are_calibrated = True

    # Written by a subclass

    def _model(self, like: Tensor) -> Predictor:
        """The fitted model in scaled units, on the device and in the dtype of `like`.

        It is unpacked from the stored arrays: once a prediction, not once a block of rows.
        """
        raise NotImplementedError

    def _gates_per_row(self) -> int:
        """Number of targets that choose their components independently; 0: all together."""
        return 0

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
        """Validate, move, scale and merge the training data.

        Parameters
        ----------
        X, y, sample_weight : array-like or Tensor
            As given to fit.
        box : Scaling, default=None
            Keep the box and the columns of an earlier fit.
        beside : callable, default=None
            Maps X (n, d) to further points (k, d) for the box to hold; then n may be 0.
        """
        X, y, weight = self._given_rows(X, y, sample_weight, box is None, beside is not None)
        ndim = y.ndim
        if beside is not None:
            further = beside(X)
            ones = further.new_ones(len(further))
            box = Scaling.from_box(torch.cat([X, further]), torch.cat([weight, ones]))
        rows, scaling, unit = self._merged(X, y[:, None] if ndim == 1 else y, weight, box)
        share = scaling.scale / unit
        rows = rows.in_units(scaling.mean / unit, share, self._torch_dtype())
        return Prepared(rows, scaling, ndim)

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

    def _train_and_store(self, train: Any, n_init: int, prepared: Prepared) -> TrainingResult:
        """Best of several starts, stored; what an interrupt leaves is stored, too."""
        try:
            with self._training_on(prepared):
                result = self._best_of(train, n_init)
            result = self._no_worse_than_the_mean(result, prepared)
        except TrainingInterrupted as stopped:
            if stopped.result is not None:
                self._judge_between_rows(stopped.result.state, prepared)
            return self._keep_interrupted(stopped, prepared)
        self._judge_between_rows(result.state, prepared)
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
        residual_makers = getattr(model, "residual_makers", None)
        left_out = None if residual_makers is None else leave_out(residual_makers(rows), rows)
        if left_out is not None:
            forms = fit_form_errors(model, left_out, rows)
            self._form_error = [form.arrays() for form in forms]
        companion = fit_companion(model, rows, left_out) if self._may_give_way() else None
        process, interpolant, degrees = None, None, degrees_of_noise(rows, left_out)
        if leans and self._may_interpolate() and left_out is not None:
            some, left_out = self._left_out_to_lean(model, rows, left_out)
            known = self._with_form_error(model) or model
            interpolant, told = fit_interpolant(some, left_out, known)
            degrees = degrees_of_noise(some, told)
        if leans and self._may_lean() and left_out is not None and interpolant is None:
            errors = companion and left_out and joined_errors(companion, model, some, left_out)
            process = fit_process(some, left_out, errors or None)
        beside = (companion, prepared.rows, process, degrees, interpolant)
        self._restraint = restrained(model, *beside).arrays()

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

    # Prediction

    @staticmethod
    def _scaled_targets(y: Any, points: Tensor, scaling: Scaling) -> Tensor:
        """Targets (n, m) of these points in scaled units, in float64.

        Raises
        ------
        ValueError
            If they are not as many as the points, or of another number of outputs than in fit.
        """
        y = validation.owned(validation.target_values(y), torch.float64, points.device)
        y = y.reshape(len(y), -1)
        wanted = (len(points), len(scaling.scale))
        if tuple(y.shape) != wanted:
            raise ValueError(f"y must hold {wanted} values for these X. Got {tuple(y.shape)}.")
        return scaling.targets(y)

    def _leave(self, result: Tensor, origin: validation.Origin) -> Any:
        """Results (n, ..., m) as (n, m, ...), or (n, ...) if y had no axis; as what X was."""
        result = result.to(origin.dtype or self._result_dtype())
        single = self._target_ndim == 1
        return origin.send(result.squeeze(-1) if single else result.moveaxis(-1, 1).contiguous())

    def _units(self, like: Tensor) -> tuple[Scaling, torch.dtype | None]:
        return Scaling.from_arrays(self.scaling_, like), self._result_dtype()

    def _result_dtype(self) -> torch.dtype:
        """Single precision only where it was asked for and holds y, its offset and its size."""
        mean, scale = np.abs(self.scaling_["mean"]), self.scaling_["scale"]
        held = (scale > LEAST_SINGLE) & (mean < MOST_OFFSET * scale)
        return self._torch_dtype() if held.all() else torch.float64

    @torch.inference_mode(False)
    def _predict(
        self,
        X: Any,
        return_std: bool | str,
        view: Callable[[Any], Predictor] | None = None,
        return_cov: bool | str = False,
    ) -> Any:
        """Mean and standard deviation, or covariance, of the model or a part that `view` makes."""
        check_return_std(return_std)
        if return_cov or not isinstance(return_cov, bool | np.bool_):
            if return_std:
                raise ValueError(
                    "At most one of return_std and return_cov may be asked for. Got "
                    f"return_std={return_std!r} and return_cov={return_cov!r}."
                )
            return self._predict_covariance(X, return_cov, view)
        points, scaling, origin = self._query(X)
        model = self._density_of(points, view) if return_std else self._mean_of(points, view)
        if not return_std:
            mean = self._in_blocks(points, model, lambda x, _: model.mean(x))
            return self._leave(scaling.original_targets(mean), origin)

        def moments(x: Tensor, _: slice) -> tuple[Tensor, Tensor]:
            parts = model.components(x)
            noise, epistemic = parts.variances()
            parts_of = {"noise": noise, "epistemic": epistemic}
            variance = parts_of.get(str(return_std), noise + epistemic)
            return parts.expectation(), variance.sqrt()

        mean, std = self._in_blocks(points, model, moments)
        return (
            self._leave(scaling.original_targets(mean), origin),
            self._leave(scaling.scale * std, origin),
        )

    @torch.inference_mode(False)
    def predict_gradient(self, X) -> Any:
        """Gradient of the predicted mean.

        Across a sharp gate it is that of the chosen piece.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n, d) or (n, n_outputs, d)
            Derivatives in units of y over units of X; zero along constant columns.
        """
        points, scaling, origin = self._query(X)
        model = self._mean_of(points)
        reduced = self._in_blocks(points, model, lambda x, _: model.gradient(x))
        shape = (len(points), self.n_features_in_, len(scaling.scale))
        gradient = torch.zeros(shape, dtype=torch.float64, device=points.device)
        gradient[:, scaling.columns] = (reduced * scaling.scale / scaling.width[:, None]).to(
            torch.float64
        )
        steep = gradient.abs().max() if gradient.numel() else 0.0
        if steep > torch.finfo(torch.float32).max:  # Steps of X may be smaller than any float32.
            gradient = gradient.squeeze(-1) if self._target_ndim == 1 else gradient.moveaxis(-1, 1)
            return origin.send(gradient.contiguous())
        return self._leave(gradient, origin)

    @torch.inference_mode(False)
    def predict_quantile(self, X, quantiles=(0.05, 0.5, 0.95)) -> Any:
        """Quantiles of the predictive density; they never cross.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Probabilities between 0 and 1, exclusive.

        Returns
        -------
        ndarray or Tensor of shape (n, n_quantiles) or (n, n_outputs, n_quantiles)
            In units of y.

        Raises
        ------
        ValueError
            If a probability does not lie between 0 and 1.
        """
        levels = check_quantiles(quantiles)
        points, scaling, origin = self._query(X)
        order = np.argsort(levels, kind="stable")
        probabilities = torch.tensor(levels[order], dtype=points.dtype, device=points.device)
        model = self._density_of(points)
        values = self._in_blocks(
            points, model, lambda x, _: model.components(x).quantiles(probabilities)
        )
        values = torch.cummax(scaling.original_targets(values), dim=1).values
        back = torch.tensor(np.argsort(order, kind="stable"), device=points.device)
        return self._leave(values[:, back], origin)

    @torch.inference_mode(False)
    def predict_cdf(self, X, y) -> Any:
        """Probability that a target is at most y, for each output on its own.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs), or of one axis more
            Thresholds, in units of y. With a last axis of several for each target it is what
            `predict_quantile` returns.

        Returns
        -------
        ndarray or Tensor of the shape of y
            Values of the distribution function.

        Raises
        ------
        ValueError
            If X and y differ in length or y has another number of outputs than in fit.
        """
        points, scaling, origin = self._query(X)
        y = validation.owned(validation.target_values(y, most_axes=3), torch.float64, points.device)
        shape, several = y.shape, y.ndim > self._target_ndim
        wanted = (len(points), *([len(scaling.scale)] if self._target_ndim == 2 else []))
        if y.ndim > self._target_ndim + 1 or tuple(shape[: self._target_ndim]) != wanted:
            raise ValueError(
                f"y must hold {wanted} values for these X, or several of each. Got {tuple(shape)}."
            )
        y = y.reshape(len(y), len(scaling.scale), -1 if several else 1)
        values = scaling.targets(y.mT).to(points.dtype)
        model = self._density_of(points)
        below = self._in_blocks(
            points, model, lambda x, rows: model.components(x).cumulative(values[rows])
        )
        return origin.send(below.mT.reshape(shape).to(self._torch_dtype()))

    @torch.inference_mode(False)
    def log_density(self, X, y) -> Any:
        """Logarithm of the predictive density ``p(y | x)``.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets; several outputs give their joint density.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            Natural logarithm, per unit of y.

        Raises
        ------
        ValueError
            If X and y differ in length or y has another number of outputs than in fit.
        """
        points, scaling, origin = self._query(X)
        targets = self._scaled_targets(y, points, scaling).to(points.dtype)
        model = self._density_of(points)
        density = self._in_blocks(
            points, model, lambda x, rows: model.components(x).log_density(targets[rows])
        )
        return origin.send((density - scaling.scale.log().sum()).to(self._torch_dtype()))

    def score(self, X, y, sample_weight=None) -> float:
        """Coefficient of determination R^2 of the prediction.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            True targets.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float
        """
        values = [y, self.predict(X), sample_weight]
        y, predicted, weight = (
            validation.check_tensor(v, "y").cpu().numpy() if isinstance(v, Tensor) else v
            for v in values
        )
        from sklearn.metrics import r2_score  # Late: it imports for long.

        return float(r2_score(y, predicted, sample_weight=weight))
