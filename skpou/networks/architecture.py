"""Feed-forward networks as bases: the functions are the units of the last hidden layer.

Source: Cyr, Gulian, Patel, Perego, Trask (2020), "Robust training and initialization of deep
neural networks: an adaptive basis viewpoint"; the equations are numbered as in M. Gulian's talk
on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

ARCHITECTURES = ("plain", "residual")


@dataclass(frozen=True)
class Activation:
    """An activation function and its derivatives, elementwise.

    The derivatives take the argument z and the value s(z), which some of them need alone.

    Attributes
    ----------
    value : callable (z) -> Tensor
        s(z).
    slope : callable (z, value) -> Tensor
        s'(z).
    curvature : callable (z, value) -> Tensor
        s''(z).
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor, Tensor], Tensor]


#: By the names of the estimators' parameter; the sine is that of the papers on stages.
ACTIVATIONS = {
    "tanh": Activation(
        torch.tanh,
        lambda z, value: 1 - value * value,
        lambda z, value: -2 * value * (1 - value * value),
    ),
    # The slope at 0 is 0, as in torch.
    "relu": Activation(
        torch.relu,
        lambda z, value: (z > 0).to(z.dtype),
        lambda z, value: torch.zeros_like(z),
    ),
    "sin": Activation(
        torch.sin,
        lambda z, value: torch.cos(z),
        lambda z, value: -value,
    ),
}


class LayerValues(NamedTuple):
    """What one hidden layer makes of its input.

    Attributes
    ----------
    weight : Tensor of shape (..., w, v)
        Its weights W.
    input : Tensor of shape (..., n, v)
        The input a.
    argument : Tensor of shape (..., n, w)
        z = W a + b.
    value : Tensor of shape (..., n, w)
        s(z).
    output : Tensor of shape (..., n, w)
        s(z), or a + s(z) in the residual layers.
    activation : str
        Name of s.
    """

    weight: Tensor
    input: Tensor
    argument: Tensor
    value: Tensor
    output: Tensor
    activation: str


