"""Arrays of any number of dimensions, wherever they are, as frames of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.axes import Reading
from atlaswriter.sources.base import Array, as_native

Part = tuple[slice, ...]


class NdArray(Protocol):
    """An array of any number of dimensions, read some of it at a time by any number of threads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of NumPy arrays."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of NumPy arrays."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Along each dimension, how many are read together."""

    @property
    def overhead(self) -> int:
        """Bytes that a thread holds while it reads, beside what it asked for."""

    def part(self, part: Part) -> Array:
        """A part of it, with all dimensions (slices of step 1 with both ends, inside the array)."""


def checked_dtype(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The dtype in native byte order, if pixels can have it: whole numbers, floats of up to 8 bytes, bool."""
    if dtype.kind not in "uifb" or dtype.itemsize > 8 or dtype.subdtype is not None:
        remedy = "give pixels as whole numbers or floats of up to 64 bit"
        raise InputError(Problem(where, f"has pixels of dtype {dtype}", remedy))
    return dtype.newbyteorder("=")


class Arranged:
    """An array as frames of channels: a `Stack`.

    Parameters
    ----------
    array
        The array.
    reading
        What its dimensions count.
    where
        Its name in messages.

    Attributes
    ----------
    shape, dtype, grain, together, overhead
        As of `Stack`.
    """

    def __init__(self, array: NdArray, reading: Reading, where: str) -> None:
        self._array, self._places = array, reading.places
        self.shape = reading.sizes(array.shape)
        self.dtype = checked_dtype(np.dtype(array.dtype), where)
        _, channel, row, _ = reading.places
        self.grain = min(array.chunks[row], self.shape[2])
        self.together = channel is not None and array.chunks[channel] > 1
        self.overhead = array.overhead
        used = [place for place in reading.places if place is not None]
        # Those that count nothing come first, then what was asked for, in the order of `read`.
        self._order = [*(dim for dim in range(len(array.shape)) if dim not in used), *used]

    def read(self, frame: int, channels: slice, rows: slice) -> Array:
        """As of `Stack`."""
        part = [slice(0, size) for size in self._array.shape]
        at, channel, row, _ = self._places
        if at is not None:
            frame = range(self.shape[0])[frame]
            part[at] = slice(frame, frame + 1)
        part[row] = _bounded(rows, self.shape[2])
        if channel is not None:
            part[channel] = _bounded(channels, self.shape[1])
        found = as_native(self._array.part(tuple(part))).transpose(self._order)
        # Of size 1 are all that come first, and the channels if they are none of its dimensions.
        for _ in range(found.ndim - (2 if channel is None else 3)):
            found = found[0]
        return found[np.newaxis][channels] if channel is None else found


def _bounded(wanted: slice, size: int) -> slice:
    """The slice with both ends."""
    first, last, step = wanted.indices(size)
    if step != 1:
        raise IndexError("steps other than 1 are not supported")
    return slice(first, max(first, last))


def interleaved(order: Sequence[int], reading: Reading, shape: Sequence[int]) -> tuple[int, ...]:
    """What is read together of an array without chunks.

    Parameters
    ----------
    order
        Its dimensions from the outermost to the innermost in memory or on disk.
    reading
        What they count.
    shape
        Its shape.

    Returns
    -------
    tuple of int
        As `NdArray.chunks`: all channels where they lie inside the rows or columns, all rows where they lie inside the
        columns.
    """
    depth = {dim: place for place, dim in enumerate(order)}
    _, channel, row, column = reading.places
    chunks = [1] * len(shape)
    if depth[row] > depth[column]:
        chunks[row] = shape[row]
    if channel is not None and depth[channel] > min(depth[row], depth[column]):
        chunks[channel] = shape[channel]
    return tuple(chunks)


class InMemory:
    """A NumPy array: an `NdArray`, whose parts are views.

    Parameters
    ----------
    array
        The array.
    reading
        What its dimensions count.

    Attributes
    ----------
    shape, dtype, chunks, overhead
        As of `NdArray`.
    """

    overhead = 0

    def __init__(self, array: Array, reading: Reading) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        order = sorted(range(array.ndim), key=lambda dim: -abs(array.strides[dim]))
        row = reading.places[2]
        chunks = list(interleaved(order, reading, array.shape))
        chunks[row] = 1  # a view costs nothing, whatever its strides
        self.chunks = tuple(chunks)

    def part(self, part: Part) -> Array:
        """As of `NdArray`."""
        return self._array[part]
