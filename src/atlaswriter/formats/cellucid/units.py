"""Everything of an export but expression, in units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from atlaswriter.engine.work import Unit
from atlaswriter.formats.cellucid import costs, layout
from atlaswriter.formats.cellucid.atlas import Atlas
from atlaswriter.formats.cellucid.edgefiles import write_edges
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.obs import obs_units
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.payload import Payload
from atlaswriter.sinks.files import Files
from atlaswriter.sources.base import AnyArray, matrix_bytes, n_bytes

GRAPH = "graph"


def make_dirs(atlas: Atlas, options: Options, sink: Files) -> None:
    """Make the folders of an export."""
    sink.make_dir(options.layout.obs_dir)
    if atlas.graph is not None:
        sink.make_dir(options.layout.connectivity_dir)
    if atlas.vectors:
        sink.make_dir(layout.VECTORS_DIR)
    if atlas.genes is not None:
        sink.make_dir(options.layout.var_dir)


def table_units(atlas: Atlas, job: Job) -> Iterator[Unit]:
    """Embeddings, vector fields, obs and graph, longest first."""
    if atlas.graph is not None:
        fixed, rooms = costs.edges(atlas.graph)
        room = rooms.within(job.team.budget.free - fixed)
        yield _graph_unit(atlas, job, fixed + room, room)
    yield from obs_units(atlas, job)
    compressed = job.options.level is not None
    for dim, points in sorted(atlas.embeddings.items()):
        path = layout.points_file(dim, compressed)
        yield _points_unit(path, f"the {dim}D embedding", points, atlas.frames[dim].points(points), job)
    for name, by_dim in atlas.vectors.items():
        for dim, raw in by_dim.items():
            path = layout.vectors_file(name, dim, compressed)
            yield _points_unit(path, f"vector field {name!r} {dim}D", raw, atlas.frames[dim].vectors(raw), job)


def _graph_unit(atlas: Atlas, job: Job, memory: int, room: int) -> Unit:
    graph = atlas.graph
    assert graph is not None  # noqa: S101 - asked by the caller

    def write(files: Files) -> list[int]:
        return list(write_edges(graph, job.options.layout.connectivity_dir, room, replace(job, sink=files)))

    size = matrix_bytes(graph)
    return Unit(GRAPH, "connectivities", write, memory, size, size // 2)


def _points_unit(path: str, what: str, raw: AnyArray, payload: Payload, job: Job) -> Unit:
    def write(files: Files) -> None:
        replace(job, sink=files).write(path, payload)

    return Unit(path, what, write, costs.points(raw), n_bytes(raw), payload.n_rows * payload.row_bytes)
