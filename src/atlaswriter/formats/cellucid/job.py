"""What every part of an export shares while it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from atlaswriter.codecs import gzip, sparse_gzip
from atlaswriter.engine.regroup import CodedColumns
from atlaswriter.engine.run import Team
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.progress import Progress
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.base import Array

# Columns with a larger share of rows besides the background are compressed by ISA-L too, and the smaller
# file is taken. Measured on 200,000 cells with counts or gamma values, bytes relative to ISA-L:
# 7 % 0.79, 50 % 0.92, 90 % 1.00 (8 bit); 0.80, 0.95, 1.00 (16 bit).
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
        """Write one payload (C-contiguous), compressed as the options say."""
        little = content.astype(content.dtype.newbyteorder("<"), copy=False)
        level = self.options.level
        self.sink.write(path, little if level is None else gzip.compress(little, level))

    def write_repeats(self, path: str, content: Array) -> None:
        """As `write`, of elements that are runs."""
        if self.options.level is None or not sparse_gzip.takes(content):
            self.write(path, content)
        else:
            self.sink.write(path, sparse_gzip.compress_repeats(content))

    def write_small(self, path: str, content: Array) -> None:
        """As `write`, by whichever encoder makes it smallest; zlib is asked from level 7 on.

        Measured on the obs files of a Xenium atlas, relative to zlib 6: of counts and clusters the encoder of
        runs makes 0.95-0.98 of the bytes in a tenth of the time, of coordinates ISA-L 1.13 in a fifteenth.
        """
        level = self.options.level
        if level is None or not sparse_gzip.takes(content):
            self.write(path, content)
            return
        files = [sparse_gzip.compress_repeats(content), gzip.compress(content, level)]
        if level > 6:
            files.append(gzip.compress_small(content, level))
        self.sink.write(path, min(files, key=len))

    def write_columns(self, paths: Sequence[str], columns: CodedColumns, whole: Callable[[int], Array]) -> None:
        """Write sparse columns, from their entries alone where that pays; ``whole(k)`` gives one in full."""
        level, backgrounds = self.options.level, columns.rules.backgrounds
        if level is None or not sparse_gzip.takes(backgrounds):
            for column, path in enumerate(paths):
                self.write(path, whole(column))
            return
        files = sparse_gzip.compress(columns.entries, columns.offsets, self.n_cells, backgrounds, level)
        sizes = np.diff(columns.offsets)
        for column, (path, file) in enumerate(zip(paths, files, strict=True)):
            if sizes[column] > _SPARSE_SHARE * self.n_cells:
                self.sink.write(path, min(file, gzip.compress(whole(column), level), key=len))
            else:
                self.sink.write(path, file)
