"""Dask arrays, computed a row of chunks at a time on the thread that asks.

Nothing here imports dask: whoever passes such an array has done so.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array, Compressed
from atlaswriter.sources.lazy import converted, load
from atlaswriter.sources.parts import check_dimensions, check_real, compressed_rows
from atlaswriter.sources.slices import bounds


def is_dask(x: Any) -> bool:
    """Whether it is a dask array."""
    return type(x).__module__.partition(".")[0] == "dask" and hasattr(x, "chunks") and hasattr(x, "compute")


def of_dask(x: Any, where: str) -> Dask | SparseDask:
    """A two-dimensional dask array as a lazy array, or as chunks of rows when its chunks are sparse.

    Parameters
    ----------
    x
        The dask array.
    where
        Its name in messages.

    Raises
    ------
    InputError
        Not two-dimensional, not real numbers, or with chunks of unknown sizes.
    """
    from scipy import sparse

    check_dimensions(x.ndim, where)
    check_real(x.dtype, where)
    if any(math.isnan(size) for sizes in x.chunks for size in sizes):
        remedy = "call its compute_chunk_sizes() first"
        raise InputError(Problem(where, "is a dask array with chunks of unknown sizes", remedy))
    return SparseDask(x, where) if sparse.issparse(x._meta) else Dask(x)  # noqa: SLF001 - dask has no other name for it


class Dask:
    """A dense dask array: a `Lazy`.

    Parameters
    ----------
    x
        The dask array, of real numbers in two dimensions.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    """

    # Not known: others compute it. Zarr and HDF5 below dask give about as much.
    speed = 3e8

    def __init__(self, x: Any) -> None:
        self._x = x
        self.shape: tuple[int, ...] = tuple(int(size) for size in x.shape)
        self.dtype: np.dtype[Any] = x.dtype.newbyteorder("=")
        self._edges = [0, *itertools.accumulate(int(size) for size in x.chunks[0])]
        self.grain = max(1, *(int(size) for size in x.chunks[0]))
        # The chunks, and the row that dask puts them together to.
        self.overhead = 2 * self.grain * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape)
        out = np.empty((last - first, right - left), self.dtype)
        for top, bottom in itertools.pairwise(self._edges):
            start, stop = max(first, top), min(last, bottom)
            if start < stop:
                # The scheduler's own threads would not be counted among ours.
                block = self._x[start:stop, left:right].compute(scheduler="synchronous")
                # Dask does not always know that chunks are sparse.
                out[start - first : stop - first] = block.toarray() if hasattr(block, "toarray") else block
        return out


class SparseDask:
    """A dask array of SciPy matrices: `RowChunks`.

    Parameters
    ----------
    x
        The dask array, of real numbers in two dimensions.
    where
        Its name in messages.

    Attributes
    ----------
    shape, dtype, entries, starts, where
        As of `RowChunks`.
    """

    def __init__(self, x: Any, where: str) -> None:
        self._x, self.where = x, where
        self.shape: tuple[int, int] = (int(x.shape[0]), int(x.shape[1]))
        self.dtype: np.dtype[Any] = check_real(x.dtype, where)
        self.starts = [0, *itertools.accumulate(int(size) for size in x.chunks[0])]

    @cached_property
    def entries(self) -> int:
        """Stored entries, estimated from the first chunk, one in the middle and the last."""
        last = len(self.starts) - 2
        chosen = sorted({0, last // 2, last})
        rows = sum(self.starts[position + 1] - self.starts[position] for position in chosen)
        found = sum(self.chunk(position).nnz for position in chosen)
        return found if rows == self.shape[0] else -(-found * self.shape[0] // max(rows, 1))

    def chunk(self, position: int) -> Compressed:
        """The rows of one chunk as CSR, in memory.

        Parameters
        ----------
        position
            Number of the chunk, from 0.

        Raises
        ------
        InputError
            The chunk is not what the array says it is.
        """
        from scipy import sparse

        found = [self._x.blocks[position, column] for column in range(self._x.numblocks[1])]
        blocks = [compressed_rows(block.compute(scheduler="synchronous"), self.where) for block in found]
        matrix = blocks[0]
        if len(blocks) > 1:
            arrays: list[Any] = [_as_scipy(part) for part in blocks]
            matrix = compressed_rows(sparse.hstack(arrays, format="csr"), self.where)
        expected = (self.starts[position + 1] - self.starts[position], self.shape[1])
        if matrix.shape != expected:
            wrong = f"chunk {position} has the shape {matrix.shape} where {expected} is needed"
            raise InputError(Problem(self.where, wrong, "give dask the right chunks"))
        return replace(matrix, data=converted(matrix.data, self.dtype))


def _as_scipy(matrix: Compressed) -> Any:
    from scipy import sparse

    parts = (load(matrix.data), load(matrix.indices), load(matrix.indptr))
    return sparse.csr_array(parts, matrix.shape)
