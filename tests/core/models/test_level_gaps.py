"""What errors in gaps of several levels ask of a process' variance."""

from dataclasses import replace

import numpy as np
import pytest

from skpou.core.models.level_gaps import asked_by_gaps

X = np.stack(np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 1, 12)), -1).reshape(-1, 2)


def errors(*sizes):
    """Errors of such sizes, in units of what is claimed, without one, two and three levels."""

    def of(sets):
        counts = [len(np.unique(X[rows, 0])) for rows in sets.sets]
        error = np.repeat([sizes[count - 1] for count in counts], [len(s) for s in sets.sets])
        own = error[:, None]
        return replace(sets, error=3 * own, variance=np.full_like(own, 9.0), noise=0 * own)

    return of


@pytest.mark.parametrize(
    ("sizes", "asked"), [((0.5, 0.5, 2), 1), ((2, 2, 2), 4), ((0.1, 3, 1), 9), ((2, 1, 0.5), 16)]
)
def test_two_levels_that_err_more_and_a_trend_count(sizes, asked):
    assert asked_by_gaps(X, [0], errors(*sizes)) == pytest.approx(asked)


def test_only_few_inner_levels_are_left_out():
    def of(sets):
        for rows in sets.sets:
            assert set(np.unique(X[rows, 0])) < set(X[:, 0]) - {0.0, 1.0}
        return errors(1, 1, 1)(sets)

    assert asked_by_gaps(X, [0], of) == 1
    assert asked_by_gaps(X, [], of) == asked_by_gaps(X, [1], of) == 1
