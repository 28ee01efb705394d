"""Polygons in arrays: parts, rings and vertices, and the one ring of each that a viewer can draw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem
from atlaswriter.kernels import wkb
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.damage import translated_damage

Floats = NDArray[np.float64]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """Some geometries, each of parts, each of rings, the exterior one first.

    Attributes
    ----------
    parts
        int64 (n + 1,): where each geometry begins in parts; null and empty ones have none.
    rings
        int64 (n_parts + 1,): where each part begins in rings.
    vertices
        int64 (n_rings + 1,): where each ring begins in `x` and `y`.
    x, y
        float64 (n_vertices,). A point is a ring of one vertex.
    """

    parts: Offsets
    rings: Offsets
    vertices: Offsets
    x: Floats
    y: Floats

    def __len__(self) -> int:
        return self.parts.size - 1


@dataclass(frozen=True)
class Exteriors:
    """One ring of each geometry that has any.

    Attributes
    ----------
    owners
        int64 (n_rings,): number of the geometry, ascending.
    offsets, x, y
        As of `Rings`.
    n_dropped
        Rings that were left out, and geometries that have none.
    """

    owners: Offsets
    offsets: Offsets
    x: Floats
    y: Floats
    n_dropped: int


def of_wkb(values: pa.Array, where: str) -> Shapes:
    """Shapes of a binary Arrow array of well-known binary; `InputError` for what is damaged or of another type."""
    values = values.cast(pa.large_binary())
    n = len(values)
    present = np.asarray(values.is_valid())
    if not present.any():
        zero, nothing = np.zeros(1, np.int64), np.empty(0)
        return Shapes(np.zeros(n + 1, np.int64), zero, zero, nothing, nothing)
    _, offset_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, n + 1, 8 * values.offset)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    bytes_in = (readable(data), readable(offsets), readable(present))
    none, no_bits, counts = np.empty(0, np.int64), np.empty(0, np.uint64), np.zeros(3, np.int64)
    stopped = wkb.walk(*bytes_in, False, none, none, none, no_bits, no_bits, counts)
    if stopped >= 0:
        found = "is no point, polygon or multipolygon" if stopped % 2 else "is cut short"
        place = f"geometry {stopped // 2:,} of {n:,} read together"
        raise InputError(Problem(where, f"{place} {found}", "write polygons as well-known binary (WKB)"))
    parts, rings, vertices = (np.zeros(size + 1, np.int64) for size in (n, *counts[:2].tolist()))
    x, y = (np.empty(int(counts[2]), np.uint64) for _ in range(2))
    wkb.walk(*bytes_in, True, parts, rings, vertices, x, y, np.zeros(3, np.int64))
    return Shapes(parts, rings, vertices, x.view(np.float64), y.view(np.float64))


def nesting(kind: pa.DataType) -> int | None:
    """Lists around the coordinates: 1 for rings, 2 for polygons, 3 for multipolygons; None for any other type."""
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if pa.types.is_floating(kind.value_type):
            break
        kind, depth = kind.value_type, depth + 1
    return depth if 1 <= depth <= 3 and _is_coordinate(kind) else None


def _is_coordinate(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {"x", "y"} <= {field.name for field in kind}
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def of_nested(values: pa.Array, where: str) -> Shapes:
    """Shapes of nested lists as of GeoArrow: coordinates are structs of x and y, or short lists of floats."""
    depth, levels, level = nesting(values.type), [], values
    for _ in range(depth or 0):
        level, offsets = _unwrapped(level)
        levels.append(offsets)
    if depth == 1:
        # A ring is a polygon, if it is not null.
        levels.insert(0, np.r_[0, np.cumsum(np.diff(levels[0]) > 0)])
        levels[1] = levels[1][np.r_[0, 1 + np.flatnonzero(np.diff(levels[1]))]]
    if len(levels) == 2:
        levels.insert(0, np.arange(levels[0].size))
    parts, rings, vertices = levels
    x, y = _coordinates(level, where)
    return Shapes(parts, rings, vertices, x, y)


def _unwrapped(values: pa.Array) -> tuple[pa.Array, Offsets]:
    """What lists hold, and where each begins in it; null lists hold nothing."""
    lengths = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return values.flatten(), np.r_[0, np.cumsum(lengths, dtype=np.int64)]


def _coordinates(values: pa.Array, where: str) -> tuple[Floats, Floats]:
    if values.null_count:
        raise InputError(Problem(where, f"{values.null_count:,} vertices are null", "write every vertex of a polygon"))
    if pa.types.is_struct(values.type):
        fields = dict(zip((field.name for field in values.type), values.flatten(), strict=True))
        return np.asarray(fields["x"], np.float64), np.asarray(fields["y"], np.float64)
    flat = np.asarray(values.flatten(), np.float64)
    if pa.types.is_fixed_size_list(values.type):
        flat = flat.reshape(len(values), -1)
        return flat[:, 0].copy(), flat[:, 1].copy()
    _, offsets = _unwrapped(values)
    if np.any(np.diff(offsets) < 2):
        found = "some vertices have less than two coordinates"
        raise InputError(Problem(where, found, "write x and y of every vertex"))
    return flat[offsets[:-1]], flat[offsets[:-1] + 1]


def exteriors(shapes: Shapes, where: str) -> Exteriors:
    """The exterior ring of the largest part of each geometry, the first of equals.

    Rings of less than three vertices, which enclose nothing, are left out like holes and further parts are.

    Raises
    ------
    InputError
        Some coordinate is NaN or infinite.
    """
    check_finite(shapes.x, shapes.y, where)
    lengths = np.diff(shapes.vertices)
    filled = np.flatnonzero(np.diff(shapes.rings))
    outer = shapes.rings[filled]
    owners = np.repeat(np.arange(len(shapes)), np.diff(shapes.parts))[filled]
    drawable = lengths[outer] >= 3
    outer, owners = outer[drawable], owners[drawable]
    areas = np.abs(moments(shapes.vertices, shapes.x, shapes.y)[0][outer])
    order = np.lexsort((-areas, owners))
    first = np.flatnonzero(np.r_[True, np.diff(owners[order]) > 0]) if order.size else order
    kept, owners = outer[order[first]], owners[order[first]]
    offsets = np.r_[0, np.cumsum(lengths[kept])]
    take = np.repeat(shapes.vertices[kept] - offsets[:-1], lengths[kept]) + np.arange(offsets[-1])
    has_rings = np.diff(shapes.rings[shapes.parts]) > 0
    n_dropped = lengths.size + int(np.count_nonzero(~has_rings)) - kept.size
    return Exteriors(owners, offsets, shapes.x[take], shapes.y[take], n_dropped)


def check_finite(x: Floats, y: Floats, where: str) -> None:
    """Refuse vertices that are nowhere."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(Problem(where, "some vertices are NaN or infinite", "remove these polygons, or mend them"))


