"""Sizes of a network, and its start, from the parameters of an estimator."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from skpou.base import gigabytes, refuse_beyond_memory
from skpou.equations import Physics, Problem
from skpou.networks import Network

#: Copies that training holds: of the parameters, with a solver's moments; of the matrix of the
#: output layer's products; and of that of all parameters in a step of "varpro".
OF_PARAMETERS, OF_PRODUCTS, OF_STEP = 6.0, 4.0, 5.0
#: Plain networks of so many layers start better from "he": see `initializations.box`.
DEEP = 16


def network_sizes(estimator: Any, of_fixed_sizes: dict[str, Any]) -> tuple[int, ...] | None:
    """hidden_layer_sizes as a tuple, or None for "auto", when others must keep defaults.

    Parameters
    ----------
    of_fixed_sizes : dict
        Parameters that shape a network of a given size, with their defaults.

    Raises
    ------
    ValueError
        If one of them has another value beside "auto", or a size is none.
    """
    given = estimator.hidden_layer_sizes
    if isinstance(given, str):
        for name, default in of_fixed_sizes.items():
            value = getattr(estimator, name)
            if value != default:
                raise ValueError(
                    f"{name}={value!r} shapes a network of a given size: it must be "
                    f"{default!r} while hidden_layer_sizes='auto'."
                )
        return None
    return given_sizes(estimator)


def given_sizes(estimator: Any) -> tuple[int, ...]:
    """Sizes of the hidden layers of an estimator that names them.

    Raises
    ------
    ValueError
        If one is no size.
    """
    given = estimator.hidden_layer_sizes
    sizes = (given,) if isinstance(given, Integral) else tuple(given)
    architecture = getattr(estimator, "architecture", "plain")
    network = Network(1, sizes, architecture, estimator.activation)  # refuses bad sizes
    return network.hidden_layer_sizes


def pick_init(init: str, network: Network) -> str:
    """Initialization, that of "auto" where it was not given."""
    if init != "auto":
        return init
    if network.architecture == "residual":
        return "data_box"
    return "box" if len(network.hidden_layer_sizes) < DEEP else "he"


def check_memory(
    estimator: Any, network: Network, at_rows: float, n_coefficients: int, step: float, rows: str
) -> None:
    """Refuse a network that does not fit into memory, before allocating it.

    Parameters
    ----------
    at_rows : float
        Numbers that are held at the rows.
    n_coefficients : int
        Of the output layer that are solved for together.
    step : float
        Elements of the matrix of a step of "varpro".
    rows : str
        The rows in words.
    """
    n_parameters = network.n_parameters
    numbers = at_rows + OF_PARAMETERS * n_parameters + OF_PRODUCTS * n_coefficients**2
    advice = ""
    if estimator.solver == "varpro":
        numbers += OF_STEP * step
        advice = ", or take solver='lsgd'"
    refuse_beyond_memory(
        gigabytes(numbers),
        f"hidden_layer_sizes={estimator.hidden_layer_sizes!r} has {n_parameters} parameters and "
        f"{network.n_columns} columns at {rows}, which",
        f"hidden_layer_sizes{advice}",
    )


def check_network_for(estimator: Any, problem: Problem, physics: Physics) -> None:
    """Refuse equations that networks of a given size, or with such units, cannot solve.

    Raises
    ------
    ValueError
        If there are symmetries, or derivatives that the units have not got.
    """
    if physics.symmetries:
        raise ValueError(
            f"{physics.symmetries[0]!r} is a property of sine features: it needs "
            f"hidden_layer_sizes='auto'. Got {estimator.hidden_layer_sizes!r}."
        )
    order = max(len(key[1]) for term in problem.terms for key in term.pointwise.keys)
    if estimator.activation == "relu" and order > 1:
        raise ValueError(
            f"activation='relu' has no derivatives of order {order}, which the equations "
            "need. Take 'tanh' or 'sin'."
        )
