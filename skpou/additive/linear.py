"""Linear data are seen to be linear: then no other terms are searched for.

What a linear model leaves at left-out rows is compared with all bends of single columns, with all
products of two, and with itself at the nearest row. Where nothing stands out, terms would be kept
for nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from scipy.special import ndtri
from torch import Tensor

from skpou.additive.basis import line_products
from skpou.additive.terms import DECAYS, LINE, Candidate, TermSearch, kind_of
from skpou.core.linalg import LEAST_SPREAD, TINY, evenly

#: Rows from which errors tell bends and products well enough to leave the search out: at least so
#: many, and so many for each column. Of fewer, evidence knows more than tests one by one.
FEWEST_ROWS, ROWS_A_COLUMN = 400, 10
#: Columns from which a search is long enough to be spared.
FEWEST_COLUMNS = 4
#: Chance that the largest of all comparisons refuses linear data, which costs time alone.
BY_CHANCE = 0.05
#: Standard deviations that the mean square of all comparisons, and the product of neighbours, may
#: be above what they are by chance.
MOST_DEVIATIONS = 2.5
#: Most rows at which neighbours are compared.
MOST_ROWS = 1000
#: Root mean square of the errors, in units of y, that counts as none.
EXACT = 1e-12


def linear_terms(search: TermSearch) -> Candidate | None:
    """Straight lines of all columns, where nothing else can be seen in the rows.

    Returns
    -------
    Candidate or None
        None where something else can be seen, or rows or columns are few.
    """
    n, d = search.T.shape
    if d < FEWEST_COLUMNS or n < max(FEWEST_ROWS, ROWS_A_COLUMN * d):
        return None
    lines = [block for block in search.main_effects() if kind_of(block) == LINE]
    candidate = search.fit(search.basis.with_blocks(lines), DECAYS[0])
    candidate = replace(candidate, basis=candidate.basis.lines())
    error = candidate.fit.left_out(search.rows.y)[0]
    weight = search.rows.weight
    if float((weight @ error.square() / weight.sum()).sqrt()) <= EXACT:
        return candidate
    weighted = weight * error
    ratios = [bends(search, weighted)]
    if search.max_order > 1:
        products = line_products(search.values, weighted)
        above = torch.ones_like(products, dtype=torch.bool).triu(1)
        ratios.append(products[above])
    ratio = torch.cat(ratios)
    if not len(ratio):
        return candidate
    largest = -ndtri(BY_CHANCE / (2 * len(ratio)))
    mean = float(ratio.square().mean())
    most = 1 + MOST_DEVIATIONS * math.sqrt(2 / len(ratio))
    striking = float(ratio.abs().max()) > largest or mean > most
    return None if striking or neighbours(search.rows.X, weighted) > MOST_DEVIATIONS else candidate


def bends(search: TermSearch, weighted: Tensor) -> Tensor:
    """Sums of weighted errors times each function that is no line, in standard deviations."""
    functions = torch.cat([value[:, 1 : search.n_splines] for value in search.values], 1)
    deviation = (weighted.square() @ functions.square()).sqrt()
    return (weighted @ functions) / deviation.clamp_min(TINY)


def neighbours(X: Tensor, weighted: Tensor) -> float:
    """Sum of the products of each row's error with its nearest row's, in standard deviations."""
    some = evenly(len(X), MOST_ROWS)
    X, weighted = X[some], weighted[some]
    Z = (X - X.mean(0)) / X.std(0, correction=0).clamp_min(LEAST_SPREAD)
    distance = torch.cdist(Z, Z).fill_diagonal_(torch.inf)
    product = weighted * weighted[distance.argmin(1)]
    return float(product.sum() / product.square().sum().sqrt().clamp_min(TINY))
