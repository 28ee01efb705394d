"""From cells × genes to gene after gene: the kernels of regrouping."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import numpy as np
import pytest

from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import csr


@pytest.fixture(scope="module")
def rows(expression):
    """Arguments that describe all rows."""
    return expression.indptr.astype(np.int64), expression.indices, expression.data


@pytest.fixture(scope="module")
def bounds(by_gene):
    return np.array([[0.0, part.max(initial=0)] for part in np.split(by_gene.data, by_gene.indptr[1:-1])])


@pytest.fixture(scope="module")
def rules(by_gene, bounds):
    return ValueEncoder(by_gene.shape[0], 8, "nearest").rules(bounds)


@pytest.fixture(scope="module")
def coded(by_gene, rules):
    """Entries as they must come out."""
    scales = np.repeat(rules.table[:, 2], np.diff(by_gene.indptr))
    return by_gene.indices.astype(np.int64) << 32 | np.floor(by_gene.data * scales + 0.5).astype(np.int64)


def slots(n_genes):
    return np.arange(n_genes, dtype=np.int32)


def test_in_order(measure, column):
    n_bytes = column.rows.nbytes
    assert measure({"non-zero": column.rows.size, "byte": n_bytes}, csr.in_order, column.rows, column.offsets)


def test_measure(measure_fresh, expression, rows, by_gene, bounds):
    n_genes = expression.shape[1]

    def arguments():
        low_high = np.full(n_genes, np.inf, np.float32), np.full(n_genes, -np.inf, np.float32)
        last_row, counts, n_missing = np.full(n_genes, -1), np.zeros(n_genes, np.int64), np.zeros(n_genes, np.int64)
        return *rows, 0, 0, last_row, counts, *low_high, n_missing

    repeats, given = measure_fresh({"non-zero": expression.nnz}, csr.measure, arguments)
    assert not repeats
    assert np.array_equal(given[6], np.diff(by_gene.indptr))
    assert np.array_equal(given[8], bounds[:, 1].astype(np.float32))


def test_place(measure_fresh, expression, rows, by_gene, rules, coded):
    starts, entries = by_gene.indptr[:-1].astype(np.int64), np.empty(expression.nnz, np.int64)

    def arguments():
        return *rows, 0, 0, slots(starts.size), starts.copy(), rules.table, rules.mode, rules.top, entries

    measure_fresh({"non-zero": expression.nnz}, csr.place, arguments)
    assert np.array_equal(entries, coded)


def grouped(expression, rows, by_gene):
    """Arguments of `csr.group`."""
    starts, n = by_gene.indptr[:-1].astype(np.int64), expression.nnz
    last, gaps, values = np.zeros(starts.size, np.int64), np.empty(n, np.uint32), np.empty(n, np.float32)
    return *rows, 0, slots(starts.size), starts, last, gaps, values


def test_group(measure_fresh, expression, rows, by_gene):
    _, given = measure_fresh({"non-zero": expression.nnz}, csr.group, lambda: grouped(expression, rows, by_gene))
    *_, gaps, values = given
    assert np.array_equal(values, by_gene.data)
    first = slice(by_gene.indptr[0], by_gene.indptr[1])
    assert np.array_equal(np.cumsum(gaps[first]), by_gene.indices[first])


def test_append(measure_fresh, expression, rows, by_gene, rules, coded):
    *_, gaps, values = given = grouped(expression, rows, by_gene)
    csr.group(*given)
    counts, starts = np.diff(by_gene.indptr).astype(np.int64), by_gene.indptr[:-1].astype(np.int64)
    entries = np.empty(expression.nnz, np.int64)

    def arguments():
        return counts, gaps, values, 0, rules.table, rules.mode, rules.top, starts.copy(), entries

    measure_fresh({"non-zero": expression.nnz}, csr.append, arguments)
    assert np.array_equal(entries, coded)
