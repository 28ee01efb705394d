"""Cells: their ids, and where they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.job import Job
from atlaswriter.sources.spatial import Cells

# Pixels from the origin that count as a position, as for transcripts: their hundredths fit in 32 bits.
_FARTHEST = (2**31 - 1) / 100


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
        self._padded = _padded(self._all)

    @property
    def n_cells(self) -> int:
        """Cells that are exported."""
        return len(self.names)

    def ids_of(self, names: pa.StringArray) -> NDArray[np.int64]:
        """Ids of some cells; UNKNOWN or LEFT_OUT for those that have none."""
        if not len(self._all):
            return np.full(len(names), self.UNKNOWN, np.int64)
        wanted = _padded(names, self._padded.itemsize)
        places = np.minimum(np.searchsorted(self._padded, wanted), len(self._all) - 1)
        return np.where(self._padded[places] == wanted, self._id_of[places], self.UNKNOWN)

    def write(self, job: Job, segmentation: str | None = None) -> None:
        """Write names and positions."""
        xy = self.xy.astype(job.style.real_dtype)
        columns = {"name": self.names, "geometry": job.style.pairs(xy)}
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


def _padded(names: pa.StringArray, width: int | None = None) -> NDArray[np.bytes_]:
    """UTF-8 of names in a NumPy array, whose order is that of the names; longer ones than `width` match nothing."""
    texts = names.cast(pa.large_binary())
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    sizes = np.diff(offsets)
    content = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    width = int(sizes.max(initial=1)) if width is None else width
    out = np.zeros((len(texts), width), np.uint8)
    fits = sizes <= width
    if fits.all() and sizes.size and (sizes == width).all():
        out[:] = content[offsets[0] : offsets[-1]].reshape(-1, width)
    else:
        short = np.where(fits, sizes, 0)
        columns = np.arange(width)
        chosen = columns[None, :] < short[:, None]
        out[chosen] = content[(offsets[:-1, None] + columns)[chosen]]
        # No name holds a byte that UTF-8 never has.
        out[~fits] = 0xFF
    return out.view(f"S{width}").ravel()
