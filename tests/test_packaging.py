"""What is installed: version, public names, docstrings, and the files beside the code."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skpou

ROOT = Path(__file__).resolve().parents[1]


def public_modules():
    """skpou and its modules for users: no underscore, and no room of the numerical core."""
    found = pkgutil.iter_modules(skpou.__path__)
    names = [m.name for m in found if not m.ispkg or m.name == "datasets"]
    return ["skpou", *sorted(f"skpou.{name}" for name in names if not name.startswith("_"))]


def public_names():
    """(module, name) of all that `__all__` lists."""
    return [
        (module, name)
        for module in public_modules()
        for name in getattr(importlib.import_module(module), "__all__", [])
    ]


def sections(docstring):
    """Titles of a numpydoc docstring's underlined sections."""
    return re.findall(r"^([A-Z]\w[\w ]*)\n-{3,}$", inspect.cleandoc(docstring), flags=re.MULTILINE)


def test_versions_agree():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r'^version = "([^"]+)"', text, flags=re.MULTILINE) == [skpou.__version__]


def test_changelog_names_this_version():
    assert re.search(
        rf"^{re.escape(skpou.__version__)}\b", (ROOT / "CHANGELOG.rst").read_text(), re.M
    )


def test_types_are_marked():
    assert (Path(skpou.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("module", public_modules())
def test_public_modules_list_their_names(module):
    names = getattr(importlib.import_module(module), "__all__", None)
    assert names, f"{module} has no __all__"
    assert len(names) == len(set(names)), f"{module}.__all__ lists a name twice"
    assert importlib.import_module(module).__doc__, f"{module} has no docstring"


@pytest.mark.parametrize(("module", "name"), public_names())
def test_public_names_are_documented(module, name):
    thing = getattr(importlib.import_module(module), name)
    if name == "__version__" or inspect.ismodule(thing):
        return
    # An inherited docstring, or a type's own, does not count.
    assert "__doc__" in vars(thing) or inspect.isfunction(thing), f"{module}.{name}: no docstring"
    docstring = thing.__doc__
    assert docstring and docstring.strip(), f"{module}.{name} has no docstring"
    takes = [p for p in inspect.signature(thing).parameters if p not in ("self", "cls")]
    if takes:
        found = sections(docstring)
        assert "Parameters" in found, f"{module}.{name} has no section Parameters, but {found}"
        start = docstring.index("Parameters\n")
        for parameter in takes:
            assert re.search(
                rf"^ *\*{{0,2}}(\w+, )*{parameter}(, \w+)* *:", docstring[start:], re.M
            ), f"{module}.{name}: parameter {parameter} is not described as 'name : type'"


def modules_after(code):
    """Names of all modules of a new process that has run the code."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_is_light():
    """`import skpou` reads no estimator; neither they nor the figures read an optional package.

    scikit-learn itself may load pandas.
    """
    loaded = modules_after("import skpou; assert set(skpou.__all__) <= set(dir(skpou))")
    assert {name for name in loaded if name.startswith("skpou")} == {"skpou", "skpou._version"}
    assert not {"matplotlib", "dask"} & modules_after(
        "from skpou import *; import skpou.inspection"
    )


def test_names_that_there_are_not():
    with pytest.raises(AttributeError, match="'skpou' has no attribute 'SparseRegressor'"):
        assert skpou.SparseRegressor


def test_sections_are_found():
    """The helper above does see what is missing."""
    assert sections("Fit.\n\n    Parameters\n    ----------\n    X : array\n") == ["Parameters"]
    assert sections("Fit.\n\n    Parameters: X\n") == []
