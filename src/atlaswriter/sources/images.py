"""Images as planes: TIFF and OME-TIFF, PNG, Zarr and OME-Zarr, arrays.

Stacks along z are shown by their brightest pixels, as 10x's own ``morphology_mip.ome.tif`` is (celldega 0.27.0 refuses
them); of several time points the first is taken.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.sources.base import Array, as_native
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.imagezarr import zarr_planes
from atlaswriter.sources.rasters import Cropped, PngPlane
from atlaswriter.sources.spatial import Plane
from atlaswriter.sources.stacks import Warn, array_planes, checked
from atlaswriter.sources.tiffset import tiff_planes

logger = logging.getLogger(__name__)

Location = str | os.PathLike[str]

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS = "give a TIFF, OME-TIFF, PNG or Zarr image"
_CONVERT = "convert it to 8 or 16 bit, grey or RGB"


def open_planes(
    source: Location | Array | Sequence[Location],
    *,
    only: Sequence[int] | None = None,
    warn: Warn = logger.warning,
) -> list[Plane]:
    """Open the channels of an image.

    Parameters
    ----------
    source
        A file (TIFF, PNG), a Zarr store (folder or zip), several files, or an array: (y, x), (channel, y, x) or, of
        uint8, (y, x, 3) in colour. Of an OME-TIFF of several files, one of them is enough, and if several are given
        their channels are not repeated.
    only
        Channels to open, by number, in this order; files that hold others need not exist. None: all.
    warn
        Told what deserves a second look.

    Returns
    -------
    list of Plane
        All of one size. Keys are made from the labels; `keyed` gives others.

    Raises
    ------
    InputError
        A file is missing, damaged, or no image that can be shown.
    """
    if isinstance(source, np.ndarray):
        found = array_planes(as_native(source), "array", only, warn)
    elif isinstance(source, str | os.PathLike):
        found = [replace(plane, source=Path(source).name) for plane in _opened(Path(source), only, warn)[0]]
    else:
        found, seen = [], set[Path]()
        for path in map(Path, source):
            if path not in seen:
                planes, files = _opened(path, None, warn)
                found += [replace(plane, source=path.name) for plane in planes]
                seen |= files
        found = found if only is None else [found[number] for number in checked(only, len(found), "images")]
    _refuse_sizes(found)
    return keyed(found)


def keyed(planes: Sequence[Plane], keys: Sequence[str] = ()) -> list[Plane]:
    """The planes with these keys, and those behind them with keys made from their labels.

    ``"ATP1A1/CD45"`` becomes ``"atp1a1_cd45"``; what is taken already gets a number.
    """
    taken = set(keys)
    numbers: dict[str, Iterator[int]] = {}
    result = [replace(plane, key=key) for plane, key in zip(planes, keys, strict=False)]
    for plane in planes[len(keys) :]:
        slug = re.sub(r"[^a-z0-9]+", "_", plane.label.lower()).strip("_")[:60] or "image"
        further = (f"{slug}_{number}" for number in numbers.setdefault(slug, itertools.count(2)))
        names = itertools.chain([slug], further)
        key = next(name for name in names if name not in taken)
        taken.add(key)
        result.append(replace(plane, key=key))
    return result


def cropped(plane: Plane, rows: slice, columns: slice) -> Plane:
    """A part of a plane, read when it is needed."""
    return replace(plane, pixels=Cropped(plane.pixels, rows, columns))


def _refuse_sizes(planes: Sequence[Plane]) -> None:
    problems = Problems()
    for plane in planes:
        pixels, shape = plane.pixels, planes[0].pixels.shape[:2]
        colour = len(pixels.shape) == 3
        if min(pixels.shape) < 1:
            problems.add(plane.label, "is empty", _FORMATS)
        elif colour and pixels.dtype == np.uint16:
            problems.add(plane.label, "is a colour image of 16 bit", _CONVERT)
        elif pixels.dtype.kind != "u" or pixels.dtype.itemsize > (1 if colour else 4):
            problems.add(plane.label, f"has pixels of dtype {pixels.dtype}", _CONVERT)
        elif pixels.shape[:2] != shape:
            found = f"has {pixels.shape[1]} × {pixels.shape[0]} pixels, {planes[0].label} {shape[1]} × {shape[0]}"
            problems.add(plane.label, found, "all channels need the same size: give the images of one acquisition")
    problems.raise_if_any()


def _opened(path: Path, only: Sequence[int] | None, warn: Warn) -> tuple[list[Plane], set[Path]]:
    """Planes of one image, and the files it is made of."""
    if path.is_dir():
        return zarr_planes(path, only, warn), {path}
    file = File(path)
    with translated_damage("header", str(path)):
        start = file.read(0, min(8, file.size))
    if start == _PNG:
        checked(only or (0,), 1, str(path))
        return [Plane("", path.stem, PngPlane(file))], {path}
    if start[:4] in _TIFF:
        return tiff_planes(path, only, warn)
    if zipfile.is_zipfile(path):
        return zarr_planes(path, only, warn), {path}
    raise InputError(Problem(str(path), "is no image that can be read here", _FORMATS))
