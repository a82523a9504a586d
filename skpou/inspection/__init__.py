"""Figures of fitted estimators, in the manner of scikit-learn's Display classes.

matplotlib is imported when a figure is drawn, not with this module.
"""

from skpou.inspection._calibration import CalibrationDisplay
from skpou.inspection._convergence import ConvergenceDisplay
from skpou.inspection._fits import FitDisplay
from skpou.inspection._latent_grids import LatentGridDisplay
from skpou.inspection._leaderboard import LeaderboardDisplay
from skpou.inspection._partitions import PartitionDisplay
from skpou.inspection._stages import StageDisplay
from skpou.inspection._terms import TermsDisplay

__all__ = [
    "CalibrationDisplay",
    "ConvergenceDisplay",
    "FitDisplay",
    "LatentGridDisplay",
    "LeaderboardDisplay",
    "PartitionDisplay",
    "StageDisplay",
    "TermsDisplay",
]
