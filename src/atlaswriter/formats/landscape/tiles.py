"""Data tiles: a file each, or row groups of a few files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from atlaswriter.engine.gather import ByKey, Part
from atlaswriter.engine.work import Unit
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.options import Options
from atlaswriter.formats.landscape.rowgroups import Chunk
from atlaswriter.formats.landscape.tallies import Tally
from atlaswriter.sinks.files import Files
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


def negative_records(records: ByKey) -> int:
    """Records of tiles left of or above the image."""
    keys = records.keys
    return int(records.sizes(0)[(keys < key_of(0, 0)) | ((keys & _MASK) < _BIAS)].sum())


@dataclass(frozen=True)
class Grid:
    """Tiles from (0, 0) that hold image, transcripts and outlines."""

    n_x: int
    n_y: int

    @classmethod
    def covering(cls, planes: Sequence[Plane], tallies: Iterable[Tally], options: Options) -> Grid:
        """The smallest grid for all of these; `InputError` if row groups would have to be too many."""
        tile_size, furthest = options.tile_size, [tally.last for tally in tallies]
        n_x, n_y = (max([0, *(last[axis] for last in furthest)]) + 1 for axis in (0, 1))
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


class Kind(Protocol):
    """One kind of data tiles: transcripts, or outlines."""

    @property
    def directory(self) -> str:
        """Folder of its files."""

    @property
    def tile_type(self) -> pa.DataType:
        """Of the tile's numbers in row-group mode."""

    def path(self, i: int, j: int) -> str:
        """File of one loose tile."""

    def columns(self, i: int, j: int, found: Part, position: int) -> dict[str, pa.Array]:
        """Content of one tile."""

    def empty(self) -> dict[str, pa.Array]:
        """Content of a tile without anything."""


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """To which of `count` shares each piece belongs, so that these have about as many bytes each."""
    each = np.array(sizes, np.int64) + 1
    middles = np.cumsum(each) - (each + 1) // 2
    found: list[int] = (middles * count // max(int(each.sum()), 1)).tolist()
    return found


def n_files(grid: Grid, options: Options) -> int:
    """Files of one kind in row-group mode."""
    return -(-grid.n_x * grid.n_y // options.max_row_groups_per_file)


def _unit_names(name: str) -> str:
    return f"tiles/{name}/"


def written(name: str, results: Mapping[str, Any]) -> tuple[int, int]:
    """Tiles and records of one source that are done."""
    prefix = _unit_names(name)
    rows = [found for unit, found in results.items() if unit.startswith(prefix)]
    return sum(tiles for tiles, _ in rows), sum(records for _, records in rows)


def all_written(name: str, tally: Tally, grid: Grid, options: Options, results: Mapping[str, Any]) -> bool:
    """Whether all tiles of one source are done."""
    if options.row_groups:
        return all(f"{_unit_names(name)}{number}" in results for number in range(n_files(grid, options)))
    return written(name, results)[1] == tally.kept


def row_group_files(directory: str, grid: Grid, options: Options) -> dict[str, Any]:
    """Entry of one kind, by the folder of its files, in the parameters of row-group mode."""
    return {
        "directory": directory,
        "files": [layout.chunk_name(number) for number in range(n_files(grid, options))],
        "max_row_groups_per_file": options.max_row_groups_per_file,
        "total_row_groups": grid.n_x * grid.n_y,
    }


@dataclass
class TileWriter:
    """Writes the tiles of one source.

    Attributes
    ----------
    job
        The export.
    name
        Of the source.
    kind
        What tiles hold.
    records
        The records.
    grid
        All tiles.
    """

    job: Job
    name: str
    kind: Kind
    records: ByKey
    grid: Grid

    @property
    def least(self) -> int:
        """Bytes that one thread takes to write any of the tiles."""
        return max((self._room(piece) for piece in self.records.pieces(_PIECE_BYTES)), default=0)

    def units(self, number: int = 0, count: int = 1) -> Iterator[Unit]:
        """All tiles, or one of `count` shares of about as many bytes: the same pieces whoever writes them.

        A unit's result is how many tiles, and records, it has written.
        """
        row_groups = self.job.options.row_groups
        pieces = [keys for _, keys in self._files()] if row_groups else self.records.pieces(_PIECE_BYTES)
        make = self._chunks() if row_groups else self._loose()
        shares = _shares([int(self.records.n_bytes(piece).sum()) for piece in pieces], count)
        return (unit for share, unit in zip(shares, make, strict=True) if share == number)

    def _loose(self) -> Iterator[Unit]:
        for number, piece in enumerate(self.records.pieces(_PIECE_BYTES)):
            yield self._unit(number, self._room(piece), lambda files, piece=piece: self._write_loose(piece, files))

    def _unit(self, number: int, memory: int, write: Any) -> Unit:
        return Unit(f"{_unit_names(self.name)}{number}", "writing tiles", write, memory)

    def _room(self, piece: slice) -> int:
        return self.records.room(piece) + ROOM * int(self.records.n_bytes(piece).max(initial=0))

    def _write_loose(self, piece: slice, files: Files) -> list[int]:
        job, found = replace(self.job, sink=files), self.records.read(piece)
        for position, key in enumerate(found.keys.tolist()):
            i, j = tile_of(key)
            table = job.style.table(self.kind.columns(i, j, found, position))
            job.write_table(self.kind.path(i, j), table)
        job.progress.add(sum(column.nbytes for column in found.columns))
        return [found.keys.size, int(self.records.sizes(0)[piece].sum())]

    def _chunks(self) -> Iterator[Unit]:
        for number, (indices, keys) in enumerate(self._files()):
            room = max((self._room(piece) for piece in self._pieces(keys)), default=0)
            path = layout.chunk_file(self.kind.directory, number)

            def write(files: Files, path: str = path, indices: range = indices, keys: slice = keys) -> list[int]:
                return self._write_chunk(path, indices, keys, files)

            yield self._unit(number, room, write)

    def _files(self) -> list[tuple[range, slice]]:
        """Row groups, and positions of the keys, of each file of row-group mode."""
        each, n_groups = self.job.options.max_row_groups_per_file, self.grid.n_x * self.grid.n_y
        firsts = [*range(0, n_groups, each), n_groups]
        ends = np.searchsorted(self.records.keys, [key_of(*divmod(first, self.grid.n_y)) for first in firsts]).tolist()
        found = zip(pairwise(firsts), pairwise(ends), strict=True)
        return [(range(*indices), slice(*keys)) for indices, keys in found]

    def _pieces(self, keys: slice) -> Iterator[slice]:
        for piece in self.records.pieces(_PIECE_BYTES):
            if piece.start < keys.stop and piece.stop > keys.start:
                yield slice(max(piece.start, keys.start), min(piece.stop, keys.stop))

    def _write_chunk(self, path: str, indices: range, keys: slice, files: Files) -> list[int]:
        groups = self._groups(keys)
        upcoming = next(groups, None)
        schema, n_tiles, n_rows = self._schema(), 0, 0
        with Chunk(files, path, schema, self.job.style.options(schema)) as chunk:
            for index in indices:
                if upcoming is not None and upcoming[0] == index:
                    content, upcoming = upcoming[1], next(groups, None)
                    n_tiles += 1
                else:
                    content = self.kind.empty()
                table = self._table(index, content, schema)
                n_rows += table.num_rows
                chunk.add(table)
        return [n_tiles, n_rows]

    def _groups(self, keys: slice) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Row-group index and content of the tiles that are not empty."""
        for piece in self._pieces(keys):
            found = self.records.read(piece)
            for position, key in enumerate(found.keys.tolist()):
                i, j = tile_of(key)
                if j >= 0:
                    yield i * self.grid.n_y + j, self.kind.columns(i, j, found, position)
            self.job.progress.add(sum(column.nbytes for column in found.columns))

    def _table(self, index: int, content: dict[str, pa.Array], schema: pa.Schema) -> pa.Table:
        n_rows = len(next(iter(content.values())))
        where = {
            name: pa.array(np.full(n_rows, value, np.int32))
            for name, value in zip(("tile_x", "tile_y"), divmod(index, self.grid.n_y), strict=True)
        }
        every = content | where
        return pa.Table.from_arrays([every[name].cast(schema.field(name).type) for name in schema.names], schema=schema)

    def _schema(self) -> pa.Schema:
        tile = pa.array([], self.kind.tile_type)
        columns: dict[str, pa.Array] = {}
        for name, empty in self.kind.empty().items():
            columns[name] = empty
            if name == "name":
                columns |= {"tile_x": tile, "tile_y": tile}
        schema = self.job.style.table(columns).schema
        info = {
            "tile_grid_info": self.grid.parameters(self.job.options.tile_size),
            "storage_mode": "row_groups",
            "max_row_groups_per_file": self.job.options.max_row_groups_per_file,
        }
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in info.items()}
        return schema.with_metadata(texts)
