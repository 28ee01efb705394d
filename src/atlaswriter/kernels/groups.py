"""Cells by category: means, distances to them, ranks of distances and their order statistics.

Coordinates are taken as ``(raw - center) * scale``, in float64 and never rounded, so the same
kernels serve normalised embeddings and, with center 0 and scale 1, latent spaces. Sums run over the
cells in their order, so a result does not depend on how the work is shared out.

A distance is handled as its key: its bits as int64, which are never negative and keep the order of
distances (of the smallest first; NaN last).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from atlaswriter.kernels._jit import kernel, part

TOP_KEY = np.iinfo(np.int64).max

# Columns of the table that `probe` works by; what SHIFT says besides how far keys are shifted to be a bin.
LOW, HIGH, SHIFT, AT, BELOW, ABOVE = range(6)
PROBE_COLUMNS = 6
KEEP, LOOK_ABOVE, SKIP = -1, -2, -3
# Columns of what is known of the order statistic searched for: it is among SIZE keys from FROM to TO
# (inclusive), with BEFORE smaller ones; RANK is its position among all, from 0.
FROM, TO, BEFORE, SIZE, RANK = range(5)
SEARCH_COLUMNS = 5

# Digits of 8 bits, and insertion below 33: of 6, 8 and 10 bits and 16, 32 and 64 the fastest or as fast at 1,000,
# 100,000, 2 and 20 million keys. There it took 17, 27, 39 and 42 ns a key, NumPy's argsort 24, 51, 94 and 170,
# a quicksort of keys and cells 12, 63, 78 and 89.
_DIGIT_BITS = 8
_DIGITS = 1 << _DIGIT_BITS
_INSERTION = 32
# Counts and places of digits, and the bounds of parts left to sort: those of one part for each of eight digits.
_SCRATCH = 2 * _DIGITS + 2 * 8 * _DIGITS

_COORDS_AND_CODES = [(coords, codes) for coords in ("f4", "f8") for codes in ("u1", "u2")]


@njit(inline="always")
def _step(coords: Any, cell: int, axis: int, center: Any, scale: float, mean: Any) -> Any:
    return (np.float64(coords[cell, axis]) - center[axis]) * scale - mean[axis]


@njit(inline="always")
def _distance(coords: Any, cell: int, center: Any, scale: float, mean: Any) -> Any:
    # Four sums that do not wait for each other; their order is fixed, so equal rows have equal distances.
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = mean.size - mean.size % 4
    for axis in range(0, whole, 4):
        first += _step(coords, cell, axis, center, scale, mean) ** 2
        second += _step(coords, cell, axis + 1, center, scale, mean) ** 2
        third += _step(coords, cell, axis + 2, center, scale, mean) ** 2
        fourth += _step(coords, cell, axis + 3, center, scale, mean) ** 2
    for axis in range(whole, mean.size):
        first += _step(coords, cell, axis, center, scale, mean) ** 2
    return np.sqrt((first + second) + (third + fourth))


@njit(inline="always")
def _key(distance: float) -> Any:
    return np.float64(distance).view(np.int64) & TOP_KEY  # NaN may have a sign


@kernel("(u1[::1], i8[::1])", "(u2[::1], i8[::1])")
def count(codes: Any, counts: Any) -> None:
    """Add the number of cells of each category to ``counts``; codes past its end are missing."""
    for code in codes:
        if code < counts.size:
            counts[code] += 1


@kernel(*(f"({x}[:, ::1], {c}[::1], f8[::1], f8, f8[:, ::1], f8[::1])" for x, c in _COORDS_AND_CODES))
def add(coords: Any, codes: Any, center: Any, scale: float, sums: Any, squares: Any) -> None:
    """Add each cell's coordinates to the sum of its category.

    Parameters
    ----------
    coords : float32 or float64, (n_cells, d)
    codes : uint8 or uint16, (n_cells,)
        Codes past the end of ``sums`` are missing.
    center : float64, (d,)
    scale : float
    sums : float64, (n_categories, d)
        Added to in place.
    squares : float64, (n_categories,) or (0,)
        Unless empty, each cell's squared distance from the origin is added to that of its category.
    """
    for cell in range(codes.size):
        code = codes[cell]
        if code < sums.shape[0]:
            square = 0.0
            for axis in range(center.size):
                value = (np.float64(coords[cell, axis]) - center[axis]) * scale
                sums[code, axis] += value
                square += value * value
            if squares.size:
                squares[code] += square


@kernel(
    *(f"({x}[:, ::1], {c}[::1], f8[::1], f8, f8[:, ::1], i8[::1], i8[::1], u4[::1], i8)" for x, c in _COORDS_AND_CODES)
)
def distances(
    coords: Any, codes: Any, center: Any, scale: float, means: Any, cursor: Any, keys: Any, cells: Any, first: int
) -> None:
    """Distance of each cell to the mean of its category, category after category.

    Parameters
    ----------
    coords, codes, center, scale
        As in `add`.
    means : float64, (n_categories, d)
    cursor : int64, (n_categories,)
        Place of the next cell of each category, -1 for categories to leave out; moved forward in place.
    keys, cells : int64 and uint32, (n_grouped,)
        Filled with the keys of distances and the cells they belong to.
    first : int
        Number of the first cell given.
    """
    for cell in range(codes.size):
        code = codes[cell]
        if code < cursor.size and cursor[code] >= 0:
            position = cursor[code]
            cursor[code] = position + 1
            keys[position] = _key(_distance(coords, cell, center, scale, means[code]))
            cells[position] = first + cell


@kernel(
    *(f"({x}[:, ::1], {c}[::1], f8[::1], f8, f8[:, ::1], f8[::1], i8[::1], f8[:, ::1])" for x, c in _COORDS_AND_CODES)
)
def add_near(
    coords: Any, codes: Any, center: Any, scale: float, means: Any, reach: Any, counts: Any, sums: Any
) -> None:
    """As `add`, for the cells no farther than ``reach`` (float64, (n_categories,)) from their mean.

    ``counts`` (int64, (n_categories,)) and ``sums`` are added to in place.
    """
    for cell in range(codes.size):
        code = codes[cell]
        if code < reach.size and _distance(coords, cell, center, scale, means[code]) <= reach[code]:
            counts[code] += 1
            for axis in range(center.size):
                sums[code, axis] += (np.float64(coords[cell, axis]) - center[axis]) * scale


# ---------------------------------------------------------------- ranks


@part
def _top_shift(keys: Any, first: int, last: int) -> Any:
    """How far the highest digit in which some of these keys differ is from the right; -1 if all are equal."""
    differ = 0
    for position in range(first, last):
        differ |= keys[position] ^ keys[first]
    n_bits = 0
    while differ:
        differ >>= 1
        n_bits += 1
    return max(n_bits - _DIGIT_BITS, 0) if n_bits else -1


@part
def _insert(keys: Any, cells: Any, first: int, last: int) -> None:
    for position in range(first + 1, last):
        key, cell, place = keys[position], cells[position], position
        while place > first and keys[place - 1] > key:
            keys[place], cells[place] = keys[place - 1], cells[place - 1]
            place -= 1
        keys[place], cells[place] = key, cell


@part
def _by_digit(keys: Any, cells: Any, first: int, last: int, shift: int, heads: Any, ends: Any) -> None:
    """Bring keys with the same digit together, in place; `ends` is where each digit's end then."""
    ends[:] = 0
    for position in range(first, last):
        ends[(keys[position] >> shift) & (_DIGITS - 1)] += 1
    for digit in range(_DIGITS):
        heads[digit] = first
        first += ends[digit]
        ends[digit] = first
    for digit in range(_DIGITS):
        for start in range(heads[digit], ends[digit]):
            key, cell = keys[start], cells[start]
            target = (key >> shift) & (_DIGITS - 1)
            while target != digit:
                place = heads[target]
                heads[target] = place + 1
                keys[place], key = key, keys[place]
                cells[place], cell = cell, cells[place]
                target = (key >> shift) & (_DIGITS - 1)
            keys[start], cells[start] = key, cell


