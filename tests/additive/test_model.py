"""What additive models predict: means, gradients, densities and terms against dense matrices."""

import math

import numpy as np
import pytest
import torch

from skpou.additive.basis import Block, Landmarks, spline_basis
from skpou.additive.fit import AdditiveOptions, fit_additive
from skpou.additive.members import Expert, Member
from skpou.additive.model import AdditiveModel, TargetModel, columns_of, features_of
from skpou.core.models import leave_out
from skpou.core.models.residue_density import ResidueDensity
from tests.contracts import same_bits
from tests.examples import rows_of, tensor

D = 4
#: By positions in the columns kept, of which the second of the points is none.
TERMS = (
    [Block((0,), (0,), (1,)), Block((0,), (1,), (5,)), Block((1,), (0,), (1,))],
    [Block((2,), (0,), (1,)), Block((0, 2), (0, 0), (3, 2)), Block((0, 1, 2), (0,) * 3, (2,) * 3)],
)


def points(n=30, seed=5, margin=0.0):
    return tensor(np.random.default_rng(seed).uniform(-margin, 1 + margin, (n, D)))


def member(basis, share, rng, n_gates=3, noise=0.3):
    p, q = basis.n_columns, len(basis.kept) + 1
    density = ResidueDensity(
        *(tensor(part) for part in (rng.random(q), 1 + rng.random(q))),
        tensor(rng.standard_normal((q + 1, n_gates))),
        tensor(rng.uniform(0.1, 1.0, n_gates)),
    )
    root = tensor(np.triu(rng.standard_normal((p, p))) / p)
    dof = tensor(rng.random(len(basis.blocks)))
    return Member(tensor(rng.standard_normal(p)), root, noise, dof, share, density)


def make_target(shares=((0.2, 0.3), (0.5,)), remainder=True, seed=0):
    """Two experts over terms of their own, and as many members as shares."""
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((60, D)))
    X[:, 1] = 1.0
    bare = spline_basis(X, torch.ones(60).double(), 6, True)
    assert bare.kept == (0, 2, 3)
    experts = []
    for blocks, part in zip(TERMS, shares, strict=False):
        landmarks = None
        if remainder:
            T = bare.coordinates(X)
            landmarks = Landmarks.from_rows(0.5 * torch.eye(3).double(), T[:9], 7)
            blocks = [*blocks, Block((-1,), (0,), (landmarks.n_columns,))]
        basis = bare.with_blocks(blocks, landmarks)
        experts.append(Expert(basis, tuple(member(basis, share, rng) for share in part)))
    return TargetModel(tuple(experts), 1.7)


def members_of(target):
    return [(expert.basis, m) for expert in target.experts for m in expert.members]


# Mean and gradient


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_mean_is_the_shared_one_of_all_members(margin):
    target, X = make_target(), points(margin=margin)
    expected = sum(m.share * (basis.matrix(X) @ m.coef) for basis, m in members_of(target))
    torch.testing.assert_close(target.mean(X), expected)
    found = target.components(X)
    torch.testing.assert_close(found.log_pi.exp().sum(1), torch.ones(30).double())
    torch.testing.assert_close(found.expectation()[:, 0], expected)


def test_gradient_against_differences():
    target, X, step = make_target(), points(margin=0.1), 1e-6
    gradient = target.gradient(X)
    for j in range(D):
        move = step * torch.eye(D).double()[j]
        expected = (target.mean(X + move) - target.mean(X - move)) / (2 * step)
        torch.testing.assert_close(gradient[:, j], expected, rtol=1e-6, atol=1e-6)
    assert not gradient[:, 1].any()


def test_points_in_single_precision():
    target, X = make_target(), points().float()
    assert target.mean(X).dtype == target.gradient(X).dtype == torch.float64
    torch.testing.assert_close(target.mean(X), target.mean(X.double()))
    torch.testing.assert_close(target.gradient(X), target.gradient(X.double()))


