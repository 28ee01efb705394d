"""Files of an export, wherever they are staged, and a view that knows what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from atlaswriter.codecs.crc import crc32


class Files(Protocol):
    """Takes the files of an export; several threads may call everything."""

    @property
    def target(self) -> Path:
        """What the export will be called."""

    def make_dir(self, relative: str) -> None:
        """Create a folder, with its parents, if it is not there yet."""

    def write(self, relative: str, *buffers: Any) -> int:
        """Write one file, of contiguous bytes-like objects; its bytes."""

    def create(self, relative: str) -> AbstractContextManager[Callable[[Any], None]]:
        """Write one file bit by bit, with the function that this context gives."""

    def scratch(self) -> Path:
        """A folder for temporary files."""


class Recorder:
    """Writes to others' files, and notes what.

    Parameters
    ----------
    files
        Where everything goes.

    Attributes
    ----------
    written
        Bytes and CRC-32 of each file, by its name.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.written: dict[str, tuple[int, int]] = {}

    @property
    def target(self) -> Path:
        """What the export will be called."""
        return self._files.target

    def make_dir(self, relative: str) -> None:
        """As of `Files`."""
        self._files.make_dir(relative)

    def write(self, relative: str, *buffers: Any) -> int:
        """As of `Files`."""
        size, crc = self._files.write(relative, *buffers), 0
        for buffer in buffers:
            crc = crc32(buffer, crc)
        self.written[relative] = size, crc
        return size

    @contextmanager
    def create(self, relative: str) -> Iterator[Callable[[Any], None]]:
        """As of `Files`."""
        size = crc = 0

        def add(buffer: Any) -> None:
            nonlocal size, crc
            write(buffer)
            size, crc = size + memoryview(buffer).nbytes, crc32(buffer, crc)

        with self._files.create(relative) as write:
            yield add
        self.written[relative] = size, crc

    def scratch(self) -> Path:
        """As of `Files`."""
        return self._files.scratch()
