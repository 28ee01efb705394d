"""Embeddings and vector fields: normalised, rounded once to float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem
from atlaswriter.formats.cellucid.payload import Payload
from atlaswriter.sources.base import AnyArray, row_blocks

# Rows looked at together.
BLOCK_ROWS = 1 << 15
_SMALLEST = 1e-308


@dataclass(frozen=True)
class Frame:
    """How one embedding is brought to [-1, 1]: ``(raw - center) / half``.

    ``center`` is the middle of the bounding box, ``half`` half of its widest side, so one factor
    serves all axes (rule: Cellucid export format, "Points"). Both float64.
    """

    center: NDArray[np.float64]
    half: float

    @classmethod
    def around(cls, points: AnyArray, where: str) -> Frame:
        """The frame of raw coordinates (n_cells, d), all finite."""
        low, high = np.full(points.shape[1], np.inf), np.full(points.shape[1], -np.inf)
        for _, block in row_blocks(points, BLOCK_ROWS):
            # Column by column: 20 times faster than NumPy's reduction of a few columns at once.
            for axis, column in enumerate(block.T):
                low[axis], high[axis] = min(low[axis], column.min()), max(high[axis], column.max())
        half = float((high / 2 - low / 2).max())
        if not np.isfinite(2 * half):
            raise InputError(Problem(where, "spans more than float64 can hold", "rescale the coordinates"))
        # All cells in one place (as far as float64 can scale it up): any scale shows the same; 0.0.9 takes
        # a range of 1.
        return cls(low / 2 + high / 2, half if half > _SMALLEST else 0.5)

    @property
    def scale(self) -> float:
        """``1 / half``."""
        return 1 / self.half

    def points(self, raw: AnyArray) -> Payload:
        """Normalised coordinates, float32 (n_cells, d)."""
        return self._rounded(raw, self.center)

    def vectors(self, raw: AnyArray) -> Payload:
        """Displacements in the same scale, float32 (n_cells, d)."""
        return self._rounded(raw, np.zeros_like(self.center))

    def _rounded(self, raw: AnyArray, center: NDArray[np.float64]) -> Payload:
        def normalised(rows: slice) -> NDArray[np.float32]:
            result = np.empty((rows.stop - rows.start, raw.shape[1]), np.float32)
            for first, part in row_blocks(raw, BLOCK_ROWS, rows.start, rows.stop):
                block = part.astype(np.float64)
                block -= center
                block /= self.half
                result[first - rows.start : first - rows.start + len(block)] = block
            return result

        return Payload(raw.shape[0], 4 * raw.shape[1], normalised)
