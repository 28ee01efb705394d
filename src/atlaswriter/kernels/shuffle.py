"""Bytes of numbers, plane by plane: what compresses well lies together."""

from __future__ import annotations

from typing import Any

import numpy as np

from atlaswriter.kernels._jit import kernel
from atlaswriter.kernels.bits import width_of

_WORDS = ("u2", "u4", "u8")


@kernel(*(f"({word}[::1], u1[:, ::1])" for word in _WORDS))
def split(words: Any, planes: Any) -> None:
    """Bytes of each word into ``planes``, uint8 (bytes of a word, n), lowest first."""
    for plane in range(width_of(words)):
        for place in range(words.size):
            planes[plane, place] = words[place] >> (8 * plane)


@kernel(*(f"(u1[:, ::1], {word}[::1])" for word in _WORDS))
def join(planes: Any, words: Any) -> None:
    """The opposite of `split`."""
    for place in range(words.size):
        words[place] = planes[0, place]
    for plane in range(1, width_of(words)):
        for place in range(words.size):
            words[place] |= np.uint64(planes[plane, place]) << np.uint64(8 * plane)
