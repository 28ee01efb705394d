"""Records that arrive in any order leave grouped by key.

The source is read once, some rows at a time; what was read together is grouped on the spot and becomes a `Part`.
Parts stay in memory as far as there is room, and go to temporary files beyond that. Then keys are given out in
ascending order, each with the records of all parts, in the order of the source. `engine.gathered` does the same with
files that many processes write and read.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import spill
from atlaswriter.engine.columns import split
from atlaswriter.engine.spill import SpillFiles
from atlaswriter.kernels import bins
from atlaswriter.sources.base import Array

# Bytes of a part that are cut off together in a temporary file, about: they are read whole, for part of their keys.
_FRAME_BYTES = 1 << 20
# Of a key and its sizes, at most.
_KEY_BYTES = 16


@dataclass(frozen=True)
class Part:
    """Records grouped by key.

    Attributes
    ----------
    keys
        int64 (n_keys,), strictly ascending.
    offsets
        For each column, int64 (n_keys + 1,): where the values of each key begin. Columns of the same records share one.
    columns
        Values, key after key; (offsets[-1],) each.
    """

    keys: NDArray[np.int64]
    offsets: tuple[NDArray[np.int64], ...]
    columns: tuple[Array, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of its arrays."""
        arrays = {id(array): array.nbytes for array in (self.keys, *self.offsets, *self.columns)}
        return sum(arrays.values())

    def of(self, position: int) -> tuple[Array, ...]:
        """Columns of one key."""
        pairs = zip(self.columns, self.offsets, strict=True)
        return tuple(column[ends[position] : ends[position + 1]] for column, ends in pairs)

    def sizes(self) -> NDArray[np.int64]:
        """Values of each key in each column, int64 (n_columns, n_keys)."""
        return np.array([np.diff(ends) for ends in self.offsets], np.int64).reshape(len(self.offsets), -1)


class ByKey(ABC):
    """Records that can be had by key, wherever they wait.

    Parameters
    ----------
    dtypes
        Of the columns: 2 or 4 bytes each.

    Attributes
    ----------
    keys
        int64 (n_keys,), ascending: all keys so far.
    """

    def __init__(self, dtypes: Sequence[np.dtype]) -> None:
        self.dtypes = tuple(dtypes)
        self.keys = np.empty(0, np.int64)
        self._sizes = np.zeros((len(self.dtypes), 0), np.int64)

    def sizes(self, column: int) -> NDArray[np.int64]:
        """Values of each key in one column, int64 (n_keys,)."""
        found: NDArray[np.int64] = self._sizes[column]
        return found

    def pieces(self, room: int) -> list[slice]:
        """Consecutive keys, of `room` bytes at most or a single one."""
        return split(self.n_bytes(slice(None)), room)

    def room(self, keys: slice) -> int:
        """Bytes that `read` takes for some keys: their records, and a frame of a part that is in a file."""
        return int(self.n_bytes(keys).sum()) + 4 * self._largest_frame()

    def n_bytes(self, keys: slice) -> NDArray[np.int64]:
        """Bytes of the records of some keys, int64, each."""
        widths = np.array([dtype.itemsize for dtype in self.dtypes])
        found: NDArray[np.int64] = (self._sizes[:, keys] * widths[:, None]).sum(axis=0)
        return found

    def read(self, keys: slice) -> Part:
        """All records of some keys, in the order of the source."""
        wanted = self.keys[keys]
        offsets = tuple(np.r_[0, np.cumsum(sizes[keys])] for sizes in self._sizes)
        columns = tuple(np.empty(ends[-1], dtype) for ends, dtype in zip(offsets, self.dtypes, strict=True))
        cursors = [ends[:-1].copy() for ends in offsets]
        for part in self._of(int(wanted[0]), int(wanted[-1])) if wanted.size else ():
            first, last = np.searchsorted(part.keys, [wanted[0], wanted[-1] + 1])
            own = part.keys[first:last]
            for cursor, out, ends, values in zip(cursors, columns, part.offsets, part.columns, strict=True):
                here = ends[first : last + 1]
                bins.place(own, here, wanted, values[here[0] : here[-1]], cursor, out)
        return Part(wanted, offsets, columns)

    def _count(self, own: NDArray[np.int64], own_sizes: NDArray[np.int64]) -> None:
        """Add up the sizes of keys."""
        keys = np.union1d(self.keys, own)
        if keys.size > self.keys.size:
            sizes = np.zeros((len(self.dtypes), keys.size), np.int64)
            sizes[:, np.searchsorted(keys, self.keys)] = self._sizes
            self.keys, self._sizes = keys, sizes
        self._sizes[:, np.searchsorted(keys, own)] += own_sizes

    @abstractmethod
    def _largest_frame(self) -> int:
        """Bytes of the records that are read from a file at once, at most."""

    @abstractmethod
    def _of(self, first_key: int, last_key: int) -> Iterator[Part]:
        """Parts, or pieces of parts, that may have some of these keys, in the order of the source."""


