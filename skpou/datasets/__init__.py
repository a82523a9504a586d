"""Test problems of the papers behind the estimators, as functions that return ``(X, y)``.

Every function draws independent, uniform points over the problem's domain, or evaluates the target
at given `X`. `noise` is a standard deviation in units of `y`; it does not change a seed's points.
`make_spectra` alone draws labels and makes the columns of `X` from them.

References
----------
Trask, Henriksen, Martinez, Cyr, "Hierarchical partition of unity networks", MSML 2022. Lee et al.,
"Partition of unity networks", AAAI-MLPS 2021, and Cyr et al., MSML 2020; equation numbers of M.
Gulian's talk on both. Wang, Lai, "Multi-stage neural networks", JCP 2024; equation numbers of W.
Pan's lecture 8. Zhen Zhang, "Neural Sparse Grids for High-Dimensional Data" (TU Munich, 2021).
"""

from skpou.datasets._functions import (
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
from skpou.datasets._spectra import make_spectra

# fmt: off
__all__ = ["make_bump", "make_cross", "make_curved_ridge", "make_diode", "make_multiscale",
           "make_piecewise_quadratic", "make_sine_bump", "make_spectra", "make_swiss_roll",
           "make_triangle_wave", "make_two_moons_3d"]
# fmt: on
