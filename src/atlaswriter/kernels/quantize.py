"""One column of numbers to codes.

Nearest (ours): ``code = round((value - low) * scale)`` in float64 with ``scale = top / (high - low)``,
so that the minimum is code 0 and the maximum the top code. Truncate (cellucid 0.0.9): the same in
float32, cut off instead of rounded. NaN and infinities become the missing code, ``top + 1``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel

_VALUES = ("f4", "f8")
_CODES = ("u1", "u2")


@kernel("(f4[::1],)", "(f8[::1],)")
def bounds(values: Any) -> tuple[float, float, int]:
    """Smallest and largest finite value, and how many are finite.

    Parameters
    ----------
    values : float32 or float64, (n,)

    Returns
    -------
    low, high : float64
        ``inf, -inf`` when nothing is finite.
    n_finite : int
    """
    low, high, n_finite = np.inf, -np.inf, 0
    for value in values:
        if np.isfinite(value):
            n_finite += 1
            low = min(low, value)
            high = max(high, value)
    return low, high, n_finite


@kernel("(u4[::1],)", "(i4[::1],)", "(i8[::1],)")
def ascending(rows: Any) -> bool:
    """Whether row numbers strictly ascend: sorted, none twice."""
    for position in range(1, rows.size):
        if rows[position - 1] >= rows[position]:
            return False
    return True


@kernel(*(f"({value}[::1], f8, f8, f8, i8, {code}[::1])" for value in _VALUES for code in _CODES))
def nearest(values: Any, low: float, lift: float, scale: float, top: int, codes: Any) -> None:
    """Codes of a dense column, rounded to nearest.

    Parameters
    ----------
    values : float32 or float64, (n,)
    low : float
        Smallest finite value.
    lift, scale : float
        ``code = ((value - low) * lift) * scale``; ``lift`` is a power of two, 1 except where
        ``scale`` alone would overflow.
    top : int
        Largest code, 254 or 65534; one more means missing.
    codes : uint8 or uint16, (n,)
        Filled in place.
    """
    for position in range(values.size):
        value = np.float64(values[position])
        if np.isfinite(value):
            codes[position] = np.int64((value - low) * lift * scale + 0.5)
        else:
            codes[position] = top + 1


@kernel(
    *(
        f"({row}[::1], {value}[::1], f8, f8, f8, i8, {code}[::1])"
        for row in ("u4", "i4", "i8")
        for value in _VALUES
        for code in _CODES
    )
)
def nearest_sparse(rows: Any, values: Any, low: float, lift: float, scale: float, top: int, codes: Any) -> int:
    """Codes of a sparse column into a dense one: as `nearest`, with zeros where no value is given.

    ``rows`` (uint32, int32 or int64, (nnz,)) holds the row of each value; ``codes`` is (n,). Returns
    the code of 0.
    """
    zero = np.int64((0.0 - low) * lift * scale + 0.5)
    codes[:] = zero
    for position in range(values.size):
        value = np.float64(values[position])
        if np.isfinite(value):
            codes[rows[position]] = np.int64((value - low) * lift * scale + 0.5)
        else:
            codes[rows[position]] = top + 1
    return int(zero)


@kernel(*(f"(f4[::1], f4, f4, i8, {code}[::1])" for code in _CODES))
def truncate(values: Any, low: float, scale: float, top: int, codes: Any) -> None:
    """Codes of a dense float32 column as cellucid 0.0.9 computes them, bit for bit.

    Arguments as in `nearest`; arithmetic in float32. Where 0.0.9's scale overflows, ``0 * inf`` is
    NaN, which its cast to an integer turns into 0.
    """
    largest = np.float32(top)
    for position in range(values.size):
        value = values[position]
        if np.isfinite(value):
            code = (value - low) * scale
            codes[position] = np.int64(min(max(code, np.float32(0)), largest)) if code == code else 0
        else:
            codes[position] = top + 1


@kernel(*(f"({row}[::1], {value}[::1], f4[::1])" for row in ("u4", "i4", "i8") for value in _VALUES))
def scatter(rows: Any, values: Any, column: Any) -> None:
    """A sparse column as dense float32, zeros where no value is given."""
    column[:] = 0
    for position in range(values.size):
        column[rows[position]] = values[position]
