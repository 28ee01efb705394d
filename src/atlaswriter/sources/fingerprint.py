"""What a file or folder is like, so that a change of it is noticed and named, without reading it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# Entries of a folder are told apart so deep: "X/data" of a Zarr store, "cells.parquet" of a bundle.
_DEPTH = 2
_UNKNOWN = "0 bytes, out of reach"


def fingerprint(path: Path) -> dict[str, str]:
    """Sizes and times of a file, or of what is in a folder.

    Parameters
    ----------
    path
        File or folder.

    Returns
    -------
    dict of str to str
        For a file ``{"": "SIZE bytes of TIME"}``; for a folder the same for each entry, as deep as two levels, with a
        digest of everything below it. What cannot be looked at is like nothing else.
    """
    if not path.is_dir():
        return {"": _state(path)}
    found: dict[str, list[str]] = {}
    for name, state in sorted(_walk(path)):
        found.setdefault("/".join(name.split("/")[:_DEPTH]), []).append(f"{name} {state}")
    return {key: _digest(lines) for key, lines in found.items()}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Entries that differ between two fingerprints, with what happened to them; "" is the file itself."""
    changed = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    return [f"{key} {_happened(key in before, key in now)}".strip() for key in sorted(changed)]


def _happened(before: bool, now: bool) -> str:
    return "was changed" if before and now else "is gone" if before else "is new"


def _walk(folder: Path, prefix: str = "", seen: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, str]]:
    """Names and states of all files below a folder; links are followed, but not to the folders that they are in."""
    try:
        own = folder.stat()
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        yield f"{prefix}.", _UNKNOWN
        return
    above = seen | {(own.st_dev, own.st_ino)}
    if len(above) == len(seen):
        return
    for entry in entries:
        if _is_dir(entry):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above)
        else:
            yield prefix + entry.name, _state(entry)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _state(file: Path | os.DirEntry[str]) -> str:
    try:
        stat = file.stat()
    except OSError:  # a link to nothing; whoever needs it will say so
        return _UNKNOWN
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def _digest(lines: list[str]) -> str:
    return f"{len(lines)} files {hashlib.sha256(chr(10).join(lines).encode(errors='surrogateescape')).hexdigest()}"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if there is nothing."""
    if not path.exists():
        return 0
    if not path.is_dir():
        return path.stat().st_size
    return sum(int(state.split()[0]) for _, state in _walk(path))
