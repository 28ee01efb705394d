"""One export from checked parts to a published folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atlaswriter import __version__
from atlaswriter.engine import strategy
from atlaswriter.engine.gather import Gathering
from atlaswriter.engine.run import Team
from atlaswriter.engine.warmup import warm_up
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.channels import ImageWriter
from atlaswriter.formats.landscape.genes import GeneWriter, encoding_room
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.outlines import OutlineReader, OutlineTiles
from atlaswriter.formats.landscape.parquet import Style
from atlaswriter.formats.landscape.tiles import Grid, TileWriter
from atlaswriter.formats.landscape.transcripts import TranscriptReader, TranscriptTiles
from atlaswriter.formats.landscape.warmup import wanted_kernels
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.base import n_bytes
from atlaswriter.units import usable_cpus

log = logging.getLogger(__name__)

# What a thread keeps: tables and pages of the tile it writes, and what the libraries hold on to.
_WORKER_BYTES = 24 << 20
# For writing tiles while the records of all others are held; more where a tile is larger.
_WRITING_BYTES = 64 << 20


def export(prepared: Export) -> Report:
    """Write and publish one export.

    Raises
    ------
    InputError
        Transcripts or outlines turn out to be damaged; the target is as it was.
    BudgetError
        The memory budget is too small.
    OutputError
        The output cannot be written; the target is as it was.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    options, resources, report, budget = prepared.options, prepared.resources, prepared.report, prepared.budget
    with report.phase("kernels"):
        warm_up(wanted_kernels(prepared))
    budget.settle()
    workers = resources.workers or usable_cpus()
    budget.set_aside(workers * _WORKER_BYTES, "threads")
    spill_dir = None if resources.spill_dir is None else Path(resources.spill_dir)
    with (
        FolderSink(prepared.target, force=options.force, spill_dir=spill_dir) as sink,
        Team(workers, budget) as team,
    ):
        job = Job(options, Style.of(options.compat, _extent(prepared)), team, sink, Progress(resources.progress))
        with job.progress.phase(prepared.target.name, progress_bytes(prepared)):
            _Writer(prepared, job).run()
        with report.phase("publish"):
            sink.publish()
        report.files, report.bytes_out = len(sink.files), sink.bytes_written
    report.close()
    for warning in report.warnings:
        log.warning("%s", warning, extra={"in_report": True})
    return report


def _extent(prepared: Export) -> float:
    """How far from the origin positions may be, in pixels: by image and cells, with some room for outlines."""
    sizes = [size for plane in prepared.spatial.planes for size in plane.pixels.shape[:2]]
    furthest = [float(np.abs(part.cells.xy).max()) for part in prepared.segmented]
    return max([*sizes, *furthest]) + 1000


def progress_bytes(prepared: Export) -> int:
    """What progress counts up to, about."""
    total = sum(n_bytes(plane.pixels) for plane in prepared.spatial.planes)
    if prepared.spatial.transcripts is not None:
        total += 16 * (prepared.spatial.transcripts.table.n_rows or 0)
    for part in prepared.segmented:
        total += 0 if part.counts is None else strategy.reading_bytes(part.counts.matrix)
        total += 0 if part.outlines is None else 2 * part.outlines.n_bytes
    return total


