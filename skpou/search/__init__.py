"""The automatic search over families of bases."""

from skpou.search.automatic import (
    ALL_FAMILIES,
    HALF,
    AutomaticOptions,
    AutomaticSearch,
    fit_automatic,
)
from skpou.search.candidates import Candidate
from skpou.search.scores import neighbour_correlation, white_correlation

# fmt: off
__all__ = ["ALL_FAMILIES", "HALF", "AutomaticOptions", "AutomaticSearch", "Candidate",
           "fit_automatic", "neighbour_correlation", "white_correlation"]
# fmt: on
