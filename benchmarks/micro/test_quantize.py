"""Values to codes: the kernels, and the encoder that calls them for a whole gene."""
# ruff: noqa: ANN001, ANN201 - fixtures, as in tests

from __future__ import annotations

import numpy as np
import pytest

from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import quantize

BITS = pytest.mark.parametrize("bits", [8, 16, None])


def expected(values, bits):
    """Codes of a gene, by NumPy."""
    if bits is None:
        return values.view(np.uint32)
    top = (1 << bits) - 2
    return np.floor(values.astype(np.float64) * (top / float(values.max())) + 0.5).astype(f"u{bits // 8}")


def rules_of(column, bits):
    encoder = ValueEncoder(int(column.rows[-1]) + 1, bits, "nearest")
    return encoder.rules(np.array([[0.0, column.values.max()]]))


def test_bounds(measure, column, whole):
    low_high, n_missing = np.empty((1, 2)), np.empty(1, np.int64)
    measure(
        {"non-zero": column.values.size, "byte": column.values.nbytes},
        quantize.bounds, column.values, column.offsets, whole.size, low_high, n_missing,
    )  # fmt: skip
    assert low_high.tolist() == [[0.0, whole.max()]]
    assert n_missing[0] == 0


@BITS
def test_pack(measure, column, whole, bits):
    rules, entries = rules_of(column, bits), np.empty(column.rows.size, np.int64)
    measure(
        {"non-zero": column.rows.size},
        quantize.pack, column.rows, column.values, column.offsets, rules.table, rules.mode, rules.top, entries,
    )  # fmt: skip
    assert np.array_equal(entries >> 32, column.rows)
    assert np.array_equal(entries & 0xFFFFFFFF, expected(whole, bits)[column.rows])


@BITS
def test_dense(measure, column, whole, bits):
    rules, codes = rules_of(column, bits), np.empty(whole.size, f"u{(bits or 32) // 8}")
    measure(
        {"cell": whole.size, "byte": whole.nbytes},
        quantize.dense, whole, rules.table[0], rules.mode, rules.top, codes,
    )  # fmt: skip
    assert np.array_equal(codes, expected(whole, bits))


@BITS
def test_scatter(measure, column, whole, bits):
    codes = expected(whole, bits)
    entries = column.rows.astype(np.int64) << 32 | codes[column.rows]
    out = np.zeros_like(codes)
    measure({"non-zero": entries.size}, quantize.scatter, entries, out)
    assert np.array_equal(out, codes)


@BITS
def test_encode_sparse(measure, column, whole, bits):
    encoder = ValueEncoder(whole.size, bits, "nearest")
    encoded = measure({"non-zero": column.rows.size, "cell": whole.size}, encoder.encode, column)
    assert np.array_equal(encoder.dense(encoded, 0).view(f"u{(bits or 32) // 8}"), expected(whole, bits))


def test_encode_truncated(measure, column, whole):
    encoder = ValueEncoder(whole.size, 8, "truncate")
    encoded = measure({"non-zero": column.rows.size, "cell": whole.size}, encoder.encode, column)
    error = expected(whole, 8).astype(int) - encoder.dense(encoded, 0)
    assert error.min() >= 0
    assert error.max() <= 1
