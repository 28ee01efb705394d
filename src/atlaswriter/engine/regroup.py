"""From a matrix of cells × genes to genes, inside a budget.

Four kinds of matrix come in, and three strategies lead out. CSC and column-major matrices are
*grouped* already: whoever writes some genes reads them. Everything else is brought there *in memory*,
for as many genes at once as there is room (CSR: one pass counts and bounds the entries of each gene,
the other puts them, coded, where their gene is; dense: transposed), or by way of a *spill* to disk,
for which the matrix is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.columns import Batch, CodedColumns, MakeRules, SparseColumns, split
from atlaswriter.engine.rows import Rows, work_dtype
from atlaswriter.engine.run import Team
from atlaswriter.errors import InputError, Problem
from atlaswriter.kernels import csr
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import AnyArray, Array, Compressed, in_memory, overhead
from atlaswriter.sources.lazy import check_inside

# Rows of a dense matrix in memory transposed at a time: a few hundred genes of them stay in the cache.
_BLOCK_ROWS = 512
# Bytes of a stored dense matrix read at a time by one thread.
_BLOCK_BYTES = 4 << 20
# Every batch of a dense matrix in memory reads what it needs and no more. 400,000 × 400 float32 took 2.7 s in one
# batch of 600 MiB, 1.3 s in batches of 200 MiB and 0.8 s in batches of 30 MiB.
_DENSE_ROOM = 32 << 20
# Values of a piece of work, and genes at most. What is done once for a piece costs about 50 µs,
# encoding 128 Ki sparse values 1 ms; larger pieces leave the last thread alone for longer.
PIECE_VALUES, PIECE_GENES = 1 << 17, 64
ENTRY_BYTES = 8

# Told of entries that were read for the first time, as bytes of coded ones.
OnRead = Callable[[int], None]


class Grouping(Protocol):
    """A matrix about to be given out gene by gene."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Stored values of each gene, int64 (n_genes,)."""

    @property
    def spill_bytes(self) -> int:
        """Bytes written to temporary files."""

    def batches(self, room: int) -> Iterator[Batch]:
        """All genes in order; each batch holds `room` bytes at most (or one gene) until the next is asked for."""


@dataclass(frozen=True)
class _Loaded:
    """A batch in memory."""

    first: int
    columns: CodedColumns | Sequence[Array]
    sizes: NDArray[np.int64]

    def pieces(self) -> list[slice]:
        return split(self.sizes, PIECE_VALUES, PIECE_GENES)

    def room(self, piece: slice) -> int:
        del piece
        return 0

    def read(self, piece: slice) -> CodedColumns | Sequence[Array]:
        return self.columns[piece]


class ByColumn:
    """A CSC matrix, which is grouped already; in memory, genes are views of it wherever possible."""

    spill_bytes = 0

    def __init__(self, matrix: Compressed, genes: NDArray[np.int64]) -> None:
        self.first = 0
        self._matrix = matrix
        indptr = np.asarray(matrix.indptr[:])
        self._starts = indptr[:-1][genes].astype(np.int64)
        self.sizes = indptr[1:][genes].astype(np.int64) - self._starts

    def batches(self, room: int) -> Iterator[Batch]:
        """All genes at once: nothing is held."""
        del room
        yield self

    def pieces(self) -> list[slice]:
        """Pieces of about the same cost."""
        return split(self.sizes, PIECE_VALUES, PIECE_GENES)

    def room(self, piece: slice) -> int:
        """Bytes that `read` takes."""
        matrix = self._matrix
        fixed = overhead(matrix.indices) + overhead(matrix.data)
        return int(self.sizes[piece].sum()) * column_value_bytes(matrix) + fixed

    def read(self, piece: slice) -> SparseColumns:
        """Some genes: part of the matrix itself where they follow each other in it, else a copy."""
        matrix, starts = self._matrix, self._starts[piece]
        offsets = np.r_[0, np.cumsum(self.sizes[piece])]
        ends = starts + np.diff(offsets)
        # Where one run of neighbours ends and the next begins.
        cuts = np.flatnonzero(np.r_[True, starts[1:] != ends[:-1]])
        last = np.r_[cuts[1:], starts.size] - 1
        runs = [slice(int(starts[a]), int(ends[b])) for a, b in zip(cuts, last, strict=True)]
        rows, values = (_joined(array, runs) for array in (matrix.indices, matrix.data))
        if not in_memory(matrix.indices):
            check_inside(rows, matrix)
        if rows.dtype == np.int32 and rows.flags.c_contiguous and rows.dtype.isnative:
            rows = rows.view(np.uint32)  # none is negative
        rows = readable(np.ascontiguousarray(rows, dtype=np.uint32))
        return SparseColumns(rows, readable(np.ascontiguousarray(values, dtype=work_dtype(values.dtype))), offsets)


