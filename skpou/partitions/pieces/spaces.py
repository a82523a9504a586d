"""Spaces of functions that experts come from, by name: the only place that tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from skpou.core import (
    FourierProducts,
    TotalDegreePolynomials,
    TotalDegreeProducts,
    count_columns,
    count_waves,
)

POLYNOMIAL, FOURIER = "polynomial", "fourier"


class Space(NamedTuple):
    """A basis, its number of functions, both of (d, degree), and what these are called."""

    basis: Callable[[int, int], TotalDegreeProducts]
    columns: Callable[[int, int], int]
    functions: str


SPACES = {
    POLYNOMIAL: Space(TotalDegreePolynomials, count_columns, "polynomials"),
    FOURIER: Space(FourierProducts, count_waves, "waves"),
}


def space_basis(space: str, n_features: int, degree: int) -> TotalDegreeProducts:
    """Functions of total degree, or total frequency, at most `degree` in d variables."""
    return SPACES[space].basis(n_features, degree)


def space_columns(space: str, n_features: int, degree: int) -> int:
    """Their number, which costs nothing to know."""
    return SPACES[space].columns(n_features, degree)
