"""Where a process of one column goes on along its tangent, and what that is wrong by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.core.models.end_tangents import EndTangents
from skpou.core.models.interpolant import Interpolant
from skpou.core.models.interpolant_fit import _tangents_at_ends, solved
from skpou.core.models.likely_kernels import likeliest_kernel
from tests.examples import rows_of, tensor

x = np.linspace(0, 1, 30)[:, None]
FAR = tensor([[-0.2], [0.3], [1.05], [1.2]])


def process_of(function):
    """The likeliest process of a function, and where it goes on straight."""
    rows = rows_of(x, function(x[:, 0]))
    kernels = [(1.0, likeliest_kernel(rows, 0))]
    return replace(solved(rows, [kernels]), tangents=(_tangents_at_ends(rows, kernels),))


@pytest.fixture(scope="module")
def root():
    return process_of(np.sqrt)


def test_a_root_goes_on_straight_beyond_its_smooth_end(root):
    assert root.tangents[0].taken.tolist() == [False, True]
    beyond = FAR[2:]
    error = (root.mean(beyond) - beyond.sqrt()).abs()
    own = (replace(root, tangents=()).mean(beyond) - beyond.sqrt()).abs()
    assert (error < 0.5 * own).all()
    std = root.variance(beyond).sqrt()
    assert (error < 3 * std).all()
    assert (std < 0.05).all()


@pytest.mark.parametrize("function", [np.exp, lambda x: np.sin(9 * x)], ids=["exponential", "wave"])
def test_where_a_process_knows_how_it_goes_on_it_has_no_tangents(function):
    assert process_of(function).tangents == (None,)


def test_mean_gradient_and_covariance_agree_beyond_the_ends(root):
    both = replace(root, tangents=(EndTangents(np.array([0.1, 0.2]), np.array([0.3, 0.4])),))
    step = 1e-6
    rise = (both.mean(FAR + step) - both.mean(FAR - step)) / (2 * step)
    torch.testing.assert_close(both.gradient(FAR)[:, 0], rise, rtol=1e-5, atol=1e-7)
    at_ends = tensor([[0.0], [1.0]])
    for name in ("mean", "variance"):
        inside, beyond = (getattr(both, name)(p) for p in (at_ends, at_ends * 1.0000001 - 5e-8))
        torch.testing.assert_close(inside, beyond, rtol=1e-4, atol=1e-6)
    diagonal = both.covariance(FAR).diagonal(dim1=0, dim2=1).T
    torch.testing.assert_close(diagonal, both.variance(FAR), rtol=1e-6, atol=1e-9)
    again = Interpolant.from_arrays(both.arrays(), FAR)
    assert torch.equal(again.mean(FAR), both.mean(FAR))
    assert torch.equal(again.variance(FAR), both.variance(FAR))
