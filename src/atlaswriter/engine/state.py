"""How far a run in tasks is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from atlaswriter.engine.plan import RunPlan, Stage, ranges_of
from atlaswriter.errors import IncompleteError, InputError, Problem
from atlaswriter.sinks.journal import Entry, Journal
from atlaswriter.sinks.runfolder import RunFolder


def proven(place: RunFolder, journal: Journal, *, read: bool = False) -> dict[str, Entry]:
    """Tasks whose files, and parts for later tasks, are as they were written; `read` as of `Journal.proven`."""
    found = journal.proven(place.files, read=read)
    return {name: entry for name, entry in found.items() if _has_parts(entry, place)}


def _has_parts(entry: Entry, place: RunFolder) -> bool:
    parts = entry.result.get("parts", {}) if isinstance(entry.result, dict) else {}
    try:
        return all((place.parts / name).stat().st_size == size for name, size in parts.items())
    except OSError:
        return False


def missing_tasks(stage: Stage, done: Iterable[str]) -> list[int]:
    """Numbers of the tasks of a stage that are not among those done."""
    names = set(done)
    return [task.number for task in stage.tasks if stage.work(task) not in names]


def refuse_missing(place: RunFolder, missing: Mapping[str, list[int]]) -> None:
    """Raise `IncompleteError`, with a command for each stage, if any tasks are missing."""
    lines = [
        f"stage {name}: {len(numbers)} tasks are not done: "
        f"atlaswriter run {place.path} --stage {name} --tasks {ranges_of(numbers)}"
        for name, numbers in missing.items()
        if numbers
    ]
    if lines:
        raise IncompleteError("\n".join(lines), {name: numbers for name, numbers in missing.items() if numbers})


def refuse_finished(place: RunFolder) -> None:
    """Raise `InputError` if the export is published."""
    if place.result.exists():
        raise InputError(
            Problem(str(place.path), "is finished: the export is published", "plan again, in a new folder")
        )


def refuse_unready(plan: RunPlan, stage: Stage, place: RunFolder, done: Iterable[str], others: Iterable[str]) -> None:
    """Raise `IncompleteError` if a stage needs tasks that are not done, of stages that are not among `others`."""
    names, elsewhere = set(done), set(others)
    early = [found for found in plan.before(stage) if found.name not in elsewhere]
    refuse_missing(place, {found.name: missing_tasks(found, names) for found in early})
