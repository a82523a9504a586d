"""The recipe of the papers: one network a stage, trained on what the stages before left over."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import free_rows, triangular_factor
from skpou.core.models import Stage, model_of_stages
from skpou.multi_stage.joint_descent import JointDescent
from skpou.multi_stage.options import MultiStageOptions
from skpou.multi_stage.periodogram import dominant_frequency
from skpou.networks import Network, NetworkBasis, glorot
from skpou.search import HALF, neighbour_correlation, white_correlation

#: Adam's step in stages of "adam_lbfgs": its authors' default (Kingma and Ba 2015).
LEARNING_RATE = 1e-3
#: Cosine of the angle between a column and a target that is round-off.
ORTHOGONAL = 1e-10
#: Error relative to the rms of y that further stages cannot lower: about round-off.
LEAST_TOL = 1e-15


def scaled_start(network: Network, factor: float, rng: np.random.Generator, X: Tensor) -> Tensor:
    """Glorot's weights for points from -1 to 1, the first layer times the scale factor."""
    theta = glorot(network, rng, X)
    weight, bias = network.unflatten(theta)[0]
    bias.copy_(factor * (bias - weight.sum(1)))
    weight.mul_(2 * factor)
    return theta


def sees(columns: Tensor, target: Tensor) -> bool:
    """Whether any of the columns (n, p) is not orthogonal to the target (n, m).

    Without biases all units are odd about the middle of the box, and see nothing of what is even:
    no gradient would ever tell.
    """
    inner = (columns.T @ target).abs()
    size = columns.norm(dim=0)[:, None] * target.norm(dim=0)
    return bool((inner > ORTHOGONAL * size).any()) or not float(size.max())


def scattered(network: Network, theta: Tensor, rng: np.random.Generator) -> Tensor:
    """A start whose first units are zero at random points of the box, not in its middle."""
    theta = theta.clone()
    weight, bias = network.unflatten(theta)[0]
    moved = torch.as_tensor(rng.random(weight.shape), dtype=theta.dtype, device=theta.device)
    bias.copy_(-(weight * moved).sum(1))
    return theta


