"""Encoders: maps of points into the unit box of a sparse grid (Zhang 2021, section 3.2)."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skpou.core.linalg import NO_VARIANCE
from skpou.networks import Network, NetworkColumns

#: How an encoder is made, whatever torch's defaults; a fit then casts and moves it.
FIRST: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
#: Slope of the logistic function that comes nearest to the normal distribution function: latent
#: coordinates of unit variance then fill the box evenly.
LOGIT_SLOPE = 1.702
#: Filters of the convolutional layers: twice as many where pooling leaves a quarter of the pixels.
FILTERS = (16, 32, 64)
#: Side of their windows: the least with a middle; three layers see 22 pixels.
WINDOW = 3
#: Share of a batch in the running moments of a latent coordinate: that of torch's own layers.
MOMENTUM = 0.1
#: Added to variances that are divided by: coordinates that hardly vary get no endless slope.
LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class EncoderForm:
    """What an encoder is built from.

    Attributes
    ----------
    kind : str
        ``"mlp"``, ``"cnn"``, or ``"module:name"`` of a function
        ``(n_features_in, n_components) -> nn.Module``.
    n_components : int
        Dimension d of the grid.
    hidden_layer_sizes : tuple of int
        Of ``"mlp"``.
    activation : str
        Of ``"mlp"``.
    image_shape : tuple of int or None
        Channels, height and width, of ``"cnn"``.
    margin : float
        Distance of the embedding from the faces of the box.
    """

    kind: str
    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...] = (25, 25)
    activation: str = "tanh"
    image_shape: tuple[int, ...] | None = None
    margin: float = 0.0

    def arrays(self) -> dict[str, Any]:
        """State as plain values."""
        shape = None if self.image_shape is None else list(self.image_shape)
        sizes = list(self.hidden_layer_sizes)
        return {**vars(self), "hidden_layer_sizes": sizes, "image_shape": shape}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> EncoderForm:
        """Rebuild from `arrays`."""
        shape = arrays["image_shape"]
        form = cls(**{**arrays, "hidden_layer_sizes": tuple(arrays["hidden_layer_sizes"])})
        return replace(form, image_shape=None if shape is None else tuple(shape))


#: Encoders by name; any other name is that of a function.
BUILT_IN = ("mlp", "cnn")


def name_of(function: Any) -> str:
    """``"module:name"`` of a function that can be imported.

    Raises
    ------
    ValueError
        If it cannot be: the reason, and what to pass instead.
    """
    advice = "Pass a function of a module, (n_features_in, n_components) -> nn.Module."
    if isinstance(function, nn.Module):
        raise ValueError(
            f"encoder is a {type(function).__name__} instance, which fit could not build anew for "
            f"every fit, nor a saved model on loading. {advice}"
        )
    module, name = (getattr(function, key, None) for key in ("__module__", "__qualname__"))
    if not callable(function) or module is None or name is None:
        raise ValueError(f"encoder must be 'mlp', 'cnn' or a function. Got {function!r}. {advice}")
    if "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if "<lambda>" in name else "a local function"
        raise ValueError(
            f"encoder is {kind}, {module}.{name}, which a saved model could not import on loading. "
            f"{advice}"
        )
    if imported(f"{module}:{name}") is not function:
        raise ValueError(
            f"encoder calls itself {module}.{name}, but another object is to be found there. "
            f"{advice}"
        )
    return f"{module}:{name}"


def imported(name: str) -> Callable[[int, int], nn.Module]:
    """The function of a ``"module:name"``."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


