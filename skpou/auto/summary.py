"""What a leaderboard says, in words."""

from __future__ import annotations

import numpy as np

#: Points relative to the most: a member that was raced with fewer had been left behind. Rungs
#: double at least, and what is left out differs by less.
FEWER = 0.9


def summary_of(board: dict[str, np.ndarray], n_outliers: int = 0) -> str:
    """Some lines of text: the stack, and each member's last standing in the race.

    `n_outliers` rows were set apart by most of the stack.
    """
    stacked = np.flatnonzero(board["weight"] > 0)
    names, whole = board["member"], board["rows"][stacked[0]]
    weights = ", ".join(f"{names[i]} {board['weight'][i]:.2f}" for i in stacked)
    lines = [f"Fitted to all {whole} distinct points, with weights: {weights}."]
    if n_outliers:
        rows = "1 row was" if n_outliers == 1 else f"{n_outliers} rows were"
        lines.append(f"{rows} set apart as outliers (outliers_): the fit is that of the others.")
    whole_fits = (board["weight"] == 0) & (board["rows"] == whole)
    failed = whole_fits & np.isnan(board["log_density"])
    lines += [
        f"{names[i]} was dropped: with all rows it failed, its bars are no numbers, or its mean "
        "leaves the range of y by far between them."
        for i in np.flatnonzero(failed)
    ]
    known = np.flatnonzero(~np.isnan(board["log_density"]) & (board["rows"] == whole))
    raced = np.flatnonzero(board["rows"] < whole)
    if len(known) + len(raced) < 2:
        return "\n".join([*lines, "There was no race."])
    if len(known) > 1:
        lines.append("Their bars between the rows said (log density, error in spreads of y):")
        for i in sorted(known.tolist(), key=lambda i: -board["log_density"][i]):
            lines.append(f"  {names[i]}: {_numbers(board, i)}")
    if len(raced):
        lines.append("Left-out rows said (log density a row, error in units of the spread of y):")
    last = {names[i]: i for i in raced.tolist()}
    largest = max((board["rows"][i] for i in last.values()), default=0)
    # The members that came farthest first, among them the likeliest.
    order = sorted(last.values(), key=lambda i: (-board["rows"][i], -_score(board, i)))
    for i in order:
        text = f"  {names[i]}: {_numbers(board, i)}"
        if np.isnan(board["log_density"][i]):
            text = f"  {names[i]} failed"
        elif board["rows"][i] < FEWER * largest:
            text += f", after {board['rows'][i]} points: it could not win any more"
        lines.append(text)
    return "\n".join(lines)


def _numbers(board: dict[str, np.ndarray], i: int) -> str:
    return f"{board['log_density'][i]:.3g}, error {board['error'][i]:.2g}"


def _score(board: dict[str, np.ndarray], i: int) -> float:
    """Log density in a line, minus infinity where the member failed."""
    value = board["log_density"][i]
    return -np.inf if np.isnan(value) else value
