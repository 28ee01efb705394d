"""Which kernels an export needs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from atlaswriter.engine.warmup import Wanted, csr_kernels
from atlaswriter.formats.landscape.model import Export
from atlaswriter.kernels import bins, csr, names, rings, shuffle
from atlaswriter.sources.base import Compressed, is_sparse


def typical_kernels() -> Iterator[Wanted]:
    """What most exports call: float32 positions, tiles of 250 pixels, counts of 10x."""
    counts = np.empty(0, np.int32)
    yield names.hashes, "(i4[::1], u1[::1], u8[::1])"
    yield from _position_kernels("f4", "u2", "u2", "f4")
    yield from csr_kernels(Compressed((0, 0), counts, counts, counts, axis=0))


def wanted_kernels(prepared: Export) -> Iterator[Wanted]:
    """Every kernel and signature that exporting a data set calls, as far as its header tells."""
    options = prepared.options
    local = "u2" if options.edge <= 1 << 16 else "u4"
    for real in ("f4", "f8"):
        yield from _position_kernels(real, local, "u2" if prepared.catalogue.short else "u4", "f4")
    for part in prepared.segmented:
        matrix = None if part.counts is None else part.counts.matrix
        if isinstance(matrix, Compressed) and matrix.axis == 1:
            yield csr.in_order, "(u4[::1], i8[::1])"
        elif matrix is not None and is_sparse(matrix):
            yield from csr_kernels(matrix)


def spill_kernels() -> Iterator[Wanted]:
    """What records in temporary files call besides."""
    for size in (2, 4, 8):
        yield shuffle.split, f"(u{size}[::1], u1[:, ::1])"
        yield shuffle.join, f"(u1[:, ::1], u{size}[::1])"


def _position_kernels(real: str, local: str, gene: str, out: str) -> Iterator[Wanted]:
    numbers = "i4[::1], i4[::1], f8[::1], f8, f8[::1], f8[::1], i4, i4[::1], i4[::1], i4[::1], i8[::1]"
    yield bins.locate, f"({real}[::1], {real}[::1], {numbers})"
    yield bins.count, "(i4[::1], i4[::1], i4, i8, i8, i8, i8[::1])"
    yield (
        bins.group,
        f"(i4[::1], i4[::1], i4[::1], i4, i8, i8, i8, i8[::1], {local}[::1], {local}[::1], {gene}[::1])",
    )
    yield bins.pairs, f"({local}[::1], {local}[::1], i8, i8, f8, {out}[::1])"
    for value in dict.fromkeys((local, gene, "u4", "i4")):
        yield bins.place, f"(i8[::1], i8[::1], i8[::1], {value}[::1], i8[::1], {value}[::1])"
    arrays = "i8[::1], i8[::1], i8[::1], i8[::1], i4[::1], i4[::1]"
    yield rings.close, f"(i8[::1], f8[::1], f8[::1], f8[::1], i8, {arrays})"
    yield rings.reorder, "(i8[::1], i8[::1], i4[::1], i4[::1], i4[::1], i4[::1])"
