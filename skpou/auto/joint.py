"""What the members' mixture says of several points together: covariances, draws, densities.

A member is right at all points or at none: each summand of the mixture is a density of all targets
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.auto.claims import is_calibrated
from skpou.auto.members import names_of, takes
from skpou.auto.predictive import MemberDensity, Part, StackedDensity, sum_of
from skpou.base import BaseRegressor, check_joint, check_n_samples, drawing_generator, sections_of
from skpou.core import SEEDS, Scaling
from skpou.core.models import joint_log_density, standard_draws

#: Matrices of all pairs of points that are held at a time beside those of the members, for each
#: target.
MATRICES = 6


@dataclass(frozen=True)
class JointPart:
    """One summand of the mixture at all points together.

    Attributes
    ----------
    mean : Tensor of shape (n, m)
    covariance : Tensor of shape (n, n, m)
        Of targets with noise; outputs are independent.
    member : MemberDensity or None
        Who draws the targets, where the density is the member's own; None: it is Gaussian.
    """

    weight: float
    mean: Tensor
    covariance: Tensor
    member: MemberDensity | None = None

    def sample(self, n_samples: int, rng: np.random.Generator) -> Tensor:
        """Draws (n, s, m) of all targets."""
        if self.member is not None:
            return self.member.sample(n_samples, int(rng.integers(SEEDS)), joint=True)
        n, m = self.mean.shape
        normal = torch.as_tensor(rng.standard_normal((m, n, n_samples)), device="cpu")
        std = self.covariance.diagonal().clamp_min(0).sqrt()
        pairs = zip(self.covariance.unbind(2), normal, std, strict=True)
        draws = [own[:, None] * standard_draws(matrix, z) for matrix, z, own in pairs]
        return self.mean[:, None] + torch.stack(draws, 2)

    def log_density(self, y: Tensor) -> float:
        """Logarithm of the density of targets y (n, m), Gaussian by the covariance."""
        errors = (y - self.mean).unbind(1)
        each = zip(self.covariance.unbind(2), errors, strict=True)
        return sum(joint_log_density(*of_target) for of_target in each)


def joint_parts(density: StackedDensity) -> list[JointPart]:
    """The summands of a mixture, at all its points together; the last one may be the doubt."""
    known: dict[int, tuple[Tensor, Tensor]] = {}
    result = []
    for part in density.parts:
        number = id(part.member)
        if number not in known:
            known[number] = part.member.covariance()
        mean, covariance = known[number]
        draws = part.is_own and takes(part.member.estimator.sample_y, "joint")
        member = part.member if draws else None
        result.append(JointPart(part.weight, mean, part.factor**2 * covariance, member))
    if density.doubt is not None:
        covariance = _covariance_of_doubt(density, density.doubt)
        result.append(JointPart(density.doubt.weight, density.center, covariance))
    return result


def _covariance_of_doubt(density: StackedDensity, doubt: Part) -> Tensor:
    """Covariances (n, n, m) of the doubt: its errors go together as those of the doubter do.

    Of one without covariances the distance from the stack alone is common to all points.
    """
    if takes(doubt.member.estimator.predict, "return_cov", or_any=True):
        mean, covariance = doubt.member.covariance()
    else:
        mean, std = doubt.member.moments()
        covariance = std.square().T.diag_embed().permute(1, 2, 0)
    apart = mean - density.center
    covariance = covariance + apart[:, None] * apart
    deviation = covariance.diagonal().T.clamp_min(torch.finfo(covariance.dtype).tiny).sqrt()
    variance, noise = doubt.std.square(), torch.zeros_like(doubt.std)
    if all(is_calibrated(part.member.estimator) for part in density.parts):
        # The noise is there in any case, and no two points have it in common.
        noise = noise_of(replace(density, doubt=None)) / (1 - doubt.weight)
    root = (variance - noise).clamp_min(0).sqrt()
    ratio = root / deviation
    result = covariance * ratio[:, None] * ratio
    result.diagonal().add_((variance - root.square()).T)
    return result


def noise_of(density: StackedDensity) -> Tensor:
    """Variance (n, m) by noise."""
    return replace(density, kind="epistemic").variances()[0]


def covariance_of(parts: list[JointPart], center: Tensor) -> Tensor:
    """Covariances (n, n, m) of the mixture about its mean, with the disagreement."""

    def about_center(part: JointPart) -> Tensor:
        apart = part.mean - center
        return part.weight * (part.covariance + apart[:, None] * apart)

    return sum_of(about_center(part) for part in parts)


class JointOfMembers(BaseRegressor):
    """Joint predictions of a regressor that mixes members."""

    estimators_: list[Any]
    _check_parts: Callable[..., None]

    def _check_joint(self, points: Tensor, scaling: Scaling, what: str) -> None:
        """Refuse members without covariances, and what memory does not hold."""
        members = self.estimators_
        for member, name in zip(members, names_of(members), strict=True):
            if not takes(member.predict, "return_cov", or_any=True):
                raise ValueError(
                    f"{what} needs members with predict(X, return_cov=True), which {name} has not."
                )
        n_matrices = (MATRICES + len(members) + 1) * len(scaling.scale)
        self._check_matrices(n_matrices, len(points), what)

    def _mixture(self, points: Tensor) -> StackedDensity:
        density: Any = self._model(points).components(points)
        return density

    def _joint_moments(
        self, points: Tensor, with_noise: bool, view: Callable[[Any], Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        if not with_noise:
            self._check_parts(points)
        density = self._mixture(points)
        covariance = covariance_of(joint_parts(density), density.center)
        if not with_noise:
            covariance.diagonal().sub_(noise_of(density).T)
        return density.center, covariance

    def _joint_log_density(self, points: Tensor, scaling: Scaling, targets: Tensor) -> float:
        self._check_joint(points, scaling, "joint=True")
        parts = joint_parts(self._mixture(points))
        logs = [math.log(part.weight) + part.log_density(targets) for part in parts]
        return float(np.logaddexp.reduce(logs))

    @sections_of(BaseRegressor.sample_y)
    def sample_y(self, X, n_samples=1, random_state=0, *, joint=False) -> Any:
        """Draw targets from the predictive density: by a member, drawn with its weight.

        Each point has its own member, or with `joint` each draw.
        """
        check_n_samples(n_samples)
        check_joint(joint)
        points, scaling, origin = self._query(X)
        rng = drawing_generator(random_state)
        density = self._mixture(points)
        if joint:
            self._check_joint(points, scaling, "joint=True")
            draws = _joint_draws(joint_parts(density), int(n_samples), rng)
        else:
            draws = density.sample(int(n_samples), rng)
        return self._leave(scaling.original_targets(draws), origin)


def _joint_draws(parts: list[JointPart], n_samples: int, rng: np.random.Generator) -> Tensor:
    """Draws (n, s, m) of all targets: for each a member, then the targets by this member."""
    weight = np.array([part.weight for part in parts])
    pick = rng.choice(len(parts), size=n_samples, p=weight / weight.sum())
    n, m = parts[0].mean.shape
    result = parts[0].mean.new_empty((n, n_samples, m))
    for number in np.unique(pick):
        some = torch.as_tensor(np.flatnonzero(pick == number), device="cpu")
        result[:, some] = parts[number].sample(len(some), rng)
    return result
