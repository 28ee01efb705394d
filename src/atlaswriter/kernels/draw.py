"""Lines, areas and points on pixels; what lies outside, or is no number, is left out.

Positions are pixels of the full image; ``(x - left) * scale`` is the column of the drawing, whose pixels have their
centres at halves.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part

# Further away than any drawing reaches: NaN and infinity are not below it either.
_FAR = 1e9


@part
def _near(x: Any, y: Any) -> Any:
    return abs(x) < _FAR and abs(y) < _FAR


@kernel("(f8[:, ::1], i8[::1], f8, f8, f8, f8, f4[:, ::1])")
def strokes(xy: Any, offsets: Any, left: float, top: float, scale: float, half: float, out: Any) -> None:
    """Draw lines through vertices, as the share of each pixel that they cover.

    Parameters
    ----------
    xy : float64, (n_vertices, 2)
    offsets : int64, (n + 1,)
        Vertices of line k are ``xy[offsets[k]:offsets[k + 1]]``.
    half
        Half the width of a line, in pixels of the drawing.
    out : float32, (height, width)
        0 to 1; raised where a line covers more.
    """
    height, width = out.shape
    for line in range(offsets.size - 1):
        for vertex in range(offsets[line], offsets[line + 1] - 1):
            x0, y0 = (xy[vertex, 0] - left) * scale, (xy[vertex, 1] - top) * scale
            x1, y1 = (xy[vertex + 1, 0] - left) * scale, (xy[vertex + 1, 1] - top) * scale
            if not (_near(x0, y0) and _near(x1, y1)):
                continue
            across, down = x1 - x0, y1 - y0
            square = across * across + down * down
            reach = half + 1
            for row in range(max(int(min(y0, y1) - reach), 0), min(int(max(y0, y1) + reach) + 1, height)):
                for column in range(max(int(min(x0, x1) - reach), 0), min(int(max(x0, x1) + reach) + 1, width)):
                    x, y = column + 0.5 - x0, row + 0.5 - y0
                    along = (x * across + y * down) / square if square > 0 else 0.0
                    along = min(max(along, 0.0), 1.0)
                    distance = math.sqrt((x - along * across) ** 2 + (y - along * down) ** 2)
                    covered = min(max(half + 0.5 - distance, 0.0), 1.0)
                    out[row, column] = max(out[row, column], np.float32(covered))


@kernel("(f8[:, ::1], i8[::1], i8[::1], f8, f8, f8, i8[:, ::1])")
def fill(xy: Any, offsets: Any, labels: Any, left: float, top: float, scale: float, out: Any) -> None:
    """Write the label of each polygon to the pixels whose centres it holds.

    Parameters
    ----------
    xy : float64, (n_vertices, 2)
    offsets : int64, (n + 1,)
        Vertices of polygon k are ``xy[offsets[k]:offsets[k + 1]]``, the first again as last.
    labels : int64, (n,)
    out : int64, (height, width)
    """
    height, width = out.shape
    most = 0
    for polygon in range(labels.size):
        most = max(most, offsets[polygon + 1] - offsets[polygon])
    crossings = np.empty(most + 1, np.float64)
    for polygon in range(labels.size):
        first, last = offsets[polygon], offsets[polygon + 1]
        low, high, sound = _FAR, -_FAR, last > first
        for vertex in range(first, last):
            x, y = (xy[vertex, 0] - left) * scale, (xy[vertex, 1] - top) * scale
            sound = sound and _near(x, y)
            low, high = min(low, y), max(high, y)
        if not sound:
            continue
        for row in range(max(int(low), 0), min(int(high) + 1, height)):
            count = 0
            for vertex in range(first, last - 1):
                y0, y1 = (xy[vertex, 1] - top) * scale, (xy[vertex + 1, 1] - top) * scale
                if (y0 <= row + 0.5) == (y1 <= row + 0.5):
                    continue
                x0, x1 = (xy[vertex, 0] - left) * scale, (xy[vertex + 1, 0] - left) * scale
                crossing = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                place = count
                while place > 0 and crossings[place - 1] > crossing:
                    crossings[place] = crossings[place - 1]
                    place -= 1
                crossings[place] = crossing
                count += 1
            for pair in range(0, count - 1, 2):
                start = max(math.ceil(crossings[pair] - 0.5), 0)
                for column in range(start, min(math.ceil(crossings[pair + 1] - 0.5), width)):
                    out[row, column] = labels[polygon]


@kernel("(f8[::1], f8[::1], i8[::1], f8, f8, f8, f8, f8, i8[:, ::1])")
def discs(
    x_px: Any, y_px: Any, labels: Any, left: float, top: float, scale: float, radius: float, rim: float, out: Any
) -> None:
    """Write labels to discs around the pixels that points lie in, later ones over earlier ones.

    All discs cover the same pixels around their centre, so that pictures of them are stored in few bytes.

    Parameters
    ----------
    x_px, y_px : float64, (n,)
    labels : int64, (n,)
        0 and up.
    radius, rim
        Of a disc, and of a ring around it, in pixels of the drawing.
    out : int64, (height, width)
        -1 where nothing is; rings are -2, where nothing else is.
    """
    height, width = out.shape
    reach = int(radius + rim)
    for point in range(labels.size):
        x, y = (x_px[point] - left) * scale, (y_px[point] - top) * scale
        if not _near(x, y):
            continue
        center_row, center = math.floor(y), math.floor(x)
        for row in range(max(center_row - reach, 0), min(center_row + reach + 1, height)):
            for column in range(max(center - reach, 0), min(center + reach + 1, width)):
                square = (row - center_row) ** 2 + (column - center) ** 2
                if square <= radius * radius:
                    out[row, column] = labels[point]
                elif out[row, column] == -1 and square <= (radius + rim) * (radius + rim):
                    out[row, column] = -2


@kernel("(f8[::1], f8[::1], f8, f8, f8, i8[:, ::1])")
def tally(x_px: Any, y_px: Any, left: float, top: float, scale: float, out: Any) -> None:
    """Add the number of points in each pixel to `out`, int64 (height, width)."""
    height, width = out.shape
    for point in range(x_px.size):
        x, y = (x_px[point] - left) * scale, (y_px[point] - top) * scale
        if 0 <= x < width and 0 <= y < height:
            out[int(y), int(x)] += 1
