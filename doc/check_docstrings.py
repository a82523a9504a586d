"""Check the docstrings of all public objects by numpydoc's rules: run it without arguments.

Public is what the modules' ``__all__`` name, and what these classes show of this package.
"""

import importlib
import inspect
import sys
from pathlib import Path

from numpydoc.validate import validate

#: Rules that are not kept, and why not.
LEFT_OUT = {
    "ES01": "one line may be all that there is to say",
    "EX01": "classes have examples, their methods are in them",
    "RT02": "`self : Class` is what scikit-learn writes",
    "RT03": "the summary says what a function returns",
    "SA01": "pages of the guide lead from one object to the next",
    "SS05": "it takes plural nouns for verbs: Quantiles, Probabilities",
}
MODULES = ("skpou", *(f"skpou.{name}" for name in
                      ("datasets", "export", "inspection", "io", "nn", "physics")))  # fmt: skip


def public_names():
    """Names of the objects that have docstrings of their own."""
    for module in MODULES:
        home = importlib.import_module(module)
        for name in home.__all__:
            thing = getattr(home, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{module}.{name}"
            if inspect.isclass(thing):
                yield from (f"{module}.{name}.{member}" for member in public_members(thing))


def public_members(cls):
    """Names of the methods and properties that this package has written."""
    for name in dir(cls):
        static = inspect.getattr_static(cls, name)
        function = static.fget if isinstance(static, property) else getattr(cls, name, None)
        written = (getattr(function, "__module__", None) or "").startswith("skpou")
        if written and callable(function) and not name.startswith("_"):
            yield name


def faults():
    """Sentences, one for each rule that a docstring breaks."""
    for name in public_names():
        for code, message in validate(name)["errors"]:
            if code not in LEFT_OUT:
                yield f"{name}: {code} {message}"


if __name__ == "__main__":
    # The sources that lie beside this folder, installed or not.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    found = list(faults())
    print("\n".join(found) or "docstrings of all public objects are as numpydoc has them")
    sys.exit(bool(found))
