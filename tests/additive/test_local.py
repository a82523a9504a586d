"""A local block beside the terms: its left-out errors against fits without the row."""

import numpy as np
import pytest
import torch

from skpou.additive.basis import Block, spline_basis
from skpou.additive.local import FittedTerms, JointResidue, TargetPairs
from skpou.additive.terms import groups_of
from skpou.core import Pairs
from skpou.core.linalg import EvidenceProblem
from skpou.core.models import LocalBlock, LocalKernel, left_out
from tests.examples import tensor


def pairs_of_points(n=70, d=3, seed=0, repeated=8):
    """Points, some of them with two targets of different weights."""
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((n, d)))
    point = torch.cat([torch.arange(n), torch.arange(repeated)]).sort().values
    weight = tensor(rng.integers(1, 4, len(point)))
    y = torch.sin(5 * X[point, 0]) + X[point, 1] + 0.3 * tensor(rng.standard_normal(len(point)))
    return X, Pairs(point, y[:, None], weight)


def merged(X, pairs):
    n = len(X)
    weight = torch.zeros(n).double().index_add_(0, pairs.point, pairs.weight)
    y = torch.zeros(n).double().index_add_(0, pairs.point, pairs.weight * pairs.y[:, 0]) / weight
    return TargetPairs(X, y, weight, pairs)


def terms_of(rows, factor, alpha, noise):
    """Terms of given variances, the weights of the pairs multiplied by a factor."""
    basis = spline_basis(rows.X, torch.ones(len(rows.X)).double(), 4, False)
    blocks = [Block((j,), (first,), (last,)) for j in range(3) for first, last in ((0, 1), (1, 4))]
    basis = basis.with_blocks(blocks)
    return basis, fitted(basis, merged(rows.X, with_weight(rows.pairs, factor)), alpha, noise)


def with_weight(pairs, factor):
    return Pairs(pairs.point, pairs.y, pairs.weight * factor)


def fitted(basis, rows, alpha, noise):
    groups = groups_of(basis.blocks, 1.0, rows.X)
    problem = EvidenceProblem(basis.matrix(rows.X), rows.y, rows.weight, 0.0, groups)
    return problem.fit(alpha, noise, 1, 0.0)


@pytest.mark.parametrize(("counts", "nugget"), [(False, 0.4), (True, 0.4), (False, 1e-3)])
def test_left_out_errors_are_those_of_fits_without_the_observation(monkeypatch, counts, nugget):
    monkeypatch.setattr("skpou.core.models.local_block.N_NEAREST", 12)
    X, pairs = pairs_of_points()
    rows = merged(X, pairs)
    factor = tensor(np.random.default_rng(1).uniform(0.5, 2, len(pairs.point)))
    alpha, noise = torch.tensor([100.0, 0.3, 0.05] * 2 + [0.2]).double(), 0.1
    basis, fit = terms_of(rows, factor, alpha, noise)
    residue = left_out(pairs, fit.fitted, fit.spread, basis.coordinates(X), factor)
    terms = FittedTerms(basis, fit, residue, factor)
    kernel = LocalKernel(tensor([4.0, 2.0, 0.0]), nugget, 0.25)
    joint = JointResidue(rows, kernel, [terms], floor=0.1 if counts else 0.0)
    found = joint.of(0, terms)
    for number in (0, 1, 9, 30):
        point = int(pairs.point[number])
        unit = 1.0 if counts else float(pairs.weight[number])
        weight = pairs.weight.clone()
        weight[number] -= unit
        kept = weight > 0
        less = Pairs(pairs.point[kept], pairs.y[kept], weight[kept])
        # Points that have lost their only target keep a place, with no weight.
        without = merged(X, Pairs(less.point, less.y, less.weight))
        used = without.weight > 0
        changed = merged(X, with_weight(less, factor[kept]))
        changed = TargetPairs(X[used], changed.y[used], changed.weight[used], less)
        again = fitted(basis, changed, alpha, noise)
        fitted_at = basis.matrix(X) @ again.coef
        left = (without.y - fitted_at)[used]
        block = LocalBlock.of_rows(kernel, X[used], without.weight[used], left[:, None])
        near = set(joint.near[point].tolist())
        # The same neighbours: with the row gone there is room for another one.
        size = len(near) if used[point] else len(near) - 1
        monkeypatch.setattr("skpou.core.models.local_block.N_NEAREST", size)
        smoothed = float(block.mean(X[point : point + 1])[0, 0])
        expected = float(pairs.y[number, 0] - fitted_at[point]) - smoothed
        assert float(found.error[number]) == pytest.approx(expected, rel=1e-3, abs=1e-4)