@part
def _sort(keys: Any, cells: Any, first: int, last: int, scratch: Any) -> None:
    """Sort by key, from the highest digit down, in place."""
    heads, ends, waiting = scratch[:_DIGITS], scratch[_DIGITS : 2 * _DIGITS], scratch[2 * _DIGITS :]
    n_waiting = 2
    waiting[0], waiting[1] = first, last
    while n_waiting:
        n_waiting -= 2
        first, last = waiting[n_waiting], waiting[n_waiting + 1]
        if last - first <= _INSERTION:
            _insert(keys, cells, first, last)
            continue
        shift = _top_shift(keys, first, last)
        if shift < 0:
            continue
        _by_digit(keys, cells, first, last, shift, heads, ends)
        for digit in range(_DIGITS if shift else 0):
            if ends[digit] - first > _INSERTION:
                waiting[n_waiting], waiting[n_waiting + 1] = first, ends[digit]
                n_waiting += 2
            else:
                _insert(keys, cells, first, ends[digit])
            first = ends[digit]


@kernel("(i8[::1], u4[::1], i8[::1], b1[::1])")
def sort(keys: Any, cells: Any, starts: Any, wanted: Any) -> None:
    """Sort the cells of each wanted category by their keys.

    Parameters
    ----------
    keys, cells : int64 and uint32, (n_grouped,)
    starts : int64, (n_categories + 1,)
        Where each category begins in both.
    wanted : bool, (n_categories,)
    """
    scratch = np.empty(_SCRATCH, np.int64)
    for category in range(wanted.size):
        if wanted[category]:
            _sort(keys, cells, starts[category], starts[category + 1], scratch)


