"""Genes on their way to a format: sparse, coded or dense, one gene behind the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atlaswriter.kernels import csr
from atlaswriter.sources.base import Array


@dataclass(frozen=True)
class SparseColumns:
    """Stored values of consecutive genes of the export.

    Attributes
    ----------
    rows
        uint32 (nnz,).
    values
        (nnz,).
    offsets
        int64 (n_genes + 1,): where each gene begins in both.
    """

    rows: Array
    values: Array
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return self.offsets.size - 1

    def in_order(self) -> SparseColumns:
        """The same with the rows of every gene strictly ascending, repeated entries added up (in float64)."""
        if csr.in_order(self.rows, self.offsets):
            return self
        columns = [_in_order(self.rows[first:last], self.values[first:last]) for first, last in pairwise(self.offsets)]
        rows, values = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        return SparseColumns(rows, values, np.r_[0, np.cumsum([len(rows) for rows, _ in columns])])


def _in_order(rows: Array, values: Array) -> tuple[Array, Array]:
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if rows.size else order
    sums = np.add.reduceat(values[order].astype(np.float64), starts) if rows.size else values
    return ordered[starts], sums.astype(values.dtype)


@dataclass(frozen=True)
class Rules:
    """How the values of columns become codes; see `kernels.quantize`.

    Attributes
    ----------
    table
        float64 (n_columns, 3).
    mode, top
        Those of all columns.
    bounds
        float64 (n_columns, 2): values of code 0 and of the top code; None for float32.
    backgrounds
        (n_columns,): code of 0, in the dtype codes are stored in (float32: its bits).
    """

    table: NDArray[np.float64]
    mode: int
    top: int
    bounds: NDArray[np.float64] | None
    backgrounds: Array

    def __getitem__(self, columns: slice) -> Rules:
        bounds = None if self.bounds is None else self.bounds[columns]
        return Rules(self.table[columns], self.mode, self.top, bounds, self.backgrounds[columns])


# Rules for columns whose bounds, float64 (n_columns, 2), with the zeros that are not stored, are given.
MakeRules = Callable[[NDArray[np.float64]], Rules]


@dataclass(frozen=True)
class CodedColumns:
    """Coded entries of consecutive genes of the export.

    Attributes
    ----------
    entries
        int64 (nnz,), ``row << 32 | code``, rows strictly ascending within a gene.
    offsets
        int64 (n_genes + 1,): where each gene begins.
    rules
        How they were coded.
    n_missing
        int64 (n_genes,): entries that are NaN or infinite.
    """

    entries: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rules: Rules
    n_missing: NDArray[np.int64]

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, genes: slice) -> CodedColumns:
        first, last, _ = genes.indices(len(self))
        offsets = self.offsets[first : last + 1]
        entries = self.entries[offsets[0] : offsets[-1]]
        return CodedColumns(entries, offsets - offsets[0], self.rules[first:last], self.n_missing[first:last])


# Consecutive genes of the export: coded, sparse, or each dense.
Columns = CodedColumns | SparseColumns | Sequence[Array]


class Batch(Protocol):
    """Consecutive genes that can be had piece by piece, by several threads."""

    @property
    def first(self) -> int:
        """Position in the export of the first one."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Values of each gene, int64 (n_genes,)."""

    def pieces(self) -> list[slice]:
        """How to share them out, in order; positions count from `first`."""

    def room(self, piece: slice) -> int:
        """Bytes that `read` takes for a piece, and its result until it is dropped."""

    def read(self, piece: slice) -> Columns:
        """The genes of one piece."""


def split(sizes: NDArray[np.int64], room: int, most: int | None = None) -> list[slice]:
    """Consecutive ranges of `most` items whose sizes add up to `room` at most, or of a single item."""
    ends = np.cumsum(sizes)
    ranges, first = [], 0
    while first < sizes.size:
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + room, side="right")), first + 1)
        last = last if most is None else min(last, first + most)
        ranges.append(slice(first, last))
        first = last
    return ranges
