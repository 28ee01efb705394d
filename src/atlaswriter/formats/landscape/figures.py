"""Pictures of LandscapeFiles for the preview, as pixels: image, outlines, clusters, density."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.read import Landscape
from atlaswriter.formats.landscape.scale import FACTOR
from atlaswriter.kernels import draw

Array = NDArray[Any]
Color = tuple[int, int, int]

# Pixels of a picture of everything, and its longest side.
_PIXELS, _LONGEST = 560_000, 1600
# A pixel of the image becomes at most so many: images may be tiny.
LARGEST_ZOOM = 64
# Pixels of the picture that a cell needs for its outline to be seen.
_OUTLINE_PIXELS = 14
# Transcripts of a bin that make a density, on average.
_PER_BIN = 12
# Colours of a density.
_STEPS = 60
# Transcripts that are read one by one, at most.
MOST_POINTS = 20_000_000
# How much brighter than in the viewer an overview may be.
_MOST_GAIN = 4.0
GREY: Color = (96, 102, 112)
OUTLINE: Color = (255, 236, 179)
# Ten steps of matplotlib's "inferno", dark to bright.
RAMP: tuple[Color, ...] = (
    (0, 0, 4), (27, 12, 65), (74, 12, 107), (120, 28, 109), (165, 44, 96), (207, 68, 70), (237, 105, 37),
    (251, 155, 6), (247, 209, 61), (252, 255, 164),
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A part of the image, and the picture of it.

    Attributes
    ----------
    left, top, wide, high
        The part, pixels of the full image.
    scale
        Pixels of the picture for each of the image.
    """

    left: float
    top: float
    wide: float
    high: float
    scale: float

    @classmethod
    def of(cls, left: float, top: float, wide: float, high: float) -> Frame:
        """Everything from a corner, in a picture of limited size."""
        scale = min(math.sqrt(_PIXELS / (wide * high)), _LONGEST / max(wide, high), LARGEST_ZOOM)
        return cls(left, top, wide, high, float(math.floor(scale)) if scale > 1 else scale)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return max(math.ceil(self.high * self.scale - 1e-6), 1), max(math.ceil(self.wide * self.scale - 1e-6), 1)

    @property
    def place(self) -> tuple[float, float, float]:
        """What kernels want to know."""
        return float(self.left), float(self.top), float(self.scale)

    @property
    def native(self) -> Frame:
        """The same part, in a picture with no more pixels than the image has."""
        return self if self.scale <= 1 else Frame(self.left, self.top, self.wide, self.high, 1.0)

    def holds(self, x_px: Array, y_px: Array) -> Array:
        """Which positions lie in it, edges included."""
        across = (x_px >= self.left) & (x_px <= self.left + self.wide)
        found: Array = across & (y_px >= self.top) & (y_px <= self.top + self.high)
        return found

    def tiles(self, size: int, room: float = 0) -> tuple[range, range]:
        """Columns and rows of the data tiles that it touches, with some room around it."""
        ends = [(self.left - room, self.left + self.wide + room), (self.top - room, self.top + self.high + room)]
        columns, rows = (range(math.floor(low / size), math.floor(high / size) + 1) for low, high in ends)
        return columns, rows

    def touched(self, tiles: Iterable[tuple[int, int]], size: int, room: float = 0) -> list[tuple[int, int]]:
        """Those of the tiles that it touches."""
        columns, rows = self.tiles(size, room)
        return [(i, j) for i, j in tiles if i in columns and j in rows]


# --- image


def has_image(export: Landscape) -> bool:
    """Whether there are channels."""
    return bool(export.channels)


def image(export: Landscape, frame: Frame) -> Array:
    """The image as the viewer shows it, its channels added up: uint8 ``(height, width, 3)``."""
    return brightened(export, frame, most=1)[0]


def brightened(
    export: Landscape, frame: Frame, channels: Sequence[str] | None = None, most: float = _MOST_GAIN
) -> tuple[Array, float]:
    """The image, made brighter where it is dark: coarse levels are, as they are means.

    Returns
    -------
    pixels
        uint8 ``(height, width, 3)``, channels added up.
    gain
        How much brighter than in the viewer, 1 to `most`.
    """
    names = list(export.channels) if channels is None else list(channels)
    planes = [_sampled(export, name, frame) for name in names]
    if len(export.channels) == 1 and names[0] in layout.COLOUR_CHANNELS:
        return (planes[0] + 0.5).astype(np.uint8), 1.0
    shares = [plane.mean(2) * (FACTOR / 255) for plane in planes]
    bright = max(float(np.percentile(share, 99.5)) for share in shares)
    gain = min(max(1 / bright, 1), most) if bright > 0 else 1.0
    total = np.full((*frame.shape, 3), 0.5)
    for name, share in zip(names, shares, strict=True):
        total += np.minimum(gain * share, 1)[..., None] * np.array(export.channels[name].color, float)
    return np.minimum(total, 255).astype(np.uint8), gain


