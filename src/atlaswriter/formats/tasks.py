"""Exports in tasks: planned once, done slice by slice by any number of processes, finished once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.estimate import Plan
from atlaswriter.engine.finished import close, finished, note_finish, published
from atlaswriter.engine.plan import RunPlan, Stage, Task, folder_of
from atlaswriter.engine.record import Record, refuse_changes
from atlaswriter.engine.resources import Resources
from atlaswriter.engine.run import Team
from atlaswriter.engine.slices import chosen_tasks
from atlaswriter.engine.spill import refuse_full_disk
from atlaswriter.engine.state import (
    RunReport,
    drop_altered,
    missing_tasks,
    patiently,
    proven,
    refuse_finished,
    refuse_missing,
    refuse_unready,
)
from atlaswriter.engine.work import Unit, Work, Write
from atlaswriter.errors import InputError, OutputError, Problem, Problems
from atlaswriter.formats.arguments import Place, check_folder, defaults_of, module_of, plain_arguments
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks import fs
from atlaswriter.sinks.files import Files
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.journal import Entry, Journal
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sinks.staging import failing_as
from atlaswriter.sinks.task import TaskSink
from atlaswriter.units import parse_bytes, peak_memory

log = logging.getLogger(__name__)

# Memory of a process of a cluster unless told otherwise, and bytes that a task reads.
_MEMORY, _TASK_SIZE = "4GiB", "4GiB"


class Tasks(Protocol):
    """An export that has been checked, in tasks.

    Attributes
    ----------
    record
        What it is made of.
    target, resources, budget, report
        Where to, with what; begun.
    facts
        What was decided for all tasks.
    """

    record: Record
    target: Path
    resources: Resources
    budget: Budget
    report: Report

    @property
    def force(self) -> bool:
        """Whether an existing export is replaced."""

    @property
    def workers(self) -> int:
        """Threads for which there is room."""

    def plan(self, task_size: int) -> tuple[dict[str, Any], tuple[Stage, ...]]:
        """Facts and stages, of tasks that read about `task_size` bytes each."""

    def units(
        self, plan: RunPlan, stage: Stage, tasks: Sequence[Task], run: RunFolder, done: Mapping[str, Any],
        team: Team, files: Files,
    ) -> Iterator[Unit]:  # fmt: skip
        """Some tasks of a stage as units, named as in the journal; `done` are results of the stages before."""

    def finish(self, plan: RunPlan, results: Mapping[str, Any], sink: FolderSink) -> None:
        """Write what is made of all results."""


def plan(source: Any, out: Place, *, to: str = "cellucid", **options: Any) -> Plan:
    """What an export would do and cost; nothing is written.

    Parameters
    ----------
    source, out, options
        As of `atlaswriter.cellucid` or `atlaswriter.landscape`.
    to
        ``"cellucid"`` or ``"landscape"``.

    Returns
    -------
    Plan
        Seconds, memory, temporary files and output, all estimated; how data is regrouped.

    Raises
    ------
    InputError, BudgetError
        As that function; the latter with the smallest budget that works.
    """
    module = module_of(to)
    found: Plan = module.estimate({**defaults_of(to, options, "plan"), **options, module.SOURCE: source, "out": out})
    return found


def plan_tasks(
    source: Place, out: Place, folder: Place, *, to: str = "cellucid", task_size: str | int = _TASK_SIZE, **options: Any
) -> RunPlan:
    """Plan an export in tasks, which `run` does on any machines that share a disk, and `finish` publishes.

    Parameters
    ----------
    source, out
        As of `atlaswriter.cellucid` and `atlaswriter.landscape`.
    folder
        Folder for the plan and everything that waits, on the disk of `out`; it must not exist, or be empty.
    to
        ``"cellucid"`` or ``"landscape"``.
    task_size
        Bytes that a task reads, about.
    options
        Of the function of that name. `memory_budget` and `workers` are those of each process; 4 GiB by default.

    Returns
    -------
    RunPlan
        The stages and their tasks.

    Raises
    ------
    InputError, BudgetError, OutputError
        As that function; nothing but the folder is written.
    """
    run = folder_of(Path(folder))
    problems = Problems()
    size = problems.attempt(parse_bytes, task_size, "task_size")
    check_folder(run, Path(out), source, problems)
    problems.raise_if_any()
    assert size is not None  # noqa: S101 - no size is a problem
    arguments = plain_arguments(to, source, out, options)
    with _opened(to, arguments, {"memory_budget": options.get("memory_budget") or _MEMORY}, None) as tasks:
        facts, stages = tasks.plan(size)
        plan = RunPlan(str(fs.located(tasks.target)), arguments, tasks.record, facts, tasks.workers, stages)
    handed_on = {name for stage in stages for name in stage.after}
    parts = sum(task.bytes_out for stage in stages if stage.name in handed_on for task in stage.tasks)
    refuse_full_disk(fs.nearest_existing(run.path), parts)
    try:
        for path in (run.path, run.files, run.parts, run.tmp, run.journal):
            path.mkdir(parents=path == run.path, exist_ok=path == run.path)
        plan.write(run)
    except OSError as error:
        raise OutputError(str(Problem(str(run.path), f"cannot be written ({error.strerror or error})"))) from error
    return plan


def run(
    folder: Place,
    stage: str | None = None,
    tasks: str | int | Sequence[int] | None = None,
    *,
    memory_budget: str | int | None = None,
    workers: int | None = None,
    patience: float = 0.0,
    progress: bool | None = None,
) -> RunReport:
    """Do some tasks of a plan; what is done already is left alone.

    Parameters
    ----------
    folder
        Of the plan.
    stage
        Which stage; None: all, one after the other.
    tasks
        Which tasks: a number, several, or a text: ``"0-15"``, ``"3,7"``, ``"K/N"`` (the slice K, from 0, of N) or
        ``"auto"`` (that of this element of a Slurm array); None: all.
    memory_budget, workers
        Of this process; by default those of the plan.
    patience
        Seconds to wait for tasks of earlier stages, which a shared disk may show late.
    progress
        Show progress; by default when standard error is a terminal.

    Raises
    ------
    IncompleteError
        Stages that this one needs are not done; says which tasks.
    InputError
        Input, options or version are not those of the plan; says which.
    BudgetError, OutputError
        As the export.
    """
    place = folder_of(Path(folder))
    plan = RunPlan.read(place)
    if not place.result.exists():
        published(plan, place, Journal(place.journal))
    refuse_finished(place)
    stages = plan.stages if stage is None else (plan.stage(stage),)
    if stage is None and tasks is not None:
        raise InputError(Problem("tasks", "are those of a stage", "name it (stage=, --stage)"))
    wanted = {found.name: chosen_tasks(tasks, len(found.tasks)) for found in stages}
    report = RunReport(str(place.path))
    with failing_as("cannot be written to", place.path, 0, "folder"):
        for part in (place.files, place.parts, place.tmp, place.journal):
            part.mkdir(exist_ok=True)
    journal = Journal(place.journal, durable=True)
    left = patiently(lambda: _left(plan, place, journal, wanted, report), patience)
    if not any(left.values()):
        return report
    memory = max(plan.stage(name).memory for name, numbers in left.items() if numbers)
    given = {"memory_budget": memory_budget or memory, "workers": workers or plan.workers, "progress": progress}
    try:
        with _opened(plan.format, plan.arguments, given, [name for name, numbers in left.items() if numbers]) as opened:
            _refuse_changed(plan, place, opened)
            for found in stages:
                if left[found.name]:
                    _run_stage(plan, found, left[found.name], place, journal, opened, report)
    finally:
        journal.close()
    report.peak_memory = peak_memory()
    return report


def finish(
    folder: Place,
    *,
    force: bool = False,
    checksums: bool = False,
    patience: float = 0.0,
    progress: bool | None = None,
) -> Report:
    """Verify what the tasks have done, write the manifests, and publish the export.

    Parameters
    ----------
    folder
        Of the plan.
    force
        Replace an export that is there already, also if that was not planned.
    checksums
        Read every file again and compare its CRC-32, not only its size; files that differ are deleted.
    patience
        Seconds to wait for tasks that are missing, which a shared disk may show late.
    progress
        Show progress; by default when standard error is a terminal.

    Raises
    ------
    IncompleteError
        Tasks are missing, or their files are not as they were written; says which.
    InputError, OutputError
        As of `run`; what the tasks have done stays.
    """
    place = folder_of(Path(folder))
    plan = RunPlan.read(place)
    if place.result.exists():
        return finished(plan, place)
    journal = Journal(place.journal)
    if report := published(plan, place, journal):
        return report

    def complete() -> dict[str, Entry]:
        entries = proven(place, journal, plan.works, read=checksums, parts=False)
        if checksums:
            with failing_as("cannot be deleted", place.files, 0, "folder"):
                drop_altered(place, journal, plan.works - entries.keys())
        refuse_missing(place, {stage.name: missing_tasks(stage, entries) for stage in plan.stages})
        return entries

    done = patiently(complete, patience)
    arguments = {**plan.arguments, "force": force or bool(plan.arguments.get("force"))}
    with _opened(plan.format, arguments, {"progress": progress}, ()) as tasks:
        _refuse_changed(plan, place, tasks)
        sizes = {name: size for entry in done.values() for name, (size, _) in entry.files.items()}
        results = {name: result for entry in done.values() for name, result in entry.result.items()}
        with FolderSink(tasks.target, force=tasks.force, keep=True) as sink:
            sink.adopt(place, sizes)
            with tasks.report.phase("finish"):
                tasks.finish(plan, results, sink)
            tasks.report.files, tasks.report.bytes_out = len(sink.files), sink.bytes_written
            note_finish(sink, sizes, journal, tasks.report)
            with tasks.report.phase("publish"):
                sink.publish()
        tasks.report.close()
    close(place, tasks.report)
    return tasks.report


def _refuse_changed(plan: RunPlan, place: RunFolder, opened: Tasks) -> None:
    """Raise `InputError` unless what was opened is what was planned."""
    changes, target = plan.record.changes(opened.record), str(fs.located(opened.target))
    changes += [] if target == plan.target else [f"the output was {plan.target}, now it is {target}"]
    refuse_changes(changes, str(place.path), "plan again, in another folder")


def discard(folder: Place) -> None:
    """Delete a run folder and everything in it, published or not; what was published stays.

    Raises
    ------
    InputError
        It holds no plan, not even a damaged one.
    OutputError
        It cannot be deleted.
    """
    place = folder_of(Path(folder))
    if not place.plan.is_file() or place.links():
        RunPlan.read(place)
    with failing_as("cannot be deleted", place.path, 0, "folder"):
        place.remove()


@contextmanager
def _opened(
    to: str, arguments: Mapping[str, Any], given: Mapping[str, Any], stages: Sequence[str] | None
) -> Iterator[Tasks]:
    """The export, to plan it (no stages), to do some stages, or to finish it (none of them)."""
    module = module_of(to)
    context: AbstractContextManager[Tasks] = module.opened({"progress": None, **arguments, **given}, stages)
    with context as tasks:
        yield tasks


def _left(
    plan: RunPlan, place: RunFolder, journal: Journal, wanted: Mapping[str, list[int]], report: RunReport
) -> dict[str, list[int]]:
    """Tasks that are wanted and not done, by stage; stages that are needed and not wanted must be done."""
    stages = [plan.stage(name) for name in wanted]
    works = {stage.work(stage.tasks[number]) for stage in stages for number in wanted[stage.name]}
    done = proven(place, journal, works | {work for stage in stages for work in plan.works_before(stage)})
    left = {}
    for stage in stages:
        missing = set(missing_tasks(stage, done))
        left[stage.name] = [number for number in wanted[stage.name] if number in missing]
        report.skipped[stage.name] = [number for number in wanted[stage.name] if number not in missing]
        report.done[stage.name] = []
        if left[stage.name]:
            refuse_unready(plan, stage, place, done, wanted)
    return left


def _run_stage(
    plan: RunPlan, stage: Stage, numbers: list[int], place: RunFolder, journal: Journal, opened: Tasks,
    report: RunReport,
) -> None:  # fmt: skip
    needed = plan.works_before(stage)
    early = proven(place, journal, needed) if needed else {}
    done = {name: result for entry in early.values() for name, result in entry.result.items()}
    tasks = [stage.tasks[number] for number in numbers]
    spill_dir = None if opened.resources.spill_dir is None else Path(opened.resources.spill_dir)
    progress = Progress(opened.resources.progress)
    with (
        TaskSink(place, Path(plan.target), spill_dir) as sink,
        Team(opened.workers, opened.budget) as team,
        progress.phase(stage.name, sum(task.bytes_in for task in tasks)),
    ):
        work = Work(team, sink, journal, settle=sink.make_durable)
        sizes = {stage.work(task): task.bytes_in for task in tasks}
        units = opened.units(plan, stage, tasks, place, done, team, sink)
        work.do(replace(unit, write=_telling(unit.write, progress, sizes[unit.name])) for unit in units)
        parts = (result.get("parts", {}) for result in work.results.values())
        report.bytes_out += sink.bytes_written + sum(size for found in parts for size in found.values())
    report.done[stage.name] = numbers


def _telling(write: Write, progress: Progress, size: int) -> Write:
    """The same, which tells of its progress at the end."""

    def both(files: Files) -> Any:
        result = write(files)
        progress.add(size)
        return result

    return both
