"""Transcripts and outlines to the tiles of a square grid.

Positions are kept in whole hundredths of a pixel, which is what the viewer's files hold; a tile is
``(i, j) = floor(position / edge)``, with negative tiles left of and above the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel

# What `locate` counts and finds, by position in its `found`.
FAR, OUTSIDE, POOR, UNWANTED, FIRST_I, FIRST_J, LAST_I, LAST_J = range(8)
N_FOUND = 8
# Hundredths of a pixel that count as a position: 21 million pixels from the origin.
_FARTHEST = 2.0**31 - 1


@kernel(
    *(
        f"({real}[::1], {real}[::1], i4[::1], i4[::1], f8[::1], f8, f8[::1], f8[::1], i4, "
        "i4[::1], i4[::1], i4[::1], i8[::1])"
        for real in ("f4", "f8")
    )
)
def locate(
    x: Any, y: Any, features: Any, genes: Any, quality: Any, least: Any, to_px: Any, region: Any, edge: Any,
    x_out: Any, y_out: Any, gene_out: Any, found: Any,
) -> Any:  # fmt: skip
    """Positions and genes of the transcripts that are wanted, in their order.

    Parameters
    ----------
    x, y : float (n,)
        In the coordinates of the data set.
    features : int32 (n,)
        Position of each one's feature in `genes`.
    genes : int32
        Id of each feature's gene; -1 where it is not wanted.
    quality : float64 (n,)
        Quality values; empty where they do not count.
    least : float64
        Smallest quality that is wanted.
    to_px : float64 (6,)
        First two rows of the transform to pixels.
    region : float64 (4,)
        x0, y0, x1, y1 that are wanted, in hundredths of a pixel, the last two excluded; empty for all.
    edge : int32
        Edge of a tile, in hundredths of a pixel.
    x_out, y_out, gene_out : int32 (n,)
        Hundredths of a pixel, and genes; filled.
    found : int64 (N_FOUND,)
        Positions that are not numbers or too far away, outside of the region, of poor quality, of genes
        that are not wanted; the box of tiles. Added to.

    Returns
    -------
    int
        How many are wanted.
    """
    n = 0
    for k in range(x.size):
        px = to_px[0] * x[k] + to_px[1] * y[k] + to_px[2]
        py = to_px[3] * x[k] + to_px[4] * y[k] + to_px[5]
        across, down = np.rint(px * 100.0), np.rint(py * 100.0)
        if not (abs(across) <= _FARTHEST and abs(down) <= _FARTHEST):
            found[FAR] += 1
            continue
        if region.size and not (region[0] <= across < region[2] and region[1] <= down < region[3]):
            found[OUTSIDE] += 1
            continue
        if quality.size and not quality[k] >= least:
            found[POOR] += 1
            continue
        gene = genes[features[k]]
        if gene < 0:
            found[UNWANTED] += 1
            continue
        column, row = np.int32(across), np.int32(down)
        i, j = column // edge, row // edge
        found[FIRST_I], found[FIRST_J] = min(found[FIRST_I], i), min(found[FIRST_J], j)
        found[LAST_I], found[LAST_J] = max(found[LAST_I], i), max(found[LAST_J], j)
        x_out[n], y_out[n], gene_out[n] = column, row, gene
        n += 1
    return n


@kernel("(i4[::1], i4[::1], i4, i8, i8, i8, i8[::1])")
def count(x: Any, y: Any, edge: Any, first_i: Any, first_j: Any, n_j: Any, counts: Any) -> None:
    """Count positions by tile.

    Parameters
    ----------
    x, y : int32 (n,)
        Hundredths of a pixel.
    edge : int32
        Edge of a tile in hundredths of a pixel.
    first_i, first_j, n_j : int64
        Where the box of tiles begins, and its tiles in j.
    counts : int64 (n_i * n_j,)
        Added to; i varies slowest.
    """
    for k in range(x.size):
        counts[(x[k] // edge - first_i) * n_j + (y[k] // edge - first_j)] += 1


@kernel(
    *(
        f"(i4[::1], i4[::1], i4[::1], i4, i8, i8, i8, i8[::1], {local}[::1], {local}[::1], {gene}[::1])"
        for local in ("u2", "u4")
        for gene in ("u2", "u4")
    )
)
def group(
    x: Any, y: Any, genes: Any, edge: Any, first_i: Any, first_j: Any, n_j: Any, cursor: Any,
    x_out: Any, y_out: Any, gene_out: Any,
) -> None:  # fmt: skip
    """Put transcripts where their tile is, in their order within it.

    Parameters
    ----------
    x, y, edge, first_i, first_j, n_j
        As of `count`.
    genes : int32 (n,)
        Gene of each.
    cursor : int64 (n_i * n_j,)
        Where the next one of each tile goes; moved on.
    x_out, y_out : uint16 or uint32 (n,)
        Hundredths of a pixel from the tile's corner.
    gene_out : uint16 or uint32 (n,)
        Genes.
    """
    for k in range(x.size):
        i, j = x[k] // edge, y[k] // edge
        tile = (i - first_i) * n_j + (j - first_j)
        place = cursor[tile]
        cursor[tile] = place + 1
        x_out[place], y_out[place], gene_out[place] = x[k] - i * edge, y[k] - j * edge, genes[k]


@kernel(*(f"({local}[::1], {local}[::1], i8, i8, f8, {real}[::1])" for local in ("u2", "u4") for real in ("f4", "f8")))
def pairs(x: Any, y: Any, left: Any, top: Any, steps: Any, out: Any) -> None:
    """Positions in pixels, x and y in turn.

    Parameters
    ----------
    x, y : uint16 or uint32 (n,)
        Hundredths of a pixel from the tile's corner.
    left, top : int64
        The corner, in hundredths of a pixel.
    steps : float64
        Each becomes the nearest multiple of 1 / steps; 0 for the hundredths themselves.
    out : float (2 * n,)
        Filled.
    """
    for k in range(x.size):
        px, py = (left + x[k]) / 100.0, (top + y[k]) / 100.0
        if steps:
            px, py = np.rint(px * steps) / steps, np.rint(py * steps) / steps
        out[2 * k], out[2 * k + 1] = px, py


@kernel(*(f"(i8[::1], i8[::1], i8[::1], {value}[::1], i8[::1], {value}[::1])" for value in ("u2", "u4", "i4")))
def place(keys: Any, offsets: Any, wanted: Any, values: Any, cursor: Any, out: Any) -> None:
    """Copy the values of some keys of one part to where each key's values go.

    Parameters
    ----------
    keys : int64 (k,)
        Keys of the part, ascending, all of them among `wanted`.
    offsets : int64 (k + 1,)
        Where the values of each begin, relative to the first of them.
    wanted : int64 (m,)
        All keys, ascending.
    values : (offsets[-1] - offsets[0],)
        Values of the part, key after key.
    cursor : int64 (m,)
        Where the next value of each key goes in `out`; moved on.
    out : (n,)
        Filled.
    """
    slot = 0
    for k in range(keys.size):
        while wanted[slot] < keys[k]:
            slot += 1
        at = cursor[slot]
        for source in range(offsets[k] - offsets[0], offsets[k + 1] - offsets[0]):
            out[at] = values[source]
            at += 1
        cursor[slot] = at
