"""What has to be known of all pixels before the first is written: values of the labels, extremes of the channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.run import Team
from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.deepcell.blocks import Block, Cut
from atlaswriter.formats.deepcell.scale import Extremes
from atlaswriter.formats.deepcell.values import LARGEST, Present, Values, united
from atlaswriter.progress import Progress
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Movie

# The table of a block's values: those that labels can have take 8 MiB, and usual ones some KiB.
_TABLE_BYTES = 8 << 20

# Values of so many blocks are united at once.
_PARTS = 16

# What masks without numbers say where there is something.
_YES = (255, 65535)


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


def survey_room(cut: Cut) -> int:
    """Bytes that a thread takes to look through a block of labels."""
    return cut.room + _TABLE_BYTES


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
    found: dict[tuple[int, int], list[NDArray[np.int32]]] = {}
    for block, lists in team.in_order(look, cut, memory=survey_room(cut), what="looking through the labels"):
        for feature, values in enumerate(lists, block.channels.start):
            place = block.frame, feature
            parts = found.setdefault(place, [])
            parts.append(values)
            if len(parts) == _PARTS or block.rows.stop == labels.stack.shape[2]:
                parts[:] = [united(parts, f"{labels.where}, frame {block.frame}, feature {feature}")]
        progress.add(len(lists) * (block.rows.stop - block.rows.start) * cut.row_bytes)
    return Present.of((found[t, c][0] for t in range(n_frames) for c in range(n_features)), n_features)


def doubts(present: Present, labels: Movie) -> list[str]:
    """What lets one doubt that these are labels of cells."""
    height, width = labels.stack.shape[2:]
    most, found = int(np.diff(present.starts).max(initial=0)), np.unique(present.values)
    if most > 100 and most * 10 > height * width:
        return [
            f"{labels.where}: a frame of {height * width:,} pixels has {most:,} different values: is it an image, "
            "exchanged with the labels?"
        ]
    if found.size == 1 and (int(found[0]) in _YES or labels.stack.dtype.kind == "b"):
        return [
            f"{labels.where}: has no other value than {found[0]}, which makes one cell of all: cells that do not touch "
            "get numbers of their own by scipy.ndimage.label"
        ]
    return []


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
