"""
Calibrating a sensor, with bars that hold
=========================================

A pressure sensor reads a voltage that bends with the pressure and drifts with the temperature, and
its noise grows with the pressure. From 600 calibration points, pressure is told from both readings.
Rows that were set aside count how good the intervals are, so that a promise of 90 % is kept.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skpou import LSGDRegressor


def measure(n, rng):
    """Readings (V, degrees Celsius) of a sensor, and the pressure (bar) of the reference."""
    pressure, celsius = rng.uniform(0, 10, n), rng.uniform(-20, 80, n)
    volts = 0.5 + 4 * np.tanh(pressure / 8) / np.tanh(1.25) * (1 - 0.002 * (celsius - 25))
    volts += (0.002 + 0.002 * pressure) * rng.standard_normal(n)
    return np.column_stack([volts, celsius]), pressure


rng = np.random.default_rng(0)
X, y = measure(600, rng)
X_fit, X_aside, y_fit, y_aside = train_test_split(X, y, test_size=200, random_state=0)

# %%
# The density becomes a mixture where left-out rows ask for it, so that the bars follow the noise;
# the rows set aside make them hold.

model = LSGDRegressor().fit(X_fit, y_fit).conformalize(X_aside, y_aside)

# %%
# New readings: the error, and the share of true pressures in the intervals.

X_new, y_new = measure(5000, rng)
mean, std = model.predict(X_new, return_std=True)
print(f"rms error {np.sqrt(np.mean((mean - y_new) ** 2)):.3f} bar")
coverages = np.array([0.5, 0.68, 0.8, 0.9, 0.95])
held = []
for coverage in coverages:
    low, high = model.predict_interval(X_new, coverage=coverage).T
    held.append(np.mean((low <= y_new) & (y_new <= high)))
    print(f"intervals of {coverage:.0%} hold {held[-1]:.1%}")

# %%
# The bars follow the noise: narrow at low pressures, wide at high ones, where the curve is flat.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.7))
volts = np.linspace(0.6, 4.3, 200)
for celsius, color in ((-10, "#0072b2"), (25, "0.3"), (70, "#d55e00")):
    rows = np.column_stack([volts, np.full(200, celsius)])
    left.plot(volts, model.predict(rows), color=color, label=f"{celsius} °C")
left.set(title="Calibration curves", xlabel="reading (V)", ylabel="pressure (bar)")
left.legend(frameon=False)
middle.plot(mean, mean - y_new, ".", ms=1.5, color="0.6")
order = np.argsort(mean)[::25]
low, high = model.predict_interval(X_new[order], coverage=0.9).T
middle.plot(mean[order], high - mean[order], ".", ms=3, color="#0072b2")
middle.plot(mean[order], low - mean[order], ".", ms=3, color="#0072b2", label="90 % interval")
middle.set(title="Errors at new readings", xlabel="predicted pressure (bar)", ylabel="error (bar)")
middle.legend(frameon=False)
right.plot([0, 1], [0, 1], color="0.7", lw=1)
right.plot(coverages, held, "o-", color="#0072b2")
right.set(title="What the intervals hold", xlabel="promised share", ylabel="share found",
          xlim=(0.4, 1), ylim=(0.4, 1), aspect="equal")  # fmt: skip
plt.show()
