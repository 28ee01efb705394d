"""Tasks of a Cellucid export, done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from atlaswriter.engine.estimate import Plan
from atlaswriter.engine.parts import Share, share_name, write_shares
from atlaswriter.engine.plan import RunPlan, Stage, Task
from atlaswriter.engine.rows import rows_of
from atlaswriter.engine.run import Team
from atlaswriter.engine.sorted import SortedGenes
from atlaswriter.engine.spill import writing_room
from atlaswriter.engine.warmup import spill_kernels, warm_up
from atlaswriter.engine.work import Unit, Work
from atlaswriter.formats.cellucid import convert
from atlaswriter.formats.cellucid.atlas import Export, Genes
from atlaswriter.formats.cellucid.genes import GeneWriter
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.plan import make_plan
from atlaswriter.formats.cellucid.stages import (
    GENES,
    REGROUP,
    TABLES,
    Planner,
    Shares,
    gene_choice,
    is_sorted,
    threads_room,
    workers_of,
)
from atlaswriter.formats.cellucid.units import make_dirs, table_units
from atlaswriter.formats.cellucid.warmup import wanted_kernels
from atlaswriter.formats.cellucid.write import finish_report, write_manifests
from atlaswriter.progress import Progress
from atlaswriter.sinks import fs
from atlaswriter.sinks.files import Files
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sources.base import Compressed, RowChunks

FUNCTION, SOURCE, PATHS, record = convert.cellucid, "source", (), convert.record


def estimate(arguments: Mapping[str, Any]) -> Plan:
    """What an export with these arguments would take."""
    with convert.opened(arguments, load_kernels=False) as prepared:
        return make_plan(prepared)


@contextmanager
def opened(arguments: Mapping[str, Any], stages: Sequence[str] | None) -> Iterator[CellucidTasks]:
    """An export in tasks; its source is open while the context lasts.

    Parameters
    ----------
    arguments
        Of `cellucid`.
    stages
        Stages to do, of a plan; None: to plan, for which everything is checked.
    """
    planning = stages is None
    needed = {"load_kernels": bool(stages), "values": planning, "tables": planning or TABLES in (stages or ())}
    with convert.opened(arguments, **needed) as prepared:
        yield CellucidTasks(prepared)


class CellucidTasks:
    """An export in tasks: `formats.tasks.Tasks`."""

    def __init__(self, prepared: Export) -> None:
        assert prepared.record is not None  # noqa: S101 - only files are planned
        self._prepared, self.record = prepared, prepared.record
        self.target, self.resources = prepared.target, prepared.resources
        self.budget, self.report = prepared.budget, prepared.report

    @property
    def force(self) -> bool:
        """Whether an existing export is replaced."""
        return self._prepared.options.force

    @property
    def workers(self) -> int:
        """Threads."""
        return workers_of(self._prepared)

    def plan(self, task_size: int) -> tuple[dict[str, Any], tuple[Stage, ...]]:
        """Facts and stages, of tasks that read about `task_size` bytes each."""
        return Planner(self._prepared, task_size).plan()

    def units(
        self, plan: RunPlan, stage: Stage, tasks: Sequence[Task], run: RunFolder, done: Mapping[str, Any],
        team: Team, files: Files,
    ) -> Iterator[Unit]:  # fmt: skip
        """Some tasks of a stage as units."""
        del done
        atlas, options = self._prepared.atlas, self._options(plan)
        assert self._ready  # noqa: S101 - it is, or has raised
        make_dirs(atlas, options, files)
        job = Job(atlas.n_cells, options, team, files, Progress(False))
        expression = _Expression(self._prepared, plan, run, job, self.record.key)
        ways: dict[str, Callable[[Task], Callable[[Files], dict[str, Any]]]] = {
            TABLES: lambda task: _tables(self._prepared, task, job),
            REGROUP: expression.regroup,
            GENES: expression.genes,
        }
        write = ways[stage.name]
        for task in tasks:
            yield Unit(stage.work(task), task.what, write(task), 0, alone=True)

    @cached_property
    def _ready(self) -> bool:
        """True, once kernels are loaded and what threads keep is set aside."""
        atlas = self._prepared.atlas
        warm_up(wanted_kernels(atlas, self._prepared.options))
        if atlas.genes is not None and not is_sorted(atlas.genes.matrix):
            warm_up(spill_kernels(atlas.genes.matrix))
        self.budget.settle()
        self.budget.set_aside(threads_room(self._prepared), "threads")
        return True

    def _options(self, plan: RunPlan) -> Options:
        return replace(self._prepared.options, created_at=plan.facts["created_at"])

    def finish(self, plan: RunPlan, results: Mapping[str, Any], sink: FolderSink) -> None:
        """Write the manifests."""
        atlas, options = self._prepared.atlas, self._options(plan)
        make_dirs(atlas, options, sink)
        write_manifests(atlas, options, results, sink, self.report)
        finish_report(atlas, self.report)


def _tables(prepared: Export, task: Task, job: Job) -> Callable[[Files], dict[str, Any]]:
    """Write some units of everything but expression, several at once."""
    wanted = set(task.arguments["units"])

    def write(files: Files) -> dict[str, Any]:
        work = Work(job.team, files)
        work.do(unit for unit in table_units(prepared.atlas, job) if unit.name in wanted)
        return work.results

    return write


class _Expression:
    """Tasks of expression: sorting rows by gene, and writing genes."""

    def __init__(self, prepared: Export, plan: RunPlan, run: RunFolder, job: Job, key: str) -> None:
        self._prepared, self._run, self._job, self._key = prepared, run, job, key
        self._shares = Shares(**plan.facts["sorting"]) if "sorting" in plan.facts else None

    @property
    def _all(self) -> Genes:
        genes = self._prepared.atlas.genes
        assert genes is not None  # noqa: S101 - the plan has stages for it
        return genes

    def regroup(self, task: Task) -> Callable[[Files], dict[str, Any]]:
        """Sort some rows into files of their own."""
        genes, shares, parts = self._all, self._shares, self._run.parts
        assert shares is not None  # noqa: S101 - the plan has a stage for it
        own: list[Share] = [(first, last) for first, last in task.arguments["shares"]]

        def write(files: Files) -> dict[str, Any]:
            del files
            matrix, team = cast("Compressed | RowChunks", genes.matrix), self._job.team
            room = writing_room(matrix, min(len(own), team.workers), shares.part_entries)
            team.budget.take(room, "sorting expression by gene")
            try:
                write_shares(rows_of(matrix), shares.sorting(genes, self._key), own, parts, team, _nothing)
            finally:
                team.budget.give_back(room)
            names = [share_name(share) for share in own]
            fs.sync_files(parts, names)
            return {"parts": {name: (parts / name).stat().st_size for name in names}}

        return write

    def genes(self, task: Task) -> Callable[[Files], dict[str, Any]]:
        """Write some genes."""
        first, last = task.arguments["first"], task.arguments["last"]

        def write(files: Files) -> dict[str, Any]:
            work = Work(self._job.team, files)
            job = replace(self._job, sink=files)
            if self._shares is None:
                positions = np.arange(first, last)
                GeneWriter(self._all, positions, job, work).run(gene_choice(self._prepared, last - first))
            else:
                writer = GeneWriter(self._all, np.arange(len(self._all.ids)), job, work)
                writer.run_sorted(self._grouping(self._all, self._shares, writer, slice(first, last)))
            return work.results

        return write

    def _grouping(self, genes: Genes, shares: Shares, writer: GeneWriter, piece: slice) -> SortedGenes:
        every: list[Share] = [(first, last) for own in shares.shares for first, last in own]
        return SortedGenes(
            shares.sorting(genes, self._key), every, self._run.parts, writer.rules, shares.range_entries,
            piece.start, piece.stop,
        )  # fmt: skip


def _nothing(size: int) -> None:
    del size
