"""From a matrix of cells × genes to gene columns, a batch of genes at a time.

Three kinds of matrix come in. CSC is grouped already; CSR is brought there by two passes, for as
many genes at once as the budget holds: one counts and bounds the entries of each gene, the other
puts them, coded, where their gene is. Dense is transposed block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.run import Team
from atlaswriter.kernels import csr
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array, Compressed, Matrix

# Rows handed to one call of a kernel at a time: their entries are converted in buffers of this size.
_BLOCK_ENTRIES = 1 << 20
# Rows of a dense matrix transposed at a time: a few hundred genes of them stay in the cache.
_BLOCK_ROWS = 512
# Every batch of a dense matrix reads what it needs and no more. 400,000 × 400 float32 took 2.7 s in one
# batch of 600 MiB, 1.3 s in batches of 200 MiB and 0.8 s in batches of 30 MiB.
_DENSE_ROOM = 32 << 20


@dataclass(frozen=True)
class SparseColumns:
    """Stored values of consecutive genes of the export, one gene behind the other.

    Attributes
    ----------
    rows
        uint32 (nnz,).
    values
        (nnz,).
    offsets
        int64 (n_genes + 1,): where each gene begins in both.
    """

    rows: Array
    values: Array
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, genes: slice) -> SparseColumns:
        first, last, _ = genes.indices(len(self))
        offsets = self.offsets[first : last + 1]
        entries = slice(offsets[0], offsets[-1])
        return SparseColumns(self.rows[entries], self.values[entries], offsets - offsets[0])

    def in_order(self) -> SparseColumns:
        """The same with the rows of every gene strictly ascending, repeated entries added up (in float64)."""
        if csr.in_order(self.rows, self.offsets):
            return self
        columns = [_in_order(self.rows[first:last], self.values[first:last]) for first, last in pairwise(self.offsets)]
        rows, values = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        return SparseColumns(rows, values, np.r_[0, np.cumsum([len(rows) for rows, _ in columns])])


def _in_order(rows: Array, values: Array) -> tuple[Array, Array]:
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if rows.size else order
    sums = np.add.reduceat(values[order].astype(np.float64), starts) if rows.size else values
    return ordered[starts], sums.astype(values.dtype)


@dataclass(frozen=True)
class Rules:
    """How the values of columns become codes; see `kernels.quantize`.

    Attributes
    ----------
    table
        float64 (n_columns, 3).
    mode, top
        Those of all columns.
    bounds
        float64 (n_columns, 2): values of code 0 and of the top code; None for float32.
    backgrounds
        (n_columns,): code of 0, in the dtype codes are stored in (float32: its bits).
    """

    table: NDArray[np.float64]
    mode: int
    top: int
    bounds: NDArray[np.float64] | None
    backgrounds: Array

    def __getitem__(self, columns: slice) -> Rules:
        bounds = None if self.bounds is None else self.bounds[columns]
        return Rules(self.table[columns], self.mode, self.top, bounds, self.backgrounds[columns])


# Rules for columns whose bounds, float64 (n_columns, 2), with the zeros that are not stored, are given.
MakeRules = Callable[[NDArray[np.float64]], Rules]


@dataclass(frozen=True)
class CodedColumns:
    """Coded entries of consecutive genes of the export, one gene behind the other.

    Attributes
    ----------
    entries
        int64 (nnz,), ``row << 32 | code``, rows strictly ascending within a gene.
    offsets
        int64 (n_genes + 1,): where each gene begins.
    rules
        How they were coded.
    n_missing
        int64 (n_genes,): entries that are NaN or infinite.
    """

    entries: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rules: Rules
    n_missing: NDArray[np.int64]

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, genes: slice) -> CodedColumns:
        first, last, _ = genes.indices(len(self))
        offsets = self.offsets[first : last + 1]
        entries = self.entries[offsets[0] : offsets[-1]]
        return CodedColumns(entries, offsets - offsets[0], self.rules[first:last], self.n_missing[first:last])


Columns = CodedColumns | SparseColumns | Sequence[Array]


@dataclass(frozen=True)
class Batch:
    """Consecutive genes of the export: coded, sparse, or each dense; `first` is the position of the first one."""

    first: int
    columns: Columns


def work_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype that kernels use for a stored one: float32 where it holds every value, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64)


def entry_bytes(matrix: Matrix) -> int:
    """Bytes that one value takes in a batch, its row included; CSC columns take less where they are views."""
    if not isinstance(matrix, Compressed):
        return work_dtype(matrix.dtype).itemsize
    return 8 if matrix.axis == 0 else work_dtype(matrix.data.dtype).itemsize + 4


def batch_limits(matrix: Matrix) -> tuple[int, int]:
    """Bytes of the largest batch that may be unavoidable (one gene), and of the largest that is of use."""
    if isinstance(matrix, Compressed):
        whole = matrix.nnz * entry_bytes(matrix)
        return min(matrix.shape[0] * entry_bytes(matrix), whole), whole
    column = matrix.shape[0] * entry_bytes(matrix)
    return column, max(column, min(column * matrix.shape[1], _DENSE_ROOM))


def gene_batches(
    matrix: Matrix, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, room: int
) -> Iterator[Batch]:
    """Columns of the chosen genes, in the order given.

    Parameters
    ----------
    matrix
        Cells × genes.
    genes
        Column numbers to export; none twice.
    make_rules
        How a CSR matrix is coded, once the bounds of its columns are known.
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
        yield from _csr_batches(matrix, genes, make_rules, team, room)


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


