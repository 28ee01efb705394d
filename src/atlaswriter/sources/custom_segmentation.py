"""Folders of a further segmentation, as Celldega's ``add_custom_segmentation`` takes them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.geometry import GeoParquet, Moved, cells_of
from atlaswriter.sources.shapes import Floats
from atlaswriter.sources.spatial import Cells, Outlines, Segmentation
from atlaswriter.sources.tables import reading
from atlaswriter.sources.wide import parquet_counts

_PARAMETERS, _COUNTS = "segmentation_parameters.json", "cell_by_gene_matrix.parquet"
_CELLS, _POLYGONS = "cell_metadata_micron_space.parquet", "cell_polygons.parquet"

# Column of polygons that are in pixels of the image.
_IN_PIXELS = "geometry_image_space"


def open_segmentation(path: str | os.PathLike[str], to_px: Floats) -> tuple[str, Segmentation]:
    """Open another segmentation of a tissue.

    Parameters
    ----------
    path
        Folder with `segmentation_parameters.json`, `cell_by_gene_matrix.parquet`,
        `cell_metadata_micron_space.parquet` and `cell_polygons.parquet`.
    to_px
        float64 (3, 3): of the data set that it belongs to, `Spatial.to_px`.

    Returns
    -------
    name, segmentation
        What it is called, and its cells in the coordinates of the data set, without clusters. Cells are where
        their geometry has its centre; polygons come back from pixels by the inverse of `to_px`.

    Raises
    ------
    InputError
        Files or columns are missing (all are named together), or something is damaged.
    """
    root = Path(path)
    missing = [name for name in (_PARAMETERS, _COUNTS, _CELLS, _POLYGONS) if not (root / name).is_file()]
    if missing:
        remedy = "give the folder that a segmentation pipeline of Celldega wrote"
        raise InputError(Problem(str(root), f"lacks {listed(missing)}", remedy))
    problems = Problems()
    name = problems.attempt(_name, root / _PARAMETERS)
    cells = problems.attempt(_cells, root / _CELLS)
    counts = problems.attempt(parquet_counts, root / _COUNTS, _COUNTS)
    outlines = problems.attempt(_outlines, root / _POLYGONS, to_px)
    problems.raise_if_any()
    assert name is not None and cells is not None  # noqa: S101, PT018 - nothing was refused
    return name, Segmentation(cells, counts, None, outlines)


def _name(path: Path) -> str:
    with reading(path.name):
        parameters = json.loads(path.read_text("utf-8"))
    name = parameters.get("segmentation_approach") if isinstance(parameters, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(Problem(path.name, "has no segmentation_approach", "write the name of the segmentation"))
    return name


def _cells(path: Path) -> Cells:
    names, x, y = GeoParquet(path, by_index=True, where=path.name).centers()
    return cells_of(names, x, y, path.name)


def _outlines(path: Path, to_px: Floats) -> Outlines:
    every = GeoParquet(path, by_index=True, where=path.name)
    if _IN_PIXELS not in every.columns:
        return every
    return Moved(GeoParquet(path, _IN_PIXELS, by_index=True, where=path.name), np.asarray(np.linalg.inv(to_px)))
