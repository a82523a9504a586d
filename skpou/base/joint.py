"""What predictions at several points have in common: covariances, and draws of whole functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.base.parameters import (
    check_joint,
    check_n_samples,
    drawing_generator,
    gigabytes,
    refuse_beyond_memory,
)
from skpou.core import Scaling
from skpou.core.models import joint_log_density, standard_draws

#: Matrices of all pairs of points that are held at a time, for each target.
MATRICES = 5


class JointMixin:
    """Regressor with joint predictions where its state is a posterior of coefficients."""

    _query: Callable[..., Any]
    _unpacked_model: Callable[..., Any]
    _in_blocks: Callable[..., Any]
    _leave: Callable[..., Any]
    _result_dtype: Callable[..., Any]
    _mean_of: Callable[..., Any]
    _density_of: Callable[..., Any]
    _regular_density_of: Callable[..., Any]
    _gates_per_row: Callable[..., int]
    _target_ndim: int

    def _predict_covariance(
        self, X: Any, return_cov: bool | str, view: Callable[[Any], Any] | None
    ) -> tuple[Any, Any]:
        """Mean and covariance between points of what `view` makes of the model."""
        flag = isinstance(return_cov, bool | np.bool_)
        if not flag and not (isinstance(return_cov, str) and return_cov == "epistemic"):
            raise ValueError(f"return_cov must be False, True or 'epistemic'. Got {return_cov!r}.")
        points, scaling, origin = self._query(X)
        self._check_joint(points, scaling, "return_cov=True")
        mean, covariance = self._joint_moments(points, bool(flag), view)
        covariance = (covariance * scaling.scale.square()).to(self._result_dtype())
        if self._target_ndim == 1:
            covariance = covariance.squeeze(-1)
        return self._leave(scaling.original_targets(mean), origin), origin.send(covariance)

    def _check_joint(self, points: Tensor, scaling: Scaling, what: str) -> None:
        """Refuse covariances where the state has none, or where memory does not hold them."""
        if not hasattr(self._unpacked_model(points), "covariance"):
            raise ValueError(f"{what} needs covariances, which {type(self).__name__} has none of.")
        self._check_matrices(MATRICES * len(scaling.scale), len(points), what)

    @staticmethod
    def _check_matrices(n_matrices: int, n_points: int, what: str) -> None:
        needed = gigabytes(n_matrices * float(n_points) ** 2)
        refuse_beyond_memory(needed, f"{what} at {n_points} points", "the number of points")

    def _joint_moments(
        self, points: Tensor, with_noise: bool, view: Callable[[Any], Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean (n, m) and covariances (n, n, m), of new measurements or the mean, scaled."""
        model = self._mean_of(points, view)
        mean = self._in_blocks(points, model, lambda x, _: model.mean(x))
        model = self._regular_density_of(points, view)
        covariance = model.covariance(points)
        if with_noise:
            noise, _ = self._in_blocks(points, model, lambda x, _: model.components(x).variances())
            covariance.diagonal().add_(noise.double().T)
        return mean, covariance

    def _joint_log_density(self, points: Tensor, scaling: Scaling, targets: Tensor) -> float:
        """Logarithm of the density of targets (n, m) of all points together, in scaled units."""
        self._check_joint(points, scaling, "joint=True")
        mean, covariance = self._joint_moments(points, True)
        error = targets.double() - mean.double()
        each = zip(covariance.unbind(2), error.unbind(1), strict=True)
        return sum(joint_log_density(*of_target) for of_target in each)

    @torch.inference_mode(False)
    def sample_y(self, X, n_samples=1, random_state=0, *, joint=False) -> Any:
        """Draw targets from the predictive density.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        n_samples : int, default=1
            Draws a point.
        random_state : int, RandomState, Generator or None, default=0
            Source of the draws. None draws anew each time, from numpy's global source.
        joint : bool, default=False
            False: independently for every point. True: each draw is that of a whole function,
            with the covariance of ``predict(X, return_cov="epistemic")``, and of independent
            noise at every point. Where several pieces are possible at a point, each point draws
            its own.

        Returns
        -------
        ndarray or Tensor of shape (n, n_samples) or (n, n_outputs, n_samples)
            In units of y.

        Raises
        ------
        ValueError
            If `joint` is asked of a regressor without covariances.
        """
        check_n_samples(n_samples)
        check_joint(joint)
        points, scaling, origin = self._query(X)
        rng = drawing_generator(random_state)

        def tensor(draws: np.ndarray) -> Tensor:
            return torch.tensor(draws, dtype=points.dtype, device=points.device)

        # One axis after the other as in the first release: a seed's draws stay what they are.
        gates, m = self._gates_per_row(), len(scaling.scale)
        shape = (len(points), gates, n_samples) if gates else (len(points), n_samples)
        uniform = tensor(rng.random(shape))
        uniform = uniform.mT if gates else uniform
        normal = tensor(rng.standard_normal((len(points), m, n_samples))).mT
        model, shared = self._density_of(points), None
        if joint:
            self._check_joint(points, scaling, "joint=True")
            shared = self._shared_draws(model, points, rng.standard_normal(normal.shape))
        draws = self._in_blocks(
            points,
            model,
            lambda x, rows: model.components(x).sample(
                uniform[rows], normal[rows], None if shared is None else shared[rows]
            ),
        )
        return self._leave(scaling.original_targets(draws), origin)

    @staticmethod
    def _shared_draws(model: Any, points: Tensor, normal: np.ndarray) -> Tensor:
        """Errors (n, s, m) of the mean, of unit variance, drawn jointly for all points."""
        covariance = model.covariance(points)
        given = torch.tensor(normal, dtype=torch.float64, device=points.device)
        targets = range(normal.shape[2])
        draws = [standard_draws(covariance[..., k], given[..., k]) for k in targets]
        return torch.stack(draws, 2).to(points.dtype)
