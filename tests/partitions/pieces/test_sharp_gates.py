"""Sharp gates: boundaries are found between the samples, and hardening does not move them."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from skpou.core.polynomials import TotalDegreePolynomials
from skpou.partitions.gates.tree import GateForm
from skpou.partitions.pieces.interfaces import NodeModels, find_interface
from skpou.partitions.pieces.sharp_gates import (
    GateSamples,
    SharpGate,
    fit_sharp_gate,
    guard_points,
    harden,
)
from tests.contracts import DTYPES
from tests.examples import kink, labels_by, parabola, problem_of, tensor


def gate_problem(problem, labels):
    """Samples and interface of the first level's gate among the labels."""
    pieces = problem.fit(labels)
    root = torch.zeros(pieces.n_pieces, dtype=torch.int64)
    models = NodeModels(problem, pieces.coef, [])
    interface = find_interface(problem, labels, models, pieces.error, root)
    square = (problem.rows.y[:, None] - models.values(problem.rows.X)).square().mean(2)
    excess = (square - square.gather(1, labels[:, None])).clamp_min(0)
    near = (labels[problem.neighbours] != labels[:, None]).any(1)
    return GateSamples(problem.rows.X, labels, excess, near), interface


def contrast(theta, degree, X, first=1, second=0):
    """Difference of two logits at points."""
    X = tensor(np.atleast_2d(X))
    return TotalDegreePolynomials(X.shape[1], degree).matrix(X) @ (theta[first] - theta[second])


def boundary_heights(theta, degree, x, around):
    """The x_2 at which the gate switches on vertical lines at the given x_1."""
    heights = []
    for x1, guess in zip(x, around, strict=True):
        heights.append(
            brentq(
                lambda t, x1=x1: float(contrast(theta, degree, [x1, t])),
                guess - 0.1,
                guess + 0.1,
                xtol=1e-15,
                rtol=1e-15,
            )
        )
    return np.array(heights)


def half_planes(X):
    return X[:, 1] - 0.4 - 0.2 * X[:, 0]


