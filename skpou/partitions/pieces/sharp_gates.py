"""Sharp gates through the roots between neighbouring models (step G), convex all the way."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import TotalDegreePolynomials
from skpou.core.linalg import evenly
from skpou.partitions.gates.logistic import RIDGES, MultinomialLogistic, fit_logistic
from skpou.partitions.gates.tree import GateForm, coordinate_columns
from skpou.partitions.pieces.interfaces import Interface, NodeModels
from skpou.partitions.pieces.problem import PieceProblem

#: Distance of a cut from the samples beside it, in units of round-off.
CUT_MARGIN = 400.0
#: Degree of logits from which guards are needed and the last ridge is left out: beyond quadrics
#: they have level sets away from the samples.
CURVED = 3
#: Share of the samples' limit that those away from other classes have at least: the mass.
FAR_SHARE = 1 / 4
#: Distance, in units of the samples' spacing, over which a gate's slope at a root is measured.
SLOPE_STEP = 0.05
#: Part of the largest square that is the mean over the strip of a misplaced root, whose error rises
#: from zero: about a third.
ROOT_SHARE = 0.3
#: First distance of the points beside the roots, in units of the spacing, and its quotient from
#: stage to stage: logits grow by it, and their ridge falls by its square.
FIRST_OFFSET, SHARPER = 0.25, 4
#: Least distances: of coordinates of size 1, in units of round-off, and in units of the spacing
#: where two roots alone leave the gate's direction open.
FINEST, ROUND_OFF_STEPS, FINEST_OF_FEW = 1e-9, 20, 1e-3
#: Newton steps of each stage, which begins at the last one's logits, and stages in a row without a
#: lower score that end them: the points beside the roots are 256 times nearer by then.
STAGE_STEPS, STAGES_WITHOUT_GAIN = 12, 4
#: Share of a score to be beaten that points at their distance from the roots may make up, for a
#: gate that has not come below it to be given up.
NEAR_ENOUGH = 0.1
#: Factor by which a form must lower the score to be worth its coefficients: a tenth of the error.
GAIN = 100.0
#: Guards for each column on the faces, and the most columns whose corners, 2^d of them, are some.
FACE_POINTS, MOST_CORNERED = 100, 6
#: Coefficients beyond a gate's degree, in units of round-off, that polynomials of the same highest
#: powers still differ by.
BEYOND_ROUND_OFF = 1e4
#: Samples around a guard that must agree, and how much nearer than a root the first must be.
AGREEING, NEARER = 25, 3


@dataclass
class GateSamples:
    """What a gate is trained on: points, their classes, and the cost of a wrong class.

    Attributes
    ----------
    X : Tensor of shape (n, d)
        Points.
    labels : Tensor of shape (n,), int64
        Class of each point, 0 .. K-1.
    excess : Tensor of shape (n, K)
        Growth of the weighted squared residual when a point goes to a class.
    near : Tensor of shape (n,), bool
        Points near another class; the others matter only in the mass.
    """

    X: Tensor
    labels: Tensor
    excess: Tensor
    near: Tensor

    def append(self, X: Tensor, labels: Tensor) -> GateSamples:
        """Add guards: points of known class whose misplacement costs one unit each."""
        cost = torch.ones((len(X), self.excess.shape[1]), dtype=X.dtype, device=X.device)
        cost[torch.arange(len(X), device=X.device), labels] = 0.0
        return GateSamples(
            torch.cat([self.X, X]),
            torch.cat([self.labels, labels]),
            torch.cat([self.excess, cost]),
            torch.cat([self.near, torch.ones_like(labels, dtype=torch.bool)]),
        )

    def thinned(self, limit: int) -> GateSamples:
        """Keep all near points and an even selection of the others, about `limit` in all."""
        far = torch.nonzero(~self.near).squeeze(1)
        spare = max(limit - int(self.near.sum()), int(FAR_SHARE * limit))
        if len(far) <= spare:
            return self
        kept = self.near.clone()
        kept[far[evenly(len(far), spare)]] = True
        return GateSamples(self.X[kept], self.labels[kept], self.excess[kept], self.near[kept])


class SharpGate:
    """One gate: sharpened logistic regression on samples and on points beside the roots.

    Parameters
    ----------
    interface : Interface
        Roots with local class numbers.
    """

    #: Samples beyond which only those near an interface, and a selection, enter the solves.
    most_samples = 20_000

    def __init__(self, samples: GateSamples, interface: Interface, n_classes: int, form: GateForm):
        self.samples = samples
        self.interface = interface
        self.n_classes = n_classes
        self.form = form
        self.basis = form.basis(samples.X.shape[1])
        self.trained = samples.thinned(self.most_samples)
        self.features = self.basis.matrix(self.trained.X)
        self.every_feature = (
            self.features if self.trained is samples else self.basis.matrix(samples.X)
        )
        self._root_features = self.basis.matrix(interface.roots)
        delta = SLOPE_STEP * interface.spacing * interface.normal
        self._ahead = self.basis.matrix(interface.roots + delta)
        self._behind = self.basis.matrix(interface.roots - delta)

    def score(self, theta: Tensor) -> float:
        """Excess residual of hard choices on the samples, and of misplaced roots.

        A root at distance delta from the gate's own boundary lets the wrong model, wrong by
        slope * delta, act on a strip of that width.
        """
        chosen = (self.every_feature @ theta.T).argmax(1, keepdim=True)
        total = float(self.samples.excess.gather(1, chosen).sum())
        roots = self.interface
        if not len(roots.roots):
            return total
        contrast = theta[roots.first] - theta[roots.second]
        spacing = roots.spacing
        slope = ((self._ahead - self._behind) * contrast).sum(1) / (2 * SLOPE_STEP * spacing)
        value = (self._root_features * contrast).sum(1)
        tiny = torch.finfo(value.dtype).tiny
        distance = (value.abs() / (slope.abs() + tiny)).clamp_max(spacing)
        return total + self._misplaced(distance)

    def _misplaced(self, distance: Tensor) -> float:
        """Excess residual where every root lies at a distance from the gate's own boundary."""
        roots = self.interface
        strip = (distance / roots.spacing).clamp_max(1.0)
        cost = roots.weight.square() * (roots.slope * distance).square() * strip
        return ROOT_SHARE * float(cost.sum())

    def fit(
        self, n_stages_without_gain: int = STAGES_WITHOUT_GAIN, beaten: float = math.inf
    ) -> tuple[Tensor, float]:
        """Logits (K, q) and their score: the best over stages of growing sharpness.

        Each stage puts points on both sides of every root, ever nearer to it, and
        scales the logits up in step. Without roots (a jump) the limit is the gate of largest
        margin. Stages end, too, where points are nearer to the roots than a score to be `beaten`
        allows, and the score has not come below it.
        """
        roots = self.interface
        ridges = RIDGES[:-1] if self.form.degree >= CURVED else RIDGES
        ones = torch.ones_like(self.features[:, 0])
        theta = fit_logistic(self.features, self.trained.labels, self.n_classes, ones, ridges)
        best, best_score = theta, self.score(theta)
        spacing = roots.spacing
        offset = FIRST_OFFSET * spacing if len(roots.roots) else spacing
        # Round-off of the points' own coordinates bounds the offset from below.
        finest = max(FINEST, ROUND_OFF_STEPS * torch.finfo(theta.dtype).eps)
        last = finest if len(roots.roots) > 2 else max(FINEST_OF_FEW * spacing, finest)
        ridge, without_gain = RIDGES[-1], 0
        while offset > last and without_gain < n_stages_without_gain:
            problem = self._stage(offset)
            theta = problem.fit(theta, ridge, max_iter=STAGE_STEPS)
            score = self.score(theta)
            if score < best_score:
                best, best_score, without_gain = theta, score, 0
            else:
                without_gain += 1
            near = self._misplaced(torch.full_like(roots.slope, offset)) < NEAR_ENOUGH * beaten
            if len(roots.roots) and near and best_score >= beaten:
                break
            offset, theta, ridge = offset / SHARPER, theta * SHARPER, ridge / SHARPER**2
        return best, best_score

    def _stage(self, offset: float) -> MultinomialLogistic:
        """Logistic problem with points at `offset` on both sides of every root."""
        roots = self.interface
        step = offset * roots.normal
        features = [
            self.features,
            self.basis.matrix(roots.roots + step),
            self.basis.matrix(roots.roots - step),
        ]
        labels = torch.cat([self.trained.labels, roots.first, roots.second])
        weight = torch.cat([torch.ones_like(self.features[:, 0]), roots.weight, roots.weight])
        return MultinomialLogistic(torch.cat(features), labels, self.n_classes, weight)


