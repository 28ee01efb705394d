"""Where the export goes, and what may be replaced there."""

from __future__ import annotations

from pathlib import Path

from atlaswriter.engine.resources import Resources
from atlaswriter.errors import Problems
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.sinks.folder import check_target


def check_early(options: Options, target: Path, resources: Resources, problems: Problems) -> None:
    """Everything that can be said before the data is looked at."""
    options.check(problems)
    resources.check(problems)
    if isinstance(options.force, bool):
        check_target(
            target, force=options.force, foreign=lambda path: foreign_entries(path, options.layout), problems=problems
        )


def foreign_entries(directory: Path, names: layout.Layout) -> list[str]:
    """What in a folder is not part of an export; everything when it is no export at all."""
    present = sorted(entry.name for entry in directory.iterdir())
    if not {layout.IDENTITY, names.obs_manifest, layout.Layout().obs_manifest} & set(present):
        return present
    return sorted(set(present) - names.entries() - layout.Layout().entries() - {".DS_Store"})
