"""Networks as bases: columns that are the units of the last hidden layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skpou.core import Basis, ParametricBasis
from skpou.networks.architecture import Network
from skpou.networks.derivatives import NetworkDerivatives


class NetworkBasis(Basis, kind="network"):
    """The columns of a network at given parameters, as functions of the point.

    Parameters
    ----------
    theta : Tensor of shape (n_parameters,) or (G, n_parameters)
        Parameters. Those of G networks give G matrices at once, (G, n, p) instead of (n, p).
    free_at : Tensor of shape (p, m), default=None
        Coefficients of m outputs at which the posterior has these outputs' derivatives by theta
        beside the columns: hidden layers as free as the last one. None: they are given.
    """

    def __init__(self, network: Network, theta: Tensor, free_at: Tensor | None = None):
        self.network = network
        self.theta = theta
        self.free_at = free_at
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
            **({} if self.free_at is None else {"free_at": self.free_at.cpu().numpy()}),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> NetworkBasis:
        """Rebuild from `arrays`, on the device of `like`."""
        sizes, tensors = dict(arrays), {}
        for name in ("theta", "free_at"):
            if name in sizes:
                tensors[name] = torch.tensor(sizes.pop(name), device=like.device)
        return cls(Network(**sizes), **tensors)

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        return self.network.forward(self.theta.to(X), X)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        return self.network.partial(self.theta.to(X), X, feature)

    def derivative(self, X: Tensor, coordinates: tuple[int, ...]) -> Tensor:
        """Derivatives of any order; see `Basis.derivative`."""
        if len(coordinates) < 2:
            return super().derivative(X, coordinates)
        ordered = tuple(sorted(coordinates))
        return NetworkDerivatives(self.network, X, [ordered]).columns(self.theta.to(X))[ordered]

    def posterior_columns(self, X: Tensor) -> Tensor:
        """Columns, then the derivatives of each output; see `Basis.posterior_columns`."""
        columns = self.matrix(X)
        if self.free_at is None:
            return columns
        with torch.no_grad():
            slopes = NetworkColumns(self.network, X).jacobian(self.theta.to(X), self.free_at.to(X))
        slopes = slopes.transpose(0, 1)
        found = torch.cat([columns.expand(len(slopes), *columns.shape), slopes], 2)
        return found[0] if len(found) == 1 else found


class NetworkColumns(ParametricBasis):
    """The columns of a network at fixed points, as functions of the parameters.

    All derivatives come from the sensitivities ``delta_l = d(Phi c) / dz_l`` of the layers'
    arguments, backpropagated for all points and outputs at once: with a the layer's input,
    ``d(Phi c) / dW_l = delta_l a^T`` and ``d(Phi c) / db_l = delta_l``.

    Parameters
    ----------
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

        `cotangent` (n, m, w_L) or (1, m, w_L) are the derivatives of the m outputs with respect to
        the last layer's units.
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
        """Product J^T v with the transposed Jacobian, which is not formed, for v (n, m).

        With the residuals for v it is the gradient of half the sum of their squares.
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
