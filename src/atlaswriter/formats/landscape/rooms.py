"""Memory that each part of an export takes, and what progress counts: what is drawn, and refused early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from atlaswriter.engine import strategy
from atlaswriter.engine.gather import Gathering
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import refuse_full_disk
from atlaswriter.formats.landscape.genes import encoding_room, statistics_room
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.pyramid import pyramid_room
from atlaswriter.formats.landscape.transcripts import TranscriptReader
from atlaswriter.sinks import fs
from atlaswriter.sources.base import matrix_bytes, n_bytes
from atlaswriter.units import usable_cpus

# What a thread keeps: tables and pages of the tile it writes, and what the libraries hold on to.
WORKER_BYTES = 24 << 20
# For writing tiles while the records of all others are held; more where a tile is larger.
WRITING_BYTES = 60 << 20


def workers(prepared: Export) -> int:
    """Threads for which there is room, at most those wanted.

    Raises
    ------
    BudgetError
        There is room for none; the message says what would do.
    """
    fitting = (count for count in range(_wanted_workers(prepared), 0, -1) if _fits(prepared, count))
    found = next(fitting, 0)
    if not found:
        prepared.budget.require(least(prepared, 1), "this export")
    return found


def _fits(prepared: Export, n_workers: int) -> bool:
    budget = prepared.budget
    return n_workers * WORKER_BYTES <= budget.free and least(prepared, n_workers) <= budget.free


def _wanted_workers(prepared: Export) -> int:
    return prepared.resources.workers or usable_cpus()


def least(prepared: Export, n_workers: int) -> int:
    """Bytes with which so many threads can do everything."""
    parts = [n_workers * busy(prepared)]
    parts += [genes_room(prepared, part, n_workers) for part in prepared.segmented]
    parts += [pyramid_room(plane) for plane in prepared.spatial.planes]
    return n_workers * WORKER_BYTES + max(parts)


def genes_room(prepared: Export, part: Segmented, n_workers: int) -> int:
    """Bytes with which so many threads can write the counts of a segmentation, and statistics."""
    room = statistics_room(len(prepared.catalogue.names), len(part.clusters.labels))
    if part.counts is None:
        return room
    encoding, chosen = n_workers * encoding_room(part.counts), prepared.resources.strategy
    return room + strategy.least_room(part.counts.matrix, part.columns.size, n_workers, chosen, encoding)


def busy(prepared: Export) -> int:
    """Bytes that one thread takes while it reads or writes transcripts and outlines."""
    transcripts = prepared.spatial.transcripts
    found = [WRITING_BYTES]
    found += [] if transcripts is None else [TranscriptReader.thread_room_of(transcripts)]
    found += [part.outlines.room for part in prepared.segmented if part.outlines is not None]
    return max(found)


class Records:
    """Room for records that wait for their tile in memory; a context, which gives it back.

    Parameters
    ----------
    prepared
        The export.
    team
        Threads.
    n_bytes
        Bytes of the records, as far as their number is known.

    Attributes
    ----------
    room
        Bytes that are drawn.
    spills
        Whether transcripts will need temporary files.
    """

    def __init__(self, prepared: Export, team: Team, n_bytes: int) -> None:
        self._prepared, self._team, self._budget = prepared, team, team.budget
        chosen = prepared.resources.strategy
        self.room = 0 if chosen == strategy.SPILL else max(team.budget.free - team.workers * busy(prepared), 0)
        excess = max(n_bytes - self.room, 0)
        self.spills = excess > 0
        refuse_full_disk(spill_folder(prepared), excess)

    def __enter__(self) -> Self:
        self._budget.take(self.room, "transcripts and outlines")
        return self

    def __exit__(self, *error: object) -> None:
        self._budget.give_back(self.room)

    def settle(self, gatherings: Sequence[Gathering], least_of: Callable[[], int]) -> None:
        """Keep only what is held once everything is read.

        Where a tile is so large that it cannot be written beside that, everything goes to temporary files.

        Parameters
        ----------
        gatherings
            What was read.
        least_of
            Tells the bytes that one thread needs to go on with it.

        Raises
        ------
        BudgetError
            A tile is too large even so.
        """
        least = least_of()
        if sum(gathering.held for gathering in gatherings) + least > self._budget.free:
            for gathering in gatherings:
                gathering.spill()
            least = least_of()
        if least > self._budget.free:
            # With more room there would be more threads.
            more = (_wanted_workers(self._prepared) - self._team.workers) * WORKER_BYTES
            self._budget.require(least + more, "writing the largest tile (smaller with tile_size=, --tile-size)")
        held = sum(gathering.held for gathering in gatherings)
        self._budget.give_back(self.room - held)
        self.room = held


def spill_folder(prepared: Export) -> Path:
    """Folder that exists, on the file system that temporary files go to."""
    chosen = prepared.resources.spill_dir
    return fs.nearest_existing(prepared.target.absolute().parent) if chosen is None else Path(chosen)


def record_bytes(prepared: Export) -> int:
    """Bytes of all transcripts while they wait, where their number is known."""
    transcripts = prepared.spatial.transcripts
    return 0 if transcripts is None else TranscriptReader.RECORD_BYTES * (transcripts.table.n_rows or 0)


def progress_bytes(prepared: Export) -> int:
    """What progress counts up to, about."""
    total = sum(n_bytes(plane.pixels) for plane in prepared.spatial.planes)
    total += 2 * record_bytes(prepared)
    for part in prepared.segmented:
        total += 0 if part.counts is None else strategy.reading_bytes(part.counts.matrix)
        total += 0 if part.outlines is None else 2 * part.outlines.n_bytes
    return total


def input_bytes(prepared: Export) -> int:
    """Bytes of the files and arrays that are gone through."""
    total = sum(n_bytes(plane.pixels) for plane in prepared.spatial.planes)
    total += 0 if prepared.spatial.transcripts is None else prepared.spatial.transcripts.table.n_bytes
    for part in prepared.segmented:
        total += 0 if part.counts is None else matrix_bytes(part.counts.matrix)
        total += 0 if part.outlines is None else part.outlines.n_bytes
    return total
