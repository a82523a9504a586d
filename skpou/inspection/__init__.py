"""Figures of fitted estimators, in the manner of scikit-learn's Display classes.

matplotlib is imported when a figure is drawn, not with this module.
"""

from skpou.inspection._latent_grids import LatentGridDisplay
from skpou.inspection._leaderboard import LeaderboardDisplay
from skpou.inspection._partitions import PartitionDisplay
from skpou.inspection._stages import StageDisplay

__all__ = ["LatentGridDisplay", "LeaderboardDisplay", "PartitionDisplay", "StageDisplay"]
