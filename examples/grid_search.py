"""
Tuning with GridSearchCV
========================

Defaults choose sizes by themselves. Where one wants to choose, scikit-learn's search works as with
any estimator: here over the degree and the number of pieces of a curve with kinks and noise.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, KFold

from skpou import HierarchicalPOURegressor
from skpou.datasets import make_piecewise_quadratic

X, y = make_piecewise_quadratic(200, n_pieces=4, noise=0.03, random_state=0)
degrees, sizes = [1, 2, 3], [2, 4, 8]
search = GridSearchCV(
    HierarchicalPOURegressor(),
    {"degree": degrees, "n_partitions": sizes},
    scoring="neg_root_mean_squared_error",
    cv=KFold(3, shuffle=True, random_state=0),
)
search.fit(X, y)
print(search.best_params_)

# %%
# In truth there are four parabolas. The default, which compares candidates by the evidence of all
# rows instead of folds, needs one fit.

automatic = HierarchicalPOURegressor().fit(X, y)
print(f"by default: {len(automatic.coef_)} pieces of degree {automatic.degree_}")
X_new, truth = make_piecewise_quadratic(5000, n_pieces=4, random_state=1)
for name, model in (("search", search), ("default", automatic)):
    print(f"{name}: rms error {np.sqrt(np.mean((model.predict(X_new) - truth) ** 2)):.4f}")

# %%
# The errors of all candidates at left-out rows.

results = search.cv_results_
errors = -results["mean_test_score"].reshape(len(degrees), len(sizes))
bars = results["std_test_score"].reshape(errors.shape) / np.sqrt(3)
figure, ax = plt.subplots(figsize=(6, 3.7))
for k, size in enumerate(sizes):
    ax.errorbar(degrees, errors[:, k], bars[:, k], marker="o", capsize=3, label=f"at most {size}")
ax.axhline(0.03, color="0.5", ls="--", lw=1, label="noise")
ax.set(yscale="log", xlabel="degree", ylabel="rms error at left-out rows", xticks=degrees)
ax.legend(title="pieces", frameon=False)
plt.show()
