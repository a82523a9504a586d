"""One search over families of bases."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from skpou.core.records import TrainingInterrupted
from skpou.multi_stage.fit import FAMILIES
from skpou.search import Candidate, Sines, Stages
from skpou.search.automatic import AutomaticOptions, fit_automatic
from skpou.search.polynomials import Polynomials
from tests.examples import rows_of, slow, tensor

#: Further stages as MultiStageRegressor has them.
EVERYWHERE = Stages(fewest_rows=20)


def fit(function, n=200, d=1, noise=0.0, seed=0, report=None, **options):
    """Result for samples of a function and its relative error on fresh points."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = np.asarray(function(X)) + noise * rng.standard_normal(n)
    mean, scale = y.mean(), y.std() or 1.0
    rows = rows_of(X, (y - mean) / scale)
    result = fit_automatic(rows, AutomaticOptions(**options), rng, report)
    fresh = rng.random((2000, d))
    predicted = mean + scale * result.state.mean(tensor(fresh))[:, 0].numpy()
    return result, float(np.sqrt(np.mean((predicted - function(fresh)) ** 2)))


def kinds(result):
    return [stage["kind"] for stage in result.state.arrays()["stages"]]


@pytest.mark.parametrize("seed", [0, *slow(1, 2)])
def test_single_step_is_found(seed):
    result, error = fit(lambda X: np.tanh(100 * X[:, 0] - 30), n=300, seed=seed)
    assert kinds(result)[0] == "units"
    assert result.chosen["hidden_layer_sizes"][0] <= 2
    assert error < 1e-12


def test_smooth_function_gets_sines():
    result, error = fit(lambda X: np.sin(30 * X[:, 0]))
    assert kinds(result) == ["sine"]
    assert error < 1e-11


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_polynomial_of_low_degree(degree, noise):
    result, error = fit(lambda X: X[:, 0] ** degree - X[:, -1], d=2, noise=noise)
    if noise == 0 or degree == 1:
        assert kinds(result) == ["polynomials"]
    assert error < 0.4 * noise + 1e-13


@pytest.mark.parametrize(("n", "d"), [(40, 1), (200, 1), (300, 2)])
@pytest.mark.parametrize("seed", [0, *slow(1, 2)])
def test_pure_noise_gives_the_constant(n, d, seed):
    result, error = fit(lambda X: np.zeros(len(X)), n=n, d=d, noise=1.0, seed=seed)
    assert kinds(result) == ["polynomials"]
    assert result.chosen["hidden_layer_sizes"] == (1,)
    assert error < 3 / np.sqrt(n)


def test_step_among_few_noisy_rows_is_no_noise():
    result, error = fit(lambda X: 2.0 * (X[:, 0] > 0.45), n=60, d=2, noise=0.05)
    assert kinds(result)[0] == "units"
    assert error < 0.5


def test_noise_level():
    result, _ = fit(lambda X: np.sin(7 * X[:, 0]), n=400, noise=0.1)
    assert float(result.state.noise.sqrt()) == pytest.approx(0.1 / np.sqrt(0.5), rel=0.15)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("d", [0, 1, 3])
def test_very_few_rows(n, d):
    result, _ = fit(lambda X: np.arange(len(X)) % 5, n=n, d=d)
    assert bool(torch.isfinite(result.state.mean(tensor(np.random.rand(5, d)))).all())  # noqa: NPY002


def test_only_the_families_asked_for():
    def function(X):
        return np.tanh(100 * X[:, 0] - 30)

    result, _ = fit(function, families=())
    assert kinds(result) == ["polynomials"]
    result, _ = fit(function, families=(Sines(),))
    assert set(kinds(result)) == {"sine"}


