"""Docstrings that share their sections."""

import inspect

import pytest

from skpou import LSGDRegressor, TransformedRegressor
from skpou.base import sections_of


def other(x):
    """Do one thing.

    At length.

    Parameters
    ----------
    x : float
        A number.
    """


def test_sections_follow_the_own_summary():
    @sections_of(other)
    def method(x):
        """Do another.

        In short.
        """

    expected = "Do another.\n\nIn short.\n\nParameters\n----------\nx : float\n    A number."
    assert inspect.getdoc(method) == expected


def test_without_docstrings_there_are_none(monkeypatch):
    def method(x):
        pass

    assert sections_of(other)(method).__doc__ is None


@pytest.mark.parametrize(
    "name",
    [
        "predict_quantile",
        "predict_interval",
        "conformalize",
        "log_density",
        "sample_y",
        "predict_gradient",
    ],
)
def test_transformed_predictions_take_and_return_what_others_do(name):
    own, others = (
        inspect.getdoc(getattr(cls, name)) for cls in (TransformedRegressor, LSGDRegressor)
    )
    cut = "Parameters\n-"
    assert own[own.index(cut) :] == others[others.index(cut) :]
