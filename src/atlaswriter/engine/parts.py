"""Regrouping by way of files: rows of a matrix are sorted share by share, then genes are given out from all shares.

The matrix is read once, in memory that does not grow with it. Both halves may be many processes on machines that see
the same folder: each writes the files of some shares, in any order; once all are there, each gives out a range of
genes, and reads the measurements and entries of these alone.

The file of a share is written from its beginning to its end, integers as little-endian int64:

- for each part of its rows a table, (n_ranges, 5): where the three frames of each range of genes begin and end,
  counted from the table, and their CRC-32; then the frames (`codecs.spill`): entries of each gene (int64), gaps of
  rows (uint32) and values;
- what was measured: a record of 32 bytes for each gene; then for each range, (n_ranges, 2), the entries of its largest
  frame, and the CRC-32 of its records and of this number;
- a directory, (n_parts, 2): the first row of each part, and where its table is;
- a footer, which says what the file is, where the measurement begins, and the CRC-32 of the directory.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import spill
from atlaswriter.codecs.crc import crc32
from atlaswriter.engine.regroup import ENTRY_BYTES, Measured, OnRead, slots
from atlaswriter.engine.rows import Block, Rows
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import NewFile, WrittenFile
from atlaswriter.errors import InputError, Problem
from atlaswriter.kernels import csr

# First and last row (exclusive).
Share = tuple[int, int]

_MAGIC = b"awparts1"
_TABLE_WIDTH = 5
_RECORD = np.dtype([("count", "<i8"), ("n_missing", "<i8"), ("low", "<f8"), ("high", "<f8")])
# Magic, key of the sorting, first and last row of the share, number of parts, where the measurement begins, and the
# CRC-32 of the directory.
_FOOTER = struct.Struct("<8s32sqqqqq")


@dataclass(frozen=True, eq=False)
class Sorting:
    """How the rows of a matrix are sorted: the same for every share, and for whoever reads them.

    Attributes
    ----------
    genes
        int64 (n_genes,): columns to give out, in this order; none twice.
    cuts
        int64 (n_ranges + 1,): positions among `genes` where ranges of genes begin, and their number.
    part_entries
        Entries of one part of the rows, which one thread holds twice.
    n_rows
        Rows of the matrix.
    dtype
        Dtype of its values in blocks of rows.
    run
        Whatever tells these files from those of other runs: a fingerprint of input and options. Empty in one process.
    """

    genes: NDArray[np.int64]
    cuts: NDArray[np.int64]
    part_entries: int
    n_rows: int
    dtype: np.dtype
    run: str = ""

    @classmethod
    def of(cls, rows: Rows, genes: NDArray[np.int64], part_entries: int, n_ranges: int, run: str = "") -> Sorting:
        """About `n_ranges` ranges of as many genes each, at most one a gene."""
        cuts = np.linspace(0, genes.size, max(1, min(genes.size, n_ranges)) + 1).astype(np.int64)
        return cls(genes, cuts, part_entries, rows.n_rows, rows.dtype, run)

    @cached_property
    def key(self) -> bytes:
        """32 bytes that stand in every file, and differ wherever files do not belong together."""
        facts = repr((self.run, self.part_entries, self.n_rows, self.dtype.str, self.genes.size)).encode()
        arrays = (np.ascontiguousarray(array, "<i8").tobytes() for array in (self.genes, self.cuts))
        return hashlib.blake2b(b"".join([facts, *arrays]), digest_size=32).digest()


def share_name(share: Share) -> str:
    """Name of the file of some rows."""
    return f"rows-{share[0]:012d}-{share[1]:012d}"


def write_shares(
    rows: Rows, sorting: Sorting, shares: Sequence[Share], folder: Path, team: Team, on_read: OnRead
) -> int:
    """Write the files of some shares, several at once.

    Parameters
    ----------
    rows
        The matrix.
    sorting
        How it is sorted.
    shares
        Ranges of rows, as `Rows.parts` makes them; each is the work of one thread.
    folder
        Where they are written; it exists.
    team
        Threads.
    on_read
        Told of progress, as by `regroup.InMemory`.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    InputError
        The matrix is damaged, or a share is no range of its rows.
    OutputError
        The files cannot be written.
    """
    running = [team.submit(write_share, rows, sorting, share, folder, on_read) for share in shares]
    return sum(future.result() for future in running)


def write_share(rows: Rows, sorting: Sorting, share: Share, folder: Path, on_read: OnRead) -> int:
    """Write the file of one share, its bytes; see `write_shares`.

    May be done any number of times, also at once in several processes, and be killed: what has the name of the share
    is always all of it. Repeated entries of a row are added up; as they are looked for in every share, the others
    need not know.
    """
    with NewFile(folder / share_name(share)) as file:
        if not _ShareWriter(rows, sorting, file, on_read).run(share):
            file.restart()
            _ShareWriter(rows.adding_up(), sorting, file, on_read).run(share)
    return file.size


class _ShareWriter:
    """Reads the rows of a share once, measures them, and writes them sorted."""

    def __init__(self, rows: Rows, sorting: Sorting, file: NewFile, on_read: OnRead) -> None:
        self._rows, self._sorting, self._file, self._on_read = rows, sorting, file, on_read
        self._slot = slots(rows.n_columns, sorting.genes)
        self._measured = Measured(rows.n_columns, rows.dtype)
        self._largest = np.zeros(sorting.cuts.size - 1, np.int64)
        self._directory: list[tuple[int, int]] = []

    def run(self, share: Share) -> bool:
        """Write the whole file; False, with part of it written, where a row has two entries in one column."""
        measured, (row, last) = self._measured, share
        for block in self._rows.blocks(*share, self._sorting.part_entries):
            before = measured.counts.copy()
            measured.add(*block)
            if measured.repeats:
                return False
            if block.first != row:
                break
            self._write_part(block, (measured.counts - before)[self._sorting.genes])
            row += block.indptr.size - 1
            self._on_read(ENTRY_BYTES * block.indices.size)
        if row != last:
            found = f"rows {share[0]:,} to {last:,} cannot be read by themselves any more"
            raise InputError(Problem(self._rows.where, found, "the matrix has changed: start anew"))
        self._finish(share)
        return True

    def _write_part(self, block: Block, counts: NDArray[np.int64]) -> None:
        offsets = np.r_[0, np.cumsum(counts)]
        gaps, values = np.empty(offsets[-1], np.uint32), np.empty(offsets[-1], block.values.dtype)
        csr.group(
            block.indptr, block.indices, block.values, block.offset, self._slot, offsets[:-1].copy(),
            np.zeros(counts.size, np.int64), gaps, values,
        )  # fmt: skip
        cuts = self._sorting.cuts
        frames, table = [], np.empty((cuts.size - 1, _TABLE_WIDTH), "<i8")
        position = table.nbytes
        for number, (first, last) in enumerate(pairwise(cuts.tolist())):
            entries = slice(offsets[first], offsets[last])
            crc, table[number, 0] = 0, position
            for column, array in enumerate((counts[first:last], gaps[entries], values[entries]), 1):
                frame = spill.pack(array)
                crc, position = crc32(frame, crc), position + len(frame)
                table[number, column] = position
                frames.append(frame)
            table[number, -1] = crc
        self._directory.append((block.first, self._file.size))
        for content in (table.tobytes(), *frames):
            self._file.write(content)
        np.maximum(self._largest, np.diff(offsets[cuts]), out=self._largest)

    def _finish(self, share: Share) -> None:
        measured, begin, genes = self._measured, self._file.size, self._sorting.genes
        records = np.empty(genes.size, _RECORD)
        found = (measured.counts, measured.n_missing, measured.low, measured.high)
        for name, array in zip(("count", "n_missing", "low", "high"), found, strict=True):
            records[name] = array[genes]
        ranges = np.empty((self._largest.size, 2), "<i8")
        ranges[:, 0] = self._largest
        for number, (first, last) in enumerate(pairwise(self._sorting.cuts.tolist())):
            ranges[number, 1] = _crc_of(records[first:last], ranges[number])
        directory = np.array(self._directory, "<i8").tobytes()
        footer = _FOOTER.pack(_MAGIC, self._sorting.key, *share, len(self._directory), begin, crc32(directory))
        for content in (records.tobytes(), ranges.tobytes(), directory, footer):
            self._file.write(content)


def _crc_of(records: NDArray[np.void], measured: NDArray[np.int64]) -> int:
    return crc32(measured[:1].tobytes(), crc32(records.tobytes()))


def remedy(sorting: Sorting) -> str:
    """What helps where a file cannot be used."""
    return "run the task again" if sorting.run else "run again"


class ShareFile(WrittenFile):
    """The file of a share, as others see it.

    Parameters
    ----------
    folder, sorting, share
        As of `write_share`.

    Raises
    ------
    OutputError
        From every method, when the file is missing, damaged, or of another run.
    """

    def __init__(self, folder: Path, sorting: Sorting, share: Share) -> None:
        super().__init__(folder / share_name(share), remedy(sorting))
        self._sorting = sorting
        n_genes, n_ranges = sorting.genes.size, sorting.cuts.size - 1
        with self._opened() as descriptor:
            size = os.fstat(descriptor).st_size
            footer = self._fetch(descriptor, _FOOTER.size, size - _FOOTER.size)
            magic, key, first, last, n_parts, self._begin, crc = _FOOTER.unpack(footer)
            if magic != _MAGIC:
                raise self.damaged("was cut short, or is something else")
            if (key, first, last) != (sorting.key, *share):
                raise self._wrong("belongs to another run")
            self._at_ranges = self._begin + n_genes * _RECORD.itemsize
            at_directory = self._at_ranges + 16 * n_ranges
            if n_parts < 0 or at_directory + 16 * n_parts + _FOOTER.size != size:
                raise self.damaged()
            directory = self._fetch(descriptor, 16 * n_parts, at_directory)
            if crc32(directory) != crc:
                raise self.damaged()
        self._directory = np.frombuffer(directory, "<i8").reshape(-1, 2)

    def measurement(self, ranges: slice) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Records of the genes of some ranges, and entries of the largest frame of each range."""
        with self._opened() as descriptor:
            return self._measured(descriptor, ranges)

    def _measured(self, descriptor: int, ranges: slice) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        cuts, width = self._sorting.cuts[ranges.start : ranges.stop + 1].tolist(), _RECORD.itemsize
        stored = self._fetch(descriptor, (cuts[-1] - cuts[0]) * width, self._begin + cuts[0] * width)
        measured = self._fetch(descriptor, 16 * (len(cuts) - 1), self._at_ranges + 16 * ranges.start)
        records, found = np.frombuffer(stored, _RECORD), np.frombuffer(measured, "<i8").reshape(-1, 2)
        for (first, last), one in zip(pairwise(cuts), found, strict=True):
            if _crc_of(records[first - cuts[0] : last - cuts[0]], one) != one[1]:
                raise self.damaged()
        return records, found[:, 0]

    def frames(self, number: int) -> Iterator[tuple[int, NDArray[np.int64], bytes, bytes]]:
        """First row of each part, and of one range of genes: entries of each, frames of gaps and of values."""
        with self._opened() as descriptor:
            expected = self._measured(descriptor, slice(number, number + 1))[0]["count"]
            total = np.zeros(expected.size, np.int64)
            for first_row, begin in self._directory.tolist():
                of_counts, gaps, values = self._of_part(descriptor, begin, number)
                counts = spill.unpack(of_counts, np.dtype(np.int64), total.size).view(np.int64)
                total += counts
                yield first_row, counts, gaps, values
        if not np.array_equal(total, expected):
            raise self.damaged()

    def _of_part(self, descriptor: int, begin: int, number: int) -> list[bytes]:
        """The three frames of one range."""
        width = 8 * _TABLE_WIDTH
        *ends, crc = np.frombuffer(self._fetch(descriptor, width, begin + width * number), "<i8").tolist()
        first, last = ends[0], ends[-1]
        if ends != sorted(ends) or first < width * (self._sorting.cuts.size - 1) or begin + last > self._begin:
            raise self.damaged()
        content = self._fetch(descriptor, last - first, begin + first)
        if crc32(content) != crc:
            raise self.damaged()
        return [content[start - first : end - first] for start, end in pairwise(ends)]
