"""Cells by category: means, distances to them, and ranks of distances.

Coordinates are taken as ``(raw - center) * scale``, in float64 and never rounded, so the same
kernels serve normalised embeddings and, with center 0 and scale 1, latent spaces. Sums run over the
cells in their order, so a result does not depend on how the work is shared out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from atlaswriter.kernels._jit import kernel

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


@kernel("(u1[::1], i8[::1])", "(u2[::1], i8[::1])")
def count(codes: Any, counts: Any) -> None:
    """Add the number of cells of each category to ``counts``; codes past its end are missing."""
    for code in codes:
        if code < counts.size:
            counts[code] += 1


@kernel(*(f"({x}[:, ::1], {c}[::1], f8[::1], f8, f8[:, ::1])" for x, c in _COORDS_AND_CODES))
def add(coords: Any, codes: Any, center: Any, scale: float, sums: Any) -> None:
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
    """
    for cell in range(codes.size):
        code = codes[cell]
        if code < sums.shape[0]:
            for axis in range(center.size):
                sums[code, axis] += (np.float64(coords[cell, axis]) - center[axis]) * scale


@kernel(
    *(f"({x}[:, ::1], {c}[::1], f8[::1], f8, f8[:, ::1], i8[::1], f8[::1], u4[::1], i8)" for x, c in _COORDS_AND_CODES)
)
def distances(
    coords: Any, codes: Any, center: Any, scale: float, means: Any, cursor: Any, grouped: Any, cells: Any, first: int
) -> None:
    """Distance of each cell to the mean of its category, category after category.

    Parameters
    ----------
    coords, codes, center, scale
        As in `add`.
    means : float64, (n_categories, d)
    cursor : int64, (n_categories,)
        Place of the next cell of each category, -1 for categories to leave out; moved forward in place.
    grouped : float64, (n_grouped,)
        Filled with distances.
    cells : uint32, (n_grouped,) or (0,)
        Filled with the cells they belong to, unless empty.
    first : int
        Number of the first cell given.
    """
    for cell in range(codes.size):
        code = codes[cell]
        if code < cursor.size and cursor[code] >= 0:
            position = cursor[code]
            cursor[code] = position + 1
            grouped[position] = _distance(coords, cell, center, scale, means[code])
            if cells.size:
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


@kernel("(f8[::1], i8[::1], u4[::1], f4[::1])")
def ranks(grouped: Any, order: Any, cells: Any, quantiles: Any) -> None:
    """Share of a category's cells at the same distance or nearer, for each of its cells.

    Parameters
    ----------
    grouped : float64, (m,)
        Distances of one category's cells.
    order : int64, (m,)
        Positions that sort them.
    cells : uint32, (m,)
        The cells they belong to.
    quantiles : float32, (n_cells,)
        Filled at these cells: rank / m, equal distances sharing the highest rank; both numbers
        are float32 before they are divided, as in cellucid 0.0.9.
    """
    count = order.size
    rank = count
    for position in range(count - 1, -1, -1):
        if position + 1 < count and grouped[order[position]] != grouped[order[position + 1]]:
            rank = position + 1
        quantiles[cells[order[position]]] = np.float32(rank) / np.float32(count)
