"""Comparing the tiles of two sets of LandscapeFiles: transcripts, outlines of cells, images."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from atlaswriter.findings import Part
from atlaswriter.formats.landscape.columns import Array
from atlaswriter.formats.landscape.content import Outlines, Transcripts
from atlaswriter.formats.landscape.read import Landscape
from atlaswriter.units import usable_cpus

# Positions have two decimals.
_PER_PX = 100

# A cell, and which of its outlines.
_Key = tuple[int, int]


def compare_transcripts(a: Landscape, b: Landscape, genes: Array, px: float) -> Part:
    """Compare all transcripts as sets in which each may come several times, tile by tile.

    Parameters
    ----------
    a, b
        Of the same tile size.
    genes
        Id in `a` of each gene of `b`; -1 for others, and last for -1 itself.
    px
        Tolerance in x and in y.
    """
    rests: tuple[list[Array], list[Array]] = ([], [])
    n_a = n_b = 0
    for tile in sorted({*a.transcript_tiles(), *b.transcript_tiles()}):
        left, right = a.transcripts(*tile), b.transcripts(*tile)
        right = right._replace(genes=genes[np.clip(right.genes, -1, len(genes) - 1)])
        n_a, n_b = n_a + left.genes.size, n_b + right.genes.size
        for rest, found in zip(rests, _unlike(_hundredths(left), _hundredths(right)), strict=True):
            rest.append(found)
    # What is left may be just across the border of a tile.
    none = np.empty((0, 3), np.int64)
    rest_a, rest_b = (np.concatenate([none, *rest]) for rest in rests)
    n_different, largest = _pair(rest_a, rest_b, px)
    part = Part("transcripts", n_different == 0, largest, n_different)
    if n_a != n_b:
        part.note = f"{n_a:,} and {n_b:,}"
    return part


def _hundredths(found: Transcripts) -> Array:
    """Gene, x and y of each transcript as whole numbers."""
    positions = (np.rint(axis * _PER_PX).astype(np.int64) for axis in (found.x_px, found.y_px))
    return np.stack([found.genes, *positions], axis=1)


def _unlike(a: Array, b: Array) -> tuple[Array, Array]:
    """Rows of `a` and of `b` that are left when equal ones are taken away in pairs."""
    rows = np.concatenate([a, b])
    if not rows.size:
        return a, b
    order = np.lexsort(rows.T)
    rows = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], np.any(rows[1:] != rows[:-1], axis=1)]))
    surplus = np.add.reduceat(np.where(order < len(a), 1, -1), starts)
    distinct = rows[starts]
    return np.repeat(distinct, np.maximum(surplus, 0), axis=0), np.repeat(distinct, np.maximum(-surplus, 0), axis=0)


def _pair(a: Array, b: Array, px: float) -> tuple[int, float]:
    """Rows without a partner of the same gene within `px`, and the largest difference of partners in pixels."""
    from scipy.spatial import cKDTree

    largest, apart = 0.0, 4 * px * _PER_PX + 1
    # Genes as a third direction, in which neighbours are too far.
    left, right = (np.stack([rows[:, 1], rows[:, 2], rows[:, 0] * apart], axis=1).astype(np.float64) for rows in (a, b))
    while len(left) and len(right):
        far, near = map(np.asarray, cKDTree(right).query(left, p=np.inf, distance_upper_bound=px * _PER_PX + 0.5))
        found = np.flatnonzero(near < len(right))
        if not found.size:
            break
        partners, of = np.unique(near[found], return_index=True)
        largest = max(largest, float(far[found[of]].max()) / _PER_PX)
        left, right = np.delete(left, found[of], axis=0), np.delete(right, partners, axis=0)
    return max(len(left), len(right)), largest


def compare_outlines(a: Landscape, b: Landscape, cells: Array, px: float, name: str) -> Part:
    """Compare the outlines of each cell vertex by vertex, whatever tile they are in.

    Parameters
    ----------
    a, b
        Two segmentations.
    cells
        Id in `a` of each cell of `b`; -1 for others, and last for -1 itself.
    px
        Tolerance in x and in y.
    name
        Of the part.
    """
    part = Part(name, max_difference=0.0)
    # Cells that are in other tiles of the one set than of the other wait here.
    waiting: tuple[dict[_Key, Array], dict[_Key, Array]] = ({}, {})
    seen: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for tile in sorted({*a.outline_tiles(), *b.outline_tiles()}):
        left, right = a.outlines(*tile), b.outlines(*tile)
        right = right._replace(cells=cells[np.clip(right.cells, -1, len(cells) - 1)])
        for mine, count, found in zip(waiting, seen, (left, right), strict=True):
            for cell, outline in _each(found):
                mine[cell, count[cell]] = outline
                count[cell] += 1
        for key in waiting[0].keys() & waiting[1].keys():
            _compare_outline(part, waiting[0].pop(key), waiting[1].pop(key), px)
    only_a, only_b = map(len, waiting)
    part.n_different += only_a + only_b
    part.equal = not part.n_different
    if only_a or only_b:
        part.note = f"{only_a:,} only in a, {only_b:,} only in b"
    return part


def _each(outlines: Outlines) -> list[tuple[int, Array]]:
    pieces = np.split(outlines.xy_px, outlines.offsets[1:-1]) if outlines.cells.size else []
    return list(zip(outlines.cells.tolist(), pieces, strict=True))


def _compare_outline(part: Part, a: Array, b: Array, px: float) -> None:
    if a.shape != b.shape:
        part.n_different += 1
        return
    difference = float(np.abs(a - b).max(initial=0))
    part.max_difference = max(part.max_difference or 0.0, difference)
    # The rounding of float32 is allowed besides.
    part.n_different += difference > px + float(np.finfo(np.float32).eps) * float(np.abs(a).max(initial=0))


def compare_images(a: Landscape, b: Landscape, channel: str, grey: float) -> Part:
    """Compare the image of one channel tile by tile: mean absolute difference of its pixels, in grey levels."""
    part = Part(f"image {channel!r}", max_difference=0.0)
    left, right = a.image(channel), b.image(channel)
    if left != right:
        part.equal, part.note = False, f"{left} and {right}"
        return part
    tiles = [
        (level, column, row)
        for level in range(len(left.levels))
        for column in range(left.n_tiles(level)[0])
        for row in range(left.n_tiles(level)[1])
    ]

    def difference(tile: tuple[int, int, int]) -> float:
        x, y = (landscape.image_tile(channel, *tile).astype(np.int16) for landscape in (a, b))
        return float(np.abs(x - y).mean()) if x.shape == y.shape else np.inf

    with ThreadPoolExecutor(usable_cpus()) as pool:
        differences = np.array(list(pool.map(difference, tiles)))
    part.max_difference = float(differences.max(initial=0))
    part.n_different = int((differences > grey).sum())
    part.equal = not part.n_different
    part.note = "means of tiles" if part.max_difference else ""
    return part
