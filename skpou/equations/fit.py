"""Bandwidths for equations: a ladder for affine ones, a continuation for others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import BestSoFar, Report, Rows, TrainingResult, sobol_points
from skpou.core.linalg import ridge_coefficients
from skpou.equations.collocation import CollocationSystem, Iterate
from skpou.equations.newton import gauss_newton, solve_affine
from skpou.equations.posterior import UNSOLVED
from skpou.equations.problem import Problem
from skpou.equations.search import EquationOptions, Search, Solution
from skpou.physics import Symmetry
from skpou.sines import Spectrum

#: Columns of the search in several dimensions.
PILOT_COLUMNS = 300
#: Criterion at round-off: nothing is left to gain.
EXACT = 1e-16
#: Square of the slope along the flattest direction, over that along the flattest column, below
#: which directions of their own are tried beside the columns: a factor of 1.4 in the bandwidth.
FLATTER = 0.5
#: Bandwidths at which a continuation starts, each from the last one's solution, so that only the
#: first, of slow functions, has to be found from afar; and features for each column of X: enough
#: for these, and a step takes milliseconds.
STARTING, STARTING_COLUMNS = (2.0, 3.0, 4.5), 60
#: Steps there, with the unknowns held first, and free: what is not found by then is the next one's.
HELD_STEPS, FREE_STEPS = 15, 40
#: Ridge and first damping there: far from a solution steps in directions that few features hardly
#: know lead away from it.
STARTING_RIDGE, STARTING_DAMPING = 1e-10, 1e-4
#: Ridge with which the data alone are fitted before: only what is smooth is wanted of them.
SMOOTH_RIDGE = 1e-4
#: Further starts of unknowns with bounds, as shares of these: a single one along its interval, more
#: of them at so many points of a Sobol sequence.
SHARES_OF_ONE, STARTS_OF_MORE = ((0.1,), (0.3,), (0.5,), (0.8,)), 4
#: Factor of the best criterion from which on a bandwidth is hopeless, since a criterion that rises
#: less may fall again, and how many of them end a ladder.
HOPELESS, MOST_HOPELESS = 100.0, 4
#: Most Gauss-Newton steps for a bandwidth.
STEPS = 60
#: Residual relative to an equation's terms that is round-off.
ROUND_OFF = 1e-13
#: Columns of X from which on directions are measured again: a first solution with few features for
#: so many columns tells directions in which nothing happens from others only roughly.
MANY_COLUMNS = 3
#: Least scales of a direction, at first and when it is measured again; nothing is tried where all
#: are above the last one, alike to within what a first solution tells.
LEAST_SCALE, LEAST_AGAIN, ALIKE = 0.05, 1e-3, 0.8
#: Powers of the scales, half and all of what is measured, and bandwidths tried with each, in
#: units of the one with the volume of before.
POWERS, BESIDE = (0.5, 1.0), (0.7, 1.0, 1.4)
#: Most bandwidths, half an octave apart, tried with all columns.
MOST_WIDENED = 5
#: Factor by which a wider one must lower the criterion for the next to be tried.
WIDER_GAIN = 0.5
#: Bandwidths of a later stage in units of the one before: what is left over may vary faster.
CORRECTING = (0.5, 1.0, 2.0)
#: Most steps with precise features, which find what the digits of the rows tell in two or three.
PRECISE_STEPS = 6
#: Factor by which the criterion must fall where the equations hold to round-off.
GAIN_AT_ROUND_OFF = 0.1
#: Directions are measured again as often as the criterion falls by this factor, up to a bound.
AGAIN, MOST_AGAIN = 0.3, 4
#: Bandwidths tried then, in units of the last one: it was wide for directions that are gone now.
NARROWER = (0.35, 0.7, 1.0)


class ShapedSearch(Search):
    """Spectra beyond a bandwidth: directions, and more columns."""

    def _scaled(self, best: Solution, most: int) -> Solution:
        """Coordinates scaled, or turned and scaled, by the sizes of the solution's gradient."""
        for sizes, rotation in self._directions(best):
            scales = (sizes / sizes.max()).clamp_min(LEAST_SCALE)
            if float(scales.min()) < ALIKE:
                best = self._shaped(best, most, scales, rotation)
        return best if self.d < MANY_COLUMNS else self._measured_again(best, most)

    def _directions(self, best: Solution) -> list[tuple[Tensor, Tensor | None]]:
        """Root mean squares of the gradient along the columns, and along its own axes."""
        gradient = torch.stack(
            [
                best.basis.partial(self.problem.terms[0].points, j) @ best.iterate.coef
                for j in range(self.d)
            ]
        ).flatten(1)
        outer = gradient @ gradient.T / gradient.shape[1]
        if not bool(torch.isfinite(outer).all()) or float(outer.trace()) <= 0:
            return []
        straight = outer.diagonal().sqrt()
        shapes: list[tuple[Tensor, Tensor | None]] = [(straight, None)]
        if not (self.mirrors or self.periods):
            squares, axes = torch.linalg.eigh(outer)
            if float(squares[0]) < FLATTER * float(straight.min()) ** 2:
                shapes.append((squares.clamp_min(0).sqrt(), axes))
        return shapes

    def _measured_again(self, best: Solution, most: int) -> Solution:
        """The same by better and better solutions: features for the directions that matter."""
        for _ in range(MOST_AGAIN):
            before, shapes = best.criterion, self._directions(best)
            if before <= EXACT or not shapes:
                break
            sizes, rotation = shapes[-1]
            scales = (sizes / sizes.max()).clamp_min(LEAST_AGAIN)
            if float(scales.min()) >= LEAST_SCALE:
                break
            widest = best.spectrum.bandwidth * max(best.spectrum.scales)
            for factor in NARROWER:
                spectrum = Spectrum("flat", factor * widest, tuple(scales.tolist()))
                tried = self._solve(spectrum, most, self.problem.pilot, best, rotation)
                if tried.criterion < best.criterion:
                    best = tried
            if best.criterion > AGAIN * before:
                break
        return best

    def _shaped(
        self, best: Solution, most: int, scales: Tensor, rotation: Tensor | None
    ) -> Solution:
        """Best of some spectra with given scales of the coordinates."""
        for power in POWERS:
            shaped = tuple((scales**power).tolist())
            # The volume of the band stays what it was, or nearly.
            volume = math.prod(best.spectrum.scales) / math.prod(shaped)
            centre = best.spectrum.bandwidth * volume ** (1 / self.d)
            for factor in BESIDE:
                spectrum = Spectrum("flat", factor * centre, shaped)
                tried = self._solve(spectrum, most, self.problem.pilot, best, rotation)
                if tried.criterion < best.criterion:
                    best = tried
        return best

    def _widened(self, best: Solution) -> Solution:
        """All columns, which carry a larger bandwidth."""
        if best.n_columns >= self.most_columns:
            return self._refitted(best)
        growth = (self.most_columns / best.n_columns) ** (1 / self.d)
        found: BestSoFar[Solution] = BestSoFar()
        for power in range(MOST_WIDENED):
            bandwidth = best.spectrum.bandwidth * growth ** (power / 2)
            spectrum = replace(best.spectrum, bandwidth=bandwidth)
            tried = self._solve(
                spectrum, self.most_columns, self.problem.terms, best, best.rotation
            )
            gained = found.is_empty or tried.criterion < WIDER_GAIN * found.score
            found.show(tried, tried.criterion)
            if not gained or found.score <= EXACT:
                break
        return found.best if found.score < best.criterion else self._refitted(best)


