"""Frames of a project as small pictures: channels in colours, outlines of the cells on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.deepcell.lettering import Color
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Stack

GREY: Color = (255, 255, 255)
COLORS: tuple[Color, ...] = (
    (72, 128, 255), (60, 225, 120), (255, 80, 115), (255, 196, 60), (50, 215, 230), (235, 110, 255),
)  # fmt: skip

# Of the brightest a picture has, so that outlines stand out.
_BRIGHTEST = 0.78

# Zoom from which outlines are two pixels wide.
_WIDE_FROM = 3

# Pixels of a movie that are read at once, where it allows it.
_STRIP_BYTES = 4 << 20

# A pixel of the image becomes at most so many: images may be tiny.
_LARGEST_ZOOM = 8

# Cells that overlap in one pixel and are drawn; outlines of more are hidden by these.
_MOST_OVERLAPPING = 4

# So that neighbouring numbers have distant hues.
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Fit:
    """How images become pictures.

    Attributes
    ----------
    height, width
        Of an image.
    factor
        Pixels of the image, along rows and along columns, that become one of the picture.
    zoom
        Pixels of the picture, along both, that one becomes then.
    """

    height: int
    width: int
    factor: int
    zoom: int

    @classmethod
    def into(cls, height: int, width: int, most_high: int, most_wide: int) -> Fit:
        """The largest picture of an image inside a box."""
        factor = max(math.ceil(height / most_high), math.ceil(width / most_wide))
        zoom = min(most_high // height, most_wide // width, _LARGEST_ZOOM) if factor == 1 else 1
        return cls(height, width, factor, zoom)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return math.ceil(self.height / self.factor) * self.zoom, math.ceil(self.width / self.factor) * self.zoom

    def zoomed(self, image: Array) -> Array:
        """An image of one value for each `factor` as large as the picture; along its last two axes."""
        return image.repeat(self.zoom, axis=-2).repeat(self.zoom, axis=-1)


def means(stack: Stack, frame: int, n_channels: int, fit: Fit) -> NDArray[np.float32]:
    """The first channels of a frame, shrunk by averaging: float32, (channels, rows, columns), no infinite values."""
    height, width = (-(-size // fit.factor) for size in (fit.height, fit.width))
    out = np.empty((n_channels, height, width), np.float32)
    for channels, rows in _strips(stack, n_channels, fit):
        with np.errstate(over="ignore"):
            pixels = stack.read(frame, channels, rows).astype(np.float32)
        if stack.dtype.kind == "f":
            np.nan_to_num(pixels, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        top = rows.start // fit.factor
        if fit.factor > 1:
            pixels = _averaged(_averaged(pixels, fit.factor, 2), fit.factor, 1)
        out[channels, top : top + pixels.shape[1]] = pixels
    return out


def samples(stack: Stack, frame: int, n_features: int, fit: Fit) -> NDArray[np.int64]:
    """The first features of a frame, one pixel of `fit.factor` along rows and columns: int64."""
    middle = fit.factor // 2
    places = [np.minimum(np.arange(middle, size + middle, fit.factor), size - 1) for size in (fit.height, fit.width)]
    out = np.empty((n_features, places[0].size, places[1].size), np.int64)
    for features, rows in _strips(stack, n_features, fit):
        top = rows.start // fit.factor
        wanted = places[0][top : -(-rows.stop // fit.factor)] - rows.start
        found = stack.read(frame, features, rows)
        out[features, top : top + wanted.size] = found[:, wanted][:, :, places[1]]
    return out


def _strips(stack: Stack, n_channels: int, fit: Fit) -> list[tuple[slice, slice]]:
    """Channels and rows to be read at a time; rows are multiples of the factor, but the last."""
    at_once = n_channels if stack.together else 1
    rows = max(_STRIP_BYTES // (at_once * fit.width * max(stack.dtype.itemsize, 4)), stack.grain, 1)
    rows = -(-rows // fit.factor) * fit.factor
    return [
        (slice(first, first + at_once), slice(top, min(top + rows, fit.height)))
        for first in range(0, n_channels, at_once)
        for top in range(0, fit.height, rows)
    ]


def _averaged(pixels: NDArray[np.float32], factor: int, axis: int) -> NDArray[np.float32]:
    size = pixels.shape[axis]
    starts = np.arange(0, size, factor)
    counts = np.minimum(size - starts, factor).astype(np.float32)
    shape = [1] * pixels.ndim
    shape[axis] = counts.size
    sums: NDArray[np.float32] = np.add.reduceat(pixels, starts, axis=axis) / counts.reshape(shape)
    return sums


def channel_colors(n_channels: int) -> Sequence[Color]:
    """Colours of the channels that are shown: at most as many as there are, white for a single one."""
    return (GREY,) if n_channels == 1 else COLORS[:n_channels]


def blended(
    channels: NDArray[np.float32], limits: Sequence[tuple[float, float]], colors: Sequence[Color], fit: Fit
) -> NDArray[np.uint8]:
    """Channels, each stretched from its smallest to its largest value, added up in colours: (rows, columns, 3)."""
    out = np.zeros((*channels.shape[1:], 3), np.float32)
    for image, (low, high), color in zip(channels, limits, colors, strict=True):
        if high > low:
            out += ((image - np.float32(low)) / np.float32(high - low))[..., np.newaxis] * np.array(color, np.float32)
    picture = (np.minimum(out, 255) * np.float32(_BRIGHTEST)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(fit.zoomed(np.moveaxis(picture, 2, 0)), 0, 2))


def cell_color(cell: int) -> Color:
    """The colour of a cell: bright, and the same in every frame."""
    hue = cell * _GOLDEN % 1 * 6
    parts = [1 - 0.72 * max(0.0, min(k, 4 - k, 1.0)) for k in ((n + hue) % 6 for n in (5, 3, 1))]
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def draw_outlines(
    picture: NDArray[np.uint8], values: NDArray[np.int64], meanings: Mapping[int, Sequence[int]], feature: int, fit: Fit
) -> None:
    """Draw the outlines of the cells of a feature, on the inner side of their borders.

    Parameters
    ----------
    picture : uint8, (rows, columns, 3)
        Is drawn on.
    values : int64
        Labels, as of `samples`.
    meanings
        Cells of each value; others are background.
    feature
        Lines of the first, 0, are solid, of others paler and dotted.
    fit
        How it became a picture.
    """
    owners = _owners(fit.zoomed(values), meanings, 2 if fit.zoom >= _WIDE_FROM and not feature else 1)
    marked = owners > 0
    if feature:
        row, column = np.ogrid[: owners.shape[0], : owners.shape[1]]
        marked &= ((row + column) // 2 + feature) % 2 == 0
    cells, places = np.unique(owners[marked], return_inverse=True)
    colors = np.array([cell_color(cell) for cell in cells.tolist()], np.uint8).reshape(-1, 3)
    if feature:
        colors = 255 - (255 - colors) // 3
    picture[marked] = colors[places]


def _owners(values: NDArray[np.int64], meanings: Mapping[int, Sequence[int]], line: int) -> NDArray[np.int64]:
    """The cell whose outline, some pixels wide, goes through each pixel, 0 where none does."""
    found, places = np.unique(values, return_inverse=True)
    cells = [meanings.get(value, ())[:_MOST_OVERLAPPING] for value in found.tolist()]
    depth = max(map(len, cells), default=0)
    table = np.zeros((depth, found.size), np.int64)
    for place, some in enumerate(cells):
        table[: len(some), place] = some
    layers = table[:, places.reshape(values.shape)]
    owners = np.zeros(values.shape, np.int64)
    for layer in layers[::-1]:
        owners = np.where(_borders(layer, layers, line), layer, owners)
    return owners


def _borders(layer: NDArray[np.int64], layers: NDArray[np.int64], line: int) -> NDArray[np.bool_]:
    """Pixels of cells at most so far, along rows or columns, from one that is not of the same cell."""
    border = np.zeros(layer.shape, np.bool_)
    for axis in (0, 1):
        for step in range(1, line + 1):
            for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
                one = (slice(None),) * axis + (here,)
                other = (slice(None),) * (axis + 1) + (there,)
                border[one] |= (layers[other] != layer[one]).all(axis=0)
    return border & (layer > 0)
