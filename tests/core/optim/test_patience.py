"""Descents of variable projection that are given up where they creep."""

import numpy as np
import torch

from skpou.core.optim.varpro import ProjectedProblem, levenberg_marquardt
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.partitions.gates.products import PartitionPolynomials
from skpou.partitions.gates.tree import GateForm


def test_an_impatient_descent_ends_where_it_creeps(monkeypatch):
    rng = np.random.default_rng(0)
    X = torch.as_tensor(rng.random((120, 1)))
    y = torch.sin(9 * X)
    features, polynomials = GateForm(2).basis(1).matrix(X), TotalDegreePolynomials(1, 1).matrix(X)
    parents = [torch.zeros(4, dtype=torch.int64)]
    basis = PartitionPolynomials.of_features(polynomials, [features], parents)
    start = torch.as_tensor(rng.standard_normal(basis.n_parameters))

    def steps(patient):
        problem = ProjectedProblem(basis, y, torch.ones(120, dtype=y.dtype))
        found = levenberg_marquardt(problem, start, patient=patient)
        return len(found.curve) - 1, found.state.rms()

    long, best = steps(True)
    short, left = steps(False)
    assert short <= long
    assert best <= left
    # Whatever is gained is too little.
    monkeypatch.setattr("skpou.core.optim.progress.CREEPING_GAIN", 1e300)
    assert steps(False)[0] <= 50
    assert steps(True)[0] == long
