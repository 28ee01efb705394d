"""Image pyramids (Deep Zoom): a plane becomes tiles of every level, in blocks that need no other.

A block is a square of some tiles, or some rows of tiles where the image is stored in strips. One thread reads it,
makes it 8 bit, writes its tiles, halves it, writes those, and so on until a tile would be larger than what is left;
this goes into a small image of the whole, which is divided in the same way. So every pixel is read once, memory does
not grow with the image, and nobody waits for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs.webp import encode
from atlaswriter.engine.run import Team
from atlaswriter.formats.landscape.layout import IMAGE_FORMAT, IMAGE_TILE, image_levels
from atlaswriter.formats.landscape.scale import UNCHANGED, Scale, known_scale, measured_scale
from atlaswriter.kernels import pixels as kernels
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import AnyArray, Array, n_bytes, overhead
from atlaswriter.sources.spatial import Plane
from atlaswriter.sources.tiling import tiling

# Edges of blocks. The smallest gives enough of them to share, and is the tile of most instruments.
_SMALLEST, _LARGEST = 1024, 4096
# Larger blocks are taken until the small image of the whole fits in so much: 2 gigapixels with blocks of 2048.
_REST_BYTES = 32 << 20
# Tiles of the image that lie across the edges of blocks are decoded for each; more than this is avoided.
_WASTE = 1.3
# Of pixels read at once, before they become 8 bit, or a row of the image's tiles if that is more.
_READ_BYTES = 4 << 20
# What encoding one tile takes beside the block: the tile as RGB, libwebp's planes and buffers, the result.
_TILE_BYTES = 4 << 20

Image = NDArray[np.uint8]
# Told level, column, row and content of each tile, by any thread.
Put = Callable[[int, int, int, bytes], None]


@dataclass(frozen=True)
class PyramidSummary:
    """What was written of one channel.

    Attributes
    ----------
    width, height
        Pixels of the full image.
    levels
        Number of levels; the full image is the last.
    n_tiles, n_bytes
        Of all tiles.
    scale
        How its pixels became 8 bit.
    """

    width: int
    height: int
    levels: int
    n_tiles: int
    n_bytes: int
    scale: Scale


def dzi(width: int, height: int) -> bytes:
    """The file that tells the size of an image, byte for byte as libvips 8.18 writes it."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008"\n'
        f'  Format="{IMAGE_FORMAT.removeprefix(".")}"\n  Overlap="0"\n  TileSize="{IMAGE_TILE}"\n  >\n'
        f'  <Size \n    Height="{height}"\n    Width="{width}"\n  />\n</Image>\n'
    ).encode()


