"""Terms of additive models: priors of groups, limits on columns, ranks of pairs, growth."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from skpou.additive import terms as additive_terms
from skpou.additive.basis import Block, Landmarks, spline_basis
from skpou.additive.terms import (
    CONSTANT_VARIANCE,
    FIRST_VARIANCE,
    LINE,
    PAIR,
    REMAINDER,
    SPLINE,
    TRIPLE,
    Start,
    TargetRows,
    TermSearch,
    first_variances,
    groups_of,
    kind_of,
)
from tests.examples import tensor

BLOCKS = {
    LINE: Block((1,), (0,), (1,)),
    SPLINE: Block((1,), (1,), (5,)),
    PAIR: Block((0, 2), (0, 0), (3, 2)),
    TRIPLE: Block((0, 1, 2), (0, 0, 0), (2, 3, 2)),
    REMAINDER: Block((-1,), (0,), (6,)),
}


def draw(function, n, d, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = function(2 * X - 1) + noise * rng.standard_normal(n)
    weight = tensor(rng.integers(1, 4, n))
    return TargetRows(tensor(X), tensor((y - y.mean()) / y.std()), weight, 0.5)


def search_of(rows, n_splines=6, max_order=3, max_columns=800):
    basis = spline_basis(rows.X, rows.weight, 12, False)
    return TermSearch(rows, basis, n_splines, max_order, max_columns, 100)


def busy(X):
    return np.sin(4 * X[:, 0]) + X[:, 1] * X[:, 2] + X[:, 0] * X[:, 2]


# Priors


@pytest.mark.parametrize("decay", [1.0, 2.0])
def test_prior_variance_falls_with_the_order_of_every_function(decay):
    groups = groups_of(list(BLOCKS.values()), decay, torch.zeros(1).double())
    assert groups.kind.tolist() == [0, *BLOCKS]
    orders = [
        [(1,)],
        [(1,)],
        # The line is apart: the splines of the column begin again.
        [(k,) for k in range(1, 5)],
        itertools.product([1, 2, 3], [1, 2]),
        itertools.product([1, 2], [1, 2, 3], [1, 2]),
        [(1,)] * 6,
    ]
    flat = [
        (g, math.prod(order) ** (-2 * decay)) for g, part in enumerate(orders) for order in part
    ]
    assert groups.index.tolist() == [g for g, _ in flat]
    np.testing.assert_allclose(groups.shape, [shape for _, shape in flat], rtol=1e-14)


def test_shapes_are_in_the_order_of_the_columns():
    """Columns of a product whose functions are the orders themselves show which is which."""
    rows = draw(busy, 50, 3)
    basis = spline_basis(rows.X, rows.weight, 4, False)
    basis = basis.with_blocks([BLOCKS[PAIR], BLOCKS[TRIPLE]])
    orders = [torch.arange(1.0, c.n_functions + 1)[None].double() for c in basis.columns]
    powers = basis.from_functions(orders, torch.zeros((1, 3)).double())[0]
    groups = groups_of(basis.blocks, 0.5, powers)
    torch.testing.assert_close(groups.shape, 1 / powers)


def test_first_variance_is_that_of_the_values_of_a_term():
    rows = draw(busy, 400, 3)
    basis = spline_basis(rows.X, rows.weight, 8, False).with_blocks(list(BLOCKS.values())[:3])
    groups = groups_of(basis.blocks, 1.5, rows.X)
    prior = first_variances(groups)[groups.index] * groups.shape
    F = basis.matrix(rows.X)
    square = (rows.weight / rows.weight.sum()) @ F.square()
    for number, kind in enumerate(groups.kind.tolist()):
        own, expected = groups.index == number, FIRST_VARIANCE.get(kind, CONSTANT_VARIANCE)
        assert float(prior[own].sum()) == pytest.approx(expected, rel=1e-12)
        if kind != PAIR:  # Functions of one column have unit variance over the rows.
            assert float(square[own] @ prior[own]) == pytest.approx(expected, rel=1e-9)


def test_kinds():
    assert [kind_of(block) for block in BLOCKS.values()] == list(BLOCKS)


# Fits


@pytest.fixture(scope="module")
def task():
    return search_of(draw(busy, 120, 3))


def test_score_is_the_evidence_of_a_gaussian_less_the_terms(task):
    """Of all observations: what repeated targets differ by is one Gaussian more."""
    scores = []
    for blocks in ([BLOCKS[LINE]], [BLOCKS[LINE], BLOCKS[SPLINE]], list(BLOCKS.values())[:4]):
        candidate = task.fit(task.basis.with_blocks(blocks), 1.5)
        fit, groups, weight = candidate.fit, candidate.groups, task.rows.weight.numpy()
        prior = (fit.alpha[groups.index] * groups.shape).numpy()
        F = task.matrix(candidate.basis).numpy()
        covariance = F * prior @ F.T + fit.noise * np.diag(1 / weight)
        density = multivariate_normal.logpdf(task.rows.y.numpy(), cov=covariance)
        free = weight.sum() - len(weight)
        density -= 0.5 * (free * math.log(fit.noise) + task.rows.within / fit.noise)
        scores.append(candidate.score - density + len(blocks))
    np.testing.assert_allclose(scores, scores[0], rtol=1e-9)


def test_rows_do_not_carry_many_degrees_of_freedom(monkeypatch, task):
    basis = task.basis.with_blocks([BLOCKS[LINE], BLOCKS[SPLINE]])
    expected = task.fit(basis, 1.0)
    for share, scored in ((1.001, True), (0.999, False)):
        monkeypatch.setattr(additive_terms, "LARGEST_SHARE", share * expected.fit.total_dof / 120)
        assert (task.fit(basis, 1.0).score > -math.inf) == scored


def test_start_keeps_the_variances_of_terms_that_stay(monkeypatch, task):
    monkeypatch.setattr(additive_terms, "WARM", 1)
    first = task.fit(task.basis.with_blocks([BLOCKS[LINE], BLOCKS[SPLINE], BLOCKS[PAIR]]), 1.0)
    finer = Block((0, 2), (0, 0), (4, 3))
    basis = task.basis.with_blocks([finer, BLOCKS[LINE], BLOCKS[TRIPLE]])
    second = task.fit(basis, 1.0, first.start(), 1)
    fresh = first_variances(groups_of(basis.blocks, 1.0, task.T))
    expected = [first.fit.alpha[0], first.fit.alpha[3], first.fit.alpha[1], fresh[3]]
    np.testing.assert_allclose(second.fit.alpha, expected, rtol=1e-14)
    assert second.fit.noise == first.fit.noise
    idle = Start({BLOCKS[LINE].key: 1e-14}, 1.0, 0.5)
    (_, alpha) = task.fit(task.basis.with_blocks([BLOCKS[LINE]]), 1.0, idle, 1).fit.alpha
    assert alpha == pytest.approx(1e-3 * FIRST_VARIANCE[LINE])


def test_units_of_the_weights_do_not_move_ranks(task):
    rows = task.rows
    candidate = task.fit(task.basis.with_blocks([BLOCKS[LINE]]), 1.0)
    other = search_of(TargetRows(rows.X, rows.y, 1e3 * rows.weight, rows.within))
    assert other.first_columns == task.first_columns
    for (a, pair), (b, same) in zip(
        task.ranked_pairs(candidate), other.ranked_pairs(candidate), strict=True
    ):
        assert pair == same
        assert a == pytest.approx(b, rel=1e-12)


# Terms


def test_some_of_the_rows():
    rows = draw(busy, 20, 3)
    within, index = tensor(np.arange(20.0)), torch.tensor([3, 17, 4])
    part = rows.subset(index, within)
    assert part.n_rows == 3
    assert part.within == 24
    assert torch.equal(part.X, rows.X[index])
    assert part.y.tolist() == [rows.y[i] for i in (3, 17, 4)]
    assert part.weight.tolist() == [rows.weight[i] for i in (3, 17, 4)]


def test_pairs_by_the_products_of_their_lines(task):
    candidate = task.fit(task.basis.with_blocks([BLOCKS[LINE], BLOCKS[SPLINE]]), 1.0)
    error = candidate.fit.left_out(task.rows.y)[0].numpy()
    X, weight = task.rows.X.numpy(), task.rows.weight.numpy()
    centre = weight @ X / weight.sum()
    lines = (X - centre) / np.sqrt(weight @ np.square(X - centre) / weight.sum())
    expected = []
    for i, j in itertools.combinations(range(3), 2):
        term = weight * error * lines[:, i] * lines[:, j]
        expected.append((abs(term.sum()) / np.sqrt(np.square(term).sum()), (i, j)))
    expected.sort(reverse=True)
    found = task.ranked_pairs(candidate)
    assert [pair for _, pair in found] == [pair for _, pair in expected]
    np.testing.assert_allclose([r for r, _ in found], [r for r, _ in expected], rtol=1e-9)


@pytest.mark.parametrize("max_order", [1, 2, 3])
@pytest.mark.parametrize("max_columns", [1, 2, 3, 5, 9, 20, 47])
def test_columns_never_exceed_their_limit(max_columns, max_order):
    task = search_of(draw(busy, 60, 5), 6, max_order, max_columns)
    first = task.basis.with_blocks(task.first_terms())
    assert first.n_columns <= max_columns
    best = task.grow(task.first())
    assert best.basis.n_columns <= max_columns
    assert max([block.order for block in best.blocks], default=0) <= max_order
    assert math.isfinite(best.score)


def test_columns_that_go_best_with_the_targets_come_first():
    rows = draw(lambda X: X[:, 1] - 2 * X[:, 3] + 0.5 * X[:, 4], 200, 5)
    task = search_of(rows, 6, 1, max_columns=4)
    assert task.first_columns == [1, 3, 4]
    assert [block.columns for block in task.main_effects()] == [(1,), (3,), (4,)]


@pytest.mark.parametrize("max_order", [1, 2])
def test_fewer_terms_for_few_rows(max_order):
    task = search_of(draw(busy, 24, 5), 6, max_order)
    candidates = task.screened_terms()
    sizes = [1 + sum(block.size for block in blocks) for blocks in candidates]
    assert sizes[:4] == [31, 6, 6, 1]
    assert (len(candidates) > 4) == (max_order == 2)
    assert max([0, *sizes[4:]]) <= 12 or max_order == 1
    assert math.isfinite(task.first().score)


# Growth


def test_busy_terms_get_more_functions(task):
    assert task._finer(BLOCKS[LINE]) == BLOCKS[LINE]
    assert task._finer(BLOCKS[SPLINE]) == Block((1,), (1,), (8,))
    assert task._finer(BLOCKS[PAIR]) == Block((0, 2), (0, 0), (5, 4))
    most = Block((0, 2), (0, 0), (10, 9))
    assert task._finer(most) == Block((0, 2), (0, 0), (10, 10))
    assert task._finer(Block((0, 1, 2), (0,) * 3, (4, 5, 1))).last == (5, 5, 2)
    few = spline_basis(
        tensor(np.arange(12.0)[:, None] % [4, 12, 12]), torch.ones(12).double(), 9, False
    )
    assert few.columns[0].n_functions == 3
    task = TermSearch(task.rows.subset(torch.arange(12), task.rows.y), few, 3, 1, 99, 9)
    assert task._finer(Block((0,), (1,), (3,))) == Block((0,), (1,), (3,))


def test_triples_have_two_busy_pairs(task):
    pairs = {(0, 1): 3.0, (1, 2): 2.0, (2, 3): 1.5, (0, 4): 0.5}
    task = search_of(draw(lambda X: X[:, 0], 60, 5))
    found = task._new_triples([(task.product(pair, 2), dof) for pair, dof in pairs.items()])
    assert [(dof, block.columns) for dof, block in found] == [(2.0, (0, 1, 2)), (1.5, (1, 2, 3))]
    present = (task.product((0, 1, 2), 2), 1.0)
    some = [(task.product(pair, 2), 3.0) for pair in ((0, 1), (0, 2))]
    assert task._new_triples([*some, present]) == []


def test_growth_raises_the_score():
    task = search_of(draw(lambda X: np.sin(6 * X[:, 0]) + X[:, 1], 150, 3), 3, 2)
    first = task.first()
    best = task.grow(first)
    assert best.score > first.score + 20
    assert max(block.size for block in best.blocks if block.columns == (0,)) > 1


# Limits


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rows(n):
    X = tensor(np.random.default_rng(0).random((n, 2)))
    y = tensor(np.linspace(-1, 1, n))
    rows = TargetRows(X, y, torch.ones(n).double(), 0.0)
    task = search_of(rows)
    best = task.grow(task.first())
    # One row cannot even carry the constant.
    assert math.isfinite(best.score) == (n > 1)
    assert best.fit.total_dof <= max(0.7 * n, 1)
    assert torch.isfinite(best.fit.coef).all()


def test_no_column_that_varies():
    rows = TargetRows(torch.zeros((9, 2)).double(), tensor(np.r_[np.ones(8), -8]) / 3,
                      torch.ones(9).double(), 0.0)  # fmt: skip
    task = search_of(rows)
    best = task.grow(task.first())
    assert best.blocks == ()
    assert abs(float(best.fit.coef[0])) < 1e-12
    assert best.without_idle() == []


def test_only_main_effects_stay_when_they_are_idle(task):
    landmarks = Landmarks.from_rows(torch.eye(3).double(), task.T[:20], 6)
    blocks = [*list(BLOCKS.values())[:4], BLOCKS[REMAINDER]]
    noise = np.random.default_rng(0).standard_normal(120)
    rows = TargetRows(task.rows.X, tensor(noise), task.rows.weight, 1e3)
    other = search_of(rows)
    candidate = other.fit(other.basis.with_blocks(blocks, landmarks), 1.0)
    kept = candidate.without_idle()
    assert kept[:2] == blocks[:2]
    for block, dof in zip(blocks[2:], candidate.dof_of_blocks()[2:], strict=True):
        assert (block in kept) == (dof > additive_terms.PRUNED)
