"""A zip file that appears all at once.

It is staged in a folder beside the target and takes the target's name in one step, so that a reader sees the whole
old file or the whole new one, also when the process is killed.

Members follow each other as they are written. What their headers say of them is known last and is written over what
was reserved for it, so that every reader finds sizes and CRC in front of a member too, as old ones need.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from atlaswriter.codecs import ziprecords
from atlaswriter.codecs.crc import crc32, filled
from atlaswriter.codecs.gzip import segment
from atlaswriter.codecs.ziprecords import DEFLATED, STORED, Entry
from atlaswriter.errors import OutputError, Problem, Problems
from atlaswriter.sinks import fs
from atlaswriter.sinks.staging import Refusals, StagedSink, judge_target, parent_refusals, refuse_elsewhere

_OTHER = "choose another file"
_FORCE = f"pass force=True (--force) to replace it, or {_OTHER}"

# Content is deflated in pieces of this size, whatever the pieces it comes in, so that the bytes depend on it alone.
_SEGMENT = 1 << 20
_LEVEL = 6
_LAST_SEGMENT = b"\x03\0"  # an empty block, marked as the last


def check_target_file(target: Path, *, force: bool, problems: Problems) -> None:
    """Find out whether a file may be written to `target`, without touching the disk.

    Parameters
    ----------
    target
        The file to write.
    force
        Whether an existing file may be replaced.
    problems
        Every reason against it is added here.
    """
    judge_target(target, lambda place: _refusals(place, force=force), ArchiveSink.kind, problems)


def _refusals(target: Path, *, force: bool) -> Refusals:
    yield from _in_the_way(target, force=force)
    yield from parent_refusals(target, ArchiveSink.kind)


def _in_the_way(target: Path, *, force: bool) -> Refusals:
    """Why what has the target's name may not be replaced."""
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        yield "is a symbolic link", f"give the file itself ({os.path.realpath(target)}), or {_OTHER}"
    elif stat.S_ISDIR(mode):
        yield "is a folder", "give the name of a file"
    elif not stat.S_ISREG(mode):
        yield "is not an ordinary file", _OTHER
    elif not force:
        yield "already exists", _FORCE


class ArchiveSink(StagedSink):
    """Collects the members of one zip file and publishes it in one step.

    A context manager: leaving it without `publish` leaves the target, and everything around it,
    as it was. One thread writes, one member at a time; after an error in a member only leaving is possible.

    Parameters
    ----------
    target
        The file to write; judge it with `check_target_file` first.
    force
        Whether a file that is there already is replaced.
    spill_dir
        Folder for temporary files; None: beside the target.

    Attributes
    ----------
    files
        Bytes of each member in the file, without its headers, by its name.
    bytes_written
        Their sum.

    Raises
    ------
    OutputError
        From every method, whenever the disk or another writer stands in the way.
    """

    kind = "file"

    def __init__(self, target: Path, *, force: bool, spill_dir: Path | None = None) -> None:
        super().__init__(target, force=force, spill_dir=spill_dir)
        self._file = self.run.files / self.target.name
        self._descriptor = -1
        self._end = 0
        self._entries: list[Entry] = []
        self._current: Entry | None = None

    @property
    def zip64(self) -> list[str]:
        """Names of members that are too large, or too far behind, for readers that do not know Zip64."""
        return [entry.name for entry in self._entries if entry.zip64]

    @contextmanager
    def member(self, name: str, most: int) -> Iterator[Member]:
        """Write one member bit by bit, stored as it is.

        Parameters
        ----------
        name
            Its name in the archive, with forward slashes, not written before.
        most
            Bytes it will have at most.
        """
        with self._entry(name, STORED, roomy=most >= ziprecords.LIMIT) as entry:
            yield Member(entry, self._append, self._overwrite)

    def write(self, name: str, content: Iterable[Any]) -> int:
        """Write one member, deflated.

        Parameters
        ----------
        name
            Its name in the archive, with forward slashes, not written before.
        content
            Contiguous bytes-like objects; together of any size.

        Returns
        -------
        int
            Bytes it has in the file.
        """
        with self._entry(name, DEFLATED, roomy=True) as entry:
            for piece in _pieces(content):
                entry.crc = crc32(piece, entry.crc)
                entry.size += len(piece)
                self._append(entry, segment(piece, _LEVEL))
            self._append(entry, _LAST_SEGMENT)
        return entry.stored

    def _append(self, entry: Entry, buffer: Any) -> None:
        self._refuse_ended(entry)
        with self._failing_as("cannot be written", entry.name, entry.stored + memoryview(buffer).nbytes):
            n_bytes = fs.append(self._descriptor, buffer)
        entry.stored += n_bytes
        self._end += n_bytes

    def _overwrite(self, entry: Entry, buffer: bytes, place: int) -> None:
        """Write over header and first bytes of a member; `place` counts from the beginning of its header."""
        self._refuse_ended(entry)
        with self._failing_as("cannot be written", entry.name):
            fs.overwrite(self._descriptor, buffer, entry.offset + place)

    def publish(self) -> None:
        """Write the list of members, verify, make durable, and put the file in its place."""
        self._refuse_unfinished()
        with self._failing_as("cannot be published"):
            self._end += fs.append(self._descriptor, ziprecords.directory(self._entries, self._end))
        super().publish()

    @contextmanager
    def _entry(self, name: str, method: int, *, roomy: bool) -> Iterator[Entry]:
        self._refuse_unfinished()
        refuse_elsewhere(name)
        if name in self.files:
            raise OutputError(str(Problem(str(self.target / name), "this name was written before", "rename it")))
        entry = self._current = Entry(name, method, self._end, roomy)
        with self._failing_as("cannot be written", name):
            self._end += fs.append(self._descriptor, ziprecords.local_header(entry))
        yield entry
        self._overwrite(entry, ziprecords.local_header(entry), 0)
        self._entries.append(entry)
        self._note(name, entry.stored)
        self._current = None

    def _refuse_unfinished(self) -> None:
        if self._current:
            where = str(self.target / self._current.name)
            raise OutputError(str(Problem(where, "was not written to its end", "run again")))

    def _refuse_ended(self, entry: Entry) -> None:
        if entry is not self._current:
            raise ValueError(f"{entry.name}: this member has been ended")

    def _open(self, undo: ExitStack) -> None:
        super()._open(undo)
        self._descriptor = fs.create(self._file)
        undo.callback(self._abandon)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _abandon(self) -> None:
        with suppress(OSError):  # of a file that is deleted next
            self._close()

    def _occupied(self) -> bool:
        return os.path.lexists(self.target)

    def _refuse_occupied(self) -> None:
        for found, remedy in _in_the_way(self.target, force=self.force):
            raise OutputError(str(Problem(str(self.target), found, remedy)))

    def _expected(self) -> Mapping[str, int]:
        return {self._file.name: self._end}

    def _make_durable(self) -> None:
        fs.sync_file(self._file)
        self._close()  # Windows does not rename a file that is open

    def _put_in_place(self) -> None:
        self._refuse_occupied()
        if self.force:
            fs.replace(self._file, self.target)
            return
        try:
            fs.rename_new(self._file, self.target)
        except FileExistsError:
            self._refuse_occupied()
            raise