class RecipeTraining:
    """The papers' stages: Adam and L-BFGS on networks for ever smaller residues."""

    def __init__(
        self,
        rows: Rows,
        options: MultiStageOptions,
        rng: np.random.Generator,
        report: Report | None = None,
    ):
        self.rows, self.options, self.rng, self.report = rows, options, rng, report
        self.residue = rows.y
        self.stages: list[Stage] = []
        self.scale_factors: list[float] = []
        self.curve: list[float] = []
        self.finite = True

    def run(self) -> TrainingResult:
        """Train; on Ctrl-C the stages so far are inside the exception."""
        with handing_over(lambda: self._result("interrupted") if self.stages else None):
            for index in range(self.options.most):
                if not self._add_stage(index):
                    break
        if not self.finite:
            return self._result("non_finite")
        asked = self.options.n_stages == len(self.stages)
        done = asked or self._exact() or self._is_white()
        return self._result("converged" if done else "max_iter")

    def _rms(self, values: Tensor) -> float:
        """Eqs. 3 and 5 over all targets."""
        weight = self.rows.weight
        return math.sqrt(float((weight @ values.square()).mean()) / self.rows.total_weight)

    def _exact(self) -> bool:
        return self._rms(self.residue) <= max(self.options.tol, LEAST_TOL) * self._rms(self.rows.y)

    def _is_white(self) -> bool:
        """Whether neither neighbours nor a frequency tell the residue from noise."""
        rows = self.rows
        correlation = neighbour_correlation(rows.X, self.residue)
        peak = dominant_frequency(rows.X, self.residue, rows.weight)
        return abs(correlation) < white_correlation(rows.n_rows) and not peak.is_signal

    def _add_stage(self, index: int) -> bool:
        """Fit the residue by one more network; False where nothing is left or gained."""
        if index and (self._exact() or self._is_white()):
            return False
        size = self._rms(self.residue)
        if size == 0 and index:
            return False
        rows = replace(self.rows, y=self.residue / (size or 1.0))
        network, factor = self._network(index)
        theta = scaled_start(network, factor, self.rng, rows.X)
        if not sees(NetworkBasis(network, theta).matrix(rows.X), rows.weight[:, None] * rows.y):
            theta = scattered(network, theta, self.rng)
        # The last layer starts at zero: no output and no sign is preferred.
        coef = rows.X.new_zeros((network.n_columns, rows.n_outputs))
        descent = JointDescent(network, rows, theta, coef, factor, self.report)
        try:
            descent.adam(self.options.max_iter, LEARNING_RATE)
            descent.lbfgs(self.options.max_iter, min(self.options.tol / (size or 1.0), 1.0))
        finally:
            self.finite = self.finite and descent.best.finite
            self.curve += [size**2 * loss for loss in descent.best.curve]
            kept = self._keep(network, descent, size, factor, not index)
        return kept

    def _keep(
        self, network: Network, descent: JointDescent, size: float, factor: float, first: bool
    ) -> bool:
        """Add the trained network to the sum (Eq. 7), unless it gained too little."""
        if not math.isfinite(descent.least):
            # Without any evaluation it was Ctrl-C that ended the descent.
            if first and descent.best.curve:
                raise FloatingPointError("The first evaluation of the network is not finite.")
            return False
        basis = NetworkBasis(network, descent.best.theta)
        coef = (size or 1.0) * descent.best.coef
        residue = self.residue - basis.evaluate(self.rows.X, coef)  # Eq. 6
        if not first and self._rms(residue) > HALF * size:
            return False
        A = basis.matrix(self.rows.X) * self.rows.weight.sqrt()[:, None]
        unit = float(A.square().sum(0).max().sqrt()) or 1.0
        size = torch.finfo(A.dtype).eps * unit
        ridge = size * torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
        self.stages.append(Stage(basis, coef, triangular_factor(torch.cat([A, ridge]))))
        self.scale_factors.append(factor)
        self.residue = residue
        return True

    def _network(self, index: int) -> tuple[Network, float]:
        """Network of a stage and its scale factor: 2 pi times the residue's frequency."""
        network = self.options.given_network
        if not index:
            return network, 1.0
        factor = self.options.scale_factor
        if factor is None:
            peak = dominant_frequency(self.rows.X, self.residue, self.rows.weight)
            factor = max(2 * math.pi * float(peak.frequency.norm()), 1.0)
        return replace(network, first_activation="sin"), factor

    def _result(self, code: str) -> TrainingResult:
        rows, options = self.rows, self.options
        within, n = rows.within.sum(0), rows.total_weight
        square = rows.weight @ self.residue.square() + within
        # Without a column that varies the hidden layers have nothing to fit with.
        used = self.stages if rows.n_features else []
        hidden = sum(stage.basis.network.n_parameters for stage in used)  # type: ignore[attr-defined]
        dof = sum(stage.basis.n_columns for stage in used) + hidden
        left = n - dof
        noise = square / (left if left >= n / 2 else free_rows(n, dof))
        model = model_of_stages(tuple(self.stages), noise, rows.X, rows.weight)
        rms = self._rms(self.residue)
        messages = {
            "max_iter": f"solver='adam_lbfgs' stopped after {len(self.stages)} stages with a "
            f"residual of {rms / (self._rms(rows.y) or 1.0):.1e} times the rms of y, which is "
            "neither noise nor below tol. Raise n_stages, max_iter or tol.",
            "non_finite": "The loss of solver='adam_lbfgs' became non-finite; the best parameters "
            "before are kept. Lower scale_factor.",
            "interrupted": "The best parameters so far are kept.",
        }
        chosen = {
            "alpha": 0.0,
            "hidden_layer_sizes": options.network.hidden_layer_sizes,  # type: ignore[union-attr]
            "scale_factors": tuple(self.scale_factors),
        }
        n_iter = max(len(self.curve), 1)
        return TrainingResult(model, rms, n_iter, self.curve, code, messages.get(code, ""), chosen)
