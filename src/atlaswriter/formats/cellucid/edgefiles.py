"""Edges into two files at once, block by block."""

from __future__ import annotations

import numpy as np

from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.graph import EdgeStream
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.sources.base import Matrix


def write_edges(graph: Matrix, directory: str, room: int, job: Job) -> tuple[int, int]:
    """Write sources and destinations; the number of edges, and the most that one cell has.

    Sources are runs: 7 ms for 1.6 M edges and 0.57 of ISA-L's bytes, as many as zlib 6 makes in 75 ms.
    Destinations are close to noise: ISA-L makes 1.04 of zlib 6's bytes, in 23 instead of 760 ms.
    """
    edges = EdgeStream(graph, room)
    compressed = job.options.level is not None
    dtype = np.dtype(layout.index_dtype(job.n_cells)[0])
    source, destination = (layout.edges_file(directory, end, compressed) for end in ("src", "dst"))
    with (
        job.growing(source, job.repeats, dtype) as add_sources,
        job.growing(destination, job.plain, dtype) as add_destinations,
    ):
        for sources, destinations in edges:
            add_sources(sources)
            add_destinations(destinations)
    return edges.n_edges, edges.max_neighbors
