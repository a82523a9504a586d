"""AutoRegressor: members are fitted and compared, the densities of the best are stacked."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.auto.claims import is_calibrated
from skpou.auto.joint import JointOfMembers
from skpou.auto.members import check_members, default_members, named_member, names_of, outliers_of
from skpou.auto.outcome import Outcome, outcome_of
from skpou.auto.predictive import Stack, unit_of
from skpou.auto.race import (
    AT_THEIR_WORD,
    FACTORS,
    LEAST_POINTS,
    Data,
    Race,
    Rung,
    count_trials,
    plan_rungs,
    run_race,
)
from skpou.auto.summary import summary_of
from skpou.base import (
    AUTO,
    COUNT,
    BaseRegressor,
    Origin,
    StopRequested,
    fit_context,
    random_generator,
    sections_of,
    seed_of,
)
from skpou.core import Report, Scaling, group_rows, merge_rows
from skpou.core.linalg import alone

#: Relative difference of a variance and the sum of its two parts that is no round-off of float32.
ROUND_OFF = 1e-3
#: Weight of members that tells for all.
MAJORITY = 0.5


class Plan(NamedTuple):
    """What a fit will do.

    Attributes
    ----------
    members : list of regressor
        Unfitted.
    data : Data
        Rows in units of X and y.
    pair : ndarray of shape (n,)
        Number of the pair in `data` that each given row is, -1 for rows of weight 0.
    racing, trusted : list of int
        Members that race, and those that are fitted to all rows without.
    scaling : Scaling
        Box of the data, mean and scale of the targets.
    n_steps : int
        Most steps of the fit: trials of the race and whole fits.
    """

    members: list[Any]
    data: Data
    pair: np.ndarray
    racing: list[int]
    trusted: list[int]
    rungs: list[Rung]
    scaling: Scaling
    target_ndim: int
    n_steps: int


class AutoRegressor(JointOfMembers):
    """The regressor to begin with: members are compared, the best two or three predict together.

    Members of skpou have bars that know errors at left-out rows: up to 5000 distinct points all are
    fitted to all rows, once, and compared by the log density that they expect between the rows.
    Others, and all of them on more points, race: rows are left out, members are fitted to a small
    sample of the others and judged by the density of the left-out targets, the better ones to
    larger samples (successive halving [1]_), the best to all rows. The predictive densities of the
    best are stacked, by what they expect, or by the weights under which left-out targets are most
    likely [2]_ where all raced; with a small chance that they are wrong altogether.

    Parameters
    ----------
    members : "auto" or list, default="auto"
        ``"auto"``: :class:`~skpou.HierarchicalPOURegressor` up to forty columns,
        :class:`~skpou.MultiStageRegressor`, :class:`~skpou.AdditivePOURegressor` from eight rows
        a column on, :class:`~skpou.SparseGridRegressor` from two columns on, and
        :class:`~skpou.NeuralSparseGridRegressor` from six columns and 500 rows on. A list holds
        regressors with ``predict(X, return_std=True)``, of scikit-learn or others, or names of
        skpou's classes. Their densities are Gaussian where they have none of their own. One that
        cannot be fitted, or whose mean or bars are no numbers, is left out, with a warning.
    n_members : int, default=3
        Most members of the stack. 1: the best alone.
    n_jobs : int, default=None
        Processes that fit members at the same time, as joblib takes them. Results do not depend
        on it.
    device : str, default="auto"
        Of members that are not given: ``"auto"``: CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``. What members say is put together on the CPU.
    dtype : {"float64", "float32"}, default="float64"
        Precision of predictions, and of members that are not given.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are
        folds and samples; members that are not given take it.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is a fit of a member.

    Attributes
    ----------
    estimators_ : list of regressor
        Members of the stack, fitted to all rows, the heaviest first.
    weights_ : ndarray of shape (n_members,)
        Their weights, which add up to one.
    doubter_ : regressor or None
        Fitted member whose bars, and whose distance, are how far the stack may be off.
    doubter_factor_ : float
        Factor of its bars, below 1 where they are wider than its errors at left-out rows.
    doubt_ : float
        Chance that it is, one in the number of distinct points and two; 0 for one member, and where
        one is exact and none contradicts it. It widens density and bars and moves no mean.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that members of more than half the weight set apart as outliers,
        as their own `outliers_` say: their fits are those of the other rows.
    widened_ : ndarray of shape (n_members, n_factors)
        With what probability the bars of each are wider by each of `factors_`.
    factors_ : ndarray of shape (n_factors,)
        Factors of standard deviations, the first 1.
    leaderboard_ : dict of ndarray
        A line for each member and size, those of all rows at the end: ``"member"``, ``"rows"``
        (distinct points that were fitted), ``"log_density"`` (per unit of y: mean at left-out rows,
        bars widened as far as these rows ask for; of fits to all rows the one that the member
        expects between them), ``"error"`` (root mean square, of the mean, in units of the spread of
        y, likewise), ``"seconds"`` of the processor and ``"weight"``. NaN stands for what failed.
        ``pandas.DataFrame(leaderboard_)`` is a table.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, offset, width), mean and scale of the targets.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    See Also
    --------
    skpou.inspection.LeaderboardDisplay : A figure of the race.

    Notes
    -----
    ``return_std="epistemic"`` holds how far the members disagree. With it and ``"noise"`` every
    member must tell the two apart, which those of scikit-learn do not.

    Several outputs share the members and their weights. Members without `sample_weight` get rows
    as often as they count. Members without `predict_gradient` are differentiated numerically,
    to about ten digits.

    Standard deviations below a millionth of the spread of y count as that in the race: where data
    are exact the smaller error decides.

    References
    ----------
    .. [1] K. Jamieson, A. Talwalkar, "Non-stochastic best arm identification and hyperparameter
       optimization", AISTATS 2016.
    .. [2] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, "Using stacking to average Bayesian
       predictive distributions", Bayesian Analysis 13 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import AutoRegressor
    >>> X = np.linspace(-1, 1, 24)[:, None]
    >>> model = AutoRegressor().fit(X, np.abs(X[:, 0] - 0.2))
    >>> type(model.estimators_[0]).__name__
    'HierarchicalPOURegressor'
    >>> mean, std = model.predict([[0.2]], return_std=True)
    >>> bool(abs(mean[0]) < 1e-6)
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **BaseRegressor._parameter_constraints,
        "members": [AUTO, list, tuple],
        "n_members": [COUNT],
    }
    _size_parameters = "n_jobs"

    def __init__(
        self,
        members="auto",
        *,
        n_members=3,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.members = members
        self.n_members = n_members
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BaseRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> AutoRegressor:
        """Fit the members, compare them, and keep the best."""
        if not isinstance(self.members, str):
            check_members(self.members)
        with self._earlier_fit_kept():
            plan = self._plan(X, y, sample_weight)
            with self._fitting(X, y, sample_weight, plan.n_steps), alone():
                messages = self._race(plan)
        for message in messages:
            warnings.warn(message, stacklevel=3)
        return self

    # Training

    def _plan(self, X: Any, y: Any, sample_weight: Any) -> Plan:
        X, y, weight = self._given_rows(X, y, sample_weight)
        ndim = y.ndim
        y = y[:, None] if ndim == 1 else y
        scaling = self._merged(X, y, weight)[1]
        data = Data.from_rows(merge_rows(X, y, weight, counts=True), scaling.scale.cpu().numpy())
        used, pair = weight > 0, np.full(len(X), -1)
        pair[used.cpu().numpy()] = group_rows(torch.cat([X, y], 1)[used])[0].cpu().numpy()
        seed = seed_of(self.random_state)
        members = self._members(len(data.y), len(scaling.columns), seed)
        racing, trusted = _who_races(members, data)
        rungs = plan_rungs(data, random_generator(seed)) if racing else []
        n_racing = min(len(racing), max(int(self.n_members), 2))
        n_trials = count_trials(rungs, len(racing), int(self.n_members))
        n_steps = n_trials + n_racing + len(trusted)
        return Plan(members, data, pair, racing, trusted, rungs, scaling, ndim, n_steps)

    def _members(self, n_rows: int, n_columns: int, seed: int) -> list[Any]:
        """Unfitted members."""
        options = {"device": self.device, "dtype": self.dtype, "random_state": seed}
        if isinstance(self.members, str):
            return default_members(n_rows, n_columns, options)
        return [
            named_member(member, options) if isinstance(member, str) else clone(member)
            for member in self.members
        ]

    def _race(self, plan: Plan) -> list[Warning]:
        """Race and whole fits; the warnings of the latter, and of members that failed."""
        members, data, most = plan.members, plan.data, int(self.n_members)
        race = Race(names_of(members), plan.racing, plan.trusted)
        steps = _Steps(plan.n_steps, self._reporter())
        try:
            run_race(members, race, data, plan.rungs, most, self.n_jobs, steps)
        except StopRequested:
            most = 1
        outcome = outcome_of(members, race, data, most, self.n_jobs, steps)
        steps.skip_the_rest()
        self._store_stack(plan, race, outcome)
        messages = [message for whole in outcome.whole for message in whole.messages]
        if isinstance(self.members, str):
            return messages
        # Who is asked for by name is missed.
        failures = {k: one.failure for k, one in outcome.others.items() if one.failure is not None}
        return messages + [
            UserWarning(f"members: {race.names[k]} failed, and is left out: {failure}")
            for k, failure in sorted({**failures, **race.failures}.items())
        ]

    def _store_stack(self, plan: Plan, race: Race, outcome: Outcome) -> None:
        lines = [{**line, "weight": 0.0} for line in race.board]
        fitted = [(k, whole, 0.0) for k, whole in outcome.others.items()]
        fitted += zip(outcome.members, outcome.whole, outcome.weights)
        unit = float(np.log(plan.data.spread).sum())
        for k, whole, weight in fitted:
            claim = whole.claim if whole.is_good else None
            lines.append(
                {
                    "member": race.names[k],
                    "rows": plan.data.n_points,
                    "log_density": np.nan if claim is None else claim.score - unit,
                    "error": np.nan if claim is None else claim.error,
                    "seconds": whole.seconds,
                    "weight": weight,
                }
            )
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            estimators_=[whole.model for whole in outcome.whole],
            weights_=outcome.weights,
            widened_=outcome.shares,
            factors_=np.array(FACTORS),
            doubter_=outcome.doubter,
            doubt_=outcome.doubt,
            doubter_factor_=outcome.doubter_factor,
            outliers_=_outliers(plan, outcome),
            leaderboard_={key: np.array([line[key] for line in lines]) for key in lines[-1]},
            scaling_=plan.scaling.arrays(),
            _target_ndim=plan.target_ndim,
        )

    def summary(self) -> str:
        """Which members were compared, and why those of the stack were taken.

        Returns
        -------
        str
            Some lines of text.
        """
        check_is_fitted(self)
        return summary_of(self.leaderboard_, len(vars(self).get("outliers_", ())))

    # Prediction

    def _query(self, X: Any) -> tuple[Tensor, Scaling, Origin]:
        """Points as they are, for members scale them: one that bends at a row must meet it."""
        X, origin = self._given_points(X)
        X, unit = X.cpu(), torch.as_tensor(self._unit(), device="cpu")
        columns = torch.arange(X.shape[1], device="cpu")
        zeros, ones = X.new_zeros(X.shape[1]), X.new_ones(X.shape[1])
        return X, Scaling(columns, zeros, ones, 0 * unit, unit), origin

    def _unit(self) -> np.ndarray:
        return unit_of(self.scaling_["scale"])

    def _model(self, like: Tensor) -> Stack:
        width = np.zeros(self.n_features_in_)
        width[self.scaling_["columns"]] = self.scaling_["width"]
        unit = torch.as_tensor(self._unit(), device="cpu")
        members = (self.estimators_, self.weights_, self.widened_, self.factors_)
        # Models that an earlier version saved have no doubt, or no factor of it.
        state = vars(self)
        doubt = (state.get("doubter_"), state.get("doubt_", 0.0), state.get("doubter_factor_", 1.0))
        return Stack(*members, width, unit, True, *doubt)

    def _check_state(self) -> None:
        """Refuse a state with weights that are none; members refuse what is damaged in them."""
        shapes = {(len(self.estimators_),), self.weights_.shape, self.widened_.shape[:1]}
        whole = abs(self.weights_.sum() - 1) + np.abs(self.widened_.sum(1) - 1).sum()
        if len(shapes) > 1 or not whole < ROUND_OFF:
            raise ValueError(
                f"This saved {type(self).__name__} is damaged: weights {self.weights_} of "
                f"{len(self.estimators_)} members, or their shares, do not add up to one."
            )

    def predict(self, X, return_std=False, return_cov=False) -> Any:
        """Predict the mean of y, and its standard deviation.

        The mean is that of the members by `weights_`, the same weights at all points; the standard
        deviation is that of their mixture about it.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, "epistemic" or "noise", default=False
            True: also the predictive standard deviation. ``"noise"``: that of the noise, by the
            members' own. ``"epistemic"``: that of the mean, with the members' disagreement.
        return_cov : bool or "epistemic", default=False
            True: also the covariance of new measurements at all pairs of points, that of the
            members' mixture: their own ones by weight, and their disagreement. Its diagonal is
            the square of the standard deviation. ``"epistemic"``: that of the mean alone.

        Returns
        -------
        mean : ndarray or Tensor of shape (n,) or (n, n_outputs)
        std : ndarray or Tensor of the same shape
            In units of y; only if asked for.
        cov : ndarray or Tensor of shape (n, n) or (n, n, n_outputs)
            In squared units of y; only if asked for.

        Raises
        ------
        TypeError
            If a part is asked for that a member does not tell from the rest; it is named.
        ValueError
            If both are asked for, or the covariance of members that have none.
        """
        if return_cov is not False:
            return self._predict(X, return_std, return_cov=return_cov)
        if isinstance(return_std, str) and return_std in ("epistemic", "noise"):
            self._check_parts(X)
        return self._predict(X, return_std, lambda model: replace(model, kind=return_std))

    def _check_parts(self, X: Any) -> None:
        """Refuse members whose parts do not add up to the whole: they know but one."""
        points = self._query(X)[0][:1].numpy()
        for member, name in zip(self.estimators_, names_of(self.estimators_)):
            total, noise, unsure = (
                np.asarray(member.predict(points, return_std=kind)[1], dtype=float)
                for kind in (True, "noise", "epistemic")
            )
            # The squares of huge or tiny numbers are none.
            if not np.allclose(np.hypot(noise, unsure), total, rtol=ROUND_OFF / 2, atol=0):
                raise TypeError(
                    f"estimators_: {name} does not tell noise from what it does not know; ask "
                    "for return_std=True."
                )


