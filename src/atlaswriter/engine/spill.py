"""Temporary files: frames of many parts, files that come into being in one step, and the memory and disk they take."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from atlaswriter.engine.regroup import ENTRY_BYTES
from atlaswriter.engine.rows import block_bytes, value_dtype, work_dtype
from atlaswriter.errors import OutputError, Problem
from atlaswriter.sinks import fs
from atlaswriter.sources.base import Compressed, RowChunks
from atlaswriter.units import format_bytes

# What may be said of a file that others have written.
CHANGED = "was changed"
_REMEDY = "choose another folder (spill_dir=, --spill-dir), or a larger memory budget"


class SpillFiles:
    """One temporary file for each part of the rows: where the frames of each range of genes begin, and the frames.

    A part is known by its first row.

    Parameters
    ----------
    folder
        Where they are written; it belongs to the caller, who removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise spill_error(folder, error, 0) from error
        self._parts: list[int] = []
        self._guard = threading.Lock()
        self.bytes_written = 0

    def parts(self) -> list[int]:
        """Numbers of the parts written, ascending."""
        return sorted(self._parts)

    def write(self, part: int, frames: list[bytes]) -> None:
        """Write the frames of one part."""
        # In the file, as many parts of many ranges would add up to gigabytes.
        table = np.cumsum([8 * (len(frames) + 1), *map(len, frames)], dtype=np.int64)
        try:
            with self._path(part).open("xb", buffering=0) as file:
                for content in (table.tobytes(), *frames):
                    _write_all(file.fileno(), content)
        except OSError as error:
            raise spill_error(self._folder, error, self.bytes_written + int(table[-1])) from error
        with self._guard:
            self._parts.append(part)
            self.bytes_written += int(table[-1])

    def read(self, part: int, frames: slice) -> list[bytes]:
        """Some consecutive frames of one part."""
        count = frames.stop - frames.start
        try:
            with self._path(part).open("rb", buffering=0) as file:
                table = np.frombuffer(self._fetch(file.fileno(), 8 * (count + 1), 8 * frames.start), "i8")
                if table[0] < 8 * (count + 1) or (np.diff(table) < 0).any():
                    raise self._changed()
                content = self._fetch(file.fileno(), int(table[-1] - table[0]), int(table[0]))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise self._changed(f"cannot be read ({error.strerror or error})") from error
        ends = (table - table[0]).tolist()
        return [content[start:end] for start, end in pairwise(ends)]

    def discard(self) -> None:
        """Delete all parts."""
        for part in self._parts:
            self._path(part).unlink()

    def _fetch(self, descriptor: int, size: int, offset: int) -> bytes:
        content = os.pread(descriptor, size, offset)
        if len(content) != size:
            raise self._changed("was cut short")
        return content

    def _changed(self, how: str = "was changed while it was needed") -> OutputError:
        return OutputError(str(Problem(str(self._folder), f"a temporary file {how}", "run again")))

    def _path(self, part: int) -> Path:
        return self._folder / f"rows-{part:012d}"


class NewFile:
    """A file that gets its name when all of it is there; a context.

    Until then it has a name that no other process uses. Whoever opens a file of its own name sees all of one that was
    written, however often, or at the same time by others.

    Parameters
    ----------
    path
        Its name; a file that has it already is replaced.

    Attributes
    ----------
    size
        Bytes written so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}-{os.urandom(8).hex()}")
        self.size = 0

    def __enter__(self) -> Self:
        with self._failing():
            self._descriptor = fs.create(self._temporary)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._failing():
            try:
                os.close(self._descriptor)
                if kind is None:
                    fs.replace(self._temporary, self._path)
            finally:
                self._temporary.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Write behind what is there."""
        with self._failing():
            self.size += len(content)
            _write_all(self._descriptor, content)

    def restart(self) -> None:
        """Forget what was written."""
        with self._failing():
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size = 0

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise spill_error(self._path.parent, error, self.size) from error


class WrittenFile:
    """A file of `NewFile`, as others see it; it is opened anew each time.

    Parameters
    ----------
    path
        Its name.
    remedy
        What helps where it cannot be used.
    """

    def __init__(self, path: Path, remedy: str) -> None:
        self._path, self._remedy = path, remedy

    def damaged(self, how: str = CHANGED) -> OutputError:
        """What to say of a damaged file; it is deleted, so that its task counts as not done."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        return self._wrong(how)

    def _wrong(self, how: str) -> OutputError:
        return OutputError(str(Problem(str(self._path), f"this temporary file {how}", self._remedy)))

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            with self._path.open("rb", buffering=0) as file:
                yield file.fileno()
        except FileNotFoundError as error:
            raise self._wrong("is missing") from error
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise self._wrong(f"cannot be read ({error.strerror or error})") from error

    def _fetch(self, descriptor: int, size: int, offset: int) -> bytes:
        content = os.pread(descriptor, size, offset) if min(offset, size) >= 0 else b""
        if len(content) != size:
            raise self.damaged("was cut short")
        return content


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def refuse_full_disk(folder: Path, size: int) -> None:
    """Raise `OutputError` unless about `size` bytes of temporary files fit on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        found = f"about {format_bytes(size)} of temporary files are needed, {format_bytes(free)} are free"
        raise OutputError(str(Problem(str(folder), found, _REMEDY)))


def spill_error(folder: Path, error: OSError, needed: int) -> OutputError:
    """What to say when a temporary file cannot be written."""
    found = f"temporary files cannot be written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        found += f": {format_bytes(needed)} needed so far"
    return OutputError(str(Problem(str(folder), found, _REMEDY)))


def writing_room(matrix: Compressed | RowChunks, workers: int, part_entries: int) -> int:
    """Bytes that sorting rows takes (`parts.write_shares`), with a part of so many entries in each thread."""
    return workers * (block_bytes(matrix, part_entries) + part_entries * part_bytes(matrix))


def reading_room(matrix: Compressed | RowChunks, workers: int, part_entries: int, range_entries: int) -> int:
    """Bytes that bringing genes back takes at most (`sorted.SortedGenes`), without what is done with them.

    One thread reads the largest gene, which may be in every cell, and all of a part; the others a range each. Where
    there is only room for one thread, they wait for each other.
    """
    entries = matrix.nnz if isinstance(matrix, Compressed) else matrix.entries
    largest = max(min(matrix.shape[0], entries), range_entries)
    held = (largest + (workers - 1) * range_entries) * ENTRY_BYTES
    return held + part_entries * frame_bytes(work_dtype(value_dtype(matrix)))


def part_bytes(matrix: Compressed | RowChunks) -> int:
    """Bytes of an entry in a part that is being written: gap and value, and both as packed."""
    return 2 * (4 + work_dtype(value_dtype(matrix)).itemsize)


def frame_bytes(dtype: np.dtype) -> int:
    """Bytes of an entry of the frames being read: gap and value as stored, as planes and as numbers."""
    return 3 * (4 + dtype.itemsize)
