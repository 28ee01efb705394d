"""Planes of TIFF files, read a few segments (tiles or strips) at a time by any number of threads.

tifffile reads the headers and knows the codecs; which segments are fetched, and how, is decided here.
"""

from __future__ import annotations

import math
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array, as_native
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.slices import bounds
from atlaswriter.sources.tiling import Tiling

_CUT_SHORT = "the file is damaged or incomplete: copy or write it again"
_CONVERT = "convert it to 8 or 16 bit, grey or RGB"

# Content for each stored byte, beyond which a header is not believed. Deflate reaches 1032, blank tiles in zstd 26,000.
_MOST_TIMES = 100_000

# Rows of an image that is stored as it is are read so many bytes at a time.
_RAW_BYTES = 1 << 20

# Content in bytes a second on one core, by compression: 16-bit tiles of Xenium took 1.4 ns (real, rather blank) to 4.4
# ns (synthetic, noisy) a pixel with deflate and predictor; lossless JPEG 2000 some 50.
_RAW, _DEFLATE = (1,), (8, 32946)
_SPEEDS = {1: 4e9, 8: 5e8, 32946: 5e8, 5: 2e8, 50000: 8e8}
_OTHER_SPEED = 5e7

_MIN_IS_BLACK, _RGB, _YCBCR = 1, 2, 6


