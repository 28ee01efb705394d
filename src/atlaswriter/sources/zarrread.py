"""Reading Zarr arrays in blocks."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from atlaswriter.sources.base import Array
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.kept import Keeper
from atlaswriter.sources.slices import bounds

# Bytes asked of zarr at once, or a row of chunks if that is more: each call of zarr 3 costs some 0.5 ms.
_CALL_BYTES = 4 << 20

# A row of chunks that is left half used is kept up to this size.
_KEPT_BYTES = 16 << 20

# Of a Blosc chunk; its last four bytes are the size of the whole.
_BLOSC_HEADER = 16


class ZarrArray:
    """Numbers in a Zarr store, read when they are sliced: a `Lazy`.

    Parameters
    ----------
    array
        A ``zarr.Array`` of real numbers in one or two dimensions.
    where, location
        The place in the store, and the store, for messages.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    """

    # Chunks of 100,000 float32, default codecs, zarr-python 3.1: 0.56 GB/s of format 2, 0.41 of format 3;
    # half of that while others used the machine.
    speed = 3e8

    def __init__(self, array: Any, where: str = "", location: str = "") -> None:
        self._array, self._where, self._location = array, where, location
        self.shape: tuple[int, ...] = tuple(int(size) for size in array.shape)
        if len(self.shape) not in (1, 2) or array.dtype.kind not in "biuf":
            raise TypeError(f"{where} is no vector or matrix of real numbers")
        self.dtype: np.dtype[Any] = np.dtype(array.dtype.str).newbyteorder("=")
        chunks = getattr(array, "shards", None) or array.chunks
        self.grain = max(1, int(chunks[0]))
        across = math.prod(-(-size // step) * step for size, step in zip(self.shape[1:], chunks[1:], strict=True))
        row_of_chunks = self.grain * across * self.dtype.itemsize
        self._step = max(1, _CALL_BYTES // max(1, row_of_chunks)) * self.grain
        self._blosc_folder = _blosc_folder(array)
        self._kept = Keeper()
        self._keeps = row_of_chunks <= _KEPT_BYTES
        # Chunks of a call may all be held at once, as stored and decoded, beside the call's result.
        self.overhead = (3 * (self._step // self.grain) + self._keeps) * row_of_chunks

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape)
        columns = (slice(left, right),) if len(self.shape) == 2 else ()
        out = np.empty((last - first, *(right - left for _ in columns)), self.dtype)
        with translated_damage(self._where, self._location):
            if out.size:
                self._read(out, first, last, columns)
        return out

    def _read(self, out: Array, first: int, last: int, columns: tuple[slice, ...]) -> None:
        kept = self._kept.of_this_thread()
        # Where a row of chunks begins that is left half used.
        rest = last // self.grain * self.grain if self._keeps and last < self.shape[0] else last
        start = first
        while start < last:
            top = start // self.grain * self.grain
            if kept.key == (top, columns) or start >= rest:
                stop = min(last, top + self.grain)
                block = kept.block if kept.key == (top, columns) else None
                if block is None:
                    kept.clear()
                    block = self._decoded(slice(top, top + self.grain), columns)
                    kept.keep((top, columns), block)
                out[start - first : stop - first] = block[start - top : stop - top]
                if stop in (top + self.grain, self.shape[0]):
                    kept.clear()
            else:
                kept.clear()
                stop = min(rest, start // self._step * self._step + self._step)
                out[start - first : stop - first] = self._decoded(slice(start, stop), columns)
            start = stop

    def _decoded(self, rows: slice, columns: tuple[slice, ...]) -> Array:
        if self._blosc_folder is not None:
            self._refuse_short_chunks(self._blosc_folder, (rows, *columns))
        return np.asarray(self._array[(rows, *columns)])

    def _refuse_short_chunks(self, folder: Path, key: tuple[slice, ...]) -> None:
        """Compare the chunks' files with the size in their headers.

        numcodecs 0.16 does not: it reads behind the end of a Blosc chunk that was stored as it is and cut short.
        """
        ranges = [
            range(part.start // step, -(-min(part.stop, size) // step))
            for part, step, size in zip(key, self._array.chunks, self.shape, strict=True)
        ]
        for place in itertools.product(*ranges):
            name = self._array.metadata.encode_chunk_key(place)
            try:
                with (folder / name).open("rb", buffering=0) as file:
                    header, size = file.read(_BLOSC_HEADER), os.fstat(file.fileno()).st_size
            except FileNotFoundError:  # all fill values
                continue
            stated = int.from_bytes(header[12:], "little")
            if len(header) < _BLOSC_HEADER or size < stated:
                raise ValueError(f"chunk {name} has {size} of {stated} bytes")


def _blosc_folder(array: Any) -> Path | None:
    """Where the chunks lie one by one if they are Blosc's, of zarr 3; None elsewhere (a shard has a checksum)."""
    compressors = getattr(array, "compressors", None) or ()
    is_blosc = any(type(one).__name__.startswith("Blosc") for one in compressors)
    root = getattr(getattr(array, "store", None), "root", None)
    if not is_blosc or root is None or getattr(array, "shards", None):
        return None
    folder: Path = Path(root) / array.path
    return folder
