"""
Stages down to machine precision
================================

A wave on a slope, the target of the papers on multi-stage networks, from 300 even points. What a
small network leaves over is scaled to unit size and fitted by a stage of sines: round-off is
reached at the samples, and between them.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import CubicSpline

from skpou import MultiStageRegressor
from skpou.datasets import make_multiscale
from skpou.inspection import StageDisplay

X, y = make_multiscale(X=np.linspace(-1, 1, 300)[:, None])
X_new, truth = make_multiscale(X=np.linspace(-1, 1, 10_001)[:, None])

model = MultiStageRegressor(hidden_layer_sizes=(20, 20, 20)).fit(X, y)
stages = list(model.staged_predict(X_new))
for stage, (left, predicted) in enumerate(zip(model.residual_rms_, stages), 1):
    between = np.sqrt(np.mean((predicted - truth) ** 2))
    print(f"stage {stage}: rms {left:.1e} at the samples, {between:.1e} between them")

# %%
# By default no network is given, and families of bases compete for the first stage.

automatic = MultiStageRegressor().fit(X, y)
error = automatic.predict(X_new) - truth
print(f"by default: {automatic.basis_}, rms {np.sqrt(np.mean(error**2)):.1e} between them")

# %%
# What each stage leaves over.

StageDisplay.from_estimator(model, X, y, color="#0072b2")
plt.show()

# %%
# The error between the samples, beside a spline's.

curves = {"cubic spline": CubicSpline(X[:, 0], y)(X_new[:, 0])}
curves |= {f"after stage {k}": predicted for k, predicted in enumerate(stages, 1)}
figure, ax = plt.subplots(figsize=(6.5, 3.6))
for (name, predicted), color in zip(curves.items(), ("#e69f00", "#56b4e9", "#0072b2", "#009e73")):
    ax.semilogy(X_new, np.abs(predicted - truth) + 1e-17, color=color, lw=0.8, label=name)
ax.set(title="Error between the samples", xlabel="x", ylabel="|error|", ylim=(1e-18, 1e-2))
ax.legend(frameon=False, loc="upper center", ncols=3)
plt.show()
