"""One export from checked parts to a published folder."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from atlaswriter import __version__
from atlaswriter.engine import strategy
from atlaswriter.engine.run import Team
from atlaswriter.engine.warmup import warm_up
from atlaswriter.formats.landscape import layout, rooms
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.channels import ImageWriter
from atlaswriter.formats.landscape.genes import GeneStatistics, GeneWriter, encoding_room, statistics_room
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.outlines import OutlineReader
from atlaswriter.formats.landscape.parquet import Style
from atlaswriter.formats.landscape.summary import Summary
from atlaswriter.formats.landscape.tiles import Grid, Source, TileWriter
from atlaswriter.formats.landscape.transcripts import TranscriptReader
from atlaswriter.formats.landscape.warmup import spill_kernels, wanted_kernels
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.spatial import Counts
from atlaswriter.units import trim_memory

log = logging.getLogger(__name__)


def export(prepared: Export) -> Report:
    """Write and publish one export.

    Raises
    ------
    InputError
        Transcripts, outlines, counts or pixels turn out to be damaged; the target is as it was.
    BudgetError
        The memory budget is too small.
    OutputError
        The output cannot be written; the target is as it was.
    """
    options, resources, report, budget = prepared.options, prepared.resources, prepared.report, prepared.budget
    with report.phase("kernels"):
        warm_up(wanted_kernels(prepared))
    budget.settle()
    workers = rooms.workers(prepared)
    budget.set_aside(workers * rooms.WORKER_BYTES, "threads")
    spill_dir = None if resources.spill_dir is None else Path(resources.spill_dir)
    with (
        _system_memory,
        FolderSink(prepared.target, force=options.force, spill_dir=spill_dir) as sink,
        Team(workers, budget) as team,
    ):
        job = Job(options, Style.of(options.compat, 0), team, sink, Progress(resources.progress))
        with job.progress.phase(prepared.target.name, rooms.progress_bytes(prepared)):
            _Writer(prepared, job).run()
        with report.phase("publish"):
            sink.publish()
        report.files, report.bytes_out = len(sink.files), sink.bytes_written
    report.bytes_in = rooms.input_bytes(prepared)
    report.close()
    for warning in report.warnings:
        log.warning("%s", warning, extra={"in_report": True})
    return report


class _SystemMemory:
    """Lets Arrow use the C library's memory, which is told to give back what is free; its own pools keep it.

    Exports may overlap: the last one to end restores the pool that the first one found.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._users, self._before = 0, pa.default_memory_pool()

    def __enter__(self) -> None:
        with self._guard:
            if not self._users:
                self._before = pa.default_memory_pool()
                pa.set_memory_pool(pa.system_memory_pool())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._guard:
            self._users -= 1
            if not self._users:
                pa.set_memory_pool(self._before)


_system_memory = _SystemMemory()


