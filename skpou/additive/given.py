"""Terms that were asked for, with as many functions as fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skpou.additive.basis import AdditiveBasis, Block
from skpou.additive.terms import FIRST_PAIR, LARGEST_TRIPLE
from skpou.core import Scaling


def given_terms(
    basis: AdditiveBasis, terms: Sequence[tuple[int, ...]], n_splines: int, max_columns: int
) -> list[Block]:
    """Blocks of terms whose columns are given, as many functions a column as fit.

    Terms of columns that have no functions, since they are constant or copies, are left out.

    Parameters
    ----------
    n_splines : int
        Most functions of a main effect.

    Raises
    ------
    ValueError
        If one function for each column of a term is too much.
    """
    place = {feature: k for k, feature in enumerate(basis.kept)}
    kept = [tuple(place[j] for j in term) for term in terms if all(j in place for j in term)]

    def blocks_of(n_main: int, n_product: int) -> list[Block]:
        blocks = []
        for columns in sorted(kept, key=lambda columns: (len(columns), columns)):
            most = [basis.columns[j].n_functions for j in columns]
            if len(columns) == 1:
                last = min(n_main, most[0])
                blocks.append(Block(columns, (0,), (1,)))
                blocks += [Block(columns, (1,), (last,))] * (last > 1)
                continue
            # Of three columns fewer: their products are many.
            n = n_product if len(columns) == 2 else min(n_product, LARGEST_TRIPLE)
            blocks.append(Block(columns, (0,) * len(columns), tuple(min(n, k) for k in most)))
        return blocks

    sizes = [(n_splines, n) for n in range(FIRST_PAIR, 0, -1)]
    sizes += [(n, 1) for n in range(n_splines - 1, 0, -1)]
    for n_main, n_product in sizes:
        blocks = blocks_of(n_main, n_product)
        if 1 + sum(block.size for block in blocks) <= max_columns:
            return blocks
    raise ValueError(
        f"{len(kept)} terms with one function a column have more columns than "
        f"max_columns={max_columns}. Raise it, or give fewer terms."
    )


def places_of_terms(
    terms: Any, box: Scaling, n_features: int
) -> tuple[tuple[int, ...], ...] | None:
    """Terms by places among the columns that vary, without those of constant columns.

    None where none are given. Raises ValueError for what is no term of so many columns.
    """
    if isinstance(terms, str):
        return None
    place = {int(column): k for k, column in enumerate(box.columns)}
    found = set()
    for given in terms:
        term = tuple(given) if isinstance(given, list | tuple) else (given,)
        whole = all(isinstance(j, int | np.integer) and 0 <= j < n_features for j in term)
        if not (whole and 1 <= len(set(term)) == len(term) <= 3):
            raise ValueError(
                "terms must be tuples of one to three different columns from 0 to "
                f"{n_features - 1}. Got {given!r}."
            )
        if all(j in place for j in term):
            found.add(tuple(sorted(place[j] for j in term)))
    return tuple(sorted(found))
