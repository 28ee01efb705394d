"""A local run that goes on where another one was interrupted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlaswriter.engine.record import Record, refuse_changes
from atlaswriter.errors import InputError, Problem
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.journal import Entry, Journal
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.units import format_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Begun:
    """A run that has begun, now or before.

    Attributes
    ----------
    journal
        Where it writes down what is done; None: nowhere.
    done
        What was done before.
    facts
        What was decided when it began, such as its time stamp.
    """

    journal: Journal | None
    done: Mapping[str, Entry]
    facts: Mapping[str, Any]

    def close(self) -> None:
        """Let go of the journal."""
        if self.journal is not None:
            self.journal.close()


def begin(sink: FolderSink, record: Record | None, facts: Mapping[str, Any], *, resume: bool) -> Begun:
    """Begin a run, or go on with an interrupted one.

    Parameters
    ----------
    sink
        Open; it takes over what an interrupted run has staged.
    record
        What the run is made of; None: nothing can be proven of it, so nothing is written down.
    facts
        What is decided if it begins now.
    resume
        Whether to go on.

    Raises
    ------
    InputError
        Input, options or versions are not what they were; says which.
    """
    if record is None:
        if resume:
            raise InputError(Problem("resume", "what is in memory cannot be proven unchanged", "export a file"))
        return Begun(None, {}, facts)
    if resume:
        if not sink.exclusive:
            found = f"{sink.target.parent} has no file locks, so another run may be alive"
            raise InputError(Problem("resume", found, "run in tasks, which need none: atlaswriter plan --plan"))
        if before := _interrupted(sink, facts):
            return _continued(sink, *_matching(before, record, sink.target))
        log.info("nothing was interrupted here: starting anew")
    with sink.failing("cannot be prepared"):
        sink.run.plan.write_text(json.dumps({"record": record.to_dict(), "facts": dict(facts)}))
    return Begun(Journal(sink.run.journal), {}, facts)


def _interrupted(sink: FolderSink, names: Iterable[str]) -> dict[RunFolder, tuple[Record, dict[str, Any]]]:
    """Interrupted runs that say what they were, and these facts, the latest first."""
    found = {}
    for run in sink.interrupted():
        try:
            content = json.loads(run.plan.read_text())
            found[run] = Record.from_dict(content["record"]), {name: content["facts"][name] for name in names}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _matching(
    before: Mapping[RunFolder, tuple[Record, dict[str, Any]]], record: Record, target: Path
) -> tuple[RunFolder, dict[str, Any]]:
    changes = {run: stored.changes(record) for run, (stored, _) in before.items()}
    run = next((run for run, changed in changes.items() if not changed), next(iter(before)))
    refuse_changes(changes[run], str(target), "leave resume (--resume) out to start anew")
    return run, before[run][1]


def _continued(sink: FolderSink, run: RunFolder, facts: Mapping[str, Any]) -> Begun:
    journal = Journal(run.journal)
    done = journal.proven(run.files, read=True)
    sizes = {name: size for entry in done.values() for name, (size, _) in entry.files.items()}
    sink.adopt(run, sizes)
    log.info("going on with an interrupted run: %d files, %s, are done", len(sizes), format_bytes(sum(sizes.values())))
    return Begun(journal, done, facts)
