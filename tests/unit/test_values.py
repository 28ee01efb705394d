"""Columns of numbers to stored values: exact ends, constants, missing values, odd ranges."""

import math
import threading

import numpy as np
import pytest

from atlaswriter.engine.columns import SparseColumns
from atlaswriter.formats.cellucid.values import ValueEncoder, spread

TOP = {8: 254, 16: 65534}


def decode(codes, low, high, bits):
    """As the viewer does: in float64, rounded once to float32."""
    step = (high - low) / TOP[bits]
    values = (low + codes.astype(np.float64) * step).astype(np.float32)
    values[codes == TOP[bits] + 1] = np.nan
    return values


def encode(values, bits, quantizer="nearest"):
    result = ValueEncoder(len(values), bits, quantizer).encode_dense(np.asarray(values))
    return result.payload.whole().copy(), tuple(result.bounds)


def sparse(*columns, dtype=np.float32):
    """Columns of (rows, values), one behind the other."""
    rows, values = zip(*columns, strict=True)
    offsets = np.cumsum([0, *(len(one) for one in rows)])
    return SparseColumns(np.concatenate(rows).astype(np.uint32), np.concatenate(values).astype(dtype), offsets)


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
    for dtype in (np.float32, np.float64):
        encoder = ValueEncoder(3, 8, "nearest")
        encoded = encoder.encode(sparse(([1, 2], values[1:]), dtype=dtype))
        assert encoder.dense(encoded, 0).tolist() == [0, 127, 254]


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
    result = ValueEncoder(4, None, "nearest").encode_dense(np.array([1.5, np.inf, -np.inf, np.nan]))
    codes = result.payload.whole()
    np.testing.assert_array_equal(codes, np.array([1.5, np.nan, np.nan, np.nan], np.float32))
    assert (codes.dtype, result.bounds, result.n_missing) == (np.float32, [], 3)


def example_columns(dtype, n_cells=100):
    """Rows and values of sparse, full and empty columns, on either side of 0 or on both, some with NaN."""
    rng = np.random.default_rng(4)
    columns = []
    for low, nnz in ((0, 30), (-1, 30), (1, 100), (1, 0), (-3, 99), (-3, 100), (-0.5, 100), (0, 1), (5, 99)):
        rows = np.sort(rng.choice(n_cells, nnz, replace=False))
        values = (rng.random(nnz) + low).astype(dtype)
        if nnz > 1:
            values[rng.integers(nnz)] = np.nan
        columns.append((rows, values))
    columns.append((np.arange(n_cells), np.full(n_cells, -2.5, dtype)))
    columns.append((np.arange(3), np.array([np.inf, np.nan, -np.inf], dtype)))
    return columns


@pytest.mark.parametrize("bits", [None, 8, 16])
@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_columns_are_encoded_as_dense_ones(bits, quantizer, dtype):
    """Each alone, and all in one call: no column has an influence on another."""
    columns = example_columns(dtype)
    encoder = ValueEncoder(100, bits, quantizer)
    for part in ([one] for one in columns), [columns], [columns[::-1]]:
        for chosen in part:
            encoded = encoder.encode(sparse(*chosen, dtype=dtype))
            entries, offsets, rules = encoded.entries.copy(), encoded.offsets, encoded.rules
            assert len(encoded) == len(chosen) == len(rules.table) == len(rules.backgrounds)
            assert (entries.dtype, rules.backgrounds.dtype) == (np.int64, np.dtype(f"u{(bits or 32) // 8}"))
            assert offsets.tolist() == np.cumsum([0, *(len(rows) for rows, _ in chosen)]).tolist()
            for place, (rows, values) in enumerate(chosen):
                full = np.zeros(100, dtype)
                full[rows] = values
                plain = encoder.encode_dense(full)
                stored = plain.payload.whole().copy()
                assert stored.dtype == (np.float32 if bits is None else rules.backgrounds.dtype)
                np.testing.assert_array_equal(encoder.dense(encoded, place), stored)
                mine = entries[offsets[place] : offsets[place + 1]]
                assert (mine >> 32).tolist() == rows.tolist()
                assert (mine & 0xFFFFFFFF).tolist() == stored[rows].view(rules.backgrounds.dtype).tolist()
                assert encoded.n_missing[place] == plain.n_missing == (~np.isfinite(values)).sum()
                assert plain.bounds == ([] if rules.bounds is None else rules.bounds[place].tolist())
                elsewhere = stored.view(rules.backgrounds.dtype)[np.setdiff1d(np.arange(100), rows)]
                assert set(elsewhere.tolist()) <= {rules.backgrounds[place]}  # what is not stored is 0
            assert (rules.bounds is None) == (bits is None)


