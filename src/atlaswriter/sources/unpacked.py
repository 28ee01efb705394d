"""Compressed content that threads unpack into temporary files, which can be read while they grow."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import mkstemp
from types import ModuleType

from atlaswriter.codecs.crc import crc32
from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.streamed import WINDOW, Streamed
from atlaswriter.units import format_bytes

_codec: ModuleType
try:
    # Of 67 MB of 16-bit noise (43 MB deflated), one core: 540 MB/s, zlib 245; pieces of 64 KiB to 1 MiB are the same.
    from isal import isal_zlib

    _codec = isal_zlib
except ImportError:  # no wheel for this machine
    _codec = zlib

RAW, GZIP = -zlib.MAX_WBITS, 16 + zlib.MAX_WBITS

# What deflate can make of a byte is at most 1032 (RFC 1951: 258 bytes in 2 bits); such content is not believed.
MOST_TIMES = 1100

_READ_BYTES, _PIECE_BYTES = 1 << 18, 1 << 20

# Left free on the disk where it is not known how much will be unpacked, and how often that is looked at.
_LEFT_FREE, _LOOK_EVERY = 256 << 20, 64 << 20

# Image and segmentation are unpacked at the same time.
_THREADS = 2

_CUT_SHORT = "the file is damaged or incomplete: copy or write it again"
_NO_ROOM = "free some space, or choose another folder for temporary files"
_CLOSED = "was closed while it was still read"

Pieces = Callable[[], Iterator[bytes]]


def inflated(file: File, wbits: int = RAW) -> Iterator[bytes]:
    """Content of a compressed file, in pieces of at most 1 MiB.

    Parameters
    ----------
    file
        It, or the part of an archive.
    wbits
        `RAW`: one raw DEFLATE stream; `GZIP`: any number of gzip members.

    Raises
    ------
    InputError
        It is damaged or cut short.
    """
    with translated_damage(file.name, file.path.name):
        try:
            yield from _inflated(file, wbits)
        except _codec.error as error:
            raise ValueError(str(error)) from error


def _inflated(file: File, wbits: int) -> Iterator[bytes]:
    offset, end = 0, file.size
    decoder = _codec.decompressobj(wbits)
    rest = b""
    while offset < end or rest:
        content = rest or file.read(offset, min(_READ_BYTES, end - offset))
        offset += 0 if rest else len(content)
        if decoder.eof:
            decoder = _codec.decompressobj(wbits)
        while content:
            yield decoder.decompress(content, _PIECE_BYTES)
            content = decoder.unconsumed_tail
        # ISA-L may have taken all input and still hold some output.
        while not decoder.eof and (piece := decoder.decompress(b"", _PIECE_BYTES)):
            yield piece
        rest = decoder.unused_data if decoder.eof else b""
        if decoder.eof and wbits == RAW and (rest or offset < end):
            raise ValueError("something follows the end of its compressed data")
    if not decoder.eof:
        raise ValueError("its compressed data is cut short")


class Unpacking:
    """A file that is being unpacked: how far it has grown, for the thread that writes it and those that read it.

    Attributes
    ----------
    name
        What messages call it.
    most
        Bytes beyond which it is refused.
    size
        Bytes that can be read.
    """

    def __init__(self, path: Path, name: str, most: int) -> None:
        self._path, self.name, self.most = path, name, most
        self.size = 0
        self._whole = False
        self._problems: tuple[Problem, ...] = ()
        self._changed = threading.Condition()

    def _tell(self, size: int, *, whole: bool = False, problems: tuple[Problem, ...] = ()) -> None:
        with self._changed:
            if not self.over:
                self.size, self._whole, self._problems = size, whole, problems
            self._changed.notify_all()

    def open(self) -> Unpacked:
        """The file."""
        return Unpacked(self._path, self, 0, self.most, self.name)

    def grow(self, size: int) -> None:
        """Tell that so many bytes can be read."""
        self._tell(size)

    def end(self, size: int) -> None:
        """Tell that all of them can be read."""
        self._tell(size, whole=True)

    def fail(self, *problems: Problem) -> None:
        """Tell what went wrong."""
        self._tell(self.size, problems=problems)

    def wait(self, size: int | None = None) -> int:
        """Wait until it has this size, or is whole (None); the size it has, less than that where it is whole."""
        with self._changed:
            self._changed.wait_for(lambda: self.over or (size is not None and self.size >= size))
            if self._problems:
                raise InputError(self._problems)
            return self.size

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._whole or bool(self._problems)


class Unpacked(File):
    """A temporary file, or a part of one, that may still be growing; `Unpacking.open` makes it.

    Reading waits for the bytes that are asked for. Whatever went wrong with the unpacking is raised there.
    """

    def __init__(self, path: Path, growth: Unpacking, offset: int, size: int, name: str) -> None:
        super().__init__(path, offset, size, name)
        self._growth = growth

    def part(self, offset: int, size: int, name: str) -> File:
        """A part of this file."""
        return Unpacked(self.path, self._growth, self.offset + offset, size, name)

    def available(self, end: int) -> int:
        """Wait until there are bytes up to `end`; bytes there are then, fewer where the content ends earlier."""
        return min(self._growth.wait(self.offset + min(end, self.size)) - self.offset, self.size)

    def ready(self) -> None:
        """Return when all of it can be read by others through its path."""
        self._growth.wait()

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of the file, all of them or an `OSError`; `InputError` where they could not be unpacked."""
        self._growth.wait(self.offset + min(offset + size, self.size))
        return super().read(offset, size)


