"""One block over all columns: a Gaussian kernel in rotated and scaled coordinates.

Scales are those of largest evidence for a pilot, a linear function and random sine features on
some of the rows, whose gradient is exact. The coordinates are then rotated to the eigenvectors of
the mean outer product of the pilot's gradients: a function of one direction needs one scale. The
block stays only where evidence and the density of left-out rows both rise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from skpou.additive.basis import Block, Landmarks
from skpou.additive.terms import CONSTANT_VARIANCE, Candidate, Start, TermSearch
from skpou.core import SEEDS, sobol_points
from skpou.core.linalg import LARGEST_LEVERAGE, LEAST_SPREAD, gram_of, lower_inverse

#: Rows and random features of the pilot, which finds but scales and directions, and rows that are
#: landmarks.
PILOT_ROWS, PILOT_FEATURES, LANDMARK_ROWS = 500, 200, 1000
#: Columns of the block: a share of the rows within bounds.
SHARE, FEWEST, MOST = 6, 300, 500
#: Typical scale over all columns that the search starts from, in three places.
FIRST_SCALES = (0.25, 0.6, 1.4)
#: The same after a rotation, relative to the scales before.
ROTATED_SCALES = (0.5, 1.0)
#: Iterations from every start, and from the best of them.
SHORT, SHORT_ROTATED, LONG = 6, 5, 15
#: Log density a left-out row by which the pilot may be behind the terms: a block never made up for
#: more, which is errors two thirds larger.
HOPELESS = 0.5
#: Iterations of the evidence with the block.
N_ITER = 20
#: Bounds of the logarithms of scales and of the three variances.
SCALE_BOUNDS, LINE_BOUNDS, BLOCK_BOUNDS, NOISE_BOUNDS = (-6, 2), (-12, 5), (-7, 7), (-16, 1)
#: Standard deviation of the logarithms of the scales about their mean.
SCALE_SPREAD = 2.0
#: Least variance of the noise, in units of that of y: far below any that the rows can tell.
LEAST_NOISE = 1e-9
#: Mean log density of left-out rows that no pilot exceeds, by the least noise of its bounds.
MOST_DENSITY = -0.5 * math.log(2 * math.pi * (math.exp(NOISE_BOUNDS[0]) + LEAST_NOISE))
#: Rotations at most: gradients of a pilot with rotated scales turn them little more.
ROTATIONS = 2
#: Distance of the uniform numbers from 0 and 1, where the normal quantile is infinite.
OFF_THE_ENDS = 1e-6
#: Evaluations for each iteration of L-BFGS, of which one in two searches a line anew, and beside.
EVALUATIONS, MORE_EVALUATIONS = 1.5, 3
#: Variances of lines, block and noise that the pilot starts from: the target's, shared among them.
FIRST_VARIANCES = (0.3, 0.5, 0.1)
#: Mean squared gradient below which there is no direction, and the least eigenvalue of a direction
#: relative to the largest: the pilot sees no further.
NO_GRADIENT, LEAST_EIGENVALUE = 1e-20, 1e-5
#: Part of a term's variance that is left to it where the block takes over, and the least variance
#: of the block.
LEFT_TO_TERMS, LEAST_BLOCK = 1e-2, 1e-6
#: Log evidence for each scale that the block must be better by: Laplace's approximation of what a
#: well-determined scale costs; with a rotation it has half as much to choose again.
PENALTY, ROTATED_PENALTY = 1.0, 1.5


@dataclass(frozen=True)
class PilotFit:
    """Logarithms of scales and variances with their penalised evidence, in some rotation.

    Attributes
    ----------
    value : float
        Log evidence, less the penalty on unequal scales.
    theta : ndarray of shape (d + 3,)
        Logarithms of the scales and of the variances of lines, block and noise.
    rotation : Tensor of shape (d, d)
        Columns are the directions.
    """

    value: float
    theta: np.ndarray
    rotation: Tensor

    @property
    def is_rotated(self) -> bool:
        """Whether the directions are not the coordinates."""
        return not torch.equal(self.rotation, torch.ones_like(self.rotation[0]).diag())

    def scales(self) -> Tensor:
        """Rotation and scales in one, (d, d)."""
        d = len(self.rotation)
        return self.rotation * torch.tensor(np.exp(self.theta[:d]), device="cpu").to(self.rotation)


class _Columns(NamedTuple):
    """Columns F (n, p) of a pilot at some scales, with the prior variances (p,) and the noise's."""

    F: Tensor
    sine: Tensor
    cosine: Tensor
    scale: Tensor
    prior: Tensor
    noise: float


