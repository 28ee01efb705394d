"""Columns of numbers, sparse or dense, as the codes the export stores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.columns import CodedColumns, Rules, SparseColumns
from atlaswriter.engine.rows import work_dtype
from atlaswriter.formats.cellucid.layout import TOP
from atlaswriter.formats.cellucid.payload import Payload
from atlaswriter.kernels import quantize
from atlaswriter.kernels._jit import readable
from atlaswriter.sources.base import AnyArray, Array, row_blocks

# Values looked at together.
_BLOCK_VALUES = 1 << 18
# What a thread keeps of each array that it uses again.
KEPT_BYTES = 2 << 20
# Lifts ranges so small that top / range overflows; a power of two, so nothing is rounded.
_LIFT = 2.0**600


@dataclass(frozen=True)
class DenseColumn:
    """One column as stored.

    Attributes
    ----------
    payload
        float32, uint8 or uint16, (n_cells,); each segment is valid until the same thread makes another.
    bounds
        Values of code 0 and of the top code; empty for float32.
    n_missing
        Number of NaN and infinite values, stored as missing.
    """

    payload: Payload
    bounds: list[float]
    n_missing: int


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
        self._mode = quantize.NEAREST if quantizer == "nearest" else quantize.TRUNCATE
        self._dtype = np.dtype("u4" if bits is None else f"u{bits // 8}")
        self._scratch = threading.local()

    def rules(self, bounds: NDArray[np.float64]) -> Rules:
        """How columns are coded whose bounds, (n_columns, 2), with the zeros that are not stored, are given."""
        n_columns = len(bounds)
        if self.bits is None:
            zeros = np.zeros(n_columns, self._dtype)
            return Rules(np.zeros((n_columns, 3)), quantize.FLOAT32, 0, None, zeros)
        if self._mode == quantize.TRUNCATE:
            bounds = bounds.astype(np.float32).astype(np.float64)
        top, bounds = TOP[self.bits], spread(bounds)
        low, extent = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        with np.errstate(over="ignore"):
            lift = np.where(np.isfinite(top / extent) | (self._mode == quantize.TRUNCATE), 1.0, _LIFT)
            table = np.column_stack([low, lift, top / (extent * lift)])
        return Rules(table, self._mode, top, bounds, self._backgrounds(table, top))

    def _backgrounds(self, table: NDArray[np.float64], top: int) -> Array:
        """Codes of 0; of columns that do not reach 0, where no row needs it, any code."""
        low, lift, scale = table.T
        codes: Array
        if self._mode == quantize.NEAREST:
            codes = -low * lift * scale + 0.5
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                codes = np.nan_to_num(-low.astype(np.float32) * scale.astype(np.float32), nan=0)
        codes = np.clip(codes, 0, top).astype(self._dtype)
        return codes

    def encode(self, columns: SparseColumns) -> CodedColumns:
        """Encode sparse columns, whose finite values float32 can hold."""
        columns = columns.in_order()
        values, offsets = columns.values, columns.offsets
        bounds, n_missing = np.empty((len(columns), 2)), np.empty(len(columns), np.int64)
        quantize.bounds(values, offsets, self.n_cells, bounds, n_missing)
        rules, entries = self.rules(bounds), self._room("entries", values.size, np.dtype(np.int64))
        quantize.pack(columns.rows, values, offsets, rules.table, rules.mode, rules.top, entries)
        return CodedColumns(entries, offsets, rules, n_missing)

    def encode_dense(self, values: AnyArray) -> DenseColumn:
        """Encode one dense column, (n_cells,), whose finite values float32 can hold; goes through it twice."""
        bounds, n_missing = np.array([[np.inf, -np.inf]]), 0
        for _, block in row_blocks(values, _BLOCK_VALUES):
            found, missing = np.empty((1, 2)), np.empty(1, np.int64)
            quantize.bounds(_workable(block), np.array([0, block.size]), block.size, found, missing)
            bounds[0] = min(bounds[0, 0], found[0, 0]), max(bounds[0, 1], found[0, 1])
            n_missing += int(missing[0])
        rules = self.rules(bounds)
        shown = [] if rules.bounds is None else rules.bounds[0].tolist()
        return DenseColumn(Payload(values.shape[0], self._dtype.itemsize, self._coder(values, rules)), shown, n_missing)

    def _coder(self, values: AnyArray, rules: Rules) -> Callable[[slice], Array]:
        def codes_of(rows: slice) -> Array:
            codes = self._room("codes", rows.stop - rows.start, self._dtype)
            for first, block in row_blocks(values, _BLOCK_VALUES, rows.start, rows.stop):
                target = codes[first - rows.start : first - rows.start + block.size]
                quantize.dense(_workable(block), rules.table[0], rules.mode, rules.top, target)
            return codes.view(np.float32) if self.bits is None else codes

        return codes_of

    def dense(self, columns: CodedColumns, column: int) -> Array:
        """One whole column, (n_cells,), of coded ones."""
        whole = self._room("codes", self.n_cells, self._dtype)
        whole[:] = columns.rules.backgrounds[column]
        quantize.scatter(columns.entries[columns.offsets[column] : columns.offsets[column + 1]], whole)
        return whole.view(np.float32) if self.bits is None else whole

    def _room(self, name: str, size: int, dtype: np.dtype) -> Array:
        """An array, used again by the same thread unless it is large."""
        if size * dtype.itemsize > KEPT_BYTES:
            return np.empty(size, dtype)
        room: Array | None = getattr(self._scratch, name, None)
        if room is None or room.size < size:
            room = np.empty(size, dtype)
            setattr(self._scratch, name, room)
        return room[:size]


def _workable(values: Array) -> Array:
    return readable(np.ascontiguousarray(values, dtype=work_dtype(values.dtype)))


def spread(bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds, (n_columns, 2), as they are stored: 0 and 1 when nothing is finite, and never equal.

    A constant ``v`` is stored between ``v`` and ``v + 1`` as 0.0.9 does, or up to the next float
    where ``v + 1 == v``: the viewer divides by the difference.
    """
    bounds = bounds + 0.0  # no minus zero
    bounds[bounds[:, 0] > bounds[:, 1]] = 0.0, 1.0
    for column in np.flatnonzero(bounds[:, 0] == bounds[:, 1]):
        low = float(bounds[column, 0])
        bounds[column, 1] = low + 1.0 if low + 1.0 != low else math.nextafter(low, math.inf)
    return bounds
