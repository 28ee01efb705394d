"""Regrouping by way of temporary files: the matrix is read once, in memory that does not grow with it."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import spill
from atlaswriter.engine.columns import Batch, CodedColumns, MakeRules, Rules, split
from atlaswriter.engine.regroup import ENTRY_BYTES, Measured, OnRead, bounds_of, slots, sum_of
from atlaswriter.engine.rows import Block, Rows
from atlaswriter.engine.run import Team
from atlaswriter.errors import OutputError, Problem
from atlaswriter.kernels import csr
from atlaswriter.units import format_bytes

_REMEDY = "choose another folder (spill_dir=, --spill-dir), or a larger memory budget"


class SpillFiles:
    """One temporary file for each part of the rows: where the frames of each range of genes begin, and the frames.

    A part is known by its first row.

    Parameters
    ----------
    folder
        Where they are written; it belongs to the caller, who removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise spill_error(folder, error, 0) from error
        self._parts: list[int] = []
        self._guard = threading.Lock()
        self.bytes_written = 0

    def parts(self) -> list[int]:
        """Numbers of the parts written, ascending."""
        return sorted(self._parts)

    def write(self, part: int, frames: list[bytes]) -> None:
        """Write the frames of one part."""
        # In the file, as many parts of many ranges would add up to gigabytes.
        table = np.cumsum([8 * (len(frames) + 1), *map(len, frames)], dtype=np.int64)
        try:
            with self._path(part).open("xb", buffering=0) as file:
                for content in (table.tobytes(), *frames):
                    _write_all(file.fileno(), content)
        except OSError as error:
            raise spill_error(self._folder, error, self.bytes_written + int(table[-1])) from error
        with self._guard:
            self._parts.append(part)
            self.bytes_written += int(table[-1])

    def read(self, part: int, frames: slice) -> list[bytes]:
        """Some consecutive frames of one part."""
        count = frames.stop - frames.start
        try:
            with self._path(part).open("rb", buffering=0) as file:
                table = np.frombuffer(self._fetch(file.fileno(), 8 * (count + 1), 8 * frames.start), "i8")
                if table[0] < 8 * (count + 1) or (np.diff(table) < 0).any():
                    raise self._changed()
                content = self._fetch(file.fileno(), int(table[-1] - table[0]), int(table[0]))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise self._changed(f"cannot be read ({error.strerror or error})") from error
        ends = (table - table[0]).tolist()
        return [content[start:end] for start, end in pairwise(ends)]

    def discard(self) -> None:
        """Delete all parts."""
        for part in self._parts:
            self._path(part).unlink()

    def _fetch(self, descriptor: int, size: int, offset: int) -> bytes:
        content = os.pread(descriptor, size, offset)
        if len(content) != size:
            raise self._changed("was cut short")
        return content

    def _changed(self, how: str = "was changed while it was needed") -> OutputError:
        return OutputError(str(Problem(str(self._folder), f"a temporary file {how}", "run again")))

    def _path(self, part: int) -> Path:
        return self._folder / f"rows-{part:012d}"


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def refuse_full_disk(folder: Path, size: int) -> None:
    """Raise `OutputError` unless about `size` bytes of temporary files fit on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        found = f"about {format_bytes(size)} of temporary files are needed, {format_bytes(free)} are free"
        raise OutputError(str(Problem(str(folder), found, _REMEDY)))


def spill_error(folder: Path, error: OSError, needed: int) -> OutputError:
    """What to say when a temporary file cannot be written."""
    found = f"temporary files cannot be written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        found += f": {format_bytes(needed)} needed so far"
    return OutputError(str(Problem(str(folder), found, _REMEDY)))


def frame_bytes(dtype: np.dtype) -> int:
    """Bytes of an entry of the frames being read: gap and value as stored, as planes and as numbers."""
    return 3 * (4 + dtype.itemsize)


class Spilled:
    """A CSR matrix whose entries were sorted by range of genes into temporary files.

    Parameters
    ----------
    rows, genes, make_rules, team
        As of `regroup.InMemory`.
    folder
        For temporary files.
    part_entries
        Entries of one part of the rows, which one thread holds twice.
    n_ranges
        Ranges of genes, at most one a gene.
    piece_entries
        Entries of the genes that are given out together, or of a single one.
    on_read
        Told of progress, as by `regroup.InMemory`.
    """

    def __init__(
        self, rows: Rows, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, folder: Path,
        part_entries: int, n_ranges: int, piece_entries: int, on_read: OnRead,
    ) -> None:  # fmt: skip
        self.first = 0
        self._piece_entries = piece_entries
        self._cuts = np.linspace(0, genes.size, max(1, min(genes.size, n_ranges)) + 1).astype(np.int64)
        self._dtype = rows.dtype
        writer = _Writer(rows, genes, self._cuts, SpillFiles(folder), part_entries, on_read)
        measured = writer.run(team)
        if any(part.repeats for part in measured):
            writer.files.discard()
            writer = _Writer(rows.adding_up(), genes, self._cuts, SpillFiles(folder / "sums"), part_entries, on_read)
            measured = writer.run(team)
        self._files, self._largest = writer.files, writer.largest
        self.spill_bytes = writer.files.bytes_written
        counts = sum_of(part.counts for part in measured)
        self.sizes = counts[genes]
        self._n_missing = sum_of(part.n_missing for part in measured)[genes]
        self._rules: Rules = make_rules(bounds_of(measured, self.sizes, genes, rows.n_rows))

    def batches(self, room: int) -> Iterator[Batch]:
        """All genes at once: nothing is held."""
        del room
        yield self

    def pieces(self) -> list[slice]:
        """The ranges of genes; those with too many entries, the frames of which are read several times, in pieces."""
        return [
            slice(first + piece.start, first + piece.stop)
            for first, last in pairwise(self._cuts.tolist())
            for piece in split(self.sizes[first:last], self._piece_entries)
        ]

    def room(self, piece: slice) -> int:
        """Bytes that `read` takes: entries, and the frames of one part."""
        return int(self.sizes[piece].sum()) * ENTRY_BYTES + int(self._largest[self._range(piece)]) * frame_bytes(
            self._dtype
        )

    def read(self, piece: slice) -> CodedColumns:
        """Genes of one range."""
        position = self._range(piece)
        first, last = self._cuts[position : position + 2].tolist()
        mine = slice(piece.start - first, piece.stop - first)
        rules, offsets = self._rules[piece], np.r_[0, np.cumsum(self.sizes[piece])]
        entries, cursor = np.empty(offsets[-1], np.int64), offsets[:-1].copy()
        for first_row in self._files.parts():
            frames = self._files.read(first_row, slice(3 * position, 3 * position + 3))
            counts = spill.unpack(frames[0], np.dtype(np.int64), last - first)
            ends = np.r_[0, np.cumsum(counts)]
            here = slice(ends[mine.start], ends[mine.stop])
            gaps = spill.unpack(frames[1], np.dtype(np.uint32), int(ends[-1]))[here]
            values = spill.unpack(frames[2], self._dtype, int(ends[-1]))[here]
            csr.append(counts[mine], gaps, values, first_row, rules.table, rules.mode, rules.top, cursor, entries)
        return CodedColumns(entries, offsets, rules, self._n_missing[piece])

    def _range(self, piece: slice) -> int:
        return int(np.searchsorted(self._cuts, piece.start, side="right")) - 1


class _Writer:
    """Reads the matrix once, measures it, and writes the parts; `largest` are the entries of the largest frames."""

    def __init__(
        self,
        rows: Rows,
        genes: NDArray[np.int64],
        cuts: NDArray[np.int64],
        files: SpillFiles,
        part_entries: int,
        on_read: OnRead,
    ) -> None:
        self.files = files
        self._on_read = on_read
        self._rows, self._genes, self._cuts, self._part_entries = rows, genes, cuts, part_entries
        self._slot = slots(rows.n_columns, genes)
        self.largest = np.zeros(cuts.size - 1, np.int64)
        self._guard = threading.Lock()

    def run(self, team: Team) -> list[Measured]:
        """Write every part; what was measured on the way."""
        shares = self._rows.parts(team.workers)
        measured = [Measured(self._rows.n_columns, self._rows.dtype) for _ in shares]
        running = [team.submit(self._write_share, *pair) for pair in zip(shares, measured, strict=True)]
        for future in running:
            future.result()
        return measured or [Measured(self._rows.n_columns, self._rows.dtype)]

    def _write_share(self, share: tuple[int, int], measured: Measured) -> None:
        for block in self._rows.blocks(*share, self._part_entries):
            before = measured.counts.copy()
            measured.add(*block)
            if measured.repeats:
                return
            self._write_part(block, (measured.counts - before)[self._genes])
            self._on_read(ENTRY_BYTES * block.indices.size)

    def _write_part(self, block: Block, counts: NDArray[np.int64]) -> None:
        offsets = np.r_[0, np.cumsum(counts)]
        gaps, values = np.empty(offsets[-1], np.uint32), np.empty(offsets[-1], block.values.dtype)
        csr.group(
            block.indptr, block.indices, block.values, block.offset, self._slot, offsets[:-1].copy(),
            np.zeros(counts.size, np.int64), gaps, values,
        )  # fmt: skip
        frames = []
        for first, last in pairwise(self._cuts):
            entries = slice(offsets[first], offsets[last])
            frames += [spill.pack(counts[first:last]), spill.pack(gaps[entries]), spill.pack(values[entries])]
        self.files.write(block.first, frames)
        with self._guard:
            np.maximum(self.largest, np.diff(offsets[self._cuts]), out=self.largest)
