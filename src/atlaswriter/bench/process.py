"""Whole processes, measured from outside: seconds, CPU, peak memory, and what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from atlaswriter.bench import launch
from atlaswriter.errors import AtlasWriterError, BudgetError, InputError, OutputError, Problem

_SECONDS_TO_STOP = 10
_ERRORS: dict[int, type[AtlasWriterError]] = {
    InputError.exit_code: InputError,
    BudgetError.exit_code: BudgetError,
    OutputError.exit_code: OutputError,
}


class MeasurementError(AtlasWriterError, RuntimeError):
    """A measured process failed."""

    exit_code = OutputError.exit_code


def measured(command: Sequence[str], *, what: str, folder: Path) -> dict[str, Any]:
    """Run a command to its end.

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
        ``seconds``, ``cpu_seconds`` and ``peak_bytes`` (largest resident size) of exactly that process, and
        ``result``, the object it printed.

    Raises
    ------
    InputError, BudgetError, OutputError
        It ended with the exit code of such an error; the message is what it said last.
    MeasurementError
        It failed otherwise, or printed something else.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        cost_path, said, complained = (Path(scratch, name) for name in ("cost", "stdout", "stderr"))
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(cost_path), *command]
        with said.open("wb") as out, complained.open("wb") as err:
            process = subprocess.Popen(launcher, stdin=subprocess.DEVNULL, stdout=out, stderr=err)  # noqa: S603 - no shell
            try:
                process.wait()
            except BaseException:
                _stop(process)
                raise
        errors = complained.read_text(encoding="utf-8", errors="replace").strip()
        try:
            cost: dict[str, Any] = json.loads(cost_path.read_bytes())
        except (OSError, ValueError):
            raise MeasurementError(f"{what} could not be started: {_end(errors)}") from None
        if cost["exit_code"]:
            raise _failure(what, cost["exit_code"], errors)
        try:
            cost["result"] = json.loads(said.read_bytes())
        except ValueError:
            raise MeasurementError(f"{what} did not say what it did: {_end(errors)}") from None
    del cost["exit_code"]
    return cost


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_STOP)
        return
    process.kill()
    process.wait()


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
