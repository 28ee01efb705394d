"""Parts of LandscapeFiles that the preview shows at full resolution: which, and the transcripts in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.landscape.figures import LARGEST_ZOOM, MOST_POINTS, CellMap, Color, Frame, colored
from atlaswriter.formats.landscape.read import Landscape
from atlaswriter.kernels import draw

Array = NDArray[Any]

# Edge of a detail, in pixels of the picture; about so many cells; at least and at most so many pixels of the image.
_DETAIL, _DETAIL_CELLS, _DETAIL_EDGES = 960, 13, (160, 640)
# Transcripts in a detail that are drawn smaller.
_CROWD = 4000
# Of the genes in details, told apart on dark ground.
GENE_COLORS: tuple[Color, ...] = (
    (255, 214, 10), (255, 69, 88), (48, 209, 255), (102, 222, 84), (255, 122, 214), (255, 149, 0),
)  # fmt: skip


def detail_places(
    export: Landscape, counts: Mapping[tuple[int, int], int], cells: CellMap, whole: Frame
) -> list[Frame]:
    """Up to two parts at full resolution: where most is, and where much is far from there."""
    # How far apart cells are.
    spacing = math.sqrt(whole.wide * whole.high / max(cells.codes.size, 1))
    edge = min(max(round(spacing * _DETAIL_CELLS), _DETAIL_EDGES[0]), _DETAIL_EDGES[1])
    size = export.tile_size
    if not counts:
        size = edge
        inside = whole.holds(cells.x_px, cells.y_px)
        tiles = np.floor(np.stack([cells.x_px[inside], cells.y_px[inside]], 1) / size).astype(np.int64)
        places, found = np.unique(tiles, axis=0, return_counts=True)
        counts = {(int(i), int(j)): int(count) for (i, j), count in zip(places, found, strict=True)}
    counts = {tile: counts[tile] for tile in whole.touched(counts, size)}
    if not counts:
        return [_detail(whole, whole.left + whole.wide / 2, whole.top + whole.high / 2, edge)]
    reach = min(round((edge / size - 1) / 2), 4) if edge > size else 0
    near = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)]
    scores = np.array([sum(counts.get((i + di, j + dj), 0) for di, dj in near) for i, j in counts], float)
    tiles = np.array(list(counts))
    first = int(np.argmax(scores))
    apart = np.hypot(*(tiles - tiles[first]).T) * size
    # To the side as well as along: a wrong scale shows more the further from the corner.
    second = int(np.argmax(scores * np.minimum(apart / (0.6 * math.hypot(whole.wide, whole.high)), 1)))
    chosen = [first, second] if apart[second] > 1.5 * edge else [first]
    centres = [_densest(export, tuple(tiles[k].tolist()), size, edge, counts) for k in chosen]
    return [_detail(whole, x, y, edge) for x, y in centres]


def _densest(
    export: Landscape, tile: tuple[int, int], size: int, edge: int, counts: Mapping[tuple[int, int], int]
) -> tuple[float, float]:
    """Centre of a tile, or of the part of a large tile with most transcripts."""
    i, j = tile
    if size <= 2 * edge or counts[tile] > MOST_POINTS:
        return (i + 0.5) * size, (j + 0.5) * size
    found = export.transcripts(i, j)
    n_bins = min(-(-size // edge), 1000)
    bins = np.zeros((n_bins, n_bins), np.int64)
    x, y = np.ascontiguousarray(found.x_px), np.ascontiguousarray(found.y_px)
    draw.tally(x, y, float(i * size), float(j * size), n_bins / size, bins)
    row, column = np.unravel_index(int(np.argmax(bins)), bins.shape)
    return i * size + (int(column) + 0.5) * size / n_bins, j * size + (int(row) + 0.5) * size / n_bins


def _detail(whole: Frame, x: float, y: float, edge: int) -> Frame:
    wide, high = min(float(edge), whole.wide), min(float(edge), whole.high)
    left = min(max(round(x - wide / 2), whole.left), whole.left + whole.wide - wide)
    top = min(max(round(y - high / 2), whole.top), whole.top + whole.high - high)
    return Frame(left, top, wide, high, min(_DETAIL / max(wide, high), float(LARGEST_ZOOM)))


def points(export: Landscape, counts: Mapping[tuple[int, int], int], frame: Frame) -> tuple[Array, Array, Array] | None:
    """Genes and positions of the transcripts in a frame; None where its tiles hold too many to be read."""
    tiles = frame.touched(counts, export.tile_size)
    if sum(counts[tile] for tile in tiles) > MOST_POINTS:
        return None
    parts: list[tuple[Array, ...]] = [(np.empty(0, np.int64), np.empty(0), np.empty(0))]
    for tile in tiles:
        found = export.transcripts(*tile)
        inside = frame.holds(found.x_px, found.y_px)
        parts.append((found.genes[inside], found.x_px[inside], found.y_px[inside]))
    genes, x_px, y_px = (np.concatenate(column) for column in zip(*parts, strict=True))
    return genes, x_px, y_px


def spots(found: tuple[Array, Array, Array], top: Sequence[int], frame: Frame) -> Array:
    """Transcripts of these genes as discs in `GENE_COLORS`: uint8 ``(height, width, 4)``."""
    out = np.full(frame.shape, -1, np.int64)
    genes, x_px, y_px = found
    radius = 2.3 if np.isin(genes, top).sum() <= _CROWD else 1.5
    for number, gene in enumerate(top):
        x, y = x_px[genes == gene], y_px[genes == gene]
        draw.discs(x, y, np.full(x.size, number), *frame.place, radius, 1.0, out)
    return colored(out, np.array(GENE_COLORS, np.uint8))
