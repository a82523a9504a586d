"""Candidates of the automatic search: their sums of stages and their scores."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from skpou.core.models.linear_model import Stage
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.search.candidates import Candidate
from tests.examples import tensor


def candidate(leave_one_out=0.5, calibrated=2.0, stages=(), **options):
    return Candidate("polynomials", stages, leave_one_out, calibrated, 3.0, 0.0, **options)


def test_mean_is_the_sum_of_the_stages():
    rng = np.random.default_rng(0)
    X, expected, stages = tensor(rng.random((20, 2))), 0, []
    for degree in (1, 3, 2):
        basis = TotalDegreePolynomials(2, degree)
        coef = tensor(rng.standard_normal((basis.n_columns, 2)))
        stages.append(Stage(basis, coef, torch.eye(basis.n_columns).double()))
        expected = expected + basis.matrix(X) @ coef
        found = candidate(stages=tuple(stages)).mean(X)
        torch.testing.assert_close(found, expected)


def test_left_out_rows_alone_judge_where_noise_is_left():
    assert candidate().score(True) == 0.5
    assert candidate(calibrated=1e9).score(True) == 0.5
    assert candidate().score(False) == pytest.approx(math.sqrt(0.5 * 2.0))


@pytest.mark.parametrize("white", [True, False])
def test_scores_have_the_units_of_the_errors_and_of_the_handicap(white):
    one = candidate()
    assert dataclasses.replace(one, handicap=1.4).score(white) == 1.4 * one.score(white)
    other = candidate(0.5e-6, 2.0e-6)
    assert other.score(white) == pytest.approx(1e-6 * one.score(white), rel=1e-12)
    larger = candidate(0.6, 2.1)
    assert larger.score(white) > one.score(white)


def test_candidates_without_calibrated_error_are_still_ranked():
    errors = (1e-16, 1e-14, 1e-3)
    scores = [candidate(error, 0.0).score(False) for error in errors]
    assert all(a < b for a, b in itertools.pairwise(scores))
    assert candidate(0.0, 0.0).score(False) == candidate(0.0, 0.0).score(True) == 0


def test_lengths_that_rows_have_chosen_are_spent():
    def spent(dof, n_chosen):
        return dataclasses.replace(candidate(n_chosen=n_chosen), dof=dof).spent(20)

    assert spent(6.0, 0) == spent(20.0, 0) == 1
    assert spent(6.0, 5) == pytest.approx(math.sqrt(14 / 9))
    # Not without end: forms that follow all rows may be exact.
    assert spent(14.5, 5) == spent(20.0, 5) == pytest.approx(2)