class NetworkBody(nn.Module):
    """Plain network with a linear output layer, all of whose parameters are one flat vector."""

    mean: Tensor
    width: Tensor

    def __init__(self, form: EncoderForm):
        super().__init__()
        d, sizes = form.n_features, form.hidden_layer_sizes
        self.network = Network(d, sizes, "plain", form.activation)
        self.n_components = form.n_components
        self.n_hidden = self.network.n_parameters
        n_output = form.n_components * self.network.n_columns
        self.theta = nn.Parameter(torch.zeros(self.n_hidden + n_output, **FIRST))
        self.register_buffer("mean", torch.zeros(d, **FIRST))
        self.register_buffer("width", torch.ones(d, **FIRST))

    def standardised(self, X: Tensor) -> Tensor:
        """Points of zero mean and unit variance."""
        return (X - self.mean) / self.width

    def parts(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the hidden layers, and the weights (d, p) of the output layer."""
        return theta[: self.n_hidden], theta[self.n_hidden :].view(self.n_components, -1)

    def forward(self, X: Tensor) -> Tensor:
        """Latent coordinates (n, d) before they are squashed."""
        hidden, output = self.parts(self.theta)
        return self.network.forward(hidden, self.standardised(X)) @ output.T

    @torch.no_grad()
    def start(
        self, X: Tensor, weight: Tensor, rng: np.random.Generator, least_width: float = 0.0
    ) -> None:
        """Draw random parameters, for the mean and the width of the rows.

        A column's width counts as `least_width` at least: a pixel that is hardly ever on must not
        outweigh all others.
        """
        share = (weight / weight.sum())[:, None]
        self.mean.copy_((share * X).sum(0))
        width = (share * (X - self.mean).square()).sum(0).sqrt()
        self.width.copy_(torch.where(width > 0, width, 1.0).clamp_min(least_width))
        blocks = []
        shapes = [*self.network.shapes, (self.n_components, self.network.n_columns - 1)]
        for n_out, n_in in shapes[:-1]:
            blocks.append(rng.standard_normal((n_out, n_in)) / math.sqrt(max(n_in, 1)))
            blocks.append(0.5 * rng.standard_normal(n_out))
        n_out, n_in = shapes[-1]
        output = rng.standard_normal((n_out, n_in)) / math.sqrt(n_in)
        blocks.append(np.hstack([np.zeros((n_out, 1)), output]))  # The constant column first
        flat = np.concatenate([block.reshape(-1) for block in blocks])
        self.theta.copy_(torch.as_tensor(flat, device="cpu"))

    @torch.no_grad()
    def move_output(self, shift: Tensor, factor: Tensor) -> None:
        """Replace the outputs z by ``factor (z - shift)``, factor of shape (d, d)."""
        output = self.parts(self.theta)[1]
        output[:, 0] -= shift
        output.copy_(factor @ output)


class ConvolutionalBody(nn.Module):
    """Three convolutions of 3 x 3 with pooling, then a linear layer.

    Parameters
    ----------
    form : EncoderForm
        Shape of the images and number of components.
    """

    def __init__(self, form: EncoderForm):
        super().__init__()
        if form.image_shape is None:
            raise ValueError("An encoder of images needs their shape.")
        channels, height, width = self.shape = form.image_shape
        layers: list[nn.Module] = []
        for filters in FILTERS:
            layers.append(nn.Conv2d(channels, filters, WINDOW, padding=WINDOW // 2, **FIRST))
            layers.append(nn.BatchNorm2d(filters, **FIRST))
            layers += [nn.ReLU()]
            if min(height, width) > 1:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = filters
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.output = nn.Linear(channels * height * width, form.n_components, **FIRST)

    def forward(self, X: Tensor) -> Tensor:
        """Latent coordinates (n, d) before they are squashed."""
        return self.output(self.layers(X.view(-1, *self.shape)))


class LatentScaling(nn.Module):
    """Latent coordinates of zero mean and unit variance, each by itself.

    In training the moments are those of the minibatch, as in batch normalisation, where `follows`;
    otherwise they stay what they were set to.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, n_components: int):
        super().__init__()
        self.follows = False
        self.register_buffer("mean", torch.zeros(n_components, **FIRST))
        self.register_buffer("variance", torch.ones(n_components, **FIRST))

    def forward(self, z: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scaled coordinates (n, d); `weight` (n,) are the rows' weights in training."""
        mean, variance = self.mean, self.variance
        if self.training and self.follows and len(z) > 1:
            mean, variance = _moments(z, weight)
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.variance.lerp_(variance, MOMENTUM)
        return (z - mean) / _deviation(variance)

    @torch.no_grad()
    def measure(self, z: Tensor, weight: Tensor) -> None:
        """Set the moments to those of rows."""
        mean, variance = _moments(z, weight)
        self.mean.copy_(mean)
        self.variance.copy_(torch.where(variance > NO_VARIANCE, variance, 1.0))


def _deviation(variance: Tensor) -> Tensor:
    """What latent coordinates of a variance are divided by."""
    return (variance + LEAST_VARIANCE).sqrt()


def _moments(z: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    share = 1 / len(z) if weight is None else (weight / weight.sum())[:, None]
    mean = (share * z).sum(0)
    return mean, (share * (z - mean).square()).sum(0)


class Encoder(nn.Module):
    """Network, scaling of its outputs, and the logistic function: Eq. 3.2 of Zhang (2021).

    Parameters
    ----------
    columns : Tensor of shape (k,), int64
        Columns of X that vary and come in.
    offset, width : Tensor of shape (k,)
        Their box: what comes in is ``(x - offset) / width``.
    """

    columns: Tensor
    offset: Tensor
    width: Tensor

    def __init__(self, form: EncoderForm, columns: Tensor, offset: Tensor, width: Tensor):
        super().__init__()
        self.form = form
        self.gain = 1.0
        if form.kind == "mlp":
            self.body: nn.Module = NetworkBody(replace(form, n_features=len(columns)))
        elif form.kind == "cnn":
            self.body = ConvolutionalBody(form)
        else:
            self.body = imported(form.kind)(form.n_features, form.n_components)
            if not isinstance(self.body, nn.Module):
                raise TypeError(
                    f"encoder {form.kind} must return a torch.nn.Module. Got {self.body!r}."
                )
        self.scaling = LatentScaling(form.n_components)
        # One scale for all columns keeps the contrast of an image.
        low = offset.min() if len(offset) else offset.new_zeros(())
        size = (offset + width).max() - low if len(offset) else offset.new_ones(())
        self.register_buffer("columns", columns)
        self.register_buffer("offset", (offset - low) / size)
        self.register_buffer("width", width / size)

    @property
    def network_body(self) -> NetworkBody:
        """The body of an ``"mlp"``, whose derivatives are at hand.

        Raises
        ------
        TypeError
            If it has another one.
        """
        if not isinstance(self.body, NetworkBody):
            raise TypeError(f"An encoder {self.form.kind!r} has no derivatives row by row.")
        return self.body

    def inputs(self, X: Tensor) -> Tensor:
        """What the network reads: for an ``"mlp"`` the points, else all columns on one scale."""
        if self.form.kind == "mlp":
            return X
        full = X.new_zeros((len(X), self.form.n_features))
        return full.index_copy(1, self.columns, self.offset + self.width * X)

    def raw(self, X: Tensor) -> Tensor:
        """What the network gives (n, d) at points X (n, k) of the unit box of the data.

        Raises
        ------
        ValueError
            If it has another shape.
        """
        z = self.body(self.inputs(X))
        if z.shape != (len(X), self.form.n_components):
            raise ValueError(
                f"encoder {self.form.kind} must map {len(X)} rows to shape "
                f"{(len(X), self.form.n_components)}, n_components columns. Got {tuple(z.shape)}."
            )
        return z

    def latent(self, X: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scaled latent coordinates (n, d) at points X (n, k) of the unit box of the data."""
        return self.gain * self.scaling(self.raw(X), weight)

    def squashed(self, z: Tensor) -> Tensor:
        """Points of the unit box, `margin` away from its faces."""
        margin = self.form.margin
        return margin + (1 - 2 * margin) * torch.sigmoid(LOGIT_SLOPE * z)

    def forward(self, X: Tensor, weight: Tensor | None = None) -> Tensor:
        """Embedding (n, d) in the unit box; `weight` (n,) are the rows' weights in training."""
        return self.squashed(self.latent(X, weight))

    # State

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        state = {k: v.detach().cpu().contiguous().numpy() for k, v in self.state_dict().items()}
        return {"form": self.form.arrays(), "gain": self.gain, "state": state}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Encoder:
        """Rebuild from `arrays`, on the device and in the dtype of `like`, for evaluation."""
        state = {k: torch.tensor(np.asarray(v), device="cpu") for k, v in arrays["state"].items()}
        parts = (state[name] for name in ("columns", "offset", "width"))
        with torch.random.fork_rng(devices=[]):
            encoder = cls(EncoderForm.from_arrays(arrays["form"]), *parts)
        encoder.gain = arrays["gain"]
        dtype = state["scaling.mean"].dtype
        encoder.to(dtype).load_state_dict(state)
        encoder.eval().requires_grad_(False)
        return encoder.to(device=like.device, dtype=like.dtype)


class Embedding(NamedTuple):
    """What an encoder makes of points.

    Attributes
    ----------
    u : Tensor of shape (n, d)
        Points of the unit box.
    z : Tensor of shape (n, d)
        Latent coordinates, before they were squashed.
    slope : Tensor of shape (n, d)
        Derivatives of u by z.
    columns : Tensor of shape (n, p)
        Columns of the last hidden layer.
    """

    u: Tensor
    z: Tensor
    slope: Tensor
    columns: Tensor

    def is_finite(self) -> bool:
        """Whether all points are numbers."""
        return bool(torch.isfinite(self.z).all())


class EncoderDerivatives:
    """An ``"mlp"`` encoder at fixed points, as a function of its parameters.

    Parameters
    ----------
    encoder : Encoder
        With a `NetworkBody`; its scaling stays as it is.
    X : Tensor of shape (n, k)
        Points.
    """

    def __init__(self, encoder: Encoder, X: Tensor):
        self.encoder = encoder
        self.body = encoder.network_body
        self.hidden = NetworkColumns(self.body.network, self.body.standardised(X))
        self.n_parameters = self.body.theta.numel()
        #: What the last fit was linearised by; only who has made it knows what it is.
        self.products: Any = None

    def rows(self, index: slice | Tensor) -> EncoderDerivatives:
        """The same encoder at some of the points."""
        part = copy.copy(self)
        part.hidden = self.hidden.rows(index)
        return part

    def embed(self, theta: Tensor) -> Embedding:
        """Embedding of the points."""
        hidden, output = self.body.parts(theta)
        columns = self.hidden.matrix(hidden)
        z = self.encoder.gain * self.encoder.scaling(columns @ output.T)
        u = self.encoder.squashed(z)
        margin = self.encoder.form.margin
        inside = (u - margin) / (1 - 2 * margin)
        slope = (1 - 2 * margin) * LOGIT_SLOPE * inside * (1 - inside)
        return Embedding(u, z, slope, columns)

    def jacobian(self, theta: Tensor, columns: Tensor, slope: Tensor) -> Tensor:
        """Derivatives (n, m, k) of functions of the latent coordinates by all parameters.

        Parameters
        ----------
        theta : Tensor of shape (k,)
        columns : Tensor of shape (n, p)
            From `embed`.
        slope : Tensor of shape (n, m, d)
            The functions' derivatives by the latent coordinates.
        """
        hidden, output = self.body.parts(theta)
        delta = self._by_outputs(slope)
        n, m, _ = delta.shape
        result = delta.new_empty((n, m, self.n_parameters))
        result[:, :, : len(hidden)] = self.hidden.chain(hidden, delta @ output)
        last = result[:, :, len(hidden) :].view(n, m, *output.shape)
        torch.mul(delta[..., None], columns[:, None, None, :], out=last)
        return result

    def _by_outputs(self, slope: Tensor) -> Tensor:
        """Derivatives by the body's outputs, which are scaled to latent coordinates."""
        return slope * (self.encoder.gain / (self.encoder.scaling.variance + LEAST_VARIANCE).sqrt())

    def pull_back(self, theta: Tensor, columns: Tensor, slope: Tensor) -> Tensor:
        """Gradient (k,) of a function with derivatives `slope` (n, d) by the latent coordinates."""
        hidden, output = self.body.parts(theta)
        delta = self._by_outputs(slope)
        inner = self.hidden.pull_back(hidden, delta @ output)
        return torch.cat([inner, (delta.T @ columns).reshape(-1)])
