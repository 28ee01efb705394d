"""One export from checked parts to a published folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atlaswriter.engine.gather import Gathering
from atlaswriter.engine.resume import begin
from atlaswriter.engine.run import Team
from atlaswriter.engine.warmup import warm_up
from atlaswriter.engine.work import Unit, Work
from atlaswriter.formats.landscape import rooms
from atlaswriter.formats.landscape.arrow import system_memory
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.channels import image_units
from atlaswriter.formats.landscape.conclude import conclude, finish_report
from atlaswriter.formats.landscape.genes import write_genes
from atlaswriter.formats.landscape.job import Job
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.outlines import OutlineReader
from atlaswriter.formats.landscape.parquet import Style
from atlaswriter.formats.landscape.records import Reader, Survey, make_readers, reading_unit, readings, recall
from atlaswriter.formats.landscape.tiles import all_written
from atlaswriter.formats.landscape.warmup import spill_kernels, wanted_kernels
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks.files import Files
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.units import trim_memory


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
        system_memory,
        FolderSink(prepared.target, force=options.force, spill_dir=spill_dir, keep=resources.resume) as sink,
        Team(workers, budget) as team,
    ):
        begun = begin(sink, prepared.record, {}, resume=resources.resume)
        job = Job(options, Style.of(options.compat, 0), team, sink, Progress(resources.progress))
        work = Work(team, sink, begun.journal, begun.done)
        try:
            with job.progress.phase(prepared.target.name, rooms.progress_bytes(prepared)):
                _write(prepared, job, work, sink.staged)
        finally:
            begun.close()
        with report.phase("publish"):
            sink.publish()
        report.files, report.bytes_out = len(sink.files), sink.bytes_written
    return finish_report(prepared)


def _write(prepared: Export, job: Job, work: Work, staged: Path) -> None:
    """Write everything, one part after the other; each is shared out to all threads."""
    report, chosen = prepared.report, prepared.resources.strategy
    survey, genes = _Tiles(prepared, job, work).write()
    for part in prepared.segmented:
        with report.phase("genes"):
            report.spill_bytes += write_genes(part, genes, survey.job, work, chosen)
        with report.phase("cells"):
            work.do([cells_unit(part, survey.job)])
    with report.phase("image"):
        work.do(image_units(prepared.spatial.planes, survey.job))
    conclude(prepared, survey, work.results, genes.facts(), staged)


def cells_unit(part: Segmented, job: Job) -> Unit:
    """Writes the cells of a segmentation, and their clusters."""

    def write(files: Files) -> None:
        own = replace(job, sink=files)
        part.cells.write(own, part.name)
        part.clusters.write(own, part.cells, part.name)

    return Unit(f"cells/{part.name or ''}", "cells", write, 0, alone=True)


class _Tiles:
    """Transcripts and outlines on their way to tiles.

    What is not done yet is read again; everything, unless it is known of all records where they are.
    """

    def __init__(self, prepared: Export, job: Job, work: Work) -> None:
        self._prepared, self._job, self._work = prepared, job, work
        self._readers = make_readers(prepared, prepared.catalogue, job)

    def write(self) -> tuple[Survey, Genes]:
        """Read and write; what is known of the records, and the features, all of which are known then."""
        catalogue, report = self._prepared.catalogue, self._prepared.report
        left = self._left()
        for reader in self._readers:
            for found in readings(reader.name, self._work.results):
                catalogue.codes(found.get("features", ()))
        with rooms.Records(self._prepared, self._job.team, rooms.record_bytes(self._prepared)) as records:
            if records.spills:
                warm_up(spill_kernels())
            gatherings = self._read(left, records.room)
            genes = catalogue.close()
            survey = Survey(self._prepared, self._job, self._readers)
            writers = [survey.writer(reader, found, genes) for reader, found in zip(left, gatherings, strict=True)]
            records.settle(gatherings, lambda: max((writer.least for writer in writers), default=0))
            for reader, gathering, writer in zip(left, gatherings, writers, strict=True):
                with report.phase(reader.what):
                    report.spill_bytes += gathering.spill_bytes
                    self._job.sink.make_dir(writer.kind.directory)
                    self._work.do(writer.units())
                    gathering.release()
            writers.clear()
            gatherings.clear()
            trim_memory()
        return survey, genes

    def _left(self) -> list[Reader]:
        """Readers whose tiles are not all written; the others know what was found."""
        results, options = self._work.results, self._job.options
        known = [recall(reader, results) for reader in self._readers]
        if not all(known):
            return self._anew(self._readers)
        grid = Survey(self._prepared, self._job, self._readers).grid
        return self._anew(
            [one for one in self._readers if not all_written(one.name, one.tally, grid, options, results)]
        )

    @staticmethod
    def _anew(readers: Sequence[Reader]) -> list[Reader]:
        for reader in readers:
            reader.tally = type(reader.tally)()
        return list(readers)

    def _read(self, readers: Sequence[Reader], room: int) -> list[Gathering]:
        """Read everything that some readers read."""
        found: list[Gathering] = []
        for reader in readers:
            with self._prepared.report.phase(reader.what):
                found.append(self._read_one(reader, room - sum(gathering.held for gathering in found)))
        return found

    def _read_one(self, reader: Reader, room: int) -> Gathering:
        gathering = reader.read(max(room, 0))
        result: dict[str, object] = {"tally": reader.tally.to_dict()}
        if not isinstance(reader, OutlineReader):
            result["features"] = self._prepared.catalogue.met
        if (name := reading_unit(reader.name)) not in self._work.results:
            self._work.perform(name, lambda _: result)
        return gathering
