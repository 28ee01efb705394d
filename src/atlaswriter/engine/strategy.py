"""How a matrix will be brought to genes: what fits, what it costs, and which way is the quickest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.columns import Batch, MakeRules
from atlaswriter.engine.regroup import (
    ENTRY_BYTES,
    PIECE_VALUES,
    ByColumn,
    Dense,
    Grouping,
    InMemory,
    OnRead,
    column_value_bytes,
    dense_rows,
)
from atlaswriter.engine.rows import block_bytes, rows_of, value_dtype, work_dtype
from atlaswriter.engine.run import Team
from atlaswriter.engine.sorted import spilled
from atlaswriter.engine.spill import frame_bytes, part_bytes, reading_room, writing_room
from atlaswriter.sources.base import (
    AnyArray,
    Compressed,
    Matrix,
    RowChunks,
    in_memory,
    is_dense,
    matrix_bytes,
    n_bytes,
    overhead,
)
from atlaswriter.sources.lazy import load
from atlaswriter.units import format_bytes

GROUPED, MEMORY, SPILL = "grouped", "memory", "spill"

# Seconds an entry takes on one core (500 million of them): counting and bounding it; sorting it into a temporary
# file; bringing it back.
_MEASURE, _WRITE, _BACK = 2.2e-9, 18e-9, 10e-9
# Temporary files are written and read, bytes a second.
_DISK_SPEED = 1e9
# Reading memory once more, and fresh memory, bytes a second.
_MEMORY_SPEED = 5e9
# Bytes of entries a second from somebody who makes them (dask).
_MADE_SPEED = 2e8
# Bytes of an entry in a temporary file (log1p values, gaps of rows).
SPILLED_BYTES = 5
# Entries of a part of the rows, and of a range of genes, in matrices of up to so many: frames of some 16 Ki entries,
# and no more memory than needed. Smaller where the room is small.
_PART_ENTRIES, _RANGE_ENTRIES, _LEAST_ENTRIES = 4 << 20, 2 << 20, 1 << 16
_FRAMED_ENTRIES = 512 << 20


@dataclass(frozen=True)
class Choice:
    """How a matrix will be regrouped.

    Attributes
    ----------
    strategy
        ``"grouped"``, ``"memory"`` or ``"spill"``.
    room
        Bytes it takes while the matrix is read.
    batch_room
        Bytes of a batch of genes.
    gene_room
        Bytes that reading the largest gene, which may be in every cell, takes besides.
    load
        Whether the whole matrix is read into memory first.
    passes
        How often the stored matrix is read.
    seconds
        About how long reading and regrouping take.
    spill_bytes
        About how much is written to temporary files.
    part_entries, range_entries
        Entries of a part of the rows, and of a range of genes there.
    """

    strategy: str
    room: int = 0
    batch_room: int = 0
    gene_room: int = 0
    load: bool = False
    passes: int = 1
    seconds: float = 0.0
    spill_bytes: int = 0
    part_entries: int = 0
    range_entries: int = 0

    def needs(self, encoding: int) -> int:
        """Bytes it takes where encoding the largest gene takes so many."""
        held = self.room + self.batch_room
        return max(held, (0 if self.strategy == SPILL else held) + self.gene_room + encoding)

    def __str__(self) -> str:
        if self.strategy == GROUPED:
            return "grouped already"
        if self.strategy == SPILL:
            return f"spill ({format_bytes(self.spill_bytes)} of temporary files, the source is read once)"
        if self.load or self.passes == 1:
            return "in memory"
        return f"in memory (the source is read {self.passes} times)"


def choose(matrix: Matrix, n_genes: int, workers: int, room: int, strategy: str = "auto", encoding: int = 0) -> Choice:
    """The quickest way that fits into `room` bytes.

    Parameters
    ----------
    matrix
        Cells × genes.
    n_genes
        Genes that will be given out.
    workers
        Threads.
    room
        Bytes that regrouping and encoding may take; at least `least_room`.
    strategy
        ``"auto"``, or one that a CSR matrix shall be regrouped by.
    encoding
        Bytes that encoding a piece of genes takes at most.
    """
    ways = _ways(matrix, n_genes, workers, room - encoding, strategy)
    fitting = [way for way in ways if way.needs(encoding) <= room]
    return min(fitting or ways, key=lambda way: way.seconds)


def least_room(matrix: Matrix, n_genes: int, workers: int, strategy: str = "auto", encoding: int = 0) -> int:
    """Smallest room that will do."""
    return min(way.needs(encoding) for way in _ways(matrix, n_genes, workers, 0, strategy))


def whole_room(matrix: Matrix, n_genes: int, workers: int, strategy: str = "auto") -> int:
    """Room beyond which nothing is gained."""
    ways = _ways(matrix, n_genes, workers, 1 << 62, strategy)
    return min(ways, key=lambda way: way.seconds).needs(0)


def _place(n_genes: int) -> float:
    """Seconds that coding an entry and putting it in its place takes: 6 ns with 2,000 genes, 14 with 10,000."""
    return min(4e-9 + n_genes * 1e-12, 14e-9)


def is_grouped(matrix: Matrix) -> bool:
    """Whether the values of a gene lie together."""
    if isinstance(matrix, Compressed):
        return matrix.axis == 1
    return isinstance(matrix, np.ndarray) and bool(matrix.flags.f_contiguous)


def entries_of(matrix: Matrix, n_genes: int) -> int:
    """Values of so many genes of a matrix, about."""
    if is_dense(matrix):
        return matrix.shape[0] * n_genes
    if isinstance(matrix, Compressed):
        return matrix.nnz * n_genes // max(matrix.shape[1], 1)
    return cast("RowChunks", matrix).entries * n_genes // max(matrix.shape[1], 1)


def largest_gene(matrix: Matrix) -> int:
    """Values that one gene may have; where that is not known, it may be in every cell."""
    if isinstance(matrix, Compressed) and matrix.axis == 1:
        return int(np.diff(matrix.indptr[:]).max(initial=0))
    return min(matrix.shape[0], entries_of(matrix, matrix.shape[1]))


def _ways(matrix: Matrix, n_genes: int, workers: int, room: int, strategy: str) -> list[Choice]:
    if is_grouped(matrix):
        gene = _grouped_room(matrix) if isinstance(matrix, Compressed) else 0
        return [Choice(GROUPED, gene_room=gene, seconds=_read_seconds(matrix) / workers)]
    if is_dense(matrix):
        return list(_dense_ways(matrix, n_genes, workers, room))
    stored = cast("Compressed | RowChunks", matrix)
    ways = [*_memory_ways(stored, n_genes, workers, room), _spill_way(stored, n_genes, workers, room)]
    return [way for way in ways if strategy in ("auto", way.strategy)]


def _grouped_room(matrix: Compressed) -> int:
    """Bytes that reading a piece of genes of a CSC matrix takes."""
    entries = max(largest_gene(matrix), min(PIECE_VALUES, matrix.nnz))
    return entries * column_value_bytes(matrix) + overhead(matrix.indices) + overhead(matrix.data)


def _memory_ways(matrix: Compressed | RowChunks, n_genes: int, workers: int, room: int) -> Iterator[Choice]:
    entries, n_stored = entries_of(matrix, n_genes), entries_of(matrix, matrix.shape[1])
    least = largest_gene(matrix) * ENTRY_BYTES
    # Chosen genes may have more entries than others.
    whole = max(min(n_stored, matrix.shape[0] * n_genes) * ENTRY_BYTES, least)
    expected = max(entries * ENTRY_BYTES, least)
    each = (n_stored * _MEASURE + entries * _place(n_genes)) / workers
    reading = workers * block_bytes(matrix)
    batch_room = min(max(room - reading, least), whole)
    batches = -(-expected // batch_room) if whole else 1
    again = (batches - 1) * n_stored * _MEASURE / workers
    seconds = each + again + (1 + batches) * _read_seconds(matrix) / workers
    yield Choice(MEMORY, reading, batch_room, passes=1 + batches, seconds=seconds)
    if isinstance(matrix, Compressed) and not in_memory(matrix.data):
        held = matrix.nbytes + reading
        batch_room = min(max(room - held, least), whole)
        batches = -(-expected // batch_room) if whole else 1
        again = (batches - 1) * n_stored * _MEASURE / workers
        seconds = each + again + _read_seconds(matrix) / workers + matrix.nbytes / _MEMORY_SPEED
        yield Choice(MEMORY, held, batch_room, load=True, seconds=seconds)


def _spill_way(matrix: Compressed | RowChunks, n_genes: int, workers: int, room: int) -> Choice:
    entries, n_stored = entries_of(matrix, n_genes), entries_of(matrix, matrix.shape[1])
    seconds = (n_stored * _MEASURE + entries * (_WRITE + _BACK) + _read_seconds(matrix)) / workers
    seconds += 2 * entries * SPILLED_BYTES / _DISK_SPEED
    part, range_ = spill_sizes(matrix, workers, room)
    needed, gene = writing_room(matrix, workers, part), reading_room(matrix, 1, part, range_)
    return Choice(
        SPILL, needed, 0, gene, seconds=seconds, spill_bytes=entries * SPILLED_BYTES,
        part_entries=part, range_entries=range_,
    )  # fmt: skip


def layout_of(entries: int) -> tuple[int, int]:
    """Entries of a part of the rows, and of a range of genes, where memory does not matter.

    4 Mi and 2 Mi for up to 512 Mi entries. Beyond, both are ``sqrt(entries / 512 Mi)`` times that, so that a frame,
    the entries of a range in a part, keeps ``part * range / entries`` = 16 Ki of them: 10**11 entries make 1,747
    parts and 3,494 ranges.
    """
    growth = math.sqrt(max(entries / _FRAMED_ENTRIES, 1))
    return int(_PART_ENTRIES * growth), int(_RANGE_ENTRIES * growth)


def spill_sizes(matrix: Compressed | RowChunks, workers: int, room: int) -> tuple[int, int]:
    """Entries of a part of the rows, and of a range of genes: `layout_of`, or what there is room for.

    Parts become smaller first; ranges once they would be larger than a part.

    Parameters
    ----------
    matrix
        CSR, or made in chunks; its header is enough.
    workers
        Threads of a process.
    room
        Bytes that `spill.writing_room`, and `spill.reading_room` of one thread, come to at most, where that is possible
        at all.
    """
    entries, fixed = max(entries_of(matrix, matrix.shape[1]), 1), block_bytes(matrix, 0)
    written = (room / workers - fixed) / ((block_bytes(matrix, entries) - fixed) / entries + part_bytes(matrix))
    frame = frame_bytes(work_dtype(value_dtype(matrix)))
    read = (room - largest_gene(matrix) * ENTRY_BYTES) / (ENTRY_BYTES + frame)
    part, range_ = layout_of(entries)
    part = min(max(int(min(written, read)), _LEAST_ENTRIES), part, entries)
    return part, min(range_, part)


def _dense_ways(matrix: AnyArray, n_genes: int, workers: int, room: int) -> Iterator[Choice]:
    column = matrix.shape[0] * work_dtype(matrix.dtype).itemsize
    whole = column * n_genes
    values = matrix.shape[0] * n_genes * _place(0) / workers
    if isinstance(matrix, np.ndarray):
        yield Choice(MEMORY, 0, min(max(room, column), whole), seconds=values)
        return
    width = matrix.shape[1]
    # As read, its chosen columns, and these transposed.
    reading = workers * (3 * dense_rows(matrix, width) * width * matrix.dtype.itemsize + overhead(matrix))
    batch_room = min(max(room - reading, column), whole)
    batches = -(-whole // batch_room) if whole else 1
    yield Choice(
        MEMORY, reading, batch_room, passes=batches, seconds=values + batches * _read_seconds(matrix) / workers
    )
    held = n_bytes(matrix) + workers * overhead(matrix)
    batch_room = min(max(room - held, column), whole)
    seconds = values + _read_seconds(matrix) / workers + n_bytes(matrix) / _MEMORY_SPEED
    yield Choice(MEMORY, held, batch_room, load=True, seconds=seconds)


def _read_seconds(matrix: Matrix) -> float:
    """Seconds that one core takes to read the whole matrix once."""
    arrays: tuple[AnyArray, ...]
    if is_dense(matrix):
        arrays = (matrix,)
    elif isinstance(matrix, Compressed):
        arrays = (matrix.indptr, matrix.indices, matrix.data)
    else:
        return matrix_bytes(matrix) / _MADE_SPEED
    return sum(n_bytes(array) / array.speed for array in arrays if not isinstance(array, np.ndarray))


def _say_nothing(size: int) -> None:
    del size


def group(
    matrix: Matrix, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, choice: Choice,
    scratch: Callable[[], Path], on_read: OnRead = _say_nothing,
) -> Grouping:  # fmt: skip
    """Read the matrix as far as needed before the first gene can be given out.

    Parameters
    ----------
    matrix
        Cells × genes.
    genes
        Columns to give out, in this order; none twice.
    make_rules
        How columns are coded, once the bounds of all are known.
    team
        Threads.
    choice
        What `choose` said.
    scratch
        Makes a folder for temporary files.
    on_read
        Told of progress: `reading_bytes` in all.
    """
    if isinstance(matrix, Compressed) and matrix.axis == 1:
        return ByColumn(matrix, genes)
    if is_dense(matrix):
        return Dense(load(matrix, team.workers) if choice.load else matrix, genes, team)
    if choice.load and isinstance(matrix, Compressed):
        matrix = loaded(matrix, team.workers)
    stored = cast("Compressed | RowChunks", matrix)
    rows = rows_of(stored)
    if choice.strategy == SPILL:
        part, piece = choice.part_entries, choice.range_entries
        n_ranges = -(-entries_of(matrix, genes.size) // piece)
        return spilled(rows, genes, make_rules, team, scratch(), part, n_ranges, piece, on_read)
    return InMemory(rows, genes, make_rules, team, on_read)


def give_out(
    matrix: Matrix, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, choice: Choice,
    scratch: Callable[[], Path], room: Callable[[Batch, slice], int], write: Callable[[Batch, slice], None],
    on_read: OnRead = _say_nothing,
) -> int:  # fmt: skip
    """Hand every gene to `write`, in pieces, by several threads; waits until what the choice takes is free.

    Parameters
    ----------
    matrix, genes, make_rules, team, choice, scratch, on_read
        As of `group`.
    room
        Bytes that writing a piece of a batch takes.
    write
        Takes a batch and one of its pieces.

    Returns
    -------
    int
        Bytes written to temporary files.
    """
    budget, taken = team.budget, choice.room + choice.batch_room
    budget.take(taken, "reading genes")
    try:
        grouping = group(matrix, genes, make_rules, team, choice, scratch, on_read)
        if choice.strategy == SPILL:
            budget.give_back(taken)
            taken = 0
        hand_out(grouping, team, choice.batch_room, room, write)
    finally:
        budget.give_back(taken)
    return grouping.spill_bytes


def hand_out(
    grouping: Grouping, team: Team, batch_room: int, room: Callable[[Batch, slice], int],
    write: Callable[[Batch, slice], None],
) -> None:  # fmt: skip
    """Hand every gene of a grouping to `write`: one of `group`, or `sorted.SortedGenes`.

    Parameters
    ----------
    grouping
        Where genes come from.
    team, room, write
        As of `give_out`.
    batch_room
        Bytes of a batch, which the caller has drawn.
    """
    for batch in grouping.batches(batch_room):
        pieces = [
            team.submit(write, batch, piece, memory=room(batch, piece), what="writing genes")
            for piece in batch.pieces()
        ]
        for piece in pieces:
            piece.result()
            team.raise_if_failed()
        del batch, pieces


def reading_bytes(matrix: Matrix) -> int:
    """What `group` tells of while it reads a matrix."""
    return 0 if is_grouped(matrix) or is_dense(matrix) else ENTRY_BYTES * entries_of(matrix, matrix.shape[1])


def loaded(matrix: Compressed, workers: int) -> Compressed:
    """The matrix with its arrays in memory."""
    from atlaswriter.sources.parts import compressed

    indptr, indices, data = (load(array, workers) for array in (matrix.indptr, matrix.indices, matrix.data))
    return compressed(matrix.shape, indptr, indices, data, axis=matrix.axis, where=matrix.where)
