"""Parts of a fit in several threads: their order, their modes and their failures."""

import threading
import time

import pytest
import torch

from skpou.core import at_once, jobs


@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1])
def test_results_come_in_order(n_jobs):
    def slow_at_first(k):
        time.sleep(0.02 * (k == 0))
        return k**2

    with jobs(n_jobs):
        assert at_once(slow_at_first, range(5)) == [0, 1, 4, 9, 16]
        assert at_once(slow_at_first, []) == []


def test_so_many_run_at_a_time():
    barrier = threading.Barrier(2, timeout=10)
    with jobs(2):
        at_once(lambda _: barrier.wait(), range(2))  # One alone would wait in vain.
    names = at_once(lambda _: threading.current_thread().name, range(2))
    assert names == [threading.current_thread().name] * 2


def test_nothing_runs_in_parallel_within_a_thread():
    def inner(_):
        here = threading.current_thread().name
        return at_once(lambda _: threading.current_thread().name, range(3)) == [here] * 3

    with jobs(2):
        assert at_once(inner, range(2)) == [True, True]


def test_jobs_end_with_the_block():
    with pytest.raises(ValueError, match="wrong"), jobs(2):
        raise ValueError("wrong")
    here = threading.current_thread().name
    assert at_once(lambda _: threading.current_thread().name, range(2)) == [here] * 2


def test_threads_have_the_modes_and_the_threads_of_the_caller():
    with jobs(2), torch.no_grad():
        states = at_once(lambda _: (torch.is_grad_enabled(), torch.get_num_threads()), range(2))
    assert states == [(False, torch.get_num_threads())] * 2


def test_failures_reach_the_caller():
    def fail(k):
        raise ZeroDivisionError(k)

    with jobs(2), pytest.raises(ZeroDivisionError):
        at_once(fail, range(2))
