"""Ranks of distances that do not fit in memory: in runs of cells on disk, and from there by category.

The rows are cut in runs that fit. Each is grouped by category and written. Consecutive categories
that fit together are read back from all runs, grouped once more and ranked as in memory. A category
that does not fit by itself is sorted in each run before it is written, and merged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.columns import split
from atlaswriter.kernels import groups
from atlaswriter.sinks import fs
from atlaswriter.sources.base import Array

# A key and a cell.
ENTRY_BYTES = 12
# Entries that are read at a time to be grouped: 768 KiB.
_PIECE = 1 << 16
# A run holds at least this many times the square root of the number of cells: then there are so few runs that 4,096
# entries of each have room when they are merged, and where categories begin in them takes n_cells / 256 bytes.
_LEAST_RUN = 64


def least_entries(n_cells: int) -> int:
    """Entries that a run has to hold at least."""
    return min(n_cells, _LEAST_RUN * (isqrt(n_cells) + 1))


def extra_bytes(n_cells: int) -> int:
    """What ranking by runs takes beside the entries of one run."""
    return ENTRY_BYTES * min(n_cells, _PIECE) + n_cells // 256 + (64 << 10)


@dataclass
class Entries:
    """Keys of distances (int64) and the cells they belong to (uint32)."""

    keys: NDArray[np.int64]
    cells: NDArray[np.uint32]

    @classmethod
    def empty(cls, size: int) -> Entries:
        """Room for so many."""
        return cls(np.empty(size, np.int64), np.empty(size, np.uint32))

    def __getitem__(self, part: slice) -> Entries:
        return Entries(self.keys[part], self.cells[part])

    def rows(self, n_rows: int, width: int) -> Entries:
        """The first ones as a table."""
        size = n_rows * width
        return Entries(self.keys[:size].reshape(n_rows, width), self.cells[:size].reshape(n_rows, width))


class _Column:
    """A temporary file of numbers: gone when it is closed, and where the system can do so out of sight before."""

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by Spill

    def append(self, array: Array) -> None:
        fs.append(self._file.fileno(), array)

    def read(self, first: int, out: Array) -> None:
        self._file.seek(first * out.itemsize)
        rest = out.data.cast("B") if out.size else out.data
        while rest.nbytes:
            size = self._file.readinto(rest)  # type: ignore[attr-defined]
            if not size:
                raise OSError("a temporary file is shorter than what was written to it")
            rest = rest[size:]

    def close(self) -> None:
        self._file.close()


class Spill:
    """Entries on disk, in the order they were appended; a context manager, after which they are gone."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        with ExitStack() as stack:
            self._keys = _Column(folder)
            stack.callback(self._keys.close)
            self._cells = _Column(folder)
            stack.callback(self._cells.close)
            self._files = stack.pop_all()

    def append(self, entries: Entries) -> None:
        """Write some more."""
        self._keys.append(entries.keys)
        self._cells.append(entries.cells)
        self.size += entries.keys.size

    def read(self, first: int, out: Entries) -> None:
        """Fill `out` with those from number `first` on."""
        self._keys.read(first, out.keys)
        self._cells.read(first, out.cells)

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()


# Fills entries with those of the cells in some rows, each category where the cursor says (-1: leave it out).
Fill = Callable[[int, int, NDArray[np.int64], Entries], None]


