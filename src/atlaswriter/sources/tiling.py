"""How images are stored: in tiles that are decoded as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from atlaswriter.sources.base import AnyArray


@dataclass(frozen=True)
class Tiling:
    """The tiles of an image.

    Attributes
    ----------
    rows, columns
        Of a tile.
    top, left
        Rows and columns of the first tile that lie outside the image.
    """

    rows: int
    columns: int
    top: int = 0
    left: int = 0

    def waste(self, rows: int, columns: int) -> float:
        """How much more is decoded, at most, when blocks of such a size are read: 1 where they divide no tile."""
        down = 1.0 if self.top == 0 and rows % self.rows == 0 else 1 + self.rows / rows
        across = 1.0 if self.left == 0 and columns % self.columns == 0 else 1 + self.columns / columns
        return down * across

    def parts(self, height: int, width: int, pixels: int) -> Iterator[tuple[slice, slice]]:
        """An image of such a size in parts of whole tiles, each of at least so many pixels if it can."""
        across = min(-(-math.isqrt(pixels) // self.columns) * self.columns, width + self.left)
        down = -(-pixels // across // self.rows) * self.rows
        for top in range(-self.top, height, down):
            for left in range(-self.left, width, across):
                yield slice(max(top, 0), min(top + down, height)), slice(max(left, 0), min(left + across, width))


def tiling(pixels: AnyArray) -> Tiling:
    """How an image is stored; rows that are read together are all that is known of an unknown kind."""
    if isinstance(pixels, np.ndarray):
        return Tiling(1, 1)
    found = getattr(pixels, "tiling", None)
    return found if isinstance(found, Tiling) else Tiling(max(1, pixels.grain), max(1, pixels.shape[1]))
