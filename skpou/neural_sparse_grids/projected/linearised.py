"""What rows have told the parameters of an encoder, to first order."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from skpou.core.models import MOST_TOGETHER
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderDerivatives
from skpou.neural_sparse_grids.projected.rows import slopes_on_grid
from skpou.sparse_grids import SparseGridModel

#: Most numbers of a Jacobian, 64 MB: it is decomposed whole.
MOST_NUMBERS = 8_000_000


def columns_of_parameters(encoder: Encoder, head: SparseGridModel, X: Tensor) -> Tensor | None:
    """Derivatives of the mean by the encoder's parameters, as columns beside those of the grid.

    An encoder that is taken for given has seen the rows that are then left out, and their errors
    are too small by whatever it owes to them. With these columns the parameters are free to first
    order, as in the Gauss-Newton steps that found them (MacKay, "The evidence framework applied to
    classification networks", 1992). How large parameters are expected beside the grid's
    coefficients is how large both were found.

    Parameters
    ----------
    head : SparseGridModel
        Function on the grid of the embedding.
    X : Tensor of shape (n, k)
        Points in the unit box of the data.

    Returns
    -------
    Tensor of shape (n, m times the number of parameters), float64, or None
        None where the encoder is no ``"mlp"``, has nothing to tell, or where points or parameters
        are too many.
    """
    n, m = len(X), head.coef.shape[1]
    if encoder.form.kind != "mlp" or not X.shape[1] or n > MOST_TOGETHER:
        return None
    if n * m * encoder.network_body.theta.numel() > MOST_NUMBERS:
        return None
    encoder = copy.deepcopy(encoder).to(torch.float64)
    points = X.to(torch.float64)
    with torch.no_grad():
        theta = encoder.network_body.theta.detach()
        encoded = EncoderDerivatives(encoder, points)
        embedding = encoded.embed(theta)
        coef = head.of_all_functions().to(torch.float64)
        slope = slopes_on_grid(head.grid, embedding, coef)
        J = encoded.jacobian(theta, embedding.columns, slope)
    costs = head.costs(embedding.u)
    coef = head.coef.to(costs) * head.posterior.decay ** (0.5 * costs)[:, None]
    of_coef, of_theta = (float(part.square().mean().sqrt()) for part in (coef, theta))
    if not of_coef > 0:
        return None
    # Targets share the parameters: each has a part of their columns.
    return J.reshape(n, -1) * (of_theta / of_coef / math.sqrt(m))
