"""Errors: what was found, where, and what to do about it.

Every error the package raises on purpose is an `AtlasWriterError`. Checks collect `Problem`s
and raise them together, so that one run shows everything there is to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    where
        The place in the user's terms, such as ``obs['cell_type']`` or ``--compression``.
    found
        What was found there.
    remedy
        What to do about it.
    """

    where: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}"
        return f"{text} → {self.remedy}" if self.remedy else text


class AtlasWriterError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Itself, for other processes: what Dask's libraries make of the base classes cannot be loaded."""
        return type(self), self.args


class InputError(AtlasWriterError, ValueError):
    """The input or an option is refused; nothing was written.

    A `ValueError`, because that is what cellucid 0.0.9 raises for most of these.

    Parameters
    ----------
    problems
        Everything that was found, in the order of the input.
    """

    exit_code = 3

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        lines = [str(problem) for problem in self.problems]
        if len(lines) == 1:
            super().__init__(lines[0])
        else:
            super().__init__("\n".join([f"{len(lines)} problems:", *(f"  - {line}" for line in lines)]))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        return InputError, (self.problems,)


class UnknownNameError(InputError, KeyError):
    """There is no such gene, field, tile or part; also a `KeyError`."""

    # KeyError would show the message as a quoted string.
    __str__ = Exception.__str__


class BudgetError(AtlasWriterError, MemoryError):
    """The work cannot be done inside the memory budget; the message says what would do."""

    exit_code = 4


class OutputError(AtlasWriterError, OSError):
    """The output cannot be written; the target is as it was."""

    exit_code = 5


class IncompleteError(AtlasWriterError):
    """Tasks of a run are not done, so it cannot go on.

    Parameters
    ----------
    message
        What to do.
    missing
        Numbers of the tasks, by stage.
    """

    exit_code = 1

    def __init__(self, message: str, missing: Mapping[str, list[int]]) -> None:
        super().__init__(message)
        self.missing = dict(missing)

    def __reduce__(self) -> tuple[type[IncompleteError], tuple[str, dict[str, list[int]]]]:
        return IncompleteError, (str(self), self.missing)


class FormatError(AtlasWriterError, ValueError):
    """A file or folder to be read is not what it should be."""

    exit_code = 3


class Problems:
    """A list of problems that is raised as one `InputError`."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, where: str, found: str, remedy: str = "") -> None:
        """Note one problem."""
        self.found.append(Problem(where, found, remedy))

    def attempt(self, work: Callable[..., T], *args: Any, **options: Any) -> T | None:
        """Result of ``work(...)``; None, with its problems noted here, when it refuses its input."""
        try:
            return work(*args, **options)
        except InputError as error:
            self.found.extend(error.problems)
            return None

    def raise_if_any(self) -> None:
        """Raise `InputError` with everything noted so far, if there is anything."""
        if self.found:
            raise InputError(self.found)


def listed(names: Iterable[object], limit: int = 10) -> str:
    """Names as a sentence part: at most `limit` of them, quoted, with the count of the rest."""
    every = [repr(str(name)) for name in names]
    shown = ", ".join(every[:limit])
    return shown if len(every) <= limit else f"{shown} and {len(every) - limit} more"


def look_up(known: Mapping[Any, T], name: object, kind: str) -> T:
    """What is known under a name; `UnknownNameError`, which lists what there is, when nothing is."""
    try:
        return known[name]
    except (KeyError, TypeError):
        there = f"there are {listed(known)}" if known else "there are none"
        raise UnknownNameError(Problem(f"{kind} {name!r}", "is not in this export", there)) from None