@kernel("(i8[::1], u4[::1], i8[::1], f4[::1])")
def ranks(keys: Any, cells: Any, starts: Any, quantiles: Any) -> None:
    """Share of a category's cells at the same distance or nearer, for each of its cells.

    Parameters
    ----------
    keys, cells, starts
        As in `sort`, which is done here too.
    quantiles : float32, (n_cells,)
        Filled at these cells: rank / m, equal distances sharing the highest rank; both numbers
        are float32 before they are divided, as in cellucid 0.0.9.
    """
    scratch = np.empty(_SCRATCH, np.int64)
    for category in range(starts.size - 1):
        first, last = starts[category], starts[category + 1]
        _sort(keys, cells, first, last, scratch)
        share, before = np.float32(1), np.int64(-1)
        for position in range(last - 1, first - 1, -1):
            if keys[position] != before:
                before = keys[position]
                share = np.float32(position + 1 - first) / np.float32(last - first)
            quantiles[cells[position]] = share


@kernel(*(f"(i8[::1], u4[::1], {codes}[::1], i8[::1], i8[::1], u4[::1])" for codes in ("u1", "u2")))
def regroup(keys: Any, cells: Any, codes: Any, cursor: Any, grouped: Any, grouped_cells: Any) -> None:
    """Put keys and their cells, which come in any order, where `cursor` (moved forward) says for their category."""
    for position in range(keys.size):
        code = codes[cells[position]]
        place = cursor[code]
        cursor[code] = place + 1
        grouped[place], grouped_cells[place] = keys[position], cells[position]


@part
def _sink(heap: Any, heads: Any, place: int, size: int) -> None:
    """Restore the order below `place` of a heap of runs, the one with the largest head on top."""
    run = heap[place]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and heads[heap[child + 1]] > heads[heap[child]]:
            child += 1
        if heads[heap[child]] <= heads[run]:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = run


