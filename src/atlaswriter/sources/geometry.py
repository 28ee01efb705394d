"""Outlines of cells in files of geometries: GeoParquet (WKB or nested lists), GeoJSON, tables of vertices."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.outlines import VertexOutlines
from atlaswriter.sources.shapes import (
    Floats,
    Shapes,
    check_finite,
    circles,
    exteriors,
    moments,
    moved,
    nesting,
    of_nested,
    of_wkb,
    only_points,
)
from atlaswriter.sources.spatial import Cells, Outlines, Rings
from atlaswriter.sources.tables import open_table, reading

# Names by which programs call the cell of an outline, most telling first.
CELL_COLUMNS = ("cell_id", "EntityID", "cell_index", "cell", "cell_ID", "cellID", "instance_id", "label", "id", "name")

_GEOMETRY_COLUMNS = ("geometry", "Geometry", "GEOMETRY", "geom", "wkb", "polygon")
_VERTEX_X = ("vertex_x", "x_global_px", "global_x", "x_location", "x")
_VERTEX_Y = ("vertex_y", "y_global_px", "global_y", "y_location", "y")

# Geometries read at once, and bytes of a file.
_ROWS, _BUFFER = 4096, 1 << 20


def column_among(given: str | None, candidates: Sequence[str], columns: Sequence[str], what: str, where: str) -> str:
    """The column that the user names, or the first known name that a table has; `InputError` if there is none."""
    wanted = candidates if given is None else (given,)
    for name in wanted:
        if name in columns:
            return name
    found = f"has no column for {what} such as {listed(wanted)}" if given is None else f"has no column {given!r}"
    raise InputError(Problem(where, found, f"name one of its columns: {listed(columns, 30)}"))


def names_of(values: pa.Array, where: str) -> pa.StringArray:
    """Identifiers as text, integers exactly.

    Raises
    ------
    InputError
        Some are missing, or they are neither text nor integers: floats lose the digits of long identifiers.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    exact = ("integer", "string", "large_string", "string_view", "binary", "large_binary")
    if not any(getattr(pa.types, f"is_{each}")(kind) for each in exact):
        remedy = "store them as text or as integers"
        raise InputError(Problem(where, f"identifiers of type {kind} are not exact", remedy))
    with reading(where):
        names = values.cast(pa.string())
        names.validate(full=True)
    missing = pc.sum(pc.equal(pc.fill_null(names, ""), "")).as_py()
    if missing:
        found = f"{missing:,} of {len(values):,} identifiers are missing"
        raise InputError(Problem(where, found, "give every cell a name"))
    return names


def cells_of(names: pa.StringArray, x: Floats, y: Floats, where: str) -> Cells:
    """Cells whose names differ and whose positions are finite; `InputError` otherwise."""
    problems = Problems()
    repeated = names.value_counts()
    twice = repeated.field("values").filter(repeated.field("counts").to_numpy() > 1) if len(names) else names
    if len(twice):
        found = f"{len(twice):,} names belong to several cells, such as {listed(twice[:3].to_pylist())}"
        problems.add(where, found, "give every cell a name of its own")
    lost = int(np.count_nonzero(~(np.isfinite(x) & np.isfinite(y))))
    if lost:
        problems.add(where, f"{lost:,} of {len(names):,} cells have no finite position", "remove them, or mend them")
    problems.raise_if_any()
    return Cells(names, x, y, where)


