"""What has to be known of all pixels before the first is written: values of the labels, extremes of the channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.run import Team
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.deepcell.blocks import Block, Cut
from atlaswriter.formats.deepcell.scale import Extremes
from atlaswriter.formats.deepcell.values import LARGEST, Present, Values
from atlaswriter.progress import Progress
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Movie

# Hash tables of one frame: a million values take 8 MiB, and labels have some thousands.
_TABLES_BYTES = 16 << 20


def as_values(pixels: Array, where: str) -> NDArray[np.int32]:
    """Labels as int32.

    Raises
    ------
    InputError
        A value does not fit.
    """
    if pixels.dtype.itemsize > 4 or pixels.dtype == np.uint32:
        low, high = int(pixels.min()), int(pixels.max())
        if low < -LARGEST or high > LARGEST:
            found = f"has the value {high if high > LARGEST else low}, which does not fit in 32 bits"
            raise InputError(Problem(where, found, "number the cells from 1"))
    return pixels.astype(np.int32, copy=False)


@dataclass(frozen=True)
class _Frame:
    """All rows of some features of a frame."""

    cut: Cut
    blocks: tuple[Block, ...]
    where: str

    def values(self) -> list[NDArray[np.int32]]:
        """Different values of each feature."""
        first = self.blocks[0]
        found = {
            channel: Values(f"{self.where}, frame {first.frame}, feature {channel}")
            for channel in range(first.channels.start, first.channels.stop)
        }
        for block in self.blocks:
            for channel, pixels in block.images(self.cut.stack):
                found[channel].add(as_values(pixels, self.where))
        return [values.sorted() for values in found.values()]


def present_values(labels: Movie, cut: Cut, team: Team, progress: Progress) -> Present:
    """The values that each frame and feature has.

    Raises
    ------
    InputError
        Values that do not fit in int32, or too many of them.
    """
    n_frames, n_features = labels.stack.shape[:2]
    frames: dict[tuple[int, int], list[Block]] = {}
    for block in cut:
        frames.setdefault((block.frame, block.channels.start), []).append(block)
    work = [_Frame(cut, tuple(blocks), labels.where) for blocks in frames.values()]
    what = "looking through the labels"
    found: dict[tuple[int, int], NDArray[np.int32]] = {}
    memory = cut.room + _TABLES_BYTES
    for (frame, first), lists in zip(frames, team.in_order(_Frame.values, work, memory=memory, what=what), strict=True):
        for place, values in enumerate(lists):
            found[frame, first + place] = values
        progress.add(len(lists) * labels.stack.shape[2] * cut.row_bytes)
    return Present.of((found[t, c] for t in range(n_frames) for c in range(n_features)), n_features)


def extremes(images: Movie, cut: Cut, team: Team, progress: Progress) -> list[Extremes]:
    """Smallest and largest value of each channel."""

    def measure(block: Block) -> tuple[Block, dict[int, Extremes]]:
        return block, {channel: Extremes.of(pixels) for channel, pixels in block.images(images.stack)}

    found = [Extremes() for _ in range(images.stack.shape[1])]
    for block, part in team.in_order(measure, cut, memory=cut.room, what="measuring the channels"):
        for channel, one in part.items():
            found[channel] |= one
        progress.add(len(part) * (block.rows.stop - block.rows.start) * cut.row_bytes)
    return found
