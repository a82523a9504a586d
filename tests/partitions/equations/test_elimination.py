"""Elimination of blocks against the dense problem: solution, residual, covariances, tangents."""

import numpy as np
import torch

from skpou.partitions.equations.elimination import Elimination, Pair, memory

SIZES, Q = [4, 5, 3, 6, 4], 2
#: A ring with a chord; the last touches itself.
TOUCHING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3), (2, 2)]
START = np.cumsum([0, *SIZES])


def random_problem(seed=0):
    rng = np.random.default_rng(seed)
    own = [torch.tensor(rng.standard_normal((s + 1, s + Q + 1))) for s in SIZES]
    pairs = [
        Pair(a, b, torch.tensor(rng.standard_normal((3, SIZES[a] + SIZES[b] + Q + 1))))
        for a, b in TOUCHING
    ]
    return Elimination(SIZES, own, pairs, Q)


def dense(problem):
    """Matrix and right-hand side."""
    n, rows = START[-1], []
    for names, part in [
        *(((e,), rows) for e, rows in enumerate(problem.own)),
        *(((pair.first, pair.second), pair.rows) for pair in problem.pairs),
    ]:
        block, at = np.zeros((len(part), n + Q + 1)), 0
        for e in names:
            block[:, START[e] : START[e + 1]] += part.numpy()[:, at : at + SIZES[e]]
            at += SIZES[e]
        block[:, n:] = part.numpy()[:, at:]
        rows.append(block)
    A = np.concatenate(rows)
    return A[:, :-1], A[:, -1]


def test_solution_and_residual():
    problem = random_problem()
    A, b = dense(problem)
    coef, unknowns = problem.factor().solve()
    expected = np.linalg.lstsq(A, b, rcond=None)[0]
    np.testing.assert_allclose(torch.cat([*coef, unknowns]).numpy(), expected, atol=1e-13)
    assert abs(problem.residual - np.linalg.norm(A @ expected - b)) < 1e-13
    assert problem.n_open() == 0


def test_covariances_are_blocks_of_the_inverse():
    problem = random_problem().factor()
    A, _ = dense(problem)
    inverse = np.linalg.inv(A.T @ A)
    blocks, unknowns = problem.covariances()
    for e, block in enumerate(blocks):
        own = slice(START[e], START[e + 1])
        np.testing.assert_allclose(block.numpy(), inverse[own, own], atol=1e-12)
    np.testing.assert_allclose(unknowns.numpy(), inverse[-Q:, -Q:], atol=1e-12)


def test_an_unknown_that_no_row_sees_leaves_the_pieces_their_covariances():
    problem = random_problem()
    for rows in [*problem.own, *(pair.rows for pair in problem.pairs)]:
        rows[:, -2] = 0.0  # The last unknown's column, before the right-hand side
    A, _ = dense(problem)
    inverse = np.linalg.inv(A[:, :-1].T @ A[:, :-1])
    blocks, unknowns = problem.factor().covariances()
    for e, block in enumerate(blocks):
        own = slice(START[e], START[e + 1])
        np.testing.assert_allclose(block.numpy(), inverse[own, own], atol=1e-12)
    assert abs(unknowns[0, 0] - inverse[-1, -1]) < 1e-12
    assert 1e200 < unknowns[1, 1] < np.inf
    # It stays, and the other one is solved for.
    A, b = dense(problem)
    expected = np.linalg.lstsq(A[:, :-1], b, rcond=None)[0]
    coef, unknowns = problem.solve()
    np.testing.assert_allclose(torch.cat(coef).numpy(), expected[: START[-1]], atol=1e-12)
    np.testing.assert_allclose(unknowns.numpy(), [expected[-1], 0.0], atol=1e-12)


def test_held_unknowns_and_tangents():
    """With unknowns held the pieces are solved for alone; tangents are their derivatives."""
    problem = random_problem()
    A, b = dense(problem)
    pieces, given = A[:, :-Q], A[:, -Q:]
    coef, unknowns = problem.factor().solve(hold=True)
    expected = np.linalg.lstsq(pieces, b, rcond=None)[0]
    np.testing.assert_allclose(torch.cat(coef).numpy(), expected, atol=1e-13)
    assert not unknowns.any()
    slopes = np.linalg.lstsq(pieces, -given, rcond=None)[0]
    for i, tangent in enumerate(problem.tangents()):
        np.testing.assert_allclose(torch.cat(tangent).numpy(), slopes[:, i], atol=1e-13)


def test_responses_and_draws():
    """Right-hand sides of a piece's own rows move all; draws have the inverse as covariance."""
    problem = random_problem().factor()
    A, _ = dense(problem)
    pieces, n = A[:, :-Q], START[-1]
    b = np.random.default_rng(1).standard_normal((len(A), 3))
    start = [torch.tensor(part) for part in np.split(pieces.T @ b, START[1:-1])]
    # Draws that are the columns of the identity: what they become is a root of the inverse.
    draws = [torch.tensor(part) for part in np.split(np.eye(n), START[1:-1])]
    found = torch.cat(problem.responses(start, draws)).numpy()
    expected = np.linalg.lstsq(pieces, b, rcond=None)[0]
    np.testing.assert_allclose(found[:, :3], expected, atol=1e-12)
    root = found[:, 3:]
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(pieces.T @ pieces), atol=1e-11)


def test_open_directions_are_counted():
    problem = random_problem()
    for rows in problem.own:
        rows[:, 0] = 0.0
    for pair in problem.pairs:
        # Equal changes of the first columns of all pieces change nothing.
        pair.rows[:, 0] = 1.0
        pair.rows[:, SIZES[pair.first]] = -1.0
    problem.ridge = 1e-14
    assert problem.factor().n_open() == 1
    assert problem.is_open() and not random_problem().factor().is_open()


def test_memory_is_counted_before_anything_is_factored(monkeypatch):
    fronts, make = [], Elimination._front
    monkeypatch.setattr(
        Elimination, "_front", lambda *given: fronts.append(make(*given)) or fronts[-1]
    )
    problem = random_problem().factor()
    pairs = [(pair.first, pair.second, len(pair.rows)) for pair in problem.pairs]
    kept, largest = memory(SIZES, [len(rows) for rows in problem.own], pairs)
    # Unknowns and the right-hand side are not counted.
    sizes = [rows[:, : -Q - 1].numel() for rows in problem.own]
    sizes += [pair.rows[:, : -Q - 1].numel() for pair in problem.pairs]
    sizes += [front.R.numel() + front.S[:, :-Q].numel() for front in problem.fronts]
    assert kept == sum(sizes)
    found = max(front[:, : -Q - 1].numel() for front in fronts)
    assert 0.8 * found < largest < 1.25 * found
