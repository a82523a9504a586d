"""
A steam table between its lines
===============================

Printed tables of steam have lines of equal pressure; one wants values in between, and derivatives.
The density of steam is learned from two lines in three. Its logarithm is fitted, so that errors are
relative, and ``TransformedRegressor`` brings everything back to kg/m3.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import LinearNDInterpolator, RBFInterpolator

from skpou import MultiStageRegressor, TransformedRegressor
from skpou.datasets import load_steam

steam = load_steam()
temperature, pressure = steam.data[steam.is_steam].T
density = steam.target[steam.is_steam, 0]
X = np.column_stack([temperature, np.log10(pressure)])
held_out = np.isin(pressure, np.unique(pressure)[1:-1:3])

model = TransformedRegressor(MultiStageRegressor(), transform="log")
model.fit(X[~held_out], density[~held_out])
median, std = model.predict(X[held_out], return_std=True)

# %%
# Beside it what is usually done: linear interpolation of the table, and radial basis functions.

scaled, log_density = (X - X.min(0)) / np.ptp(X, axis=0), np.log(density)
others = {
    "linear interpolation": LinearNDInterpolator(scaled[~held_out], log_density[~held_out]),
    "radial basis functions": RBFInterpolator(scaled[~held_out], log_density[~held_out]),
}
predicted = {"skpou": median}
predicted |= {name: np.exp(other(scaled[held_out])) for name, other in others.items()}
errors = {name: np.abs(value / density[held_out] - 1) for name, value in predicted.items()}
for name, error in errors.items():
    inside = np.isfinite(error)  # linear interpolation knows nothing outside its triangles
    print(f"{name:24}median {np.median(error[inside]):.1e}, at most {error[inside].max():.1e}")
share = np.mean(abs(median - density[held_out]) < 2 * std)
print(f"within two standard deviations: {share:.0%}")

# %%
# The derivative by the temperature comes with the fit: here the thermal expansion at 1 MPa, in
# percent a degree, beside differences of the table's neighbouring rows.

line = np.column_stack([np.linspace(185, 400, 200), np.zeros(200)])
expansion = -model.predict_gradient(line)[:, 0] / model.predict(line)
rows = pressure == 1
middle = (temperature[rows][1:] + temperature[rows][:-1]) / 2
difference = -np.diff(np.log(density[rows])) / np.diff(temperature[rows])

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
for (name, error), marker in zip(errors.items(), "ox+"):
    left.semilogy(temperature[held_out], error + 1e-9, marker, ms=3, label=name, alpha=0.7)
left.set(title="Held-out lines", xlabel="temperature (°C)", ylabel="relative error")
left.legend(frameon=False)
right.plot(line[:, 0], 100 * expansion, color="#0072b2", label="gradient of the fit")
right.plot(middle, 100 * difference, ".", color="0.3", label="differences of the table")
right.set(title="Thermal expansion at 1 MPa", xlabel="temperature (°C)", ylabel="% per °C")
right.legend(frameon=False)
plt.show()
