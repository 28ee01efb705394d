"""Tables in files, some columns and some rows at a time.

Nothing of a file is trusted: text is checked to be UTF-8 and its codes to lie inside their dictionaries, and whatever
pyarrow raises on damaged content becomes an `InputError` that names the file.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.packed import GzipError
from atlaswriter.sources.spatial import Table

# Rows of a batch. Of Parquet (20,000,000 transcripts, name, x, y) 2^16 to 2^20 rows all take 8 ns a row.
BATCH_ROWS = 1 << 18

# Parquet is read through a buffer of so many bytes for each column.
_BUFFER_BYTES = 1 << 20

# From here on float64 does not tell integers apart.
INEXACT = 2.0**53

_PARQUET, _ARROW, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"

TEXT = pa.dictionary(pa.int32(), pa.string())


@contextmanager
def reading(location: str) -> Iterator[None]:
    """Turn errors from reading a damaged table into `InputError`."""
    with translated_damage(location, "disk"):
        try:
            yield
        except (pa.ArrowCapacityError, GzipError) as error:
            raise ValueError(str(error)) from error


class ParquetTable:
    """A Parquet file: a `Table` whose parts are its row groups.

    Parameters
    ----------
    path
        The file.
    where
        Its name in messages; the path by default.
    text
        Columns that are given as text even if they hold integers.

    Attributes
    ----------
    location, columns, n_rows, n_bytes, n_parts
        As of `Table`.
    """

    def __init__(self, path: Path, where: str = "", text: Sequence[str] = ()) -> None:
        self._path, self._as_text = path, frozenset(text)
        self.location = where or str(path)
        with reading(self.location), pq.ParquetFile(path) as file:
            self._metadata = file.metadata
            schema = file.schema_arrow
        self.columns: list[str] = list(schema.names)
        self._stored_text = [field.name for field in schema if _is_text(field.type)]
        self.n_rows: int = self._metadata.num_rows
        self.n_parts: int = self._metadata.num_row_groups
        self.n_bytes = path.stat().st_size

    def room(self, columns: Sequence[str]) -> int:
        """As of `Table`."""
        # A buffer, a page as stored and decoded (1 MiB each, mostly), and a batch as decoded and as given.
        return len(columns) * (3 * _BUFFER_BYTES + 2 * 8 * BATCH_ROWS)

    def batches(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As of `Table`."""
        check_columns(self, columns)
        with reading(self.location):
            file = pq.ParquetFile(
                self._path,
                metadata=self._metadata,
                read_dictionary=[name for name in self._stored_text if name in columns],
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
            )
            with file:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[part], columns=columns, use_threads=False):
                    yield settled(batch, columns, self._as_text)


class ArrowTable:
    """An Arrow IPC file (Feather) or stream: a `Table` whose parts are the batches of a file, or a stream as a whole.

    Parameters
    ----------
    path
        The file.
    where
        Its name in messages; the path by default.
    text
        Columns that are given as text even if they hold integers.

    Attributes
    ----------
    location, columns, n_rows, n_bytes, n_parts
        As of `Table`.
    """

    n_rows = None

    def __init__(self, path: Path, where: str = "", text: Sequence[str] = ()) -> None:
        self._path, self._as_text = path, frozenset(text)
        self.location = where or str(path)
        with reading(self.location):
            self.n_bytes = path.stat().st_size
            self._is_file = first_bytes(path).startswith(_ARROW)
            with pa.OSFile(str(path)) as file, self._reader(file) as reader:
                self.columns: list[str] = list(reader.schema.names)
                self.n_parts: int = reader.num_record_batches if self._is_file else 1

    def room(self, columns: Sequence[str]) -> int:
        """As of `Table`."""
        # As stored, and as given if it is text that was no dictionary.
        return 2 * self.n_bytes * len(columns) // max(1, len(self.columns) * self.n_parts)

    def batches(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As of `Table`."""
        check_columns(self, columns)
        fields = [self.columns.index(name) for name in columns]
        with reading(self.location), pa.OSFile(str(self._path)) as file, self._reader(file, fields) as reader:
            try:
                for batch in [reader.get_batch(part)] if self._is_file else reader:
                    for start in range(0, batch.num_rows, BATCH_ROWS):
                        yield settled(batch.slice(start, BATCH_ROWS), columns, self._as_text)
            except pa.ArrowMemoryError as error:
                # Nothing bounds the sizes that a damaged file states.
                raise ValueError(str(error)) from error

    def _reader(self, file: pa.NativeFile, fields: list[int] | None = None) -> pa.ipc.RecordBatchFileReader:
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        return (pa.ipc.open_file if self._is_file else pa.ipc.open_stream)(file, options=options)


class PartedTable:
    """A folder of Parquet files such as ``part.0.parquet``, in the order of their numbers: a `Table`.

    Parameters
    ----------
    path
        The folder.
    where
        Its name in messages; the path by default.
    text
        Columns that are given as text even if they hold integers.

    Attributes
    ----------
    location, columns, n_rows, n_bytes, n_parts
        As of `Table`.
    """

    def __init__(self, path: Path, where: str = "", text: Sequence[str] = ()) -> None:
        self.location = where or str(path)
        files = sorted((file for file in path.iterdir() if file.suffix == ".parquet"), key=_by_number)
        if not files:
            raise InputError(Problem(self.location, "is a folder without Parquet files", "give a table"))
        self._tables = [ParquetTable(file, f"{self.location}/{file.name}", text) for file in files]
        self._ends = list(itertools.accumulate(table.n_parts for table in self._tables))
        self.columns = self._tables[0].columns
        self.n_rows = sum(table.n_rows for table in self._tables)
        self.n_bytes = sum(table.n_bytes for table in self._tables)
        self.n_parts = self._ends[-1]

    def room(self, columns: Sequence[str]) -> int:
        """As of `Table`."""
        return self._tables[0].room(columns)

    def batches(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As of `Table`."""
        place = bisect.bisect_right(self._ends, part)
        table = self._tables[place]
        return table.batches(part - self._ends[place] + table.n_parts, columns)


def _by_number(file: Path) -> list[int | str]:
    # Odd places hold digits.
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"(\d+)", file.name))]


