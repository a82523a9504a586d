"""A map of partitions: colours, boundaries, numbers and a legend."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

#: Place of the legend below a new figure, in heights of its axes, and names in one of its rows.
BELOW, IN_A_ROW = -0.14, 4
#: Opacity of a map's colours, on which dots and numbers are read; width of boundaries in points,
#: between those of curves and of lines that help.
TINT, BOUNDARY = 0.45, 1.2


def draw_map(ax, grid, rank, colors, surface_kw):
    """Map of the partitions' ranks (m1, m0) over a grid, in their colours."""
    from matplotlib.colors import ListedColormap

    style = {"cmap": ListedColormap(colors), "vmin": -0.5, "vmax": len(colors) - 0.5}
    style |= {"alpha": TINT, "shading": "nearest", "rasterized": True, "zorder": -1}
    return ax.pcolormesh(*grid, rank, **style | surface_kw)


def draw_boundaries(ax, grid, rank, segments, boundary_kw):
    """Segments, or level sets of each partition's indicator where there are none."""
    from matplotlib.collections import LineCollection

    style = {"colors": "0.2", "linewidths": BOUNDARY}
    if segments is not None:
        style |= {"capstyle": "round"}
        lines = LineCollection(segments, **style | boundary_kw)
        return [ax.add_collection(lines, autolim=False)]
    n = rank.max() + 1
    # Contours of the numbers themselves would run through all those between two neighbours.
    return [
        ax.contour(*grid, (rank == part).astype(float), levels=[0.5], **style | boundary_kw)
        for part in range(n if n > 1 else 0)
    ]


def draw_numbers(ax, grid, rank, names):
    """Names of the partitions, where each has the most room: colours are lost in grey."""
    from matplotlib.patheffects import withStroke

    texts = []
    for part, name in enumerate(names):
        room = distance_transform_edt(np.pad(rank == part, 1))[1:-1, 1:-1]
        place = np.unravel_index(room.argmax(), room.shape)
        style = {"ha": "center", "va": "center"}
        style |= {"path_effects": [withStroke(linewidth=3, foreground="w")]}
        texts.append(ax.text(*(coordinate[place] for coordinate in grid), str(name), **style))
    return texts


def draw_legend(ax, names, colors, alpha, new_figure):
    """A legend of the partitions, below a new figure, where no scale of colours is."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=color, alpha=alpha, edgecolor="0.2", label=f"partition {name}")
        for name, color in zip(names, colors)
    ]
    place = {"loc": "upper right", "fontsize": "small"}
    if new_figure:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, BELOW), "frameon": False}
    return ax.legend(handles=handles, ncols=min(len(handles), IN_A_ROW), **place)
