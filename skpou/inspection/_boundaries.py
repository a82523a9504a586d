"""Where the label of a point changes: along a line to the last bit, over a plane as segments."""

import numpy as np

#: Halvings of an edge of the grid on which a label changes: a thousandth of it is less than any
#: line is wide.
HALVINGS = 10
#: Halvings of an interval along a line: neighbouring floats of one size are left after 64; near
#: zero they lie closer.
MOST_HALVINGS = 100


def bisect(label, x):
    """Enclose the changes of `label` along the increasing coordinates `x` in adjacent floats.

    Parameters
    ----------
    label : callable
        Maps coordinates of shape (m,) to integers of shape (m,).
    x : ndarray of shape (n,)
        Coordinates; of several changes between two of them one is found.

    Returns
    -------
    below, above : ndarray of shape (n_boundaries,)
        The last float before and the first after each change.
    """
    labels = label(x)
    change = np.flatnonzero(labels[1:] != labels[:-1])
    below, above, start = x[change], x[change + 1], labels[change]
    for _ in range(MOST_HALVINGS):
        middle = below + (above - below) / 2
        if not np.any((middle > below) & (middle < above)):
            break
        same = label(middle) == start
        below, above = np.where(same, middle, below), np.where(same, above, middle)
    return below, above


def boundary_segments(label, xx0, xx1, labels):
    """Segments along which the label changes over a plane, through points found by bisection.

    On every edge of the grid whose ends have different labels the change is found; in every cell
    two such points are joined. Where three or four labels meet, or a boundary enters a cell twice,
    all its points are joined to their mean.

    Parameters
    ----------
    label : callable
        Maps two arrays of coordinates of shape (m,) to integers of shape (m,).
    xx0, xx1 : ndarray of shape (m1, m0)
        Grid, as :func:`numpy.meshgrid` makes it.
    labels : ndarray of int of shape (m1, m0)
        Those of the grid.

    Returns
    -------
    ndarray of shape (n_segments, 2, 2)
        Two ends of each, two coordinates of either.
    """
    nodes = np.stack([xx0, xx1], -1)
    along = _changes(label, nodes[:, :-1], nodes[:, 1:], labels[:, :-1], labels[:, 1:])
    across = _changes(label, nodes[:-1], nodes[1:], labels[:-1], labels[1:])
    # The four edges of every cell: below, right, above, left.
    edges = np.stack([along[:-1], across[:, 1:], along[1:], across[:, :-1]], 2)
    edges = edges.reshape(-1, 4, 2)
    found = ~np.isnan(edges[:, :, 0])
    count = found.sum(1)
    simple = edges[count == 2][found[count == 2]].reshape(-1, 2, 2)
    several, points = edges[count > 2], found[count > 2]
    centre = np.nanmean(several, axis=1, keepdims=True) if len(several) else several[:, :1]
    spokes = np.stack([several, np.broadcast_to(centre, several.shape)], 2)[points]
    return np.concatenate([simple, spokes])


def _changes(label, starts, ends, first, last):
    """Points (..., 2) where the label changes between two others; NaN where it does not."""
    points = np.full(starts.shape, np.nan)
    change = first != last
    start, step, own = starts[change], ends[change] - starts[change], first[change]
    low, high = np.zeros((len(own), 1)), np.ones((len(own), 1))
    for _ in range(HALVINGS if len(own) else 0):
        middle = (low + high) / 2
        same = (label(*(start + middle * step).T) == own)[:, None]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    points[change] = start + (low + high) / 2 * step
    return points
