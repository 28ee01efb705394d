"""Outlines of cells that are stored as vertices: in tables, and in the Zarr stores of Xenium."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import n_bytes, row_blocks
from atlaswriter.sources.spatial import Rings, Table
from atlaswriter.sources.tables import numbers, texts
from atlaswriter.sources.zarrzip import ZarrZip

# An outline of more vertices is none: it would have to be held in memory as a whole.
_MOST_VERTICES = 1 << 20

# Numbers read at once from a Zarr store.
_BLOCK_NUMBERS = 1 << 19


class VertexOutlines:
    """Outlines as a table with a row a vertex, those of a cell one after the other: an `Outlines`.

    A cell that comes again later, after others, has a further ring.

    Parameters
    ----------
    table
        The vertices.
    cell
        Its column with the name of the cell.
    x, y
        Its columns with the position.

    Attributes
    ----------
    location, n_bytes, room
        As of `Outlines`.
    """

    def __init__(self, table: Table, cell: str, x: str, y: str) -> None:
        self._table, self._columns = table, (cell, x, y)
        self.location, self.n_bytes = table.location, table.n_bytes
        # Vertices in float64, once more joined to those left over.
        self.room = table.room(self._columns) + 4 * 8 * _MOST_VERTICES

    def batches(self) -> Iterator[Rings]:
        """As of `Outlines`."""
        rest: Rings | None = None
        for part in range(self._table.n_parts):
            for batch in self._table.batches(part, self._columns):
                if batch.num_rows:
                    rings = self._rings(batch)
                    whole, rest = _cut(rings if rest is None else _joined(rest, rings))
                    if len(rest.x) > _MOST_VERTICES:
                        found = f"the outline of cell {rest.names[0]} has more than {_MOST_VERTICES:,} vertices"
                        raise InputError(Problem(self.location, found, "are the vertices sorted by cell?"))
                    yield whole
        if rest is not None:
            yield rest

    def _rings(self, batch: pa.RecordBatch) -> Rings:
        """Stretches of rows of one cell."""
        name, x, y = self._columns
        cell = texts(batch.column(0))
        if cell.null_count:
            found = f"{cell.null_count} vertices have no {name}"
            raise InputError(Problem(self.location, found, "write the file again from its source"))
        codes = cell.indices.to_numpy()
        starts = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1])
        return Rings(
            cell.dictionary.take(pa.array(codes[starts])),
            np.append(starts, len(codes)),
            numbers(batch.column(1), x, self.location),
            numbers(batch.column(2), y, self.location),
        )


def _joined(first: Rings, second: Rings) -> Rings:
    """One ring and those that follow, the first of which may go on with it."""
    held = len(first.x)
    if first.names[0] == second.names[0]:
        names = second.names
        offsets = np.append(0, second.offsets[1:] + held)
    else:
        names = pa.concat_arrays([first.names, second.names])
        offsets = np.append(0, second.offsets + held)
    return Rings(names, offsets, _appended(first.x, second.x), _appended(first.y, second.y))


def _appended(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([first, second])


def _cut(rings: Rings) -> tuple[Rings, Rings]:
    """All rings but the last, which may go on in the next batch, and the last."""
    last = len(rings.names) - 1
    at = int(rings.offsets[last])
    whole = Rings(rings.names[:last], rings.offsets[: last + 1], rings.x[:at], rings.y[:at])
    rest = Rings(rings.names[last:], rings.offsets[last:] - at, rings.x[at:].copy(), rings.y[at:].copy())
    return whole, rest


class ZarrOutlines:
    """Outlines in a store of Xenium, a row of vertices for each cell: an `Outlines`.

    Parameters
    ----------
    store
        It must stay open.
    group
        Holds the arrays `vertices` (x and y in turn), `num_vertices` and `cell_index`.
    names
        Names of the cells by their index, string.

    Attributes
    ----------
    location, n_bytes, room
        As of `Outlines`.

    Raises
    ------
    InputError
        Arrays are missing, or do not fit each other.
    """

    def __init__(self, store: ZarrZip, group: str, names: pa.StringArray) -> None:
        self.location = f"{store.root.location}/{group}"
        self._names = names
        self._sizes = store.array(f"{group}/num_vertices", None).read()
        n_rings = len(self._sizes)
        self._cells = store.array(f"{group}/cell_index", n_rings).read()
        self._vertices = store.array(f"{group}/vertices", n_rings, None).lazy()
        width = self._vertices.shape[1]
        self.n_bytes = n_bytes(self._vertices)
        self._step = max(1, _BLOCK_NUMBERS // max(1, width * self._vertices.grain)) * self._vertices.grain
        # As stored, and twice its half in float64.
        self.room = self._vertices.overhead + 3 * 8 * self._step * width
        most = width // 2
        if n_rings and (self._sizes.min() < 0 or self._sizes.max() > most):
            raise self._damaged(f"an outline has {self._sizes.max()} vertices, or less than none, of {most}")
        if n_rings and (self._cells.min() < 0 or self._cells.max() >= len(names)):
            raise self._damaged(f"an outline is that of cell {self._cells.max()} of {len(names)}")

    def batches(self) -> Iterator[Rings]:
        """As of `Outlines`."""
        for first, block in row_blocks(self._vertices, self._step):
            rows = slice(first, first + len(block))
            sizes = self._sizes[rows]
            used = np.arange(block.shape[1] // 2) < sizes[:, None]
            x, y = (block[:, axis : 2 * used.shape[1] : 2][used].astype(np.float64) for axis in (0, 1))
            offsets = np.append(0, np.cumsum(sizes, dtype=np.int64))
            yield Rings(self._names.take(pa.array(self._cells[rows])), offsets, x, y)

    def _damaged(self, found: str) -> InputError:
        return InputError(Problem(self.location, f"damaged outlines: {found}", "write the file again from its source"))
