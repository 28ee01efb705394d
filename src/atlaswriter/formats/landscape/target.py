"""Whether LandscapeFiles may be written to a place."""

from __future__ import annotations

from pathlib import Path

from atlaswriter.errors import Problems
from atlaswriter.formats.landscape import layout
from atlaswriter.sinks.folder import check_target


def check_early(target: Path, *, force: bool, problems: Problems) -> None:
    """Everything that can be said about the target before the data is looked at."""
    check_target(target, force=force, foreign=foreign_entries, problems=problems)


def foreign_entries(directory: Path) -> list[str]:
    """What in a folder is not part of LandscapeFiles; everything when there are no parameters in it."""
    present = sorted(entry.name for entry in directory.iterdir())
    if layout.PARAMETERS not in present:
        return present
    return [name for name in present if not layout.is_part(name)]