class _Writer:
    """The parts of one export, one after the other; each is shared out to all threads."""

    def __init__(self, prepared: Export, job: Job) -> None:
        self.prepared, self.job = prepared, job
        self.report, self.spatial = prepared.report, prepared.spatial
        self.summary = Summary(prepared)
        self.row_group_files: dict[str, Any] = {}
        self.rows: dict[str, int] = {}
        self.grid = Grid(1, 1)

    def run(self) -> None:
        """Write everything but the publication."""
        genes = self._tiles()
        for part in self.prepared.segmented:
            with self.report.phase("genes"):
                self._genes(part, genes)
            with self.report.phase("cells"):
                part.cells.write(self.job, part.name)
                part.clusters.write(self.job, part.cells, part.name)
        images = ImageWriter(self.spatial, self.job)
        with self.report.phase("image"):
            images.write()
        self._transform()
        self._parameters(images)
        self.summary.close(self.report, genes)
        if self.job.options.preview:
            with self.report.phase("preview"):
                self._preview()

    def _tiles(self) -> Genes:
        """Transcripts and outlines to their tiles; the features, all of which are known then."""
        sources: list[Source] = []
        with rooms.Records(self.prepared, self.job.team) as records:
            if records.spills:
                warm_up(spill_kernels())
            if self.spatial.transcripts is not None:
                with self.report.phase("transcripts"):
                    sources.append(self._read_transcripts(records.room))
            genes = self.prepared.catalogue.close()
            for part in self.prepared.segmented:
                if part.outlines is not None:
                    with self.report.phase("outlines"):
                        held = sum(source.gathering.held for source in sources)
                        sources.append(self._read_outlines(part, records.room - held))
            self.job = replace(self.job, style=Style.of(self.job.options.compat, self._extent(sources)))
            self.grid = Grid.covering(self.spatial.planes, sources, self.job.options)
            writers = [TileWriter(self.job, source.kind(self.job, genes), source.gathering) for source in sources]
            records.settle(writers)
            for source, writer in zip(sources, writers, strict=True):
                self._write_tiles(source, writer)
            sources.clear()
            writers.clear()
            trim_memory()
        return genes

    def _extent(self, sources: list[Source]) -> float:
        """How far from the origin positions are at most, pixels; known once all are read."""
        furthest = [float(np.abs(part.cells.xy).max(initial=0)) for part in self.prepared.segmented]
        return max([*furthest, *(source.extent / 100 for source in sources)])

    def _read_transcripts(self, room: int) -> TranscriptReader:
        catalogue, size_px = self.prepared.catalogue, self.prepared.size_px
        assert self.spatial.transcripts is not None  # noqa: S101 - asked by the caller
        reader = TranscriptReader(self.spatial.transcripts, self.spatial.to_px, size_px, catalogue, self.job)
        reader.read(room)
        self.summary.transcripts(reader.tally)
        return reader

    def _read_outlines(self, part: Segmented, room: int) -> OutlineReader:
        assert part.outlines is not None  # noqa: S101 - asked by the caller
        reader = OutlineReader(part.outlines, self.spatial.to_px, part.cells, self.job, part.name)
        reader.read(max(room, 0))
        self.summary.outlines(part, reader.tally)
        return reader

    def _write_tiles(self, source: Source, writer: TileWriter) -> None:
        with self.report.phase(source.what):
            self.report.spill_bytes += source.gathering.spill_bytes
            writer.write(self.grid)
            self.row_group_files[writer.kind.directory] = writer.parameters(self.grid)
            self.rows[writer.kind.rows_key] = writer.n_rows
            self.summary.tiles(source, writer)
            source.gathering.release()

    def _genes(self, part: Segmented, genes: Genes) -> None:
        budget = self.job.team.budget
        room = statistics_room(len(genes.names), len(part.clusters.labels))
        budget.take(room, "means of clusters")
        try:
            statistics = GeneStatistics(genes, part.clusters)
            if part.counts is not None:
                self._counts(part, part.counts, genes, statistics, budget.free - room)
            statistics.write(self.job, part.name)
        finally:
            budget.give_back(room)

    def _counts(self, part: Segmented, counts: Counts, genes: Genes, statistics: GeneStatistics, room: int) -> None:
        writer = GeneWriter(
            counts, part.rows, part.columns, part.codes, genes, part.cells, statistics, self.job, part.name
        )
        team, chosen = self.job.team, self.prepared.resources.strategy
        encoding = team.workers * encoding_room(counts)
        choice = strategy.choose(counts.matrix, part.columns.size, team.workers, room, chosen, encoding)
        self.report.spill_bytes += writer.run(choice)
        if writer.row_group_files:
            self.row_group_files[layout.cbg_dir(part.name)] = writer.row_group_files
        self.summary.counts(part, writer.n_entries)

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
            row_groups=row_groups,
            extra={layout.WRITER: {"version": __version__, **self.job.options.recorded(), layout.ROWS: self.rows}},
        )
        self.job.write_json(layout.PARAMETERS, content)

    def _preview(self) -> None:
        from atlaswriter.formats.landscape.preview import page
        from atlaswriter.formats.landscape.read import open_export

        content = page(open_export(self.job.sink.staged), title=self.prepared.target.name)
        self.job.sink.write(layout.PREVIEW, content)
