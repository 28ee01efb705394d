"""The TIFF files of one image: which page of which file is which plane."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources import ome
from atlaswriter.sources.base import AnyArray
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.spatial import Plane
from atlaswriter.sources.stacks import Warn, checked, gathered, numbered
from atlaswriter.sources.tiff import TiffPlane, samples_of


def tiff_planes(path: Path, only: Sequence[int] | None, warn: Warn) -> tuple[list[Plane], set[Path]]:
    """Planes of a TIFF image, as of `images.open_planes`, and all files it is made of."""
    with _TiffSet(path) as files:
        return (_plain_planes if files.ome is None else _ome_planes)(files, only, warn), set(files.files)


class _TiffSet:
    """The TIFF files of one image, while their headers are read; a context.

    Attributes
    ----------
    path
        The first of them.
    files
        All that were opened, by path.
    ome
        What its OME-XML says; None where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[Path, tuple[tifffile.TiffFile, File]] = {}
        self.ome: ome.Ome | None = None
        self._open = ExitStack()

    def __enter__(self) -> _TiffSet:
        try:
            self.ome = self._described(self.path)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _described(self, path: Path, links: int = 0) -> ome.Ome | None:
        if path.suffix == ".ome" or path.name.endswith(".ome.xml"):
            with translated_damage("header", str(path)):
                xml: str | None = path.read_text("utf-8")
        else:
            with _reading(path):
                xml = self.file(path).pages[0].aspage().description if self.file(path).is_ome else None
        found = None if xml is None else ome.parse(xml, str(path))
        if found is None or found.elsewhere is None:
            return found
        if links:
            raise InputError(Problem(str(path), "has OME-XML that leads from file to file", "write the image again"))
        other = path.with_name(found.elsewhere)
        self._refuse_missing([other])
        return self._described(other, links + 1)

    def file(self, path: Path) -> tifffile.TiffFile:
        """A file of the set."""
        if path not in self.files:
            with _reading(path):
                self.files[path] = self._open.enter_context(tifffile.TiffFile(path)), File(path)
        return self.files[path][0]

    def page(self, path: Path, number: int) -> list[AnyArray]:
        """The planes of one page."""
        pages = self.file(path).pages
        with _reading(path):
            if not 0 <= number < len(pages):
                found = f"has {len(pages)} pages, where the image needs page {number}"
                raise InputError(Problem(str(path), found, "copy the file again"))
            return self.planes(pages[number], path)

    def planes(self, page: Any, path: Path) -> list[AnyArray]:
        """The planes of one page."""
        with _reading(path):
            page = page.aspage()
            return [TiffPlane(page, self.files[path][1], sample) for sample in samples_of(page, str(path))]

    def _refuse_missing(self, paths: Iterable[Path]) -> None:
        missing = sorted({path.name for path in paths if not path.is_file()})
        if missing:
            found = f"is one file of an image of several, of which {listed(missing)} cannot be found beside it"
            raise InputError(Problem(str(self.path), found, "copy all files of the image into one folder"))

    def places(self, channels: Iterable[int]) -> dict[tuple[int, int, int], tuple[Path, int]]:
        """File and page of each plane of some channels, at the first time, all of which exist."""
        described = self.ome or ome.Ome()
        wanted = list(itertools.product(channels, range(described.depth), (0,)))
        found = {place: described.places[place] for place in wanted if place in described.places}
        if len(found) < len(wanted):
            lacking = f"describes {len(found)} of {len(wanted)} planes of its image"
            raise InputError(Problem(str(self.path), lacking, "write the image again"))
        paths = {place: (self.path.with_name(file or self.path.name), page) for place, (file, page) in found.items()}
        self._refuse_missing(path for path, _ in paths.values())
        return paths


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Damage in headers, which may make tifffile compute nonsense."""
    with translated_damage("header", str(path)):
        try:
            yield
        except (ArithmeticError, AssertionError, MemoryError) as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _ome_planes(files: _TiffSet, only: Sequence[int] | None, warn: Warn) -> list[Plane]:
    described, location = files.ome or ome.Ome(), str(files.path)
    if described.n_images > 1:
        warn(f"{location}: of {described.n_images} images the first is shown")
    n_channels = len(described.channels)
    places = files.places(range(n_channels) if only is None else checked(only, n_channels, location))

    def parts(at: tuple[int, ...]) -> list[AnyArray]:
        channel, z, _ = at
        planes = files.page(*places[channel, z, 0])
        if planes[0].shape[:2] != described.shape:
            height, width = described.shape
            found = f"has a page of {planes[0].shape[1]} × {planes[0].shape[0]}, the image has {width} × {height}"
            raise InputError(Problem(location, found, "write the image again"))
        return planes

    sizes = n_channels, described.depth, described.times
    found = []
    for number, planes in gathered("CZT", sizes, parts, only, warn, location):
        channel = described.channels[number]
        label = channel.label or f"channel {number + 1}"
        found += [Plane("", label, pixels, channel.suggested_max) for pixels in planes]
    return found


def _plain_planes(files: _TiffSet, only: Sequence[int] | None, warn: Warn) -> list[Plane]:
    path = files.path
    with _reading(path):
        file = files.file(path)
        if not len(file.series):
            raise ValueError("it holds no image")
        series = file.series[0]
        page = series.pages[0]
        n_axes = len(series.axes) - len(page.axes if page is not None else "")
        axes, sizes = series.axes[:n_axes], series.shape[:n_axes]
        pages = list(series.pages)
    if page is None or series.axes[n_axes:] != page.axes or len(pages) != np.prod(sizes, dtype=int):
        found = f"holds an image {series.axes} of {series.shape} in {len(pages)} pages"
        raise InputError(Problem(str(path), found, "save it as OME-TIFF"))

    def parts(at: tuple[int, ...]) -> list[AnyArray]:
        return files.planes(pages[int(np.ravel_multi_index(at, sizes)) if at else 0], path)

    return numbered(gathered(axes, sizes, parts, only, warn, str(path)), path.name.partition(".")[0])
