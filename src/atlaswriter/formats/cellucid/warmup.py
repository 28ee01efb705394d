"""Which kernels an export needs, made ready before they are called."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import cache
from threading import Event

import numpy as np

from atlaswriter.codecs import sparse_gzip
from atlaswriter.engine.regroup import work_dtype
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.atlas import Atlas, Genes
from atlaswriter.formats.cellucid.groups import coords_dtype
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.kernels import csr, edges, groups, quantize
from atlaswriter.kernels._jit import Kernel, warm
from atlaswriter.sources.base import Categorical, Column, Compressed, Continuous

log = logging.getLogger(__name__)

Wanted = tuple[Kernel, str]


def warm_up(atlas: Atlas, options: Options, stop: Event | None = None) -> None:
    """Compile, or load from the cache, what this export needs; says so when it takes a moment.

    `stop` is looked at between kernels.
    """
    start = time.perf_counter()
    compiled = warm(dict.fromkeys(wanted_kernels(atlas, options)), announce, stop)
    log.debug("%d kernels compiled in %.1f s", compiled, time.perf_counter() - start)


@cache
def announce() -> None:
    """Say, once in a process, why the first run on a machine takes longer."""
    log.info("compiling kernels for this machine (10 to 20 seconds, once)")


def typical_atlas(n_cells: int, *, genes: bool, graph: bool) -> Atlas:
    """An atlas without data that needs the kernels most exports need: CSR, float32, small codes."""
    floats, codes = np.empty((0, 1), np.float32), np.empty(0, np.int8)
    matrix = Compressed((0, 0), np.empty(0, np.int32), np.empty(0, np.int32), floats[:, 0], axis=0)
    obs: list[tuple[str, Column]] = [("", Categorical(codes, [])), ("", Continuous(floats[:, 0]))]
    expression = Genes([], np.empty(0, np.int64), matrix) if genes else None
    return Atlas(n_cells, {2: floats}, floats, obs, expression, matrix if graph else None)


def wanted_kernels(atlas: Atlas, options: Options) -> Iterator[Wanted]:
    """Every kernel and signature that exporting this atlas calls."""
    if options.level is not None:
        yield sparse_gzip.wanted_by_repeats()
    if atlas.genes is not None:
        yield from _gene_kernels(atlas, options)
    yield from _obs_kernels(atlas, options)
    if atlas.graph is not None:
        yield from _graph_kernels(atlas)


def _short(dtype: np.dtype) -> str:
    return f"{dtype.kind}{dtype.itemsize}"


def _index(dtype: np.dtype) -> str:
    return "i4" if dtype == np.int32 else "i8"


def _code(bits: int | None) -> str:
    return f"u{(bits or 32) // 8}"


def _dense_kernels(value: str, bits: int | None) -> Iterator[Wanted]:
    yield quantize.bounds, f"({value}[::1], i8[::1], i8, f8[:, ::1], i8[::1])"
    yield quantize.dense, f"({value}[::1], f8[::1], i8, i8, {_code(bits)}[::1])"


def _gene_kernels(atlas: Atlas, options: Options) -> Iterator[Wanted]:
    matrix, bits = atlas.genes.matrix if atlas.genes is not None else None, options.var_quantization
    if not isinstance(matrix, Compressed):
        if matrix is not None:
            yield from _dense_kernels(_short(work_dtype(matrix.dtype)), bits)
        return
    value, index = _short(work_dtype(matrix.data.dtype)), _index(matrix.indices.dtype)
    if matrix.axis == 0:
        arrays = f"(i8[::1], {index}[::1], {value}[::1], i8, i8"
        yield csr.measure, f"{arrays}, i8[::1], i8[::1], {value}[::1], {value}[::1], i8[::1])"
        yield csr.place, f"{arrays}, i4[::1], i8[::1], f8[:, ::1], i8, i8, i8[::1])"
    else:
        yield csr.in_order, "(u4[::1], i8[::1])"
        yield quantize.bounds, f"({value}[::1], i8[::1], i8, f8[:, ::1], i8[::1])"
        yield quantize.pack, f"(u4[::1], {value}[::1], i8[::1], f8[:, ::1], i8, i8, i8[::1])"
    yield quantize.scatter, f"(i8[::1], {_code(bits)}[::1])"
    if options.level is not None:
        yield from sparse_gzip.wanted_kernels((bits or 32) // 8, options.level)


def _obs_kernels(atlas: Atlas, options: Options) -> Iterator[Wanted]:
    bits = options.obs_continuous_quantization
    for _, column in atlas.obs:
        if not isinstance(column, Categorical):
            yield from _dense_kernels(_short(work_dtype(column.values.dtype)), bits)
            continue
        yield from _dense_kernels("f4", bits)
        code = f"u{layout.codes_bits(len(column.categories), options.obs_categorical_dtype) // 8}"
        yield groups.count, f"({code}[::1], i8[::1])"
        yield groups.ranks, "(f8[::1], i8[::1], u4[::1], f4[::1])"
        for array in [*atlas.embeddings.values(), *([] if atlas.latent is None else [atlas.latent])]:
            dtype = array.data.dtype if isinstance(array, Compressed) else array.dtype
            coords = f"({_short(coords_dtype(dtype))}[:, ::1], {code}[::1], f8[::1], f8, f8[:, ::1]"
            yield groups.add, f"{coords})"
            yield groups.distances, f"{coords}, i8[::1], f8[::1], u4[::1], i8)"
            yield groups.add_near, f"{coords}, f8[::1], i8[::1], f8[:, ::1])"


def _graph_kernels(atlas: Atlas) -> Iterator[Wanted]:
    graph = atlas.graph
    index = _index(graph.indices.dtype) if isinstance(graph, Compressed) else "i8"
    end = f"u{layout.index_dtype(atlas.n_cells)[1]}"
    lists = f"(i8[::1], {index}[::1]"
    yield edges.rows_ascend, f"{lists})"
    yield edges.count_below, f"{lists}, i8[::1])"
    yield edges.place_below, f"{lists}, i8[::1], {index}[::1])"
    yield edges.merge, f"{lists}, i8[::1], {index}[::1], i8[::1], {end}[::1], {end}[::1])"
