"""Who is worth a trial, who may be named, and how weights reach those who take none."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skpou
from skpou.auto.members import (
    CLASSES,
    check_members,
    default_members,
    fit_member,
    named_member,
    names_of,
    outliers_of,
)
from tests.auto.members import Constant, Line, Unweighted

OPTIONS = {"random_state": 3, "dtype": "float32"}


def short(n, d):
    return [type(m).__name__.removesuffix("Regressor") for m in default_members(n, d, OPTIONS)]


def test_rules():
    assert short(10, 1) == ["HierarchicalPOU", "MultiStage"]
    assert short(30, 1) == ["HierarchicalPOU", "MultiStage", "AdditivePOU"]
    assert short(30, 4) == ["HierarchicalPOU", "MultiStage", "SparseGrid"]
    assert short(500, 4) == ["HierarchicalPOU", "MultiStage", "AdditivePOU", "SparseGrid"]
    assert "NeuralSparseGrid" in short(500, 6)
    assert short(200, 17) == ["HierarchicalPOU", "MultiStage", "AdditivePOU", "SparseGrid"]
    assert "HierarchicalPOU" not in short(500, 41)


def test_options_reach_the_members():
    for member in [*default_members(500, 6, OPTIONS), named_member("LSGDRegressor", OPTIONS)]:
        assert member.random_state == 3
        assert member.dtype == "float32"


def test_every_other_regressor_may_be_named():
    names = {name for name in skpou.__all__ if name.endswith("Regressor")}
    # Those that are made of others need these to be given.
    names -= {"AutoRegressor", "TransformedRegressor"}
    assert set(CLASSES) == names
    with pytest.raises(ValueError, match=r"members must be names of .*POURegressor.* Got 'Ridge'"):
        named_member("Ridge", {})


def test_names_are_numbered_where_they_repeat():
    members = [Constant(), BayesianRidge(), Constant()]
    assert names_of(members) == ["Constant 1", "BayesianRidge", "Constant 2"]
    pipeline = make_pipeline(StandardScaler(), BayesianRidge())
    assert names_of([pipeline]) == ["Pipeline to BayesianRidge"]


def test_members_need_error_bars():
    good = [GaussianProcessRegressor(), make_pipeline(StandardScaler(), BayesianRidge()), "POU"]
    check_members(good)
    with pytest.raises(TypeError, match=r"RandomForestRegressor has no predict\(X, return_std"):
        check_members([*good, RandomForestRegressor()])
    for bad in (GaussianProcessRegressor, StandardScaler(), 3, None):
        with pytest.raises(TypeError, match=r"members must be regressors or names of such. Got"):
            check_members([bad])
    with pytest.raises(ValueError, match="members must hold at least one"):
        check_members([])


def test_weights():
    X, y = np.arange(4.0)[:, None], np.arange(4.0)
    assert fit_member(Constant(), X, y, np.ones(4)).weight_ is None
    weight = np.array([1.0, 2.0, 0.5, 1.0])
    np.testing.assert_array_equal(fit_member(Constant(), X, y, weight).weight_, weight)
    assert fit_member(Unweighted(), X, y, np.array([1.0, 3.0, 1.0, 1.0])).n_rows_ == 6
    with pytest.raises(TypeError, match="Unweighted takes no sample_weight"):
        fit_member(Unweighted(), X, y, weight)


def test_outliers_are_told_of_the_rows_that_were_handed_in():
    weight = np.array([1.0, 3.0, 2.0])
    of_rows, of_repeated = Constant(), Unweighted()
    of_rows.outliers_ = np.array([1])
    of_repeated.outliers_ = np.array([1, 2, 3])
    for member in (of_rows, of_repeated):
        assert outliers_of(member, weight).tolist() == [False, True, False]
    for others in (np.array([7]), np.array([0.5]), np.array([[0]]), "none"):
        of_rows.outliers_ = others
        assert not outliers_of(of_rows, weight).any()
    assert not outliers_of(Line(), weight).any()
