"""
Columns that are names
======================

Prices of flats by area, age, district and heating. Districts are many and without an order, kinds
of heating are few. A ``TargetEncoder`` makes the first a number, the mean price of a district, of
which the fit still finds how it counts; a ``OneHotEncoder`` makes the others columns of zeros and
ones, each a term of its own.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

from skpou import AdditivePOURegressor

rng = np.random.default_rng(0)
DISTRICTS = [f"district {k:02d}" for k in range(40)]
LEVELS = dict(zip(DISTRICTS, 0.25 * rng.standard_normal(40), strict=True))
HEATINGS = {"gas": 0.0, "oil": -0.08, "heat pump": 0.1, "stove": -0.2}


def sample(n):
    """Flats, the logarithm of their price without noise, and with it."""
    flats = pd.DataFrame(
        {
            "area": rng.gamma(6, 13, n) + 20,
            "age": rng.uniform(0, 120, n),
            "district": rng.choice(DISTRICTS, n),
            "heating": rng.choice(list(HEATINGS), n),
        }
    )
    truth = 0.9 * np.log(flats["area"]) - 0.3 * np.sin(flats["age"] / 38)
    truth += flats["district"].map(LEVELS) + flats["heating"].map(HEATINGS)
    return flats, truth.to_numpy(), truth.to_numpy() + 0.1 * rng.standard_normal(n)


flats, _, prices = sample(800)
fresh, truth, _ = sample(2000)

# %%
# The encoders stand before the fit in a pipeline: ``TargetEncoder`` then encodes each row by the
# others, so that a district's number does not know the row's own price.


def encoded(model):
    """A pipeline: numbers as they are, names as columns."""
    columns = make_column_transformer(
        (TargetEncoder(target_type="continuous"), ["district"]),
        (OneHotEncoder(sparse_output=False), ["heating"]),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    return make_pipeline(columns, model)


model = encoded(AdditivePOURegressor()).fit(flats, prices)
rivals = {
    "additive": model,
    "ridge": encoded(RidgeCV()).fit(flats, prices),
    "boosting": encoded(HistGradientBoostingRegressor(random_state=0)).fit(flats, prices),
}
for name, rival in rivals.items():
    error = np.sqrt(np.mean((rival.predict(fresh) - truth) ** 2))
    print(f"{name}: rms error {error:.3f}, of a noise of 0.1")

# %%
# Terms are those of the encoded columns, by name.

additive = model[-1]
names = additive.feature_names_in_
size = additive.predict_terms(model[:-1].transform(flats)).std(0)
for place in np.argsort(-size)[:6]:
    term = " and ".join(names[j] for j in additive.terms_[place])
    print(f"{term}: size {size[place]:.3f}")

# %%
# Left: each district at its true level, and the prediction for one and the same flat there. Right:
# predictions against the truth.

same = pd.DataFrame({"area": 80.0, "age": 20.0, "district": DISTRICTS, "heating": "gas"})
mean, std = model.predict(same, return_std=True)
expected = 0.9 * np.log(80) - 0.3 * np.sin(20 / 38) + np.array([LEVELS[d] for d in DISTRICTS])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
left.errorbar(expected, mean, 2 * std, fmt=".", lw=0.8, label="two standard deviations")
left.axline((expected.min(),) * 2, slope=1, color="grey", lw=0.8)
left.set(xlabel="truth", ylabel="log price of one flat", title="forty districts")
left.legend(loc="lower right")
right.plot(truth, model.predict(fresh), ".", ms=2)
right.axline((truth.min(),) * 2, slope=1, color="grey", lw=0.8)
right.set(xlabel="truth", ylabel="prediction", title="2000 new flats")
plt.show()
