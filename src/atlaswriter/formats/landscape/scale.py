"""How pixels become 8 bit, as celldega 0.27.0 does it.

A value is ``trunc(min(v, D) / D * 255)`` in float32, with ``D`` five times the value to be shown brightest: the
front-end multiplies by five again, so that its slider has room above that value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.run import Team
from atlaswriter.kernels import pixels as kernels
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array, overhead
from atlaswriter.sources.spatial import Plane
from atlaswriter.sources.tiling import tiling

FACTOR = 5.0
_PERCENTILE, _EVERY = 99.9, 8

# Pixels read at once while a percentile is sought: a tile of most instruments.
_PART_PIXELS = 1 << 20

# How often each value occurs: values, ascending, and counts.
Tally = tuple[Array, Array]


@dataclass(frozen=True)
class Scale:
    """How one channel becomes 8 bit.

    Attributes
    ----------
    method
        ``"lut_max"`` (the instrument's suggestion), ``"percentile_99.9"``, ``"given"`` (by the user), or ``"none"``
        (colours, which are 8 bit already).
    lut_max
        The value to be shown brightest; None: the largest of the dtype, before the factor.
    """

    method: str
    lut_max: float | None = None

    @property
    def display_max(self) -> float | None:
        """What becomes 255; None: the largest of the dtype, or nothing is changed."""
        return None if self.lut_max is None else self.lut_max * FACTOR

    def record(self) -> dict[str, Any]:
        """What `landscape_parameters.json` says of it."""
        return {
            "method": self.method,
            "lut_max": self.lut_max,
            "display_max_factor": FACTOR,
            "display_max": self.display_max,
        }

    def convert(self, values: Array, out: NDArray[np.uint8]) -> None:
        """Pixels of any shape to 8 bit; ``out`` has the same shape, and both are C-contiguous."""
        if self.method == "none":
            out[...] = values
        elif values.dtype.itemsize < 4:
            table = self._tables[values.dtype.itemsize - 1]
            kernels.look_up(readable(values).reshape(-1), table, out.reshape(-1))
        else:
            kernels.stretch(readable(values).reshape(-1), np.float32(self._limit(values.dtype)), out.reshape(-1))

    def _limit(self, dtype: np.dtype) -> float:
        return self.display_max or float(np.iinfo(dtype).max)

    @cached_property
    def _tables(self) -> list[NDArray[np.uint8]]:
        """Of every value of uint8 and uint16; by NumPy in the very words of the original."""
        tables = []
        for dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
            values, limit = np.arange(np.iinfo(dtype).max + 1), self._limit(dtype)
            tables.append((np.clip(values.astype(np.float32), 0, limit) / limit * 255).astype(np.uint8))
        return tables


UNCHANGED = Scale("none")


def known_scale(plane: Plane, brightest: float | None = None) -> Scale | None:
    """The scale of a channel; None where its pixels have to be measured for it (`measured_scale`).

    Parameters
    ----------
    plane
        The channel.
    brightest
        The user's choice of the value shown brightest, before that of the instrument.
    """
    if len(plane.pixels.shape) == 3:
        return UNCHANGED
    if brightest is not None:
        return Scale("given", float(brightest))
    if plane.suggested_max is not None:
        return Scale("lut_max", float(plane.suggested_max))
    return None


def measured_scale(plane: Plane, team: Team) -> Scale:
    """The scale by the 99.9th percentile of the pixels that are not 0, of every 8th row and column."""
    height, width = plane.pixels.shape
    parts = tiling(plane.pixels).parts(height, width, _PART_PIXELS)
    futures = []
    for rows, columns in parts:
        size = (rows.stop - rows.start) * (columns.stop - columns.start) * plane.pixels.dtype.itemsize
        memory = size + overhead(plane.pixels)
        futures.append(team.submit(_tallied, plane, rows, columns, memory=memory, what=f"image {plane.key}"))
    team.wait()
    return Scale(f"percentile_{_PERCENTILE:g}", _percentile(future.result() for future in futures))


def _tallied(plane: Plane, rows: slice, columns: slice) -> Tally:
    sample = plane.pixels[rows, columns][-rows.start % _EVERY :: _EVERY, -columns.start % _EVERY :: _EVERY]
    if sample.dtype.itemsize > 2:
        values, counts = np.unique(sample, return_counts=True)
        return values, counts
    counts = np.bincount(sample.ravel())
    values = np.flatnonzero(counts)
    return values.astype(sample.dtype), counts[values]


def _percentile(tallies: Iterable[Tally]) -> float | None:
    """`numpy.percentile` of the values that are not 0, without having them; None if there are none."""
    found = list(tallies)
    values, place = np.unique(np.concatenate([values for values, _ in found]), return_inverse=True)
    counts = np.zeros(values.size, np.int64)
    np.add.at(counts, place, np.concatenate([counts for _, counts in found]))
    values, counts = values[values > 0], counts[values > 0]
    if not values.size:
        return None
    ends = np.cumsum(counts)
    position = (int(ends[-1]) - 1) * (_PERCENTILE / 100)
    before = int(position)
    share = position - before
    low, high = (
        float(value) for value in values[np.searchsorted(ends, [before, before + 1], "right").clip(max=values.size - 1)]
    )
    step = high - low
    # From the nearer end, as NumPy does it, so that the last bit is the same.
    return low + step * share if share < 0.5 else high - step * (1 - share)