class Gathering(ByKey):
    """Collects parts of one source, and gives their records out by key.

    Parameters
    ----------
    dtypes
        As of `ByKey`.
    room
        Bytes of parts that may be held; they belong to the caller.
    scratch
        Makes the folder for temporary files.
    """

    def __init__(self, dtypes: Sequence[np.dtype], room: int, scratch: Callable[[], Path]) -> None:
        super().__init__(dtypes)
        self._room, self._scratch = room, scratch
        self._parts: dict[tuple[int, int], Part | _Stored] = {}
        self._files: SpillFiles | None = None
        self._n_stored = 0
        self._guard = threading.Lock()

    @property
    def spill_bytes(self) -> int:
        """Bytes written to temporary files."""
        return 0 if self._files is None else self._files.bytes_written

    @property
    def held(self) -> int:
        """Bytes of the parts in memory."""
        return sum(part.n_bytes for part in self._parts.values() if isinstance(part, Part))

    def add(self, number: tuple[int, int], part: Part) -> None:
        """Take in a part; several threads may. `number` tells its place in the source."""
        with self._guard:
            self._count(part.keys, part.sizes())
            if part.n_bytes <= self._room:
                self._room -= part.n_bytes
                self._parts[number] = part
                return
        self._store(number, part)

    def spill(self) -> None:
        """Move all parts to temporary files, and keep no further ones."""
        self._room = 0
        for number, part in list(self._parts.items()):
            if isinstance(part, Part):
                self._store(number, part)

    def _store(self, number: tuple[int, int], part: Part) -> None:
        with self._guard:
            if self._files is None:
                self._files = SpillFiles(self._scratch())
            files, name = self._files, self._n_stored
            self._n_stored += 1
        stored = _Stored.of(part, files, name)
        with self._guard:
            self._parts[number] = stored

    def release(self) -> None:
        """Let go of all records, and of temporary files."""
        self._parts.clear()
        if self._files is not None:
            self._files.discard()

    def _largest_frame(self) -> int:
        return max((part.largest for part in self._parts.values() if isinstance(part, _Stored)), default=0)

    def _of(self, first_key: int, last_key: int) -> Iterator[Part]:
        for number in sorted(self._parts):
            part = self._parts[number]
            if isinstance(part, Part):
                yield part
            else:
                yield from part.pieces(first_key, last_key, self.dtypes)


@dataclass(frozen=True)
class Cut:
    """Some keys of a part, as they are in a file.

    Attributes
    ----------
    first
        First key.
    count
        Number of keys.
    n_bytes
        Of their records.
    frames
        Keys; sizes of them in columns that have sizes of their own; values of every column.
    """

    first: int
    count: int
    n_bytes: int
    frames: list[bytes]


def cuts_of(part: Part, shared: Sequence[int]) -> Iterator[Cut]:
    """A part in pieces that are read whole; `shared` is the column whose offsets each column shares."""
    sizes, widths = part.sizes(), np.array([column.itemsize for column in part.columns])
    each = (sizes * widths[:, None]).sum(axis=0) + _KEY_BYTES
    for piece in split(each, _FRAME_BYTES):
        frames = [spill.pack(part.keys[piece])]
        frames += [spill.pack(sizes[k, piece].astype(np.uint32)) for k in sorted(set(shared))]
        for ends, column in zip(part.offsets, part.columns, strict=True):
            frames.append(spill.pack(column[ends[piece.start] : ends[piece.stop]]))
        yield Cut(int(part.keys[piece.start]), piece.stop - piece.start, int(each[piece].sum()), frames)


def uncut(count: int, frames: Sequence[bytes], shared: Sequence[int], dtypes: Sequence[np.dtype]) -> Part:
    """The part that a cut was made of; `OutputError` if a frame was changed."""
    keys = spill.unpack(frames[0], np.dtype(np.int64), count).view(np.int64)
    distinct = sorted(set(shared))
    ends = {
        column: np.r_[0, np.cumsum(spill.unpack(frame, np.dtype(np.uint32), count), dtype=np.int64)]
        for column, frame in zip(distinct, frames[1:], strict=False)
    }
    offsets = tuple(ends[column] for column in shared)
    stored = zip(frames[1 + len(distinct) :], dtypes, offsets, strict=True)
    return Part(keys, offsets, tuple(spill.unpack(frame, dtype, int(own[-1])) for frame, dtype, own in stored))


@dataclass(frozen=True)
class _Stored:
    """A part in a temporary file.

    Attributes
    ----------
    firsts
        First key of each cut.
    counts
        Keys of each cut.
    shared
        Column whose offsets each column shares.
    largest
        Bytes of the largest cut.
    """

    files: SpillFiles
    name: int
    firsts: NDArray[np.int64]
    counts: NDArray[np.int64]
    shared: tuple[int, ...]
    largest: int

    @classmethod
    def of(cls, part: Part, files: SpillFiles, name: int) -> _Stored:
        """Write a part."""
        shared = tuple(next(k for k, known in enumerate(part.offsets) if known is ends) for ends in part.offsets)
        cuts = list(cuts_of(part, shared))
        files.write(name, [frame for cut in cuts for frame in cut.frames])
        firsts, counts = (np.array([getattr(cut, key) for cut in cuts], np.int64) for key in ("first", "count"))
        return cls(files, name, firsts, counts, shared, max((cut.n_bytes for cut in cuts), default=0))

    def pieces(self, first_key: int, last_key: int, dtypes: Sequence[np.dtype]) -> Iterator[Part]:
        """The cuts that may have keys from `first_key` to `last_key`, one after the other."""
        n_frames = 1 + len(set(self.shared)) + len(dtypes)
        for cut in cuts_with(self.firsts, first_key, last_key):
            frames = self.files.read(self.name, slice(cut * n_frames, (cut + 1) * n_frames))
            yield uncut(int(self.counts[cut]), frames, self.shared, dtypes)


def cuts_with(firsts: NDArray[np.int64], first_key: int, last_key: int) -> range:
    """Numbers of the cuts that may have keys from `first_key` to `last_key`; `firsts` are their first keys."""
    begin = max(int(np.searchsorted(firsts, first_key, side="right")) - 1, 0)
    return range(begin, int(np.searchsorted(firsts, last_key, side="right")))
