"""From a matrix of cells × genes to gene columns, a batch of genes at a time.

Three kinds of matrix come in. CSC is grouped already; CSR is brought there by count and place, for
as many genes at once as the budget holds; dense is transposed block by block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.run import Team
from atlaswriter.kernels import csr, quantize
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array, Compressed, Matrix

# Rows handed to one call of a kernel at a time: their entries are converted in a buffer of this size.
_BLOCK_ENTRIES = 1 << 20
# Rows of a dense matrix transposed at a time: a few hundred genes of them stay in the cache.
_BLOCK_ROWS = 512
# Every batch of a dense matrix reads what it needs and no more. 400,000 × 400 float32 took 2.7 s in one
# batch of 600 MiB, 1.3 s in batches of 200 MiB and 0.8 s in batches of 30 MiB.
_DENSE_ROOM = 32 << 20


@dataclass(frozen=True)
class SparseColumn:
    """One gene's stored values: ``rows`` strictly ascending, both (nnz,)."""

    rows: Array
    values: Array


GeneColumn = SparseColumn | Array


@dataclass(frozen=True)
class Batch:
    """Columns of consecutive genes of the export; `first` is the position of the first one."""

    first: int
    columns: Sequence[GeneColumn]


def work_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype that kernels use for a stored one: float32 where it holds every value, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64)


def entry_bytes(matrix: Matrix) -> int:
    """Bytes that one value takes in a batch, its row included; sorted CSC columns take less, being views."""
    if isinstance(matrix, Compressed):
        rows = 4 if matrix.axis == 0 else matrix.indices.dtype.itemsize
        return work_dtype(matrix.data.dtype).itemsize + rows
    return work_dtype(matrix.dtype).itemsize


def batch_limits(matrix: Matrix) -> tuple[int, int]:
    """Bytes of the largest batch that may be unavoidable (one gene), and of the largest that is of use."""
    if isinstance(matrix, Compressed):
        whole = matrix.nnz * entry_bytes(matrix)
        return min(matrix.shape[0] * entry_bytes(matrix), whole), whole
    column = matrix.shape[0] * entry_bytes(matrix)
    return column, max(column, min(column * matrix.shape[1], _DENSE_ROOM))


def gene_batches(matrix: Matrix, genes: NDArray[np.int64], team: Team, room: int) -> Iterator[Batch]:
    """Columns of the chosen genes, in the order given.

    Parameters
    ----------
    matrix
        Cells × genes.
    genes
        Column numbers to export; none twice.
    team
        Threads for the CSR passes.
    room
        Bytes a batch may take; at least the first of `batch_limits`.
    """
    if not isinstance(matrix, Compressed):
        yield from _dense_batches(matrix, genes, room)
    elif matrix.axis == 1:
        yield from _csc_batches(matrix, genes, room)
    else:
        yield from _csr_batches(matrix, genes, team, room)


