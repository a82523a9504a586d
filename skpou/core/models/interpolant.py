"""A Gaussian process in place of a fit of few rows, where it predicts left-out rows far better.

Few rows do not tell a form: what a search finds may be exact at the rows and off between them. A
process with a smooth kernel has no form to find, and its lengths are those of largest evidence
[1]_, Chapter 5, of three kernels: of functions that are as smooth as any, of such as have poles
beside the real axis, and of such as have two derivatives.

References
----------
.. [1] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
   (2006).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core.models.components import Components
from skpou.core.models.end_tangents import EndTangents
from skpou.core.models.form_error import FormError
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.likely_kernels import correlation, stretched
from skpou.core.models.local_size import LocalSize
from skpou.core.models.with_form_error import WithFormError

#: Numbers held for each point and row: distances, kernels and slopes of them, and their products.
NUMBERS_A_ROW = 6


@dataclass(frozen=True)
class Interpolant:
    """Gaussian processes of some targets (m of them), each with kernels of its own (M in all).

    A target's prediction is that of the first of its kernels, the likeliest, and what those of the
    others differ from it by is a part of its variance, by their shares.

    Attributes
    ----------
    points : Tensor of shape (k, d)
        Rows in scaled units.
    weight : Tensor of shape (k,)
        Their noise is divided by it.
    kinds : Tensor of shape (M,)
        0 for the Gaussian kernel, 1 for Matern's with two derivatives, 2 for the rational one.
    stretches : Tensor of shape (M, d)
        By how much ends of the box are drawn out along each column, see `stretched`.
    rates : Tensor of shape (M, d)
        Reciprocals of the lengths.
    variances : Tensor of shape (M, 4)
        Of constant, line, process and noise.
    centre : Tensor of shape (d,)
        Where the line is zero.
    intercept : Tensor of shape (M,)
        Mean of the targets.
    coef : Tensor of shape (k, M)
        Weights of the kernel's values.
    targets : Tensor of shape (m,)
        Which of the outputs they predict, in order.
    shares : Tensor of shape (M, m)
        What each kernel counts in the variance of each target.
    forms : tuple of FormError
        What errors at left-out rows add to the variances, for each target.
    sizes : tuple of LocalSize or None
        Factor of the variances for each target; None: one everywhere.
    tangents : tuple of EndTangents or None
        Where each target goes on straight beyond the box; None, and no entry at all: nowhere.
    """

    points: Tensor
    weight: Tensor
    kinds: Tensor
    stretches: Tensor
    rates: Tensor
    variances: Tensor
    centre: Tensor
    intercept: Tensor
    coef: Tensor
    targets: Tensor
    shares: Tensor
    forms: tuple[FormError, ...] = ()
    sizes: tuple[LocalSize | None, ...] = ()
    tangents: tuple[EndTangents | None, ...] = ()

    def with_those_of(self, other: Interpolant) -> Interpolant:
        """These and those of further targets at the same rows."""
        joined: dict[str, Any] = {
            name: torch.cat(
                [getattr(self, name), getattr(other, name)], -1 if name == "coef" else 0
            )
            for name in _OF_TARGETS
        }
        joined["shares"] = torch.block_diag(self.shares, other.shares)
        for name in _PER_TARGET:
            joined[name] = getattr(self, name) + getattr(other, name)
        return replace(self, **joined)

    def with_variance(self, factor: float, form: FormError) -> Interpolant:
        """That of a single target with the same mean and so many times the variance."""
        return replace(
            self, variances=factor * self.variances, coef=self.coef / factor, forms=(form,)
        )

    def predicts_all(self, n_outputs: int) -> bool:
        """Whether no output is left to another model."""
        return len(self.targets) == n_outputs

    def instead(self, values: Tensor, own: Tensor) -> Tensor:
        """Values (..., n_outputs) of all outputs, with those (..., m) of the processes in place."""
        result = values.clone()
        result[..., self.targets] = own.to(values)
        return result

    def beside(self, parts: Components, X: Tensor, posterior: bool = True) -> Components:
        """The density of all outputs at points X (n, d), with that of the processes in place."""
        own = self.bars.components(X, posterior)
        epistemic = own.epistemic.expand_as(own.mean)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            epistemic = epistemic / parts.log_pi.exp().square().sum(1)[:, None, None].to(epistemic)
        # A mixture of equal components is one of them.
        found = replace(
            parts,
            mean=self.instead(parts.mean, own.mean),
            noise=self.instead(parts.noise.expand_as(parts.mean), own.noise.expand_as(own.mean)),
            epistemic=self.instead(parts.epistemic.expand_as(parts.mean), epistemic),
        )
        if isinstance(found, IndependentComponents) and found.center is not None:
            return replace(found, center=self.instead(found.center, own.expectation()))
        return found

    @cached_property
    def _stretches(self) -> list[list[float]]:
        return self.stretches.tolist()

    def _covariance(self, X: Tensor, Z: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances (n, k), the part of the process, and minus its gradient over the step."""
        constant, of_line, of_process, _ = self.variances[target]
        rates = self.rates[target]
        X, Z = (stretched(part, self._stretches[target], torch)[0] for part in (X, Z))
        distance = torch.cdist(X * rates, Z * rates, compute_mode="donot_use_mm_for_euclid_dist")
        bent, fall = correlation(distance.square(), int(self.kinds[target]), torch)
        bent, fall = of_process * bent, of_process * fall
        centre = self._centre(target)
        line = (X - centre) @ (Z - centre).T
        return constant + of_line * line + bent, bent, fall

    def _centre(self, target: int) -> Tensor:
        """Where the line is zero, in stretched coordinates."""
        return stretched(self.centre, self._stretches[target], torch)[0]

    @cached_property
    def _first(self) -> list[int]:
        """Numbers of the first kernel of each target."""
        return (self.shares > 0).to(torch.uint8).argmax(0).tolist()

    def _of_targets(self, of_one: Callable[[int], Tensor]) -> Tensor:
        """Means by the shares of what each kernel says."""
        return self._joined(torch.stack([of_one(k) for k in range(len(self.intercept))], -1))

    def _joined(self, values: Tensor) -> Tensor:
        # The same bits in any block.
        return values if self._is_single else (values[..., None] * self.shares).sum(-2)

    @cached_property
    def _is_single(self) -> bool:
        """Whether each target has one kernel."""
        return len(self.targets) == len(self.intercept)

    def _slope(self, target: int) -> Tensor:
        """Slopes (d,) of the line in stretched coordinates."""
        points = stretched(self.points, self._stretches[target], torch)[0]
        return self.variances[target, 1] * self.coef[:, target] @ (points - self._centre(target))

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""

        def of_one(target: int, near: Tensor, step: Tensor) -> Tensor:
            rise = (self._gradients(near)[..., target] * step).sum(1)
            return self._means(near, [self._first[target]])[:, 0] + rise

        return self._beyond_ends(X, self._means(X, self._first), of_one).to(X.dtype)

    def _beyond_ends(
        self, X: Tensor, values: Tensor, of_one: Callable[[int, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Values (n, ..., m) at X with those of tangents, by their nearest points and the steps."""
        for target, tangents in enumerate(self.tangents):
            if tangents is None:
                continue
            near = tangents.nearest(X)
            beyond = torch.nonzero((near != X).any(1)).squeeze(1)
            if len(beyond):
                near, step = (part[beyond].to(self.points) for part in (near, X - near))
                values[beyond, ..., target] = of_one(target, near, step)
        return values

    def _means(self, X: Tensor, kernels: Sequence[int]) -> Tensor:
        """Values of some of the kernels, on a last axis."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            coef = self.coef[:, k]
            bent = (self._covariance(Z, self.points, k)[1] * coef).sum(1)
            at = stretched(Z, self._stretches[k], torch)[0]
            line = ((at - self._centre(k)) * self._slope(k)).sum(1)
            return self.intercept[k] + self.variances[k, 0] * coef.sum() + line + bent

        return torch.stack([of_one(k) for k in kernels], -1)

    def _apart(self, X: Tensor) -> Tensor:
        """How far (n, M, m) the values of kernels are from those of targets, times root shares."""
        means = self._means(X, range(len(self.intercept)))
        return (means[..., None] - means[:, None, self._first]) * self.shares.sqrt()

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""

        def of_one(target: int, near: Tensor, _: Tensor) -> Tensor:
            return self._gradients(near)[..., target]

        return self._beyond_ends(X, self._gradients(X), of_one).to(X.dtype)

    def _gradients(self, X: Tensor) -> Tensor:
        """The gradient as the kernels go on."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            pull = self._covariance(Z, self.points, k)[2] * self.coef[:, k]
            stretch = self._stretches[k]
            at, slope = stretched(Z, stretch, torch)
            points = stretched(self.points, stretch, torch)[0]
            inner = pull @ points - at * pull.sum(1, keepdim=True)
            return slope * (self.rates[k].square() * inner + self._slope(k))

        return torch.stack([of_one(k) for k in self._first], -1)

    @property
    def _noise(self) -> Tensor:
        return self.variances[:, -1]

    @cached_property
    def _factors(self) -> list[Tensor]:
        factors = []
        for target, noise in enumerate(self._noise):
            K = self._covariance(self.points, self.points, target)[0]
            K.diagonal().add_(noise / self.weight)
            factors.append(torch.linalg.cholesky(K))
        return factors

    def _columns(self, X: Tensor, target: int) -> Tensor:
        """Columns (k, n) whose products are what the rows take off the covariances."""
        kernel = self._covariance(X, self.points, target)[0]
        return torch.linalg.solve_triangular(self._factors[target], kernel.T, upper=False)

    def share_with_noise(self, least: float) -> float:
        """Share of the kernels of the first target whose noise has such a variance at most rows.

        Their mean noise may be that of a hardly likely one alone. What the others leave would then
        be taken for degrees of its freedom, which are none, and all the variance be that of two.
        """
        noise = self.variances[:, -1] / self.weight.median()
        return float(self.shares[noise >= least, 0].sum())

    def degrees_left(self, target: int) -> float:
        """Degrees of freedom that the process leaves to the noise."""
        own = [(torch.cholesky_inverse(f).diagonal() / self.weight).sum() for f in self._factors]
        return float(self._joined(self._noise * torch.stack(own))[target])

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values, without the noise's."""

        def of_one(target: int, near: Tensor, step: Tensor) -> Tensor:
            bent = self.tangents[target].size(step)  # type: ignore[union-attr]
            return self._variances(near)[:, target] + bent.square()

        return self._beyond_ends(X, self._variances(X), of_one)

    def _variances(self, X: Tensor) -> Tensor:
        """The variance as the kernels go on."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            constant, of_line, of_process, _ = self.variances[k]
            at = stretched(Z, self._stretches[k], torch)[0]
            prior = constant + of_process + of_line * (at - self._centre(k)).square().sum(1)
            return (prior - self._columns(Z, k).square().sum(0)).clamp_min(0)

        variance = self._of_targets(of_one)
        if not self._is_single:
            variance = variance + self._apart(Z).square().sum(1)
        return variance * self._local(Z)

    def covariance(self, X: Tensor) -> Tensor:
        """Covariance (n, n, m) of the values between points."""
        shared = self._covariances(X)
        for target, tangents in enumerate(self.tangents):
            if tangents is not None and not torch.equal(X, near := tangents.nearest(X)):
                bent = tangents.size((X - near).to(shared))
                own = self._covariances(near)[..., target]
                shared[..., target] = own + bent[:, None] * bent
        return shared

    def _covariances(self, X: Tensor) -> Tensor:
        """The covariance as the kernels go on."""
        Z = X.to(self.points)

        def of_one(k: int) -> Tensor:
            columns = self._columns(Z, k)
            return self._covariance(Z, Z, k)[0] - columns.T @ columns

        shared = self._of_targets(of_one)
        if not self._is_single:
            apart = self._apart(Z)
            shared = shared + torch.einsum("ikm,jkm->ijm", apart, apart)
        root = self._local(Z).sqrt()
        return root[:, None] * shared * root

    def _local(self, X: Tensor) -> Tensor:
        """Factors (n, m) of the variances at scaled points X (n, d)."""
        result = X.new_ones((len(X), len(self.targets)))
        for target, size in enumerate(self.sizes):
            if size is not None:
                found = size(X.detach().cpu().double().numpy())
                result[:, target] = torch.as_tensor(found, device="cpu").to(result)
        return result

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d): one Gaussian, without the error of the form."""
        mean = self.mean(X)
        epistemic = self.variance(X).to(mean) if posterior else torch.zeros_like(mean)
        noise = (self._joined(self._noise) * self._local(X)).to(mean)
        log_pi = torch.zeros_like(mean[:, :1])
        return Components(log_pi, mean[:, None], noise[:, None], epistemic[:, None])

    @cached_property
    def bars(self) -> WithFormError:
        """The same with all that is known of its errors."""
        return WithFormError(self, self.forms)

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        k, d = self.points.shape
        own = NUMBERS_A_ROW * k + (2 + d) * (1 + self.coef.shape[1])
        return own + sum(form.points.size for form in self.forms[:1])

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        tensors = {k: v for k, v in vars(self).items() if k in _TENSORS}
        state: dict[str, Any] = {k: v.cpu().contiguous().numpy() for k, v in tensors.items()}
        for name in _PER_TARGET:
            state[name] = [part and part.arrays() for part in getattr(self, name)]
        return state

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Interpolant:
        """Rebuild from `arrays`, in float64 on the device of `like`."""
        forms = tuple(FormError(**form) for form in arrays["forms"])
        # Those that were saved when each target had one kernel have no shares.
        arrays = {"shares": np.eye(len(arrays["targets"])), **arrays}
        stretches, n_features = np.asarray(arrays["stretches"]), np.shape(arrays["points"])[1]
        if stretches.ndim == 1:
            # Those that were saved when a single column could be stretched have one of a kernel.
            arrays["stretches"] = np.repeat(stretches[:, None], n_features, 1)
        tensors = {k: torch.tensor(np.asarray(arrays[k]), device=like.device) for k in _TENSORS}
        sizes = (None if size is None else LocalSize(**size) for size in arrays.get("sizes", ()))
        ends = (part and EndTangents(**part) for part in arrays.get("tangents", ()))
        return cls(**tensors, forms=forms, sizes=tuple(sizes), tangents=tuple(ends))


_PER_TARGET = "forms", "sizes", "tangents"
_TENSORS = tuple(k for k in Interpolant.__dataclass_fields__ if k not in _PER_TARGET)
_OF_TARGETS = ("kinds", "stretches", "rates", "variances", "intercept", "coef", "targets")
