"""Which kernels an export needs, made ready before they are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from atlaswriter.codecs import sparse_gzip
from atlaswriter.engine.rows import value_dtype, work_dtype
from atlaswriter.engine.warmup import Wanted, csr_kernels, short
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.atlas import Atlas, Genes
from atlaswriter.formats.cellucid.graph import wanted_kernels as wanted_by_edges
from atlaswriter.formats.cellucid.groups import wanted_kernels as wanted_by_groups
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.kernels import csr, groups, quantize
from atlaswriter.sources.base import Categorical, Column, Compressed, Continuous, RowChunks, is_dense


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
        yield from wanted_by_edges(atlas.graph, atlas.n_cells)


def _code(bits: int | None) -> str:
    return f"u{(bits or 32) // 8}"


def _dense_kernels(value: str, bits: int | None) -> Iterator[Wanted]:
    yield quantize.bounds, f"({value}[::1], i8[::1], i8, f8[:, ::1], i8[::1])"
    yield quantize.dense, f"({value}[::1], f8[::1], i8, i8, {_code(bits)}[::1])"


def _gene_kernels(atlas: Atlas, options: Options) -> Iterator[Wanted]:
    if atlas.genes is None:
        return
    matrix, bits = atlas.genes.matrix, options.var_quantization
    if is_dense(matrix):
        yield from _dense_kernels(short(work_dtype(matrix.dtype)), bits)
        return
    stored = cast("Compressed | RowChunks", matrix)
    value = short(work_dtype(value_dtype(stored)))
    if isinstance(matrix, Compressed) and matrix.axis == 1:
        yield csr.in_order, "(u4[::1], i8[::1])"
        yield quantize.bounds, f"({value}[::1], i8[::1], i8, f8[:, ::1], i8[::1])"
        yield quantize.pack, f"(u4[::1], {value}[::1], i8[::1], f8[:, ::1], i8, i8, i8[::1])"
    else:
        yield from csr_kernels(stored)
    yield quantize.scatter, f"(i8[::1], {_code(bits)}[::1])"
    if options.level is not None:
        yield from sparse_gzip.wanted_kernels((bits or 32) // 8, options.level)


def _obs_kernels(atlas: Atlas, options: Options) -> Iterator[Wanted]:
    bits = options.obs_continuous_quantization
    for _, column in atlas.obs:
        if not isinstance(column, Categorical):
            yield from _dense_kernels(short(work_dtype(column.values.dtype)), bits)
            continue
        yield from _dense_kernels("f4", bits)
        codes = np.dtype(layout.DTYPES[layout.codes_bits(len(column.categories), options.obs_categorical_dtype)])
        yield groups.count, f"({short(codes)}[::1], i8[::1])"
        for array in [*atlas.embeddings.values(), *([] if atlas.latent is None else [atlas.latent])]:
            yield from wanted_by_groups(array.dtype, codes)
