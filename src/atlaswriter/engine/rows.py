"""Sparse matrices row after row, block by block, in the dtypes of kernels, wherever they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array, Compressed, Matrix, RowChunks, in_memory, overhead
from atlaswriter.sources.lazy import check_inside

M = TypeVar("M", Compressed, RowChunks)

# Entries of a block: a buffer of this size for each array. Blocks of 256 Ki to 4 Mi entries took the same
# time (500 million entries, uncompressed HDF5).
BLOCK_ENTRIES = 1 << 20
# Entries that are added up together, which takes some 80 bytes of each.
_SUM_ENTRIES = 1 << 18
# Row pointers looked at together.
_WINDOW_ROWS = 1 << 17
# Places where the row pointers of a stored matrix are looked up to share out its rows.
_MARKS = 1 << 12


class Block(NamedTuple):
    """Consecutive rows, as kernels take them.

    `indptr` (int64) says where each row begins; its entries are at ``indptr - offset`` in `indices`
    (int32 or int64) and `values` (float32 or float64). `first` is the number of the first row.
    """

    indptr: NDArray[np.int64]
    indices: Array
    values: Array
    first: int
    offset: int


class Rows(Protocol):
    """A sparse matrix that is gone through row by row, as often as needed."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def n_columns(self) -> int:
        """Number of columns."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values in blocks."""

    @property
    def where(self) -> str:
        """Name of the matrix in messages."""

    def parts(self, count: int) -> list[tuple[int, int]]:
        """Ranges of rows, about `count`, with about as many entries each."""

    def blocks(self, first: int, last: int, entries: int = BLOCK_ENTRIES) -> Iterator[Block]:
        """Rows `first` to `last`; blocks of at most `entries` entries, or a single row."""

    def adding_up(self) -> Rows:
        """The same with repeated entries of a row added up (in float64)."""


def work_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype that kernels use for a stored one: float32 where it holds every value, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64)


def value_dtype(matrix: Matrix) -> np.dtype:
    """Dtype of the values of a matrix."""
    return matrix.data.dtype if isinstance(matrix, Compressed) else matrix.dtype


def kernel_indices(indices: Array) -> Array:
    """Indices in a dtype that kernels take (scipy and HDF5 files know others too)."""
    known = indices.dtype in (np.int32, np.int64) and indices.dtype.isnative
    return readable(np.ascontiguousarray(indices, dtype=None if known else np.int64))


def rows_of(matrix: Compressed | RowChunks) -> Rows:
    """The rows of a CSR matrix, or of one that is made some rows at a time."""
    return StoredRows(matrix) if isinstance(matrix, Compressed) else MadeRows(matrix)


