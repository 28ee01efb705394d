"""What the values of a label image mean: which cells, in each frame and feature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import Problems
from atlaswriter.formats.deepcell.jsonlist import Faults, items, shown, whole
from atlaswriter.formats.deepcell.values import LARGEST, Present

# Feature of a row that names none.
EVERY_FEATURE = -1

_KEYS = ("cell", "value", "t", "c")
_FIELDS = itemgetter(*_KEYS)
_ROW = '{{"cell": {}, "value": {}, "t": {}, "c": {}}}'.format
_SOUND = [1, 1, 0, 0]
_ROWS_AT_ONCE = 1 << 14
_LARGEST_INDEX = 2**31 - 1


@dataclass(frozen=True)
class Cells:
    """Rows that say: in this frame and feature, pixels of this value are of this cell.

    A value of several cells, where they overlap, has a row for each.

    Attributes
    ----------
    cell, value, t, c : int64, (n,)
        Cell from 1, value from 1, frame from 0, feature from 0 (`EVERY_FEATURE` only between `parse_cells` and
        `settle_features`).
    """

    cell: NDArray[np.int64]
    value: NDArray[np.int64]
    t: NDArray[np.int64]
    c: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.cell.size

    def take(self, rows: Any) -> Cells:
        """Some of the rows, by number or by a mask."""
        return Cells(*(getattr(self, field.name)[rows] for field in fields(self)))

    def row(self, number: int) -> str:
        """A row for messages."""
        c = "" if self.c[number] == EVERY_FEATURE else f", c {self.c[number]}"
        return f"row {number} (cell {self.cell[number]}, value {self.value[number]}, t {self.t[number]}{c})"


def parse_cells(content: bytes, where: str, problems: Problems, warnings: list[str]) -> Cells | None:
    """Cells from JSON.

    Parameters
    ----------
    content
        A list of ``{"cell": 1, "value": 1, "t": 0, "c": 0}``. Rows without ``c``, as the format's page has them, get
        `EVERY_FEATURE` for it; see `settle_features`. Other keys are left out, with a warning.
    where
        Its name in messages.
    problems, warnings
        Everything that is wrong or strange is added.

    Returns
    -------
    Cells or None
        Rows in the order of the list; None when there is a problem.
    """
    faults, oddities = Faults(where), Faults(where)
    blocks: list[NDArray[np.int64]] = [np.empty((0, 4), np.int64)]

    def read() -> None:
        first = 0
        for rows in items(content, where):
            blocks.append(_numbers(rows, first, faults, oddities))
            first += len(rows)

    n_before = len(problems.found)
    problems.attempt(read)
    cells = Cells(*np.ascontiguousarray(np.concatenate(blocks).T))
    _check_range(cells, EVERY_FEATURE, faults)
    faults.report(problems)
    oddities.warn(warnings)
    return cells if len(problems.found) == n_before else None


def _numbers(rows: list[Any], first: int, faults: Faults, oddities: Faults) -> NDArray[np.int64]:
    """Numbers of rows, int64 (n, 4); sound ones for those that are at fault, so that the others keep their place."""
    try:
        flat = list(chain.from_iterable(map(_FIELDS, rows)))
        if set(map(type, flat)) <= {int} and set(map(len, rows)) <= {4}:
            numbers = np.array(flat, np.int64).reshape(-1, 4)
            if (numbers[:, 3] >= 0).all():
                return numbers
    except (KeyError, TypeError, OverflowError):
        pass
    found = [_row(row, f"row {number}", faults, oddities) or _SOUND for number, row in enumerate(rows, first)]
    return np.array(found, np.int64).reshape(-1, 4)


def _row(row: Any, name: str, faults: Faults, oddities: Faults) -> list[int] | None:
    """Numbers of one row, None when it is at fault."""
    if not isinstance(row, dict):
        faults.add("are no objects", f"{name} is {shown(row)}")
        return None
    missing = [key for key in _KEYS[:3] if key not in row]
    if missing:
        faults.add(f"have no {' and no '.join(missing)}", f"{name} {shown(row)}")
        return None
    if "c" not in row:
        oddities.add('have no "c" and count for every feature with their value', name)
    if not row.keys() <= set(_KEYS):
        oddities.add("have other keys, which are left out", f"{name} {shown(row)}")
    numbers = [whole(row.get(key, EVERY_FEATURE)) for key in _KEYS]
    if "c" in row and numbers[3] == EVERY_FEATURE:
        faults.add("have a negative c", f"{name} {shown(row)}", "number features from 0")
        return None
    if None in numbers:
        faults.add("have numbers that are no whole ones", f"{name} {shown(row)}")
        return None
    return [number for number in numbers if number is not None]


def settle_features(cells: Cells, present: Present) -> Cells:
    """Rows that name no feature once for each that has their value; for feature 0 when none has."""
    if not (cells.c == EVERY_FEATURE).any():
        return cells
    n_features = present.n_features
    # All pairs of row and feature, then those that hold.
    wanted = cells.take(np.repeat(np.arange(cells.n), n_features))
    feature = np.tile(np.arange(n_features), cells.n)
    is_open = wanted.c == EVERY_FEATURE
    fits = (wanted.value <= LARGEST) & (wanted.t < present.n_frames)
    known = fits & present.has(np.where(fits, wanted.t * n_features + feature, 0), np.where(fits, wanted.value, 0))
    nowhere = np.repeat(~known.reshape(cells.n, n_features).any(axis=1), n_features)
    keep = np.where(is_open, known | (nowhere & (feature == 0)), feature == 0)
    return Cells(wanted.cell, wanted.value, wanted.t, np.where(is_open, feature, wanted.c)).take(keep)


def derive(present: Present) -> Cells:
    """Cells of labels of which nothing else is known: every value is a cell. Ordered by frame, feature and value."""
    t, c = np.divmod(present.places, present.n_features)
    value = present.values.astype(np.int64)
    return Cells(value, value.copy(), t, c)


def validate(
    cells: Cells, n_frames: int, n_features: int, present: Present | None, where: str, problems: Problems
) -> None:
    """Note everything that is wrong with cells.

    Parameters
    ----------
    cells
        Rows.
    n_frames, n_features
        Those of the labels.
    present
        Values that the labels have, which is what rows may name; None where that is not to be looked at.
    where
        Name of the cells in messages.
    problems
        Is added to: rows out of range, rows that are there twice, and rows of values that no pixel has.
    """
    faults = Faults(where)
    rows = np.flatnonzero(_check_places(cells, n_frames, n_features, faults))
    inside = cells.take(rows)
    places = inside.t * n_features + inside.c
    again = np.zeros(cells.n, np.bool_)
    again[rows] = repeated(inside, places)
    faults.add_where(again, "are there already", cells.row, "leave one of each")
    if present is not None:
        absent = np.zeros(cells.n, np.bool_)
        absent[rows] = ~present.has(places, inside.value)
        faults.add_where(
            absent, "name a value that no pixel of their frame and feature has", cells.row, "leave them out"
        )
    faults.report(problems)


def validate_range(cells: Cells, n_frames: int, n_features: int, where: str, problems: Problems) -> None:
    """As `validate`, of the range of the numbers only: what a list must keep that is remade anyhow."""
    faults = Faults(where)
    _check_places(cells, n_frames, n_features, faults)
    faults.report(problems)


def repeated(cells: Cells, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows are there already, above; `places` is ``t * n_features + c``, and all numbers fit in int32."""
    again = np.zeros(cells.n, np.bool_)
    values = (places << 32) + cells.value
    order = np.lexsort((cells.cell, values))
    same = (np.diff(values[order]) == 0) & (np.diff(cells.cell[order]) == 0)
    again[order[1:][same]] = True
    return again


