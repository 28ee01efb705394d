"""Which tasks of a stage a process does: as the user, or the scheduler of a cluster, says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from atlaswriter.errors import InputError, Problem

_FORMS = "write e.g. 0-15, 3,7, 2/16 (the third of 16 slices) or auto"
_SLICE = re.compile(r"(\d{1,9})/(\d{1,9})")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def chosen_tasks(
    given: str | int | Sequence[int] | None, n_tasks: int, environment: Mapping[str, str] = os.environ
) -> list[int]:
    """Numbers of the tasks to do.

    Parameters
    ----------
    given
        Numbers; or a text: ``"0-15"``, ``"3,7"``, ``"K/N"`` (the slice K, from 0, of N that are about equal),
        ``"auto"`` (the slice that ``SLURM_ARRAY_TASK_ID`` says, of ``SLURM_ARRAY_TASK_COUNT``). None: all.
    n_tasks
        How many the stage has.
    environment
        Where the variables are.

    Raises
    ------
    InputError
        There are no such tasks, or the text is none of these.
    """
    if given is None:
        return list(range(n_tasks))
    if isinstance(given, int):
        numbers = [given]
    elif not isinstance(given, str):
        numbers = [int(number) for number in given]
    elif given == "auto":
        numbers = _slice(*_slurm(environment), n_tasks)
    elif match := _SLICE.fullmatch(given):
        numbers = _slice(int(match[1]), int(match[2]), n_tasks)
    else:
        numbers = [number for part in given.split(",") for number in _range(part.strip(), n_tasks)]
    _check(numbers, n_tasks)
    return sorted(set(numbers))


def _check(numbers: Iterable[int], n_tasks: int) -> None:
    if wrong := [number for number in numbers if not 0 <= number < n_tasks]:
        raise InputError(Problem("tasks", f"there is no task {wrong[0]}", f"there are 0 to {n_tasks - 1}"))


def _range(text: str, n_tasks: int) -> range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise InputError(Problem("tasks", f"{text!r} is not understood", _FORMS))
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise InputError(Problem("tasks", f"{text!r} is empty", _FORMS))
    _check((first, last), n_tasks)
    return range(first, last + 1)


def _slice(position: int, count: int, n_tasks: int) -> list[int]:
    if not 0 <= position < count:
        raise InputError(Problem("tasks", f"there is no slice {position} of {count}", "slices count from 0"))
    return list(range(position * n_tasks // count, (position + 1) * n_tasks // count))


def _slurm(environment: Mapping[str, str]) -> tuple[int, int]:
    """Slice and number of slices of an element of a Slurm array."""
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT")]
    try:
        number, count = (int(environment[name]) for name in names)
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        last = int(environment.get("SLURM_ARRAY_TASK_MAX", first + count - 1))
    except KeyError as error:
        remedy = "run it as an array job, or name the tasks: 0-15"
        raise InputError(Problem("tasks", f"auto needs {error.args[0]}, which is not set", remedy)) from error
    except ValueError as error:
        raise InputError(Problem("tasks", f"the variables of the array job are no numbers ({error})")) from error
    if last - first + 1 != count or first > 1:
        found = f"the array has {count} elements from {first} to {last}; auto takes whole ones, from 0 or 1"
        raise InputError(Problem("tasks", found, "name the slice: --tasks $SLURM_ARRAY_TASK_ID/N"))
    return number - first, count