# Density


def test_components_in_the_box_against_dense_matrices():
    target, X = make_target(), points()
    found, start = target.components(X), 0
    for basis, m in members_of(target):
        F, T = basis.matrix(X), basis.coordinates(X)
        mean = F @ m.coef
        Z = (torch.cat([T, mean[:, None]], 1) - m.density.centre) / m.density.width
        Z = torch.cat([torch.ones(30, 1).double(), Z.clamp(-4, 4)], 1)
        gates = m.share * torch.softmax(Z @ m.density.gates, 1)
        spread = torch.einsum("np,pq,nq->n", F, m.root @ m.root.T, F) / m.noise
        part = slice(start, start + 3)
        torch.testing.assert_close(found.log_pi[:, part].exp(), gates)
        torch.testing.assert_close(found.mean[:, part, 0], mean[:, None].expand(-1, 3))
        torch.testing.assert_close(found.noise[:, part, 0], m.density.variance.expand(30, -1))
        told, known = spread[:, None] * m.density.variance, spread[:, None] * m.noise
        expected = torch.minimum(told, known + m.density.variance.clamp_min(1))
        torch.testing.assert_close(found.epistemic[:, part, 0], expected)
        start += 3
    bare = target.components(X, posterior=False)
    assert not bare.epistemic.any()
    assert torch.equal(bare.log_pi, found.log_pi)


@pytest.mark.parametrize("noise", [1e-6, 0.3, 40.0])
def test_deviation_outside_the_box_grows_by_the_slope(noise):
    """Whatever the variance in the fit that the posterior belongs to."""
    rng = np.random.default_rng(0)
    target = make_target()
    experts = tuple(
        Expert(e.basis, (member(e.basis, 0.5, rng, noise=noise),)) for e in target.experts
    )
    target = TargetModel(experts, 1.7)
    X = points(margin=2.0)
    inside = X.clamp(0, 1)
    square = (X - inside).square().sum(1)
    assert (square > 0).any()
    grown = target.components(X).epistemic - target.components(inside).epistemic
    scale = target.components(inside).epistemic.max()
    expected = (1.7**2 * square)[:, None, None].expand_as(grown)
    torch.testing.assert_close(grown, expected, rtol=1e-9, atol=1e-12 * float(scale))


def test_deviation_of_a_fit_without_noise_is_bounded_by_the_spread_of_y():
    """Its errors at left-out rows are the density's: in proportion to no noise they are all."""
    rng, (expert, _) = np.random.default_rng(0), make_target().experts
    exact = member(expert.basis, 1.0, rng, n_gates=1, noise=1e-30)
    target, X = TargetModel((Expert(expert.basis, (exact,)),), 1.7), points()
    known = (expert.basis.matrix(X) @ exact.root).square().sum(1)
    expected = known + exact.density.variance.clamp_min(1)
    torch.testing.assert_close(target.components(X).epistemic[:, 0, 0], expected)
    torch.testing.assert_close(target.covariance(X).diagonal(), expected)


def test_gates_and_posterior_outside_are_those_of_the_nearest_point():
    target, X = make_target(), points(margin=2.0)
    far, near = (target.components(part) for part in (X, X.clamp(0, 1)))
    torch.testing.assert_close(far.log_pi, near.log_pi)
    torch.testing.assert_close(far.noise, near.noise)
    flat = TargetModel(target.experts, 0.0)
    torch.testing.assert_close(flat.components(X).epistemic, near.epistemic)


# Terms


def test_terms_add_up_to_the_mean():
    target, X = make_target(), points()
    terms = [(0,), (2,), (3,), (0, 3), (0, 2, 3)]
    assert target.terms() == terms
    values = target.term_values(X, posterior=True)
    constant = sum(m.share * m.coef[0] for _, m in members_of(target))
    total = constant + sum(part[:, 0] for part in values.values())
    torch.testing.assert_close(total, target.mean(X))


