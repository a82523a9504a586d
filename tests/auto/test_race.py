"""What is left out, who goes on, who wins."""

import numpy as np
import pytest
import torch

from skpou.auto import race as race_module
from skpou.auto.outcome import Whole, excused, outcome_of, stack
from skpou.auto.race import FACTORS, Data, Race, count_trials, plan_rungs, run_race
from skpou.core import merge_rows
from tests.auto.members import Constant, Failing, Line, Wild


def data_of(X, y, weight=None):
    X, y = torch.as_tensor(X), torch.as_tensor(y).reshape(len(X), -1)
    weight = torch.ones(len(X)).double() if weight is None else torch.as_tensor(weight)
    return Data.from_rows(merge_rows(X, y, weight, counts=True), y.std(0, correction=0).numpy())


def scattered(n, d=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    return data_of(X, X[:, 0] + 0.1 * rng.standard_normal(n))


def rungs_of(data):
    return plan_rungs(data, np.random.default_rng(0))


def run(members, data, most=3):
    lines, race = [], Race([f"m{k}" for k in range(len(members))], list(range(len(members))))
    rungs = rungs_of(data)
    run_race(members, race, data, rungs, most, None, lines.append)
    assert len(lines) == count_trials(rungs, len(members), most)
    return race


# What is left out


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(7, []), (40, [30]), (200, [150]), (800, [400]), (2000, [250, 1000]), (4000, [500, 1000])],
)
def test_sizes_of_the_samples(n, sizes):
    rungs = rungs_of(scattered(n))
    assert [len(rung.fits[0][0]) for rung in rungs] == sizes
    for rung in rungs:
        for fitted, out in rung.fits:
            assert not np.intersect1d(fitted, out).size
            assert n / 5 < len(out) < n / 3 or n > 3600
            assert (np.diff(fitted) > 0).all()
        together = np.concatenate([out for _, out in rung.fits])
        assert len(np.unique(together)) == len(together), "no row is judged twice"


def test_small_samples_are_parts_of_the_large_ones():
    small, large = (rung.fits[0] for rung in rungs_of(scattered(2000)))
    assert np.isin(small[0], large[0]).all()
    np.testing.assert_array_equal(small[1], large[1])


def test_whole_levels_are_left_out():
    axes = np.meshgrid(np.arange(10.0), np.arange(9.0))
    X = np.stack([axis.ravel() for axis in axes], 1)
    data = data_of(X, X[:, 0])
    for rung in rungs_of(data):
        for fitted, out in rung.fits:
            points = data.points
            whole = [
                level
                for column in (0, 1)
                for level in np.unique(points[out, column])
                if not np.isin(points[fitted, column], level).any()
            ]
            assert whole, "a level of a column is not among the rows of the fit"


def test_repeated_points_are_left_out_together():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 5, (200, 2)).astype(float)
    data = data_of(X, rng.standard_normal(200))
    assert data.n_points == 25
    fitted, out = rungs_of(data)[0].fits[0]
    train, test = data.at(fitted), data.at(out)
    pairs = {tuple(x) for x in train.X} & {tuple(x) for x in test.X}
    assert not pairs


def test_of_many_rows_a_part_is_left_out():
    data = scattered(6000, 1)
    fitted, out = rungs_of(data)[-1].fits[0]
    assert len(out) == 1200
    assert len(fitted) == 1500


# Who wins


def test_the_likeliest_leads_and_the_hopeless_are_dropped():
    members = [Constant(0.5, 0.3), Line(std=0.1), Constant(50.0, 0.3), Line(std=0.2)]
    race = run(members, scattered(2000), most=2)
    assert race.alive == [1, 3]
    assert sorted(race.standings) == [1, 3]
    rows = [line["rows"] for line in race.board]
    assert rows == [250] * 4 + [1000] * 2
    # The density of the truth, -log(0.1) - log(2 pi e) / 2.
    assert race.board[-2]["log_density"] == pytest.approx(0.88, abs=0.1)


def test_where_bars_do_not_matter_the_smaller_error_leads():
    """Both are exact to far below the floor of the bars."""
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    data = data_of(X, X[:, 0])

    class Off(Line):
        def predict(self, X, return_std=False):
            mean, std = super().predict(X, True)
            mean = mean + 1e-9
            return (mean, 1e-3 * std) if return_std else mean

    race = run([Off(std=1e-10), Line(std=1e-10)], data)
    assert race.standings[0].score == pytest.approx(race.standings[1].score, abs=1e-3)
    kept, weights, _ = stack(race, 3)
    assert kept == [1]
    assert weights.tolist() == [1.0]


