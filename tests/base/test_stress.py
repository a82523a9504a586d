"""Interrupts at random moments, too little memory, many threads: what is left is whole.

Every public class, stacks and equations among them. Minutes in all, so these tests are marked slow.
"""

import contextlib
import copy
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from sklearn.base import clone

from tests.base.test_metamorphic import CASES, assert_same, expected, fit, fitted, predicted
from tests.estimators import same_bits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
each_case = pytest.mark.parametrize(
    "name", [name for name in CASES if "default" not in name and name != "equation"]
)

#: Moments of a fit, as shares of the processor's time that it takes.
N_MOMENTS = 6


@contextlib.contextmanager
def interrupted_after(seconds):
    """Press Ctrl-C in the block after so many seconds of the processor."""

    def press(*_):
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGPROF, press)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)


@each_case
@pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="no timer of the processor's time here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_random_moments(name):
    case = CASES[name]
    first = clone(case.estimator).fit(case.X[::2], case.y[::2])
    before, wanted = predicted(first, case.query), expected(name)
    start = time.process_time()
    fit(name)
    duration = time.process_time() - start
    outcomes = []
    for moment in np.random.default_rng(0).uniform(0.02, 1.0, N_MOMENTS):
        model = copy.deepcopy(first)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with interrupted_after(moment * duration):
                    model.fit(case.X, case.y)
                outcomes.append("complete")
            except KeyboardInterrupt:
                words = [str(one.message) for one in caught]
                kept = any("interrupted" in text for text in words)
                outcomes.append("the best so far" if kept else "the earlier fit")
        found = predicted(model, case.query)
        assert vars(model).keys() <= vars(first).keys() | vars(fitted(name)).keys()
        if outcomes[-1] == "complete":
            assert all(same_bits(found[kind], wanted[kind]) for kind in wanted)
        elif outcomes[-1] == "the earlier fit":
            # An interrupt between the last line of a fit and its return finds the new one.
            for complete in (before, wanted):
                if all(same_bits(found[kind], complete[kind]) for kind in complete):
                    break
            else:
                pytest.fail(f"at {moment:.2f} of the fit: neither the earlier fit nor the new one")
        for value in found.values():
            assert value.dtype.kind != "f" or np.isfinite(value).all()
    assert_same(name, model.fit(case.X, case.y))
    assert set(outcomes) != {"complete"}, "no interrupt came in time"


@each_case
def test_eight_threads_fit_at_once(name):
    case, barrier = CASES[name], threading.Barrier(8)
    models = [clone(case.estimator) for _ in range(8)]
    wanted, errors = expected(name), []

    def run(model):
        try:
            barrier.wait()
            model.fit(case.X, case.y)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for model in models:
        found = predicted(model, case.query)
        other = [kind for kind in wanted if not same_bits(found[kind], wanted[kind])]
        assert not other, f"other bits: {other}"


@each_case
def test_eight_threads_predict_while_one_fits(name):
    """The model that is asked is another one: nothing of a fit is shared."""
    case, model, wrong, done = CASES[name], fitted(name), [], threading.Event()
    wanted = expected(name)

    def ask():
        while not done.is_set():
            found = predicted(model, case.query)
            wrong.extend(kind for kind in wanted if not same_bits(found[kind], wanted[kind]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    fit(name)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


#: Fits that need more than `SPARE` bytes, by matrices of rows by columns or of columns by columns.
LARGE = {
    "HierarchicalPOURegressor(2, 9)": (40_000, 3),
    "POURegressor(2, 9)": (40_000, 3),
    "LSGDRegressor((400,), max_iter=2)": (40_000, 3),
    "MultiStageRegressor(1, hidden_layer_sizes=(400,), max_iter=2)": (40_000, 3),
    "SparseGridRegressor(level=7)": (40_000, 4),
    "AdditivePOURegressor(n_splines=60)": (40_000, 6),
    "TransformedRegressor(SparseGridRegressor(level=7), 'yeo-johnson')": (40_000, 4),
    "SparseGridClassifier(level=7, method='one_hot')": (40_000, 4),
}
#: Bytes of address space beyond what the process has after a small fit.
SPARE = 60 << 20
SCRIPT = """
import resource, sys, warnings
import numpy as np, torch
from skpou import *
warnings.simplefilter("ignore")
torch.set_num_threads(1)
rng = np.random.default_rng(0)
n, d = int(sys.argv[2]), int(sys.argv[3])
X = rng.random((n, d))
y = np.sin(5 * X).sum(1) + X[:, 0] * X[:, 1]
if "Classifier" in sys.argv[1]:
    y = (y > y.mean()).astype(int)
model = eval(sys.argv[1])
model.fit(X[:60], y[:60])
before = model.predict(X[:9])
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    model.fit(X, y)
except MemoryError as error:
    assert "lower" in str(error), error
else:
    sys.exit("fitted: it needs no more than was there")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert (model.predict(X[:9]) == before).all()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/statm is Linux'")
@pytest.mark.parametrize("model", LARGE)
def test_too_little_memory_leaves_the_earlier_fit(model):
    command = [sys.executable, "-c", SCRIPT, model, *map(str, LARGE[model]), str(SPARE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
