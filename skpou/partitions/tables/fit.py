"""Tables with noise in four columns and more: shrunken experts where they predict better.

Pieces with sharp or blended gates need a neighbourhood that many columns do not have. Where
folds of the rows say so, a mixture of shrunken experts takes their place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import (
    LONG_SEEDS,
    Report,
    Rows,
    TrainingResult,
    count_columns,
    drawn_points,
    handing_over,
    with_all_targets,
)
from skpou.core.models import FEWEST_OF_TABLE, Components, is_gain
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.pieces.spaces import POLYNOMIAL
from skpou.partitions.tables.shrunk_experts import FORM, CommonPolynomial, fit_shrunk_experts

#: Fewest rows of a table.
LEAST_ROWS = 50
#: Share of y that pieces leave over, below which nothing is left to gain.
LEAST_RESIDUAL = 0.01
#: Most rows that choose, and the folds they are cut into.
MOST_ROWS, N_FOLDS = 3000, 4
#: Rows of a fold that tell a gain which is worth having from one by chance.
MANY_LEFT_OUT = 500
#: Degrees and numbers of experts that are compared.
DEGREES, COUNTS = (1, 2, 3, 4), (1, 2, 4, 8)
#: Multiple of its last gain that each further number of experts may gain.
MOST_GAIN = 2
#: Fewest rows for each column of a polynomial, and most columns.
ROWS_A_COLUMN, MOST_COLUMNS = 2, 200
#: Iterations for the factor of the variances.
SCALE_STEPS = 20


def experts_where_better(
    pieces: TrainingResult,
    rows: Rows,
    options: PieceOptions,
    rng: np.random.Generator,
    report: Report | None = None,
) -> TrainingResult:
    """Shrunken experts in place of pieces where rows are a table and are predicted better.

    Parameters
    ----------
    pieces : TrainingResult
        Of `fit_pieces` on these rows.
    rng : numpy.random.Generator
        Draws the starts; left alone where rows are no table.
    """
    if not _is_table(rows, options, pieces):
        return pieces
    message = "The pieces are kept; whether others are better is not known."
    with handing_over(lambda: replace(pieces, code="interrupted", message=message)):
        return _TableChoice(pieces, rows, options, rng, report).better()


def _is_table(rows: Rows, options: PieceOptions, result: TrainingResult) -> bool:
    """Whether columns and noise are enough, and nothing is asked for that pieces alone do."""
    free = options.alpha is None and not options.soft and not options.exactly
    free &= options.space == POLYNOMIAL
    one_level = options.sizes is None or len(options.sizes) == 1
    polynomial_gates = options.gates[0].degree >= 1 and not options.gates[0].isotropic
    large = rows.n_features >= FEWEST_OF_TABLE and rows.n_rows >= LEAST_ROWS
    if not (free and one_level and polynomial_gates and large and rows.n_outputs == 1):
        return False
    if options.degree == 0:
        return False
    some = _some(rows)
    mean = result.state.components(some.X, posterior=False).expectation()
    share = some.weight / some.weight.sum()
    left = float(share @ (some.y - mean).square()[:, 0])
    return left > LEAST_RESIDUAL**2 * float(share @ some.y.square()[:, 0])


def _some(rows: Rows) -> Rows:
    """As many points as choose, drawn at random."""
    if rows.n_rows <= MOST_ROWS:
        return rows
    return with_all_targets(rows, drawn_points(rows, MOST_ROWS))


def _shuffled(rows: Rows) -> Tensor:
    order = np.random.default_rng(0).permutation(rows.n_rows)
    return torch.as_tensor(order, device=rows.X.device)


@dataclass
class _Candidate:
    """A degree and a number of experts, with what they say about left-out rows.

    Attributes
    ----------
    log_density, square : Tensor of shape (n,)
        Of every pair of point and target in the order of folds.
    factor : float
        Of the variances, that makes the former largest.
    judged : list of (Components, float)
        What the fits of the folds say of the rows they have not seen, and the least variances.
    """

    degree: int
    n_experts: int
    log_density: Tensor
    square: Tensor
    factor: float
    judged: list[tuple[Components, float]]

    def total(self, weight: Tensor) -> float:
        return float(weight @ self.log_density)


class _TableChoice:
    """Comparison of shrunken experts with each other, and of the best with pieces."""

    def __init__(
        self,
        pieces: TrainingResult,
        rows: Rows,
        options: PieceOptions,
        rng: np.random.Generator,
        report: Report | None,
    ):
        self.pieces, self.rows, self.options, self.report = pieces, rows, options, report
        self.seed = int(rng.integers(LONG_SEEDS))
        some = _some(rows)
        fold = torch.empty_like(_shuffled(some))
        fold[_shuffled(some)] = torch.arange(some.n_rows, device=fold.device) % N_FOLDS
        self.parts = [
            (with_all_targets(some, fold != k), with_all_targets(some, fold == k))
            for k in range(N_FOLDS)
        ]
        self.left_out = [judged.pairs() for _, judged in self.parts]
        self.weight = torch.cat([part.weight for part in self.left_out])

    def better(self) -> TrainingResult:
        """Experts fitted to all rows if they are better than the pieces, which are left else."""
        best = self._best()
        if not self._beats_pieces(best):
            return self.pieces
        common = CommonPolynomial(self.rows, best.degree)
        found = fit_shrunk_experts(common, best.n_experts, self._rng())
        what = f"{best.n_experts} experts that deviate from one polynomial of degree {best.degree}"
        before = [{**other, "taken": False} for other in self.pieces.chosen.get("tried", [])]
        chosen = {
            "degree": best.degree,
            "alpha": common.ridge,
            "gate": FORM,
            "tried": [*before, {"what": f"{what}, likelier at left-out rows", "taken": True}],
        }
        return replace(self.pieces, state=_scaled(found, best.factor, common.floor), chosen=chosen)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def _best(self) -> _Candidate:
        """The candidate of largest density; numbers go up as long as that rises.

        Each fold drops those that are clearly behind.
        """
        weight = self.left_out[0].weight
        commons = [CommonPolynomial(self.parts[0][0], degree) for degree in self._degrees()]
        alone = [(common, self._candidate([common], 1)) for common in commons]
        # The best first: others need not go on where they fall behind.
        alone.sort(key=lambda one: -one[1].total(weight))
        begun: list[_Candidate] = []
        for common, single in alone:
            ahead = max(one.total(weight) for one in (alone[0][1], *begun))
            begun += self._climbed(common, single, ahead)
        kept = self._not_behind(begun)
        for part, _ in self.parts[1:]:
            degrees = {one.degree for one in kept}
            of_fold = {degree: CommonPolynomial(part, degree) for degree in sorted(degrees)}
            kept = [self._candidate([of_fold[one.degree]], one.n_experts, one) for one in kept]
            kept = self._not_behind(kept)
        return max(kept, key=lambda one: one.total(self.weight))

    def _not_behind(self, found: list[_Candidate]) -> list[_Candidate]:
        """Those that the best is not clearly ahead of on the folds that all know."""
        weight = torch.cat([part.weight for part in self.left_out[: len(found[0].judged)]])
        leader = max(found, key=lambda one: one.total(weight)).log_density
        return [one for one in found if not is_gain(leader - one.log_density, weight)]

    def _climbed(
        self, common: CommonPolynomial, single: _Candidate, ahead: float
    ) -> list[_Candidate]:
        """Candidates of a degree by the first fold alone, as long as they may get ahead."""
        weight, counts = self.left_out[0].weight, self._counts()
        found: list[_Candidate] = []
        for k, count in enumerate(counts):
            found.append(single if count == 1 else self._candidate([common], count))
            value = found[-1].total(weight)
            if self.report:
                self.report(f"degree {common.degree}, {count} experts: log density {value:.6g}")
            if count == 1:
                continue
            difference = found[-1].log_density - found[-2].log_density
            further = MOST_GAIN * (len(counts) - 1 - k) * float(weight @ difference)
            if not self._rises(difference) or value + further < ahead:
                break
        return found

    def _rises(self, gain: Tensor) -> bool:
        """Whether a larger number of experts promises more by what it gains on the first fold."""
        weight = self.left_out[0].weight
        many = len(weight) >= MANY_LEFT_OUT
        return is_gain(gain, weight) if many else float(weight @ gain) > 0

    def _degrees(self) -> list[int]:
        if self.options.degree is not None:
            return [self.options.degree]
        n, d = min(others.n_rows for others, _ in self.parts), self.rows.n_features
        columns = {degree: count_columns(d, degree) for degree in DEGREES}
        most = min(n / ROWS_A_COLUMN, MOST_COLUMNS)
        return [degree for degree in DEGREES if degree == 1 or columns[degree] <= most]

    def _counts(self) -> list[int]:
        most = self.options.sizes[0] if self.options.sizes else COUNTS[-1]
        return [count for count in COUNTS if count <= most]

    def _candidate(
        self, commons: list[CommonPolynomial], n_experts: int, begun: _Candidate | None = None
    ) -> _Candidate:
        """A candidate by the first folds, or one that is `begun` by those that follow, too."""
        judged = [] if begun is None else begun.judged
        left_out = self.left_out[: len(judged) + len(commons)]
        judged = judged + [
            (fit_shrunk_experts(common, n_experts, self._rng()).components(part.X), common.floor)
            for common, part in zip(commons, left_out[len(judged) :], strict=True)
        ]
        left, y = [part for part, _ in judged], [part.y for part in left_out]
        factor = _variance_factor(left, y, torch.cat([part.weight for part in left_out]))
        densities = [
            replace(
                part,
                noise=(factor * part.noise).clamp_min(floor),
                epistemic=factor * part.epistemic,
            )
            for part, floor in judged
        ]
        return _Candidate(
            commons[0].degree,
            n_experts,
            torch.cat([part.log_density(z) for part, z in zip(densities, y, strict=True)]),
            torch.cat([_square(part, z) for part, z in zip(left, y, strict=True)]),
            factor,
            judged,
        )

    def _beats_pieces(self, best: _Candidate) -> bool:
        """Whether densities are larger and errors not, fold by fold until that is clear."""
        density, square = [], []
        options, degree = self.options, self.pieces.chosen["degree"]
        if degree:
            # Chosen on all rows: the search for it is most of the time.
            sizes = (1,) if self.pieces.chosen.get("n_pieces") == 1 else options.sizes
            options = replace(options, degree=degree, sizes=sizes)
        for (others, _), part in zip(self.parts, self.left_out, strict=True):
            mixture = fit_pieces(others, options, self._rng()).state
            found = mixture.components(part.X)
            density.append(found.log_density(part.y))
            square.append(_square(found, part.y))
            n = sum(len(value) for value in density)
            weight = self.weight[:n]
            gain = best.log_density[:n] - torch.cat(density)
            loss = best.square[:n] - torch.cat(square)
            if is_gain(-gain, weight):
                return False
            if is_gain(gain, weight):
                return not is_gain(loss, weight)
        return False


def _square(components: Components, y: Tensor) -> Tensor:
    return (y - components.expectation()).square()[:, 0]


def _variance_factor(parts: list[Components], y: list[Tensor], weight: Tensor) -> float:
    """Factor of all variances that makes the density of left-out rows largest."""
    log_pi = torch.cat([part.log_pi for part in parts])
    variance = torch.cat([part.variance[..., 0].expand_as(part.log_pi) for part in parts])
    pairs = zip(parts, y, strict=True)
    ratio = torch.cat([(z - part.mean[..., 0]).square() for part, z in pairs]) / variance
    joint = log_pi - 0.5 * variance.log()
    factor = 1.0
    for _ in range(SCALE_STEPS):
        share = torch.softmax(joint - 0.5 * ratio / factor, 1)
        factor = float(weight @ (share * ratio).sum(1) / weight.sum())
    return factor


def _scaled(mixture: Mixture, factor: float, floor: float) -> Mixture:
    """The same with all variances multiplied, those of the noise down to a floor."""
    experts = [
        Experts(part.coef, part.factor, (factor * part.noise).clamp_min(floor))
        for part in mixture.experts
    ]
    return Mixture(mixture.tree, experts, mixture.degree)
