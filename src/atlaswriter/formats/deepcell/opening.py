"""Zips that were written elsewhere, opened: finished projects, and what client and server send each other."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.formats.deepcell import layout
from atlaswriter.sources.archives import Archive, archive_kind
from atlaswriter.sources.files import File
from atlaswriter.sources.unpacked import Unpacker


def open_zip(path: str | PathLike[str], unpacker: Unpacker, what: str) -> Archive:
    """A zip file; `InputError`, which calls it `what`, for anything else."""
    if not isinstance(path, str | PathLike) or "\0" in str(path):
        raise InputError(Problem(what, f"{path!r} is not a path", "give a zip file"))
    file = File(Path(path))
    if archive_kind(file) != "zip":
        raise InputError(Problem(file.name, "is no zip file", f"give {what} as a zip file"))
    return Archive(file, unpacker)


def refuse_missing(archive: Archive, needed: tuple[str, ...]) -> None:
    """Refuse a zip file that lacks members."""
    missing = [name for name in needed if name not in archive.names]
    if missing:
        there = f"it holds {listed(archive.names)}" if archive.names else "it holds no files"
        raise InputError(Problem(archive.where, f"has no {listed(missing)}", there))


def tables(archive: Archive, names: tuple[str, ...], problems: Problems) -> dict[str, tuple[str, bytes]]:
    """Contents of those members that are there, as `Submission` has them."""
    there = [name for name in names if name in archive.names]
    found = {name: problems.attempt(archive.read_small, name, layout.MOST_TABLE_BYTES) for name in there}
    return {name: (f"{archive.where}: {name}", content) for name, content in found.items() if content is not None}
