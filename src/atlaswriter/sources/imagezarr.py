"""Zarr arrays and OME-Zarr images as planes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Array
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.rasters import Interleaved
from atlaswriter.sources.slices import bounds
from atlaswriter.sources.spatial import Plane
from atlaswriter.sources.stacks import Warn, axes_of, gathered, numbered
from atlaswriter.sources.tiling import Tiling

_MARKS = (".zgroup", ".zarray", "zarr.json")
_RED_GREEN_BLUE = [["r", "g", "b"], ["red", "green", "blue"]]


class ZarrPlane:
    """One plane of a Zarr array: a `Lazy`.

    Parameters
    ----------
    array
        A ``zarr.Array`` of unsigned integers.
    index
        Its place along the axes before y and x.
    location
        The store, for messages.

    Attributes
    ----------
    shape, dtype, grain, overhead, speed
        As of `Lazy`.
    tiling
        How it is stored.
    """

    # 16-bit chunks of 1024 x 1024, Blosc; zarr 3.1.
    speed = 3e8

    def __init__(self, array: Any, index: tuple[int, ...], location: str) -> None:
        self._array, self._index, self._location = array, index, location
        n = len(index)
        self.shape: tuple[int, ...] = tuple(map(int, array.shape[n:]))
        self.dtype = np.dtype(array.dtype.str).newbyteorder("=")
        chunks = getattr(array, "shards", None) or array.chunks
        self.tiling = Tiling(max(1, int(chunks[n])), max(1, int(chunks[n + 1])))
        self.grain = self.tiling.rows
        # A chunk as stored, decoded, and cut out.
        self.overhead = 3 * math.prod(chunks) * self.dtype.itemsize

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        first, last, left, right = bounds(key, self.shape[:2])
        out = np.empty((last - first, right - left, *self.shape[2:]), self.dtype)
        if not out.size:
            return out
        for rows, columns in _whole_tiles(self.tiling, first, last, left, right):
            target = out[rows.start - first : rows.stop - first, columns.start - left : columns.stop - left]
            with translated_damage(f"rows {rows.start} to {rows.stop}", self._location):
                target[...] = self._array[(*self._index, rows, columns)]
        return out


def _whole_tiles(tiles: Tiling, first: int, last: int, left: int, right: int) -> Iterator[tuple[slice, slice]]:
    """A part of an image, tile by tile."""
    for top in range(first - first % tiles.rows, last, tiles.rows):
        for edge in range(left - left % tiles.columns, right, tiles.columns):
            rows = slice(max(top, first), min(top + tiles.rows, last))
            yield rows, slice(max(edge, left), min(edge + tiles.columns, right))


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).exists() for name in _MARKS)


def zarr_planes(path: Path, only: Sequence[int] | None, warn: Warn) -> list[Plane]:
    """Planes of a Zarr array, or of the first scale of an OME-Zarr image; arguments as of `images.open_planes`."""
    location = str(path)
    if path.is_dir() and not is_zarr_folder(path):
        raise InputError(Problem(location, "is a folder but no Zarr store", "give the folder of the image itself"))
    with translated_damage("header", location):
        array, named, labels = first_scale(opened_store(path), location)
        axes = named or _plain_axes(array, location)
    shape = tuple(map(int, array.shape))
    if sorted(axes[-2:] if axes[-1] != "S" else axes[-3:-1]) != ["X", "Y"] or len(axes) != len(shape):
        raise InputError(Problem(location, f"has the axes {axes} and the shape {shape}", "write it as (c, y, x)"))
    n_counted = axes.index("Y")
    counted, sizes = axes[:n_counted], shape[:n_counted]

    def parts(at: tuple[int, ...]) -> list[AnyArray]:
        return [ZarrPlane(array, at, location)]

    name = path.name.partition(".")[0]
    planes = list(gathered(counted, sizes, parts, only, warn, location))
    if [label.lower() for label in labels] in _RED_GREEN_BLUE and array.dtype == np.uint8 and only is None:
        return [Plane("", name, Interleaved([pixels for _, several in planes for pixels in several]))]
    return numbered(planes, name, labels)


def opened_store(path: Path) -> Any:
    """Root of a Zarr store, a folder or a zip file."""
    import zarr

    if path.is_dir():
        return zarr.open(str(path), mode="r")
    with zipfile.ZipFile(path) as file:
        marked = [name for name in file.namelist() if name.rpartition("/")[2] in _MARKS]
    # Some zip the folder itself, others what is in it.
    folder = min(marked, key=lambda name: name.count("/"), default="").rpartition("/")[0]
    return zarr.open(zarr.storage.ZipStore(str(path), mode="r"), mode="r", path=folder)


def _plain_axes(array: Any, location: str) -> str:
    counted = axes_of(array.shape, array.dtype, location)
    return counted + "YXS"[: len(array.shape) - len(counted)]


def first_scale(node: Any, location: str) -> tuple[Any, str, list[str]]:
    """An array of full size, its axes (empty where it is no OME-Zarr image), and labels of its channels."""
    if hasattr(node, "shape"):
        return node, "", []
    attributes = dict(node.attrs)
    attributes = attributes.get("ome", attributes)  # since version 0.5
    if "multiscales" not in attributes:
        raise InputError(Problem(location, "is a Zarr group but no OME-Zarr image", "give the image inside it"))
    scales = attributes["multiscales"][0]
    # Axes have names since version 0.3, and are objects since 0.4.
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in scales.get("axes", "tczyx")]
    labels = [str(channel.get("label", "")) for channel in attributes.get("omero", {}).get("channels", [])]
    return node[scales["datasets"][0]["path"]], "".join(map(str, axes)).upper(), labels