def open_table(path: Path, where: str = "", text: Sequence[str] = ()) -> Table:
    """A table in a file that is known by its content, or in a folder of Parquet files.

    Parameters
    ----------
    path
        Parquet, Arrow IPC, or text with commas or tabs, gzip-compressed or not.
    where
        Its name in messages; the path by default.
    text
        Columns that are given as text even if they hold numbers.

    Raises
    ------
    InputError
        There is no such file, or it is damaged.
    """
    where = where or str(path)
    if not path.exists():
        raise InputError(Problem(where, "there is no such file", "check the path"))
    with reading(where):
        if path.is_dir():
            return PartedTable(path, where, text)
        start = first_bytes(path)
        if start.startswith(_PARQUET) or path.suffix == ".parquet":
            return ParquetTable(path, where, text)
        if start.startswith((_ARROW, _ARROW_STREAM)) or path.suffix in {".arrow", ".arrows", ".feather", ".ipc"}:
            return ArrowTable(path, where, text)
        from atlaswriter.sources.csvtable import CsvTable

        return CsvTable(path, where, text)


def first_bytes(path: Path) -> bytes:
    """What a file begins with, by which its kind is known."""
    with path.open("rb") as file:
        return file.read(8)


def check_columns(table: Table, columns: Sequence[str]) -> None:
    """Refuse columns that a table does not have, or has twice."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        what = "column" if len(missing) == 1 else "columns"
        found = f"has no {what} {listed(missing)}; it has {listed(table.columns, 40) or 'none'}"
        raise InputError(Problem(table.location, found, "name other columns, or write the file again with these"))
    repeated = [name for name in columns if table.columns.count(name) > 1]
    if repeated:
        raise InputError(Problem(table.location, f"has several columns {listed(repeated)}", "rename all but one"))


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in tests) or str(kind) in {"string_view", "binary_view"}


def settled(batch: pa.RecordBatch, columns: Sequence[str], as_text: frozenset[str]) -> pa.RecordBatch:
    """Columns in the order asked for, as `Table` promises them."""
    arrays = [batch.column(name) for name in columns]
    settled = [
        texts(array) if name in as_text or _is_text(array.type) else _numbers(array)
        for name, array in zip(columns, arrays, strict=True)
    ]
    return pa.RecordBatch.from_arrays(settled, names=list(columns))


def texts(array: pa.Array) -> pa.DictionaryArray:
    """Text or whole numbers as a dictionary of text with int32 indices; its content is proved sound.

    Raises
    ------
    ValueError
        Bytes are not UTF-8, codes lie outside the dictionary, or numbers are not whole.
    """
    # pyarrow trusts offsets and codes; those of damaged files lead anywhere.
    array.validate(full=True)
    if pa.types.is_floating(array.type):
        if pc.any(pc.greater_equal(pc.abs(array), INEXACT)).as_py():
            raise ValueError("numbers of so many digits are no exact names; store them as text or as integers")
        array = pc.cast(array, pa.int64())
    if str(array.type).endswith("_view"):
        array = pc.cast(array, pa.string())
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    if array.dictionary.null_count:
        # A code may also stand for "nothing"; from here on only a missing code does.
        array = array.dictionary_decode().dictionary_encode()
    if array.type != TEXT:
        array = pa.DictionaryArray.from_arrays(
            pc.cast(array.indices, pa.int32()), pc.cast(array.dictionary, pa.string())
        )
    return array


def _numbers(array: pa.Array) -> pa.Array:
    """Numbers as stored; where some are missing, as floats with NaN."""
    array.validate()
    if not array.null_count:
        return array
    return pc.fill_null(
        array if pa.types.is_floating(array.type) else pc.cast(array, pa.float64(), safe=False), float("nan")
    )


def numbers(column: pa.Array, name: str, where: str) -> NDArray[np.float64]:
    """A column of numbers in float64; `InputError` if it is something else."""
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        found = f"column {name!r} holds {'text' if _is_text(kind) else kind}, not numbers"
        raise InputError(Problem(where, found, "name another column"))
    values: NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def read_all(table: Table, columns: Sequence[str]) -> list[pa.Array]:
    """Whole columns of a table that fits in memory, text as plain strings; `InputError` if there are no rows."""
    found: list[list[pa.Array]] = [[] for _ in columns]
    for part in range(table.n_parts):
        for batch in table.batches(part, columns):
            for pieces, column in zip(found, batch.columns, strict=True):
                pieces.append(pc.cast(column, pa.string()) if pa.types.is_dictionary(column.type) else column)
    if not all(found):
        raise InputError(Problem(table.location, "has no rows", "is it the right file?"))
    return [pa.concat_arrays(pieces) for pieces in found]
