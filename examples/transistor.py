"""
The surface of a transistor
===========================

The collector current of a bipolar transistor over its two voltages spans eight decades, and bends
sharply where the transistor saturates. Its logarithm is learned from 1500 scattered points; errors
are those at 5000 others, in decades.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import RBFInterpolator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from skpou import HierarchicalPOURegressor
from skpou.datasets import make_transistor

X, y = make_transistor(1500, random_state=0)
X_new, y_new = make_transistor(5000, random_state=1)
model = HierarchicalPOURegressor(n_partitions=8, degree=4).fit(X, y)
mean, std = model.predict(X_new, return_std=True)
print(f"{len(model.coef_)} pieces; rms error {np.sqrt(np.mean((mean - y_new) ** 2)):.1e} decades")
print(f"within two standard deviations: {np.mean(abs(mean - y_new) < 2 * std):.0%}")

# %%
# Two others on the same points, their columns scaled to the unit box. The lengths of the Gaussian
# process have the largest likelihood of 400 of the points, to save time.

low, width = X.min(0), np.ptp(X, axis=0)
scaled, scaled_new = (X - low) / width, (X_new - low) / width
kernel = ConstantKernel(1, (1e-3, 1e6)) * RBF([0.5, 0.2]) + WhiteKernel(1e-6, (1e-9, 1))
kernel = GaussianProcessRegressor(kernel, normalize_y=True).fit(scaled[:400], y[:400]).kernel_
process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(scaled, y)
errors = {
    "skpou": mean - y_new,
    "radial basis functions": RBFInterpolator(scaled, y)(scaled_new) - y_new,
    "Gaussian process": process.predict(scaled_new) - y_new,
}
for name, error in errors.items():
    print(f"{name:24}{np.sqrt(np.mean(error**2)):8.1e}{abs(error).max():10.1e} at most")

# %%
# The output characteristics, and where the three err: the share of the points with an error above
# the one on the axis.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
collector = np.linspace(0.1, 5, 300)
for base, color in ((0.66, "#56b4e9"), (0.68, "#0072b2"), (0.7, "#d55e00")):
    line = np.column_stack([np.full(300, base), collector])
    left.plot(collector, 1e3 * 10 ** model.predict(line), color=color, label=f"{base} V")
    truth = make_transistor(X=line[::12], log=False)[1]
    left.plot(collector[::12], 1e3 * truth, ".", color=color)
left.set(title="Fit (lines) and truth (dots)", xlabel="collector-emitter voltage (V)",
         ylabel="collector current (mA)", ylim=(0, 5.2))  # fmt: skip
left.legend(title="base-emitter", frameon=False, ncols=3, loc="upper center")
share = 1 - np.arange(len(y_new)) / len(y_new)
for (name, error), dashes in zip(errors.items(), ("solid", "dashed", "dotted")):
    right.loglog(np.sort(abs(error)), share, linestyle=dashes, label=name)
right.set(title="Points with larger errors", xlabel="error (decades)", ylabel="share",
          xlim=(1e-8, 1))  # fmt: skip
right.legend(frameon=False)
plt.show()
