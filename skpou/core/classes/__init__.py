"""What classifiers share: left-out rows, calibrated probabilities, a companion."""

from skpou.core.classes.calibration import (
    CalibratedClasses,
    Calibration,
    LeftOutClasses,
    best_factors,
    calibrate,
    observations_at,
)
from skpou.core.classes.left_out import left_out_logits, left_out_of_columns

# fmt: off
__all__ = ["CalibratedClasses", "Calibration", "LeftOutClasses", "best_factors", "calibrate",
           "left_out_logits", "left_out_of_columns", "observations_at"]
# fmt: on
