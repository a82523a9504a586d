"""What several families share: rows, scaling, records of training, bases, polynomials."""

from skpou.core.basis import BASES, Basis, ParametricBasis
from skpou.core.parallel import at_once, jobs
from skpou.core.polynomials import (
    TotalDegreePolynomials,
    count_columns,
    largest_powers,
    to_powers,
    total_degree_exponents,
)
from skpou.core.records import Report, TrainingInterrupted, TrainingResult, handing_over
from skpou.core.rows import Pairs, Rows, merge_rows, pairs_of
from skpou.core.sample import RowSample
from skpou.core.scaling import Scaling, target_unit
from skpou.core.sobol import sobol_points

# fmt: off
__all__ = ["BASES", "Basis", "Pairs", "ParametricBasis", "Report", "RowSample", "Rows", "Scaling",
           "TotalDegreePolynomials", "TrainingInterrupted", "TrainingResult", "at_once",
           "count_columns", "handing_over", "jobs", "largest_powers", "merge_rows", "pairs_of",
           "sobol_points", "target_unit", "to_powers", "total_degree_exponents"]
# fmt: on
