"""One column of numbers, dense or sparse, as the bytes the export stores."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np

from atlaswriter.engine.regroup import GeneColumn, SparseColumn, work_dtype
from atlaswriter.formats.cellucid.layout import TOP
from atlaswriter.kernels import quantize
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import Array

# Lifts ranges so small that top / range overflows; a power of two, so nothing is rounded.
_LIFT = 2.0**600


@dataclass(frozen=True)
class Encoded:
    """A column ready to be compressed.

    Attributes
    ----------
    content
        float32, uint8 or uint16, (n_cells,); valid until the same thread encodes the next column.
    bounds
        Values of code 0 and of the top code; None for float32.
    n_missing
        Number of NaN and infinite values, stored as missing.
    rows
        Ascending row numbers outside which `content` is `background`; None where that is not known.
    background
        Code of 0.
    """

    content: Array
    bounds: tuple[float, float] | None
    n_missing: int
    rows: Array | None = None
    background: int = 0


class ValueEncoder:
    """Turns columns into stored values; one encoder serves several threads.

    Parameters
    ----------
    n_cells
        Length of every column.
    bits
        8, 16, or None for float32.
    quantizer
        ``"nearest"`` or ``"truncate"`` (0.0.9's, bit for bit).
    """

    def __init__(self, n_cells: int, bits: int | None, quantizer: str) -> None:
        self.n_cells = n_cells
        self.bits = bits
        self.quantizer = quantizer
        self._scratch = threading.local()

    def encode(self, column: GeneColumn) -> Encoded:
        """Encode one column, whose finite values float32 can hold."""
        if not isinstance(column, SparseColumn):
            column = readable(np.ascontiguousarray(column, dtype=work_dtype(column.dtype)))
        values = column.values if isinstance(column, SparseColumn) else column
        low, high, n_finite = quantize.bounds(values)
        n_missing = values.size - n_finite
        if values.size < self.n_cells:
            low, high = min(low, 0.0), max(high, 0.0)
        if self.bits is None:
            return Encoded(self._as_float32(column, n_missing), None, n_missing)
        if self.quantizer == "truncate":
            return self._truncate(column, n_missing)
        return self._nearest(column, spread(low, high), n_missing)

    def _buffer(self, name: str, dtype: str) -> Array:
        buffer: Array | None = getattr(self._scratch, name, None)
        if buffer is None:
            buffer = np.empty(self.n_cells, dtype)
            setattr(self._scratch, name, buffer)
        return buffer

    def _codes(self) -> Array:
        return self._buffer("codes", "u1" if self.bits == 8 else "u2")

    def _as_float32(self, column: GeneColumn, n_missing: int) -> Array:
        content = self._buffer("floats", "f4")
        if isinstance(column, SparseColumn):
            quantize.scatter(column.rows, column.values, content)
        else:
            content[:] = column
        if n_missing:
            content[~np.isfinite(content)] = np.nan
        return content

    def _nearest(self, column: GeneColumn, bounds: tuple[float, float], n_missing: int) -> Encoded:
        assert self.bits is not None  # noqa: S101 - float32 columns take another path
        top, codes = TOP[self.bits], self._codes()
        extent = bounds[1] - bounds[0]
        lift = 1.0 if math.isfinite(top / extent) else _LIFT
        scale = top / (extent * lift)
        if isinstance(column, SparseColumn):
            background = quantize.nearest_sparse(column.rows, column.values, bounds[0], lift, scale, top, codes)
            return Encoded(codes, bounds, n_missing, column.rows, background)
        quantize.nearest(column, bounds[0], lift, scale, top, codes)
        return Encoded(codes, bounds, n_missing)

    def _truncate(self, column: GeneColumn, n_missing: int) -> Encoded:
        assert self.bits is not None  # noqa: S101 - float32 columns take another path
        top, codes = TOP[self.bits], self._codes()
        if isinstance(column, SparseColumn):
            dense = self._buffer("floats", "f4")
            quantize.scatter(column.rows, column.values, dense)
        else:
            dense = np.ascontiguousarray(column, dtype=np.float32)
        bounds = spread(*quantize.bounds(dense)[:2])
        with np.errstate(over="ignore"):
            scale = np.float32(top / (bounds[1] - bounds[0]))
        quantize.truncate(dense, np.float32(bounds[0]), scale, top, codes)
        if not isinstance(column, SparseColumn):
            return Encoded(codes, bounds, n_missing)
        zero = np.empty(1, codes.dtype)
        quantize.truncate(np.zeros(1, np.float32), np.float32(bounds[0]), scale, top, zero)
        return Encoded(codes, bounds, n_missing, column.rows, int(zero[0]))


def spread(low: float, high: float) -> tuple[float, float]:
    """Bounds as stored: 0 and 1 when nothing is finite, and never equal.

    A constant ``v`` is stored between ``v`` and ``v + 1`` as 0.0.9 does, or up to the next float
    where ``v + 1 == v``: the viewer divides by the difference.
    """
    if low > high:
        return 0.0, 1.0
    if low == high:
        high = low + 1.0 if low + 1.0 != low else math.nextafter(low, math.inf)
    return float(low), float(high)
