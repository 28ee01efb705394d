"""Undirected edges of a sparse cells × cells pattern, sorted, each once, in O(entries).

The pattern is that of ``A + Aᵀ`` without its diagonal. Entries above the diagonal are already
grouped by their smaller end; those below are brought there by a counting sort, which leaves them
sorted. Merging the two lists of a cell gives its edges.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from atlaswriter.kernels._jit import kernel

_INDICES = ("i4", "i8")


@kernel(*(f"(i8[::1], {index}[::1])" for index in _INDICES))
def rows_ascend(indptr: Any, indices: Any) -> bool:
    """Whether the column numbers of every row ascend; repeats are allowed."""
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] + 1, indptr[row + 1]):
            if indices[entry - 1] > indices[entry]:
                return False
    return True


@kernel(*(f"(i8[::1], {index}[::1], i8[::1])" for index in _INDICES))
def count_below(indptr: Any, indices: Any, starts: Any) -> None:
    """Count the entries below the diagonal by column into ``starts[column + 1]``."""
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            if indices[entry] >= row:
                break
            starts[indices[entry] + 1] += 1


@kernel(*(f"(i8[::1], {index}[::1], i8[::1], {index}[::1])" for index in _INDICES))
def place_below(indptr: Any, indices: Any, cursor: Any, below: Any) -> None:
    """Write the row of each entry below the diagonal at the place of its column."""
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if column >= row:
                break
            below[cursor[column]] = row
            cursor[column] += 1


@njit(inline="always")
def _next(here: int, end: int, last: int, ends: Any) -> int:
    while here < end and ends[here] <= last:
        here += 1
    return here


@kernel(
    *(
        f"(i8[::1], {index}[::1], i8[::1], {index}[::1], i8[::1], {end}[::1], {end}[::1])"
        for index in _INDICES
        for end in ("u2", "u4", "u8")
    )
)
def merge(indptr: Any, indices: Any, starts: Any, below: Any, degrees: Any, sources: Any, destinations: Any) -> int:
    """Write both ends of every edge, sorted by (source, destination); return how many there are.

    Parameters
    ----------
    indptr : int64, (n_cells + 1,)
    indices : int32 or int64, (nnz,)
        Ascending within a row.
    starts : int64, (n_cells + 1,)
        Where each column's entries begin in ``below``.
    below : like ``indices``
        Rows of the entries below the diagonal, column by column.
    degrees : int64, (n_cells,)
        Zeros; filled with neighbours per cell.
    sources, destinations : uint16, uint32 or uint64, (nnz,)
        Filled from the front.
    """
    position = 0
    for cell in range(indptr.size - 1):
        a, a_end = indptr[cell], indptr[cell + 1]
        b, b_end = starts[cell], starts[cell + 1]
        last = cell
        while True:
            a = _next(a, a_end, last, indices)
            b = _next(b, b_end, last, below)
            if a < a_end and (b >= b_end or indices[a] <= below[b]):
                last = indices[a]
            elif b < b_end:
                last = below[b]
            else:
                break
            sources[position] = cell
            destinations[position] = last
            position += 1
            degrees[cell] += 1
            degrees[last] += 1
    return position
