"""The end of an export: what is made of the results of all parts, whoever wrote them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlaswriter import __version__
from atlaswriter.formats.landscape import layout, rooms
from atlaswriter.formats.landscape.channels import ImageFacts
from atlaswriter.formats.landscape.genes import n_counts, tables_unit
from atlaswriter.formats.landscape.model import Export
from atlaswriter.formats.landscape.outlines import OutlineReader
from atlaswriter.formats.landscape.records import Reader, Survey
from atlaswriter.formats.landscape.summary import Summary
from atlaswriter.formats.landscape.tiles import row_group_files, written
from atlaswriter.formats.landscape.transcripts import TranscriptReader
from atlaswriter.report import Report

log = logging.getLogger(__name__)


def conclude(
    prepared: Export, survey: Survey, results: Mapping[str, Any], features: Mapping[str, Any], staged: Path
) -> None:
    """Write what tells of all parts, the preview last, and fill the report.

    Parameters
    ----------
    prepared
        The export.
    survey
        What is known of its records.
    results
        Of all units.
    features
        As of `Genes.facts`.
    staged
        Where the files wait.
    """
    write = survey.job.sink.write
    text = "".join(" ".join(repr(float(value)) for value in row) + "\n" for row in prepared.spatial.to_px)
    for name in layout.TRANSFORMS:
        write(name, text.encode())
    survey.job.write_json(layout.PARAMETERS, _parameters(prepared, survey, results))
    _summary(prepared, survey, results).close(prepared.report, features)
    if survey.job.options.preview:
        from atlaswriter.formats.landscape.preview import page
        from atlaswriter.formats.landscape.read import open_export

        with prepared.report.phase("preview"):
            write(layout.PREVIEW, page(open_export(staged), title=prepared.target.name))


def finish_report(prepared: Export) -> Report:
    """What is known at the very end; warnings are logged."""
    report = prepared.report
    report.bytes_in = rooms.input_bytes(prepared)
    report.close()
    for warning in report.warnings:
        log.warning("%s", warning, extra={"in_report": True})
    return report


def _rows_key(reader: Reader) -> str:
    """What the parameters call the number of records."""
    return reader.what if isinstance(reader, TranscriptReader) else reader.name


def _parameters(prepared: Export, survey: Survey, results: Mapping[str, Any]) -> dict[str, Any]:
    options, images = prepared.options, ImageFacts(prepared.spatial.planes, results)
    row_groups = None
    if options.row_groups:
        files = {}
        for reader in survey.readers:
            directory = layout.transcripts_dir(True) if isinstance(reader, TranscriptReader) else reader.name
            files[directory] = row_group_files(directory, survey.grid, options)
        for part in prepared.segmented:
            if found := results[tables_unit(part.name)].get("row_groups"):
                files[layout.cbg_dir(part.name)] = found
        row_groups = {
            "row_group_files": files | images.row_group_files,
            "tile_grid": survey.grid.parameters(options.tile_size),
            "image_dimensions": images.dimensions,
        }
    rows = {_rows_key(reader): written(reader.name, results)[1] for reader in survey.readers}
    return layout.parameters(
        technology=prepared.spatial.technology,
        segmentations=[part.name for part in prepared.segmented if part.name is not None],
        max_pyramid_zoom=images.max_level,
        tile_size=options.tile_size,
        image_info=images.info,
        image_scaling=images.scaling,
        row_groups=row_groups,
        extra={layout.WRITER: {"version": __version__, **options.recorded(), layout.ROWS: rows}},
    )


def _summary(prepared: Export, survey: Survey, results: Mapping[str, Any]) -> Summary:
    summary, parts = Summary(prepared), {part.name: part for part in prepared.segmented}
    for reader in survey.readers:
        if isinstance(reader, OutlineReader):
            summary.outlines(parts[reader.segmentation], reader.tally)
        else:
            summary.transcripts(reader.tally)
    for reader in survey.readers:
        what = reader.what if reader.segmentation is None else f"{reader.what} of {reader.segmentation}"
        summary.tiles(what, *written(reader.name, results), reader.tally.negative)
    for part in prepared.segmented:
        if part.counts is not None:
            summary.counts(part, n_counts(part.name, results))
    return summary
