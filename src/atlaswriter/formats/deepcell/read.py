"""Reading DeepCell Label projects back: this package's, the original server's, and what the original exports.

Their pages come in one of two orders, their members are stored or deflated, and some lack what newer ones have.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.errors import Problems, look_up
from atlaswriter.findings import ReadError
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.blocks import Block, Cut
from atlaswriter.formats.deepcell.cells import EVERY_FEATURE, Cells, parse_cells, settle_features
from atlaswriter.formats.deepcell.content import Meanings, refused, spot_table
from atlaswriter.formats.deepcell.divisions import parse_divisions
from atlaswriter.formats.deepcell.extras import Embeddings, parse_cell_types, parse_embeddings
from atlaswriter.formats.deepcell.opening import open_zip, refuse_missing
from atlaswriter.formats.deepcell.survey import as_values, present_values
from atlaswriter.progress import Progress
from atlaswriter.report import html_table
from atlaswriter.sources.base import Array
from atlaswriter.sources.files import File
from atlaswriter.sources.movie import Movie
from atlaswriter.sources.movies import open_movie
from atlaswriter.sources.unpacked import Unpacker
from atlaswriter.units import usable_cpus

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


_BIG_TIFF = (b"II+\0", b"MM\0+")

_RULES = {
    layout.CELLS: "cells.rows",
    layout.DIVISIONS: "divisions.rows",
    layout.CELL_TYPES: "types.rows",
    layout.EMBEDDINGS: "embeddings.rows",
}


def open_export(path: str | PathLike[str]) -> Project:
    """Open a project; members are read when they are asked for.

    Parameters
    ----------
    path
        The zip file.

    Returns
    -------
    Project

    Raises
    ------
    FormatError
        It is no project, or damaged. Every method of the result raises it too, for the member that it reads.
    """
    return Project(path)


class Project:
    """A project, read lazily; made by `open_export`. Frames ``t``, channels and features ``c`` count from 0.

    A context manager: members that are deflated are unpacked to temporary files, which `close` removes, or the end of
    the object. A method given a number or name that there is not raises `UnknownNameError`; one that finds its member
    damaged, `FormatError`.

    Attributes
    ----------
    path
        The zip file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        folder = _Folder()
        self._unpacker = Unpacker(folder)
        self._close = weakref.finalize(self, _end, self._unpacker, folder)
        with refused("zip.unreadable"):
            self._archive = open_zip(self.path, self._unpacker, "the project")
        with refused("zip.missing"):
            refuse_missing(self._archive, layout.signs())

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was unpacked; pixels cannot be read any more."""
        self._close()

    @cached_property
    def _files(self) -> dict[str, File]:
        with refused("zip.unreadable"):
            return {name: self._archive.open(name) for name in (layout.IMAGE, layout.LABELS)}

    @cached_property
    def _movies(self) -> tuple[Movie, Movie]:
        """Image and segmentation, of one size."""
        images, labels = (self._movie(name) for name in (layout.IMAGE, layout.LABELS))
        if labels.stack.dtype.kind not in "ui":
            found = f"has pixels of dtype {labels.stack.dtype}, where whole numbers belong"
            raise ReadError("labels.dtype", labels.where, found)
        size, other = _size(images), _size(labels)
        if size != other:
            raise ReadError("labels.size", labels.where, f"has {_told(other)}, the image has {_told(size)}")
        return images, labels

    def _movie(self, name: str) -> Movie:
        where = self._where(name)
        with refused("tiff.unreadable", where):
            movie = open_movie(self._files[name], as_labels=name == layout.LABELS, where=where)
        if movie.assumed:
            raise ReadError("tiff.xml", where, "does not say what its pages are", "write it as OME-TIFF")
        return movie

    @property
    def images(self) -> Movie:
        """The image, to be read some rows at a time; reading raises `InputError`."""
        return self._open_movies()[0]

    @property
    def segmentation(self) -> Movie:
        """The labels as `images` has the image: frames of features."""
        return self._open_movies()[1]

    def _open_movies(self) -> tuple[Movie, Movie]:
        if not self._close.alive:
            raise ValueError(f"{self.path} is closed")
        return self._movies

    @property
    def big_tiffs(self) -> list[str]:
        """Which of the images are BigTIFFs."""
        with refused("tiff.unreadable"):
            return [name for name, file in self._files.items() if file.read(0, 4) in _BIG_TIFF]

    @property
    def n_frames(self) -> int:
        """Number of frames: time points, or planes of a stack."""
        return self.images.stack.shape[0]

    @property
    def n_channels(self) -> int:
        """Number of channels of the image."""
        return self.images.stack.shape[1]

    @property
    def n_features(self) -> int:
        """Number of segmentations of each frame, such as whole cells and nuclei."""
        return self.segmentation.stack.shape[1]

    @property
    def height(self) -> int:
        """Rows of a frame, pixels."""
        return self.images.stack.shape[2]

    @property
    def width(self) -> int:
        """Columns of a frame, pixels."""
        return self.images.stack.shape[3]

    @property
    def channels(self) -> list[str]:
        """Names of the channels; ``"channel 0"`` and so on where the file has none, as the client shows them."""
        names = self.images.names or ("",) * self.n_channels
        return [name or f"channel {number}" for number, name in enumerate(names)]

    @property
    def image_dtype(self) -> np.dtype[Any]:
        """Of the pixels of the image."""
        return self.images.stack.dtype

    @property
    def X(self) -> Array:  # noqa: N802 - the member's name
        """The whole image, (channels, frames, rows, columns), dtype `image_dtype`; read anew each time."""
        with refused("tiff.unreadable"):
            return self._whole(self.images, lambda pixels: pixels, self.image_dtype)

    @property
    def y(self) -> NDArray[np.int32]:
        """All labels, as stored: int32, (features, frames, rows, columns); read anew each time."""
        movie = self.segmentation
        with refused("tiff.unreadable"):
            return self._whole(movie, lambda pixels: as_values(pixels, movie.where), np.dtype(np.int32))

    def _whole(self, movie: Movie, convert: Callable[[Array], Array], dtype: np.dtype[Any]) -> Array:
        n_frames, n_channels, height, width = movie.stack.shape
        try:
            out = np.empty((n_channels, n_frames, height, width), dtype)
        except MemoryError as error:
            found = f"does not fit in memory: {n_channels} × {n_frames} images of {width} × {height} pixels"
            raise ReadError("tiff.memory", movie.where, found, "read one frame at a time") from error
        cut = Cut.of(movie.stack, 1)

        def fill(block: Block) -> None:
            for channel, pixels in block.images(movie.stack):
                out[channel, block.frame, block.rows] = convert(pixels)

        with Team(usable_cpus(), Budget()) as team:
            for _ in team.in_order(fill, cut, memory=cut.room, what=f"reading {movie.where}"):
                pass
        self.verify()
        return out

    def verify(self) -> None:
        """Wait until image and segmentation are compared with their CRCs; only whole ones are, when they are read."""
        with refused("zip.crc"):
            self._unpacker.verify()

    def image(self, t: int, c: int | str) -> Array:
        """One channel, by number or name, of a frame: (rows, columns), dtype `image_dtype`."""
        names = self.channels
        c = names.index(c) if c in names else _number(c, self.n_channels, "channel")
        t = _number(t, self.n_frames, "frame")
        with refused("tiff.unreadable"):
            return _plane(self.images, t, c)

    def labels(self, t: int, c: int = 0) -> NDArray[np.int32]:
        """Values of one feature of a frame: int32, (rows, columns); `cells_at` says what they mean."""
        movie = self.segmentation
        t, c = _number(t, self.n_frames, "frame"), _number(c, self.n_features, "feature")
        with refused("tiff.unreadable"):
            return as_values(_plane(movie, t, c), movie.where)

    @cached_property
    def _cells(self) -> Cells:
        """Rows that name a feature."""
        cells = self._parsed(layout.CELLS, parse_cells, [])
        if not (cells.c == EVERY_FEATURE).any():
            return cells
        movie = self.segmentation
        cut = Cut.of(movie.stack, 1)
        with refused("tiff.unreadable"), Team(usable_cpus(), Budget()) as team:
            return settle_features(cells, present_values(movie, cut, team, Progress(show=False)))

    @property
    def cells(self) -> pd.DataFrame:
        """Which values are of which cells: int64 ``cell value t c``, as listed.

        A value of several cells, where they overlap, has a row for each. Rows that name no feature, as the format's
        page has them, are there for every feature with their value.
        """
        import pandas as pd

        return pd.DataFrame(vars(self._cells))

    @cached_property
    def _meanings(self) -> Meanings:
        return Meanings.of(self._cells, self.n_frames, self.n_features)

    def cells_at(self, t: int, c: int = 0) -> dict[int, tuple[int, ...]]:
        """Cells, ascending, of each value of a feature of a frame; others mean nothing."""
        return self._meanings.at(_number(t, self.n_frames, "frame"), _number(c, self.n_features, "feature"))

    def mask(self, cell: int, t: int, c: int = 0) -> NDArray[np.bool_]:
        """Pixels of a cell in a feature of a frame, overlaps included: bool, (rows, columns)."""
        look_up(dict.fromkeys(np.unique(self._cells.cell).tolist()), cell, "cell")
        values = [value for value, cells in self.cells_at(t, c).items() if cell in cells]
        return np.isin(self.labels(t, c), np.array(values, np.int32))

    @cached_property
    def divisions(self) -> list[dict[str, Any]]:
        """``{"parent": int, "daughters": [int], "t": int}`` each; `t` is the first frame that shows the daughters."""
        found = self._optional(layout.DIVISIONS, parse_divisions) or []
        return [{**asdict(one), "daughters": list(one.daughters)} for one in found]

    @cached_property
    def cell_types(self) -> list[dict[str, Any]]:
        """``{"id": int, "cells": [int], "color": "#rrggbb", "name": str, "feature": int}`` each."""
        found = self._optional(layout.CELL_TYPES, parse_cell_types) or []
        return [{**asdict(one), "cells": list(one.cells)} for one in found]

    @cached_property
    def embeddings(self) -> Embeddings | None:
        """A vector for each cell, by its number, 0 for the background: float64, (n, length); None without any."""
        if layout.EMBEDDINGS not in self._archive.names:
            return None
        return self._read(layout.EMBEDDINGS, parse_embeddings)

    @cached_property
    def spots(self) -> pd.DataFrame | None:
        """Spots, in the order of the file: float64 ``x y``, pixels, and further columns; None without any."""
        if layout.SPOTS not in self._archive.names:
            return None
        with refused("zip.crc"):
            content = self._archive.read_small(layout.SPOTS, layout.MOST_TABLE_BYTES)
        return spot_table(content, self._where(layout.SPOTS))

    def _where(self, name: str) -> str:
        return f"{self.path}: {name}"

    def _read(self, name: str, parse: Callable[..., T], *more: Any) -> T:
        """A member by its parser, whose problems are refused."""
        problems = Problems()
        with refused("zip.crc"):
            content = self._archive.read_small(name, layout.MOST_TABLE_BYTES)
        with refused(_RULES[name]):
            found = parse(content, self._where(name), problems, *more)
            problems.raise_if_any()
        return found

    def _parsed(self, name: str, parse: Callable[..., T | None], *more: Any) -> T:
        found = self._read(name, parse, *more)
        assert found is not None  # noqa: S101 - None comes with problems
        return found

    def _optional(self, name: str, parse: Callable[..., T | None]) -> T | None:
        return self._parsed(name, parse) if name in self._archive.names else None

    def _rows(self) -> list[tuple[str, str]]:
        if not self._close.alive:
            return [("state", "closed")]
        return [
            ("frames", f"{self.n_frames:,} of {self.width:,} × {self.height:,} pixels"),
            ("channels", f"{', '.join(self.channels)} ({self.image_dtype})"),
            ("features", f"{self.n_features:,}"),
            ("cells", f"{np.unique(self._cells.cell).size:,}"),
            ("divisions", f"{len(self.divisions):,}"),
            ("spots", "none" if self.spots is None else f"{len(self.spots):,}"),
        ]

    def __repr__(self) -> str:
        return "\n".join([f"Project {self.path}", *(f"    {name}: {value}" for name, value in self._rows())])

    def _repr_html_(self) -> str:
        return html_table([("project", str(self.path)), *self._rows()])


class _Folder:
    """A temporary folder, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: TemporaryDirectory[str] | None = None

    def __call__(self) -> Path:
        if self._made is None:
            self._made = TemporaryDirectory(prefix="atlaswriter-", ignore_cleanup_errors=True)
        return Path(self._made.name)

    def remove(self) -> None:
        if self._made is not None:
            self._made.cleanup()


def _end(unpacker: Unpacker, folder: _Folder) -> None:
    unpacker.close()
    folder.remove()


def _number(given: object, n: int, kind: str) -> int:
    """A number below `n`, or `UnknownNameError`."""
    return look_up({number: number for number in range(n)}, given, kind)


def _plane(movie: Movie, t: int, c: int) -> Array:
    found = movie.stack.read(t, slice(c, c + 1), slice(0, movie.stack.shape[2]))
    return np.ascontiguousarray(found[0])


def _size(movie: Movie) -> tuple[int, int, int]:
    n_frames, _, height, width = movie.stack.shape
    return n_frames, height, width


def _told(size: tuple[int, int, int]) -> str:
    return f"{size[0]:,} frames of {size[1]:,} rows × {size[2]:,} columns"
