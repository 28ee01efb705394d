"""The image: a pyramid for every channel, as loose tiles or as row groups."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.pyramid import PyramidSummary, dzi, make_pyramid, write_pyramid
from atlaswriter.formats.landscape.rowgroups import Chunk
from atlaswriter.formats.landscape.scale import Scale, known_scale
from atlaswriter.sinks import fs
from atlaswriter.sources.spatial import Plane, Spatial

_NUMBER = pa.field("", pa.int32(), nullable=False)
_SCHEMA = pa.schema(
    [*(_NUMBER.with_name(name) for name in ("zoom", "tile_x", "tile_y")), pa.field("image_data", pa.binary(), False)]
)
# WebP cannot be packed further.
_OPTIONS = {"compression": "none", "write_statistics": False, "store_schema": False, "use_dictionary": False}


class ImageWriter:
    """Writes the channels of one image.

    Attributes
    ----------
    info
        ``image_info`` of the parameters.
    scaling
        How values became 8 bit, by channel; None without image.
    max_level
        Level of the full image; None without image.
    row_group_files, dimensions
        Entries of row-group mode.
    n_tiles
        Image tiles of all channels.
    """

    def __init__(self, spatial: Spatial, job: Job) -> None:
        self._planes, self._job = spatial.planes, job
        self.info = [_info(plane, position) for position, plane in enumerate(spatial.planes)]
        self.scaling: dict[str, Any] | None = None
        if spatial.planes:
            self.scaling = {"source_image": spatial.planes[0].source, "channels": {}}
        self.max_level: int | None = None
        self.row_group_files: dict[str, Any] = {}
        self.dimensions: dict[str, Any] = {}
        self.n_tiles = 0

    def write(self) -> None:
        """Write all channels, one after the other; each is shared out to all threads."""
        for plane in self._planes:
            height, width = plane.pixels.shape[:2]
            self._job.sink.make_dir(layout.IMAGES_DIR)
            self._job.sink.write(layout.dzi_file(plane.key), dzi(width, height))
            found = self._row_groups(plane) if self._job.options.row_groups else self._loose(plane)
            self.n_tiles += found.n_tiles
            self.max_level = found.levels - 1
            self.dimensions = {"width": width, "height": height, "tile_size": layout.IMAGE_TILE}
            if self.scaling is not None:
                self.scaling["channels"][plane.key] = found.scale.record()

    def _scale(self, plane: Plane) -> Scale | None:
        return known_scale(plane, (self._job.options.image_max or {}).get(plane.key))

    def _loose(self, plane: Plane) -> PyramidSummary:
        def path_of(level: int, column: int, row: int) -> str:
            return layout.image_tile(plane.key, level, column, row)

        job = self._job
        return write_pyramid(plane, self._scale(plane), path_of, job.team, job.sink, job.progress.add)

    def _row_groups(self, plane: Plane) -> PyramidSummary:
        job = self._job
        with _spool(job.sink.scratch()) as spool:
            found = make_pyramid(plane, self._scale(plane), spool.put, job.team, job.progress.add)
            self._pack(plane, spool)
        return found

    def _pack(self, plane: Plane, spool: _Spool) -> None:
        directory, job = layout.image_chunks_dir(plane.key), self._job
        job.sink.make_dir(directory)
        each = layout.IMAGE_ROW_GROUPS_PER_FILE
        tiles = sorted(spool.places)
        files: list[str] = []
        for first in range(0, len(tiles), each):
            files.append(layout.chunk_name(len(files)))
            with Chunk(job.sink, f"{directory}/{files[-1]}", _SCHEMA, _OPTIONS) as chunk:
                for tile in tiles[first : first + each]:
                    row = [[number] for number in tile] + [[spool.get(tile)]]
                    chunk.add(pa.table(row, schema=_SCHEMA))
        zoom_info = _zoom_info(plane)
        self.row_group_files.setdefault("images", {})[plane.key] = {
            "directory": directory,
            "files": files,
            "max_row_groups_per_file": each,
            "total_row_groups": len(tiles),
            "num_tiles": len(tiles),
            "zoom_levels": sorted(zoom_info),
            "zoom_info": zoom_info,
        }


def _zoom_info(plane: Plane) -> dict[int, dict[str, int]]:
    """Where the tiles of each level lie, level by level and column by column."""
    found, offset = {}, 0
    height, width = plane.pixels.shape[:2]
    for level, (across, down) in enumerate(layout.image_levels(width, height)):
        n_x, n_y = -(-across // layout.IMAGE_TILE), -(-down // layout.IMAGE_TILE)
        found[level] = {"num_tiles_x": n_x, "num_tiles_y": n_y, "num_tiles": n_x * n_y, "row_group_offset": offset}
        offset += n_x * n_y
    return found


def _info(plane: Plane, position: int) -> dict[str, Any]:
    """What the front-end knows of a channel: its files, its button and its colour."""
    for key, button, color in layout.XENIUM_CHANNELS:
        if plane.key == key:
            return {"name": key, "button_name": button, "color": list(color)}
    color = layout.MORE_COLORS[position % len(layout.MORE_COLORS)]
    return {"name": plane.key, "button_name": plane.key.upper(), "color": list(color)}


class _Spool:
    """Tiles in a temporary file, in the order they are made."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._end = descriptor, 0
        self._guard = threading.Lock()
        self.places: dict[tuple[int, int, int], tuple[int, int]] = {}

    def put(self, level: int, column: int, row: int, content: bytes) -> None:
        """Keep one tile."""
        with self._guard:
            self.places[level, column, row] = (self._end, len(content))
            self._end += fs.append(self._descriptor, content)

    def get(self, tile: tuple[int, int, int]) -> bytes:
        """One tile again."""
        start, size = self.places[tile]
        return os.pread(self._descriptor, size, start)


@contextmanager
def _spool(folder: Path) -> Iterator[_Spool]:
    with tempfile.TemporaryFile(dir=folder) as file:
        yield _Spool(file.fileno())
