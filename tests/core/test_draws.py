"""Draws that are the same in every thread and under any default dtype."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.quasirandom import SobolEngine

from skpou.core import draws


@pytest.fixture
def users_dtype():
    """A default dtype of the user, which must be untouched at the end."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    yield
    left = torch.get_default_dtype()
    torch.set_default_dtype(before)
    assert left == torch.float16


@pytest.mark.usefixtures("users_dtype")
def test_threads_draw_the_same_points_under_any_default_dtype(monkeypatch):
    expected = draws.sobol_points(3, 8, 5)
    waits = iter([0.02, 0.04, 0.06])

    def slow_engine(*args, **options):
        time.sleep(next(waits))  # Other threads begin and end meanwhile.
        return SobolEngine(*args, **options)

    monkeypatch.setattr(draws, "SobolEngine", slow_engine)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: draws.sobol_points(3, 8, 5), range(3)):
            assert torch.equal(found, expected)