class AffineSearch(ShapedSearch):
    """Equations that one least-squares pass solves, for each of the bandwidths."""

    def _solved(
        self, system: CollocationSystem, start: Solution | None
    ) -> tuple[Iterate, list[float]]:
        scales = system.scales(system.blocks(system.zero(), self.unknowns[:0]), self.boost)
        return solve_affine(system, scales, self.alpha), scales

    def stage(self) -> Solution:
        """Bandwidths of a half-octave ladder, then scales of the columns, then all columns."""
        one = (1.0,) * self.d
        pilot = self.problem.pilot
        most = self.most_columns if self.d == 1 else min(PILOT_COLUMNS, self.most_columns)
        found: BestSoFar[Solution] = BestSoFar()
        worse = 0
        for bandwidth in self._ladder():
            tried = self._solve(Spectrum("flat", bandwidth, one), self._columns(bandwidth, most),
                                pilot)  # fmt: skip
            if found.show(tried, tried.criterion):
                worse = 0
            else:
                worse += tried.criterion > HOPELESS * found.score
            if worse >= MOST_HOPELESS:
                break
        best = found.best
        if self.d == 1:
            return best if pilot is self.problem.terms else self._refitted(best)
        best = self._scaled(best, most)
        return self._widened(best)

    def correction(self) -> Solution:
        """Solve for what the stages before leave over, as if for a first stage."""
        return self.stage()


