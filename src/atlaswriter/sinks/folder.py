"""A folder of files that appears all at once.

Files are staged in a folder beside the target, which stays on the same file system. Publishing
swaps the two names in one step, so that a reader sees the whole old export or the whole new one,
also when the process is killed. Where a file system cannot swap (NFS, Lustre), the old export is
set aside for the moment between two renames; if the process dies in that moment, the next run
puts it back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from atlaswriter.errors import InputError, OutputError, Problem, Problems, listed
from atlaswriter.sinks import fs
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sinks.staging import (
    CREATING,
    WRITING,
    Refusals,
    StagedSink,
    judge_target,
    parent_refusals,
    refuse_elsewhere,
)

_OTHER = "choose another folder"
_FORCE = f"pass force=True (--force) to replace it, or {_OTHER}"


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
    judge_target(target, lambda place: _refusals(place, force=force, foreign=foreign), FolderSink.kind, problems)


def _refusals(target: Path, *, force: bool, foreign: Callable[[Path], list[str]]) -> Refusals:
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
    yield from parent_refusals(target, FolderSink.kind)


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


class FolderSink(StagedSink):
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
    keep
        Whether run folders with a plan are left in place, until something is published: those that were found, and
        this one.

    Attributes
    ----------
    run
        Where everything waits.
    files
        Bytes of each file written, by its name relative to the target.
    bytes_written
        Their sum.

    Raises
    ------
    OutputError
        From every method, whenever the disk or another writer stands in the way.
    """

    kind = "folder"

    def make_dir(self, relative: str) -> None:
        """Create a folder, with its parents, if it is not there yet."""
        path = self._staged(relative)
        with self._failing_as(CREATING, relative):
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
            with self._failing_as(WRITING, relative, needed):
                raise
        self._note(relative, size)
        return size

    @property
    def staged(self) -> Path:
        """Folder in which the files wait, to read them back."""
        return self.run.files

    @property
    def exclusive(self) -> bool:
        """Whether it is certain that nobody else writes this target."""
        return self._lock.held

    def failing(self, what: str) -> AbstractContextManager[None]:
        """Turns an `OSError` of what is done inside into an `OutputError`."""
        return self._failing_as(what)

    def interrupted(self) -> list[RunFolder]:
        """Run folders that interrupted runs have left, the latest first."""
        found = [RunFolder(path) for path in self._siblings("") if path != self.run.path and not path.is_symlink()]
        own = [run for run in found if not run.links()]
        return sorted(own, key=lambda run: run.path.stat().st_mtime_ns, reverse=True)

    def adopt(self, run: RunFolder, files: Mapping[str, int]) -> None:
        """Go on with what another run has staged, on the same disk; what is not among `files` is deleted.

        Parameters
        ----------
        run
            The folder of that run; none of its `links` is there.
        files
            Bytes of each file, by its name, that is as it was written.
        """
        with self._failing_as("cannot be continued"):
            for name, _ in list(fs.file_sizes(run.files)):
                if name not in files:
                    (run.files / name).unlink()
        self._remove(self.run.path)
        self.run = run
        self.files = dict(files)
        self.bytes_written = sum(files.values())

    @contextmanager
    def create(self, relative: str) -> Iterator[Callable[[Any], None]]:
        """Write one file bit by bit, with the function that this context gives; name and buffers as of `write`."""
        size = 0

        def write(buffer: Any) -> None:
            nonlocal size
            with self._failing_as(WRITING, relative, size + memoryview(buffer).nbytes):
                size += fs.append(descriptor, buffer)

        with self._failing_as(WRITING, relative):
            descriptor = fs.create(self._staged(relative))
        try:
            yield write
        finally:
            os.close(descriptor)
        self._note(relative, size)

    def _occupied(self) -> bool:
        return fs.occupied(self.target)

    def _refuse_occupied(self) -> None:
        """The target may have appeared, or come back, since it was checked."""
        if self.target.is_symlink():
            raise OutputError(str(Problem(str(self.target), "is a symbolic link", _OTHER)))
        if not self.force and fs.occupied(self.target):
            raise OutputError(str(Problem(str(self.target), "is not empty", _FORCE)))

    def _expected(self) -> Mapping[str, int]:
        return self.files

    def _make_durable(self) -> None:
        fs.sync_tree(self.run.files)

    def _put_in_place(self) -> None:
        self._refuse_occupied()
        if not fs.occupied(self.target):
            fs.rename(self.run.files, self.target)  # refused by the system if it was filled meanwhile
        elif not fs.exchange(self.run.files, self.target):
            try:
                fs.rename(self.target, self._sibling("old-"))
                fs.rename(self.run.files, self.target)
            except BaseException:
                self._put_back()
                raise

    def _staged(self, relative: str) -> str:
        """Where a file is staged."""
        refuse_elsewhere(relative)
        return f"{self.run.files}/{relative}"  # a Path would cost a quarter of writing a small file
