"""State of models as plain values and numpy arrays, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

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


class TensorState:
    """What a dataclass of tensors and numbers keeps: its fields, but for defaults of None."""

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}  # type: ignore[arg-type]
        optional = {part.name for part in fields(self) if part.default is None}  # type: ignore[arg-type]
        return {
            name: to_array(value) if isinstance(value, Tensor) else value
            for name, value in values.items()
            if not (value is None and name in optional)
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Self:
        """Rebuild from `arrays`, on the device of `like`, in the dtypes that were kept."""
        return cls(
            **{
                name: to_tensor(value, like) if isinstance(value, np.ndarray) else value
                for name, value in arrays.items()
            }
        )
