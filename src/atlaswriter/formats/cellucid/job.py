"""What every part of an export shares while it is written."""

from __future__ import annotations

from dataclasses import dataclass

from atlaswriter.codecs import gzip
from atlaswriter.engine.run import Team
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.progress import Progress
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.base import Array


@dataclass(frozen=True)
class Job:
    """One export in progress."""

    n_cells: int
    options: Options
    team: Team
    sink: FolderSink
    progress: Progress

    def write(self, path: str, content: Array) -> None:
        """Write one payload (C-contiguous, little-endian), compressed as the options say."""
        little = content.astype(content.dtype.newbyteorder("<"), copy=False)
        level = self.options.level
        self.sink.write(path, little if level is None else gzip.compress(little, level))
