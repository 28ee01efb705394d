"""Spots: a table in text whose first two columns are x and y, in pixels."""

from __future__ import annotations

import csv
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from atlaswriter.errors import Problem, Problems
from atlaswriter.formats.deepcell.jsonlist import Faults, shown

# Bytes parsed at once, which is also the longest line. Measured: 4 and 8 MiB are as fast, 1 is slower.
_BLOCK_BYTES = 4 << 20

_NUMBER = r"^[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*$"
_ASCII = bytes(range(128)) + b"?" * 128
_BLANK_LINES = re.compile(rb"\n(?:(?:[ \t]*\n)+(?:[ \t]+\Z)?|[ \t]+\Z)")


@dataclass(frozen=True)
class Spots:
    r"""Spots as they were written, field by field.

    Attributes
    ----------
    text
        A line of names and a line for each spot, each ended by ``\n``, which only the last may lack. No line is blank.
    """

    text: bytes

    @property
    def begin(self) -> int:
        """Where the first spot begins in the text."""
        return self.text.find(b"\n") + 1 or len(self.text)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return next(csv.reader([self.text[: self.begin].decode("utf-8-sig", "replace")]), [])

    @property
    def n(self) -> int:
        """Number of spots."""
        begin = self.begin
        return self.text.count(b"\n", begin) + (begin < len(self.text) and not self.text.endswith(b"\n"))

    def xy_px(self) -> NDArray[np.float64]:
        """Positions, (n, 2), in pixels from the upper left corner of the image: column, row."""
        rows = _rows(self, len(self.columns), lambda _: "error")
        blocks = [np.column_stack([_floats(x), _floats(y)]) for x, y in rows]
        return np.concatenate([np.empty((0, 2)), *blocks])

    def to_csv(self) -> Iterator[bytes]:
        """The text, in pieces, with exactly one end of line at its end."""
        for first in range(0, len(self.text), _BLOCK_BYTES):
            yield self.text[first : first + _BLOCK_BYTES]
        if not self.text.endswith(b"\n"):
            yield b"\n"


def parse_spots(
    content: bytes, where: str, height: int, width: int, problems: Problems, warnings: list[str]
) -> Spots | None:
    r"""Spots from CSV.

    Parameters
    ----------
    content
        A line of names, and a line for each spot: x, y and any further columns. Lines may end with ``\r\n``, the
        last end may be missing, and blank lines are left out. Quotes are refused, because the client does not know
        them.
    where
        Its name in messages.
    height, width
        Of the image, pixels; spots are inside, its edges included.
    problems, warnings
        Everything that is wrong or strange is added.

    Returns
    -------
    Spots or None
        None when there is a problem.
    """
    n_before = len(problems.found)
    spots = Spots(_clean(content))
    if b"\r" in spots.text:
        problems.add(where, "has lines that end with a carriage return only", "end lines with a line feed")
        return None
    n_columns = _check_header(spots, where, problems, warnings)
    quote = spots.text.find(b'"', spots.begin)
    if quote >= 0:
        number = spots.text.count(b"\n", 0, quote)
        problems.add(where, f"has quotes, first at spot {number:,}, which the client does not know", "write none")
    elif n_columns >= 2:
        faults = Faults(where, "spots")
        try:
            _check_rows(spots, n_columns, height, width, faults)
        except pa.ArrowInvalid as error:
            problems.add(where, f"cannot be read as CSV ({error})", "write lines of x,y")
        faults.report(problems)
    return spots if len(problems.found) == n_before else None


def _clean(content: bytes) -> bytes:
    """Lines that end with a line feed, none of them blank; the same object where they do already."""
    text = content.replace(b"\r\n", b"\n") if b"\r\n" in content else content
    if any(sign in text for sign in (b"\n\n", b"\n ", b"\n\t")):
        text = _BLANK_LINES.sub(b"\n", text)
    return text


