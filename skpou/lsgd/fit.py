"""Networks of a given size, trained by one of four solvers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import BestSoFar, Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import (
    back_substitute,
    effective_parameters,
    evidence_ridge,
    free_rows,
    split_factor,
    triangular_factor,
)
from skpou.core.models import Stage, model_of_stages
from skpou.core.optim import (
    LEAST_LEFT,
    SMALL_RIDGE_SHARE,
    Descent,
    Iterate,
    Progress,
    ProjectedFit,
    ProjectedProblem,
    RidgeSchedule,
    descend,
    descend_hidden,
    follow,
    levenberg_marquardt,
)
from skpou.lsgd.dual import DualProblem
from skpou.lsgd.evident import climb, is_affordable
from skpou.lsgd.projected import minimise_projected
from skpou.networks import INITIALIZATIONS, Network, NetworkBasis, NetworkColumns

SOLVERS = ("varpro", "lsgd", "lbfgs", "gd")

#: Error relative to the targets at which a descent is exact: no other end could be better.
EXACT = 1e-10
#: Steps of the descent with next to no ridge: it is done by then, or it will not succeed.
QUICK_STEPS = 100

#: Share of the rows that parameters may be for their number to tell of noise; and standard errors
#: of the noise by which less of it is clearly less.
MOST_SPENT, CLEARLY = 0.5, 2.0


def determined_error(fit: ProjectedFit) -> float:
    """Leave-one-out error of a fit; infinite where round-off leaves no half of the digits.

    The tail of a saturated unit times 1e12 fits rows as well as another column, but predictions
    are then differences of such numbers: those of a row depend on the rows beside it.
    """
    eps = torch.finfo(fit.A.dtype).eps
    lost = eps * float((fit.A.abs() @ fit.coef.abs()).square().mean().sqrt())
    size = float((fit.A @ fit.coef - fit.residual).square().mean().sqrt())
    return fit.leave_one_out() if lost <= math.sqrt(eps) * size else math.inf


@dataclass(frozen=True)
class NetworkOptions:
    """What a fixed network is trained with; the meaning is that of LSGDRegressor's parameters.

    Attributes
    ----------
    init : str
        A key of `INITIALIZATIONS`.
    solver : str
        One of `SOLVERS`.
    alpha : float or None
        Ridge relative to the largest column norm; None: chosen.
    quick : bool
        Whether "varpro" begins with next to no ridge. Its coefficients, and what it leaves over
        at the edges, may be those of steep units.
    """

    network: Network
    init: str = "box"
    solver: str = "varpro"
    alpha: float | None = None
    learning_rate: float = 5e-3
    batch_size: int | None = None
    max_iter: int = 1000
    tol: float = 1e-14
    quick: bool = True

    def schedule(self, value: float = RidgeSchedule.value) -> RidgeSchedule:
        """Ridge of the descent: tied to its progress, or the given one."""
        return RidgeSchedule.of(self.alpha, SMALL_RIDGE_SHARE, value)


def is_dual(network: Network, rows: Rows) -> bool:
    """Whether steps are taken in the space of the rows, which is the smaller one."""
    return network.n_parameters > rows.n_rows * rows.n_outputs


class NetworkTraining:
    """One start of one network."""

    #: `ProjectedProblem`, or another whose fits have theta, coef and value.
    problem: Any
    #: What is reported.
    loss_name = "mean square"
    #: Whether the two tries of "varpro" share their steps; of rows alone each has all of them.
    shared = False

    def __init__(
        self,
        rows: Rows,
        options: NetworkOptions,
        rng: np.random.Generator,
        report: Report | None = None,
    ):
        self.rows, self.options, self.rng, self.report = rows, options, rng, report
        self.progress = Progress()
        self.dual, self.quick = False, True
        self._pose()

    def _pose(self) -> None:
        """The projected problem with its number of residuals and the rms of its targets."""
        self.problem = self._problem()
        self.count = self.problem.total * self.problem.y.shape[1]
        self.size = self.problem.rms * math.sqrt(self.problem.y.numel() / self.count)

    def _problem(self) -> Any:
        """Columns at the rows, with targets and weights."""
        rows, options = self.rows, self.options
        self.dual = is_dual(options.network, rows) and options.solver == "varpro"
        args = (NetworkColumns(options.network, rows.X), rows.y, rows.weight)
        if self.dual:
            return DualProblem(*args, relative=True)
        return ProjectedProblem(*args, relative=True, batch_size=options.batch_size)

    def start(self) -> Tensor:
        """First parameters of the hidden layers."""
        options = self.options
        return INITIALIZATIONS[options.init](options.network, self.rng, self.rows.X)

    def run(self) -> TrainingResult:
        """Train; on Ctrl-C the best so far is inside the exception."""
        with handing_over(self._interrupted):
            getattr(self, f"_{self.options.solver}")(self.start())
        return self._result()

    def _interrupted(self) -> TrainingResult | None:
        self.progress.code = "interrupted"
        return None if self.progress.best is None else self._result()

    # Solvers

    def _show(self, iterate: Iterate) -> None:
        """Record an iterate of a descent that never goes up."""
        progress = self.progress
        progress.curve.append(iterate.loss)
        if progress.best is None or iterate.loss <= progress.best.loss:
            progress.best = iterate
        if self.report is not None:
            n = len(progress.curve)
            self.report(f"iteration {n}: {self.loss_name} {iterate.loss:.3e}")

    def _iterate(self, fit: Any, ridge: float) -> Iterate:
        loss = float(fit.residual.square().sum()) / self.count
        return Iterate(fit.theta, fit.coef, loss, ridge)

    def _gd(self, theta: Tensor) -> None:
        start = Iterate(theta, self._zero(), math.nan, self._first_ridge())
        self._follow(descend(self._descent(), start))

    def _zero(self) -> Tensor:
        """Last layer at the start: no output and no sign is preferred."""
        return self.rows.X.new_zeros((self.options.network.n_columns, self.rows.n_outputs))

    def _first_ridge(self) -> float:
        """Ridge of "gd", relative to the sum of the weights."""
        return (self.options.alpha or 0.0) ** 2

    def _lsgd(self, theta: Tensor) -> None:
        start = Iterate(theta, self._zero(), math.nan)
        schedule = self.options.schedule()
        self._follow(descend_hidden(self._descent(), start, schedule, self.size))

    def _descent(self) -> Descent:
        options = self.options
        return Descent(self.problem, options.learning_rate, options.batch_size, self.rng)

    def _follow(self, iterates) -> None:
        follow(
            iterates,
            max_iter=self.options.max_iter,
            tol=self.options.tol,
            size=self.size,
            progress=self.progress,
            report=self.report,
            loss_name=self.loss_name,
        )

    def _lbfgs(self, theta: Tensor) -> None:
        options = self.options
        self.progress.code = minimise_projected(
            self.problem,
            theta,
            max_iter=options.max_iter,
            tol=options.tol,
            ridge=options.schedule(),
            show=self._show,
        )

    def _varpro(self, theta: Tensor) -> None:
        """Levenberg-Marquardt, with ridges by evidence where that is affordable."""
        options = self.options
        by_evidence = options.alpha is None and not self.shared
        if by_evidence and is_affordable(options.network, self.rows):
            self._by_evidence(theta)
        else:
            self._by_progress(theta)

    def _by_evidence(self, theta: Tensor) -> None:
        """Climb by evidence; a network of few parameters first tries without.

        An exact fit by it needs no more. Another may be steeper than the evidence has its layers:
        steps that go on from there with no ridge on these are kept if they leave clearly less
        noise, each parameter counted as spent.
        """
        options, progress, most = self.options, self.progress, self.options.max_iter
        n = self.problem.total * self.rows.n_outputs
        spent = options.network.n_parameters + self.rows.n_outputs * options.network.n_columns
        few = spent <= MOST_SPENT * n
        if few and options.quick and most:
            schedule = options.schedule(RidgeSchedule.least)
            quick = self._steps(theta, min(QUICK_STEPS, most), schedule, determined_error)
            if quick.code == "converged" and quick.score <= EXACT * self.size:
                self._keep(quick)
                return
        before = len(progress.curve)
        result, noise = climb(
            self.rows, options.network, theta, max_iter=most, tol=options.tol, watch=self._watch
        )
        left = most - (len(progress.curve) - before)
        if few and result.code == "converged" and left > 0:
            more = self._steps(result.state.theta, left, options.schedule())
            square = float(more.state.residual.square().sum()) + float(self.rows.within.sum())
            clear = 1 - CLEARLY * math.sqrt(2 / (n - spent))
            if square / (n - spent) < clear * noise:
                result = more
        self._keep(result)

    def _steps(
        self,
        theta: Tensor,
        max_iter: int,
        ridge: RidgeSchedule,
        judge: Callable[[Any], float] = ProjectedFit.leave_one_out,
    ) -> TrainingResult:
        """Levenberg-Marquardt steps that are shown."""
        return levenberg_marquardt(
            self.problem,
            theta,
            max_iter=max_iter,
            ridge=ridge,
            tol=self.options.tol,
            judge=judge,
            watch=self._watch,
        )

    def _keep(self, result: TrainingResult) -> None:
        """Make an end the best iterate."""
        self.progress.best = self._iterate(result.state, result.chosen.get("ridge", 0.0))
        self.progress.code = result.code

    def _watch(self, fit: Any, ridge: float) -> None:
        self._show(self._iterate(fit, ridge))

    def _by_progress(self, theta: Tensor) -> None:
        """Levenberg-Marquardt, first with next to no ridge: on smooth targets that is exact.

        On steep ones the coefficients explode, and the ridge must follow the progress. Of the
        two ends the one with the smaller leave-one-out error is kept. Where steps are shared, both
        together take no more than were asked for.
        """
        options = self.options
        judge: Callable[[Any], float] = ProjectedFit.leave_one_out
        tries = [(options.schedule(), options.max_iter, judge)]
        # With more parameters than rows leave-one-out could not tell a good end from a bad one.
        if options.quick and self.quick and options.alpha is None and not self.dual:
            few = options.max_iter // 2 if self.shared else options.max_iter
            few = min(QUICK_STEPS, few)
            if few:
                quickly = judge if self.shared else determined_error
                tries.insert(0, (options.schedule(RidgeSchedule.least), few, quickly))
        ends: BestSoFar[TrainingResult] = BestSoFar()
        left = options.max_iter - len(self.progress.curve)
        for ridge, most, judge in tries:
            before = len(self.progress.curve)
            result = self._steps(theta, min(most, left), ridge, judge)
            if self.shared:
                left -= min(len(self.progress.curve) - before, most)
            ends.show(result, result.score)
            if result.code == "converged" and result.score <= EXACT * self.size:
                break
        self._keep(ends.best)

    # The result

    def _result(self) -> TrainingResult:
        progress, options = self.progress, self.options
        if progress.best is None:
            raise FloatingPointError("The first evaluation of the network is not finite.")
        state, score, alpha = self._finish(progress.best)
        messages = {
            "max_iter": f"solver={options.solver!r} used all max_iter={options.max_iter} "
            f"iterations; {self._reached(progress.best.loss)}. Raise max_iter or tol.",
            "non_finite": f"The loss of solver={options.solver!r} became non-finite after "
            f"{len(progress.curve)} iterations; the best parameters before are kept. Lower "
            "learning_rate, or take another init.",
            "interrupted": "The best parameters so far are kept.",
        }
        code = progress.code
        chosen = {"alpha": alpha, "hidden_layer_sizes": options.network.hidden_layer_sizes}
        return TrainingResult(
            state,
            score,
            max(len(progress.curve), 1),
            progress.curve,
            code,
            messages.get(code, ""),
            chosen,
        )

    def _reached(self, loss: float) -> str:
        """What a loss is, in words."""
        return f"the mean square of the residual is {loss:.2e} of that of y"

    def _finish(self, best: Iterate) -> tuple[Any, float, float]:
        """Linear model, its score and the ridge of its coefficients."""
        rows, options = self.rows, self.options
        basis = NetworkBasis(options.network, best.theta)
        A = basis.matrix(rows.X) * self.problem.root
        largest = float(A.square().sum(0).max()) or 1.0
        ridges = [math.sqrt(best.ridge * (self.problem.unit or largest) / largest)]
        if options.alpha is not None:
            ridges = [options.alpha]
        factor = triangular_factor(torch.cat([A, self.problem.y], 1))
        if options.alpha is None:
            floor = torch.finfo(A.dtype).eps * self.size
            total = rows.weight.sum()[None]
            evident = evidence_ridge(factor[None], A.shape[1], total, floor)[0]
            ridges = [evident] if options.solver == "gd" else [*ridges, evident]
        fits = [self._coefficients(factor, A, best, alpha) for alpha in ridges]
        return min(fits, key=lambda fit: fit[1])

    def _coefficients(self, factor: Tensor, A: Tensor, best: Iterate, alpha: float):
        """Coefficients for a ridge, their posterior, and the leave-one-out error for a score."""
        rows, p = self.rows, A.shape[1]
        eps = torch.finfo(A.dtype).eps
        unit = float(A.square().sum(0).max().sqrt()) or 1.0
        below = factor.new_zeros((p, factor.shape[1]))
        below.diagonal().fill_(max(alpha, eps) * unit)
        R, projected, _ = split_factor(triangular_factor(torch.cat([factor, below])), p)
        coef = best.coef
        if self.options.solver != "gd":
            small = factor.new_zeros((p, factor.shape[1]))
            small.diagonal().fill_(alpha * unit)
            solved = split_factor(triangular_factor(torch.cat([factor, small])), p)
            coef = back_substitute(solved[0], solved[1])
            if not bool(torch.isfinite(coef).all()):
                coef = back_substitute(R, projected)
        residual = A @ coef - self.problem.y
        # Leverages from an orthogonal factor: A R^-1 loses them where R is close to singular.
        eye = torch.eye(p, dtype=A.dtype, device=A.device)
        Q = torch.linalg.qr(torch.cat([A, max(alpha, eps) * unit * eye])).Q[: len(A)]
        left = (1 - Q.square().sum(1)).clamp_min(LEAST_LEFT)[:, None]
        if self.options.solver == "gd":
            left = torch.ones_like(left)  # Coefficients that no solve has fitted to the rows
        within = rows.within.sum(0)
        left_out = ((residual / left).square().sum(0) + within) / rows.weight.sum()
        score = float(left_out.mean())
        dof = float(effective_parameters(factor[:p, :p], R))
        noise = self._noise(residual, within, dof, left_out)
        stage = Stage(NetworkBasis(self.options.network, best.theta), coef, R)
        model = model_of_stages((stage,), noise, rows.X, rows.weight)
        return model, math.sqrt(score), alpha

    def _noise(self, residual: Tensor, within: Tensor, dof: float, left_out: Tensor) -> Tensor:
        """Variance (m,) of the residual; parameters count where the rows can carry them.

        Where they outnumber half of the rows the residual says nothing about noise, and the mean
        square of leave-one-out errors stands for it.
        """
        n = self.problem.total
        # Without a column that varies the hidden layers have nothing to fit with.
        hidden = self.options.network.n_parameters if self.rows.n_features else 0
        square = residual.square().sum(0) + within
        if n - dof - hidden >= n / 2:
            return square / (n - dof - hidden)
        return torch.maximum(square / free_rows(n, dof), left_out)


def fit_network(
    rows: Rows,
    options: NetworkOptions,
    rng: np.random.Generator,
    report: Report | None = None,
) -> TrainingResult:
    """Train a network of a given size.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units, at least one.
    rng : numpy.random.Generator
        Source of the start and of the minibatches.

    Returns
    -------
    TrainingResult
        Its state is a `LinearModel`, its score a leave-one-out error over distinct rows, its
        curve the mean square of the residual.
    """
    return NetworkTraining(rows, options, rng, report).run()
