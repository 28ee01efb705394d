"""Tables as Parquet: small by default, or exactly as the original writer makes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from atlaswriter.formats.landscape import layout
from atlaswriter.sources.base import Array

# As float32, a hundredth of a pixel is stored as the nearest multiple of 1/128: less than half of one away, so that
# rounding to two decimals gives it back, and of fewer bits. Bytes per transcript of a dense synthetic tile (100,000
# transcripts), zstd 1 and 3: 5.01 and 4.65; as the nearest float32 5.83 and 5.41; of the original writer 6.85.
_STEPS = 128.0
# Bytes per transcript and microseconds per tile of 2,000 transcripts of the Xenium pancreas region: original 13.6 and
# 304; zstd 1 with float32 7.27 and 190, with the bytes of floats split 6.38 and 180; zstd 3 6.27 and 182, zstd 9 6.14
# and 314; in order of genes instead of the source's 6.01.
_LEVEL = 3
# Up to here (pixels) every hundredth has a float32 of its own.
_FLOAT32_LIMIT = 131_072


@dataclass(frozen=True)
class Style:
    """How tables are stored.

    Attributes
    ----------
    compat
        As the original writer does: Snappy, statistics, 64 bits everywhere.
    real
        Of coordinates.
    """

    compat: bool
    real: pa.DataType

    @classmethod
    def of(cls, compat: bool, extent: float) -> Style:
        """The style for positions up to `extent` pixels from the origin."""
        return cls(compat, pa.float64() if compat or extent >= _FLOAT32_LIMIT else pa.float32())

    @property
    def real_dtype(self) -> np.dtype:
        """Of coordinates, for NumPy."""
        return np.dtype("f8" if self.real == pa.float64() else "f4")

    @property
    def steps(self) -> float:
        """Steps of a pixel in which coordinates are stored; 0 for hundredths."""
        return _STEPS if self.real == pa.float32() else 0.0

    def coordinates(self, px: NDArray[np.float64]) -> Array:
        """Positions in pixels, of two decimals, as they are stored."""
        found = np.rint(px * self.steps) / self.steps if self.steps else px
        return found.astype(self.real_dtype)

    def id_type(self, count: int) -> pa.DataType:
        """The type of numbers below `count`."""
        if self.compat:
            return pa.int64()
        return pa.uint16() if count <= 1 << 16 else pa.uint32()

    def list_of(self, item: pa.DataType) -> pa.DataType:
        """A list type."""
        return pa.list_(pa.field("element", item, nullable=self.compat))

    def table(self, columns: Mapping[str, pa.Array], index: Sequence[str] | None = None) -> pa.Table:
        """A table; with `index`, the columns that pandas takes for its index (none, if empty)."""
        fields = [
            pa.field(name, array.type, nullable=self.compat or array.null_count > 0) for name, array in columns.items()
        ]
        metadata = None if index is None else {b"pandas": _pandas(fields, index)}
        return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata))

    def options(self, schema: pa.Schema) -> dict[str, Any]:
        """Arguments of `pyarrow.parquet` that store tables of such a schema."""
        if self.compat:
            return {}
        encoding = {}
        for field in schema:
            if _leaf_type(field.type) == self.real:
                encoding[_leaf(field)] = "BYTE_STREAM_SPLIT"
            elif field.name == layout.INDEX and pa.types.is_integer(field.type):
                encoding[_leaf(field)] = "DELTA_BINARY_PACKED"
        return {
            "compression": "zstd",
            "compression_level": _LEVEL,
            "write_statistics": False,
            # So that a changed byte can be found.
            "write_page_checksum": True,
            # What pandas needs is kept there.
            "store_schema": schema.metadata is not None,
            "use_dictionary": [leaf for field in schema if (leaf := _leaf(field)) not in encoding] or False,
            "column_encoding": encoding or None,
        }

    def to_bytes(self, table: pa.Table) -> pa.Buffer:
        """A file of one row group."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=max(table.num_rows, 1), **self.options(table.schema))
        return sink.getvalue()

    def pairs(self, xy: Array) -> pa.Array:
        """Positions (2 * n,), x and y in turn, as lists of two."""
        offsets = np.arange(0, xy.size + 1, 2, dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(xy, self.real), type=self.list_of(self.real))

    def polygons(self, ends: NDArray[np.int64], xy: Array) -> pa.Array:
        """One ring a polygon; vertices of ring k are ``ends[k]`` to ``ends[k + 1]`` of `xy` (2 * n_vertices,)."""
        vertices = self.pairs(xy)
        rings = pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), vertices, type=self.list_of(vertices.type))
        each = pa.array(np.arange(ends.size, dtype=np.int32))
        return pa.ListArray.from_arrays(each, rings, type=self.list_of(rings.type))


def _leaf(field: pa.Field) -> str:
    """Path of a column's values, as Parquet writes it."""
    path, kind = str(field.name), field.type
    while pa.types.is_list(kind):
        path, kind = f"{path}.list.element", kind.value_type
    return path


def _leaf_type(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return kind


def _pandas(fields: Sequence[pa.Field], index: Sequence[str]) -> bytes:
    """What pandas needs to know to get its index back."""
    kinds = {"string": "unicode", "double": "float64"}
    columns = [
        {
            "name": None if field.name in index else field.name,
            "field_name": field.name,
            "pandas_type": kinds.get(str(field.type), "object" if pa.types.is_list(field.type) else str(field.type)),
            "numpy_type": "object" if pa.types.is_list(field.type) or field.type == pa.string() else str(field.type),
            "metadata": None,
        }
        for field in fields
    ]
    return json.dumps(
        {"index_columns": list(index), "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    ).encode()


# The index of the original's tables.
INDEX = (layout.INDEX,)
