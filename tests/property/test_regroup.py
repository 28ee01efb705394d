"""Regrouping: no way to share out the work changes the result."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.columns import CodedColumns, Rules, SparseColumns
from atlaswriter.engine.parts import Sorting, write_shares
from atlaswriter.engine.regroup import InMemory
from atlaswriter.engine.rows import rows_of
from atlaswriter.engine.run import Team
from atlaswriter.engine.sorted import SortedGenes
from atlaswriter.engine.strategy import choose, group, least_room
from atlaswriter.kernels import quantize
from atlaswriter.sources.base import Compressed


@st.composite
def problems(draw):
    """A CSR or CSC matrix with unsorted and repeated entries, genes, workers, room."""
    n_cells, n_genes = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    axis = draw(st.sampled_from([0, 1]))
    n_major, n_minor = (n_cells, n_genes) if axis == 0 else (n_genes, n_cells)
    slices = draw(st.lists(st.lists(st.integers(0, n_minor - 1), max_size=6), min_size=n_major, max_size=n_major))
    indptr = np.cumsum([0] + [len(one) for one in slices]).astype(draw(st.sampled_from([np.int32, np.int64])))
    indices = np.array([index for one in slices for index in one], draw(st.sampled_from([np.int32, np.int64])))
    data = np.arange(1, indices.size + 1).astype(draw(st.sampled_from([np.float32, np.float64, np.int32])))
    genes = draw(st.permutations(range(n_genes)))[: draw(st.integers(0, n_genes))]
    room = draw(st.integers(0, 400))
    return Compressed((n_cells, n_genes), indptr, indices, data, axis), genes, draw(st.integers(1, 4)), room


@settings(max_examples=150, derandomize=True, deadline=None)
@given(problems())
def test_columns_are_those_of_scipy(problem):
    matrix, genes, workers, room = problem
    make = sp.csr_array if matrix.axis == 0 else sp.csc_array
    dense = make((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape).toarray()
    found, told = [], []

    def as_float32(bounds):
        told.extend(bounds.tolist())
        return Rules(np.zeros((len(bounds), 3)), quantize.FLOAT32, 0, None, np.zeros(len(bounds), np.uint32))

    strategy = "spill" if room % 2 else "auto"
    room = max(room, least_room(matrix, len(genes), workers, strategy))
    choice = choose(matrix, len(genes), workers, room, strategy)
    with TemporaryDirectory() as folder, Team(workers, Budget()) as team:
        grouping = group(matrix, np.array(genes, np.int64), as_float32, team, choice, lambda: Path(folder))
        pieces = [batch.read(piece) for batch in grouping.batches(choice.batch_room) for piece in batch.pieces()]
        for columns in pieces:
            if isinstance(columns, CodedColumns):
                assert matrix.axis == 0
                rows, values = columns.entries >> 32, columns.entries.astype(np.uint32).view(np.float32)
            else:
                assert matrix.axis == 1
                assert isinstance(columns, SparseColumns)
                rows, values = columns.in_order().rows.astype(np.int64), columns.in_order().values
            offsets = columns.offsets if matrix.axis == 0 else columns.in_order().offsets
            for first, last in pairwise(offsets):
                assert (np.diff(rows[first:last]) > 0).all()
                full = np.zeros(matrix.shape[0])
                full[rows[first:last]] = values[first:last]
                found.append(full)
    if matrix.axis == 0:
        assert told == [[column.min(), column.max()] for column in found]
    assert len(found) == len(genes)
    for column, gene in zip(found, genes, strict=True):
        np.testing.assert_array_equal(column, dense[:, gene])


def as_float32(bounds):
    zeros = np.zeros(len(bounds), np.uint32)
    return Rules(np.zeros((len(bounds), 3)), quantize.FLOAT32, 0, bounds.copy(), zeros)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(problems().filter(lambda problem: problem[0].axis == 0), st.data())
def test_shares_and_ranges_change_nothing(problem, data):
    """However rows and genes are shared out between those who write and read."""
    matrix, genes, workers, _ = problem
    rows, genes = rows_of(matrix), np.array(genes, np.int64)
    n_rows = matrix.shape[0]
    ends = [0, *sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=3))), n_rows]
    shares = data.draw(st.permutations(list(pairwise(ends))))
    shares = [share for place, share in enumerate(shares) if share not in shares[:place]]
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, genes.size), max_size=2))), genes.size]
    sorting = Sorting.of(rows, genes, data.draw(st.integers(1, 30)), data.draw(st.integers(1, 7)))
    with TemporaryDirectory() as folder, Team(workers, Budget()) as team:
        (expected,) = (
            InMemory(rows, genes, as_float32, team, lambda size: None).batches(1 << 20) if genes.size else [None]
        )
        write_shares(rows, sorting, shares, Path(folder), team, lambda size: None)
        for first, last in pairwise(cuts):
            grouping = SortedGenes(sorting, shares, Path(folder), as_float32, 5, first, last)
            assert sum(piece.stop - piece.start for piece in grouping.pieces()) == last - first
            for piece in grouping.pieces():
                whole = expected.read(slice(first + piece.start, first + piece.stop))
                found = grouping.read(piece)
                np.testing.assert_array_equal(found.entries, whole.entries)
                np.testing.assert_array_equal(found.offsets, whole.offsets)
                np.testing.assert_array_equal(found.n_missing, whole.n_missing)
                np.testing.assert_array_equal(found.rules.bounds, whole.rules.bounds)
