"""
A phase change found as pieces
==============================

The enthalpy of water jumps where it boils. Nothing tells the fit that there are two phases: from a
table on 20 isobars it finds pieces, a polynomial on each, and predicts the isobars in between. The
boundary between liquid and steam is then compared with the known boiling curve.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from skpou import HierarchicalPOURegressor
from skpou.datasets import load_steam

steam = load_steam()
temperature, pressure = steam.data.T
X = np.column_stack([temperature, np.log10(pressure)])
enthalpy = steam.target[:, 1]
held_out = np.isin(pressure, np.unique(pressure)[1:-1:3])

model = HierarchicalPOURegressor().fit(X[~held_out], enthalpy[~held_out])
mean, std = model.predict(X[held_out], return_std=True)
error = mean - enthalpy[held_out]
print(f"{len(model.coef_)} pieces of degree {model.degree_}")
print(f"held-out isobars: rms error {np.sqrt(np.mean(error**2)):.3f} kJ/kg of a range of "
      f"{np.ptp(enthalpy):.0f}, {abs(error).max():.2f} at most")  # fmt: skip
trees = HistGradientBoostingRegressor(max_iter=500, min_samples_leaf=3, random_state=0)
trees.fit(X[~held_out], enthalpy[~held_out])
error = trees.predict(X[held_out]) - enthalpy[held_out]
print(f"gradient boosting: {np.sqrt(np.mean(error**2)):.1f} kJ/kg")

# %%
# Which piece is a phase? A piece counts as steam where most of its rows are.

pieces = model.predict_partition(X)
of_steam = [k for k in np.unique(pieces) if steam.is_steam[pieces == k].mean() > 0.5]
agree = np.isin(pieces[held_out], of_steam) == steam.is_steam[held_out]
print(f"phase of the held-out rows: {agree.mean():.1%} right")

# %%
# The boiling curve, by the equation of IAPWS-IF97 for the saturation pressure.

n = [
    *(1167.0521452767, -724213.16703206, -17.073846940092, 12020.82470247, -3232555.0322333),
    *(14.91510861353, -4823.2657361591, 405113.40542057, -0.23855557567849, 650.17534844798),
]
celsius = np.linspace(100, 311, 200)
theta = celsius + 273.15 + n[8] / (celsius + 273.15 - n[9])
a, b, c = (np.polyval(n[k : k + 3] if k else [1, *n[:2]], theta) for k in (0, 2, 5))
boiling = (2 * c / (-b + np.sqrt(b**2 - 4 * a * c))) ** 4  # MPa

tt, pp = np.meshgrid(np.linspace(20, 400, 300), np.linspace(-1, 1, 300))
grid = np.column_stack([tt.ravel(), pp.ravel()])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
shown = left.pcolormesh(tt, 10**pp, model.predict(grid).reshape(tt.shape), cmap="cividis")
left.plot(celsius, boiling, color="white", lw=1, ls="--", label="boiling curve")
left.set(yscale="log", title="Enthalpy", xlabel="temperature (°C)", ylabel="pressure (MPa)")
left.legend(loc="lower right", facecolor="0.3", labelcolor="white")
figure.colorbar(shown, ax=left, label="kJ/kg")
for isobar, color in ((0.1359, "#56b4e9"), (1.0, "#0072b2"), (7.3564, "#d55e00")):
    isobar = pressure[held_out][np.argmin(abs(pressure[held_out] - isobar))]
    line = np.column_stack([np.linspace(20, 400, 600), np.full(600, np.log10(isobar))])
    right.plot(line[:, 0], model.predict(line), color=color, label=f"{isobar:.2g} MPa")
    rows = pressure == isobar
    right.plot(temperature[rows], enthalpy[rows], ".", color=color)
right.set(title="Isobars that were held out", xlabel="temperature (°C)", ylabel="enthalpy (kJ/kg)")
right.legend(frameon=False)
plt.show()
