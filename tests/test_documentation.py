"""Every snippet of the pages and of the docstrings runs as written, and prints what it says."""

import contextlib
import csv
import doctest
import importlib
import importlib.util
import inspect
import io
import re
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import skpou

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.rst",
    ROOT / "doc" / "index.rst",
    *sorted((ROOT / "doc/guide").glob("*.rst")),
]
MODULES = ("skpou", *(f"skpou.{name}" for name in
                      ("datasets", "export", "inspection", "io", "nn", "physics")))  # fmt: skip
#: Pages and classes whose fits take longer than a test should.
SLOW = {
    *("methods", "start", "table", "scikit_learn"),
    *("pieces", "bars", "classes", "coming_from", "many_rows"),
    *("skpou.AutoRegressor", "skpou.NeuralSparseGridRegressor", "skpou.TransformedRegressor"),
    "skpou.inspection.LeaderboardDisplay",
}
#: How far a printed number may be from that of another machine: beyond what is rounded.
RTOL = 0.05
#: Numbers below this are round-off, and differ between machines by factors.
ROUND_OFF = 1e-10
BLOCK = re.compile(
    r"^(?P<indent> *)(?P<head>\.\. code:: python|prints::)\n(?P<body>(?:\n|(?P=indent) +.*\n)+)",
    re.M,
)
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def snippets(text):
    """(code, what it prints or None) of the Python blocks of a page, in their order."""
    found = []
    for block in BLOCK.finditer(text + "\n"):
        body = textwrap.dedent(block["body"]).strip("\n") + "\n"
        if block["head"].startswith(".."):
            found.append([body, None])
        else:
            found[-1][1] = body
    return found


def assert_prints(printed, written):
    """Words alike, and numbers up to what machines differ by."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", written).split()
    new, old = (np.array(NUMBER.findall(text), dtype=float) for text in (printed, written))
    np.testing.assert_allclose(new, old, rtol=RTOL, atol=ROUND_OFF)


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder with a table of one's own, as the pages speak of."""
    monkeypatch.chdir(tmp_path)
    x = np.linspace(0, 1, 20)
    table = np.column_stack([x, np.sin(6 * x) + 0.05 * np.cos(40 * x)])
    np.savetxt("measurements.csv", table, delimiter=",", header="x,y", comments="")
    yield tmp_path
    plt.close("all")


def page_cases():
    return [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW))
        for path in PAGES
        if snippets(path.read_text("utf-8"))
    ]