class _Writer:
    """The parts of one export, one after the other; each is shared out to all threads."""

    def __init__(self, prepared: Export, job: Job) -> None:
        self.prepared, self.job = prepared, job
        self.report, self.spatial = prepared.report, prepared.spatial
        self.spill_bytes = 0
        self.grid = Grid(1, 1)
        self.row_group_files: dict[str, Any] = {}

    def run(self) -> None:
        """Write everything but the publication."""
        with self._room() as room:
            genes = self._tiles(room)
        for part in self.prepared.segmented:
            with self.report.phase("genes"):
                self._genes(part, genes)
            with self.report.phase("cells"):
                part.cells.write(self.job, part.name)
                part.clusters.write(self.job, part.cells, part.name)
        images = ImageWriter(self.spatial, self.job)
        with self.report.phase("image"):
            images.write()
        with self.report.phase("parameters"):
            self._transform()
            self._parameters(images)
        self.report.spill_bytes = self.spill_bytes

    @contextmanager
    def _room(self) -> Iterator[int]:
        """Bytes for records that wait for their tile, drawn while the context lasts."""
        team, choice = self.job.team, self.prepared.resources.strategy
        busy = team.workers * max(self._reading_room(), _WRITING_BYTES)
        team.budget.require(busy, "reading transcripts and outlines")
        room = 0 if choice == strategy.SPILL else team.budget.free - busy
        team.budget.take(room, "transcripts and outlines")
        try:
            yield room
        finally:
            team.budget.give_back(room)

    def _reading_room(self) -> int:
        transcripts = self.spatial.transcripts
        rooms = [0 if transcripts is None else TranscriptReader.thread_room_of(transcripts)]
        rooms += [part.outlines.room for part in self.prepared.segmented if part.outlines is not None]
        return max(rooms)

    def _tiles(self, room: int) -> Genes:
        """Transcripts and outlines to their tiles; the features, all of which are known then."""
        gathered: list[tuple[Any, Gathering]] = []
        reader = None
        if self.spatial.transcripts is not None:
            with self.report.phase("transcripts"):
                catalogue, size_px = self.prepared.catalogue, self.prepared.size_px
                reader = TranscriptReader(self.spatial.transcripts, self.spatial.to_px, size_px, catalogue, self.job)
                gathered.append((reader, reader.read(room)))
        genes = self.prepared.catalogue.close()
        kinds: list[tuple[str, Any, Gathering, str]] = []
        if reader is not None:
            kinds.append(("transcripts", TranscriptTiles(self.job, genes.ids), gathered[0][1], "transcripts"))
        for part in self.prepared.segmented:
            if part.outlines is None:
                continue
            with self.report.phase("outlines"):
                held = sum(gathering.held for _, gathering in gathered)
                outlines = OutlineReader(part.outlines, self.spatial.to_px, part.cells, self.job, part.name)
                gathered.append((outlines, outlines.read(max(room - held, 0))))
            tiles = OutlineTiles(self.job, part.cells.n_cells, part.name)
            kinds.append(("outlines", tiles, gathered[-1][1], layout.outlines_dir(part.name)))
        self.grid = self._covering([source.tally.last for source, _ in gathered])
        for phase, kind, gathering, key in kinds:
            with self.report.phase(phase):
                writer = TileWriter(self.job, kind, gathering)
                writer.write(self.grid)
                self.row_group_files[key] = writer.parameters(self.grid)
                self.spill_bytes += gathering.spill_bytes
                self.report.contents[f"{phase} tiles"] = writer.n_tiles
                gathering.release()
        return genes

    def _covering(self, lasts: list[NDArray[np.int64]]) -> Grid:
        """Tiles that hold everything."""
        tile = self.job.options.tile_size
        n_x, n_y = (int(max([0, *(last[axis] for last in lasts)])) + 1 for axis in (0, 1))
        if self.spatial.planes:
            height, width = self.spatial.planes[0].pixels.shape[:2]
            n_x, n_y = max(n_x, -(-width // tile)), max(n_y, -(-height // tile))
        return Grid(n_x, n_y)

    def _genes(self, part: Segmented, genes: Genes) -> None:
        if part.counts is None:
            return
        writer = GeneWriter(
            part.counts, part.columns, part.codes, genes, part.cells, part.clusters, self.job, part.name
        )
        team, matrix = self.job.team, part.counts.matrix
        encoding = team.workers * encoding_room(part.counts)
        chosen, n_columns = self.prepared.resources.strategy, part.columns.size
        least = strategy.least_room(matrix, n_columns, team.workers, chosen, encoding)
        team.budget.require(least, "regrouping the matrix")
        choice = strategy.choose(matrix, n_columns, team.workers, team.budget.free, chosen, encoding)
        self.spill_bytes += writer.run(choice)
        writer.write_tables()
        self.row_group_files[layout.cbg_dir(part.name)] = writer.row_group_files

    def _transform(self) -> None:
        text = "".join(" ".join(repr(float(value)) for value in row) + "\n" for row in self.spatial.to_px)
        for name in layout.TRANSFORMS:
            self.job.sink.write(name, text.encode())

    def _parameters(self, images: ImageWriter) -> None:
        row_groups = None
        if self.job.options.row_groups:
            row_groups = {
                "row_group_files": self.row_group_files | images.row_group_files,
                "tile_grid": self.grid.parameters(self.job.options.tile_size),
                "image_dimensions": images.dimensions,
            }
        content = layout.parameters(
            technology=self.spatial.technology,
            segmentations=[part.name for part in self.prepared.segmented if part.name is not None],
            max_pyramid_zoom=images.max_level,
            tile_size=self.job.options.tile_size,
            image_info=images.info,
            image_scaling=images.scaling,
            microns_per_pixel=None,
            row_groups=row_groups,
            extra={"writer": f"atlaswriter {__version__}"},
        )
        self.job.write_json(layout.PARAMETERS, content)