def _check_places(cells: Cells, n_frames: int, n_features: int, faults: Faults) -> NDArray[np.bool_]:
    """As `_check_range`, and note rows of frames and features that are not there."""
    sound = _check_range(cells, 0, faults)
    for name, index, size, things in (("t", cells.t, n_frames, "frames"), ("c", cells.c, n_features, "features")):
        bad = (index >= size) & sound
        faults.add_where(
            bad, f"have a {name} that is not there: there are {size:,} {things}", cells.row, "count from 0"
        )
        sound &= index < size
    return sound


def _check_range(cells: Cells, least_c: int, faults: Faults) -> NDArray[np.bool_]:
    """Note rows with numbers that nothing can have; returns which rows are sound."""
    sound = np.ones(cells.n, np.bool_)
    for name, numbers, least, most in (
        ("cell", cells.cell, 1, LARGEST),
        ("value", cells.value, 1, LARGEST),
        ("t", cells.t, 0, _LARGEST_INDEX),
        ("c", cells.c, least_c, _LARGEST_INDEX),
    ):
        low, high = numbers < least, numbers > most
        remedy = f"number from {max(0, least)}" + (", 0 is the background" if least == 1 else "")
        faults.add_where(low, f"have a {name} below {max(0, least)}", cells.row, remedy)
        faults.add_where(high, f"have a {name} above {most:,}", cells.row, f"number from {max(0, least)}, without gaps")
        sound &= ~(low | high)
    return sound


def to_json(cells: Cells) -> Iterator[bytes]:
    """Cells as JSON, a list of objects, in pieces."""
    yield b"["
    for first in range(0, cells.n, _ROWS_AT_ONCE):
        part = cells.take(slice(first, first + _ROWS_AT_ONCE))
        rows = ", ".join(map(_ROW, part.cell.tolist(), part.value.tolist(), part.t.tolist(), part.c.tolist()))
        yield (", " if first else "").encode() + rows.encode()
    yield b"]"
