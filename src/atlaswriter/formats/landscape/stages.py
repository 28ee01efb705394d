"""Which tasks an export of LandscapeFiles is made of.

Records, transcripts and outlines, are grouped by tile, each task into a file of its own; images need nothing of that.
Then all records are known, and with them all features: tiles are written, and genes, cells and clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from atlaswriter.engine.plan import OTHERS_BYTES, Stage, TaskFacts, numbered
from atlaswriter.formats.landscape import layout, plan, rooms
from atlaswriter.formats.landscape.channels import image_unit
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.pyramid import pyramid_room
from atlaswriter.formats.landscape.transcripts import TranscriptReader
from atlaswriter.sources.base import matrix_bytes, n_bytes

RECORDS, IMAGES, TILES, GENES = "records", "images", "tiles", "genes"


class Planner:
    """Plans one export.

    Parameters
    ----------
    prepared
        The export, checked; its budget is that of each process.
    task_size
        Bytes that a task reads, about.

    Attributes
    ----------
    workers
        Threads of a process.

    Raises
    ------
    BudgetError
        It is too small for any thread.
    """

    def __init__(self, prepared: Export, task_size: int) -> None:
        self._prepared, self._size = prepared, task_size
        # With all that is open; kernels are the smaller part.
        prepared.budget.settle()
        self.workers = rooms.workers(prepared)

    def plan(self) -> tuple[Stage, ...]:
        """The stages."""
        records = numbered(self._records())
        after = (RECORDS,) if records else ()
        stages = [
            Stage(RECORDS, (), records),
            Stage(IMAGES, (), numbered(self._images())),
            Stage(TILES, after, numbered(self._tiles())),
            Stage(GENES, after, numbered(self._genes())),
        ]
        return tuple(stage for stage in stages if stage.tasks)

    def _memory(self, room: int) -> int:
        """Resident size of a process that needs so much beside its threads."""
        budget = self._prepared.budget
        return min(budget.held + OTHERS_BYTES + self.workers * rooms.WORKER_BYTES + room, budget.limit)

    def _outlined(self) -> list[tuple[str, Segmented, int]]:
        """Names of outlines, their segmentation, and their bytes."""
        return [
            (layout.outlines_dir(part.name), part, part.outlines.n_bytes)
            for part in self._prepared.segmented
            if part.outlines is not None
        ]

    def _records(self) -> Iterator[TaskFacts]:
        reading = self.workers * rooms.busy(self._prepared)
        transcripts = self._prepared.spatial.transcripts
        if transcripts is not None:
            table, name = transcripts.table, TranscriptReader.name
            count = min(max(1, -(-table.n_bytes // self._size)), max(table.n_parts, 1))
            rows, size = plan.n_transcripts(self._prepared) // count, table.n_bytes // count
            grouped = rows * TranscriptReader.RECORD_BYTES
            seconds = rows * plan.READ_TRANSCRIPT / self.workers
            for first, last in pairwise([number * table.n_parts // count for number in range(count + 1)]):
                arguments = {"source": name, "first": first, "last": last}
                what = f"transcripts, parts {first:,} to {last - 1:,}"
                yield what, arguments, size, self._memory(reading + grouped), grouped, seconds
        for name, part, size in self._outlined():
            seconds = plan.outlines_seconds(part) / self.workers
            yield f"outlines ({name})", {"source": name}, size, self._memory(reading + size), size, seconds

    def _images(self) -> Iterator[TaskFacts]:
        for plane in self._prepared.spatial.planes:
            size, values = n_bytes(plane.pixels), plan.n_values(plane.pixels)
            # A quarter of what is free may be for an image that is kept.
            memory = self._memory(pyramid_room(plane, self.workers) * 4 // 3)
            seconds = values * plan.PIXEL / self.workers
            written = int(values * plan.PIXEL_BYTES)
            yield f"image {plane.key}", {"unit": image_unit(plane)}, size, memory, written, seconds

    def _tiles(self) -> Iterator[TaskFacts]:
        n_rows, threads = plan.n_transcripts(self._prepared), self.workers
        sources: list[tuple[str, int, float, float]] = []
        if self._prepared.spatial.transcripts is not None:
            grouped, written = n_rows * TranscriptReader.RECORD_BYTES, n_rows * plan.TRANSCRIPT_BYTES
            sources.append((TranscriptReader.name, grouped, written, n_rows * plan.WRITE_TRANSCRIPT / threads))
        for name, part, size in self._outlined():
            sources.append((name, size, plan.outlines_out(part), plan.outlines_seconds(part) / threads))
        memory = self._memory(threads * rooms.WRITING_BYTES)
        for name, size, out, seconds in sources:
            count = max(1, -(-size // self._size))
            for number in range(count):
                arguments = {"source": name, "number": number, "count": count}
                what = f"tiles of {name}, {number + 1} of {count}"
                yield what, arguments, size // count, memory, int(out / count), seconds / count

    def _genes(self) -> Iterator[TaskFacts]:
        for part in self._prepared.segmented:
            size = 0 if part.counts is None else matrix_bytes(part.counts.matrix)
            memory = self._memory(plan.genes_memory(self._prepared, part, self.workers))
            arguments: dict[str, Any] = {"segmentation": part.name}
            what = "genes and cells" if part.name is None else f"genes and cells of {part.name}"
            seconds = plan.counts_seconds(part) / self.workers
            yield what, arguments, size, memory, plan.n_counts(part) * plan.COUNT_BYTES, seconds
