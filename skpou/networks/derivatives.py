"""Derivatives of a network's units with respect to the points, of any order, in closed form.

With z a layer's argument and s its function, the derivative of ``s(z)`` along coordinates S is the
sum over the partitions of S into blocks B of ``s^(number of blocks)(z)`` times the product of the
``z_B`` (Faa di Bruno), and ``z_B = W a_B`` for the input a. So derivatives of lower order are
carried through the layers beside those that are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

from skpou.networks.architecture import ACTIVATIONS, Network, prepend

Coordinates = tuple[int, ...]


def activation_derivative(name: str, order: int, z: Tensor, value: Tensor) -> Tensor | None:
    """Derivative of a key of `ACTIVATIONS`, elementwise; None where it is zero throughout."""
    activation = ACTIVATIONS[name]
    if order == 0:
        return value
    if name == "relu":
        return activation.slope(z, value) if order == 1 else None
    if name == "sin":
        return [value, torch.cos(z), -value, -torch.cos(z)][order % 4]
    result = torch.zeros_like(value)
    for coefficient in reversed(_tanh_polynomial(order)):
        result = result * value + coefficient
    return result


@cache
def _tanh_polynomial(order: int) -> tuple[int, ...]:
    """Coefficients, from the constant one, of the derivative as a polynomial in tanh."""
    coefficients = [0, 1]
    for _ in range(order):
        # dP(t)/dz = P'(t) (1 - t^2)
        slope = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [0] * (len(slope) + 2)
        for k, c in enumerate(slope):
            coefficients[k] += c
            coefficients[k + 2] -= c
    return tuple(coefficients)


@cache
def partitions(coordinates: Coordinates) -> tuple[tuple[int, tuple[Coordinates, ...]], ...]:
    """Partitions of a list of coordinates into blocks, equal ones with their number."""

    def split(positions: tuple[int, ...]) -> Iterable[list[tuple[int, ...]]]:
        if not positions:
            yield []
            return
        first, rest = positions[0], positions[1:]
        for size in range(len(rest) + 1):
            for others in combinations(rest, size):
                left = tuple(p for p in rest if p not in others)
                for further in split(left):
                    yield [(first, *others), *further]

    found: Counter[tuple[Coordinates, ...]] = Counter()
    for blocks in split(tuple(range(len(coordinates)))):
        found[tuple(sorted(tuple(coordinates[p] for p in block) for block in blocks))] += 1
    return tuple((count, blocks) for blocks, count in found.items())


def closure(wanted: Iterable[Coordinates]) -> tuple[Coordinates, ...]:
    """All derivatives that some are made of, those of low order first."""
    found: set[Coordinates] = {()}
    for coordinates in wanted:
        ordered = tuple(sorted(coordinates))
        for size in range(1, len(ordered) + 1):
            found |= set(combinations(ordered, size))
    return tuple(sorted(found, key=lambda c: (len(c), c)))


class NetworkDerivatives:
    """Derivatives of the columns of a network at fixed points.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Points.
    wanted : iterable of tuple of int
        Coordinates of each derivative.
    """

    def __init__(self, network: Network, X: Tensor, wanted: Iterable[Coordinates]):
        self.network, self.X = network, X
        self.orders = closure(wanted)

    def _layers(self, theta: Tensor, keep: bool = False):
        """Derivatives of the last layer's units, and those of all arguments and inputs.

        With `keep` torch can differentiate them with respect to the arguments.
        """
        network, X = self.network, self.X
        inputs: dict[Coordinates, Tensor] = {(): X}
        for order in self.orders:
            if len(order) == 1:
                inputs[order] = torch.zeros_like(X)
                inputs[order][:, order[0]] = 1.0
        layers = []
        for index, (weight, bias) in enumerate(network.unflatten(theta)):
            arguments = {order: a @ weight.T for order, a in inputs.items()}
            arguments[()] = arguments[()] + bias
            if keep and not index:
                arguments = {k: z.detach().requires_grad_() for k, z in arguments.items()}
            layers.append((arguments, inputs))
            outputs = self._through(arguments, network.activation_of(index))
            if network.adds_input(index):
                for order, a in inputs.items():
                    outputs[order] = outputs[order] + a if order in outputs else a
            inputs = outputs
        return inputs, layers

    def _through(
        self, arguments: Mapping[Coordinates, Tensor], name: str
    ) -> dict[Coordinates, Tensor]:
        """Derivatives of a layer's function, a key of `ACTIVATIONS`, by those of its argument."""
        z = arguments[()]
        value = ACTIVATIONS[name].value(z)
        slopes = [activation_derivative(name, k, z, value) for k in range(len(self.orders[-1]) + 1)]
        outputs: dict[Coordinates, Tensor] = {(): value}
        for order in self.orders[1:]:
            total: Tensor | None = None
            for count, blocks in partitions(order):
                term = slopes[len(blocks)]
                if term is None or any(block not in arguments for block in blocks):
                    continue
                for block in blocks:
                    term = term * arguments[block]
                total = count * term if total is None else total + count * term
            if total is not None:
                outputs[order] = total
        return outputs

    def columns(self, theta: Tensor) -> dict[Coordinates, Tensor]:
        """Derivatives (n, p) of the columns, the constant first."""
        found, _ = self._layers(theta)
        n, width = len(self.X), self.network.hidden_layer_sizes[-1]
        result = {}
        for order in self.orders:
            units = found.get(order)
            units = self.X.new_zeros((n, width)) if units is None else units
            result[order] = prepend(units, 0.0 if order else 1.0)
        return result

    def chain(self, theta: Tensor, slopes: Mapping[Coordinates, Tensor]) -> Tensor:
        """Derivatives (n, n_parameters) of a function of the columns' derivatives at each point.

        One backward pass finds its sensitivities to all arguments of all layers, since no point
        influences another; with the layers' inputs they make up the derivatives.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        slopes : mapping of tuple of int to Tensor of shape (n, p) or (1, p)
            Derivatives of the function with respect to the columns' derivatives.
        """
        parts = self._sensitivities(theta, slopes)
        result = theta.new_empty((len(self.X), self.network.n_parameters))
        for (weights, biases), (deltas, inputs) in zip(
            self.network.unflatten(result), parts, strict=True
        ):
            weights.zero_()
            for order, delta in deltas.items():
                weights += delta[:, :, None] * inputs[order].detach()[:, None, :]
            biases.copy_(deltas[()])
        return result

    def pull_back(self, theta: Tensor, slopes: Mapping[Coordinates, Tensor]) -> Tensor:
        """Gradient (n_parameters,) of the sum over the points of such a function."""
        blocks = []
        for deltas, inputs in self._sensitivities(theta, slopes):
            by_weight = sum(delta.T @ inputs[order].detach() for order, delta in deltas.items())
            blocks += [by_weight.reshape(-1), deltas[()].sum(0)]
        return torch.cat(blocks)

    def _sensitivities(self, theta: Tensor, slopes: Mapping[Coordinates, Tensor]):
        with torch.enable_grad():
            found, layers = self._layers(theta.detach(), keep=True)
            total = self.X.new_zeros(())
            for order, slope in slopes.items():
                if order in found:
                    total = total + (found[order] * slope[:, 1:].detach()).sum()
        wanted = [z for arguments, _ in layers for z in arguments.values()]
        if total.requires_grad:
            grads = iter(list(torch.autograd.grad(total, wanted, allow_unused=True)))
        else:
            grads = iter([torch.zeros_like(z) for z in wanted])
        result = []
        for arguments, inputs in layers:
            deltas = {}
            for order, z in arguments.items():
                grad = next(grads)
                deltas[order] = torch.zeros_like(z) if grad is None else grad
            result.append((deltas, inputs))
        return result
