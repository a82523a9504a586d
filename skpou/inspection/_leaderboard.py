"""How far the members of a race came, and which of them predict."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skpou.base import check_matplotlib_support
from skpou.inspection._sections import one_axes

#: Natural units of log density below the best that are shown: what is worse is worse.
SHOWN = 12.0
#: Sizes of the dots of the smallest and of the largest sample, in points.
SMALL, LARGE = 4.0, 9.0
#: Inches: width, height of the frame and of a member; points of a number over its dot; margin that
#: the largest dots and their numbers need, as a share of the axis.
WIDTH, FRAME, LINE, OVER, MARGIN = 7.0, 1.2, 0.45, 6, 0.08
#: Place of the weights: right of the axes, in widths of these, and their head above the first row.
BESIDE, ABOVE = 1.02, -0.7


class LeaderboardDisplay:
    """Log density of every member of a :class:`~skpou.AutoRegressor` between the rows.

    A row a member, the best above. A dot is a fit, larger ones are of more rows, those of all rows
    by what the member itself expects, others at left-out rows; a line leads from small samples to
    large ones. The weight in the stack stands at the right; members without one were less likely,
    dropped on the way, or not needed. Use :meth:`from_estimator` to create one.

    Parameters
    ----------
    leaderboard : dict of ndarray
        ``leaderboard_`` of the estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the figure.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : list of matplotlib Line2D
        One a member, from its smallest sample to its largest.
    texts_ : list of matplotlib Text
        Weights of the members.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import AutoRegressor
    >>> from skpou.inspection import LeaderboardDisplay
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> model = AutoRegressor(["SparseGridRegressor", "POURegressor"]).fit(X, np.exp(X[:, 0]))
    >>> display = LeaderboardDisplay.from_estimator(model)
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['SparseGridRegressor', 'POURegressor']
    """

    def __init__(self, leaderboard) -> None:
        self.leaderboard = leaderboard

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs) -> LeaderboardDisplay:
        """Draw the race of a fitted estimator.

        Parameters
        ----------
        estimator : AutoRegressor
            Fitted.
        ax : matplotlib Axes, default=None
            None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        LeaderboardDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        if not hasattr(estimator, "leaderboard_"):
            raise TypeError(f"{type(estimator).__name__} has no leaderboard_.")
        return cls(estimator.leaderboard_).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs) -> LeaderboardDisplay:
        """Draw a row for each member.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
        **kwargs : dict
            Passed on to ``Axes.plot``.

        Returns
        -------
        LeaderboardDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        board = self.leaderboard
        names, weights = self._standing()
        ax = one_axes(ax, figsize=(WIDTH, FRAME + LINE * len(names)))
        self.ax_, self.figure_, self.lines_, self.texts_ = ax, ax.figure, [], []
        finite = board["log_density"][np.isfinite(board["log_density"])]
        least = finite.max() - SHOWN if len(finite) else 0.0
        most_rows = board["rows"].max()
        for place, name in enumerate(names):
            mine = (board["member"] == name) & np.isfinite(board["log_density"])
            shown = np.maximum(board["log_density"][mine], least)
            style = {"color": "C0" if weights[name] else "0.6", **kwargs}
            self.lines_ += ax.plot(shown, np.full(len(shown), place), "-", **style)
            for value, rows in zip(shown, board["rows"][mine]):
                size = SMALL + (LARGE - SMALL) * rows / most_rows
                outside = "<" if value == least and len(finite) > 1 else "o"
                ax.plot(value, place, outside, markersize=size, **style)
                ax.annotate(
                    f"{rows}", (value, place), (0, OVER), textcoords="offset points",
                    ha="center", fontsize="x-small", color="0.4",
                )  # fmt: skip
            text = f"{weights[name]:.2f}" if weights[name] else "–"
            self.texts_.append(
                ax.text(BESIDE, place, text, transform=ax.get_yaxis_transform(), va="center")
            )
        ax.set(
            yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, ABOVE),
            xlabel="log density between the rows (dots: points fitted)",
        )  # fmt: skip
        ax.margins(x=MARGIN)
        ax.text(BESIDE, ABOVE, "weight", transform=ax.get_yaxis_transform(), va="bottom")
        return self

    def _standing(self):
        """Names of all members, the best first, and the weight of each."""
        board = self.leaderboard
        weights = {
            str(name): float(board["weight"][board["member"] == name].sum())
            for name in board["member"]
        }
        last = {
            name: (board["rows"][i], board["log_density"][i])
            for i, name in enumerate(board["member"])
            if np.isfinite(board["log_density"][i])
        }
        none = (0, -np.inf)
        order = sorted(
            weights, key=lambda name: (weights[name], last.get(name, none)), reverse=True
        )
        return order, weights
