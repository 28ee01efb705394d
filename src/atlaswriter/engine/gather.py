"""Records that arrive in any order leave grouped by key.

The source is read once, some rows at a time; what was read together is grouped on the spot and becomes a `Part`.
Parts stay in memory as far as there is room, and go to temporary files beyond that. Then keys are given out in
ascending order, each with the records of all parts, in the order of the source.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import spill
from atlaswriter.engine.columns import split
from atlaswriter.engine.spill import SpillFiles
from atlaswriter.kernels import bins
from atlaswriter.sources.base import Array

# Bytes of a part's column in one frame of a temporary file, about: frames are read whole, for part of their keys.
_FRAME_BYTES = 1 << 18


@dataclass(frozen=True)
class Part:
    """Records of one stretch of the source, grouped by key.

    Attributes
    ----------
    keys
        int64 (n_keys,), strictly ascending.
    offsets
        For each column, int64 (n_keys + 1,): where the values of each key begin.
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


@dataclass(frozen=True)
class Grouped:
    """All records of some keys; attributes as of `Part`."""

    keys: NDArray[np.int64]
    offsets: tuple[NDArray[np.int64], ...]
    columns: tuple[Array, ...]

    def of(self, position: int) -> tuple[Array, ...]:
        """Columns of one key."""
        return tuple(
            column[offsets[position] : offsets[position + 1]]
            for column, offsets in zip(self.columns, self.offsets, strict=True)
        )


class Gathering:
    """Collects parts, and gives their records out by key.

    Parameters
    ----------
    dtypes
        Of the columns: 2 or 4 bytes each.
    room
        Bytes of parts that may be held; they belong to the caller.
    scratch
        Makes the folder for temporary files.

    Attributes
    ----------
    keys
        int64 (n_keys,), ascending: all keys, once `finish` was called.
    """

    def __init__(self, dtypes: Sequence[np.dtype], room: int, scratch: Callable[[], Path]) -> None:
        self.dtypes = tuple(dtypes)
        self.keys = np.empty(0, np.int64)
        self._room, self._scratch = room, scratch
        self._parts: dict[tuple[int, int], Part | _Stored] = {}
        self._files: SpillFiles | None = None
        self._n_stored = 0
        self._guard = threading.Lock()

    @property
    def spill_bytes(self) -> int:
        """Bytes written to temporary files."""
        return 0 if self._files is None else self._files.bytes_written

    def add(self, number: tuple[int, int], part: Part) -> None:
        """Take in a part; several threads may. `number` tells its place in the source."""
        with self._guard:
            fits = part.n_bytes <= self._room
            if fits:
                self._room -= part.n_bytes
                self._parts[number] = part
                return
            if self._files is None:
                self._files = SpillFiles(self._scratch())
            files, name = self._files, self._n_stored
            self._n_stored += 1
        stored = _Stored.of(part, files, name)
        with self._guard:
            self._parts[number] = stored

    def finish(self) -> None:
        """All parts are there."""
        self._ordered = [self._parts[number] for number in sorted(self._parts)]
        found = [np.concatenate([part.keys for part in self._ordered])] if self._ordered else []
        self.keys = np.unique(np.concatenate([self.keys, *found]))
        self._sizes = np.zeros((len(self.dtypes), self.keys.size), np.int64)
        for part in self._ordered:
            slots = np.searchsorted(self.keys, part.keys)
            for sizes, offsets in zip(self._sizes, part.offsets, strict=True):
                sizes[slots] += np.diff(offsets)

    @property
    def held(self) -> int:
        """Bytes of the parts in memory."""
        return sum(part.n_bytes for part in self._parts.values() if isinstance(part, Part))

    def release(self) -> None:
        """Let go of all records."""
        self._parts.clear()
        self._ordered.clear()

    def sizes(self, column: int) -> NDArray[np.int64]:
        """Values of each key in one column, int64 (n_keys,)."""
        found: NDArray[np.int64] = self._sizes[column]
        return found

    def pieces(self, room: int) -> list[slice]:
        """Consecutive keys, of `room` bytes at most or a single one."""
        return split(self._bytes(), room)

    def room(self, keys: slice) -> int:
        """Bytes that `read` takes for some keys: their records, and frames of the parts that are in files."""
        stored = max((part.largest_frame for part in self._ordered if isinstance(part, _Stored)), default=0)
        return int(self._bytes()[keys].sum()) * (1 if not stored else 2) + 3 * stored

    def read(self, keys: slice) -> Grouped:
        """The records of some keys."""
        wanted = self.keys[keys]
        offsets = tuple(np.r_[0, np.cumsum(sizes[keys])] for sizes in self._sizes)
        columns = tuple(np.empty(ends[-1], dtype) for ends, dtype in zip(offsets, self.dtypes, strict=True))
        cursors = [ends[:-1].copy() for ends in offsets]
        for part in self._ordered if wanted.size else ():
            first, last = np.searchsorted(part.keys, [wanted[0], wanted[-1] + 1])
            if first == last:
                continue
            own = part.keys[first:last]
            for number, (cursor, out) in enumerate(zip(cursors, columns, strict=True)):
                ends = part.offsets[number][first : last + 1]
                values = (
                    part.columns[number][ends[0] : ends[-1]]
                    if isinstance(part, Part)
                    else part.values(number, first, last, out.dtype)
                )
                bins.place(own, ends, wanted, values, cursor, out)
        return Grouped(wanted, offsets, columns)

    def _bytes(self) -> NDArray[np.int64]:
        widths = np.array([dtype.itemsize for dtype in self.dtypes])
        found: NDArray[np.int64] = (self._sizes * widths[:, None]).sum(axis=0)
        return found


@dataclass(frozen=True)
class _Stored:
    """A part in a temporary file, whose keys and offsets stay in memory.

    Attributes
    ----------
    cuts
        Positions in `keys` where frames begin, and the end; the same for all columns.
    """

    keys: NDArray[np.int64]
    offsets: tuple[NDArray[np.int64], ...]
    files: SpillFiles
    name: int
    cuts: NDArray[np.int64]
    largest_frame: int

    @classmethod
    def of(cls, part: Part, files: SpillFiles, name: int) -> _Stored:
        columns = list(zip(part.offsets, part.columns, strict=True))
        sizes = np.max([np.diff(ends) * column.itemsize for ends, column in columns], axis=0)
        cuts = np.array([0, *(piece.stop for piece in split(sizes, _FRAME_BYTES))])
        frames, largest = [], 0
        for ends, column in columns:
            bounds = ends[cuts]
            frames += [spill.pack(column[first:last]) for first, last in pairwise(bounds)]
            largest = max(largest, int(np.diff(bounds).max(initial=0)) * column.itemsize)
        files.write(name, frames)
        return cls(part.keys, part.offsets, files, name, cuts, largest)

    def values(self, column: int, first: int, last: int, dtype: np.dtype) -> Array:
        """Values of the keys at positions `first` to `last` in one column."""
        n_frames = self.cuts.size - 1
        begin = int(np.searchsorted(self.cuts, first, side="right")) - 1
        end = int(np.searchsorted(self.cuts, last, side="left"))
        ends = self.offsets[column]
        bounds = ends[self.cuts[begin : end + 1]]
        frames = self.files.read(self.name, slice(column * n_frames + begin, column * n_frames + end))
        found = np.concatenate(
            [spill.unpack(frame, dtype, int(size)) for frame, size in zip(frames, np.diff(bounds), strict=True)]
        )
        return found[ends[first] - bounds[0] : ends[last] - bounds[0]]
