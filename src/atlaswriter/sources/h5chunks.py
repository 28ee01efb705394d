"""Chunks of HDF5 datasets, fetched as they are stored, and decoded here."""

from __future__ import annotations

import math
import os
import threading
from array import array
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from atlaswriter.sources.base import Array
from atlaswriter.sources.kept import Keeper
from atlaswriter.sources.slices import Part

try:
    from isal import isal_zlib as inflater
except ImportError:  # no wheel for this machine
    import zlib as inflater  # type: ignore[no-redef]

InflateError: Any = inflater.error
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
PIPELINES = ((), (_DEFLATE,), (_SHUFFLE, _DEFLATE))

# Bytes of decoded chunks per task. One takes 1.4 to 3.4 ms to inflate (X and graph of a Xenium atlas, gzip);
# from 64 KiB to 4 MiB no difference could be measured.
TASK_BYTES = 1 << 20

# A row of several chunks that is left half used is kept up to this size; a single chunk always is.
_KEPT_BYTES = 16 << 20

# Bytes of float32 and int32 content a second on one core, by filters (an AMD EPYC of 2026, files cached): none 4.8 to
# 5.0 GB, gzip 0.5 (sorted indices) to 1.2 (values), shuffle and gzip 0.6.
_SPEEDS = {(): 4e9, (_DEFLATE,): 7e8, (_SHUFFLE, _DEFLATE): 6e8}


