"""Lists in JSON that were written elsewhere, some of their items at a time, and what is wrong with their rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems

T = TypeVar("T")

# Bytes parsed at once, which take some 20 times as much as Python's objects. Measured: 64 KiB to 4 MiB are as fast.
_PIECE = 1 << 18

_SHOWN = 3

_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\[")


def load(content: bytes, where: str) -> Any:
    """A JSON document: UTF-8, no NaN, no Infinity, no key twice; `InputError` otherwise."""
    try:
        return _parsed(content.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise _bad(where, error) from None


def items(content: bytes, where: str, closing: str = "}") -> Iterator[list[Any]]:
    """Items of a JSON list, in batches.

    Parameters
    ----------
    content
        The document.
    where
        Its name in messages.
    closing
        Bracket that items end with.

    Raises
    ------
    InputError
        It is no list, or no standard JSON.
    """
    opening = _BEGIN.match(content)
    if opening is None:
        raise InputError(Problem(where, "does not hold a JSON list", "write a list of objects"))
    begin, end = opening.end(), len(content.rstrip(b" \t\r\n")) - 1
    if end < begin or content[end : end + 1] != b"]":
        raise _bad(where, ValueError("it ends in the middle of the list"))
    behind_item = re.compile(rb"\%b\s*(,)" % closing.encode())
    at, size = begin, _PIECE
    while True:
        comma = behind_item.search(content, min(at + size, end), end)
        cut = comma.start(1) if comma else end
        try:
            found = _parsed(b"[%b]" % content[at:cut])
            if not found and at > begin:
                raise ValueError("the list ends with a comma")
        except (ValueError, RecursionError) as error:
            if cut == end:
                raise _bad(where, error) from None
            size *= 2  # The comma may have been inside of an item.
            continue
        yield found
        if cut == end:
            return
        at, size = cut + 1, _PIECE


def _parsed(content: bytes) -> Any:
    return json.loads(content.decode(), parse_constant=_refuse_constant, object_pairs_hook=_distinct)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {key!a} twice")
    return result


def _bad(where: str, error: Exception) -> InputError:
    reason = "it is nested too deep" if isinstance(error, RecursionError) else error
    return InputError(Problem(where, f"is not standard JSON ({reason})", "write it again"))


def whole(value: Any) -> int | None:
    """An integer, also one that is written ``1.0``; None for anything else, and beyond 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return None
    return int(value) if value == int(value) else None


def shown(value: Any) -> str:
    """A JSON value for a message."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key!a}: {shown(item)}" for key, item in list(value.items())[:6])
        return "{" + inner[:80] + "}"
    text = ascii(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}..."


class Faults:
    """What is wrong with the rows of a table, by kind: how many rows, and the first of them.

    Parameters
    ----------
    where
        Name of the table in messages.
    rows
        What a row is called.
    """

    def __init__(self, where: str, rows: str = "rows") -> None:
        self._where, self._rows = where, rows
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, kind: str, example: str, remedy: str = "", n: int = 1) -> None:
        """Note `n` rows of a kind, such as ``"have no cell"``, one of which is the example."""
        self._counts[kind, remedy] += n
        examples = self._examples.setdefault((kind, remedy), [])
        if len(examples) < _SHOWN:
            examples.append(example)

    def add_where(self, bad: NDArray[np.bool_], kind: str, example: Callable[[int], str], remedy: str = "") -> None:
        """Note the rows that are marked."""
        rows = np.flatnonzero(bad)
        for row in rows[:_SHOWN].tolist():
            self.add(kind, example(row), remedy)
        if rows.size > _SHOWN:
            self.add(kind, "", remedy, rows.size - _SHOWN)

    def _lines(self) -> Iterator[tuple[str, str]]:
        for (kind, remedy), n in self._counts.items():
            examples = self._examples[kind, remedy]
            more = f" and {n - len(examples):,} more" if n > len(examples) else ""
            yield f"{n:,} {self._rows} {kind}: {'; '.join(examples)}{more}", remedy

    def report(self, problems: Problems) -> None:
        """Add a problem for every kind."""
        for found, remedy in self._lines():
            problems.add(self._where, found, remedy or f"correct these {self._rows}, or leave them out")

    def warn(self, warnings: list[str]) -> None:
        """Add a warning for every kind."""
        warnings.extend(str(Problem(self._where, found, remedy)) for found, remedy in self._lines())


def objects(
    content: bytes, where: str, rows: str, read: Callable[[Any, str, Faults], T | None], problems: Problems
) -> list[T] | None:
    """What the items of a JSON list stand for.

    Parameters
    ----------
    content
        The list.
    where, rows
        As of `Faults`.
    read
        Makes one of an item, its name, and the faults, to which it adds what is wrong with it; None then.
    problems
        Everything that is wrong is added.

    Returns
    -------
    list or None
        None when there is a problem.
    """
    faults, found = Faults(where, rows), list[T]()

    def all_of_them() -> None:
        every = (item for some in items(content, where) for item in some)
        for number, item in enumerate(every):
            one = read(item, f"number {number}", faults)
            found.extend([] if one is None else [one])

    n_before = len(problems.found)
    problems.attempt(all_of_them)
    faults.report(problems)
    return found if len(problems.found) == n_before else None
