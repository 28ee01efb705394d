"""Lists of what zip and tar files hold, read without trusting anything that is written in them.

Nothing is unpacked under its own name, yet names that lead elsewhere are refused: whoever wrote them meant harm, or
meant another member than the one that would be taken.
"""

from __future__ import annotations

import io
import itertools
import stat
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from atlaswriter.codecs.ziprecords import DEFLATED, STORED
from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.unpacked import MOST_TIMES

# A movie of 10,000 frames and 4 features, a file each, has 40,000 members.
_MOST_MEMBERS = 100_000

# Python reads a list of members, or a long name, at once.
_MOST_LIST_BYTES = 16 << 20

_LOCAL, _LISTED = struct.Struct("<4s22xHH"), b"PK\1\2"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_BLOCK = tarfile.BLOCKSIZE

# APPNOTE.TXT 4.4.5.
_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 99: "AES encryption"}

# What macOS and Windows put into archives and folders.
_JUNK_FOLDER, _JUNK = "__macosx", (".ds_store", "thumbs.db", "desktop.ini")

_AGAIN = "write the archive again, with the files themselves in it"
_UNENCRYPTED = "write the archive again without a password"
_ORDINARY = "write the archive again with ordinary compression (deflate), or none"
_CUT_SHORT = "the file is damaged or incomplete: copy or write it again"


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes
    ----------
    name
        Its name, with forward slashes.
    offset
        In the archive: of its local header in a zip, of its content in a tar.
    size, stored
        Bytes of its content, and in the archive.
    deflated
        Whether it must be inflated.
    crc
        CRC-32 of its content; None where the archive has none.
    end
        In the archive: where at the latest it ends.
    """

    name: str
    offset: int
    size: int
    stored: int
    deflated: bool
    crc: int | None
    end: int


class _Window(io.RawIOBase):
    """A file as Python's readers of archives want it; refuses to read more at once than a list may take."""

    def __init__(self, file: File, available: Callable[[int], int]) -> None:
        self._file, self._available, self._place = file, available, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._place, self._file.size)[whence]
        self._place = start + offset
        if self._place < 0:
            raise OSError("a place before the beginning is named")
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        size = self._file.size - self._place if size is None or size == -1 else size
        end = self._available(self._place + size)
        size = max(0, min(size, end - self._place)) if size > 0 else size
        if not 0 <= size <= _MOST_LIST_BYTES:
            raise OSError(f"a list of members of {size} bytes is not believed")
        content = self._file.read(self._place, size)
        self._place += size
        return content


def zip_names(file: File) -> list[str]:
    """Names in a zip file as they are, in its order."""
    return [info.orig_filename for info in _listed(file)[0]]


def _listed(file: File) -> tuple[list[zipfile.ZipInfo], int]:
    """Members of a zip file in its order, and where their list begins."""
    with translated_damage("list of members", file.name), zipfile.ZipFile(_opened(file)) as archive:
        return archive.infolist(), archive.start_dir


def _opened(file: File) -> _Window:
    return _Window(file, lambda end: min(end, file.size))


def zip_members(file: File) -> list[Member]:
    """Members of a zip file, in its order.

    Raises
    ------
    InputError
        With everything that is wrong: names, links, passwords, compression that is not known, content that cannot
        come from its bytes, members that overlap, too many of them.
    """
    found, end = _listed(file)
    _refuse_many(len(found), file)
    problems = Problems()
    ends = _ends(found, end)
    for info in found:
        where = f"{file.name}: {info.orig_filename!a}"
        stored, method = info.compress_size, info.compress_type
        limit = stored if method == STORED else MOST_TIMES * stored + MOST_TIMES
        if info.flag_bits & _ENCRYPTED:
            problems.add(where, "is encrypted", _UNENCRYPTED)
        elif method not in (STORED, DEFLATED):
            problems.add(where, f"is compressed by {_METHODS.get(method, f'method {method}')}", _ORDINARY)
        elif stat.S_ISLNK(info.external_attr >> 16):
            problems.add(where, "is a link", _AGAIN)
        elif info.file_size > limit or (method == STORED and info.file_size != stored):
            problems.add(where, f"is said to hold {info.file_size} bytes in {stored}", _CUT_SHORT)
        elif info.header_offset < 0 or info.header_offset + _LOCAL.size + stored > ends[info.header_offset]:
            problems.add(where, "shares bytes with another member", _CUT_SHORT)
        elif _LISTED in info.comment or _LISTED in info.extra:
            problems.add(where, "has a comment that hides other members", _CUT_SHORT)
    _refuse_names([info.orig_filename for info in found], file, problems)
    problems.raise_if_any()
    members = [
        Member(
            *(_plain(info.orig_filename), info.header_offset, info.file_size, info.compress_size),
            *(info.compress_type == DEFLATED, info.CRC, ends[info.header_offset]),
        )
        for info in found
        if not info.is_dir() and not is_junk(info.orig_filename)
    ]
    # Also of those that nobody opens: a damaged name makes a file one that is not known.
    for member in members:
        problems.attempt(content_offset, file, member)
    problems.raise_if_any()
    return members


