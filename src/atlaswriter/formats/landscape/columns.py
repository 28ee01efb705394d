"""Columns of Parquet files as arrays, without trusting the files.

Everything that can go wrong becomes a `ReadError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from atlaswriter.errors import listed
from atlaswriter.findings import ReadError
from atlaswriter.sources.untrusted import locate

Array = NDArray[Any]


class ParquetFile:
    """One Parquet file, open for reading; to be used in a ``with`` statement.

    Attributes
    ----------
    name
        Path relative to the root.
    columns
        Names of the columns.
    rows
        Number of rows of each row group.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        path = locate(root, name)
        if not path.is_file():
            raise ReadError("file.missing", name, "is not a regular file" if path.exists() else "is missing")
        with _damage(name):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        with _damage(name):
            metadata = self._file.metadata
            self.rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self.columns: list[str] = self._file.schema_arrow.names

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def table(self, group: int | None = None) -> pa.Table:
        """Content of one row group, or of all of them."""
        if group is not None and group >= len(self.rows):
            raise ReadError(
                "groups.count", self.name, f"has {len(self.rows):,} row groups, and none numbered {group:,}"
            )
        with _damage(self.name):
            read = self._file.read if group is None else lambda **options: self._file.read_row_group(group, **options)
            table = read(use_threads=False)
            table.validate(full=True)
            return table

    def stated(self, key: str) -> Any:
        """A JSON value from the file's own metadata; None where there is none."""
        raw = (self._file.schema_arrow.metadata or {}).get(key.encode())
        try:
            return None if raw is None else json.loads(raw)
        except (ValueError, RecursionError):
            return None


def read_table(root: Path, name: str, group: int | None = None) -> pa.Table:
    """Content of a Parquet file, or of one of its row groups."""
    with ParquetFile(root, name) as file:
        return file.table(group)


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Turn whatever pyarrow raises on damaged content into `ReadError`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ReadError("parquet", name, f"cannot be read as Parquet ({reason})") from None


def column(table: pa.Table, names: Sequence[str], where: str) -> pa.Array:
    """The first column of these names that is there; none of its values may be missing."""
    found = optional_column(table, names, where)
    if found.null_count:
        raise ReadError("columns.missing", where, f"column {first(table, names)!a} has {found.null_count:,} nulls")
    return found


def optional_column(table: pa.Table, names: Sequence[str], where: str) -> pa.Array:
    """The first column of these names that is there, whose values may be missing."""
    name = first(table, names)
    if name is None or table.column_names.count(name) > 1:
        there = "is twice" if name is not None else f"there are {listed(table.column_names)}"
        raise ReadError("columns", where, f"needs a column {' or '.join(map(ascii, names))}; {there}")
    found = table.column(name)
    if pa.types.is_dictionary(found.type):
        found = found.cast(found.type.value_type)
    return found.chunk(0) if found.num_chunks == 1 else pa.concat_arrays(found.chunks) if found.chunks else _none(found)


def _none(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([], column.type)


def first(table: pa.Table, names: Sequence[str]) -> str | None:
    """The first of these names that a column has."""
    return next((name for name in names if name in table.column_names), None)


def integers(values: pa.Array, where: str) -> Array:
    """int64 of a column of whole numbers."""
    if not pa.types.is_integer(values.type):
        raise ReadError("columns.type", where, f"has {values.type} where whole numbers belong")
    return _array(values).astype(np.int64, copy=False)


def numbers(values: pa.Array, where: str) -> Array:
    """float64 of a column of numbers."""
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise ReadError("columns.type", where, f"has {values.type} where numbers belong")
    return _array(values).astype(np.float64, copy=False)


def _array(values: pa.Array) -> Array:
    found: Array = values.to_numpy(zero_copy_only=False)
    return found


def is_text(values: pa.Array) -> bool:
    """Whether a column holds text."""
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def texts(values: pa.Array, where: str) -> list[str]:
    """Texts of a column; whole numbers become text as in the front-end."""
    if not is_text(values) and not pa.types.is_integer(values.type):
        raise ReadError("columns.type", where, f"has {values.type} where names belong")
    return [str(value) for value in values.to_pylist()]


def points(values: pa.Array, where: str) -> Array:
    """float64 ``(n, d)`` of a column of lists of d numbers each, as the front-end reads them: one flat buffer."""
    lengths, flat = _unlisted(values, where)
    n_numbers = int(lengths[0]) if lengths.size else 2
    if n_numbers not in {2, 3} or np.any(lengths != n_numbers):
        raise ReadError("geometry.length", where, "has points of other than 2 numbers, or of different numbers")
    return numbers(flat, where).reshape(-1, n_numbers)


def rings(values: pa.Array, where: str) -> tuple[Array, Array, Array]:
    """Outlines of a column of polygons, each a list of rings of vertices.

    Returns
    -------
    n_rings
        int64, of each polygon.
    offsets
        int64, one more than there are polygons: where the vertices of each begin.
    xy_px
        float64 ``(n_vertices, 2)``.
    """
    n_rings, flat = _unlisted(values, where)
    n_vertices, flat = _unlisted(flat, where)
    xy = points(flat, where)
    if xy.shape[1] != 2:
        raise ReadError("geometry.length", where, "has vertices of three numbers")
    ends = np.concatenate([[0], np.cumsum(n_vertices)])
    return n_rings, ends[np.concatenate([[0], np.cumsum(n_rings)])], xy


def _unlisted(values: pa.Array, where: str) -> tuple[Array, pa.Array]:
    """Number of elements of each list, int64, and all elements."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ReadError("columns.type", where, f"has {kind} where lists belong")
    flat = values.flatten()
    if values.null_count or flat.null_count:
        raise ReadError("columns.missing", where, "has nulls in its geometry, which move all that follows")
    return _array(pc.list_value_length(values)).astype(np.int64, copy=False), flat


class Names:
    """Names of genes or cells, whose positions are their ids."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.ids = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def find(self, values: pa.Array, where: str) -> Array:
        """int64 ids of a column of ids or of names; -1 for names that are not known."""
        if not is_text(values):
            return integers(values, where)
        coded = values.dictionary_encode()
        table = np.array([self.ids.get(name, -1) for name in coded.dictionary.to_pylist()] + [-1], np.int64)
        return table[_array(coded.indices)]
