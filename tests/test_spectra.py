"""Spectra with three labels, whose columns follow from the labels."""

import numpy as np
import pytest

from skpou import datasets


def spectrum(*labels):
    return datasets.make_spectra(labels=[labels])[0][0]


def at(wavelength):
    """Number of the column nearest to a wavelength in angstrom."""
    return int(np.abs(np.geomspace(3850, 9200, 3800) - wavelength).argmin())


def test_spectra_are_normalised_and_repeatable():
    X, y = datasets.make_spectra(30, noise=0.1, random_state=3)
    again, same = datasets.make_spectra(30, random_state=np.random.RandomState(3))
    assert X.shape == (30, 3800)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1)
    np.testing.assert_array_equal(y, same)
    assert (y >= [4000, 1, -3]).all()
    assert (y <= [9000, 5, 0.5]).all()
    assert (again > 0).all()
    error = (X - again) * np.sqrt(3800) / 0.1  # The mean flux is near the root mean square.
    assert abs(error.std() - 1) < 0.15


def test_spectra_do_not_depend_on_the_others_in_their_block():
    labels = np.random.default_rng(0).uniform([4000, 1, -3], [9000, 5, 0.5], (1005, 3))
    X, y = datasets.make_spectra(labels=labels)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_allclose(X[1002], spectrum(*labels[1002]), rtol=1e-12)


def test_lines_answer_to_the_labels_as_those_of_stars_do():
    def depth(x, line, width=25):
        k = at(line)
        return 1 - x[k] / max(x[k - width], x[k + width])

    hot, cool = spectrum(8900, 4, -1), spectrum(4800, 4, -1)
    assert depth(hot, 6562.8) > 2 * depth(cool, 6562.8)
    assert depth(cool, 5183.6) > 2 * depth(hot, 5183.6)
    rich, poor = spectrum(5800, 4.4, 0.3), spectrum(5800, 4.4, -2.5)
    assert depth(rich, 3933.7) > 2 * depth(poor, 3933.7)
    # Pressure widens hydrogen's lines.
    dwarf, giant = spectrum(8000, 5, -1), spectrum(8000, 2, -1)
    wing = [x[at(4861.3) + 15] / x[at(4861.3) + 120] for x in (dwarf, giant)]
    assert wing[0] < wing[1]
    # Wien's law: what is hotter is bluer.
    assert np.argmax(hot) < np.argmax(cool)


def test_labels_can_be_read_from_spectra():
    """Already by a linear model, which knows nothing of saturation."""
    X, y = datasets.make_spectra(500, random_state=0)
    design = X - X[:300].mean(0)
    gram = design @ design[:300].T
    weights = np.linalg.solve(gram[:300] + 1e-8 * np.eye(300), y[:300] - y[:300].mean(0))
    error = gram[300:] @ weights + y[:300].mean(0) - y[300:]
    assert (error.std(0) < 0.25 * y.std(0)).all()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"labels": [[5000.0, 4.0]]}, r"labels must have shape \(n, 3\), got \(1, 2\)"),
        ({"labels": [[5000.0, 4.0, 1.0]]}, r"labels must lie between .* Got 1\.0 in column 2"),
        ({"noise": -1.0}, "'noise' parameter of make_spectra"),
        ({"n_samples": 0}, "'n_samples' parameter of make_spectra"),
    ],
)
def test_bad_parameters_of_spectra(params, match):
    with pytest.raises(ValueError, match=match):
        datasets.make_spectra(**params)
