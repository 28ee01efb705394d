"""Columns of numbers to stored values: exact ends, constants, missing values, odd ranges."""

import math

import numpy as np
import pytest

from atlaswriter.engine.regroup import SparseColumn
from atlaswriter.formats.cellucid.values import ValueEncoder

TOP = {8: 254, 16: 65534}


def decode(codes, low, high, bits):
    """As the viewer does: in float64, rounded once to float32."""
    step = (high - low) / TOP[bits]
    values = (low + codes.astype(np.float64) * step).astype(np.float32)
    values[codes == TOP[bits] + 1] = np.nan
    return values


def encode(values, bits, quantizer="nearest"):
    result = ValueEncoder(len(values), bits, quantizer).encode(np.asarray(values))
    return result.content.copy(), result.bounds


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("low", "high"), [(-99633.28125, 99994.2109375), (-99922.4375, 99958.34375), (0, 2**-149), (-3.4e38, 3.4e38)]
)
def test_ends_of_awkward_ranges_are_exact(low, high, bits):
    values = np.array([low, high, low, high], np.float64)
    codes, bounds = encode(values, bits)
    assert codes.tolist() == [0, TOP[bits]] * 2
    assert bounds == (low, high)
    assert decode(codes, *bounds, bits).tolist() == values.astype(np.float32).tolist()


def test_subnormal_range():
    for dtype in (np.float32, np.float64):
        values = np.array([0, 2.0**-149, 2.0**-148], dtype)
        assert encode(values, 8)[0].tolist() == [0, 127, 254]
        assert encode(values, 16)[0].tolist() == [0, 32767, 65534]
    column = SparseColumn(np.array([1, 2], np.uint32), values[1:])
    assert ValueEncoder(3, 8, "nearest").encode(column).content.tolist() == [0, 127, 254]


def test_smallest_float64_range():
    assert encode(np.array([0, 5e-324, 1e-323]), 8)[0].tolist() == [0, 127, 254]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
@pytest.mark.parametrize("value", [0.0, -0.0, 3.0, -12.5, 2.0**-149, 3.4028235e38, -3.4028235e38, 1e17, 16777216.0])
def test_constants_decode_exactly(value, bits, quantizer):
    codes, (low, high) = encode(np.full(5, value, np.float32), bits, quantizer)
    assert codes.tolist() == [0] * 5
    assert low < high
    assert math.isfinite(high)
    assert decode(codes, low, high, bits).tolist() == [float(np.float32(value))] * 5


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
def test_nothing_finite(bits, quantizer):
    codes, bounds = encode(np.array([np.nan, np.inf, -np.inf], np.float32), bits, quantizer)
    assert codes.tolist() == [TOP[bits] + 1] * 3
    assert bounds == (0.0, 1.0)


def test_float32_keeps_values_and_marks_missing():
    result = ValueEncoder(4, None, "nearest").encode(np.array([1.5, np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(result.content, np.array([1.5, np.nan, np.nan, np.nan], np.float32))
    assert (result.bounds, result.n_missing) == (None, 3)


@pytest.mark.parametrize("bits", [None, 8, 16])
@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_columns_are_encoded_as_dense_ones(bits, quantizer, dtype):
    rng = np.random.default_rng(4)
    for low, nnz in ((0, 30), (-1, 30), (1, 100), (1, 0), (-3, 99)):
        rows = np.sort(rng.choice(100, nnz, replace=False)).astype(np.uint32)
        values = (rng.random(nnz) + low).astype(dtype)
        if nnz:
            values[rng.integers(nnz)] = np.nan
        dense = np.zeros(100, dtype)
        dense[rows] = values
        sparse = ValueEncoder(100, bits, quantizer).encode(SparseColumn(rows, values))
        plain = ValueEncoder(100, bits, quantizer).encode(dense)
        np.testing.assert_array_equal(sparse.content, plain.content)
        assert (sparse.bounds, sparse.n_missing) == (plain.bounds, plain.n_missing)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_dtype_of_numbers_is_encoded(dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    codes, bounds = encode(values, 8)
    assert codes.tolist() == [0, 254, 254, 0, 254]
    assert bounds == (0.0, 1.0)


def test_results_live_until_the_next_column_of_the_thread():
    """Buffers are shared within a thread, never between threads."""
    import threading

    encoder = ValueEncoder(3, 8, "nearest")
    mine = encoder.encode(np.array([0.0, 1, 2])).content
    other = []
    thread = threading.Thread(target=lambda: other.append(encoder.encode(np.array([2.0, 1, 0])).content))
    thread.start()
    thread.join()
    assert mine.tolist() == [0, 127, 254]
    assert other[0].tolist() == [254, 127, 0]
    encoder.encode(np.array([5.0, 5, 6]))
    assert mine.tolist() == [0, 0, 254]


@pytest.mark.parametrize("values", [np.array([0, 2**53 + 1, 2**60]), np.array([2**64 - 1, 0, 1], np.uint64)])
def test_long_integers(values):
    codes, (low, high) = encode(values, 16)
    assert (low, high) == (0.0, float(values.max()))
    assert codes[np.argmax(values)] == 65534