def _sampled(export: Landscape, channel: str, frame: Frame) -> Array:
    """Pixels of a channel, float64 ``(height, width, 3)``: means over the area of each pixel of the picture."""
    pyramid = export.image(channel)
    top = len(pyramid.levels) - 1
    down = min(max(math.floor(math.log2(1 / frame.scale) + 1e-9), 0), top)
    level, factor = top - down, 2.0**down
    width, height = pyramid.levels[level]
    rows, columns = (
        np.clip((start + np.arange(count + 1) / frame.scale) / factor, 0, end)
        for start, count, end in zip((frame.top, frame.left), frame.shape, (height, width), strict=True)
    )
    (top_row, bottom), (first, last) = (
        (int(edges[0]), max(math.ceil(edges[-1]), int(edges[0]) + 1)) for edges in (rows, columns)
    )
    window = np.zeros((bottom - top_row, last - first, 3), np.uint8)
    size = pyramid.tile_size
    n_columns, n_rows = pyramid.n_tiles(level)
    for column in range(first // size, min((last - 1) // size + 1, n_columns)):
        for row in range(top_row // size, min((bottom - 1) // size + 1, n_rows)):
            tile = export.image_tile(channel, level, column, row)
            tile = (
                np.repeat(tile[..., None], 3, 2)
                if tile.ndim == 2
                else np.repeat(tile, 3, 2)[..., :3]
                if tile.shape[2] < 3
                else tile[..., :3]
            )
            y, x = row * size - top_row, column * size - first
            cut = tile[max(-y, 0) : max(window.shape[0] - y, 0), max(-x, 0) : max(window.shape[1] - x, 0)]
            y, x = max(y, 0), max(x, 0)
            window[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    across = _means(window, rows - top_row)
    return np.swapaxes(_means(np.swapaxes(across, 0, 1), columns - first), 0, 1)


def _means(values: Array, edges: Array) -> Array:
    """Means over the first axis between positions that rise."""
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, 0, np.float64)])
    base = np.minimum(edges.astype(np.int64), values.shape[0] - 1)
    share = (edges - base).reshape(-1, *[1] * (values.ndim - 1))
    at = sums[base] + share * values[base]
    widths = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    found: Array = np.diff(at, axis=0) / np.maximum(widths, 1e-12) * (widths > 0)
    return found


# --- cells


@dataclass(frozen=True)
class CellMap:
    """Where cells are and how they are coloured.

    Attributes
    ----------
    x_px, y_px
        float64, by id.
    codes
        int64, row of `palette` by id; 0 where a cell has no cluster.
    palette
        uint8 ``(n, 3)``.
    """

    x_px: Array
    y_px: Array
    codes: Array
    palette: Array

    def labels(self, cells: Array) -> Array:
        """Codes of cells by id, which may be unknown."""
        known = (cells >= 0) & (cells < self.codes.size)
        found: Array = np.where(known, self.codes[np.where(known, cells, 0)], 0) if self.codes.size else cells * 0
        return found


def outlines_show(frame: Frame, n_outlines: int) -> bool:
    """Whether there is room enough for each outline to be seen."""
    height, width = frame.shape
    return 0 < n_outlines <= height * width / _OUTLINE_PIXELS


def dots(cells: CellMap, frame: Frame) -> Array:
    """Cells as discs in the colours of their clusters: uint8 ``(height, width, 4)``."""
    out = np.full(frame.shape, -1, np.int64)
    n_inside = int(frame.holds(cells.x_px, cells.y_px).sum())
    radius = min(0.5 * math.sqrt(out.size / max(n_inside, 1)), 6.0)
    draw.discs(cells.x_px, cells.y_px, cells.codes, *frame.place, radius, 0.0, out)
    return colored(out, cells.palette)


def colored(labels: Array, colors: Array) -> Array:
    """Colours of labels: nothing for -1, shade for -2."""
    table = np.full((len(colors) + 2, 4), 255, np.uint8)
    table[:-2, :3] = colors
    table[-2:] = [[0, 0, 0, 160], [0, 0, 0, 0]]
    found: Array = table[labels]
    return found


def outline_layers(
    export: Landscape, tiles: Iterable[tuple[int, int]], frame: Frame, cells: CellMap, half: float, alpha: float
) -> tuple[Array, Array]:
    """Outlines of these tiles: as lines, uint8 ``(height, width, 4)``, and filled, alike.

    Lines are `half` pixels of the picture to either side, and let what is below shine through.
    """
    height, width = frame.shape
    lines = np.zeros((height, width), np.float32)
    labels = np.full((2 * height, 2 * width), -1, np.int64)
    left, top, scale = frame.place
    for i, j in tiles:
        found = export.outlines(i, j)
        xy, offsets = np.array(found.xy_px, np.float64, order="C"), np.array(found.offsets, np.int64)
        draw.strokes(xy, offsets, left, top, scale, half, lines)
        draw.fill(xy, offsets, cells.labels(found.cells), left, top, 2 * scale, labels)
    stroked = np.zeros((height, width, 4), np.uint8)
    # Few steps are stored in fewer bytes.
    stroked[..., 3] = np.round(lines * 6) * (255 * alpha / 6)
    stroked[stroked[..., 3] > 0, :3] = OUTLINE
    sub = colored(labels, cells.palette).astype(np.float32)
    sub[..., :3] *= sub[..., 3:] / 255
    return stroked, _straight(sub.reshape(height, 2, width, 2, 4).mean((1, 3)))


