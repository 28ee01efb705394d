"""A movie cut into blocks, each the work of one thread at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Stack

# Content of a block, at least, where the way in which it is stored allows it; blocks are whole strips besides.
# Measured on 30 frames of 2048 x 2048, 4 channels of 16 bit: 4 MiB 5.7 s, 1 MiB 4.5 s, 512 KiB 4.1 s, this 2.6 s.
_BLOCK_BYTES = 256 << 10


@dataclass(frozen=True)
class Block:
    """Some rows of some channels of a frame."""

    frame: int
    channels: slice
    rows: slice

    def images(self, stack: Stack) -> Iterator[tuple[int, Array]]:
        """Number of each channel, and its rows (rows, columns), C-contiguous."""
        found = stack.read(self.frame, self.channels, self.rows)
        for place, channel in enumerate(range(self.channels.start, self.channels.stop)):
            yield channel, np.ascontiguousarray(found[place])


@dataclass(frozen=True)
class Cut:
    """How a movie is cut.

    Attributes
    ----------
    stack
        The movie.
    rows
        Of a block: all, or a multiple of what is written together.
    channels
        Of a block: all where they are stored together, else 1.
    """

    stack: Stack
    rows: int
    channels: int

    @classmethod
    def of(cls, stack: Stack, strip_rows: int) -> Cut:
        """A movie whose images are written in strips of so many rows."""
        _, n_channels, height, width = stack.shape
        channels = n_channels if stack.together else 1
        row_bytes = channels * width * stack.dtype.itemsize
        rows = max(_BLOCK_BYTES // row_bytes, stack.grain, 1)
        return cls(stack, min(-(-rows // strip_rows) * strip_rows, height), channels)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of one channel, as read."""
        return self.stack.shape[3] * self.stack.dtype.itemsize

    @property
    def content_bytes(self) -> int:
        """Bytes of all pixels, as read."""
        n_frames, n_channels, height, _ = self.stack.shape
        return n_frames * n_channels * height * self.row_bytes

    @property
    def room(self) -> int:
        """Bytes that one thread holds for a block as it is read: the block, what reading takes, one channel's copy."""
        return (self.channels + 1) * self.rows * self.row_bytes + self.stack.overhead

    def __iter__(self) -> Iterator[Block]:
        """All blocks, in the order in which they are stored: frames first where channels are together."""
        n_frames, n_channels, height, _ = self.stack.shape
        for first in range(0, n_channels, self.channels):
            channels = slice(first, first + self.channels)
            for frame in range(n_frames):
                for top in range(0, height, self.rows):
                    yield Block(frame, channels, slice(top, min(top + self.rows, height)))