class ContinuedSearch(ShapedSearch):
    """Other equations, followed from few features of small bandwidth to many of larger ones.

    Unknown constants are well determined by few features, and nearly free in a rich basis.
    """

    def _solved(
        self, system: CollocationSystem, start: Solution | None
    ) -> tuple[Iterate, list[float]]:
        first = self._carried(system, start)
        scales = system.scales(system.blocks(first.coef, first.unknowns), self.boost)
        steps = min(self.options.max_iter, STEPS)
        return gauss_newton(system, first, scales, alpha=self.alpha, max_iter=steps), scales

    def _carried(self, system: CollocationSystem, start: Solution | None) -> Iterate:
        """Another solution in the basis of a system."""
        if start is None:
            return Iterate(system.zero(), self.unknowns, math.inf)
        points = torch.cat([system.rows.X, *(term.points for term in system.terms)])
        values = start.basis.matrix(points) @ start.iterate.coef
        coef, _ = ridge_coefficients(system.basis.matrix(points), values, self.alpha)
        return Iterate(coef, start.iterate.unknowns, math.inf)

    def _starts(self) -> list[Tensor]:
        """First values of the unknowns: init, and a spread over the bounds."""
        unknowns = list(self.problem.unknowns.values())
        starts = [self.unknowns]
        if not unknowns or any(unknown.bounds is None for unknown in unknowns):
            return starts
        low = self.unknowns.new_tensor([u.bounds[0] for u in unknowns if u.bounds])
        high = self.unknowns.new_tensor([u.bounds[1] for u in unknowns if u.bounds])
        share = sobol_points(len(unknowns), STARTS_OF_MORE, self.seed)
        if len(unknowns) == 1:
            share = torch.tensor(SHARES_OF_ONE, dtype=torch.float64, device="cpu")
        starts += list(low + (high - low) * share.to(low))
        return starts

    def _start(self, unknowns: Tensor, flat: bool = False) -> Solution:
        """Few features of small bandwidth, near the data or `flat`; unknowns are held at first."""
        found: list[Solution] = []
        for position, bandwidth in enumerate(STARTING):
            spectrum = Spectrum("flat", bandwidth, (1.0,) * self.d)
            n_columns = min(STARTING_COLUMNS * self.d, self.most_columns)
            basis = self._basis(spectrum, n_columns)
            system = self._system(basis, self.problem.pilot)
            if not found:
                coef = system.zero() if flat else self._smooth_data(system)
                first = Iterate(coef, unknowns, math.inf)
            else:
                first = self._carried(system, found[-1])
            scales = system.scales(system.blocks(first.coef, first.unknowns), self.boost)
            options = {"alpha": max(self.alpha, STARTING_RIDGE), "damping": STARTING_DAMPING}
            if not position and len(unknowns):
                first = gauss_newton(
                    system, first, scales, max_iter=HELD_STEPS, free=False, **options
                )
            iterate = gauss_newton(system, first, scales, max_iter=FREE_STEPS, **options)
            found.append(self._noted(spectrum, system, iterate, scales, n_columns))
        return found[-1]

    def _smooth_data(self, system: CollocationSystem) -> Tensor:
        """Coefficients that fit the data as smoothly as the ridge makes them."""
        if not len(self.rows.X):
            return system.zero()
        root = system.root[:, None]
        return ridge_coefficients(root * system.phi, root * system.y, SMOOTH_RIDGE)[0]

    def stage(self) -> Solution:
        """Larger and larger bandwidths, each from the last solution, kept while they help."""
        starts = [self._start(start) for start in self._starts()]
        if not len(self.unknowns):
            # Linearised about zero many equations have a solution nearby.
            starts.append(self._start(self.unknowns, flat=True))
        best = min(starts, key=lambda s: s.criterion)
        one, failed = (1.0,) * self.d, 0
        terms, most = self.problem.terms, self.most_columns
        if self.d > 1:
            terms, most = self.problem.pilot, min(PILOT_COLUMNS, most)
        for bandwidth in (b for b in self._ladder() if b > STARTING[-1]):
            spectrum = Spectrum("flat", bandwidth, one)
            tried = self._solve(spectrum, self._columns(bandwidth, most), terms, best)
            # Where nothing but round-off is left, a rougher basis only hides the unknowns.
            exact = self.relative_residual(best.basis, best.iterate) < ROUND_OFF
            needed = GAIN_AT_ROUND_OFF if exact else 1.0
            failed = 0 if tried.criterion < needed * best.criterion else failed + 1
            if not failed:
                best = tried
            # A front that is not resolved is no better for larger bandwidths until it is.
            if failed > 1 and self.relative_residual(best.basis, best.iterate) < UNSOLVED:
                break
        return self._polished(best if self.d == 1 else self._widened(self._scaled(best, most)))

    def _polished(self, best: Solution) -> Solution:
        """Last steps with precise features: of an unknown round-off of large angles hides digits.

        In a rich basis an unknown changes the rows by what its derivative is beyond all columns,
        which is small, so that round-off of the rows is enlarged as much.
        """
        if not len(self.unknowns):
            return best
        if self.relative_residual(best.basis, best.iterate) >= ROUND_OFF:
            return best
        system = self._system(best.basis.precise(), self.problem.terms)
        iterate = gauss_newton(system, best.iterate, best.scales, alpha=self.alpha,
                               max_iter=PRECISE_STEPS, damping=self.alpha)  # fmt: skip
        return replace(best, iterate=iterate)

    def correction(self) -> Solution:
        """Solve for what the stages before leave over: a few steps for each bandwidth."""
        found: list[Solution] = []
        for factor in CORRECTING:
            bandwidth = factor * self.solution.spectrum.bandwidth
            if found and bandwidth > self.nyquist:
                break
            n_columns = self._columns(bandwidth, self.most_columns)
            spectrum = replace(self.solution.spectrum, bandwidth=bandwidth)
            found.append(self._solve(spectrum, n_columns, self.problem.terms))
        return min(found, key=lambda solution: solution.criterion)


def fit_equations(
    rows: Rows,
    problem: Problem,
    options: EquationOptions,
    rng: np.random.Generator,
    symmetries: Sequence[Symmetry] = (),
    report: Report | None = None,
) -> TrainingResult:
    """Solve equations with data, and choose the basis for it.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units; there may be none.

    Returns
    -------
    TrainingResult
        Its state is a `LinearModel`, its score the criterion.
    """
    search = AffineSearch if problem.is_affine else ContinuedSearch
    return search(rows, problem, options, rng, symmetries, report).run()