@kernel("(i8[:, ::1], u4[:, ::1], i8[::1], b1[::1], i8[::1], f4[::1], i8)")
def merge_ranks(keys: Any, cells: Any, left: Any, more: Any, state: Any, quantiles: Any, size: int) -> Any:
    """As `ranks`, of one category in sorted runs, from the farthest cell inwards.

    Parameters
    ----------
    keys, cells : int64 and uint32, (n_runs, n)
        The last entries of each run that are not merged yet, ascending.
    left : int64, (n_runs,)
        How many; counted down.
    more : bool, (n_runs,)
        Whether a run goes on where these end.
    state : int64, (3,)
        Cells not merged yet, and key and rank of the last one that was; ``(size, -1, 0)`` to begin with.
    quantiles : float32, (n_cells,)
        Filled at the cells merged.
    size : int
        Cells of the category.

    Returns the run that has to be refilled before merging can go on; -1 when all are merged.
    """
    heap, heads = np.empty(left.size, np.int64), np.empty(left.size, np.int64)
    n_runs = 0
    for run in range(left.size):
        if left[run]:
            heap[n_runs], heads[run] = run, keys[run, left[run] - 1]
            n_runs += 1
    for place in range(n_runs // 2 - 1, -1, -1):
        _sink(heap, heads, place, n_runs)
    rest, before, rank = state[0], state[1], state[2]
    empty = -1
    while n_runs:
        run = heap[0]
        if heads[run] != before:
            before, rank = heads[run], rest
        left[run] -= 1
        quantiles[cells[run, left[run]]] = np.float32(rank) / np.float32(size)
        rest -= 1
        if left[run]:
            heads[run] = keys[run, left[run] - 1]
        elif more[run]:
            empty = run
            break
        else:
            n_runs -= 1
            heap[0] = heap[n_runs]
        _sink(heap, heads, 0, n_runs)
    state[0], state[1], state[2] = rest, before, rank
    return empty


# ---------------------------------------------------------------- order statistics


@kernel(
    *(f"({x}[:, ::1], {c}[::1], f8[::1], f8, f8[:, ::1], i8[:, ::1], u4[::1], i8[::1])" for x, c in _COORDS_AND_CODES)
)
def probe(coords: Any, codes: Any, center: Any, scale: float, means: Any, table: Any, bins: Any, kept: Any) -> None:
    """Look at the distances of each category by a line of a table.

    Parameters
    ----------
    coords, codes, center, scale, means
        As in `distances`.
    table : int64, (n_categories, `PROBE_COLUMNS`)
        Keys from LOW to HIGH (inclusive) are counted, in bin ``AT + ((key - LOW) >> SHIFT)``, or kept
        (at AT, which moves forward), or left alone; SHIFT says which. Of the others, those smaller
        are counted in BELOW, and ABOVE becomes the smallest of those larger.
    bins, kept : uint32 and int64
    """
    for cell in range(codes.size):
        code = codes[cell]
        if code < table.shape[0] and table[code, SHIFT] != SKIP:
            key = _key(_distance(coords, cell, center, scale, means[code]))
            low, high, shift = table[code, LOW], table[code, HIGH], table[code, SHIFT]
            if not low <= key <= high:
                # No branch on whether it is below or above, which is hard to predict: 12 ns a cell, not 17.
                table[code, BELOW] += key < low
                table[code, ABOVE] = min(table[code, ABOVE], key if key > high else TOP_KEY)
            elif shift >= 0:
                bins[table[code, AT] + ((key - low) >> shift)] += 1
            elif shift == KEEP:
                kept[table[code, AT]] = key
                table[code, AT] += 1


@part
def _narrow_one(line: Any, bins: Any, search: Any) -> None:
    until, passed = search[BEFORE] + search[SIZE], line[BELOW]
    if search[RANK] < passed:
        search[TO], search[SIZE] = line[LOW] - 1, passed - search[BEFORE]
        return
    low = line[LOW]
    for position in range(line[AT], line[AT] + ((line[HIGH] - line[LOW]) >> line[SHIFT]) + 1):
        if search[RANK] < passed + bins[position]:
            search[FROM], search[BEFORE], search[SIZE] = low, passed, bins[position]
            search[TO] = low + min(line[HIGH] - low, (1 << line[SHIFT]) - 1)
            return
        passed += bins[position]
        low += 1 << line[SHIFT]
    search[FROM], search[BEFORE], search[SIZE] = line[HIGH] + 1, passed, until - passed


@kernel("(i8[:, ::1], u4[::1], i8[:, ::1])")
def narrow(table: Any, bins: Any, searches: Any) -> None:
    """Narrow each search (int64, (n_categories, `SEARCH_COLUMNS`)) whose keys `probe` has put in bins."""
    for category in range(table.shape[0]):
        if table[category, SHIFT] >= 0:
            _narrow_one(table[category], bins, searches[category])


@part
def _select(keys: Any, first: int, last: int, rank: int, bins: Any) -> Any:
    """The key of a rank among these, and the next larger one or the same again; keys are moved about."""
    following = TOP_KEY
    while True:
        shift = _top_shift(keys, first, last)
        if shift < 0:
            return keys[first], keys[first] if rank + 1 < last - first else following
        bins[:] = 0
        for position in range(first, last):
            bins[(keys[position] >> shift) & (_DIGITS - 1)] += 1
        digit = 0
        while rank >= bins[digit]:
            rank -= bins[digit]
            digit += 1
        end, following_here = first, TOP_KEY
        for position in range(first, last):
            key = keys[position]
            its_digit = (key >> shift) & (_DIGITS - 1)
            if its_digit == digit:
                keys[end] = key
                end += 1
            elif its_digit > digit:
                following_here = min(following_here, key)
        following, last = min(following, following_here), end


@kernel("(i8[:, ::1], i8[::1], i8[:, ::1], i8[:, ::1])")
def select(table: Any, kept: Any, searches: Any, found: Any) -> None:
    """End the searches whose keys `probe` has kept, or which are down to one key.

    ``found`` (int64, (n_categories, 2)) is filled with the key of the rank searched for and the one
    of the next rank (`TOP_KEY` where there is none).
    """
    bins = np.empty(_DIGITS, np.int64)
    for category in range(table.shape[0]):
        size = searches[category, SIZE]
        rank = searches[category, RANK] - searches[category, BEFORE]
        if table[category, SHIFT] == KEEP:
            last = table[category, AT]
            key, following = _select(kept, last - size, last, rank, bins)
        elif table[category, SHIFT] == LOOK_ABOVE:
            key = searches[category, FROM]
            following = key
        else:
            continue
        found[category, 0] = key
        found[category, 1] = following if rank + 1 < size else table[category, ABOVE]
