"""What classifiers share: left-out rows, calibrated probabilities, a companion."""

from skpou.core.classes.calibration import (
    CalibratedClasses,
    Calibration,
    LeftOutClasses,
    best_factors,
    calibrate,
    observations_at,
)
from skpou.core.classes.companion import LogisticCompanion, fit_companion_of_classes
from skpou.core.classes.left_out import left_out_logits, left_out_of_columns

# fmt: off
__all__ = ["CalibratedClasses", "Calibration", "LeftOutClasses", "LogisticCompanion",
           "best_factors", "calibrate", "fit_companion_of_classes", "left_out_logits",
           "left_out_of_columns", "observations_at"]
# fmt: on
