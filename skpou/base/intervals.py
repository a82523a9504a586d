"""Central intervals of predictive densities, and their calibration by rows set aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base.parameters import check_coverage
from skpou.core.models import conformal_rank, interval_of_score, interval_scores, least_rows


class IntervalMixin:
    """Regressor with central intervals, believed as fitted or counted at further rows."""

    #: What a fit drops: scores are those of the model that rows were held against.
    _dropped_by_fit: tuple[str, ...] = ("_conformal_scores", "_summary")

    predict_quantile: Callable[..., Any]
    _query: Callable[..., Any]
    _in_blocks: Callable[..., Any]
    _leave: Callable[..., Any]
    _density_of: Callable[..., Any]
    _scaled_targets: Callable[..., Tensor]

    @torch.inference_mode(False)
    def predict_interval(self, X, coverage=0.9) -> Any:
        """Central intervals for new measurements.

        As much of the predictive density lies below an interval as above it. After
        `conformalize` the interval is the central one that has held the share `coverage` of the
        rows given there.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        coverage : float, default=0.9
            Probability that a new measurement lies in its interval, between 0 and 1, exclusive;
            of each output by itself.

        Returns
        -------
        ndarray or Tensor of shape (n, 2) or (n, n_outputs, 2)
            Lower and upper ends, in units of y.

        Raises
        ------
        ValueError
            If the coverage does not lie between 0 and 1, or is more than the rows given to
            `conformalize` can tell.
        """
        coverage = check_coverage(coverage)
        check_is_fitted(self)
        scores = self.__dict__.get("_conformal_scores")
        if scores is None:
            return self.predict_quantile(X, ((1 - coverage) / 2, (1 + coverage) / 2))
        rank = conformal_rank(len(scores), coverage)
        if rank > len(scores):
            raise ValueError(
                f"coverage={coverage} needs at least {least_rows(coverage)} rows in conformalize. "
                f"There were {len(scores)}."
            )
        points, scaling, origin = self._query(X)
        score = torch.tensor(scores[rank - 1], dtype=torch.float64, device=points.device)
        model = self._density_of(points)
        ends = self._in_blocks(
            points, model, lambda x, _: interval_of_score(model.components(x), score)
        )
        ends = torch.cummax(scaling.original_targets(ends), dim=1).values
        return self._leave(ends, origin)

    @torch.inference_mode(False)
    def conformalize(self, X, y) -> Any:
        """Calibrate `predict_interval` by rows that took no part in the fit.

        Each row says which central interval of the predictive density would just have held its
        target. `predict_interval` then takes the interval that held the wanted share of them,
        with the rank of a finite sample (split conformal prediction [1]_): where these rows and
        new ones are exchangeable, a new target lies within with at least that probability,
        averaged over the rows, whatever the model. Where the density is wrong in places the
        intervals stay too wide here and too narrow there. Nothing else that is predicted
        changes, and a new fit drops the calibration.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points of rows set aside; each row counts once. A coverage c needs at least
            ``c / (1 - c)`` of them, 9 for 90 %.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Their targets.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If X and y differ in length or y has another number of outputs than in fit.

        References
        ----------
        .. [1] J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman,
           "Distribution-free predictive inference for regression", Journal of the American
           Statistical Association 113, 2018, Algorithm 2.
        """
        points, scaling, _ = self._query(X)
        targets = self._scaled_targets(y, points, scaling)
        model = self._density_of(points)
        scores = self._in_blocks(
            points, model, lambda x, rows: interval_scores(model.components(x), targets[rows])
        )
        self._conformal_scores = np.sort(scores.cpu().numpy(), axis=0)
        return self
