"""Spatial data sets put together from files of any instrument, around an AnnData."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.sources.annotated import Annotated, open_annotated
from atlaswriter.sources.geometry import cells_of, column_among, open_outlines
from atlaswriter.sources.images import keyed, open_planes
from atlaswriter.sources.lazy import load
from atlaswriter.sources.shapes import Floats, affine, read_affine
from atlaswriter.sources.spatial import Cells, Outlines, Plane, Segmentation, Spatial, Transcripts
from atlaswriter.sources.tables import open_table

if TYPE_CHECKING:
    from anndata import AnnData

AnyPath = str | os.PathLike[str]

# How programs call the columns of transcripts, most telling first.
GENE_COLUMNS = ("feature_name", "gene", "target", "Gene", "gene_name", "feature", "geneID")
X_COLUMNS = ("x_location", "global_x", "x_global_px", "x", "X")
Y_COLUMNS = ("y_location", "global_y", "y_global_px", "y", "Y")
QUALITY_COLUMNS = ("qv", "quality_score")

# Where cells lie that have no positions in a tissue, and the edge of the square that the viewer takes for their image.
_EMBEDDINGS = ("X_umap", "X_umap_2d")
_SHOWN = 10_000.0
_UNPLACED = "cells"


def open_generic(
    data: AnyPath | AnnData,
    *,
    positions: str | tuple[str, str] | None = None,
    layer: str | None = None,
    raw: bool = False,
    clusters: str | None = None,
    transcripts: AnyPath | None = None,
    gene: str | None = None,
    x: str | None = None,
    y: str | None = None,
    quality: str | None = None,
    polygons: AnyPath | None = None,
    polygon_cell: str | None = None,
    polygon_x: str | None = None,
    polygon_y: str | None = None,
    images: AnyPath | Sequence[AnyPath] = (),
    channels: Sequence[str] | None = None,
    pixel_size: float | None = None,
    transform: AnyPath | NDArray[Any] | Sequence[Sequence[float]] | None = None,
    technology: str | None = None,
    workers: int | None = None,
) -> Spatial:
    """Open cells, transcripts, polygons and images that share one coordinate system.

    Parameters
    ----------
    data
        AnnData with the cells: an object, an ``.h5ad`` file or a Zarr store.
    positions
        Where the cells are: key of an obsm entry, or names of two obs columns. By default ``obsm['spatial']``, or
        columns of a usual name. Data without any, without transcripts, polygons and images, is not spatial: its
        technology is ``"Chromium"``, and its cells are placed by their UMAP, or at (0, 0) without one.
    layer, raw
        Which counts: X by default.
    clusters
        Column of obs with labels; colours come from ``uns``.
    transcripts
        Table of transcripts: Parquet, Arrow or CSV.
    gene, x, y, quality
        Its columns; by default those of a usual name.
    polygons
        Outlines of the cells, as of `open_outlines`, by the names of the cells in `data`.
    polygon_cell, polygon_x, polygon_y
        Columns of a table of vertices, or the property of features that names the cell.
    images
        Path or paths of the image's channels.
    channels
        Names that files of the channels are called by.
    pixel_size
        Edge of a pixel in units of the coordinates, such as microns.
    transform
        Instead of `pixel_size`: 3 × 3 matrix from coordinates to pixels, or a text file of it. By default the
        coordinates are pixels.
    technology
        What Celldega calls the instrument; its viewer knows ``"Xenium"`` (the default, for any with an image),
        ``"MERSCOPE"``, ``"Visium-HD"``, ``"h&e"`` and ``"Chromium"``.
    workers
        Threads for reading.

    Returns
    -------
    Spatial
        Positions of cells, transcripts and polygons are taken as they are: they must be in one coordinate system.

    Raises
    ------
    InputError
        Files, columns or positions are missing, names are not unique, or something is damaged: all at once.
    """
    annotated = open_annotated(data, workers=workers)
    try:
        spatial = any(each is not None for each in (transcripts, polygons)) or bool(images)
        problems = Problems()
        cells = problems.attempt(_cells, annotated, positions, spatial)
        counts = problems.attempt(annotated.counts, layer, raw=raw)
        labels = None if clusters is None else problems.attempt(annotated.clusters, clusters)
        outlines: Outlines | None = None
        if polygons is not None:
            outlines = problems.attempt(open_outlines, polygons, polygon_cell, polygon_x, polygon_y)
        table: Transcripts | None = None
        if transcripts is not None:
            table = problems.attempt(open_transcripts, transcripts, gene, x, y, quality)
        planes = problems.attempt(_planes, images, channels) if images else []
        to_px = problems.attempt(_to_px, pixel_size, transform)
        problems.raise_if_any()
    except BaseException:
        annotated.source.close()
        raise
    assert cells is not None and to_px is not None and planes is not None  # noqa: S101, PT018
    kind = technology or ("Xenium" if spatial or cells.where != _UNPLACED else "Chromium")
    segmentation = Segmentation(cells, counts, labels, outlines)
    return Spatial(annotated.source.location, kind, to_px, segmentation, table, planes, close=annotated.source.close)


def _cells(annotated: Annotated, given: str | tuple[str, str] | None, spatial: bool) -> Cells:
    found = annotated.positions(given)
    if found is None and spatial:
        remedy = "name an obsm entry such as 'spatial', or two obs columns"
        raise InputError(Problem("positions", "the cells have none", remedy))
    if found is None:
        found = *_embedded(annotated), _UNPLACED
    return cells_of(annotated.names, *found)


def _embedded(annotated: Annotated) -> tuple[Floats, Floats]:
    """Cells without positions by their UMAP, over the square that the viewer shows; all at (0, 0) without one."""
    shapes = annotated.source.obsm()
    key = next((name for name in _EMBEDDINGS if name in shapes and shapes[name][1] >= 2), None)
    if key is None:
        return np.zeros(len(annotated.names)), np.zeros(len(annotated.names))
    values = np.asarray(load(annotated.source.obsm_array(key)), np.float64)[:, :2]
    low, high = values.min(axis=0, initial=np.inf), values.max(axis=0, initial=-np.inf)
    x, y = ((values - low) * (_SHOWN / max(float((high - low).max()), 1e-300))).T.copy()
    # Up in a plot is down in an image.
    return x, y.max(initial=0.0) - y


def open_transcripts(
    path: AnyPath, gene: str | None = None, x: str | None = None, y: str | None = None, quality: str | None = None
) -> Transcripts:
    """A table of transcripts and its columns; those that are None are found by their usual names."""
    table = open_table(Path(path), str(path))
    problems = Problems()
    wanted = [(gene, GENE_COLUMNS, "the gene"), (x, X_COLUMNS, "x"), (y, Y_COLUMNS, "y")]
    found = [
        problems.attempt(column_among, given, names, table.columns, what, table.location)
        for given, names, what in wanted
    ]
    if quality is not None:
        problems.attempt(column_among, quality, (), table.columns, "quality", table.location)
    problems.raise_if_any()
    quality = quality or next((name for name in QUALITY_COLUMNS if name in table.columns), None)
    gene, x, y = (str(name) for name in found)
    return Transcripts(open_table(Path(path), table.location, text=[gene]), gene, x, y, quality)


def _planes(images: AnyPath | Sequence[AnyPath], channels: Sequence[str] | None) -> list[Plane]:
    planes = open_planes(images)
    if channels is not None and len(channels) > len(planes):
        found = f"are {len(channels)} names for {len(planes)} channels"
        raise InputError(Problem("channel_names", found, "give one name a channel"))
    return planes if channels is None else keyed(planes, list(channels))


def _to_px(pixel_size: float | None, transform: Any) -> Floats:
    if pixel_size is not None and transform is not None:
        raise InputError(Problem("transform", "is given beside pixel_size", "give one of them"))
    if isinstance(transform, str | os.PathLike):
        return read_affine(Path(transform))
    if transform is not None:
        return affine(transform, "transform")
    if pixel_size is None:
        return np.eye(3)
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(Problem("pixel_size", f"is {pixel_size}", "give the edge of a pixel, such as 0.2125"))
    return np.diag([1 / pixel_size, 1 / pixel_size, 1.0])
