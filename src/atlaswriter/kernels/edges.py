"""Undirected edges of a sparse cells × cells pattern, block of rows by block of rows, sorted, each once.

The pattern is that of ``A + Aᵀ`` without its diagonal. Entries above the diagonal are already grouped
by their smaller end. Those below it either mirror them, which `survey` finds out, and need not be looked
at again; or they are brought there by a counting sort, some columns at a time, which leaves them sorted,
and merged with those above.

Every kernel takes a block of whole rows: ``indptr``, int64 (n_rows + 1,), from 0; ``indices``, int32 or
int64, in ``[0, n_cells)``, ascending within a row, which may repeat; and ``first``, the row it begins with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part

_INDICES = ("i4", "i8")
_BLOCKS = tuple(f"(i8[::1], {index}[::1]" for index in _INDICES)

# What `survey` adds up: distinct entries below and above the diagonal, two hashes of the latter less those
# of the former, and the largest number of distinct entries of a row.
BELOW, ABOVE, HASH, OTHER_HASH, LARGEST_ROW = range(5)
SUMS = 5
# Where `take_upper` and `merge` are: row of the block, entry (-1 before a row), entry of `below`, neighbours so far;
# edges written; most neighbours.
ROW, ENTRY, BELOW_ENTRY, NEIGHBORS, WRITTEN, MOST = range(6)
STATE = 6

_SHIFT = np.uint64(32)
_SEED, _OTHER_SEED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)


@kernel(*(f"{block})" for block in _BLOCKS))
def rows_ascend(indptr: Any, indices: Any) -> bool:
    """Whether the column numbers of every row ascend; repeats are allowed."""
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] + 1, indptr[row + 1]):
            if indices[entry - 1] > indices[entry]:
                return False
    return True


@kernel(*(f"{block})" for block in _BLOCKS))
def sort_rows(indptr: Any, indices: Any) -> None:
    """Sort the column numbers of every row, by Shell's method: rows are short, and long ones no disaster."""
    for row in range(indptr.size - 1):
        begin, end = indptr[row], indptr[row + 1]
        gap = 1
        while 9 * gap < end - begin:
            gap = 3 * gap + 1
        while gap:
            for entry in range(begin + gap, end):
                column = indices[entry]
                place = entry
                while place >= begin + gap and indices[place - gap] > column:
                    indices[place] = indices[place - gap]
                    place -= gap
                indices[place] = column
            gap //= 3


