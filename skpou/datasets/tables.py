"""Small tables that come with the package, as arrays with the names of their columns."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.utils import Bunch

#: Channels of the spectra of meat, which come first in its table, and their range in nanometres.
CHANNELS, RANGE = 100, (850, 1050)


def _read(name):
    """Names of the columns and the numbers of a table beside this file."""
    text = gzip.decompress((files("skpou.datasets") / name).read_bytes()).decode("utf-8")
    head, *lines = text.splitlines()
    return head.split(","), np.loadtxt(lines, delimiter=",", ndmin=2)


def load_meats() -> Any:
    """Load spectra of 215 meat samples with their contents of water, fat and protein.

    Finely chopped pure meat, measured by near infrared transmission between 850 and 1050 nm; the
    contents were determined by analytic chemistry. The absorbance is minus the decimal logarithm of
    the transmittance.

    Returns
    -------
    data : Bunch
        ``data``, ndarray of shape (215, 100): absorbances. ``target``, ndarray of shape (215, 3):
        contents in percent. ``feature_names`` and ``target_names``: names of their columns.
        ``wavelength``, ndarray of shape (100,): nm, evenly spaced.

    Notes
    -----
    "These data are recorded on a Tecator Infratec Food and Feed Analyzer working in the wavelength
    range 850 - 1050 nm by the Near Infrared Transmission (NIT) principle. [...] If results from
    these data are used in a publication we want you to mention the instrument and company name
    (Tecator) in the publication. In addition, please send a preprint of your article to Karin
    Thente, Tecator AB, Box 70, S-263 21 Hoganas, Sweden. The data are available in the public
    domain with no responsibility from the original data source. The data can be redistributed as
    long as this permission note is attached."

    The numbers are those of the R package ``modeldata``, which joins the samples for training,
    monitoring and testing.

    Examples
    --------
    >>> from skpou.datasets import load_meats
    >>> meats = load_meats()
    >>> meats.data.shape, meats.target_names
    ((215, 100), ['water', 'fat', 'protein'])
    """
    names, table = _read("meats.csv.gz")
    return Bunch(
        data=table[:, :CHANNELS],
        target=table[:, CHANNELS:],
        feature_names=names[:CHANNELS],
        target_names=names[CHANNELS:],
        wavelength=np.linspace(*RANGE, CHANNELS),
    )


def load_steam() -> Any:
    """Load a table of water and steam: density, enthalpy and entropy on 31 isobars.

    Temperatures from 20 to 400 degrees Celsius in steps of 10, pressures from 0.1 to 10 MPa, evenly
    spaced in their logarithm. Computed with the industrial formulation IAPWS-IF97 of the
    International Association for the Properties of Water and Steam; seven digits.

    Returns
    -------
    data : Bunch
        ``data``, ndarray of shape (1209, 2): temperature (degrees Celsius) and pressure (MPa).
        ``target``, ndarray of shape (1209, 3): density (kg/m3), enthalpy (kJ/kg) and entropy
        (kJ/(kg K)). ``is_steam``, ndarray of shape (1209,): whether the row is vapour, not liquid.
        ``feature_names`` and ``target_names``: names of the columns.

    Examples
    --------
    >>> from skpou.datasets import load_steam
    >>> steam = load_steam()
    >>> steam.data[8].tolist(), steam.target[8].round(2).tolist()
    ([100.0, 0.1], [0.59, 2675.77, 7.36])
    """
    names, table = _read("steam.csv.gz")
    # Between the two phases the density jumps: below the critical point, and far from it as here,
    # no vapour is heavier and no liquid lighter than this.
    least_of_liquid = 500.0  # kg/m3
    return Bunch(
        data=table[:, :2],
        target=table[:, 2:],
        is_steam=table[:, 2] < least_of_liquid,
        feature_names=names[:2],
        target_names=names[2:],
    )