def test_an_exact_member_ends_the_race():
    X = np.random.default_rng(0).random((2000, 2))
    data = data_of(X, X[:, 0])
    race = run([Constant(0.5, 0.3), Line(std=1e-14), Line(std=0.1), Constant(0.4, 0.3)], data)
    assert [line["member"] for line in race.board] == ["m0", "m1"]
    assert stack(race, 3)[0] == [1]
    # One that is exact but says that it is not may still be beaten.
    assert len(run([Line(std=0.1), Line(std=0.2)], data).board) == 4


def test_bars_that_are_too_narrow_are_widened():
    race = run([Line(std=0.1 / 16), Constant(0.5, 0.3)], scattered(200))
    kept, _, shares = stack(race, 1)
    assert kept == [0]
    wide = shares[0] @ np.array(FACTORS)
    assert 8 < wide < 64
    assert run([Line(std=0.1), Line(std=0.1)], scattered(200)).standings[0].shares[0] == 1.0


def test_two_that_are_right_in_parts_share():
    """Each half of the rows is known to one of two members: the stack knows both halves."""
    rng = np.random.default_rng(0)
    X = rng.random((300, 1))
    data = data_of(X, np.where(rng.random(300) < 0.5, 0.0, 1.0) + 0.1 * rng.standard_normal(300))
    kept, weights, _ = stack(run([Constant(0.0, 0.1), Constant(1.0, 0.1)], data), 3)
    assert sorted(kept) == [0, 1]
    np.testing.assert_allclose(weights, 0.5, atol=0.1)


def test_weights_of_rows_count():
    rng = np.random.default_rng(0)
    X = np.arange(40.0)[:, None]
    y = np.where(rng.random(40) < 0.5, 0.0, 1.0)
    weight = np.where(y > 0, 9.0, 1.0)
    race = run([Constant(0.0, 0.3), Constant(1.0, 0.3)], data_of(X, y, weight))
    assert race.alive[0] == 1


# Members that fail


def test_a_member_that_fails_is_out():
    race = run([Failing(most=0), Constant(0.5, 0.3)], scattered(100))
    assert race.alive == [1]
    assert isinstance(race.failures[0], ValueError)
    assert np.isnan(race.board[0]["log_density"])


def test_a_member_that_fails_with_all_rows_gives_way():
    data, members = scattered(100), [Failing(0.5, 0.3, most=100), Constant(5.0, 1.0)]
    race = run(members, data, most=1)
    assert race.alive[0] == 0
    outcome = outcome_of(members, race, data, 1, None, lambda line: None)
    assert outcome.members == [1]
    assert outcome.weights.tolist() == [1.0]
    assert outcome.whole[0].model.n_rows_ == 100


def test_a_member_that_is_wild_between_the_rows_gives_way():
    """A sample may have been too small for it, so that all rows decide."""
    data, members = scattered(100), [Wild(std=0.1), Constant(0.5, 0.3)]
    race = run(members, data)
    assert race.alive[0] == 0
    outcome = outcome_of(members, race, data, 3, None, lambda line: None)
    assert outcome.members == [1]
    # Where there is no other, it stays.
    race = run(members[:1], data)
    assert outcome_of(members[:1], race, data, 3, None, lambda line: None).members == [0]


def test_means_that_most_have_beyond_the_range_are_kept():
    """Beside a pole that no row reaches; but none that goes much farther than most."""

    def wild(*distances):
        whole = {
            k: Whole(None, 0.0, [], None, is_wild=d != 0, beyond=np.array([[d], [0.0]]))
            for k, d in enumerate(distances)
        }
        whole[-1] = Whole(None, 0.0, [], ValueError())
        return [k for k, one in excused(whole).items() if one.is_wild]

    assert wild(3.0, 5.0, 4.0) == []
    assert wild(3.0, 5.0, 60.0) == [2]
    assert wild(3.0, 5.0, 0.0) == [0, 1], "one that failed is not with them"
    assert wild(3.0) == [0]
    members = [Wild(std=0.1), Wild(std=0.1), Constant(0.5, 0.3)]
    race = Race(["m0", "m1", "m2"], [], [0, 1, 2])
    outcome = outcome_of(members, race, scattered(100), 3, None, lambda line: None)
    assert sorted(outcome.members) == [0, 1]


