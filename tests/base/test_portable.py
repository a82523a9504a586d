"""The package where the system offers less than Linux does."""

import subprocess
import sys

import pytest

import skpou

# What torch and scikit-learn ask of the system when they are imported is their affair.
SCRIPT = """
import os
import sys

import sklearn.base
import torch

assert "skpou" not in sys.modules
del os.fork, os.sysconf
sys.modules["resource"] = None
torch.set_num_threads(1)

import skpou
from tests.estimators import ONE_OF_EACH, make, stepped

X, y = stepped()
if sys.argv[1] == "all":
    small = {"hidden_layer_sizes": (5,), "max_iter": 40, "learning_rate": 0.1}
    regressors = [make(name) for name in ONE_OF_EACH]
    regressors.append(skpou.TransformedRegressor(transform="yeo-johnson"))
    classifiers = [skpou.SparseGridClassifier(), skpou.NeuralSparseGridClassifier(**small, level=2)]
    classifiers.append(skpou.LSGDClassifier((5,)))
else:
    regressors, classifiers = [make("tree")], [skpou.SparseGridClassifier()]
for model in regressors + classifiers:
    targets = y if model in regressors else y > 0.5
    assert model.fit(X, targets).score(X, targets) > 0.9, model
    print(type(model).__name__)
"""


def fitted_without_what_windows_lacks(which):
    command = [sys.executable, "-c", SCRIPT, which]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


def test_pieces_and_grids_fit_without_what_windows_lacks():
    names = ["HierarchicalPOURegressor", "SparseGridClassifier"]
    assert fitted_without_what_windows_lacks("some") == names


@pytest.mark.slow
def test_every_class_fits_without_what_windows_lacks():
    public = [name for name in skpou.__all__ if not name.startswith("_")]
    assert fitted_without_what_windows_lacks("all") == sorted(public)
