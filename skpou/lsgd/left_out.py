"""Left-out errors of networks of a given size, whose hidden layers have seen all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.models import MOST_TOGETHER, LinearModel, Makers, Stage, makers_of_stages
from skpou.networks import NetworkBasis, NetworkColumns

#: Most numbers of a Jacobian, 64 MB: it is decomposed whole.
MOST_NUMBERS = 8_000_000


def makers_of_networks(model: LinearModel, rows: Rows) -> list[Makers]:
    """Residual makers of networks whose hidden parameters are free, too, to first order.

    Hidden layers that are taken for given have seen the rows that are then left out, and the errors
    there are too small by whatever they owe to them. With the derivatives by their parameters
    beside the columns these are solved for anew, as in the Gauss-Newton steps that found them
    (MacKay, "The evidence framework applied to classification networks", 1992).

    Parameters
    ----------
    model : LinearModel
        Stages, networks or others, each fitted to what the ones before leave over.
    rows : Rows
        In float64.

    Returns
    -------
    list of Makers
        One for each target. Those of the coefficients alone where rows or parameters are too many,
        or where there are none that all rows were used to find.
    """
    n, m, bases = rows.n_rows, rows.n_outputs, [stage.basis for stage in model.stages]
    sizes = [basis.network.n_parameters for basis in bases if isinstance(basis, NetworkBasis)]
    most = n * m * max(sizes, default=0)
    follow = any(basis.follows_rows for basis in bases)
    if follow or not 0 < most <= MOST_NUMBERS or n > MOST_TOGETHER or not rows.n_features:
        return model.residual_makers(rows)
    root = rows.weight.sqrt()[:, None]
    columns = [linearised(stage, rows.X) * root for stage in model.stages]
    return [
        makers_of_stages([part[target] for part in columns], model.stages, rows)
        for target in range(m)
    ]


def linearised(stage: Stage, X: Tensor) -> Tensor:
    """Columns (m, n, p + k) of each output, and derivatives by the hidden parameters of a network.

    Their sizes do not matter: `residual_makers` takes all columns for as likely.
    """
    basis, coef = stage.basis, stage.coef.to(X)
    if not isinstance(basis, NetworkBasis):
        columns = basis.posterior_columns(X).double()
        return columns.expand(coef.shape[1], *columns.shape)
    with torch.no_grad():
        units = basis.matrix(X)
        J = NetworkColumns(basis.network, X).jacobian(basis.theta.to(X), coef)
    return torch.cat([units.expand(J.shape[1], *units.shape), J.transpose(0, 1)], 2)
