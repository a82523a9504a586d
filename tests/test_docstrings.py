"""Examples in the docstrings of all public names run as they stand, without a warning."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def public_names():
    """(module, name) of all that the page of the API lists."""
    found, module = [], None
    for line in (ROOT / "doc" / "api.rst").read_text("utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            found.append((module, line.strip()))
    return found


def examples_of(module, name):
    """Docstrings with examples of a name and, of a class, of its own methods."""
    thing = getattr(importlib.import_module(module), name)
    found = doctest.DocTestFinder(exclude_empty=True).find(thing, name, module=False, globs={})
    return [test for test in found if test.examples]


def test_the_page_of_the_api_is_read():
    names = public_names()
    assert ("skpou", "HierarchicalPOURegressor") in names
    assert ("skpou.inspection", "FitDisplay") in names
    assert len(names) == len(set(names)) > 40


@pytest.mark.parametrize(("module", "name"), public_names())
def test_examples_run(module, name):
    tests = examples_of(module, name)
    thing = getattr(importlib.import_module(module), name)
    if inspect.isclass(thing) and module in ("skpou", "skpou.inspection"):
        assert any(test.name == name for test in tests), f"{name} has no example"
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in tests:
        runner.run(test, out=report.append)
        plt.close("all")
    assert not runner.failures, "".join(report)