def test_a_term_depends_on_its_columns_alone():
    target, X = make_target(remainder=False), points()
    values, other = target.term_values(X, True), points(seed=6)
    for term, value in values.items():
        moved = other.clone()
        moved[:, list(term)] = X[:, list(term)]
        torch.testing.assert_close(target.term_values(moved, True)[term], value)
        assert (target.term_values(other, True)[term] - value).abs().min(1).values.max() > 0


@pytest.mark.parametrize("remainder", [False, True])
def test_variance_of_a_term_is_that_of_its_coefficients(remainder):
    target, X = make_target(((1.0,),), remainder), points()
    basis, m = members_of(target)[0]
    F, covariance = basis.matrix(X), m.root @ m.root.T
    starts = np.cumsum([1] + [block.size for block in basis.blocks])
    expected = {}
    for number, block in enumerate(basis.blocks):
        term = tuple(basis.kept[j] for j in block.columns) if block.order else basis.kept
        columns = range(starts[number], starts[number + 1])
        expected.setdefault(term, []).extend(columns)
    assert columns_of(basis) == expected
    values = target.term_values(X, posterior=True)
    assert values.keys() == expected.keys()
    for term, c in expected.items():
        torch.testing.assert_close(values[term][:, 0], F[:, c] @ m.coef[c])
        variance = torch.einsum("np,pq,nq->n", F[:, c], covariance[c][:, c], F[:, c])
        torch.testing.assert_close(values[term][:, 1], variance)
    assert not any(part[:, 1].any() for part in target.term_values(X, False).values())


def test_degrees_of_freedom_of_blocks_go_to_their_terms():
    target = make_target()
    dof = target.dof()
    assert list(dof) == target.terms()
    total = sum(m.share * float(m.dof.sum()) for _, m in members_of(target))
    assert sum(dof.values()) == pytest.approx(total)
    first, second = target.experts[0].members
    assert dof[(0,)] == pytest.approx(0.2 * first.dof[:2].sum() + 0.3 * second.dof[:2].sum())
    assert dof[(3,)] == pytest.approx(0.5 * target.experts[1].members[0].dof[0])
    assert features_of(target.experts[0].basis, 3) == (0, 2, 3)


# Several targets


@pytest.fixture
def model():
    return AdditiveModel([make_target(), make_target(((0.6, 0.4),), remainder=False, seed=1)])


def test_several_targets_are_one_by_one(model):
    X, y = points(margin=0.2), tensor(np.random.default_rng(0).standard_normal((30, 2)))
    alone = [AdditiveModel([target]) for target in model.targets]
    for name in ("mean", "gradient"):
        parts = torch.cat([getattr(one, name)(X) for one in alone], -1)
        assert same_bits(getattr(model, name)(X), parts), name
    both, single = model.components(X), [one.components(X) for one in alone]
    for found, parts in zip(both.variances(), zip(*(c.variances() for c in single)), strict=True):
        torch.testing.assert_close(found, torch.cat(parts, 1))
    density = sum(c.log_density(y[:, k : k + 1]) for k, c in enumerate(single))
    torch.testing.assert_close(both.log_density(y), density)
    quantiles = torch.cat([c.quantiles(tensor([0.1, 0.5])) for c in single], 2)
    torch.testing.assert_close(both.quantiles(tensor([0.1, 0.5])), quantiles)


def test_terms_that_a_target_has_not_got_are_zero(model):
    X, terms = points(), [(0,), (0, 2, 3), (1, 2)]
    value, variance = model.term_values(terms, X, posterior=True)
    assert value.shape == variance.shape == (30, 3, 2)
    assert not value[:, 2].any()
    assert not value[:, 1, 1].any()
    for k, target in enumerate(model.targets):
        found = target.term_values(X, True)[(0,)]
        assert torch.equal(torch.stack([value[:, 0, k], variance[:, 0, k]], 1), found)