def only_points(shapes: Shapes) -> tuple[Offsets, Floats, Floats]:
    """Numbers of the geometries that are one vertex, and where that is."""
    first = shapes.rings[shapes.parts]
    alone = np.flatnonzero(np.diff(first) == 1)
    rings = first[alone]
    single = shapes.vertices[rings + 1] - shapes.vertices[rings] == 1
    vertices = shapes.vertices[rings[single]]
    return alone[single], shapes.x[vertices], shapes.y[vertices]


def moments(offsets: Offsets, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Signed area and area centroid of rings, closed or not; the mean of the vertices where there is no area.

    Parameters
    ----------
    offsets
        (n_rings + 1,): where each ring begins.
    x, y
        (n_vertices,), finite.

    Returns
    -------
    area, x, y
        (n_rings,); NaN centroids of rings without vertices.
    """
    lengths = np.diff(offsets)
    filled = lengths > 0
    starts = offsets[:-1][filled]
    # Relative to the first vertex of a ring, its closing edge adds nothing and large coordinates lose nothing.
    base_x, base_y = (np.repeat(axis[starts], lengths[filled]) for axis in (x, y))
    dx, dy = np.r_[x - base_x, 0.0], np.r_[y - base_y, 0.0]
    cross = dx[:-1] * dy[1:] - dx[1:] * dy[:-1]
    cross[starts[1:] - 1] = 0.0
    sums = [cross, cross * (dx[:-1] + dx[1:]), cross * (dy[:-1] + dy[1:]), dx[:-1], dy[:-1]]
    twice, mx, my, sum_x, sum_y = (np.add.reduceat(each, starts) if starts.size else starts * 0.0 for each in sums)
    flat = twice == 0
    divisor = np.where(flat, 1.0, 3 * twice)
    area, cx, cy = np.zeros(lengths.size), *np.full((2, lengths.size), np.nan)
    area[filled] = twice / 2
    cx[filled] = x[starts] + np.where(flat, sum_x / lengths[filled], mx / divisor)
    cy[filled] = y[starts] + np.where(flat, sum_y / lengths[filled], my / divisor)
    return area, cx, cy


def circles(x: Floats, y: Floats, radius: Floats, corners: int = 32) -> tuple[Offsets, Floats, Floats]:
    """Circles as regular polygons of the same area: offsets and vertices."""
    angles = np.arange(corners) * (2 * np.pi / corners)
    wide = radius * np.sqrt(2 * np.pi / (corners * np.sin(2 * np.pi / corners)))
    around_x, around_y = (np.outer(wide, turn(angles)) for turn in (np.cos, np.sin))
    return np.arange(x.size + 1) * corners, (x[:, None] + around_x).ravel(), (y[:, None] + around_y).ravel()


def moved(matrix: Floats, x: Any, y: Any) -> tuple[Floats, Floats]:
    """``matrix @ [x, y, 1]`` in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    (a, b, c), (d, e, f) = matrix[:2]
    return a * x + b * y + c, d * x + e * y + f


def affine(matrix: Any, where: str) -> Floats:
    """A matrix that a user gives, as float64 (3, 3); `InputError` if it is no affine map that can be inverted."""
    try:
        found = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    fits = found.shape == (3, 3) and np.isfinite(found).all() and np.array_equal(found[2], [0, 0, 1])
    if not fits or abs(np.linalg.det(found)) < np.finfo(float).tiny:
        remedy = "give 3 rows of 3 numbers: [[a, b, x], [c, d, y], [0, 0, 1]]"
        raise InputError(Problem(where, "is no invertible affine matrix", remedy))
    return found


def read_affine(path: Path) -> Floats:
    """A matrix in a text file of three rows, separated by spaces, commas or tabs."""
    with translated_damage(str(path), str(path)):
        rows = [line.replace(",", " ").split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    return affine(rows, str(path))
