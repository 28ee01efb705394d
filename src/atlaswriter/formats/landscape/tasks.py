"""Tasks of an export of LandscapeFiles, done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from atlaswriter.engine.estimate import Plan
from atlaswriter.engine.gather import Gathering
from atlaswriter.engine.gathered import Gathered, GatheredFile, filing_room, write_gathered
from atlaswriter.engine.plan import RunPlan, Stage, Task
from atlaswriter.engine.run import Team
from atlaswriter.engine.warmup import warm_up
from atlaswriter.engine.work import Unit, Work
from atlaswriter.formats.landscape import convert, rooms
from atlaswriter.formats.landscape.arrow import system_memory
from atlaswriter.formats.landscape.catalogue import Catalogue, Genes
from atlaswriter.formats.landscape.channels import image_units
from atlaswriter.formats.landscape.conclude import conclude, finish_report
from atlaswriter.formats.landscape.genes import write_genes
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.model import Export
from atlaswriter.formats.landscape.outlines import OutlineReader
from atlaswriter.formats.landscape.parquet import Style
from atlaswriter.formats.landscape.plan import make_plan
from atlaswriter.formats.landscape.records import Reader, Survey, make_readers, reading_unit, recall
from atlaswriter.formats.landscape.stages import GENES, IMAGES, RECORDS, TILES, Planner
from atlaswriter.formats.landscape.warmup import spill_kernels, wanted_kernels
from atlaswriter.formats.landscape.write import cells_unit
from atlaswriter.progress import Progress
from atlaswriter.sinks import fs
from atlaswriter.sinks.files import Files
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.units import usable_cpus

FUNCTION, SOURCE, record = convert.landscape, "bundle", convert.record
PATHS = ("clusters", "transcripts", "polygons", "transform", "segmentations", "images")
# What the genes' tasks say of the features.
_FEATURES = "features"

TaskWrite = Callable[[Files], dict[str, Any]]


def estimate(arguments: Mapping[str, Any]) -> Plan:
    """What an export with these arguments would take."""
    with convert.opened(arguments, load_kernels=False) as prepared:
        return make_plan(prepared)


@contextmanager
def opened(arguments: Mapping[str, Any], stages: Sequence[str] | None) -> Iterator[LandscapeTasks]:
    """An export in tasks; its source is open while the context lasts.

    Parameters
    ----------
    arguments
        Of `landscape`, as plain values.
    stages
        Stages to do, of a plan; None: to plan.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    with system_memory, convert.opened(given, load_kernels=bool(stages)) as prepared:
        yield LandscapeTasks(prepared)


class LandscapeTasks:
    """An export in tasks: `formats.tasks.Tasks`."""

    def __init__(self, prepared: Export) -> None:
        assert prepared.record is not None  # noqa: S101 - only files are planned
        self._prepared, self.record = prepared, prepared.record
        self.target, self.resources = prepared.target, prepared.resources
        self.budget, self.report = prepared.budget, prepared.report
        self.workers = prepared.resources.workers or usable_cpus()

    @property
    def force(self) -> bool:
        """Whether an existing export is replaced."""
        return self._prepared.options.force

    def plan(self, task_size: int) -> tuple[dict[str, Any], tuple[Stage, ...]]:
        """Facts, which are none, and stages, of tasks that read about `task_size` bytes each."""
        planner = Planner(self._prepared, task_size)
        self.workers = planner.workers
        return {}, planner.plan()

    def units(
        self, plan: RunPlan, stage: Stage, tasks: Sequence[Task], run: RunFolder, done: Mapping[str, Any],
        team: Team, files: Files,
    ) -> Iterator[Unit]:  # fmt: skip
        """Some tasks of a stage as units."""
        assert self._ready  # noqa: S101 - it is, or has raised
        job = _job(self._prepared, team, files)
        write: Callable[[Task], TaskWrite]
        if stage.name == RECORDS:
            write = _Reading(self._prepared, job, run, self.record.key).records
        elif stage.name == IMAGES:
            write = _images(self._prepared, job)
        else:
            writing = _Writing(self._prepared, job, plan, run, done)
            write = {TILES: writing.tiles, GENES: writing.genes}[stage.name]
        for task in tasks:
            yield Unit(stage.work(task), task.what, write(task), 0, alone=True)

    @cached_property
    def _ready(self) -> bool:
        """True, once kernels are loaded and what threads keep is set aside."""
        warm_up(wanted_kernels(self._prepared))
        warm_up(spill_kernels())
        self.budget.settle()
        self.budget.set_aside(self.workers * rooms.WORKER_BYTES, "threads")
        return True

    def finish(self, plan: RunPlan, results: Mapping[str, Any], sink: FolderSink) -> None:
        """Write what tells of all parts."""
        del plan
        prepared = self._prepared
        survey = _survey(prepared, _job(prepared, Team(1, self.budget), sink), prepared.catalogue, results)
        conclude(prepared, survey, results, results[_FEATURES], sink.staged)
        finish_report(prepared)


def _job(prepared: Export, team: Team, files: Files) -> Job:
    return Job(prepared.options, Style.of(prepared.options.compat, 0), team, files, Progress(False))


