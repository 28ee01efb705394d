"""Gene columns from any matrix, for any genes, room and number of workers."""

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.engine import regroup
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.regroup import SparseColumn, batch_limits, canonical, gene_batches, work_dtype
from atlaswriter.engine.run import Team
from atlaswriter.sources.base import Compressed
from atlaswriter.sources.memory import matrix_of


def example(n_cells=57, n_genes=23, density=0.3, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return sp.random_array((n_cells, n_genes), density=density, format="csr", rng=rng).astype(dtype)


def dense_column(column, n_cells):
    if not isinstance(column, SparseColumn):
        return column
    assert (np.diff(column.rows.astype(np.int64)) > 0).all()
    result = np.zeros(n_cells, column.values.dtype)
    result[column.rows] = column.values
    return result


def bytes_of(column):
    """Memory of its values and rows."""
    return column.values.nbytes + column.rows.nbytes if isinstance(column, SparseColumn) else column.nbytes


def regrouped(matrix, genes, *, workers=1, room=None):
    """Genes × cells, and the bytes of each batch."""
    genes = np.asarray(genes, np.int64)
    least, most = batch_limits(matrix)
    columns, sizes = [], []
    with Team(workers, Budget()) as team:
        for batch in gene_batches(matrix, genes, team, most if room is None else max(room, least)):
            assert batch.first == len(columns)
            columns += [dense_column(column, matrix.shape[0]) for column in batch.columns]
            sizes.append(sum(bytes_of(column) for column in batch.columns))
    assert len(columns) == genes.size
    return np.array(columns).reshape(genes.size, matrix.shape[0]), sizes


forms = pytest.mark.parametrize("form", ["csr", "csc", "dense"])


def as_form(matrix, form):
    return matrix_of(matrix.toarray() if form == "dense" else matrix.asformat(form), "x")


@forms
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("genes", [range(23), [5], [22, 0, 7, 1], []])
def test_any_genes_in_any_order(form, workers, genes):
    matrix = example()
    found, _ = regrouped(as_form(matrix, form), list(genes), workers=workers)
    np.testing.assert_array_equal(found, matrix.toarray().T[list(genes)])


@forms
@pytest.mark.parametrize("workers", [1, 4])
def test_any_room(form, workers):
    matrix = as_form(example(), form)
    least, most = batch_limits(matrix)
    expected, sizes = regrouped(matrix, range(23))
    assert len(sizes) == 1
    for room in (least, 2 * least, most // 2):
        found, sizes = regrouped(matrix, range(23), workers=workers, room=room)
        np.testing.assert_array_equal(found, expected)
        assert len(sizes) > 1
        assert max(sizes) <= max(room, least)
        assert sum(sizes) == most


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_in_small_blocks(monkeypatch, workers):
    monkeypatch.setattr(regroup, "_BLOCK_ENTRIES", 3)
    matrix = example()
    found, _ = regrouped(as_form(matrix, "csr"), range(23), workers=workers)
    np.testing.assert_array_equal(found, matrix.toarray().T)


@forms
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "i8", "u8", "f4", "f8", ">f4", ">i2"])
def test_every_dtype(form, dtype):
    matrix = (example() * 100).astype(np.int64).astype(np.dtype(dtype).newbyteorder("="))
    if form == "dense":
        given = matrix.toarray().astype(dtype)
    else:
        given = matrix.asformat(form)
        given.data = given.data.astype(dtype)
    found, _ = regrouped(matrix_of(given, "x"), range(23))
    np.testing.assert_array_equal(found, matrix.toarray().T)
    assert found.dtype == work_dtype(np.dtype(dtype).newbyteorder("="))


def test_work_dtype_holds_every_value():
    single = ["?", "i1", "u1", "i2", "u2", "f2", "f4"]
    assert {work_dtype(np.dtype(name)) for name in single} == {np.dtype(np.float32)}
    assert {work_dtype(np.dtype(name)) for name in ["i4", "u4", "i8", "u8", "f8"]} == {np.dtype(np.float64)}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("workers", [1, 4])
def test_unsorted_and_repeated_entries_add_up(axis, index, workers):
    rng = np.random.default_rng(3)
    n_major, n_minor = (40, 12) if axis == 0 else (12, 40)
    sizes = rng.integers(0, 15, n_major)
    sizes[3] = 0
    indptr = np.r_[0, np.cumsum(sizes)].astype(index)
    indices = rng.integers(0, n_minor, indptr[-1]).astype(index)
    data = rng.integers(-5, 6, indptr[-1]).astype(np.float32)
    make = sp.csr_array if axis == 0 else sp.csc_array
    expected = make((data, indices, indptr), shape=(40, 12)).toarray()
    before = (indptr.copy(), indices.copy(), data.copy())
    found, _ = regrouped(Compressed((40, 12), indptr, indices, data, axis), range(12), workers=workers, room=1)
    np.testing.assert_array_equal(found, expected.T)
    for array, copy in zip((indptr, indices, data), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_canonical_adds_in_float64():
    column = canonical(np.array([4, 1, 4, 4], np.uint32), np.array([1e8, 5, 1, -1e8], np.float32))
    assert (column.rows.tolist(), column.values.tolist()) == ([1, 4], [5, 1])
    assert column.values.dtype == np.float32


@forms
@pytest.mark.parametrize(("n_cells", "n_genes"), [(1, 1), (1, 5), (5, 1), (3, 0)])
def test_tiny_and_empty(form, n_cells, n_genes):
    for density in (0, 1):
        matrix = example(n_cells, n_genes, density)
        found, _ = regrouped(as_form(matrix, form), range(n_genes), workers=4)
        np.testing.assert_array_equal(found, matrix.toarray().T)


def test_more_workers_than_rows():
    matrix = example(2, 6, 1)
    found, _ = regrouped(as_form(matrix, "csr"), range(6), workers=8)
    np.testing.assert_array_equal(found, matrix.toarray().T)


def test_one_cell_with_nearly_everything():
    matrix = sp.lil_array((50, 30))
    matrix[7] = 1
    matrix[49, 3] = 2
    found, _ = regrouped(as_form(matrix.tocsr(), "csr"), range(30), workers=4)
    np.testing.assert_array_equal(found, matrix.toarray().T)
