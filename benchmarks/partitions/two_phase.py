"""Two-phase LSGD (Lee et al. 2021): waves of 2 and 8 pieces by residual networks as gates.

After the talk's last figures: the first phase, whose ridge keeps the polynomials small, forms
localized partitions; the second, next to without a ridge, the fit. There are as many partitions
as the target has pieces. The share of the line where no partition has 90 % says how localized
they are. `SHARES` of the steps are the first phase's; 0 is none.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import POURegressor
from skpou.datasets import make_triangle_wave

SEEDS = 1
N, STEPS = 301, 400
SHARES = (0.0, 0.5)
X_TEST = np.linspace(0, 1, 5001)[:, None]


def run(seeds, quick):
    table, steps = harness.Table(), 20 if quick else STEPS
    X = np.linspace(0, 1, N)[:, None]
    for squared, degree in ((False, 1), (True, 2)):
        for n_pieces in (2,) if quick else (2, 8):
            frequency = n_pieces if squared else n_pieces // 2
            y, truth = (
                make_triangle_wave(X=P, frequency=frequency, squared=squared)[1]
                for P in (X, X_TEST)
            )
            for gate, share in ((g, s) for g in ("residual", "rbf") for s in SHARES):
                runs = []
                for seed in range(seeds):
                    model = POURegressor(
                        n_pieces, degree, gate=gate, solver="lsgd", max_iter=steps,
                        init="box" if gate == "residual" else "data",
                        pre_iter=int(share * steps), random_state=seed,
                    )  # fmt: skip
                    seconds = harness.fit(model, X, y)
                    left = harness.rms(model.predict(X) - y) / harness.rms(y)
                    error = harness.rms(model.predict(X_TEST) - truth) / harness.rms(truth)
                    blended = np.mean(model.partition_proba(X_TEST).max(1) < 0.9)
                    runs.append((error, left, blended, seconds))
                middle, worst = np.median(runs, axis=0), np.max(runs, axis=0)
                kind = "squared" if squared else "triangle"
                row = {"task": f"{kind}, {n_pieces} pieces", "gates": gate}
                row |= {"first phase": int(share * steps), "steps": steps}
                row |= {"median error": float(middle[0]), "worst error": float(worst[0])}
                row |= {"at the samples": float(middle[1]), "blended": float(middle[2])}
                table.add(row | {"fit (s)": float(middle[3]), "seeds": seeds})
    return table
