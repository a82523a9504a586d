"""The rooms of the package and who may call whom, read from the sources without importing them.

    estimators (skpou/_*.py) -> training -> solvers, bases

The numerical core never imports scikit-learn, and matplotlib is imported late, in one place.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 500

# Room -> the rooms of skpou that it may import.
ALLOWED = {
    "bases": {"bases"},
    "solvers": {"bases", "solvers"},
    "training": {"bases", "nn", "physics", "solvers", "training"},
}
WITHOUT_SKLEARN = {*ALLOWED, "nn", "physics"}


class Import(NamedTuple):
    line: int
    name: str  # dotted and absolute: "skpou.bases.networks.Plain" of `from .networks import Plain`
    late: bool  # inside a function


def module_of(path):
    """Dotted name of the module at `path`, relative to the repository."""
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name):
    """Room of a dotted name in skpou; "estimators" for all that is no room of the core."""
    parts = name.split(".")
    if parts[0] != "skpou":
        return None
    room = parts[1] if len(parts) > 1 else ""
    return room if room in WITHOUT_SKLEARN else "estimators"


def imports(source, path):
    """All imports in `source`, those under `if` or inside functions included."""
    package = module_of(path).split(".")
    if Path(path).name != "__init__.py":
        package = package[:-1]
    found = []

    def visit(node, late):
        if isinstance(node, ast.Import):
            found.extend(Import(node.lineno, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found.extend(Import(node.lineno, f"{base}.{a.name}", late) for a in node.names)
        elif isinstance(node, ast.Call) and node.args:
            # importlib.import_module("name") and __import__("name")
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            name = getattr(node.args[0], "value", None)
            if called in ("import_module", "__import__") and isinstance(name, str):
                found.append(Import(node.lineno, name, late))
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, late)

    visit(ast.parse(source), False)
    return found


def import_faults(source, path):
    """Sentences, one for each import of `source` that the rooms do not allow."""
    room = room_of(module_of(path))
    faults = []
    for line, name, late in imports(source, path):
        where = f"{path}:{line} imports {name}: "
        top = name.split(".")[0]
        if top == "sklearn" and room in WITHOUT_SKLEARN:
            faults.append(where + f"skpou.{room} is numerical core and knows nothing of sklearn")
        target = room_of(name)
        if room in ALLOWED and target is not None and target not in ALLOWED[room]:
            may = ", ".join(sorted(ALLOWED[room]))
            faults.append(where + f"of skpou, skpou.{room} may import only {may}, not {target}")
        if top == "matplotlib" and not late:
            faults.append(where + "import matplotlib inside the function that draws")
        if top == "matplotlib" and Path("skpou/inspection") not in Path(path).parents:
            faults.append(where + "figures are drawn in skpou/inspection alone")
    return faults


def lstsq_faults(source, path):
    """Sentences, one for each use of torch.linalg.lstsq, under whatever name."""
    tree = ast.parse(source)
    full = {}  # local name -> dotted name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                full[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                full[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def dotted(node):
        if isinstance(node, ast.Name):
            return full.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return "?"

    return [
        f"{path}:{node.lineno} uses torch.linalg.lstsq, which gives different bits on repeated "
        "calls: use skpou.solvers.least_squares"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
        and dotted(node) in ("torch.linalg.lstsq", "torch.lstsq")
    ]


def sources(*folders):
    """(path relative to the repository, text) of each Python file in `folders`."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in files]


def test_package_is_found():
    paths = [path for path, _ in sources("skpou")]
    assert "skpou/__init__.py" in paths, f"no sources of skpou below {ROOT}"
    assert all(any(p.startswith(f"skpou/{room}/") for p in paths) for room in ALLOWED), (
        f"one of the rooms {sorted(ALLOWED)} has no file: a renamed room needs a rule here"
    )


@pytest.mark.parametrize("check", [import_faults, lstsq_faults])
def test_sources_obey(check):
    faults = [fault for path, source in sources("skpou") for fault in check(source, path)]
    assert not faults, "\n".join(["", *faults])


