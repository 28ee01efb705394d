"""Genes given out from files of sorted rows, by one process or by each for some of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import spill
from atlaswriter.engine.columns import Batch, CodedColumns, MakeRules, Rules, split
from atlaswriter.engine.parts import Share, ShareFile, Sorting, remedy, write_shares
from atlaswriter.engine.regroup import ENTRY_BYTES, OnRead, bounds_of
from atlaswriter.engine.rows import Rows
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import CHANGED, frame_bytes, spill_error
from atlaswriter.errors import InputError, OutputError, Problem
from atlaswriter.kernels import csr


class SortedGenes:
    """Genes of a CSR matrix whose rows were sorted into the files of `write_shares`: a grouping, and its only batch.

    Parameters
    ----------
    sorting
        With which they were written.
    shares
        All of them: every row of the matrix is in one.
    folder
        Where they are.
    make_rules
        Makes rules for columns with the given bounds; those of these genes only.
    piece_entries
        Entries of the genes that are given out together, or of a single one.
    first, last
        Positions among the genes of `sorting`, which are best among its cuts; by default all.
    spill_bytes
        Bytes written on the way here.

    Raises
    ------
    InputError
        Shares do not have every row once.
    OutputError
        A file is missing, damaged, or of another run; also when genes are read.
    """

    def __init__(
        self, sorting: Sorting, shares: Sequence[Share], folder: Path, make_rules: MakeRules, piece_entries: int,
        first: int = 0, last: int | None = None, spill_bytes: int = 0,
    ) -> None:  # fmt: skip
        last = sorting.genes.size if last is None else last
        self.first, self.spill_bytes = first, spill_bytes
        self._sorting, self._folder, self._piece_entries = sorting, folder, piece_entries
        self._cuts = np.unique(np.clip(sorting.cuts, first, last)) - first
        _check_cover(shares, sorting.n_rows)
        self._shares = [ShareFile(folder, sorting, share) for share in sorted(shares)]
        ranges = slice(self._range(0), self._range(max(last - first - 1, 0)) + 1)
        mine = slice(first - int(sorting.cuts[ranges.start]), last - int(sorting.cuts[ranges.start]))
        self._first_range, self._largest = ranges.start, np.zeros(ranges.stop - ranges.start, np.int64)
        self.sizes, self._n_missing = np.zeros((2, last - first), np.int64)
        low, high = np.full(last - first, np.inf), np.full(last - first, -np.inf)
        for share in self._shares:
            records, largest = share.measurement(ranges)
            found = records[mine]
            self.sizes += found["count"]
            self._n_missing += found["n_missing"]
            np.minimum(low, found["low"], out=low)
            np.maximum(high, found["high"], out=high)
            np.maximum(self._largest, largest, out=self._largest)
        self._rules: Rules = make_rules(bounds_of(low, high, self.sizes, sorting.n_rows))

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
        frame = int(self._largest[self._range(piece.start) - self._first_range])
        return int(self.sizes[piece].sum()) * ENTRY_BYTES + frame * frame_bytes(self._sorting.dtype)

    def read(self, piece: slice) -> CodedColumns:
        """Genes of one range."""
        number = self._range(piece.start)
        begin = int(self._sorting.cuts[number]) - self.first
        mine = slice(piece.start - begin, piece.stop - begin)
        rules, offsets = self._rules[piece], np.r_[0, np.cumsum(self.sizes[piece])]
        entries, cursor = np.empty(offsets[-1], np.int64), offsets[:-1].copy()
        for share in self._shares:
            for first_row, counts, packed_gaps, packed_values in share.frames(number):
                if counts.min(initial=0) < 0 or (cursor + counts[mine] > offsets[1:]).any():
                    raise share.damaged()
                ends = np.r_[0, np.cumsum(counts)]
                here = slice(ends[mine.start], ends[mine.stop])
                gaps = spill.unpack(packed_gaps, np.dtype(np.uint32), int(ends[-1]))[here]
                values = spill.unpack(packed_values, self._sorting.dtype, int(ends[-1]))[here]
                csr.append(counts[mine], gaps, values, first_row, rules.table, rules.mode, rules.top, cursor, entries)
        if not np.array_equal(cursor, offsets[1:]):
            raise OutputError(str(Problem(str(self._folder), f"a temporary file {CHANGED}", remedy(self._sorting))))
        return CodedColumns(entries, offsets, rules, self._n_missing[piece])

    def _range(self, position: int) -> int:
        """Number of the range that a gene is in."""
        return int(np.searchsorted(self._sorting.cuts[1:-1], self.first + position, side="right"))


def _check_cover(shares: Sequence[Share], n_rows: int) -> None:
    ends = [0, *(end for share in sorted(shares) for end in share), n_rows]
    if ends[::2] != ends[1::2] or any(first > last for first, last in shares):
        raise InputError(Problem("shares of rows", f"do not have each of {n_rows:,} rows once", "plan again"))


def spilled(
    rows: Rows, genes: NDArray[np.int64], make_rules: MakeRules, team: Team, folder: Path, part_entries: int,
    n_ranges: int, piece_entries: int, on_read: OnRead,
) -> SortedGenes:  # fmt: skip
    """Sort a CSR matrix into temporary files and open them: both halves in one process.

    Parameters
    ----------
    rows, genes, make_rules, team, on_read
        As of `regroup.InMemory`.
    folder
        For temporary files.
    part_entries, n_ranges, piece_entries
        As of `Sorting.of` and `SortedGenes`.
    """
    sorting, shares = Sorting.of(rows, genes, part_entries, n_ranges), rows.parts(team.workers)
    try:
        folder.mkdir(exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix="genes-", dir=folder))
    except OSError as error:
        raise spill_error(folder, error, 0) from error
    written = write_shares(rows, sorting, shares, own, team, on_read)
    return SortedGenes(sorting, shares, own, make_rules, piece_entries, spill_bytes=written)
