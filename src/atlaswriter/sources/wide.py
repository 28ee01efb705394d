"""Tables of cells × features with a column for each feature, as sparse counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array, Compressed
from atlaswriter.sources.geometry import names_of, pandas_index
from atlaswriter.sources.parts import compressed
from atlaswriter.sources.spatial import Counts
from atlaswriter.sources.tables import numbers, open_table, reading

# Bytes of numbers of a Parquet file that are read at once.
_COLUMNS = 64 << 20


def csv_counts(path: Path, where: str) -> Counts:
    """Counts of a CSV file whose first column names the cells and whose others are features."""
    cell, *features = open_table(path, where).columns
    if not features:
        remedy = "write a column of cells and one for each feature"
        raise InputError(Problem(where, "has no columns of features", remedy))
    table = open_table(path, where, text=[cell])
    names: list[pa.Array] = []
    lengths, indices, data = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for part in range(table.n_parts):
        for batch in table.batches(part, table.columns):
            names.append(names_of(batch.column(0), where))
            dense = np.empty((batch.num_rows, len(features)))
            for place, feature in enumerate(features):
                dense[:, place] = _numbers(batch.column(place + 1), feature, where)
            found = np.flatnonzero(dense)
            lengths.append(np.count_nonzero(dense, axis=1))
            indices.append((found % len(features)).astype(np.int32))
            data.append(_narrow(dense.ravel()[found]))
    cells = pa.chunked_array(names, pa.string()).combine_chunks()
    matrix = _matrix((len(cells), len(features)), lengths, indices, data, axis=0, where=where)
    return Counts(matrix, cells, features, where=where)


def parquet_counts(path: Path, where: str) -> Counts:
    """Counts of a Parquet file that pandas wrote: cells are its index, features its columns."""
    with reading(where), pq.ParquetFile(path, pre_buffer=False) as file:
        index, _ = pandas_index(file.schema_arrow)
        if index is None:
            raise InputError(Problem(where, "has no index of cells", "write it with pandas, cells as the index"))
        features = [name for name in file.schema_arrow.names if name != index]
        cells = names_of(file.read([index], use_threads=False).column(0).combine_chunks(), where)
        lengths, indices, data = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        step = max(1, _COLUMNS // (8 * max(1, len(cells))))
        for start in range(0, len(features), step):
            some = file.read(features[start : start + step], use_threads=False)
            for name in features[start : start + step]:
                values = _numbers(some.column(name), name, where)
                found = np.flatnonzero(values)
                lengths.append(np.array([found.size]))
                indices.append(found.astype(np.int32))
                data.append(_narrow(values[found]))
        matrix = _matrix((len(cells), len(features)), lengths, indices, data, axis=1, where=where)
    return Counts(matrix, cells, features, where=where)


def _numbers(values: pa.Array, feature: str, where: str) -> Array:
    found = numbers(values, feature, where)
    if not np.isfinite(found).all():
        remedy = "write 0 where nothing was counted"
        raise InputError(Problem(where, f"column {feature!r} has values that are missing, NaN or infinite", remedy))
    return found


def _narrow(values: Array) -> Array:
    """As float32 if nothing is lost by that."""
    short = values.astype(np.float32)
    return short if np.array_equal(short, values) else values


def _matrix(
    shape: tuple[int, int], lengths: Sequence[Array], indices: list[Array], data: list[Array], *, axis: int, where: str
) -> Compressed:
    """Pieces put together; they are let go on the way."""
    indptr = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    places = np.concatenate(indices)
    indices.clear()
    values = np.concatenate(data)
    data.clear()
    return compressed(shape, indptr, places, values, axis=axis, where=where)
