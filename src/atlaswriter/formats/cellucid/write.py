"""One export from checked parts to a published folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from atlaswriter import __version__
from atlaswriter.engine.estimate import Plan
from atlaswriter.engine.resume import begin
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import refuse_full_disk
from atlaswriter.engine.strategy import SPILL, reading_bytes
from atlaswriter.engine.warmup import spill_kernels, warm_up
from atlaswriter.engine.work import Work
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas, Export
from atlaswriter.formats.cellucid.genes import (
    GeneWriter,
    manifest_entries,
    missing_warnings,
    positions_left,
    written_rows,
)
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.obs import Entry, obs_entries, obs_spill_bytes
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.plan import make_plan
from atlaswriter.formats.cellucid.units import GRAPH, make_dirs, table_units
from atlaswriter.formats.cellucid.warmup import wanted_kernels
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks import fs
from atlaswriter.sinks.files import Files
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.base import Continuous, matrix_bytes

log = logging.getLogger(__name__)


def export(prepared: Export) -> Report:
    """Write and publish one export.

    Raises
    ------
    BudgetError
        The memory budget is too small.
    OutputError
        The output cannot be written; the target is as it was.
    """
    atlas, budget, report = prepared.atlas, prepared.budget, prepared.report
    resources, target = prepared.resources, prepared.target
    with report.phase("kernels"):
        warm_up(wanted_kernels(atlas, prepared.options))
    budget.settle()
    plan = make_plan(prepared)
    spill_dir = None if resources.spill_dir is None else Path(resources.spill_dir)
    refuse_full_disk(spill_dir or fs.nearest_existing(target.absolute().parent), plan.spill_bytes)
    if plan.choice is not None:
        log.info("regrouping expression: %s", plan.choice)
        report.contents["regrouping"] = str(plan.choice)
    if atlas.genes is not None and plan.choice is not None and plan.choice.strategy == SPILL:
        warm_up(spill_kernels(atlas.genes.matrix))
    budget.set_aside(plan.workers * costs.WORKER_BYTES, "threads")
    with (
        FolderSink(target, force=prepared.options.force, spill_dir=spill_dir, keep=resources.resume) as sink,
        Team(plan.workers, budget) as team,
    ):
        begun = begin(sink, prepared.record, {"created_at": prepared.options.timestamp()}, resume=resources.resume)
        options = replace(prepared.options, created_at=begun.facts["created_at"])
        job = Job(atlas.n_cells, options, team, sink, Progress(resources.progress))
        work = Work(team, sink, begun.journal, begun.done)
        try:
            with report.phase("write") as phase, job.progress.phase(target.name, progress_bytes(atlas, options)):
                report.spill_bytes = _write_parts(atlas, job, plan, work)
                write_manifests(atlas, options, work.results, sink, report)
                phase.bytes = sink.bytes_written
        finally:
            begun.close()
        with report.phase("publish"):
            sink.publish()
        report.files, report.bytes_out = len(sink.files), sink.bytes_written
    finish_report(atlas, report)
    return report


def finish_report(atlas: Atlas, report: Report) -> None:
    """What is known at the very end; warnings are logged."""
    report.bytes_in = input_bytes(atlas)
    report.warnings += atlas.warnings
    report.renamed += atlas.renamed
    report.close()
    for warning in report.warnings:
        log.warning("%s", warning, extra={"in_report": True})


def _write_parts(atlas: Atlas, job: Job, plan: Plan, work: Work) -> int:
    """Write everything but manifests, longest first; the bytes of temporary files."""
    make_dirs(atlas, job.options, job.sink)
    for unit in table_units(atlas, job):
        work.submit(unit)
    spilled = 0
    if atlas.genes is not None and plan.choice is not None:
        left = positions_left(atlas.genes, work.results)
        if left.size:
            spilled = GeneWriter(atlas.genes, left, job, work).run(plan.choice)
    job.team.wait()
    return spilled + obs_spill_bytes(atlas, work.results)


def write_manifests(atlas: Atlas, options: Options, results: Mapping[str, Any], sink: Files, report: Report) -> None:
    """Write the manifests of an export all units of which are done, the identity last; say what was found."""
    entries = obs_entries(atlas, options, results)
    rows = written_rows(results)
    if atlas.genes is not None:
        report.warnings += missing_warnings(atlas.genes, rows)
    report.warnings += [text for entry in entries for text in entry.warnings]
    n_edges = None
    if atlas.graph is not None:
        n_edges, max_neighbors = results[GRAPH]
        manifest = layout.connectivity_manifest(
            options.layout,
            n_cells=atlas.n_cells,
            n_edges=n_edges,
            max_neighbors=max_neighbors,
            compression=options.level,
        )
        _write_json(sink, options.layout.connectivity_manifest, manifest)
    _write_table_manifests(atlas, entries, rows, options, sink)
    identity = _identity(atlas, entries, n_edges, options, sink.target)
    _write_json(sink, layout.IDENTITY, identity, indent=2)
    _describe(identity, report)


def _write_table_manifests(
    atlas: Atlas, entries: list[Entry], rows: Mapping[int, list[Any]], options: Options, sink: Files
) -> None:
    obs = layout.obs_manifest(
        options.layout,
        n_cells=atlas.n_cells,
        centroid_outlier_quantile=options.centroid_outlier_quantile,
        compression=options.level,
        bits=options.obs_continuous_quantization,
        continuous=[entry.manifest for entry in entries if entry.summary["kind"] == "continuous"],
        categorical=[entry.manifest for entry in entries if entry.summary["kind"] == "category"],
    )
    _write_json(sink, options.layout.obs_manifest, obs)
    if atlas.genes is not None:
        var = layout.var_manifest(
            options.layout,
            n_cells=atlas.n_cells,
            gene_id_column=atlas.genes.id_column,
            compression=options.level,
            bits=options.var_quantization,
            genes=manifest_entries(atlas.genes, rows),
        )
        _write_json(sink, options.layout.var_manifest, var)


def _identity(
    atlas: Atlas, entries: list[Entry], n_edges: int | None, options: Options, target: Path
) -> dict[str, Any]:
    widths = {entry.manifest[2] for entry in entries if entry.summary["kind"] == "category"}
    return layout.identity(
        dataset=options.dataset(target),
        created_at=options.timestamp(),
        writer=f"atlaswriter {__version__}",
        n_cells=atlas.n_cells,
        n_genes=0 if atlas.genes is None else len(atlas.genes.ids),
        obs_fields=sorted((entry.summary for entry in entries), key=lambda summary: summary["kind"] == "category"),
        n_edges=n_edges,
        dimensions=sorted(atlas.embeddings),
        settings={
            "compression": options.level,
            "var_quantization": options.var_quantization,
            "obs_continuous_quantization": options.obs_continuous_quantization,
            "obs_categorical_dtype": widths.pop() if len(widths) == 1 else options.obs_categorical_dtype,
        },
        source=options.source(),
        vectors={name: list(by_dim) for name, by_dim in atlas.vectors.items()},
    )


def _write_json(sink: Files, name: str, content: Mapping[str, Any], indent: int | None = None) -> None:
    sink.write(name, json.dumps(content, indent=indent, allow_nan=False).encode())


def _describe(identity: Mapping[str, Any], report: Report) -> None:
    stats = identity["stats"]
    report.contents |= {
        "cells": stats["n_cells"],
        "genes": stats["n_genes"],
        "embeddings": [f"{dim}D" for dim in identity["embeddings"]["available_dimensions"]],
        "obs fields": [entry["key"] for entry in identity["obs_fields"]],
        "edges": stats["n_edges"] if stats["n_edges"] is not None else "none",
        "vector fields": list(identity.get("vector_fields", {}).get("fields", {})),
    }


def progress_bytes(atlas: Atlas, options: Options) -> int:
    """Bytes of all payloads before compression, edges estimated, and of expression: what progress counts up to."""
    n_cells = atlas.n_cells
    value_bytes = (options.obs_continuous_quantization or 32) // 8
    total = n_cells * 4 * (sum(atlas.embeddings) + sum(dim for dims in atlas.vectors.values() for dim in dims))
    total += n_cells * (value_bytes + 1) * len(atlas.obs)
    if atlas.genes is not None:
        total += n_cells * len(atlas.genes.ids) * ((options.var_quantization or 32) // 8)
        total += reading_bytes(atlas.genes.matrix)
    if atlas.graph is not None:
        total += costs.stored_entries(atlas.graph) * layout.index_dtype(n_cells)[1]
    return total


def input_bytes(atlas: Atlas) -> int:
    """Bytes of the arrays that are gone through."""
    arrays: list[Any] = [*atlas.embeddings.values(), *(a for dims in atlas.vectors.values() for a in dims.values())]
    arrays += [column.values if isinstance(column, Continuous) else column.codes for _, column in atlas.obs]
    arrays += [part for part in (atlas.latent, atlas.graph, atlas.genes and atlas.genes.matrix) if part is not None]
    return sum(matrix_bytes(array) for array in arrays)
