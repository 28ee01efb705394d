"""How far a run in tasks is."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from atlaswriter.engine.plan import RunPlan, Stage, ranges_of
from atlaswriter.errors import IncompleteError, InputError, Problem
from atlaswriter.report import text_table
from atlaswriter.sinks.journal import Entry, Journal, unproven
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sinks.staging import leads_elsewhere
from atlaswriter.units import format_bytes

T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS = 2.0


@dataclass
class RunReport:
    """What one call of `run` did.

    Attributes
    ----------
    folder
        Of the plan.
    done, skipped
        Numbers of tasks that were done now, and before, by stage.
    bytes_out
        Bytes written.
    peak_memory
        Largest resident size of the process so far, bytes.
    """

    folder: str
    done: dict[str, list[int]] = field(default_factory=dict)
    skipped: dict[str, list[int]] = field(default_factory=dict)
    bytes_out: int = 0
    peak_memory: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [(f"stage {name}", f"tasks {ranges_of(numbers)} done") for name, numbers in self.done.items() if numbers]
        rows += [
            (f"stage {name}", f"tasks {ranges_of(numbers)} were done before")
            for name, numbers in self.skipped.items()
            if numbers
        ]
        rows += [("written", format_bytes(self.bytes_out)), ("peak memory", format_bytes(self.peak_memory))]
        return text_table(rows)


def proven(
    place: RunFolder, journal: Journal, works: Container[str], *, read: bool = False, parts: bool = True
) -> dict[str, Entry]:
    """Those of some tasks whose files, and parts for later tasks, are as they were written.

    Parameters
    ----------
    place, journal
        Of the run.
    works
        Names of the tasks: what is asked for is looked at, and nothing else.
    read
        As of `Journal.proven`.
    parts
        Whether parts must be there still, which nobody needs at the end.
    """

    def good(entry: Entry) -> bool:
        return entry.work in works and _has_parts(entry, place, look=parts)

    return journal.proven(place.files, read=read, also=good)


def drop_altered(place: RunFolder, journal: Journal, works: Container[str]) -> None:
    """Delete files of some tasks that are not as they were written, so that the tasks count as not done."""
    for entry in journal.entries():
        for name in unproven(entry, place.files, read=True) if entry.work in works else ():
            (place.files / name).unlink(missing_ok=True)


def patiently(look: Callable[[], T], seconds: float) -> T:
    """What `look` finds, which may raise `IncompleteError` for so many seconds.

    Shared disks show what other machines have written when their caches say so: on NFS up to a minute late.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return look()
        except IncompleteError:
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise
            time.sleep(min(_SECONDS_BETWEEN_LOOKS, rest))


def _has_parts(entry: Entry, place: RunFolder, *, look: bool) -> bool:
    """Whether a result names its parts well, and, if they are looked at, they are there."""
    try:
        parts = entry.result.get("parts", {}).items()
        if any(leads_elsewhere(name) for name, _ in parts):
            return False
        return not look or all((place.parts / name).stat().st_size == size for name, size in parts)
    except (OSError, ValueError, TypeError, AttributeError):  # missing, or a damaged entry
        return False


def missing_tasks(stage: Stage, done: Iterable[str]) -> list[int]:
    """Numbers of the tasks of a stage that are not among those done."""
    names = set(done)
    return [task.number for task in stage.tasks if stage.work(task) not in names]


def refuse_missing(place: RunFolder, missing: Mapping[str, list[int]]) -> None:
    """Raise `IncompleteError`, with a command for each stage, if any tasks are missing."""
    lines = [
        f"stage {name}: {len(numbers)} task{'s are' if len(numbers) > 1 else ' is'} not done: "
        f"atlaswriter run {shlex.quote(str(place.path))} --stage {name} --tasks {ranges_of(numbers)}"
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
