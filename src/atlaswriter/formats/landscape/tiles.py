"""Data tiles: a file each, or row groups of a few files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter.engine.gather import Gathering, Part
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.options import Options
from atlaswriter.formats.landscape.rowgroups import Chunk
from atlaswriter.sources.spatial import Plane

# Bytes of records that one thread turns into tiles at a time.
_PIECE_BYTES = 8 << 20
# What a record becomes on its way into a file, over its own bytes: positions as floats, lists of them, pages.
ROOM = 6
# Row groups, most of them empty, that are still worth writing; 200,000 x 100,000 pixels in tiles of 250 have 320,000.
_MOST_GROUPS = 1 << 20
_BIAS = 1 << 31
_MASK = (1 << 32) - 1


def key_of(i: Any, j: Any) -> Any:
    """Key of a tile: ascending by i, then j; both may be negative."""
    return (i << 32) + (j + _BIAS)


def tile_of(key: int) -> tuple[int, int]:
    """The opposite of `key_of`."""
    return key >> 32, (key & _MASK) - _BIAS


@dataclass(frozen=True)
class Grid:
    """Tiles from (0, 0) that hold image, transcripts and outlines."""

    n_x: int
    n_y: int

    @classmethod
    def covering(cls, planes: Sequence[Plane], sources: Sequence[Source], options: Options) -> Grid:
        """The smallest grid for all of these; `InputError` if row groups would have to be too many."""
        tile_size = options.tile_size
        n_x, n_y = (int(max([0, *(source.last[axis] for source in sources)])) + 1 for axis in (0, 1))
        for plane in planes:
            height, width = plane.pixels.shape[:2]
            n_x, n_y = max(n_x, -(-width // tile_size)), max(n_y, -(-height // tile_size))
        if options.row_groups and n_x * n_y > _MOST_GROUPS:
            found = f"positions reach over {n_x:,} x {n_y:,} tiles, of which row groups must hold the empty ones too"
            raise InputError(Problem("row_groups", found, "use loose tiles, larger tiles (tile_size=), or a region"))
        return cls(n_x, n_y)

    def parameters(self, tile_size: int) -> dict[str, Any]:
        """As the front-end wants to know it."""
        return {
            "tile_size": tile_size,
            "num_tiles_x": self.n_x,
            "num_tiles_y": self.n_y,
            "x_min": 0,
            "x_max": self.n_x * tile_size,
            "y_min": 0,
            "y_max": self.n_y * tile_size,
        }


class Source(Protocol):
    """Records of one kind, grouped by tile.

    Attributes
    ----------
    what
        ``"transcripts"`` or ``"outlines"``.
    segmentation
        Name of the segmentation they belong to; None for the first one, and where they belong to none.
    gathering
        The records.
    """

    what: str
    segmentation: str | None
    gathering: Gathering

    @property
    def last(self) -> NDArray[np.int64]:
        """Largest tile that holds any, in both directions, int64 (2,)."""

    @property
    def extent(self) -> int:
        """How far from the origin positions are at most, in hundredths of a pixel."""

    def kind(self, job: Job, genes: Genes) -> Kind:
        """How they are written, by a job that knows its style."""


class Kind(Protocol):
    """One kind of data tiles: transcripts, or outlines."""

    @property
    def directory(self) -> str:
        """Folder of its files."""

    @property
    def rows_key(self) -> str:
        """What the parameters call the number of all rows."""

    @property
    def tile_type(self) -> pa.DataType:
        """Of the tile's numbers in row-group mode."""

    def path(self, i: int, j: int) -> str:
        """File of one loose tile."""

    def columns(self, i: int, j: int, found: Part, position: int) -> dict[str, pa.Array]:
        """Content of one tile."""

    def empty(self) -> dict[str, pa.Array]:
        """Content of a tile without anything."""