@pytest.mark.parametrize("seed", [0, *slow(1, 2)])
def test_few_units_let_in_less_noise_than_many_sines(seed):
    # Sines leave white noise here, too, but with 50 degrees of freedom: 0.6 of the noise's sigma.
    result, error = fit(
        lambda X: 1 / (1 + 25 * (2 * X[:, 0] - 1) ** 2),
        n=300, noise=1e-6, seed=seed, families=FAMILIES, stages=EVERYWHERE,
    )  # fmt: skip
    assert kinds(result)[0] == "units"
    assert error < 0.4e-6


def test_interrupt_hands_over_the_best_so_far():
    def report(line):
        if "sine" in line:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as stopped:
        fit(lambda X: np.sin(30 * X[:, 0]), report=report)
    assert stopped.value.result.code == "interrupted"
    assert kinds(stopped.value.result) == ["sine"]


class Known:
    """A family of one file, as anybody may write it: it knows the best columns."""

    name = "known"

    def __init__(self):
        self.asked = []

    def worth_trying(self, task, seen):
        self.asked.append(seen)
        return seen.least_left_out > 1e-3

    def fit(self, task, seen):
        found = next(iter(Polynomials().fit(task, seen))).candidates[-1]
        stage = replace(found.stages[0], coef=0 * found.stages[0].coef)
        yield seen.with_candidate(
            Candidate(self.name, (stage,), leave_one_out=1e-9, calibrated=1e-9, dof=1.0, alpha=0.0)
        )


def test_a_family_is_three_names_and_is_handed_what_was_seen():
    family = Known()
    result, _ = fit(lambda X: np.abs(X[:, 0] - 0.4), n=60, families=(family, Sines()))
    (seen,) = family.asked
    assert [c.family for c in seen.candidates] == ["polynomials"]
    assert seen.noise is False
    tried = result.chosen["tried"]
    assert [one["what"].split(",")[0] for one in tried[:3]] == ["polynomials", "known", "sine"]
    assert tried[1]["taken"]
    # What was seen is a value: what came later is not in it.
    with pytest.raises(FrozenInstanceError):
        seen.white = True


def test_a_family_that_is_not_worth_trying_is_not_tried():
    result, _ = fit(lambda X: X[:, 0] + 1e-5 * np.sin(9 * X[:, 0]), n=60, families=(Known(),))
    assert len(result.chosen["tried"]) == 1


def test_findings_before_a_failure_stay():
    class Failing(Known):
        name = "failing"

        def fit(self, task, seen):
            yield from super().fit(task, seen)
            raise torch.linalg.LinAlgError("the matrix is singular")

    lines = []
    result, _ = fit(
        lambda X: np.abs(X[:, 0] - 0.4), n=60, families=(Failing(),), report=lines.append
    )
    assert result.chosen["tried"][1]["taken"]
    assert lines[-1] == "failing: left out, the matrix is singular"


def table(X):
    return np.sin(6 * X[:, 0]) + 2 * X[:, 1] * X[:, 2] + 4 * np.abs(X[:, 3] - 0.4)


@pytest.mark.slow
def test_sums_of_functions_of_few_columns_are_found_in_a_table():
    result, error = fit(table, n=600, d=6, noise=0.1, families=FAMILIES, stages=EVERYWHERE)
    assert kinds(result) == ["additive"]
    others = tuple(family for family in FAMILIES if family.name != "additive")
    _, other = fit(table, n=600, d=6, noise=0.1, families=others, stages=EVERYWHERE)
    assert error < 0.7 * other
    assert error < 0.06
    # The error bars are those of the error on fresh points.
    fresh = np.random.default_rng(1).random((500, 6))
    spread = float(result.state.epistemic(tensor(fresh)).mean().sqrt())
    y = table(np.random.default_rng(0).random((600, 6)))
    assert spread * y.std() == pytest.approx(error, rel=0.4)


@pytest.mark.slow
def test_a_smooth_function_of_several_columns_needs_no_table():
    result, error = fit(
        lambda X: np.sin(X.sum(1)), n=600, d=5, families=FAMILIES, stages=EVERYWHERE
    )
    assert kinds(result) == ["sine"]
    assert error < 1e-3
