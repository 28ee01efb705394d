"""Gene columns from any matrix, for any genes, room and number of workers."""

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.engine import regroup
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.regroup import CodedColumns, Rules, SparseColumns, batch_limits, gene_batches, work_dtype
from atlaswriter.engine.run import Team
from atlaswriter.kernels import quantize
from atlaswriter.sources.base import Compressed
from atlaswriter.sources.memory import matrix_of


def example(n_cells=57, n_genes=23, density=0.3, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return sp.random_array((n_cells, n_genes), density=density, format="csr", rng=rng).astype(dtype)


class Values:
    """Makes rules that keep values as float32, and remembers the bounds it was told."""

    def __init__(self):
        self.bounds = np.empty((0, 2))

    def __call__(self, bounds):
        self.bounds = bounds.copy()
        zeros = np.zeros(len(bounds), np.uint32)
        return Rules(np.zeros((len(bounds), 3)), quantize.FLOAT32, 0, None, zeros)


def dense_columns(columns, n_cells, in_order):
    """Each column in full, whatever the form, and the missing values of each (None where they are not counted)."""
    if isinstance(columns, CodedColumns):
        assert columns.entries.dtype == columns.offsets.dtype == columns.n_missing.dtype == np.int64
        assert len(columns.rules.table) == len(columns.rules.backgrounds) == len(columns)
        rows, values = columns.entries >> 32, columns.entries.astype(np.uint32).view(np.float32)
    elif isinstance(columns, SparseColumns):
        assert (columns.rows.dtype, columns.offsets.dtype) == (np.uint32, np.int64)
        assert columns.in_order() is columns or not in_order  # nothing is copied without need
        columns = columns.in_order()
        rows, values = columns.rows.astype(np.int64), columns.values
    else:
        return columns, [None] * len(columns)
    assert (columns.offsets[0], columns.offsets[-1]) == (0, rows.size)
    assert values.size == rows.size
    result = np.zeros((len(columns), n_cells), values.dtype)
    for column, first, last in zip(result, columns.offsets, columns.offsets[1:], strict=False):
        assert (np.diff(rows[first:last]) > 0).all()
        column[rows[first:last]] = values[first:last]
    return list(result), columns.n_missing.tolist() if isinstance(columns, CodedColumns) else [None] * len(result)


def bytes_of(columns):
    """Memory of values and rows."""
    if isinstance(columns, CodedColumns):
        return columns.entries.nbytes
    if isinstance(columns, SparseColumns):
        return columns.values.nbytes + columns.rows.nbytes
    return sum(column.nbytes for column in columns)


def regrouped(matrix, genes, *, workers=1, room=None, in_order=True):
    """Genes × cells, and the bytes of each batch."""
    genes = np.asarray(genes, np.int64)
    least, most = batch_limits(matrix)
    columns, n_missing, sizes, rules = [], [], [], Values()
    with Team(workers, Budget()) as team:
        for batch in gene_batches(matrix, genes, rules, team, most if room is None else max(room, least)):
            assert batch.first == len(columns)
            found = dense_columns(batch.columns, matrix.shape[0], in_order)
            columns += found[0]
            n_missing += found[1]
            sizes.append(bytes_of(batch.columns))
    assert len(columns) == genes.size
    for place, (column, missing) in enumerate(zip(columns, n_missing, strict=True)):
        if missing is not None:
            finite = column[np.isfinite(column)].astype(np.float64)
            expected = [finite.min(), finite.max()] if finite.size else [np.inf, -np.inf]
            assert rules.bounds[place].tolist() == expected
            assert missing == column.size - finite.size
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
    assert found.dtype == (np.float32 if form == "csr" else work_dtype(np.dtype(dtype).newbyteorder("=")))


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
    matrix = Compressed((40, 12), indptr, indices, data, axis)
    for room in (1, None):
        found, _ = regrouped(matrix, range(12), workers=workers, room=room, in_order=False)
        np.testing.assert_array_equal(found, expected.T)
    for array, copy in zip((indptr, indices, data), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_repeated_entries_are_added_in_float64():
    rows = np.array([7, 4, 1, 4, 4, 0, 2, 2], np.uint32)
    values = np.array([3, 1e8, 5, 1, -1e8, 1, 2, 4], np.float32)
    columns = SparseColumns(rows, values, np.array([0, 1, 5, 5, 8])).in_order()
    assert (columns.rows.tolist(), columns.values.tolist()) == ([7, 1, 4, 0, 2], [3, 5, 1, 1, 6])
    assert columns.offsets.tolist() == [0, 1, 3, 3, 5]
    assert [part.dtype for part in (columns.rows, columns.values, columns.offsets)] == [np.uint32, np.float32, np.int64]


def test_parts_of_columns():
    rows, values = np.arange(6, dtype=np.uint32), np.arange(6.0)
    columns = SparseColumns(rows, values, np.array([0, 2, 2, 5, 6]))
    assert len(columns) == 4
    middle = columns[1:3]
    assert (middle.rows.tolist(), middle.values.tolist(), middle.offsets.tolist()) == ([2, 3, 4], [2, 3, 4], [0, 0, 3])
    assert np.shares_memory(middle.rows, rows)
    assert [len(columns[first:last]) for first, last in ((0, 4), (2, 99), (3, 3))] == [4, 2, 0]
    assert columns[3:3].in_order().offsets.tolist() == [0]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, bool])
def test_repeated_entries_of_rows_add_up_in_float64(workers, index, dtype, monkeypatch):
    """Also where they overflow or cancel out in their dtype, stand in different blocks of rows, or are NaN."""
    monkeypatch.setattr(regroup, "_BLOCK_ENTRIES", 5)
    rng = np.random.default_rng(5)
    rows, columns = np.arange(60) // 3, rng.integers(0, 4, 60)
    data = rng.choice([100, -100, 1, 3], 60).astype(dtype)
    if dtype in (np.float32, np.float64):
        rows, columns = np.r_[rows, [20] * 5], np.r_[columns, [2] * 4, 3]
        data = np.r_[data, np.array([1e8, 1, -1e8, 0.5, np.nan], dtype)]
    expected = np.zeros((21, 4))
    np.add.at(expected, (rows, columns), data.astype(np.float64))
    indptr = np.searchsorted(rows, np.arange(22)).astype(index)
    matrix = Compressed((21, 4), indptr, columns.astype(index), data, 0)
    for room in (1, None):
        found, _ = regrouped(matrix, [3, 0, 2], workers=workers, room=room, in_order=False)
        np.testing.assert_array_equal(found, expected[:, [3, 0, 2]].T.astype(np.float32))


@forms
@pytest.mark.parametrize("workers", [1, 3])
def test_missing_values_and_bounds(form, workers):
    """Columns without a zero, without an entry, and without a finite value among the others."""
    matrix = example(40, 9, 0.4).toarray() - 0.5
    matrix[:, 0], matrix[:, 1], matrix[:, 2] = 7, 0, np.nan
    matrix[3, 3], matrix[5, 3], matrix[:, 4] = np.inf, -np.inf, np.linspace(-9, -3, 40)
    matrix[matrix == -0.5] = 0
    given = matrix_of(matrix if form == "dense" else sp.csr_array(matrix).asformat(form), "x")
    found, _ = regrouped(given, range(9), workers=workers)
    if form == "csr":  # coded already
        matrix[~np.isfinite(matrix)] = np.nan
    np.testing.assert_array_equal(found, matrix.T.astype(np.float32))


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
