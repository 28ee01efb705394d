"""What every part of an export shares while it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from atlaswriter.codecs import gzip, sparse_gzip
from atlaswriter.engine.run import Team
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.values import Encoded
from atlaswriter.progress import Progress
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.base import Array

# Largest share of rows besides the background that the sparse encoder takes. Measured on 200,000 cells
# with counts or gamma values, bytes and time relative to ISA-L: 7 % 0.79 and 0.5, 50 % 0.92 and 1.6,
# 90 % 1.00 and 2.5 (8 bit); 0.80 and 0.4, 0.95 and 1.1, 1.00 and 1.6 (16 bit). Single float32
# values repeat, which it does not see: they stay with ISA-L.
_SPARSE_SHARE = 0.5


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
        self._write(path, content, gzip.compress, 9)

    def write_small(self, path: str, content: Array, *, most: int = 9) -> None:
        """As `write`, compressed by zlib at the level of the options, or at `most` where that is lower."""
        self._write(path, content, gzip.compress_small, most)

    def _write(self, path: str, content: Array, compress: Callable[[Array, int], bytes], most: int) -> None:
        little = content.astype(content.dtype.newbyteorder("<"), copy=False)
        level = self.options.level
        self.sink.write(path, little if level is None else compress(little, min(level, most)))

    def write_values(self, path: str, encoded: Encoded) -> None:
        """Write one column; where its background is known, from its other rows alone."""
        content, rows = encoded.content, encoded.rows
        sparse = rows is not None and content.itemsize <= 2 and rows.size <= _SPARSE_SHARE * content.size
        if self.options.level is None or not sparse or sys.byteorder == "big":
            self.write(path, content)
        else:
            self.sink.write(path, sparse_gzip.compress(content, rows, encoded.background))
