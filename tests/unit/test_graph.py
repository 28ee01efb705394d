"""Edges of neighbour graphs: any form and any room give what scipy gives, in bounded memory."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.errors import BudgetError, InputError
from atlaswriter.formats.cellucid import graph
from atlaswriter.formats.cellucid.graph import EdgeStream, least_room, wanted_kernels, whole_room
from atlaswriter.kernels._jit import Kernel
from atlaswriter.sources.base import Compressed


class Stored:
    """A lazy array: hands out copies, and notes how much was asked for."""

    overhead = 0
    speed = 1e9

    def __init__(self, array, grain=1):
        self.array, self.grain = array, grain
        self.shape, self.dtype = array.shape, array.dtype
        self.slices = []

    def __getitem__(self, key):
        part = self.array[key].copy()
        self.slices.append(part.size)
        return part


class Made:
    """A matrix that is made some rows at a time."""

    dtype = np.dtype(np.float64)
    where = "made"

    def __init__(self, matrix, starts):
        self.matrix, self.starts, self.shape, self.entries = matrix, starts, matrix.shape, matrix.nnz

    def chunk(self, position):
        first, last = self.starts[position : position + 2]
        part = self.matrix[first:last]
        return Compressed(part.shape, part.indptr, part.indices, part.data, 0, self.where)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that everything is cut somewhere."""
    monkeypatch.setattr(graph, "_BLOCK_ENTRIES", 40)
    monkeypatch.setattr(graph, "_BLOCK_EDGES", 13)
    monkeypatch.setattr(graph, "_WINDOW_ROWS", 11)


def compressed(rows, columns, weights, n, *, index=np.int32, axis=0, in_order=True):
    """Built by hand, so that repeated and zero entries, and the order in a row, stay as they are."""
    major, minor = (columns, rows) if axis else (rows, columns)
    order = np.lexsort((minor, major)) if in_order else np.argsort(major, kind="stable")
    indptr = np.r_[0, np.cumsum(np.bincount(major, minlength=n))].astype(index)
    return Compressed((n, n), indptr, minor[order].astype(index), weights[order], axis, "obsp['x']")


def lazy(matrix, grain=1):
    if not isinstance(matrix, Compressed):
        return Stored(matrix, grain)
    arrays = (Stored(array, grain) for array in (matrix.indptr, matrix.indices, matrix.data))
    return Compressed(matrix.shape, *arrays, matrix.axis, matrix.where)


def expected_edges(rows, columns, weights, n):
    """Sources, destinations and the most neighbours by scipy."""
    linked = weights != 0
    pattern = sp.csr_array((np.ones(linked.sum(), np.int64), (rows[linked], columns[linked])), shape=(n, n))
    both = sp.csr_array(sp.triu(pattern + pattern.T, k=1))
    both.sort_indices()
    sources, destinations = sp.coo_array(both).coords
    return sources, destinations, int(np.bincount(np.r_[sources, destinations], minlength=1).max())


