"""Cells: their ids, and where they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.job import Job
from atlaswriter.kernels import names as kernels
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.spatial import Cells

# Pixels from the origin that count as a position, as for transcripts: their hundredths fit in 32 bits.
_FARTHEST = (2**31 - 1) / 100


# Names looked up at a time.
_SLICE = 1 << 16


class CellIds:
    """The cells of one segmentation, sorted by name: the row is the cell's id.

    Parameters
    ----------
    cells
        As the data set has them.
    to_px
        float64 (3, 3): to pixels.
    size_px
        Width and height of what is exported where a region was chosen: cells outside are left out. Else None.

    Attributes
    ----------
    names
        string (n_cells,), ascending.
    xy
        float64 (2 * n_cells,): positions in pixels, two decimals.

    Raises
    ------
    InputError
        Names are missing or repeat, or positions are not numbers; all at once.
    """

    UNKNOWN, LEFT_OUT = -1, -2

    def __init__(self, cells: Cells, to_px: NDArray[np.float64], size_px: tuple[int, int] | None) -> None:
        self.where = cells.where
        with np.errstate(invalid="ignore", over="ignore"):
            x, y = (row[0] * cells.x + row[1] * cells.y + row[2] for row in to_px[:2])
        _check(cells, x, y)
        order = pc.sort_indices(cells.names).to_numpy()
        names = cells.names.take(pa.array(order))
        _check_distinct(names, cells.where)
        xy = np.rint(np.column_stack([x, y])[order] * 100.0) / 100.0
        self._all = names
        self._id_of = np.arange(len(names), dtype=np.int64)
        if size_px is not None:
            inside = ((xy >= 0) & (xy < size_px)).all(axis=1)
            self._id_of = np.where(inside, np.cumsum(inside) - 1, self.LEFT_OUT)
            names, xy = names.filter(pa.array(inside)), xy[inside]
        self.names = names
        self.xy = xy.ravel()
        every = _hashes(self._all)
        self._order = np.argsort(every, kind="stable")
        self._hashes = every[self._order]
        self._ambiguous = bool((self._hashes[1:] == self._hashes[:-1]).any())

    @property
    def n_cells(self) -> int:
        """Cells that are exported."""
        return len(self.names)

    def ids_of(self, names: pa.StringArray) -> NDArray[np.int64]:
        """Ids of some cells; UNKNOWN or LEFT_OUT for those that have none."""
        ids = np.full(len(names), self.UNKNOWN, np.int64)
        for first in range(0, len(names) if len(self._all) else 0, _SLICE):
            some = names.slice(first, _SLICE)
            ids[first : first + _SLICE] = self._ids_of(some)
        return ids

    def _ids_of(self, names: pa.StringArray) -> NDArray[np.int64]:
        if self._ambiguous:
            found = pc.index_in(names, value_set=self._all)
            return np.where(found.is_valid(), self._id_of[found.fill_null(0).to_numpy()], self.UNKNOWN)
        places = np.searchsorted(self._hashes, _hashes(names))
        rows = self._order[np.minimum(places, len(self._all) - 1)]
        same = pc.equal(names, self._all.take(pa.array(rows))).fill_null(False).to_numpy(zero_copy_only=False)
        return np.where(same, self._id_of[rows], self.UNKNOWN)

    def write(self, job: Job, segmentation: str | None = None) -> None:
        """Write names and positions."""
        columns = {"name": self.names, "geometry": job.style.pairs(job.style.coordinates(self.xy))}
        job.write_table(layout.cell_metadata_file(segmentation), job.style.table(columns, index=()))


def _check(cells: Cells, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    problems = Problems()
    if not len(cells.names):
        problems.add(cells.where, "there are no cells", "export something else")
    if cells.names.null_count:
        problems.add(cells.where, f"{cells.names.null_count:,} cells have no name", "name them")
    wrong = np.flatnonzero(~((np.abs(x) <= _FARTHEST) & (np.abs(y) <= _FARTHEST)))
    if wrong.size:
        shown = listed(cells.names.take(pa.array(wrong[:3])).to_pylist())
        found = f"{wrong.size:,} cells have no usable position (NaN, infinite, or far away): {shown}"
        problems.add(cells.where, found, "remove or mend them")
    problems.raise_if_any()


def _check_distinct(names: pa.StringArray, where: str) -> None:
    """Refuse names, in order, that repeat."""
    if len(names) < 2:
        return
    same = pc.equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    if same.any():
        shown = listed(dict.fromkeys(names.take(pa.array(np.flatnonzero(same)[:10])).to_pylist()), 3)
        found = f"{int(same.sum()):,} names of cells occur more than once: {shown}"
        raise InputError(Problem(where, found, "make them unique"))


def _hashes(names: pa.StringArray) -> NDArray[np.uint64]:
    """A number for each name."""
    found = np.empty(len(names), np.uint64)
    if len(names):
        _, offsets, content = names.buffers()
        ends = np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1]
        kernels.hashes(readable(ends), readable(np.frombuffer(content or b"", np.uint8)), found)
    return found


def refuse_repeats(ids: NDArray[np.int64], names: pa.StringArray, where: str) -> None:
    """Raise `InputError` where cells with an id of 0 and above occur more than once."""
    known = np.sort(ids[ids >= 0])
    again = np.unique(known[1:][known[1:] == known[:-1]])
    if again.size:
        first = [int(np.flatnonzero(ids == wanted)[0]) for wanted in again[:3]]
        shown = listed(names.take(pa.array(first)).to_pylist())
        raise InputError(Problem(where, f"{again.size:,} cells occur more than once: {shown}", "leave one row a cell"))


def refuse_strangers(ids: NDArray[np.int64], names: pa.StringArray, where: str, cells: Cells) -> None:
    """Raise `InputError` where not a single name is that of a cell, which a wrong column or spelling makes."""
    if ids.size and (ids == CellIds.UNKNOWN).all():
        theirs, ours = (listed(some[:3].to_pylist()) for some in (names, cells.names))
        found = f"names no cell of {cells.where}: it has {theirs} and others, {cells.where} has {ours}"
        raise InputError(Problem(where, found, "give names of the same cells"))