def test_files_are_short():
    long = {
        path: source.count("\n")
        for path, source in sources("skpou", "tests", "benchmarks", "examples")
        if source.count("\n") > MAX_LINES
    }
    assert not long, f"split these files, they have more than {MAX_LINES} lines: {long}"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("skpou/bases/a.py", "import sklearn"),
        ("skpou/bases/a.py", "from sklearn.base import clone"),
        ("skpou/bases/a.py", "def f():\n    if True:\n        import sklearn.utils"),
        ("skpou/solvers/a.py", "try:\n    from sklearn import utils\nexcept ImportError: ..."),
        ("skpou/training/a.py", "import importlib\nimportlib.import_module('sklearn.base')"),
        ("skpou/training/deep/a.py", "import sklearn"),
        ("skpou/nn.py", "import sklearn as s"),
        ("skpou/physics.py", "import sklearn"),
        ("skpou/bases/a.py", "from ..solvers import least_squares"),
        ("skpou/bases/a.py", "from .. import training"),
        ("skpou/bases/__init__.py", "from ..training.em import fit_em"),
        ("skpou/bases/a.py", "from skpou.training.em import fit_em"),
        ("skpou/bases/a.py", "from skpou._base import Scaling"),
        ("skpou/solvers/a.py", "from ..training import em"),
        ("skpou/solvers/a.py", "from .._base import Scaling"),
        ("skpou/training/a.py", "from .._hierarchical_pou import HierarchicalPOURegressor"),
        ("skpou/training/a.py", "from .. import HierarchicalPOURegressor"),
        ("skpou/training/a.py", "import skpou"),
        ("skpou/training/a.py", "from .. import datasets"),
        ("skpou/_pou.py", "def f():\n    import matplotlib.pyplot as plt"),
        ("skpou/datasets.py", "from matplotlib import pyplot"),
        ("skpou/inspection/_stages.py", "import matplotlib.pyplot as plt"),
        ("skpou/inspection/_stages.py", "class A:\n    from matplotlib import pyplot"),
    ],
)
def test_checker_finds_wrong_imports(path, source):
    assert import_faults(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("skpou/_pou.py", "import sklearn\nfrom .training.em import fit_em"),
        ("skpou/datasets.py", "from sklearn.utils import check_random_state"),
        ("skpou/bases/a.py", "import torch\nfrom .base import Basis\nfrom . import networks"),
        ("skpou/bases/a.py", '"""import sklearn"""\n# import sklearn'),
        ("skpou/solvers/a.py", "from ..bases.base import Basis"),
        ("skpou/training/a.py", "from ..solvers import least_squares\nfrom .. import bases"),
        ("skpou/training/__init__.py", "from .em import fit_em"),
        ("skpou/inspection/_stages.py", "def plot():\n    import matplotlib.pyplot as plt"),
    ],
)
def test_checker_lets_right_imports_pass(path, source):
    assert import_faults(source, path) == []


@pytest.mark.parametrize(
    ("source", "n_faults"),
    [
        ("import torch\ntorch.linalg.lstsq(A, b)", 1),
        ("import torch as t\nf = t.linalg.lstsq", 1),
        ("import torch.linalg\ntorch.linalg.lstsq(A, b)", 1),
        ("import torch.linalg as la\nla.lstsq(A, b)", 1),
        ("from torch import linalg\nlinalg.lstsq(A, b)", 1),
        ("from torch.linalg import lstsq as solve\nsolve(A, b)", 1),
        ("import numpy as np\nnp.linalg.lstsq(A, b)", 0),
        ("from scipy import linalg\nlinalg.lstsq(A, b)", 0),
        ("import torch\ntorch.linalg.qr(A)  # not torch.linalg.lstsq", 0),
    ],
)
def test_checker_finds_lstsq(source, n_faults):
    assert len(lstsq_faults(source, "skpou/solvers/a.py")) == n_faults
