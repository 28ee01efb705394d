"""From cells × genes to gene after gene: the two passes of a counting sort, which also code the values."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel
from atlaswriter.kernels.quantize import code_of

_INDICES, _VALUES = ("i4", "i8"), ("f4", "f8")


@kernel(
    *(
        f"(i8[::1], {index}[::1], {value}[::1], i8, i8, i8[::1], i8[::1], {value}[::1], {value}[::1], i8[::1])"
        for index in _INDICES
        for value in _VALUES
    )
)
def measure(
    indptr: Any, indices: Any, data: Any, first_row: int, offset: int, last_row: Any, counts: Any, low: Any,
    high: Any, n_missing: Any,
) -> bool:  # fmt: skip
    """Count and bound the entries of each column in some rows.

    Parameters
    ----------
    indptr : int64, (n_rows + 1,)
        Where each row begins, relative to the whole matrix.
    indices : int32 or int64, (nnz,)
        Column of each entry of these rows.
    data : float32 or float64, (nnz,)
        Value of each entry of these rows.
    first_row : int
        Number of the first row.
    offset : int
        Position in the whole matrix of the first entry given here.
    last_row : int64, (n_columns,)
        Last row in which a column had an entry; -1 at first.
    counts : int64, (n_columns,)
        Added to: entries.
    low, high : like ``data``, (n_columns,)
        Smallest and largest finite value, made smaller and larger.
    n_missing : int64, (n_columns,)
        Added to: entries that are NaN or infinite.

    Returns
    -------
    bool
        Whether some row has two entries in one column.
    """
    repeats = False
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] - offset, indptr[row + 1] - offset):
            column, value = np.uintp(indices[entry]), data[entry]
            repeats |= last_row[column] == first_row + row
            last_row[column] = first_row + row
            counts[column] += 1
            if value - value != 0:
                n_missing[column] += 1
                continue
            if value < low[column]:
                low[column] = value
            if value > high[column]:
                high[column] = value
    return repeats


@kernel(
    *(
        f"(i8[::1], {index}[::1], {value}[::1], i8, i8, i4[::1], i8[::1], f8[:, ::1], i8, i8, i8[::1])"
        for index in _INDICES
        for value in _VALUES
    )
)
def place(
    indptr: Any, indices: Any, data: Any, first_row: int, offset: int, slot: Any, cursor: Any, rules: Any, mode: int,
    top: int, entries: Any,
) -> None:  # fmt: skip
    """Code the entries of some rows and put them where their columns are.

    Parameters
    ----------
    indptr, indices, data, first_row, offset
        As in `measure`.
    slot : int32, (n_columns,)
        Number of a column in ``cursor`` and ``rules``, -1 for columns that are not wanted.
    cursor : int64, (n_slots,)
        Next free place of each column; moved forward in place.
    rules, mode, top
        How values are coded (`kernels.quantize`); ``rules`` is (n_slots, 3).
    entries : int64, (n_places,)
        Filled with ``row << 32 | code``, rows ascending within a column. Never written outside of, should the
        matrix be another than when it was counted.
    """
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] - offset, indptr[row + 1] - offset):
            target = slot[np.uintp(indices[entry])]
            if target >= 0:
                to = np.uintp(target)
                position = cursor[to]
                cursor[to] = position + 1
                code = code_of(data[entry], rules[to, 0], rules[to, 1], rules[to, 2], mode, top)
                if position < entries.size:
                    entries[np.uintp(position)] = (first_row + row) << 32 | code


@kernel(
    *(
        f"(i8[::1], {index}[::1], {value}[::1], i8, i4[::1], i8[::1], i8[::1], u4[::1], {value}[::1])"
        for index in _INDICES
        for value in _VALUES
    )
)
def group(
    indptr: Any, indices: Any, data: Any, offset: int, slot: Any, cursor: Any, last: Any, gaps: Any, values: Any
) -> None:
    """Put the entries of some rows where their columns are, as gaps and values.

    Parameters
    ----------
    indptr, indices, data, offset, slot
        As in `measure` and `place`.
    cursor : int64, (n_slots,)
        Next free place of each column; moved forward in place.
    last : int64, (n_slots,)
        Zeros; row of the latest entry of each column, counted from the first row given.
    gaps : uint32, (n_places,)
        Filled with the rows between an entry and the one before it in its column.
    values : like ``data``, (n_places,)
        Filled with their values.
    """
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] - offset, indptr[row + 1] - offset):
            target = slot[np.uintp(indices[entry])]
            if target >= 0:
                to = np.uintp(target)
                position = np.uintp(cursor[to])
                cursor[to] += 1
                gaps[position] = row - last[to]
                last[to] = row
                values[position] = data[entry]


@kernel(*(f"(i8[::1], u4[::1], {value}[::1], i8, f8[:, ::1], i8, i8, i8[::1], i8[::1])" for value in _VALUES))
def append(
    counts: Any, gaps: Any, values: Any, first_row: int, rules: Any, mode: int, top: int, cursor: Any, entries: Any
) -> None:
    """Code the entries that `group` has put in order, behind those of the rows before.

    Parameters
    ----------
    counts : int64, (n_columns,)
        Entries of each column.
    gaps, values
        Of `group`, for these columns.
    first_row : int
        The row that gaps begin at.
    rules, mode, top, entries
        As in `place`.
    cursor : int64, (n_columns,)
        Next free place of each column; moved forward in place.
    """
    place = 0
    for column in range(counts.size):
        low, lift, scale = rules[column, 0], rules[column, 1], rules[column, 2]
        row, position = np.int64(first_row), cursor[column]
        for _ in range(counts[column]):
            row += np.int64(gaps[place])
            entries[np.uintp(position)] = row << 32 | code_of(values[place], low, lift, scale, mode, top)
            place += 1
            position += 1
        cursor[column] = position


@kernel("(u4[::1], i8[::1])")
def in_order(rows: Any, offsets: Any) -> bool:
    """Whether the rows of every column strictly ascend: sorted, none twice.

    Parameters
    ----------
    rows : uint32, (nnz,)
    offsets : int64, (n_columns + 1,)
        Where each column begins.
    """
    for column in range(offsets.size - 1):
        mine = rows[offsets[column] : offsets[column + 1]]
        disorder = False  # without a way out of the loop, which would keep it from being vectorised
        for place in range(1, mine.size):
            disorder |= mine[place - 1] >= mine[place]
        if disorder:
            return False
    return True