def guard_points(
    problem: PieceProblem, labels: Tensor, interface: Interface, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Points on faces and corners of the box whose class is beyond doubt.

    Logits of degree 3 and more may have level sets away from the samples. A guard takes the
    class of its nearest samples where they agree and lie clearly nearer than any root.

    Returns
    -------
    X : Tensor of shape (g, d)
    labels : Tensor of shape (g,), int64
    """
    d = problem.d
    n_points = FACE_POINTS * d
    faces = rng.random((n_points, d))
    rows = np.arange(n_points)
    faces[rows, rows % d] = rng.integers(0, 2, n_points)
    corners = list(itertools.product((0.0, 1.0), repeat=d)) if d <= MOST_CORNERED else []
    points = np.concatenate([faces, np.array(corners).reshape(-1, d)])
    even = problem.equalise(points)
    distance, near = problem.tree.query(even, min(AGREEING, problem.n))
    near = near.reshape(len(points), -1)
    classes = labels.cpu().numpy()[near]
    clear = (classes == classes[:, :1]).all(1)
    if len(interface.roots):
        roots = problem.equalise(interface.roots.cpu().numpy())
        to_root = cKDTree(roots).query(even)[0]
        clear &= distance.reshape(len(points), -1)[:, 0] < to_root / NEARER
    X = torch.as_tensor(points[clear], dtype=problem.rows.X.dtype, device=labels.device)
    return X, torch.as_tensor(classes[clear, 0], device=labels.device)


def fit_sharp_gate(
    samples: GateSamples,
    interface: Interface,
    n_classes: int,
    forms: tuple[GateForm, ...],
    good_enough: float,
    guards: tuple[Tensor, Tensor] | None = None,
    noise: float = 0.0,
) -> tuple[Tensor, GateForm]:
    """Gate of the simplest form that will do.

    Parameters
    ----------
    interface : Interface
        Roots with local class numbers.
    forms : tuple of GateForm
        Shapes to try in turn. A later one is taken only if it lowers the score `GAIN` times.
    good_enough : float
        Score a sample, as a root mean square, at which no other is tried.
    guards : (Tensor of shape (g, d), Tensor of shape (g,)), default=None
        Extra points of known class for degrees above 2.
    noise : float, default=0
        Variance of the noise: boundaries are straight where it tells of no curved ones.

    Returns
    -------
    theta : Tensor of shape (K, q)
    form : GateForm
    """
    straight = None
    if forms[0].degree > 1:
        straight = _StraightGate(samples, interface, n_classes, noise)
        if straight.is_enough(forms[0], 0.0):
            return straight.in_form(forms[0])
    found: list[tuple[Tensor, GateForm]] = []
    best_score = math.inf
    for form in forms:
        trained = samples if guards is None or form.degree < CURVED else samples.append(*guards)
        theta, score = SharpGate(trained, interface, n_classes, form).fit(beaten=best_score / GAIN)
        if not found or score * GAIN < best_score:
            found.append((theta, form))
            best_score = score
        if math.sqrt(best_score / len(samples.X)) < good_enough:
            break
    theta, form = found[-1]
    if straight is not None and straight.is_enough(form, best_score):
        return straight.in_form(forms[0])
    return harden(theta), form


class _StraightGate:
    """A gate with straight boundaries, and what those of others must lower its score by.

    Curved ones have other branches, which enter corners without rows. They are worth it where the
    score falls by what their coefficients cost in Schwarz's criterion.
    """

    def __init__(self, samples: GateSamples, interface: Interface, n_classes: int, noise: float):
        gate = SharpGate(samples, interface, n_classes, GateForm(1))
        self.theta, self.score = gate.fit()
        self.basis = gate.basis
        #: Squared residual that a coefficient of a logit costs; those of one class are zero.
        self.price = noise * (n_classes - 1) * math.log(len(samples.X))

    def is_enough(self, form: GateForm, score: float) -> bool:
        """Whether a gate of another form and its score are not worth its coefficients."""
        more = form.basis(self.basis.n_features).n_columns - self.basis.n_columns
        return self.score <= score + self.price * more

    def in_form(self, form: GateForm) -> tuple[Tensor, GateForm]:
        """Hard logits (K, q) in the basis of a form of a higher degree."""
        basis = form.basis(self.basis.n_features)
        theta = self.theta.new_zeros((len(self.theta), basis.n_columns))
        own = [0, *coordinate_columns(self.basis)]
        theta[:, [0, *coordinate_columns(basis)]] = self.theta[:, own]
        return harden(theta), form


def interval_gate(samples: GateSamples, interface: Interface, form: GateForm) -> Tensor | None:
    """Logits (K, q) whose hard choices are intervals of the only column, cut at the roots.

    The logits ``k x - b_1 - ... - b_k`` of intervals in their order form an upper envelope whose
    corners are the cuts b: exact, however many there are.

    Parameters
    ----------
    interface : Interface
        Roots; a cut without one is half way between the samples.

    Returns
    -------
    Tensor or None
        None where classes are no intervals.
    """
    order = torch.argsort(samples.X[:, 0], stable=True)
    x, labels = samples.X[order, 0], samples.labels[order]
    at = torch.nonzero(labels[1:] != labels[:-1]).squeeze(1)
    classes = torch.cat([labels[:1], labels[at + 1]])
    if len(classes) != len(labels.unique()):
        return None
    low, high, roots = x[at], x[at + 1], interface.roots[:, 0]
    cuts = 0.5 * (low + high)
    for k in range(len(at)):
        inside = (roots >= low[k]) & (roots <= high[k])
        if bool(inside.any()):
            cuts[k] = roots[inside].median()
    # Beyond round-off of the sums of cuts: the samples stay on their sides.
    margin = CUT_MARGIN * torch.finfo(x.dtype).eps
    cuts = torch.maximum(torch.minimum(cuts, high - margin), low + margin)
    basis = form.basis(1)
    theta = x.new_zeros((len(classes), basis.n_columns))
    steps = torch.arange(len(classes), dtype=x.dtype, device=x.device)
    # The basis holds the coordinate as 2 x - 1.
    theta[classes, coordinate_columns(basis)[0]] = 0.5 * steps
    theta[classes, 0] = 0.5 * steps - torch.cat([cuts.new_zeros(1), cuts.cumsum(0)])
    return theta


def envelope_gates(models: NodeModels, children: Tensor, form: GateForm) -> list[Tensor]:
    """Logits (K, q) of the largest and of the smallest of polynomials: the polynomials themselves.

    Where pieces are such an envelope it is known, also in corners where there are no rows, which
    curves through roots alone may enter with a second branch. Targets that kink together do so
    where the one of the largest differences does.

    Parameters
    ----------
    children : Tensor of shape (K,), int64
        The pieces among which to choose.

    Returns
    -------
    list of Tensor
        Empty where the logits cannot hold the polynomials' differences.
    """
    basis = form.basis(models.basis.n_features)
    if models.degree_along() is None or not isinstance(basis, TotalDegreePolynomials):
        return []
    difference = models.coef[children] - models.coef[children].mean(0)
    size = difference.square().sum((0, 1))
    difference = difference[:, :, int(size.argmax())]
    # A basis of lower degree is a prefix.
    kept, beyond = difference[:, : basis.n_columns], difference[:, basis.n_columns :]
    digits = BEYOND_ROUND_OFF * torch.finfo(kept.dtype).eps
    if not bool(kept.any()) or float(beyond.abs().sum()) > digits * float(kept.abs().max()):
        return []
    theta = kept.new_zeros((len(kept), basis.n_columns))
    theta[:, : kept.shape[1]] = kept
    return [theta, -theta]


def harden(theta: Tensor) -> Tensor:
    """Scale logits until the choice is one of zeros and ones; their boundaries do not move."""
    largest = float(theta.abs().max())
    if not largest:
        return theta
    wanted = 1 / torch.finfo(theta.dtype).eps
    return theta * 2.0 ** math.ceil(math.log2(max(wanted / largest, 1.0)))
