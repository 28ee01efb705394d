"""Each kernel and codec alone, on one core, at the size of a real atlas."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from benchmarks import synthetic

from atlaswriter.codecs import gzip, sparse_gzip
from atlaswriter.engine.columns import SparseColumns
from atlaswriter.formats.cellucid.graph import EdgeStream, whole_room
from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import csr, groups, quantize
from atlaswriter.sources.memory import matrix_of

N_CELLS, N_GENES, DENSITY = 200_000, 100, 0.07
BITS = pytest.mark.parametrize("bits", [8, 16, None])


@pytest.fixture(scope="module")
def atlas():
    return synthetic.atlas(N_CELLS, N_GENES, DENSITY)


@pytest.fixture(scope="module")
def expression():
    """Enough genes that their columns do not fit a cache together."""
    return synthetic.expression_matrix(N_CELLS // 4, 20 * N_GENES, DENSITY, np.random.default_rng(0))


@pytest.fixture(scope="module")
def graph(atlas):
    return matrix_of(atlas.obsp["connectivities"], "graph")


@pytest.fixture(scope="module")
def column(atlas):
    """The gene whose density is nearest to that of the atlas."""
    genes = atlas.X.tocsc()
    gene = np.argmin(abs(np.diff(genes.indptr) - DENSITY * N_CELLS))
    part = slice(genes.indptr[gene], genes.indptr[gene + 1])
    offsets = np.array([0, part.stop - part.start])
    return SparseColumns(genes.indices[part].astype(np.uint32), genes.data[part], offsets)


@pytest.fixture(scope="module")
def codes(atlas):
    return atlas.obs["cell_type"].cat.codes.to_numpy().astype(np.uint8)


def whole_column(column, bits):
    encoder = ValueEncoder(N_CELLS, bits, "nearest")
    return encoder.dense(encoder.encode(column), 0)


def test_in_order(measure, column):
    measure({"non-zero": column.rows.size}, csr.in_order, column.rows, column.offsets)


def test_bounds(measure, column):
    low_high, n_missing = np.empty((1, 2)), np.empty(1, np.int64)
    measure(
        {"non-zero": column.values.size},
        quantize.bounds, column.values, column.offsets, N_CELLS, low_high, n_missing,
    )  # fmt: skip


@BITS
def test_quantise_sparse(measure, column, bits):
    encoder = ValueEncoder(N_CELLS, bits, "nearest")
    measure({"non-zero": column.rows.size, "cell": N_CELLS}, encoder.encode, column)


@BITS
def test_quantise_dense(measure, column, bits):
    dense = np.zeros(N_CELLS, np.float32)
    dense[column.rows] = column.values
    encoder = ValueEncoder(N_CELLS, bits, "nearest")
    measure({"cell": N_CELLS}, encoder.encode_dense, dense)


def test_truncate_sparse(measure, column):
    encoder = ValueEncoder(N_CELLS, 8, "truncate")
    measure({"non-zero": column.rows.size, "cell": N_CELLS}, encoder.encode, column)


@BITS
def test_dense_from_sparse(measure, column, bits):
    encoder = ValueEncoder(N_CELLS, bits, "nearest")
    encoded = encoder.encode(column)
    measure({"non-zero": column.rows.size, "cell": N_CELLS}, encoder.dense, encoded, 0)


@pytest.mark.parametrize("level", [6, 9])
@BITS
def test_gzip_sparse(measure, column, bits, level):
    encoder = ValueEncoder(N_CELLS, bits, "nearest")
    encoded = encoder.encode(column)
    (file,) = measure(
        {"non-zero": column.rows.size, "cell": N_CELLS},
        sparse_gzip.compress, encoded.entries, encoded.offsets, N_CELLS, encoded.rules.backgrounds, level,
    )  # fmt: skip
    assert zlib.decompress(file, 31) == encoder.dense(encoded, 0).tobytes()


@BITS
def test_gzip_general(measure, column, bits):
    measure({"non-zero": column.rows.size, "cell": N_CELLS}, gzip.compress, whole_column(column, bits), 6)


def test_gzip_zlib(measure, column):
    """What cellucid 0.0.9 calls."""
    measure({"non-zero": column.rows.size, "cell": N_CELLS}, zlib.compress, whole_column(column, 8), 6)


def edges_of(graph):
    return list(EdgeStream(graph, whole_room(graph)))


@pytest.mark.parametrize("compress", [sparse_gzip.compress_repeats, lambda content: gzip.compress(content, 6)])
def test_gzip_sources(measure, graph, compress):
    """Sources of edges, by the encoder of runs and by the general one."""
    sources = np.concatenate([sources for sources, _ in edges_of(graph)])
    file = measure({"edge": sources.size}, compress, sources)
    assert zlib.decompress(file, 31) == sources.tobytes()


def test_gzip_codes(measure, codes):
    file = measure({"cell": N_CELLS}, sparse_gzip.compress_repeats, codes)
    assert zlib.decompress(file, 31) == codes.tobytes()


def test_measure(measure, expression):
    n_genes = expression.shape[1]
    indptr = expression.indptr.astype(np.int64)

    def arguments():
        bounds = np.full(n_genes, np.inf, np.float32), np.full(n_genes, -np.inf, np.float32)
        counts = (np.zeros(n_genes, np.int64) for _ in range(2))
        rows = np.full(n_genes, -1)
        return indptr, expression.indices, expression.data, 0, 0, rows, next(counts), *bounds, next(counts)

    measure({"non-zero": expression.nnz}, csr.measure, fresh=arguments)


def test_place(measure, expression):
    n_genes = expression.shape[1]
    indptr, slot = expression.indptr.astype(np.int64), np.arange(n_genes, dtype=np.int32)
    starts = np.r_[0, np.cumsum(np.bincount(expression.indices, minlength=n_genes))][:-1]
    genes = expression.tocsc()
    rules = ValueEncoder(expression.shape[0], 8, "nearest").rules(
        np.array([[0.0, part.max(initial=0)] for part in np.split(genes.data, genes.indptr[1:-1])])
    )
    entries = np.empty(expression.nnz, np.int64)

    def arguments():
        return (
            indptr, expression.indices, expression.data, 0, 0, slot, starts.copy(), rules.table, rules.mode, rules.top,
            entries,
        )  # fmt: skip

    measure({"non-zero": expression.nnz}, csr.place, fresh=arguments)
    assert np.array_equal(entries >> 32, genes.indices)


def test_edges(measure, graph):
    measure({"entry": graph.nnz, "edge": graph.nnz // 2}, edges_of, graph)


@pytest.mark.parametrize("dim", [2, 3])
def test_centroids(measure, atlas, codes, dim):
    points = atlas.obsm[f"X_umap_{dim}d"]
    names = [str(name) for name in atlas.obs["cell_type"].cat.categories]
    counts = np.bincount(codes, minlength=len(names))
    frame = Frame.around(points, "points")

    def work():
        return centroids(points, frame, codes, counts, names, quantile=0.95, min_points=10, room=1 << 30)

    measure({"cell": N_CELLS}, work)


def test_outlier_quantiles(measure, atlas, codes):
    latent = atlas.obsm["X_pca"]
    counts = np.bincount(codes)
    measure(
        {"cell": N_CELLS}, lambda: outlier_quantiles(latent, codes, counts, min_points=10, room=1 << 30, spill=Path.cwd)
    )


def test_category_sums(measure, atlas, codes):
    latent = atlas.obsm["X_pca"]
    sums = np.zeros((codes.max() + 1, latent.shape[1]))
    measure({"cell": N_CELLS}, groups.add, latent, codes, np.zeros(latent.shape[1]), 1.0, sums, np.empty(0))
