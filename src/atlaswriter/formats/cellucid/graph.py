"""The neighbour graph as sorted pairs of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlaswriter.engine.regroup import kernel_indices
from atlaswriter.formats.cellucid import layout
from atlaswriter.kernels import edges
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array, Compressed, Matrix


@dataclass(frozen=True)
class Edges:
    """Each pair once, ``sources < destinations``, sorted by both; dtype of `layout.index_dtype`."""

    sources: Array
    destinations: Array
    max_neighbors: int


def _pattern(matrix: Matrix) -> tuple[Array, Array]:
    """indptr (int64) and ascending indices of the nonzero entries.

    The columns of a CSC matrix are taken for rows: the pattern of ``A + Aᵀ`` is that of its transpose.
    """
    if not isinstance(matrix, Compressed):
        rows, columns = np.nonzero(matrix)
        indptr = np.r_[0, np.cumsum(np.bincount(rows, minlength=matrix.shape[0]))].astype(np.int64)
        return indptr, kernel_indices(columns)
    indptr = readable(np.ascontiguousarray(matrix.indptr, dtype=np.int64))
    indices = matrix.indices
    if np.count_nonzero(matrix.data) < indices.size:
        kept = matrix.data != 0
        indices = indices[kept]
        indptr = np.r_[0, np.cumsum(kept, dtype=np.int64)][indptr]
    indices = kernel_indices(indices)
    if not edges.rows_ascend(indptr, indices):
        indices = _sorted_rows(indptr, indices, matrix.shape)
    return indptr, indices


def _sorted_rows(indptr: Array, indices: Array, shape: tuple[int, int]) -> Array:
    from scipy.sparse import csr_array

    rows = csr_array((np.zeros(indices.size, np.int8), indices.copy(), indptr), shape=shape)
    rows.sort_indices()
    return np.asarray(rows.indices)


def extract_edges(matrix: Matrix) -> Edges:
    """Undirected edges of a cells × cells matrix.

    A pair is an edge when the entry in either direction is not zero; weights are not looked at
    otherwise, so none can overflow or cancel. The diagonal is left out.

    Parameters
    ----------
    matrix
        Any weights; need not be symmetric; repeated entries count once.
    """
    indptr, indices = _pattern(matrix)
    n_cells = indptr.size - 1
    starts = np.zeros(n_cells + 1, np.int64)
    edges.count_below(indptr, indices, starts)
    np.cumsum(starts, out=starts)
    below = np.empty(starts[-1], indices.dtype)
    edges.place_below(indptr, indices, starts[:-1].copy(), below)
    degrees = np.zeros(n_cells, np.int64)
    dtype = layout.index_dtype(n_cells)[0]
    # Room for every entry to be an edge of its own: what is not written to takes no memory.
    sources, destinations = np.empty(indices.size, dtype), np.empty(indices.size, dtype)
    n_edges = edges.merge(indptr, indices, starts, below, degrees, sources, destinations)
    return Edges(sources[:n_edges], destinations[:n_edges], int(degrees.max(initial=0)))
