"""PolyharmonicSplines against naive distances; posterior columns off the centres."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.search.bases.polyharmonic import PolyharmonicSplines
from tests.contracts import BasisContract

CENTRES = torch.tensor(np.random.default_rng(1).random((5, 2)))
SCALES = torch.tensor([1.0, 0.3], dtype=torch.float64)


class TestPolyharmonicSplines(BasisContract):
    @pytest.fixture(params=[1, 3])
    def basis(self, request):
        return PolyharmonicSplines(CENTRES, SCALES, request.param)

    def make_basis(self):
        return PolyharmonicSplines(CENTRES, SCALES, 3)

    def naive(self, basis, x):
        scales = [mpmath.mpf(float(s)) for s in SCALES]
        scaled = [s * v for s, v in zip(scales, x, strict=True)]
        result = [mpmath.mpf(1), *scaled]
        for centre in CENTRES:
            offsets = [
                v - s * mpmath.mpf(float(c)) for v, s, c in zip(scaled, scales, centre, strict=True)
            ]
            result.append(mpmath.sqrt(sum(o * o for o in offsets)) ** basis.power)
        return result


@pytest.mark.parametrize("power", [1, 3])
def test_error_grows_with_the_distance_from_the_centres(power):
    basis = PolyharmonicSplines(CENTRES, SCALES, power, share=0.25)
    at_centres = basis.posterior_columns(CENTRES)
    np.testing.assert_allclose(at_centres[:, 0], 0.5)
    np.testing.assert_allclose(at_centres[:, 1], 0, atol=1e-10)
    away = basis.posterior_columns(CENTRES + torch.tensor([3.0, 0.0], dtype=torch.float64))
    assert bool((away[:, 1] > 1).all())
