"""Whether equations are solved along a column, and along which."""

from __future__ import annotations

import numpy as np

from skpou.core import Rows
from skpou.equations import Problem
from skpou.partitions.equations.system import highest_orders

#: Data at the lower end beside measured values, from which on they are a condition there.
LEAST_BOTTOM = 8
#: So many times more data inside than at the upper end are values that were measured anywhere.
MEASURED = 5
#: Distance, in units of the box, up to which the end of an equation's box is that of all points.
BOX_FACE = 1e-12


def marched_column(problem: Problem, rows: Rows) -> int | None:
    """Column whose conditions lie at its lower end and on other columns' ends; None without one.

    Data inside are measured values: beside them conditions at the lower end must be many, or
    `Condition` of their own.
    """
    orders = highest_orders(problem, rows.n_outputs).max(0)
    given = [term.points.cpu().numpy() for term in problem.terms if term.is_condition]
    conditions = np.concatenate([np.zeros((0, rows.n_features)), *given])
    X = rows.X.cpu().numpy()
    if any(t.region is None and not t.is_condition for t in problem.terms):
        return None
    if any(t.region is not None and not t.is_condition and not _is_box(t) for t in problem.terms):
        return None
    found = None
    for j in np.argsort(orders, kind="stable"):
        others = [k for k in range(rows.n_features) if k != j]
        if not orders[j] or (found is not None and orders[j] > orders[found]):
            continue

        def side(points, others=others):
            return ((points[:, others] == 0) | (points[:, others] == 1)).any(1)

        joined = np.concatenate([X, conditions])
        at_top = (joined[:, j] == 1) & ~side(joined)
        inside = (conditions[:, j] > 0) & ~side(conditions)
        inner = (X[:, j] > 0) & ~side(X)
        bottom = int((X[:, j] == 0).sum())
        stated = bool(((conditions[:, j] == 0) & ~side(conditions)).any())
        if inside.any() or not (bottom or stated):
            continue
        if inner.any():
            # Measured values: what holds exactly must be told from them.
            if not stated and (rows.n_features == 1 or bottom < LEAST_BOTTOM):
                continue
            if not inner.sum() > MEASURED * at_top.sum() and at_top.any():
                continue
        elif at_top.any():
            continue
        if found is None or orders[j] < orders[found] or j > found:
            found = int(j)
    return found


def _is_box(term) -> bool:
    low, high = term.region.cpu().numpy()
    return bool((low <= BOX_FACE).all() and (high >= 1 - BOX_FACE).all())
