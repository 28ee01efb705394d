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
        Filled with ``row << 32 | code``, rows ascending within a column.
    """
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] - offset, indptr[row + 1] - offset):
            target = slot[np.uintp(indices[entry])]
            if target >= 0:
                to = np.uintp(target)
                position = cursor[to]
                cursor[to] = position + 1
                code = code_of(data[entry], rules[to, 0], rules[to, 1], rules[to, 2], mode, top)
                entries[np.uintp(position)] = (first_row + row) << 32 | code


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