class Pilot:
    """A linear function and random sine features of scaled coordinates.

    Parameters
    ----------
    T : Tensor of shape (n, d)
        Coordinates.
    lines : Tensor of shape (n, d)
        The straight lines of the columns.
    y, weight : Tensor of shape (n,)
        Targets and frequencies.
    """

    def __init__(self, T: Tensor, lines: Tensor, y: Tensor, weight: Tensor, seed: int):
        self.T, self.y, self.weight = T, y, weight / weight.mean()
        self.fixed = torch.cat([T.new_ones((len(T), 1)), lines], 1)
        uniform = sobol_points(T.shape[1], PILOT_FEATURES // 2, seed)
        uniform = uniform.clamp(OFF_THE_ENDS, 1 - OFF_THE_ENDS)
        self.frequencies = torch.special.ndtri(uniform).to(T)

    def _columns(self, theta: np.ndarray, T: Tensor) -> _Columns:
        d = T.shape[1]
        scale = torch.tensor(np.exp(theta[:d]), device="cpu").to(T)
        line, block, noise = np.exp(theta[d:])
        angle = (T * scale) @ self.frequencies.T
        unit = math.sqrt(2 / PILOT_FEATURES)
        sine, cosine = unit * torch.sin(angle), unit * torch.cos(angle)
        F = torch.cat([self.fixed, sine, cosine], 1)
        prior = F.new_full((F.shape[1],), float(block))
        prior[: d + 1] = float(line)
        prior[0] = CONSTANT_VARIANCE
        return _Columns(F, sine, cosine, scale, prior, noise + LEAST_NOISE)

    def _posterior(self, c: _Columns) -> tuple[Tensor, float, Tensor, Tensor]:
        """Coefficients, half the log determinant, shares told by the rows, F times covariance.

        The last (n, p), over the variance of the noise, is the mean's derivative by the targets.
        """
        width = c.prior.sqrt()
        n, p = c.F.shape
        if n < p:
            # By the covariance of the targets: fewer numbers
            root = (self.weight / c.noise).sqrt()[:, None]
            G = root * c.F * width
            K = gram_of(G.T)
            K.diagonal().add_(1.0)
            L = torch.linalg.cholesky(K)
            solved = torch.cholesky_inverse(L) @ G
            coef = width * (solved.T @ (root[:, 0] * self.y))
            return coef, _half_log(L), (G * solved).sum(0), solved * width / root
        A = width[:, None] * (c.F.T @ (self.weight[:, None] * c.F)) * width / c.noise
        A.diagonal().add_(1.0)
        L = torch.linalg.cholesky(A)
        root = (lower_inverse(L) * width).T
        coef = root @ (root.T @ (c.F.T @ (self.weight * self.y))) / c.noise
        told = 1 - root.square().sum(1) / c.prior
        return coef, _half_log(L), told, c.F @ (root @ root.T)

    def evidence(self, theta: np.ndarray, T: Tensor) -> tuple[float, np.ndarray]:
        """Negative log evidence, with the penalty on unequal scales, and its gradient."""
        d, h = T.shape[1], PILOT_FEATURES // 2
        c = self._columns(theta, T)
        coef, half, told, covariance = self._posterior(c)
        n, noise = len(self.y), c.noise
        error = self.y - c.F @ coef
        weighted = self.weight * error
        rss = float(weighted @ error)
        penalty = float((coef.square() / c.prior).sum())
        value = -0.5 * (n * math.log(noise) + rss / noise + penalty) - half
        # Derivative of the evidence with respect to the columns of sines and cosines
        slope = torch.outer(weighted, coef[d + 1 :]) - self.weight[:, None] * covariance[:, d + 1 :]
        slope = slope / noise
        angle = slope[:, :h] * c.cosine - slope[:, h:] * c.sine
        of_scales = ((T * c.scale) * (angle @ self.frequencies)).sum(0)
        of_prior = 0.5 * (coef.square() / c.prior - told)
        dof = float(told.sum())
        of_noise = 0.5 * (rss / noise - (n - dof)) * (noise - LEAST_NOISE) / noise
        deviation = theta[:d] - theta[:d].mean()
        value -= float((deviation**2).sum()) / (2 * SCALE_SPREAD**2)
        gradient = np.concatenate(
            [
                of_scales.cpu().numpy() - deviation / SCALE_SPREAD**2,
                [float(of_prior[1 : d + 1].sum()), float(of_prior[d + 1 :].sum()), of_noise],
            ]
        )
        return -value, -gradient

    def left_out_density(self, fit: PilotFit) -> float:
        """Mean Gaussian log density of rows that were left out."""
        c = self._columns(fit.theta, self.T @ fit.rotation)
        coef, _, _, covariance = self._posterior(c)
        spread = (covariance * c.F).sum(1)  # Of the mean, in units of y
        leverage = (self.weight * spread / c.noise).clamp_max(LARGEST_LEVERAGE)
        variance = c.noise + spread / (1 - leverage)
        square = ((self.y - c.F @ coef) / (1 - leverage)).square()
        terms = torch.log(2 * math.pi * variance) + square / variance
        return -0.5 * float(self.weight @ terms / self.weight.sum())

    def maximise(self, theta: np.ndarray, rotation: Tensor, n_iter: int) -> PilotFit:
        """L-BFGS from a start, within bounds."""
        T = self.T @ rotation
        bounds = [SCALE_BOUNDS] * T.shape[1] + [LINE_BOUNDS, BLOCK_BOUNDS, NOISE_BOUNDS]
        start = np.clip(theta, [low for low, _ in bounds], [high for _, high in bounds])
        found = minimize(
            self.evidence,
            start,
            args=(T,),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": n_iter, "maxfun": int(EVALUATIONS * n_iter + MORE_EVALUATIONS)},
        )
        return PilotFit(-float(found.fun), found.x, rotation)

    def gradients(self, fit: PilotFit) -> Tensor:
        """Gradient (n, d) of the pilot's mean with respect to the coordinates."""
        d, h = self.T.shape[1], PILOT_FEATURES // 2
        T = self.T @ fit.rotation
        c = self._columns(fit.theta, T)
        coef = self._posterior(c)[0]
        of_angles = c.cosine * coef[d + 1 : d + 1 + h] - c.sine * coef[d + 1 + h :]
        gradient = of_angles @ (self.frequencies * c.scale) @ fit.rotation.T
        centred = self.T - self.T.mean(0)
        spread = centred.square().mean(0).clamp_min(LEAST_SPREAD)
        slopes = (centred * self.fixed[:, 1:]).mean(0) / spread
        return gradient + coef[1 : d + 1] * slopes

    def best(self) -> PilotFit:
        """Scales without a rotation, then with one while the evidence rises."""
        d = self.T.shape[1]
        rest = np.log(FIRST_VARIANCES)
        eye = torch.eye(d, dtype=self.T.dtype, device=self.T.device)
        starts = [np.r_[np.full(d, math.log(k / math.sqrt(d))), rest] for k in FIRST_SCALES]
        best = self._refined([(start, eye) for start in starts], SHORT)
        for number in range(ROTATIONS):
            gradient = self.gradients(best)
            M = gradient.T @ gradient / len(gradient)
            if not (bool(torch.isfinite(M).all()) and float(M.diagonal().sum()) > NO_GRADIENT):
                break
            values, V = torch.linalg.eigh(M)
            V = V.flip(1)
            shares = (values.flip(0) / values[-1]).clamp_min(LEAST_EIGENVALUE).cpu().numpy()
            typical = math.sqrt(np.mean(np.exp(2 * best.theta[:d])) / shares.mean())
            starts = [
                np.r_[np.log(k * typical * np.sqrt(shares)), best.theta[d:]] for k in ROTATED_SCALES
            ]
            rotated = self._refined([(start, V) for start in starts], SHORT_ROTATED)
            if not rotated.value > best.value + (d / 2 if number == 0 else 0) + 1:
                break
            best = rotated
        return best

    def _refined(self, starts: list[tuple[np.ndarray, Tensor]], n_iter: int) -> PilotFit:
        fits = [self.maximise(theta, rotation, n_iter) for theta, rotation in starts]
        best = max(fits, key=lambda fit: fit.value)
        longer = self.maximise(best.theta, best.rotation, LONG)
        return longer if longer.value > best.value else best


def _half_log(L: Tensor) -> float:
    """Half the log determinant of a matrix with this factor."""
    return float(L.diagonal().log().sum())


def with_remainder(search: TermSearch, best: Candidate, rng: np.random.Generator) -> Candidate:
    """Add the block over all columns if evidence and left-out density both rise.

    Parameters
    ----------
    best : Candidate
        Terms without the block.
    rng : Generator
        Chooses the rows of pilot and landmarks where there are many.
    """
    n, d = search.T.shape
    seed = int(rng.integers(SEEDS))
    pilot_rows, landmark_rows = (_some(n, most, rng) for most in (PILOT_ROWS, LANDMARK_ROWS))
    lines = torch.stack([value[:, 0] for value in search.values], 1)
    rows, picked = search.rows, torch.as_tensor(pilot_rows, device=search.T.device)
    own = _left_out(search, best) / float(rows.weight.sum())
    if own - MOST_DENSITY > HOPELESS:
        return best
    pilot = Pilot(search.T[picked], lines[picked], rows.y[picked], rows.weight[picked], seed)
    try:
        fit = pilot.best()
        behind = own - pilot.left_out_density(fit)
    except torch.linalg.LinAlgError:
        return best
    if behind > HOPELESS:
        return best
    m = min(max(n // SHARE, FEWEST), MOST, search.max_columns)
    picked = torch.as_tensor(landmark_rows, device=search.T.device)
    landmarks = Landmarks.from_rows(fit.scales(), search.T[picked], m)
    block = Block((-1,), (0,), (landmarks.n_columns,))
    # Left-out densities know the rows through scales and rotation: half of each is their gain.
    free = d * (d + 1) / 2 if fit.is_rotated else d
    least = _left_out(search, best) + 0.5 * free
    found = [
        candidate
        for candidate in _candidates(search, best, block, landmarks, fit)
        if candidate.score > best.score and _left_out(search, candidate) > least
    ]
    if not found:
        return best
    chosen = max(found, key=lambda candidate: _left_out(search, candidate))
    search.tell("block over all columns", chosen)
    return chosen


def _some(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(rng.permutation(n)[:most])


def _left_out(search: TermSearch, candidate: Candidate) -> float:
    return candidate.fit.left_out_density(search.rows.y, search.rows.weight)


def _candidates(
    search: TermSearch, best: Candidate, block: Block, landmarks: Landmarks, pilot: PilotFit
) -> list[Candidate]:
    """The block beside the main effects, and beside all terms that do not become idle."""
    d = len(pilot.rotation)
    line, variance, noise = np.exp(pilot.theta[d:])
    start = best.start()
    alpha = {}
    for key, value in start.alpha.items():
        is_line = len(key[0]) == 1 and key[1] == (0,)
        # What the block explains is taken from the terms, which MacKay's steps give back slowly.
        alpha[key] = min(value, float(line)) if is_line else LEFT_TO_TERMS * value
    alpha[block.key] = max(float(variance), LEAST_BLOCK)
    start = Start(alpha, start.constant, float(noise) + LEAST_NOISE)
    mains = [b for b in best.blocks if b.order == 1]

    def fitted(blocks: list[Block], start: Start, n_iter: int = N_ITER) -> Candidate:
        basis = best.basis.with_blocks(blocks, landmarks)
        return search.fit(basis, best.decay, start, n_iter)

    result = [fitted([*mains, block], start)]
    if any(b.order > 1 for b in best.blocks):
        whole = fitted([*best.without_idle(), block], start)
        kept = whole.without_idle()
        if block in kept and len(kept) < len(whole.blocks):
            pruned = fitted(kept, whole.start())
            whole = pruned if pruned.score > whole.score else whole
        result.append(whole)
    penalty = d * (ROTATED_PENALTY if pilot.is_rotated else PENALTY)
    return [Candidate(c.basis, c.decay, c.groups, c.fit, c.score - penalty) for c in result]
