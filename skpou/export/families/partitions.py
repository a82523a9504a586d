"""Programs of partitions of unity: gates down a tree, and the functions that they blend."""

from __future__ import annotations

from typing import Any

import numpy as np

from skpou.export.families.networks import hidden_layers
from skpou.export.families.program import Program, double
from skpou.partitions import gate_polynomials


def partition_program(model: Any) -> Program:
    """Mean of a fitted partition regressor: ``sum_k pi_k(x) p_k(x)``, Eq. 8."""
    if not hasattr(model, "mixture_"):
        raise ValueError("A solution of equations on boxes cannot be written; to_table can.")
    box, levels = model.scaling_, model.mixture_
    program = Program(model.n_features_in_, np.asarray(box["columns"]))
    t = program.scale(box, factor=2.0, shift=-1.0)
    pi = partitions(program, t, levels, box)
    if levels[-1].get("space") == "fourier":
        functions = program.waves(program.scale(box), model.degree_)
    else:
        functions = program.polynomials(t, model.degree_)
    return program.in_units_of_y(blended(program, pi, functions, double(levels[-1]["coef"])), box)


def blended(program: Program, pi: str, functions: str, coef: np.ndarray) -> str:
    """Sum (m,) over partitions of their experts, with coefficients (N, P, m); Eq. 8."""
    n_leaves, _, m = coef.shape
    # Entry k * m + i is target i of expert k.
    values = program.affine(functions, coef.transpose(0, 2, 1).reshape(n_leaves * m, -1))
    entry = np.arange(n_leaves * m)
    weighted = program.multiply(pi, values, entry // m, entry)
    return program.sum(weighted, entry % m, m)


def partitions(program: Program, t: str, levels: list[dict], box: dict[str, np.ndarray]) -> str:
    """Partitions of the finest level, Eqs. 20 to 22; gates of networks need the `box`."""
    pi = ""
    for level in levels:
        logits = _logits(program, t, level, box)
        gate = program.softmax(logits, level["parent"], level["sharp"])
        if pi:
            entry = np.arange(len(level["parent"]))
            gate = program.multiply(pi, gate, level["parent"], entry)
        pi = gate
    return pi


def _logits(program: Program, t: str, level: dict, box: dict[str, np.ndarray]) -> str:
    polynomials = gate_polynomials(level, program.size(t))
    if polynomials is None:
        return _network_logits(program, level, box)
    degree, theta = polynomials
    return program.affine(program.polynomials(t, degree), theta)


def _network_logits(program: Program, level: dict, box: dict[str, np.ndarray]) -> str:
    """Logits of networks, one for each parent (Eq. 21)."""
    u, theta, parts = program.scale(box), double(level["theta"]), []
    for parent, hidden in enumerate(double(level["network"]["theta"])):
        units = hidden_layers(program, u, level["network"], hidden)
        own = np.where((level["parent"] == parent)[:, None], theta, 0.0)
        parts.append(program.affine(units, own[:, 1:], own[:, 0]))
    return program.add(parts)