def _check_header(spots: Spots, where: str, problems: Problems, warnings: list[str]) -> int:
    """Note what is wrong with the names; returns how many there are."""
    try:
        columns = spots.columns
    except csv.Error as error:
        problems.add(where, f"has a header that cannot be read ({error})", "begin with a line x,y")
        return 0
    names = [name.strip().lower() for name in columns]
    if len(names) < 2:
        problems.add(where, "has no header line with two names of columns or more", "begin with a line x,y")
    elif re.match(_NUMBER, names[0]) and re.match(_NUMBER, names[1]):
        found = f"begins with numbers, {shown(','.join(names[:2]))}, where names of columns must be"
        problems.add(where, found, "begin with a line x,y, or the first spot is lost")
    elif names[:2] != ["x", "y"] and {"x", "y"} <= set(names):
        problems.add(where, f"has columns {shown(','.join(names))}", "put x and y first, in this order")
    elif names[:2] != ["x", "y"]:
        found = f"has {shown(columns[0])} and {shown(columns[1])} as its first columns"
        warnings.append(str(Problem(where, found, "they are taken for x and y")))
    return len(names)


def _check_rows(spots: Spots, n_columns: int, height: int, width: int, faults: Faults) -> None:
    """Note spots without two numbers, those outside of the image, and those with too few or too many fields."""
    # Of each spot of another number of fields: how many proper ones are before it.
    proper = array("q")

    def skip(row: Any) -> str:
        kind = f"have another number of fields than the header, which has {n_columns}"
        faults.add(kind, f"spot {row.number:,} {shown(row.text)}")
        proper.append(row.number - 1 - len(proper))
        return "skip"

    first = 0
    for x_text, y_text in _rows(spots, n_columns, skip):
        x, y = _floats(x_text), _floats(y_text)

        def example(row: int, first: int = first, columns: tuple[Any, Any] = (x_text, y_text)) -> str:
            number = first + row + 1 + bisect_right(proper, first + row)
            return f"spot {number:,} {shown(b','.join(column[row].as_py() for column in columns).decode('latin-1'))}"

        strange = ~(np.isfinite(x) & np.isfinite(y))
        faults.add_where(strange, "have an x or y that is no number", example)
        outside = ~strange & ((x < 0) | (x > width) | (y < 0) | (y > height))
        kind = f"are outside of the image, {width} pixels wide and {height} high"
        faults.add_where(outside, kind, example, "x is the column and y the row, in pixels of the full image")
        first += x.size


def _rows(spots: Spots, n_columns: int, on_invalid: Callable[[Any], str]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Fields of x and y as they are written, binary, some megabytes of the text at a time."""
    begin = spots.begin
    if begin == len(spots.text):
        return
    # pyarrow hands lines over as UTF-8, which other columns need not be.
    text = spots.text if spots.text.isascii() else spots.text.translate(_ASCII)
    names = [str(number) for number in range(n_columns)]
    reader = pacsv.open_csv(
        pa.BufferReader(pa.py_buffer(text).slice(begin)),
        read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False, column_names=names),
        parse_options=pacsv.ParseOptions(quote_char=False, invalid_row_handler=on_invalid),
        convert_options=pacsv.ConvertOptions(
            include_columns=names[:2], column_types=dict.fromkeys(names[:2], pa.binary())
        ),
    )
    for batch in reader:
        yield batch.column(0), batch.column(1)


def _floats(fields: pa.Array) -> NDArray[np.float64]:
    """Numbers; NaN for what is none."""
    try:
        numbers = pc.cast(pc.cast(fields, pa.string()), pa.float64())
    except pa.ArrowInvalid:
        proper = pc.if_else(pc.match_substring_regex(fields, _NUMBER), fields, b"nan")
        numbers = pc.cast(pc.ascii_trim(pc.cast(proper, pa.string()), " \t"), pa.float64())
    # `to_numpy` would import pandas, which takes longer than everything else here.
    return np.frombuffer(numbers.buffers()[1], np.float64)[numbers.offset : numbers.offset + len(numbers)]
