"""The image: a pyramid for every channel, as loose tiles or as row groups."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from atlaswriter.engine.work import Unit, Write
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.pyramid import dzi, make_pyramid, write_pyramid
from atlaswriter.formats.landscape.rowgroups import Chunk
from atlaswriter.formats.landscape.scale import Scale, known_scale
from atlaswriter.sinks import fs
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import n_bytes
from atlaswriter.sources.spatial import Plane

_NUMBER = pa.field("", pa.int32(), nullable=False)
_SCHEMA = pa.schema(
    [*(_NUMBER.with_name(name) for name in ("zoom", "tile_x", "tile_y")), pa.field("image_data", pa.binary(), False)]
)
# WebP cannot be packed further.
_OPTIONS = {"compression": "none", "write_statistics": False, "store_schema": False, "use_dictionary": False}


def image_units(planes: Sequence[Plane], job: Job) -> Iterator[Unit]:
    """All channels, one after the other; each is shared out to all threads."""
    for plane in planes:
        size = n_bytes(plane.pixels)
        yield Unit(image_unit(plane), f"image {plane.key}", _write_of(plane, job), 0, size, size // 4, alone=True)


def image_unit(plane: Plane) -> str:
    """Name of the unit that writes a channel."""
    return f"image/{plane.key}"


def _write_of(plane: Plane, job: Job) -> Write:
    def write(files: Files) -> dict[str, Any]:
        height, width = plane.pixels.shape[:2]
        files.make_dir(layout.IMAGES_DIR)
        files.write(layout.dzi_file(plane.key), dzi(width, height))
        return (_row_groups if job.options.row_groups else _loose)(plane, replace(job, sink=files))

    return write


def _scale(plane: Plane, job: Job) -> Scale | None:
    return known_scale(plane, (job.options.image_max or {}).get(plane.key))


def _loose(plane: Plane, job: Job) -> dict[str, Any]:
    def path_of(level: int, column: int, row: int) -> str:
        return layout.image_tile(plane.key, level, column, row)

    found = write_pyramid(plane, _scale(plane, job), path_of, job.team, job.sink, job.progress.add)
    return {"scale": found.scale.record()}


def _row_groups(plane: Plane, job: Job) -> dict[str, Any]:
    with _spool(job.sink.scratch()) as spool:
        found = make_pyramid(plane, _scale(plane, job), spool.put, job.team, job.progress.add)
        return {"scale": found.scale.record(), "row_groups": _pack(plane, spool, job)}


def _pack(plane: Plane, spool: _Spool, job: Job) -> dict[str, Any]:
    """Write tiles in order; the entry of row-group mode in the parameters."""
    directory = layout.image_chunks_dir(plane.key)
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
    return {
        "directory": directory,
        "files": files,
        "max_row_groups_per_file": each,
        "total_row_groups": len(tiles),
        "num_tiles": len(tiles),
        "zoom_levels": sorted(zoom_info),
        "zoom_info": zoom_info,
    }


class ImageFacts:
    """What the parameters say of an image that is written.

    Attributes
    ----------
    info
        ``image_info``.
    scaling
        How values became 8 bit, by channel; None without image.
    max_level
        Level of the full image; None without image.
    row_group_files, dimensions
        Entries of row-group mode.
    """

    def __init__(self, planes: Sequence[Plane], results: Mapping[str, Any]) -> None:
        self.info = [_info(plane, position) for position, plane in enumerate(planes)]
        self.scaling: dict[str, Any] | None = None
        self.max_level: int | None = None
        self.row_group_files: dict[str, Any] = {}
        self.dimensions: dict[str, Any] = {}
        if not planes:
            return
        found = {plane.key: results[image_unit(plane)] for plane in planes}
        channels = {key: one["scale"] for key, one in found.items()}
        self.scaling = {"source_image": planes[0].source, "channels": channels}
        height, width = planes[0].pixels.shape[:2]
        self.max_level = len(layout.image_levels(width, height)) - 1
        self.dimensions = {"width": width, "height": height, "tile_size": layout.IMAGE_TILE}
        groups = {key: one["row_groups"] for key, one in found.items() if "row_groups" in one}
        self.row_group_files = {"images": groups} if groups else {}


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
