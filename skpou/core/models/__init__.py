"""Fitted models and their predictive densities."""

from skpou.core.models.components import Components
from skpou.core.models.conformal import (
    conformal_rank,
    interval_of_score,
    interval_scores,
    least_rows,
)
from skpou.core.models.covariance import joint_log_density, outside_steps, standard_draws
from skpou.core.models.cross_validation import (
    EXACT_NOISE,
    LEAST_TOLD,
    MOST_TOGETHER,
    N_FOLDS,
    LeftOut,
    Maker,
    Makers,
    ResidualMaker,
    is_exact,
    is_scattered,
    left_out_errors,
    levels_of_columns,
    own_maker,
    prior_residual_makers,
    residual_maker,
    residual_makers,
    sets_to_leave_out,
)
from skpou.core.models.floor import residual_squares, worse_than_the_mean, worse_than_the_shares
from skpou.core.models.form_error import (
    FormError,
    fit_form_errors,
    leave_out,
    leave_out_sides,
    no_form_errors,
    with_jumps,
)
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.interpolant import Interpolant
from skpou.core.models.interpolant_fit import fit_interpolant
from skpou.core.models.keeping import keeps_all, kept_rows
from skpou.core.models.level_error import fit_level_errors, sets_of_levels
from skpou.core.models.linear_companion import FEWEST_OF_TABLE, fit_companion, joined_errors
from skpou.core.models.linear_model import (
    LinearModel,
    Stage,
    makers_of_stages,
    mean_slope,
    model_of_stages,
    slope_rows,
)
from skpou.core.models.local_block import LocalBlock, LocalKernel
from skpou.core.models.local_scales import LeftOver, fit_local_kernel
from skpou.core.models.mixed_residues import (
    MixedResidues,
    better_residues,
    errors_of_law,
    fit_residues,
    has_even_noise,
    is_of_form,
    residues_of,
)
from skpou.core.models.model import ClassPredictor, Predictor, shared_tensor
from skpou.core.models.noise_law import FEWEST_OF_LAW, Errors, NoiseLaw, WithNoiseLaw, fit_noise_law
from skpou.core.models.outliers import (
    FEWEST_OF_OUTLIERS,
    LeftOutErrors,
    OutlierSplit,
    WithOutliers,
    are_clustered,
    beside_an_exact_fit,
    fitted_alone,
    left_out_by_leverage,
    log_density_of,
    may_hold_outliers,
    split_exact,
    split_outliers,
    stands_out,
    without_clusters,
)
from skpou.core.models.process_fit import fit_process
from skpou.core.models.refits import Refits, are_even
from skpou.core.models.relevance import evident_rates
from skpou.core.models.residue_density import (
    PRIOR_ROWS,
    GateSteps,
    Residue,
    ResidueDensity,
    StackedDensities,
    choose_components,
    fit_density,
    is_gain,
    left_out,
    noise_floor,
    rounding,
)
from skpou.core.models.restraint import Restrained, restrained
from skpou.core.models.tails import CLEAR_NOISE, fit_tails
from skpou.core.models.with_form_error import WithFormError

# fmt: off
__all__ = ["CLEAR_NOISE", "EXACT_NOISE", "FEWEST_OF_LAW", "FEWEST_OF_OUTLIERS", "FEWEST_OF_TABLE",
           "LEAST_TOLD", "MOST_TOGETHER", "N_FOLDS", "PRIOR_ROWS", "ClassPredictor", "Components",
           "Errors", "FormError", "GateSteps", "IndependentComponents", "Interpolant", "LeftOut",
           "LeftOutErrors", "LeftOver", "LinearModel", "LocalBlock", "LocalKernel", "Maker",
           "Makers", "MixedResidues", "NoiseLaw", "OutlierSplit", "Predictor", "Refits",
           "ResidualMaker", "Residue", "ResidueDensity", "Restrained", "StackedDensities", "Stage",
           "WithFormError", "WithNoiseLaw", "WithOutliers", "are_clustered", "are_even",
           "beside_an_exact_fit", "better_residues", "choose_components", "conformal_rank",
           "errors_of_law", "evident_rates", "fit_companion", "fit_density", "fit_form_errors",
           "fit_interpolant", "fit_level_errors", "fit_local_kernel", "fit_noise_law",
           "fit_process", "fit_residues", "fit_tails", "fitted_alone", "has_even_noise",
           "interval_of_score", "interval_scores", "is_exact", "is_gain", "is_of_form",
           "is_scattered", "joined_errors", "joint_log_density", "keeps_all", "kept_rows",
           "least_rows", "leave_out", "leave_out_sides", "left_out", "left_out_by_leverage",
           "left_out_errors", "levels_of_columns", "log_density_of", "makers_of_stages",
           "may_hold_outliers", "mean_slope", "model_of_stages", "no_form_errors", "noise_floor",
           "outside_steps", "own_maker", "prior_residual_makers", "residual_maker",
           "residual_makers", "residual_squares", "residues_of", "restrained", "rounding",
           "sets_of_levels", "sets_to_leave_out", "shared_tensor", "slope_rows", "split_exact",
           "split_outliers", "standard_draws", "stands_out", "with_jumps", "without_clusters",
           "worse_than_the_mean", "worse_than_the_shares"]
# fmt: on