def _straight(out: Array) -> Array:
    """uint8 red, green, blue, alpha of colours that are multiplied by their alpha."""
    share = out[..., 3:] / 255
    colors = np.where(share > 0, out[..., :3] / np.maximum(share, 1e-6), 0)
    return (np.concatenate([np.minimum(colors, 255), out[..., 3:]], 2) + 0.5).astype(np.uint8)


def flat(layers: Sequence[Array], ground: Color = (0, 0, 0)) -> Array:
    """Layers over each other on a ground: uint8 ``(height, width, 3)``."""
    out = np.empty((*layers[0].shape[:2], 3), np.float32)
    out[:] = ground
    for layer in layers:
        alpha = layer[..., 3:].astype(np.float32) / 255 if layer.shape[2] == 4 else np.float32(1)
        out = layer[..., :3] * alpha + out * (1 - alpha)
    return (out + 0.5).astype(np.uint8)


# --- transcripts


@dataclass(frozen=True)
class Density:
    """Transcripts by place.

    Attributes
    ----------
    pixels
        uint8 ``(height, width, 3)``.
    low, high
        Transcripts per pixel of the full image at the ends of the colours.
    bin_px
        Edge of a bin, pixels of the full image.
    inside
        Number of transcripts in the frame.
    """

    pixels: Array
    low: float
    high: float
    bin_px: float
    inside: int


def density(export: Landscape, counts: Mapping[tuple[int, int], int], frame: Frame) -> Density | None:
    """Density of transcripts, in logarithmic colours; None where there are none in the frame.

    Where there are more than `MOST_POINTS`, from the numbers of transcripts of the tiles alone.
    """
    if sum(counts.values()) > MOST_POINTS:
        values, bin_px = _by_tile(counts, export.tile_size, frame), float(export.tile_size)
        area = 1 / frame.scale**2
        inside = sum(counts[tile] for tile in frame.touched(counts, export.tile_size))
    else:
        values, bin_px = _by_bin(export, counts, frame)
        area = bin_px**2
        inside = int(values.sum())
        repeat = max(round(bin_px * frame.scale), 1)
        values = np.repeat(np.repeat(values, repeat, 0), repeat, 1)[: frame.shape[0], : frame.shape[1]]
    there = values[values > 0]
    if not there.size:
        return None
    low, high = (float(value) for value in np.percentile(there, [1, 99.9]))
    share = np.log(np.maximum(values, low) / low) / max(math.log(high / low), 1e-9)
    index = np.where(values > 0, 1 + np.minimum(share, 1) * (_STEPS - 1), 0).astype(np.int64)
    return Density(_ramp()[index], low / area, high / area, bin_px, inside)


def _by_bin(export: Landscape, counts: Mapping[tuple[int, int], int], frame: Frame) -> tuple[Array, float]:
    height, width = frame.shape
    wanted = math.ceil(math.sqrt(height * width * _PER_BIN / max(sum(counts.values()), 1)))
    repeat = min(max(wanted, 1), 16)
    bins = np.zeros((-(-height // repeat), -(-width // repeat)), np.int64)
    left, top, scale = frame.place
    for i, j in frame.touched(counts, export.tile_size):
        found = export.transcripts(i, j)
        x, y = np.ascontiguousarray(found.x_px), np.ascontiguousarray(found.y_px)
        draw.tally(x, y, left, top, scale / repeat, bins)
    return bins, repeat / scale


def _by_tile(counts: Mapping[tuple[int, int], int], size: int, frame: Frame) -> Array:
    """Transcripts per pixel of the picture."""
    out = np.zeros(frame.shape)
    edge = size * frame.scale
    for (i, j), count in counts.items():
        x0, y0 = round((i * size - frame.left) * frame.scale), round((j * size - frame.top) * frame.scale)
        x1, y1 = round(((i + 1) * size - frame.left) * frame.scale), round(((j + 1) * size - frame.top) * frame.scale)
        rows, columns = slice(max(y0, 0), max(y1, y0 + 1, 0)), slice(max(x0, 0), max(x1, x0 + 1, 0))
        out[rows, columns] += count / max(edge, 1) ** 2
    return out


def _ramp() -> Array:
    """Colours from nothing to most."""
    steps = np.linspace(0, len(RAMP) - 1, _STEPS)
    colors = np.stack([np.interp(steps, np.arange(len(RAMP)), [one[k] for one in RAMP]) for k in range(3)], 1)
    # What is there at all is brighter than nothing.
    return np.concatenate([[[0, 0, 4]], np.maximum(colors, [22, 11, 48])]).astype(np.uint8)
