"""
A steep front, a peak and a kink
================================

All three are in one curve, beside a smooth wave, and 150 scattered points with noise are known of
it. The default ``LSGDRegressor`` decides by itself which units are needed, and how many.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import make_interp_spline

from skpou import LSGDRegressor


def target(x):
    """Front at 0.25, peak at 0.55, kink at 0.8."""
    front = np.tanh(80 * (x - 0.25))
    peak = 1 / (1 + (40 * (x - 0.55)) ** 2)
    return front + 1.5 * peak - 4 * np.abs(x - 0.8) + 0.5 * x


rng = np.random.default_rng(0)
noise = 0.01
x = np.sort(rng.random(150))
y = target(x) + noise * rng.standard_normal(len(x))
model = LSGDRegressor().fit(x[:, None], y)
spline = make_interp_spline(x, y, k=3)

new = np.linspace(x[0], x[-1], 5001)
mean, std = model.predict(new[:, None], return_std="epistemic")
print(f"basis {model.basis_}, {model.hidden_layer_sizes_[0]} nonlinear columns")
print(f"noise {model.noise_:.4f}, in truth {noise}")
print(f"rms error on new points: {np.sqrt(np.mean((mean - target(new)) ** 2)):.1e}")
print(f"  predicted: {np.sqrt(np.mean(std**2)):.1e}")
print(f"  cubic spline: {np.sqrt(np.mean((spline(new) - target(new)) ** 2)):.1e}")

# %%
# The fit with two standard deviations of a new measurement, and the error between the points.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
mean, std = model.predict(new[:, None], return_std=True)
left.fill_between(new, mean - 2 * std, mean + 2 * std, color="#0072b2", alpha=0.25, lw=0)
left.plot(new, mean, color="#0072b2", label="LSGDRegressor, 2 standard deviations")
left.plot(x, y, ".", color="0.3", markersize=3, label="known points")
left.set(title="Fit", xlabel="x", ylabel="y", ylim=(None, 1.25 * mean.max() - 0.25 * mean.min()))
left.legend(frameon=False, loc="upper left")
for name, predicted, color in (
    ("cubic spline", spline(new), "#e69f00"),
    ("LSGDRegressor", mean, "#0072b2"),
):
    right.semilogy(new, np.abs(predicted - target(new)) + 1e-7, color=color, label=name, lw=1)
right.axhline(noise, color="0.5", linestyle="--", linewidth=1, label="noise")
right.set(title="Error between the points", xlabel="x", ylabel="|error|", ylim=(1e-6, 3))
right.legend(facecolor="white", edgecolor="none", framealpha=1, loc="lower right", ncols=3)
plt.show()
