"""Hidden layers of networks as steps of programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from skpou.export.families.program import Program, double


def hidden_layers(program: Program, u: str, network: dict[str, Any], theta: np.ndarray) -> str:
    """Units of the last hidden layer.

    Parameters
    ----------
    u : str
        Points of the unit box.
    network : dict
        Sizes, architecture and activations, as `NetworkBasis.arrays` writes them.
    theta : ndarray of shape (n_parameters,)
        Layer by layer, the weights row by row, then the biases.
    """
    theta, start, a = double(theta), 0, u
    for index, n_out in enumerate(network["hidden_layer_sizes"]):
        n_in = program.size(a)
        middle, end = start + n_out * n_in, start + n_out * (n_in + 1)
        z = program.affine(a, theta[start:middle].reshape(n_out, n_in), theta[middle:end])
        first = network.get("first_activation")
        activation = first if index == 0 and first else network["activation"]
        value = program.apply(z, activation)
        residual = network["architecture"] == "residual" and index > 0
        a, start = program.add([a, value]) if residual else value, end
    return a
