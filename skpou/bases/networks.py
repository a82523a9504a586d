"""Feed-forward networks as bases: the functions are the units of the last hidden layer.

Source: Cyr, Gulian, Patel, Perego, Trask (2020), "Robust training and initialization of deep
neural networks: an adaptive basis viewpoint"; the equations are numbered as in M. Gulian's talk
on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skpou.bases.base import Basis, ParametricBasis

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
        name = self.first_activation if index == 0 and self.first_activation else self.activation
        value = ACTIVATIONS[name].value(z)
        output = a + value if self.adds_input(index) else value
        return LayerValues(weight, a, z, value, output, name)

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


class NetworkBasis(Basis):
    """The columns of a network at given parameters, as functions of the point.

    Parameters
    ----------
    network : Network
        The hidden layers.
    theta : Tensor of shape (n_parameters,) or (G, n_parameters)
        Parameters. Those of G networks give G matrices at once, (G, n, p) instead of (n, p).
    """

    def __init__(self, network: Network, theta: Tensor):
        self.network = network
        self.theta = theta
        self.n_features = network.n_features
        self.n_columns = network.n_columns

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "n_features": self.network.n_features,
            "hidden_layer_sizes": list(self.network.hidden_layer_sizes),
            "architecture": self.network.architecture,
            "activation": self.network.activation,
            **({"first_activation": first} if (first := self.network.first_activation) else {}),
            "theta": self.theta.cpu().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> NetworkBasis:
        """Rebuild from `arrays`, on the device of `like`."""
        network = Network(**{name: value for name, value in arrays.items() if name != "theta"})
        return cls(network, torch.tensor(arrays["theta"], device=like.device))

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        return self.network.forward(self.theta.to(X), X)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        return self.network.partial(self.theta.to(X), X, feature)

    def derivative(self, X: Tensor, coordinates: tuple[int, ...]) -> Tensor:
        """Derivatives of any order; see `Basis.derivative`."""
        from skpou.bases.network_derivatives import NetworkDerivatives

        if len(coordinates) < 2:
            return super().derivative(X, coordinates)
        ordered = tuple(sorted(coordinates))
        return NetworkDerivatives(self.network, X, [ordered]).columns(self.theta.to(X))[ordered]


class NetworkColumns(ParametricBasis):
    """The columns of a network at fixed points, as functions of the parameters.

    All derivatives come from the sensitivities ``delta_l = d(Phi c) / dz_l`` of the layers'
    arguments, backpropagated for all points and outputs at once: with a the layer's input,
    ``d(Phi c) / dW_l = delta_l a^T`` and ``d(Phi c) / db_l = delta_l``.

    Parameters
    ----------
    network : Network
        The hidden layers.
    X : Tensor of shape (n, d)
        Points.
    """

    def __init__(self, network: Network, X: Tensor):
        self.network = network
        self.X = X
        self.n_columns = network.n_columns
        self.n_parameters = network.n_parameters

    def rows(self, index: slice | Tensor) -> NetworkColumns:
        """The same columns at some of the points."""
        return NetworkColumns(self.network, self.X[index])

    def matrix(self, theta: Tensor) -> Tensor:
        """Columns; see `ParametricBasis.matrix`."""
        return self.network.forward(theta, self.X)

    def _backpropagate(self, theta: Tensor, cotangent: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Sensitivities (n, m, w_l) and inputs (n, w_{l-1}) of every layer.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        cotangent : Tensor of shape (n, m, w_L) or (1, m, w_L)
            Derivatives of the m outputs with respect to the last layer's units.
        """
        network = self.network
        layers = list(network.layers(theta, self.X))
        result = []
        for index in reversed(range(len(layers))):
            delta = cotangent * network.slope(layers[index])[:, None, :]
            result.append((delta, layers[index].input))
            if index > 0:
                through = delta @ layers[index].weight
                cotangent = cotangent + through if network.adds_input(index) else through
        return result[::-1]

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivatives of the outputs; see `ParametricBasis.jacobian`.

        Torch cannot differentiate it again; `forward` is for that.
        """
        return self.chain(theta, coef.T[None])

    def chain(self, theta: Tensor, slope: Tensor) -> Tensor:
        """Derivatives of m functions of the columns, delta_l a^T and delta_l side by side.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        slope : Tensor of shape (n, m, p) or (1, m, p)
            The functions' derivatives with respect to the columns.

        Returns
        -------
        Tensor of shape (n, m, n_parameters)
        """
        result = theta.new_empty((len(self.X), slope.shape[1], self.n_parameters))
        # The constant column comes first and depends on no parameter.
        parts = self._backpropagate(theta, slope[..., 1:])
        with torch.no_grad():
            for (weights, biases), (delta, a) in zip(
                self.network.unflatten(result), parts, strict=True
            ):
                torch.mul(delta[..., None], a[:, None, None, :], out=weights)
                biases.copy_(delta)
        return result

    def gradient(self, theta: Tensor, coef: Tensor, cotangent: Tensor) -> Tensor:
        """Product J^T v with the transposed Jacobian, which is not formed.

        With the residuals for v it is the gradient of half the sum of their squares.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        coef : Tensor of shape (p, m)
        cotangent : Tensor of shape (n, m)
            The vector v.

        Returns
        -------
        Tensor of shape (n_parameters,)
        """
        return self.pull_back(theta, cotangent @ coef.T)

    def pull_back(self, theta: Tensor, slope: Tensor) -> Tensor:
        """Gradient of a function with derivatives `slope` (n, p) with respect to the columns."""
        blocks = []
        for delta, a in self._backpropagate(theta, slope[:, None, 1:]):
            blocks += [(delta[:, 0].T @ a).reshape(-1), delta[:, 0].sum(0)]
        return torch.cat(blocks)

    def gram(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Product J J^T for Gauss-Newton steps with more parameters than rows.

        A layer adds ``(delta . delta') (a . a' + 1)``, the 1 from its biases; its part of the
        Jacobian is never formed.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        coef : Tensor of shape (p, m)

        Returns
        -------
        Tensor of shape (n m, n m)
            Rows and columns in the order of ``jacobian(theta, coef).reshape(n * m, -1)``.
        """
        n, m = len(self.X), coef.shape[1]
        result = theta.new_zeros((n * m, n * m))
        for delta, a in self._backpropagate(theta, coef[1:].T[None]):
            rows = delta.flatten(0, 1)
            product = (rows @ rows.T).reshape(n, m, n, m) * (a @ a.T + 1)[:, None, :, None]
            result += product.reshape(n * m, n * m)
        return result
