"""One writer per target: a lock file beside it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from atlaswriter.errors import OutputError, Problem

logger = logging.getLogger(__name__)

# Answers of file systems without locks, such as NFS without its lock daemon or Lustre mounted without "flock".
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class WriterLock:
    """Keeps a second writer out for as long as this process lives or until `release`.

    Parameters
    ----------
    path
        The lock file. Created by `acquire`, deleted by `release`.
    target
        What is being written, for the message.

    Attributes
    ----------
    held
        False where the file system has no locks: the work goes on, but nothing is known of others.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self.held = False
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock, or raise `OutputError` at once if somebody else has it."""
        while True:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock()
                if self._is_current():
                    return
            except BaseException:
                self._close()
                raise
            self._close()

    def release(self) -> None:
        """Delete the lock file and let go of it."""
        if os.name == "nt":  # an open file cannot be deleted, nor one that another writer has opened
            self._close()
        with suppress(OSError):
            self.path.unlink()
        if os.name != "nt":
            self._close()

    def _lock(self) -> None:
        try:
            _lock(self._descriptor)
            self.held = True
        except (BlockingIOError, PermissionError) as error:
            problem = Problem(str(self.target), "another process is writing here", "wait until it has ended")
            raise OutputError(str(problem)) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            logger.warning("%s: no file locks here (%s); make sure nobody else writes it", self.target, error.strerror)

    def _is_current(self) -> bool:
        """Whether the locked file is still the one under the name: its last holder may have deleted it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        os.close(self._descriptor)
        self.held = False
