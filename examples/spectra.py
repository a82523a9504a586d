"""
From a spectrum to a concentration
==================================

The content of fat in meat is told from its near-infrared spectrum of 100 channels: the standard
task of chemometrics, and the standard method is partial least squares, which is linear. Twelve
principal components and a regressor that bends leave less than a third of its error, with error
bars.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline

from skpou import AdditivePOURegressor
from skpou.datasets import load_meats

meats = load_meats()
fat = meats.target[:, meats.target_names.index("fat")]
X_train, X_test, y_train, y_test = train_test_split(meats.data, fat, test_size=55, random_state=0)

# %%
# Partial least squares, with the number of components by cross-validation.

linear = GridSearchCV(PLSRegression(), {"n_components": range(5, 25)}, cv=10).fit(X_train, y_train)
linear_error = linear.predict(X_test).ravel() - y_test
print(f"partial least squares, {linear.best_params_['n_components']} components: "
      f"{np.sqrt(np.mean(linear_error**2)):.2f} % fat")  # fmt: skip

# %%
# A pipeline hands ``return_std`` on to its last step.

model = make_pipeline(PCA(12, whiten=True), AdditivePOURegressor()).fit(X_train, y_train)
mean, std = model.predict(X_test, return_std=True)
print(f"principal components and AdditivePOURegressor: "
      f"{np.sqrt(np.mean((mean - y_test) ** 2)):.2f} % fat")  # fmt: skip
print(f"within two standard deviations: {np.mean(abs(mean - y_test) < 2 * std):.0%}")

# %%
# The spectra, and the errors. Bars that leave the figure belong to spectra outside of what was
# fitted in some component.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
chosen = np.argsort(fat)[::12]
for row in chosen:
    left.plot(meats.wavelength, meats.data[row], color=plt.cm.viridis(fat[row] / fat.max()), lw=1)
left.set(title="Spectra, coloured by fat", xlabel="wavelength (nm)", ylabel="absorbance")
colors = plt.cm.ScalarMappable(plt.Normalize(0, fat.max()), "viridis")
figure.colorbar(colors, ax=left, label="fat (%)")
right.axhline(0, color="0.7", lw=1)
right.plot(y_test, linear_error, "x", color="#d55e00", label="partial least squares")
right.errorbar(y_test, mean - y_test, 2 * std, fmt="o", ms=3, lw=0.8, color="#0072b2",
               label="skpou, 2 standard deviations")  # fmt: skip
right.set(
    title="Samples that were held out", xlabel="fat (%)", ylabel="error (% fat)", ylim=(-12, 12)
)
right.legend(frameon=False)
plt.show()