def _survey(prepared: Export, job: Job, catalogue: Catalogue, results: Mapping[str, Any]) -> Survey:
    """What is known of the records, from what other tasks have found."""
    readers = make_readers(prepared, catalogue, job)
    for reader in readers:
        recall(reader, results)
    return Survey(prepared, job, readers)


def _images(prepared: Export, job: Job) -> Callable[[Task], TaskWrite]:
    units = {unit.name: unit for unit in image_units(prepared.spatial.planes, job)}

    def task_write(task: Task) -> TaskWrite:
        unit = units[task.arguments["unit"]]
        return lambda files: {unit.name: unit.write(files)}

    return task_write


def _part_name(task: Task) -> str:
    return f"records-{task.number:06d}"


class _Reading:
    """Tasks that group records by tile."""

    def __init__(self, prepared: Export, job: Job, run: RunFolder, key: str) -> None:
        self._prepared, self._job, self._parts, self._key = prepared, job, run.parts, key

    def records(self, task: Task) -> TaskWrite:
        """Read a source, or part of it, into a file grouped by tile."""
        arguments, path = task.arguments, self._parts / _part_name(task)

        def write(files: Files) -> dict[str, Any]:
            catalogue = self._prepared.catalogue.fork()
            reader = _named(make_readers(self._prepared, catalogue, replace(self._job, sink=files)), arguments)
            with rooms.Records(self._prepared, self._job.team, task.bytes_out) as records:
                gathering = self._read(reader, arguments, records.room)
                records.settle([gathering], lambda: filing_room(gathering, self._job.team))
                note = [] if isinstance(reader, OutlineReader) else catalogue.met
                write_gathered(gathering, path, self._key, note, self._job.team)
                gathering.release()
            fs.sync_files(path.parent, [path.name])
            found = {"tally": reader.tally.to_dict()}
            return {reading_unit(reader.name, task.number): found, "parts": {path.name: path.stat().st_size}}

        return write

    @staticmethod
    def _read(reader: Reader, arguments: Mapping[str, Any], room: int) -> Gathering:
        if isinstance(reader, OutlineReader):
            return reader.read(room)
        return reader.read(room, range(arguments["first"], arguments["last"]))


def _named(readers: Sequence[Reader], arguments: Mapping[str, Any]) -> Reader:
    return next(reader for reader in readers if reader.name == arguments["source"])


class _Writing:
    """Tasks that need all records: of tiles, and of genes."""

    def __init__(self, prepared: Export, job: Job, plan: RunPlan, run: RunFolder, done: Mapping[str, Any]) -> None:
        self._prepared, self._parts, self._key = prepared, run.parts, plan.record.key
        self._names: dict[str, list[str]] = {}
        for task in next((stage.tasks for stage in plan.stages if stage.name == RECORDS), ()):
            self._names.setdefault(task.arguments["source"], []).append(_part_name(task))
        self._catalogue = prepared.catalogue.fork()
        self._survey = _survey(prepared, job, self._catalogue, done)
        self._opened: dict[str, list[GatheredFile]] = {}
        self._gathered: dict[str, Gathered] = {}

    def tiles(self, task: Task) -> TaskWrite:
        """Write some tiles of a source."""
        arguments = task.arguments

        def write(files: Files) -> dict[str, Any]:
            reader, work = _named(self._survey.readers, arguments), Work(self._survey.job.team, files)
            genes = self._genes
            if reader.name not in self._gathered:
                self._gathered[reader.name] = Gathered(self._files(reader), reader.dtypes)
            writer = self._survey.writer(reader, self._gathered[reader.name], genes)
            files.make_dir(writer.kind.directory)
            work.do(writer.units(arguments["number"], arguments["count"]))
            return work.results

        return write

    def genes(self, task: Task) -> TaskWrite:
        """Write genes, cells and clusters of a segmentation."""
        part = next(part for part in self._prepared.segmented if part.name == task.arguments["segmentation"])

        def write(files: Files) -> dict[str, Any]:
            job, work = replace(self._survey.job, sink=files), Work(self._survey.job.team, files)
            write_genes(part, self._genes, job, work, self._prepared.resources.strategy)
            work.do([cells_unit(part, job)])
            return {**work.results, _FEATURES: self._genes.facts()}

        return write

    @cached_property
    def _genes(self) -> Genes:
        """The features, all of which are known; codes of files become those of all."""
        known = np.arange(self._catalogue.n_counted)
        for reader in self._survey.readers:
            if not isinstance(reader, OutlineReader):
                for file in self._files(reader):
                    codes = np.r_[known, self._catalogue.codes(file.note)].astype(reader.dtypes[2])
                    file.recoded = {2: codes}
        return self._catalogue.close()

    def _files(self, reader: Reader) -> list[GatheredFile]:
        if reader.name not in self._opened:
            paths: list[Path] = [self._parts / name for name in self._names[reader.name]]
            self._opened[reader.name] = [GatheredFile(path, self._key, reader.dtypes) for path in paths]
        return self._opened[reader.name]
