"""Reading HDF5 datasets in blocks, with all cores.

h5py inflates one chunk at a time under a global lock, and copies through buffers of its own. Here
the stored bytes are fetched as they are, by any number of threads: those of chunks are inflated and
placed, those of contiguous datasets go straight to where they are wanted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import h5py
import numpy as np

from atlaswriter.sources.base import Array, as_native
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.h5chunks import PIPELINES, TASK_BYTES, Chunked, InflateError, descriptor_of, filters_of
from atlaswriter.sources.slices import Part, bounds

# Bytes of content a second on one core (an AMD EPYC of 2026, files cached): contiguous 9.6 to 12.7 GB, by HDF5
# (lzf) 0.36.
_CONTIGUOUS_SPEED, _ORDINARY_SPEED = 8e9, 3.5e8

# Between the columns that are wanted of two rows, from where on each row is read on its own.
_GAP_BYTES = 16 << 10


class H5Array:
    """Numbers in an HDF5 file, read when they are sliced: a `Lazy`.

    Contiguous datasets, and chunks without filters, with gzip, or with shuffle and gzip, are read
    and decoded here; everything else is left to HDF5. A chunk that is missing holds the fill value.

    Parameters
    ----------
    dataset
        Real numbers in one or two dimensions. The file must stay open.
    where, location
        The place in the file, and the file, for messages.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    """

    def __init__(self, dataset: h5py.Dataset, where: str = "", location: str = "") -> None:
        self._dataset = dataset
        self._where, self._location = where or str(dataset.name), location or str(dataset.file.filename)
        self.shape: tuple[int, ...] = tuple(int(size) for size in dataset.shape)
        if len(self.shape) not in (1, 2) or dataset.dtype.kind not in "biuf":
            raise TypeError(f"{self._where} is no vector or matrix of real numbers")
        self.dtype: np.dtype[Any] = np.dtype(dataset.dtype.str).newbyteorder("=")
        self._reader = _reader(dataset)

    @property
    def grain(self) -> int:
        """Rows of a chunk, 1 without chunks."""
        return self._reader.grain

    @property
    def overhead(self) -> int:
        """Bytes of a chunk, as stored and decoded, and of what is kept for the next slice."""
        return self._reader.overhead

    @property
    def speed(self) -> float:
        """Bytes of content a second and core."""
        return self._reader.speed

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        part = bounds(key, self.shape)
        out = self._empty(part)
        with translated_damage(self._where, self._location):
            self._read(out, part)
            return self._finished(out)

    def read_all(self, workers: int) -> Array:
        """The whole array, by several threads.

        Parameters
        ----------
        workers
            Number of threads.
        """
        whole = bounds(slice(None), self.shape)
        out = self._empty(whole)
        with translated_damage(self._where, self._location):
            parts = list(self._reader.parts())
            if workers == 1 or len(parts) < 2:
                self._read(out, whole)
            else:
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(lambda part: self._read(out[part[0] : part[1], part[2] : part[3]], part), parts))
            return self._finished(out)

    def _empty(self, part: Part) -> Array:
        return np.empty((part[1] - part[0], part[3] - part[2]), self._reader.dtype)

    def _read(self, out: Array, part: Part) -> None:
        if not out.size:
            return
        if not self._dataset:
            raise OSError("the file is closed")
        try:
            self._reader.read(out, part)
        except (InflateError, ValueError):
            # HDF5 has rare ways to store a chunk differently; it knows them, or says what is wrong.
            _Ordinary(self._dataset).read(out, part)

    def _finished(self, out: Array) -> Array:
        if not out.dtype.isnative:
            out = out.byteswap(inplace=True).view(self.dtype)
        return out if len(self.shape) == 2 else out.reshape(-1)


def read_dataset(dataset: h5py.Dataset, workers: int, where: str = "", location: str = "") -> Array:
    """The whole dataset, equal to ``dataset[()]`` in native byte order.

    Parameters
    ----------
    dataset
        Any dataset.
    workers
        Number of threads.
    where, location
        As of `H5Array`.

    Raises
    ------
    InputError, OSError, RuntimeError
        The dataset is damaged.
    """
    if dataset.ndim in (1, 2) and dataset.dtype.kind in "biuf":
        return H5Array(dataset, where, location).read_all(workers)
    return as_native(np.asarray(dataset[()]))


class _Reader(Protocol):
    """A way of reading a dataset."""

    dtype: np.dtype[Any]
    grain: int
    overhead: int
    speed: float

    def read(self, out: Array, part: Part) -> None:
        """Fill a matrix of `dtype`, which is not empty."""

    def parts(self) -> Iterator[Part]:
        """The whole, in parts for several threads."""


def _reader(dataset: h5py.Dataset) -> _Reader:
    # Some file types, such as 24-bit integers, are converted on reading.
    as_stored = dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype)
    if as_stored and dataset.size and dataset.chunks and filters_of(dataset) in PIPELINES:
        return Chunked(dataset)
    descriptor = descriptor_of(dataset)
    if as_stored and descriptor is not None and not dataset.chunks and not dataset.external and not dataset.is_virtual:
        offset = dataset.id.get_offset()
        if offset is not None and dataset.id.get_storage_size() == dataset.nbytes:
            return _Contiguous(dataset, descriptor, offset)
    return _Ordinary(dataset)


class _Ordinary:
    """By HDF5, one thread at a time."""

    speed = _ORDINARY_SPEED

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.dtype = np.dtype(dataset.dtype.str).newbyteorder("=")
        self.grain = int(dataset.chunks[0]) if dataset.chunks else 1
        # HDF5 keeps chunks of up to 1 MiB together, and converts through as much.
        self.overhead = (1 << 21) + 2 * math.prod(dataset.chunks or ()) * dataset.dtype.itemsize

    def read(self, out: Array, part: Part) -> None:
        first, last, left, right = part
        vector = self._dataset.ndim == 1
        selection = (slice(first, last),) if vector else (slice(first, last), slice(left, right))
        if out.flags.c_contiguous:
            self._dataset.read_direct(out.reshape(-1) if vector else out, selection)
        else:
            out[...] = self._dataset[selection]

    def parts(self) -> Iterator[Part]:
        yield bounds(slice(None), self._dataset.shape)


class _Contiguous:
    """Straight from the file into the result."""

    grain = 1
    overhead = TASK_BYTES
    speed = _CONTIGUOUS_SPEED

    def __init__(self, dataset: h5py.Dataset, descriptor: int, offset: int) -> None:
        self._descriptor, self._offset = descriptor, int(offset)
        self.dtype = np.dtype(dataset.dtype.str)
        self._shape = (int(dataset.shape[0]), math.prod(dataset.shape[1:]))
        self._row_bytes = self._shape[1] * self.dtype.itemsize

    def read(self, out: Array, part: Part) -> None:
        first, last, left, right = part
        start = self._offset + first * self._row_bytes
        if right - left == self._shape[1]:
            self._fetch(out, start)
        elif self._row_bytes - out.itemsize * out.shape[1] > _GAP_BYTES:
            for position, row in enumerate(out):
                self._fetch(row, start + position * self._row_bytes + left * out.itemsize)
        else:
            step = max(1, TASK_BYTES // self._row_bytes)
            buffer = np.empty((min(step, last - first), self._shape[1]), self.dtype)
            for row_ in range(0, last - first, step):
                target = out[row_ : row_ + step]
                rows = buffer[: target.shape[0]]
                self._fetch(rows, start + row_ * self._row_bytes)
                target[...] = rows[:, left:right]

    def parts(self) -> Iterator[Part]:
        step = max(1, 16 * TASK_BYTES // max(1, self._row_bytes))
        for first in range(0, self._shape[0], step):
            yield first, min(first + step, self._shape[0]), 0, self._shape[1]

    def _fetch(self, out: Array, offset: int) -> None:
        wanted = memoryview(out.reshape(-1).view(np.uint8).data)
        while wanted:
            # A call brings at most 2 GiB.
            count = os.preadv(self._descriptor, [wanted], offset)
            if not count:
                raise OSError("the file is truncated")
            wanted, offset = wanted[count:], offset + count
