"""What a spatial data set is made of, whatever instrument wrote it.

Cells, outlines, transcripts and images of one tissue share one coordinate system, mostly microns; `Spatial.to_px`
turns it into pixels of the full-resolution image. What grows with the tissue is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from atlaswriter.sources.base import AnyArray, Matrix

if TYPE_CHECKING:
    import pyarrow as pa


class Table(Protocol):
    """A table in a file, read some columns and some rows at a time.

    Reading raises `InputError` where the content is damaged. Parts may be read by several threads at once.
    """

    @property
    def location(self) -> str:
        """Where it is, for messages."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""

    @property
    def n_rows(self) -> int | None:
        """Number of rows; None where only reading all of it tells."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the file."""

    @property
    def n_parts(self) -> int:
        """Stretches of rows that can be read independently of each other, such as row groups."""

    def room(self, columns: Sequence[str]) -> int:
        """Bytes that one thread holds while it goes through `batches` of such columns, about."""

    def batches(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of one part, in the order asked for, some hundred thousand rows at a time.

        Text is dictionary-encoded (int32 indices, string values; a batch has a dictionary of its own), numbers are
        as stored.
        """


@dataclass(frozen=True)
class Cells:
    """The cells of one segmentation.

    Attributes
    ----------
    names
        Their names, string (n_cells,), without nulls.
    x, y
        float64 (n_cells,): where they are, in the coordinates of the data set.
    where
        The place in messages, such as ``cells.parquet``.
    """

    names: pa.StringArray
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    where: str = "cells"


@dataclass(frozen=True)
class Counts:
    """Transcripts counted in each cell.

    Attributes
    ----------
    matrix
        Cells × features.
    cells
        Names of the cells, string (n_rows,), in any order.
    features
        Names of the features, in the order of the columns; may repeat.
    types
        Feature types such as ``"Gene Expression"`` or ``"Negative Control Probe"``; None where not told.
    where
        The place in messages.
    """

    matrix: Matrix
    cells: pa.StringArray
    features: list[str]
    types: list[str] | None = None
    where: str = "matrix"


@dataclass(frozen=True)
class Clusters:
    """Cluster labels of some cells.

    Attributes
    ----------
    cells
        Names of the cells, string (n,).
    labels
        Labels as text, string (n,), null where a cell has none.
    colors
        ``"#rrggbb"`` by label, as far as the data set says.
    where
        The place in messages.
    """

    cells: pa.StringArray
    labels: pa.StringArray
    colors: Mapping[str, str] = field(default_factory=dict)
    where: str = "clusters"


@dataclass(frozen=True)
class Rings:
    """Outlines of some cells, one exterior ring each, as stored: open or closed, in any direction.

    Attributes
    ----------
    names
        Cell of each ring, string (n_rings,).
    offsets
        int64 (n_rings + 1,): where each ring begins in `x` and `y`.
    x, y
        float64 (n_vertices,), in the coordinates of the data set.
    n_dropped
        Holes, and further parts of outlines of several parts, that were left out.
    """

    names: pa.StringArray
    offsets: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    n_dropped: int = 0


class Outlines(Protocol):
    """The outlines of cells, read in order."""

    @property
    def location(self) -> str:
        """Where they are, for messages."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the file."""

    @property
    def room(self) -> int:
        """Bytes held while going through `batches`, about."""

    def batches(self) -> Iterator[Rings]:
        """All rings, some ten thousand at a time; what is damaged raises `InputError`."""


@dataclass(frozen=True)
class Segmentation:
    """Cells and what is known of them; parts that a data set lacks are None."""

    cells: Cells
    counts: Counts | None = None
    clusters: Clusters | None = None
    outlines: Outlines | None = None


@dataclass(frozen=True)
class Transcripts:
    """A table of transcripts and the names of its columns.

    Attributes
    ----------
    table
        One row a transcript.
    gene, x, y
        Columns of the feature name (text) and the position.
    quality
        Column of the quality value (phred-like); None where there is none.
    """

    table: Table
    gene: str
    x: str
    y: str
    quality: str | None = None


@dataclass(frozen=True)
class Plane:
    """One channel of the image.

    Attributes
    ----------
    key
        Name that files are called by, such as ``"dapi"``.
    label
        Name as the instrument gives it.
    pixels
        (height, width), or (height, width, 3) for colour images; unsigned integers; lazy ones are read some rows
        at a time, those of `grain` together.
    suggested_max
        The instrument's suggestion for the value shown brightest; None where it makes none.
    source
        Name of the file it was asked of; empty where it is none.
    """

    key: str
    label: str
    pixels: AnyArray
    suggested_max: float | None = None
    source: str = ""


def _nothing() -> None:
    """Nothing is open."""


@dataclass(frozen=True)
class Spatial:
    """One spatial data set.

    Attributes
    ----------
    location
        Where it is, for messages.
    technology
        ``"Xenium"``, ``"MERSCOPE"``, ``"Chromium"`` ...
    to_px
        float64 (3, 3): ``[x_px, y_px, 1] = to_px @ [x, y, 1]``, pixels of the full-resolution image.
    segmentation
        Its cells.
    transcripts
        None where there are none.
    planes
        Channels of the image, all of one size; empty where there is no image.
    others
        Further segmentations of the same tissue, by name.
    warnings
        What deserves a second look.
    close
        Releases files.
    """

    location: str
    technology: str
    to_px: NDArray[np.float64]
    segmentation: Segmentation
    transcripts: Transcripts | None = None
    planes: list[Plane] = field(default_factory=list)
    others: dict[str, Segmentation] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    close: Callable[[], None] = _nothing
