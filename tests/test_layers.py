"""The rooms of the package and who may call whom, read from the sources without importing them.

The numerical core never imports scikit-learn, and matplotlib is imported late, in one place.
"""

import ast
import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 500

#: Room -> other rooms, and public modules, that it may import, by their doors alone. Data and
#: figures take from `base` the names of scikit-learn that are not public.
ALLOWED = {
    "core": set(),
    "base": {"core", "_version"},
    "networks": {"core"},
    "sines": {"core"},
    "partitions": {"core", "base", "networks", "equations", "physics"},
    "additive": {"core", "base"},
    "sparse_grids": {"core", "base"},
    "neural_sparse_grids": {"core", "base", "networks", "sparse_grids"},
    "search": {"core", "sines"},
    "equations": {"core", "base", "sines", "physics"},
    "lsgd": {"core", "base", "networks", "search", "equations"},
    "multi_stage": {
        "core",
        "base",
        "networks",
        "search",
        "equations",
        "lsgd",
        "physics",
        "additive",
        "partitions",
        "sparse_grids",
    },
    "transformed": {"base", "sparse_grids"},
    "export": {"core", "base", "partitions", "sparse_grids", "search", "lsgd", "multi_stage"},
    "auto": {
        "core",
        "base",
        "partitions",
        "additive",
        "sparse_grids",
        "neural_sparse_grids",
        "lsgd",
        "multi_stage",
    },
    "inspection": {"base"},
    "nn": {"sparse_grids"},
    "physics": {"core"},
    "datasets": {"base"},
    "io": set(),
    "dask": set(),
    "_version": set(),
}
#: Folder within a room -> other folders of the room that it may import; "." are the room's files.
WITHIN = {
    "core": {
        "linalg": set(),
        ".": set(),
        "optim": {".", "linalg"},
        "models": {".", "linalg"},
        "classes": {".", "linalg", "optim", "models"},
    },
    "partitions": {
        "gates": set(),
        "pieces": {"gates"},
        "mixtures": {"gates", "pieces"},
        "blends": {"gates", "pieces", "mixtures"},
        ".": {"gates", "pieces", "mixtures", "blends"},
        "tables": {".", "gates", "pieces", "mixtures"},
        "smooth": {".", "gates", "pieces", "mixtures"},
        "equations": set(),
        "estimators": {
            ".",
            "gates",
            "pieces",
            "mixtures",
            "blends",
            "tables",
            "smooth",
            "equations",
        },
    },
    "sparse_grids": {"basis": set(), "solvers": {"basis"}, ".": {"basis", "solvers"}},
    "neural_sparse_grids": {
        "encoders": set(),
        "projected": {"encoders"},
        "descent": {"encoders", "projected"},
        ".": {"encoders", "projected", "descent"},
    },
    "search": {"bases": set(), ".": {"bases"}},
    "multi_stage": {"families": set(), ".": {"families"}},
    "export": {"families": set(), ".": {"families"}},
}
#: Rooms with a folder and a door; `core` has five.
DOORS = {room for room in ALLOWED if (ROOT / "skpou" / room).is_dir()}
DOORS |= {"core.linalg", "core.optim", "core.models", "core.classes"}
#: Where scikit-learn may be imported.
SKLEARN_ROOMS = ("skpou.base", "skpou.datasets", "skpou.inspection", "skpou.partitions.estimators")
SKLEARN_FILES = {"regressor", "classifier", "estimator"}


class Import(NamedTuple):
    line: int
    name: str  # dotted and absolute: "skpou.networks.basis.Plain" of `from .basis import Plain`
    late: bool  # inside a function


def module_of(path):
    """Dotted name of the module at `path`, relative to the repository."""
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules():
    """Dotted names of all modules and packages of skpou."""
    return {module_of(path) for path, _ in sources("skpou")}


