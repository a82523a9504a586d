"""One level of soft partitions, of any gates: variable projection, or two-phase LSGD.

Source: Lee, Trask, Patel, Gulian, Cyr (2021), "Partition of unity networks: deep
hp-approximation", Algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult, handing_over
from skpou.core.optim import (
    Descent,
    Iterate,
    Progress,
    ProjectedFit,
    ProjectedProblem,
    Ridge,
    RidgeSchedule,
    descend_hidden,
    follow,
    levenberg_marquardt,
)
from skpou.networks import NetworkBasis, NetworkColumns
from skpou.partitions.gates.products import LinearLogits, NetworkLogits, PartitionPolynomials
from skpou.partitions.gates.steps import gates_from_tree, random_gates
from skpou.partitions.gates.tree import GateForm, GateLevel, NetworkForm, PartitionTree
from skpou.partitions.mixtures.experts import fit_level_experts
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.pieces.spaces import POLYNOMIAL


@dataclass(frozen=True)
class SoftOptions:
    """How soft partitions are trained.

    Parameters
    ----------
    n_partitions : int
        Number N of partitions, at least 1.
    solver : {"varpro", "lsgd"}
        Levenberg-Marquardt on the projected loss, or Algorithm 2.
    alpha : float, default=None
        Ridge relative to a constant column: all along for ``"varpro"``, that of the start for
        ``"lsgd"``. None: tied to progress, or 0.3.
    alpha_decay : float, default=0.5
        Factor rho of the squared ridge in phase 1.
    patience : int, default=50
        Steps n_stag without a smaller loss after which the ridge decays.
    learning_rate : float, default=5e-3
        Adam's step.
    pre_iter : int, default=None
        Steps of phase 1, at most; None: half of all.
    max_iter : int, default=1000
        Most steps.
    tol : float, default=1e-14
        Relative rms residual at which to stop.
    space : str, default="polynomial"
        Space of the experts.
    """

    n_partitions: int
    degree: int
    form: GateForm | NetworkForm = field(default_factory=GateForm)
    solver: str = "varpro"
    alpha: float | None = None
    alpha_decay: float = 0.5
    patience: int = 50
    learning_rate: float = 5e-3
    pre_iter: int | None = None
    max_iter: int = 1000
    tol: float = 1e-14
    space: str = POLYNOMIAL

    #: Ridge at the start of phase 1 when none is given.
    first_alpha = 0.3


@dataclass
class StagnationRidge:
    """Ridge of phase 1: it decays each time the residual has stopped falling.

    Attributes
    ----------
    value : float
        Squared ridge lambda.
    decay : float
        Factor rho.
    patience : int
        Steps n_stag.
    """

    value: float
    decay: float
    patience: int
    least: float = math.inf
    waited: int = 0

    def follow(self, relative_rms: float) -> bool:
        """Count the steps since the last smaller residual; returns whether the ridge changed."""
        if relative_rms < self.least:
            self.least, self.waited = relative_rms, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        # With a smaller ridge the residual starts from another place.
        self.value *= self.decay
        self.least, self.waited = math.inf, 0
        return True


def logit_columns(gate: GateLevel, X: Tensor) -> tuple[LinearLogits | NetworkLogits, Tensor]:
    """Logits of a first level at some points, and their parameters as one vector."""
    if gate.network is None:
        features = gate.basis(X.shape[1]).matrix(X)
        return LinearLogits(features, gate.n_partitions), gate.theta.reshape(-1)
    columns = NetworkColumns(gate.network.network, X)
    theta = torch.cat([gate.network.theta.reshape(-1), gate.theta.reshape(-1)])
    return NetworkLogits(columns, gate.n_partitions), theta


def gate_with(gate: GateLevel, logits: LinearLogits | NetworkLogits, theta: Tensor) -> GateLevel:
    """The same gates with other parameters."""
    if isinstance(logits, LinearLogits):
        linear = theta.reshape(gate.n_partitions, -1).clone()
        return GateLevel(gate.parent, linear, gate.degree, isotropic=gate.isotropic)
    hidden, outputs = logits.split(theta)
    network = NetworkBasis(logits.columns.network, hidden[None].clone())
    return GateLevel(gate.parent, outputs.clone(), gate.degree, network=network)


class _Training:
    """One start."""

    def __init__(self, rows: Rows, options: SoftOptions, gate: GateLevel, report: Report | None):
        self.rows, self.options, self.gate, self.report = rows, options, gate, report
        self.problem = PieceProblem(rows, options.degree, tol=options.tol, space=options.space)
        self.logits, self.start = logit_columns(gate, rows.X)
        basis = PartitionPolynomials(self.problem.polynomials, [self.logits], [gate.parent])
        self.projected = ProjectedProblem(basis, rows.y, rows.weight)
        self.count = self.projected.total * rows.n_outputs
        self.size = self.projected.rms * math.sqrt(self.projected.y.numel() / self.count)
        self.progress = Progress()

    def run(self, rng: np.random.Generator) -> TrainingResult:
        with handing_over(self._interrupted):
            getattr(self, f"_{self.options.solver}")(rng)
        return self._result()

    def _interrupted(self) -> TrainingResult | None:
        self.progress.code = "interrupted"
        return None if self.progress.best is None else self._result()

    def _watch(self, fit: ProjectedFit, ridge: float) -> None:
        loss = float(fit.residual.square().sum()) / self.count
        self.progress.curve.append(loss)
        if self.progress.best is None or loss < self.progress.best.loss:
            self.progress.best = Iterate(fit.theta, fit.coef, loss, ridge)
        if self.report is not None:
            self.report(f"step {len(self.progress.curve)}: mean square {loss:.3e}")

    def _varpro(self, rng: np.random.Generator) -> None:
        options = self.options
        result = levenberg_marquardt(
            self.projected,
            self.start,
            max_iter=options.max_iter,
            ridge=RidgeSchedule.of(options.alpha),
            tol=options.tol,
            watch=self._watch,
        )
        fit = result.state
        loss = float(fit.residual.square().sum()) / self.count
        self.progress.best = Iterate(fit.theta, fit.coef, loss)
        self.progress.code = result.code

    def _lsgd(self, rng: np.random.Generator) -> None:
        """Algorithm 2: with a ridge that decays, then without one."""
        options, theta = self.options, self.start
        first = options.first_alpha if options.alpha is None else options.alpha
        n_first = options.max_iter // 2 if options.pre_iter is None else options.pre_iter
        n_first = n_first if first else 0
        if n_first:
            self._descend(
                theta,
                StagnationRidge(first**2, options.alpha_decay, options.patience),
                n_first,
                rng,
            )
            if self.progress.best is None:
                return
            theta = self.progress.best.theta
            if n_first == options.max_iter:
                return
            # Without the ridge the same gates leave no larger residual.
            self.progress = Progress(self.progress.best, self.progress.curve)
        least = torch.finfo(theta.dtype).eps ** 2
        self._descend(theta, RidgeSchedule(least, least=least), options.max_iter - n_first, rng)

    def _descend(self, theta: Tensor, ridge: Ridge, n_steps: int, rng: np.random.Generator) -> None:
        options, m = self.options, self.rows.n_outputs
        start = Iterate(theta, theta.new_zeros((self.projected.basis.n_columns, m)), math.nan)
        state = Descent(self.projected, options.learning_rate, None, rng)
        follow(
            descend_hidden(state, start, ridge, self.size),
            max_iter=n_steps,
            tol=options.tol,
            size=self.size,
            progress=self.progress,
            report=self.report,
        )

    def _spent(self) -> float:
        """Factor of the noise for the freedom that the gates' parameters have taken."""
        n, k = float(self.problem.n), self.projected.basis.n_parameters
        return n / (n - k) if 2 * k < n else 1.0

    def _result(self) -> TrainingResult:
        options, best = self.options, self.progress.best
        if best is None:
            raise FloatingPointError("The first evaluation of the partitions is not finite.")
        tree = PartitionTree(self.problem.d, [gate_with(self.gate, self.logits, best.theta)])
        labels = torch.zeros(self.problem.n, dtype=torch.int64, device=self.rows.X.device)
        given = options.alpha if options.solver == "varpro" else None
        experts, alpha = fit_level_experts(self.problem, tree, labels, 0, given)
        experts[-1].noise *= self._spent()
        curve = self.progress.curve
        messages = {
            "max_iter": f"solver={options.solver!r} used all max_iter={options.max_iter} steps; "
            f"the mean square of the residual is {best.loss:.2e} of that of y. Raise max_iter "
            "or tol.",
            "non_finite": f"The loss became non-finite after {len(curve)} steps; the best "
            "partitions before are kept. Take another init or a larger alpha.",
            "interrupted": "The best partitions found so far are kept.",
        }
        code = self.progress.code
        return TrainingResult(
            state=Mixture(tree, experts, self.problem.degree, 0, self.problem.space),
            score=best.loss,
            n_iter=max(len(curve), 1),
            curve=curve or [best.loss],
            code=code,
            message=messages.get(code, ""),
            chosen={"degree": self.problem.degree, "alpha": alpha, "gate": options.form},
        )


def fit_soft_partitions(
    rows: Rows,
    options: SoftOptions,
    rng: np.random.Generator,
    start: PartitionTree | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Train gates and polynomials of one level together.

    Parameters
    ----------
    start : PartitionTree, default=None
        Tree of one level to start from, see `gates_from_tree`; None: random gates.

    Returns
    -------
    TrainingResult
        Its state is a `Mixture` of a single blend; score and curve are the weighted mean square
        of the residual.
    """
    if start is None:
        gates = random_gates(options.form, (options.n_partitions,), rows.X, rng)
    else:
        gates = gates_from_tree(options.form, start, rows.X, rows.weight, rng)
    return _Training(rows, options, gates[0], report).run(rng)