@pytest.mark.parametrize("path", page_cases())
def test_page(path, own_folder):
    """The snippets of a page, one after the other, as a reader would run them."""
    names = {"__name__": "__main__"}
    for number, (code, written) in enumerate(snippets(path.read_text("utf-8")), 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{path.name}, snippet {number}", "exec"), names)
        if written is not None:
            assert_prints(printed.getvalue(), written)


def documented():
    """(name, object) of all public names and of their public methods."""
    for module in MODULES:
        owner = importlib.import_module(module)
        for name in owner.__all__:
            thing = getattr(owner, name)
            yield f"{module}.{name}", thing
            if inspect.isclass(thing):
                for method, value in inspect.getmembers(thing, callable):
                    if not method.startswith("_") and (value.__module__ or "").startswith("skpou"):
                        yield f"{module}.{name}.{method}", value


def docstring_cases():
    """Each docstring with an example once, by the first name it is met under."""
    seen = {}
    for name, thing in documented():
        text = getattr(thing, "__doc__", None) or ""
        if ">>>" in text:
            seen.setdefault(text, (name, text))
    return [
        pytest.param(*case, id=case[0], marks=[pytest.mark.slow] * (case[0] in SLOW))
        for case in seen.values()
    ]


@pytest.mark.parametrize(("name", "text"), docstring_cases())
def test_docstring(name, text, own_folder):
    parsed = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = io.StringIO()
    runner.run(parsed, out=report.write)
    assert not runner.failures, report.getvalue()


def test_snippets_are_found():
    """The helper sees code, what it prints, and numbers that differ."""
    text = ".. code:: python\n\n    x = 1\n    print(x)\n\nprints::\n\n    1\n\ntext\n"
    assert snippets(text) == [["x = 1\nprint(x)\n", "1\n"]]
    assert_prints("error 1.01e-3, 5 pieces", "error 1.0e-3, 5 pieces")
    for other in ("error 2.0e-3, 5 pieces", "error 1.0e-3, 5 parts"):
        with pytest.raises(AssertionError):
            assert_prints(other, "error 1.0e-3, 5 pieces")


def test_every_estimator_is_on_the_front_pages():
    names = [n for n in skpou.__all__ if n.endswith(("Regressor", "Classifier"))]
    for page in (ROOT / "README.rst", ROOT / "doc" / "index.rst", ROOT / "doc" / "api.rst"):
        text = page.read_text("utf-8")
        assert not [name for name in names if name not in text], page


def test_html_representation_links_to_the_page(monkeypatch):
    monkeypatch.setenv("SKPOU_DOCUMENTATION", "https://example.org/generated/")
    for name in (n for n in skpou.__all__ if n.endswith(("Regressor", "Classifier"))):
        model = getattr(skpou, name)
        model = model(skpou.POURegressor()) if name == "TransformedRegressor" else model()
        assert f"https://example.org/generated/skpou.{name}.html" in model._repr_html_()
        monkeypatch.delenv("SKPOU_DOCUMENTATION", raising=False)
        assert model._get_doc_link() == ""
        monkeypatch.setenv("SKPOU_DOCUMENTATION", "https://example.org/generated/")


def script(name):
    """A module beside the pages."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "doc" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.html").write_text('<a href="../two.html#here">x</a><p id="p">')
    (tmp_path / "two.html").write_text(
        '<i id="here"></i><a href="https://example.org/none">x</a><a href="a/one.html#none">x</a>'
        '<img src="none.png"><a href="#here">x</a><a href="a/one.html#p">x</a>'
    )
    n_pages, found = script("check_links").faults(tmp_path)
    assert n_pages == 2
    assert found == ["two.html: no place a/one.html#none", "two.html: no file none.png"]


def test_examples_are_in_the_order_of_the_gallery():
    """Every example has its place, and nothing of the list is gone."""
    gallery = script("gallery")
    assert set(gallery.ORDER) == {path.stem for path in (ROOT / "examples").glob("*.py")}


#: Of each row of doc/guide/alternatives.rst: its file in benchmarks/results, and for something else
#: and for skpou the cells that tell the line, the columns, and how the page says them.
ALTERNATIVES = [
    (
        "diode",
        (["spline, degree 9"], ("l2 error", "fit (s)"), "error 1.2e-9 in 0.3 ms"),
        (["skpou, auto, auto"], ("l2 error", "fit (s)"), "7.1e-10 in 4 s"),
    ),
    (
        "front_door",
        (["Friedman 2, 200, 20 %"], ("error, Gaussian process",), "error 0.027"),
        (["Friedman 2, 200, 20 %"], ("error",), "0.034"),
    ),
    (
        "tables",
        (["diabetes (scikit-learn)", "Gaussian process"], ("RMSE", "fit (s)"), "53.6 in 1.6 s"),
        (["diabetes (scikit-learn)", "AdditivePOURegressor"], ("RMSE", "fit (s)"), "55.1 in 3.3 s"),
    ),
    (
        "tables",
        (["power_plant", "gradient boosting"], ("RMSE", "fit (s)"), "3.35 in 0.8 s"),
        (["power_plant", "AdditivePOURegressor"], ("RMSE", "fit (s)"), "2.77, but in 15 s"),
    ),
    (
        "multi_stage_lines",
        (["atan", "uniform", "AAA, rational"], ("worst error",), "8.1e-10"),
        (["atan", "uniform", "MultiStageRegressor"], ("worst error",), "1.1e-5"),
    ),
    (
        "neural_sparse_grid_classes_mnist",
        (["cnn, linear head"], ("accuracy",), "98.95 %"),
        (["cnn, grid of level 3"], ("accuracy",), "98.70 %"),
    ),
]
UNITS = {"ms": 1e-3, "%": 1e-2}


@pytest.mark.parametrize(("name", "other", "own"), ALTERNATIVES)
def test_numbers_beside_others_are_those_of_the_benchmarks(name, other, own):
    """Rounded as the page writes them: to half a unit of the last digit that it has."""
    page = (ROOT / "doc/guide/alternatives.rst").read_text("utf-8")
    with open(ROOT / "benchmarks" / "results" / f"{name}.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for cells, columns, written in (other, own):
        assert f"{written}\n" in page
        line = next(line for line in lines if set(cells) <= set(line.values()))
        found = re.findall(r"(\d+\.?(\d*)(?:e(-?\d+))?) ?(ms|%)?", written)
        assert len(found) == len(columns)
        for column, (number, decimals, exponent, unit) in zip(columns, found, strict=True):
            size = UNITS.get(unit, 1.0)
            half = 0.5 * 10.0 ** (int(exponent or 0) - len(decimals))
            assert abs(float(line[column]) / size - float(number)) <= 1.001 * half, (line, column)


def test_table_of_the_readme_is_that_of_the_benchmarks():
    readme = importlib.import_module("benchmarks.shared.readme")
    text = (ROOT / "README.rst").read_text("utf-8")
    assert f"{readme.START}\n{readme.table()}\n\n{readme.END}" in text
