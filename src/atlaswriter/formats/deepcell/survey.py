"""What has to be known of all pixels before the first is written: values of the labels, extremes of the channels."""

from __future__ import annotations

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

# The table of a block's values: those that labels can have take 8 MiB, and usual ones some KiB.
_TABLE_BYTES = 8 << 20


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


def present_values(labels: Movie, cut: Cut, team: Team, progress: Progress) -> Present:
    """The values that each frame and feature has.

    Raises
    ------
    InputError
        Values that do not fit in int32, or too many of them.
    """

    def look(block: Block) -> tuple[Block, list[NDArray[np.int32]]]:
        found = []
        for feature, pixels in block.images(labels.stack):
            values = Values(f"{labels.where}, frame {block.frame}, feature {feature}")
            values.add(as_values(pixels, labels.where))
            found.append(values.sorted())
        return block, found

    n_frames, n_features = labels.stack.shape[:2]
    found: dict[tuple[int, int], NDArray[np.int32]] = {}
    memory = cut.room + _TABLE_BYTES
    for block, lists in team.in_order(look, cut, memory=memory, what="looking through the labels"):
        for feature, values in enumerate(lists, block.channels.start):
            place = block.frame, feature
            found[place] = np.union1d(found[place], values) if place in found else values
        progress.add(len(lists) * (block.rows.stop - block.rows.start) * cut.row_bytes)
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
