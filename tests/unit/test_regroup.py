"""Gene columns from any matrix, for any genes, room and number of workers."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.engine import rows as engine_rows
from atlaswriter.engine import strategy as strategies
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.columns import CodedColumns, Rules, SparseColumns
from atlaswriter.engine.rows import work_dtype
from atlaswriter.engine.run import Team
from atlaswriter.engine.strategy import choose, group, least_room, whole_room
from atlaswriter.errors import InputError, OutputError
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


def regrouped(matrix, genes, *, workers=1, room=None, in_order=True, strategy="auto", folder=None, load=True):
    """Genes × cells, and the bytes of each batch that was held."""
    genes = np.asarray(genes, np.int64)
    room = whole_room(matrix, genes.size, workers, strategy) if room is None else room
    choice = choose(matrix, genes.size, workers, room, strategy)
    choice = choice if load else replace(choice, load=False)
    columns, n_missing, sizes, rules = [], [], [], Values()
    with Team(workers, Budget()) as team:
        grouping = group(matrix, genes, rules, team, choice, lambda: folder)
        assert grouping.sizes.shape == (genes.size,)
        for batch in grouping.batches(choice.batch_room):
            sizes.append(0)
            for piece in batch.pieces():
                assert batch.first + piece.start == len(columns)
                read = batch.read(piece)
                found = dense_columns(read, matrix.shape[0], in_order)
                columns += found[0]
                n_missing += found[1]
                if isinstance(read, CodedColumns):
                    sizes[-1] += read.entries.nbytes
                    if in_order:
                        assert batch.sizes[piece].tolist() == np.diff(read.offsets).tolist()
                elif not isinstance(read, SparseColumns):
                    sizes[-1] += sum(column.nbytes for column in read)
    assert len(columns) == genes.size
    for place, (column, missing) in enumerate(zip(columns, n_missing, strict=True)):
        if missing is not None:
            finite = column[np.isfinite(column)].astype(np.float64)
            expected = [finite.min(), finite.max()] if finite.size else [np.inf, -np.inf]
            assert rules.bounds[place].tolist() == expected
            assert missing == column.size - finite.size
    return np.array(columns).reshape(genes.size, matrix.shape[0]), sizes


class OnDisk:
    """An array that is read when it is sliced."""

    grain, overhead, speed = 1, 0, 1e9

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.largest = 0

    def __getitem__(self, key):
        block = np.ascontiguousarray(self._array[key]).copy()
        self.largest = max(self.largest, block.size)
        return block


def stored(matrix):
    """The same matrix, read when it is sliced."""
    if isinstance(matrix, Compressed):
        parts = (OnDisk(part) for part in (matrix.indptr, matrix.indices, matrix.data))
        return Compressed(matrix.shape, *parts, matrix.axis, "X")
    return OnDisk(matrix)


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


ways = pytest.mark.parametrize("strategy", ["memory", "spill"])


@ways
@forms
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("on_disk", [False, True])
def test_any_room(form, workers, strategy, on_disk, tmp_path):
    matrix = as_form(example(), form)
    expected, sizes = regrouped(matrix, range(23))
    assert len(sizes) == 1
    matrix = stored(matrix) if on_disk else matrix
    least, most = (limit(matrix, 23, workers, strategy) for limit in (least_room, whole_room))
    assert least <= most
    for step, room in enumerate((least, (3 * least + most) // 4, (least + most) // 2, most)):
        folder = tmp_path / str(step)
        found, sizes = regrouped(matrix, range(23), workers=workers, room=room, strategy=strategy, folder=folder)
        np.testing.assert_array_equal(found, expected)
        assert form == "csc" or strategy == "spill" or len(sizes) > 1 or step > 0
        assert folder.exists() == (form == "csr" and strategy == "spill")


def test_less_room_is_taken(tmp_path):
    matrix = stored(as_form(example(3000, 100), "csr"))
    least = least_room(matrix, 100, 1, "memory")
    for room in np.linspace(least, whole_room(matrix, 100, 1, "memory"), 6).astype(int).tolist():
        choice = choose(matrix, 100, 1, room)
        assert choice.room + choice.batch_room <= room
        _, sizes = regrouped(matrix, range(100), room=room)
        assert max(sizes) <= max(choice.batch_room, 3000 * 8)


@ways
def test_stored_rows_are_read_in_blocks(strategy, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_rows, "BLOCK_ENTRIES", 64)
    monkeypatch.setattr(engine_rows.StoredRows.blocks, "__defaults__", (64,))
    monkeypatch.setattr(strategies, "_LEAST_ENTRIES", 64)
    monkeypatch.setattr(strategies, "_PART_ENTRIES", 64)
    matrix = stored(as_form(example(200, 23, 0.4), "csr"))
    found, _ = regrouped(matrix, range(23), workers=2, strategy=strategy, folder=tmp_path / "spill", load=False)
    np.testing.assert_array_equal(found, example(200, 23, 0.4).toarray().T)
    assert matrix.indices.largest <= 64
    assert len(list(tmp_path.glob("spill/*/rows-*"))) == (2 if strategy == "spill" else 0)


@ways
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_in_small_blocks(monkeypatch, workers, strategy, tmp_path):
    monkeypatch.setattr(engine_rows.StoredRows.blocks, "__defaults__", (3,))
    matrix = example()
    found, _ = regrouped(as_form(matrix, "csr"), range(23), workers=workers, strategy=strategy, folder=tmp_path / "s")
    np.testing.assert_array_equal(found, matrix.toarray().T)


@ways
@pytest.mark.parametrize("index", [-1, 23, 2**31 - 1])
def test_indices_that_leave_a_stored_matrix_are_refused(index, strategy, tmp_path):
    whole = as_form(example(), "csr")
    whole.indices[7] = index
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        with pytest.raises(InputError, match=r"X: damaged sparse matrix: indices go from .* 23"):
            regrouped(stored(whole), range(23), workers=workers, strategy=strategy, folder=folder)


def test_rows_of_a_stored_csc_that_leave_it_are_refused():
    whole = as_form(example(), "csc")
    whole.indices[7] = 57
    with pytest.raises(InputError, match="damaged sparse matrix"):
        regrouped(stored(whole), range(23))


class MadeInChunks:
    """What a sparse dask array is to the engine."""

    def __init__(self, matrix, step):
        self.shape, self.dtype, self.where, self.entries = matrix.shape, matrix.data.dtype, "X", matrix.nnz
        self.starts = [*range(0, matrix.shape[0], step), matrix.shape[0]]
        self._rows, self.made = matrix, 0

    def chunk(self, position):
        self.made += 1
        return matrix_of(self._rows[self.starts[position] : self.starts[position + 1]], "X")


@pytest.mark.parametrize(("strategy", "made"), [("memory", 2), ("spill", 1)])
@pytest.mark.parametrize("workers", [1, 3])
def test_matrix_made_in_chunks(strategy, made, workers, tmp_path):
    chunks = MadeInChunks(example(), 10)
    found, _ = regrouped(chunks, range(23), workers=workers, strategy=strategy, folder=tmp_path / "spill")
    np.testing.assert_array_equal(found, example().toarray().T)
    assert chunks.made == made * 6


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"temporary files cannot be written \(No space left.*--spill-dir"):
        regrouped(as_form(example(), "csr"), range(23), strategy="spill", folder=tmp_path / "spill")


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
def test_unsorted_and_repeated_entries_add_up(axis, index, workers, tmp_path):
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
    for number, strategy in enumerate(("auto", "memory", "spill")):
        folder = tmp_path / str(number)
        found, _ = regrouped(
            matrix, range(12), workers=workers, room=number, in_order=False, strategy=strategy, folder=folder
        )
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


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, bool])
def test_repeated_entries_of_rows_add_up_in_float64(workers, index, dtype, monkeypatch, tmp_path):
    """Also where they overflow or cancel out in their dtype, stand in different blocks of rows, or are NaN."""
    monkeypatch.setattr(engine_rows.StoredRows.blocks, "__defaults__", (5,))
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
    for strategy, room in (("memory", 1), ("memory", None), ("spill", None)):
        folder = tmp_path / "spill"
        found, _ = regrouped(
            matrix, [3, 0, 2], workers=workers, room=room, in_order=False, strategy=strategy, folder=folder
        )
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
