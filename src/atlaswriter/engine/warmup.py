"""Kernels made ready before they are called."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from functools import cache
from threading import Event

import numpy as np

from atlaswriter.engine.rows import value_dtype, work_dtype
from atlaswriter.kernels import csr, shuffle
from atlaswriter.kernels._jit import Kernel, warm
from atlaswriter.sources.base import Compressed, Matrix, RowChunks, is_sparse

log = logging.getLogger(__name__)

Wanted = tuple[Kernel, str]


def warm_up(wanted: Iterable[Wanted], stop: Event | None = None) -> None:
    """Compile kernels, or load them from the cache; says so when it takes a moment.

    `stop` is looked at between kernels.
    """
    start = time.perf_counter()
    compiled = warm(dict.fromkeys(wanted), announce, stop)
    log.debug("%d kernels compiled in %.1f s", compiled, time.perf_counter() - start)


@cache
def announce() -> None:
    """Say, once in a process, why the first run on a machine takes longer."""
    log.info("compiling kernels for this machine (10 to 20 seconds, once)")


def short(dtype: np.dtype) -> str:
    """A dtype in numba's notation."""
    return f"{dtype.kind}{dtype.itemsize}"


def csr_kernels(matrix: Compressed | RowChunks) -> Iterator[Wanted]:
    """What regrouping a CSR matrix in memory calls."""
    value = short(work_dtype(value_dtype(matrix)))
    arrays = f"(i8[::1], {_indices(matrix)}[::1], {value}[::1], i8, i8"
    yield csr.measure, f"{arrays}, i8[::1], i8[::1], {value}[::1], {value}[::1], i8[::1])"
    yield csr.place, f"{arrays}, i4[::1], i8[::1], f8[:, ::1], i8, i8, i8[::1])"


def spill_kernels(matrix: Matrix) -> Iterator[Wanted]:
    """What regrouping by way of temporary files calls besides."""
    if not is_sparse(matrix):
        return
    dtype = work_dtype(value_dtype(matrix))
    value = short(dtype)
    arrays = f"(i8[::1], {_indices(matrix)}[::1], {value}[::1], i8"
    yield csr.group, f"{arrays}, i4[::1], i8[::1], i8[::1], u4[::1], {value}[::1])"
    yield csr.append, f"(i8[::1], u4[::1], {value}[::1], i8, f8[:, ::1], i8, i8, i8[::1], i8[::1])"
    for size in {4, 8, dtype.itemsize}:
        yield shuffle.split, f"(u{size}[::1], u1[:, ::1])"
        yield shuffle.join, f"(u1[:, ::1], u{size}[::1])"


def _indices(matrix: Compressed | RowChunks) -> str:
    return "i4" if isinstance(matrix, Compressed) and matrix.indices.dtype == np.int32 else "i8"