class ByRuns:
    """Ranks of the cells of each category, by runs of rows.

    Parameters
    ----------
    codes
        uint8 or uint16 (n_cells,).
    sizes
        Cells of each category, 0 for those to leave out.
    entries
        Working space, of as many entries as a run may have.
    run_rows
        Rows of a run: not more than entries.
    quantiles
        float32 (n_cells,), filled at the cells of these categories.
    """

    def __init__(
        self,
        codes: Array,
        sizes: NDArray[np.int64],
        entries: Entries,
        run_rows: int,
        quantiles: NDArray[np.float32],
    ) -> None:
        self._codes = codes
        self._sizes = sizes
        self._entries = entries
        # Where batches of consecutive categories begin, which have room together or are a single one.
        self._bounds = np.array([0, *(batch.stop for batch in split(sizes, entries.keys.size))])
        self._large = sizes > entries.keys.size
        self._firsts = range(0, codes.size, run_rows)
        self._begins = np.zeros((len(self._firsts), self._bounds.size), np.int64)
        self._quantiles = quantiles

    def rank(self, fill: Fill, folder: Path) -> None:
        """Do it all; what is on disk meanwhile is in `folder`."""
        with Spill(folder) as spill:
            for run in range(len(self._firsts)):
                self._write(run, fill, spill)
            for batch, (first, last) in enumerate(pairwise(self._bounds.tolist())):
                if self._large[first]:
                    self._merge(batch, int(self._sizes[first]), spill)
                elif self._sizes[first:last].any():
                    self._rank_together(batch, first, last, spill)

    def _write(self, run: int, fill: Fill, spill: Spill) -> None:
        first = self._firsts[run]
        last = min(first + self._firsts.step, self._codes.size)
        here = np.zeros_like(self._sizes)
        groups.count(self._codes[first:last], here)
        here[self._sizes == 0] = 0
        starts = np.zeros(here.size + 1, np.int64)
        np.cumsum(here, out=starts[1:])
        part = self._entries[: starts[-1]]
        fill(first, last, np.where(self._sizes > 0, starts[:-1], -1), part)
        groups.sort(part.keys, part.cells, starts, self._large)
        self._begins[run] = spill.size + starts[self._bounds]
        spill.append(part)

    def _pieces(self, batch: int) -> Iterator[tuple[int, int]]:
        """Where a batch begins and ends in each run."""
        for run in self._begins[:, batch : batch + 2].tolist():
            yield run[0], run[1]

    def _rank_together(self, batch: int, first: int, last: int, spill: Spill) -> None:
        starts = np.zeros(last - first + 1, np.int64)
        np.cumsum(self._sizes[first:last], out=starts[1:])
        cursor = np.zeros_like(self._sizes)
        cursor[first:last] = starts[:-1]
        grouped, piece = self._entries[: starts[-1]], Entries.empty(min(_PIECE, int(starts[-1])))
        for begin, end in self._pieces(batch):
            for at in range(begin, end, piece.keys.size):
                part = piece[: end - at]
                spill.read(at, part)
                groups.regroup(part.keys, part.cells, self._codes, cursor, grouped.keys, grouped.cells)
        groups.ranks(grouped.keys, grouped.cells, starts, self._quantiles)

    def _merge(self, batch: int, size: int, spill: Spill) -> None:
        n_runs = len(self._firsts)
        tails = self._entries.rows(n_runs, self._entries.keys.size // n_runs)
        begins, ends = (np.array(column) for column in zip(*self._pieces(batch), strict=True))
        left, more = np.zeros(n_runs, np.int64), np.zeros(n_runs, np.bool_)
        state = np.array([size, -1, 0])

        def refill(run: int) -> None:
            left[run] = min(tails.keys.shape[1], ends[run] - begins[run])
            ends[run] -= left[run]
            more[run] = ends[run] > begins[run]
            spill.read(int(ends[run]), Entries(tails.keys[run, : left[run]], tails.cells[run, : left[run]]))

        for run in range(n_runs):
            refill(run)
        while (run := groups.merge_ranks(tails.keys, tails.cells, left, more, state, self._quantiles, size)) >= 0:
            refill(run)


def kernels(code: str) -> Iterator[tuple[Any, str]]:
    """The kernels called here, for codes of this type ("u1", "u2")."""
    yield groups.count, f"({code}[::1], i8[::1])"
    yield groups.sort, "(i8[::1], u4[::1], i8[::1], b1[::1])"
    yield groups.regroup, f"(i8[::1], u4[::1], {code}[::1], i8[::1], i8[::1], u4[::1])"
    yield groups.ranks, "(i8[::1], u4[::1], i8[::1], f4[::1])"
    yield groups.merge_ranks, "(i8[:, ::1], u4[:, ::1], i8[::1], b1[::1], i8[::1], f4[::1], i8)"
