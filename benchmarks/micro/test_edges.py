"""Edges of a graph: each kernel, on a symmetric graph of 15 neighbours or more, and all together."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.formats.cellucid.graph import EdgeStream, whole_room
from atlaswriter.kernels import edges


@pytest.fixture(scope="module")
def matrix(atlas):
    return atlas.obsp["connectivities"]


@pytest.fixture(scope="module")
def block(matrix):
    """All rows."""
    return matrix.indptr.astype(np.int64), matrix.indices


@pytest.fixture(scope="module")
def upper(matrix):
    """Sources and destinations as they must come out."""
    found = sp.triu(matrix, k=1, format="csr").tocoo()
    return found.row.astype(np.uint32), found.col.astype(np.uint32)


@pytest.fixture(scope="module")
def lower(matrix):
    """Entries below the diagonal, a graph that names each edge at its larger end only; and its block."""
    found = sp.tril(matrix, k=-1, format="csr")
    return found, (found.indptr.astype(np.int64), found.indices)


@pytest.fixture(scope="module")
def turned(lower):
    """The same entries, by column."""
    return lower[0].tocsc()


def state():
    made = np.zeros(edges.STATE, np.int64)
    made[edges.ENTRY] = -1
    return made


def test_rows_ascend(measure, block):
    assert measure({"entry": block[1].size, "byte": block[1].nbytes}, edges.rows_ascend, *block)


def test_sort_rows(measure_fresh, block):
    """Of rows in random order."""
    indptr, indices = block
    rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    mixed = indices[np.lexsort((np.random.default_rng(0).random(indices.size), rows))]
    _, given = measure_fresh({"entry": indices.size}, edges.sort_rows, lambda: (indptr, mixed.copy()))
    assert np.array_equal(given[1], indices)


def test_survey(measure_fresh, block, upper):
    good, given = measure_fresh(
        {"entry": block[1].size}, edges.survey, lambda: (*block, 0, np.zeros(edges.SUMS, np.uint64))
    )
    sums = given[3]
    assert good
    assert sums[edges.BELOW] == sums[edges.ABOVE] == upper[0].size
    assert sums[edges.HASH] == sums[edges.OTHER_HASH] == 0


def test_take_upper(measure_fresh, block, upper):
    out = np.empty_like(upper[0]), np.empty_like(upper[1])
    units = {"entry": block[1].size, "edge": upper[0].size}
    done, _ = measure_fresh(units, edges.take_upper, lambda: (*block, 0, state(), *out))
    assert done
    assert np.array_equal(out, upper)


def test_count_below(measure_fresh, lower, turned):
    n_cells = lower[0].shape[0]
    units = {"entry": lower[0].nnz}
    _, given = measure_fresh(units, edges.count_below, lambda: (*lower[1], 0, np.zeros(n_cells, np.uint32)))
    assert np.array_equal(given[3], np.diff(turned.indptr))


def test_make_starts(measure_fresh, turned):
    counts = np.diff(turned.indptr).astype(np.uint32)
    found, given = measure_fresh({"cell": counts.size}, edges.make_starts, lambda: (counts.copy(), 0, turned.nnz))
    assert found == (counts.size, turned.nnz)
    assert np.array_equal(given[0], turned.indptr[:-1])


def test_place_below(measure_fresh, lower, turned):
    below, n_cells = np.empty(turned.nnz, np.uint32), turned.shape[0]

    def arguments():
        return *lower[1], 0, 0, n_cells, turned.indptr[:-1].astype(np.uint32), below

    measure_fresh({"entry": turned.nnz}, edges.place_below, arguments)
    assert np.array_equal(below, turned.indices)


def test_merge(measure_fresh, lower, turned, upper):
    out = np.empty_like(upper[0]), np.empty_like(upper[1])
    ends, below = turned.indptr[1:].astype(np.uint32), turned.indices.astype(np.uint32)

    def arguments():
        return *lower[1], 0, 0, ends, below, np.zeros(ends.size, np.uint32), state(), *out

    done, _ = measure_fresh({"entry": turned.nnz, "edge": turned.nnz}, edges.merge, arguments)
    assert done
    assert np.array_equal(out, upper)


def test_edge_stream(measure, graph, upper):
    """From a matrix in memory to sources and destinations."""
    found = measure({"entry": graph.nnz, "edge": upper[0].size}, lambda: list(EdgeStream(graph, whole_room(graph))))
    assert np.array_equal(np.concatenate([sources for sources, _ in found]), upper[0])
    assert np.array_equal(np.concatenate([destinations for _, destinations in found]), upper[1])
