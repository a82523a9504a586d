"""What parameters stand for: seeds, sizes that do not fit into memory."""

import os

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from skpou.base.parameters import random_generator, refuse_beyond_memory, seed_of, unless_auto
from skpou.physics import Equation
from tests.estimators import same_bits, stepped

X, Y = stepped()


@pytest.mark.parametrize(("value", "plain"), [("auto", None), (None, None), (3, 3.0)])
def test_auto_is_none(value, plain):
    assert unless_auto(value) == plain


def test_seeds():
    assert seed_of(None) == 0
    assert seed_of(np.int64(7)) == 7
    for source in (np.random.default_rng, np.random.RandomState):
        one, same, other = (seed_of(source(seed)) for seed in (1, 1, 2))
        assert one == same != other


@pytest.mark.parametrize("bad", [-1, True, 1.5, "a"])
@pytest.mark.parametrize("function", [seed_of, random_generator])
def test_bad_seeds(function, bad):
    with pytest.raises(ValueError, match="random_state must be None, an int of at least 0"):
        function(bad)


def slope(u, x):
    return u.d(0) + u()


def decay(random_state):
    """A solved equation whose points are drawn."""
    physics = Equation(lambda u, x, p: slope(u, x), "uniform", n_points=30, box=[[0, 1]])
    model = LSGDRegressor(physics=physics, random_state=random_state)
    return model.fit([[0.0]], [1.0]).predict(np.linspace(0, 1, 9)[:, None])


@pytest.mark.parametrize("source", [np.random.default_rng, np.random.RandomState])
def test_equations_draw_by_every_kind_of_random_state(source):
    assert same_bits(decay(source(1)), decay(source(1)))
    assert not same_bits(decay(source(1)), decay(source(2)))


def test_size_beyond_memory():
    with pytest.raises(ValueError, match=r"A cube needs about 1e\+09 GB of .* GB\. Lower it\."):
        refuse_beyond_memory(1e9, "A cube", "it")
    refuse_beyond_memory(1e-9, "A cube", "it")


def test_without_sysconf_nothing_is_refused(monkeypatch):
    """As on Windows."""
    monkeypatch.delattr(os, "sysconf")
    refuse_beyond_memory(1e9, "A cube", "it")


@pytest.mark.parametrize("cls", [HierarchicalPOURegressor, POURegressor])
@pytest.mark.parametrize("gate", ["linear", "quadratic", "rbf"])
@pytest.mark.parametrize("sizes", [(), (4, 0), (4, 2.5), ("a",)])
def test_hidden_layers_are_checked_where_the_gate_has_none(cls, gate, sizes):
    with pytest.raises(ValueError, match="hidden_layer_sizes must"):
        cls(n_partitions=2, gate=gate, hidden_layer_sizes=sizes).fit(X, Y)
