"""Sharp gates through the roots between neighbouring models (step G), convex all the way."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.partitions.gates.logistic import MultinomialLogistic, fit_logistic
from skpou.partitions.gates.tree import GateForm, coordinate_columns
from skpou.partitions.pieces.interfaces import Interface
from skpou.partitions.pieces.problem import PieceProblem

#: Ridges of the first fit on labels alone; logits of degree > 2 stop earlier.
START_RIDGES = (1e-1, 1e-3, 1e-5, 1e-7)
#: Distance of a cut from the samples beside it, in units of round-off.
CUT_MARGIN = 400.0


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
        spare = max(limit - int(self.near.sum()), limit // 4)
        if len(far) <= spare:
            return self
        kept = self.near.clone()
        kept[far[:: -(-len(far) // spare)]] = True
        return GateSamples(self.X[kept], self.labels[kept], self.excess[kept], self.near[kept])


class SharpGate:
    """One gate: sharpened logistic regression on samples and on points beside the roots.

    Parameters
    ----------
    samples : GateSamples
        Training points.
    interface : Interface
        Roots with local class numbers.
    n_classes : int
        Number K of classes.
    form : GateForm
        Shape of the logits.
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
        delta = 0.05 * interface.spacing * interface.normal
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
        slope = ((self._ahead - self._behind) * contrast).sum(1) / (0.1 * spacing)
        value = (self._root_features * contrast).sum(1)
        tiny = torch.finfo(value.dtype).tiny
        distance = (value.abs() / (slope.abs() + tiny)).clamp_max(spacing)
        strip = (distance / spacing).clamp_max(1.0)
        cost = roots.weight.square() * (roots.slope * distance).square() * strip
        return total + 0.3 * float(cost.sum())

    def fit(self, n_stages_without_gain: int = 4) -> tuple[Tensor, float]:
        """Logits (K, q) and their score: the best over stages of growing sharpness.

        Each stage puts points at a quarter of the last distance on both sides of every root and
        scales the logits up in step. Without roots (a jump) the limit is the gate of largest
        margin.
        """
        roots = self.interface
        ridges = START_RIDGES if self.form.degree <= 2 else START_RIDGES[:3]
        ones = torch.ones_like(self.features[:, 0])
        theta = fit_logistic(self.features, self.trained.labels, self.n_classes, ones, ridges)
        best, best_score = theta, self.score(theta)
        spacing = roots.spacing
        offset = 0.25 * spacing if len(roots.roots) else spacing
        # Round-off of the points' own coordinates bounds the offset from below.
        finest = max(1e-9, 20 * torch.finfo(theta.dtype).eps)
        last = finest if len(roots.roots) > 2 else max(1e-3 * spacing, finest)
        ridge, without_gain = 1e-7, 0
        while offset > last and without_gain < n_stages_without_gain:
            problem = self._stage(offset)
            theta = problem.fit(theta, ridge, max_iter=12)
            score = self.score(theta)
            if score < best_score:
                best, best_score, without_gain = theta, score, 0
            else:
                without_gain += 1
            offset, theta, ridge = offset / 4, theta * 4, ridge / 16
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
    class of its 25 nearest samples where they agree and lie three times nearer than any root.

    Returns
    -------
    X : Tensor of shape (g, d)
    labels : Tensor of shape (g,), int64
    """
    d = problem.d
    faces = rng.random((100 * d, d))
    rows = np.arange(100 * d)
    faces[rows, rows % d] = rng.integers(0, 2, 100 * d)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=d))) if d <= 6 else faces[:0]
    points = np.concatenate([faces, corners])
    even = problem.equalise(points)
    distance, near = problem.tree.query(even, min(25, problem.n))
    near = near.reshape(len(points), -1)
    classes = labels.cpu().numpy()[near]
    clear = (classes == classes[:, :1]).all(1)
    if len(interface.roots):
        roots = problem.equalise(interface.roots.cpu().numpy())
        to_root = cKDTree(roots).query(even)[0]
        clear &= distance.reshape(len(points), -1)[:, 0] < to_root / 3
    X = torch.as_tensor(points[clear], dtype=problem.rows.X.dtype, device=labels.device)
    return X, torch.as_tensor(classes[clear, 0], device=labels.device)


def fit_sharp_gate(
    samples: GateSamples,
    interface: Interface,
    n_classes: int,
    forms: tuple[GateForm, ...],
    good_enough: float,
    guards: tuple[Tensor, Tensor] | None = None,
    gain: float = 100.0,
) -> tuple[Tensor, GateForm]:
    """Gate of the simplest form that will do.

    Parameters
    ----------
    samples : GateSamples
        Training points.
    interface : Interface
        Roots with local class numbers.
    n_classes : int
        Number K of classes.
    forms : tuple of GateForm
        Shapes to try in turn. A later one is taken only if it lowers the score `gain` times.
    good_enough : float
        Score a sample, as a root mean square, at which no other is tried.
    guards : (Tensor of shape (g, d), Tensor of shape (g,)), default=None
        Extra points of known class for degrees above 2.
    gain : float, default=100
        See `forms`.

    Returns
    -------
    theta : Tensor of shape (K, q)
    form : GateForm
    """
    found: list[tuple[Tensor, GateForm]] = []
    best_score = math.inf
    for form in forms:
        trained = samples if guards is None or form.degree <= 2 else samples.append(*guards)
        theta, score = SharpGate(trained, interface, n_classes, form).fit()
        if not found or score * gain < best_score:
            found.append((theta, form))
            best_score = score
        if math.sqrt(best_score / len(samples.X)) < good_enough:
            break
    theta, form = found[-1]
    return harden(theta), form


def interval_gate(samples: GateSamples, interface: Interface, form: GateForm) -> Tensor | None:
    """Logits (K, q) whose hard choices are intervals of the only column, cut at the roots.

    The logits ``k x - b_1 - ... - b_k`` of intervals in their order form an upper envelope whose
    corners are the cuts b: exact, however many there are.

    Parameters
    ----------
    samples : GateSamples
        Points, of one column.
    interface : Interface
        Roots; a cut without one is half way between the samples.
    form : GateForm
        Shape of the logits.

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


def harden(theta: Tensor) -> Tensor:
    """Scale logits until the choice is one of zeros and ones; their boundaries do not move."""
    largest = float(theta.abs().max())
    if not largest:
        return theta
    wanted = 1 / torch.finfo(theta.dtype).eps
    return theta * 2.0 ** math.ceil(math.log2(max(wanted / largest, 1.0)))
