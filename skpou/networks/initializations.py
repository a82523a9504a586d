"""First parameters of networks, drawn from numpy generators.

Sources: Cyr, Gulian, Patel, Perego, Trask (2020), "Robust training and initialization of deep
neural networks: an adaptive basis viewpoint", with the equations numbered as in M. Gulian's talk
on it; He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers"; Glorot, Bengio (2010),
"Understanding the difficulty of training deep feedforward neural networks".
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skpou.networks.architecture import Network

#: Distance within so many units of round-off of the size of its two terms: none to divide by.
NO_DISTANCE = 4


def box(network: Network, rng: np.random.Generator, X: Tensor) -> Tensor:
    """Box initialization: random cut planes through the box that holds every layer's input.

    Each unit is ``s(k (x - p) . n)`` with p uniform in the box, n a uniform direction, and k
    such that the largest ``k (x - p) . n`` over the box is 1 (Eq. 13). The bias is therefore
    ``b = -k p . n``; the talk prints it with the other sign. The box is [0, 1]^d before the
    first layer and [0, 1]^w in plain networks. In residual ones layer l >= 2 has the box
    [0, m]^w with ``m = (1 + 1/L)^(l - 2)`` and reaches m / L, so that its output lies in the
    next layer's box, whose edge stays below e.

    The boxes hold the layers' images for ReLU; tanh and sine take negative values, too. In
    *plain* ReLU networks of 16 layers and more the images shrink to points far from most cut
    planes, so that the columns become constants: `he` is the better start there.

    Parameters
    ----------
    network : Network
        The hidden layers; their inputs x lie in the unit box.
    rng : numpy.random.Generator
        Source of the draws. The same state gives the same bits.
    X : Tensor
        Gives dtype and device; its entries do not matter.

    Returns
    -------
    Tensor of shape (n_parameters,)
    """
    depth, edge, blocks = len(network.shapes), 1.0, []
    for index, (n_out, n_in) in enumerate(network.shapes):
        point = edge * rng.random((n_out, n_in))
        normal = _directions(rng, n_out, n_in)
        # Eq. 13: the maximum is at the corner that the signs of n pick.
        corner = np.where(normal > 0, edge, 0.0)
        reach = edge / depth if network.adds_input(index) else 1.0
        scale = _divide(reach, ((corner - point) * normal).sum(1))
        blocks += [scale[:, None] * normal, -scale * (point * normal).sum(1)]
        if network.adds_input(index):
            edge *= 1 + 1 / depth
    return _flatten(blocks, X)


def data_box(network: Network, rng: np.random.Generator, X: Tensor) -> Tensor:
    """Box initialization with cut planes through the data's image in every layer.

    As `box`, but p lies between the images of two random points, and the largest
    ``k (a - p) . n`` over all images a is 1, or 1 / L in the layers that add to their input.
    In many dimensions the image is a small part of the box, which most planes through the box
    miss: deep networks start with more independent columns so. Where all images coincide, k is
    1 or 1 / L itself.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draws. The same state gives the same bits.
    X : Tensor of shape (n, d)
        Points of the data, at least one; dtype and device are theirs.

    Returns
    -------
    Tensor of shape (n_parameters,)

    Raises
    ------
    ValueError
        If X has no rows.
    """
    if not len(X):
        raise ValueError(f"X must have at least one row. Got shape {tuple(X.shape)}.")
    depth, a, blocks = len(network.shapes), X, []
    for index, (n_out, n_in) in enumerate(network.shapes):
        first, second = torch.as_tensor(rng.integers(len(X), size=(2, n_out)), device=X.device)
        share = torch.as_tensor(rng.random((n_out, 1)), device="cpu").to(X)
        normal = torch.as_tensor(_directions(rng, n_out, n_in), device="cpu").to(X)
        offset = ((a[first] + share * (a[second] - a[first])) * normal).sum(1)
        reach = 1.0 / depth if network.adds_input(index) else 1.0
        # Eq. 13 with the data's image for the box
        largest = (a @ normal.T - offset).amax(0)
        round_off = torch.finfo(a.dtype).eps * a.norm(dim=1).amax()
        largest[largest <= NO_DISTANCE * round_off] = 1.0
        scale = reach / largest
        weight, bias = scale[:, None] * normal, -scale * offset
        blocks += [weight.reshape(-1), bias]
        a = network.apply_layer(index, weight, bias, a).output
    return torch.cat(blocks)


def he(network: Network, rng: np.random.Generator, X: Tensor) -> Tensor:
    """Normal weights of variance 2 / (inputs of the layer), He et al. (2015), Eq. 10; biases 0.

    It is meant for plain ReLU networks; the columns of residual ones grow geometrically with
    depth under it.

    Parameters and result are those of `box`.
    """
    blocks = []
    for n_out, n_in in network.shapes:
        deviation = math.sqrt(2 / max(n_in, 1))  # Eq. 10: n_in Var(w) / 2 = 1
        blocks += [deviation * rng.standard_normal((n_out, n_in)), np.zeros(n_out)]
    return _flatten(blocks, X)


def glorot(network: Network, rng: np.random.Generator, X: Tensor) -> Tensor:
    """Uniform weights of variance 2 / (inputs + outputs), Glorot, Bengio (2010), Eq. 16; biases 0.

    Parameters and result are those of `box`.
    """
    blocks = []
    for n_out, n_in in network.shapes:
        bound = math.sqrt(6 / (n_in + n_out))  # Eq. 16
        blocks += [rng.uniform(-bound, bound, (n_out, n_in)), np.zeros(n_out)]
    return _flatten(blocks, X)


INITIALIZATIONS = {"box": box, "data_box": data_box, "he": he, "glorot": glorot}


def _directions(rng: np.random.Generator, n_rows: int, dimension: int) -> np.ndarray:
    """Rows uniform on the unit sphere; empty in dimension 0."""
    rows = rng.standard_normal((n_rows, dimension))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)


def _divide(numerator: float, denominator: np.ndarray) -> np.ndarray:
    """Quotient; the numerator itself where the denominator is 0, as in dimension 0."""
    return numerator / np.where(denominator > 0, denominator, 1.0)


def _flatten(blocks: list[np.ndarray], like: Tensor) -> Tensor:
    """One vector in the dtype and on the device of `like`."""
    return torch.as_tensor(
        np.concatenate([block.reshape(-1) for block in blocks]), device="cpu"
    ).to(like)
