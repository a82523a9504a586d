"""The search over bases: symmetries, weights, judgement, stages, what an interruption leaves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.core.records import TrainingInterrupted
from skpou.equations.collocation import Iterate
from skpou.equations.fit import AffineSearch, ContinuedSearch, fit_equations
from skpou.equations.problem import compile_problem
from skpou.equations.search import ALPHA, MOST_COLUMNS, EquationOptions, Search, largest_frequency
from skpou.physics import Equation, Symmetry, Unknown
from skpou.sines.spectrum import Spectrum
from tests.equations.examples import (
    LINE,
    PLANE,
    decay,
    points_in,
    random_rows,
    sines,
    units,
)
from tests.examples import rows_of, tensor

X = np.linspace(0, 1, 101)[:, None]
FINE = tensor(np.linspace(0, 1, 50)[:, None])


def relaxation(u, x, p):
    return u.d(0) + 4 * u()


def start_at_one():
    return rows_of([[0.0]], [1.0])


def searched(cls, equation, rows=None, box=LINE, symmetries=(), unknowns=None, **options):
    problem = compile_problem([equation], unknowns or {}, box, len(box.width), seed=0)
    rows = start_at_one() if rows is None else rows
    rng = np.random.default_rng(0)
    return cls(rows, problem, EquationOptions(**options), rng, symmetries)


def run(equation, rows=None, report=None, options=None, seed=0):
    problem = compile_problem([equation], {}, LINE, 1, seed=0)
    rows = start_at_one() if rows is None else rows
    options = options or EquationOptions()
    return fit_equations(rows, problem, options, np.random.default_rng(seed), (), report)


def error(model):
    return float((model.mean(FINE)[:, 0] - torch.exp(-4 * FINE[:, 0])).abs().max())


@pytest.mark.parametrize("interrupted_at", [1, 3])
def test_an_interrupted_stage_leaves_the_stages_before(interrupted_at):
    """The sum of the stages is what was fitted, not that and once more the last one."""
    equation, options = Equation(relaxation, X), EquationOptions(n_stages=3, alpha=1e-3)
    whole = run(equation, options=EquationOptions(n_stages=1, alpha=1e-3))
    lines = []

    def stop(line):
        lines.append(line)
        if sum(line.startswith("stage 2") for line in lines) == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as raised:
        run(equation, None, stop, options)
    result = raised.value.result
    assert result.code == "interrupted"
    assert len(result.state.stages) == 1
    torch.testing.assert_close(result.state.mean(FINE), whole.state.mean(FINE))
    assert error(result.state) < 0.01


def test_a_stage_that_does_not_help_is_not_kept():
    search = searched(AffineSearch, Equation(relaxation, X), alpha=1e-3)
    search._run()
    solution, unknowns = search.solution, search.unknowns
    search.correction = lambda: solution  # Twice the same is worse than once.
    assert not search._add_stage()
    assert search.stages == []
    assert search.solution is solution
    assert search.unknowns is unknowns


def test_stages_are_summed():
    search = searched(AffineSearch, Equation(relaxation, X), alpha=1e-3, n_stages=2)
    result = search.run()
    assert len(result.state.stages) == 2
    first, second = (stage.mean(FINE) for stage in result.state.stages)
    torch.testing.assert_close(result.state.mean(FINE), first + second)
    judged = search._system(search.solution.basis, search.problem.fresh)
    found = judged.residuals(search.solution.iterate.coef, search.unknowns[:0])[1]
    assert result.chosen["equation_residual"] == pytest.approx(
        [float(found.square().mean().sqrt())]
    )


BOX = units([-1.0, 2.0], [3.0, 10.0], [0.0], [1.0])


@pytest.mark.parametrize("rotation", [None, torch.linalg.qr(tensor([[1.0, 2.0], [3.0, -1.0]])).Q])
def test_bases_have_the_symmetries_in_units_of_x(rotation):
    def residual(u, x, p):
        return u.d(0) + u.d(1)

    known = [Symmetry("odd", 0, center=0.5), Symmetry("periodic", 1, period=4.0)]
    if rotation is not None:
        known = [known[0], Symmetry("even", 1, center=3.0)]
    search = searched(Search, Equation(residual, points_in(BOX, 30)), random_rows(5, 2), BOX, known)
    basis = search._basis(Spectrum("flat", 5.0, (1.0, 1.0)), 40, rotation)
    x = points_in(BOX, 20)
    values = basis.matrix(BOX.points(tensor(x)))
    mirrored = x * [-1, 1] + [1.0, 0]
    other = basis.matrix(BOX.points(tensor(mirrored)))
    torch.testing.assert_close(other, -values, rtol=0, atol=1e-9)
    moved = x * [1, 1 if rotation is None else -1] + np.array([0, 4 if rotation is None else 6])
    other = basis.matrix(BOX.points(tensor(moved)))
    torch.testing.assert_close(other, values, rtol=0, atol=1e-9)
    assert float(values.abs().max()) > 0.1


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("n", [3, 30, 20_000])
def test_columns_are_fewer_than_rows(n, d):
    box = units([0.0] * d, [1.0] * d, [0.0], [1.0])
    equation = Equation(decay, np.random.default_rng(0).random((n, d)))
    search = searched(Search, equation, random_rows(4, d), box)
    assert search.n_rows == n + 4
    assert search.most_columns <= max(8, min(MOST_COLUMNS[d - 1], (n + 4) / 1.5))
    ladder = search._ladder()
    np.testing.assert_allclose(np.diff(np.log2(ladder)), 0.5)
    # From gaps of two points to the whole box; at least an octave.
    assert max(ladder) <= max(math.pi * n ** (1 / d) / 4, 2.0)
    assert max(ladder) * math.sqrt(2) > max(math.pi * n ** (1 / d) / 4, 2.0)


def test_ridge_is_at_least_round_off():
    for alpha, expected in ((None, ALPHA), (0.0, ALPHA), (1e-3, 1e-3)):
        assert searched(Search, Equation(decay, X), alpha=alpha).alpha == expected


def test_largest_frequency():
    rotation = torch.linalg.qr(tensor([[1.0, 2.0], [3.0, -1.0]])).Q
    search = searched(Search, Equation(lambda u, x, p: u.d(0) + u.d(1), points_in(PLANE, 30)),
                      random_rows(5, 2), BOX)  # fmt: skip
    spectrum = Spectrum("flat", 5.0, (1.0, 0.2))
    expected = search._basis(spectrum, 60)
    norms = np.linalg.norm(expected.frequencies.numpy(), axis=1)
    assert largest_frequency(expected) == pytest.approx(norms.max())
    turned = search._basis(spectrum, 60, rotation)
    assert largest_frequency(turned) == pytest.approx(norms.max())


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_relative_residual_has_no_units(size):
    """Of the zero function: the right-hand side over the natural sizes of the terms."""
    equation = Equation(lambda u, x, p: size * (u.d(0) + 3 * u()), X, target=5 * size)
    box = units([0.0], [1.0], [0.0], [2.0])
    search = searched(Search, equation, box=box)
    system = search._system(sines(1), search.problem.fresh)
    zero = Iterate(system.zero(), search.unknowns, 0.0)
    # Values of size 2 that change by it over half of the box.
    expected = 5 / math.hypot(4, 3 * 2)
    assert search.relative_residual(system.basis, zero) == pytest.approx(expected)


def balanced(rows, seed=0):
    search = searched(AffineSearch, Equation(relaxation, X, weight="balanced"), rows)
    search.solution = search.stage()
    system, _ = search._final()
    data, equation = system.residuals(search.solution.iterate.coef, search.unknowns)
    losses = float(data.square().mean()), float(equation.square().mean())
    search._balance()
    return losses, search


def test_balanced_weights_are_those_of_the_losses():
    """The squares of the weights are gamma = L_d / (L_e + L_d) and 1 - gamma."""
    x = np.linspace(0, 1, 300)[:, None]
    noise = 0.3 * np.random.default_rng(0).standard_normal(300)
    (data, equation), search = balanced(rows_of(x, np.exp(-4 * x[:, 0]) + noise))
    gamma = data / (data + equation)
    expected = min(max(math.sqrt(gamma / (1 - gamma)), 1e-3), 1e3)
    assert search.problem.terms[0].weight == pytest.approx(expected)
    # The final solve has the weight: its rows' norms.
    system, scales = search._final()
    block = system.blocks(search.solution.iterate.coef, search.unknowns)[1]
    assert float((scales[1] * block.jacobian).norm()) == pytest.approx(expected)


def test_noise_is_not_shared_with_the_equation():
    """Heavier equations bring the solution to the least-squares fit of its one constant."""
    x = np.linspace(0, 1, 60)[:, None]
    noise = 0.1 * np.random.default_rng(1).standard_normal(60)
    result = run(Equation(relaxation, X), rows_of(x, np.exp(-4 * x[:, 0]) + noise))
    shape = np.exp(-4 * x[:, 0])
    constant = shape @ (shape + noise) / (shape @ shape)
    found = result.state.mean(FINE)[:, 0].numpy()
    np.testing.assert_allclose(found, constant * np.exp(-4 * FINE[:, 0].numpy()), atol=2e-3)
    assert float(result.state.noise) == pytest.approx(((shape * (1 - constant) + noise) ** 2).sum()
                                                      / 59, rel=0.02)  # fmt: skip
    # A ridge so small that none is felt would have noise make them a hundred million.
    assert result.chosen["alpha"] > 1e-14
    assert float(result.state.stages[-1].coef.abs().max()) < 100


def test_equations_without_a_solution_are_reported():
    def impossible(u, x, p):
        return torch.stack([u.d(0), u.d(0) - 1], 1)

    result = run(Equation(impossible, X))
    assert result.code == "max_iter"
    assert "not solved" in result.message
    assert run(Equation(relaxation, X)).code == "converged"


def test_search_is_reproducible_and_its_score_is_reported():
    lines = []
    first = run(Equation(relaxation, X), None, lines.append)
    second = run(Equation(relaxation, X))
    assert torch.equal(first.state.mean(FINE), second.state.mean(FINE))
    assert len(lines) == len(first.curve) == first.n_iter
    assert first.score in first.curve
    assert run(Equation(relaxation, X), seed=1).curve != first.curve


def test_unknowns_begin_at_their_first_values():
    unknowns = {"a": Unknown(3.0), "b": Unknown(-2.0, (-5.0, 0.0))}
    equation = Equation(lambda u, x, p: u.d(0) + p["a"] * u() + p["b"], X)
    search = searched(ContinuedSearch, equation, unknowns=unknowns)
    assert search.unknowns.tolist() == [3.0, -2.0]
    empty = replace(search.rows, X=search.rows.X[:0], y=search.rows.y[:0],
                    weight=search.rows.weight[:0], within=search.rows.within[:0])  # fmt: skip
    assert searched(ContinuedSearch, equation, empty, unknowns=unknowns).n_rows == 101
