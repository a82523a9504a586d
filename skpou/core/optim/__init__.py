"""Training loops: first-order descent, variable projection."""

from skpou.core.optim.descents import (
    Descent,
    Iterate,
    Progress,
    Ridge,
    descend,
    descend_hidden,
    follow,
    minibatches,
)
from skpou.core.optim.first_order import Adam, GradientDescent
from skpou.core.optim.varpro import (
    LinearModel,
    ProjectedFit,
    ProjectedProblem,
    RidgeSchedule,
    TriangularModel,
    levenberg_marquardt,
)

# fmt: off
__all__ = ["Adam", "Descent", "GradientDescent", "Iterate", "LinearModel", "Progress",
           "ProjectedFit", "ProjectedProblem", "Ridge", "RidgeSchedule", "TriangularModel",
           "descend", "descend_hidden", "follow", "levenberg_marquardt", "minibatches"]
# fmt: on
