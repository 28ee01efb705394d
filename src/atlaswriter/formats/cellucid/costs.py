"""Memory that each part of an export takes, in bytes: what is drawn from the budget, and refused early."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atlaswriter.codecs import sparse_gzip
from atlaswriter.engine import strategy
from atlaswriter.engine.regroup import PIECE_GENES, PIECE_VALUES
from atlaswriter.formats.cellucid import graph, groups, layout, ranks
from atlaswriter.formats.cellucid.atlas import Atlas, Genes
from atlaswriter.formats.cellucid.groups import Rooms
from atlaswriter.formats.cellucid.job import SPARSE_SHARE
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.payload import SEGMENT_BYTES, segment_room
from atlaswriter.formats.cellucid.values import KEPT_BYTES
from atlaswriter.sources.base import (
    AnyArray,
    Categorical,
    Compressed,
    Continuous,
    Matrix,
    is_dense,
    is_sparse,
    overhead,
)

# What a thread keeps between two pieces of work: its encoder's tables, and two arrays of values.
WORKER_BYTES = sparse_gzip.SCRATCH_BYTES + 2 * KEPT_BYTES
_NO_ROOM = Rooms(0, 0)


def points(array: AnyArray) -> int:
    """One embedding or vector field: a segment of it."""
    return segment_room(array.shape[0], 4 * array.shape[1]) + overhead(array)


def continuous(column: Continuous) -> int:
    """One numeric column: a segment of it."""
    return segment_room(column.values.shape[0], 4) + overhead(column.values)


def codes(atlas: Atlas, column: Categorical, bits: int) -> tuple[int, Rooms]:
    """One categorical column's codes, and room for its centroids."""
    fixed = atlas.n_cells * bits // 8 + segment_room(atlas.n_cells, 4) + overhead(column.codes)
    return fixed, _largest(groups.centroid_rooms(array, len(column.categories)) for array in atlas.embeddings.values())


def outliers(atlas: Atlas, column: Categorical, bits: int) -> tuple[int, Rooms]:
    """One column's codes and outlier quantiles, and room to rank distances in."""
    fixed = atlas.n_cells * (bits // 8 + 4) + segment_room(atlas.n_cells, 4) + overhead(column.codes)
    return fixed, _NO_ROOM if atlas.latent is None else groups.outlier_rooms(atlas.latent, len(column.categories))


def spilled_distances(n_cells: int) -> int:
    """Bytes of temporary files where a column's distances do not fit in memory, at most."""
    return ranks.ENTRY_BYTES * n_cells


def _largest(rooms: Iterator[Rooms]) -> Rooms:
    pairs = [_NO_ROOM, *rooms]
    return Rooms(max(least for least, _ in pairs), max(whole for _, whole in pairs))


def stored_entries(matrix: Matrix) -> int:
    """Entries of a matrix that may be edges."""
    return matrix.nnz if isinstance(matrix, Compressed) else int(matrix.shape[0] * matrix.shape[1])


def edges(matrix: Matrix) -> tuple[int, Rooms]:
    """What reading and compressing edges takes, and room for the lower half of the graph."""
    size = layout.index_dtype(matrix.shape[0])[1]
    # Sources and destinations are compressed in turn; a segment of the other is held meanwhile.
    fixed = segment_room(stored_entries(matrix), size) + SEGMENT_BYTES
    if isinstance(matrix, Compressed):
        fixed += sum(overhead(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    elif is_dense(matrix):
        fixed += overhead(matrix)
    return fixed, Rooms(graph.least_room(matrix), graph.whole_room(matrix))


def encoding(n_cells: int, options: Options, sizes: NDArray[np.int64]) -> int:
    """Encoding sparse genes with so many values in one go: their files, and a column that is made dense."""
    width = (options.var_quantization or 32) // 8
    return _files(n_cells, width, sizes) + _in_full(n_cells, options, int(sizes.max(initial=0)))


def _files(n_cells: int, width: int, sizes: NDArray[np.int64]) -> int:
    return sum(sparse_gzip.longest(n_cells * width, int(size), width) for size in sizes)


def _in_full(n_cells: int, options: Options, largest: int) -> int:
    width = (options.var_quantization or 32) // 8
    return 2 * n_cells * width if options.level is None or width == 2 or largest > SPARSE_SHARE * n_cells else 0


def largest_piece(genes: Genes, options: Options) -> int:
    """What encoding a piece of genes takes at most."""
    matrix = genes.matrix
    if not is_sparse(matrix):
        return segment_room(matrix.shape[0], 4)
    n_cells, width, largest = matrix.shape[0], (options.var_quantization or 32) // 8, strategy.largest_gene(matrix)
    # The files of several genes may be largest when their values are shared evenly.
    n_genes = min(PIECE_GENES, max(len(genes.ids), 1))
    many = np.full(n_genes, min(PIECE_VALUES // n_genes + 1, largest))
    files = max(_files(n_cells, width, sizes) for sizes in (many, np.array([largest])))
    return files + _in_full(n_cells, options, largest)


def parts(atlas: Atlas, options: Options) -> Iterator[tuple[str, int, int]]:
    """What each part but expression takes: its name, the least, and when nothing limits it."""
    for dim, array in atlas.embeddings.items():
        yield f"the {dim}D embedding", points(array), points(array)
    for name, by_dim in atlas.vectors.items():
        for dim, array in by_dim.items():
            yield f"vector field {name!r} {dim}D", points(array), points(array)
    for key, column in atlas.obs:
        if isinstance(column, Categorical):
            bits = layout.codes_bits(len(column.categories), options.obs_categorical_dtype)
            for fixed, rooms in (codes(atlas, column, bits), outliers(atlas, column, bits)):
                yield f"obs[{key!r}]", fixed + rooms.least, fixed + rooms.whole
        else:
            yield f"obs[{key!r}]", continuous(column), continuous(column)
    if atlas.graph is not None:
        fixed, rooms = edges(atlas.graph)
        yield "connectivities", fixed + rooms.least, fixed + rooms.whole
