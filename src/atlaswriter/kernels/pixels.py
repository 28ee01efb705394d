"""Pixels to 8 bit, and images to half their size.

What these compute is what celldega 0.27.0 gets from NumPy (`stretch`) and libvips 8.18 (halves), bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel


@kernel("(u1[::1], u1[::1], u1[::1])", "(u2[::1], u1[::1], u1[::1])")
def look_up(values: Any, table: Any, out: Any) -> None:
    """``table[value]`` of each value; the table, uint8, has an entry for every value of the dtype.

    Measured: 0.2 ns a pixel, where NumPy's indexing takes 2.
    """
    for place in range(values.size):
        out[place] = table[values[place]]


@kernel("(u4[::1], f4, u1[::1])")
def stretch(values: Any, limit: float, out: Any) -> None:
    """``trunc(min(value, limit) / limit * 255)`` in float32, of values too many for a table."""
    for place in range(values.size):
        value: Any = np.float32(values[place])
        out[place] = np.uint8(min(value, limit) / limit * np.float32(255))


@kernel("(u1[::1], u1[::1])")
def triple(values: Any, out: Any) -> None:
    """Each value three times: grey as red, green and blue. Measured: 0.4 ns a pixel, where NumPy takes 3."""
    for place in range(values.size):
        out[3 * place] = values[place]
        out[3 * place + 1] = values[place]
        out[3 * place + 2] = values[place]


@kernel("(u1[:, ::1], u1[:, ::1])")
def halve_grey(image: Any, out: Any) -> None:
    """Rounded mean of each 2 × 2 pixels; an odd last row or column counts twice.

    Parameters
    ----------
    image : uint8, (h, w)
    out : uint8, (ceil(h / 2), ceil(w / 2))
    """
    height, width = image.shape
    for row in range(out.shape[0]):
        upper, lower = image[2 * row], image[min(2 * row + 1, height - 1)]
        for column in range(width // 2):
            left = np.uint16(upper[2 * column]) + np.uint16(lower[2 * column])
            right = np.uint16(upper[2 * column + 1]) + np.uint16(lower[2 * column + 1])
            out[row, column] = (left + right + 2) >> 2
        if width % 2:
            out[row, width // 2] = (2 * np.uint16(upper[width - 1]) + 2 * np.uint16(lower[width - 1]) + 2) >> 2


@kernel("(u1[:, :, ::1], u1[:, :, ::1])")
def halve_colour(image: Any, out: Any) -> None:
    """As `halve_grey`, of each of three colours: (h, w, 3)."""
    height, width = image.shape[0], image.shape[1]
    for row in range(out.shape[0]):
        upper, lower = image[2 * row], image[min(2 * row + 1, height - 1)]
        for column in range(out.shape[1]):
            left, right = 2 * column, min(2 * column + 1, width - 1)
            for colour in range(3):
                total = np.uint16(upper[left, colour]) + np.uint16(lower[left, colour])
                total += np.uint16(upper[right, colour]) + np.uint16(lower[right, colour])
                out[row, column, colour] = (total + 2) >> 2


@kernel(*(f"({dtype}[::1], f8, f8, u1[::1])" for dtype in ("i4", "u4", "f4", "f8")))
def spread(values: Any, low: float, high: float, out: Any) -> None:
    """``floor((value - low) / (high - low) * 255 + 0.5)``, values beyond the limits as these, NaN as 0; high > low."""
    # Half of everything where the span is more than float64 can hold.
    unit = 1.0 if high - low < np.inf else 0.5
    low, span = low * unit, high * unit - low * unit
    for place in range(values.size):
        value: Any = np.float64(values[place])
        share = (value * unit - low) / span * 255.0 + 0.5
        out[place] = np.uint8(min(max(share, 0.0), 255.5)) if share == share else np.uint8(0)
