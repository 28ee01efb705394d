"""Zip and tar files, whose members are read in place or unpacked while they are read."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Protocol

from atlaswriter.codecs.crc import crc32
from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.members import Member, content_offset, tar_members, zip_members, zip_names
from atlaswriter.sources.unpacked import GZIP, MOST_TIMES, Pieces, Unpacker, inflated, stored_pieces
from atlaswriter.units import format_bytes

_ZIP, _GZIP = (b"PK\3\4", b"PK\5\6"), b"\x1f\x8b"

# Zeros that may follow the last member of a tar file: tar fills up its records, of 10 KiB unless told otherwise.
_PADDING = 1 << 20

_CUT_SHORT = "the file is damaged or incomplete: copy or write it again"


Opener = Callable[[], File]


class Container(Protocol):
    """Files under names: an archive, or a folder."""

    @property
    def where(self) -> str:
        """What messages call it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files in it, with forward slashes, in its order."""

    def opener(self, name: str) -> Opener:
        """What opens one of them, as often as is wanted."""

    def read_small(self, name: str, limit: int) -> bytes:
        """Content of one of them, of at most `limit` bytes."""


def archive_kind(file: File) -> str:
    """``"zip"``, ``"gzip"`` or ``"tar"`` by the first bytes of a file; ``""`` if it is none of them."""
    with translated_damage("header", file.name):
        head = file.read(0, min(tarfile.BLOCKSIZE, file.size))
    if head.startswith(_ZIP):
        return "zip"
    if head.startswith(_GZIP):
        return "gzip"
    return "tar" if head[257:262] == b"ustar" else ""


def is_zarr(file: File) -> bool:
    """Whether a zip file holds a Zarr store, at its root or in its only folder."""
    marks = (".zgroup", ".zarray", "zarr.json")
    return any(name.count("/") <= 1 and name.rpartition("/")[2] in marks for name in zip_names(file))


class Archive:
    """A zip file, a tar file or a gzipped tar file (as ``.trk`` files are), of which nothing is trusted.

    A gzipped tar file is unpacked whole, to a temporary file.

    Parameters
    ----------
    file
        It.
    unpacker
        Unpacks what is compressed, and checks what is not.

    Attributes
    ----------
    names
        Of its files, in its order; those that macOS and Windows add are left out.
    where
        What messages call it.

    Raises
    ------
    InputError
        It is damaged, or something about its members is not as it should be; all of that at once.
    """

    def __init__(self, file: File, unpacker: Unpacker) -> None:
        self.where = file.name
        self._unpacker = unpacker
        kind = archive_kind(file)
        if kind != "gzip":
            file.ready()
        if kind == "zip":
            self._file, members = file, zip_members(file)
        elif kind == "gzip":
            self._file, members = self._unzipped_tar(file)
        else:
            self._file, members = file, tar_members(file, lambda end: min(end, file.size))[0]
        self._is_zip = kind == "zip"
        self._members: Mapping[str, Member] = {member.name: member for member in members}
        self._openers: dict[str, Opener] = {}
        self.names = tuple(self._members)

    def size(self, name: str) -> int:
        """Bytes of a file in it, as the archive says."""
        return self._member(name).size

    def open(self, name: str) -> File:
        """A file in it: a part of the archive where it is stored as it is, else one that is inflated as it is read.

        Raises
        ------
        InputError
            There is none of that name, it is damaged, or there is no room to unpack it.
        """
        return self.opener(name)()

    def opener(self, name: str) -> Opener:
        """What opens a file in it, as often as is wanted; what is stored as it is is checked, from now on and once."""
        if name not in self._openers:
            member, label = self._member(name), f"{self.where}: {name}"
            opener: Opener = partial(self._file.part, self._start(member), member.stored, label)
            if member.deflated:
                opener = self._inflating(member, label, partial(_of_part, inflated, opener))
            elif member.crc is not None:
                self._unpacker.check(partial(_of_part, stored_pieces, opener), label, member.crc)
            self._openers[name] = opener
        return self._openers[name]

    def read_small(self, name: str, limit: int) -> bytes:
        """Content of a file in it.

        Raises
        ------
        InputError
            There is none of that name, it is damaged, or it has more than `limit` bytes.
        """
        member, label = self._member(name), f"{self.where}: {name}"
        if member.size > limit:
            found = f"has {format_bytes(member.size)}, more than the {format_bytes(limit)} that are read"
            raise InputError(Problem(label, found, "give a smaller file"))
        part, content = self._file.part(self._start(member), member.stored, label), bytearray()
        for piece in inflated(part) if member.deflated else stored_pieces(part):
            content += piece
            if len(content) > member.size:
                break
        if len(content) != member.size or member.crc not in (None, crc32(content)):
            found = "is not what the archive says of it: its size or its CRC differs"
            raise InputError(Problem(label, found, _CUT_SHORT))
        return bytes(content)

    def _inflating(self, member: Member, label: str, pieces: Pieces) -> Opener:
        unpacker, size, crc = self._unpacker, member.size, member.crc
        whole = cache(partial(unpacker.unpack, pieces, label, size, size=size, crc=crc))
        return partial(unpacker.stream, pieces, label, size, crc, lambda: whole().open())

    def _start(self, member: Member) -> int:
        return content_offset(self._file, member) if self._is_zip else member.offset

    def _member(self, name: str) -> Member:
        if name not in self._members:
            there = f"it holds {listed(self.names)}" if self.names else "it holds no files"
            raise InputError(Problem(self.where, f"has no {name!r}", there))
        return self._members[name]

    def _unzipped_tar(self, file: File) -> tuple[File, list[Member]]:
        pieces = partial(inflated, file, GZIP)
        unpacking = self._unpacker.unpack(pieces, file.name, MOST_TIMES * file.size)
        unpacked = unpacking.open()
        members, end = tar_members(unpacked, unpacked.available)
        unpacking.most = end + _PADDING
        unpacked.ready()
        return unpacked, members


def _of_part(pieces: Callable[[File], Iterator[bytes]], opener: Opener) -> Iterator[bytes]:
    """Pieces of a file that is opened when the first of them is wanted: thousands may wait."""
    yield from pieces(opener())
