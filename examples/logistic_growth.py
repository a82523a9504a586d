"""
An equation with an unknown constant
====================================

A population grows by u' = r u (1 - u). Forty measurements with noise are known, the rate r is not.
The equation fills the gaps between the measurements, goes on beyond them, and tells the rate with
its standard deviation.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import LSGDRegressor
from skpou.physics import Equation, Unknown

RATE, NOISE = 1.3, 0.02


def logistic(u, t, p):
    return u.d(0) - p["rate"] * u() * (1 - u())


def growth(t):
    return 1 / (1 + 9 * np.exp(-RATE * t))


rng = np.random.default_rng(0)
t = np.sort(rng.uniform(0, 6, 40))
y = growth(t) + NOISE * rng.standard_normal(40)

# %%
# The equation holds from 0 to 8, also where nothing was measured.

model = LSGDRegressor(
    physics=Equation(logistic, "chebyshev", box=[[0, 8]]), unknowns={"rate": Unknown(1.0)}
)
model.fit(t[:, None], y)
rate, deviation = model.unknowns_["rate"], model.unknowns_std_["rate"]
print(f"rate {rate:.3f} +- {deviation:.3f}, in truth {RATE}")
print(f"noise {model.noise_:.3f}, in truth {NOISE}")

# %%
# The fit beside the truth, and its error under the error bars.

grid = np.linspace(0, 8, 401)
mean, std = model.predict(grid[:, None], return_std="epistemic")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
left.plot(grid, mean, color="#0072b2", label="fit")
left.plot(grid, growth(grid), "k--", lw=1, label="truth")
left.plot(t, y, ".", color="0.3", ms=4, label="measurements")
left.set(title=f"Rate {rate:.3f} +- {deviation:.3f}", xlabel="t", ylabel="u")
left.legend(frameon=False)
bars = {"color": "#0072b2", "alpha": 0.25, "lw": 0, "label": "2 standard deviations"}
right.fill_between(grid, -2 * std, 2 * std, **bars)
right.plot(grid, mean - growth(grid), color="#0072b2", label="error of the fit")
right.plot(t, y - growth(t), ".", color="0.3", ms=4, label="noise")
right.set(title="Error", xlabel="t", ylabel="error")
right.legend(frameon=False)
plt.show()
