"""Networks of a given size, trained by least squares and descent."""

from skpou.lsgd.fit import NetworkOptions, fit_network
from skpou.lsgd.regressor import LSGDRegressor
from skpou.lsgd.sizes import network_sizes

__all__ = ["LSGDRegressor", "NetworkOptions", "fit_network", "network_sizes"]