def write_pyramid(
    plane: Plane,
    scale: Scale | None,
    path_of: Callable[[int, int, int], str],
    team: Team,
    sink: Files,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> PyramidSummary:
    """Write the tiles of a channel as files.

    Parameters
    ----------
    plane
        The channel.
    scale
        How its pixels become 8 bit; None: that of `known_scale`, or measured.
    path_of
        Path of a tile by level, column and row; tiles of a level share a folder.
    team
        Who does it.
    sink
        Where the files go.
    on_bytes
        Told the bytes of pixels that are done, by any thread.
    """
    height, width = plane.pixels.shape[:2]
    for level in range(len(image_levels(width, height))):
        sink.make_dir(str(PurePosixPath(path_of(level, 0, 0)).parent))

    def put(level: int, column: int, row: int, content: bytes) -> None:
        sink.write(path_of(level, column, row), content)

    return make_pyramid(plane, scale, put, team, on_bytes)


def make_pyramid(
    plane: Plane, scale: Scale | None, put: Put, team: Team, on_bytes: Callable[[int], None] = lambda _: None
) -> PyramidSummary:
    """Make the tiles of a channel, and hand them to `put`; other arguments as of `write_pyramid`."""
    height, width = plane.pixels.shape[:2]
    sizes = image_levels(width, height)
    n_tiles = n_written = 0
    scale = scale or known_scale(plane)
    with ExitStack() as drawn:
        held = _held(plane, team, drawn, useful=scale is None)
        scale = scale or measured_scale(held, team)
        work = _Pass(held.pixels, len(sizes), scale.convert, plane.key)
        while True:
            work.rest = _drawn(team, work.rest_shape, np.dtype(np.uint8), work.what, drawn)
            tiles, written = work.run(team, put, on_bytes)
            n_tiles, n_written = n_tiles + tiles, n_written + written
            if not work.levels_left:
                return PyramidSummary(width, height, len(sizes), n_tiles, n_written, scale)
            work, on_bytes = _Pass(work.rest, work.levels_left, UNCHANGED.convert, plane.key), _nothing


def pyramid_room(plane: Plane, workers: int = 1) -> int:
    """Bytes to be free for `write_pyramid` when so many blocks are made at once; with 1 the least that will do."""
    n_levels = len(image_levels(plane.pixels.shape[1], plane.pixels.shape[0]))
    work = _Pass(plane.pixels, n_levels, UNCHANGED.convert, plane.key)
    whole = n_bytes(plane.pixels) if _must_be_held(plane.pixels) else 0
    # The small image of the whole has one itself, of a quarter or less.
    reading = overhead(plane.pixels) if whole else 0
    return int(whole + max(reading, 2 * math.prod(work.rest_shape) + workers * work.block_room))


def _nothing(size: int) -> None:
    """Nobody is told."""


def _drawn(team: Team, shape: tuple[int, ...], dtype: np.dtype, what: str, drawn: ExitStack) -> Array:
    """An array whose bytes are drawn from the budget until the context ends."""
    size = math.prod(shape) * dtype.itemsize
    team.budget.take(size, what)
    drawn.callback(team.budget.give_back, size)
    return np.empty(shape, dtype)


def _must_be_held(pixels: AnyArray) -> bool:
    """Whether an image is stored in pieces too large for blocks, such as a PNG, or a TIFF of one packed strip."""
    if isinstance(pixels, np.ndarray):
        return False
    tiles, (height, width) = tiling(pixels), pixels.shape[:2]
    return tiles.rows > _LARGEST or _LARGEST < tiles.columns < width or (tiles.rows >= height > _SMALLEST)


def _held(plane: Plane, team: Team, drawn: ExitStack, *, useful: bool) -> Plane:
    """The plane in memory where it would be decoded twice and there is room, else as it is.

    A quarter of what is free is for it, as of `Budget.keep`; `useful` says that it will be read twice.
    """
    pixels = plane.pixels
    if isinstance(pixels, np.ndarray):
        return plane
    must, small = _must_be_held(pixels), n_bytes(pixels) <= team.budget.free // 4
    if not (must or (small and (useful or _sides(pixels)[2] > _WASTE))):
        return plane
    what, pixel_bytes = f"image {plane.key}", math.prod(pixels.shape[2:]) * pixels.dtype.itemsize
    whole = _drawn(team, pixels.shape, pixels.dtype, what, drawn)

    def read(rows: slice, columns: slice) -> None:
        whole[rows, columns] = pixels[rows, columns]

    height, width = pixels.shape[:2]
    for rows, columns in tiling(pixels).parts(height, width, _SMALLEST**2):
        size = (rows.stop - rows.start) * (columns.stop - columns.start) * pixel_bytes
        # What is read at once as a whole needs no second place for it beside the decoder's.
        memory = overhead(pixels) + (0 if must else size)
        team.submit(read, rows, columns, memory=memory, what=what)
    team.wait()
    return replace(plane, pixels=whole)


def _sides(pixels: AnyArray) -> tuple[int, int, float]:
    """Rows and columns of a block, and how much more is decoded than once."""
    height, width = pixels.shape[:2]
    tiles, values = tiling(pixels), math.prod(pixels.shape[2:])
    rows = _SMALLEST
    while True:
        # Strips, and what becomes of them, are as wide as the image.
        columns = width if tiles.columns >= width else rows
        waste = tiles.waste(rows, columns if columns < width else tiles.columns)
        rest = height * width * values * (IMAGE_TILE // 2) ** 2 // rows**2
        if rows >= _LARGEST or (waste <= _WASTE and rest <= _REST_BYTES):
            return rows, columns, waste
        rows *= 2


class _Pass:
    """The finest levels of an image, as many as its blocks reach.

    Parameters
    ----------
    pixels
        The image.
    n_levels
        Of the image, down to one pixel.
    convert
        Makes its values 8 bit.
    key
        Of the channel, for messages.

    Attributes
    ----------
    levels_left
        Levels that are made of `rest`, in another pass.
    rest_shape
        Of the image that is left.
    rest
        This image, filled by `run`.
    block_room
        Bytes that one block takes.
    what
        For messages.
    """

    def __init__(self, pixels: AnyArray, n_levels: int, convert: Callable[[Array, Image], None], key: str) -> None:
        self._pixels, self._convert, self._finest, self.what = pixels, convert, n_levels - 1, f"image {key}"
        height, width = pixels.shape[:2]
        self._rows, self._columns, _ = _sides(pixels)
        self._n_levels = min((self._rows // IMAGE_TILE).bit_length(), n_levels)
        self.levels_left = n_levels - self._n_levels
        left, above = image_levels(width, height)[self.levels_left - 1] if self.levels_left else (0, 0)
        self._values = pixels.shape[2:]
        self.rest_shape = (above, left, *self._values)
        self.rest: Image = np.empty(0, np.uint8)
        rows, columns = min(self._rows, height), min(self._columns, width)
        row_bytes = columns * math.prod(self._values)
        tiles = tiling(pixels)
        self._step = max(1, _READ_BYTES // (row_bytes * pixels.dtype.itemsize) // tiles.rows) * tiles.rows
        reading = min(self._step, rows) * row_bytes * pixels.dtype.itemsize + overhead(pixels)
        # Its 8-bit pixels, and those of half the size, before these replace them.
        self.block_room = rows * row_bytes * 5 // 4 + max(reading, _TILE_BYTES)

    def run(self, team: Team, put: Put, on_bytes: Callable[[int], None]) -> tuple[int, int]:
        """Make all blocks; number and bytes of their tiles."""
        height, width = self._pixels.shape[:2]
        futures = [
            team.submit(self._block, top, left, put, on_bytes, memory=self.block_room, what=self.what)
            for top in range(0, height, self._rows)
            for left in range(0, width, self._columns)
        ]
        team.wait()
        results = [future.result() for future in futures]
        return sum(tiles for tiles, _ in results), sum(size for _, size in results)

    def _block(self, top: int, left: int, put: Put, on_bytes: Callable[[int], None]) -> tuple[int, int]:
        height, width = self._pixels.shape[:2]
        rows, columns = slice(top, min(top + self._rows, height)), slice(left, min(left + self._columns, width))
        image = self._eight_bit(rows, columns)
        on_bytes(image.size * self._pixels.dtype.itemsize)
        n_tiles = n_written = 0
        for step in range(self._n_levels):
            row, column = (top >> step) // IMAGE_TILE, (left >> step) // IMAGE_TILE
            for below, beside, tile in _tiles(image):
                content = encode(tile)
                put(self._finest - step, column + beside, row + below, content)
                n_tiles, n_written = n_tiles + 1, n_written + len(content)
            image = _halved(image)
        if self.levels_left:
            top, left = top >> self._n_levels, left >> self._n_levels
            self.rest[top : top + image.shape[0], left : left + image.shape[1]] = image
        return n_tiles, n_written

    def _eight_bit(self, rows: slice, columns: slice) -> Image:
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, *self._values), np.uint8)
        start = rows.start
        while start < rows.stop:
            stop = min(start // self._step * self._step + self._step, rows.stop)
            values = np.ascontiguousarray(self._pixels[slice(start, stop), columns])
            self._convert(values, out[start - rows.start : stop - rows.start])
            start = stop
        return out


def _tiles(image: Image) -> Iterator[tuple[int, int, Image]]:
    """Row, column and pixels of each tile."""
    for top in range(0, image.shape[0], IMAGE_TILE):
        for left in range(0, image.shape[1], IMAGE_TILE):
            tile = image[top : top + IMAGE_TILE, left : left + IMAGE_TILE]
            yield top // IMAGE_TILE, left // IMAGE_TILE, tile


def _halved(image: Image) -> Image:
    out = np.empty((-(-image.shape[0] // 2), -(-image.shape[1] // 2), *image.shape[2:]), np.uint8)
    (kernels.halve_grey if image.ndim == 2 else kernels.halve_colour)(image, out)
    return out
