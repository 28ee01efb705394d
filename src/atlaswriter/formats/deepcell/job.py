"""One run: what was asked for, checked, and where it is written."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.resources import Resources
from atlaswriter.errors import Problems
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.options import Options
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks.archive import ArchiveSink, check_target_file
from atlaswriter.sinks.folder import target_path


@dataclass(frozen=True)
class Job:
    """One project in progress."""

    options: Options
    resources: Resources
    budget: Budget
    report: Report
    sink: ArchiveSink
    progress: Progress


@contextmanager
def opened(given: Mapping[str, Any], inputs: Iterable[object]) -> Iterator[Job]:
    """A job whose options are checked, and whose target stays as it is unless it is published.

    Parameters
    ----------
    given
        Arguments of the call, by name, among them ``out``.
    inputs
        What may be paths of files that are read, and must not be replaced.

    Raises
    ------
    InputError
        Options are wrong, or the target may not be written.
    """
    options, resources, problems = Options.of(given), Resources.of(given), Problems()
    target = problems.attempt(target_path, given["out"], "out")
    options.check(problems)
    resources.check(problems)
    if target is not None and isinstance(options.force, bool):
        check_target_file(target, force=options.force, problems=problems)
        _refuse_inputs(target, inputs, problems)
        if options.force:
            _refuse_foreign(target, problems)
        if options.preview is True:
            picture = target.with_name(layout.preview_file(target.name))
            check_target_file(picture, force=options.force, problems=problems)
    problems.raise_if_any()
    assert target is not None  # noqa: S101 - no target is a problem
    budget = Budget(resources.memory_budget)
    spill_dir = None if resources.spill_dir is None else Path(resources.spill_dir)
    with ArchiveSink(target, force=options.force, spill_dir=spill_dir) as sink:
        report, progress = Report(str(target), "deepcell label"), Progress(resources.progress)
        yield Job(options, resources, budget, report, sink, progress)


def _refuse_foreign(target: Path, problems: Problems) -> None:
    """Only a project may be replaced: whoever forgets ``--labels`` names the labels for the output."""
    try:
        if not target.is_file() or not target.stat().st_size:
            return
        with zipfile.ZipFile(target) as archive:
            is_project = layout.is_project(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        is_project = False
    if not is_project:
        remedy = "choose another file; labels are given with labels= (--labels)"
        problems.add(str(target), "is no DeepCell Label project, and would be lost", remedy)


def _refuse_inputs(target: Path, inputs: Iterable[object], problems: Problems) -> None:
    """A target may be none of the inputs, nor lie in one that is a folder."""
    each = (one for item in inputs for one in (item if isinstance(item, list | tuple) else [item]))
    for item in each:
        try:
            if not isinstance(item, str | PathLike) or not Path(item).exists():
                continue
            source, place = Path(item).resolve(), target.resolve()
        except (OSError, ValueError):  # what cannot be a path is refused when it is opened
            continue
        if source in (place, *place.parents):
            problems.add("out", f"{target} is, or lies inside of, the input {item}", "choose another file")
