"""Memory that each part of an export takes, in bytes: what is drawn from the budget, and refused early."""

from __future__ import annotations

import numpy as np

from atlaswriter.codecs import sparse_gzip
from atlaswriter.engine.regroup import batch_limits
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.atlas import Atlas, Genes
from atlaswriter.formats.cellucid.groups import SPARSE_BLOCK_BYTES, coords_dtype
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.sources.base import Categorical, Compressed, Matrix

# A batch of genes is worth its pass over the matrix from about this size on; larger ones gain nothing.
_BATCH_ROOM = 1 << 30


def points(n_cells: int, dim: int) -> int:
    """One embedding or vector field: as stored, and compressed."""
    return n_cells * dim * 8


def continuous(n_cells: int) -> int:
    """One numeric column: in float64, as stored, and compressed."""
    return n_cells * 16


def codes(n_cells: int) -> int:
    """One categorical column's codes and centroids: codes, distances, and a copy for their quantile."""
    return n_cells * 20


def outliers(n_cells: int, latent: Matrix | None, n_categories: int) -> int:
    """One column's outlier quantiles.

    Distances, cells, order, quantiles, as stored and compressed; sums and means of the categories;
    of a sparse latent space a dense block, as it is and in float64.
    """
    width = 0 if latent is None else latent.shape[1]
    block = 2 * max(SPARSE_BLOCK_BYTES, 8 * width) if isinstance(latent, Compressed) else 0
    return n_cells * 30 + 2 * n_categories * width * 8 + block


def converted(atlas: Atlas) -> int:
    """Coordinates that kernels cannot take as they are, kept as copies while fields are written."""
    arrays = [*atlas.embeddings.values(), *([atlas.latent] if isinstance(atlas.latent, np.ndarray) else [])]
    return sum(
        array.size * coords_dtype(array.dtype).itemsize
        for array in arrays
        if not (array.flags.c_contiguous and array.dtype == coords_dtype(array.dtype))
    )


def stored_entries(matrix: Matrix) -> int:
    """Entries of a matrix that may be edges."""
    return matrix.nnz if isinstance(matrix, Compressed) else int(matrix.size)


def graph(matrix: Matrix) -> int:
    """The graph: indices in order, its lower half, both ends of at most every entry, and one compressed."""
    size = layout.index_dtype(matrix.shape[0])[1]
    return stored_entries(matrix) * (8 + 3 * size) + int(matrix.shape[0]) * 24


def gene_worker(n_cells: int, bits: int | None) -> int:
    """One worker on genes.

    Of one gene: coded entries (or, dense, float64), its column as stored and as our encoder, ISA-L and
    zlib may write it; what the worker keeps of the obs fields; and what the encoder works in.
    """
    return n_cells * (4 * (bits or 32) // 8 + 8 + 4) + sparse_gzip.SCRATCH_BYTES


def gene_room(genes: Genes, left: int) -> int:
    """Bytes for one batch of genes when `left` are left beside the workers."""
    least, most = batch_limits(genes.matrix)
    return max(min(left, _BATCH_ROOM, most), least)


def largest(atlas: Atlas, options: Options, workers: int) -> tuple[int, str]:
    """The part that takes most when it gets as little as it can do with, and its name."""
    n_cells = atlas.n_cells
    parts = [(points(n_cells, dim), f"the {dim}D embedding") for dim in atlas.embeddings]
    for key, column in atlas.obs:
        if isinstance(column, Categorical):
            parts.append((outliers(n_cells, atlas.latent, len(column.categories)), f"obs[{key!r}]"))
        else:
            parts.append((continuous(n_cells), f"obs[{key!r}]"))
    if atlas.graph is not None:
        parts.append((graph(atlas.graph), "connectivities"))
    if atlas.genes is not None:
        workers_bytes = workers * gene_worker(n_cells, options.var_quantization)
        parts.append((gene_room(atlas.genes, 0) + workers_bytes, "writing genes"))
    size, name = max(parts)
    return size + converted(atlas), name
