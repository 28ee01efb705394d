"""Keys and the file names made from them.

The viewer derives a file's name from the key by the same rule as the writer, so a collision
cannot be solved by renaming a file: either the key itself is renamed, or the export is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from atlaswriter.errors import Problems, listed

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SEPARATORS = re.compile(r"[/\\]")

# Longest file name that every usual file system takes, less the longest ending we add.
MAX_SAFE_NAME = 255 - len(".outliers.u16.gz")


def safe_name(key: str) -> str:
    """File name part of a key, as writer and viewer both compute it.

    Each run of characters outside ``A-Z a-z 0-9 . _ -`` becomes one ``_``; leading and trailing
    ``.`` and ``_`` are dropped; an empty result is ``field``.
    (Rule: Cellucid export format, "Safe filenames".)
    """
    return _UNSAFE.sub("_", key).strip("._") or "field"


def is_path_like(key: str) -> bool:
    """Whether a key reads like a path that leads elsewhere: absolute, or with a ``..`` part."""
    parts = _SEPARATORS.split(key)
    return ".." in parts or key == "." or (len(parts) > 1 and parts[0] == "")


@dataclass
class NamePlan:
    """What `plan_names` decided.

    Attributes
    ----------
    keys
        The keys to write, in the order given.
    renamed
        ``(old, new)`` for every key that was changed.
    case_only
        Groups of keys whose file names differ only by case.
    """

    keys: list[str]
    renamed: list[tuple[str, str]] = field(default_factory=list)
    case_only: list[list[str]] = field(default_factory=list)


def _groups(keys: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    counts = Counter(names)
    shared: dict[str, list[str]] = {name: [] for name, count in counts.items() if count > 1}
    for key, name in zip(keys, names, strict=True):
        if name in shared:
            shared[name].append(key)
    return list(shared.values())


def _make_unique(keys: Sequence[str], *, fold_case: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Rename keys by anndata's rule (``-1``, ``-2`` ...) until every file name is unique."""

    def file_of(key: str) -> str:
        name = safe_name(key)
        return name.lower() if fold_case else name

    # File names that some first occurrence keeps: a suffixed name must not take one of them.
    kept = {file_of(key) for key in keys}
    used: set[str] = set()
    counters: Counter[str] = Counter()
    result: list[str] = []
    renamed: list[tuple[str, str]] = []
    for key in keys:
        base = safe_name(key) if is_path_like(key) else key
        new = base
        while file_of(new) in used or (new != base and file_of(new) in kept):
            counters[base] += 1
            new = f"{base}-{counters[base]}"
        used.add(file_of(new))
        result.append(new)
        if new != key:
            renamed.append((key, new))
    return result, renamed


def plan_names(
    keys: Sequence[str],
    *,
    where: str,
    make_unique: bool,
    case_sensitive: bool,
    problems: Problems,
) -> NamePlan:
    """Check that every key gets a file of its own, or rename keys so that it does.

    Parameters
    ----------
    keys
        Keys in the order they will be written.
    where
        What they are, for messages: ``"genes"`` or ``"obs columns"``.
    make_unique
        Rename instead of refusing.
    case_sensitive
        Whether the output's file system tells ``Pisd`` from ``PISD``.
    problems
        Duplicates, collisions, paths and names too long are added here.

    Returns
    -------
    NamePlan
        Usable only when nothing was added to `problems`.
    """
    plan = NamePlan(list(keys))
    if make_unique:
        plan.keys, plan.renamed = _make_unique(keys, fold_case=not case_sensitive)
    else:
        _refuse_ambiguous(plan.keys, where=where, problems=problems)
    too_long = [key for key in plan.keys if len(safe_name(key)) > MAX_SAFE_NAME]
    if too_long:
        problems.add(where, f"{len(too_long)} names too long for a file: {listed(too_long, 3)}", "shorten them")
    distinct = list(dict.fromkeys(plan.keys))
    by_case = _groups(distinct, [safe_name(key).lower() for key in distinct])
    plan.case_only = [group for group in by_case if len({safe_name(key) for key in group}) > 1]
    if plan.case_only and not case_sensitive:
        shown = "; ".join(" / ".join(group) for group in plan.case_only[:10])
        problems.add(
            where,
            f"{len(plan.case_only)} groups of names differ only by case, which this file system ignores: {shown}",
            "rename them, or pass make_unique=True (--make-unique)",
        )
    return plan


def _refuse_ambiguous(keys: Sequence[str], *, where: str, problems: Problems) -> None:
    remedy = "rename them, or pass make_unique=True (--make-unique)"
    repeated = [key for key, count in Counter(keys).items() if count > 1]
    if repeated:
        problems.add(where, f"{len(repeated)} names occur more than once: {listed(repeated, 50)}", remedy)
    distinct = list(dict.fromkeys(keys))
    for group in _groups(distinct, [safe_name(key) for key in distinct]):
        problems.add(where, f"{listed(group, 50)} would share the file name {safe_name(group[0])!r}", remedy)
    paths = [key for key in distinct if is_path_like(key)]
    if paths:
        problems.add(where, f"{len(paths)} names look like paths: {listed(paths, 50)}", remedy)