def block_bytes(matrix: Compressed | RowChunks, entries: int = BLOCK_ENTRIES) -> int:
    """Bytes that one thread holds for a block, as read and as kernels take it."""
    if not isinstance(matrix, Compressed):
        # A chunk as it is computed, and once more while it is converted.
        rows = max((last - first for first, last in pairwise(matrix.starts)), default=0)
        share = matrix.entries * rows / max(matrix.shape[0], 1)
        return int(2 * share * (8 + work_dtype(matrix.dtype).itemsize))
    index, value = matrix.indices.dtype.itemsize, matrix.data.dtype.itemsize
    each = 0 if in_memory(matrix.indices) else index + value
    if work_dtype(matrix.data.dtype) != matrix.data.dtype:
        each += work_dtype(matrix.data.dtype).itemsize
    fixed = sum(overhead(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    return fixed + 16 * min(_WINDOW_ROWS, matrix.shape[0]) + min(entries, matrix.nnz) * each


def row_cuts(indptr: NDArray[np.int64], entries: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of rows of at most `entries` entries each, or of a single row."""
    row, n_rows = 0, indptr.size - 1
    while row < n_rows:
        end = int(np.searchsorted(indptr, indptr[row] + entries, side="right")) - 1
        end = min(max(end, row + 1), n_rows)
        yield row, end
        row = end


@dataclass(frozen=True)
class _RowsOf(Generic[M]):
    """What is the same for the rows of any matrix."""

    matrix: M
    add_up: bool = False

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.matrix.shape[0]

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.matrix.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values in blocks."""
        return work_dtype(value_dtype(self.matrix))

    @property
    def where(self) -> str:
        """Name of the matrix in messages."""
        return self.matrix.where

    def adding_up(self) -> Self:
        """The same with repeated entries of a row added up."""
        return replace(self, add_up=True)


class StoredRows(_RowsOf[Compressed]):
    """Rows of a CSR matrix whose arrays are in memory or read when they are sliced."""

    def parts(self, count: int) -> list[tuple[int, int]]:
        """Ranges of rows with about the same number of entries."""
        indptr = self.matrix.indptr
        step = 1 if in_memory(indptr) else max(1, self.n_rows // _MARKS)
        places = np.arange(0, self.n_rows + 1, step)
        marks = indptr[:] if step == 1 else np.array([indptr[place : place + 1][0] for place in places.tolist()])
        goals = np.linspace(0, self.matrix.nnz, count + 1)[1:-1]
        cuts = [0, *places[np.minimum(np.searchsorted(marks, goals), places.size - 1)].tolist(), self.n_rows]
        return [(first, last) for first, last in pairwise(cuts) if last > first]

    def blocks(self, first: int, last: int, entries: int = BLOCK_ENTRIES) -> Iterator[Block]:
        """Some rows, block by block."""
        entries = min(entries, _SUM_ENTRIES) if self.add_up else entries
        for start in range(first, last, _WINDOW_ROWS):
            stop = min(start + _WINDOW_ROWS, last)
            window = readable(np.ascontiguousarray(self.matrix.indptr[start : stop + 1], dtype=np.int64))
            for row, end in row_cuts(window, entries):
                yield self._block(window[row : end + 1], start + row)

    def _block(self, indptr: NDArray[np.int64], first: int) -> Block:
        matrix, entries = self.matrix, slice(int(indptr[0]), int(indptr[-1]))
        indices, values = matrix.indices[entries], matrix.data[entries]
        if not in_memory(matrix.indices):
            check_inside(indices, matrix)
        indices = kernel_indices(indices)
        if self.add_up:
            indptr, indices, sums = _added_up(indptr - indptr[0], indices, values, self.n_columns)
            return Block(indptr, indices, sums.astype(self.dtype), first, 0)
        return Block(indptr, indices, readable(np.ascontiguousarray(values, dtype=self.dtype)), first, entries.start)


class MadeRows(_RowsOf[RowChunks]):
    """Rows of a matrix that somebody else makes, chunk by chunk, anew each time."""

    def parts(self, count: int) -> list[tuple[int, int]]:
        """Ranges of whole chunks."""
        starts = self.matrix.starts
        places = np.unique(np.linspace(0, len(starts) - 1, count + 1).astype(int)).tolist()
        return [(starts[first], starts[last]) for first, last in pairwise(places) if starts[last] > starts[first]]

    def blocks(self, first: int, last: int, entries: int = BLOCK_ENTRIES) -> Iterator[Block]:
        """Some rows, which must be whole chunks."""
        for position, (start, stop) in enumerate(pairwise(self.matrix.starts)):
            if first <= start and stop <= last:
                rows = StoredRows(self.matrix.chunk(position), self.add_up)
                for block in rows.blocks(0, rows.n_rows, entries):
                    values = np.ascontiguousarray(block.values, dtype=self.dtype)
                    yield block._replace(values=readable(values), first=start + block.first)


def _added_up(indptr: Array, indices: Array, values: Array, n_columns: int) -> tuple[Array, Array, Array]:
    rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    keys, where, inverse, counts = np.unique(
        rows * n_columns + indices, return_index=True, return_inverse=True, return_counts=True
    )
    sums = np.bincount(inverse, weights=values.astype(np.float64), minlength=keys.size)
    # A sum begins with 0: what is there once would lose the sign of -0.
    sums = np.where(counts == 1, values[where], sums)
    starts = np.searchsorted(keys, np.arange(indptr.size) * n_columns)
    return starts.astype(np.int64), (keys % n_columns).astype(indices.dtype), sums
