"""The package `multistage` (K. Unalmis, JAX) on the papers' target, 300 even points from -1 to 1.

It has networks in stages for differential equations. Here its residual is that of the data, of
order 0 in the derivatives, and instead of its 1024 points between the samples those that it takes
the frequency and the size of a stage's target from are the samples: it sees no more than the other
methods. Three hidden layers of 20 as in the lecture, in each of its trainings: Adam, L-BFGS, and
L-BFGS followed by Levenberg-Marquardt, its "trust region".

It lives in another environment, whose interpreter the variable SKPOU_MULTISTAGE names; without it
there is nothing to measure. That interpreter runs this file, too, and then imports no other:
``PYTHON benchmarks/multi_stage_package.py TRAINING SEED SHARE OUT.npz``, SHARE of the steps.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SEEDS = 1
N, N_STAGES = 300, 3
#: Steps of a stage by Adam or L-BFGS, and of Levenberg-Marquardt after those.
TRAININGS = {"Adam": (5000, 0), "L-BFGS": (2000, 0), "trust region": (1000, 50)}


def target(x):
    return np.sin(2 * x + 1) + 0.2 * np.exp(1.3 * x)


def samples():
    return np.linspace(-1, 1, N), np.linspace(-1, 1, 10_001)


def functions(x, u):
    """What the package is told about the task: residuals and losses, as in its own tests."""
    import jax
    import jax.numpy as jnp

    def residual(net, *mesh):
        predicted = jax.vmap(net)(x)
        return predicted, predicted - u

    def differences(net, x, u, *added):
        return (jax.vmap(net)(x) - u) / jnp.sqrt(len(u))

    def loss(net, x, u, *added):
        return jnp.square(differences(net, x, u)).sum()

    return residual, differences, loss


def train(training, seed, share):
    """Errors of each stage at the samples and between them; seconds, compilation included."""
    import jax
    import jax.numpy as jnp
    import multistage
    import optax

    steps, more_steps = (int(share * count) for count in TRAININGS[training])
    x, fresh = samples()
    X, u = jnp.array(x), jnp.array(target(x))
    residual, differences, loss = functions(X, u)
    first, later = jax.random.split(jax.random.PRNGKey(seed))
    ends = jnp.array([-1.0]), jnp.array([1.0])
    net = multistage.Stage1(*ends, 1, 1, width_size=20, depth=3, key=first)
    found = []

    def note(net, stage, name, step=None):
        if step is None:
            at, between = (np.array(jax.vmap(net)(jnp.array(t))) - target(t) for t in (x, fresh))
            found.append([np.sqrt(np.mean(np.square(e))) for e in (at, between)])

    options = {
        "n_stages": N_STAGES, "width_size": 20, "depth": 3, "order": (0,), "key": later,
        "num_samples_for_epsilon": (N,), "adaptive_sample_freq": 0, "checkpoint_every": 0,
        "print_every": steps, "benchmark_state": note,
    }  # fmt: skip
    start = time.process_time()
    if training == "trust region":
        multistage.multistage_trust_region_train(
            net, residual, residual, loss, loss, differences, differences, (X,), u,
            more_steps, steps, **options,
        )  # fmt: skip
    else:
        rate, optimiser = (1e-3, optax.adam) if training == "Adam" else (None, optax.lbfgs)
        multistage.multistage_train(
            net, residual, residual, loss, loss, (X,), u, optimiser, steps, learning_rate=rate,
            **options,
        )  # fmt: skip
    return np.array(found), time.process_time() - start


def call(interpreter, training, seed, share):
    """Train in a process of that interpreter; the package writes models into its folder."""
    with tempfile.TemporaryDirectory() as folder:
        found = str(Path(folder, "out.npz"))
        environment = dict(os.environ)
        environment.pop("PYTHONPATH", None)
        command = [interpreter, __file__, training, str(seed), str(share), found]
        subprocess.run(command, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        return dict(np.load(found))


def run(seeds, quick):
    from benchmarks.shared import harness

    table, interpreter = harness.Table(), os.environ.get("SKPOU_MULTISTAGE")
    if not interpreter:
        print("  SKPOU_MULTISTAGE is not set: nothing measured")
        return table
    for training in TRAININGS:
        share = 0.1 if quick else 1.0
        runs = [call(interpreter, training, seed, share) for seed in range(seeds)]
        for stage in range(N_STAGES):
            at, between = np.array([found["errors"][stage] for found in runs]).T
            table.add({
                "method": f"multistage, {training}",
                "stage": stage + 1,
                "at the samples": float(np.median(at)),
                "between the samples": float(np.median(between)),
                "worst between": float(between.max()),
                "fit (s)": float(np.median([found["seconds"] for found in runs])),
                "seeds": seeds,
            })  # fmt: skip
    return table


def main():
    training, seed, share, path = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        # JAX has threads for each core that it sees, which only wait for each other here.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    errors, seconds = train(training, int(seed), float(share))
    np.savez(path, errors=errors, seconds=seconds)


if __name__ == "__main__":
    main()
