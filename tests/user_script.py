"""What a user writes: `make lint` checks that no call in it is untyped. It is never run."""

import numpy as np

from skpou import (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDClassifier,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
    TransformedRegressor,
)
from skpou.datasets import load_steam, make_bump
from skpou.inspection import (
    CalibrationDisplay,
    ConvergenceDisplay,
    FitDisplay,
    LatentGridDisplay,
    LeaderboardDisplay,
    PartitionDisplay,
    StageDisplay,
    TermsDisplay,
)

X = np.zeros((9, 2))
y = X[:, 0]
m = MultiStageRegressor().fit(X, y)
print(
    m.predict(X, return_std=True),
    m.score(X, y),
    m.predict_interval(X),
    m.sample_y(X),
    m.predict_quantile(X, 0.1),
    m.summary(),
)
for r in (
    AdditivePOURegressor(),
    HierarchicalPOURegressor(),
    LSGDRegressor(),
    POURegressor(),
    SparseGridRegressor(),
    NeuralSparseGridRegressor(),
):
    r.fit(X, y)
    print(r.predict(X), r.log_density(X, y), r.predict_gradient(X), r.predict_cdf(X, y))
for c in (LSGDClassifier(), SparseGridClassifier(), NeuralSparseGridClassifier()):
    c.fit(X, y)
    print(c.predict_proba(X), c.predict(X), c.score(X, y))
AutoRegressor().fit(X, y).predict(X)
TransformedRegressor(m, "log").fit(X, y).predict(X)
h = HierarchicalPOURegressor().fit(X, y)
PartitionDisplay.from_estimator(h, X, y).plot()
FitDisplay.from_estimator(m, X, y)
CalibrationDisplay.from_estimator(m, X, y)
ConvergenceDisplay.from_estimator(m, X, y)
StageDisplay.from_estimator(m, X, y)
TermsDisplay.from_estimator(AdditivePOURegressor().fit(X, y), X, y)
LatentGridDisplay.from_estimator(NeuralSparseGridRegressor().fit(X, y), X, y)
LeaderboardDisplay.from_estimator(AutoRegressor().fit(X, y))
make_bump(n_samples=9)
load_steam()