def filters_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Numbers of the filters of a dataset, in the order of writing."""
    properties = dataset.id.get_create_plist()
    return tuple(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))


def descriptor_of(dataset: h5py.Dataset) -> int | None:
    """Descriptor of a plain file of which others write nothing; None if there is none."""
    file = dataset.file
    plain = file.driver == "sec2" and file.mode == "r" and file.userblock_size == 0
    can = hasattr(os, "pread") and hasattr(os, "preadv")
    return int(file.id.get_vfd_handle()) if plain and can else None


class Chunked:
    """Reads a dataset of one or two dimensions, a chunk at a time, by any number of threads.

    Parameters
    ----------
    dataset
        Its filters are one of `PIPELINES`, and its type on disk is that of NumPy.

    Attributes
    ----------
    dtype
        As stored.
    grain, overhead, speed
        As of `Lazy`.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._descriptor = descriptor_of(dataset)
        self.dtype = np.dtype(dataset.dtype.str)
        self._shape = (int(dataset.shape[0]), math.prod(dataset.shape[1:]))
        self._chunk = (int(dataset.chunks[0]), math.prod(dataset.chunks[1:]))
        self._filters = filters_of(dataset)
        self._chunk_bytes = math.prod(self._chunk) * self.dtype.itemsize
        self._across = -(-self._shape[1] // self._chunk[1])
        self._kept = Keeper()
        self.grain = self._chunk[0]
        self.speed = _SPEEDS[self._filters]
        row_of_chunks = min(self._chunk[0], self._shape[0]) * self._shape[1] * self.dtype.itemsize
        self._keeps = self._across == 1 or row_of_chunks <= _KEPT_BYTES
        # As stored and after each filter; a chunk that is kept is the last of these.
        self.overhead = (1 + len(self._filters)) * self._chunk_bytes
        if self._keeps and self._across > 1:
            self.overhead += row_of_chunks
        self._lock = threading.Lock()
        self._index: _Index | None = None

    def read(self, out: Array, part: Part) -> None:
        """Fill a matrix of `dtype`, which is not empty."""
        first, last, left, right = part
        kept = self._kept.of_this_thread()
        for row in range(first // self._chunk[0], -(-last // self._chunk[0])):
            top = row * self._chunk[0]
            bottom = min(top + self._chunk[0], self._shape[0])
            start, stop = max(first, top), min(last, bottom)
            target = out[start - first : stop - first]
            block = kept.block if kept.key == (row, left, right) else None
            if block is None:
                kept.clear()
            if block is None and (stop == bottom or not self._keeps):
                self._place(target, (start, stop, left, right))
                continue
            if block is None:
                block = self._row_of_chunks((top, bottom, left, right))
                kept.keep((row, left, right), block)
            target[...] = block[start - top : stop - top]
            if stop == bottom:
                kept.clear()

    def parts(self) -> Iterator[Part]:
        """The whole, in parts for several threads."""
        down = max(1, TASK_BYTES // (self._chunk_bytes * self._across)) * self._chunk[0]
        aside = max(1, TASK_BYTES // self._chunk_bytes) * self._chunk[1]
        for first in range(0, self._shape[0], down):
            for left in range(0, self._shape[1], aside):
                last, right = min(first + down, self._shape[0]), min(left + aside, self._shape[1])
                yield first, last, left, right

    def _row_of_chunks(self, part: Part) -> Array:
        top, bottom, left, right = part
        if self._across == 1:
            return self._decoded(top // self._chunk[0], 0)[: bottom - top, left:right]
        block = np.empty((bottom - top, right - left), self.dtype)
        self._place(block, part)
        return block

    def _place(self, out: Array, part: Part) -> None:
        """Decode the chunks that meet a part of one row of chunks."""
        start, stop, left, right = part
        row = start // self._chunk[0]
        top = row * self._chunk[0]
        for column in range(left // self._chunk[1], -(-right // self._chunk[1])):
            edge = column * self._chunk[1]
            begin, end = max(left, edge), min(right, edge + self._chunk[1])
            block = self._decoded(row, column)
            out[:, begin - left : end - left] = block[start - top : stop - top, begin - edge : end - edge]

    def _decoded(self, row: int, column: int) -> Array:
        index = self._index or self._indexed()
        place = index.find(row * self._across + column)
        if place is None:
            return np.broadcast_to(index.fill_value, self._chunk)
        size = index.sizes[place]
        if self._descriptor is None:
            corner = (row * self._chunk[0], column * self._chunk[1])
            stored = bytes(self._dataset.id.read_direct_chunk(corner[: self._dataset.ndim])[1])
        else:
            stored = os.pread(self._descriptor, size, index.offsets[place])
        if len(stored) < size:
            raise OSError("the file is truncated")
        content = self._decode(stored, index.skipped[place])
        return np.frombuffer(content, self.dtype).reshape(self._chunk)

    def _decode(self, stored: Any, skipped: int) -> Any:
        """Undo the filters, other than those that a chunk's mask says were skipped."""
        used = {code for position, code in enumerate(self._filters) if not skipped >> position & 1}
        content = _inflated(stored, self._chunk_bytes) if _DEFLATE in used else stored
        # HDF5 would show what its memory holds behind the end.
        if len(content) != self._chunk_bytes:
            raise OSError(f"a chunk holds {len(content)} bytes where {self._chunk_bytes} are needed")
        return _unshuffled(content, self.dtype.itemsize) if _SHUFFLE in used else content

    def _indexed(self) -> _Index:
        with self._lock:
            if self._index is None:
                self._index = _Index(self._dataset, self._chunk, self._across)
            return self._index


class _Index:
    """Where the chunks of a dataset are stored, in the order of their places.

    Attributes
    ----------
    offsets, sizes
        In bytes of the file.
    skipped
        Filters that were not used, a bit each.
    fill_value
        What missing chunks hold.
    """

    def __init__(self, dataset: h5py.Dataset, chunk: tuple[int, int], across: int) -> None:
        self.fill_value = dataset.fillvalue
        n_places = -(-int(dataset.shape[0]) // chunk[0]) * across
        found = array("q")

        # Each is (corner, filter mask, offset, size); objects are not kept, as there may be millions.
        dataset.id.chunk_iter(lambda info: found.extend(info[0] + info[1:]))
        table = np.frombuffer(found, np.int64).reshape(-1, dataset.ndim + 3)
        places = table[:, 0] // chunk[0] * across
        if dataset.ndim == 2:
            places += table[:, 1] // chunk[1]
        if np.any(places[1:] <= places[:-1]):
            order = np.argsort(places, kind="stable")
            places, table = places[order], table[order]
        # Single items of these are found 5 times faster than in NumPy's.
        self.skipped, self.offsets, self.sizes = (array("q", column.tobytes()) for column in table[:, -3:].T)
        complete = len(places) == n_places and np.array_equal(places, np.arange(n_places))
        self._places = None if complete else places

    def find(self, place: int) -> int | None:
        """Position of the chunk at a place; None if it is missing."""
        if self._places is None:
            return place
        position = int(np.searchsorted(self._places, place))
        return position if position < len(self._places) and self._places[position] == place else None


def _inflated(content: Any, size: int) -> bytes:
    stream = inflater.decompressobj()
    # No more than is wanted, whatever the file says.
    inflated: bytes = stream.decompress(content, size + 1)
    if len(inflated) > size:
        raise OSError("a chunk inflates to more than its size")
    if not stream.eof:
        raise ValueError("a chunk is no whole stream")
    return inflated


def _unshuffled(content: Any, size: int) -> Array:
    """Bring the bytes of each item, stored as `size` planes, together again."""
    planes = np.frombuffer(content, np.uint8).reshape(size, -1)
    items = np.empty((planes.shape[1], size), np.uint8)
    # One copy per plane is 2.5 times faster than copying the transposed planes at once.
    for position, plane in enumerate(planes):
        items[:, position] = plane
    return items
