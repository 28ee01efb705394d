"""TIFF files of every kind as movies: plain ones, ImageJ's, tifffile's and OME-TIFF."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.sources.axes import Hint, Reading, choose
from atlaswriter.sources.base import Array
from atlaswriter.sources.files import File
from atlaswriter.sources.movie import Movie
from atlaswriter.sources.ndstack import Arranged, NdArray, Part, checked_dtype
from atlaswriter.sources.nparray import InFile
from atlaswriter.sources.ome import Ome
from atlaswriter.sources.tiff import TiffPlane
from atlaswriter.sources.tiffset import TiffSet, reading

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
# JPEG in its three forms, and WebP.
_LOSSY = (6, 7, 33007, 50001)
_SHOWN = (_GREY, _RGB, _PALETTE, _YCBCR)

# The tag that holds OME-XML, and what ImageJ and tifffile write about axes.
_DESCRIPTION = 270

# Kinds of series whose axes are only counted pages.
_UNTOLD = {"uniform", "generic", "shaped"}


class Pages:
    """Pages of TIFF files: an `NdArray`.

    Parameters
    ----------
    planes
        One for each page, with all values of its pixels.
    lead
        Shape of the dimensions that the pages make, the last of which changes fastest.
    where
        Name in messages.

    Attributes
    ----------
    shape, dtype, chunks, overhead
        As of `NdArray`; pages have (rows, columns), (rows, columns, values) or, where those of a kind are stored
        together, (values, rows, columns).

    Raises
    ------
    InputError
        The pages differ.
    """

    def __init__(self, planes: Sequence[TiffPlane], lead: Sequence[int], where: str) -> None:
        self._planes, self._lead = planes, tuple(lead)
        first = planes[0]
        problems = Problems()
        for number, plane in enumerate(planes):
            if (plane.shape, plane.dtype, plane.planar) != (first.shape, first.dtype, first.planar):
                found = f"page {number} has the shape {plane.shape} and dtype {plane.dtype}"
                problems.add(where, f"{found}, the first has {first.shape} and {first.dtype}", "give pages of one kind")
        problems.raise_if_any()
        values = first.shape[2:]
        tile = max(plane.tiling.rows for plane in planes), max(plane.tiling.columns for plane in planes)
        size = first.shape[:2]
        self.shape = (*self._lead, *values, *size) if first.planar else (*self._lead, *size, *values)
        chunks = (*(1 for _ in values), *tile) if first.planar else (*tile, *values)
        self.chunks: tuple[int, ...] = (*(1 for _ in self._lead), *chunks)
        self.dtype = first.dtype
        self.overhead = max(plane.overhead for plane in planes)

    def part(self, part: Part) -> Array:
        """As of `NdArray`."""
        sizes = [wanted.stop - wanted.start for wanted in part]
        n = len(self._lead)
        counted = [range(wanted.start, wanted.stop) for wanted in part[:n]]
        if all(len(numbers) == 1 for numbers in counted):
            return self._page([numbers[0] for numbers in counted], part[n:]).reshape(sizes)
        out = np.empty(sizes, self.dtype)
        for index in itertools.product(*counted):
            target = tuple(at - wanted.start for at, wanted in zip(index, part, strict=False))
            out[target] = self._page(index, part[n:])
        return out

    def _page(self, index: Sequence[int], part: Part) -> Array:
        number = 0
        for at, size in zip(index, self._lead, strict=True):
            number = number * size + at
        plane = self._planes[number]
        if len(part) == 2:
            return plane.values(part[0], part[1], 0)
        if plane.planar:
            return np.moveaxis(plane.values(part[1], part[2], part[0]), 2, 0)
        return plane.values(*part)


def open_tiff(file: File, hint: Hint) -> Movie:
    """A TIFF file, or an OME-TIFF of several files, as a movie."""
    with _damage_noticed(file.name), TiffSet(file) as files:
        movie = _plain(files, hint) if files.ome is None else _of_ome(files, files.ome, hint)
    return replace(movie, where=hint.where)


@contextmanager
def _damage_noticed(name: str) -> Iterator[None]:
    """Refuse a file of which tifffile, when it found damage, would give what is left: it only logs that.

    What is wrong with tags that are not needed is passed over.
    """
    thread, found = threading.get_ident(), list[str]()

    def notice(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.thread != thread or record.levelno < logging.ERROR:
            return True
        if "TiffTag" not in text or f"TiffTag {_DESCRIPTION} " in text:
            found.append(text)
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(notice)
    try:
        yield
    finally:
        logger.removeFilter(notice)
    if found:
        remedy = "the file is damaged or incomplete: copy or write it again"
        raise InputError(Problem(name, f"is damaged ({found[0]})", remedy))


def _of_ome(files: TiffSet, described: Ome, hint: Hint) -> Movie:
    sizes = {"C": len(described.channels), "Z": described.depth, "T": described.times}
    lead = [sizes[axis] for axis in described.order]
    # Refused, if it must be, before thousands of pages are looked at; these may add colours.
    choose([*lead, *described.shape], replace(hint, axes=None), own=described.order + "YX")
    counted = [dict(zip(described.order, at, strict=True)) for at in itertools.product(*map(range, lead))]
    wanted = [(at["C"], at["Z"], at["T"]) for at in counted]
    places = files.places(wanted)
    pages = [(files.page(*places[place]), files.files[places[place][0]][1]) for place in wanted]
    warnings = []
    if described.n_images > 1:
        warnings.append(f"{files.name}: of {described.n_images} images the first is taken")
    array = _pages(pages, lead, files, warnings, labels=hint.labels)
    found = choose(array.shape, hint, own=described.order + pages[0][0].axes)
    if found.sizes(array.shape)[2:] != described.shape:
        wrong = f"has pages of {pages[0][0].shape} pixels, its OME-XML says {described.shape}"
        raise InputError(Problem(files.name, wrong, "write the image again"))
    return _movie(array, found, [channel.label for channel in described.channels], warnings)


def _plain(files: TiffSet, hint: Hint) -> Movie:
    name = files.name
    with reading(name):
        opened = files.file(files.path)
        if not len(opened.series):
            raise ValueError("it holds no image")
        series = opened.series[0]
        page, offset = series.keyframe.aspage(), series.dataoffset
        axes, shape = _axes_and_shape(series, page, hint.axes)
        labels = (opened.imagej_metadata or {}).get("Labels") or ()
        told = series.kind not in _UNTOLD or (series.kind == "shaped" and _tells_axes(opened))
        warnings, usual = _others(opened, name), _usual(series, page)
    found = choose(shape, hint, own=axes if told else None, usual=usual)
    file = files.files[files.path][1]
    array: NdArray
    if offset is not None:
        with reading(name):
            dtype = _check(page, files, warnings, labels=hint.labels)
        array = InFile(file, offset, shape, dtype.newbyteorder(opened.byteorder), found)
    else:
        with reading(name):
            pages = [(_existing(one).aspage(), file) for one in series]
        lead = shape[: len(shape) - len(page.shape)]
        if shape[len(lead) :] != page.shape or math.prod(lead) != len(pages):
            wrong = f"holds an image {axes} of {shape} in {len(pages)} pages of {page.shape}"
            raise InputError(Problem(name, wrong, "save it as OME-TIFF"))
        array = _pages(pages, lead, files, warnings, labels=hint.labels)
    return _movie(array, found, list(map(str, labels)), warnings)


def _axes_and_shape(series: Any, page: tifffile.TiffPage, told: str | None) -> tuple[str, tuple[int, ...]]:
    """Axes and shape as stored; with dimensions of size 1 where the user tells as many axes."""
    axes, shape = series.get_axes(False), tuple(map(int, series.get_shape(False)))
    if told is None or len(told) != len(shape) or shape[len(shape) - len(page.shape) :] != page.shape:
        axes, shape = series.axes, tuple(map(int, series.shape))
    return axes, shape


def _tells_axes(file: tifffile.TiffFile) -> bool:
    """Whether the metadata that tifffile writes tell the axes."""
    return "axes" in (file.shaped_metadata or ({},))[0]


def _usual(series: Any, page: tifffile.TiffPage) -> str | None:
    """What the dimensions of a file are that tells nothing: pages are frames, the values of a pixel are channels."""
    n_lead = series.ndim - len(page.shape)
    if n_lead > 1 or (series.kind == "shaped" and page.samplesperpixel == 1):
        return None
    of_page = {"YX": "YX", "YXS": "YXC", "SYX": "CYX"}.get(page.axes)
    return of_page and "T" * n_lead + of_page


def _existing(page: Any) -> Any:
    if page is None:
        raise ValueError("pages are missing")
    return page


def _others(file: tifffile.TiffFile, name: str) -> list[str]:
    """What is said of further images in a file; pages of different sizes are refused where all are of one kind."""
    if len(file.series) == 1:
        return []
    shapes = [tuple(map(int, series.shape)) for series in file.series]
    if all(series.kind == "generic" and not series.keyframe.is_reduced for series in file.series):
        found = f"has pages of different kinds: {', '.join(map(str, shapes[:5]))}"
        raise InputError(Problem(name, found, "give frames of one size and dtype"))
    return [f"{name}: of {len(shapes)} images the first, of shape {shapes[0]}, is taken"]


def _pages(
    pages: Sequence[tuple[tifffile.TiffPage, File]],
    lead: Sequence[int],
    files: TiffSet,
    warnings: list[str],
    *,
    labels: bool,
) -> Pages:
    planes: list[TiffPlane] = []
    with reading(files.name):
        for page, file in pages:
            _check(page, files, warnings if not planes else [], labels=labels)
            values: int | slice = 0 if page.samplesperpixel == 1 else slice(0, page.samplesperpixel)
            planes.append(TiffPlane(page, file, values))
    return Pages(planes, lead, files.name)


def _check(page: tifffile.TiffPage, files: TiffSet, warnings: list[str], *, labels: bool) -> np.dtype[Any]:
    """The dtype of pages, whose numbers must be brightness; say what is not taken from them."""
    name = files.name
    # ImageJ's palettes only say how its numbers are shown.
    numbers = labels or files.file(files.path).is_imagej
    dtype = checked_dtype(page.dtype or np.dtype(object), name)
    photometric = int(page.photometric)
    if int(page.compression) in _LOSSY and labels:
        found = "is compressed as JPEG or WebP, which does not keep numbers as they were"
        raise InputError(Problem(name, found, "save the labels again without, or with deflate"))
    if photometric == _WHITE_IS_ZERO:
        warnings.append(f"{name}: says that 0 is white; its numbers are taken as they are stored")
    elif photometric not in _SHOWN or (photometric == _PALETTE and not numbers):
        found = f"is coloured by {getattr(page.photometric, 'name', photometric)}"
        raise InputError(Problem(name, found, "convert it to grey or RGB"))
    if photometric == _PALETTE:
        warnings.append(f"{name}: its colours (a palette) are left out, its numbers are taken")
    elif photometric != _GREY and labels:
        warnings.append(f"{name}: is a colour image, whose colours are taken for features")
    elif photometric == _RGB and page.samplesperpixel > 3:
        warnings.append(f"{name}: what may be transparency is taken for a channel")
    return dtype


def _movie(array: NdArray, found: Reading, names: Sequence[str], warnings: Sequence[str]) -> Movie:
    stack = Arranged(array, found, "")
    told = tuple(names) if any(names) and len(names) == stack.shape[1] else ()
    return Movie(stack, told, found.letters, found.assumed, warnings=tuple(warnings))