class Member:
    """A stored member that is being written.

    Attributes
    ----------
    size
        Its bytes so far.
    """

    def __init__(
        self, entry: Entry, append: Callable[[Entry, Any], None], overwrite: Callable[[Entry, bytes, int], None]
    ) -> None:
        self._entry = entry
        self._append = append
        self._overwrite = overwrite
        self._first = 0
        self._first_crc = 0

    @property
    def size(self) -> int:
        """Its bytes so far."""
        return self._entry.size

    def append(self, buffer: Any) -> int:
        """Write a contiguous bytes-like object behind what is there.

        Returns
        -------
        int
            Where in the member it begins.

        Raises
        ------
        ValueError
            The member becomes so much larger than was said that its header has no room for its size.
        """
        entry, n_bytes = self._entry, memoryview(buffer).nbytes
        begin = entry.size
        if begin + n_bytes >= ziprecords.LIMIT and not entry.roomy:
            raise ValueError(f"{entry.name}: {begin + n_bytes} bytes are more than it was said to have at most")
        self._append(entry, buffer)
        entry.crc = crc32(buffer, entry.crc)
        entry.size += n_bytes
        if not begin:
            self._first, self._first_crc = n_bytes, entry.crc
        return begin

    def fill(self, prefix: bytes) -> None:
        """Write over the first bytes of the member, once; the first `append` wrote zeros there, at least as many.

        Raises
        ------
        ValueError
            There are no such zeros.
        """
        if len(prefix) > self._first or crc32(bytes(self._first)) != self._first_crc:
            raise ValueError(f"{self._entry.name}: no {len(prefix)} zeros are there to be filled")
        self._overwrite(self._entry, prefix, len(ziprecords.local_header(self._entry)))
        self._entry.crc = filled(self._entry.crc, prefix, self._entry.size - len(prefix))
        self._first = 0


def _pieces(content: Iterable[Any]) -> Iterator[bytearray]:
    """Content in pieces of `_SEGMENT` bytes; the last one may be shorter."""
    held = bytearray()
    for buffer in content:
        rest = memoryview(buffer)
        if rest.nbytes:  # an empty array with several axes cannot be cast
            rest = rest.cast("B")
        while rest.nbytes:
            taken = rest[: _SEGMENT - len(held)]
            held += taken
            rest = rest[len(taken) :]
            if len(held) == _SEGMENT:
                yield held
                held = bytearray()
    if held:
        yield held
