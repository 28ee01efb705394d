"""What the preview tells of LandscapeFiles, read once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.landscape import figures, layout
from atlaswriter.formats.landscape.details import detail_places
from atlaswriter.formats.landscape.figures import CellMap, Color, Frame
from atlaswriter.formats.landscape.read import Landscape

Array = NDArray[Any]

_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Cluster:
    """One cluster: name, colour for a style sheet, number of cells."""

    name: str
    color: str
    size: int


def hex_color(color: str) -> str:
    """A colour of the export, which may be anything, for a style sheet."""
    return color if _HEX.fullmatch(color) else css(figures.GREY)


def css(color: Color) -> str:
    """A colour for a style sheet."""
    return "#" + "".join(f"{value:02x}" for value in color)


def _rgb(color: str) -> Color:
    red, green, blue = bytes.fromhex(hex_color(color)[1:])
    return red, green, blue


class Facts:
    """Counts, positions and colours of an export."""

    def __init__(self, export: Landscape) -> None:
        self.export = export
        self.counts = export.transcript_counts()
        self.n_transcripts = sum(self.counts.values())
        self.outline_counts = export.outline_counts()
        self.n_outlines = sum(self.outline_counts.values())
        self.channels = export.channels
        self.pyramid = export.image(next(iter(self.channels))) if self.channels else None

    @cached_property
    def clusters(self) -> list[Cluster]:
        """The largest first, as the table of clusters has them; sizes are counted."""
        if not self._there(layout.meta_cluster_file(self.export.segmentation)):
            return []
        sizes = np.bincount(self._codes, minlength=1)[1:]
        names = self.export.cluster_colors()
        found = [Cluster(name, hex_color(color), int(sizes[k])) for k, (name, color) in enumerate(names.items())]
        return sorted(found, key=lambda one: -one.size)

    @cached_property
    def n_unclustered(self) -> int:
        """Cells without cluster."""
        return int((self._codes == 0).sum())

    @cached_property
    def _codes(self) -> Array:
        """Of each cell: 1 and up in the order of the table of clusters, 0 without."""
        export = self.export
        tables = (layout.meta_cluster_file(export.segmentation), layout.cluster_file(export.segmentation))
        if not all(map(self._there, tables)):
            return np.zeros(export.n_cells, np.int64)
        known: dict[object, int] = {name: k + 1 for k, name in enumerate(export.cluster_colors())}
        size = len(known) + 1
        codes = np.fromiter((known.get(label, 0) for label in export.clusters()), np.int64, export.n_cells)
        return codes if size > 1 else np.zeros_like(codes)

    def _there(self, name: str) -> bool:
        return (self.export.path / name).is_file()

    @cached_property
    def cells(self) -> CellMap:
        """Positions and colours of the cells."""
        found = self.export.cells()
        palette = [figures.GREY]
        if self._there(layout.meta_cluster_file(self.export.segmentation)):
            palette += [_rgb(color) for color in self.export.cluster_colors().values()]
        x_px, y_px = np.array(found.x_px, np.float64), np.array(found.y_px, np.float64)
        return CellMap(x_px, y_px, self._codes, np.array(palette, np.uint8))

    @cached_property
    def placed(self) -> bool:
        """Whether cells have positions: some writers put all at 0, 0."""
        x_px, y_px = self.cells.x_px, self.cells.y_px
        return bool(x_px.size and (x_px.any() or y_px.any()))

    @cached_property
    def frame(self) -> Frame | None:
        """Everything: the image, or what lies in the tiles and the cells; None where nothing has a place."""
        if self.pyramid is not None:
            return Frame.of(0, 0, self.pyramid.width, self.pyramid.height)
        ends = [np.array([i, j, i + 1, j + 1]) * self.export.tile_size for i, j in (*self.counts, *self.outline_counts)]
        if self.placed:
            sound = np.isfinite(self.cells.x_px) & np.isfinite(self.cells.y_px)
            xy = np.stack([self.cells.x_px, self.cells.y_px], 1)[sound]
            ends += [np.concatenate([xy.min(0), xy.max(0)])] if xy.size else []
        if not ends:
            return None
        left, top = (float(math.floor(value)) for value in np.min(ends, 0)[:2])
        right, bottom = (float(math.ceil(value)) for value in np.max(ends, 0)[2:])
        room = max(0.01 * max(right - left, bottom - top), 1)
        room = 0 if self.counts or self.outline_counts else room
        return Frame.of(left - room, top - room, right - left + 2 * room, bottom - top + 2 * room)

    @cached_property
    def details(self) -> list[Frame]:
        """What is shown at full resolution."""
        return [] if self.frame is None else detail_places(self.export, self.counts, self.cells, self.frame)

    @cached_property
    def density(self) -> figures.Density | None:
        """Of the transcripts."""
        return None if self.frame is None else figures.density(self.export, self.counts, self.frame)

    @cached_property
    def um_per_px(self) -> float | None:
        """Microns per pixel; None where the transform does not tell."""
        matrix = self.export.transform
        if matrix is None or np.array_equal(matrix, np.eye(3)):
            return None
        square = abs(float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))
        return 1 / math.sqrt(square) if square > 0 else None
