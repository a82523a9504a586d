"""Networks of a given size, trained by least squares and descent."""

from skpou.lsgd.classifier import LSGDClassifier
from skpou.lsgd.equations import EquationNetworkTraining, with_doubts
from skpou.lsgd.fit import NetworkOptions, fit_network
from skpou.lsgd.regressor import LSGDRegressor
from skpou.lsgd.searched import SearchedRegressor
from skpou.lsgd.sizes import check_network_for, network_sizes

# fmt: off
__all__ = ["EquationNetworkTraining", "LSGDClassifier", "LSGDRegressor", "NetworkOptions",
           "SearchedRegressor", "check_network_for", "fit_network", "network_sizes", "with_doubts"]
# fmt: on
