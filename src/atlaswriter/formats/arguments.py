"""Arguments of exports, as plans hold them, and where plans may be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any

from atlaswriter.engine.record import jsonable
from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.sinks import fs
from atlaswriter.sinks.runfolder import RunFolder

Place = str | PathLike[str]

# Formats that can be written in tasks, and where.
_FORMATS = {"cellucid": "atlaswriter.formats.cellucid.tasks", "landscape": "atlaswriter.formats.landscape.tasks"}
# Arguments of an export that its plan does not know.
NOT_PLANNED = ("resume", "engine", "dask")


def module_of(to: str) -> Any:
    """The module with the tasks of a format; `InputError` if there is none."""
    if to not in _FORMATS:
        raise InputError(Problem("to", f"{to!r} cannot be planned", f"use {' or '.join(_FORMATS)}"))
    return import_module(_FORMATS[to])


def defaults_of(to: str, options: Mapping[str, Any], function: str) -> dict[str, Any]:
    """Arguments of the export and their defaults; TypeError if there are others among the options."""
    parameters = {
        name: parameter
        for name, parameter in signature(module_of(to).FUNCTION).parameters.items()
        if name not in NOT_PLANNED
    }
    if unknown := sorted(set(options) - set(parameters)):
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")
    return {name: parameter.default for name, parameter in parameters.items()}


def plain_arguments(to: str, source: Place, out: Place, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the export, as plain values; paths for every machine."""
    module, defaults = module_of(to), defaults_of(to, options, "plan_tasks")
    if not isinstance(source, str | PathLike):
        remedy = "write it to a file that all machines can read"
        raise InputError(Problem(module.SOURCE, "what is in memory cannot be shared", remedy))
    given: dict[str, Any] = {**defaults, **options, module.SOURCE: source, "out": out}
    try:
        plain = {name: jsonable(value) for name, value in given.items()}
    except TypeError as error:
        raise InputError(
            Problem("options", f"cannot be written down: {error}", "give paths and plain values")
        ) from error
    for name in (module.SOURCE, "out", "spill_dir"):
        plain[name] = _absolute(plain[name])
    for name in module.PATHS:  # which may be names of something else as well
        plain[name] = _absolute(plain[name], existing=True)
    plain.pop("progress")
    return plain


def _absolute(value: Any, *, existing: bool = False) -> Any:
    if isinstance(value, list):
        return [_absolute(item, existing=existing) for item in value]
    if not isinstance(value, str) or (existing and not Path(value).exists()):
        return value
    return str(Path(value).absolute())


def check_folder(run: RunFolder, out: Path, source: Any, problems: Problems) -> None:
    """Add to `problems` why a plan cannot be in a folder: it must be new, on the disk of the output, and in nothing."""
    target = fs.located(out.absolute())
    place = Path(os.path.realpath(run.path))
    if place == target or target in place.parents or place in target.parents:
        problems.add("plan", f"{run.path} and the output {out} lie in each other", "choose a folder beside the output")
    elif isinstance(source, str | PathLike) and Path(os.path.realpath(source)) in (place, *place.parents):
        problems.add("plan", f"{run.path} lies in the source, which is only read", "choose a folder beside the output")
    elif run.path.exists() and (not run.path.is_dir() or fs.occupied(run.path)):
        problems.add(
            "plan", f"{run.path} is not empty", "choose a new folder, or discard it: atlaswriter finish --discard"
        )
    else:
        devices = [fs.nearest_existing(path).stat().st_dev for path in (place, target.parent)]
        if devices[0] != devices[1]:
            problems.add("plan", f"{run.path} is not on the disk of {out}", "choose a folder beside the output")