def test_means_and_noise_over_weighted_rows(model):
    rng = np.random.default_rng(0)
    X, weight = points(), tensor(rng.integers(1, 4, 30))
    terms = model.targets[0].terms()
    every = X.repeat_interleave(weight.long(), 0)
    means, variances = model.term_moments(terms, X, weight)
    torch.testing.assert_close(means[:, :-1], model.term_values(terms, every, False)[0].mean(0).T)
    torch.testing.assert_close(means[:, -1], model.mean(every).mean(0))
    torch.testing.assert_close(variances[:, -1], model.mean(every).var(0, correction=0))
    values = model.term_values(terms, every, False)[0]
    torch.testing.assert_close(variances[:, :-1], values.var(0, correction=0).T)
    noise = model.components(every, False).variances()[0].mean(0).sqrt()
    torch.testing.assert_close(model.noise(X, weight), noise)
    # Every fourth row, where there are more than asked for.
    torch.testing.assert_close(
        model.term_moments(terms, X, weight, 10), model.term_moments(terms, X[::3], weight[::3])
    )
    torch.testing.assert_close(model.noise(X, weight, 9), model.noise(X[::4], weight[::4]))


def test_state_survives_as_arrays(model):
    X = points(margin=0.2)
    arrays = model.arrays()
    again = AdditiveModel.from_arrays(arrays, X)
    assert same_bits(again.mean(X), model.mean(X))
    for name in ("log_pi", "mean", "noise", "epistemic"):
        parts = (getattr(m.components(X), name) for m in (again, model))
        assert same_bits(*parts), name
    assert [t.terms() for t in again.targets] == [t.terms() for t in model.targets]
    assert [t.dof() for t in again.targets] == [t.dof() for t in model.targets]
    widest = max(expert.basis.n_columns for t in model.targets for expert in t.experts)
    assert again.numbers_per_row() == model.numbers_per_row() >= widest
    assert math.isfinite(again.targets[0].slope)


def test_left_out_errors_of_a_table_are_those_of_its_noise():
    # Rows that the density weights would have more leverage than is theirs: errors of many spreads.
    rng = np.random.default_rng(0)
    X = rng.random((150, 5))
    noise = np.where(rng.random(150) < 0.3, 0.5, 0.02) * rng.standard_normal(150)
    rows = rows_of(X, np.sin(5 * X[:, 0]) + X[:, 1] * X[:, 2] + noise)
    model = fit_additive(rows, AdditiveOptions(), rng).state
    (left_out,) = leave_out(model.residual_makers(rows), rows)
    in_folds = left_out.group < left_out.n_folds
    square = np.mean(left_out.error[in_folds] ** 2)
    assert square < 2 * np.mean(noise**2)


def test_left_out_errors_of_scattered_rows_are_those_of_equal_weights():
    rng = np.random.default_rng(3)
    X = rng.random((24, 2))
    noise = 0.1 * rng.standard_normal(24)
    rows = rows_of(X, np.sin(4 * X[:, 0]) + X[:, 1] + noise)
    model = fit_additive(rows, AdditiveOptions(), rng).state
    ((maker, *_),) = model.residual_makers(rows)
    # The influence of a least-squares fit with a ridge takes at most the whole of a row.
    assert float(torch.linalg.matrix_norm(maker.influence(), 2)) <= 1 + 1e-9
    (left_out,) = leave_out([[maker]], rows)
    in_folds = left_out.group < left_out.n_folds
    assert np.sqrt(np.mean(left_out.error[in_folds] ** 2)) < 0.5


def test_a_constant_in_place_of_terms_is_known_as_the_rows_tell_it():
    target, X = make_target(), points()
    first = target.experts[0].members[0]
    noise, epistemic = AdditiveModel([target.constant()]).components(X).variances()
    torch.testing.assert_close(noise, torch.ones_like(noise))
    known = first.root[0, 0].square() / first.noise
    torch.testing.assert_close(epistemic, known.expand_as(epistemic))
