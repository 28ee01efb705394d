"""The end of a run in tasks: what is published is written down before, so that a process may be killed meanwhile."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlaswriter.engine.plan import RunPlan
from atlaswriter.errors import InputError, Problem
from atlaswriter.report import Report
from atlaswriter.sinks import fs
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.journal import Entry, Journal, as_written
from atlaswriter.sinks.runfolder import RunFolder

log = logging.getLogger(__name__)

# Name in the journal of what is written at the end.
_FINISH = "finish"


def note_finish(sink: FolderSink, sizes: Mapping[str, int], journal: Journal, report: Report) -> None:
    """Write down what will be published beside the files of tasks, whose bytes are given."""
    with sink.failing("cannot be written down"):
        own = as_written(sink.staged, sink.files.keys() - sizes.keys())
        try:
            journal.add(Entry(_FINISH, own, report.to_dict()))
        finally:
            journal.close()


def published(plan: RunPlan, place: RunFolder, journal: Journal) -> Report | None:
    """The report of a process that was killed when it had published; what it has left is deleted."""
    if not any(entry.work == _FINISH for entry in journal.entries()):
        return None
    found = journal.proven(Path(plan.target), read=True)
    if not {_FINISH, *plan.works} <= found.keys():
        return None
    report = _report(place.journal, found[_FINISH].result)
    with FolderSink(Path(plan.target), force=True):  # keeps others out, and cleans
        close(place, report)
    return report


def still_there(plan: RunPlan, place: RunFolder) -> bool:
    """Whether an export that was published is where it was, by the sizes of its files."""
    return {_FINISH, *plan.works} <= Journal(place.journal).proven(Path(plan.target), read=False).keys()


def finished(plan: RunPlan, place: RunFolder) -> Report:
    """The report of a run that is closed; `InputError` if it is damaged, or the export is not there any more."""
    try:
        content = json.loads(place.result.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(Problem(str(place.result), f"cannot be read ({error})")) from error
    report = _report(place.result, content)
    if not still_there(plan, place):
        found = f"was finished, but {plan.target} is not any more what was published"
        raise InputError(Problem(str(place.path), found, "plan again, in a new folder"))
    _clear(place)
    log.info("%s was published before", report.output)
    return report


def close(place: RunFolder, report: Report) -> None:
    """Leave plan, journal and report in the run folder, and nothing else; the export is published already."""
    try:
        fs.put(place.result, report.to_json().encode())
    except OSError as error:
        log.warning("%s: the report cannot be written (%s)", place.result, error)
    _clear(place)


def _clear(place: RunFolder) -> None:
    for path in (place.files, place.parts, place.tmp):
        try:
            fs.remove_tree(path)
        except OSError as error:
            log.warning("%s: left over, cannot be deleted (%s)", path, error)


def _report(path: Path, content: Any) -> Report:
    try:
        return Report.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(Problem(str(path), "holds no report")) from error
