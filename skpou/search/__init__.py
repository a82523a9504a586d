"""The automatic search over families of bases."""

from skpou.search.automatic import AutomaticOptions, AutomaticSearch, are_few, fit_automatic
from skpou.search.bases.units import LARGEST_LOG
from skpou.search.candidates import Candidate
from skpou.search.family import Family, Seen, Stages, Task
from skpou.search.many_rows import fit_to_blocks
from skpou.search.rough import ENOUGH_ROWS, RoughSplines
from skpou.search.scores import RidgePath, neighbour_correlation, white_correlation
from skpou.search.sine_family import Sines
from skpou.search.stages import HALF
from skpou.search.units import LAVISH, GrownUnits

# fmt: off
__all__ = ["ENOUGH_ROWS", "HALF", "LARGEST_LOG", "LAVISH", "AutomaticOptions", "AutomaticSearch",
           "Candidate", "Family", "GrownUnits", "RidgePath", "RoughSplines", "Seen", "Sines",
           "Stages", "Task", "are_few", "fit_automatic", "fit_to_blocks", "neighbour_correlation",
           "white_correlation"]
# fmt: on
