"""Where an export waits until it is complete: what is done, and the proof of it.

A local run has its folder beside the target, hidden, for as long as it takes. A run in tasks has the one that the user
named, on a disk that all machines see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atlaswriter.sinks import fs

_STAGED = "files"


@dataclass(frozen=True)
class RunFolder:
    """Names inside of a run folder.

    Attributes
    ----------
    path
        The folder.
    """

    path: Path

    @property
    def files(self) -> Path:
        """Files of the export, as they will be published."""
        return self.path / _STAGED

    @property
    def journal(self) -> Path:
        """What is done."""
        return self.path / "journal"

    @property
    def plan(self) -> Path:
        """What is to be done, of what: JSON."""
        return self.path / "plan.json"

    @property
    def result(self) -> Path:
        """Report of a run in tasks that is finished: JSON."""
        return self.path / "finished.json"

    @property
    def parts(self) -> Path:
        """What tasks hand to later ones."""
        return self.path / "parts"

    @property
    def tmp(self) -> Path:
        """What is being written; whatever is found here when nobody runs is worth nothing."""
        return self.path / "tmp"

    def links(self) -> list[Path]:
        """What is a symbolic link instead of a folder or a file, and would lead elsewhere."""
        names = (self.files, self.journal, self.plan, self.result, self.parts, self.tmp)
        return [path for path in names if path.is_symlink()]

    def remove(self) -> None:
        """Delete the folder; whoever still writes finds nothing under its name, and puts nothing there."""
        gone = self.path.with_name(f"{self.path.name}-gone")
        fs.remove_tree(gone)
        if self.path.exists():
            fs.rename(self.path, gone)
            fs.remove_tree(gone)

    def create(self) -> None:
        """Make the folder, which must not exist."""
        self.path.mkdir()
        self.files.mkdir()
