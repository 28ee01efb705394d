"""Files, and parts of files such as the members of an archive, read by any number of threads."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

from atlaswriter.errors import InputError, Problem


class File:
    """A file, or a part of one, that several threads read at places of their own; closed when nobody holds it.

    Parameters
    ----------
    path
        Where it is.
    offset, size
        The part: where it begins, and its bytes (None: all that follow).
    name
        What messages call it, such as ``"labels.zip: y.npy"``; by default the path.

    Attributes
    ----------
    path, offset, size, name
        As above.
    """

    def __init__(self, path: Path, offset: int = 0, size: int | None = None, name: str | None = None) -> None:
        self.path, self.offset = path, offset
        self.name = str(path) if name is None else name
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            raise InputError(Problem(self.name, f"cannot be read ({reason})", "check the path")) from error
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size - offset if size is None else size
        self._lock = threading.Lock()

    def part(self, offset: int, size: int, name: str) -> File:
        """A part of this file."""
        return File(self.path, self.offset + offset, size, name)

    def ready(self) -> None:
        """Return when all of it can be read by others through its path; at once, for a file on disk."""

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of the file, all of them or an `OSError`."""
        if offset < 0 or offset + size > self.size:
            raise OSError("the file is truncated")
        offset += self.offset
        if hasattr(os, "pread"):
            content = os.pread(self._descriptor, size, offset)
        else:  # Windows
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                content = os.read(self._descriptor, size)
        if len(content) < size:
            raise OSError("the file is truncated")
        return content
