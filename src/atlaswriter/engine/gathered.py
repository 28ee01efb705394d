"""Records grouped by key, in files that many processes write and read.

Each process gathers some of the source (`engine.gather`), and writes it as one file; whoever has all of these files
gives out any range of keys. A file is written from its beginning to its end: cuts of some keys (`gather.Cut`); all keys
and their sizes; an index in JSON, of which cuts there are and whatever the writer had to note; a footer, which says
what the file is, where the index begins, and its CRC-32.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import spill
from atlaswriter.codecs.crc import crc32
from atlaswriter.engine.gather import ByKey, Cut, Gathering, Part, cuts_of, cuts_with, uncut
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import NewFile, WrittenFile

_MAGIC = b"awbykey1"
# Magic, key of the run and file, where the index begins, its bytes and its CRC-32.
_FOOTER = struct.Struct("<8s32sqqq")
# Bytes of records that are packed by one thread at a time.
_PIECE_BYTES = 8 << 20
_I64 = np.dtype(np.int64)


def filing_room(gathering: Gathering, team: Team) -> int:
    """Bytes that `write_gathered` draws."""
    return team.in_order_room(_piece_room(gathering))


def _piece_room(gathering: Gathering) -> int:
    """Bytes of a piece of records, as read and packed."""
    pieces = gathering.pieces(_PIECE_BYTES)
    return max((gathering.room(piece) + int(gathering.n_bytes(piece).sum()) for piece in pieces), default=0)


def write_gathered(gathering: Gathering, path: Path, run: str, note: Any, team: Team) -> int:
    """Write everything that was gathered as one file.

    May be done any number of times, also at once in several processes, and be killed: what has the name is always all
    of it.

    Parameters
    ----------
    gathering
        The records.
    path
        The file; its folder exists.
    run
        What tells the files of this run from others.
    note
        What readers shall know of these records: plain values.
    team
        Threads; `filing_room` is drawn.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    shared = range(len(gathering.dtypes))

    def packed(keys: slice) -> list[Cut]:
        return list(cuts_of(gathering.read(keys), shared))

    cuts: list[list[int]] = []
    with NewFile(path) as file:
        pieces = gathering.pieces(_PIECE_BYTES)
        for some in team.in_order(packed, pieces, memory=_piece_room(gathering), what="grouping records"):
            cuts += [[cut.first, cut.count, cut.n_bytes, *_append(file, cut.frames)] for cut in some]
        sizes = (np.ascontiguousarray(gathering.sizes(k)) for k in shared)
        totals = [gathering.keys.size, *_append(file, [spill.pack(array) for array in (gathering.keys, *sizes)])]
        index = json.dumps({"cuts": cuts, "totals": totals, "note": note}).encode()
        begin = file.size
        file.write(index)
        file.write(_FOOTER.pack(_MAGIC, _key(run, path), begin, len(index), crc32(index)))
    return file.size


def _append(file: NewFile, frames: Sequence[bytes]) -> list[int]:
    """Write frames; their CRC-32, where the first begins, and where each ends."""
    crc, ends = 0, [file.size]
    for frame in frames:
        file.write(frame)
        crc = crc32(frame, crc)
        ends.append(file.size)
    return [crc, *ends]


def _key(run: str, path: Path) -> bytes:
    return hashlib.blake2b(f"{run} {path.name}".encode(), digest_size=32).digest()


class GatheredFile(WrittenFile):
    """One file of `write_gathered`.

    Parameters
    ----------
    path, run
        As there.
    dtypes
        Of the columns.

    Attributes
    ----------
    note
        What the writer noted.
    recoded
        By column: what becomes of each of its values; empty where they stay.

    Raises
    ------
    OutputError
        Here and from every method, when the file is missing, damaged, or of another run.
    """

    def __init__(self, path: Path, run: str, dtypes: Sequence[np.dtype]) -> None:
        super().__init__(path, "run the task again")
        self._dtypes = tuple(dtypes)
        self.recoded: Mapping[int, NDArray[Any]] = {}
        with self._opened() as descriptor:
            size = os.fstat(descriptor).st_size
            magic, key, begin, n_index, crc = _FOOTER.unpack(self._fetch(descriptor, _FOOTER.size, size - _FOOTER.size))
            if magic != _MAGIC:
                raise self.damaged("was cut short, or is something else")
            if key != _key(run, path):
                raise self._wrong("belongs to another run")
            if n_index < 0 or begin + n_index + _FOOTER.size != size:
                raise self.damaged()
            index = self._fetch(descriptor, n_index, begin)
        if crc32(index) != crc:
            raise self.damaged()
        content = json.loads(index)
        self.note, self._cuts, self._totals = content["note"], content["cuts"], content["totals"]
        self._firsts = np.array([cut[0] for cut in self._cuts], np.int64)
        self.largest = max((cut[2] for cut in self._cuts), default=0)

    def totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All keys, and their sizes in each column, int64 (n_columns, n_keys)."""
        count, *place = self._totals
        with self._opened() as descriptor:
            keys, *sizes = (spill.unpack(frame, _I64, count) for frame in self._frames(descriptor, place))
        return keys.view(np.int64), np.array(sizes, np.int64).reshape(len(self._dtypes), count)

    def pieces(self, first_key: int, last_key: int) -> Iterator[Part]:
        """The cuts that may have keys from `first_key` to `last_key`, one after the other."""
        with self._opened() as descriptor:
            for number in cuts_with(self._firsts, first_key, last_key):
                _, count, _, *place = self._cuts[number]
                frames = self._frames(descriptor, place)
                part = uncut(count, frames, range(len(self._dtypes)), self._dtypes)
                columns = (
                    self.recoded[k][column] if k in self.recoded else column for k, column in enumerate(part.columns)
                )
                yield Part(part.keys, part.offsets, tuple(columns))

    def _frames(self, descriptor: int, place: Sequence[int]) -> list[bytes]:
        crc, first, *ends = place
        content = self._fetch(descriptor, ends[-1] - first, first)
        if crc32(content) != crc:
            raise self.damaged()
        return [content[start - first : end - first] for start, end in pairwise([first, *ends])]


class Gathered(ByKey):
    """What many processes have gathered.

    Parameters
    ----------
    files
        In the order of the source.
    dtypes
        Of the columns.
    """

    def __init__(self, files: Sequence[GatheredFile], dtypes: Sequence[np.dtype]) -> None:
        super().__init__(dtypes)
        self._files = files
        for file in files:
            self._count(*file.totals())

    def _largest_frame(self) -> int:
        return max((file.largest for file in self._files), default=0)

    def _of(self, first_key: int, last_key: int) -> Iterator[Part]:
        for file in self._files:
            yield from file.pieces(first_key, last_key)
