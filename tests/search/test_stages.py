"""Further stages: tried where they may halve what is left, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.search import Stages, stages
from skpou.search.family import Seen, Task
from skpou.search.polynomials import Polynomials
from tests.examples import rows_of


def tried(y, monkeypatch, **known):
    """How often sines are searched for behind polynomials, of which more may be known."""
    X = np.random.default_rng(0).random((200, 1))
    values = y(X[:, 0])
    task = Task(rows_of(X, values - values.mean()), 0, None, 100, 1e-14, Stages(2, fewest_rows=20))
    *_, seen = Polynomials().fit(task, Seen())
    best = replace(seen.candidates[-1], **known)
    searches = []

    def counted(*args, **options):
        searches.append(options["worth"])
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(stages, "search_sines", counted)
    found = list(stages.further_stages(task, seen.judged_by(seen.residue_of(best, task)), best))
    assert not found
    return len(searches)


def wave(x):
    return np.sin(20 * x)


def test_what_is_left_of_a_wave_is_searched(monkeypatch):
    assert tried(wave, monkeypatch) == 1


def test_white_noise_is_not_searched(monkeypatch):
    def noise(x):
        return np.random.default_rng(1).standard_normal(len(x))

    # As many degrees of freedom as do not say that all of it is noise.
    assert tried(noise, monkeypatch, dof=60.0, leave_one_out=1.0) == 0


def test_what_changes_its_sign_from_row_to_row_is_not_searched(monkeypatch):
    def alternating(x):
        return (-1.0) ** np.argsort(np.argsort(x))

    assert tried(alternating, monkeypatch) == 0


@pytest.mark.parametrize("variance, n_searches", [(1.0, 1), (1e3, 0)])
def test_a_stage_that_drowns_in_what_is_unsure_between_rows_is_not_searched(
    variance, n_searches, monkeypatch
):
    assert tried(wave, monkeypatch, gap_variance=variance) == n_searches
