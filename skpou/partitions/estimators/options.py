"""From an estimator's parameters to the options of training, and the checks on the way."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from skpou.base import gigabytes, refuse_beyond_memory
from skpou.partitions.gates.tree import GateForm, NetworkForm
from skpou.partitions.pieces.spaces import POLYNOMIAL, SPACES

#: Rows from which on noise that varies is told from what pieces miss in a corner.
FEWEST_OF_DENSITY = 100
#: Polynomials for each row that data may not determine, and how many there may be all the same:
#: factors of more take minutes.
COLUMNS_A_ROW, MOST_POLYNOMIALS = 4, 1500
#: Matrices of a fit: of the polynomials at all rows (themselves, weighted, factored), beside one of
#: each partition those of their products, and of the shares of the rows in soft partitions.
COPIES_OF_COLUMNS, FURTHER_FACTORS, COPIES_OF_SHARES = 3, 4, 8
#: Shapes of a gate's logits in the order in which they are tried.
GATES = {
    "quadratic": (GateForm(2), GateForm(3), GateForm(4)),
    "linear": (GateForm(1),),
    "rbf": (GateForm(2, isotropic=True),),
}
#: Architectures of gates that are networks.
NETWORK_GATES = {"mlp": "plain", "residual": "residual"}


def parse_sizes(n_partitions: Any) -> tuple[int, ...] | None:
    """`n_partitions` as one number a level, or None for "auto".

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(n_partitions, str):
        return None
    sizes = n_partitions if isinstance(n_partitions, tuple) else (n_partitions,)
    whole = all(isinstance(s, Integral) and not isinstance(s, bool) for s in sizes)
    if not (sizes and whole and all(int(s) > 0 for s in sizes)):
        raise ValueError(
            "n_partitions must be 'auto', a positive int, or a non-empty tuple of positive "
            f"ints, one a level, such as (4, 2). Got {n_partitions!r}."
        )
    return tuple(int(s) for s in sizes)


def parse_smoothing(smoothing: Any) -> tuple[int, int, int]:
    """`smoothing` as three numbers of relaxations.

    Raises
    ------
    ValueError
        If it is anything else, or all of them are zero.
    """
    parts = tuple(smoothing)
    whole = all(isinstance(s, Integral) and not isinstance(s, bool) for s in parts)
    if len(parts) != 3 or not whole or min(parts) < 0 or not any(parts):
        raise ValueError(
            "smoothing must hold three ints of at least 0, not all of them 0, such as (0, 1, 1). "
            f"Got {smoothing!r}."
        )
    return int(parts[0]), int(parts[1]), int(parts[2])


def parse_form(gate: str, hidden_layer_sizes: Any, activation: str) -> GateForm | NetworkForm:
    """Shape of the logits of soft gates.

    Raises
    ------
    ValueError
        If the hidden layers of a network are not to be had.
    """
    sizes = hidden_layer_sizes if isinstance(hidden_layer_sizes, tuple | list) else ()
    form = NetworkForm(tuple(sizes), NETWORK_GATES.get(gate, "plain"), activation)
    form.network(1)  # refuses bad sizes by name, also where the gate has no use for them
    return form if gate in NETWORK_GATES else GATES[gate][0]


def gate_name(form: GateForm | NetworkForm) -> str:
    """Value of `gate` that a shape stands for."""
    if isinstance(form, NetworkForm):
        return next(k for k, v in NETWORK_GATES.items() if v == form.architecture)
    return next(k for k, v in GATES.items() if v[0] == form)


def check_together(params: dict[str, Any], sizes: tuple[int, ...] | None) -> None:
    """Refuse parameters that cannot be used, or that do not go together.

    Raises
    ------
    ValueError
        Naming them.
    """
    solver, gate, init = params["solver"], params["gate"], params["init"]
    parse_form(gate, params["hidden_layer_sizes"], params["activation"])
    if solver == "em":
        parse_smoothing(params["smoothing"])
    elif gate in NETWORK_GATES:
        raise ValueError(f"gate={gate!r} is a network and needs solver='em'. Got {solver!r}.")
    if init == "box" and solver == "auto":
        raise ValueError("init='box' needs solver='em' or solver='varpro'. Got solver='auto'.")
    if init == "box" and sizes is None:
        raise ValueError(
            "init='box' needs n_partitions as an int or a tuple of ints. Got n_partitions='auto'."
        )


def check_memory(
    shape: tuple[int, ...], n_partitions: int, degree: Any, soft: bool, space: str = POLYNOMIAL
) -> None:
    """Refuse sizes that do not fit into memory, before anything is allocated.

    Parameters
    ----------
    shape : tuple of int
        Numbers of distinct rows and of columns that vary.
    soft : bool
        Whether every partition takes its share of every row.
    space : str, default="polynomial"
        Space of the experts.

    Raises
    ------
    ValueError
        If so.
    """
    n_rows, d = shape
    n_columns = 1 if degree == "auto" else SPACES[space].columns(d, int(degree))
    functions = SPACES[space].functions
    if degree != "auto" and n_columns > max(COLUMNS_A_ROW * n_rows, MOST_POLYNOMIALS):
        raise ValueError(
            f"degree={degree} in {d} dimensions has {n_columns} "
            f"{functions} ({gigabytes(n_columns**2):.3g} GB a factor), more than {n_rows} "
            "distinct rows can determine. Lower degree, or reduce the number of columns of X."
        )
    n_pieces = n_partitions if soft else min(n_partitions, n_rows)
    numbers = COPIES_OF_COLUMNS * n_rows * n_columns
    numbers += (n_pieces + FURTHER_FACTORS) * n_columns**2
    numbers += COPIES_OF_SHARES * n_pieces * n_rows if soft else 0
    refuse_beyond_memory(
        gigabytes(numbers),
        f"degree={degree} in {d} dimensions has {n_columns} {functions}, whose fit in {n_pieces} "
        "partitions",
        "degree or n_partitions, or reduce the number of columns of X",
    )


def total_partitions(sizes: tuple[int, ...] | None) -> int:
    """Number of leaves that sizes stand for, 1 for None."""
    return math.prod(sizes or (1,))
