"""Levenberg-Marquardt steps for more parameters than rows, without a Jacobian.

With k parameters and n rows, k > n, the damped step ``-(J'J + mu I)^-1 J'r`` equals
``-J'(JJ' + mu I)^-1 r``: an n by n system, a Gram matrix and one back-propagation. Any
`ParametricBasis` with `gram` and `gradient` will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skpou.core import ParametricBasis
from skpou.core.optim import LinearModel, ProjectedFit, ProjectedProblem

NEEDED = ("gram", "gradient")
#: Factor of the damping where the Gram matrix is indefinite.
MORE_DAMPING = 10


@dataclass
class GramModel:
    """Linear model by the Gram matrix of the projected Jacobian.

    Attributes
    ----------
    gram : Tensor of shape (N, N)
        ``P J J' P`` over the rows of all targets and of the ridge.
    residual : Tensor of shape (N,)
        Projected residual.
    pull : callable
        Maps v (N,) to ``J' P v`` (k,).
    """

    gram: Tensor
    residual: Tensor
    pull: Callable[[Tensor], Tensor]

    def is_finite(self) -> bool:
        """Whether a step can be computed."""
        return bool(torch.isfinite(self.gram).all())

    def step(self, damping: float) -> tuple[Tensor, float]:
        """Damped step; its damping is relative to the largest squared row norm of J."""
        scale = float(self.gram.diagonal().max())
        if scale <= 0:
            return 0 * self.pull(self.residual), 0.0
        eye = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        while True:
            mu = damping * scale
            L, failed = torch.linalg.cholesky_ex(self.gram + mu * eye)
            if not int(failed):
                break
            damping *= MORE_DAMPING  # Round-off has made the Gram matrix indefinite.
        v = torch.cholesky_solve(self.residual[:, None], L).squeeze(1)
        # The linear model leaves r - J J' v = mu v.
        left = (mu * v).square().sum()
        return -self.pull(v), float(self.residual.square().sum() - left)


class DualProblem(ProjectedProblem):
    """`ProjectedProblem` with steps in the space of the rows.

    Parameters are those of `ProjectedProblem`, without a weight for theta.

    Raises
    ------
    TypeError
        If the basis cannot form Gram matrices.
    """

    def __init__(self, basis: ParametricBasis, y: Tensor, weight: Tensor, **options):
        lacking = [name for name in NEEDED if not hasattr(basis, name)]
        if lacking:
            raise TypeError(
                f"Dual Levenberg-Marquardt needs {' and '.join(lacking)} of its basis, which "
                f"{type(basis).__name__} lacks."
            )
        super().__init__(basis, y, weight, **options)

    def linearise(self, fit: ProjectedFit) -> LinearModel:
        """Linear model with the residuals of the rows, then those of the ridge, target by target.

        P projects off the orthogonal factor Q of ``[A; s I]``, for each target alike.
        """
        basis: Any = self.basis  # one that has what is `NEEDED`
        (n, m), p = fit.residual.shape, fit.A.shape[1]
        eye = torch.eye(p, dtype=fit.A.dtype, device=fit.A.device)
        Q = torch.linalg.qr(torch.cat([fit.A, fit.strength * eye])).Q

        def project(v: Tensor) -> Tensor:
            return v - torch.einsum("ip,pj...->ij...", Q, torch.einsum("ip,ij...->pj...", Q, v))

        root = self.root.expand(n, m).reshape(-1)
        gram = basis.gram(fit.theta, fit.coef) * root[:, None] * root
        full = gram.new_zeros((n + p, m, n + p, m))
        full[:n, :, :n, :] = gram.reshape(n, m, n, m)
        full = project(full.reshape(n + p, m, -1)).reshape(-1, n + p, m)
        full = project(full.permute(1, 2, 0)).reshape((n + p) * m, -1)
        residual = torch.cat([fit.residual, fit.strength * fit.coef])
        residual = project(residual).reshape(-1)

        def pull(v: Tensor) -> Tensor:
            rows = project(v.reshape(n + p, m))[:n] * self.root
            return basis.gradient(fit.theta, fit.coef, rows)

        return GramModel((full + full.T) / 2, residual, pull)