@dataclass
class TileWriter:
    """Writes the tiles of one kind.

    Attributes
    ----------
    n_tiles
        Tiles that are not empty.
    n_rows
        Records that were written.
    negative
        Records of tiles left of or above the image, which row-group mode cannot hold.
    files
        Names of the files of row-group mode, in their folder.
    """

    job: Job
    kind: Kind
    gathering: Gathering
    n_tiles: int = 0
    n_rows: int = 0
    negative: int = 0
    files: list[str] = field(default_factory=list)

    @property
    def least(self) -> int:
        """Bytes that one thread takes to write any of the tiles."""
        return max((self._room(piece) for piece in self.gathering.pieces(_PIECE_BYTES)), default=0)

    def write(self, grid: Grid) -> None:
        """Write all tiles; waits for them."""
        self.job.sink.make_dir(self.kind.directory)
        keys, sizes = self.gathering.keys, self.gathering.sizes(0)
        outside = (keys < key_of(0, 0)) | ((keys & _MASK) < _BIAS)
        self.negative = int(sizes[outside].sum())
        held = ~outside if self.job.options.row_groups else np.ones_like(outside)
        self.n_tiles, self.n_rows = int(held.sum()), int(sizes[held].sum())
        work = self._chunks(grid) if self.job.options.row_groups else self._loose()
        for future in list(work):
            future.result()
            self.job.team.raise_if_failed()

    def _loose(self) -> Iterator[Any]:
        for piece in self.gathering.pieces(_PIECE_BYTES):
            yield self.job.team.submit(self._write_loose, piece, memory=self._room(piece), what="writing tiles")

    def _room(self, piece: slice) -> int:
        return self.gathering.room(piece) + ROOM * int(self.gathering.n_bytes(piece).max(initial=0))

    def _write_loose(self, piece: slice) -> None:
        found = self.gathering.read(piece)
        for position, key in enumerate(found.keys.tolist()):
            i, j = tile_of(key)
            table = self.job.style.table(self.kind.columns(i, j, found, position))
            self.job.write_table(self.kind.path(i, j), table)
        self.job.progress.add(sum(column.nbytes for column in found.columns))

    def _chunks(self, grid: Grid) -> Iterator[Any]:
        each = self.job.options.max_row_groups_per_file
        n_groups = grid.n_x * grid.n_y
        keys = self.gathering.keys
        for number, first in enumerate(range(0, n_groups, each)):
            last = min(first + each, n_groups)
            ends = [key_of(*divmod(index, grid.n_y)) for index in (first, last)]
            begin, end = (int(place) for place in np.searchsorted(keys, ends))
            room = max((self._room(piece) for piece in self._pieces(begin, end)), default=0)
            self.files.append(layout.chunk_name(number))
            path = layout.chunk_file(self.kind.directory, number)
            yield self.job.team.submit(
                self._write_chunk, path, grid, range(first, last), slice(begin, end), memory=room, what="writing tiles"
            )

    def _pieces(self, begin: int, end: int) -> Iterator[slice]:
        for piece in self.gathering.pieces(_PIECE_BYTES):
            if piece.start < end and piece.stop > begin:
                yield slice(max(piece.start, begin), min(piece.stop, end))

    def _write_chunk(self, path: str, grid: Grid, indices: range, keys: slice) -> None:
        groups = self._groups(grid, keys)
        upcoming = next(groups, None)
        schema = self._schema(grid)
        with Chunk(self.job.sink, path, schema, self.job.style.options(schema)) as chunk:
            for index in indices:
                if upcoming is not None and upcoming[0] == index:
                    content, upcoming = upcoming[1], next(groups, None)
                else:
                    content = self.kind.empty()
                chunk.add(self._table(index, grid, content, schema))

    def _groups(self, grid: Grid, keys: slice) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Row-group index and content of the tiles that are not empty."""
        for piece in self._pieces(keys.start, keys.stop):
            found = self.gathering.read(piece)
            for position, key in enumerate(found.keys.tolist()):
                i, j = tile_of(key)
                if j >= 0:
                    yield i * grid.n_y + j, self.kind.columns(i, j, found, position)
            self.job.progress.add(sum(column.nbytes for column in found.columns))

    def _table(self, index: int, grid: Grid, content: dict[str, pa.Array], schema: pa.Schema) -> pa.Table:
        n_rows = len(next(iter(content.values())))
        where = {
            name: pa.array(np.full(n_rows, value, np.int32))
            for name, value in zip(("tile_x", "tile_y"), divmod(index, grid.n_y), strict=True)
        }
        every = content | where
        return pa.Table.from_arrays([every[name].cast(schema.field(name).type) for name in schema.names], schema=schema)

    def _schema(self, grid: Grid) -> pa.Schema:
        tile = pa.array([], self.kind.tile_type)
        columns: dict[str, pa.Array] = {}
        for name, empty in self.kind.empty().items():
            columns[name] = empty
            if name == "name":
                columns |= {"tile_x": tile, "tile_y": tile}
        schema = self.job.style.table(columns).schema
        info = {
            "tile_grid_info": grid.parameters(self.job.options.tile_size),
            "storage_mode": "row_groups",
            "max_row_groups_per_file": self.job.options.max_row_groups_per_file,
        }
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in info.items()}
        return schema.with_metadata(texts)

    def parameters(self, grid: Grid) -> dict[str, Any]:
        """Entry of row-group mode in the parameters."""
        return {
            "directory": self.kind.directory,
            "files": self.files,
            "max_row_groups_per_file": self.job.options.max_row_groups_per_file,
            "total_row_groups": grid.n_x * grid.n_y,
        }
