"""Edges of pieces that move along the marched column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skpou.partitions.equations.columns import legendre_values

#: Times of a slab at which the extent of an edge is looked at.
PLACES = 33


@dataclass(frozen=True)
class Edges:
    """Where pieces in the plane end on both sides: curves x(t) between the ends of a slab.

    Attributes
    ----------
    column : int
        The marched column t; the other one is x.
    series : ndarray of shape (E, 2, K)
        Legendre series of the lower and the upper edge, in t on [-1, 1] over the slab.
    kinked : ndarray of bool of shape (E,)
        Whether slopes may jump across the upper edge, as they may along characteristics.
    """

    column: int
    series: np.ndarray
    kinked: np.ndarray

    @property
    def other(self) -> int:
        """The column x."""
        return 1 - self.column

    def ends(self, e: np.ndarray | int, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper edge (n,) of pieces (n,), or of a single one, at times (n,)."""
        table = legendre_values(time, self.series.shape[2] - 1)
        lower, upper = (np.sum(table * self.series[e, side], axis=1) for side in (0, 1))
        return lower, upper

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends (E,) along x of the boxes around the pieces."""
        table = legendre_values(np.linspace(-1, 1, PLACES), self.series.shape[2] - 1)
        places = np.einsum("esk,nk->esn", self.series, table)
        return places.min((1, 2)), places.max((1, 2))

    def subset(self, index: np.ndarray) -> Edges:
        """Those of some of the pieces."""
        return Edges(self.column, self.series[index], self.kinked[index])


def upright(low: np.ndarray, high: np.ndarray, column: int) -> Edges:
    """Edges of boxes, whose corners (E, 2) are given, which do not move."""
    series = np.zeros((len(low), 2, 1))
    series[:, 0, 0], series[:, 1, 0] = low[:, 1 - column], high[:, 1 - column]
    return Edges(column, series, np.zeros(len(low), dtype=bool))


def joined_edges(parts: list[Edges]) -> Edges:
    """Edges of several slabs together."""
    n_terms = max(part.series.shape[2] for part in parts)
    series = [
        np.pad(part.series, ((0, 0), (0, 0), (0, n_terms - part.series.shape[2]))) for part in parts
    ]
    kinked = np.concatenate([part.kinked for part in parts])
    return Edges(parts[0].column, np.concatenate(series), kinked)
