"""Output folders of Vizgen's MERSCOPE."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.geometry import GeoParquet, cells_of, column_among, names_of
from atlaswriter.sources.images import keyed, open_planes
from atlaswriter.sources.shapes import read_affine
from atlaswriter.sources.spatial import Cells, Plane, Segmentation, Spatial, Transcripts
from atlaswriter.sources.tables import check_columns, numbers, open_table, read_all
from atlaswriter.sources.wide import csv_counts

_CELLS, _COUNTS, _BOUNDARIES = "cell_metadata.csv", "cell_by_gene.csv", "cell_boundaries.parquet"
_TRANSFORM = "images/micron_to_mosaic_pixel_transform.csv"
_TRANSCRIPTS = ("detected_transcripts.parquet", "detected_transcripts.csv")
# Files by any of which such a folder is known.
MERSCOPE_FILES = (*_TRANSCRIPTS, _COUNTS, _TRANSFORM)
_MOSAIC = re.compile(r"mosaic_(?P<stain>.+)_z(?P<z>\d+)\.tiff?")

# Stains that come first, and what Celldega calls their channels.
_KEYS = {"DAPI": "dapi", "Cellbound1": "bound"}


def is_merscope(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like one of MERSCOPE."""
    return any((Path(path) / name).is_file() for name in MERSCOPE_FILES)


def open_merscope(path: str | os.PathLike[str], *, z: int | None = None) -> Spatial:
    """Open a region of MERSCOPE.

    Parameters
    ----------
    path
        Folder with `cell_metadata.csv`, `cell_by_gene.csv`, `cell_boundaries.parquet`, detected transcripts and
        ``images/``.
    z
        Focal plane of the images and the outlines; the middle one of the DAPI stain by default.

    Returns
    -------
    Spatial
        In microns, without clusters. Identifiers of cells are text, every digit as stored.

    Raises
    ------
    InputError
        Files or columns are missing (all are named together), or something is damaged.
    """
    root = Path(path)
    mosaics = _mosaics(root)
    transcripts = next((root / name for name in _TRANSCRIPTS if (root / name).is_file()), None)
    _refuse_missing(root, mosaics, transcripts)
    problems = Problems()
    to_px = problems.attempt(read_affine, root / _TRANSFORM)
    cells = problems.attempt(_cells, root / _CELLS)
    counts = problems.attempt(csv_counts, root / _COUNTS, _COUNTS)
    table = problems.attempt(_transcripts, transcripts)
    planes = problems.attempt(_planes, mosaics, z)
    plane_z = _middle(mosaics, z)
    outlines = problems.attempt(_outlines, root / _BOUNDARIES, plane_z)
    problems.raise_if_any()
    assert to_px is not None and cells is not None and planes is not None and outlines is not None  # noqa: S101, PT018
    boundaries, warnings = outlines
    segmentation = Segmentation(cells, counts, None, boundaries)
    return Spatial(str(root), "MERSCOPE", to_px, segmentation, table, planes, warnings=warnings)


def _refuse_missing(root: Path, mosaics: dict[tuple[str, int], Path], transcripts: Path | None) -> None:
    missing = [name for name in (_CELLS, _COUNTS, _BOUNDARIES, _TRANSFORM) if not (root / name).is_file()]
    if transcripts is None:
        missing.append(" or ".join(reversed(_TRANSCRIPTS)))
    if not any(stain == "DAPI" for stain, _ in mosaics):
        missing.append("images/mosaic_DAPI_z3.tif")
    if missing:
        found = f"lacks {listed(missing)}"
        raise InputError(Problem(str(root), found, "give the folder of one region, with everything MERSCOPE wrote"))


def _mosaics(root: Path) -> dict[tuple[str, int], Path]:
    """Images by stain and focal plane."""
    folder = root / "images"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    matches = [(file, _MOSAIC.fullmatch(file.name)) for file in files]
    return {(match["stain"], int(match["z"])): file for file, match in matches if match}


def _middle(mosaics: dict[tuple[str, int], Path], z: int | None) -> int:
    layers = sorted(layer for stain, layer in mosaics if stain == "DAPI")
    return layers[len(layers) // 2] if z is None else z


def _planes(mosaics: dict[tuple[str, int], Path], z: int | None) -> list[Plane]:
    layer = _middle(mosaics, z)
    stains = [stain for stain, plane in mosaics if plane == layer]
    if "DAPI" not in stains:
        known = sorted({plane for stain, plane in mosaics if stain == "DAPI"})
        raise InputError(Problem("z", f"there is no DAPI image of plane {layer}", f"choose one of {listed(known)}"))
    first = [stain for stain in _KEYS if stain in stains]
    planes = []
    for stain in (*first, *sorted(set(stains) - set(first))):
        found = open_planes(mosaics[stain, layer])
        if len(found) > 1:
            remedy = "write one channel a file, as the instrument does"
            raise InputError(Problem(mosaics[stain, layer].name, f"holds {len(found)} channels", remedy))
        planes.append(replace(found[0], label=stain))
    return keyed(planes, [_KEYS[stain] for stain in first])


def _cells(path: Path) -> Cells:
    columns = open_table(path, path.name).columns
    cell = column_among(None, ("EntityID", "", "Unnamed: 0", "cell", "cell_id"), columns, "the cell", path.name)
    # As text: identifiers of 39 digits fit into no number.
    table = open_table(path, path.name, text=[cell])
    names, x, y = read_all(table, [cell, "center_x", "center_y"])
    return cells_of(
        names_of(names, path.name), numbers(x, "center_x", path.name), numbers(y, "center_y", path.name), path.name
    )


def _transcripts(path: Path) -> Transcripts:
    table = open_table(path, path.name, text=["gene"])
    check_columns(table, ["gene", "global_x", "global_y"])
    return Transcripts(table, "gene", "global_x", "global_y")


def _outlines(path: Path, layer: int) -> tuple[GeoParquet, list[str]]:
    """Outlines at one focal plane: that of the image, else the one with most, of equals the nearest."""
    every = GeoParquet(path, cell="EntityID", where=path.name)
    if "ZIndex" not in every.columns:
        return every, []
    found: dict[int, int] = {}
    for values in every.values("ZIndex"):
        if not np.isfinite(values.astype(np.float64)).all():
            raise InputError(Problem(path.name, "has outlines without a ZIndex", "remove them, or give them one"))
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            found[int(value)] = found.get(int(value), 0) + int(count)
    if not found:
        return every, []
    chosen = layer if layer in found else max(found, key=lambda plane: (found[plane], -abs(plane - layer), -plane))
    outlines = GeoParquet(path, cell="EntityID", only=("ZIndex", chosen), where=path.name)
    said = f"{path.name}: outlines of ZIndex {chosen} are taken, {found[chosen]:,} of {sum(found.values()):,}"
    return outlines, [said] if len(found) > 1 else []
