"""Training of neural sparse grids: solver, rows held out, starts, and what the result holds."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.core.models import leave_out
from skpou.core.models.linear_model import mean_slope
from skpou.core.records import TrainingInterrupted
from skpou.core.rows import Rows
from skpou.neural_sparse_grids import fit as neural_sparse_grids
from skpou.neural_sparse_grids.descent.objectives import (
    CLASS_ALPHA,
    REGRESSION_ALPHA,
    DescentOptions,
)
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderForm
from skpou.neural_sparse_grids.fit import (
    NeuralGridOptions,
    NeuralGridTraining,
    fit_head,
    fit_neural_sparse_grid,
    pick_coef_solver,
    with_coef,
    with_slope,
)
from skpou.neural_sparse_grids.left_out import doubt
from skpou.neural_sparse_grids.model import (
    NeuralGrid,
    active_fraction,
    embedded,
    share_on_faces,
)
from skpou.sparse_grids.basis.grid import BOUNDARIES, SparseGrid, count_points
from skpou.sparse_grids.solution import GridOptions, fit_on_grid
from tests.neural_sparse_grids.projected.test_squares import make_rows

DOUBLE = torch.float64
SOLVERS = ["gradient", "direct", "iterative", "varpro"]


def make_encoder(rows, kind="mlp", sizes=(4,), components=2, dtype=DOUBLE):
    d = rows.n_features
    form = EncoderForm(kind, d, components, sizes)
    box = torch.zeros(d, dtype=dtype), torch.ones(d, dtype=dtype)
    return Encoder(form, torch.arange(d), *box).to(dtype)


def make_options(rows, solver="varpro", level=3, method=None, kind="mlp", **others):
    names = {"max_iter", "alpha", "optimizer", "learning_rate", "batch_size", "tol"}
    given = {name: others.pop(name) for name in names & set(others)}
    descent = DescentOptions(solver, **{"max_iter": 12, "batch_size": 32} | given)
    form = EncoderForm(kind, rows.n_features, 2, (4,))
    return NeuralGridOptions(form, level, method=method, descent=descent, **others)


def regression(n=80, n_outputs=1, noise=0.05):
    rows = make_rows(n, "squares")
    rng = np.random.default_rng(1)
    z = rows.X[:, :1] + rows.X[:, 1:2]
    y = torch.cat([torch.sin(3 * z + k) for k in range(n_outputs)], 1)
    y = y + noise * torch.tensor(rng.standard_normal(y.shape))
    return Rows(rows.X, y, rows.weight, torch.zeros_like(y))


def classes(n=80, K=2, rare=None):
    """Shares of classes along a line; few rows of the last class where `rare` are asked for."""
    rows = make_rows(n, "squares")
    z = rows.X[:, 0] + rows.X[:, 1]
    edges = torch.linspace(0.6, 1.4, K - 1).double()
    label = torch.bucketize(z, edges)
    if rare is not None:
        label = (z >= z.sort().values[-rare]).long()
    y = torch.nn.functional.one_hot(label, K).double()
    return Rows(rows.X, y, rows.weight, 0 * y)


def train(rows, options, seed=0, dtype=DOUBLE, report=None):
    rows = rows.to(dtype)
    encoder = make_encoder(rows, options.form.kind, dtype=dtype)
    return fit_neural_sparse_grid(rows, encoder, options, np.random.default_rng(seed), report)


# The solver


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("sizes", [(3,), (4, 6)])
def test_varpro_where_its_matrices_are_small(boundary, sizes, monkeypatch):
    rows = make_rows(30, "squares")
    k = make_encoder(rows, sizes=sizes).body.theta.numel()
    G = SparseGrid(2, 4, boundary).n_columns
    assert G == count_points(2, 4, boundary)[0]
    options = make_options(rows, "auto", level=4, boundary=boundary)
    options = replace(options, form=replace(options.form, hidden_layer_sizes=sizes))
    for name, most in (
        ("VARPRO_COLUMNS", k + G),
        ("VARPRO_WORK", 30 * (2 * k**2 + (k + G) ** 2)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(neural_sparse_grids, name, most)
            assert pick_coef_solver(options, 30, 3, 2) == "varpro"
            patch.setattr(neural_sparse_grids, name, most - 1)
            assert pick_coef_solver(options, 30, 3, 2) == "gradient"


@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_as_asked_for(solver):
    options = make_options(make_rows(9, "squares"), solver)
    assert pick_coef_solver(options, 10**9, 10**4, 100) == solver
    assert pick_coef_solver(replace(options, method="density"), 9, 3, 2) == solver


def test_gradient_where_varpro_cannot_be():
    options = make_options(make_rows(9, "squares"), "auto")
    assert pick_coef_solver(options, 9, 3, 1) == "varpro"
    assert pick_coef_solver(replace(options, method="density"), 9, 3, 2) == "gradient"
    other = replace(options, form=replace(options.form, kind="cnn"))
    assert pick_coef_solver(other, 9, 3, 1) == "gradient"
    asked = replace(other, descent=DescentOptions("varpro"))
    with pytest.raises(ValueError, match=r"'varpro' needs encoder='mlp'.*encoder='cnn'"):
        pick_coef_solver(asked, 9, 3, 1)


# Rows held out


@pytest.mark.parametrize("share", [None, 0.001, 0.1, 0.25, 0.6, 0.999])
def test_rows_are_either_trained_with_or_held_out(share):
    rows = make_rows(40, "squares")
    options = make_options(rows, validation_fraction=share)
    training = NeuralGridTraining(rows, make_encoder(rows), options, np.random.default_rng(0))
    part, held_out = training._split()
    n = 0 if share is None else round(share * 40)
    if n in (0, 40):
        assert held_out is None
        assert part is rows
        return
    assert (part.n_rows, held_out.n_rows) == (40 - n, n)
    for name in ("X", "y", "weight"):
        both = torch.cat([getattr(part, name), getattr(held_out, name)])
        whole = getattr(rows, name)
        assert torch.equal(both.sort(0).values, whole.sort(0).values)
    # The order of the rows stays.
    position = [int((rows.X == x).all(1).nonzero()) for x in part.X]
    assert position == sorted(position)


@pytest.mark.parametrize("solver", ["gradient", "varpro"])
@pytest.mark.parametrize("rare", [None, 3])
def test_probabilities_are_those_that_were_judged(solver, rare):
    rows = classes(60, rare=rare)
    options = make_options(rows, solver, method="softmax", validation_fraction=0.3)
    rng = np.random.default_rng(3)
    training = NeuralGridTraining(rows, make_encoder(rows), options, rng)
    training.run()
    result = training.result()
    order = np.random.default_rng(3).permutation(60)[:18]
    held_out = rows.subset(torch.tensor(np.sort(order)))
    terms = (held_out.y * result.state.log_proba(held_out.X)).sum(1)
    found = -float(held_out.weight @ terms) / held_out.total_weight
    assert found == pytest.approx(training.trained.score, rel=1e-6)


@pytest.mark.parametrize("K", [2, 3])
def test_regression_on_indicators_is_that_which_was_judged(K):
    rows = classes(60, K)
    options = make_options(rows, "gradient", method="one_hot", validation_fraction=0.3)
    rng = np.random.default_rng(3)
    training = NeuralGridTraining(rows, make_encoder(rows), options, rng)
    training.run()
    trained, result = training.trained, training.result()
    order = np.random.default_rng(3).permutation(60)
    part, held_out = (rows.subset(torch.tensor(np.sort(o))) for o in (order[18:], order[:18]))
    share = part.weight @ part.y / part.total_weight
    spread = (share * (1 - share)).sqrt()
    first = 1 if K == 2 else 0
    u = result.state.encoder(held_out.X)
    values = result.state.head.functions(u)
    residual = ((held_out.y - values) / spread)[:, first:]
    found = float(held_out.weight @ residual.square().mean(1)) / held_out.total_weight
    assert found == pytest.approx(trained.score, rel=1e-6)


# The result


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("method", [None, "softmax", "one_hot", "density"])
def test_what_was_chosen(solver, method):
    rows = regression() if method is None else classes()
    result = train(rows, make_options(rows, solver, method=method, max_iter=6))
    model, chosen = result.state, result.chosen
    grid = model.head.grid
    u = model.encoder(rows.X)
    assert chosen["level"] == grid.level
    assert chosen["coef_solver"] == solver
    assert chosen["init"] == ("scale" if method else "whiten")
    assert chosen["active_fraction"] == pytest.approx(active_fraction(grid, u))
    assert chosen["on_faces"] == pytest.approx(share_on_faces(u, 0.0))
    assert result.n_iter >= 1
    if method is not None:
        terms = rows.weight @ (rows.y * model.log_proba(rows.X)).sum(1)
        assert result.score == pytest.approx(-float(terms) / rows.total_weight)
        assert torch.equal(model.slope, torch.ones(2, dtype=DOUBLE))
    else:
        torch.testing.assert_close(model.slope, mean_slope(model, rows.X, rows.weight))


@pytest.mark.parametrize("method", ["softmax", "one_hot"])
@pytest.mark.parametrize("alpha", [None, 0.3, 0.0])
def test_ridge_that_was_used_is_told(method, alpha):
    rows = classes()
    result = train(rows, make_options(rows, "gradient", method=method, alpha=alpha, max_iter=2))
    default = CLASS_ALPHA if method == "softmax" else REGRESSION_ALPHA
    assert result.chosen["alpha"] == (default if alpha is None else alpha)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("method", [None, "softmax"])
def test_no_ridge_at_all(solver, method, monkeypatch):
    """More points than rows: the Gram matrix is singular."""
    calls, cholesky = itertools.count(), torch.linalg.cholesky_ex

    def counted(matrix):
        assert next(calls) < 500, "looks for a ridge without end"
        return cholesky(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", counted)
    rows = regression(40) if method is None else classes(40)
    options = make_options(rows, solver, level=5, method=method, alpha=0.0, max_iter=4)
    result = train(rows, options)
    found = result.state.mean(rows.X) if method is None else result.state.log_proba(rows.X)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["same targets", "one row", "no columns"])
def test_nothing_to_be_learned(solver, kind):
    rows = regression(30)
    if kind == "same targets":
        rows = Rows(rows.X, 0 * rows.y + 0.7, rows.weight, rows.within)
    elif kind == "one row":
        rows = rows.subset(torch.tensor([4]))
    else:
        rows = Rows(rows.X[:1, :0], rows.y[:1], 1000 * rows.weight[:1], rows.within[:1] + 0.1)
    result = train(rows, make_options(rows, solver))
    model = result.state
    assert (result.code, result.n_iter) == ("converged", 1)
    torch.testing.assert_close(model.mean(rows.X), rows.y, rtol=0, atol=1e-3)
    assert bool((model.head.noise > 0).all())
    assert bool(torch.isfinite(model.slope).all())
    assert bool(torch.isfinite(model.components(rows.X).epistemic).all())


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_class_only(solver):
    rows = classes(30)
    y = torch.zeros_like(rows.y)
    y[:, 0] = 1
    rows = Rows(rows.X, y, rows.weight, 0 * y)
    result = train(rows, make_options(rows, solver, method="softmax"))
    assert bool((result.state.log_proba(rows.X)[:, 0] > math.log(0.9)).all())


@pytest.mark.parametrize("solver", SOLVERS[:3])
def test_single_precision_of_the_rows(solver):
    rows = regression()
    result = train(rows, make_options(rows, solver, max_iter=3), dtype=torch.float32)
    model = result.state
    assert model.encoder.body.theta.dtype == torch.float32
    assert {model.slope.dtype, model.head.coef.dtype, model.head.noise.dtype} == {DOUBLE}


@pytest.mark.parametrize("solver", SOLVERS)
def test_other_random_numbers_are_left_alone(solver):
    rows = regression(30)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = (train(rows, make_options(rows, solver, max_iter=3)) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.state.head.coef, two.state.head.coef)
    assert one.curve == two.curve


@pytest.mark.parametrize("solver", SOLVERS)
def test_embedding_pushed_to_the_corners(solver):
    rows = regression()
    shares = [
        train(rows, make_options(rows, solver, max_iter=1, gain=gain)).chosen["on_faces"]
        for gain in (1.0, 10.0)
    ]
    assert shares[0] + 0.3 < shares[1]


# Interrupts and failures


def stop(*args):
    raise KeyboardInterrupt


def test_interrupt_before_the_first_state(monkeypatch):
    rows = regression()
    monkeypatch.setattr(neural_sparse_grids, "start_encoder", stop)
    with pytest.raises(TrainingInterrupted) as caught:
        train(rows, make_options(rows))
    assert caught.value.result is None


@pytest.mark.parametrize("solver", SOLVERS)
def test_interrupt_leaves_the_best_so_far(solver):
    rows = regression()
    with pytest.raises(TrainingInterrupted) as caught:
        train(rows, make_options(rows, solver), report=stop)
    result = caught.value.result
    assert result.code == "interrupted"
    assert bool(torch.isfinite(result.state.mean(rows.X)).all())


def test_state_that_never_was_finite():
    rows = regression()
    training = NeuralGridTraining(
        rows, make_encoder(rows), make_options(rows), np.random.default_rng(0)
    )
    with pytest.raises(FloatingPointError, match="not finite"):
        training.result()


# From cautious and from bold ridges


class Climbs(NeuralGridTraining):
    """Climbs of given scores."""

    scores = (1.0, 2.0)

    def _climb(self, part, held_out, trained, *, cautious):
        self.seen = [*getattr(self, "seen", []), cautious]
        theta = self.encoder.body.theta
        self.starts = [*getattr(self, "starts", []), theta.clone()]
        theta.fill_(float(len(self.seen)))
        trained.keep(self.encoder, 3, self.scores[len(self.seen) - 1])


@pytest.mark.parametrize("scores", [(1.0, 2.0), (2.0, 1.0), (math.inf, 1.0), (1.0, math.inf)])
def test_better_of_two_climbs_from_one_start(scores):
    rows = regression()
    training = Climbs(rows, make_encoder(rows), make_options(rows), np.random.default_rng(0))
    training.scores = scores
    training.run()
    assert training.seen == [False, True]
    assert torch.equal(*training.starts)
    assert training.trained.score == min(scores)
    assert bool((training.trained.state["body.theta"] == 1 + np.argmin(scores)).all())


@pytest.mark.parametrize("kind", ["many rows", "softmax", "isomap"])
def test_one_climb_is_enough(kind, monkeypatch):
    rows = classes() if kind == "softmax" else regression()
    if kind == "many rows":
        monkeypatch.setattr(neural_sparse_grids, "CAUTIOUS_ROWS", 79)
    options = make_options(rows, method="softmax" if kind == "softmax" else None)
    training = Climbs(rows, make_encoder(rows), options, np.random.default_rng(0))
    if kind == "isomap":
        monkeypatch.setattr(neural_sparse_grids, "start_encoder", lambda *args: "isomap")
    training.run()
    assert training.seen == [False]


class Told(Climbs):
    """Climbs of given ends: score, mean square, parameters that are determined, code."""

    def _climb(self, part, held_out, trained, *, cautious):
        self.yielding = [*getattr(self, "yielding", []), self.yields]
        super()._climb(part, held_out, trained, cautious=cautious)
        trained.score, left, trained.determined, trained.code = self.ends[len(self.seen) - 1]
        trained.curve.append(left)


def told(*ends):
    rows = regression()
    training = Told(rows, make_encoder(rows), make_options(rows), np.random.default_rng(0))
    training.ends, training.scores = ends, [1.0] * len(ends)
    training.run()
    return training


def test_a_bold_climb_that_leaves_nothing_by_few_parameters_is_enough():
    assert told((1.0, 1e-7, 3.0, "converged")).seen == [False]
    cautious = (2.0, 1e-3, 3.0, "converged")
    assert told((1.0, 1e-5, 3.0, "converged"), cautious).seen == [False, True]
    assert told((1.0, 1e-7, 30.0, "converged"), cautious).seen == [False, True]


def test_a_bold_climb_that_memorises_goes_on_if_a_cautious_one_is_no_better():
    memorised, better = (5.0, 1e-3, 70.0, "memorised"), (1.0, 0.1, 3.0, "converged")
    first = told(memorised, better)
    assert (first.seen, first.yielding) == ([False, True], [True, False])
    assert first.trained.score == 1.0
    for score, unexplained, kept in ((6.0, 0.1, 4.0), (4.5, 0.95, 4.0), (1.0, 0.95, 1.0)):
        other = (score, unexplained, 3.0, "converged")
        again = told(memorised, other, (4.0, 1e-3, 75.0, "converged"))
        assert (again.seen, again.yielding) == ([False, True, False], [True, False, False])
        assert again.trained.score == kept


# Coefficients on the grid


def test_noise_after_what_the_encoder_has_taken():
    rows = regression(n_outputs=2)
    options = make_options(rows, alpha=0.03)
    latent = embedded(make_encoder(rows).requires_grad_(False), rows)
    grid = SparseGrid(2, 3)
    plain = fit_on_grid(
        latent, grid, None, GridOptions(3, alpha=0.03), np.random.default_rng(0)
    ).state
    n = rows.total_weight
    for determined, factor in ((0.0, 1.0), (10.0, n / (n - 10)), (0.79 * n, 1 / 0.21), (n, 5.0)):
        found = fit_head(latent, grid, options, np.random.default_rng(0), determined).state
        torch.testing.assert_close(found.noise, plain.noise * factor)
        assert torch.equal(found.coef, plain.coef)


def test_noise_is_no_less_than_left_out_errors_tell():
    rows = regression(n=40, n_outputs=2)
    grid, options = SparseGrid(2, 3), make_options(rows, alpha=0.03)
    encoder = make_encoder(rows).requires_grad_(False)
    head = fit_head(embedded(encoder, rows), grid, options, np.random.default_rng(0)).state
    model = NeuralGrid(encoder, head, rows.X.new_ones(2))
    errors = [one.error for one in leave_out(model.residual_makers(rows), rows)]
    expected = torch.tensor([1e-9, 5.0]).double()
    expected[0] = float(np.mean(errors[0] ** 2))
    head.noise = torch.tensor([1e-9, 5.0]).double()
    doubt(model, rows)
    torch.testing.assert_close(head.noise, expected)


def test_noise_of_other_coefficients():
    rows = regression(n_outputs=2)
    rows.within[:, 1] = 0.3
    latent = embedded(make_encoder(rows).requires_grad_(False), rows)
    grid, options = SparseGrid(2, 3), make_options(rows, alpha=0.03)
    model = fit_head(latent, grid, options, np.random.default_rng(0)).state
    before, coef = model.noise.clone(), model.coef.clone()
    worse = coef.clone()
    worse[:, 1] += 0.5
    found = with_coef(model, worse, latent)
    residual = rows.y - grid.matrix(latent.X) @ worse
    expected = (rows.weight @ residual.square() + rows.within.sum(0)) / rows.total_weight
    assert float(expected[1]) > float(before[1])
    torch.testing.assert_close(found.noise, torch.maximum(before, expected))
    assert torch.equal(found.coef, worse)


def test_slope_of_an_encoder_without_derivatives_is_one():
    rows = regression(n_outputs=2)
    result = train(rows, make_options(rows, alpha=0.03, max_iter=2))
    state = result.state
    state.encoder.form = replace(state.encoder.form, kind="cnn")
    assert torch.equal(with_slope(state, rows).slope, torch.ones(2, dtype=DOUBLE))
