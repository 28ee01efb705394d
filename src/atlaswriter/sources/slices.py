"""What the key of a slice asks for."""

from __future__ import annotations

# (first row, last row, first column, last column), the last ones exclusive.
Part = tuple[int, int, int, int]


def bounds(key: slice | tuple[slice, slice], shape: tuple[int, ...]) -> Part:
    """First and last row and column of what a key asks for; a vector has one column."""
    rows, columns = key if isinstance(key, tuple) else (key, slice(None))
    first, last, step = rows.indices(shape[0])
    left, right, step_aside = columns.indices(shape[1] if len(shape) == 2 else 1)
    if (step, step_aside) != (1, 1):
        raise IndexError("steps other than 1 are not supported")
    return first, max(first, last), left, max(left, right)