def entries(kind, n=150, seed=3):
    """Rows, columns, weights: with a diagonal, repeats, zeros, NaN, and cells without neighbours."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, n - 9, (2, 6 * n))
    if kind in ("upper", "lower"):
        below, above = np.minimum(rows, columns), np.maximum(rows, columns)
        rows, columns = (below, above) if kind == "upper" else (above, below)
    rows, columns = np.r_[rows, rows[:20], 7, 7], np.r_[columns, columns[:20], 7, 7]
    weights = rng.choice([0.0, 1.0, -1.0, np.nan, np.inf], rows.size)
    if kind == "star":
        rows, columns, weights = np.arange(1, n), np.zeros(n - 1, int), np.ones(n - 1)
    elif kind == "hub":
        rows, columns, weights = np.full(n, n // 2), np.arange(n), np.ones(n)
    elif kind == "empty":
        rows, columns, weights = rows[:0], columns[:0], weights[:0]
    if kind == "symmetric":
        rows, columns, weights = np.r_[rows, columns], np.r_[columns, rows], np.r_[weights, weights]
    return rows, columns, weights, n


def rooms_of(matrix):
    least, whole = least_room(matrix), whole_room(matrix)
    return sorted({least, least + 4, least + 40, (3 * least + whole) // 4, (least + whole) // 2, whole, 10 * whole})


def check(matrix, expected, rooms):
    """Every room gives the expected edges, in the same blocks."""
    sizes = set()
    for room in rooms:
        stream = EdgeStream(matrix, room)
        blocks = list(stream)
        for end in (0, 1):
            found = np.concatenate([np.empty(0, np.uint16), *(block[end] for block in blocks)])
            np.testing.assert_array_equal(found, expected[end])
        assert {end.dtype for block in blocks for end in block} <= {np.dtype(np.uint16)}
        assert (stream.n_edges, stream.max_neighbors) == (len(expected[0]), expected[2])
        sizes.add(tuple(block[0].size for block in blocks))
    (sizes_,) = sizes
    assert set(sizes_[:-1]) <= {graph._BLOCK_EDGES}


KINDS = ["asymmetric", "symmetric", "upper", "lower", "star", "hub", "empty"]


@pytest.mark.parametrize("in_order", [True, False], ids=["sorted", "unsorted"])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("axis", [0, 1], ids=["csr", "csc"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_blocks")
def test_sparse(kind, axis, index, in_order):
    given = entries(kind)
    matrix = compressed(*given, axis=axis, index=index, in_order=in_order)
    before = [array.copy() for array in (matrix.indptr, matrix.indices, matrix.data)]
    check(matrix, expected_edges(*given), rooms_of(matrix))
    for array, copy in zip((matrix.indptr, matrix.indices, matrix.data), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for grain in (1, 16):
        stored = lazy(matrix, grain)
        check(stored, expected_edges(*given), rooms_of(stored))
        longest = int(np.diff(matrix.indptr).max())
        assert max(stored.indptr.slices, default=0) <= graph._WINDOW_ROWS + 1
        for array in (stored.indices, stored.data):
            assert max(array.slices, default=0) <= max(graph._BLOCK_ENTRIES, longest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_blocks")
def test_dense(kind):
    rows, columns, weights, n = entries(kind)
    array = np.zeros((n, n), np.float32)
    array[rows, columns] = weights
    expected = expected_edges(*np.nonzero(array), array[np.nonzero(array)], n)
    for matrix in (array, np.asfortranarray(array), array != 0, lazy(array), lazy(array, 4)):
        check(matrix, expected, rooms_of(matrix))
        if isinstance(matrix, Stored):
            assert max(matrix.slices) <= matrix.grain * n


@pytest.mark.usefixtures("small_blocks")
def test_made_by_somebody_else():
    rows, columns, _, n = entries("asymmetric")
    matrix = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    made = Made(matrix, [0, 60, 60, 61, n])
    check(made, expected_edges(rows, columns, np.ones(len(rows)), n), rooms_of(made))


@pytest.mark.parametrize("index", [np.uint8, np.uint32, ">i4"])
@pytest.mark.usefixtures("small_blocks")
def test_other_index_dtypes(index):
    given = entries("asymmetric")
    whole = compressed(*given)
    matrix = Compressed(whole.shape, whole.indptr, whole.indices.astype(index), whole.data, 0)
    check(matrix, expected_edges(*given), rooms_of(matrix))


def test_no_cells_and_one():
    for n in (0, 1):
        matrix = Compressed((n, n), np.zeros(n + 1, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), 0)
        for one in (matrix, np.ones((n, n))):
            stream = EdgeStream(one, least_room(one))
            assert list(stream) == []
            assert (stream.n_edges, stream.max_neighbors) == (0, 0)


@pytest.mark.usefixtures("small_blocks")
def test_symmetric_graphs_are_merged_to_the_same(monkeypatch):
    """Both ways to the edges, of which symmetric graphs take the shorter one."""
    given = entries("symmetric")
    matrix = compressed(*given)
    taken = Counter()
    original = Kernel.__call__
    monkeypatch.setattr(Kernel, "__call__", lambda self, *args: (taken.update([self.name]), original(self, *args))[1])
    check(matrix, expected_edges(*given), rooms_of(matrix))
    assert set(taken) == {"edges.survey", "edges.take_upper"}
    taken.clear()
    monkeypatch.setattr(graph, "_is_mirrored", lambda sums: False)
    check(matrix, expected_edges(*given), rooms_of(matrix))
    assert set(taken) == {"edges.survey", "edges.count_below", "edges.make_starts", "edges.place_below", "edges.merge"}
    assert taken["edges.make_starts"] > len(rooms_of(matrix))  # several ranges of columns


@pytest.mark.usefixtures("small_blocks")
def test_every_single_entry_out_of_place_is_noticed():
    """Symmetric but for one entry below the diagonal, which is elsewhere: as many below as above."""
    rng = np.random.default_rng(0)
    pattern = np.triu(rng.random((40, 40)) < 0.2, 1)
    pattern |= pattern.T
    rows, columns = np.nonzero(np.tril(pattern))
    free_rows, free_columns = np.nonzero(np.tril(~pattern, -1))
    for i in range(len(rows)):
        j = rng.integers(len(free_rows))
        changed = pattern.copy()
        changed[rows[i], columns[i]] = False
        changed[free_rows[j], free_columns[j]] = True
        where = np.nonzero(changed)
        stream = EdgeStream(sp_matrix(changed), whole_room(sp_matrix(changed)))
        assert sum(block[0].size for block in stream) == pattern.sum() // 2 + 1
        assert stream.max_neighbors == expected_edges(*where, np.ones(len(where[0])), 40)[2]


def sp_matrix(pattern):
    stored = sp.csr_array(pattern)
    return Compressed(stored.shape, stored.indptr, stored.indices, stored.data, 0)


def test_ends_take_no_more_bytes_than_needed():
    for n, dtype in ((65_535, np.uint16), (65_536, np.uint32)):
        matrix = compressed(np.array([0, 5]), np.array([n - 1, 5]), np.ones(2), n)
        ((sources, destinations),) = EdgeStream(matrix, least_room(matrix))
        assert sources.dtype == destinations.dtype == dtype
        assert (sources.tolist(), destinations.tolist()) == ([0], [n - 1])


# ---------------------------------------------------------------- reading


def test_values_without_zeros_are_read_once():
    given = entries("symmetric")
    rows, columns, weights, n = given
    for values, passes in ((np.ones(len(rows)), 1), (weights, 2)):
        stored = lazy(compressed(rows, columns, values, n))
        room = least_room(stored)
        for array in (stored.indptr, stored.indices, stored.data):
            array.slices.clear()
        list(EdgeStream(stored, room))
        assert sum(stored.indices.slices) == 2 * stored.nnz
        assert sum(stored.data.slices) == passes * stored.nnz


def test_whole_room_reads_four_times():
    stored = lazy(compressed(*entries("asymmetric")))
    list(EdgeStream(stored, whole_room(stored)))
    assert sum(stored.indices.slices) <= 4 * stored.nnz


@pytest.mark.parametrize("wrong", [-1, 150, 2**31 - 1, -(2**31)])
def test_indices_outside_of_the_matrix(wrong):
    matrix = compressed(*entries("asymmetric"))
    matrix.indices[500] = wrong
    with pytest.raises(InputError, match=r"obsp\['x'\]: damaged sparse matrix: indices .* → write it again"):
        list(EdgeStream(lazy(matrix), whole_room(matrix) * 2))


@pytest.mark.parametrize(
    ("place", "value"), [(0, 3), (0, -1), (20, 10**6), (20, -5), (70, 0), (150, 5), (150, 10**6)], ids=str
)
@pytest.mark.usefixtures("small_blocks")
def test_row_pointers_that_mislead(place, value):
    matrix = compressed(*entries("asymmetric"), index=np.int64)
    matrix.indptr[place] = value
    stored = lazy(matrix)
    with pytest.raises(InputError, match=r"obsp\['x'\]: damaged sparse matrix: indptr .* → write it again"):
        list(EdgeStream(stored, 1 << 40))


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "upper"])
@pytest.mark.parametrize("after", range(5, 200, 20))
@pytest.mark.usefixtures("small_blocks")
def test_a_matrix_that_changes_while_it_is_read_does_no_harm(kind, after):
    """It may not be noticed, and then what comes out is of no use; but nothing is written outside of its place."""
    rng = np.random.default_rng(after)
    stored = lazy(compressed(*entries(kind)))
    original = Stored.__getitem__

    class Changing(Stored):
        def __getitem__(self, key):
            part = original(self, key)
            return part if len(self.slices) < after else np.sort(rng.integers(0, 150, part.size)).astype(part.dtype)

    indices = Changing(stored.indices.array)
    changing = Compressed(stored.shape, stored.indptr, indices, stored.data, 0, stored.where)
    stream, found = EdgeStream(changing, least_room(changing)), 0
    try:
        for sources, destinations in stream:
            found += sources.size
            assert max(sources.max(), destinations.max()) < 150
    except InputError as error:
        assert "changed while it was read" in str(error)  # noqa: PT017
    assert found <= 2 * stored.nnz


def test_another_number_of_edges_than_was_counted_is_noticed():
    whole = compressed(*entries("symmetric"))
    stored = lazy(whole)

    class Emptied(Stored):
        def __getitem__(self, key):
            return super().__getitem__(key) * (len(self.slices) < 2)

    changing = Compressed(stored.shape, stored.indptr, Emptied(whole.indices), stored.data, 0, stored.where)
    with pytest.raises(InputError, match=r"obsp\['x'\]: changed while it was read → export it again"):
        list(EdgeStream(changing, whole_room(changing)))


# ---------------------------------------------------------------- memory


def neighbours(n_cells, *, symmetric):
    rng = np.random.default_rng(1)
    columns = rng.integers(0, n_cells, (n_cells, 8), dtype=np.int32).ravel()
    matrix = sp.csr_array((np.ones(columns.size, np.float32), columns, np.arange(0, columns.size + 1, 8)))
    matrix.resize(n_cells, n_cells)
    matrix.sum_duplicates()
    if symmetric:
        matrix = sp.csr_array(matrix + matrix.T)
    return Compressed(matrix.shape, matrix.indptr, matrix.indices, matrix.data, 0)


def shuffled_rows(matrix):
    """Its rows backwards."""
    backwards = sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(backwards.indptr))
    order = np.lexsort((-matrix.indices, rows))
    return Compressed(matrix.shape, matrix.indptr, matrix.indices[order], matrix.data, 0)


@pytest.mark.parametrize("form", ["memory", "lazy", "int64", "zeros", "unsorted"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_room_bounds_memory(form, symmetric):
    matrix = neighbours(100_000, symmetric=symmetric)
    if form == "unsorted":
        matrix = shuffled_rows(matrix)
    if form == "zeros":
        matrix.data[::5] = 0
    if form == "int64":
        indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
        matrix = Compressed(matrix.shape, indptr, indices, matrix.data.astype(np.float64), 0)
    if form != "memory":
        matrix = lazy(matrix)
    least, whole = least_room(matrix), whole_room(matrix)
    peaks = []
    for room in (least, (least + whole) // 2, whole):
        tracemalloc.start()
        n_edges = sum(block[0].size for block in EdgeStream(matrix, room))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] <= room + (64 << 10)
        assert n_edges > 600_000
    if symmetric and form != "zeros":
        assert max(peaks) < least


@pytest.mark.parametrize("wrap", [lambda array: array, lazy])
def test_room_bounds_memory_of_dense_ones(wrap):
    matrix = wrap(np.random.default_rng(0).random((1500, 1500), np.float32))
    for room in (least_room(matrix), whole_room(matrix)):
        tracemalloc.start()
        for _ in EdgeStream(matrix, room):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= room + (64 << 10)


def test_a_room_too_small_is_refused():
    matrix = compressed(*entries("asymmetric"))
    with pytest.raises(BudgetError, match="the neighbour graph needs"):
        EdgeStream(matrix, least_room(matrix) - 1)


def test_cells_have_to_fit_into_32_bits():
    n = 2**32
    pointers = Stored(np.broadcast_to(np.int64(0), n + 1))
    nothing = np.empty(0, np.int32)
    with pytest.raises(InputError, match="more than 4,294,967,295 cells"):
        EdgeStream(Compressed((n, n), pointers, nothing, nothing, 0), 1 << 40)


# ---------------------------------------------------------------- kernels


@pytest.mark.parametrize("form", ["int32", "int64", "dense", "made"])
@pytest.mark.usefixtures("small_blocks")
def test_wanted_kernels_are_those_called(form, monkeypatch):
    called = set()
    original = Kernel.__call__

    def call(self, *args):
        from numba import typeof
        from numba.core.sigutils import normalize_signature

        types = tuple(typeof(argument) for argument in args)
        (signature,) = {text for text in self.signatures if fits(types, normalize_signature(text)[0])}
        called.add((self.name, signature))
        return original(self, *args)

    def fits(types, declared):
        return all(a == b or b.name == "int64" for a, b in zip(types, declared, strict=True))

    monkeypatch.setattr(Kernel, "__call__", call)
    wanted = set()
    for kind in ("asymmetric", "symmetric", "unsorted"):
        rows, columns, weights, n = entries(kind)
        matrix = compressed(rows, columns, weights, n, index=np.dtype(form if "int" in form else "int32"))
        if kind == "unsorted":
            matrix = shuffled_rows(matrix)
        if form == "dense":
            matrix = np.zeros((n, n), np.float32)
            matrix[rows, columns] = weights
        if form == "made":
            stored = (matrix.data, matrix.indices, matrix.indptr)
            matrix = Made(sp.csr_array(stored, shape=matrix.shape), [0, 50, n])
        wanted |= {(one.name, signature) for one, signature in wanted_kernels(matrix, n)}
        list(EdgeStream(matrix, least_room(matrix)))
    assert called <= wanted
    if form.startswith("int"):
        assert wanted == called
