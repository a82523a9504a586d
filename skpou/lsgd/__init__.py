"""Networks of a given size, trained by least squares and descent."""

from skpou.lsgd.classifier import LSGDClassifier
from skpou.lsgd.fit import NetworkOptions, fit_network
from skpou.lsgd.regressor import LSGDRegressor
from skpou.lsgd.sizes import network_sizes

__all__ = ["LSGDClassifier", "LSGDRegressor", "NetworkOptions", "fit_network", "network_sizes"]
