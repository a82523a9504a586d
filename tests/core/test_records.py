"""Tests of `skpou.core.records`."""

import math

import pytest

from skpou.core import BestSoFar


def test_best_so_far_keeps_the_first_of_the_lowest_scores():
    best = BestSoFar()
    assert best.is_empty and best.score == math.inf
    shown = [("a", 3.0), ("b", 1.0), ("c", 1.0), ("d", 2.0)]
    assert [best.show(*one) for one in shown] == [True, True, False, False]
    assert (best.best, best.score) == ("b", 1.0)


@pytest.mark.parametrize("score", [math.inf, math.nan])
def test_best_so_far_keeps_something_even_where_no_score_is_finite(score):
    best = BestSoFar()
    assert best.show("first", score) and not best.show("second", score)
    assert best.best == "first"


def test_best_so_far_refuses_to_invent_something():
    with pytest.raises(LookupError, match="nothing"):
        _ = BestSoFar().best
