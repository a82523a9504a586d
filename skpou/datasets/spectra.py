"""Spectra of stars that are none: lines on a continuum, for what needs very many columns."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_random_state

from skpou.base import COUNT, NOT_NEGATIVE, validate_params

#: Columns, and their first and last wavelength in angstrom, evenly spaced in its logarithm.
N_COLUMNS, FIRST, LAST = 3800, 3850.0, 9200.0
#: Ranges of the labels: effective temperature in kelvin, log10 of the surface gravity in cm/s^2,
#: log10 of the abundance of iron relative to the sun's.
LOW, HIGH = np.array([4000.0, 1.0, -3.0]), np.array([9000.0, 5.0, 0.5])
#: Wavelengths of hydrogen's lines, the Balmer series.
BALMER = np.array([6562.8, 4861.3, 4340.5, 4101.7, 3970.1, 3889.1])
#: Their strengths relative to the first: about those of hot stars.
BALMER_STRENGTH = np.array([1.0, 1.1, 1.05, 1.0, 0.8, 0.6])
#: Strong lines of metals: Ca II H and K, Mg I b, Na I D, the Ca II triplet.
STRONG = np.array([3933.7, 3968.5, 5167.3, 5172.7, 5183.6, 5890.0, 5895.9, 8498.0, 8542.1, 8662.1])
#: How they answer to pressure: ions (1) weaken with gravity, atoms (-1) grow.
STRONG_ION = np.array([1, 1, -1, -1, -1, -1, -1, 1, 1, 1])
#: Weak lines of metals, at places that are drawn once and for all, more of them in the blue.
N_WEAK, SEED = 400, 7
#: Log10 of the depths of strong lines, and mean and standard deviation of those of weak ones: most
#: do not saturate in the sun.
STRONG_DEPTH, WEAK_DEPTH = 1.2, (-0.6, 0.5)
#: Their excitation energies in electron volts, of weak lines between the two.
STRONG_ENERGY, WEAK_ENERGY = 0.3, (0.0, 4.0)
#: Share of ions among the weak lines, and how much tenfold gravity changes lines, in decades.
SHARE_OF_IONS, PRESSURE = 0.2, 0.25
#: Depth of hydrogen's first line at its peak; share of its wings, their width in that of a narrow
#: line, and how they grow with gravity, in decades.
BALMER_DEPTH, WINGS, STARK, BROADENING = 1.5, 0.35, 12, 0.2
#: Resolving power of the instrument: wavelength over the standard deviation of a narrow line.
RESOLUTION = 4000.0
#: Temperature at which the second level of hydrogen is fullest, and the width in its logarithm.
BALMER_PEAK, BALMER_WIDTH = 9500.0, 0.28
#: Constant of Planck's law h c / k in angstrom kelvin; electron volts a kelvin, inverted.
PLANCK, ELECTRON_VOLT = 1.438777e8, 11604.5
#: Temperature and log10 of the gravity of the sun; energy that atoms of metals are ionised by, in
#: electron volts, half of it, since the free electrons are those of all elements.
SUN, SUN_GRAVITY, IONISATION = 5772.0, 4.4, 4.0
#: Most reddening by dust, as a slope of the logarithm of the flux over that of the wavelength.
REDDENING = 0.5
#: Rows that are made together.
BLOCK = 1000


@cache
def _lines():
    """Wavelengths (N,), profiles of all lines (L, N), and how the weak and strong ones answer.

    Returns the logarithms of the metal lines' strengths, their excitation energies in electron
    volts and their signs under gravity, each (M,).
    """
    wavelength = np.geomspace(FIRST, LAST, N_COLUMNS)
    rng = np.random.RandomState(SEED)
    weak = FIRST + (LAST - FIRST) * rng.beta(1.0, 2.0, N_WEAK)
    place = np.concatenate([STRONG, weak])
    strength = np.concatenate([np.full(len(STRONG), STRONG_DEPTH), rng.normal(*WEAK_DEPTH, N_WEAK)])
    excitation = np.concatenate(
        [np.full(len(STRONG), STRONG_ENERGY), rng.uniform(*WEAK_ENERGY, N_WEAK)]
    )
    ion = np.concatenate([STRONG_ION, np.where(rng.random_sample(N_WEAK) < SHARE_OF_IONS, 1, -1)])
    narrow = np.exp(-0.5 * (RESOLUTION * np.log(wavelength / place[:, None])) ** 2)
    # Hydrogen has a core as all lines and wings by the pressure of charged particles (Stark).
    distance = np.log(wavelength / BALMER[:, None])
    core = np.exp(-0.5 * (RESOLUTION / 2 * distance) ** 2)
    wings = 1 / (1 + (RESOLUTION / STARK * distance) ** 2)
    scale = BALMER_STRENGTH[:, None]
    profiles = np.vstack([narrow, (scale * core).sum(0), (scale * wings).sum(0)])
    return wavelength, profiles, strength, excitation, ion


def _flux(labels, dust):
    """Flux (n, N) of stars in units of its mean."""
    wavelength, profiles, strength, excitation, ion = _lines()
    temperature, gravity, iron = labels.T[:, :, None]
    # Relative to the sun: Boltzmann's factor, Saha's for atoms, and the pressure of electrons
    inverse = ELECTRON_VOLT * (1 / temperature - 1 / SUN)
    metals = strength + iron + (IONISATION * (ion < 0) - excitation) * inverse / np.log(10)
    metals = 10 ** (metals - PRESSURE * ion * (gravity - SUN_GRAVITY))
    metals = np.log1p(metals)  # Saturated lines grow by their logarithm only.
    hydrogen = BALMER_DEPTH * np.exp(-0.5 * (np.log(temperature / BALMER_PEAK) / BALMER_WIDTH) ** 2)
    wings = WINGS * hydrogen * 10 ** (BROADENING * (gravity - SUN_GRAVITY))
    depth = np.hstack([metals, hydrogen, wings]) @ profiles
    continuum = wavelength**-5 / np.expm1(PLANCK / (wavelength * temperature))
    continuum = continuum * (wavelength / FIRST) ** (REDDENING * dust[:, None])
    flux = continuum * np.exp(-depth)
    return flux / flux.mean(1, keepdims=True)


@validate_params(
    {
        "n_samples": [COUNT],
        "noise": [NOT_NEGATIVE],
        "random_state": ["random_state"],
        "labels": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def make_spectra(n_samples=1000, *, noise=0.0, random_state=None, labels=None) -> Any:
    """Generate spectra of stars with three labels, as a stand-in for measured ones.

    Sec. 3.3.3 of Zhang (2021) estimates labels of stars from 50,000 spectra of 3800 columns. These
    have the columns, the labels and the normalisation of those: the continuum of a black body,
    reddened by dust, with the Balmer lines of hydrogen, which grow with the temperature and widen
    with gravity, and 410 lines of metals, which grow with the abundance of iron, answer to the
    temperature by excitation and ionisation, and saturate. Lines are sketched, not computed: what
    is learned here is not to be applied to stars.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of spectra, at least 1.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise on every column, in units of the mean flux, at
        least 0. 0.03 is usual. It does not change a seed's labels.
    random_state : int, RandomState instance or None, default=None
        Source of the labels, the dust and the noise.
    labels : array-like of shape (n, 3), default=None
        Labels instead of drawn ones, in the ranges of `y`; `n_samples` is then ignored, and there
        is no dust.

    Returns
    -------
    X : ndarray of shape (n, 3800)
        Flux at wavelengths from 3850 to 9200 angstrom, evenly spaced in their logarithm, float64.
        Rows have the Euclidean norm 1.
    y : ndarray of shape (n, 3)
        Effective temperature in kelvin, from 4000 to 9000; logarithm to base 10 of the surface
        gravity in cm/s^2, from 1 to 5; logarithm of the abundance of iron relative to the sun's,
        from -3 to 0.5. Uniform and independent.

    Raises
    ------
    ValueError
        If a parameter is out of its range or `labels` has another shape.

    Examples
    --------
    >>> from skpou.datasets import make_spectra
    >>> X, y = make_spectra(10, noise=0.03, random_state=0)
    >>> X.shape, y.shape
    ((10, 3800), (10, 3))
    """
    rng = check_random_state(random_state)
    if labels is None:
        y = rng.uniform(LOW, HIGH, size=(n_samples, 3))
        dust = rng.uniform(size=n_samples)
    else:
        y = check_array(labels, dtype=np.float64, input_name="labels", copy=True)
        if y.shape[1] != 3:
            raise ValueError(f"labels must have shape (n, 3), got {y.shape}.")
        outside = np.argwhere((y < LOW) | (y > HIGH))
        if len(outside):
            row, column = outside[0]
            raise ValueError(
                f"labels must lie between {LOW.tolist()} and {HIGH.tolist()}. Got "
                f"{y[row, column]} in column {column}."
            )
        dust = np.zeros(len(y))
    X = np.empty((len(y), N_COLUMNS))
    for start in range(0, len(y), BLOCK):
        part = slice(start, start + BLOCK)
        X[part] = _flux(y[part], dust[part])
        if noise:
            X[part] += noise * rng.standard_normal(X[part].shape)
        X[part] /= np.linalg.norm(X[part], axis=1, keepdims=True)
    return X, y
