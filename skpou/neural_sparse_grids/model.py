"""The fitted encoder and grid that training returns, and what they predict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skpou.core import Rows, to_array, to_tensor
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models import Components, Maker, outside_steps
from skpou.neural_sparse_grids.encoders.encoder import Encoder
from skpou.neural_sparse_grids.projected.linearised import columns_of_parameters
from skpou.sparse_grids import GridClasses, SparseGrid, SparseGridModel

HEADS: dict[str, Any] = {"regression": SparseGridModel, "classes": GridClasses}
#: Value from which on a function of the grid counts as active at a point: above the round-off of a
#: product of hats, below what any coefficient could make matter.
ACTIVE = 1e-9
#: Numbers a point that an encoder allocates: of a network whose kind is "mlp" so many whatever its
#: columns, of others so many a column; and so many for each hidden unit.
NUMBERS_MLP, NUMBERS_A_COLUMN, NUMBERS_A_UNIT = 100, 20, 4
#: Distance from a face within which embeddings are counted: beyond where the pull inwards begins.
NEAR_FACE = 0.02


@dataclass(frozen=True)
class NeuralGrid:
    """Function on a sparse grid of what an encoder makes of a point, Eq. 3.2 of Zhang (2021).

    Attributes
    ----------
    encoder : Encoder
        Maps the unit box of the data into that of the grid.
    head : SparseGridModel or GridClasses
        Function on the grid.
    slope : Tensor of shape (m,)
        Root mean square of the mean's gradient over the data: outside the data's box the
        standard deviation grows by this for each unit of distance.
    """

    encoder: Encoder
    head: SparseGridModel | GridClasses
    slope: Tensor

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) of a regression at points X (n, k)."""
        return self.head.mean(self.encoder(X.to(self.encoder.scaling.mean)))  # type: ignore[union-attr]

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, k, m) of the mean; at a kink of a hat function that to its right."""
        m = self.head.coef.shape[1]
        result = X.new_zeros((len(X), X.shape[1], m))
        if not X.shape[1]:
            return result
        with torch.enable_grad():
            points = X.detach().clone().requires_grad_()
            values = self.mean(points)
            for output in range(m):
                total = values[:, output].sum()
                result[..., output] = torch.autograd.grad(total, points, retain_graph=True)[0]
        return result

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at the points X: one Gaussian each."""
        X = X.to(self.encoder.scaling.mean)
        inside = X.clamp(0, 1)
        head: Any = self.head
        if posterior and torch.equal(X, inside):
            mean, variance = head.mean_and_variance(self.encoder(X))
            epistemic = variance[:, None] * head.noise
            zeros = X.new_zeros((len(X), 1))
            return Components(zeros, mean[:, None], head.noise[None], epistemic[:, None])
        mean = self.mean(X)
        if not posterior:
            epistemic = torch.zeros_like(mean)
        else:
            variance = self.head.variance(self.encoder(inside))  # type: ignore[union-attr]
            epistemic = variance[:, None] * self.head.noise  # type: ignore[union-attr]
            epistemic = epistemic + self.beyond(X)
        noise = self.head.noise[None]  # type: ignore[union-attr]
        return Components(X.new_zeros((len(X), 1)), mean[:, None], noise, epistemic[:, None])

    def beyond(self, X: Tensor) -> Tensor:
        """The part (n, m) of the mean's variance that grows with the distance from the box."""
        X = X.to(self.encoder.scaling.mean)
        distance = (X - X.clamp(0, 1)).square().sum(1, keepdim=True)
        return distance * self.slope.square()

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the mean for the encoder as it is, in float64."""
        X = X.to(self.encoder.scaling.mean)
        steps = outside_steps(X).double()
        beyond = (steps @ steps.T)[..., None] * self.slope.double().square()
        return self.head.covariance(self.encoder(X.clamp(0, 1))) + beyond  # type: ignore[union-attr]

    def residual_makers(self, rows: Rows) -> list[list[Maker]]:
        """Those of the grid at the embedding, and of the encoder's parameters to first order."""
        latent = self.encoder(rows.X.to(self.encoder.scaling.mean)).double()
        at = Rows(latent, rows.y, rows.weight, rows.within)
        head: Any = self.head
        return head.residual_makers(at, columns_of_parameters(self.encoder, head, rows.X))

    def flattened(self, targets: Tensor) -> NeuralGrid:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        head = self.head.flattened(targets)  # type: ignore[union-attr]
        return NeuralGrid(self.encoder, head, self.slope.masked_fill(targets, 0.0))

    def of_shares(self, share: Tensor) -> NeuralGrid:
        """The same with the probabilities (K,) of the classes everywhere."""
        return replace(self, head=self.head.of_shares(share))  # type: ignore[union-attr]

    def log_proba(self, X: Tensor) -> Tensor:
        """Logarithms (n, K) of the classes' probabilities."""
        X = X.to(self.encoder.scaling.mean)
        return self.head.log_proba(self.encoder(X))  # type: ignore[union-attr]

    def numbers_per_row(self) -> int:
        """Numbers that a prediction allocates for each point, to size blocks of rows."""
        form = self.encoder.form
        sizes = NUMBERS_MLP if form.kind == "mlp" else NUMBERS_A_COLUMN * form.n_features
        units = NUMBERS_A_UNIT * sum(form.hidden_layer_sizes)
        return sizes + units + self.head.numbers_per_row()

    # State

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        kind = next(name for name, cls in HEADS.items() if isinstance(self.head, cls))
        return {
            "encoder": self.encoder.arrays(),
            "kind": kind,
            "head": self.head.arrays(),
            "slope": to_array(self.slope),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> NeuralGrid:
        """Rebuild from `arrays`, on the device and in the dtype of `like`."""
        slope = to_tensor(arrays["slope"], like, like.dtype)
        head = HEADS[arrays["kind"]].from_arrays(arrays["head"], like)
        return cls(Encoder.from_arrays(arrays["encoder"], like), head, slope)


def embedded(encoder: Encoder, rows: Rows) -> Rows:
    """The rows with their embeddings for points, in double precision."""
    form = encoder.form
    units = NUMBERS_A_UNIT * sum(form.hidden_layer_sizes)
    blocks = row_blocks(rows.n_rows, rows_within(NUMBERS_A_COLUMN * form.n_features + units))
    with torch.no_grad():
        points = torch.cat([encoder(rows.X[block]) for block in blocks]).to(torch.float64)
    found = rows.to(torch.float64)
    return Rows(points, found.y, found.weight, found.within, found.repeats)


def active_fraction(grid: SparseGrid, points: Tensor) -> float:
    """Share of the grid's functions that are not zero at one of the points at least."""
    seen = torch.zeros(grid.n_columns, dtype=torch.bool, device=points.device)
    for block in row_blocks(len(points), rows_within(grid.numbers_per_row())):
        values, functions = grid.nonzeros(points[block])
        seen[functions[values.abs() > ACTIVE]] = True
    return float(seen.double().mean())


def share_on_faces(points: Tensor, margin: float) -> float:
    """Share of the points within `NEAR_FACE` of a face of the box, or of its margin."""
    near = NEAR_FACE + margin
    return float(((points < near) | (points > 1 - near)).any(1).double().mean())
