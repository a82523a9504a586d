"""What a fitted additive regressor keeps and predicts of its terms, and how it is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.additive.model import AdditiveModel
from skpou.base import (
    FittedModelRegressor,
    Prepared,
    SummedRegressor,
    check_is_fitted,
    column_names,
    noise_lines,
)
from skpou.core import Rows, TrainingResult
from skpou.core.models import FEWEST_OF_TABLE, LeftOut, keeps_all, leave_out, no_form_errors

#: Decimals of the sum of scaled columns by which rows are ordered: sums in another order of columns
#: differ behind them.
DECIMALS = 12


class FittedTermsRegressor(SummedRegressor, FittedModelRegressor):
    """Regressor whose mean is a sum of terms; a subclass finds them."""

    max_order: int

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        model = result.state
        columns = prepared.scaling.columns.tolist()
        terms = {term for target in model.targets for term in target.terms()}
        beside = self._restraint or {}
        if any(beside.get(name) for name in ("companion", "process", "interpolant")):
            # What the mean gives way by depends on all columns.
            terms.add(model.targets[0].experts[0].basis.kept)
        found = sorted(terms, key=_order)
        spent = [target.dof() for target in model.targets]
        dof = [[own.get(term, 0.0) for term in found] for own in spent]
        X, share = model.some(prepared.rows.X, prepared.rows.weight)
        centres, variances = model.term_moments(found, X, share)
        given = self._given_way(model, X)
        if given is not None:
            centres[:, [len(found) - 1, -1]] += (share @ given.double())[:, None].to(centres)
        noise = model.noise(X, share)
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            model_=model.arrays(),
            terms_=[tuple(columns[j] for j in term) for term in found],
            effective_dof_=self._of_targets(np.array(dof), prepared.target_ndim),
            n_iter_=result.n_iter,
            _term_centres=centres.cpu().numpy(),
            _term_variances=variances.cpu().numpy(),
            _noise=noise.cpu().numpy(),
        )

    def _left_out_to_lean(self, model: AdditiveModel, rows: Rows, left_out: Any) -> Any:
        # In an order that depends neither on that of the columns, as folds do, nor on y's sign.
        X, y = rows.X.cpu().numpy(), rows.y.cpu().numpy()
        order = np.lexsort((*y.T, *np.abs(y).T, np.round(X.sum(1), DECIMALS)))
        rows = rows.subset(torch.as_tensor(order, device=rows.X.device))
        return rows, leave_out(model.residual_makers(rows, plain=True), rows)

    def _left_out_alone(
        self, model: AdditiveModel, rows: Rows, left_out: Any, target: int
    ) -> tuple[Rows, LeftOut]:
        one = rows.of_target(target)
        some, found = self._left_out_to_lean(
            AdditiveModel([model.targets[target]]), one, left_out[target : target + 1]
        )
        return (one, left_out[target]) if found is None else (some, found[0])

    def _as_stored(self, state: AdditiveModel, like: Tensor) -> AdditiveModel:
        # A local block is there because left-out rows are predicted better by it.
        return super()._as_stored(state.without_local(), like)

    def _judge_between_rows(
        self, model: AdditiveModel, prepared: Prepared, leans: bool = True
    ) -> None:
        rows = prepared.rows
        is_table = rows.n_features >= FEWEST_OF_TABLE
        if model.has_local and not is_table:
            # What is between lines and in gaps no left-out row has told the block.
            super()._judge_between_rows(model.without_local(), prepared, leans=False)
            return
        super()._judge_between_rows(model, prepared, leans)
        if model.has_local or (is_table and not keeps_all(rows)):
            # Left-out rows have calibrated the density, that of terms and block together; the few
            # that are kept of many, the farthest from each other, are no sample of those to come.
            self._form_error = [form.arrays() for form in no_form_errors(rows)]

    def _given_way(self, model: AdditiveModel, X: Tensor) -> Tensor | None:
        """How much (n, m) the predicted mean differs from the sum of the model's terms, if at all.

        It counts to the last term, that of the most columns.
        """
        restrained = self._restrained(model, X)
        return None if restrained is model else restrained.mean(X) - model.mean(X)

    def _model(self, like: Tensor) -> AdditiveModel:
        return AdditiveModel.from_arrays(self.model_, like)

    def _of_targets(self, values: np.ndarray, ndim: int | None = None):
        """Drop the first axis, of a single target, if y had none."""
        return values[0] if (ndim or self._target_ndim) == 1 else values

    @property
    def intercept_(self) -> Any:
        """What terms are added to, in units of y."""
        check_is_fitted(self)
        box = self.scaling_
        return self._of_targets(box["mean"] + box["scale"] * self._term_centres[:, -1])

    @property
    def noise_(self) -> Any:
        """Noise standard deviation over the data, in units of y."""
        check_is_fitted(self)
        return self._of_targets(self._noise * self.scaling_["scale"])

    def _summary_lines(self) -> list[str]:
        names, lines = column_names(self), []
        variances = self.__dict__.get("_term_variances")
        dof = np.reshape(self.effective_dof_, (len(self.scaling_["scale"]), -1))
        for target, own in enumerate(dof):
            lines += [
                "",
                f"Terms of target {target}, beside its mean (shares of the variance of y)",
            ]
            for k, (term, free) in enumerate(zip(self.terms_, own, strict=True)):
                few = len(term) <= self.max_order
                what = " x ".join(names[j] for j in term) if few else "all columns together"
                # Terms are in units of the rms of y; they overlap, so that shares need not add up.
                share = "" if variances is None else f"{variances[target, k]:.1%}, "
                lines.append(f"  {what}: {share}{free:.1f} degrees of freedom")
        return [*lines, *noise_lines(self.noise_)]

    # Prediction

    def _gates_per_row(self) -> int:
        return len(self.scaling_["scale"])

    def predict_terms(self, X: Any, return_std: bool = False):
        """Contribution of every term; together with `intercept_` they add up to the prediction.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, default=False
            Also the standard deviation of every contribution, by the posterior of its
            coefficients.

        Returns
        -------
        values : ndarray or Tensor of shape (n, n_terms) or (n, n_outputs, n_terms)
            In units of y, in the order of `terms_`; the mean of each over the data is zero.
        std : ndarray or Tensor of the same shape
            Only if asked for.
        """
        points, scaling, origin = self._query(X)
        model = self._unpacked_model(points)
        place = {int(column): k for k, column in enumerate(scaling.columns)}
        terms = [tuple(place[j] for j in term) for term in self.terms_]
        centres = scaling.scale.new_tensor(self._term_centres[:, :-1].T)

        def of_terms(x: Tensor, _: slice) -> tuple[Tensor, Tensor]:
            value, variance = model.term_values(terms, x, bool(return_std))
            given = self._given_way(model, x)
            if given is not None and terms:
                value[:, -1] += given
            return value, variance

        value, variance = self._in_blocks(points, model, of_terms)
        value = scaling.scale * (value - centres)
        if not return_std:
            return self._leave(value, origin)
        std = scaling.scale * variance.sqrt()
        return self._leave(value, origin), self._leave(std, origin)


def _order(term: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(term), term
