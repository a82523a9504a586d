"""Gates in EM: random starts, starts from a tree, and that their steps ascend."""

import numpy as np
import pytest
import torch

from skpou.partitions.gates.steps import (
    AdamStep,
    NewtonStep,
    cross_entropy,
    fit_gates,
    gates_from_tree,
    make_step,
    random_gates,
    split_direction,
)
from skpou.partitions.gates.tree import GateForm, GateLevel, NetworkForm, PartitionTree
from tests.contracts import same_bits
from tests.examples import tensor

FORMS = {
    "linear": GateForm(1),
    "quadratic": GateForm(2),
    "rbf": GateForm(2, isotropic=True),
    "mlp": NetworkForm((6, 5)),
    "residual": NetworkForm((6, 6), "residual", "sin"),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
POLYNOMIALS = [form for form in FORMS.values() if isinstance(form, GateForm)]


def points(n=200, d=2, seed=0):
    return tensor(np.random.default_rng(seed).random((n, d)))


def posterior_like(n, N, seed=1):
    return tensor(np.random.default_rng(seed).dirichlet(0.3 * np.ones(N), n))


# Random starts


@each_form
@pytest.mark.parametrize("sizes", [(1,), (3,), (3, 2), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("d", [0, 1, 3])
def test_random_gates_have_the_sizes_asked_for(form, sizes, d):
    X = points(d=d)
    levels = random_gates(form, sizes, X, np.random.default_rng(0))
    assert [level.n_partitions for level in levels] == np.cumprod(sizes).tolist()
    above = 1
    for level, size in zip(levels, sizes, strict=True):
        assert torch.bincount(level.parent).tolist() == [size] * above
        above *= size
    log_pi = PartitionTree(d, levels).log_proba(X)
    assert torch.isfinite(log_pi).all()
    torch.testing.assert_close(log_pi.exp().sum(1), torch.ones(len(X)).double())


@each_form
def test_random_gates_come_from_the_generator_alone(form):
    X = points()
    first, second, other = (
        PartitionTree(2, random_gates(form, (3, 2), X, np.random.default_rng(seed))).log_proba(X)
        for seed in (5, 5, 6)
    )
    assert same_bits(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("form", POLYNOMIALS, ids=repr)
def test_polynomial_gates_start_as_normalised_gaussians_about_samples(form):
    """Each gate is largest at its own sample, and all siblings have the same width."""
    X = points(50)
    level = random_gates(form, (4,), X, np.random.default_rng(2))[0]
    basis, corners = form.basis(2), tensor([[0, 0], [1, 0], [0, 1]])
    at_origin, *ahead = (basis.matrix(corners) @ level.theta.T).unbind()
    slope = torch.stack(ahead, 1) - at_origin[:, None]  # p_k / h^2
    width2 = -2 * at_origin / slope.square().sum(1)  # from -|p_k|^2 / (2 h^2)
    torch.testing.assert_close(width2, width2[:1].expand(4), rtol=1e-10, atol=0)
    centres = width2[:, None] * slope
    distance = torch.cdist(centres, X)
    assert float(distance.amin(1).max()) < 1e-6
    nearest = (X[:, None] - centres).square().sum(2).amin(1).mean()
    torch.testing.assert_close(width2[0], nearest, rtol=1e-9, atol=0)
    assert len(torch.unique(distance.argmin(1))) == 4


def test_more_gates_than_samples():
    X = points(2)
    levels = random_gates(GateForm(2), (5, 3), X, np.random.default_rng(0))
    assert torch.isfinite(PartitionTree(2, levels).log_proba(X)).all()


# Starts from a tree


def cut_tree(sharpness=1e8):
    """Two halves by the first coordinate, the right one halved by the second."""
    first = GateLevel(torch.tensor([0, 0]), sharpness * tensor([[0, 0, -1], [0, 0, 1]]), 1, True)
    second = GateLevel(
        torch.tensor([0, 1, 1]), sharpness * tensor([[0, 0, 0], [0, -1, 0], [0, 1, 0]]), 1, True
    )
    return PartitionTree(2, [first, second])


@each_form
def test_gates_from_a_sharp_tree_choose_as_it_does(form):
    X = points(400)
    tree = cut_tree()
    gates = gates_from_tree(form, tree, X, torch.ones(400).double(), np.random.default_rng(0))
    assert not any(gate.sharp for gate in gates)
    soft = PartitionTree(2, gates)
    for a, b in zip(soft.choose(X), tree.choose(X), strict=True):
        assert float((a == b).double().mean()) > 0.9
    assert [gate.parent.tolist() for gate in gates] == [[0, 0], [0, 1, 1]]


@each_form
def test_soft_gates_of_the_same_form_are_taken_as_they_are(form):
    X = points()
    tree = PartitionTree(2, random_gates(form, (2, 2), X, np.random.default_rng(0)))
    gates = gates_from_tree(form, tree, X, torch.ones(200).double(), np.random.default_rng(1))
    assert same_bits(PartitionTree(2, gates).log_proba(X), tree.log_proba(X))
    gates[0].theta += 1.0
    if gates[0].network:
        gates[0].network.theta += 1.0
    assert not torch.equal(gates[0].theta, tree.levels[0].theta)


# M-steps


def test_gates_are_optimal_in_every_family():
    """The gradient vanishes for families of unequal sizes, for probabilities as for labels."""
    X, parent = points(300), torch.tensor([1, 0, 2, 1, 0, 2, 2])
    features = GateForm(1).basis(2).matrix(X)
    share, weight = posterior_like(300, 7), tensor(np.random.default_rng(3).uniform(0, 2, 300))
    start = torch.zeros((7, 3)).double()
    theta = fit_gates(features, share, weight, parent, start, (1e-12,))
    theta.requires_grad_()
    tree = PartitionTree(2, [GateLevel(parent, theta, 1)])
    loss = cross_entropy(share, tree.log_conditional(X, 0), weight)
    gradient = torch.autograd.grad(loss, theta)[0]
    assert float(gradient.abs().max()) < 1e-6
    assert not start.any()


@each_form
def test_steps_descend(form):
    """One M-step lowers the cross entropy; many approach the posterior's own entropy."""
    X = points(100)
    weight = tensor(np.random.default_rng(4).uniform(0.5, 2, 100))
    levels = random_gates(form, (2, 3), X, np.random.default_rng(0))
    target = PartitionTree(2, random_gates(form, (2, 3), X, np.random.default_rng(7)))
    share = target.log_proba(X).exp()
    level = levels[1]
    step = make_step(level, X, 1e-2, None)
    assert isinstance(step, NewtonStep if isinstance(form, GateForm) else AdamStep)
    values = [float(cross_entropy(share, step.log_gate, weight))]
    for _ in range(40):
        step.step(share, weight)
        values.append(float(cross_entropy(share, step.log_gate, weight)))
    assert values[1] < values[0]
    assert values[-1] < values[1]
    if isinstance(form, GateForm):
        assert (np.diff(values) <= 1e-12).all()
    expected = PartitionTree(2, levels).log_conditional(X, 1)
    torch.testing.assert_close(step.log_gate, expected, rtol=1e-12, atol=1e-12)
    assert not step.log_gate.requires_grad


def test_step_on_batches_moves_the_gates_and_refresh_shows_it():
    X, weight = points(60), torch.ones(60).double()
    level = random_gates(FORMS["mlp"], (3,), X, np.random.default_rng(0))[0]
    step = AdamStep(level, X, 1e-2, batch_size=20)
    before = step.log_gate.clone()
    step.step_on(torch.arange(20), posterior_like(20, 3), weight[:20])
    assert torch.equal(step.log_gate, before)
    step.refresh()
    assert not torch.equal(step.log_gate, before)
    assert torch.equal(step.log_gate, PartitionTree(2, [level]).log_proba(X))


def test_split_parts_two_equal_logits():
    theta = tensor([100.0, -3.0, 0.0])
    change = split_direction(theta, np.random.default_rng(0))
    assert 1.0 < float(change.norm()) < 40.0