@part
def _mixed(x: Any) -> Any:
    """64 bits that look random: the last steps of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel(*(f"{block}, i8, u8[::1])" for block in _BLOCKS))
def survey(indptr: Any, indices: Any, first: int, sums: Any) -> bool:
    """Add a block to ``sums``, uint64 (5,); False, and nothing added, when a row does not ascend.

    The entries below the diagonal are the mirror of those above when their numbers are equal and both hashes,
    sums modulo 2⁶⁴ over pairs of cells, come out 0. Other matrices pass for such with a chance of 2⁻¹²⁸.
    """
    n_below = n_above = largest = 0
    one = other = np.uint64(0)
    for row in range(indptr.size - 1):
        cell = first + row
        previous = np.int64(-1)
        before = n_below + n_above
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if column <= previous:
                if column < previous:
                    return False
                continue
            previous = column
            if column < cell:
                n_below += 1
                pair = (np.uint64(column) << _SHIFT) | np.uint64(cell)
                one -= _mixed(pair + _SEED)
                other -= _mixed(pair + _OTHER_SEED)
            elif column > cell:
                n_above += 1
                pair = (np.uint64(cell) << _SHIFT) | np.uint64(column)
                one += _mixed(pair + _SEED)
                other += _mixed(pair + _OTHER_SEED)
        largest = max(largest, n_below + n_above - before)
    sums[BELOW] += np.uint64(n_below)
    sums[ABOVE] += np.uint64(n_above)
    sums[HASH] += one
    sums[OTHER_HASH] += other
    sums[LARGEST_ROW] = max(sums[LARGEST_ROW], np.uint64(largest))
    return True


@kernel(*(f"{block}, i8, i8[::1], u4[::1], u4[::1])" for block in _BLOCKS))
def take_upper(indptr: Any, indices: Any, first: int, state: Any, sources: Any, destinations: Any) -> bool:
    """Write the distinct entries above the diagonal as edges; False when there is no room for more.

    ``state``, int64 (6,), says where to begin and where it stopped.
    """
    position = state[WRITTEN]
    for row in range(state[ROW], indptr.size - 1):
        cell = first + row
        entry = indptr[row] if state[ENTRY] < 0 else state[ENTRY]
        state[ENTRY] = -1
        last = cell
        while entry < indptr[row + 1]:
            column = indices[entry]
            if column > last:
                if position == sources.size:
                    state[ROW], state[ENTRY], state[WRITTEN] = row, entry, position
                    return False
                sources[position] = cell
                destinations[position] = column
                position += 1
                last = column
            entry += 1
    state[ROW], state[WRITTEN] = indptr.size - 1, position
    return True


@kernel(*(f"{block}, i8, u4[::1])" for block in _BLOCKS))
def count_below(indptr: Any, indices: Any, first: int, counts: Any) -> None:
    """Count the distinct entries below the diagonal by column."""
    for row in range(indptr.size - 1):
        previous = np.int64(-1)
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if column >= first + row:
                break
            if column != previous:
                counts[column] += 1
            previous = column


@kernel("(u4[::1], i8, i8)")
def make_starts(counts: Any, base: int, room: int) -> tuple[int, int]:
    """Turn counts, from cell ``base`` on, into where each begins, as long as all end within ``room``.

    Returns the cell it stopped before, and where the last one ends.
    """
    total = 0
    for cell in range(base, counts.size):
        count = counts[cell]
        if total + count > room:
            return cell, total
        counts[cell] = total
        total += count
    return counts.size, total


@kernel(*(f"{block}, i8, i8, i8, u4[::1], u4[::1])" for block in _BLOCKS))
def place_below(indptr: Any, indices: Any, first: int, base: int, stop: int, starts: Any, below: Any) -> None:
    """Write the row of each distinct entry below the diagonal, in columns ``base`` to ``stop``, at its column's place.

    ``starts`` of these columns, uint32 (n_cells,), become where they end. Never writes outside of ``below``, should
    the matrix be another than when it was counted.
    """
    for row in range(indptr.size - 1):
        previous = np.int64(-1)
        end = min(first + row, stop)
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if column >= end:
                break
            if column >= base and column != previous and starts[column] < below.size:
                below[starts[column]] = first + row
                starts[column] += 1
            previous = column


@kernel(*(f"{block}, i8, i8, u4[::1], u4[::1], u4[::1], i8[::1], u4[::1], u4[::1])" for block in _BLOCKS))
def merge(
    indptr: Any,
    indices: Any,
    first: int,
    base: int,
    ends: Any,
    below: Any,
    extra: Any,
    state: Any,
    sources: Any,
    destinations: Any,
) -> bool:
    """Write every edge whose smaller end is a row of the block; False when there is no room for more.

    Parameters
    ----------
    base
        Cell whose entries come first in ``below``.
    ends
        uint32 (n_cells,): where the entries of each cell end in ``below``.
    below
        uint32: rows of the entries below the diagonal, ascending, column by column.
    extra
        uint32 (n_cells,), zeros at first: neighbours that a cell's own row does not name, from rows before it.
    state
        int64 (6,): where to begin and where it stopped.
    sources, destinations
        uint32.
    """
    position, most = state[WRITTEN], state[MOST]
    for row in range(state[ROW], indptr.size - 1):
        cell = first + row
        a, a_end = state[ENTRY], indptr[row + 1]
        b, b_end, neighbors = state[BELOW_ENTRY], np.int64(ends[cell]), state[NEIGHBORS]
        if a < 0:
            a, b = indptr[row], np.int64(ends[cell - 1]) if cell > base else 0
            neighbors = np.int64(extra[cell])
            previous = np.int64(-1)
            while a < a_end and indices[a] <= cell:
                if indices[a] != previous and indices[a] != cell:
                    neighbors += 1
                previous = indices[a]
                a += 1
        while a < a_end or b < b_end:
            if position == sources.size:
                state[ROW], state[ENTRY], state[BELOW_ENTRY], state[NEIGHBORS] = row, a, b, neighbors
                state[WRITTEN], state[MOST] = position, most
                return False
            if a == a_end:
                last = np.int64(below[b])
                b += 1
            else:
                last = np.int64(indices[a])
                if b < b_end and below[b] < last:
                    last = np.int64(below[b])
                    b += 1
                else:
                    if b < b_end and below[b] == last:
                        b += 1
                    else:
                        extra[last] += 1
                    a += 1
                    while a < a_end and indices[a] == last:
                        a += 1
            sources[position] = cell
            destinations[position] = last
            position += 1
            neighbors += 1
        most = max(most, neighbors)
        state[ENTRY] = -1
    state[ROW], state[WRITTEN], state[MOST] = indptr.size - 1, position, most
    return True
