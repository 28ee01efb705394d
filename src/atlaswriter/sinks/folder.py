"""A folder of files that appears all at once.

Files are staged in a folder beside the target, which stays on the same file system. Publishing
swaps the two names in one step, so that a reader sees the whole old export or the whole new one,
also when the process is killed. Where a file system cannot swap (NFS, Lustre), the old export is
set aside for the moment between two renames; if the process dies in that moment, the next run
puts it back.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atlaswriter.errors import InputError, OutputError, Problem, Problems, listed
from atlaswriter.sinks import fs
from atlaswriter.sinks.lock import WriterLock
from atlaswriter.units import format_bytes

logger = logging.getLogger(__name__)

_OTHER = "choose another folder"
_FORCE = f"pass force=True (--force) to replace it, or {_OTHER}"

# Longest file name of every usual file system, less what the longest name beside the target adds.
_MAX_NAME = 255 - len("..atlaswriter-old-01234567")

# A part that is empty, "." or ".."; what Windows takes for a separator or a drive; the end of a C string.
_LEADS_ELSEWHERE = re.compile(r"(^|/)\.{0,2}(/|$)|^[A-Za-z]:|[\\\0]")


def target_path(out: Any, where: str) -> Path:
    """The output folder as a path."""
    if not isinstance(out, str | os.PathLike) or not os.fspath(out) or "\0" in str(out):
        raise InputError(Problem(where, f"{out!r} is not a path"))
    return Path(out)


def check_target(
    target: Path,
    *,
    force: bool,
    foreign: Callable[[Path], list[str]],
    problems: Problems,
) -> None:
    """Find out whether an export may be written to `target`, without touching the disk.

    Parameters
    ----------
    target
        The folder to write.
    force
        Whether an existing export may be replaced.
    foreign
        Names in a folder that are not part of an export, or show that it is none. Called only for
        a folder that would be replaced.
    problems
        Every reason against it is added here.
    """
    try:
        for found, remedy in _refusals(fs.located(target), force=force, foreign=foreign):
            problems.add(str(target), found, remedy)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        problems.add(str(target), f"cannot be used ({error})", _OTHER)


def _refusals(target: Path, *, force: bool, foreign: Callable[[Path], list[str]]) -> Iterator[tuple[str, str]]:
    if len(os.fsencode(target.name)) > _MAX_NAME:
        yield f"name is longer than {_MAX_NAME} bytes", "choose a shorter one"
        return
    if irreplaceable := _irreplaceable(target):
        yield irreplaceable, f"choose a folder inside it, such as {target / 'export'}"
        return
    if target.is_symlink():
        yield "is a symbolic link", f"give the folder itself ({os.path.realpath(target)}), or {_OTHER}"
    elif target.exists() and not target.is_dir():
        yield "is a file", _OTHER
    elif target.is_dir() and fs.occupied(target):
        if not force:
            yield "is not empty", _FORCE
        elif names := foreign(target):
            yield f"holds what replacing would delete: {listed(names)}", f"move that away, or {_OTHER}"
    parent = fs.nearest_existing(target.parent)
    if not parent.is_dir():
        yield f"{parent} is not a folder", _OTHER
    elif not os.access(parent, os.W_OK | os.X_OK):
        yield f"{parent} is not writable", f"change its permissions, or {_OTHER}"


def _irreplaceable(target: Path) -> str:
    """Why the folder must stay where it is; empty if it need not."""
    if not target.is_dir():
        return ""
    for what, place in _protected():
        if any(target.samefile(folder) for folder in (place, *place.parents)):
            return f"is or contains the {what} {place}"
    return "is a mount point, which cannot be replaced" if target.is_mount() else ""


def _protected() -> Iterator[tuple[str, Path]]:
    """Folders whose loss would be a disaster, as far as they are known."""
    for what, find in (("working directory", Path.cwd), ("home directory", Path.home)):
        with suppress(OSError, RuntimeError):  # deleted, out of reach or unknown
            place = find()
            place.stat()
            yield what, place


class FolderSink:
    """Collects the files of one export and publishes them in one step.

    A context manager: leaving it without `publish` leaves the target, and everything around it,
    as it was. `write` and `make_dir` may be called from many threads.

    Parameters
    ----------
    target
        The folder to write; judge it with `check_target` first.
    force
        Whether a target that is not empty is replaced.
    spill_dir
        Folder for temporary files; None: beside the target.

    Attributes
    ----------
    files
        Bytes of each file written, by its name relative to the target.
    bytes_written
        Their sum.

    Raises
    ------
    OutputError
        From every method, whenever the disk or another writer stands in the way.
    """

    def __init__(self, target: Path, *, force: bool, spill_dir: Path | None = None) -> None:
        self.target = fs.located(target)
        self.force = force
        self._spill_dir = spill_dir
        self._scratch: Path | None = None
        self.files: dict[str, int] = {}
        self.bytes_written = 0
        self._prefix = f".{self.target.name}.atlaswriter"
        self._staging = self._sibling("")
        self._lock = WriterLock(self.target.with_name(f"{self._prefix}.lock"), self.target)
        self._created: list[Path] = []
        self._guard = threading.Lock()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo, self._failing_as("cannot be prepared"):
            undo.callback(self._remove_created)
            self._create_parents()
            self._lock.acquire()
            undo.callback(self._lock.release)
            undo.callback(self._clean)
            self._clean()
            self._refuse_occupied()
            self._staging.mkdir()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def make_dir(self, relative: str) -> None:
        """Create a folder, with its parents, if it is not there yet."""
        path = self._staged(relative)
        with self._failing_as("cannot be created", relative):
            Path(path).mkdir(parents=True, exist_ok=True)

    def write(self, relative: str, *buffers: Any) -> int:
        """Write one file.

        Parameters
        ----------
        relative
            Its name relative to the target, with forward slashes. Its folder must exist, and
            the name must not have been written before.
        buffers
            Contiguous bytes-like objects, written one after the other.

        Returns
        -------
        int
            Bytes written.
        """
        path = self._staged(relative)
        try:
            size = fs.write_file(path, buffers)
        except OSError:
            needed = sum(memoryview(buffer).nbytes for buffer in buffers)
            with self._failing_as("cannot be written", relative, needed):
                raise
        self._note(relative, size)
        return size

    @property
    def staged(self) -> Path:
        """Folder in which the files wait, to read them back."""
        return self._staging

    @contextmanager
    def create(self, relative: str) -> Iterator[Callable[[Any], None]]:
        """Write one file bit by bit, with the function that this context gives; name and buffers as of `write`."""
        size = 0

        def write(buffer: Any) -> None:
            nonlocal size
            with self._failing_as("cannot be written", relative, size + memoryview(buffer).nbytes):
                size += fs.append(descriptor, buffer)

        with self._failing_as("cannot be written", relative):
            descriptor = fs.create(self._staged(relative))
        try:
            yield write
        finally:
            os.close(descriptor)
        self._note(relative, size)

    def _note(self, relative: str, size: int) -> None:
        with self._guard:
            self.files[relative] = size
            self.bytes_written += size

    def scratch(self) -> Path:
        """A new folder for temporary files, beside the target unless told otherwise; removed when the context ends.

        What a killed process left beside the target is removed by the next run.
        """
        with self._guard:
            if self._scratch is None:
                path = self._sibling("tmp-")
                path = path if self._spill_dir is None else self._spill_dir / path.name.lstrip(".")
                with self._failing_as("cannot be prepared"):
                    path.mkdir()
                    self._undo.callback(self._remove, path)
                self._scratch = path
        return self._scratch

    def verify(self) -> None:
        """Raise `OutputError` unless exactly the files written are staged, in full length."""
        with self._failing_as("cannot be verified"):
            staged = dict(fs.file_sizes(self._staging))
        differences = [
            f"{name} (written: {_size(self.files.get(name))}, on disk: {_size(staged.get(name))})"
            for name in sorted(self.files.keys() | staged.keys())
            if self.files.get(name) != staged.get(name)
        ]
        if differences:
            found = f"{len(differences)} staged files differ from what was written: {listed(differences, 5)}"
            raise OutputError(str(Problem(str(self.target), found, "check the disk, and run again")))

    def publish(self) -> None:
        """Verify, make durable, and put the new export in the place of the old one."""
        self.verify()
        with self._failing_as("cannot be published"):
            fs.sync_tree(self._staging)
            self._put_in_place()
        with self._failing_as("is in place and complete, but may not survive a power failure"):
            for folder in (self.target, *self._created):
                fs.sync_dir(folder.parent)
        self._clean()

    def _put_in_place(self) -> None:
        self._refuse_occupied()
        if not fs.occupied(self.target):
            fs.rename(self._staging, self.target)  # refused by the system if it was filled meanwhile
        elif not fs.exchange(self._staging, self.target):
            try:
                fs.rename(self.target, self._sibling("old-"))
                fs.rename(self._staging, self.target)
            except BaseException:
                self._put_back()
                raise

    def _refuse_occupied(self) -> None:
        """The target may have appeared, or come back, since it was checked."""
        if self.target.is_symlink():
            raise OutputError(str(Problem(str(self.target), "is a symbolic link", _OTHER)))
        if not self.force and fs.occupied(self.target):
            raise OutputError(str(Problem(str(self.target), "is not empty", _FORCE)))

    def _sibling(self, kind: str) -> Path:
        return self.target.with_name(f"{self._prefix}-{kind}{os.urandom(4).hex()}")

    def _siblings(self, kind: str) -> list[Path]:
        """Folders beside the target that `_sibling` has named, in this run or an earlier one."""
        pattern = re.compile(re.escape(f"{self._prefix}-{kind}") + "[0-9a-f]{8}")
        return [path for path in self.target.parent.iterdir() if pattern.fullmatch(path.name)]

    def _put_back(self) -> None:
        """Bring back an export that was set aside for a new one that never came."""
        aside = self._siblings("old-")
        if aside and not fs.occupied(self.target):
            fs.rename(max(aside, key=lambda path: path.stat().st_ctime_ns), self.target)

    def _clean(self) -> None:
        """Leave nothing beside the target; what belongs in its place is put there first."""
        with self._failing_as("cannot be put back"):
            self._put_back()
            # Without a lock, the staged files of others may be alive.
            staged = self._siblings("") if self._lock.held else [self._staging]
            spilled = self._siblings("tmp-") if self._lock.held else []
            leftovers = [*staged, *self._siblings("old-"), *spilled]
        for path in leftovers:
            self._remove(path)

    @staticmethod
    def _remove(folder: Path) -> None:
        try:
            fs.remove_tree(folder)
        except OSError as error:
            logger.warning("%s: left over, cannot be deleted (%s)", folder, error)

    def _create_parents(self) -> None:
        missing = [path for path in self.target.parents if not path.exists()]
        for path in reversed(missing):
            with suppress(FileExistsError):
                path.mkdir()
                self._created.append(path)

    def _remove_created(self) -> None:
        with suppress(OSError):  # not empty: published, or used by somebody else
            for path in reversed(self._created):
                path.rmdir()

    def _staged(self, relative: str) -> str:
        """Where a file is staged; the last guard against names that lead elsewhere."""
        if _LEADS_ELSEWHERE.search(relative):
            raise OutputError(str(Problem(repr(relative), "does not name a file inside the export", "rename it")))
        return f"{self._staging}/{relative}"  # a Path would cost a quarter of writing a small file

    @contextmanager
    def _failing_as(self, what: str, relative: str = "", needed: int = 0) -> Iterator[None]:
        """Turn an `OSError` into an `OutputError` with the path that the user knows."""
        try:
            yield
        except OutputError:
            raise
        except OSError as error:
            found, remedy = f"{what} ({error.strerror or error})", ""
            if relative and isinstance(error, FileExistsError):
                found += ": this name was written before"
            elif error.errno in (errno.ENOSPC, errno.EDQUOT):
                found += f": {format_bytes(self.bytes_written + needed)} needed so far"
                remedy = "free space, or choose a folder on another disk"
            raise OutputError(str(Problem(str(self.target / relative), found, remedy))) from error


def _size(size: int | None) -> str:
    return "no such file" if size is None else f"{size} bytes"
