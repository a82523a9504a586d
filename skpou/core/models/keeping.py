"""Rows that a model keeps to tell its errors by."""

from __future__ import annotations

import torch

from skpou.core import Rows

#: Most rows that are kept, and most numbers: a saved default model stays below 1 MB.
MOST_KEPT, MOST_NUMBERS = 2000, 30_000
#: Rows that are looked at for each that is kept.
LOOKED_AT = 10


def keeps_all(rows: Rows) -> bool:
    """Whether a model keeps all of the rows."""
    return rows.n_rows <= _most_kept(rows)


def _most_kept(rows: Rows) -> int:
    return min(MOST_KEPT, MOST_NUMBERS // max(rows.n_features, 1))


def kept_rows(rows: Rows) -> Rows:
    """At most so many of the rows as a model keeps: the farthest from each other, in order."""
    most = _most_kept(rows)
    double = rows.to(torch.float64)
    if keeps_all(rows):
        return double
    step = max(1, rows.n_rows // (LOOKED_AT * most))
    # Sums over columns that are contiguous take a fraction of those over each row.
    columns = double.X[::step].T.contiguous()
    distance, chosen = torch.full_like(columns[0], torch.inf), [0]
    for _ in range(most - 1):
        apart = (columns - columns[:, chosen[-1], None]).square_().sum(0)
        torch.minimum(distance, apart, out=distance)
        chosen.append(int(distance.argmax()))
    index = torch.as_tensor(sorted(chosen), device=columns.device) * step
    return double.subset(index)
