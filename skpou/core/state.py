"""State of models as plain values and numpy arrays, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import Self


def to_array(value: Tensor) -> np.ndarray:
    """The values, contiguous: saving makes them so, and another layout gives other last bits."""
    return value.cpu().contiguous().numpy()


def to_tensor(array: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of the values on the device of `like`, in their own dtype if none is given."""
    return torch.tensor(np.asarray(array), dtype=dtype, device=like.device)


class ArrayState:
    """What a dataclass keeps: its fields, but for defaults of None; tensors are arrays then."""

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        optional = {part.name for part in fields(self) if part.default is None}  # type: ignore[arg-type]
        values = {part.name: getattr(self, part.name) for part in fields(self)}  # type: ignore[arg-type]
        return {
            name: _kept(value)
            for name, value in values.items()
            if not (value is None and name in optional)
        }


class TensorState(ArrayState):
    """One whose arrays become tensors again."""

    #: Classes of fields, or of their members, that have a state of their own.
    parts: ClassVar[dict[str, Any]] = {}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Self:
        """Rebuild from `arrays`, on the device of `like`, in the dtypes that were kept."""
        names = {part.name for part in fields(cls)} & arrays.keys()  # type: ignore[arg-type]
        return cls(**{name: cls._rebuilt(name, arrays[name], like) for name in names})

    @classmethod
    def _rebuilt(cls, name: str, value: Any, like: Tensor) -> Any:
        if name in cls.parts and isinstance(value, list):
            return tuple(cls.parts[name].from_arrays(one, like) for one in value)
        if name in cls.parts and value is not None:
            return cls.parts[name].from_arrays(value, like)
        return to_tensor(value, like) if isinstance(value, np.ndarray) else value


def _kept(value: Any) -> Any:
    if isinstance(value, Tensor):
        return to_array(value)
    if isinstance(value, tuple) and value and hasattr(value[0], "arrays"):
        return [one.arrays() for one in value]
    return value.arrays() if hasattr(value, "arrays") else value
