"""Models in files that outlive this process, read without trust in anyone else's code."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["load", "save"]

#: Parameters of equations are objects of these classes of `skpou.physics`.
OF_EQUATIONS = ("Equation", "Symmetry", "Unknown")


def save(model: Any, path: str | os.PathLike) -> None:
    """Write a model to a file of skops, which holds arrays and names of classes but no code.

    Parameters
    ----------
    model : estimator
        An estimator of skpou, or one of scikit-learn that holds some, such as a pipeline.
    path : str or path-like
        Of the file; ``.skops`` is its usual ending. A file that is there is replaced at once when
        the new one is whole: a fault on the way leaves it as it was.

    Raises
    ------
    ImportError
        If skops is not installed.
    ValueError
        If `load` would refuse the model: functions and classes of others in it, such as
        equations, are not read without knowing them. `skops.io.dump` writes these.
    """
    skops = _skops()
    data = skops.dumps(model, compression=zipfile.ZIP_DEFLATED)
    foreign = _foreign(skops, data)
    if foreign:
        raise ValueError(
            f"model={type(model).__name__}() holds {foreign}, which load does not trust. Write it "
            "with skops.io.dump, and read it with skops.io.load and trusted=..."
        )
    target = Path(os.path.realpath(path))
    # Beside the target, since only within one file system a file takes another's place at once.
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def load(path: str | os.PathLike) -> Any:
    """Read a model that `save` has written.

    Of what is not scikit-learn's or numpy's only skpou's public classes are built; a file that
    names anything else is refused before any of it is.

    Parameters
    ----------
    path : str or path-like
        Of the file.

    Returns
    -------
    estimator
        The model, on the CPU.

    Raises
    ------
    ImportError
        If skops is not installed.
    ValueError
        If the file is none of skops, is damaged, or names other types.
    """
    skops = _skops()
    data = Path(path).read_bytes()
    try:
        foreign = _foreign(skops, data)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"path={os.fspath(path)!r} holds no model: {type(error).__name__}, {error}."
        ) from error
    if foreign:
        raise ValueError(
            f"path={os.fspath(path)!r} holds {foreign}, which is not skpou's. Where you trust its "
            "source, read it with skops.io.load and trusted=..."
        )
    return skops.loads(data, trusted=_own_types())


def _skops() -> ModuleType:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError("skpou.io needs skops: pip install 'skpou[io]'.") from error
    return skops.io


def _own_types() -> list[str]:
    """Names of the public classes, which files know each by the place users import it from."""
    # The package's own list: one more here would be forgotten.
    public = sys.modules[__package__].__all__
    names = [f"{__package__}.{name}" for name in public if not name.startswith("_")]
    return [*names, *(f"{__package__}.physics.{name}" for name in OF_EQUATIONS)]


def _foreign(skops: ModuleType, data: bytes) -> list[str]:
    """Types in a file that are neither skpou's nor among those that skops trusts by itself."""
    return sorted(set(skops.get_untrusted_types(data=data)) - set(_own_types()))
