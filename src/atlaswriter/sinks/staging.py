"""What appears all at once: staged beside its target, which stays on the same file system, then put in its place.

Everything a run leaves beside the target is named after it, so that the next run can clean up after one that
was killed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from atlaswriter.errors import OutputError, Problem, Problems, listed
from atlaswriter.sinks import fs
from atlaswriter.sinks.lock import WriterLock
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.units import format_bytes

logger = logging.getLogger(__name__)

# Longest file name of every usual file system, less what the longest name beside the target adds.
_MAX_NAME = 255 - len("..atlaswriter-old-01234567")

# A part that is empty, "." or ".."; what Windows takes for a separator or a drive; the end of a C string.
_LEADS_ELSEWHERE = re.compile(r"(^|/)\.{0,2}(/|$)|^[A-Za-z]:|[\\\0]")

# What most errors are about.
WRITING, CREATING = "cannot be written", "cannot be created"

# What was found, and its remedy.
Refusals = Iterator[tuple[str, str]]


def judge_target(target: Path, judge: Callable[[Path], Refusals], kind: str, problems: Problems) -> None:
    """Add to `problems` every reason against writing a target.

    Parameters
    ----------
    target
        What is to be written.
    judge
        Gives the reasons that lie in what is there already, and in its place.
    kind
        "folder" or "file".
    problems
        Every reason is added here.
    """
    try:
        place = fs.located(target)
        if len(os.fsencode(place.name)) > _MAX_NAME:
            problems.add(str(target), f"name is longer than {_MAX_NAME} bytes", "choose a shorter one")
            return
        for found, remedy in judge(place):
            problems.add(str(target), found, remedy)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        problems.add(str(target), f"cannot be used ({error})", f"choose another {kind}")


def parent_refusals(target: Path, kind: str) -> Refusals:
    """Why nothing can be created in the folder that the target is to be in."""
    parent = fs.nearest_existing(target.parent)
    if not parent.is_dir():
        yield f"{parent} is not a folder", f"choose another {kind}"
    elif not os.access(parent, os.W_OK | os.X_OK):
        yield f"{parent} is not writable", f"change its permissions, or choose another {kind}"


class StagedSink(ABC):
    """What every sink does: one writer at a time, staging, publication, cleaning.

    A context manager: leaving it without `publish` leaves the target, and everything around it,
    as it was.

    Parameters
    ----------
    target
        What is to be written.
    force
        Whether a target that is there already is replaced.
    spill_dir
        Folder for temporary files; None: beside the target.
    keep
        Whether run folders with a plan are left in place, until something is published: those that were found, and
        this one.

    Attributes
    ----------
    run
        Where everything waits.
    """

    kind: ClassVar[str]

    def __init__(self, target: Path, *, force: bool, spill_dir: Path | None = None, keep: bool = False) -> None:
        self.target = fs.located(target)
        self.force = force
        self._keep = keep
        self._spill_dir = spill_dir
        self._scratch: Path | None = None
        self.files: dict[str, int] = {}
        self.bytes_written = 0
        self._prefix = f".{self.target.name}.atlaswriter"
        self._own = self._sibling("")
        self.run = RunFolder(self._own)
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
            self._say_dropped()
            self._clean()
            self._refuse_occupied()
            self._open(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _open(self, undo: ExitStack) -> None:  # noqa: ARG002 - for other sinks
        """Create what is staged; `undo` is called when the context ends."""
        self.run.create()

    @abstractmethod
    def _occupied(self) -> bool:
        """Whether the target holds anything."""

    @abstractmethod
    def _refuse_occupied(self) -> None:
        """Raise `OutputError` if the target may not be replaced: it may have appeared, or come back, meanwhile."""

    @abstractmethod
    def _expected(self) -> Mapping[str, int]:
        """Bytes of every file that must be staged."""

    @abstractmethod
    def _make_durable(self) -> None:
        """Return when everything staged is on disk."""

    @abstractmethod
    def _put_in_place(self) -> None:
        """Give the target's name to what is staged."""

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
        expected = self._expected()
        with self._failing_as("cannot be verified"):
            staged = dict(fs.file_sizes(self.run.files))
        differences = [
            f"{name} (written: {_size(expected.get(name))}, on disk: {_size(staged.get(name))})"
            for name in sorted(expected.keys() | staged.keys())
            if expected.get(name) != staged.get(name)
        ]
        if differences:
            found = f"{len(differences)} staged files differ from what was written: {listed(differences, 5)}"
            raise OutputError(str(Problem(str(self.target), found, "check the disk, and run again")))

    def publish(self) -> None:
        """Verify, make durable, and put the new export in the place of the old one."""
        self.verify()
        with self._failing_as("cannot be published"):
            self._make_durable()
            self._put_in_place()
        with self._failing_as("is in place and complete, but may not survive a power failure"):
            for path in (self.target, *self._created):
                fs.sync_dir(path.parent)
        self._keep = False
        self._clean()

    def _note(self, relative: str, size: int) -> None:
        with self._guard:
            self.files[relative] = size
            self.bytes_written += size

    def _sibling(self, kind: str) -> Path:
        return self.target.with_name(f"{self._prefix}-{kind}{os.urandom(4).hex()}")

    def _siblings(self, kind: str) -> list[Path]:
        """Folders beside the target that `_sibling` has named, in this run or an earlier one."""
        pattern = re.compile(re.escape(f"{self._prefix}-{kind}") + "[0-9a-f]{8}")
        return [path for path in self.target.parent.iterdir() if pattern.fullmatch(path.name)]

    def _put_back(self) -> None:
        """Bring back an export that was set aside for a new one that never came."""
        aside = self._siblings("old-")
        if aside and not self._occupied():
            fs.rename(max(aside, key=lambda path: path.stat().st_ctime_ns), self.target)

    def _say_dropped(self) -> None:
        if not self._keep and any(RunFolder(path).plan.is_file() for path in self._siblings("")):
            logger.info("what an interrupted export had done is dropped; --resume would have gone on with it")

    def _clean(self) -> None:
        """Leave nothing beside the target; what belongs in its place is put there first."""
        with self._failing_as("cannot be put back"):
            self._put_back()
            # Without a lock, the staged files of others may be alive.
            staged = self._siblings("") if self._lock.held else [self._own]
            staged = [path for path in staged if not (self._keep and RunFolder(path).plan.exists())]
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

    @contextmanager
    def _failing_as(self, what: str, relative: str = "", needed: int = 0) -> Iterator[None]:
        """Turn an `OSError` into an `OutputError` with the path that the user knows."""
        with failing_as(what, self.target / relative, self.bytes_written + needed, self.kind):
            yield


def leads_elsewhere(relative: str) -> bool:
    """Whether a name may lead out of the export."""
    return _LEADS_ELSEWHERE.search(relative) is not None


def refuse_elsewhere(relative: str) -> None:
    """Raise `OutputError` for a name that leads out of the export: the last guard against them."""
    if leads_elsewhere(relative):
        raise OutputError(str(Problem(repr(relative), "does not name a file inside the export", "rename it")))


@contextmanager
def failing_as(what: str, path: Path, needed: int, kind: str) -> Iterator[None]:
    """Turn an `OSError` into an `OutputError`.

    Parameters
    ----------
    what
        What cannot be done.
    path
        Where, as the user knows it.
    needed
        Bytes that the disk must hold so far.
    kind
        "folder" or "file": what another disk is to be chosen for.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        found, remedy = f"{what} ({error.strerror or error})", ""
        if isinstance(error, FileExistsError) and what in (WRITING, CREATING):
            found += ": this name was written before"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            found += f": {format_bytes(needed)} needed so far"
            remedy = f"free space, or choose a {kind} on another disk"
        raise OutputError(str(Problem(str(path), found, remedy))) from error


def _size(size: int | None) -> str:
    return "no such file" if size is None else f"{size} bytes"
