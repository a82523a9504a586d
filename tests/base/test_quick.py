"""Every class fitted, predicted and saved once: what `make test-oldest-quick` begins with."""

import pickle

import pytest

import skpou
from skpou.datasets import make_two_moons_3d
from tests.estimators import same_bits

NAMES = [name for name in skpou.__all__ if not name.startswith("_")]
SMALL = {"hidden_layer_sizes": (5,), "level": 2, "max_iter": 40, "learning_rate": 0.1}

#: Members that are fitted in no time.
GRIDS = ["SparseGridRegressor", "SparseGridRegressor"]


@pytest.mark.parametrize("name", NAMES)
# Two values of y may lie in corners of the grid's box.
@pytest.mark.filterwarnings("ignore:.*of the embeddings lie within")
def test_every_class(name):
    neural = name.startswith("Neural")
    # An encoder may start from a manifold when it sees that many rows of three columns.
    X, y = make_two_moons_3d(200 if neural else 60, noise=0.05, random_state=0)
    # Numbers of classes from 1 on: their logarithm is one default.
    y = y + 1
    params = SMALL if neural else {"members": GRIDS} if name == "AutoRegressor" else {}
    model = getattr(skpou, name)(**params).fit(X, y)
    assert model.score(X, y) > 0.8
    query = X[::5] + 0.01
    expected = model.predict(query)
    assert same_bits(pickle.loads(pickle.dumps(model)).predict(query), expected)
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(model)
    own = skops.get_untrusted_types(data=data)
    # One regressor holds others.
    assert f"skpou.{name}" in own
    assert set(own) <= {f"skpou.{name}" for name in NAMES}
    assert same_bits(skops.loads(data, trusted=own).predict(query), expected)