def _who_races(members: list[Any], data: Data) -> tuple[list[int], list[int]]:
    """Members that are judged by left-out rows first, and those that are taken at their word.

    A single one has nobody to race with, and of a few points none can be left out: then the first
    member is taken, or all that can be taken at their word, where the rows are enough.
    """
    every, n_points = list(range(len(members))), data.n_points
    if len(members) == 1 or len(data.y) < LEAST_POINTS:
        return [], every[:1]
    trusted = [k for k in every if n_points <= AT_THEIR_WORD and is_calibrated(members[k])]
    if n_points < LEAST_POINTS:
        return [], trusted or every[:1]
    return [k for k in every if k not in trusted], trusted


def _outliers(plan: Plan, outcome: Outcome) -> np.ndarray:
    """Numbers of the given rows that members of more than half the weight set apart."""
    votes = np.zeros(len(plan.data.weight) + 1)  # The last one is of rows of weight 0.
    for whole, weight in zip(outcome.whole, outcome.weights):
        votes[:-1] += weight * outliers_of(whole.model, plan.data.weight)
    return np.flatnonzero(votes[plan.pair] > MAJORITY)


class _Steps:
    """Takes lines of a report, as many as there are steps: what is skipped counts as well."""

    def __init__(self, n_steps: int, report: Report | None):
        self.left, self.report = n_steps, report

    def __call__(self, line: str) -> None:
        # A member in place of one that failed is no step of its own.
        if self.left > 0:
            self.left -= 1
            if self.report is not None:
                self.report(line)

    def skip_the_rest(self) -> None:
        """Take the steps that were not needed."""
        while self.left > 0:
            self("not needed")
