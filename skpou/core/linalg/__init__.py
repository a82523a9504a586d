"""Sums over rows, least squares and evidence."""

from skpou.core.linalg.cholesky import (
    LEAST_ALPHA,
    LEAST_SPREAD,
    NO_VARIANCE,
    TINY,
    add_gram,
    factored,
    gram_of,
    largest_norm,
    solve_each,
    symmetric,
    whitened_factor,
)
from skpou.core.linalg.evidence import (
    LARGEST_LEVERAGE,
    EvidenceFit,
    EvidenceProblem,
    Groups,
    lower_inverse,
    times_upper,
)
from skpou.core.linalg.least_squares import (
    NUMERICAL_FAILURES,
    back_substitute,
    coefficients,
    effective_parameters,
    evidence_ridge,
    free_rows,
    is_deficient,
    leave_one_out,
    ridge_coefficients,
    ridge_factor,
    split_factor,
)
from skpou.core.linalg.processes import (
    alone,
    check_alike,
    count,
    gather,
    gather_objects,
    sum_of_all,
)
from skpou.core.linalg.ranges import range_to_round_off
from skpou.core.linalg.statistics import (
    COPIES_EVALUATED,
    COPIES_SUMMED,
    RowSums,
    evenly,
    long_blocks,
    row_blocks,
    rows_within,
    triangular_factor,
    triangular_factors,
    weighted_factors,
)
from skpou.core.linalg.tridiagonal import ridge_quadratics
from skpou.core.linalg.weighted_sums import WeightedSums, factor_of_products

# fmt: off
__all__ = ["COPIES_EVALUATED", "COPIES_SUMMED", "LARGEST_LEVERAGE", "LEAST_ALPHA", "LEAST_SPREAD",
           "NO_VARIANCE", "NUMERICAL_FAILURES", "TINY", "EvidenceFit", "EvidenceProblem", "Groups",
           "RowSums", "WeightedSums", "add_gram", "alone", "back_substitute", "check_alike",
           "coefficients", "count", "effective_parameters", "evenly", "evidence_ridge",
           "factor_of_products", "factored", "free_rows", "gather", "gather_objects", "gram_of",
           "is_deficient", "largest_norm", "leave_one_out", "long_blocks", "lower_inverse",
           "range_to_round_off", "ridge_coefficients", "ridge_factor", "ridge_quadratics",
           "row_blocks", "rows_within", "solve_each", "split_factor", "sum_of_all", "symmetric",
           "times_upper", "triangular_factor", "triangular_factors", "weighted_factors",
           "whitened_factor"]
# fmt: on
