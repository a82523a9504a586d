"""
Images told apart
=================

Handwritten digits of 8 x 8 pixels. A convolutional encoder maps each image into the box of a sparse
grid of eight dimensions, on which the classes are functions; both are trained together.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skpou import NeuralSparseGridClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.3, stratify=y, random_state=0
)
model = NeuralSparseGridClassifier(
    encoder="cnn", image_shape=(1, 8, 8), n_components=8, level=2, max_iter=40, random_state=0
)
model.fit(X_train, y_train)
print(f"accuracy {model.score(X_test, y_test):.4f}")

# %%
# The images that it is least sure of, with the two likeliest digits.

probability = model.predict_proba(X_test)
unsure = np.argsort(probability.max(1))[:8]
figure, axes = plt.subplots(1, 8, figsize=(10, 1.9))
for ax, row in zip(axes, unsure):
    ax.imshow(X_test[row].reshape(8, 8), cmap="gray_r")
    first, second = np.argsort(-probability[row])[:2]
    ax.set_title(f"{first} or {second}?\n(a {y_test[row]})", fontsize=8, loc="center")
    ax.set_axis_off()
plt.show()

# %%
# Where the encoder places the test images: the first two of the eight coordinates.

embedding = model.transform(X_test)
figure, ax = plt.subplots(figsize=(5.5, 4.2))
shown = ax.scatter(*embedding[:, :2].T, c=y_test, s=6, cmap="tab10", vmin=-0.5, vmax=9.5)
figure.colorbar(shown, ax=ax, ticks=range(10), label="digit")
ax.set(xlabel="first coordinate", ylabel="second coordinate")
plt.show()
