"""Training loops: first-order descent, variable projection, logistic regression."""

from skpou.core.optim.damping import TenfoldDamping, first_decrease
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
from skpou.core.optim.projected_softmax import (
    JACOBIAN_NUMBERS,
    DampedModel,
    ProjectedCurvature,
    SoftmaxHead,
    spread_of,
)
from skpou.core.optim.softmax import (
    DenseRows,
    MultinomialRidge,
    hessian,
    logits_of_shares,
    shares_of_classes,
)
from skpou.core.optim.varpro import (
    LEAST_LEFT,
    SMALL_RIDGE_SHARE,
    LinearModel,
    ProjectedFit,
    ProjectedProblem,
    RidgeSchedule,
    TriangularModel,
    levenberg_marquardt,
)

# fmt: off
__all__ = ["JACOBIAN_NUMBERS", "LEAST_LEFT", "SMALL_RIDGE_SHARE", "Adam", "DampedModel",
           "DenseRows", "Descent", "GradientDescent", "Iterate", "LinearModel", "MultinomialRidge",
           "Progress", "ProjectedCurvature", "ProjectedFit", "ProjectedProblem", "Ridge",
           "RidgeSchedule", "SoftmaxHead", "TenfoldDamping", "TriangularModel", "descend",
           "descend_hidden", "first_decrease", "follow", "hessian", "levenberg_marquardt",
           "logits_of_shares", "minibatches", "shares_of_classes", "spread_of"]
# fmt: on