CURVES = {
    "half planes": (half_planes, lambda x: 0.4 + 0.2 * x, 1),
    "half planes, quadratic gate": (half_planes, lambda x: 0.4 + 0.2 * x, 2),
    "parabola": (parabola, lambda x: 0.3 + 0.5 * x**2, 2),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", [0, 1])
def test_boundary_is_found_between_the_samples(name, seed):
    inside, height, degree = CURVES[name]
    problem = problem_of(lambda X: np.abs(inside(X)), 500, 2, 2, seed)
    labels = labels_by(problem, lambda X: inside(X) > 0)
    samples, interface = gate_problem(problem, labels)
    theta, chosen = fit_sharp_gate(samples, interface, 2, (GateForm(degree),), 1e-12)
    assert chosen == GateForm(degree)
    x = np.linspace(0.01, 0.99, 23)
    found = boundary_heights(theta, degree, x, height(x))
    np.testing.assert_allclose(found, height(x), rtol=0, atol=1e-12)
    # The right side of the boundary gets the right class, off the samples too.
    X = np.random.default_rng(seed).random((2000, 2))
    clear = np.abs(inside(X)) > 1e-12
    wrong = (contrast(theta, degree, X).numpy() > 0) != (inside(X) > 0)
    assert not (wrong & clear).any()


def test_four_classes_at_once():
    kinks = [0.2, 0.4, 0.6]
    problem = problem_of(lambda X: np.abs(np.abs(X[:, 1] - 0.4) - 0.2), 900, 2, 1)
    labels = labels_by(problem, lambda X: np.digitize(X[:, 1], kinks))
    samples, interface = gate_problem(problem, labels)
    theta, form = fit_sharp_gate(samples, interface, 4, (GateForm(2),), 1e-12)
    X = np.random.default_rng(1).random((4000, 2))
    chosen = (form.basis(2).matrix(tensor(X)) @ theta.T).argmax(1).numpy()
    clear = np.abs(X[:, 1][:, None] - kinks).min(1) > 1e-11
    assert np.array_equal(chosen[clear], np.digitize(X[:, 1], kinks)[clear])


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_boundary_of_a_jump_lies_in_its_gap(degree, seed):
    problem = problem_of(lambda X: 2.0 * (X[:, 0] > 0.4), 60, 1, 1, seed)
    labels = labels_by(problem, lambda X: X[:, 0] > 0.4)
    samples, interface = gate_problem(problem, labels)
    assert len(interface.roots) == 0
    theta, _ = fit_sharp_gate(samples, interface, 2, (GateForm(degree),), 1e-12)
    x = problem.rows.X[:, 0].numpy()
    low, high = x[x < 0.4].max(), x[x > 0.4].min()
    assert float(contrast(theta, degree, [low])) < 0 < float(contrast(theta, degree, [high]))
    found = brentq(lambda t: float(contrast(theta, degree, [t])), low, high)
    if degree == 1:
        # The gate of largest margin switches half way.
        assert abs(found - 0.5 * (low + high)) < 0.05 * (high - low)


def test_higher_degree_only_where_it_is_needed():
    def wavy(X):
        return X[:, 1] - 0.5 - 2 * (X[:, 0] - 0.5) ** 3

    for inside, degree in ((parabola, 2), (wavy, 3)):
        problem = problem_of(lambda X, f=inside: np.abs(f(X)), 900, 2, 3)
        labels = labels_by(problem, lambda X, f=inside: f(X) > 0)
        samples, interface = gate_problem(problem, labels)
        guards = guard_points(problem, labels, interface, np.random.default_rng(0))
        theta, chosen = fit_sharp_gate(
            samples, interface, 2, tuple(map(GateForm, (2, 3, 4))), 1e-10, guards
        )
        assert chosen == GateForm(degree)
        X = np.random.default_rng(2).random((3000, 2))
        clear = np.abs(inside(X)) > 1e-10
        assert (((contrast(theta, chosen.degree, X).numpy() > 0) == (inside(X) > 0)) | ~clear).all()


def test_a_gate_that_cannot_gain_enough_is_given_up(monkeypatch):
    problem = problem_of(lambda X: np.abs(parabola(X)), 500, 2, 2)
    samples, interface = gate_problem(problem, labels_by(problem, lambda X: parabola(X) > 0))
    right, wrong = (SharpGate(samples, interface, 2, GateForm(degree)) for degree in (2, 1))
    stages = []
    stage = SharpGate._stage
    monkeypatch.setattr(
        SharpGate, "_stage", lambda gate, offset: stages.append(offset) or stage(gate, offset)
    )
    found = [gate.fit()[1] for gate in (right, wrong)]
    assert found[0] < 1e-6 * found[1]
    stages.clear()
    assert wrong.fit(beaten=1e-3 * found[1])[1] >= found[1]
    given_up = len(stages)
    stages.clear()
    wrong.fit()
    assert given_up < len(stages)
    # What comes below the score goes on to its end.
    assert right.fit(beaten=1e-3 * found[1])[1] == found[0]


def test_score_measures_misplaced_boundaries():
    problem = problem_of(kink, 500, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    samples, interface = gate_problem(problem, labels)
    gate = SharpGate(samples, interface, 2, GateForm(2))
    theta, best = gate.fit()
    assert best < 1e-20
    assert best == gate.score(theta)
    scores = []
    for shift in (1e-8, 1e-4, 1e-2):
        moved = theta.clone()
        # The parabola's function is linear in x_2, so a constant moves the boundary.
        slope = float(contrast(theta, 2, [0.5, 0.6]) - contrast(theta, 2, [0.5, 0.5])) / 0.1
        moved[1, 0] += shift * slope
        scores.append(gate.score(moved))
    assert best < scores[0] < scores[1] < scores[2]
    # First-order: cost of a strip of width delta grows like its cube while it is thin.
    assert 1e11 < scores[1] / scores[0] < 1e13
    flipped = theta.flip(0)
    assert gate.score(flipped) >= float(samples.excess.max(1).values.sum())


def test_score_does_not_depend_on_the_logits_scale():
    problem = problem_of(kink, 300, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    gate = SharpGate(*gate_problem(problem, labels), 2, GateForm(2))
    theta = tensor(np.random.default_rng(3).standard_normal((2, 6)))
    assert gate.score(64 * theta) == pytest.approx(gate.score(theta), rel=1e-12)


def test_early_stop_leaves_the_gate_of_the_labels():
    problem = problem_of(kink, 500, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    gate = SharpGate(*gate_problem(problem, labels), 2, GateForm(2))
    theta, value = gate.fit(n_stages_without_gain=0)
    assert torch.isfinite(theta).all()
    assert value == gate.score(theta)
    assert gate.fit()[1] < value
    wrong = (gate.features @ theta.T).argmax(1) != labels
    assert int(wrong.sum()) <= 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e30])
def test_hardening_does_not_move_boundaries(dtype, size):
    rng = np.random.default_rng(4)
    theta = (size * tensor(rng.standard_normal((3, 6)))).to(dtype)
    kept = theta.clone()
    hard = harden(theta)
    assert torch.equal(theta, kept)
    assert hard.dtype == dtype
    assert float(hard.abs().max()) >= 1 / torch.finfo(dtype).eps
    # A power of two: not one bit of a boundary changes.
    ratio = hard / theta
    assert (ratio == ratio[0, 0]).all()
    assert float(np.log2(float(ratio[0, 0]))).is_integer()
    X = tensor(rng.random((500, 2))).to(dtype)
    logits = TotalDegreePolynomials(2, 2).matrix(X) @ theta.T
    logits_hard = TotalDegreePolynomials(2, 2).matrix(X) @ hard.T
    assert torch.equal(logits.argmax(1), logits_hard.argmax(1))
    pi = torch.softmax(logits_hard, 1)
    assert (pi.max(1).values > 1 - 1e-3).double().mean() > 0.99


def test_hardening_of_a_gate_without_a_choice():
    theta = torch.zeros((2, 3))
    assert torch.equal(harden(theta), theta)


def test_guards_of_faces_have_their_class():
    problem = problem_of(kink, 900, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    _, interface = gate_problem(problem, labels)
    X, classes = guard_points(problem, labels, interface, np.random.default_rng(0))
    assert len(X) > 50
    assert ((X == 0) | (X == 1)).any(1).all()
    assert torch.equal(classes, torch.as_tensor(parabola(X.numpy()) > 0).long())
    assert {(0.0, 1.0), (1.0, 0.0)} <= {tuple(x) for x in X.tolist()}


@pytest.mark.parametrize("limit", [10, 60, 1000])
def test_thinning_keeps_all_points_near_an_interface(limit):
    rng = np.random.default_rng(5)
    X = tensor(rng.random((200, 2)))
    near = torch.as_tensor(rng.random(200) < 0.2)
    labels = torch.as_tensor(rng.integers(0, 2, 200))
    samples = GateSamples(X, labels, X.clone(), near)
    thin = samples.thinned(limit)
    assert int(thin.near.sum()) == int(near.sum())
    assert len(thin.X) <= max(limit, int(near.sum()) + limit // 4 + 1)
    kept = (thin.X[:, None] == X).all(2).nonzero()[:, 1]
    assert torch.equal(thin.labels, labels[kept])
    assert torch.equal(thin.excess, X[kept])


def test_appended_guards_cost_one_each():
    samples = GateSamples(
        torch.zeros((2, 1)), torch.tensor([0, 1]), torch.zeros((2, 3)), torch.tensor([True, False])
    )
    longer = samples.append(torch.ones((2, 1)), torch.tensor([2, 0]))
    assert longer.labels.tolist() == [0, 1, 2, 0]
    assert longer.excess[2:].tolist() == [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    assert longer.near.tolist() == [True, False, True, True]
    assert len(samples.X) == 2


def test_selection_of_samples_leads_to_the_same_boundary(monkeypatch):
    monkeypatch.setattr(SharpGate, "most_samples", 400)
    problem = problem_of(kink, 1500, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    samples, interface = gate_problem(problem, labels)
    assert len(SharpGate(samples, interface, 2, GateForm(2)).trained.X) < 700
    theta, _ = fit_sharp_gate(samples, interface, 2, (GateForm(2),), 1e-12)
    x = np.linspace(0.05, 0.95, 11)
    found = boundary_heights(theta, 2, x, 0.3 + 0.5 * x**2)
    np.testing.assert_allclose(found, 0.3 + 0.5 * x**2, rtol=0, atol=1e-12)
