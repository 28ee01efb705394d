"""What a run may use, and how; checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.units import parse_bytes

# As in `engine.strategy`, which takes a moment to import.
_STRATEGIES = ("auto", "memory", "spill")


@dataclass(frozen=True)
class Resources:
    """What a run may use, and how.

    Attributes
    ----------
    workers
        Threads; None: all usable CPUs.
    memory_budget
        Largest resident size of the process; None: `engine.budget.Budget` decides.
    progress
        Whether to show it; None: on a terminal.
    strategy
        How expression is regrouped: ``"auto"``, ``"memory"`` or ``"spill"``.
    spill_dir
        Folder for temporary files; None: beside the target.
    resume
        Whether to go on where an interrupted run stopped, and to leave what is done in place if this one is.
    """

    workers: int | None = None
    memory_budget: str | int | None = None
    progress: bool | None = None
    strategy: str = "auto"
    spill_dir: str | os.PathLike[str] | None = None
    resume: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Resources:
        """Resources from among the arguments of a call; NumPy scalars become plain numbers."""
        return cls(**{name: plain(given[name]) for name in cls.__dataclass_fields__ if name in given})

    def check(self, problems: Problems) -> None:
        """Add every wrong value to `problems`."""
        workers = self.workers
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            problems.add("workers", f"{workers!r} is not a whole number above 0", "use None for all usable CPUs")
        if self.memory_budget is not None:
            problems.attempt(parse_bytes, self.memory_budget)
        if self.progress is not None and not isinstance(self.progress, bool):
            problems.add("progress", f"{self.progress!r} is not True, False or None")
        if not isinstance(self.resume, bool):
            problems.add("resume", f"{self.resume!r} is not True or False")
        if self.strategy not in _STRATEGIES:
            problems.add("strategy", f"{self.strategy!r} is not known", f"use one of {', '.join(_STRATEGIES)}")
        if self.spill_dir is not None:
            problems.attempt(self._check_spill_dir)

    def _check_spill_dir(self) -> None:
        if not isinstance(self.spill_dir, str | os.PathLike):
            raise InputError(Problem("spill_dir", f"{self.spill_dir!r} is not a path"))
        if not Path(self.spill_dir).is_dir() or not os.access(self.spill_dir, os.W_OK | os.X_OK):
            raise InputError(Problem("spill_dir", f"{os.fspath(self.spill_dir)!r} is no folder that can be written to"))


def check_engine(engine: Any, dask: Any) -> None:
    """Raise `InputError` unless it is one of ours, and is told of a cluster only where it uses one."""
    if engine not in ("fast", "dask"):
        raise InputError(Problem("engine", f"{engine!r} is not known", "use 'fast' or 'dask'"))
    if engine != "dask" and dask is not None:
        raise InputError(Problem("dask", "is given, but the engine is another", "pass engine='dask' too"))


def plain(value: Any) -> Any:
    """NumPy scalars as plain numbers, anything else as it is."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value
