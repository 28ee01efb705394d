"""One export from checked parts to a published folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from atlaswriter import __version__
from atlaswriter.engine.run import Team
from atlaswriter.engine.spill import refuse_full_disk
from atlaswriter.engine.strategy import SPILL, reading_bytes
from atlaswriter.engine.warmup import spill_kernels, warm_up
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas, Export
from atlaswriter.formats.cellucid.edgefiles import write_edges
from atlaswriter.formats.cellucid.genes import GeneWriter
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.obs import Entry, ObsWriter
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.plan import Plan, make_plan
from atlaswriter.formats.cellucid.warmup import wanted_kernels
from atlaswriter.progress import Progress
from atlaswriter.report import Report
from atlaswriter.sinks import fs
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
    atlas, options, budget, report = prepared.atlas, prepared.options, prepared.budget, prepared.report
    resources, target = prepared.resources, prepared.target
    with report.phase("kernels"):
        warm_up(wanted_kernels(atlas, options))
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
        FolderSink(target, force=options.force, spill_dir=spill_dir) as sink,
        Team(plan.workers, budget) as team,
    ):
        job = Job(atlas.n_cells, options, team, sink, Progress(resources.progress))
        with report.phase("write") as phase, job.progress.phase(target.name, progress_bytes(atlas, options)):
            _write_parts(atlas, job, plan, report)
            phase.bytes = sink.bytes_written
        with report.phase("publish"):
            sink.publish()
        report.files, report.bytes_out = len(sink.files), sink.bytes_written
    report.bytes_in = input_bytes(atlas)
    report.warnings += atlas.warnings
    report.renamed += atlas.renamed
    report.close()
    for warning in report.warnings:
        log.warning("%s", warning, extra={"in_report": True})
    return report


def _write_parts(atlas: Atlas, job: Job, plan: Plan, report: Report) -> None:
    """Submit the parts, longest first; write the manifests once all are there, the identity last."""
    names = job.options.layout
    job.sink.make_dir(names.obs_dir)
    graph = _submit_graph(atlas, job)
    obs = ObsWriter(atlas, atlas.frames, job)
    fields = obs.submit()
    _submit_points(atlas, job)
    genes = None
    if atlas.genes is not None and plan.choice is not None:
        job.sink.make_dir(names.var_dir)
        genes = GeneWriter(atlas.genes, job)
        genes.run(plan.choice)
        report.warnings += genes.warnings()
    job.team.wait()
    entries = [field() for field in fields]
    report.spill_bytes = obs.spill_bytes + (0 if genes is None else genes.spill_bytes)
    report.warnings += [text for entry in entries for text in entry.warnings]
    n_edges = None if graph is None else _write_graph_manifest(graph.result(), job)
    _write_table_manifests(atlas, entries, genes, job)
    identity = _identity(atlas, entries, n_edges, job)
    _write_json(job, layout.IDENTITY, identity, indent=2)
    _describe(identity, report)


def _submit_graph(atlas: Atlas, job: Job) -> Future[tuple[int, int]] | None:
    if atlas.graph is None:
        return None
    directory = job.options.layout.connectivity_dir
    job.sink.make_dir(directory)
    fixed, rooms = costs.edges(atlas.graph)
    room = rooms.within(job.team.budget.free - fixed)
    return job.team.submit(write_edges, atlas.graph, directory, room, job, memory=fixed + room, what="connectivities")


def _submit_points(atlas: Atlas, job: Job) -> None:
    compressed, team = job.options.level is not None, job.team
    for dim, points in sorted(atlas.embeddings.items()):
        payload = atlas.frames[dim].points(points)
        path = layout.points_file(dim, compressed)
        team.submit(job.write, path, payload, memory=costs.points(points), what=f"the {dim}D embedding")
    if atlas.vectors:
        job.sink.make_dir(layout.VECTORS_DIR)
    for name, by_dim in atlas.vectors.items():
        for dim, raw in by_dim.items():
            payload = atlas.frames[dim].vectors(raw)
            path = layout.vectors_file(name, dim, compressed)
            team.submit(job.write, path, payload, memory=costs.points(raw), what=f"vector field {name!r}")


def _write_graph_manifest(counted: tuple[int, int], job: Job) -> int:
    n_edges, max_neighbors = counted
    names = job.options.layout
    manifest = layout.connectivity_manifest(
        names, n_cells=job.n_cells, n_edges=n_edges, max_neighbors=max_neighbors, compression=job.options.level
    )
    _write_json(job, names.connectivity_manifest, manifest)
    return n_edges


def _write_table_manifests(atlas: Atlas, entries: list[Entry], genes: GeneWriter | None, job: Job) -> None:
    options = job.options
    obs = layout.obs_manifest(
        options.layout,
        n_cells=atlas.n_cells,
        centroid_outlier_quantile=options.centroid_outlier_quantile,
        compression=options.level,
        bits=options.obs_continuous_quantization,
        continuous=[entry.manifest for entry in entries if entry.summary["kind"] == "continuous"],
        categorical=[entry.manifest for entry in entries if entry.summary["kind"] == "category"],
    )
    _write_json(job, options.layout.obs_manifest, obs)
    if genes is not None:
        var = layout.var_manifest(
            options.layout,
            n_cells=atlas.n_cells,
            gene_id_column=genes.genes.id_column,
            compression=options.level,
            bits=options.var_quantization,
            genes=genes.entries,
        )
        _write_json(job, options.layout.var_manifest, var)


def _identity(atlas: Atlas, entries: list[Entry], n_edges: int | None, job: Job) -> dict[str, Any]:
    options = job.options
    widths = {entry.manifest[2] for entry in entries if entry.summary["kind"] == "category"}
    return layout.identity(
        dataset=options.dataset(job.sink.target),
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


def _write_json(job: Job, name: str, content: Mapping[str, Any], indent: int | None = None) -> None:
    job.sink.write(name, json.dumps(content, indent=indent, allow_nan=False).encode())


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