def test_where_all_fail_the_first_failure_is_raised():
    data, members = scattered(100), [Failing(most=0), Failing(most=0)]
    race = run(members, data)
    with pytest.raises(ValueError, match="too many rows for me"):
        outcome_of(members, race, data, 3, None, lambda line: None)


def test_one_member_does_not_race():
    race = Race(["m0"], [], [0])
    outcome = outcome_of([Constant()], race, scattered(100), 3, None, lambda line: None)
    assert race.board == []
    assert outcome.weights.tolist() == [1.0]
    assert outcome.doubter is None


# Members that are taken at their word


def trusting(members, data, most=3):
    race, lines = Race([f"m{k}" for k in range(len(members))], [], list(range(len(members)))), []
    outcome = outcome_of(members, race, data, most, None, lines.append)
    return outcome, lines


def test_members_that_are_taken_at_their_word_are_fitted_once():
    members = [Constant(0.5, 0.3), Line(std=0.1), Line(std=0.11)]
    outcome, lines = trusting(members, scattered(100))
    assert len(lines) == 3
    assert outcome.members == [1, 2]
    assert list(outcome.others) == [0]
    assert outcome.whole[0].model.n_rows_ == 100
    # What is not in the stack is what may be right instead.
    assert outcome.doubter.mean == 0.5
    assert outcome.doubt == pytest.approx(1 / 102)


def test_an_exact_member_that_nothing_contradicts_ends_the_fits():
    X = np.random.default_rng(0).random((50, 2))
    members = [Constant(0.5, 0.3), Line(std=1e-14), Constant(0.4, 0.3), Constant(0.3, 0.2)]
    outcome, lines = trusting(members, data_of(X, X[:, 0]))
    assert len(lines) == 2
    assert outcome.members == [1]
    assert outcome.doubt == 0.0
    # One that is sure of something else keeps them going.
    outcome, lines = trusting([Constant(0.5, 1e-3), *members[1:]], data_of(X, X[:, 0]))
    assert len(lines) == 4
    assert outcome.doubt > 0


def test_a_mean_that_jumps_is_doubted():
    """Where between two rows the jump is, no row tells."""

    class Step(Line):
        def predict(self, X, return_std=False):
            mean, std = super().predict(X, True)
            mean = 1.0 * (mean > 0.5)
            return (mean, std) if return_std else mean

    X = np.random.default_rng(0).random((50, 2))
    data = data_of(X, 1.0 * (X[:, 0] > 0.5))
    outcome, _ = trusting([Step(std=1e-14), Constant(0.5, 0.5)], data)
    assert outcome.members == [0]
    assert outcome.doubt == pytest.approx(1 / 52)


def test_one_at_its_word_and_one_that_races():
    """Left-out rows say what bars are worth that nobody vouches for."""
    data, members = scattered(100), [Line(std=0.1), Constant(0.5, 1e-4)]
    race = Race(["m0", "m1"], [1], [0])
    run_race(members, race, data, rungs_of(data), 3, None, lambda line: None)
    outcome = outcome_of(members, race, data, 3, None, lambda line: None)
    assert {line["member"] for line in race.board} == {"m1"}
    assert outcome.members == [0]


def test_one_at_its_word_gives_way_where_it_fails():
    outcome, _ = trusting([Failing(most=0), Wild(std=0.1), Constant(0.5, 0.3)], scattered(100))
    assert outcome.members == [2]
    outcome, _ = trusting([Failing(most=0), Wild(std=0.1)], scattered(100))
    assert outcome.members == [1]
    with pytest.raises(ValueError, match="too many rows for me"):
        trusting([Failing(most=0), Failing(most=0)], scattered(100))


def test_densities_of_far_targets_stay_numbers():
    race = run([Constant(1e200, 1e-200), Constant(0.5, 0.3)], scattered(100))
    assert np.isfinite(race.standings[0].score)
    assert race.alive[0] == 1
    assert race_module.LEAST_LOG_DENSITY <= race.standings[0].score
