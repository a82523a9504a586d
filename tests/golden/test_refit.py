"""While files move: a fit of today returns what the release's own fit returned."""

import numpy as np
import pytest

import skpou
from tests.golden.models import FOLDER, file_name, fitted, models, predictions


@pytest.mark.parametrize(("name", "estimator", "X", "y"), list(models()))
def test_a_fit_returns_the_same(name, estimator, X, y):
    saved = np.load(FOLDER / skpou.__version__ / f"{file_name(name)}.npz")
    unit = np.sqrt(np.mean(np.square(y))) if y.dtype.kind == "f" else 1.0
    for key, value in predictions(fitted(estimator, X, y)).items():
        wanted = saved[f"predicted_{key}"]
        if wanted.dtype.kind in "US":
            np.testing.assert_array_equal(value, wanted)
        else:
            size = max(unit, np.abs(wanted).max())
            np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-6 * size, err_msg=key)
