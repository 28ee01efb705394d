"""From what a user names to a `Spatial`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.custom_segmentation import open_segmentation
from atlaswriter.sources.generic import open_generic
from atlaswriter.sources.merscope import MERSCOPE_FILES, is_merscope, open_merscope
from atlaswriter.sources.spatial import Segmentation, Spatial
from atlaswriter.sources.spatialdata import is_spatialdata, open_spatialdata
from atlaswriter.sources.xenium import open_xenium

# Options of an input, by what kind of data set takes them, under the names that its function knows them by.
_XENIUM = {"clusters": "clusters"}
_MERSCOPE = {"z": "z"}
_SPATIALDATA = {
    name: name
    for name in ("table", "points", "shapes", "image", "clusters", "layer", "coordinate_system", "technology")
}
_GENERIC = {
    "positions": "positions", "layer": "layer", "use_raw": "raw", "clusters": "clusters", "transcripts": "transcripts",
    "gene_column": "gene", "x_column": "x", "y_column": "y", "quality_column": "quality", "polygons": "polygons",
    "polygon_cell": "polygon_cell", "polygon_x": "polygon_x", "polygon_y": "polygon_y", "images": "images",
    "channel_names": "channels", "pixel_size": "pixel_size", "transform": "transform", "technology": "technology",
}  # fmt: skip
INPUT_OPTIONS = tuple(dict.fromkeys([*_XENIUM, *_MERSCOPE, *_SPATIALDATA, *_GENERIC]))

_XENIUM_FILES = ("experiment.xenium", "cells.zarr.zip", "transcripts.parquet", "transcripts.csv.gz")
_ZARR_FILES = (".zgroup", "zarr.json")


def open_bundle(bundle: Any, given: Mapping[str, Any], *, workers: int) -> Spatial:
    """Open a spatial data set of any kind, which is known by its content.

    Parameters
    ----------
    bundle
        Output folder of Xenium or MERSCOPE, a SpatialData store, or an AnnData: an object, an ``.h5ad`` file or a
        Zarr store.
    given
        Options of `INPUT_OPTIONS`; those that are None or empty were not given.
    workers
        Threads for reading.

    Raises
    ------
    InputError
        It is nothing of the kind, something is missing or damaged, or an option does not belong to it.
    """
    kind, known, opener = _kind(bundle, workers)
    # An array of a transform cannot be compared with anything empty.
    absent = {name for name, value in given.items() if value is None or (isinstance(value, list | tuple) and not value)}
    options = {name: value for name, value in given.items() if name not in absent}
    if foreign := [name for name in options if name not in known]:
        found = f"cannot be given for {kind}: {listed(foreign)}"
        raise InputError(Problem("options", found, f"it takes {listed(known, 30)}"))
    return opener(**{known[name]: value for name, value in options.items()})


def _kind(bundle: Any, workers: int) -> tuple[str, Mapping[str, str], Callable[..., Spatial]]:
    generic = "an AnnData", _GENERIC, partial(open_generic, bundle, workers=workers)
    if not isinstance(bundle, str | os.PathLike) or not Path(bundle).is_dir():
        return generic
    folder = Path(bundle)
    names = {entry.name for entry in folder.iterdir()}
    if names & set(_XENIUM_FILES):
        return "a Xenium bundle", _XENIUM, partial(open_xenium, folder, workers=workers)
    if is_merscope(folder):
        return "a MERSCOPE region", _MERSCOPE, partial(open_merscope, folder)
    if is_spatialdata(folder):
        return "a SpatialData store", _SPATIALDATA, partial(open_spatialdata, folder, workers=workers)
    if names & set(_ZARR_FILES):
        return generic
    looked = listed([*_XENIUM_FILES, *MERSCOPE_FILES, *_ZARR_FILES], 20)
    found = f"is no bundle: it holds none of {looked}"
    raise InputError(Problem(str(folder), found, "give the output folder of Xenium or MERSCOPE, a Zarr store or .h5ad"))


def open_others(folders: Any, spatial: Spatial) -> dict[str, Segmentation]:
    """Further segmentations of a data set by name, from folders that Celldega's custom segmentation is made of."""
    if isinstance(folders, str | os.PathLike):
        folders = [folders]
    if not isinstance(folders, list | tuple) or not all(isinstance(folder, str | os.PathLike) for folder in folders):
        raise InputError(Problem("segmentations", f"{folders!r} is not a list of folders"))
    found: dict[str, Segmentation] = {}
    for folder in folders:
        name, segmentation = open_segmentation(folder, spatial.to_px)
        if name in found:
            raise InputError(Problem(str(folder), f"is called {name!r}, as another is", "rename one of them"))
        found[name] = segmentation
    return found