class GeoParquet:
    """Geometries in a Parquet file: `Outlines`.

    Parameters
    ----------
    path
        A file with a column of geometries: well-known binary, or nested lists of coordinates (GeoArrow).
    geometry
        That column; by default the primary one, or one of a usual name.
    cell
        Column of the cells' names; by default one of a usual name, else the index that pandas stored.
    by_index
        The index that pandas stored comes first.
    only
        Column and value of the rows that are wanted; all by default.
    where
        What messages call it.

    Attributes
    ----------
    columns
        Names of all columns.
    location, n_bytes, room
        As of `Outlines`.

    Raises
    ------
    InputError
        There is no such file or column, or it is no Parquet file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        geometry: str | None = None,
        cell: str | None = None,
        *,
        by_index: bool = False,
        only: tuple[str, Any] | None = None,
        where: str | None = None,
    ) -> None:
        self._path, self.location, self._only = Path(path), where or str(path), only
        with self._opened() as file:
            schema, metadata = file.schema_arrow, file.metadata
        self.columns: list[str] = schema.names
        self.n_bytes = self._path.stat().st_size
        self._geometry = column_among(
            geometry or geometry_column(schema), (), self.columns, "geometries", self.location
        )
        index, self._counted = pandas_index(schema)
        self._cell = cell or _cell_column(self.columns, index, by_index)
        if self._cell is not None or self._counted is None:
            self._cell = column_among(self._cell, CELL_COLUMNS, self.columns, "the cell", self.location)
        self._radius = "radius" if "radius" in self.columns else None
        if only is not None:
            column_among(only[0], (), self.columns, "", self.location)
        row = _row_bytes(metadata, self._read)
        # Buffers and pages; what is stored, decoded, moved about for areas, and given. Measured: 21 of 28 MB.
        self.room = 8 * _BUFFER + 12 * _ROWS * row

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        # Read ahead, pyarrow would hold whole row groups: 107 MB of 400,000 polygons rather than 17.
        with reading(self.location), pq.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False) as file:
            yield file

    @property
    def _read(self) -> list[str]:
        named = [self._geometry, self._cell, self._radius, self._only and self._only[0]]
        return list(dict.fromkeys(name for name in named if name is not None))

    def values(self, column: str) -> Iterator[NDArray[Any]]:
        """One column of numbers, some rows at a time."""
        with self._opened() as file:
            for batch in file.iter_batches(1 << 16, columns=[column], use_threads=False):
                yield batch.column(0).to_numpy(zero_copy_only=False)

    def geometries(self) -> Iterator[tuple[pa.StringArray, Shapes, Floats | None, str]]:
        """Cells, geometries, radii of points, and the place for messages, some thousand rows at a time."""
        first = 0
        with self._opened() as file:
            for batch in file.iter_batches(_ROWS, columns=self._read, use_threads=False):
                where = f"{self.location} (from row {first:,})"
                names = self._names(batch, first, where)
                first += batch.num_rows
                if self._only is not None:
                    wanted = np.flatnonzero(np.asarray(batch.column(self._only[0])) == self._only[1])
                    batch, names = batch.take(wanted), names.take(wanted)  # noqa: PLW2901
                radius = None if self._radius is None else np.asarray(batch.column(self._radius), np.float64)
                yield names, _decoded(batch.column(self._geometry), where), radius, where

    def batches(self) -> Iterator[Rings]:
        """Outlines; points with a radius become circles."""
        for names, shapes, radius, where in self.geometries():
            points, x, y = only_points(shapes)
            if radius is not None and points.size:
                offsets, x, y = circles(x, y, radius[points])
                rings = Rings(names.take(points), offsets, x, y, len(shapes) - points.size)
            else:
                outer = exteriors(shapes, where)
                rings = Rings(names.take(outer.owners), outer.offsets, outer.x, outer.y, outer.n_dropped)
            check_finite(rings.x, rings.y, where)
            yield rings

    def centers(self) -> tuple[pa.StringArray, Floats, Floats]:
        """Names, and area centroids of the largest parts or points; NaN where a geometry is empty."""
        names, places = [], [np.empty((2, 0))]
        for some, shapes, _, where in self.geometries():
            names.append(some)
            places.append(_centers(shapes, where))
        x, y = np.concatenate(places, axis=1)
        return pa.chunked_array(names, pa.string()).combine_chunks(), x, y

    def _names(self, batch: pa.RecordBatch, first: int, where: str) -> pa.StringArray:
        if self._cell is not None:
            return names_of(batch.column(self._cell), where)
        start, step = self._counted or (0, 1)
        return pa.array(start + step * (first + np.arange(batch.num_rows))).cast(pa.string())


def geometry_column(schema: pa.Schema) -> str | None:
    """The column of geometries of a Parquet file: the primary one of GeoParquet, or one of a usual name and type."""
    primary = _json_of(schema, b"geo").get("primary_column")
    names = [primary] if isinstance(primary, str) else []
    for name in (*names, *_GEOMETRY_COLUMNS):
        if name in schema.names and _is_geometry(schema.field(name).type):
            return name
    return None


def _is_geometry(kind: pa.DataType) -> bool:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return bool(binary or nesting(kind) is not None)


def _json_of(schema: pa.Schema, key: bytes) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(key, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def pandas_index(schema: pa.Schema) -> tuple[str | None, tuple[int, int] | None]:
    """Column of the index that pandas stored, or where its range starts and how it steps."""
    index = (_json_of(schema, b"pandas").get("index_columns") or [None])[0]
    if isinstance(index, dict):
        return None, (int(index.get("start", 0)), int(index.get("step", 1)))
    return (index, None) if index in schema.names else (None, None)


def _cell_column(columns: Sequence[str], index: str | None, by_index: bool) -> str | None:
    if by_index:
        return index
    return next((name for name in CELL_COLUMNS if name in columns), index)


def _row_bytes(metadata: pq.FileMetaData, columns: Sequence[str]) -> int:
    """Bytes of one row of some columns in memory, about; of the widest row group."""
    widest = 0
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        chunks = [group.column(number) for number in range(group.num_columns)]
        size = sum(one.total_uncompressed_size for one in chunks if one.path_in_schema.split(".")[0] in columns)
        widest = max(widest, -(-size // max(1, group.num_rows)))
    return widest


def _decoded(values: pa.Array, where: str) -> Shapes:
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    return of_nested(values, where) if nesting(values.type) is not None else of_wkb(values, where)


def _centers(shapes: Shapes, where: str) -> Floats:
    """Where geometries are, (2, n)."""
    outer = exteriors(shapes, where)
    places = np.full((2, len(shapes)), np.nan)
    places[:, outer.owners] = moments(outer.offsets, outer.x, outer.y)[1:]
    points, *where_they_are = only_points(shapes)
    places[:, points] = where_they_are
    return places


class Moved:
    """Outlines in another coordinate system: `Outlines`.

    Parameters
    ----------
    outlines
        What is moved.
    matrix
        float64 (3, 3), from the coordinates of the outlines to those wanted.
    """

    def __init__(self, outlines: Outlines, matrix: Floats) -> None:
        self._outlines, self._matrix = outlines, matrix
        self.location, self.n_bytes, self.room = outlines.location, outlines.n_bytes, outlines.room

    def batches(self) -> Iterator[Rings]:
        """All rings, moved."""
        for rings in self._outlines.batches():
            x, y = moved(self._matrix, rings.x, rings.y)
            yield replace(rings, x=x, y=y)


def open_outlines(
    path: str | os.PathLike[str],
    cell: str | None = None,
    x: str | None = None,
    y: str | None = None,
    where: str | None = None,
) -> Outlines:
    """Outlines of cells in a file that is known by its content.

    Parameters
    ----------
    path
        GeoParquet; GeoJSON, which may be gzip-compressed; or a Parquet or CSV table of vertices.
    cell
        Column, or property of features, of the cells' names; a usual one by default.
    x, y
        Columns of a table of vertices; usual ones by default.
    where
        What messages call it.

    Raises
    ------
    InputError
        There is no such file, it is damaged, or a column is missing.
    """
    from atlaswriter.sources.geojson import GeoJson, is_json

    path, location = Path(path), where or str(path)
    if is_json(path):
        return GeoJson(path, cell, where=location)
    table = open_table(path, location)
    if x is None and y is None and is_geoparquet(path):
        return GeoParquet(path, cell=cell, where=location)
    wanted = [(cell, CELL_COLUMNS, "the cell"), (x, _VERTEX_X, "x of vertices"), (y, _VERTEX_Y, "y of vertices")]
    name, *axes = (column_among(given, known, table.columns, what, location) for given, known, what in wanted)
    return VertexOutlines(open_table(path, location, text=[name]), name, *axes)


def is_geoparquet(path: Path) -> bool:
    """Whether it is a Parquet file with a column of geometries."""
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
    with reading(str(path)):
        return geometry_column(pq.read_schema(path)) is not None
