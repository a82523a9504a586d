"""Sums of products over a regular grid, from those of one dimension each."""

import numpy as np
import pytest
import torch

from skpou.sparse_grids.basis.grid import BASES, SparseGrid
from skpou.sparse_grids.basis.kernels import few_costs, kernel_of_few
from skpou.sparse_grids.basis.plans import make_factors
from tests.examples import tensor


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize(("n_features", "level"), [(5, 4), (1, 4), (6, 2), (3, 1), (0, 3)])
def test_kernel_of_few_is_the_sum_over_all_functions(n_features, level, basis):
    grid = SparseGrid(n_features, level, basis=basis)
    rng = np.random.default_rng(5)
    # Beyond the box functions of two levels at once are large and negative.
    X, Z = (tensor(rng.uniform(-1, 2, (n, n_features))) for n in (7, 6))
    expected = (grid.matrix(X) * tensor(4.0 ** -grid.costs())) @ grid.matrix(Z).T
    found = kernel_of_few(grid.factors, X, Z, 4.0)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * float(expected.max()))


def test_only_small_budgets_beside_a_constant_are_of_few_costs():
    assert few_costs(make_factors(2, 4, "modified"))
    assert not few_costs(make_factors(2, 5, "modified"))
    assert not few_costs(make_factors(2, 2, "zero"))
