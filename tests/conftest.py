"""What all tests share: one thread, the data beside the repository, the GPU marker."""

import gc
import os

# Before SciPy is imported: scikit-learn then checks array API input, too.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

# The same examples at every run: a failure is a change in the code, never a change of luck.
hypothesis.settings.register_profile(
    "skpou", deadline=None, derandomize=True, max_examples=25, database=None
)
hypothesis.settings.load_profile("skpou")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Without the garbage collector, which would go through a million objects that stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="needs a CUDA device: torch.cuda.is_available() is False")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


@pytest.fixture
def shared_data():
    """Folder of measured data, which is not part of the repository.

    It lies in ../shared/data beside the repository, or where SKPOU_SHARED_DATA says.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKPOU_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no measured data: {folder} is no folder; set SKPOU_SHARED_DATA to theirs")
    return folder
