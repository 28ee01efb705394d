"""Compressed members of archives, read from front to back without a temporary file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from atlaswriter.codecs.crc import crc32
from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.files import File

# Kept of what was inflated, for threads that are behind. With 2 workers they are 5 blocks of some 512 KiB apart.
WINDOW = 32 << 20

# What comes at once, at most.
_PIECE_BYTES = 1 << 20

# An array is looked through once and then written; whoever begins more often reads in another order.
_MOST_PASSES = 2

_CUT_SHORT = "the file is damaged or incomplete: copy or write it again"


class Streamed(File):
    """A compressed member of an archive, which several threads read from front to back, and then again.

    Whoever asks for what follows inflates it, and the last bytes are kept for the others. Where somebody asks for what
    is gone, inflating begins again; where that happens often, or where others need a file (`ready`, `part`), all of it
    is unpacked.

    Parameters
    ----------
    pieces
        Gives its content from the beginning, in pieces smaller than the window.
    size, crc
        What the archive says of it.
    name
        What messages call it.
    unpack
        Gives all of it as a file.

    Attributes
    ----------
    path, offset
        Known when it is `ready`.
    """

    def __init__(
        self, pieces: Callable[[], Iterator[bytes]], size: int, crc: int | None, name: str, unpack: Callable[[], File]
    ) -> None:
        self.path, self.offset, self.size, self.name = Path(name), 0, size, name
        self._pieces, self._expected, self._unpack = pieces, crc, unpack
        self._turn = threading.Lock()
        self._whole: File | None = None
        self._verified = False
        # Byte `n` of the content is at ``n % size`` of it. Pieces kept as they come are in heaps of each thread, whose
        # gaps took 20 MiB more (a movie of 134 MB and 268 MB of labels, 2 threads).
        self._window = np.empty(0, np.uint8)
        self._begin()
        self._passes = 0

    def _begin(self) -> None:
        self._coming = self._pieces()
        self._end = self._crc = 0

    def part(self, offset: int, size: int, name: str) -> File:
        """A part of this file."""
        return self._unpacked().part(offset, size, name)

    def ready(self) -> None:
        """Return when all of it can be read by others through its path."""
        whole = self._unpacked()
        whole.ready()
        self.path, self.offset = whole.path, whole.offset

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of the file, all of them or an `OSError`; `InputError` where it is damaged."""
        if offset < 0 or offset + size > self.size:
            raise OSError("the file is truncated")
        with self._turn:
            if self._whole is None:
                found = self._streamed(offset, size)
                if found is not None:
                    return found
        return self._unpacked().read(offset, size)

    def verify(self) -> None:
        """Read what nobody has read to its end; `InputError` where size or CRC are not as they should be."""
        with self._turn:
            while self._whole is None and not self._verified:
                if self._end < self.size:
                    self._grow()
                else:
                    self._finish()

    def close(self) -> None:
        """Let go of everything; reading fails from then on."""
        with self._turn:
            self._coming, self._pieces, self._unpack = _nothing(), _nothing, self._refuse
            self._window = np.empty(0, np.uint8)

    def _refuse(self) -> File:
        raise InputError(Problem(self.name, "was closed while it was still read"))

    def _streamed(self, offset: int, size: int) -> bytes | None:
        """The bytes; None when it must be unpacked for them."""
        if offset < self._end - self._window.size:
            self._passes += 1
            if self._passes >= _MOST_PASSES:
                return None
            self._begin()
        if size + _PIECE_BYTES <= self._window.size:
            while self._end < offset + size:
                self._grow()
            place = offset % self._window.size
            until_edge = min(size, self._window.size - place)
            window = self._window.data
            return b"".join((window[place : place + until_edge], window[: size - until_edge]))
        out = np.empty(size, np.uint8)
        done = 0
        while done < size:
            if offset + done >= self._end:
                self._grow()
                continue
            place = (offset + done) % self._window.size
            count = min(size - done, self._end - offset - done, self._window.size - place)
            out[done : done + count] = self._window[place : place + count]
            done += count
        return out.tobytes()

    def _grow(self) -> None:
        """Inflate the next piece, and forget what lies outside of the window."""
        piece = next(filter(None, self._coming), b"")
        start, self._end, self._crc = self._end, self._end + len(piece), crc32(piece, self._crc)
        if not piece:
            raise self._damaged(f"ends after {self._end} of {self.size} bytes")
        if self._end > self.size:
            raise self._damaged(f"goes on after the {self.size} bytes as its archive says")
        if not self._window.size:
            self._window = np.empty(min(WINDOW, self.size), np.uint8)
        content, place = np.frombuffer(piece, np.uint8), start % self._window.size
        until_edge = self._window.size - place
        self._window[place : place + len(piece)] = content[:until_edge]
        self._window[: max(len(piece) - until_edge, 0)] = content[until_edge:]
        if self._end == self.size:
            self._finish()

    def _finish(self) -> None:
        """The last bytes are given out only when it is known that all are right."""
        if any(self._coming):
            raise self._damaged(f"goes on after the {self.size} bytes as its archive says")
        if self._expected is not None and self._crc != self._expected:
            raise self._damaged(f"has the CRC {self._crc:08x}, its archive says {self._expected:08x}")
        self._verified = True

    def _damaged(self, found: str) -> InputError:
        return InputError(Problem(self.name, found, _CUT_SHORT))

    def _unpacked(self) -> File:
        with self._turn:
            if self._whole is None:
                self._whole = self._unpack()
                self._coming, self._window = _nothing(), np.empty(0, np.uint8)
            return self._whole


def _nothing() -> Iterator[bytes]:
    return iter(())
