"""Whole processes, measured from outside: seconds, CPU, peak memory, and what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from atlaswriter.bench import launch, signals
from atlaswriter.errors import AtlasWriterError, BudgetError, InputError, OutputError, Problem

_SECONDS_TO_STOP, _SECONDS_TO_DIE = 10, 2
_ERRORS: dict[int, type[AtlasWriterError]] = {
    InputError.exit_code: InputError,
    BudgetError.exit_code: BudgetError,
    OutputError.exit_code: OutputError,
}


class MeasurementError(AtlasWriterError, RuntimeError):
    """A measured process failed."""

    exit_code = OutputError.exit_code


@dataclass(frozen=True)
class Ended:
    """A process that came to its end.

    Attributes
    ----------
    exit_code
        Of the process; negative where a signal ended it.
    cost
        ``seconds``, ``cpu_seconds`` and ``peak_bytes`` (largest resident size) of exactly that process, and
        ``disk_read_bytes`` and ``disk_written_bytes``, what went from and to a device.
    said, complained
        What it wrote to standard output, and to standard error.
    """

    exit_code: int
    cost: dict[str, Any]
    said: bytes
    complained: str


def measured(command: Sequence[str], *, what: str, folder: Path) -> dict[str, Any]:
    """Run a command that must succeed.

    Parameters
    ----------
    command
        Program and arguments; it prints one JSON object.
    what
        Names it in errors.
    folder
        For the files it reports with.

    Returns
    -------
    dict
        The cost as in `Ended`, and ``result``, the object it printed.

    Raises
    ------
    InputError, BudgetError, OutputError
        It ended with the exit code of such an error; the message is what it said last.
    MeasurementError
        It failed otherwise, or printed something else.
    """
    ended = launched(command, what=what, folder=folder)
    if ended.exit_code:
        raise _failure(what, ended.exit_code, ended.complained)
    try:
        return {**ended.cost, "result": json.loads(ended.said)}
    except ValueError:
        raise MeasurementError(f"{what} did not say what it did: {_end(ended.complained)}") from None


def launched(command: Sequence[str], *, what: str, folder: Path | None = None) -> Ended:
    """Run a command to its end, however that is; as `measured`, and `folder` may be that for temporary files.

    Whatever interrupts this ends the command too, with all that it has started.

    Raises
    ------
    MeasurementError
        It could not be started.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        cost_path, said, complained = (Path(scratch, name) for name in ("cost", "stdout", "stderr"))
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(cost_path), *command]
        with said.open("wb") as out, complained.open("wb") as err:
            _run(launcher, out, err)
        errors = complained.read_text(encoding="utf-8", errors="replace").strip()
        try:
            cost: dict[str, Any] = json.loads(cost_path.read_bytes())
        except (OSError, ValueError):
            raise MeasurementError(f"{what} could not be started: {_end(errors)}") from None
        return Ended(cost.pop("exit_code"), cost, said.read_bytes(), errors)


def _run(launcher: Sequence[str], out: BinaryIO, err: BinaryIO) -> None:
    process = None
    try:
        with signals.held():  # until it is known what would have to be stopped
            process = subprocess.Popen(  # noqa: S603 - no shell
                launcher, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        process.wait()
    except BaseException:
        if process is not None:
            _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all others of its session, which is its group too."""
    with signals.held(), suppress(ProcessLookupError, PermissionError):  # it is gone; on macOS: zombies are left
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_STOP)
        # Not for ever: where nobody takes care of orphans, zombies of the group stay.
        deadline = time.monotonic() + _SECONDS_TO_DIE
        while time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.01)


def _failure(what: str, exit_code: int, errors: str) -> AtlasWriterError:
    kind = _ERRORS.get(exit_code)
    text = _end(errors) or "nothing was said"
    if kind is InputError:
        return InputError(Problem(what, text))
    if kind is not None:
        return kind(f"{what}: {text}")
    return MeasurementError(f"{what} ended with exit code {exit_code}: {text}")


def _end(text: str) -> str:
    """The last lines, where the reason is."""
    return "\n".join(text.splitlines()[-12:])[-2000:]
