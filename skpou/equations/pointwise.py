"""Residuals that see the solution's derivatives as numbers at a point, and their slopes.

Since a residual works pointwise, its derivative with respect to one of them is one number a point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.physics import Constants

#: An output and the sorted coordinates along which it is differentiated.
Key = tuple[int, tuple[int, ...]]
Values = Mapping[Key, Tensor]


@dataclass(frozen=True)
class Pointwise:
    """A residual less its target as a function of derivatives, points and unknowns.

    Attributes
    ----------
    function : callable (values, x, p) -> Tensor of shape (n, k)
    keys : tuple of Key
        Derivatives that it needs.
    name : str
        For messages.
    """

    function: Callable[[Values, Tensor, Mapping[str, Tensor]], Tensor]
    keys: tuple[Key, ...]
    name: str

    def linearise(
        self, values: Values, x: Tensor, p: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[Key, Tensor], dict[str, Tensor]]:
        """Residual (n, k) and its derivatives (n, k) with respect to every value and unknown."""
        with torch.enable_grad():
            values = {key: values[key].detach().requires_grad_() for key in self.keys}
            p = Constants({name: value.detach().requires_grad_() for name, value in p.items()})
            result = self.function(values, x, p)
            columns = result.unbind(1)
            by_value = dict(zip(self.keys, _slopes(columns, values.values()), strict=True))
            by_unknown = dict(zip(p, _slopes_by_numbers(columns, p.values()), strict=True))
        return result.detach(), by_value, by_unknown

    def along(self, coordinate: int) -> Pointwise:
        """Total derivative of the residual along a coordinate."""
        further = {key: (key[0], tuple(sorted((*key[1], coordinate)))) for key in self.keys}

        def function(values: Values, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
            with torch.enable_grad():
                x = x if x.requires_grad else x.detach().requires_grad_()
                parts = {k: values[k] if values[k].requires_grad else
                         values[k].detach().requires_grad_() for k in self.keys}  # fmt: skip
                columns = []
                for column in self.function(parts, x, p).unbind(1):
                    by_x, *slopes = _gradients(column.sum(), (x, *parts.values()))
                    total = by_x[:, coordinate]
                    for key, slope in zip(self.keys, slopes, strict=True):
                        total = total + slope * values[further[key]]  # The chain rule
                    columns.append(total)
                return torch.stack(columns, 1)

        keys = tuple(dict.fromkeys((*self.keys, *further.values())))
        return Pointwise(function, keys, f"gradient of {self.name}")


def _gradients(total: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a number that can be differentiated again; zeros where it is constant."""
    if not total.requires_grad:
        return [torch.zeros_like(part) for part in inputs]
    found = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
    return [
        torch.zeros_like(part) if slope is None else slope
        for part, slope in zip(inputs, found, strict=True)
    ]


def _slopes(columns: Sequence[Tensor], values: Iterable[Tensor]) -> list[Tensor]:
    """Derivatives (n, k) of k pointwise functions with respect to each of some values (n,).

    One backward pass a function: the sum over the points mixes nothing.
    """
    inputs = list(values)
    found = [[part.detach() for part in _gradients(c.sum(), inputs)] for c in columns]
    return [torch.stack(slopes, 1) for slopes in zip(*found, strict=True)]


def _slopes_by_numbers(columns: Sequence[Tensor], numbers: Iterable[Tensor]) -> list[Tensor]:
    """Derivatives (n, k) with respect to numbers that all points share.

    The derivative of the product v . dr/dp with respect to v is dr/dp, point by point.
    """
    result = []
    for number in numbers:
        slopes = []
        for column in columns:
            v = torch.ones_like(column, requires_grad=True)
            product = _gradients((v * column).sum(), [number])[0]
            slopes.append(_gradients(product, [v])[0].detach())
        result.append(torch.stack(slopes, 1))
    return result
