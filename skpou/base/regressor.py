"""What all regressors share: units of the targets, and predictions of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.metrics import r2_score
from torch import Tensor

from skpou.base import validation
from skpou.base.estimator import TorchEstimator
from skpou.base.parameters import random_generator
from skpou.core import Rows, Scaling, TrainingInterrupted, TrainingResult
from skpou.core.models import (
    FormError,
    Predictor,
    WithFormError,
    fit_form_errors,
    kept_rows,
    worse_than_the_mean,
)

#: Size of y from which on single precision holds its errors, too, and distance of y from zero, in
#: units of its spread, up to which it rounds to less than a thousandth of the spread.
LEAST_SINGLE, MOST_OFFSET = 1e-30, 1e4


def check_n_samples(n_samples: Any) -> None:
    """Refuse what is no number of draws."""
    whole = isinstance(n_samples, int | np.integer) and not isinstance(n_samples, bool)
    if not whole or n_samples < 1:
        raise ValueError(f"n_samples must be an int of at least 1. Got {n_samples!r}.")


class Prepared(NamedTuple):
    """Training data in the units and on the device of the fit."""

    rows: Rows
    scaling: Scaling
    target_ndim: int


class BaseRegressor(MultiOutputMixin, RegressorMixin, TorchEstimator):
    """Regressor with a predictive density at every point: one Gaussian, or a mixture of them.

    A subclass calls `_prepare`, trains and stores arrays by `_train_and_store`, and writes
    `_store_result` and `_model`; predictions of every kind follow.
    """

    # Written by a subclass

    def _model(self, like: Tensor) -> Predictor:
        """The fitted model in scaled units, on the device and in the dtype of `like`.

        It is unpacked from the stored arrays: once a prediction, not once a block of rows.
        """
        raise NotImplementedError

    def _gates_per_row(self) -> int:
        """Number of targets that choose their components independently; 0: all together."""
        return 0

    def _evaluate(self, points: Tensor) -> None:
        model, m = self._model(points), len(self.scaling_["scale"])
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
        """Validated points (n, d), targets (n,) or (n, m) and weights (n,), on the device."""
        device = validation.resolve_device(self.device, validation.origin_of(X))
        X, y, weight = validation.training_data(
            self, X, y, sample_weight, reset=reset, may_be_empty=may_be_empty
        )
        X, y, weight = (validation.owned(part, torch.float64, device) for part in (X, y, weight))
        return X, y, weight

    def _best_of(
        self, train: Callable[[np.random.Generator], TrainingResult], n_init: int
    ) -> TrainingResult:
        """Best result of several starts; on Ctrl-C the best so far, inside the exception."""
        rng = random_generator(self.random_state)
        best: TrainingResult | None = None
        for _ in range(n_init):
            start = np.random.default_rng(rng.integers(2**63, size=2))
            try:
                result = train(start)
            except TrainingInterrupted as stopped:
                raise TrainingInterrupted(best or stopped.result) from None
            if best is None or result.score < best.score:
                best = result
        assert best is not None
        return best

    def _train_and_store(self, train: Any, n_init: int, prepared: Prepared) -> TrainingResult:
        """Best of several starts, stored; what an interrupt leaves is stored, too."""
        try:
            result = self._best_of(train, n_init)
            result = self._no_worse_than_the_mean(result, prepared)
        except TrainingInterrupted as stopped:
            kept = stopped.result
            self._form_error = kept and self._fit_form_error(kept.state, prepared)
            return self._keep_interrupted(stopped, prepared)
        self._form_error = self._fit_form_error(result.state, prepared)
        self._store_result(result, prepared)
        return result

    def _fit_form_error(self, model: Any, prepared: Prepared) -> list[dict[str, Any]] | None:
        """State of the error of the form, from rows that are left out; None where none can be."""
        residual_makers = getattr(model, "residual_makers", None)
        if residual_makers is None or not prepared.rows.n_rows:
            return None
        rows = kept_rows(prepared.rows)
        makers = residual_makers(rows)
        found = fit_form_errors(model, makers, rows) if makers else None
        return None if found is None else [form.arrays() for form in found]

    def _with_form_error(self, model: Predictor) -> Predictor:
        """The model whose epistemic variance knows the error of its form, where that is known."""
        state = getattr(self, "_form_error", None)
        if state is None:
            return model
        return WithFormError(model, tuple(FormError(**form) for form in state))

    def _simpler(self, prepared: Prepared) -> TrainingResult | None:
        """The best simpler fit to the same rows, for a fit that is worse than the mean there."""
        return None

    def _no_worse_than_the_mean(self, result: TrainingResult, prepared: Prepared) -> TrainingResult:
        """The result, or what is simpler where a target is further from the rows than its mean."""
        rows = prepared.rows
        worse = worse_than_the_mean(result.state, rows)
        if not worse.any():
            return result
        message = (
            f"The fit was further from its own rows than the mean of y in {int(worse.sum())} of "
            f"{rows.n_outputs} outputs. A simpler fit is kept, at worst the mean. {result.message}"
        )
        chosen = self._simpler(prepared) or result
        worse = worse_than_the_mean(chosen.state, rows)
        if worse.any():
            chosen = replace(chosen, state=chosen.state.flattened(worse))
        return replace(chosen, code="worse_than_the_mean", message=message.strip())

    # Prediction

    def _leave(self, result: Tensor, origin: validation.Origin) -> Any:
        """Results (n, ..., m) as (n, m, ...), or (n, ...) if y had no axis; as what X was."""
        result = result.to(self._result_dtype())
        single = self._target_ndim == 1
        return origin.send(result.squeeze(-1) if single else result.moveaxis(-1, 1).contiguous())

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
        view: Callable[[Any], Predictor] = lambda model: model,
    ) -> Any:
        """Mean and standard deviation of what `view` makes of the model."""
        named = isinstance(return_std, str) and return_std in ("epistemic", "noise")
        if not (named or isinstance(return_std, bool | np.bool_)):
            raise ValueError(
                f"return_std must be False, True, 'epistemic' or 'noise'. Got {return_std!r}."
            )
        points, scaling, origin = self._query(X)
        model = view(self._model(points))
        if not return_std:
            mean = self._in_blocks(points, model, lambda x, _: model.mean(x))
            return self._leave(scaling.original_targets(mean), origin)
        model = self._with_form_error(model)

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
    def predict_gradient(self, X):
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
        model = self._model(points)
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
    def predict_quantile(self, X, quantiles=(0.05, 0.5, 0.95)):
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
        levels = np.atleast_1d(np.asarray(quantiles))
        numeric = levels.dtype.kind in "fiu" and levels.ndim == 1
        if not numeric or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles must lie between 0 and 1, exclusive. Got {quantiles!r}.")
        points, scaling, origin = self._query(X)
        order = np.argsort(levels, kind="stable")
        probabilities = torch.tensor(levels[order], dtype=points.dtype, device=points.device)
        model = self._with_form_error(self._model(points))
        values = self._in_blocks(
            points, model, lambda x, _: model.components(x).quantiles(probabilities)
        )
        values = torch.cummax(scaling.original_targets(values), dim=1).values
        back = torch.tensor(np.argsort(order, kind="stable"), device=points.device)
        return self._leave(values[:, back], origin)

    @torch.inference_mode(False)
    def predict_cdf(self, X, y):
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
        model = self._with_form_error(self._model(points))
        below = self._in_blocks(
            points, model, lambda x, rows: model.components(x).cumulative(values[rows])
        )
        return origin.send(below.mT.reshape(shape).to(self._torch_dtype()))

    @torch.inference_mode(False)
    def sample_y(self, X, n_samples=1, random_state=0):
        """Draw targets from the predictive density, independently for every row.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        n_samples : int, default=1
            Draws a point.
        random_state : int, RandomState, Generator or None, default=0
            Source of the draws; None is a fixed one.

        Returns
        -------
        ndarray or Tensor of shape (n, n_samples) or (n, n_outputs, n_samples)
            In units of y.
        """
        check_n_samples(n_samples)
        points, scaling, origin = self._query(X)
        rng = random_generator(random_state)

        def tensor(draws: np.ndarray) -> Tensor:
            return torch.tensor(draws, dtype=points.dtype, device=points.device)

        # One axis after the other as in the first release: a seed's draws stay what they are.
        gates = self._gates_per_row()
        shape = (len(points), gates, n_samples) if gates else (len(points), n_samples)
        uniform = tensor(rng.random(shape))
        uniform = uniform.mT if gates else uniform
        normal = tensor(rng.standard_normal((len(points), len(scaling.scale), n_samples))).mT
        model = self._with_form_error(self._model(points))
        draws = self._in_blocks(
            points,
            model,
            lambda x, rows: model.components(x).sample(uniform[rows], normal[rows]),
        )
        return self._leave(scaling.original_targets(draws), origin)

    @torch.inference_mode(False)
    def log_density(self, X, y):
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
        y = validation.owned(validation.target_values(y), torch.float64, points.device)
        y = y.reshape(len(y), -1)
        wanted = (len(points), len(scaling.scale))
        if tuple(y.shape) != wanted:
            raise ValueError(f"y must hold {wanted} values for these X. Got {tuple(y.shape)}.")
        targets = scaling.targets(y).to(points.dtype)
        model = self._with_form_error(self._model(points))
        density = self._in_blocks(
            points, model, lambda x, rows: model.components(x).log_density(targets[rows])
        )
        return origin.send((density - scaling.scale.log().sum()).to(self._torch_dtype()))

    def score(self, X, y, sample_weight=None):
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
        return float(r2_score(y, predicted, sample_weight=weight))