def module_in(name):
    """The module that a dotted name lies in; None outside skpou."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in modules():
            return ".".join(parts[:end])
    return None


def room_of(module):
    """Room of a module of skpou, "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def folder_of(module):
    """Folder within its room, "." where the module lies in the room itself."""
    parts = module.split(".")
    return parts[2] if ".".join(parts[:3]) in packages() and len(parts) > 2 else "."


@functools.cache
def packages():
    """Dotted names of the packages of skpou."""
    return {module_of(path) for path, _ in sources("skpou") if path.endswith("__init__.py")}


@functools.cache  # Most checks ask for the same files.
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


def sklearn_faults(source, path):
    """Sentences, one for each import of scikit-learn where it has no place."""
    module = module_of(path)
    at_home = module.startswith(SKLEARN_ROOMS) or module.split(".")[-1] in SKLEARN_FILES
    faults = []
    for line, name, _ in imports(source, path):
        parts = name.split(".")
        if parts[0] != "sklearn":
            continue
        if not at_home:
            faults.append(f"{path}:{line} imports {name}: numerical core knows nothing of sklearn")
        if any(part.startswith("_") for part in parts) and room_of(module) != "base":
            faults.append(f"{path}:{line} imports {name}: non-public names come from skpou.base")
    return faults


def room_faults(source, path):
    """Sentences, one for each import of another room that is not allowed or not by its door."""
    module = module_of(path)
    room, folder = room_of(module), folder_of(module)
    if not room:  # The package itself takes what doors hand out.
        return []
    faults = []
    for line, name, _ in imports(source, path):
        target = module_in(name)
        if target is None:
            continue
        where, other = f"{path}:{line} imports {name}: ", room_of(target)
        if other == room:
            within = WITHIN.get(room)
            folders = {folder, *within[folder]} if within else {folder}
            if within and folder_of(target) not in folders and not is_door(path, target):
                faults.append(where + f"{folder} of {room} may import only {sorted(folders)}")
            continue
        if other not in ALLOWED[room]:
            may = ", ".join(sorted(ALLOWED[room])) or "nothing"
            faults.append(where + f"of skpou, {room} may import only {may}")
        elif other in DOORS and target.removeprefix("skpou.") not in DOORS:
            faults.append(where + f"take it from a door: {sorted(DOORS)}")
    return faults


def is_door(path, target):
    """Whether the file is a door, which hands on what lies in its own room."""
    return path.endswith("__init__.py") and target.startswith(module_of(path) + ".")


def matplotlib_faults(source, path):
    """Sentences, one for each import of matplotlib at a wrong place."""
    faults = []
    for line, name, late in imports(source, path):
        if name.split(".")[0] != "matplotlib":
            continue
        if not late:
            faults.append(f"{path}:{line}: import matplotlib inside the function that draws")
        if Path("skpou/inspection") not in Path(path).parents:
            faults.append(f"{path}:{line}: figures are drawn in skpou/inspection alone")
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
        "calls: use skpou.core.linalg"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
        and dotted(node) in ("torch.linalg.lstsq", "torch.lstsq")
    ]


#: Functions that make tensors, where torch's defaults say: of what device, and of what dtype.
FACTORIES = {"zeros", "ones", "empty", "eye", "linspace", "rand", "randn"}
CONVERSIONS = {"tensor", "as_tensor", "arange", "full", "tril_indices", "triu_indices", "randperm"}


def factory_faults(source, path):
    """Sentences, one for each tensor that is made as torch's global settings will have it."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        called = getattr(node, "func", None)
        if not isinstance(called, ast.Attribute) or getattr(called.value, "id", "") != "torch":
            continue
        needed = {"device", "dtype"} if called.attr in FACTORIES else {"device"}
        given = {keyword.arg for keyword in node.keywords}
        if called.attr in FACTORIES | CONVERSIONS and None not in given and not needed <= given:
            missing = " and ".join(sorted(needed - given))
            faults.append(f"{path}:{node.lineno}: torch.{called.attr} needs {missing}")
    return faults


def sources(*folders):
    """(path relative to the repository, text) of each Python file in `folders`."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in files]


