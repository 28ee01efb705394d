"""From a matrix of cells × genes to gene columns, a batch of genes at a time.

Three kinds of matrix come in. CSC is grouped already; CSR is brought there by count and place, for
as many genes at once as the budget holds; dense is transposed block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    columns: list[GeneColumn]
    nbytes: int


def work_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype that kernels use for a stored one: float32 where it holds every value, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64)


def entry_bytes(matrix: Matrix) -> int:
    """Bytes that one value takes in a batch."""
    if isinstance(matrix, Compressed):
        return work_dtype(matrix.data.dtype).itemsize + (4 if matrix.axis == 0 else 0)
    return work_dtype(matrix.dtype).itemsize


def batch_limits(matrix: Matrix) -> tuple[int, int]:
    """Bytes of the largest batch that may be unavoidable (one gene), and of all genes in one batch."""
    if isinstance(matrix, Compressed):
        whole = matrix.nnz * entry_bytes(matrix)
        return min(matrix.shape[0] * entry_bytes(matrix), whole), whole
    column = matrix.shape[0] * entry_bytes(matrix)
    return column, column * matrix.shape[1]


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
    dtype = work_dtype(matrix.dtype)
    sizes = np.full(genes.size, matrix.shape[0] * dtype.itemsize)
    for first, last in _split(sizes, room):
        block = np.ascontiguousarray(matrix[:, genes[first:last]].T, dtype=dtype)
        yield Batch(first, list(block), block.nbytes)


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
    dtype = work_dtype(matrix.data.dtype)
    indices = kernel_indices(matrix.indices)
    sizes = (matrix.indptr[genes + 1] - matrix.indptr[genes]).astype(np.int64) * dtype.itemsize
    for first, last in _split(sizes, room):
        columns: list[GeneColumn] = []
        for gene in genes[first:last]:
            entries = slice(int(matrix.indptr[gene]), int(matrix.indptr[gene + 1]))
            values = np.ascontiguousarray(matrix.data[entries], dtype=dtype)
            columns.append(canonical(np.ascontiguousarray(indices[entries]), readable(values)))
        yield Batch(first, columns, int(sizes[first:last].sum()))


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
        starts = np.r_[0, np.cumsum(per_gene[first:last])]
        slot = np.full(matrix.shape[1], -1, np.int32)
        slot[genes[first:last]] = np.arange(last - first, dtype=np.int32)
        rows = np.empty(starts[-1], np.uint32)
        values = np.empty(starts[-1], work_dtype(matrix.data.dtype))
        # Each part writes behind the parts before it, so rows ascend within a gene.
        cursors = starts[:-1] + np.cumsum(counts[:, first:last], axis=0) - counts[:, first:last]
        running = [
            team.submit(_place_part, matrix.data, indptr, indices, part, slot, cursor.copy(), rows, values)
            for part, cursor in zip(parts, cursors, strict=True)
        ]
        for future in running:
            future.result()
        columns: list[GeneColumn] = [canonical(rows[start:end], values[start:end]) for start, end in pairwise(starts)]
        yield Batch(first, columns, rows.nbytes + values.nbytes)


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