@pytest.mark.parametrize("bits", [None, 8, 16])
@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
def test_entries_in_any_order_and_repeated(bits, quantizer):
    encoder = ValueEncoder(5, bits, quantizer)
    mixed = encoder.encode(sparse(([4, 1, 4], [1.0, 3, 1]), ([0, 2], [-1, 5.0]), ([], [])))
    assert mixed.offsets.tolist() == [0, 2, 4, 4]
    assert (mixed.entries >> 32).tolist() == [1, 4, 0, 2]
    for place, full in enumerate(([0, 3, 0, 0, 2], [-1, 0, 5, 0, 0], [0] * 5)):
        found = encoder.dense(mixed, place).tolist()
        assert found == encoder.encode_dense(np.array(full, float)).payload.whole().tolist()


@pytest.mark.parametrize("bits", [None, 8, 16])
def test_parts_of_coded_columns(bits):
    columns = example_columns(np.float32)
    encoder = ValueEncoder(100, bits, "nearest")
    encoded = encoder.encode(sparse(*columns))
    for first, last in ((0, 3), (2, 7), (8, 99), (4, 4)):
        part = encoded[first:last]
        chosen = range(first, min(last, len(columns)))
        assert len(part) == len(chosen)
        assert part.offsets[0] == 0
        assert np.shares_memory(part.entries, encoded.entries) or part.entries.size == 0
        for place, column in enumerate(chosen):
            np.testing.assert_array_equal(encoder.dense(part, place), encoder.dense(encoded, column).copy())
            assert part.n_missing[place] == encoded.n_missing[column]
            assert bits is None or part.rules.bounds[place].tolist() == encoded.rules.bounds[column].tolist()


@pytest.mark.parametrize("bits", [None, 8, 16])
def test_no_columns_and_no_cells(bits):
    encoded = ValueEncoder(7, bits, "nearest").encode(
        SparseColumns(np.empty(0, np.uint32), np.empty(0), np.zeros(1, np.int64))
    )
    assert (len(encoded), encoded.entries.size, encoded.rules.backgrounds.size) == (0, 0, 0)
    encoder = ValueEncoder(0, bits, "nearest")
    encoded = encoder.encode(sparse(([], []), ([], [])))
    assert (len(encoded), encoded.entries.size, encoder.dense(encoded, 1).size) == (2, 0, 0)
    assert bits is None or encoded.rules.bounds.tolist() == [[0, 1], [0, 1]]
    assert encoder.encode_dense(np.empty(0)).payload.whole().size == 0


def test_bounds_as_stored():
    bounds = np.array([[np.inf, -np.inf], [-0.0, -0.0], [2, 2], [1e17, 1e17], [-1, 5]])
    before = bounds.copy()
    found = spread(bounds)
    assert found.tolist() == [[0, 1], [0, 1], [2, 3], [1e17, math.nextafter(1e17, math.inf)], [-1, 5]]
    assert not np.signbit(found[1, 0])
    assert bounds.tobytes() == before.tobytes()


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_dtype_of_numbers_is_encoded(dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    codes, bounds = encode(values, 8)
    assert codes.tolist() == [0, 254, 254, 0, 254]
    assert bounds == (0.0, 1.0)


def test_results_live_until_the_next_column_of_the_thread():
    """Buffers are shared within a thread, never between threads."""
    encoder = ValueEncoder(3, 8, "nearest")

    def work(values):
        rows = np.flatnonzero(values)
        coded = encoder.encode(sparse((rows, values[rows])))
        return encoder.encode_dense(values).payload.whole(), coded.entries

    mine, coded = work(np.array([0.0, 1, 2]))
    other = []
    thread = threading.Thread(target=lambda: other.append(work(np.array([2.0, 1, 0]))))
    thread.start()
    thread.join()
    assert mine.tolist() == [0, 127, 254]
    assert coded.tolist() == [1 << 32 | 127, 2 << 32 | 254]
    assert other[0][0].tolist() == [254, 127, 0]
    assert other[0][1].tolist() == [254, 1 << 32 | 127]
    work(np.array([5.0, 0, 6]))
    assert mine.tolist() == [212, 0, 254]
    assert coded.tolist() == [212, 2 << 32 | 254]


@pytest.mark.parametrize("values", [np.array([0, 2**53 + 1, 2**60]), np.array([2**64 - 1, 0, 1], np.uint64)])
def test_long_integers(values):
    codes, (low, high) = encode(values, 16)
    assert (low, high) == (0.0, float(values.max()))
    assert codes[np.argmax(values)] == 65534
