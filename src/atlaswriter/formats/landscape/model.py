"""One export from checked parts: cells with ids, features with codes, channels of the image."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.record import Record
from atlaswriter.engine.resources import Resources
from atlaswriter.errors import Problems, listed
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.catalogue import Catalogue
from atlaswriter.formats.landscape.cells import CellIds, refuse_repeats, refuse_strangers
from atlaswriter.formats.landscape.clusters import CellClusters
from atlaswriter.formats.landscape.options import Options
from atlaswriter.report import Report
from atlaswriter.sources.images import cropped
from atlaswriter.sources.spatial import Counts, Outlines, Plane, Segmentation, Spatial

# Names that become parts of file names and addresses; "h&e" is one.
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._&-]{0,99}")


@dataclass(frozen=True)
class Segmented:
    """One segmentation.

    Attributes
    ----------
    name
        None for the first one.
    columns, codes
        int64: columns of the matrix that are exported, and the gene code of each; empty without a matrix.
    rows
        int64: id of the cell of each row of the matrix, negative where it is not exported.
    """

    name: str | None
    cells: CellIds
    clusters: CellClusters
    counts: Counts | None
    outlines: Outlines | None
    columns: NDArray[np.int64]
    codes: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass
class Export:
    """Everything one export needs.

    Attributes
    ----------
    spatial
        The data set, whose `to_px` and planes are those of the region.
    size_px
        Width and height of the region; None where all is exported.
    record
        What it is made of; None where that is in memory.
    """

    spatial: Spatial
    segmented: list[Segmented]
    catalogue: Catalogue
    size_px: tuple[int, int] | None
    options: Options
    resources: Resources
    target: Path
    budget: Budget
    report: Report = field(repr=False)
    record: Record | None = None


def in_region(spatial: Spatial, options: Options) -> tuple[Spatial, tuple[int, int] | None]:
    """The data set with the region's corner as its origin, and the region's size in pixels.

    The region, given in the coordinates of the data set, is widened to whole pixels, and cut to the image.
    """
    if options.region is None:
        return spatial, None
    x0, y0, x1, y1 = options.region
    corners = spatial.to_px[:2] @ np.array([[x0, x1, x0, x1], [y0, y0, y1, y1], [1, 1, 1, 1]])
    low, high = np.floor(corners.min(axis=1)).astype(int), np.ceil(corners.max(axis=1)).astype(int)
    if spatial.planes:
        height, width = spatial.planes[0].pixels.shape[:2]
        low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    if not (low < high).all():
        problems = Problems()
        problems.add("region", "lies outside of the image", "it is given in the coordinates of the cells")
        problems.raise_if_any()
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]], np.float64)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    planes = [cropped(plane, rows, columns) for plane in spatial.planes]
    size = int(high[0] - low[0]), int(high[1] - low[1])
    return replace(spatial, to_px=shift @ spatial.to_px, planes=planes), size


def as_drawn(spatial: Spatial) -> Spatial:
    """The data set with a colour image under the name by which the viewer knows that it is one."""
    colour = [plane for plane in spatial.planes if len(plane.pixels.shape) == 3]
    if not colour or any(plane.key in layout.COLOUR_CHANNELS for plane in spatial.planes):
        return spatial
    if len(spatial.planes) == 1:
        return replace(spatial, planes=[replace(colour[0], key=layout.COLOUR_CHANNELS[0])])
    names = listed(plane.key for plane in colour)
    said = f"the viewer draws colour images as they are only when they are alone; it tints {names}"
    return replace(spatial, warnings=[*spatial.warnings, said])


def with_channels(spatial: Spatial, options: Options, problems: Problems) -> Spatial:
    """The data set with the channels that were chosen, in their order."""
    if options.channels is None:
        return spatial
    known = {plane.key: plane for plane in spatial.planes}
    if unknown := [key for key in options.channels if key not in known]:
        problems.add("channels", f"{listed(unknown)} do not exist", f"there are {listed(known) or 'none'}")
    chosen: list[Plane] = [known[key] for key in dict.fromkeys(options.channels) if key in known]
    return replace(spatial, planes=chosen)


def check_image(spatial: Spatial, options: Options, problems: Problems) -> None:
    """Add what is wrong with the channels to `problems`."""
    keys = [plane.key for plane in spatial.planes]
    if odd := sorted({key for key in keys if not _CHANNEL.fullmatch(key) or keys.count(key) > 1}):
        problems.add("channel_names", f"{listed(odd)} cannot name files, or repeat", "use letters, digits, . _ - &")
    if len({plane.pixels.shape[:2] for plane in spatial.planes}) > 1:
        shown = listed(f"{plane.key}: {plane.pixels.shape[1]} x {plane.pixels.shape[0]}" for plane in spatial.planes)
        remedy = "choose those of one size (channels=, --channels)"
        problems.add("image", f"its channels differ in size: {shown}", remedy)
    if unknown := sorted(set(options.image_max or {}) - set(keys)):
        problems.add("image_max", f"{listed(unknown)} are no channels", f"there are {listed(keys) or 'none'}")


def segmented(
    name: str | None, parts: Segmentation, to_px: NDArray[np.float64], size_px: tuple[int, int] | None,
    catalogue: Catalogue, problems: Problems,
) -> Segmented | None:  # fmt: skip
    """One segmentation with ids; None when there are problems, which are added."""
    cells = problems.attempt(CellIds, parts.cells, to_px, size_px)
    columns, codes = np.empty(0, np.int64), np.empty(0, np.int64)
    if parts.counts is not None:
        columns, codes = catalogue.add_matrix(parts.counts, problems)
    if cells is None:
        return None
    if not cells.n_cells:
        problems.add("region", f"holds no cell of {parts.cells.where}", "choose another")
    clusters = problems.attempt(CellClusters.of, parts.clusters, cells, parts.cells)
    rows = np.empty(0, np.int64)
    if parts.counts is not None:
        rows = cells.ids_of(parts.counts.cells)
        problems.attempt(refuse_strangers, rows, parts.counts.cells, parts.counts.where, parts.cells)
        problems.attempt(refuse_repeats, rows, parts.counts.cells, parts.counts.where)
    if clusters is None:
        return None
    return Segmented(name, cells, clusters, parts.counts, parts.outlines, columns, codes, rows)
