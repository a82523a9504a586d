"""What predictions at several points have in common: covariances, and draws of whole functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from skpou.base.parameters import check_n_samples, gigabytes, random_generator, refuse_beyond_memory
from skpou.core.models import standard_draws

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

    def _refuse_joint(self, model: Any, n_points: int, n_targets: int, what: str) -> None:
        """Refuse covariances where the state has none, or where memory does not hold them."""
        if not hasattr(model, "covariance"):
            raise ValueError(
                f"{what} needs one posterior of all coefficients. {type(self).__name__} averages "
                "over several models."
            )
        needed = gigabytes(MATRICES * n_targets * float(n_points) ** 2)
        refuse_beyond_memory(needed, f"{what} at {n_points} points", "the number of points")

    def _predict_covariance(
        self, X: Any, return_cov: bool | str, view: Callable[[Any], Any] | None
    ) -> tuple[Any, Any]:
        """Mean and covariance between points of what `view` makes of the model."""
        flag = isinstance(return_cov, bool | np.bool_)
        if not flag and not (isinstance(return_cov, str) and return_cov == "epistemic"):
            raise ValueError(f"return_cov must be False, True or 'epistemic'. Got {return_cov!r}.")
        points, scaling, origin = self._query(X)
        model = self._mean_of(points, view)
        self._refuse_joint(
            self._unpacked_model(points), len(points), len(scaling.scale), "return_cov=True"
        )
        mean = self._in_blocks(points, model, lambda x, _: model.mean(x))
        model = self._regular_density_of(points, view)
        covariance = model.covariance(points)
        if flag:
            noise, _ = self._in_blocks(points, model, lambda x, _: model.components(x).variances())
            covariance.diagonal().add_(noise.double().T)
        covariance = (covariance * scaling.scale.square()).to(self._result_dtype())
        if self._target_ndim == 1:
            covariance = covariance.squeeze(-1)
        return self._leave(scaling.original_targets(mean), origin), origin.send(covariance)

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
            If `joint` is asked of a regressor that averages over several models.
        """
        check_n_samples(n_samples)
        if not isinstance(joint, bool | np.bool_):
            raise ValueError(f"joint must be False or True. Got {joint!r}.")
        points, scaling, origin = self._query(X)
        rng = random_generator(check_random_state(None) if random_state is None else random_state)

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
            self._refuse_joint(self._unpacked_model(points), len(points), m, "joint=True")
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