@dataclass(frozen=True)
class Network:
    """Hidden layers of a network, Eq. 9 (plain) or 10 (residual) of Cyr et al. (2020).

    Layer 1 maps x to ``s(W_1 x + b_1)``. Every later layer maps h to ``s(W_l h + b_l)`` in plain
    networks and to ``h + s(W_l h + b_l)`` in residual ones.

    The columns are the constant 1, then the units of the last hidden layer, so that the
    coefficients' first row is the bias of the output, as in the polynomial bases.

    The parameters theta are one flat vector, layer by layer: the weights ``W_l`` (w_l, w_{l-1})
    row by row, then the biases ``b_l`` (w_l,), with ``w_0 = n_features``. A leading dimension
    holds several networks of one architecture.

    Parameters
    ----------
    n_features : int
        Dimension d of the points, at least 0.
    hidden_layer_sizes : tuple of int
        Widths w_1 .. w_L, at least one and all positive. Residual networks need equal widths.
    architecture : {"plain", "residual"}, default="plain"
        Whether the layers after the first add to their input.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function s of every unit.
    first_activation : {"tanh", "relu", "sin"}, default=None
        That of the first layer; None: the same.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    n_features: int
    hidden_layer_sizes: tuple[int, ...]
    architecture: str = "plain"
    activation: str = "tanh"
    first_activation: str | None = None

    def __post_init__(self):
        if not _is_count(self.n_features, 0):
            raise ValueError(f"n_features must be an integer >= 0. Got {self.n_features!r}.")
        given = self.hidden_layer_sizes
        sizes = tuple(given) if isinstance(given, tuple | list) else ()
        if not sizes or not all(_is_count(size, 1) for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes must hold one or more integers >= 1. Got {given!r}."
            )
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {', '.join(ARCHITECTURES)}. "
                f"Got {self.architecture!r}."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}. Got {self.activation!r}."
            )
        if self.architecture == "residual" and len(set(sizes)) > 1:
            raise ValueError(
                "hidden_layer_sizes must be equal in a residual network, whose layers add to "
                f"their input. Got {given!r}."
            )
        object.__setattr__(self, "hidden_layer_sizes", tuple(int(size) for size in sizes))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shapes (w_l, w_{l-1}) of the layers' weights."""
        widths = (self.n_features, *self.hidden_layer_sizes)
        return list(zip(widths[1:], widths[:-1], strict=True))

    @property
    def n_parameters(self) -> int:
        """Number of entries of theta."""
        return sum(n_out * (n_in + 1) for n_out, n_in in self.shapes)

    @property
    def n_columns(self) -> int:
        """Number p of columns: the width of the last hidden layer and 1 for the constant."""
        return self.hidden_layer_sizes[-1] + 1

    def unflatten(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of every layer, as views of theta.

        Parameters
        ----------
        theta : Tensor of shape (..., n_parameters)

        Returns
        -------
        list of (Tensor of shape (..., w_l, w_{l-1}), Tensor of shape (..., w_l))

        Raises
        ------
        ValueError
            If theta has another number of entries.
        """
        if not theta.ndim or theta.shape[-1] != self.n_parameters:
            raise ValueError(
                f"theta must have {self.n_parameters} entries along its last dimension. "
                f"Got shape {tuple(theta.shape)}."
            )
        layers, start = [], 0
        for n_out, n_in in self.shapes:
            middle, end = start + n_out * n_in, start + n_out * (n_in + 1)
            weight = theta[..., start:middle].unflatten(-1, (n_out, n_in))
            layers.append((weight, theta[..., middle:end]))
            start = end
        return layers

    def apply_layer(self, index: int, weight: Tensor, bias: Tensor, a: Tensor) -> LayerValues:
        """Map the input a (..., n, w_l) through layer `index`, 0 <= index < L."""
        z = a @ weight.mT + bias.unsqueeze(-2)
        name = self.activation_of(index)
        value = ACTIVATIONS[name].value(z)
        output = a + value if self.adds_input(index) else value
        return LayerValues(weight, a, z, value, output, name)

    def activation_of(self, index: int) -> str:
        """Activation of layer `index`."""
        return self.first_activation if index == 0 and self.first_activation else self.activation

    def adds_input(self, index: int) -> bool:
        """Whether layer `index` adds to its input: all but the first of a residual network."""
        return self.architecture == "residual" and index > 0

    def layers(self, theta: Tensor, X: Tensor) -> Iterator[LayerValues]:
        """Values of the layers at the points X, from the first to the last."""
        a = X
        for index, (weight, bias) in enumerate(self.unflatten(theta)):
            values = self.apply_layer(index, weight, bias, a)
            yield values
            a = values.output

    def slope(self, values: LayerValues) -> Tensor:
        """Derivatives s'(z) of a layer's units."""
        return ACTIVATIONS[values.activation].slope(values.argument, values.value)

    def forward(self, theta: Tensor, X: Tensor) -> Tensor:
        """Columns of one network or of several; torch can differentiate them.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,) or (G, n_parameters)
            Parameters; the leading dimension counts networks.
        X : Tensor of shape (n, d) or (G, n, d)
            Points, common to all networks or each network's own.

        Returns
        -------
        Tensor of shape (n, p) or (G, n, p)
        """
        a = X
        for index, (weight, bias) in enumerate(self.unflatten(theta)):
            a = self.apply_layer(index, weight, bias, a).output
        return prepend(a, 1.0)

    def partial(self, theta: Tensor, X: Tensor, feature: int) -> Tensor:
        """Derivatives of the columns along one coordinate, carried forward through the layers.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,) or (G, n_parameters)
        X : Tensor of shape (n, d) or (G, n, d)
        feature : int
            Index of the coordinate, 0 <= feature < d.

        Returns
        -------
        Tensor of shape (n, p) or (G, n, p)
        """
        tangent = torch.zeros_like(X[..., :1, :])
        tangent[..., feature] = 1.0
        for index, values in enumerate(self.layers(theta, X)):
            own = self.slope(values) * (tangent @ values.weight.mT)
            tangent = tangent + own if self.adds_input(index) else own
        return prepend(tangent, 0.0)


def _is_count(number: object, least: int) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool) and int(number) >= least


def prepend(columns: Tensor, constant: float) -> Tensor:
    """Put a column of a constant before the others."""
    return torch.nn.functional.pad(columns, (1, 0), value=constant)
