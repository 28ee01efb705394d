"""gzip of columns whose runs are known, by an encoder of our own.

A general compressor must search for runs. A column that is mostly one value is written straight
from the places where it is not; one whose neighbours are often equal (codes, sorted numbers, the
sources of edges) by a comparison of each byte with one other.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.kernels import crc, finder, gzip, quantize
from atlaswriter.kernels._jit import Kernel, readable
from atlaswriter.kernels.tokens import BLOCK

try:
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32


# Earlier entries tried for each, and whether in every column.
_USUAL_EFFORT = (2, False)
_EFFORT = {7: (2, True), 8: (4, True), 9: (6, True)}


# Files that are made together are written to memory that a thread keeps, up to here.
KEPT_BYTES = 4 << 20
# What one thread keeps.
SCRATCH_BYTES = 8 * (gzip.WORKSPACE + finder.SCRATCH) + KEPT_BYTES


class _Scratch(threading.local):
    """Arrays of one thread: what the kernel works in, and the files it writes."""

    def __init__(self) -> None:
        self.workspace = np.zeros(gzip.WORKSPACE, np.int64)
        self.finder: NDArray[np.int64] | None = None
        self.files = np.empty(0, np.uint8)

    def for_matches(self) -> NDArray[np.int64]:
        """What searching for matches needs."""
        if self.finder is None:
            self.finder = np.empty(finder.SCRATCH, np.int64)
        return self.finder

    def room(self, size: int) -> NDArray[np.uint8]:
        """Room for files, used again unless it is large."""
        if size > KEPT_BYTES:
            return np.empty(size, np.uint8)
        if self.files.size < size:
            self.files = np.empty(size, np.uint8)
        return self.files


_scratch = _Scratch()
_NOTHING, _NO_ENTRIES, _NO_POWERS = np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.uint32)


def wanted_kernels(width: int, level: int) -> Iterator[tuple[Kernel, str]]:
    """Kernels that `compress` calls for codes of a width in bytes; columns of a recurring pattern may need another."""
    yield crc.fill_powers, crc.fill_powers.signatures[0]
    yield gzip.columns, _signature(width, _searches(width, level))


def wanted_by_repeats() -> tuple[Kernel, str]:
    """The kernel that `compress_repeats` calls."""
    return gzip.columns, _signature(1, matches=False)


def _signature(width: int, matches: bool) -> str:
    wanted = f" u{width}[::1], u1[::1], i8, b1, i8, b1, u4[::1], i8[::1], {'i8[::1]' if matches else 'none'}"
    return next(one for one in gzip.columns.signatures if wanted in one)


def _searches(width: int, level: int) -> bool:
    return width > 1 or level in _EFFORT


def takes(content: Any) -> bool:
    """Whether this encoder knows such elements, and this machine: its bit writer stores little-endian words."""
    return content.itemsize in (1, 2, 4) and sys.byteorder == "little"


def longest(n_bytes: int, n_entries: int, width: int) -> int:
    """Bytes that the file of a column cannot exceed, and that must be there to write it.

    No block is longer than the fixed codes make it. With these a literal and the run before it take 36
    bits, so that 5 bytes, the fewest that such a run covers, take less than 8 literals of 9 bits do;
    each further 258 bytes of a run take 13 bits. A block adds 10 bits, the file its header and
    trailer, a segment an empty block, and the bit writer stores 8 bytes at once.
    """
    tokens = n_entries * width + 1
    return min(tokens * 9 // 2, n_bytes * 9 // 8) + n_bytes // 258 * 13 // 8 + tokens // BLOCK * 2 + 46


def compress(entries: Any, offsets: Any, n_rows: int, backgrounds: Any, level: int) -> list[memoryview]:
    """gzip sparse columns; each one member, no name, time 0.

    Parameters
    ----------
    entries : int64, (nnz,)
        ``row << 32 | code``, column after column; strictly ascending within a column.
    offsets : int64, (n_columns + 1,)
        Where each column begins.
    n_rows : int
        Length of every column.
    backgrounds : uint8, uint16 or uint32, (n_columns,)
        Code of all other rows, as wide as codes are stored; of uint32 all bytes must be equal.
    level : int
        1-9; from 7 on matches of values are looked for in every column, before that where they
        promise to pay.

    Returns
    -------
    list
        The files; valid until the same thread compresses again.
    """
    width, n_columns = backgrounds.itemsize, offsets.size - 1
    if width == 4 and (backgrounds != (backgrounds & 255) * 0x01010101).any():
        raise ValueError("a 4-byte background whose bytes differ is not supported")
    room = sum(longest(n_rows * width, int(size), width) for size in np.diff(offsets))
    files, ends = _scratch.room(room), np.empty(n_columns, np.int64)
    search = _scratch.for_matches() if _searches(width, level) else None
    depth, thorough = _EFFORT.get(level, _USUAL_EFFORT)
    gzip.columns(
        entries, offsets, n_rows, backgrounds, _NOTHING, 0, False, depth, thorough, crc.powers(), _scratch.workspace,
        search, files, ends,
    )  # fmt: skip
    if width == 2:
        _write_crcs(entries, offsets, n_rows, backgrounds, files, ends)
    bounds = [0, *ends.tolist()]
    found = [files.data[start:end] for start, end in pairwise(bounds)]
    for column in [column for column, file in enumerate(found) if not file.nbytes]:
        only = slice(offsets[column], offsets[column + 1])
        at = bounds[-1]
        gzip.columns(
            entries[only], np.array([0, only.stop - only.start]), n_rows, backgrounds[column : column + 1], _NOTHING, 0,
            False, depth, thorough, crc.powers(), _scratch.workspace, _scratch.for_matches(), files[at:], ends[:1],
        )  # fmt: skip
        bounds.append(at + int(ends[0]))
        found[column] = files.data[at : bounds[-1]]
    return found


def _write_crcs(entries: Any, offsets: Any, n_rows: int, backgrounds: Any, files: Any, ends: Any) -> None:
    """The CRC of columns whose background is not one byte repeated, which the kernel leaves out."""
    for column in np.flatnonzero(backgrounds >> 8 != backgrounds & 255):
        whole = np.full(n_rows, backgrounds[column])
        quantize.scatter(entries[offsets[column] : offsets[column + 1]], whole)
        files[ends[column] - 8 :][:4] = np.array([crc32(whole)], "<u4").view(np.uint8)


def compress_repeats(content: Any) -> memoryview:
    """gzip an array (C-contiguous, elements of 1, 2 or 4 bytes) whose neighbours are often equal, in whole or in part.

    Returns
    -------
    memoryview
        The file: one member, no name, time 0; valid until the same thread compresses again.
    """
    file, raw = _repeats(content, more=False)
    file[-8:-4] = np.array([crc32(raw)], "<u4").view(np.uint8)
    return file.data


def segment_repeats(content: Any) -> memoryview:
    """As `compress_repeats`, as a segment of a `codecs.gzip.Stream`."""
    file, _ = _repeats(content, more=True)
    return file[gzip.HEADER_BYTES : -gzip.TRAILER_BYTES].data


def zlib_repeats(content: Any) -> bytes:
    """As `compress_repeats`, as a zlib stream (RFC 1950)."""
    file, raw = _repeats(content, more=False)
    deflated = file[gzip.HEADER_BYTES : -gzip.TRAILER_BYTES]
    return b"\x78\x01" + deflated.tobytes() + zlib.adler32(raw.data).to_bytes(4, "big")


def _repeats(content: Any, *, more: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    raw = readable(content.reshape(-1).view(np.uint8))
    file, end = _scratch.room(longest(raw.size, raw.size, 1)), np.empty(1, np.int64)
    gzip.columns(
        _NO_ENTRIES, np.zeros(2, np.int64), 0, np.zeros(1, np.uint8), raw, content.itemsize, more, 0, False, _NO_POWERS,
        _scratch.workspace, None, file, end,
    )  # fmt: skip
    return file[: int(end[0])], raw
