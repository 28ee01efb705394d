"""An export in tasks: numbered pieces that any machine may do, in any order within a stage, any number of times.

The plan is a plain value in a file, ``plan.json`` of a run folder. What is done is in the folder's journal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atlaswriter.engine.record import Record
from atlaswriter.errors import InputError, Problem
from atlaswriter.report import text_table
from atlaswriter.sinks import fs
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.units import format_bytes

_VERSION = 1
# Key of what tells that nothing of a plan was changed.
_DIGEST = "sha256"
# What libraries may hold more on another machine than where the plan was made.
OTHERS_BYTES = 128 << 20


@dataclass(frozen=True)
class Task:
    """A piece of work that a process does as a whole.

    Attributes
    ----------
    number
        Its place in the stage, from 0.
    what
        What it is about, for people.
    arguments
        What it is about, for the format; plain values.
    bytes_in, bytes_out
        Bytes it reads and writes, about.
    memory
        Largest resident size of a process that does it, bytes.
    seconds
        About how long it takes.
    """

    number: int
    what: str
    arguments: Mapping[str, Any]
    bytes_in: int
    memory: int
    bytes_out: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Stage:
    """Tasks that need nothing of each other.

    Attributes
    ----------
    name
        Its name.
    after
        Stages that must be done before.
    tasks
        In the order of their numbers.
    """

    name: str
    after: tuple[str, ...]
    tasks: tuple[Task, ...]

    @property
    def memory(self) -> int:
        """Largest resident size of a process that does any of its tasks, bytes."""
        return max((task.memory for task in self.tasks), default=0)

    def work(self, task: Task) -> str:
        """Name of a task in the journal."""
        return f"{self.name}-{task.number}"


@dataclass(frozen=True)
class RunPlan:
    """An export in tasks.

    Attributes
    ----------
    target
        What will be published.
    arguments
        Of the call that would do all of it at once.
    record
        What it is made of.
    facts
        What was decided for all tasks, such as the time stamp.
    workers
        Threads of a process.
    stages
        In an order in which they can be done.
    """

    target: str
    arguments: dict[str, Any]
    record: Record
    facts: dict[str, Any]
    workers: int
    stages: tuple[Stage, ...] = field(default_factory=tuple)

    @property
    def format(self) -> str:
        """``"cellucid"`` or ``"landscape"``."""
        return self.record.format

    @property
    def works(self) -> set[str]:
        """Names of all tasks in the journal."""
        return {stage.work(task) for stage in self.stages for task in stage.tasks}

    def stage(self, name: str) -> Stage:
        """A stage by its name; `InputError` if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise InputError(Problem("stage", f"{name!r} is not in the plan", f"there are {known}"))

    def before(self, stage: Stage) -> list[Stage]:
        """Stages that must be done before a stage, all of them."""
        found = [self.stage(name) for name in stage.after]
        return [*(early for near in found for early in self.before(near)), *found]

    def works_before(self, stage: Stage) -> set[str]:
        """Names in the journal of all their tasks."""
        return {early.work(task) for early in self.before(stage) for task in early.tasks}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"plan_version": _VERSION, "format": self.format, **asdict(self)}

    def write(self, run: RunFolder) -> None:
        """Put the plan into its folder, in one step; raises `OSError`."""
        content = self.to_dict()
        fs.put(run.plan, json.dumps({**content, _DIGEST: _digest(content)}, indent=1).encode())

    @classmethod
    def read(cls, run: RunFolder) -> RunPlan:
        """The plan of a folder; `InputError` if it holds none, or links that lead elsewhere."""
        if run.path.is_file():
            raise InputError(Problem(str(run.path), "is a file", "give the folder of the plan"))
        if links := run.links():
            raise InputError(Problem(str(links[0]), "is a symbolic link", "plan again, in another folder"))
        try:
            content = json.loads(run.plan.read_text())
        except FileNotFoundError as error:
            remedy = "make one with: atlaswriter plan SOURCE OUT --plan DIR"
            raise InputError(Problem(str(run.path), "holds no plan", remedy)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(Problem(str(run.plan), f"cannot be read ({error})", "plan again")) from error
        try:
            if content["plan_version"] != _VERSION:
                raise InputError(Problem(str(run.plan), "is of another version of atlaswriter", "plan again"))
            if content.pop(_DIGEST) != _digest(content):
                raise InputError(Problem(str(run.plan), "was changed since it was written", "plan again"))
            stages = tuple(_stage(stage) for stage in content["stages"])
            record = Record.from_dict(content["record"])
            target, arguments, facts = content["target"], dict(content["arguments"]), dict(content["facts"])
            return cls(str(target), arguments, record, facts, int(content["workers"]), stages)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(Problem(str(run.plan), "is not a plan", "plan again")) from error

    def __str__(self) -> str:
        rows = [("output", self.target), ("format", self.format), ("threads", f"{self.workers} in each process")]
        rows += [(f"stage {stage.name}", _shown(stage)) for stage in self.stages]
        return text_table(rows)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _stage(content: Mapping[str, Any]) -> Stage:
    tasks = tuple(Task(**task) for task in content["tasks"])
    if [task.number for task in tasks] != list(range(len(tasks))):
        raise ValueError("tasks are numbered from 0")
    return Stage(str(content["name"]), tuple(content["after"]), tasks)


def _shown(stage: Stage) -> str:
    after = f", after {' and '.join(stage.after)}" if stage.after else ""
    read, written = (sum(getattr(task, name) for task in stage.tasks) for name in ("bytes_in", "bytes_out"))
    seconds = max((task.seconds for task in stage.tasks), default=0.0)
    return (
        f"{len(stage.tasks)} tasks{after}: read {format_bytes(read)}, write {format_bytes(written)}, "
        f"at most {format_bytes(stage.memory)} and about {max(seconds, 1):,.0f} s each"
    )


# What, arguments, bytes in, memory, bytes out and seconds of a task.
TaskFacts = tuple[str, dict[str, Any], int, int, int, float]


def numbered(make: Iterable[TaskFacts]) -> tuple[Task, ...]:
    """Tasks of a stage."""
    return tuple(Task(number, *values) for number, values in enumerate(make))


def ranges_of(numbers: Sequence[int]) -> str:
    """Numbers for people and for ``--tasks``: ``"0-3,7"``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def folder_of(path: Path) -> RunFolder:
    """A run folder that the user named."""
    return RunFolder(path.absolute())
