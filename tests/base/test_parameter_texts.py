"""A parameter that estimators share has one text: what differs comes after it."""

import inspect
import re

import pytest

import skpou
from skpou.base import BaseClassifier, BaseRegressor, TorchEstimator

CLASSES = [
    thing
    for thing in (getattr(skpou, name) for name in skpou.__all__)
    if inspect.isclass(thing) and issubclass(thing, TorchEstimator)
]

#: Type and meaning of every shared parameter.
TEXTS = {
    "n_jobs": (
        "int, default=None",
        "Threads, as joblib counts them, for predictions of many rows and for what a fit can do "
        "side by side; None is 1. Results do not depend on it.",
    ),
    "device": (
        'str, default="auto"',
        '``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``, '
        '``"cuda"``, ``"cuda:1"``.',
    ),
    "dtype": (
        '{"float64", "float32"}, default="float64"',
        "Precision of inputs and predictions.",
    ),
    "random_state": (
        "int, RandomState, Generator or None, default=None",
        "Source of all random draws. None is a fixed one: two fits give the same bits.",
    ),
    "verbose": (
        "int, default=0",
        "Above 0: print a line for each step, and what remains where the number of steps is known.",
    ),
    "unknowns": (
        "dict of str to Unknown, default=None",
        "Constants of the equations that are fitted, see `skpou.physics.Unknown`.",
    ),
}
#: A race of other estimators has processes of its own, and passes these on to its members.
OF_MEMBERS = {("AutoRegressor", name) for name in ("n_jobs", "device", "dtype")}


def documented(cls):
    """Type and text of the parameters of a class by their names."""
    section = inspect.getdoc(cls).split("Parameters\n----------\n")[1]
    section = re.split(r"\n\n\w[\w ]*\n-+\n", section)[0]
    found = {}
    for block in re.split(r"\n(?=\S)", section):
        head, *lines = block.split("\n")
        names, kind = head.split(" : ", 1)
        text = " ".join(line.strip() for line in lines)
        found.update(dict.fromkeys(names.split(", "), (kind, text)))
    return found


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_shared_parameters_have_one_text(cls):
    found = documented(cls)
    assert set(found) == set(inspect.signature(cls).parameters)
    for name, (kind, text) in TEXTS.items():
        if name in found and (cls.__name__, name) not in OF_MEMBERS:
            assert found[name][0] == kind, name
            assert found[name][1].startswith(text), name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_fit_takes_and_returns_the_same_everywhere(cls):
    base = BaseClassifier if issubclass(cls, BaseClassifier) else BaseRegressor
    own, shared = (inspect.getdoc(one.fit) for one in (cls, base))
    assert own[own.index("Parameters\n-") :] == shared[shared.index("Parameters\n-") :]
    assert own.split("\n")[0] != shared.split("\n")[0]
