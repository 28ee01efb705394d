"""Outlines of cells: rings of vertices to pixels, and the tile that each belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part

# What becomes of a ring.
GOOD, DEGENERATE, FAR = range(3)
_FARTHEST = 2.0**31 - 1


@part
def _centroid(x: Any, y: Any, first: Any, last: Any) -> Any:
    """Area centroid of the closed ring ``first:last``; the middle of its box where that lies outside of the box.

    Triangles over the first vertex, as GEOS does it (S. Bashein, P. Detmer, Graphics Gems IV, "Centroid of a
    Polygon"); of rings without an area the middle of the box too.
    """
    x0, y0 = x[first], y[first]
    area = across = down = 0.0
    low_x = high_x = x0
    low_y = high_y = y0
    for k in range(first, last - 1):
        ax, ay, bx, by = x[k] - x0, y[k] - y0, x[k + 1] - x0, y[k + 1] - y0
        twice = ax * by - bx * ay
        area += twice
        across += twice * (ax + bx)
        down += twice * (ay + by)
        low_x, high_x = min(low_x, x[k + 1]), max(high_x, x[k + 1])
        low_y, high_y = min(low_y, y[k + 1]), max(high_y, y[k + 1])
    if area != 0.0:
        middle_x, middle_y = x0 + across / (3.0 * area), y0 + down / (3.0 * area)
        if low_x <= middle_x <= high_x and low_y <= middle_y <= high_y:
            return middle_x, middle_y
    return (low_x + high_x) / 2.0, (low_y + high_y) / 2.0


@part
def _n_distinct(x: Any, y: Any, first: Any, last: Any) -> Any:
    """Distinct vertices among the first few: 1, 2, or 3 for more."""
    other = -1
    for k in range(first + 1, last):
        if x[k] == x[first] and y[k] == y[first]:
            continue
        if other < 0:
            other = k
        elif x[k] != x[other] or y[k] != y[other]:
            return 3
    return 1 if other < 0 else 2


@kernel("(i8[::1], f8[::1], f8[::1], f8[::1], i8, i8[::1], i8[::1], i8[::1], i8[::1], i4[::1], i4[::1])")
def close(
    offsets: Any, x: Any, y: Any, to_px: Any, edge: Any, state: Any, tile_i: Any, tile_j: Any, sizes: Any,
    x_out: Any, y_out: Any,
) -> None:  # fmt: skip
    """Closed rings in hundredths of a pixel, and their tiles.

    Parameters
    ----------
    offsets : int64 (n + 1,)
        Where each ring begins.
    x, y : float64 (n_vertices,)
        In the coordinates of the data set; overwritten with pixels.
    to_px : float64 (6,)
        First two rows of the transform to pixels.
    edge : int64
        Edge of a tile in hundredths of a pixel.
    state : int64 (n,)
        GOOD; DEGENERATE: fewer than three distinct vertices; FAR: a vertex that is no number or too far away.
    tile_i, tile_j : int64 (n,)
        Tile of the area centroid of each good ring.
    sizes : int64 (n,)
        Vertices of each ring once closed, 0 for those that are not good.
    x_out, y_out : int32 (n_vertices + n,)
        Vertices of the good rings, one behind the other; those of ring k begin at the sum of the sizes before it.
    """
    at = 0
    for ring in range(offsets.size - 1):
        first, last = offsets[ring], offsets[ring + 1]
        state[ring], sizes[ring] = GOOD, 0
        for k in range(first, last):
            px = to_px[0] * x[k] + to_px[1] * y[k] + to_px[2]
            py = to_px[3] * x[k] + to_px[4] * y[k] + to_px[5]
            x[k], y[k] = px, py
            if not (abs(px * 100.0) <= _FARTHEST and abs(py * 100.0) <= _FARTHEST):
                state[ring] = FAR
        if state[ring] == FAR:
            continue
        if last - first < 3 or _n_distinct(x, y, first, last) < 3:
            state[ring] = DEGENERATE
            continue
        for k in range(first, last):
            to = at + k - first
            x_out[to], y_out[to] = np.int32(np.rint(x[k] * 100.0)), np.int32(np.rint(y[k] * 100.0))
        size = last - first
        if x[first] != x[last - 1] or y[first] != y[last - 1]:
            x_out[at + size], y_out[at + size] = x_out[at], y_out[at]
            size += 1
        middle_x, middle_y = _centroid(x, y, first, last)
        tile_i[ring] = np.int64(np.floor(middle_x * 100.0 / edge))
        tile_j[ring] = np.int64(np.floor(middle_y * 100.0 / edge))
        sizes[ring] = size
        at += size


@kernel("(i8[::1], i8[::1], i4[::1], i4[::1], i4[::1], i4[::1])")
def reorder(starts: Any, sizes: Any, x: Any, y: Any, x_out: Any, y_out: Any) -> None:
    """Vertices of rings in another order.

    Parameters
    ----------
    starts, sizes : int64 (n,)
        Where each ring begins in `x` and `y`, and its vertices, in the new order.
    x, y : int32
        Vertices.
    x_out, y_out : int32 (sum of sizes,)
        Filled.
    """
    at = 0
    for ring in range(starts.size):
        for k in range(starts[ring], starts[ring] + sizes[ring]):
            x_out[at], y_out[at] = x[k], y[k]
            at += 1
