"""Columns of an encoder's parameters beside those of the grid."""

import copy
import math

import numpy as np
import pytest
import torch

from skpou import NeuralSparseGridRegressor
from skpou.core.models import leave_out
from skpou.neural_sparse_grids.model import NeuralGrid
from skpou.neural_sparse_grids.projected import linearised
from skpou.neural_sparse_grids.projected.linearised import columns_of_parameters
from tests.neural_sparse_grids.test_model import SLOPE, regression


def test_columns_are_derivatives_in_units_of_the_coefficients():
    model, rows = regression(n=20)
    columns = columns_of_parameters(model.encoder, model.head, rows.X)
    theta = model.encoder.network_body.theta.detach()
    decay = model.head.posterior.decay ** (0.5 * model.head.costs(rows.X))
    coef = model.head.coef * decay[:, None]
    ratio = float(theta.square().mean().sqrt() / coef.square().mean().sqrt()) / math.sqrt(2)
    assert columns.shape == (20, 2 * len(theta))
    direction = torch.tensor(np.random.default_rng(0).standard_normal(len(theta)))
    moved, step = [], 1e-6
    for sign in (1, -1):
        encoder = copy.deepcopy(model.encoder)
        encoder.network_body.theta.data += sign * step * direction
        moved.append(NeuralGrid(encoder, model.head, SLOPE).mean(rows.X))
    difference = (moved[0] - moved[1]) / (2 * step)
    along = columns.reshape(20, 2, len(theta)) @ direction
    torch.testing.assert_close(along, ratio * difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("why", ["rows", "numbers", "mean"])
def test_there_are_none_where_nothing_is_told_or_too_much(why, monkeypatch):
    model, rows = regression(n=20)
    if why == "mean":
        model = model.flattened(torch.tensor([True, True]))
    else:
        most = {"rows": "MOST_TOGETHER", "numbers": "MOST_NUMBERS"}[why]
        monkeypatch.setattr(linearised, most, 19)
    assert columns_of_parameters(model.encoder, model.head, rows.X) is None


def test_left_out_errors_know_what_the_encoder_owes_to_the_rows(monkeypatch):
    rng = np.random.default_rng(0)
    lines = np.repeat([-1.0, -0.3, 0.1, 0.6, 1.0], 12)
    X = np.column_stack([lines, np.tile(np.linspace(-1, 1, 12), 5)])
    y = np.sin(2 * X[:, 0] + X[:, 1]) + X[:, 0] * X[:, 1]
    model = NeuralSparseGridRegressor(level=5).fit(X, y)  # its form alone
    query = rng.uniform(-1, 1, (300, 2))
    truth = np.sin(2 * query[:, 0] + query[:, 1]) + query[:, 0] * query[:, 1]
    mean, std = model.predict(query, return_std=True)
    assert np.sqrt(np.mean(std**2)) > np.sqrt(np.mean((mean - truth) ** 2)) / 3
    prepared = model._prepare(X, y, None, box=model._box())
    grid, sizes = model._model(prepared.rows.X), []
    for known in (True, False):
        if not known:
            monkeypatch.setattr(linearised, "MOST_NUMBERS", 0)
        (found,) = leave_out(grid.residual_makers(prepared.rows), prepared.rows)
        sizes.append(np.sqrt(np.mean(found.error**2)))
    assert sizes[0] > sizes[1]


def test_few_rows_are_met_by_a_process_by_default_alone():
    rng = np.random.default_rng(1)
    X, query = rng.uniform(-1, 1, (50, 2)), rng.uniform(-1, 1, (300, 2))

    def truth(X):
        return np.exp(X[:, 0]) * np.cos(2 * X[:, 1])

    models = [NeuralSparseGridRegressor(level=level).fit(X, truth(X)) for level in (6, 5)]
    errors = [np.std(model.predict(query) - truth(query)) for model in models]
    assert errors[0] < 1e-3 < errors[1]
