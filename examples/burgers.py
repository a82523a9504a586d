"""
An exponent of Burgers' equation
================================

Near a shock the solution of u_t + u u_x = 0 looks the same at all scales: with the right lambda,
-lambda U + ((1 + lambda) y + U) U' = 0 for U(y). A smooth odd solution through U(2) = -1 exists for
lambda = 1/2. The fit is told three values, the equation, the symmetry, and bounds for lambda.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import LSGDRegressor
from skpou.physics import Equation, Symmetry, Unknown


def self_similar(u, y, p):
    return -p["lambda"] * u() + ((1 + p["lambda"]) * y[:, 0] + u()) * u.d(0)


# Points are denser towards 0, where the solution for a wrong exponent is not smooth.
half = 1 - np.cos(np.linspace(0, np.pi, 300))
points = np.r_[-half[:0:-1], half][:, None]
model = LSGDRegressor(
    physics=[Equation(self_similar, points, gradient_weight=0.15), Symmetry("odd", 0)],
    unknowns={"lambda": Unknown(0.6, bounds=(0.3, 1.3))},
)
model.fit([[-2.0], [0.0], [2.0]], [1.0, 0.0, -1.0])
print(f"lambda - 1/2 = {model.unknowns_['lambda'] - 0.5:.1e}")

# %%
# The solution is known in implicit form, so that its error can be shown.

U = np.linspace(-1, 1, 401)
y = -U - U**3
predicted = model.predict(y[:, None])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
left.plot(y, predicted, color="#0072b2", label="fit")
left.plot([-2, 0, 2], [1, 0, -1], "o", color="0.3", label="given values")
left.set(title=f"Solution, lambda = {model.unknowns_['lambda']:.13f}", xlabel="y", ylabel="U")
left.legend(frameon=False)
right.semilogy(y, np.abs(predicted - U) + 1e-18, color="#0072b2", lw=1)
right.set(title="Error", xlabel="y", ylabel="|error|", ylim=(1e-18, 1e-12))
plt.show()
