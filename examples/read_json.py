"""
A model read from JSON
======================

Evaluate a model from its JSON, with NumPy alone: a reader to start from in other languages.
``python read_json.py model.json < rows.csv`` reads rows of X from standard input and prints the
mean of y. Without arguments it fits a model, writes it, reads it back, and prints how far the two
are apart.
"""

import json
import sys

import numpy as np

FUNCTIONS = {
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "relu": lambda z: np.maximum(z, 0),
    "log_cosh": lambda z: np.abs(z) + np.log1p(np.exp(-2 * np.abs(z))) - np.log(2),
    "exp_minus": lambda z: np.exp(-z),
    "inverse": lambda z: 1 / (1 + z),
    "stretch": lambda z: np.log1p(np.maximum(z, 0)) + np.minimum(z, 0),
}


def evaluate(model, x):
    """Mean (n_outputs,) at one row x (n_features,); model is what json.load returns."""
    known = {"x": np.asarray(x, dtype=float)}
    for step in model["steps"]:
        v, *others = [known[name] for name in step["inputs"]]
        s = {k: np.array(p) if isinstance(p, list) else p for k, p in step.items()}
        known[step["name"]] = STEPS[step["operation"]](s, v, *others)
    return known[model["steps"][-1]["name"]]


def scale(s, x):
    return s["factor"] * ((x[s["columns"].astype(int)] - s["offset"]) / s["width"]) + s["shift"]


def distances(s, v):
    return s["rate"] * ((v - s["centres"].reshape(len(s["rate"]), -1)) ** 2).sum(1)


def legendre(s, v):
    return np.stack([np.polynomial.Legendre.basis(k)(v) for k in range(s["degree"] + 1)], 1).ravel()


def products(s, v):
    result = np.ones(s["size"])
    for i in range(1, s["size"]):
        result[i] = result[s["parent"][i]] * v[s["factor"][i]]
    return result


def softmax(s, v):
    same = s["group"][:, None] == s["group"]
    shifted = np.exp(v - np.where(same, v, -np.inf).max(1))
    return shifted / (same @ shifted)


def total(s, v):
    return np.array([v[s["group"] == i].sum() for i in range(s["size"])])


def sparse_grid(s, u):
    result = 0.0
    for vector, number in zip(s["vectors"].reshape(-1, len(u)), s["first"]):
        value, cells = 1.0, 0
        for x, factor in zip(u, vector):
            side = 2 ** s["shift"][factor]
            cell = min(max(np.floor(x * side), 0), side - 1)
            z, kind = x * side - cell, s["kind"][factor]
            left, right = kind == "modified" and cell == 0, kind == "modified" and cell == side - 1
            hat = 2 - 2 * z if left else 2 * z if right else 1 - abs(2 * z - 1)
            value *= {"constant": 1.0, "left": 1 - x, "right": x}.get(str(kind), hat)
            cells = cells * side + int(cell)
        result = result + value * s["coef"][number + cells]
    return result


STEPS = {
    "scale": scale,
    "affine": lambda s, v: s["matrix"].reshape(s["size"], -1) @ v + s["bias"],
    "apply": lambda s, v: FUNCTIONS[s["function"]](v),
    "distances": distances,
    "legendre": legendre,
    "products": products,
    "softmax": softmax,
    "multiply": lambda s, v, w: v[s["left"]] * w[s["right"]],
    "sum": total,
    "add": lambda s, *parts: np.sum(parts, 0),
    "sparse_grid": sparse_grid,
}


def main():
    if len(sys.argv) > 1:
        with open(sys.argv[1]) as file:
            model = json.load(file)
        for row in np.loadtxt(sys.stdin, delimiter=",", ndmin=2):
            print(*evaluate(model, row).tolist(), sep=",")
        return
    from skpou import HierarchicalPOURegressor
    from skpou.datasets import make_curved_ridge
    from skpou.export import to_json

    X, y = make_curved_ridge(2000, kind="kinked", random_state=0)
    fitted = HierarchicalPOURegressor().fit(X, y)
    text = to_json(fitted)
    model = json.loads(text)
    points = np.random.default_rng(1).uniform(X.min(0), X.max(0), (200, 2))
    read = np.array([evaluate(model, point)[0] for point in points])
    apart = np.abs(read - fitted.predict(points)).max()
    print(f"{len(text)} bytes, {len(model['steps'])} steps; largest difference {apart:.1e}")


if __name__ == "__main__":
    main()
