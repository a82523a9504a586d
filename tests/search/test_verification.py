"""Units stand a new search without some of the rows, or are not taken."""

import dataclasses

import numpy as np
import pytest
import torch

from skpou.core import TotalDegreePolynomials
from skpou.core.models import Stage
from skpou.search.automatic import AutomaticOptions, AutomaticSearch
from skpou.search.candidates import Candidate
from skpou.search.scores import RidgePath
from skpou.search.units import UnitSearch
from skpou.search.verification import N_PARTS, Verification
from tests.examples import rows_of


def line_of(rows):
    basis = TotalDegreePolynomials(rows.n_features, 1)
    path = RidgePath(basis.matrix(rows.X), rows)
    stage = Stage(basis, path.coef(1e-12), path.factor(1e-12))
    return Candidate("polynomials", (stage,), path.leave_one_out(1e-12), 1.0, path.dof(1e-12), 0.0)


def units_of(rows, most=2):
    return UnitSearch(rows, rows.X, np.random.default_rng(4), most=most).run()


@pytest.mark.parametrize(("step", "confirmed"), [(True, True), (False, False)])
def test_units_are_confirmed_where_there_is_something_for_them(step, confirmed):
    rng = np.random.default_rng(2)
    X = rng.random((80, 4))
    y = np.tanh(8 * (X[:, 0] + X[:, 1] - 1)) if step else 0.3 * X[:, 0]
    rows = rows_of(X, y + (0.1 if step else 1.0) * rng.standard_normal(80))
    units, line = units_of(rows), line_of(rows)
    verification = Verification(rows, units_of, np.random.default_rng(0))
    assert verification.is_due(units) and not verification.is_due(line)
    assert verification.confirms(units, line) == confirmed


def test_errors_of_columns_are_those_of_new_fits_without_the_parts():
    rng = np.random.default_rng(2)
    X = rng.random((40, 2))
    rows = rows_of(X, X[:, 0] + 0.1 * rng.standard_normal(40))
    verification = Verification(rows, units_of, np.random.default_rng(0))
    found = verification._of_columns(line_of(rows))
    assert len(verification.parts) == N_PARTS
    for part in verification.parts:
        kept = np.setdiff1d(np.arange(40), part)
        model = line_of(rows.subset(torch.as_tensor(kept)))
        test = rows.subset(torch.as_tensor(part))
        square = (test.y - model.mean(test.X)).square()[:, 0]
        np.testing.assert_allclose(found[part], square, rtol=1e-6, atol=1e-12)


def test_exact_units_and_many_rows_are_not_searched_for_again():
    rng = np.random.default_rng(2)
    rows = rows_of(rng.random((40, 2)), rng.standard_normal(40))
    verification = Verification(rows, units_of, np.random.default_rng(0))
    units = units_of(rows, 1)
    assert not verification.is_due(dataclasses.replace(units, leave_one_out=1e-6))
    many = rows_of(rng.random((700, 2)), rng.standard_normal(700))
    assert not Verification(many, units_of, np.random.default_rng(0)).is_due(units)


def test_the_search_leaves_units_that_only_remember_their_rows():
    # Rank of 30 rows by five columns of noise: a unit that explains it is chance.
    rng = np.random.default_rng(11)
    X = rng.random((30, 5))
    y = X[:, 0] + rng.standard_normal(30)
    rows = rows_of(X, (y - y.mean()) / y.std())
    result = AutomaticSearch(rows, AutomaticOptions(), np.random.default_rng(0)).run()
    assert all(stage.basis.kind != "units" for stage in result.state.stages)
