"""Well-known binary (OGC 06-103r4, ISO 13249-3, EWKB of PostGIS): points, polygons and multipolygons.

Nothing in the bytes is trusted: every count is compared with the bytes that are left before it is followed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel, part

# Types of geometries, as in the format.
POINT, POLYGON, MULTI_POLYGON = 1, 3, 6

# What `walk` stops for.
TRUNCATED, UNKNOWN = -1, -2

# Flags of EWKB in a type, and its bytes of a spatial reference.
_Z, _M, _REFERENCE, _FLAGS = 0x80000000, 0x40000000, 0x20000000, 0xE0000000


@part
def _u32(data: Any, at: int, little: bool) -> Any:
    """Four bytes as a number; they must be there."""
    a, b = np.int64(data[at]), np.int64(data[at + 1])
    c, d = np.int64(data[at + 2]), np.int64(data[at + 3])
    return a | b << 8 | c << 16 | d << 24 if little else d | c << 8 | b << 16 | a << 24


@part
def _u64(data: Any, at: int, little: bool) -> Any:
    """Eight bytes as a number; they must be there."""
    bits = np.uint64(0)
    for place in range(8):
        bits = bits << np.uint64(8) | np.uint64(data[at + 7 - place] if little else data[at + place])
    return bits


@part
def _header(data: Any, at: int, end: int) -> Any:
    """Type of a geometry (or what is wrong), bytes of a vertex, byte order, and where its content begins."""
    if end - at < 5:
        return TRUNCATED, 0, True, at
    if data[at] > 1:
        return UNKNOWN, 0, True, at
    little = data[at] == 1
    code = _u32(data, at + 1, little)
    at += 5
    if code & _REFERENCE:
        at += 4
    plain = code & ~_FLAGS
    thousands = plain // 1000
    kind = plain % 1000
    if thousands > 3 or (kind != POINT and kind != POLYGON and kind != MULTI_POLYGON):
        return UNKNOWN, 0, True, at
    has_z = (code & _Z) != 0 or thousands == 1 or thousands == 3
    has_m = (code & _M) != 0 or thousands >= 2
    return kind, 8 * (2 + has_z + has_m), little, at


@part
def _vertices(
    data: Any, at: int, count: int, stride: int, little: bool, writing: bool, x: Any, y: Any, ends: Any, totals: Any
) -> None:
    """One ring of vertices, which must be there."""
    first = totals[2]
    if writing:
        for place in range(count):
            x[first + place] = _u64(data, at + place * stride, little)
            y[first + place] = _u64(data, at + place * stride + 8, little)
        ends[totals[1] + 1] = first + count
    totals[2] = first + count
    totals[1] += 1


@part
def _polygon(
    data: Any, at: int, end: int, stride: int, little: bool, writing: bool, rings: Any, vertices: Any, x: Any, y: Any,
    totals: Any,
) -> Any:  # fmt: skip
    """Rings of one polygon; where it ends, or what is wrong."""
    if end - at < 4:
        return TRUNCATED
    n_rings = _u32(data, at, little)
    at += 4
    for _ in range(n_rings):
        if end - at < 4:
            return TRUNCATED
        count = _u32(data, at, little)
        at += 4
        if (end - at) // stride < count:
            return TRUNCATED
        _vertices(data, at, count, stride, little, writing, x, y, vertices, totals)
        at += count * stride
    totals[0] += 1
    if writing:
        rings[totals[0]] = totals[1]
    return at


@kernel("(u1[::1], i8[::1], b1[::1], b1, i8[::1], i8[::1], i8[::1], u8[::1], u8[::1], i8[::1])")
def walk(
    data: Any, offsets: Any, present: Any, writing: bool, parts: Any, rings: Any, vertices: Any, x: Any, y: Any,
    totals: Any,
) -> Any:  # fmt: skip
    """Go through geometries, first to count what they hold, then to write it down.

    Parameters
    ----------
    data : uint8
        Bytes of all geometries.
    offsets : int64, (n + 1,)
        Where each begins; rising, inside of ``data``.
    present : bool, (n,)
        Those that are not null; of the others no byte is looked at.
    writing : bool
        Whether the next five are filled; they may be empty otherwise.
    parts, rings, vertices : int64, (n + 1,), (n_parts + 1,), (n_rings + 1,)
        Where each geometry begins in parts, each part in rings, each ring in vertices; the first of each must be 0.
        A point is one part with one ring of one vertex.
    x, y : uint64, (n_vertices,)
        Vertices, the bits of float64; further dimensions are left out.
    totals : int64, (3,)
        Zeros; parts, rings and vertices afterwards. When writing, ``rings``, ``vertices``, ``x`` and ``y`` must have
        room for those counted in the same bytes.

    Returns
    -------
    int
        -1, or ``2 * number`` of the first geometry that is cut short, or ``2 * number + 1`` of the first that is
        none of those known here.
    """
    for number in range(present.size):
        if present[number]:
            end = offsets[number + 1]
            kind, stride, little, at = _header(data, offsets[number], end)
            if kind == POINT:
                if end - at < stride:
                    at = TRUNCATED
                else:
                    _vertices(data, at, 1, stride, little, writing, x, y, vertices, totals)
                    totals[0] += 1
                    if writing:
                        rings[totals[0]] = totals[1]
            elif kind == POLYGON:
                at = _polygon(data, at, end, stride, little, writing, rings, vertices, x, y, totals)
            elif kind == MULTI_POLYGON:
                n_parts = np.int64(0)
                if end - at < 4:
                    at = TRUNCATED
                else:
                    n_parts = _u32(data, at, little)
                    at += 4
                for _ in range(n_parts):
                    kind, stride, little, at = _header(data, at, end)
                    if kind >= 0 and kind != POLYGON:
                        kind = UNKNOWN
                    at = kind if kind < 0 else at
                    if at >= 0:
                        at = _polygon(data, at, end, stride, little, writing, rings, vertices, x, y, totals)
                    if at < 0:
                        break
            else:
                at = kind
            if at < 0:
                return 2 * number + (at == UNKNOWN)
        if writing:
            parts[number + 1] = totals[0]
    return -1