def import_graph(group):
    """Which groups of modules import which others: {group: {group: an example}}."""
    graph = {}
    for path, source in sources("skpou"):
        module = module_of(path)
        for line, name, _ in imports(source, path):
            target = module_in(name)
            if target is None or target == module:
                continue
            # A name of a package that is no module of it comes through the package's door.
            edges = graph.setdefault(group(module), {})
            if group(target) != group(module):
                edges.setdefault(group(target), f"{path}:{line}")
    return graph


def circles(graph):
    """One circle of a graph as the list of its nodes; empty where there is none."""
    done, trail = set(), []

    def visit(node):
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        trail.append(node)
        for other in sorted(graph.get(node, ())):
            found = visit(other)
            if found:
                return found
        trail.pop()
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node))), [])


def folder_path(module):
    """Folder of a module: its room, and the folder within it; a door is above its room."""
    return (room_of(module), folder_of(module), "door" if module in packages() else "")


def test_package_is_found():
    rooms = {room_of(module) for module in modules()} - {""}
    assert rooms == set(ALLOWED), "a room that comes or goes needs its rule here"
    for room, within in WITHIN.items():
        assert {folder_of(m) for m in modules() if room_of(m) == room} == set(within)


@pytest.mark.parametrize(
    "check", [sklearn_faults, room_faults, matplotlib_faults, lstsq_faults, factory_faults]
)
def test_sources_obey(check):
    faults = [fault for path, source in sources("skpou") for fault in check(source, path)]
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("group", [lambda module: module, room_of, folder_path])
def test_nothing_imports_in_circles(group):
    graph = import_graph(group)
    found = circles(graph)
    steps = [f"{a} -> {b} ({graph[a][b]})" for a, b in itertools.pairwise(found)]
    assert not found, "\n".join(["", *steps])


def test_circles_are_found():
    assert circles({"a": {"b": ""}, "b": {"c": ""}, "c": {"b": ""}}) == ["b", "c", "b"]
    assert circles({"a": {"b": "", "c": ""}, "b": {"c": ""}}) == []


