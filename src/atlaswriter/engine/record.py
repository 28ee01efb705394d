"""What a run was made of: two runs of equal records write the same bytes, so one may go on with what the other did."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from atlaswriter.engine.resources import plain
from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.fingerprint import differences, fingerprint

# What the bytes of an export depend on beside its input and options.
_PACKAGES = ("atlaswriter", "imagecodecs", "isal", "numpy", "pyarrow")
# Arguments that tell how an export is made; whatever they are, it is the same.
_RESOURCES = frozenset(
    ("memory_budget", "workers", "progress", "strategy", "spill_dir", "force", "resume", "engine", "dask", "out")
)
_MOST_NAMED = 5


@dataclass(frozen=True)
class Record:
    """Format, arguments, inputs and versions of a run.

    Attributes
    ----------
    format
        ``"cellucid"`` or ``"landscape"``: the function of that name.
    arguments
        Its arguments that the result depends on, as plain values.
    inputs
        Fingerprint of every file and folder that is read.
    versions
        Of what makes the bytes.
    """

    format: str
    arguments: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    versions: dict[str, str]

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], paths: Iterable[str | os.PathLike[str]]) -> Record | None:
        """The record of a call; None where an argument is an object in memory, which nothing can be said of."""
        try:
            arguments = {key: jsonable(value) for key, value in given.items() if key not in _RESOURCES}
        except TypeError:
            return None
        inputs = {str(path): fingerprint(path) for path in sorted({Path(path).resolve() for path in paths})}
        return cls(name, arguments, inputs, versions())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Record:
        """The opposite of `to_dict`; KeyError, TypeError or ValueError where it is none."""
        inputs = {str(path): dict(found) for path, found in content["inputs"].items()}
        return cls(str(content["format"]), dict(content["arguments"]), inputs, dict(content["versions"]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    @property
    def key(self) -> str:
        """A short text that differs wherever records do."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def changes(self, now: Record) -> list[str]:
        """What is not as it was, each as a sentence; nothing when the same would be written."""
        found = [] if self.format == now.format else [f"the format was {self.format}, now it is {now.format}"]
        for name in sorted(self.versions.keys() | now.versions.keys()):
            before, after = self.versions.get(name, "absent"), now.versions.get(name, "absent")
            found += [] if before == after else [f"{name} was {before}, now it is {after}"]
        for name in sorted(self.arguments.keys() | now.arguments.keys()):
            old, new = self.arguments.get(name), now.arguments.get(name)
            found += [] if old == new else [f"option {name} was {_shown(old)}, now it is {_shown(new)}"]
        for path in sorted(self.inputs.keys() | now.inputs.keys()):
            changed = differences(self.inputs.get(path, {}), now.inputs.get(path, {}))
            more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
            found += [f"input {path}: {', '.join(changed[:_MOST_NAMED])}{more}"] if changed else []
        return found


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def versions() -> dict[str, str]:
    """Versions of what makes the bytes of an export."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return {**found, "zlib": zlib.ZLIB_RUNTIME_VERSION}


def refuse_changes(changes: list[str], where: str, remedy: str) -> None:
    """Raise `InputError` if there are any, each named."""
    if changes:
        raise InputError(Problem(where, f"what was begun cannot be continued: {'; '.join(changes)}", remedy))


def jsonable(value: Any) -> Any:
    """An argument as a plain value: paths and arrays too; TypeError for anything else."""
    value = plain(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} is not a plain value")
