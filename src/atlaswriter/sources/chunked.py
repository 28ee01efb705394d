"""Zarr arrays and dask arrays of any number of dimensions, read chunk by chunk."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.ndstack import Part, checked_dtype


class Chunked:
    """An array that is made of chunks: an `NdArray`.

    Parameters
    ----------
    array
        A ``zarr.Array`` or a dask array.
    starts
        Where chunks begin along each dimension, rising from 0.
    where
        Its name in messages.

    Attributes
    ----------
    shape, dtype, chunks, overhead
        As of `NdArray`.
    """

    def __init__(self, array: Any, starts: Sequence[Sequence[int]], chunks: Sequence[int], where: str) -> None:
        self._array, self._starts, self._where = array, starts, where
        self.dtype = checked_dtype(np.dtype(array.dtype), where)
        self.shape = tuple(map(int, array.shape))
        self.chunks = tuple(min(chunk, size) for chunk, size in zip(chunks, self.shape, strict=True))
        # A chunk as stored, decoded, and cut out.
        self.overhead = 3 * math.prod(chunks) * self.dtype.itemsize

    def part(self, part: Part) -> Array:
        """As of `NdArray`."""
        out = np.empty([wanted.stop - wanted.start for wanted in part], self.dtype)
        pieces = [_cut(along, wanted) for along, wanted in zip(self._starts, part, strict=True)]
        for piece in itertools.product(*pieces):
            target = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(piece, part, strict=True))
            with translated_damage("pixels", self._where):
                out[target] = self._computed(self._array[piece])
        return out

    def _computed(self, block: Any) -> Any:
        # The scheduler's own threads would not be counted among ours.
        return block.compute(scheduler="synchronous") if hasattr(block, "compute") else block


def _cut(starts: Sequence[int], wanted: slice) -> list[slice]:
    """A slice cut where chunks begin."""
    inner = starts[bisect.bisect_right(starts, wanted.start) : bisect.bisect_left(starts, wanted.stop)]
    edges = [wanted.start, *inner, wanted.stop]
    return [slice(first, last) for first, last in itertools.pairwise(edges) if first < last]


def of_dask(array: Any, where: str) -> Chunked:
    """A dask array as an `NdArray`; chunks of unknown sizes are refused."""
    if any(math.isnan(size) for along in array.chunks for size in along):
        remedy = "call its compute_chunk_sizes() first"
        raise InputError(Problem(where, "is a dask array with chunks of unknown sizes", remedy))
    starts = [[0, *itertools.accumulate(map(int, along[:-1]))] for along in array.chunks]
    return Chunked(array, starts, [max(map(int, along)) for along in array.chunks], where)


def of_zarr(array: Any, where: str) -> Chunked:
    """A ``zarr.Array`` as an `NdArray`."""
    # It imports HDF5.
    from atlaswriter.sources.tree import Node

    with translated_damage("header", where):
        Node(array, where).refuse_unsafe_parts()
        chunks = [max(1, int(chunk)) for chunk in getattr(array, "shards", None) or array.chunks]
        return Chunked(
            array, [range(0, max(1, n), chunk) for n, chunk in zip(array.shape, chunks, strict=True)], chunks, where
        )