@pytest.mark.parametrize("room", sorted(DOORS))
def test_doors_list_what_they_hand_out(room):
    """In its first line a door says what the room is for; no name waits there unused."""
    path = f"skpou/{room.replace('.', '/')}/__init__.py"
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    handed = {name.name.split(".")[-1] for name in imports((ROOT / path).read_text("utf-8"), path)}
    listed = next(
        {element.value for element in node.value.elts}
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert handed == listed
    used = {
        name.rsplit(".", 1)[1]
        for other, source in sources("skpou", "benchmarks")
        for _, name, _ in imports(source, other)
        if name.rsplit(".", 1)[0] == f"skpou.{room}"
    }
    public = room in ("inspection", "export", "datasets")
    assert public or not listed - used, f"no other room uses {sorted(listed - used)} of {room}"


def test_files_are_short():
    long = {
        path: source.count("\n")
        for path, source in sources("skpou", "tests", "benchmarks", "examples")
        if source.count("\n") > MAX_LINES
    }
    assert not long, f"split these files, they have more than {MAX_LINES} lines: {long}"


@pytest.mark.parametrize(
    ("check", "path", "source"),
    [
        (sklearn_faults, "skpou/core/a.py", "import sklearn"),
        (sklearn_faults, "skpou/core/a.py", "from sklearn.base import clone"),
        (sklearn_faults, "skpou/core/a.py", "def f():\n    if True:\n        import sklearn.utils"),
        (sklearn_faults, "skpou/sines/a.py", "try:\n    from sklearn import utils\nexcept E: ..."),
        (sklearn_faults, "skpou/lsgd/a.py", "import importlib\nimportlib.import_module('sklearn')"),
        (sklearn_faults, "skpou/nn.py", "import sklearn as s"),
        (sklearn_faults, "skpou/lsgd/regressor.py", "from sklearn.utils._x import y"),
        (sklearn_faults, "skpou/datasets/problems.py", "from sklearn.utils.validation import _x"),
        (room_faults, "skpou/core/rows.py", "from skpou.networks import Network"),
        (room_faults, "skpou/core/rows.py", "from skpou.core.linalg import row_blocks"),
        (room_faults, "skpou/core/rows.py", "from .linalg import row_blocks"),
        (room_faults, "skpou/core/rows.py", "from ..base import Prepared"),
        (room_faults, "skpou/core/linalg/evidence.py", "from skpou.core import Rows"),
        (room_faults, "skpou/sines/features.py", "import skpou"),
        (room_faults, "skpou/sines/features.py", "from skpou import LSGDRegressor"),
        (room_faults, "skpou/sines/features.py", "from skpou.core.rows import Rows"),
        (room_faults, "skpou/sines/features.py", "from skpou.core import rows"),
        (
            room_faults,
            "skpou/sines/features.py",
            "def f():\n    from skpou.search import Candidate",
        ),
        (room_faults, "skpou/sines/features.py", "if TYPE_CHECKING:\n    import skpou.search"),
        (room_faults, "skpou/partitions/gates/tree.py", "from skpou.partitions.pieces import plan"),
        (room_faults, "skpou/partitions/gates/tree.py", "from skpou.partitions import GateForm"),
        (room_faults, "skpou/physics.py", "from skpou.base import owned"),
        (matplotlib_faults, "skpou/lsgd/fit.py", "def f():\n    import matplotlib.pyplot as plt"),
        (matplotlib_faults, "skpou/datasets/problems.py", "from matplotlib import pyplot"),
        (matplotlib_faults, "skpou/inspection/_stages.py", "import matplotlib.pyplot as plt"),
        (
            matplotlib_faults,
            "skpou/inspection/_stages.py",
            "class A:\n    from matplotlib import x",
        ),
    ],
)
def test_checker_finds_wrong_imports(check, path, source):
    assert check(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("skpou/lsgd/regressor.py", "import sklearn\nfrom skpou.lsgd.fit import fit_network"),
        ("skpou/datasets/problems.py", "from sklearn.utils import check_random_state"),
        ("skpou/base/compat.py", "from sklearn.utils._param_validation import Interval"),
        ("skpou/sines/features.py", "import torch\nfrom skpou.core import Basis"),
        ("skpou/sines/features.py", '"""import sklearn"""\n# import sklearn'),
        ("skpou/core/models/linear_model.py", "from skpou.core import Basis"),
        ("skpou/core/models/linear_model.py", "from skpou.core.linalg import row_blocks"),
        ("skpou/partitions/pieces/plan.py", "from skpou.partitions.gates.tree import GateForm"),
        ("skpou/inspection/_stages.py", "def plot():\n    import matplotlib.pyplot as plt"),
    ],
)
def test_checker_lets_right_imports_pass(path, source):
    checks = (sklearn_faults, room_faults, matplotlib_faults)
    assert [fault for check in checks for fault in check(source, path)] == []


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


@pytest.mark.parametrize(
    ("source", "n_faults"),
    [
        ("torch.zeros(3)", 1),
        ("torch.zeros(3, dtype=d)", 1),
        ("torch.zeros(3, device=d)", 1),
        ("torch.as_tensor(x)", 1),
        ("torch.zeros(3, dtype=d, device=e)", 0),
        ("torch.as_tensor(x, device=d)", 0),
        ("torch.eye(3, **like)", 0),
        ("np.zeros(3) + x.new_zeros(3) + torch.zeros_like(x)", 0),
    ],
)
def test_checker_finds_tensors_of_no_device(source, n_faults):
    assert len(factory_faults(source, "skpou/core/a.py")) == n_faults
