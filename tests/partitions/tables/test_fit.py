"""The choice between shrunken experts and pieces: folds, factors of variances, conditions."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from skpou.core.models.components import Components
from skpou.core.polynomials import count_columns
from skpou.core.records import TrainingResult
from skpou.core.rows import with_all_targets
from skpou.partitions.fit import PieceOptions
from skpou.partitions.gates.tree import GateForm
from skpou.partitions.tables import fit as table_pieces
from skpou.partitions.tables.fit import (
    COUNTS,
    N_FOLDS,
    _is_table,
    _scaled,
    _some,
    _square,
    _TableChoice,
    _variance_factor,
)
from skpou.partitions.tables.shrunk_experts import CommonPolynomial, fit_shrunk_experts
from tests.examples import make_mixture, rows_of, tensor


def table(n=120, d=4, seed=0, repeated=True):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    if repeated:
        X[: n // 3] = X[n // 3 : 2 * (n // 3)]
    y = np.where(X[:, 0] < 0.5, X[:, 1], -2 * X[:, 2]) + 0.2 * rng.standard_normal(n)
    return rows_of(X, (y - y.mean()) / y.std(), rng.integers(1, 4, n))


def observations(rows):
    """Every pair of point and target with its weight, in an order of their own."""
    pairs = rows.pairs()
    return sorted(torch.cat([pairs.X, pairs.y, pairs.weight[:, None]], 1).tolist())


def pieces_of(rows, **options):
    """A result whose state predicts zero with unit variance."""

    def components(X, posterior=True):
        zero = X.new_zeros((len(X), 1, 1))
        return Components(zero[..., 0], zero, zero[0] + 1, zero)

    state = SimpleNamespace(components=components)
    return TrainingResult(state, 1.0, 1, chosen={"degree": 2} | options)


def choice(rows, options=None, pieces=None):
    options = options or PieceOptions()
    return _TableChoice(pieces or pieces_of(rows), rows, options, np.random.default_rng(0), None)


# Rows


def test_part_of_the_points_keeps_all_of_their_targets():
    rows = table()
    kept = torch.as_tensor(np.random.default_rng(1).random(rows.n_rows) < 0.4)
    parts = [with_all_targets(rows, kept), with_all_targets(rows, ~kept)]
    assert sorted(observations(parts[0]) + observations(parts[1])) == observations(rows)
    for part, mask in zip(parts, (kept, ~kept), strict=True):
        assert torch.equal(part.X, rows.X[mask])
        assert torch.equal(part.within, rows.within[mask])
        mean = torch.zeros_like(part.y)
        mean.index_add_(0, part.repeats.point, part.repeats.weight[:, None] * part.repeats.y)
        torch.testing.assert_close(mean / part.weight[:, None], part.y)
    assert with_all_targets(table(repeated=False), kept[:1].expand(120)).repeats is None


def test_some_of_many_rows(monkeypatch):
    rows = table()
    assert _some(rows) is rows
    monkeypatch.setattr(table_pieces, "MOST_ROWS", 30)
    some = _some(rows)
    assert some.n_rows == 30
    every = observations(rows)
    assert all(pair in every for pair in observations(some))
    # Not the first ones: rows are sorted by their first column.
    assert float(some.X[:, 0].max()) > float(rows.X[30:, 0].median())


def test_every_point_is_held_out_once():
    rows = table()
    task = choice(rows)
    held = [observations(held) for _, held in task.parts]
    assert len(held) == N_FOLDS
    assert sorted(itertools.chain(*held)) == observations(rows)
    assert len(task.weight) == len(observations(rows))
    for (kept, out), pairs in zip(task.parts, task.left_out, strict=True):
        assert sorted(observations(kept) + observations(out)) == observations(rows)
        assert not {tuple(x) for x in kept.X.tolist()} & {tuple(x) for x in out.X.tolist()}
        assert abs(out.n_rows - rows.n_rows / N_FOLDS) < 1
        assert pairs.n_rows == len(observations(out))


# Factors


def random_components(n, K, seed):
    rng = np.random.default_rng(seed)
    log_pi = torch.log_softmax(tensor(rng.standard_normal((n, K))), 1)
    mean = tensor(rng.standard_normal((n, K, 1)))
    return Components(log_pi, mean, tensor(rng.uniform(0.5, 2, (K, 1))), 0.3 * mean.square())


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("size", [0.2, 1.0, 30.0])
def test_factor_makes_the_density_largest(K, size):
    rng = np.random.default_rng(0)
    parts = [random_components(n, K, seed) for seed, n in enumerate((40, 25))]
    y = [part.expectation() + size * tensor(rng.standard_normal((len(part.mean), 1)))
         for part in parts]  # fmt: skip
    weight = tensor(rng.uniform(0.5, 3, 65))

    def density(log_factor):
        scaled = [
            replace(
                p, noise=np.exp(log_factor) * p.noise, epistemic=np.exp(log_factor) * p.epistemic
            )
            for p in parts
        ]
        values = torch.cat([p.log_density(z) for p, z in zip(scaled, y, strict=True)])
        return float(weight @ values)

    found = _variance_factor(parts, y, weight)
    best = minimize_scalar(lambda t: -density(t), bounds=(-8, 12), method="bounded")
    assert density(np.log(found)) >= -best.fun - 1e-3 * float(weight.sum())
    if K == 1:
        ratio = torch.cat([(z - p.mean[:, 0]) ** 2 / p.variance[:, 0] for p, z in zip(parts, y)])
        assert found == pytest.approx(float(weight @ ratio[:, 0] / weight.sum()), rel=1e-12)
    # Weights are frequencies: their unit and the order of the parts do not matter.
    assert _variance_factor(parts, y, 7 * weight) == pytest.approx(found, rel=1e-12)
    turned = torch.cat([weight[40:], weight[:40]])
    assert _variance_factor(parts[::-1], y[::-1], turned) == pytest.approx(found, rel=1e-12)


def test_scaled_mixture_has_scaled_variances():
    mixture = make_mixture("flat", d=2, m=1)
    X = tensor(np.random.default_rng(0).random((20, 2)))
    before, after = (m.components(X) for m in (mixture, _scaled(mixture, 4.0, 0.0)))
    torch.testing.assert_close(after.noise, 4 * before.noise)
    torch.testing.assert_close(after.epistemic, 4 * before.epistemic)
    assert torch.equal(after.mean, before.mean)
    assert torch.equal(after.log_pi, before.log_pi)
    floor = 4 * float(mixture.experts[0].noise.median())
    noise = _scaled(mixture, 4.0, floor).experts[0].noise
    torch.testing.assert_close(noise, (4 * mixture.experts[0].noise).clamp_min(floor))


def test_squares_are_those_of_the_mean():
    part, y = random_components(30, 3, 0), tensor(np.random.default_rng(5).random((30, 1)))
    expected = (y[:, 0] - (part.log_pi.exp() * part.mean[..., 0]).sum(1)).square()
    torch.testing.assert_close(_square(part, y), expected)


# Candidates


def test_candidate_is_judged_on_rows_that_its_fits_have_not_seen():
    rows = table()
    task = choice(rows)
    commons = [CommonPolynomial(kept, 1) for kept, _ in task.parts]
    found = task._candidate(commons, 2)
    assert (found.degree, found.n_experts) == (1, 2)
    densities, squares = [], []
    for (kept, _), held in zip(task.parts, task.left_out, strict=True):
        common = CommonPolynomial(kept, 1)
        mixture = fit_shrunk_experts(common, 2, task._rng())
        part = _scaled(mixture, found.factor, common.floor).components(held.X)
        densities.append(part.log_density(held.y))
        squares.append(_square(part, held.y))
    torch.testing.assert_close(found.log_density, torch.cat(densities))
    torch.testing.assert_close(found.square, torch.cat(squares))
    assert found.total(task.weight) == pytest.approx(float(task.weight @ torch.cat(densities)))


def test_candidate_begun_on_the_first_fold_is_that_of_all_folds():
    task = choice(table())
    commons = [CommonPolynomial(kept, 1) for kept, _ in task.parts]
    whole = task._candidate(commons, 2)
    found = task._candidate(commons[1:], 2, task._candidate(commons[:1], 2))
    assert torch.equal(found.log_density, whole.log_density)
    assert (found.factor, found.degree, found.n_experts) == (whole.factor, 1, 2)


def test_candidates_that_the_first_fold_drops_are_not_fitted_to_others(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.random((600, 4))
    y = (X[:, 0] - X[:, 1]) * X[:, 2] + 0.01 * rng.standard_normal(600)
    task = choice(rows_of(X, y / y.std()))
    fitted = []
    fit = table_pieces.fit_shrunk_experts

    def counted(common, n_experts, rng):
        fitted.append(common.degree)
        return fit(common, n_experts, rng)

    monkeypatch.setattr(table_pieces, "fit_shrunk_experts", counted)
    best = task._best()
    assert best.degree >= 2
    assert len(best.log_density) == 600
    assert fitted.count(1) <= len(task._counts())


def test_degrees_that_cannot_get_ahead_do_not_get_more_experts():
    rng = np.random.default_rng(0)
    X = rng.random((2400, 4))
    y = (X[:, 0] - X[:, 1]) * X[:, 2] + 0.01 * rng.standard_normal(2400)
    task = choice(rows_of(X, y / y.std()))
    common = CommonPolynomial(task.parts[0][0], 1)
    alone = task._candidate([common], 1)
    free, behind = (task._climbed(common, alone, ahead) for ahead in (-np.inf, 1e5))
    # More planes always gain something here, but never that much.
    assert [one.n_experts for one in free] == list(COUNTS)
    assert [one.n_experts for one in behind] == [1, 2]
    assert torch.equal(behind[1].log_density, free[1].log_density)


@pytest.mark.parametrize(("n", "d", "degrees"), [(60, 4, [1, 2]), (300, 4, [1, 2, 3, 4]),
                                                 (60, 40, [1])])  # fmt: skip
def test_degrees_whose_columns_rows_can_carry(n, d, degrees):
    task = choice(table(n, d, repeated=False))
    assert task._degrees() == degrees
    kept = min(kept.n_rows for kept, _ in task.parts)
    for degree in degrees[1:]:
        assert 2 * count_columns(d, degree) <= kept
    given = choice(table(n, d), PieceOptions(degree=3, sizes=(5,)))
    assert given._degrees() == [3]
    assert given._counts() == [1, 2, 4]


# Whether pieces are left


def test_conditions():
    rows, plain = table(), PieceOptions()
    pieces = pieces_of(rows)
    assert _is_table(rows, plain, pieces)
    for options in (
        {"alpha": 1e-3},
        {"soft": True},
        {"exactly": True},
        {"degree": 0},
        {"sizes": (2, 2)},
        {"gates": (GateForm(0),)},
        {"gates": (GateForm(2, True),)},
    ):
        assert not _is_table(rows, replace(plain, **options), pieces), options
    assert _is_table(rows, PieceOptions(degree=1, sizes=(3,)), pieces)
    assert not _is_table(table(49, repeated=False), plain, pieces)
    assert not _is_table(table(d=3), plain, pieces)
    both = replace(rows, y=rows.y.expand(-1, 2), within=rows.within.expand(-1, 2))
    assert not _is_table(both, plain, pieces)


@pytest.mark.parametrize(("left", "expected"), [(0.009, False), (0.011, True)])
def test_pieces_that_leave_next_to_nothing_stay(left, expected):
    rows = table(repeated=False)
    pieces = pieces_of(rows)
    mean, one = (1 - left) * rows.y[:, None], torch.ones((1, 1)).double()
    found = Components(0 * rows.y, mean, one, 0 * mean)
    pieces.state.components = lambda X, posterior: found
    assert _is_table(rows, PieceOptions(), pieces) == expected


@pytest.mark.parametrize(
    ("gain", "loss", "expected"),
    [(1.0, -0.1, True), (1.0, 0.5, False), (-1.0, -0.5, False), (0.0, -0.5, False)],
)
def test_experts_need_larger_densities_and_no_larger_errors(gain, loss, expected, monkeypatch):
    rows = table()
    task = choice(rows)
    seen = []

    def fit_pieces(kept, options, rng):
        seen.append((kept.n_rows, options.degree, rng.integers(100)))
        return pieces_of(kept)

    monkeypatch.setattr(table_pieces, "fit_pieces", fit_pieces)
    of_pieces = [pieces_of(rows).state.components(held.X) for held in task.left_out]
    pairs = list(zip(of_pieces, task.left_out, strict=True))
    jitter = 0.01 * torch.cos(torch.arange(len(task.weight)).double() ** 2)
    density = torch.cat([part.log_density(held.y) for part, held in pairs]) + gain + jitter
    square = torch.cat([_square(part, held.y) for part, held in pairs]) + loss + jitter
    best = SimpleNamespace(log_density=density, square=square)
    if not gain:
        best.log_density = density + torch.where(torch.arange(len(density)) % 2 > 0, 5.0, -5.0)
    assert task._beats_pieces(best) == expected
    # As many folds as make it clear, all of them if nothing does.
    assert len(seen) == (1 if gain else N_FOLDS)
    assert {degree for _, degree, _ in seen} == {2}
    assert len({draw for *_, draw in seen}) == 1
