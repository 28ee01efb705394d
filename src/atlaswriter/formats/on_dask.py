"""`engine="dask"`: a whole export in tasks, done by the workers of a Dask cluster."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from atlaswriter.engine.finished import still_there
from atlaswriter.engine.on_dask import connected, run_stages, shares
from atlaswriter.engine.plan import RunPlan, folder_of
from atlaswriter.engine.record import refuse_changes
from atlaswriter.engine.resources import Resources
from atlaswriter.engine.state import missing_tasks, proven
from atlaswriter.errors import IncompleteError, Problems
from atlaswriter.formats import tasks
from atlaswriter.formats.arguments import NOT_PLANNED, module_of, plain_arguments
from atlaswriter.report import Report
from atlaswriter.sinks import fs
from atlaswriter.sinks.journal import Journal
from atlaswriter.sinks.lock import WriterLock
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sinks.staging import failing_as
from atlaswriter.sources.fingerprint import size_of
from atlaswriter.units import parse_bytes

log = logging.getLogger(__name__)

# Tasks that read their share of the input, for each worker, and the least that a task reads.
_TASKS, _LEAST_TASK = 4, 16 << 20
# Seconds after which a shared disk shows what other machines have written.
_PATIENCE = 60.0
# A process is one budget: where a worker has several threads, its tasks wait for each other.
_one_at_a_time = threading.Lock()


def export_on_dask(to: str, given: Mapping[str, Any]) -> Report:
    """Plan an export, have all tasks done, and finish it.

    What is done waits beside the target; it is removed when the export fails, unless `resume` was given.

    Parameters
    ----------
    to
        The format.
    given
        All arguments of its function.

    Raises
    ------
    InputError, BudgetError, OutputError
        As the export, also when it is a task that fails.
    """
    resources, problems = Resources.of(given), Problems()
    resources.check(problems)
    problems.raise_if_any()
    whole = Report(str(given["out"]), to)
    with connected(given["dask"]) as client:
        budget = None if resources.memory_budget is None else parse_bytes(resources.memory_budget)
        memory, threads = shares(client, budget, resources.workers)
        with _folder(Path(given["out"]), resume=resources.resume) as place:
            with whole.phase("plan"):
                plan = _planned(to, {**given, "memory_budget": memory, "workers": threads}, place, client)
            try:
                report = tasks.finish(place.path, progress=resources.progress)  # all that an interrupted run may want
            except IncompleteError:
                with whole.phase("tasks"):
                    done = proven(place, Journal(place.journal), plan.works)
                    left = {stage.name: missing_tasks(stage, done) for stage in plan.stages}
                    do = partial(_do, str(place.path))
                    run_stages(client, plan, left, do, memory, threads, resources.progress)
                report = tasks.finish(place.path, patience=_PATIENCE, progress=resources.progress)
            place.remove()
    whole.close()
    report.phases, report.seconds = [*whole.phases, *report.phases], whole.seconds
    return report


def _do(folder: str, stage: str, numbers: list[int], memory: int, threads: int) -> dict[str, Any]:
    with _one_at_a_time:
        report = tasks.run(
            folder, stage, numbers, memory_budget=memory, workers=threads, patience=_PATIENCE, progress=False
        )
        return report.to_dict()


@contextmanager
def _folder(out: Path, *, resume: bool) -> Iterator[RunFolder]:
    """The run folder beside the target, which nobody else uses meanwhile."""
    target = fs.located(out.absolute())
    name = f".{target.name}.atlaswriter-dask"
    place, lock = folder_of(target.with_name(name)), WriterLock(target.with_name(f"{name}.lock"), target)
    with ExitStack() as undo:
        undo.callback(_remove_empty, _created_parents(target))
        with failing_as("cannot be prepared", target, 0, "folder"):
            lock.acquire()
        undo.callback(lock.release)
        if not resume:
            place.remove()
        try:
            yield place
        except BaseException:
            if not resume:
                place.remove()
            raise


def _created_parents(target: Path) -> list[Path]:
    """Folders above the target that were not there, the innermost first."""
    missing = [path for path in target.parents if not path.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # it holds something
        for path in folders:
            path.rmdir()


def _planned(to: str, given: Mapping[str, Any], place: RunFolder, client: Any) -> RunPlan:
    """The plan that is there, if it is of the same export, or a new one."""
    module = module_of(to)
    source, out = given[module.SOURCE], given["out"]
    options = {name: value for name, value in given.items() if name not in (module.SOURCE, "out", *NOT_PLANNED)}
    if place.plan.exists():
        plan = RunPlan.read(place)
        if place.result.exists() and not still_there(plan, place):
            place.remove()
            return _planned(to, given, place, client)
        now = module.record(plain_arguments(to, source, out, options))
        refuse_changes(plan.record.changes(now), str(out), "leave resume (--resume) out to start anew")
        log.info("going on with an interrupted run")
        return plan
    fs.remove_tree(place.path)
    n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
    size = size_of(Path(source)) // (_TASKS * n_workers) if isinstance(source, str | Path) else 0
    return tasks.plan_tasks(source, out, place.path, to=to, task_size=max(size, _LEAST_TASK), **options)
