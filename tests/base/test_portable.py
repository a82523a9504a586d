"""The package where the system offers less than Linux does."""

import subprocess
import sys

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
small = {"hidden_layer_sizes": (5,), "max_iter": 40, "learning_rate": 0.1}
regressors = [make(name) for name in ONE_OF_EACH]
regressors.append(skpou.TransformedRegressor(transform="yeo-johnson"))
classifiers = [skpou.SparseGridClassifier(), skpou.NeuralSparseGridClassifier(**small, level=2)]
classifiers.append(skpou.LSGDClassifier((5,)))
for model in regressors + classifiers:
    targets = y if model in regressors else y > 0.5
    assert model.fit(X, targets).score(X, targets) > 0.9, model
    print(type(model).__name__)
"""


def test_every_class_fits_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    public = [name for name in skpou.__all__ if not name.startswith("_")]
    assert sorted(done.stdout.split()) == sorted(public)
