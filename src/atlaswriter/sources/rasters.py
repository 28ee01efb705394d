"""Planes made of others, and those that become an array at once."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import imagecodecs
import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Array, overhead
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.slices import bounds
from atlaswriter.sources.tiling import Tiling, tiling

# Bytes of a PNG's header that say what it holds, and the values per pixel of its colour types.
_PNG_HEADER = 33
_PNG_VALUES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_MOST_TIMES = 1100  # deflate's best is 1032


class Cropped:
    """A part of a plane: a `Lazy`.

    Parameters
    ----------
    pixels
        The whole plane.
    rows, columns
        Which part; steps of 1.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    tiling
        How it is stored.
    """

    def __init__(self, pixels: AnyArray, rows: slice, columns: slice) -> None:
        first, last, left, right = bounds((rows, columns), pixels.shape[:2])
        self._pixels, self._first, self._left = pixels, first, left
        self.shape: tuple[int, ...] = (last - first, right - left, *pixels.shape[2:])
        self.dtype = pixels.dtype
        whole = tiling(pixels)
        top, edge = (first + whole.top) % whole.rows, (left + whole.left) % whole.columns
        self.tiling = Tiling(whole.rows, whole.columns, top, edge)
        self.grain, self.overhead = whole.rows, overhead(pixels)
        self.speed = 4e9 if isinstance(pixels, np.ndarray) else pixels.speed

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape[:2])
        rows = slice(self._first + first, self._first + last)
        return np.ascontiguousarray(self._pixels[rows, self._left + left : self._left + right])


class Brightest:
    """The brightest pixels of a stack: a `Lazy`.

    Parameters
    ----------
    planes
        Of equal shape and dtype.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    tiling
        How the first of them is stored.
    """

    def __init__(self, planes: Sequence[AnyArray]) -> None:
        self._planes = planes
        self.shape, self.dtype = planes[0].shape, planes[0].dtype
        self.tiling = tiling(planes[0])
        self.grain = self.tiling.rows
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self.overhead = max(map(overhead, planes)) + self.grain * row_bytes
        speeds = [4e9 if isinstance(plane, np.ndarray) else plane.speed for plane in planes]
        self.speed = min(speeds) / len(planes)

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape[:2])
        out = np.zeros((last - first, right - left, *self.shape[2:]), self.dtype)
        for start in range(first - first % self.grain, last, self.grain):
            rows = slice(max(first, start), min(last, start + self.grain))
            target = out[rows.start - first : rows.stop - first]
            for plane in self._planes:
                np.maximum(target, plane[rows, left:right], out=target)
        return out


class Interleaved:
    """Three planes as one colour image: a `Lazy`.

    Parameters
    ----------
    planes
        Red, green and blue, uint8, of one shape.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    tiling
        How the first of them is stored.
    """

    speed = 3e8

    def __init__(self, planes: Sequence[AnyArray]) -> None:
        self._planes = planes
        self.shape, self.dtype = (*planes[0].shape, 3), planes[0].dtype
        self.tiling = tiling(planes[0])
        self.grain = self.tiling.rows
        self.overhead = overhead(planes[0]) + self.grain * self.shape[1]

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape[:2])
        out = np.empty((last - first, right - left, 3), self.dtype)
        for start in range(first - first % self.grain, last, self.grain):
            rows = slice(max(first, start), min(last, start + self.grain))
            for colour, plane in enumerate(self._planes):
                out[rows.start - first : rows.stop - first, :, colour] = plane[rows, left:right]
        return out


class PngPlane:
    """A PNG, which is decoded as a whole whenever some of it is read: a `Lazy`.

    Parameters
    ----------
    file
        The file.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    bits
        Of a stored value; less than 8 are stretched to 8.
    coloured, transparent
        Whether it has colours, and whether it has transparency, which is left out.
    """

    speed = 2e8

    def __init__(self, file: File) -> None:
        self._file, location = file, file.name
        with translated_damage("header", location):
            width, height, bits, kind = struct.unpack(">IIBB", file.read(0, _PNG_HEADER)[16:26])
        values = _PNG_VALUES.get(kind, 0)
        n_bytes = height * width * max(values, 1) * (2 if bits == 16 else 1)
        if not (height and width and values) or n_bytes > _MOST_TIMES * 8 // min(max(bits, 1), 8) * file.size:
            found = f"is said to hold {width} × {height} pixels of type {kind} in {file.size} bytes"
            raise InputError(Problem(location, found, "the file is damaged: copy or write it again"))
        self.bits, self.coloured, self.transparent = bits, values > 2, values in (2, 4)
        self.shape: tuple[int, ...] = (height, width, 3) if values > 2 else (height, width)
        self.dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
        self.grain = height
        self.overhead = file.size + 2 * height * width * 4 * self.dtype.itemsize

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape[:2])
        with translated_damage("pixels", self._file.name):
            whole = np.asarray(imagecodecs.png_decode(self._file.read(0, self._file.size)))
            if whole.shape[:2] != self.shape[:2]:
                raise ValueError(f"decodes to {whole.shape}")
            if len(self.shape) == 3:  # without transparency
                return np.ascontiguousarray(whole[first:last, left:right, :3])
            grey = whole if whole.ndim == 2 else whole[:, :, 0]
            return np.ascontiguousarray(grey[first:last, left:right])
