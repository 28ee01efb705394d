"""The original programs, where they are installed: found before anything is measured, run like ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlaswriter.bench import process
from atlaswriter.errors import Problem, Problems, listed

_SECONDS_TO_START = 180
# Ratios are theirs divided by ours.
COMPARED = ("seconds", "work_seconds", "cpu_seconds", "peak_bytes", "bytes")


@dataclass(frozen=True)
class Original:
    """A program to compare with.

    Attributes
    ----------
    version
        The only one that is taken.
    variable
        Environment variable that may name its Python.
    script
        Beside this module; imports nothing of ours.
    verb
        What of ours it is compared with.
    install
        What its environment needs.
    """

    version: str
    variable: str
    script: str
    verb: str
    install: str


ORIGINALS = {
    "cellucid": Original(
        version="0.0.9",
        variable="CELLUCID009_PYTHON",
        script="rival_cellucid.py",
        verb="cellucid",
        install='pip install "cellucid==0.0.9" "pandas<3"',
    ),
    "celldega": Original(
        version="0.27.0",
        variable="CELLDEGA027_PYTHON",
        script="rival_celldega.py",
        verb="landscape",
        install='pip install celldega==0.27.0 "pyvips[binary]"',
    ),
}


@dataclass(frozen=True)
class Rival:
    """An original program that was found: the command that runs it, and the versions it has there."""

    name: str
    command: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def verb(self) -> str:
        """What of ours it is compared with."""
        return ORIGINALS[self.name].verb

    def run(self, source: Path, out: Path) -> dict[str, Any]:
        """Export, and what the process cost; its own times are in ``result``."""
        return process.measured([*self.command, str(source), str(out)], what=self.name, folder=out.parent)


def find(given: Iterable[str], problems: Problems) -> list[Rival]:
    """The programs that are asked for, each as ``NAME`` or ``NAME=PYTHON``.

    Without a Python it is the one that the environment variable names, or the current one. Each is started once, and
    everything that is wrong is noted.
    """
    rivals: dict[str, Rival] = {}
    for text in given:
        name, _, python = (part.strip() for part in text.partition("="))
        if name not in ORIGINALS:
            problems.add("--against", f"{name!r} is not known", f"there are {listed(ORIGINALS)}")
        elif name in rivals:
            problems.add("--against", f"{name} is named twice")
        else:
            original = ORIGINALS[name]
            found = _started(name, python or os.environ.get(original.variable) or sys.executable)
            if isinstance(found, Problem):
                problems.found.append(found)
            else:
                rivals[name] = found
    return list(rivals.values())


def _started(name: str, python: str) -> Rival | Problem:
    original = ORIGINALS[name]
    where, remedy = (
        f"--against {name}",
        f"write {name}=PYTHON with the Python of an environment made by: {original.install}",
    )
    command = (python, str(Path(__file__).with_name(original.script)))
    try:
        # The user's own program, without a shell.
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS_TO_START, check=False)  # noqa: S603
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return Problem(where, f"{python!r} cannot be run ({error})", remedy)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing was said"]
        return Problem(where, f"{python} has no {name} that works ({said[-1][:300]})", remedy)
    try:
        versions = {str(key): str(value) for key, value in json.loads(done.stdout)["versions"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Problem(where, f"{python!r} is not a Python", remedy)
    if versions.get(name) != original.version:
        found = f"{python} has version {versions.get(name)}, {original.version} is needed"
        return Problem(where, found, remedy)
    return Rival(name, command, versions)


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Theirs divided by ours, of everything that is compared."""
    return {key: theirs[key] / ours[key] for key in COMPARED if ours[key]}
