"""Heads: what each method and solver teaches the encoder."""

import itertools

import pytest
import torch

from skpou.core import Rows
from skpou.neural_sparse_grids.descent.objectives import (
    DensityShares,
    IteratedSquares,
    JointSoftmax,
    JointSquares,
    SolvedSquares,
)
from skpou.neural_sparse_grids.heads import HEADS, ClassHead
from skpou.sparse_grids import SparseGrid

SOLVERS = ("gradient", "direct", "iterative", "varpro")
SQUARES = {"gradient": JointSquares, "direct": SolvedSquares, "iterative": IteratedSquares}
#: Heads that learn the shares of the classes themselves; all others learn values or indicators.
OF_SHARES = {
    ("softmax", "gradient"): JointSoftmax,
    ("density", "gradient"): DensityShares,
    ("softmax", "varpro"): None,
}


def rows_of_classes(K=3):
    generator = torch.Generator().manual_seed(0)
    X = torch.rand((12, 2), generator=generator, dtype=torch.float64)
    y = torch.eye(K, dtype=torch.float64)[torch.arange(12) % K]
    return Rows(X, y, torch.ones(12, dtype=torch.float64), torch.zeros_like(y))


@pytest.mark.parametrize(("method", "solver"), list(itertools.product(HEADS, SOLVERS)))
def test_squares_are_those_of_values_or_indicators(method, solver):
    head, rows = HEADS[method](solver, None), rows_of_classes()
    taught = head.taught(rows)
    if method is None or (method, solver) in OF_SHARES:
        assert taught is rows
    else:  # Centred, and in units of their spread
        assert torch.allclose(taught.y.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(taught.y.square().mean(0), torch.ones(3, dtype=torch.float64))
    if solver != "varpro":
        assert head.objective() is OF_SHARES.get((method, solver), SQUARES[solver])


@pytest.mark.parametrize("method", ["one_hot", "softmax"])
def test_probabilities_of_no_function_are_the_shares_of_the_rows_that_taught_it(method):
    head, rows, grid = HEADS[method]("gradient", None), rows_of_classes(), SparseGrid(2, 2)
    assert isinstance(head, ClassHead) and head.keeps_coef()
    model = head.model(grid, rows.y.new_zeros((grid.n_columns, 3)), rows)
    assert torch.allclose(model.log_proba(rows.X).exp(), rows.y.mean(0), atol=0.05)


def test_densities_never_keep_their_coefficients():
    assert not any(HEADS["density"](solver, None).keeps_coef() for solver in SOLVERS)
