"""Power functions, and kernels weighed by the errors that they make likely."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern

from skpou.core.models.power_function import KERNELS, SIZES, NearRows, WeighedKernels
from tests.examples import tensor

PEERS = {
    "gaussian": RBF(0.4),
    "matern52": Matern(0.4, nu=2.5),
    "matern32": Matern(0.4, nu=1.5),
    "exponential": Matern(0.4, nu=0.5),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_power_function_is_the_std_of_a_gaussian_process(kernel):
    rng = np.random.default_rng(0)
    rows, queries = rng.random((6, 2)), rng.random((9, 2))
    peer = GaussianProcessRegressor(PEERS[kernel], optimizer=None, alpha=1e-13)
    expected = peer.fit(rows, np.zeros(6)).predict(queries, return_std=True)[1]
    near = tensor(rows).expand(9, 6, 2)
    np.testing.assert_allclose(
        NearRows(tensor(queries), near).power_function(kernel, 0.4), expected, rtol=1e-5
    )


#: Between sizes that are tried.
STEP = SIZES[1] / SIZES[0]


def middles(n):
    """Points of an even grid, each among the others."""
    x = np.linspace(0, 1, n)
    others = np.stack([x[x != value] for value in x])
    return NearRows(tensor(x[:, None]), tensor(others[..., None]))


@pytest.mark.parametrize(("kernel", "length"), [("gaussian", 0.1), ("exponential", 0.3)])
def test_errors_of_a_process_find_its_size(kernel, length):
    rows = middles(40)
    power = rows.power_function(kernel, length).numpy()
    rng = np.random.default_rng(0)
    errors = 0.7 * power * rng.standard_normal((20, 40))
    sizes = []
    for error in errors:
        found, gain = WeighedKernels.likeliest(error**2, np.zeros(40), rows, np.ones(40))
        sizes.append(np.sqrt(found.variance(rows).mean() / (power**2).mean()))
        assert gain > 10
        assert found.shares.sum() == pytest.approx(1)
    assert np.median(sizes) == pytest.approx(0.7, rel=STEP - 1)


def test_noise_gains_nothing_from_kernels():
    rows = middles(40)
    error = 0.3 * np.random.default_rng(1).standard_normal(40)
    _, gain = WeighedKernels.likeliest(error**2, np.full(40, 0.09), rows, np.ones(40))
    assert gain < 2


def test_few_errors_leave_several_kernels():
    rows = middles(5)
    square = np.full(5, 0.01)
    found, _ = WeighedKernels.likeliest(square, np.zeros(5), rows, np.ones(5))
    assert len(found.names) == 3
    one = WeighedKernels([found.names[0]], found.lengths[:1], found.sizes[:1], np.ones(1))
    between = NearRows.of(np.array([[0.125]]), np.linspace(0, 1, 5)[:, None])
    assert found.variance(between)[0] > 0.3 * one.variance(between)[0]


def test_no_kernels_no_variance():
    rows = middles(6)
    assert (WeighedKernels.none().variance(rows) == 0).all()
    assert WeighedKernels.none().correlation(tensor(np.zeros((2, 2)))).sum() == 4
