"""Check a wheel from the outside: ``python .ci/release_check.py`` where it is installed.

Versions agree; what belongs to the package is in it; the README's first snippet and an example of
the gallery run as written; models of every release load and predict what they predicted. ``make
release-check`` builds the wheel and the environment.
"""

import contextlib
import io
import os
import re
import runpy
import sys
import tempfile
import textwrap
import warnings
from importlib.metadata import files, version
from pathlib import Path

import joblib
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
#: The example that runs: some seconds, and every part of a figure.
EXAMPLE = "grid_search.py"
#: Relative differences of printed numbers, as in tests/test_documentation.py, and of predictions,
#: as in tests/golden.
PRINTED, SINGLE, DOUBLE = 0.05, 1e-5, 1e-10
NUMBER = re.compile(r"\d+\.?\d*(?:e[-+]?\d+)?")


def check_versions():
    """That of the installed package is everywhere: sources, changelog, citation, saved models."""
    import skpou

    if ROOT in Path(skpou.__file__).resolve().parents and ".venv" not in skpou.__file__:
        raise SystemExit(f"skpou comes from {skpou.__file__}, not from the wheel.")
    found = {"skpou.__version__": skpou.__version__, "the wheel": version("skpou")}
    for name, pattern in (
        ("pyproject.toml", r'^version = "([^"]+)"'),
        ("CITATION.cff", r"^version: (\S+)"),
        # What comes after the last release stands under "Unreleased".
        ("CHANGELOG.rst", r"^(\d\S*) - \d{4}-\d\d-\d\d$"),
    ):
        match = re.search(pattern, (ROOT / name).read_text("utf-8"), re.M)
        found[name] = match[1] if match else "none"
    saved = ROOT / "tests" / "golden" / skpou.__version__
    found["tests/golden"] = skpou.__version__ if any(saved.glob("*.npz")) else "none"
    if len(set(found.values())) > 1:
        raise SystemExit(f"Versions differ: {found}.")
    return f"version {skpou.__version__}, from {Path(skpou.__file__).parent}"


def check_contents():
    """Every module, its data and the licence are in the wheel, and nothing else is."""
    installed = {str(path) for path in files("skpou")}
    sources = [path for path in (ROOT / "skpou").rglob("*") if path.suffix in (".py", ".gz")]
    missing = {path.relative_to(ROOT).as_posix() for path in sources} - installed
    missing |= {"skpou/py.typed"} - installed
    if missing or not any(path.endswith("LICENSE") for path in installed):
        raise SystemExit(f"The wheel lacks {sorted(missing) or 'the licence'}.")
    foreign = {path.split("/")[0] for path in installed} - {"skpou"}
    foreign = {path for path in foreign if not path.startswith("skpou-")}
    if foreign:
        raise SystemExit(f"The wheel has {sorted(foreign)} beside the package.")
    return f"{len(sources)} files of the package are in the wheel"


def check_readme():
    """The README's first snippet prints what it says."""
    text = (ROOT / "README.rst").read_text("utf-8")
    block = r"\n((?:\n| +.*\n)+)"
    code, written = re.search(rf"\.\. code:: python\n{block}\nprints::\n{block}", text).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(textwrap.dedent(code), "README.rst", "exec"), {"__name__": "__main__"})
    words = [NUMBER.sub("#", part).split() for part in (printed.getvalue(), written)]
    new, old = (
        np.array(NUMBER.findall(part), dtype=float) for part in (printed.getvalue(), written)
    )
    if words[0] != words[1] or not np.allclose(new, old, rtol=PRINTED, atol=0):
        raise SystemExit(f"README.rst prints\n{printed.getvalue()}\ninstead of\n{written}")
    return f"README.rst prints what it says: {new}"


def check_example():
    """An example of the gallery runs."""
    import matplotlib.pyplot as plt

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "examples" / EXAMPLE), run_name="__main__")
    if not plt.get_fignums():
        raise SystemExit(f"examples/{EXAMPLE} has drawn no figure.")
    return f"examples/{EXAMPLE} runs: {printed.getvalue().splitlines()[0]}"


def check_saved_models():
    """Models of every release load by both ways and predict what they predicted."""
    import skpou.io

    wrong, count = [], 0
    for path in sorted((ROOT / "tests" / "golden").glob("*/*.npz")):
        saved = np.load(path, allow_pickle=False)
        for load, suffix in ((skpou.io.load, ".skops"), (joblib.load, ".joblib")):
            model = load(path.with_suffix(suffix))
            kind = "mean" if "predicted_mean" in saved else "predict_proba"
            method = model.predict if kind == "mean" else model.predict_proba
            wanted = saved[f"predicted_{kind}"]
            moved = np.abs(method(saved["points"]) - wanted).max() / np.abs(wanted).max()
            count += 1
            if moved > (SINGLE if wanted.dtype == np.float32 else DOUBLE):
                wrong.append(f"{path.parent.name}/{path.stem}{suffix} by {moved:.1e}")
    if wrong or not count:
        raise SystemExit(f"Of {count} saved models these predict otherwise: {wrong}")
    return f"{count} saved models predict what they predicted"


CHECKS = (check_versions, check_contents, check_readme, check_example, check_saved_models)


def main():
    """Run all checks in an empty folder, where the sources cannot be imported by chance."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for check in CHECKS:
            with warnings.catch_warnings():
                # Those of figures without a screen, and of pickles of earlier versions.
                warnings.simplefilter("ignore")
                print(check(), flush=True)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
