"""Test problems of the papers behind the estimators, and small tables of measurements.

Functions named ``make_...`` return ``(X, y)``: independent, uniform points over the problem's
domain with its target, or the target at given `X`. `noise` is a standard deviation in units of `y`;
it does not change a seed's points. `make_spectra` alone draws labels and makes the columns of `X`
from them. Functions named ``load_...`` read tables that come with the package.
"""

from skpou.datasets.problems import (
    make_bump,
    make_cross,
    make_curved_ridge,
    make_diode,
    make_multiscale,
    make_piecewise_quadratic,
    make_sine_bump,
    make_swiss_roll,
    make_triangle_wave,
    make_two_moons_3d,
)
from skpou.datasets.spectra import make_spectra
from skpou.datasets.tables import load_meats, load_steam
from skpou.datasets.transistor import make_transistor

__all__ = [
    "load_meats",
    "load_steam",
    "make_bump",
    "make_cross",
    "make_curved_ridge",
    "make_diode",
    "make_multiscale",
    "make_piecewise_quadratic",
    "make_sine_bump",
    "make_spectra",
    "make_swiss_roll",
    "make_transistor",
    "make_triangle_wave",
    "make_two_moons_3d",
]
