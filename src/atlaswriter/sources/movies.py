"""Images and segmentations of every kind, as frames of channels."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.axes import CHANNELS, Hint, choose
from atlaswriter.sources.base import Array
from atlaswriter.sources.chunked import of_dask, of_zarr
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.daskread import is_dask
from atlaswriter.sources.files import File
from atlaswriter.sources.imagezarr import first_scale, is_zarr_folder, opened_store
from atlaswriter.sources.movie import Movie, Stack
from atlaswriter.sources.moviejoin import Along, Reopened, stacked
from atlaswriter.sources.movietiff import TIFF, open_tiff
from atlaswriter.sources.ndstack import Arranged, InMemory, Part, checked_dtype
from atlaswriter.sources.nparray import NPY, open_npy
from atlaswriter.sources.rasters import PngPlane

PNG = b"\x89PNG\r\n\x1a\n"

_FORMATS = "give a TIFF, OME-TIFF, PNG, .npy or Zarr image"
_NO_IMAGE = "is no image that can be read here"
# First bytes of what is no image here, though it may hold one.
_KNOWN = {
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file",
    b"\xff\xd8\xff": "is a JPEG, which does not keep numbers as they were",
    b"GIF8": "is a GIF",
    b"ZISRAWFI": "is a CZI file",
    b"\xda\xce\xbe\x0a": "is an ND2 file",
    b"PK\3\4": "is a zip file, where an image is expected",
    b"PK\5\6": "is an empty zip file",
    b"\x1f\x8b": "is compressed with gzip, where an image is expected",
    b"%PDF": "is a PDF",
}
_FRAMES: Along = "frames"
_CHANNELS: Along = "channels"

# Of the files of a folder, so many are open at a time.
_MOST_OPEN = 64


def open_movie(
    source: Any,
    *,
    axes: str | None = None,
    where: str = "images",
    as_labels: bool = False,
    like: tuple[int, int, int] | None = None,
) -> Movie:
    """Open an image or a segmentation.

    Parameters
    ----------
    source
        A `File` (``.npy``, TIFF of any kind, PNG: known by its content); the `Path` of such a file, of a Zarr array or
        OME-Zarr image (a folder or zip file), or of a folder of images, which are frames in the order of the numbers in
        their names (channels, where `axes` begin with one); an array of NumPy, dask or zarr.
    axes
        Order of the dimensions, as of `axes.Hint`; None: as the file says, or as is usual.
    where
        Its name in messages.
    as_labels
        Whether it is a segmentation.
    like
        Frames, rows and columns of the image that it belongs to.

    Raises
    ------
    InputError
        It cannot be read, is no image, or its axes must be told.
    """
    hint = Hint(where, axes, as_labels, like)
    if isinstance(source, np.ma.MaskedArray):
        raise InputError(Problem(where, "is a masked array", "call its filled() first"))
    if isinstance(source, np.ndarray):
        return _of_array(np.asarray(source), hint)
    if isinstance(source, File):
        return _of_file(source, hint)
    if isinstance(source, Path):
        return _of_path(source, hint)
    if is_dask(source):
        array = of_dask(source, where)
        reading = choose(array.shape, hint)
        return Movie(Arranged(array, reading, where), (), reading.letters, reading.assumed, where)
    if type(source).__module__.partition(".")[0] == "zarr":
        return _of_zarr(source, hint)
    raise InputError(Problem(where, f"is a {type(source).__name__}", f"{_FORMATS}, or an array"))


def _of_array(array: Array, hint: Hint) -> Movie:
    reading = choose(array.shape, hint)
    stack = Arranged(InMemory(array, reading), reading, hint.where)
    return Movie(stack, (), reading.letters, reading.assumed, hint.where)


def _of_file(file: File, hint: Hint) -> Movie:
    with translated_damage("header", file.name):
        start = file.read(0, min(8, file.size))
    if start.startswith(NPY):
        return open_npy(file, hint)
    if start.startswith(TIFF):
        return open_tiff(file, hint)
    if start == PNG:
        return _of_png(file, hint)
    found = next((found for known, found in _KNOWN.items() if start.startswith(known)), _NO_IMAGE)
    raise InputError(Problem(file.name, found, _FORMATS))


class _Png:
    """A PNG: an `NdArray`."""

    def __init__(self, plane: PngPlane) -> None:
        self._plane = plane
        self.shape = self.chunks = plane.shape
        self.dtype, self.overhead = plane.dtype, plane.overhead

    def part(self, part: Part) -> Array:
        """As of `NdArray`."""
        found = self._plane[part[0], part[1]]
        return found if found.ndim == 2 else found[:, :, part[2]]


def _of_png(file: File, hint: Hint) -> Movie:
    plane = PngPlane(file)
    if plane.coloured and hint.labels:
        raise InputError(Problem(file.name, "is a colour PNG, whose colours name no cells", "give numbers in grey"))
    reading = choose(plane.shape, hint, own="YXC"[: len(plane.shape)])
    warnings = []
    if plane.transparent:
        warnings.append(f"{file.name}: its transparency is left out")
    if plane.bits < 8 and not plane.coloured:
        warnings.append(f"{file.name}: its {plane.bits}-bit values are stretched to 0 to 255")
    stack = Arranged(_Png(plane), reading, file.name)
    return Movie(stack, (), reading.letters, reading.assumed, hint.where, tuple(warnings))


def _of_path(path: Path, hint: Hint) -> Movie:
    if path.is_dir():
        return _of_zarr(path, hint) if is_zarr_folder(path) else _of_folder(path, hint)
    file = File(path)
    with translated_damage("header", file.name):
        zipped = file.read(0, min(4, file.size)) == b"PK\3\4"
    return _of_zarr(path, hint) if zipped else _of_file(file, hint)


def _of_zarr(source: Any, hint: Hint) -> Movie:
    """A store, or an array or group of zarr."""
    where = str(source) if isinstance(source, Path) else hint.where
    with translated_damage("header", where):
        array, own, labels = first_scale(opened_store(source) if isinstance(source, Path) else source, where)
        own = own or _dimension_names(array)
        shape = tuple(map(int, array.shape))
        if own and len(own) != len(shape):
            raise ValueError(f"it names the axes {own!r} of an array of shape {shape}")
    checked_dtype(np.dtype(array.dtype), where)
    reading = choose(shape, hint, own=own or None)
    stack = Arranged(of_zarr(array, where), reading, where)
    names = tuple(labels) if len(labels) == stack.shape[1] and any(labels) else ()
    return Movie(stack, names, reading.letters, reading.assumed, hint.where)


def _dimension_names(array: Any) -> str:
    """Axes of a plain Zarr array whose dimensions have names of one letter; empty if they have not."""
    metadata = getattr(array, "metadata", None)
    names = getattr(metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    letters = [str(name).upper() for name in names]
    return "".join(letters) if all(len(letter) == 1 for letter in letters) else ""


def _of_folder(path: Path, hint: Hint) -> Movie:
    """Files that are frames, or channels, of one movie."""
    axes, along = hint.axes, _FRAMES
    if axes and len(axes) > 2 and {"X", "Y"} <= set(axes[1:].upper()):
        along = _CHANNELS if axes[0].upper() in CHANNELS else _FRAMES
        axes = axes[1:]
    like = hint.like and (hint.like[0] if along == _CHANNELS else 1, *hint.like[1:])
    each = replace(hint, axes=axes, like=like)
    files = sorted((file for file in path.iterdir() if file.is_file() and file.name[0] != "."), key=_natural)
    images = [file for file in files if _is_image(file)]
    if not images:
        raise InputError(Problem(hint.where, f"{path.name} is a folder without images", _FORMATS))
    if len(files) == 1:
        return _of_file(File(files[0]), hint)

    @functools.lru_cache(maxsize=_MOST_OPEN)
    def opened(file: Path) -> Stack:
        return _of_file(File(file), replace(each, where=file.name)).stack

    movies, problems = [], Problems()
    for file in images:
        movie = problems.attempt(_of_file, File(file), replace(each, where=file.name))
        if movie is not None:
            reopened = Reopened(movie.stack, functools.partial(opened, file), file.name)
            movies.append(replace(movie, stack=reopened))
    problems.raise_if_any()
    joined = stacked(movies, along=along, where=hint.where)
    if others := [file for file in files if file not in set(images)]:
        text = f"{path.name}: {listed(file.name for file in others)} are no images and left out"
        joined = replace(joined, warnings=(*joined.warnings, text))
    return joined


def _is_image(path: Path) -> bool:
    file = File(path)
    with translated_damage("header", file.name):
        return file.read(0, min(8, file.size)).startswith((NPY, *TIFF, PNG))


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Names in the order of the numbers in them."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)], path.name
