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
    X = double.X[::step]
    distance, chosen = torch.full((len(X),), torch.inf, dtype=X.dtype, device=X.device), [0]
    for _ in range(most - 1):
        distance = torch.minimum(distance, (X - X[chosen[-1]]).square().sum(1))
        chosen.append(int(distance.argmax()))
    index = torch.as_tensor(sorted(chosen), device=X.device) * step
    return double.subset(index)
