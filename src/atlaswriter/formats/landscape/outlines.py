"""Outlines of cells: each to the tile of its centroid."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.engine.columns import split
from atlaswriter.engine.gather import Gathering, Part
from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.cells import CellIds
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.tallies import OutlineTally
from atlaswriter.formats.landscape.tiles import key_of, negative_records
from atlaswriter.kernels import rings
from atlaswriter.sources.base import Array
from atlaswriter.sources.spatial import Outlines, Rings

# What a vertex takes while its ring is brought to its tile: as read, in hundredths, in order, grouped.
_VERTEX_BYTES = 16 + 8 + 8 + 8
# Vertices of a piece of work.
_PIECE_VERTICES = 1 << 20


class OutlineReader:
    """Reads outlines once, and groups them by tile.

    Parameters
    ----------
    outlines
        Rings by cell name.
    to_px
        float64 (3, 3): to pixels.
    cells
        The cells.
    job
        The export.
    segmentation
        Name of the segmentation; None for the first one.

    Attributes
    ----------
    tally
        What was found, by this reader or others.
    dtypes
        Of the columns of records: cell and vertices of each ring, x and y of the vertices.
    """

    what = "outlines"
    dtypes = (np.dtype("u4"), np.dtype("u4"), np.dtype("i4"), np.dtype("i4"))

    def __init__(
        self, outlines: Outlines, to_px: NDArray[np.float64], cells: CellIds, job: Job, segmentation: str | None
    ) -> None:
        self.segmentation, self._cells = segmentation, cells
        self.name = layout.outlines_dir(segmentation)
        self.tally = OutlineTally()
        self._drawn = np.zeros(cells.n_cells, np.bool_)
        self._outlines, self._job = outlines, job
        self._to_px = np.ascontiguousarray(to_px[:2]).ravel()
        self._guard = threading.Lock()

    @property
    def extent(self) -> int:
        """How far from the origin positions are at most, in hundredths of a pixel."""
        return self.tally.extent

    def kind(self, job: Job, genes: Genes) -> OutlineTiles:
        """How they are written, by a job that knows its style."""
        del genes
        return OutlineTiles(job, self._cells.n_cells, self.segmentation)

    def read(self, room: int) -> Gathering:
        """Read everything; what does not fit in `room` bytes, which the caller has drawn, goes to temporary files."""
        gathering = Gathering(self.dtypes, room, lambda: self._job.sink.scratch() / self.name)
        team = self._job.team
        pieces = (piece for batch in self._outlines.batches() for piece in _pieces(batch))
        for number, piece in enumerate(pieces):
            memory = _VERTEX_BYTES * piece.x.size
            team.submit(self._add, number, piece, gathering, memory=memory, what="reading outlines")
        team.wait()
        tally = self.tally
        if tally.unknown and not (tally.kept or tally.left_out or tally.degenerate):
            found = f"none of {tally.unknown:,} outlines is of a cell of {self._cells.where}, such as {tally.strangers}"
            raise InputError(
                Problem(self._outlines.location, found, "give outlines of the same cells, or their column")
            )
        tally.drawn, tally.negative = int(self._drawn.sum()), negative_records(gathering)
        return gathering

    def _add(self, number: int, batch: Rings, gathering: Gathering) -> None:
        n_rings = batch.offsets.size - 1
        state, i, j, sizes = (np.zeros(n_rings, np.int64) for _ in range(4))
        x, y = (np.empty(batch.x.size + n_rings, np.int32) for _ in range(2))
        edge = self._job.options.edge
        rings.close(
            batch.offsets, np.array(batch.x, np.float64), np.array(batch.y, np.float64), self._to_px, edge,
            state, i, j, sizes, x, y,
        )  # fmt: skip
        if n_far := int((state == rings.FAR).sum()):
            found = f"{n_far:,} outlines have vertices that are NaN, infinite or far away"
            raise InputError(Problem(self._outlines.location, found, "remove or mend them"))
        ids = self._cells.ids_of(batch.names)
        good = (state == rings.GOOD) & (ids >= 0)
        n_vertices = int(sizes.sum())
        furthest = max(int(np.abs(axis[:n_vertices].astype(np.int64)).max(initial=0)) for axis in (x, y))
        self._note(batch, state, ids, good, np.column_stack([i, j])[good], furthest)
        if good.any():
            gathering.add((number, 0), _grouped(ids, i, j, sizes, x, y, good))
        self._job.progress.add(8 * batch.x.size)

    def _note(
        self, batch: Rings, state: Array, ids: Array, good: Array, tiles: NDArray[np.int64], furthest: int
    ) -> None:
        unknown = ids == CellIds.UNKNOWN
        tally = OutlineTally(int(good.sum()), extent=furthest, dropped=int(batch.n_dropped))
        tally.unknown, tally.left_out = int(unknown.sum()), int((ids == CellIds.LEFT_OUT).sum())
        tally.degenerate = int((state == rings.DEGENERATE).sum())
        tally.strangers = listed(batch.names[:3].to_pylist()) if unknown.all() else ""
        if len(tiles):
            tally.last = tiles.max(axis=0).tolist()
        with self._guard:
            self._drawn[ids[good]] = True
            self.tally.add(tally)


def _pieces(batch: Rings) -> Iterator[Rings]:
    """A batch in pieces of so many vertices that one can be brought to its tile, or of a single ring."""
    for piece in split(np.diff(batch.offsets), _PIECE_VERTICES):
        offsets = batch.offsets[piece.start : piece.stop + 1]
        here = slice(int(offsets[0]), int(offsets[-1]))
        names, dropped = batch.names[piece], 0 if piece.start else batch.n_dropped
        yield Rings(names, np.ascontiguousarray(offsets - offsets[0]), batch.x[here], batch.y[here], dropped)


def _grouped(ids: Array, i: Array, j: Array, sizes: Array, x: Array, y: Array, good: Array) -> Part:
    keys = key_of(i, j)
    kept = np.flatnonzero(good)
    order = kept[np.argsort(keys[kept], kind="stable")]
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    ordered = np.ascontiguousarray(sizes[order])
    out = tuple(np.empty(int(ordered.sum()), np.int32) for _ in range(2))
    rings.reorder(np.ascontiguousarray(starts[order]), ordered, x, y, *out)
    unique, firsts = np.unique(keys[order], return_index=True)
    of_rings = np.r_[firsts, order.size].astype(np.int64)
    of_vertices = np.r_[0, np.cumsum(ordered)][of_rings]
    columns = (ids[order].astype(np.uint32), ordered.astype(np.uint32), *out)
    return Part(unique, (of_rings, of_rings, of_vertices, of_vertices), columns)


class OutlineTiles:
    """Content of the tiles of outlines: a `tiles.Kind`."""

    def __init__(self, job: Job, n_cells: int, segmentation: str | None) -> None:
        self._job, self._segmentation = job, segmentation
        self._id_type = job.style.id_type(n_cells)
        self.directory = layout.outlines_dir(segmentation)
        self.tile_type = pa.int64() if job.options.compat else pa.int32()

    def path(self, i: int, j: int) -> str:
        """File of one loose tile."""
        return layout.outline_tile(i, j, self._segmentation)

    def columns(self, i: int, j: int, found: Part, position: int) -> dict[str, pa.Array]:
        """Rings in pixels of the image, and cell ids, ascending."""
        del i, j
        ids, sizes, x, y = found.of(position)
        order = np.argsort(ids, kind="stable")
        starts = np.r_[0, np.cumsum(sizes, dtype=np.int64)[:-1]]
        ordered = np.ascontiguousarray(sizes[order].astype(np.int64))
        xs, ys = np.empty_like(x), np.empty_like(y)
        rings.reorder(np.ascontiguousarray(starts[order]), ordered, x, y, xs, ys)
        xy = self._job.style.coordinates(np.column_stack([xs, ys]).ravel() / 100.0)
        return self._columns(ids[order], np.r_[0, np.cumsum(ordered)], xy)

    def empty(self) -> dict[str, pa.Array]:
        """No outlines."""
        return self._columns(np.empty(0, np.uint32), np.zeros(1, np.int64), np.empty(0, self._job.style.real_dtype))

    def _columns(self, ids: Array, ends: NDArray[np.int64], xy: Array) -> dict[str, pa.Array]:
        return {"GEOMETRY": self._job.style.polygons(ends, xy), "name": pa.array(ids).cast(self._id_type)}
