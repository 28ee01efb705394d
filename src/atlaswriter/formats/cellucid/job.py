"""What every part of an export shares while it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.codecs import gzip, sparse_gzip
from atlaswriter.engine.columns import CodedColumns
from atlaswriter.engine.run import Team
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.payload import SEGMENT_BYTES, Payload
from atlaswriter.progress import Progress
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import Array

# Columns with a larger share of rows besides the background are compressed by ISA-L too, and the smaller
# file is taken. Measured on 200,000 cells with counts or gamma values, bytes relative to ISA-L:
# 7 % 0.79, 50 % 0.92, 90 % 1.00 (8 bit); 0.80, 0.95, 1.00 (16 bit).
SPARSE_SHARE = 0.5
# Compresses an array: as a whole file, or as a segment.
Encode = Callable[[Array, bool], Any]


@dataclass(frozen=True)
class Job:
    """One export in progress."""

    n_cells: int
    options: Options
    team: Team
    sink: Files
    progress: Progress

    def write(self, path: str, payload: Payload) -> None:
        """Write one payload, compressed as the options say."""
        self._write(path, payload, self.plain)

    def write_small(self, path: str, payload: Payload) -> None:
        """As `write`, each segment by whichever encoder makes it smallest; zlib is asked from level 7 on.

        Measured on the obs files of a Xenium atlas, relative to zlib 6: of counts and clusters the encoder of
        runs makes 0.95-0.98 of the bytes in a tenth of the time, of coordinates ISA-L 1.13 in a fifteenth.
        """
        self._write(path, payload, self._smallest)

    def _write(self, path: str, payload: Payload, encode: Encode) -> None:
        segments = payload.segments()
        if len(segments) > 1:
            with self._stream(path, encode) as add:
                for rows in segments:
                    add(payload.make(rows))
            return
        content = _little(payload.whole())
        self.sink.write(path, content if self.options.level is None else encode(content, False))
        self.progress.add(content.nbytes)

    @contextmanager
    def _stream(self, path: str, encode: Encode) -> Iterator[Callable[[Array], None]]:
        """Write one payload with the function that this context gives, which takes its segments in order."""
        stream = None if self.options.level is None else gzip.Stream()
        with self.sink.create(path) as write:

            def add(content: Array) -> None:
                little = _little(content)
                if stream is None:
                    write(little)
                else:
                    stream.add(little)
                    write(encode(little, True))
                self.progress.add(content.nbytes)

            if stream is not None:
                write(stream.header)
            yield add
            if stream is not None:
                write(stream.trailer())

    @contextmanager
    def growing(self, path: str, encode: Encode, dtype: np.dtype) -> Iterator[Callable[[Array], None]]:
        """Write one payload of unknown length with the function that this context gives, which takes blocks."""
        segment, filled = np.empty(SEGMENT_BYTES // dtype.itemsize, dtype), 0
        with ExitStack() as stack:
            add: Callable[[Array], None] | None = None

            def take(block: Array) -> None:
                nonlocal add, filled
                while block.size:
                    if filled == segment.size:
                        add = add or stack.enter_context(self._stream(path, encode))
                        add(segment)
                        filled = 0
                    part = block[: segment.size - filled]
                    segment[filled : filled + part.size] = part
                    filled, block = filled + part.size, block[part.size :]

            yield take
            if add is None:
                self._write(path, Payload.of(segment[:filled]), encode)
            else:
                add(segment[:filled])

    def plain(self, array: Array, is_segment: bool) -> bytes:
        """An array, or a segment of one, by ISA-L."""
        return (gzip.segment if is_segment else gzip.compress)(array, self._level)

    def repeats(self, array: Array, is_segment: bool) -> Any:
        """An array of runs, or a segment of one."""
        if not sparse_gzip.takes(array):
            return self.plain(array, is_segment)
        return (sparse_gzip.segment_repeats if is_segment else sparse_gzip.compress_repeats)(array)

    def _smallest(self, array: Array, is_segment: bool) -> Any:
        if not sparse_gzip.takes(array):
            return self.plain(array, is_segment)
        found = [self.repeats(array, is_segment), self.plain(array, is_segment)]
        if self._level > 6:
            found.append((gzip.segment_small if is_segment else gzip.compress_small)(array, self._level))
        return min(found, key=len)

    @property
    def _level(self) -> int:
        return self.options.level or 1

    def write_columns(self, paths: Sequence[str], columns: CodedColumns, whole: Callable[[int], Array]) -> None:
        """Write sparse columns, from their entries alone where that pays; ``whole(k)`` gives one in full."""
        level, backgrounds = self.options.level, columns.rules.backgrounds
        if level is None or not sparse_gzip.takes(backgrounds):
            for column, path in enumerate(paths):
                self.write(path, Payload.of(whole(column)))
            return
        files = sparse_gzip.compress(columns.entries, columns.offsets, self.n_cells, backgrounds, level)
        sizes = np.diff(columns.offsets)
        for column, (path, file) in enumerate(zip(paths, files, strict=True)):
            if sizes[column] > SPARSE_SHARE * self.n_cells:
                self.sink.write(path, min((file, gzip.compress(whole(column), level)), key=len))
            else:
                self.sink.write(path, file)
            self.progress.add(self.n_cells * backgrounds.itemsize)


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
