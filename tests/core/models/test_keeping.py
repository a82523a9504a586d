"""Rows that a model keeps."""

import numpy as np
import pytest
import torch

from skpou.core.models.keeping import MOST_NUMBERS, keeps_all, kept_rows
from tests.examples import rows_of


@pytest.mark.parametrize(("n", "d"), [(50, 3), (5000, 2), (3000, 40)])
def test_kept_rows_are_few_and_spread(n, d):
    rng = np.random.default_rng(0)
    rows = rows_of(rng.random((n, d)), rng.random(n))
    kept = kept_rows(rows)
    assert kept.n_rows == min(n, 2000, MOST_NUMBERS // d)
    assert keeps_all(rows) == (kept.n_rows == n)
    assert kept.X.dtype == torch.float64
    matches = (kept.X[:, None, 0] == rows.X[None, :, 0]).sum(1)
    assert (matches >= 1).all()
