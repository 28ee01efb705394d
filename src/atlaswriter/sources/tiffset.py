"""The TIFF files of one image: which page of which file is which plane."""

from __future__ import annotations

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
from atlaswriter.sources.tiff import TiffPlane, refuse_hidden, samples_of


def tiff_planes(path: Path, only: Sequence[int] | None, warn: Warn) -> tuple[list[Plane], set[Path]]:
    """Planes of a TIFF image, as of `images.open_planes`, and all files it is made of."""
    with TiffSet(File(path)) as files:
        return (_plain_planes if files.ome is None else _ome_planes)(files, only, warn), set(files.files)


class TiffSet:
    """The TIFF files of one image, while their headers are read; a context.

    Parameters
    ----------
    file
        The first of them. A part of a file, or one that is known by another name, is alone.

    Attributes
    ----------
    path
        Where it is.
    name
        Its name in messages.
    files
        All that were opened, by path.
    ome
        What its OME-XML says; None where there is none.
    """

    def __init__(self, file: File) -> None:
        file.ready()
        self._first, self.path, self.name = file, file.path, file.name
        self.files: dict[Path, tuple[tifffile.TiffFile, File]] = {}
        self.ome: ome.Ome | None = None
        self._open = ExitStack()

    def __enter__(self) -> TiffSet:
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
            with reading(self.name):
                xml = self.file(path).pages[0].aspage().description if self.file(path).is_ome else None
        found = None if xml is None else ome.parse(xml, self.name if path == self.path else str(path))
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
            with reading(str(path)):
                file = self._first if path == self.path else File(path)
                opened = tifffile.TiffFile(path, offset=file.offset, size=file.size)
                self.files[path] = self._open.enter_context(opened), file
        return self.files[path][0]

    def page(self, path: Path, number: int) -> tifffile.TiffPage:
        """One page."""
        pages = self.file(path).pages
        with reading(str(path)):
            if not 0 <= number < len(pages):
                found = f"has {len(pages)} pages, where the image needs page {number}"
                raise InputError(Problem(str(path), found, "copy the file again"))
            return pages[number].aspage()

    def planes(self, page: Any, path: Path) -> list[AnyArray]:
        """The planes of one page."""
        with reading(str(path)):
            page = page.aspage()
            refuse_hidden(page, str(path))
            return [TiffPlane(page, self.files[path][1], sample) for sample in samples_of(page, str(path))]

    def _refuse_missing(self, paths: Iterable[Path]) -> None:
        alone = self.name != str(self.path)
        missing = sorted({path.name for path in paths if path != self.path and (alone or not path.is_file())})
        if missing:
            found = f"is one file of an image of several, of which {listed(missing)} cannot be found beside it"
            raise InputError(Problem(self.name, found, "copy all files of the image into one folder"))

    def places(self, wanted: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int, int], tuple[Path, int]]:
        """File and page of some planes (channel, z, time), all of which exist."""
        described = self.ome or ome.Ome()
        found = {place: described.places[place] for place in wanted if place in described.places}
        if len(found) < len(wanted):
            lacking = f"describes {len(found)} of {len(wanted)} planes of its image"
            raise InputError(Problem(self.name, lacking, "write the image again"))
        paths = {place: (self.path.with_name(file or self.path.name), page) for place, (file, page) in found.items()}
        self._refuse_missing(path for path, _ in paths.values())
        return paths


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Damage in headers of a file, which may make tifffile compute nonsense."""
    with translated_damage("header", name):
        try:
            yield
        except (ArithmeticError, AssertionError, MemoryError) as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _ome_planes(files: TiffSet, only: Sequence[int] | None, warn: Warn) -> list[Plane]:
    described, location = files.ome or ome.Ome(), str(files.path)
    if described.n_images > 1:
        warn(f"{location}: of {described.n_images} images the first is shown")
    n_channels = len(described.channels)
    chosen = range(n_channels) if only is None else checked(only, n_channels, location)
    places = files.places([(channel, z, 0) for channel in chosen for z in range(described.depth)])

    def parts(at: tuple[int, ...]) -> list[AnyArray]:
        channel, z, _ = at
        path, number = places[channel, z, 0]
        planes = files.planes(files.page(path, number), path)
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


def _plain_planes(files: TiffSet, only: Sequence[int] | None, warn: Warn) -> list[Plane]:
    path = files.path
    with reading(str(path)):
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
