"""How pieces are found."""

from __future__ import annotations

from dataclasses import dataclass

from skpou.partitions.gates.tree import GateForm
from skpou.partitions.pieces.spaces import POLYNOMIAL


@dataclass(frozen=True)
class PieceOptions:
    """How pieces are found.

    Parameters
    ----------
    sizes : tuple of int, default=None
        Most children of a node on each level; one number bounds all pieces. None: as many as
        the samples support.
    degree : int, default=None
        Total degree of the experts; None: chosen with the number of pieces.
    gates : tuple of GateForm
        Shapes of the first level's gates in the order in which they are tried; the first is
        that of all other gates. The default tries degrees 2, 3 and 4.
    soft : bool, default=False
        Make all gates soft and train them jointly, kinks or not.
    alpha : float, default=None
        Ridge relative to the largest column norm; None: by log evidence.
    max_iter : int, default=1000
        Levels of merging.
    tol : float, default=0
        Relative residual below which a fit counts as exact.
    exactly : bool, default=False
        Make one level of exactly as many partitions as `sizes` says: sharp if kinks separate all
        pieces, soft otherwise.
    space : str, default="polynomial"
        Space of the experts.
    padded_to : int, default=0
        With `exactly`, partitions in all, of which those beyond `sizes` are empty.
    restarted : bool, default=True
        Repeat the descent of soft pieces from several starts where it ends far from exact.
    most_steps : int, default=300
        Steps of the last descent of soft gates.
    """

    sizes: tuple[int, ...] | None = None
    degree: int | None = None
    gates: tuple[GateForm, ...] = (GateForm(2), GateForm(3), GateForm(4))
    soft: bool = False
    alpha: float | None = None
    max_iter: int = 1000
    tol: float = 0.0
    exactly: bool = False
    space: str = POLYNOMIAL
    padded_to: int = 0
    restarted: bool = True
    most_steps: int = 300

    #: Most pieces when their number is chosen.
    most_pieces = 32
    #: Most soft pieces of one smooth part when their number is chosen.
    most_soft_pieces = 12
    #: Most columns of a gate, and rows for each of them, beyond which gates become linear.
    most_gate_columns = 60
    rows_a_gate_column = 5
    #: Degrees that are compared when the degree is chosen.
    degrees = (1, 2, 3, 4, 5)