class Unpacker:
    """Threads that unpack into temporary files: a context manager, which ends them and removes the files.

    Parameters
    ----------
    scratch
        Gives the folder for these files; called when the first is needed.
    """

    def __init__(self, scratch: Callable[[], Path]) -> None:
        self._scratch = scratch
        self._pool = ThreadPoolExecutor(_THREADS, "unpack")
        self._closed = threading.Event()
        self._growing: list[Unpacking] = []
        self._streams: weakref.WeakSet[Streamed] = weakref.WeakSet()
        self._paths: list[Path] = []
        self._promised = 0  # bytes that will be written yet
        self._guard = threading.Lock()

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads, within a piece of their work, and remove what they wrote."""
        self._closed.set()
        for stream in self._streams:
            stream.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for growth in self._growing:
            growth.fail(Problem(growth.name, _CLOSED))
        self._pool.shutdown(wait=True)
        for path in self._paths:
            with suppress(OSError):  # the folder's owner removes what is left
                path.unlink()
        self._paths.clear()

    @property
    def folder(self) -> Path:
        """The folder for temporary files."""
        return self._scratch()

    def own(self, path: Path) -> Path:
        """A temporary file, which is removed at the end."""
        self._paths.append(path)
        return path

    def unpack(
        self, pieces: Pieces, name: str, most: int, *, size: int | None = None, crc: int | None = None
    ) -> Unpacking:
        """Begin to write content to a temporary file.

        Parameters
        ----------
        pieces
            Gives it, called in the thread.
        name
            What messages call it.
        most
            Bytes beyond which it is refused.
        size, crc
            Its bytes and CRC-32 where they are known: content of any other is refused, after its last byte.

        Raises
        ------
        InputError
            There is no room for it.
        """
        if size is not None:
            self._refuse_large(name, size)
        descriptor, path_name = mkstemp("", "unpacked-", self.folder)
        os.close(descriptor)
        path = self.own(Path(path_name))
        growth = Unpacking(path, name, most if size is None else size)
        self._growing.append(growth)
        self._promise(size or 0)
        self._begin(growth, partial(self._write, pieces, path, growth, size, crc))
        return growth

    def stream(self, pieces: Pieces, name: str, size: int, crc: int | None, unpack: Callable[[], File]) -> Streamed:
        """Compressed content to be read from front to back; arguments as of `Streamed`."""
        stream = Streamed(pieces, size, crc, name, unpack)
        self._streams.add(stream)
        return stream

    @property
    def held(self) -> int:
        """Bytes that reading what is streamed takes, at most, beside what is asked for."""
        return sum(min(WINDOW, stream.size) + _PIECE_BYTES for stream in self._streams)

    def check(self, pieces: Pieces, name: str, crc: int) -> None:
        """Begin to compare content that is stored as it is with its CRC-32; `verify` tells what came of it."""
        growth = Unpacking(Path(), name, 0)
        self._growing.append(growth)
        self._begin(growth, partial(self._compare, pieces, growth, crc))

    def verify(self) -> None:
        """Wait for all work, and raise `InputError` with everything that went wrong in it."""
        problems = Problems()
        waits: list[Callable[[], object]] = [growth.wait for growth in self._growing]
        for wait in [*waits, *(stream.verify for stream in self._streams)]:
            problems.attempt(wait)
        problems.found = list(dict.fromkeys(problems.found))
        problems.raise_if_any()

    def _refuse_large(self, name: str, size: int) -> None:
        with self._guard:
            needed, free = size + self._promised, shutil.disk_usage(self.folder).free
        if needed > free:
            found = f"would take {format_bytes(needed)} unpacked, {format_bytes(free)} are free on the disk"
            raise InputError(Problem(name, found, _NO_ROOM))

    def _promise(self, size: int) -> None:
        with self._guard:
            self._promised += size

    def _begin(self, growth: Unpacking, work: Callable[[], None]) -> None:
        # Errors are not kept by the pool: they would keep files open.
        def attempt() -> None:
            try:
                work()
            except InputError as error:
                growth.fail(*error.problems)
            except Exception as error:  # noqa: BLE001 - told to whoever reads
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                growth.fail(Problem(growth.name, f"cannot be unpacked ({reason})", _NO_ROOM))

        self._pool.submit(attempt)

    def _write(self, pieces: Pieces, path: Path, growth: Unpacking, size: int | None, crc: int | None) -> None:
        n, found, look = 0, 0, _LOOK_EVERY
        with path.open("r+b", buffering=0) as file:
            for piece in self._until_closed(pieces()):
                n, found = n + len(piece), crc32(piece, found)
                if n > growth.most:
                    known = "as its archive says" if size is not None else "that it can hold"
                    raise _damaged(growth.name, f"goes on after the {growth.most} bytes {known}")
                if size is None and n > look:
                    look += _LOOK_EVERY
                    if shutil.disk_usage(path.parent).free < _LEFT_FREE:
                        raise InputError(Problem(growth.name, f"fills the disk: {n} bytes are unpacked", _NO_ROOM))
                _write_all(file.fileno(), piece)
                self._promise(-len(piece) if size is not None else 0)
                # The last bytes are given out only when it is known that all are right.
                if size is None or n < size:
                    growth.grow(n)
        if size is not None and n < size:
            raise _damaged(growth.name, f"ends after {n} of {size} bytes")
        if crc is not None and found != crc:
            raise _damaged(growth.name, f"has the CRC {found:08x}, its archive says {crc:08x}")
        growth.end(n)

    def _compare(self, pieces: Pieces, growth: Unpacking, crc: int) -> None:
        found = 0
        for piece in self._until_closed(pieces()):
            found = crc32(piece, found)
        if found != crc:
            raise _damaged(growth.name, f"has the CRC {found:08x}, its archive says {crc:08x}")
        growth.end(0)

    def _until_closed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._closed.is_set():
                raise InputError(Problem("archive", _CLOSED))
            yield piece


def stored_pieces(file: File) -> Iterator[bytes]:
    """Content of a file in pieces of at most 1 MiB."""
    with translated_damage(file.name, file.path.name):
        for start in range(0, file.size, _PIECE_BYTES):
            yield file.read(start, min(_PIECE_BYTES, file.size - start))


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _damaged(name: str, found: str) -> InputError:
    return InputError(Problem(name, found, _CUT_SHORT))
