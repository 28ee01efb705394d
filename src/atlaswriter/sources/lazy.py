"""Arrays that are read or made when they are sliced, beside those of files."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Array, Compressed, as_native, overhead
from atlaswriter.sources.slices import bounds

# Bytes made or copied at once: large for NumPy, small beside any budget.
_PIECE_BYTES = 1 << 20

# The kernel may map 2 MiB where one byte of a file is touched (Linux 6.18, ext4: large pages of its cache).
# Pieces of mapped files lie within as much, and so in two of them at most.
_LARGE_PAGE = 2 << 20
_SPAN_BYTES = _LARGE_PAGE

# Up to here an array is read at once where its header is read.
SMALL_BYTES = 1 << 20


def load(array: AnyArray, workers: int = 1) -> Array:
    """The whole array in memory.

    Parameters
    ----------
    array
        An array in memory, which is returned as it is, or a lazy one.
    workers
        Threads for reading.
    """
    if isinstance(array, np.ndarray):
        return array
    whole = getattr(array, "read_all", None)
    return array[:] if whole is None else whole(workers)


def is_stored(array: AnyArray) -> bool:
    """Whether some of it comes from outside of memory."""
    if isinstance(array, np.ndarray):
        return False
    return any(map(is_stored, array.parts)) if isinstance(array, Derived | DenseRows) else True


class Derived:
    """An array that is computed from others, block by block: a `Lazy`.

    Parameters
    ----------
    parts
        Arrays of equal length, the rows of which make the rows of this one.
    shape, dtype
        Of the result.
    compute
        Called with the same rows of every part; returns those rows of the result. It may be called
        by several threads, and must not modify what it is given.
    elementwise
        Whether columns of the result are those of the parts as well.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    """

    def __init__(
        self,
        parts: Sequence[AnyArray],
        shape: tuple[int, ...],
        dtype: Any,
        compute: Callable[..., Array],
        *,
        elementwise: bool = False,
    ) -> None:
        self.parts, self._compute, self._elementwise = tuple(parts), compute, elementwise
        self.shape, self.dtype = shape, np.dtype(dtype)
        lazy = [part for part in self.parts if not isinstance(part, np.ndarray)]
        self.grain = max((part.grain for part in lazy), default=1)
        row_bytes = sum(_row_bytes(part) for part in (*self.parts, self))
        self._step = max(1, _PIECE_BYTES // max(1, row_bytes * self.grain)) * self.grain
        # NumPy may need another block of the result on the way.
        self.overhead = sum(overhead(part) for part in lazy) + self._step * (row_bytes + _row_bytes(self))
        # Computing goes about as fast as memory is copied.
        seconds = sum(_row_bytes(part) / part.speed for part in lazy) + _row_bytes(self) / 2e9
        self.speed = max(1, _row_bytes(self)) / max(seconds, 1e-12)

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape)
        columns = slice(left, right)
        out = np.empty((last - first, right - left) if len(self.shape) == 2 else (last - first,), self.dtype)
        start = first
        while start < last:
            stop = min(last, start // self._step * self._step + self._step)
            rows = slice(start, stop)
            target = out[start - first : stop - first]
            if len(self.shape) == 1:
                target[...] = self._compute(*(part[rows] for part in self.parts))
            elif self._elementwise:
                target[...] = self._compute(*(part[rows, columns] for part in self.parts))
            else:
                target[...] = self._compute(*(part[rows] for part in self.parts))[:, columns]
            start = stop
        return out


def converted(array: AnyArray, dtype: Any) -> AnyArray:
    """The array in another dtype; lazily when it is lazy."""
    if array.dtype == dtype:
        return array
    if isinstance(array, np.ndarray):
        return array.astype(dtype)
    return Derived([array], array.shape, dtype, lambda block: block.astype(dtype), elementwise=True)


def _row_bytes(array: AnyArray) -> int:
    return int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize


class DenseRows:
    """A sparse matrix by row, as a dense one that is made in blocks: a `Lazy`.

    Parameters
    ----------
    matrix
        Compressed by row, in memory or not. Entries that are repeated add up.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    """

    grain = 1

    def __init__(self, matrix: Compressed) -> None:
        if matrix.axis != 0:
            raise ValueError("the matrix must be compressed by row")
        self._matrix = matrix
        self.shape, self.dtype = matrix.shape, matrix.data.dtype
        self.parts = (matrix.indptr, matrix.indices, matrix.data)
        self.overhead = sum(overhead(part) for part in self.parts) + 4 * _PIECE_BYTES
        speeds = [part.speed for part in self.parts if not isinstance(part, np.ndarray)]
        # Alone 0.5 GB/s of dense float32, from 16 % of entries.
        self.speed = min([4e8, *speeds])

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape)
        out = np.zeros((last - first, right - left), self.dtype)
        step = _PIECE_BYTES // 16
        for start in range(first, last, step):
            stop = min(start + step, last)
            offsets = self._matrix.indptr[start : stop + 1].astype(np.int64)
            for begin in range(int(offsets[0]), int(offsets[-1]), step):
                end = min(begin + step, int(offsets[-1]))
                self._add(out[start - first : stop - first, :], offsets, slice(begin, end), left)
        return out

    def _add(self, out: Array, offsets: Array, entries: slice, left: int) -> None:
        columns, values = self._matrix.indices[entries], self._matrix.data[entries]
        check_inside(columns, self._matrix)
        rows = np.searchsorted(offsets, np.arange(entries.start, entries.stop), side="right") - 1
        wanted = (columns >= left) & (columns < left + out.shape[1])
        np.add.at(out, (rows[wanted], columns[wanted] - left), values[wanted])


def check_inside(indices: Array, matrix: Compressed) -> None:
    """Refuse indices that leave the matrix."""
    minor = matrix.shape[1 - matrix.axis]
    # Negative ones are huge when they are seen as unsigned.
    if indices.size and int(indices.view(f"u{indices.itemsize}").max()) >= minor:
        rows, columns = matrix.shape
        found = f"indices go from {indices.min()} to {indices.max()} in a matrix of {rows} × {columns}"
        raise InputError(Problem(matrix.where, f"damaged sparse matrix: {found}", "write it again from its source"))


class Mapped:
    """An array in a mapped file, the pages of which are given back when they were read: a `Lazy`.

    Parameters
    ----------
    array
        A view of a mapped file in one or two dimensions, of any strides.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`; the grain is 1 where rows lie together, else the rows of a page.
    column_major
        Whether columns lie together (Fortran order): some columns of all rows then cost least.
    """

    # Pages of a cached file, first touched, copied and dropped.
    speed = 2e9

    def __init__(self, array: Array) -> None:
        self._array = np.asarray(array)
        self._map = _mapping(array)
        self.shape, self.dtype = array.shape, array.dtype.newbyteorder("=")
        strides = [abs(stride) for stride in array.strides]
        self.column_major = array.ndim == 2 and strides[0] < strides[1]
        self.grain = mmap.PAGESIZE // max(1, strides[0]) if self.column_major else 1
        self.grain = max(1, self.grain)
        # A piece lies in two large pages at most.
        self.overhead = 2 * _SPAN_BYTES

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape)
        wanted = self._array[first:last, left:right] if self._array.ndim == 2 else self._array[first:last]
        out = np.empty(wanted.shape, self.dtype)
        for piece in _pieces(wanted.shape, wanted.strides):
            out[piece] = wanted[piece]
            self._drop(wanted[piece])
        return out

    def _drop(self, view: Array) -> None:
        if self._map is None or not view.size:
            return
        base = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]
        steps = [(size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True)]
        low = view.__array_interface__["data"][0] + sum(step for step in steps if step < 0)
        high = low + sum(abs(step) for step in steps) + view.itemsize
        start = max(low // _LARGE_PAGE * _LARGE_PAGE - base, 0)
        end = min(-(-high // _LARGE_PAGE) * _LARGE_PAGE - base, len(self._map))
        self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


def _pieces(shape: tuple[int, ...], strides: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of an array, each within a stretch of `_SPAN_BYTES` of memory."""
    outer = int(np.argmax(np.abs(strides)))
    step = max(1, _SPAN_BYTES // max(1, abs(strides[outer])))
    starts = range(0, shape[outer], step)
    if len(shape) == 1:
        yield from ((slice(start, start + step),) for start in starts)
        return
    # Rows (or columns) that are themselves longer than a stretch come alone, and are cut as well.
    inner = 1 - outer
    across = max(1, _SPAN_BYTES // max(1, abs(strides[inner]))) if step == 1 else max(1, shape[inner])
    for start in starts:
        for left in range(0, shape[inner], across):
            cut = slice(start, start + step), slice(left, left + across)
            yield cut if outer == 0 else cut[::-1]


def is_mapped(array: Array) -> bool:
    """Whether an array is a view of a mapped file."""
    return any(isinstance(item, np.memmap | mmap.mmap) for item in _bases(array))


def _bases(array: Any) -> Iterator[Any]:
    while array is not None:
        yield array
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)


def _mapping(array: Any) -> mmap.mmap | None:
    """The mapping that an array is a view of, if its pages can be dropped without loss."""
    safe = False
    for item in _bases(array):
        if isinstance(item, np.memmap):
            # Pages of copy-on-write maps (mode "c") may hold what the file does not.
            safe = item.mode in ("r", "r+", "w+")
        if isinstance(item, mmap.mmap):
            can = hasattr(mmap, "MADV_DONTNEED") and sys.platform != "win32"
            return item if can and (safe or memoryview(item).readonly) else None
    return None


def as_lazy(array: Array) -> AnyArray:
    """A mapped array as a lazy one, any other in native byte order."""
    if array.nbytes > SMALL_BYTES and is_mapped(array):
        return Mapped(array)
    return as_native(np.asarray(array))
