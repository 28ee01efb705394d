"""Files of one task: into the run folder that all tasks share, each file in one step.

The same task may run twice, also at the same time on two machines, or be killed at any moment: a file has its name only
when all of it is there, and running again puts the same one in its place.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atlaswriter.errors import OutputError, Problem
from atlaswriter.sinks import fs
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sinks.staging import CREATING, WRITING, failing_as, refuse_elsewhere


class TaskSink:
    """Writes files of some tasks; a context, which leaves no temporary files.

    Parameters
    ----------
    run
        The folder of the run.
    target
        What the export will be called.
    spill_dir
        Folder for temporary files that no other process needs; None: inside of the run folder.

    Raises
    ------
    OutputError
        From every method, whenever the disk stands in the way.
    """

    def __init__(self, run: RunFolder, target: Path, spill_dir: Path | None = None) -> None:
        self.run, self.target = run, target
        name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._own = run.tmp / name
        self._scratch = self._own / "scratch" if spill_dir is None else spill_dir / f"atlaswriter-{name}"
        self._guard = threading.Lock()
        self._numbers = iter(range(1 << 62))
        self.bytes_written = 0

    def __enter__(self) -> Self:
        with failing_as("cannot be written to", self.run.path, 0, "folder"):
            self.run.tmp.mkdir(exist_ok=True)
            self._own.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._failing_as("cannot be cleaned"):
            fs.remove_tree(self._scratch)
            fs.remove_tree(self._own)

    def make_dir(self, relative: str) -> None:
        """Create a folder, with its parents, if it is not there yet."""
        refuse_elsewhere(relative)
        with self._failing_as(CREATING, relative):
            path = self.run.files
            for part in Path(relative).parts:
                path /= part
                path.mkdir(exist_ok=True)
                if path.is_symlink():
                    raise OutputError(str(Problem(str(path), "is a symbolic link", "delete it")))

    def write(self, relative: str, *buffers: Any) -> int:
        """Write one file; name and buffers as of `FolderSink.write`."""
        refuse_elsewhere(relative)
        path = self._temporary()
        with self._failing_as(WRITING, relative, sum(memoryview(buffer).nbytes for buffer in buffers)):
            size = fs.write_file(path, buffers)
            fs.replace(path, self.run.files / relative)
        self._count(size)
        return size

    @contextmanager
    def create(self, relative: str) -> Iterator[Callable[[Any], None]]:
        """Write one file bit by bit, with the function that this context gives; it has its name at the end."""
        refuse_elsewhere(relative)
        path, size = self._temporary(), 0

        def write(buffer: Any) -> None:
            nonlocal size
            with self._failing_as(WRITING, relative, memoryview(buffer).nbytes):
                size += fs.append(descriptor, buffer)

        with self._failing_as(WRITING, relative):
            descriptor = fs.create(path)
        try:
            yield write
        finally:
            os.close(descriptor)
        with self._failing_as(WRITING, relative):
            fs.replace(path, self.run.files / relative)
        self._count(size)

    def scratch(self) -> Path:
        """A folder for temporary files of these tasks alone; removed when the context ends."""
        with self._failing_as("cannot be prepared"):
            self._scratch.mkdir(exist_ok=True)
        return self._scratch

    def make_durable(self, names: list[str]) -> None:
        """Return when these files, and their names, are on disk."""
        with self._failing_as("cannot be made durable"):
            fs.sync_files(self.run.files, names)

    def _temporary(self) -> Path:
        with self._guard:
            return self._own / str(next(self._numbers))

    def _count(self, size: int) -> None:
        with self._guard:
            self.bytes_written += size

    @contextmanager
    def _failing_as(self, what: str, relative: str = "", needed: int = 0) -> Iterator[None]:
        with failing_as(what, self.target / relative, self.bytes_written + needed, "folder"):
            yield
