"""Whether LandscapeFiles may be written to a place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from atlaswriter.errors import Problems
from atlaswriter.formats.landscape import layout
from atlaswriter.sinks.folder import check_target


def check_early(target: Path, *, force: bool, problems: Problems) -> None:
    """Everything that can be said about the target before the data is looked at."""
    check_target(target, force=force, foreign=foreign_entries, problems=problems)


def check_place(target: Path, inputs: Iterable[tuple[str, object]], spill_dir: object, problems: Problems) -> None:
    """Refuse to write into, or to replace, what is read.

    Parameters
    ----------
    target
        The folder to write.
    inputs
        Options, and what may be paths of inputs.
    spill_dir
        Folder for temporary files, if one is given.
    problems
        What stands against it is added here.
    """
    sources = []
    for where, path in inputs:
        try:
            if isinstance(path, str | PathLike) and Path(path).exists():
                sources.append(Path(path).resolve())
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            problems.add(where, f"cannot be used ({error})", "check the path")
    places = [("out", target)] + ([("spill_dir", Path(spill_dir))] if isinstance(spill_dir, str | PathLike) else [])
    for where, place in places:
        inside = place.resolve()
        for source in sources:
            if source in (inside, *inside.parents):
                problems.add(where, f"{place} lies inside of the input {source}", "choose another folder")
            elif where == "out" and inside in source.parents:
                problems.add(
                    where, f"{place} holds the input {source}, which would be deleted", "choose another folder"
                )


def foreign_entries(directory: Path) -> list[str]:
    """What in a folder is not part of LandscapeFiles; everything when there are no parameters in it."""
    present = sorted(entry.name for entry in directory.iterdir())
    if layout.PARAMETERS not in present:
        return present
    known = layout.entries(_segmentations(directory / layout.PARAMETERS))
    return [name for name in present if name not in known and name != ".DS_Store"]


def _segmentations(parameters: Path) -> list[str]:
    """Names of the further segmentations that an export says it has."""
    try:
        found = json.loads(parameters.read_bytes())["segmentation_approach"]
        return [name for name in found if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