class TiffPlane:
    """One plane of a TIFF page: a `Lazy`.

    Parameters
    ----------
    page
        The page, of an open file.
    file
        The same file.
    sample
        Which value of each pixel; several as a slice from 0.

    Attributes
    ----------
    shape
        (height, width), of several values (height, width, n).
    dtype, grain, overhead, speed
        As of `Lazy`.
    tiling
        How it is stored.
    planar
        Whether the values of a pixel are stored apart from each other.
    """

    def __init__(self, page: tifffile.TiffPage, file: File, sample: int | slice = 0) -> None:
        self._file, self._sample = file, sample
        self._where = f"{Path(file.name).name}, page {page.index}"
        _refuse_unreadable(page, file.name)
        size = page.imagelength, page.imagewidth
        self.shape: tuple[int, ...] = size if isinstance(sample, int) else (*size, sample.stop)
        self.dtype = np.dtype(page.dtype)
        self.planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        self._values = 1 if self.planar else page.samplesperpixel
        tile = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, size[0]), size[1])
        self.tiling = Tiling(*map(int, tile))
        self._offsets = np.array(page.dataoffsets, np.int64)
        self._counts = np.array(page.databytecounts, np.int64)
        self._stored_dtype = self.dtype.newbyteorder(page.parent.byteorder)
        self._decode, self._tables = page.decode, page.jpegtables
        self._tiled = page.is_tiled
        self._compression, self._predictor = int(page.compression), int(page.predictor)
        summed = self._predictor == 2 and self.dtype.kind in "ui"
        whole = page.bitspersample == 8 * self.dtype.itemsize
        self._plain = (self._predictor == 1 or summed) and page.fillorder == 1 and whole
        self._refuse_missing(page)
        self._divide_raw()
        self.grain = self.tiling.rows
        content = self.tiling.rows * self.tiling.columns * self._values * self.dtype.itemsize
        # The segment as stored, decoded, and on its way between two codecs.
        self.overhead = int(self._counts.max(initial=0)) + 2 * content
        self.speed = _SPEEDS.get(self._compression, _OTHER_SPEED)

    def _refuse_missing(self, page: tifffile.TiffPage) -> None:
        location, size = self._file.name, self._file.size
        tiles = self.tiling
        self._across = -(-self.shape[1] // tiles.columns)
        self._per_sample = -(-self.shape[0] // tiles.rows) * self._across
        expected = self._per_sample * (page.samplesperpixel if self.planar else 1)
        if min(len(self._offsets), len(self._counts)) < expected:
            found = f"page {page.index} lists {len(self._offsets)} of {expected} segments"
            raise InputError(Problem(location, found, _CUT_SHORT))
        ends = self._offsets + self._counts
        if np.any(ends > size) or np.any(self._counts < 0) or np.any(self._offsets < 0):
            found = f"is cut short: page {page.index} goes up to byte {ends.max()}, the file has {size}"
            raise InputError(Problem(location, found, _CUT_SHORT))
        content = math.prod(self.shape) * self.dtype.itemsize
        if content > _MOST_TIMES * size or tiles.rows * tiles.columns > _MOST_TIMES * size:
            found = f"is said to hold {self.shape[1]} × {self.shape[0]} pixels in a file of {size} bytes"
            raise InputError(Problem(location, found, _CUT_SHORT))

    def _divide_raw(self) -> None:
        """Take strips that are stored as they are, one behind the other, for shorter ones."""
        row_bytes = self.shape[1] * self._values * self.dtype.itemsize
        one_behind_the_other = np.array_equal(self._offsets[1:], (self._offsets + self._counts)[:-1])
        whole = row_bytes * self.shape[0] * (len(self._offsets) // self._per_sample)
        if (
            self._tiled
            or self._compression not in _RAW
            or not self._plain
            or self._predictor != 1
            or not one_behind_the_other
            or int(self._counts.sum()) != whole
        ):
            return
        rows = min(max(1, _RAW_BYTES // row_bytes), self.shape[0])
        first_rows = np.arange(0, self.shape[0], rows)
        self.tiling, self._per_sample = Tiling(rows, self.shape[1]), len(first_rows)
        starts = self._offsets[0] + np.arange(0, whole, row_bytes * self.shape[0])
        self._offsets = (starts[:, np.newaxis] + first_rows * row_bytes).ravel()
        heights = np.minimum(rows, self.shape[0] - first_rows)
        self._counts = np.tile(heights * row_bytes, len(starts))

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape[:2])
        return self.values(slice(first, last), slice(left, right), self._sample)

    def values(self, rows: slice, columns: slice, sample: int | slice) -> Array:
        """Values of some pixels.

        Parameters
        ----------
        rows, columns
            Of the pixels; with both ends, inside the page.
        sample
            Which value of each, or which values.
        """
        first, last, left, right = rows.start, rows.stop, columns.start, columns.stop
        several = () if isinstance(sample, int) else (sample.stop - (sample.start or 0),)
        out = np.empty((last - first, right - left, *several), self.dtype)
        if not out.size:
            return out
        height, width = self.tiling.rows, self.tiling.columns
        for row in range(first // height, -(-last // height)):
            for column in range(left // width, -(-right // width)):
                top, edge = row * height, column * width
                start, stop = max(first, top), min(last, top + height)
                begin, end = max(left, edge), min(right, edge + width)
                part = slice(start - top, stop - top), slice(begin - edge, end - edge)
                target = out[start - first : stop - first, begin - left : end - left]
                self._fill(target, part, row * self._across + column, sample)
        return out

    def _fill(self, target: Array, part: tuple[slice, slice], segment: int, sample: int | slice) -> None:
        with translated_damage(f"{self._where}, segment {segment}", self._file.name):
            if not self.planar:
                target[...] = self._segment(segment)[(*part, sample)]
            elif isinstance(sample, int):
                target[...] = self._segment(segment + sample * self._per_sample)[(*part, 0)]
            else:
                for place, one in enumerate(range(sample.stop)[sample]):
                    target[..., place] = self._segment(segment + one * self._per_sample)[(*part, 0)]

    def _segment(self, number: int) -> Array:
        """A segment, (rows, columns, values); those at the lower edge may have all rows or only what is needed."""
        size = int(self._counts[number])
        if size == 0:  # left out, as blank tiles may be
            return np.broadcast_to(np.zeros((), self.dtype), (self.tiling.rows, self.tiling.columns, self._values))
        stored = self._file.read(int(self._offsets[number]), size)
        if self._plain and self._compression in _RAW and self._predictor == 1:
            return self._shaped(np.frombuffer(stored, np.uint8), number)
        if self._plain and self._compression in _DEFLATE:
            return self._inflated(stored, number)
        tables = {} if self._tables is None else {"jpegtables": self._tables}
        decoded: Array = np.asarray(self._decode(stored, number, **tables)[0])[0]
        return decoded

    def _inflated(self, stored: bytes, number: int) -> Array:
        """A deflate segment; libdeflate takes 0.7 to 0.9 of ISA-L's time, and a running sum a third of tifffile's."""
        rows = self._rows(number)
        content = bytearray(rows * self.tiling.columns * self._values * self.dtype.itemsize)
        segment = self._shaped(np.frombuffer(imagecodecs.deflate_decode(stored, out=content), np.uint8), number)
        if self._predictor == 2:
            np.cumsum(segment, axis=1, dtype=self.dtype, out=segment)
        return segment

    def _rows(self, number: int) -> int:
        """Rows of a segment as stored: tiles are whole, the last strip is not."""
        rows = self.tiling.rows
        return rows if self._tiled else min(rows, self.shape[0] - number % self._per_sample * rows)

    def _shaped(self, content: Array, number: int) -> Array:
        values = content.view(self._stored_dtype)
        wanted = self._rows(number) * self.tiling.columns * self._values
        if values.size < wanted:
            raise OSError(f"it holds {values.size} of {wanted} values")
        return as_native(values[:wanted].reshape(-1, self.tiling.columns, self._values))


def _refuse_unreadable(page: tifffile.TiffPage, location: str) -> None:
    """Refuse what is no plain image of numbers."""
    found = ""
    if page.imagelength < 1 or page.imagewidth < 1 or page.imagedepth != 1 or (page.is_tiled and page.tiledepth != 1):
        found = f"has a page of shape {page.shape}"
    elif page.dtype is None or page.dtype.kind not in "uifb":
        found = f"has pixels of {page.bitspersample} bit and dtype {page.dtype}"
    if found:
        raise InputError(Problem(location, found, _CONVERT))


def refuse_hidden(page: tifffile.TiffPage, location: str) -> None:
    """Refuse what cannot be shown as it is: other than unsigned integers of 8, 16 or 32 bit, grey or in colour."""
    found = ""
    if page.bitspersample not in (8, 16, 32) or page.sampleformat != 1:
        found = f"has pixels of {page.bitspersample} bit and dtype {page.dtype}"
    elif page.photometric not in (_MIN_IS_BLACK, _RGB, _YCBCR):
        found = f"is coloured by {getattr(page.photometric, 'name', page.photometric)}"
    if found:
        raise InputError(Problem(location, found, _CONVERT))


def samples_of(page: tifffile.TiffPage, location: str) -> list[int | slice]:
    """What planes the values of a page's pixels make: one each, or all together where they are colours."""
    if page.samplesperpixel >= 3 and page.photometric in (_RGB, _YCBCR):
        if page.bitspersample != 8:
            raise InputError(Problem(location, f"is a colour image of {page.bitspersample} bit", _CONVERT))
        return [slice(0, 3)]
    return list(range(page.samplesperpixel))
