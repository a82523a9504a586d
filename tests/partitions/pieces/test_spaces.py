"""Functions of columns in another order."""

import numpy as np
import pytest
import torch

from skpou.partitions.pieces.spaces import SPACES, in_order, space_basis


@pytest.mark.parametrize("space", SPACES)
def test_functions_of_columns_that_ascend(space):
    columns, basis = np.array([4, 0, 2]), space_basis(space, 3, 3)
    X = torch.rand((5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = basis.matrix(X[:, columns])
    torch.testing.assert_close(
        fitted[:, in_order(space, columns, 3)], basis.matrix(X[:, np.sort(columns)])
    )
