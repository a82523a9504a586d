"""Layers for people's own torch networks, and a deeper encoder for images."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from skpou.sparse_grids import SparseGrid, evaluate_traced, factor_kinds, tracing_arrays

__all__ = ["SparseGridLayer", "residual_encoder"]

#: Filters of the first convolution, which double where images are halved; side of the smallest.
FILTERS, SMALLEST = 16, 4
#: Standard deviation of the first surpluses of the coarsest level: small beside targets of unit
#: size, but not zero, where the inputs would have no gradient.
FIRST_DEVIATION = 0.1


class SparseGridLayer(nn.Module):
    """Sparse grid function as the last, or any, layer of a network.

    Computes ``sum_{l,i} c_{l,i} phi_{l,i}(x)`` (Eq. 2.14 of Zhang 2021) with trainable surpluses
    c, one term for each level vector, and gradients for both c and x. The same code evaluates
    `SparseGridRegressor`.

    Parameters
    ----------
    n_components : int
        Dimension d of the inputs, at least 1.
    level : int
        Level n of the regular sparse grid, at least 1; the finest mesh width is ``2**-n``.
    n_outputs : int
        Number of functions on the same grid, at least 1.
    boundary : {"modified", "zero", "full", "truncated"}, default="modified"
        ``"modified"``: the outermost functions grow linearly towards the faces, the coarsest is
        constant: nonzero values and gradients there without points on the faces. ``"zero"``:
        functions vanish on the faces, where the gradient dies out. ``"full"`` and
        ``"truncated"``: points on the faces, 3^d times as many in the coarsest level.
    device : torch.device, default=None
        Device of the surpluses.
    dtype : torch.dtype, default=None
        Their precision; None is torch's default.

    Attributes
    ----------
    coef : Parameter of shape (n_points, n_outputs)
        Surpluses. Those of a lower level are the first rows, for ``"full"`` too.
    grid : SparseGrid
        The grid: ``grid.points()`` are its points.

    Notes
    -----
    The functions are piecewise linear products: gradients of gradients (``create_graph=True``)
    raise a RuntimeError.

    ``torch.export`` and ``torch.compile`` trace the layer into plain tensor operations, for any
    number of points. What is traced does not look at the points: those that are not finite have
    values that are not, where the layer itself raises a ValueError.

    Examples
    --------
    >>> import torch
    >>> from skpou.nn import SparseGridLayer
    >>> encoder = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid())
    >>> network = torch.nn.Sequential(encoder, SparseGridLayer(2, level=4, n_outputs=1))
    >>> network(torch.zeros(5, 3)).shape
    torch.Size([5, 1])
    """

    _vectors: Tensor
    _strides: Tensor
    _first: Tensor

    def __init__(
        self,
        n_components: int,
        level: int,
        n_outputs: int,
        boundary: str = "modified",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        for name, value in (("n_components", n_components), ("n_outputs", n_outputs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Got {value!r}.")
        self.grid = SparseGrid(n_components, level, boundary)
        self._kinds = factor_kinds(self.grid.factors)
        for name, values in tracing_arrays(self.grid.plan, self.grid.factors).items():
            # Buffers follow the layer to its device; they follow from its sizes, so none is saved.
            buffer = torch.tensor(values, device=device)
            self.register_buffer(f"_{name}", buffer, persistent=False)
        shape = (self.grid.n_columns, n_outputs)
        self.coef = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw surpluses of standard deviation `FIRST_DEVIATION`, halved from level to level."""
        costs = torch.as_tensor(self.grid.costs(), device=self.coef.device)[:, None]
        with torch.no_grad():
            self.coef.normal_(0.0, FIRST_DEVIATION).mul_(torch.exp2(-costs.to(self.coef.dtype)))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the functions.

        Parameters
        ----------
        x : Tensor of shape (..., n_components)
            Points of the unit box; outside it the outermost pieces go on linearly.

        Returns
        -------
        Tensor of shape (..., n_outputs)
        """
        if x.shape[-1] != self.grid.n_features:
            raise ValueError(
                f"The last axis of x must have {self.grid.n_features} entries, n_components. "
                f"Got {tuple(x.shape)}."
            )
        points = x.reshape(-1, self.grid.n_features).to(self.coef.dtype)
        if torch.compiler.is_compiling():
            # A graph must not depend on what the points are.
            arrays = (self._vectors, self._strides, self._first)
            values = evaluate_traced(points, self.coef, self._kinds, *arrays)
        elif bool(torch.isfinite(points).all()):
            values = self.grid.evaluate(points, self.coef)
        else:
            raise ValueError("x holds values that are not finite.")
        return values.reshape(*x.shape[:-1], self.coef.shape[1])

    def extra_repr(self) -> str:
        """Sizes, for the printed network.

        Returns
        -------
        str
            A line.
        """
        grid = self.grid
        return (
            f"n_components={grid.n_features}, level={grid.level}, "
            f"n_outputs={self.coef.shape[1]}, boundary={grid.boundary!r}, "
            f"n_points={grid.n_columns}"
        )


class _ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016), at half of the size with `stride` 2."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        last = nn.BatchNorm2d(n_out)
        # A block starts as its shortcut.
        nn.init.zeros_(last.weight)
        self.bent = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            last,
        )
        self.straight: nn.Module = nn.Identity()
        if (n_in, stride) != (n_out, 1):
            self.straight = nn.Sequential(
                # No pixel is left out, as by a convolution of one pixel in each direction.
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(n_in, n_out, 1, bias=False),
                nn.BatchNorm2d(n_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.straight(x) + self.bent(x))


def residual_encoder(n_features_in: int, n_components: int) -> nn.Module:
    """Convolutional encoder with residual blocks, for square images of one channel.

    For ``encoder=skpou.nn.residual_encoder`` of `NeuralSparseGridClassifier` and
    `NeuralSparseGridRegressor`; ``encoder="cnn"`` has three convolutions alone. After a first
    convolution there are two residual blocks [1]_ at full size and two at each half of it, down to
    4 pixels, with twice as many filters each time; then the mean over the image and a linear layer.

    Parameters
    ----------
    n_features_in : int
        Pixels of an image, row by row: a square number.
    n_components : int
        Dimension of the embedding.

    Returns
    -------
    Module
        From (n, n_features_in) to (n, n_components).

    Raises
    ------
    ValueError
        If images are not square.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR
       2016.

    Examples
    --------
    >>> import torch
    >>> from skpou.nn import residual_encoder
    >>> residual_encoder(28 * 28, 8).eval()(torch.zeros(5, 784)).shape
    torch.Size([5, 8])
    """
    side = math.isqrt(n_features_in)
    if n_features_in < 1 or side**2 != n_features_in:
        raise ValueError(
            "residual_encoder is for square images of one channel. Got "
            f"n_features_in={n_features_in}, which is no square number."
        )
    widths = [FILTERS]
    while side > SMALLEST:
        widths.append(2 * widths[-1])
        side = -(-side // 2)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (1, math.isqrt(n_features_in), math.isqrt(n_features_in))),
        nn.Conv2d(1, FILTERS, 3, padding=1, bias=False),
        nn.BatchNorm2d(FILTERS),
        nn.ReLU(),
        _ResidualBlock(FILTERS, FILTERS, 1),
        _ResidualBlock(FILTERS, FILTERS, 1),
    ]
    for n_in, n_out in pairwise(widths):
        layers += [_ResidualBlock(n_in, n_out, 2), _ResidualBlock(n_out, n_out, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_components)]
    return nn.Sequential(*layers)
