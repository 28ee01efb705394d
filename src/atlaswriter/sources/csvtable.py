"""Tables in text files with commas or tabs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.packed import open_gzip
from atlaswriter.sources.tables import INEXACT, TEXT, check_columns, first_bytes, reading, settled

# Bytes parsed at once (1 to 4 MiB are about as fast; batches should not be too short), those of a part, and those of
# the longest line.
_BLOCK_BYTES, _PART_BYTES, _LONGEST_LINE = 2 << 20, 32 << 20, 1 << 20


class CsvTable:
    """Comma- or tab-separated text with a header, gzip-compressed or not: a `Table`.

    Its parts are stretches of the file; a compressed one is read from its beginning and has one part. Columns that
    begin with numbers hold numbers, float64, NaN where nothing is written; longer integers, which float64 would spoil,
    are text. "NA" and "nan" are names as any other.

    Parameters
    ----------
    path
        The file. No value may have line breaks.
    where
        Its name in messages; the path by default.
    text
        Columns that are given as text even if they begin with numbers.

    Attributes
    ----------
    location, columns, n_rows, n_bytes, n_parts
        As of `Table`.
    """

    n_rows = None

    def __init__(self, path: Path, where: str = "", text: Sequence[str] = ()) -> None:
        self._path = path
        self.location = where or str(path)
        with reading(self.location):
            self.n_bytes = path.stat().st_size
            self._packed = first_bytes(path).startswith(b"\x1f\x8b")
            with self._opened() as file:
                header = _line(file)
                start = file.read(_LONGEST_LINE)
            self._header_bytes = len(header)
            line = header.decode("utf-8-sig")
            if not line.strip():
                raise InputError(Problem(self.location, "has no header line", "is it the right file?"))
            self._delimiter = "\t" if line.count("\t") > line.count(",") else ","
            self.columns: list[str] = next(csv.reader([line], delimiter=self._delimiter))
            self._types = self._guessed(start) | dict.fromkeys(text, TEXT)
        self.n_parts = 1 if self._packed else max(1, -(-self.n_bytes // _PART_BYTES))

    def room(self, columns: Sequence[str]) -> int:  # noqa: ARG002
        """As of `Table`."""
        # Lines as read, joined to what was left, and split into values; the columns take less than their text.
        return 6 * _BLOCK_BYTES

    def batches(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As of `Table`."""
        check_columns(self, columns)
        options = self._options({name: self._types[name] for name in columns})
        with reading(self.location), self._opened() as file:
            for lines in self._lines(file, part):
                for batch in pacsv.read_csv(pa.BufferReader(lines), **options).to_batches():
                    yield settled(batch, columns, frozenset())

    def _opened(self) -> IO[bytes]:
        opener: Any = open_gzip if self._packed else open
        file: IO[bytes] = opener(self._path, "rb")
        return file

    def _lines(self, file: IO[bytes], part: int) -> Iterator[bytes]:
        """The lines of a part, some megabytes at a time."""
        if self._packed:
            _line(file)
            return whole_lines(file)
        begin, end = self._start(file, part), self._start(file, part + 1)
        file.seek(begin)
        return whole_lines(file, end - begin)

    def _start(self, file: IO[bytes], part: int) -> int:
        """Where the first line begins that begins in a part or later."""
        place = part * _PART_BYTES
        if place <= self._header_bytes:
            return self._header_bytes
        if place >= self.n_bytes:
            return self.n_bytes
        file.seek(place - 1)
        return place - 1 + len(_line(file))

    def _options(self, types: Mapping[str, pa.DataType | None]) -> dict[str, Any]:
        return {
            "read_options": pacsv.ReadOptions(
                # Longer than all that is parsed at once, so that it stays in one piece.
                block_size=_BLOCK_BYTES + 2 * _LONGEST_LINE,
                use_threads=False,
                column_names=self.columns,
            ),
            "parse_options": pacsv.ParseOptions(delimiter=self._delimiter),
            "convert_options": pacsv.ConvertOptions(
                null_values=[""],
                include_columns=list(types),
                column_types={name: kind for name, kind in types.items() if kind is not None},
            ),
        }

    def _guessed(self, start: bytes) -> dict[str, pa.DataType]:
        """Types of the columns, told from the first lines."""
        lines = start[: start.rfind(b"\n") + 1] or start
        names = [name for name in self.columns if self.columns.count(name) == 1]
        if not lines.strip() or not names:
            return dict.fromkeys(names, pa.float64())
        table = pacsv.read_csv(pa.BufferReader(lines), **self._options(dict.fromkeys(names)))
        return {name: pa.float64() if _are_numbers(table.column(name)) else TEXT for name in names}


def whole_lines(file: IO[bytes], left: int = sys.maxsize) -> Iterator[bytes]:
    """The lines that follow in a file, some megabytes at a time; those of spaces only may be left out.

    Parameters
    ----------
    file
        Is read from where it stands.
    left
        Bytes of it, at most.

    Raises
    ------
    ValueError
        A line is longer than 1 MiB.
    """
    rest = b""
    while block := file.read(min(_BLOCK_BYTES, left)):
        left -= len(block)
        cut = block.rfind(b"\n") + 1
        if cut:
            lines, rest = rest + block[:cut], b""
            if not lines.isspace():
                yield lines
        rest += block[cut:]
        if len(rest) > _LONGEST_LINE:
            raise _too_long()
    if rest and not rest.isspace():
        yield rest


def _line(file: IO[bytes]) -> bytes:
    """The next line, not longer than any may be."""
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
        raise _too_long()
    return line


def _too_long() -> ValueError:
    return ValueError(f"a line is longer than {_LONGEST_LINE:,} bytes")


def _are_numbers(column: pa.ChunkedArray) -> bool:
    """Whether a column holds numbers that float64 holds as well."""
    kind = column.type
    if pa.types.is_null(kind):
        return True
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return False
    largest = pc.max(pc.abs(pc.cast(column, pa.float64(), safe=False))).as_py()
    return largest is None or not largest >= INEXACT