def _csc_batches(matrix: Compressed, genes: NDArray[np.int64], room: int) -> Iterator[Batch]:
    starts = np.asarray(matrix.indptr)[:-1][genes].astype(np.int64)
    sizes = np.asarray(matrix.indptr)[1:][genes].astype(np.int64) - starts
    for first, last in _split(sizes * entry_bytes(matrix), room):
        yield Batch(first, _csc_columns(matrix, starts[first:last], sizes[first:last]))


def _csc_columns(matrix: Compressed, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> SparseColumns:
    """Some columns: part of the matrix itself where they follow each other in it, else a copy."""
    offsets = np.r_[0, np.cumsum(sizes)]
    if starts.size and (starts == starts[0] + offsets[:-1]).all():
        entries = slice(starts[0], starts[0] + offsets[-1])
        rows, values = matrix.indices[entries], matrix.data[entries]
    else:
        parts = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        rows, values = (np.concatenate([array[part] for part in parts]) for array in (matrix.indices, matrix.data))
    if rows.dtype == np.int32 and rows.flags.c_contiguous and rows.dtype.isnative:
        rows = rows.view(np.uint32)  # none is negative
    rows = readable(np.ascontiguousarray(rows, dtype=np.uint32))
    return SparseColumns(rows, readable(np.ascontiguousarray(values, dtype=work_dtype(values.dtype))), offsets)


def kernel_indices(indices: Array) -> Array:
    """Indices in a dtype that kernels take (scipy and HDF5 files know others too)."""
    known = indices.dtype in (np.int32, np.int64) and indices.dtype.isnative
    return readable(np.ascontiguousarray(indices, dtype=None if known else np.int64))


def _csr_batches(
    matrix: Compressed, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, room: int
) -> Iterator[Batch]:
    rows = _Rows.of(matrix)
    parts = _row_parts(rows.indptr, team.workers)
    measured = _measure(rows, parts, team)
    if any(part.repeats for part in measured):
        rows = rows.adding_up()
        measured = _measure(rows, parts, team)
    counts = np.array([part.counts for part in measured])[:, genes]
    per_gene = counts.sum(axis=0)
    n_missing = np.sum([part.n_missing for part in measured], axis=0)[genes]
    rules = make_rules(_bounds_of(measured, per_gene, genes, matrix.shape[0]))
    for first, last in _split(per_gene * entry_bytes(matrix), room):
        chosen = slice(first, last)
        slot = np.full(matrix.shape[1], -1, np.int32)
        slot[genes[chosen]] = np.arange(last - first, dtype=np.int32)
        offsets = np.r_[0, np.cumsum(per_gene[chosen])]
        entries = _placed(rows, parts, counts[:, chosen], slot, offsets, rules[chosen], team)
        yield Batch(first, CodedColumns(entries, offsets, rules[chosen], n_missing[chosen]))


@dataclass(frozen=True)
class _Rows:
    """A CSR matrix in the dtypes of kernels, block of rows by block of rows."""

    indptr: NDArray[np.int64]
    indices: Array
    data: Array
    n_columns: int
    add_up: bool = False

    @classmethod
    def of(cls, matrix: Compressed) -> _Rows:
        indptr = readable(np.ascontiguousarray(matrix.indptr, dtype=np.int64))
        return cls(indptr, kernel_indices(matrix.indices), matrix.data, matrix.shape[1])

    def adding_up(self) -> _Rows:
        """The same with repeated entries of a row added up (in float64)."""
        return _Rows(self.indptr, self.indices, self.data, self.n_columns, add_up=True)

    def blocks(self, first: int, last: int) -> Iterator[tuple[Array, Array, Array, int, int]]:
        """Some rows as kernels take them: indptr, indices, values, first row and position of the first entry."""
        dtype = work_dtype(self.data.dtype)
        while first < last:
            stop = int(np.searchsorted(self.indptr, self.indptr[first] + _BLOCK_ENTRIES, side="right")) - 1
            stop = min(max(stop, first + 1), last)
            entries = slice(int(self.indptr[first]), int(self.indptr[stop]))
            indptr, indices, values = self.indptr[first : stop + 1], self.indices[entries], self.data[entries]
            if self.add_up:
                indptr, indices, values = _added_up(indptr - indptr[0], indices, values, self.n_columns)
                yield indptr, indices, values.astype(dtype), first, 0
            else:
                yield indptr, indices, readable(np.ascontiguousarray(values, dtype=dtype)), first, entries.start
            first = stop


def _added_up(indptr: Array, indices: Array, values: Array, n_columns: int) -> tuple[Array, Array, Array]:
    rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    keys, inverse = np.unique(rows * n_columns + indices, return_inverse=True)
    sums = np.bincount(inverse, weights=values.astype(np.float64), minlength=keys.size)
    starts = np.searchsorted(keys, np.arange(indptr.size) * n_columns)
    return starts.astype(np.int64), (keys % n_columns).astype(indices.dtype), sums


def _row_parts(indptr: NDArray[np.int64], parts: int) -> list[tuple[int, int]]:
    """Row ranges with about the same number of entries."""
    goals = np.linspace(0, indptr[-1], parts + 1)[1:-1]
    cuts = [0, *np.searchsorted(indptr, goals).tolist(), indptr.size - 1]
    return [(first, last) for first, last in pairwise(cuts) if last > first]


class _Measured:
    """What one pass over some rows finds of each column."""

    def __init__(self, n_columns: int, dtype: np.dtype) -> None:
        self.counts = np.zeros(n_columns, np.int64)
        self.low, self.high = np.full(n_columns, np.inf, dtype), np.full(n_columns, -np.inf, dtype)
        self.n_missing = np.zeros(n_columns, np.int64)
        self.repeats = False

    def add(self, rows: _Rows, part: tuple[int, int]) -> None:
        last_row = np.full(self.counts.size, -1)
        for indptr, indices, values, first, offset in rows.blocks(*part):
            self.repeats |= csr.measure(
                indptr, indices, values, first, offset, last_row, self.counts, self.low, self.high, self.n_missing
            )


def _measure(rows: _Rows, parts: list[tuple[int, int]], team: Team) -> list[_Measured]:
    measured = [_Measured(rows.n_columns, work_dtype(rows.data.dtype)) for _ in parts]
    running = [team.submit(one.add, rows, part) for one, part in zip(measured, parts, strict=True)]
    for future in running:
        future.result()
    return measured or [_Measured(rows.n_columns, work_dtype(rows.data.dtype))]


def _bounds_of(
    measured: list[_Measured], per_gene: NDArray[np.int64], genes: NDArray[np.int64], n_rows: int
) -> NDArray[np.float64]:
    low = np.min([part.low for part in measured], axis=0)[genes].astype(np.float64)
    high = np.max([part.high for part in measured], axis=0)[genes].astype(np.float64)
    some_zero = per_gene < n_rows
    low[some_zero], high[some_zero] = np.minimum(low[some_zero], 0), np.maximum(high[some_zero], 0)
    return np.column_stack([low, high])


def _placed(
    rows: _Rows,
    parts: list[tuple[int, int]],
    counts: NDArray[np.int64],
    slot: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rules: Rules,
    team: Team,
) -> NDArray[np.int64]:
    entries = np.empty(offsets[-1], np.int64)

    def place(part: tuple[int, int], cursor: NDArray[np.int64]) -> None:
        for indptr, indices, values, first, offset in rows.blocks(*part):
            csr.place(indptr, indices, values, first, offset, slot, cursor, rules.table, rules.mode, rules.top, entries)

    # Each part writes behind the parts before it, so rows ascend within a gene.
    cursors = offsets[:-1] + np.cumsum(counts, axis=0) - counts
    running = [team.submit(place, part, cursor.copy()) for part, cursor in zip(parts, cursors, strict=True)]
    for future in running:
        future.result()
    return entries