def column_value_bytes(matrix: Compressed) -> int:
    """Bytes that a value of a CSC matrix takes: as stored, as kernels take it, coded, and while it is put in order."""
    value = work_dtype(matrix.data.dtype).itemsize
    stored = 0 if in_memory(matrix.indices) else matrix.indices.dtype.itemsize + matrix.data.dtype.itemsize
    return stored + 4 + value + ENTRY_BYTES + 24


def _joined(array: AnyArray, runs: list[slice]) -> Array:
    parts = [array[run] for run in runs]
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else array[0:0]


class Dense:
    """A dense matrix; column-major ones in memory are grouped already, others are transposed batch by batch."""

    spill_bytes = 0

    def __init__(self, matrix: AnyArray, genes: NDArray[np.int64], team: Team) -> None:
        self._matrix, self._genes, self._team = matrix, genes, team
        self.sizes = np.full(genes.size, matrix.shape[0], np.int64)

    def batches(self, room: int) -> Iterator[Batch]:
        """Batches of genes."""
        matrix = self._matrix
        if isinstance(matrix, np.ndarray) and matrix.flags.f_contiguous:
            yield _Loaded(0, [matrix[:, gene] for gene in self._genes], self.sizes)
            return
        room = min(room, _DENSE_ROOM) if in_memory(matrix) else room
        for batch in split(self.sizes * work_dtype(matrix.dtype).itemsize, room):
            yield _Loaded(batch.start, list(self._transposed(self._genes[batch])), self.sizes[batch])

    def _transposed(self, genes: NDArray[np.int64]) -> Array:
        matrix = self._matrix
        columns = np.empty((genes.size, matrix.shape[0]), work_dtype(matrix.dtype))
        step = dense_rows(matrix, int(np.ptp(genes)) + 1)
        parts = [slice(start, start + step) for start in range(0, matrix.shape[0], step)]
        if isinstance(matrix, np.ndarray):
            for rows in parts:
                columns[:, rows] = matrix[rows, genes].T
            return columns
        low, high = int(genes.min()), int(genes.max()) + 1

        def fill(rows: slice) -> None:
            columns[:, rows] = matrix[rows, low:high][:, genes - low].T

        for future in [self._team.submit(fill, rows) for rows in parts]:
            future.result()
        return columns


