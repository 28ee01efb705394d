"""Image pyramids of LandscapeFiles, read: their size from the DZI, their tiles decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import ReadError
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.columns import Array, read_table
from atlaswriter.formats.landscape.content import image_of
from atlaswriter.formats.landscape.header import Header
from atlaswriter.sources.untrusted import locate, read_bytes

# Names of imagecodecs' functions.
_DECODERS = {".webp": "webp_decode", ".png": "png_decode", ".jpg": "jpeg_decode", ".jpeg": "jpeg_decode"}
# The largest slide scanners give some 100,000 tiles.
_MOST_TILES = 1 << 20
# Bytes before the content that a RIFF file counts.
_RIFF_HEAD = 8


@dataclass(frozen=True)
class Pyramid:
    """Size of one channel's image.

    Attributes
    ----------
    width, height
        Pixels of the full image.
    tile_size
        Edge of an image tile, pixels.
    levels
        Width and height of each level, coarsest first; the position is the level's number.
    """

    width: int
    height: int
    tile_size: int

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Width and height of each level, coarsest first."""
        return layout.image_levels(self.width, self.height)

    def n_tiles(self, level: int) -> tuple[int, int]:
        """Columns and rows of tiles of one level."""
        width, height = self.levels[level]
        return -(-width // self.tile_size), -(-height // self.tile_size)

    def tile_shape(self, level: int, column: int, row: int) -> tuple[int, int]:
        """Height and width of one tile; those at the far edges are cropped."""
        width, height = self.levels[level]
        return min(self.tile_size, height - row * self.tile_size), min(self.tile_size, width - column * self.tile_size)


def read_pyramid(root: Path, channel: str) -> Pyramid:
    """Size of a channel's image, from its DZI."""
    name = layout.dzi_file(channel)
    found: dict[str, str] = {}

    def element(tag: str, attributes: dict[str, str]) -> None:
        kind = tag.rpartition(":")[2]
        found.update({f"{kind}.{key}": value for key, value in attributes.items()})

    def refuse(*_: Any) -> None:
        raise ReadError("dzi", name, "declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = element
    parser.EntityDeclHandler = refuse
    content = read_bytes(locate(root, name), name)
    try:
        parser.Parse(content, True)
        width, height, tile_size = (int(found[key]) for key in ("Size.Width", "Size.Height", "Image.TileSize"))
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise ReadError("dzi", name, f"does not tell the size of the image ({error!r})") from None
    if min(width, height, tile_size) < 1 or -(-width // tile_size) * -(-height // tile_size) > _MOST_TILES:
        raise ReadError("dzi", name, f"is of an image of {width} × {height} in tiles of {tile_size}")
    return Pyramid(width, height, tile_size)


def read_tile(root: Path, header: Header, channel: str, level: int, column: int, row: int) -> tuple[bytes, str]:
    """An encoded image tile, and the file that it is in."""
    chunks = header.image_chunks(channel)
    if chunks is None:
        name = layout.image_tile(channel, level, column, row, header.image_format)
        return read_bytes(locate(root, name), name), name
    levels = header.image_levels(channel)
    if level not in levels:
        raise ReadError("groups.levels", layout.PARAMETERS, f"zoom_info of {channel} has no level {level}")
    first, _, n_y = levels[level]
    path, group = chunks.place(first + column * n_y + row)
    return image_of(read_table(root, path, group), path), path


def decoder_of(image_format: str) -> str:
    """Name of the function of imagecodecs for tiles whose names end so."""
    found = _DECODERS.get(image_format.lower())
    if found is None:
        raise ReadError(
            "image.format", layout.PARAMETERS, f"image_format {image_format!a} is none of {listed(_DECODERS)}"
        )
    return found


def decode(content: bytes, image_format: str, where: str) -> Array:
    """uint8 ``(height, width)`` or ``(height, width, channels)`` of an encoded image tile."""
    import imagecodecs

    decoder = decoder_of(image_format)
    if decoder == "webp_decode":
        _check_riff(content, where)
    try:
        return np.asarray(getattr(imagecodecs, decoder)(content))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise ReadError("image.decode", where, f"an image cannot be decoded ({error or 'out of memory'})") from None


def _check_riff(content: bytes, where: str) -> None:
    """Whether a WebP image is as long as it says; decoders overlook what comes after."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ReadError("image.decode", where, "an image is not WebP")
    stated = int.from_bytes(content[4:8], "little") + _RIFF_HEAD
    if stated != len(content):
        raise ReadError("image.decode", where, f"an image has {len(content):,} bytes and says {stated:,}")
