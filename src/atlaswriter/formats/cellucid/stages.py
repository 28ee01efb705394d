"""Which tasks a Cellucid export is made of: tables; rows of expression sorted by gene, where they are not; genes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np

from atlaswriter.engine import strategy
from atlaswriter.engine.columns import split
from atlaswriter.engine.parts import Share, Sorting
from atlaswriter.engine.plan import OTHERS_BYTES, Stage, TaskFacts, numbered
from atlaswriter.engine.regroup import ENTRY_BYTES
from atlaswriter.engine.rows import rows_of
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import reading_room, writing_room
from atlaswriter.formats.cellucid import costs
from atlaswriter.formats.cellucid.atlas import Export, Genes
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.plan import gene_bytes, make_plan
from atlaswriter.formats.cellucid.units import table_units
from atlaswriter.progress import Progress
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.base import Compressed, Matrix, RowChunks, is_sparse, matrix_bytes
from atlaswriter.units import usable_cpus

TABLES, REGROUP, GENES = "tables", "regroup", "genes"
# Seconds of one core for an entry that is sorted, for one that is brought back and encoded, and for a byte of tables
# (500 million entries and 100 million cells; see benchmarks/macro/any_size.py).
_SORT, _ENCODE, _TABLE = 20e-9, 19e-9, 6e-9


@dataclass(frozen=True)
class Shares:
    """How expression is sorted by gene: decided once for all tasks.

    Attributes
    ----------
    part_entries, range_entries
        As of `strategy.spill_sizes`.
    n_ranges
        Ranges of genes.
    shares
        Ranges of rows that each task sorts, one a thread.
    """

    part_entries: int
    range_entries: int
    n_ranges: int
    shares: list[list[Share]]

    def sorting(self, genes: Genes, key: str) -> Sorting:
        """The same for every task of a run, which `key` tells from others."""
        rows = rows_of(cast("Compressed | RowChunks", genes.matrix))
        return Sorting.of(rows, genes.columns, self.part_entries, self.n_ranges, key)


def is_sorted(matrix: Matrix) -> bool:
    """Whether a task can read its genes from the source: it is grouped by gene, or dense."""
    return not is_sparse(matrix) or strategy.is_grouped(matrix)


def workers_of(prepared: Export) -> int:
    """Threads of a process."""
    return prepared.resources.workers or usable_cpus()


def threads_room(prepared: Export) -> int:
    """What they keep."""
    return workers_of(prepared) * costs.WORKER_BYTES


class Planner:
    """Plans one export.

    Parameters
    ----------
    prepared
        The export, checked; its budget is that of each process.
    task_size
        Bytes that a task reads, about.
    """

    def __init__(self, prepared: Export, task_size: int) -> None:
        self._prepared, self._size = prepared, task_size
        self._workers, self._threads = workers_of(prepared), threads_room(prepared)

    def plan(self) -> tuple[dict[str, Any], tuple[Stage, ...]]:
        """What is decided for all tasks, and the stages."""
        make_plan(self._prepared)
        facts: dict[str, Any] = {"created_at": self._prepared.options.timestamp()}
        stages = [Stage(TABLES, (), numbered(self._tables()))]
        genes = self._prepared.atlas.genes
        if genes is not None and genes.ids:
            if is_sorted(genes.matrix):
                stages.append(Stage(GENES, (), numbered(self._genes(genes))))
            else:
                shares = self._shares(genes)
                facts["sorting"] = asdict(shares)
                stages.append(Stage(REGROUP, (), numbered(self._regroup(genes, shares))))
                stages.append(Stage(GENES, (REGROUP,), numbered(self._sorted(genes, shares))))
        return facts, tuple(stages)

    def _memory(self, room: int) -> int:
        """Resident size of a process that needs so much beside its threads."""
        budget = self._prepared.budget
        return min(budget.held + OTHERS_BYTES + self._threads + room, budget.limit)

    def _tables(self) -> Iterator[TaskFacts]:
        prepared = self._prepared
        sink = FolderSink(prepared.target, force=prepared.options.force)  # never opened: nothing is written
        with Team(1, prepared.budget) as team:
            job = Job(prepared.atlas.n_cells, prepared.options, team, sink, Progress(False))
            units = list(table_units(prepared.atlas, job))
        for piece in split(np.array([unit.bytes_in for unit in units], np.int64), self._size):
            own = units[piece]
            what = own[0].what if len(own) == 1 else f"{own[0].what} to {own[-1].what}"
            # As many at once as there are threads.
            room = sum(sorted(unit.memory for unit in own)[-self._workers :])
            size, written = sum(unit.bytes_in for unit in own), sum(unit.bytes_out for unit in own)
            names = [unit.name for unit in own]
            yield (
                what,
                {"units": names},
                size,
                self._memory(room),
                written,
                size * _TABLE / min(len(own), self._workers),
            )

    def _shares(self, genes: Genes) -> Shares:
        matrix, budget = cast("Compressed | RowChunks", genes.matrix), self._prepared.budget
        part, range_ = strategy.spill_sizes(matrix, self._workers, budget.free - self._threads - self._encoding(genes))
        budget.require(self._threads + writing_room(matrix, self._workers, part), "sorting expression by gene")
        least = reading_room(matrix, 1, part, range_) + self._encoding(genes)
        budget.require(self._threads + least, "writing genes")
        n_tasks = max(1, -(-matrix_bytes(matrix) // self._size))
        shares = rows_of(matrix).parts(n_tasks * self._workers)
        each = [shares[first : first + self._workers] for first in range(0, len(shares), self._workers)]
        return Shares(part, range_, max(1, -(-self._entries(genes) // range_)), each)

    def _encoding(self, genes: Genes) -> int:
        return costs.largest_piece(genes, self._prepared.options)

    @staticmethod
    def _entries(genes: Genes) -> int:
        return strategy.entries_of(genes.matrix, len(genes.ids))

    def _regroup(self, genes: Genes, shares: Shares) -> Iterator[TaskFacts]:
        matrix, n_tasks = cast("Compressed | RowChunks", genes.matrix), len(shares.shares)
        entries, memory = self._entries(genes), writing_room(matrix, self._workers, shares.part_entries)
        size, written = matrix_bytes(matrix) // n_tasks, entries * strategy.SPILLED_BYTES // n_tasks
        seconds = entries * _SORT / n_tasks / self._workers
        for own in shares.shares:
            what = f"cells {own[0][0]:,} to {own[-1][1] - 1:,}"
            yield what, {"shares": own}, size, self._memory(memory), written, seconds

    def _sorted(self, genes: Genes, shares: Shares) -> Iterator[TaskFacts]:
        matrix, entries = cast("Compressed | RowChunks", genes.matrix), self._entries(genes)
        cuts = shares.sorting(genes, "").cuts
        n_tasks = min(max(1, -(-entries * ENTRY_BYTES // self._size)), cuts.size - 1)
        places = cuts[np.linspace(0, cuts.size - 1, n_tasks + 1).astype(int)].tolist()
        reading = reading_room(matrix, self._workers, shares.part_entries, shares.range_entries)
        memory = reading + self._workers * self._encoding(genes)
        for first, last in pairwise(places):
            yield self._genes_task(genes, slice(first, last), entries * strategy.SPILLED_BYTES, memory)

    def _genes(self, genes: Genes) -> Iterator[TaskFacts]:
        matrix, n_genes, entries = genes.matrix, len(genes.ids), self._entries(genes)
        each = np.full(n_genes, matrix.shape[0], np.int64)
        if isinstance(matrix, Compressed):
            each = np.diff(matrix.indptr[:])[genes.columns].astype(np.int64)
        size = matrix_bytes(matrix) * n_genes // max(matrix.shape[1], 1)
        for piece in split(each * max(size // max(entries, 1), 1), self._size):
            choice = gene_choice(self._prepared, piece.stop - piece.start)
            memory = choice.room + choice.batch_room + self._workers * (choice.gene_room + self._encoding(genes))
            task = self._genes_task(genes, piece, size, memory)
            # Rows of a dense matrix are read whole, whatever is wanted of them.
            yield task if strategy.is_grouped(matrix) else (*task[:2], matrix_bytes(matrix), *task[3:])

    def _genes_task(self, genes: Genes, piece: slice, size: int, memory: int) -> TaskFacts:
        share = (piece.stop - piece.start) / len(genes.ids)
        written = int(gene_bytes(self._prepared.atlas, self._prepared.options) * share)
        what = f"genes {genes.ids[piece.start]} to {genes.ids[piece.stop - 1]}"
        arguments = {"first": piece.start, "last": piece.stop}
        seconds = self._entries(genes) * _ENCODE * share / self._workers
        return what, arguments, int(size * share), self._memory(memory), written, seconds


def gene_choice(prepared: Export, n_genes: int) -> strategy.Choice:
    """How so many genes of a matrix that `is_sorted` are read."""
    genes, workers = prepared.atlas.genes, workers_of(prepared)
    assert genes is not None  # noqa: S101 - asked by the caller
    encoding, room = costs.largest_piece(genes, prepared.options), prepared.budget.free - threads_room(prepared)
    return strategy.choose(genes.matrix, n_genes, workers, room, prepared.resources.strategy, encoding)
