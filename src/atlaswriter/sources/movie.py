"""What DeepCell Label shows: frames of channels, and the segmentations that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from atlaswriter.sources.base import Array


class Stack(Protocol):
    """Images along frames and channels, read some rows at a time.

    Reading raises `InputError` where the content is damaged. It may be done by several threads at once.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, channels, rows, columns), none of them 0."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Any integer, float or bool, in the byte order of this machine."""

    @property
    def grain(self) -> int:
        """Rows that are read together (those of a tile or strip); the number of rows where only whole images are."""

    @property
    def together(self) -> bool:
        """Whether the channels of a frame are stored together, so that one costs about as much as all."""

    @property
    def overhead(self) -> int:
        """Bytes that one thread holds while it reads, beside what it asked for."""

    def read(self, frame: int, channels: slice, rows: slice) -> Array:
        """Some rows of some channels of a frame, (channels, rows, columns), of any strides (slices of step 1)."""


@dataclass(frozen=True)
class Movie:
    """An image, or a segmentation, with what is known about it.

    Attributes
    ----------
    stack
        Its pixels.
    names
        Of the channels, where the file tells them; else empty.
    axes
        Letters of the axes as they were read, such as ``"TYXC"``.
    assumed
        Whether nothing told these axes, and the usual ones were taken.
    where
        The file or argument, for messages.
    warnings
        What deserves a second look.
    """

    stack: Stack
    names: tuple[str, ...] = ()
    axes: str = "TYXC"
    assumed: bool = False
    where: str = "images"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """Everything that makes a project.

    Attributes
    ----------
    images
        The image.
    labels
        The segmentation, whose channels are features; None where there is none.
    members
        Content of what else was given (``"cells.json"``, ``"divisions.json"``, ``"cellTypes.json"``,
        ``"embeddings.json"``, ``"lineage.json"``, ``"spots.csv"``), by these names, with the place it is from.
    warnings
        What deserves a second look.
    """

    images: Movie
    labels: Movie | None = None
    members: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Blank:
    """A segmentation without cells: a `Stack` of one channel of zeros (int32).

    Parameters
    ----------
    n_frames, height, width
        Its shape.
    """

    dtype: np.dtype[Any] = np.dtype(np.int32)
    grain, together, overhead = 1, False, 0

    def __init__(self, n_frames: int, height: int, width: int) -> None:
        self.shape = (n_frames, 1, height, width)

    def read(self, frame: int, channels: slice, rows: slice) -> Array:
        """Zeros."""
        del frame
        shape = channels.stop - channels.start, rows.stop - rows.start, self.shape[3]
        return np.broadcast_to(np.zeros((), np.int32), shape)
