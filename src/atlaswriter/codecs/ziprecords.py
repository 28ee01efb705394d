"""Records of a zip file: what stands around the bytes of its members.

Every field that is not about the content is constant (the time is the earliest there is), so that the same members
always give the same file. Records: PKWARE's APPNOTE.TXT, version 6.3.10, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

STORED, DEFLATED = 0, 8

# Numbers from here on do not fit the ordinary records; Zip64 records hold them.
LIMIT = 0xFFFFFFFF
COUNT_LIMIT = 0xFFFF

_IN_ZIP64, _COUNT_IN_ZIP64 = 0xFFFFFFFF, 0xFFFF

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_SIZES_64 = struct.Struct("<2H2Q")

_ORDINARY, _ZIP64 = 20, 45
_MADE_BY = 3 << 8 | _ZIP64  # Unix, so that the permissions below are read
_PERMISSIONS = 0o100644 << 16
_UTF8 = 1 << 11
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01 00:00

# Padding that readers skip, known as such from Android's packages: it says that content is aligned to 1 byte.
_PADDING = struct.pack("<3H14x", 0xD935, 16, 1)


@dataclass
class Entry:
    """One member.

    Parameters
    ----------
    name
        Its name, with forward slashes.
    method
        `STORED` or `DEFLATED`.
    offset
        Where its local header begins in the file.
    roomy
        Whether the local header has room for sizes from `LIMIT` on.
    crc, size, stored
        CRC-32 and bytes of the content, and its bytes in the file.
    """

    name: str
    method: int
    offset: int
    roomy: bool
    crc: int = 0
    size: int = 0
    stored: int = 0

    @property
    def large(self) -> bool:
        """Whether a size is `LIMIT` or more."""
        return max(self.size, self.stored) >= LIMIT

    @property
    def zip64(self) -> bool:
        """Whether only readers that know Zip64 can take it out."""
        return self.large or self.offset >= LIMIT

    def common(self) -> tuple[int, ...]:
        """Fields of the local header that the list of members repeats."""
        flags = 0 if self.name.isascii() else _UTF8
        sizes = (_IN_ZIP64, _IN_ZIP64) if self.large else (self.stored, self.size)
        return _ZIP64 if self.zip64 else _ORDINARY, flags, self.method, _TIME, _DATE, self.crc, *sizes


def local_header(entry: Entry) -> bytes:
    """What stands before a member; its length does not depend on CRC and sizes."""
    name, extra = entry.name.encode(), b""
    if entry.roomy:
        extra = _SIZES_64.pack(1, 16, entry.size, entry.stored) if entry.large else _PADDING
    return _LOCAL.pack(b"PK\3\4", *entry.common(), len(name), len(extra)) + name + extra


def _central_header(entry: Entry) -> bytes:
    name, offset = entry.name.encode(), entry.offset
    numbers = [entry.size, entry.stored] if entry.large else []
    if offset >= LIMIT:
        numbers.append(offset)
        offset = _IN_ZIP64
    extra = struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    lengths = len(name), len(extra), 0
    return _CENTRAL.pack(b"PK\1\2", _MADE_BY, *entry.common(), *lengths, 0, 0, _PERMISSIONS, offset) + name + extra


def directory(entries: Sequence[Entry], offset: int) -> bytes:
    """What ends the file, from `offset` on: the list of its members, and where that is."""
    listing = b"".join(map(_central_header, entries))
    n, size = len(entries), len(listing)
    end_64 = b""
    if n >= COUNT_LIMIT or max(offset, size) >= LIMIT:
        numbers = n, n, size, offset
        end_64 = _END_64.pack(b"PK\6\6", _END_64.size - 12, _MADE_BY, _ZIP64, 0, 0, *numbers)
        end_64 += _LOCATOR_64.pack(b"PK\6\7", 0, offset + size, 1)
    count = n if n < COUNT_LIMIT else _COUNT_IN_ZIP64
    place = [number if number < LIMIT else _IN_ZIP64 for number in (size, offset)]
    return listing + end_64 + _END.pack(b"PK\5\6", 0, 0, count, count, *place, 0)
