"""From cells × genes to gene after gene: the two passes of a counting sort."""

from __future__ import annotations

from typing import Any

from atlaswriter.kernels._jit import kernel


@kernel("(i4[::1], i8[::1])", "(i8[::1], i8[::1])")
def count(indices: Any, counts: Any) -> None:
    """Add the number of entries of each column to ``counts``.

    Parameters
    ----------
    indices : int32 or int64, (nnz,)
        Column of each entry.
    counts : int64, (n_columns,)
        Added to in place.
    """
    for column in indices:
        counts[column] += 1


@kernel(
    *(
        f"(i8[::1], {index}[::1], {value}[::1], i8, i8, i4[::1], i8[::1], u4[::1], {value}[::1])"
        for index in ("i4", "i8")
        for value in ("f4", "f8")
    )
)
def place(
    indptr: Any, indices: Any, data: Any, first_row: int, offset: int, slot: Any, cursor: Any, rows: Any, values: Any
) -> None:
    """Copy the entries of some rows to the places of their columns.

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
    slot : int32, (n_columns,)
        Number of a column in ``cursor``, -1 for columns that are not wanted.
    cursor : int64, (n_slots,)
        Next free place of each column; moved forward in place.
    rows : uint32, (n_places,)
        Filled with row numbers, ascending within a column.
    values : like ``data``, (n_places,)
        Filled with values.
    """
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] - offset, indptr[row + 1] - offset):
            target = slot[indices[entry]]
            if target >= 0:
                position = cursor[target]
                cursor[target] = position + 1
                rows[position] = first_row + row
                values[position] = data[entry]
