"""What several families share: rows, scaling, records of training, bases, polynomials."""

from skpou.core.basis import BASES, Basis, ParametricBasis
from skpou.core.draws import (
    LONG_SEEDS,
    SEEDS,
    TORCH_SEEDS,
    judging_generator,
    sobol_points,
    torch_seeded,
)
from skpou.core.fourier import FourierProducts, count_waves
from skpou.core.parallel import at_once, jobs
from skpou.core.polynomials import (
    TotalDegreePolynomials,
    TotalDegreeProducts,
    count_columns,
    largest_powers,
    to_powers,
    total_degree_exponents,
)
from skpou.core.records import (
    BestSoFar,
    Report,
    TrainingInterrupted,
    TrainingResult,
    handing_over,
    tell,
)
from skpou.core.rows import (
    Blocks,
    Pairs,
    Rows,
    all_but,
    drawn_and_others,
    drawn_points,
    group_rows,
    merge_rows,
    pairs_of,
    with_all_targets,
)
from skpou.core.sample import RowSample, keys_of
from skpou.core.scaling import Scaling, order_of_columns, target_unit
from skpou.core.state import ArrayState, TensorState, to_array, to_tensor

# fmt: off
__all__ = ["BASES", "LONG_SEEDS", "SEEDS", "TORCH_SEEDS", "ArrayState", "Basis", "BestSoFar",
           "Blocks", "FourierProducts", "Pairs", "ParametricBasis", "Report", "RowSample", "Rows",
           "Scaling", "TensorState", "TotalDegreePolynomials", "TotalDegreeProducts",
           "TrainingInterrupted", "TrainingResult", "all_but", "at_once", "count_columns",
           "count_waves", "drawn_and_others", "drawn_points", "group_rows", "handing_over", "jobs",
           "judging_generator", "keys_of", "largest_powers", "merge_rows", "order_of_columns",
           "pairs_of", "sobol_points", "target_unit", "tell", "to_array", "to_powers", "to_tensor",
           "torch_seeded", "total_degree_exponents", "with_all_targets"]
# fmt: on