def _ends(found: Sequence[zipfile.ZipInfo], end: int) -> dict[int, int]:
    """Where members at the latest end, by where they begin; where two begin, nothing fits."""
    starts = sorted(info.header_offset for info in found)
    twice = {first for first, second in itertools.pairwise(starts) if first == second}
    return {first: first if first in twice else last for first, last in itertools.pairwise([*starts, end])}


def content_offset(file: File, member: Member) -> int:
    """Where in a zip file the content of a member begins.

    Raises
    ------
    InputError
        What stands in front of it is damaged, or names another member.
    """
    where = f"{file.name}: {member.name}"
    with translated_damage(member.name, file.name):
        head = file.read(member.offset, _LOCAL.size)
        signature, n_name, n_extra = _LOCAL.unpack(head)
        name = file.read(member.offset + _LOCAL.size, n_name)
    start: int = member.offset + _LOCAL.size + n_name + n_extra
    if signature != b"PK\3\4" or start + member.stored > member.end:
        raise InputError(Problem(where, "is not where the list of members says", _CUT_SHORT))
    names = {name.decode(encoding, "replace") for encoding in ("utf-8", "cp437")}
    if member.name not in map(_plain, names):
        raise InputError(Problem(where, f"has another name in front of it: {name!a}", _CUT_SHORT))
    return start


def tar_members(file: File, available: Callable[[int], int]) -> tuple[list[Member], int]:
    """Members of an uncompressed tar file, in its order, and where the last of them ends.

    Parameters
    ----------
    file
        The file; it may still be growing.
    available
        Waits for its bytes up to a place, and tells how many there are, fewer where it ends before.

    Raises
    ------
    InputError
        With everything that is wrong: names, links, devices, sparse or overlong members, too many of them.
    """
    problems, found, end = Problems(), [], 0
    with (
        translated_damage("list of members", file.name),
        _tar_errors(),
        tarfile.open(fileobj=_Window(file, available), mode="r:") as archive,
    ):
        for info in archive:
            if info.size < 0:
                raise ValueError(f"{info.name!a} is said to hold {info.size} bytes")
            found.append(info)
            _refuse_many(len(found), file)
            end = info.offset_data + (-(-info.size // _BLOCK) * _BLOCK if info.isreg() else 0)
            if info.isreg() and available(info.offset_data + info.size) < info.offset_data + info.size:
                raise ValueError(f"{info.name!a} is cut short")
        rest = file.read(end, max(0, min(_BLOCK, available(end + _BLOCK) - end)))
        if any(rest):
            raise ValueError(f"there is no member where one should be, at byte {end}")
    for info in found:
        if not (info.isreg() or info.isdir()) or info.issparse():
            problems.add(f"{file.name}: {info.name!a}", "is a link, a device or sparse", _AGAIN)
    _refuse_names([info.name for info in found], file, problems)
    problems.raise_if_any()
    return [
        Member(_plain(info.name), info.offset_data, info.size, info.size, False, None, info.offset_data + info.size)
        for info in found
        if info.isreg() and not is_junk(info.name)
    ], end


@contextmanager
def _tar_errors() -> Iterator[None]:
    """Turn what `tarfile` raises into what is known as damage."""
    try:
        yield
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def _refuse_many(n: int, file: File) -> None:
    if n > _MOST_MEMBERS:
        found = f"has more than {_MOST_MEMBERS} members"
        raise InputError(Problem(file.name, found, "put fewer files into it, such as one TIFF of all frames"))


def _refuse_names(names: Iterable[str], file: File, problems: Problems) -> None:
    """Refuse names that lead elsewhere and names given twice, also by spelling."""
    every = list(names)
    bad = [name for name in every if _leads_elsewhere(name)]
    if bad:
        problems.add(file.name, f"has members whose names lead elsewhere: {listed(map(ascii, bad))}", _AGAIN)
    counts = Counter(_plain(name) for name in every if not is_junk(name))
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        problems.add(file.name, f"has several members of one name: {listed(map(ascii, twice))}", _AGAIN)


def _leads_elsewhere(name: str) -> bool:
    # Windows' rules know drive letters too.
    anchored = bool(PureWindowsPath(name).anchor)
    return not name or anchored or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts


def _plain(name: str) -> str:
    """A name without the ``./`` that tar puts in front."""
    return str(PurePosixPath(name))


def is_junk(name: str) -> bool:
    """Whether it is none of the user's files; macOS keeps attributes of others in those that begin with ``._``."""
    parts = [part.lower() for part in PurePosixPath(name).parts]
    return bool(parts) and (parts[0] == _JUNK_FOLDER or parts[-1] in _JUNK or parts[-1].startswith("._"))
