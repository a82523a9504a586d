"""Which features and columns of a basis make up each term."""

from __future__ import annotations

from skpou.additive.basis import AdditiveBasis


def features_of(basis: AdditiveBasis, number: int) -> tuple[int, ...]:
    """Features of the points in a block of a basis; all that have functions in the remainder."""
    block = basis.blocks[number]
    if block.order == 0:
        return basis.kept
    return tuple(basis.kept[j] for j in block.columns)


def columns_of(basis: AdditiveBasis) -> dict[tuple[int, ...], list[int]]:
    """Columns of the basis matrix that make up each term."""
    result: dict[tuple[int, ...], list[int]] = {}
    start = 1
    for number, block in enumerate(basis.blocks):
        columns = result.setdefault(features_of(basis, number), [])
        columns += range(start, start + block.size)
        start += block.size
    return result
