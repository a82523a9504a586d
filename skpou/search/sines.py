"""Random sine features: shape and scale of their spectrum by log evidence.

Fresh frequencies are drawn for every scale, since few are needed for small ones; all ridges come
from one decomposition. In several dimensions the columns of X are scaled by the gradients of
the first good model, so that inputs without effect fade out.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, at_once, count_columns
from skpou.core.linalg import TINY
from skpou.core.models import evident_rates
from skpou.search.bases.warped import WarpedBasis, steps_of, stretched
from skpou.search.candidates import Candidate
from skpou.search.family import EXACT
from skpou.search.polynomials import MOST_DEGREE
from skpou.search.scores import (
    LEAST_SQUARED_RIDGE,
    MARGIN,
    SQUARED_COLUMNS,
    RidgePath,
    StreamedRidgePath,
    evident_path,
)
from skpou.sines import BLOCK_ROWS, SineFeatures, Spectrum

#: Rows and columns of fits that spectra are compared by.
PILOT_ROWS, PILOT_COLUMNS = 1000, 300
#: Most columns in three dimensions and more, beside noise, and in one and two.
MOST_COLUMNS, MOST_NOISY_COLUMNS, MOST_PLANE_COLUMNS = 2000, 1500, 1000
#: Columns beside noise for each degree of freedom of the pilot at most, but so many at least: 112
#: of 1500 and 110 of 1000 columns told as much of 5000 rows.
COLUMNS_A_DEGREE, FEWEST_NOISY_COLUMNS = 12, 800
#: Rows times squared columns above which the columns are evaluated in blocks.
STREAMED = 6e10
#: Rows times squared columns up to which neighbouring bandwidths are tried with all columns, too.
QUICK = 2.5e9
#: Probes times squared columns that are looked at, but so many probes at least.
MOST_PROBING, FEWEST_PROBES = 1e9, 1000
#: Ridge of the pilot from which inner products suffice.
NOISY = 1e-6
#: Columns that a shape needs in one dimension for each of a band's independent functions.
OVERSAMPLING = {"flat": 1.5, "gauss": 3.0, "matern": 4.0}
#: Bandwidth of a normal density, and of a Matern one, over that of a box whose band is as wide.
WIDTHS = {"flat": 1.0, "gauss": 0.5, "matern": 1.0}
#: Least bandwidth that another shape begins with.
LEAST_START = 0.25
#: Score for each row by which another shape may be behind at first: more than half-octave steps of
#: its bandwidth make good.
REACH = 1.0
#: Share of the columns that polynomials beside the sines may have at most.
CURVED_SHARE = 0.2
#: Standard deviation of the frequencies of a flat spectrum of unit bandwidth, and least factor of a
#: column by evidence.
FLAT_DEVIATION, LEAST_SCALE = 3**-0.5, 1e-3
#: Error at left-out rows, in units of y, below which a smooth model sees all columns as they are.
CLEAR_ERROR = 0.01
#: Rows up to which there are as many columns, at least some, and beyond which half as many.
MANY_ROWS, FEWEST_COLUMNS = 800, 40
#: What is added to a logarithm, lest a power of two be rounded down.
ABOVE = 0.1
#: Steps of the bandwidth in an octave that are told apart.
STEPS_AN_OCTAVE = 4
#: Sines of the narrowest band on a line.
NARROWEST = 60
#: Rows of a block at least, and for each column: a triangular factor then costs a quarter more.
LEAST_BLOCK, ROWS_A_COLUMN = 4096, 4
#: Least bandwidths that steps lead to and that a scaled one starts from.
LEAST_BANDWIDTH, LEAST_SCALED = 0.2, 0.3
#: Rounds of scaling, the least factor of a column, the change of all logarithms that is none, and
#: the factors of the bandwidth that are tried about one of equal volume.
ROUNDS, LEAST_FACTOR, SAME_SCALES, ABOUT_VOLUME = 3, 0.03, 0.2, (0.7, 1.0, 1.4)
#: Stream of the seed that the search for rates draws from.
RATES_STREAM = 6
#: Factor of the calibrated error at which another shape takes its place: a worse one is seldom
#: better by so much.
CLEARLY_LESS = 0.7


@dataclass
class SineFit:
    """Features of one spectrum with their best ridge.

    `score` is minus twice the log evidence; `probed` has mean variances at the probes, by ridge
    and number of probes.
    """

    spectrum: Spectrum
    basis: SineFeatures
    path: RidgePath
    alpha: float
    score: float
    probed: dict[tuple[float, int], float] = dataclasses.field(default_factory=dict)


class SineSearch:
    """Search over spectra.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units; targets about their mean.
    probes : Tensor of shape (k, d)
        Points between the rows.
    rescale : bool
        Whether columns of X may be scaled.
    rival : float
        Twice the negative log evidence of a simpler model. Behind it no other shapes are tried.
    worth : float
        Error at left-out rows of the pilot from which neither other shapes nor all rows are tried.
    """

    def __init__(
        self,
        rows: Rows,
        probes: Tensor,
        seed: int,
        alpha: float | None = None,
        rescale: bool = True,
        rival: float = math.inf,
        worth: float = math.inf,
    ):
        self.rival, self.worth = rival, worth
        self.rows, self.probes, self.seed, self.alpha = rows, probes, seed, alpha
        n, d = rows.n_rows, rows.n_features
        self.rescale = rescale and d > 1
        most = max(n, FEWEST_COLUMNS) if n <= MANY_ROWS else max(MANY_ROWS, n // 2)
        self.most_columns = min(most, MOST_COLUMNS if d > 2 else MOST_PLANE_COLUMNS)
        self.pilot = _subset(rows, PILOT_ROWS, seed)
        self.whole = self.pilot is rows
        self.pilot_columns = self.most_columns if d == 1 else min(PILOT_COLUMNS, self.most_columns)
        self.nyquist = math.pi * self.pilot.n_rows ** (1 / d) / 2
        self.memory: dict[tuple, SineFit] = {}
        self.noisy = False
        self.scales = (1.0,) * d
        self.steps: Tensor | None = None

    def run(self) -> Candidate:
        """Best spectrum, fitted to all rows."""
        d = self.rows.n_features
        start = (1.0,) * d
        largest = max(math.log2(self.nyquist), 1.0)
        ladder = [2.0**k for k in range(math.floor(largest + ABOVE) + 1)]
        first = [Spectrum("flat", k, start) for k in ladder]
        best = self._stretched(self._best_of(first), first)
        if self._is_nothing(best):
            return self._candidate(best)
        best = self._climb(best)
        if self.rescale:
            best = self._evident(self._scaled(best))
        if self._is_hopeless(best):
            return self._candidate(best)
        spectra = []
        for shape in ("gauss", "matern") if best.score < self.rival else ():
            spectra.append(self._start_of(shape, best))
        shapes = at_once(lambda spectrum: self._raced(self._fit(spectrum), best), spectra)
        best = min([best, *shapes], key=_score)
        best = self._beside_polynomials(best)
        best = self._smoothest(best)
        if self.whole and self.pilot_columns >= self.most_columns:
            best = self._better_calibrated(best, shapes)
        elif self.whole or best.path.leave_one_out(best.alpha) < self.worth:
            best = self._full(best)
        if self.steps is None:
            self.scales = best.spectrum.scales
        return self._candidate(best)

    def _is_hopeless(self, best: SineFit) -> bool:
        """Whether errors at left-out rows are no less than what was asked for."""
        return self.worth < math.inf and best.path.leave_one_out(best.alpha) >= self.worth

    def _is_nothing(self, best: SineFit) -> bool:
        """Whether, besides, no octave is likelier than no columns: there is none to look about."""
        rows = self.pilot
        square = (rows.weight @ rows.y.square() + rows.within.sum(0)) / rows.total_weight
        none = rows.total_weight * float(square.clamp_min(TINY).log().mean())
        return self._is_hopeless(best) and best.score > none - MARGIN

    def _best_of(self, ladder: list[Spectrum]) -> SineFit:
        """The likeliest of some spectra, whose first ones tell whether there is noise."""
        sizes = [self._n_columns(spectrum, self.pilot_columns) for spectrum in ladder]
        n_first = max(sum(size < SQUARED_COLUMNS for size in sizes), 1)
        best = min(at_once(self._fit, ladder[:n_first]), key=_score)
        self.noisy = best.alpha > LEAST_SQUARED_RIDGE
        # Bands that are far too wide for the rows only become worse with their width.
        for spectrum in ladder[n_first:]:
            tried = self._fit(spectrum)
            best = min(best, tried, key=_score)
            if self._is_behind(tried, best):
                break
        self.noisy = best.alpha > LEAST_SQUARED_RIDGE
        return best

    @staticmethod
    def _start_of(shape: str, best: SineFit) -> Spectrum:
        """Another shape about as wide as the best spectrum, or half as wide where that is cheap."""
        old, bandwidth = best.spectrum, best.spectrum.bandwidth
        if best.basis.n_columns >= SQUARED_COLUMNS:
            bandwidth *= WIDTHS[shape] / WIDTHS[old.shape]
        elif old.shape == "flat":
            bandwidth /= 2
        if bandwidth != old.bandwidth:
            bandwidth = max(bandwidth, LEAST_START)
        return dataclasses.replace(old, shape=shape, bandwidth=bandwidth)

    def _key(self, spectrum: Spectrum) -> tuple:
        """Of a spectrum in `memory`."""
        step = round(STEPS_AN_OCTAVE * math.log2(spectrum.bandwidth))
        return spectrum.shape, spectrum.scales, spectrum.degree, step

    def _is_behind(self, fit: SineFit, best: SineFit) -> bool:
        """Whether a fit of the pilot is out of the reach of another one."""
        return fit.score > best.score + REACH * self.pilot.n_rows

    def _is_out_of_reach(self, spectrum: Spectrum, best: SineFit) -> bool:
        """Whether a spectrum is known to be so by the pilot."""
        known = self.memory.get(self._key(spectrum))
        return known is not None and self._is_behind(known, best)

    def _is_foretold(self, spectrum: Spectrum, best: SineFit) -> bool:
        """Whether, with but lines beside the sines, its bandwidth was out of that one's reach."""
        bare = (dataclasses.replace(one, degree=1) for one in (spectrum, best.spectrum))
        known, beside = (self.memory.get(self._key(one)) for one in bare)
        return known is not None and beside is not None and self._is_behind(known, beside)

    def _raced(self, fit: SineFit, best: SineFit) -> SineFit:
        """The best bandwidth of a costly fit, unless it is out of the reach of another one."""
        behind = self._is_behind(fit, best)
        if behind and fit.basis.n_columns >= SQUARED_COLUMNS:
            return fit
        return self._climb(fit)

    def _stretched(self, best: SineFit, ladder: list[Spectrum]) -> SineFit:
        """The same in coordinates that are stretched where columns are skewed, if that is likelier.

        Then all that follows is in these.
        """
        steps = steps_of(self.rows.X) if self.alpha is None else None
        if steps is None:
            return best
        plain = self.rows, self.pilot, self.probes, self.memory
        self.rows = dataclasses.replace(self.rows, X=stretched(self.rows.X, steps))
        self.pilot = self.rows if self.whole else _subset(self.rows, PILOT_ROWS, self.seed)
        self.probes, self.memory, self.steps = stretched(self.probes, steps), {}, steps
        noisy, tried = self.noisy, self._best_of(ladder)
        if tried.score < best.score - MARGIN:
            return tried
        self.rows, self.pilot, self.probes, self.memory = plain
        self.steps, self.noisy = None, noisy
        return best

    def _fit(self, spectrum: Spectrum) -> SineFit:
        """Fit of the pilot rows, from memory where it was made before."""
        key = self._key(spectrum)
        if key not in self.memory:
            self.memory[key] = self._solve(spectrum, self.pilot_columns, self.pilot)
        return self.memory[key]

    def _n_columns(self, spectrum: Spectrum, most: int) -> int:
        """Sines of a fit: in one dimension at most what the band has independent ones, and more."""
        if self.rows.n_features > 1:
            return most
        wanted = NARROWEST + 2 * OVERSAMPLING[spectrum.shape] * spectrum.bandwidth * 2 / math.pi
        return min(most, int(2 * wanted))

    def _solve(self, spectrum: Spectrum, most: int, rows: Rows, ridge: float = 0.0) -> SineFit:
        """Fit of given rows; `ridge` is about the one to be expected."""
        n_columns = self._n_columns(spectrum, most)
        basis = spectrum.draw(max(n_columns // 2, 1), self.seed, rows.X)
        path: RidgePath
        if rows.n_rows * float(basis.n_columns) ** 2 < STREAMED:
            noisy = self.alpha is None and (self.noisy or ridge > LEAST_SQUARED_RIDGE)
            path, alpha, score = evident_path(basis.matrix(rows.X), rows, noisy)
        else:
            squared = ridge >= NOISY
            batch_size = (
                BLOCK_ROWS if squared else max(LEAST_BLOCK, ROWS_A_COLUMN * basis.n_columns)
            )
            path = StreamedRidgePath(basis, rows, batch_size, squared)
            alpha, score = path.evidence()
        return SineFit(spectrum, basis, path, alpha if self.alpha is None else self.alpha, score)

    def _climb(self, best: SineFit) -> SineFit:
        """Half-octave steps of the bandwidth while they are better."""
        for factor in (math.sqrt(2), math.sqrt(0.5)):
            while LEAST_BANDWIDTH < best.spectrum.bandwidth * factor < 2 * self.nyquist:
                bandwidth = best.spectrum.bandwidth * factor
                spectrum = dataclasses.replace(best.spectrum, bandwidth=bandwidth)
                if self._is_foretold(spectrum, best):
                    break
                tried = self._fit(spectrum)
                if tried.score >= best.score:
                    break
                best = tried
        return best

    def _scaled(self, best: SineFit) -> SineFit:
        """Columns of X scaled by the root mean squares of the model's partial derivatives."""
        for _ in range(ROUNDS):
            old = np.array(best.spectrum.scales)
            coef = best.path.coef(best.alpha)
            share = self.pilot.weight / self.pilot.weight.sum()
            gradient = best.basis.evaluate_gradient(self.pilot.X, coef)
            sizes = torch.einsum("n,ndm->dm", share, gradient.square()).mean(1)
            rates = np.sqrt(sizes.cpu().numpy())
            if not np.isfinite(rates).all() or rates.max() == 0:
                break
            scales = np.clip(rates / rates.max(), LEAST_FACTOR, 1.0)
            if np.abs(np.log(scales / old)).max() < SAME_SCALES:
                break
            # The volume of the band stays what it was.
            centre = best.spectrum.bandwidth * math.exp(np.log(old).mean() - np.log(scales).mean())
            limit = 2 * self.nyquist / scales.mean()
            tried = [
                self._fit(
                    Spectrum("flat", min(max(centre * f, LEAST_SCALED), limit), tuple(scales))
                )
                for f in ABOUT_VOLUME
            ]
            better = self._climb(min(tried, key=_score))
            if better.score > best.score - 2:
                break
            best = better
        return best

    def _evident(self, best: SineFit) -> SineFit:
        """Columns scaled as the evidence of a Gaussian process says, where that is likelier."""
        old = best.spectrum
        if best.path.leave_one_out(best.alpha) < CLEAR_ERROR:
            return best
        start = 2 * FLAT_DEVIATION * old.bandwidth * np.array(old.scales)
        rates = evident_rates(self.pilot, start, np.random.default_rng([self.seed, RATES_STREAM]))
        if rates is None:
            return best
        # A rate in the box is half of one over half its side.
        scales = tuple(np.clip(rates / rates.max(), LEAST_SCALE, 1.0))
        bandwidth = float(rates.max()) / 2
        tried = [
            self._fit(Spectrum(shape, max(bandwidth * factor, LEAST_SCALED), scales))
            for shape, factor in (("gauss", 1.0), ("flat", 1 / FLAT_DEVIATION))
        ]
        better = self._climb(min(tried, key=_score))
        return better if better.score < best.score - MARGIN else best

    def _beside_polynomials(self, best: SineFit) -> SineFit:
        """The same beside polynomials of low degree, where that is clearly likelier."""
        n_curved = count_columns(self.rows.n_features, MOST_DEGREE)
        if n_curved > CURVED_SHARE * min(self.pilot.n_rows, self.pilot_columns):
            return best
        first = self._fit(dataclasses.replace(best.spectrum, degree=MOST_DEGREE))
        curved = self._raced(first, best)
        return curved if curved.score < best.score - MARGIN else best

    def _smoothest(self, best: SineFit) -> SineFit:
        """Flat spectrum of least bandwidth whose evidence is hardly less."""
        near = [
            fit
            for fit in self.memory.values()
            if fit.spectrum.shape == "flat"
            and fit.score < best.score + MARGIN
            and fit.spectrum.bandwidth < best.spectrum.bandwidth
        ]
        return min(near, key=lambda fit: fit.spectrum.bandwidth, default=best)

    def _better_calibrated(self, best: SineFit, others: list[SineFit]) -> SineFit:
        """Another shape where its calibrated error is clearly less."""
        most = CLEARLY_LESS * self._calibrated(best)
        # What is unsure between the rows only adds to the error there.
        hopeful = [fit for fit in others if fit.path.spread(fit.alpha) < most**2]
        errors = [(self._calibrated(fit), i) for i, fit in enumerate(hopeful)]
        least, index = min(errors, default=(most, 0))
        return hopeful[index] if least < most else best

    def _calibrated(self, fit: SineFit) -> float:
        return math.sqrt(fit.path.spread(fit.alpha) * (1 + self._probed(fit, fit.alpha)))

    def _probed(self, fit: SineFit, alpha: float) -> float:
        """Mean variance at the probes, of which as many are looked at as the columns allow."""
        n = len(self.probes)
        most = max(FEWEST_PROBES, int(MOST_PROBING / fit.basis.n_columns**2))
        looked = self.probes
        if n > most:
            even = torch.linspace(0, n - 1, most, dtype=torch.float64, device=looked.device)
            looked = looked[even.round().long()]
        key = alpha, len(looked)
        if key not in fit.probed:
            fit.probed[key] = fit.path.probed(alpha, fit.basis.matrix(looked))
        return fit.probed[key]

    def _full(self, best: SineFit) -> SineFit:
        """The chosen spectrum with all columns on all rows, which resolve more than the pilot's."""
        # Noise bounds what more columns could add, and many rows what they may cost.
        noisy = best.alpha >= NOISY
        most = self.most_columns
        if noisy:
            wanted = int(COLUMNS_A_DEGREE * best.path.dof(best.alpha))
            most = min(most, MOST_NOISY_COLUMNS, max(FEWEST_NOISY_COLUMNS, wanted))
        factors = [1.0]
        if self.most_columns >= 2 * self.pilot_columns:
            if best.spectrum.shape == "flat" or not noisy:
                factors = [math.sqrt(2)]
            if self.rows.n_rows * float(most) ** 2 < QUICK:
                factors = [1.0, math.sqrt(2), 2.0]
        fits: list[SineFit] = []
        for factor in factors:
            bandwidth = best.spectrum.bandwidth * factor
            spectrum = dataclasses.replace(best.spectrum, bandwidth=bandwidth)
            if fits and self._is_out_of_reach(spectrum, best):
                break
            fits.append(self._solve(spectrum, most, self.rows, best.alpha))
            if fits[-1].score > fits[0].score:
                break  # Wider bands are still less likely.
            if fits[-1].path.spread(fits[-1].alpha) < EXACT**2:
                break  # There is nothing that they could add.
        return min(fits, key=_score)

    def _candidate(self, best: SineFit) -> Candidate:
        path = best.path
        alpha = best.alpha if self.alpha is not None else path.beyond_round_off(best.alpha)
        gap = path.spread(alpha) * self._probed(best, alpha)
        basis = best.basis if self.steps is None else WarpedBasis(best.basis, self.steps)
        return Candidate.from_path(
            "sine",
            basis,
            path,
            alpha,
            gap,
            evidence=best.score,
            n_units=2 * len(best.basis.phases),
            bandwidths=(best.spectrum.bandwidth,),
            n_chosen=len(set(best.spectrum.scales)),
        )


def _score(fit: SineFit) -> float:
    return fit.score


def _subset(rows: Rows, most: int, seed: int) -> Rows:
    """At most `most` of the rows, in their order."""
    if rows.n_rows <= most:
        return rows
    rng = np.random.default_rng([seed, 1])
    index = torch.as_tensor(np.sort(rng.choice(rows.n_rows, most, replace=False)), device="cpu")
    index = index.to(rows.X.device)
    return rows.subset(index)
