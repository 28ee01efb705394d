"""Tiles as WebP."""

from __future__ import annotations

from functools import lru_cache

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from atlaswriter.kernels._jit import readable
from atlaswriter.kernels.pixels import triple

# Of libwebp, 0 to 100 and 0 to 6. The original writes 100 and 4. Bytes a pixel, CPU ns a pixel (libwebp 1.6, an AMD
# EPYC of 2026) and mean error in grey levels, on DAPI of a published Xenium set, and DAPI and boundary of a
# synthetic one (more of it in the project's notes):
#     lossy 100, 4      0.096  0.053  0.118    75  66  76    0.29  0.28  0.37    largest error 4
#     lossy 100, 0      0.111  0.068  0.139    23  19  24    0.31  0.31  0.40                  4
#     lossy  98, 0      0.101  0.059  0.120    22  19  24    0.38  0.30  0.42                  5
#     lossy  97, 0      0.078  0.041  0.093    19  17  20    0.41  0.33  0.46                  6
#     lossless, 0       0.235  0.198  0.323    38  39  45    0
# 97 and 0 is the fastest that makes no more bytes than the original. Its mean error is larger than the original's on
# the same images by a fifth to two fifths, and within the 0.3 to 0.9 that tiles written by it were found to have.
QUALITY, EFFORT = 97, 0

# A tile of one colour is written without loss: 34 bytes instead of some 2500. Remembered by size and colour.
_REMEMBERED = 64


def encode(tile: NDArray[np.uint8], quality: int = QUALITY, effort: int = EFFORT) -> bytes:
    """One tile.

    Parameters
    ----------
    tile
        (height, width) of grey, which becomes equal red, green and blue, or (height, width, 3); of any strides.
    quality
        0 to 100 as of libwebp.
    effort
        0 (fastest) to 6 (smallest): libwebp's method.
    """
    if (tile == tile[0, 0]).all():
        return _plain(tile.shape[0], tile.shape[1], tuple(np.broadcast_to(tile[0, 0], 3).tolist()))
    colours = np.ascontiguousarray(tile)
    if tile.ndim == 2:
        colours = np.empty((*tile.shape, 3), np.uint8)
        triple(readable(np.ascontiguousarray(tile)).reshape(-1), colours.reshape(-1))
    return bytes(imagecodecs.webp_encode(colours, lossless=False, level=quality, method=effort))


@lru_cache(_REMEMBERED)
def _plain(height: int, width: int, colour: tuple[int, int, int]) -> bytes:
    tile = np.empty((height, width, 3), np.uint8)
    tile[...] = colour
    return bytes(imagecodecs.webp_encode(tile, lossless=True, level=0, method=0))


def decode(content: bytes) -> NDArray[np.uint8]:
    """Pixels of a tile, (height, width, 3)."""
    return np.asarray(imagecodecs.webp_decode(content, hasalpha=False))
