"""Categories: where their centre lies in each embedding, and how far out each cell is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.kernels import groups
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array, Compressed, Matrix

# Bytes of a sparse latent space that are made dense at a time, at least one row.
SPARSE_BLOCK_BYTES = 1 << 20


def coords_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype that kernels take coordinates in: their own if it is float32 or float64, else float64."""
    return dtype if dtype in (np.float32, np.float64) and dtype.isnative else np.dtype(np.float64)


def kernel_coords(array: Array) -> Array:
    """Coordinates in a layout and dtype that kernels take; the array itself where it is one already."""
    return readable(np.ascontiguousarray(array, dtype=coords_dtype(array.dtype)))


def _row_blocks(coords: Matrix) -> Iterator[tuple[int, Array]]:
    """A dense array as it is; a CSR matrix some rows at a time. First row and coordinates of each block."""
    if not isinstance(coords, Compressed):
        yield 0, kernel_coords(coords)
        return
    from scipy.sparse import csr_array

    rows = csr_array((coords.data, coords.indices, coords.indptr), shape=coords.shape)
    step = max(1, SPARSE_BLOCK_BYTES // (8 * coords.shape[1])) if coords.shape[1] else coords.shape[0]
    for first in range(0, coords.shape[0], step):
        yield first, kernel_coords(rows[first : first + step].toarray())


def _means(
    coords: Matrix, codes: Array, frame: Frame, counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums = np.zeros((counts.size, frame.center.size))
    for first, block in _row_blocks(coords):
        groups.add(block, codes[first : first + len(block)], frame.center, frame.scale, sums)
    return sums, sums / np.maximum(counts, 1)[:, None]


def _grouped_distances(
    coords: Matrix, codes: Array, frame: Frame, means: Array, wanted: Array, counts: Array, *, cells: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32]]:
    """Distances of the wanted categories one after another, where each begins, and whose they are."""
    sizes = np.where(wanted, counts, 0)
    starts = np.r_[0, np.cumsum(sizes)]
    grouped = np.empty(starts[-1])
    owners = np.empty(starts[-1] if cells else 0, np.uint32)
    cursor = np.where(wanted, starts[:-1], -1)
    for first, block in _row_blocks(coords):
        part = codes[first : first + len(block)]
        groups.distances(block, part, frame.center, frame.scale, means, cursor, grouped, owners, first)
    return starts, grouped, owners


def centroids(
    coords: Array,
    frame: Frame,
    codes: Array,
    counts: NDArray[np.int64],
    categories: list[str],
    *,
    quantile: float,
    min_points: int,
) -> list[dict[str, Any]]:
    """Centre of each category with enough cells, without its outlying ones.

    The mean; if there are more than `min_points` cells, their distances to it; those beyond the
    linearly interpolated `quantile` are dropped, and if at least `min_points` remain their mean is
    taken instead. (Rule: cellucid 0.0.9; float64 throughout, which it is not there.)

    Parameters
    ----------
    coords
        float32 or float64 (n_cells, d), raw.
    frame
        How they are normalised.
    codes
        uint8 or uint16 (n_cells,).
    counts
        Cells of each category.

    Returns
    -------
    list
        ``{category, position, n_points}`` in category order, as the manifest stores them.
    """
    sums, means = _means(coords, codes, frame, counts)
    wanted = counts > min_points
    starts, grouped, _ = _grouped_distances(coords, codes, frame, means, wanted, counts, cells=False)
    reach = np.full(counts.size, -1.0)
    for category in np.flatnonzero(wanted):
        part = grouped[starts[category] : starts[category + 1]]
        reach[category] = np.quantile(part, quantile, overwrite_input=True)
    near_counts, near_sums = np.zeros_like(counts), np.zeros_like(sums)
    groups.add_near(coords, codes, frame.center, frame.scale, means, reach, near_counts, near_sums)
    replaced = wanted & (near_counts >= min_points)
    used = np.where(replaced, near_counts, counts)
    final = np.where(replaced[:, None], near_sums, sums) / np.maximum(used, 1)[:, None]
    return [
        {"category": label, "position": final[code].tolist(), "n_points": int(used[code])}
        for code, label in enumerate(categories)
        if counts[code] >= min_points
    ]


def outlier_quantiles(
    latent: Matrix, codes: Array, counts: NDArray[np.int64], *, min_points: int
) -> NDArray[np.float32]:
    """How far out each cell is in its category: the share of its cells as near to the mean or nearer.

    Distances in the latent space, dense or CSR (n_cells, d), all of it in float64. NaN for cells of
    categories below `min_points` and without category.
    """
    frame = Frame(np.zeros(latent.shape[1]), 1.0)
    quantiles = np.full(codes.size, np.nan, np.float32)
    _, means = _means(latent, codes, frame, counts)
    wanted = counts >= min_points
    starts, grouped, cells = _grouped_distances(latent, codes, frame, means, wanted, counts, cells=True)
    for category in np.flatnonzero(wanted):
        part = slice(starts[category], starts[category + 1])
        groups.ranks(grouped[part], np.argsort(grouped[part]), cells[part], quantiles)
    return quantiles