def _split(sizes: NDArray[np.int64], room: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges whose sizes add up to `room` at most (or are a single item)."""
    ends = np.cumsum(sizes)
    first = 0
    while first < sizes.size:
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + room, side="right")), first + 1)
        yield first, last
        first = last


def _dense_batches(matrix: Array, genes: NDArray[np.int64], room: int) -> Iterator[Batch]:
    sizes = np.full(genes.size, matrix.shape[0] * work_dtype(matrix.dtype).itemsize)
    for first, last in _split(sizes, room):
        yield _dense_batch(matrix, genes[first:last], first)


def _dense_batch(matrix: Array, genes: NDArray[np.int64], first: int) -> Batch:
    if matrix.flags.f_contiguous:
        return Batch(first, [matrix[:, gene] for gene in genes])
    block = np.empty((genes.size, matrix.shape[0]), work_dtype(matrix.dtype))
    for start in range(0, matrix.shape[0], _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block[:, rows] = matrix[rows, genes].T
    return Batch(first, list(block))


def canonical(rows: Array, values: Array) -> SparseColumn:
    """A column with its rows ascending and repeated entries added up (in float64)."""
    if quantize.ascending(rows):
        return SparseColumn(rows, values)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sums = np.add.reduceat(values[order].astype(np.float64), starts)
    return SparseColumn(ordered[starts], sums.astype(values.dtype))


def _csc_batches(matrix: Compressed, genes: NDArray[np.int64], room: int) -> Iterator[Batch]:
    indices = kernel_indices(matrix.indices)
    entries = (matrix.indptr[genes + 1] - matrix.indptr[genes]).astype(np.int64)
    for first, last in _split(entries * entry_bytes(matrix), room):
        yield Batch(first, [_csc_column(matrix, indices, gene) for gene in genes[first:last]])


def _csc_column(matrix: Compressed, indices: Array, gene: int) -> SparseColumn:
    entries = slice(int(matrix.indptr[gene]), int(matrix.indptr[gene + 1]))
    values = np.ascontiguousarray(matrix.data[entries], dtype=work_dtype(matrix.data.dtype))
    return canonical(indices[entries], readable(values))


def kernel_indices(indices: Array) -> Array:
    """Indices in a dtype that kernels take (scipy and HDF5 files know others too)."""
    known = indices.dtype in (np.int32, np.int64) and indices.dtype.isnative
    return readable(np.ascontiguousarray(indices, dtype=None if known else np.int64))


def _csr_batches(matrix: Compressed, genes: NDArray[np.int64], team: Team, room: int) -> Iterator[Batch]:
    indptr = readable(np.ascontiguousarray(matrix.indptr, dtype=np.int64))
    indices = kernel_indices(matrix.indices)
    parts = _row_parts(indptr, team.workers)
    counts = _count_parts(indices, indptr, parts, matrix.shape[1], team)[:, genes]
    per_gene = counts.sum(axis=0)
    for first, last in _split(per_gene * entry_bytes(matrix), room):
        chosen = slice(first, last)
        slot = np.full(matrix.shape[1], -1, np.int32)
        slot[genes[chosen]] = np.arange(last - first, dtype=np.int32)
        yield _csr_batch(matrix.data, indptr, indices, parts, counts[:, chosen], slot, first, team)


def _csr_batch(
    data: Array,
    indptr: NDArray[np.int64],
    indices: Array,
    parts: list[tuple[int, int]],
    counts: NDArray[np.int64],
    slot: NDArray[np.int32],
    first: int,
    team: Team,
) -> Batch:
    starts = np.r_[0, np.cumsum(counts.sum(axis=0))]
    rows, values = np.empty(starts[-1], np.uint32), np.empty(starts[-1], work_dtype(data.dtype))
    # Each part writes behind the parts before it, so rows ascend within a gene.
    cursors = starts[:-1] + np.cumsum(counts, axis=0) - counts
    running = [
        team.submit(_place_part, data, indptr, indices, part, slot, cursor.copy(), rows, values)
        for part, cursor in zip(parts, cursors, strict=True)
    ]
    for future in running:
        future.result()
    return Batch(first, [canonical(rows[start:end], values[start:end]) for start, end in pairwise(starts)])


def _row_parts(indptr: NDArray[np.int64], parts: int) -> list[tuple[int, int]]:
    """Row ranges with about the same number of entries."""
    goals = np.linspace(0, indptr[-1], parts + 1)[1:-1]
    cuts = [0, *np.searchsorted(indptr, goals).tolist(), indptr.size - 1]
    return [(first, last) for first, last in pairwise(cuts) if last > first]


def _count_parts(
    indices: Array, indptr: NDArray[np.int64], parts: list[tuple[int, int]], n_genes: int, team: Team
) -> NDArray[np.int64]:
    counts = np.zeros((len(parts), n_genes), np.int64)
    running: list[Future[None]] = [
        team.submit(csr.count, indices[indptr[first] : indptr[last]], row)
        for (first, last), row in zip(parts, counts, strict=True)
    ]
    for future in running:
        future.result()
    return counts


def _place_part(
    data: Array,
    indptr: NDArray[np.int64],
    indices: Array,
    part: tuple[int, int],
    slot: NDArray[np.int32],
    cursor: NDArray[np.int64],
    rows: NDArray[np.uint32],
    values: Array,
) -> None:
    first, last = part
    while first < last:
        stop = int(np.searchsorted(indptr, indptr[first] + _BLOCK_ENTRIES, side="right")) - 1
        stop = min(max(stop, first + 1), last)
        begin, end = int(indptr[first]), int(indptr[stop])
        block = readable(np.ascontiguousarray(data[begin:end], dtype=values.dtype))
        csr.place(indptr[first : stop + 1], indices[begin:end], block, first, begin, slot, cursor, rows, values)
        first = stop
