"""How pixels become uint8: each channel from its smallest to its largest value, over all frames, as the client does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.kernels import pixels
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array


@dataclass(frozen=True)
class Extremes:
    """What is known of the values of one channel.

    Attributes
    ----------
    low, high
        Smallest and largest finite value; infinite where there are none.
    n_missing
        Values that are not finite.
    """

    low: float = np.inf
    high: float = -np.inf
    n_missing: int = 0

    @classmethod
    def of(cls, values: Array) -> Extremes:
        """Of some pixels."""
        low, high = float(values.min()), float(values.max())
        if np.isfinite(low) and np.isfinite(high):
            return cls(low, high)
        finite = values[np.isfinite(values)]
        n_missing = values.size - finite.size
        return cls(float(finite.min()), float(finite.max()), n_missing) if finite.size else cls(n_missing=n_missing)

    def __or__(self, other: Extremes) -> Extremes:
        """Of both."""
        return Extremes(min(self.low, other.low), max(self.high, other.high), self.n_missing + other.n_missing)


@dataclass(frozen=True)
class Scale:
    """How one channel is stored.

    Attributes
    ----------
    low, high
        What becomes 0 and 255: a value ``v`` is stored as ``floor((v - low) / (high - low) * 255 + 0.5)``. A channel of
        one value is stored as 0. None: values are stored as they are.
    n_missing
        Values that are not finite: NaN is stored as 0, infinities as the limits.
    """

    low: float | None = None
    high: float | None = None
    n_missing: int = 0

    @classmethod
    def between(cls, extremes: Extremes) -> Scale:
        """From the smallest to the largest value."""
        found = (extremes.low, extremes.high) if extremes.low <= extremes.high else (0.0, 0.0)
        return cls(*found, extremes.n_missing)

    def apply(self, values: Array) -> Array:
        """Some pixels as they are stored, C-contiguous as they are."""
        if self.low is None or self.high is None:
            return values
        out = np.zeros(values.shape, np.uint8)
        if not self.low < self.high:
            return out
        if values.dtype.itemsize <= 2 and values.dtype.kind != "f":
            bits = readable(values.view(f"u{values.dtype.itemsize}"))
            pixels.look_up(bits.reshape(-1), self._tables[values.dtype.str[1:]], out.reshape(-1))
            return out
        if values.dtype.str[1:] not in {"i4", "u4", "f4", "f8"}:
            values = values.astype(np.float64)
        pixels.spread(readable(values).reshape(-1), self.low, self.high, out.reshape(-1))
        return out

    @cached_property
    def _tables(self) -> dict[str, NDArray[np.uint8]]:
        """By dtype: what is stored for each value, by its bits."""
        return {name: self._table(np.dtype(name)) for name in ("u1", "i1", "u2", "i2", "b1")}

    def _table(self, dtype: np.dtype[Any]) -> NDArray[np.uint8]:
        bits = np.arange(1 << (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}")
        values = (bits != 0 if dtype.kind == "b" else bits.view(dtype)).astype(np.float64)
        out = np.empty(bits.size, np.uint8)
        pixels.spread(values, self.low, self.high, out)
        return out