def dense_rows(matrix: AnyArray, width: int) -> int:
    """Rows of a dense matrix to read at a time, of so many columns."""
    if in_memory(matrix):
        return _BLOCK_ROWS
    rows, grain = max(1, _BLOCK_BYTES // max(1, width * matrix.dtype.itemsize)), matrix.grain  # type: ignore[union-attr]
    return int(max(rows // grain, 1) * grain)


class InMemory:
    """A CSR matrix that is read once to measure it, and once for each batch."""

    spill_bytes = 0

    def __init__(
        self, rows: Rows, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, on_read: OnRead
    ) -> None:
        self._rows, self._genes, self._team, self._on_read = rows, genes, team, on_read
        self._parts = rows.parts(team.workers)
        measured = self._measure()
        if any(part.repeats for part in measured):
            self._rows = rows.adding_up()
            measured = self._measure()
        self._counts = np.array([part.counts for part in measured])[:, genes]
        self.sizes = self._counts.sum(axis=0)
        self._n_missing = sum_of(part.n_missing for part in measured)[genes]
        low = np.min([part.low for part in measured], axis=0)[genes]
        high = np.max([part.high for part in measured], axis=0)[genes]
        self._rules = make_rules(bounds_of(low, high, self.sizes, rows.n_rows))

    def _measure(self) -> list[Measured]:
        rows = self._rows
        measured = [Measured(rows.n_columns, rows.dtype) for _ in self._parts]

        def go(one: Measured, part: tuple[int, int]) -> None:
            for block in rows.blocks(*part):
                one.add(*block)
                self._on_read(ENTRY_BYTES * block.indices.size)

        for future in [self._team.submit(go, one, part) for one, part in zip(measured, self._parts, strict=True)]:
            future.result()
        return measured or [Measured(rows.n_columns, rows.dtype)]

    def batches(self, room: int) -> Iterator[Batch]:
        """Batches of genes."""
        for batch in split(self.sizes * ENTRY_BYTES, room):
            yield _Loaded(batch.start, self._placed(batch), self.sizes[batch])

    def _placed(self, batch: slice) -> CodedColumns:
        rows, rules, counts = self._rows, self._rules[batch], self._counts[:, batch]
        offsets = np.r_[0, np.cumsum(self.sizes[batch])]
        slot = slots(rows.n_columns, self._genes[batch])
        entries = np.empty(offsets[-1], np.int64)

        def place(part: tuple[int, int], cursor: NDArray[np.int64]) -> None:
            for block in rows.blocks(*part):
                csr.place(*block, slot, cursor, rules.table, rules.mode, rules.top, entries)

        # Each part writes behind the parts before it, so rows ascend within a gene.
        cursors = np.ascontiguousarray(offsets[:-1] + np.cumsum(counts, axis=0) - counts)
        ends = cursors + counts
        for future in [self._team.submit(place, *pair) for pair in zip(self._parts, cursors, strict=False)]:
            future.result()
        if self._parts and not np.array_equal(cursors, ends):
            raise InputError(Problem(rows.where, "changed while it was read", "export it again"))
        return CodedColumns(entries, offsets, rules, self._n_missing[batch])


def slots(n_columns: int, genes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Position among `genes` of every column, -1 for the others."""
    slot = np.full(n_columns, -1, np.int32)
    slot[genes] = np.arange(genes.size, dtype=np.int32)
    return slot


class Measured:
    """What one pass over some rows finds of each column."""

    def __init__(self, n_columns: int, dtype: np.dtype) -> None:
        self.counts = np.zeros(n_columns, np.int64)
        self.low, self.high = np.full(n_columns, np.inf, dtype), np.full(n_columns, -np.inf, dtype)
        self.n_missing = np.zeros(n_columns, np.int64)
        self.repeats = False
        self._last_row = np.full(n_columns, -1)

    def add(self, indptr: Array, indices: Array, values: Array, first: int, offset: int) -> None:
        """Take in a block."""
        self.repeats |= csr.measure(
            indptr, indices, values, first, offset, self._last_row, self.counts, self.low, self.high, self.n_missing
        )


def sum_of(arrays: Iterator[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Element by element."""
    total: NDArray[np.int64] = np.sum(list(arrays), axis=0)
    return total


def bounds_of(low: Array, high: Array, sizes: NDArray[np.int64], n_rows: int) -> NDArray[np.float64]:
    """Bounds of genes, with the zeros that are not stored, float64 (n_genes, 2); a zero has no sign."""
    bounds = np.column_stack([low, high]).astype(np.float64) + 0.0
    some_zero = sizes < n_rows
    bounds[some_zero, 0] = np.minimum(bounds[some_zero, 0], 0)
    bounds[some_zero, 1] = np.maximum(bounds[some_zero, 1], 0)
    return bounds
