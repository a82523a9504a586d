"""Measurements behind the documentation's tables: ``python -m benchmarks``."""

import os

# Before numpy and torch read them; every benchmark runs on one thread.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
