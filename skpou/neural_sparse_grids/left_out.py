"""What a trained encoder with its grid says of observations that it does not know."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.classes import LeftOutClasses, left_out_logits, left_out_of_columns, observations_at
from skpou.core.models import kept_rows, leave_out
from skpou.neural_sparse_grids.encoders.encoder import EncoderDerivatives
from skpou.neural_sparse_grids.model import NeuralGrid
from skpou.neural_sparse_grids.projected.rows import Ridges, slopes_on_grid
from skpou.sparse_grids import GridClasses

#: Most observations that are left out: their mean is then known to 3 % of one's deviation.
LEFT_OUT_ROWS = 1000
#: Most multiplications with all parameters, as of some steps of variable projection, and most
#: coefficients of all classes, whose Hessian is factored.
MOST_WORK, MOST_COEFFICIENTS = 1e11, 3000


def left_out_by_newton(
    model: NeuralGrid, rows: Rows, latent: Rows, ridges: Ridges, rng: np.random.Generator
) -> LeftOutClasses | None:
    """Logits of observations that are left out one at a time, by one Newton step.

    In all parameters of the encoder and the grid; of those of the grid alone where these are too
    many, or derivatives are not at hand: after long descents these are too sure of themselves.

    Parameters
    ----------
    model : NeuralGrid
        With logits on its grid.
    rows : Rows
        Points in the unit box of the data; targets are the shares of the classes.
    latent : Rows
        Their embeddings, in float64.
    ridges : Ridges
        Of the coefficients, and the spread of the encoder's parameters.

    Returns
    -------
    LeftOutClasses or None
        None where there are too many parameters even of the grid.
    """
    encoder, head, pairs = model.encoder, model.head, latent.pairs()
    if not isinstance(head, GridClasses):
        raise TypeError(f"Only classes have logits. Got {type(head).__name__}.")
    coef = head.coef.to(pairs.X)
    G, K = coef.shape
    if G * K > MOST_COEFFICIENTS:
        return None
    picked = np.sort(rng.permutation(pairs.n_rows)[:LEFT_OUT_ROWS])
    some = torch.as_tensor(picked, device=pairs.X.device)
    costs = torch.as_tensor(head.grid.costs(), device=coef.device).to(coef)
    least = torch.finfo(coef.dtype).eps * pairs.total_weight
    ridge = (ridges.alpha**2 * pairs.total_weight * ridges.decay**costs).clamp_min(least)
    Phi, logits = head.grid.matrix(pairs.X), head.functions(pairs.X)
    known = logits, pairs.y, pairs.weight
    n_all = G * K + sum(p.numel() for p in encoder.parameters())
    if encoder.form.kind != "mlp" or 2 * pairs.n_rows * K * n_all**2 > MOST_WORK:
        return LeftOutClasses(some, left_out_of_columns(*known, Phi, ridge, some))
    dtype = next(encoder.parameters()).dtype
    derivatives = EncoderDerivatives(encoder.to(torch.float64), rows.to(torch.float64).pairs().X)
    theta = encoder.network_body.theta.detach()
    embedding = derivatives.embed(theta)
    slope = slopes_on_grid(head.grid, embedding, coef)

    def jacobian(block: slice) -> Tensor:
        J = Phi.new_zeros((len(Phi[block]), K, K, G))
        J.diagonal(dim1=1, dim2=2).copy_(Phi[block][:, :, None])
        part = derivatives.rows(block)
        deep = part.jacobian(theta, embedding.columns[block], slope[block])
        return torch.cat([J.view(len(J), K, K * G), deep], 2)

    own = torch.cat([ridge.repeat(K), theta.new_full((len(theta),), 1 / ridges.spread)])
    found = left_out_logits(*known, jacobian, own, some)
    encoder.to(dtype)
    return LeftOutClasses(some, found)


def left_out_by_split(model: NeuralGrid, rows: Rows, held_out: Tensor) -> LeftOutClasses:
    """Logits of rows that were held out, by their numbers (k,)."""
    number, place = observations_at(rows, held_out)
    logs = model.log_proba(rows.X[held_out])
    return LeftOutClasses(number, logs[place].double())


def doubt(model: NeuralGrid, rows: Rows) -> None:
    """Raise the noise of a regression to the mean square of its errors at left-out rows.

    Of an encoder that has memorised most rows little noise is left over; these errors tell more,
    where rows are few enough for them to be known.
    """
    kept = kept_rows(rows.to(torch.float64))
    for target, left_out in enumerate(leave_out(model.residual_makers(kept), kept) or ()):
        error = left_out.error[np.isfinite(left_out.error)]
        noise = model.head.noise  # type: ignore[union-attr]
        noise[target] = max(float(noise[target]), float((error**2).mean()))
