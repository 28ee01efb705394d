"""Numbers to codes of up to 32 bits.

Nearest (ours): ``code = round((value - low) * scale)`` in float64 with ``scale = top / (high - low)``,
so that the minimum is code 0 and the maximum the top code. Truncate (cellucid 0.0.9): the same in
float32, cut off instead of rounded. NaN and infinities become the missing code, ``top + 1``. Float32:
the bits of the value, which float32 holds; NaN and infinities become NaN.

How a column is coded is a row of ``rules``, float64 (n_columns, 3): ``low``, ``lift`` and ``scale``, with
``code = ((value - low) * lift) * scale``; ``lift`` is a power of two, 1 except where ``scale`` alone
would overflow. ``mode`` and ``top`` are those of all columns.

Sparse columns lie one behind the other in ``values``, (nnz,), and ``offsets``, int64 (n_columns + 1,),
says where each begins. One call does many, so that threads need not take turns at Python between two
genes. A coded entry is one int64, ``row << 32 | code``: one stream of memory instead of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part

NEAREST, TRUNCATE, FLOAT32 = range(3)
_VALUES = ("f4", "f8")
_NAN_BITS = 0x7FC00000


@part
def code_of(value: Any, low: float, lift: float, scale: float, mode: int, top: int) -> Any:
    """Code of one value."""
    if value - value != 0:  # NaN or infinite
        return _NAN_BITS if mode == FLOAT32 else top + 1
    if mode == NEAREST:
        return np.int64(np.int32((np.float64(value) - low) * lift * scale + 0.5))
    if mode == FLOAT32:
        return np.int64(np.float32(value).view(np.uint32))
    # Where 0.0.9's scale overflows, 0 * inf is NaN, which its cast to an integer turns into 0.
    code = (np.float32(value) - np.float32(low)) * np.float32(scale)
    return np.int64(min(max(code, np.float32(0)), np.float32(top))) if code == code else np.int64(0)


@part
def _bounds(values: Any) -> Any:
    # Four at a time, which wait less for each other, and without min and max, which mind NaN: 0.36 ns a value,
    # where these took 0.73.
    infinite = values.dtype.type(np.inf)
    a, b, c, d = infinite, infinite, infinite, infinite
    e, f, g, h = -infinite, -infinite, -infinite, -infinite
    whole, odd = values.size - values.size % 4, False
    for place in range(0, whole, 4):
        w, x, y, z = values[place], values[place + 1], values[place + 2], values[place + 3]
        odd |= (w != w) | (x != x) | (y != y) | (z != z)
        a, b, c, d = w if w < a else a, x if x < b else b, y if y < c else c, z if z < d else d  # noqa: FURB136
        e, f, g, h = w if w > e else e, x if x > f else f, y if y > g else g, z if z > h else h  # noqa: FURB136
    low, high, first = np.float64(min(a, b, c, d)), np.float64(max(e, f, g, h)), whole
    if odd or low == -np.inf or high == np.inf:
        low, high, first = np.float64(np.inf), np.float64(-np.inf), 0
    n_finite = first
    for place in range(first, values.size):
        value = values[place]
        if np.isfinite(value):
            n_finite += 1
            low = min(low, value)
            high = max(high, value)
    return low, high, n_finite


@kernel(*(f"({value}[::1], i8[::1], i8, f8[:, ::1], i8[::1])" for value in _VALUES))
def bounds(values: Any, offsets: Any, n_rows: int, low_high: Any, n_missing: Any) -> None:
    """Smallest and largest finite value of each column, with the zeros that are not stored.

    Parameters
    ----------
    values : float32 or float64, (nnz,)
    offsets : int64, (n_columns + 1,)
    n_rows : int
        Length of every column.
    low_high : float64, (n_columns, 2)
        Filled; ``inf, -inf`` where nothing is finite.
    n_missing : int64, (n_columns,)
        Filled with the number of stored values that are NaN or infinite.
    """
    for column in range(offsets.size - 1):
        first, last = offsets[column], offsets[column + 1]
        low, high, n_finite = _bounds(values[first:last])
        n_missing[column] = last - first - n_finite
        if last - first < n_rows:
            low, high = min(low, 0.0), max(high, 0.0)
        low_high[column, 0], low_high[column, 1] = low, high


@kernel(*(f"(u4[::1], {value}[::1], i8[::1], f8[:, ::1], i8, i8, i8[::1])" for value in _VALUES))
def pack(rows: Any, values: Any, offsets: Any, rules: Any, mode: int, top: int, entries: Any) -> None:
    """Coded entries of sparse columns.

    Parameters
    ----------
    rows : uint32, (nnz,)
    values : float32 or float64, (nnz,)
    offsets : int64, (n_columns + 1,)
    rules : float64, (n_columns, 3)
    mode : int
        NEAREST, TRUNCATE or FLOAT32.
    top : int
        Largest code, 254 or 65534.
    entries : int64, (nnz,)
        Filled with ``row << 32 | code``.
    """
    for column in range(offsets.size - 1):
        low, lift, scale = rules[column, 0], rules[column, 1], rules[column, 2]
        mine = slice(offsets[column], offsets[column + 1])
        its_rows, its_values, its_entries = rows[mine], values[mine], entries[mine]
        for place in range(its_rows.size):
            code = code_of(its_values[place], low, lift, scale, mode, top)
            its_entries[place] = np.int64(its_rows[place]) << 32 | code


@kernel(*(f"({value}[::1], f8[::1], i8, i8, {code}[::1])" for value in _VALUES for code in ("u1", "u2", "u4")))
def dense(values: Any, rule: Any, mode: int, top: int, codes: Any) -> None:
    """Codes of one dense column: ``values`` and ``codes`` are (n,), ``rule`` is (3,); float32 as its bits."""
    low, lift, scale = rule[0], rule[1], rule[2]
    for place in range(values.size):
        codes[place] = code_of(values[place], low, lift, scale, mode, top)


@kernel(*(f"(i8[::1], {code}[::1])" for code in ("u1", "u2", "u4")))
def scatter(entries: Any, column: Any) -> None:
    """Write the coded entries of one column into a dense one; other rows stay."""
    for entry in entries:
        column[entry >> 32 & 0xFFFFFFFF] = entry & 0xFFFFFFFF
