"""Every kernel in every declared type against a plain NumPy or SciPy twin."""

import re
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from atlaswriter.engine.regroup import SparseColumns
from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.formats.cellucid.values import ValueEncoder, spread
from atlaswriter.kernels import crc, csr, edges, finder, groups, gzip, quantize
from atlaswriter.kernels._jit import Kernel

TOP = {8: 254, 16: 65534}
CODES = {8: np.uint8, 16: np.uint16}


def dtypes(kernel):
    """Every declared argument list as NumPy dtypes (None for a plain number)."""
    arguments = re.compile(r"([iuf]\d)(\[)?")
    return [
        pytest.param([np.dtype(kind) if array else None for kind, array in arguments.findall(signature)], id=signature)
        for signature in kernel.signatures
    ]


def nearest_by_hand(values, bits):
    """Codes and bounds in NumPy, from the same definition."""
    exact = np.asarray(values, np.float64)
    finite = np.isfinite(exact)
    ((low, high),) = spread(np.array([[exact[finite].min(), exact[finite].max()]])).tolist()
    share = (exact[finite] - low) / (high - low)
    codes = np.full(exact.size, TOP[bits] + 1, CODES[bits])
    codes[finite] = np.floor(share * TOP[bits] + 0.5)
    return codes, (low, high)


def truncate_by_hand(values, bits):
    """cellucid 0.0.9, `_quantize_continuous`, on float32 values (scale is a Python float there)."""
    values = np.asarray(values, np.float32)
    valid = np.isfinite(values)
    low = high = None
    if valid.any():
        low, high = float(values[valid].min()), float(values[valid].max())
    else:
        low, high = 0.0, 1.0
    if high == low:
        high = low + 1.0
    scale = TOP[bits] / (high - low)
    codes = np.full(values.size, TOP[bits] + 1, CODES[bits])
    with np.errstate(all="ignore"):
        codes[valid] = np.clip((values[valid] - low) * scale, 0, TOP[bits]).astype(CODES[bits])
    return codes


# ---------------------------------------------------------------- csr


def csr_example(index, value):
    """Rows of which some are empty, with NaN and infinities, and 9 columns of which the last has nothing finite."""
    rng = np.random.default_rng(1)
    matrix = sp.random_array(
        (40, 9), density=0.3, format="csr", rng=rng, data_sampler=lambda size: rng.normal(size=size)
    )
    matrix.data[::9], matrix.data[4::17], matrix.data[7::23] = np.nan, np.inf, -np.inf
    matrix.data[matrix.indices == 8] = np.nan
    return matrix.indptr.astype(np.int64), matrix.indices.astype(index), matrix.data.astype(value)


def rows_in_parts(indptr, indices, data, *cuts):
    """Rows as kernels take them, a block after the other."""
    for first, last in pairwise((0, *cuts, indptr.size - 1)):
        part = slice(indptr[first], indptr[last])
        yield indptr[first : last + 1], indices[part], data[part], first, indptr[first]


@pytest.mark.parametrize("types", dtypes(csr.measure))
def test_measure(types):
    indptr, indices, data = csr_example(types[1], types[2])
    last_row, counts, n_missing = np.full(9, -1), np.full(9, 5), np.zeros(9, np.int64)
    low, high = np.full(9, np.inf, types[2]), np.full(9, -np.inf, types[2])
    for part in rows_in_parts(indptr, indices, data, 15, 15, 16):
        assert not csr.measure(*part, last_row, counts, low, high, n_missing)
    rows = np.repeat(np.arange(40), np.diff(indptr))
    for column in range(9):
        mine = data[indices == column]
        finite = mine[np.isfinite(mine)]
        assert counts[column] == 5 + mine.size
        assert n_missing[column] == mine.size - finite.size
        assert (low[column], high[column]) == (finite.min(initial=np.inf), finite.max(initial=-np.inf))
        assert last_row[column] == rows[indices == column].max(initial=-1)
    assert (counts[8] - 5, n_missing[8], low[8]) == (n_missing[8], n_missing[8], np.inf)
    assert n_missing[8] > 0


@pytest.mark.parametrize("types", dtypes(csr.measure))
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0, 1], [0, 1]], False),
        ([[2, 0, 1], [], [1, 0]], False),
        ([[0, 1], [2, 2]], True),
        ([[1, 0, 1], [2]], True),
        ([[0], [0]], False),
        ([[], []], False),
    ],
)
def test_measure_finds_repeats_within_a_row(types, rows, expected):
    indices = np.array([column for row in rows for column in row], types[1])
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    bounds = np.full((2, 3), np.inf, types[2])
    found = csr.measure(
        indptr, indices, np.ones(indices.size, types[2]), 7, 0, np.full(3, -1), np.zeros(3, np.int64), *bounds,
        np.zeros(3, np.int64),
    )  # fmt: skip
    assert found is expected


MODES = [
    (quantize.NEAREST, 8),
    (quantize.NEAREST, 16),
    (quantize.TRUNCATE, 8),
    (quantize.TRUNCATE, 16),
    (quantize.FLOAT32, 32),
]
modes = pytest.mark.parametrize(("mode", "bits"), MODES)
NAN_BITS = 0x7FC00000


def codes_by_hand(values, mode, bits):
    """Codes of one column, and the rule that its bounds make."""
    values = np.asarray(values)
    exact = values.astype(np.float32 if mode == quantize.TRUNCATE else np.float64).astype(np.float64)
    finite = np.isfinite(exact)
    if mode == quantize.FLOAT32:
        return np.where(finite, values.astype(np.float32).view(np.uint32), np.uint32(NAN_BITS)), np.zeros(3)
    ends = [exact[finite].min(), exact[finite].max()] if finite.any() else [0, 1]
    ((low, high),) = spread(np.array([ends])).tolist()
    rule = np.array([low, 1, TOP[bits] / (high - low)])
    if mode == quantize.TRUNCATE:
        return truncate_by_hand(values, bits), rule
    return nearest_by_hand(values, bits)[0] if finite.any() else np.full(values.size, TOP[bits] + 1), rule


@modes
@pytest.mark.parametrize("types", dtypes(csr.place))
def test_place(types, mode, bits):
    indptr, indices, data = csr_example(types[1], types[2])
    all_rows = np.repeat(np.arange(40), np.diff(indptr))
    wanted = np.array([7, 0, 8, 3])
    slot = np.full(9, -1, np.int32)
    slot[wanted] = np.arange(4)
    mine = [indices == gene for gene in wanted]
    expected, rules = zip(*(codes_by_hand(data[one], mode, bits) for one in mine), strict=True)
    starts = np.cumsum([0] + [one.sum() for one in mine])
    entries, cursor = np.full(starts[-1] + 3, -7), starts[:-1].copy()
    for part in rows_in_parts(indptr, indices, data, 15, 15, 16):
        csr.place(*part, slot, cursor, np.stack(rules), mode, TOP.get(bits, 0), entries)
    assert cursor.tolist() == starts[1:].tolist()
    for (first, last), one, codes in zip(pairwise(starts), mine, expected, strict=True):
        assert (entries[first:last] >> 32).tolist() == all_rows[one].tolist()
        assert (entries[first:last] & 0xFFFFFFFF).tolist() == codes.tolist()
    assert entries[-3:].tolist() == [-7] * 3


@pytest.mark.parametrize("types", dtypes(csr.in_order))
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([], True),
        ([[], []], True),
        ([[3]], True),
        ([[0, 1, 5]], True),
        ([[0, 1, 1]], False),
        ([[2, 1, 3]], False),
        ([[1, 2], [0, 1], [], [0, 9]], True),  # from one column to the next they need not
        ([[1, 2], [2, 2], [0]], False),
        ([[1, 2], [3, 4], [1, 0]], False),
        ([[0, 2**32 - 1]], True),
        ([[2**31, 2**31 - 1]], False),
        ([[*range(100)], [*range(50), 49]], False),
    ],
)
def test_in_order(types, columns, expected):
    rows = np.array([row for column in columns for row in column], types[0])
    offsets = np.cumsum([0, *(len(column) for column in columns)])
    assert csr.in_order(rows, offsets) is expected


# ---------------------------------------------------------------- quantize


@pytest.mark.parametrize("types", dtypes(quantize.bounds))
def test_bounds(types):
    """Many columns at once: of every length that is not a multiple of the stride, with and without missing values."""
    rng = np.random.default_rng(2)
    columns = [rng.normal(size=n) + shift for n in (*range(10), 500, 501) for shift in (0, 9, -9)]
    for n in (1, 4, 5, 7, 40, 500):
        for missing in (np.nan, np.inf, -np.inf):
            columns += [rng.normal(size=n), np.full(n, missing), np.full(n, -0.0), rng.normal(size=n)]
            columns[-4][rng.integers(n)] = missing
            columns[-1][:: max(n // 7, 1)] = missing
    values = np.concatenate(columns).astype(types[0])
    offsets = np.cumsum([0, *(len(column) for column in columns)])
    for n_rows in (500, 10**6):
        low_high, n_missing = np.full((len(columns), 2), 77.0), np.full(len(columns), 77)
        quantize.bounds(values, offsets, n_rows, low_high, n_missing)
        for place, (first, last) in enumerate(pairwise(offsets)):
            finite = values[first:last][np.isfinite(values[first:last])].astype(np.float64)
            low, high = (finite.min(), finite.max()) if finite.size else (np.inf, -np.inf)
            if last - first < n_rows:
                low, high = min(low, 0), max(high, 0)
            assert low_high[place].tolist() == [low, high]
            assert n_missing[place] == last - first - finite.size
    quantize.bounds(np.empty(0, types[0]), np.zeros(1, np.int64), 5, np.empty((0, 2)), np.empty(0, np.int64))


def example_values(dtype):
    values = np.random.default_rng(3).normal(size=2000).astype(dtype)
    values[5], values[6], values[7] = np.nan, np.inf, -np.inf
    return values


@modes
@pytest.mark.parametrize("types", dtypes(quantize.pack))
def test_pack(types, mode, bits):
    """Several columns, each by its own rule."""
    values = example_values(types[1])
    columns = [values, np.empty(0, types[1]), values[:50] * 3 + 1, np.full(3, np.nan, types[1]), values[-7:]]
    rows = np.concatenate([np.arange(column.size) * 3 + 2**20 for column in columns]).astype(types[0])
    expected, rules = zip(*(codes_by_hand(column, mode, bits) for column in columns), strict=True)
    offsets, given = np.cumsum([0, *(column.size for column in columns)]), np.concatenate(columns)
    entries = np.empty(given.size, np.int64)
    quantize.pack(rows, given, offsets, np.stack(rules), mode, TOP.get(bits, 0), entries)
    assert (entries >> 32).tolist() == rows.tolist()
    assert (entries & 0xFFFFFFFF).tolist() == np.concatenate(expected).tolist()


@pytest.mark.parametrize("types", dtypes(quantize.dense))
def test_dense(types):
    values, bits = example_values(types[0]), types[-1].itemsize * 8
    for mode in [one for one, wide in MODES if wide == bits]:
        expected, rule = codes_by_hand(values, mode, bits)
        codes = np.empty(values.size, types[-1])
        quantize.dense(values, rule, mode, TOP.get(bits, 0), codes)
        assert codes.tolist() == expected.tolist()


def test_rules_that_need_a_lift():
    """``(value - low) * lift * scale``: the three numbers of a rule are all used, in this order."""
    values, codes = np.array([1.0, 1.5, 3.0]), np.empty(3, np.uint8)
    quantize.dense(values, np.array([1.0, 2.0**40, 2.0**-39]), quantize.NEAREST, 254, codes)
    assert codes.tolist() == [0, 1, 4]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
def test_sparse_columns(bits, dtype, quantizer):
    """By hand from the whole column, so that the code of 0 is seen too."""
    values = example_values(dtype)
    rows = np.arange(values.size, dtype=np.uint32) * 2
    for shifted in (values, np.abs(values), -np.abs(values)):
        dense = np.zeros(values.size * 2 + 5, dtype)
        dense[rows] = shifted
        by_hand = truncate_by_hand(dense, bits) if quantizer == "truncate" else nearest_by_hand(dense, bits)[0]
        encoder = ValueEncoder(dense.size, bits, quantizer)
        encoded = encoder.encode(SparseColumns(rows, shifted, np.array([0, rows.size])))
        assert encoder.dense(encoded, 0).tolist() == by_hand.tolist()


@pytest.mark.parametrize("types", dtypes(quantize.scatter))
def test_scatter(types):
    top = np.iinfo(types[1]).max
    rows, codes = np.array([1, 4, 5, 7]), np.array([2, 0, 1, top], types[1])
    column = np.full(8, 9, types[1])
    quantize.scatter(rows << 32 | codes.astype(np.int64), column)
    assert column.tolist() == [9, 2, 9, 9, 0, 1, 9, top]


# ---------------------------------------------------------------- gzip


@pytest.mark.parametrize("types", dtypes(crc.fill_powers))
def test_fill_powers(types):
    """Residues of ``x**(8 * k)``, a bit at a time, by integers that are polynomials with ``x**0`` lowest."""
    generator, residue, expected = 0x104C11DB7, 1, []
    for _ in range(300):
        expected.append(int(f"{residue:032b}"[::-1], 2))
        for _ in range(8):
            residue = residue << 1
            residue ^= generator if residue >> 32 else 0
    powers = np.empty(300, types[0])
    crc.fill_powers(powers)
    assert powers.tolist() == expected


def gzip_scratch(*, search):
    for_matches = np.full(finder.SCRATCH, -1) if search else None
    return np.zeros(gzip.WORKSPACE, np.int64), for_matches, np.empty(100_000, np.uint8)


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_gzip_of_sparse_columns(dtype, search):
    """Against whole columns; `tests/property` tries much more."""
    rng = np.random.default_rng(8)
    drawn = rng.integers(0, 255, (7, 2000))
    columns = np.where(rng.random((7, 2000)) < [[0], [0.001], [0.1], [0.5], [1], [0.9], [0]], drawn, 1)
    columns[6, :1500:3] = 2
    backgrounds = np.array([0x01010101, 0, 0xFFFFFFFF, 0, 0x7F7F7F7F, 0, 0], np.uint32).astype(dtype)
    whole = np.where(columns == 1, backgrounds[:, None], columns).astype(dtype)
    rows = [np.flatnonzero(column != background) for column, background in zip(whole, backgrounds, strict=True)]
    coded = [one << 32 | column[one].astype(np.int64) for one, column in zip(rows, whole, strict=True)]
    entries, offsets, ends = np.concatenate(coded), np.cumsum([0, *(one.size for one in rows)]), np.empty(7, np.int64)
    workspace, for_matches, files = gzip_scratch(search=search)
    for depth, thorough in ((2, False), (4, True)) if search else ((2, False),):
        gzip.columns(
            entries, offsets, 2000, backgrounds, np.empty(0, np.uint8), 0, False, depth, thorough, crc.powers(),
            workspace, for_matches, files, ends,
        )  # fmt: skip
        for place, (column, (first, last)) in enumerate(zip(whole, pairwise([0, *ends.tolist()]), strict=True)):
            if place == 6 and not search:
                assert last == first  # a recurring pattern is left to those that look for matches
            else:
                assert zlib.decompress(files[first:last], 31) == column.tobytes()
    assert min(one.size for one in rows) < 10
    assert max(one.size for one in rows) > 1900


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_gzip_of_repeats(dtype, search, stride):
    content = np.sort(np.random.default_rng(9).integers(0, 40, 6000)).astype(f"u{stride}").view(np.uint8)
    workspace, for_matches, files = gzip_scratch(search=search)
    end = np.empty(1, np.int64)
    gzip.columns(
        np.empty(0, np.int64), np.zeros(2, np.int64), 0, np.zeros(1, dtype), content, stride, False, 2, False,
        crc.powers(), workspace, for_matches, files, end,
    )  # fmt: skip
    file, size = files[: end[0]].tobytes(), content.size
    assert file[-8:] == bytes(4) + size.to_bytes(4, "little")  # the caller knows the CRC
    assert zlib.decompress(file[10:], -15) == content.tobytes()
    assert len(file) < 700


# ---------------------------------------------------------------- groups


def grouped_example(coords, codes, n_cells=400, n_groups=6, dim=3, seed=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_groups, n_cells)
    where = rng.normal(size=(n_groups, dim))[labels] + rng.normal(size=(n_cells, dim)) * 0.1
    labels[::11] = np.iinfo(codes).max  # missing
    return where.astype(coords), labels.astype(codes)


@pytest.mark.parametrize("types", dtypes(groups.count))
def test_count_cells(types):
    codes = np.array([0, 2, 2, np.iinfo(types[0]).max, 1, 2], types[0])
    counts = np.zeros(3, np.int64)
    groups.count(codes, counts)
    assert counts.tolist() == [1, 1, 3]


@pytest.mark.parametrize("types", dtypes(groups.add))
def test_add(types):
    coords, codes = grouped_example(types[0], types[1])
    center, scale = np.array([1.0, 0, -1]), 0.3
    sums = np.zeros((6, 3))
    squares = np.zeros(6)
    groups.add(coords, codes, center, scale, sums, squares)
    scaled = (coords.astype(np.float64) - center) * scale
    expected = [scaled[codes == group].sum(axis=0) for group in range(6)]
    np.testing.assert_allclose(sums, expected, rtol=1e-13)
    np.testing.assert_allclose(squares, [(scaled[codes == group] ** 2).sum() for group in range(6)], rtol=1e-13)
    again = np.zeros((6, 3))
    groups.add(coords, codes, center, scale, again, np.empty(0))
    assert again.tolist() == sums.tolist()


def keys_of(distances):
    return np.asarray(distances, np.float64).view(np.int64)


@pytest.mark.parametrize("types", dtypes(groups.distances))
def test_distances(types):
    coords, codes = grouped_example(types[0], types[1], dim=7)
    center, scale = np.full(7, 0.5), 3.0
    means = np.random.default_rng(6).normal(size=(6, 7))
    wanted = [0, 3, 5]
    members = [np.flatnonzero(codes == group) for group in wanted]
    starts = np.cumsum([0] + [len(m) for m in members])
    cursor = np.full(6, -1)
    cursor[wanted] = starts[:-1]
    keys, cells = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.uint32)
    groups.distances(coords[:100], codes[:100], center, scale, means, cursor, keys, cells, 0)
    groups.distances(coords[100:], codes[100:], center, scale, means, cursor, keys, cells, 100)
    expected = [
        np.linalg.norm((coords[m].astype(np.float64) - center) * scale - means[g], axis=1)
        for g, m in zip(wanted, members, strict=True)
    ]
    np.testing.assert_allclose(keys.view(np.float64), np.concatenate(expected), rtol=1e-13)
    assert cells.tolist() == np.concatenate(members).tolist()
    assert cursor[wanted].tolist() == starts[1:].tolist()


@pytest.mark.parametrize("types", dtypes(groups.add_near))
def test_add_near(types):
    coords, codes = grouped_example(types[0], types[1])
    means = np.stack([coords[codes == group].astype(np.float64).mean(axis=0) for group in range(6)])
    reach = np.array([0.1, 0.15, -1, 0.2, 10, 0])
    counts, sums = np.zeros(6, np.int64), np.zeros((6, 3))
    groups.add_near(coords, codes, np.zeros(3), 1.0, means, reach, counts, sums)
    for group in range(6):
        mine = coords[codes == group].astype(np.float64)
        near = mine[np.linalg.norm(mine - means[group], axis=1) <= reach[group]]
        assert counts[group] == len(near)
        np.testing.assert_allclose(sums[group], near.sum(axis=0), rtol=1e-12, atol=1e-12)
    assert counts[2] == 0
    assert 0 < counts[0] < counts[4]


def hard_to_sort(rng):
    """Distances in every order and spread, of every number of different ones."""
    yield np.empty(0)
    for size in (1, 2, 32, 33, 300, 5000):
        yield rng.normal(size=size) ** 2
        yield np.zeros(size)
        yield np.full(size, np.nan)
        yield rng.integers(0, 3, size).astype(float)
        yield 2.0 ** rng.normal(size=size, scale=200)
        yield np.sort(rng.random(size))[::-1]
        yield np.where(rng.random(size) < 0.9, 1.0, rng.choice([0.0, 5e-324, np.inf, np.nan], size))
        yield (np.int64(1) << rng.integers(0, 62, size)).view(np.float64)  # keys of one bit each


def test_ranks_and_sort():
    """Categories one after the other, against SciPy, equal distances (also NaN) sharing the highest rank."""
    rng = np.random.default_rng(4)
    parts = [keys_of(part) for part in hard_to_sort(rng)]
    starts = np.cumsum([0] + [part.size for part in parts])
    keys, cells = np.concatenate(parts), rng.permutation(starts[-1]).astype(np.uint32)
    expected = np.full(starts[-1] + 5, np.nan, np.float32)
    for part, first in zip(parts, starts, strict=False):
        rank = stats.rankdata(part, method="max").astype(np.float32)
        expected[cells[first : first + part.size]] = rank / np.float32(part.size)
    ranked, quantiles = (keys.copy(), cells.copy()), np.full(starts[-1] + 5, np.nan, np.float32)
    groups.ranks(*ranked, starts, quantiles)
    np.testing.assert_array_equal(quantiles, expected)
    wanted = np.arange(len(parts)) % 3 > 0
    groups.sort(*(ordered := (keys.copy(), cells.copy())), starts, wanted)
    for part, sort, (first, last) in zip(parts, wanted, pairwise(starts), strict=True):
        found, whose = ordered[0][first:last], ordered[1][first:last]
        assert found.tolist() == (np.sort(part) if sort else part).tolist()
        assert sorted(zip(part, cells[first:last], strict=True)) == sorted(zip(found, whose, strict=True))


@pytest.mark.parametrize("types", dtypes(groups.regroup))
def test_regroup(types):
    codes = np.array([2, 0, 9, 2, 0], types[2])
    cursor, keys, cells = np.array([1, 0, 3]), np.full(5, -1), np.zeros(5, np.uint32)
    groups.regroup(np.array([30, 10, 40]), np.array([3, 1, 4], np.uint32), codes, cursor, keys, cells)
    assert keys.tolist() == [-1, 10, 40, 30, -1]
    assert cells.tolist() == [0, 1, 4, 3, 0]
    assert cursor.tolist() == [3, 0, 4]


@pytest.mark.parametrize("n_runs", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("width", [1, 3, 50])
def test_merge_ranks(n_runs, width):
    """Runs of any length, also none, some entries of each in memory."""
    rng = np.random.default_rng(n_runs)
    for values in (3, 10**6):
        runs = [np.sort(rng.integers(0, values, rng.integers(0, 60))) for _ in range(n_runs)]
        sizes = np.array([run.size for run in runs])
        size, cells = int(sizes.sum()), rng.permutation(sizes.sum() + 3).astype(np.uint32)
        whose = np.split(cells[:size], np.cumsum(sizes)[:-1])
        keys, held = np.zeros((n_runs, width), np.int64), np.zeros((n_runs, width), np.uint32)
        left, more, ends = np.zeros(n_runs, np.int64), np.zeros(n_runs, bool), sizes.copy()
        quantiles, state = np.full(size + 3, np.nan, np.float32), np.array([size, -1, 0])
        refills, run = list(range(n_runs)), 0
        while run >= 0:
            for one in refills:
                begin = max(ends[one] - width, 0)
                left[one], more[one] = ends[one] - begin, begin > 0
                keys[one, : left[one]], held[one, : left[one]] = (
                    runs[one][begin : ends[one]],
                    whose[one][begin : ends[one]],
                )
                ends[one] = begin
            run = groups.merge_ranks(keys, held, left, more, state, quantiles, size)
            refills = [run]
        rank = stats.rankdata(np.concatenate(runs), method="max").astype(np.float32)
        np.testing.assert_array_equal(quantiles[cells[:size]], rank / np.float32(size))
        assert np.isnan(quantiles[cells[size:]]).all()


@pytest.mark.parametrize("types", dtypes(groups.probe))
def test_probe(types):
    coords, codes = grouped_example(types[0], types[1], n_groups=4)
    coords = np.random.default_rng(7).normal(size=coords.shape).astype(types[0])
    center, scale, means = np.zeros(3), 1.0, np.zeros((4, 3))
    distances = np.linalg.norm(coords.astype(np.float64), axis=1)
    low, high = keys_of([0.6, 1.8])
    shift, n_bins = 48, ((high - low) >> 48) + 1
    table = np.array([[low, high, how, at, 0, groups.TOP_KEY] for how, at in ((shift, 2), (-1, 1), (-2, 0), (-3, 0))])
    bins, kept = np.zeros(n_bins + 2, np.uint32), np.zeros(400, np.int64)
    groups.probe(coords, codes, center, scale, means, table, bins, kept)
    for group in range(3):
        mine = distances[codes == group]
        assert table[group, groups.BELOW] == (mine < 0.6).sum() > 0
        np.testing.assert_allclose(table[group, groups.ABOVE].view(np.float64), mine[mine > 1.8].min())
    inside = [distances[(codes == group) & (distances >= 0.6) & (distances <= 1.8)] for group in range(2)]
    assert bins.tolist() == [0, 0, *np.bincount((keys_of(inside[0]) - low) >> shift, minlength=n_bins)]
    np.testing.assert_allclose(kept[1 : 1 + inside[1].size].view(np.float64), inside[1])
    assert table[1, groups.AT] == 1 + inside[1].size
    assert table[3].tolist() == [low, high, -3, 0, 0, groups.TOP_KEY]


def test_narrow():
    """To a bin, to the last one that is cut short, to what is below, to what is above, and not at all."""
    table = np.array([[100, 130, 3, 1, 10, 0]] * 4 + [[100, 130, groups.KEEP, 1, 10, 0]])
    searches = np.array([[0, 1000, 5, 60, rank] for rank in (20, 22, 9, 27, 20)])
    groups.narrow(table, np.array([9, 9, 3, 0, 5, 9], np.uint32), searches)
    assert searches.tolist() == [
        [108, 115, 19, 3, 20], [124, 130, 22, 5, 22], [0, 99, 5, 5, 9], [131, 1000, 27, 38, 27], [0, 1000, 5, 60, 20]
    ]  # fmt: skip


def test_select():
    rng = np.random.default_rng(4)
    parts = [keys_of(np.abs(part)) & groups.TOP_KEY for part in hard_to_sort(rng) if part.size]
    for place in (0, 0.3, 0.95, 1):
        ends = np.cumsum([part.size for part in parts])
        table = np.array([[0, 0, groups.KEEP, end, 0, 7 * end] for end in ends] + [[0, 0, -2, 0, 0, 8]] * 2 + [[3] * 6])
        ranks = [int((part.size - 1) * place) for part in parts]
        searches = [[0, 0, 100, part.size, 100 + rank] for part, rank in zip(parts, ranks, strict=True)]
        searches = np.array([*searches, [6, 6, 100, 3, 101], [6, 6, 100, 3, 102], [0] * 5])
        found = np.full((len(searches), 2), -1)
        groups.select(table, np.concatenate(parts), searches, found)
        for part, rank, end, (key, following) in zip(parts, ranks, ends, found.tolist(), strict=False):
            assert [key, following] == [*np.sort(part), 7 * end][rank : rank + 2]
        assert found[-3:].tolist() == [[6, 6], [6, 8], [-1, -1]]


def centroids_by_hand(points, codes, n_groups, quantile, min_points):
    """cellucid 0.0.9's rule in float64, with np.quantile."""
    result = []
    for group in range(n_groups):
        mine = points[codes == group]
        if len(mine) < min_points:
            continue
        center, used = mine.mean(axis=0), len(mine)
        if used > min_points:
            distances = np.linalg.norm(mine - center, axis=1)
            near = mine[distances <= np.quantile(distances, quantile)]
            if len(near) >= min_points:
                center, used = near.mean(axis=0), len(near)
        result.append((f"c{group}", center, used))
    return result


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("quantile", "min_points"), [(0.95, 10), (0.6, 3), (0.51, 40)])
def test_centroids(dim, quantile, min_points):
    for dtype in (np.float32, np.float64):
        coords, codes = grouped_example(dtype, np.uint8, dim=dim)
        codes[codes == 2] = 255
        codes[:min_points] = 2  # exactly enough
        frame = Frame.around(coords, "x")
        counts = np.array([(codes == group).sum() for group in range(7)])
        names = [f"c{group}" for group in range(7)]
        found = centroids(coords, frame, codes, counts, names, quantile=quantile, min_points=min_points, room=1 << 20)
        points = (coords.astype(np.float64) - frame.center) / frame.half
        expected = centroids_by_hand(points, codes, 7, quantile, min_points)
        assert [(c["category"], c["n_points"]) for c in found] == [(name, used) for name, _, used in expected]
        np.testing.assert_allclose([c["position"] for c in found], [c for _, c, _ in expected], rtol=1e-12, atol=1e-14)
        assert {name: n for name, _, n in expected}["c2"] == min_points


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outlier_quantiles(dtype):
    latent, codes = grouped_example(dtype, np.uint16, dim=8)
    latent[:60] = np.round(latent[:60])  # ties
    codes[codes == 1] = 65535
    codes[:4] = 1  # too few
    counts = np.array([(codes == group).sum() for group in range(6)])
    found = outlier_quantiles(latent, codes, counts, min_points=5, room=1 << 20, spill=Path)
    for group in range(6):
        members = np.flatnonzero(codes == group)
        mine = latent[members].astype(np.float64)
        distances = np.linalg.norm(mine - mine.mean(axis=0), axis=1).round(9)
        expected = (distances[:, None] >= distances).sum(axis=1).astype(np.float32) / np.float32(len(members))
        np.testing.assert_array_equal(found[members], expected if len(members) >= 5 else np.full(4, np.nan))
    assert np.isnan(found[codes == 65535]).all()


def test_identical_points_have_their_place_as_centroid():
    """float32 sums, as in 0.0.9, are off by 0.008 here."""
    coords = np.tile(np.array([[0.9, -0.5, 0.1]], np.float32), (1_000_000, 1))
    codes, counts = np.zeros(len(coords), np.uint8), np.array([len(coords)])
    (found,) = centroids(
        coords, Frame(np.zeros(3), 1.0), codes, counts, ["x"], quantile=0.95, min_points=10, room=1 << 20
    )
    np.testing.assert_allclose(found["position"], coords[0].astype(np.float64), atol=1e-9)


# ---------------------------------------------------------------- edges


def graph_example(index, n=60, seed=7):
    """An asymmetric pattern with a diagonal, repeated entries and isolated cells."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, n - 5, (2, 4 * n))
    rows, columns = np.r_[rows, 3, 3, 4], np.r_[columns, 3, 9, 4]
    order = np.lexsort((columns, rows))
    indptr = np.r_[0, np.cumsum(np.bincount(rows, minlength=n))].astype(np.int64)
    return indptr, columns[order].astype(index), rows[order]


def edge_blocks(indptr, indices, cuts=(0, 7, 8, 30, 60)):
    """The rows in blocks, as kernels take them."""
    for first, last in pairwise(cuts):
        yield indptr[first : last + 1] - indptr[first], indices[indptr[first] : indptr[last]], first


@pytest.mark.parametrize("types", dtypes(edges.rows_ascend))
def test_rows_ascend(types):
    indptr = np.array([0, 2, 2, 4])
    for columns, expected in (([0, 2, 0, 1], True), ([2, 2, 1, 1], True), ([2, 0, 0, 1], False), ([0, 2, 1, 0], False)):
        assert edges.rows_ascend(indptr, np.array(columns, types[1])) is expected


@pytest.mark.parametrize("types", dtypes(edges.sort_rows))
def test_sort_rows(types):
    rng = np.random.default_rng(0)
    sizes = [0, 1, 2, 3, 9, 10, 40, 500, 3000, 0]
    for top in (3, 1000, 2**31):
        rows = [rng.integers(0, top, size).astype(types[1]) for size in sizes]
        indices = np.concatenate(rows)
        edges.sort_rows(np.r_[0, np.cumsum(sizes)], indices)
        np.testing.assert_array_equal(indices, np.concatenate([np.sort(row) for row in rows]))


@pytest.mark.parametrize("types", dtypes(edges.survey))
def test_survey(types):
    indptr, indices, rows = graph_example(types[1])
    sums = np.zeros(edges.SUMS, np.uint64)
    assert all(edges.survey(*block, sums) for block in edge_blocks(indptr, indices))
    distinct = {(row, column) for row, column in zip(rows.tolist(), indices.tolist(), strict=True) if row != column}
    assert sums[edges.BELOW] == sum(row > column for row, column in distinct)
    assert sums[edges.ABOVE] == sum(row < column for row, column in distinct)
    assert sums[edges.LARGEST_ROW] == np.bincount([row for row, _ in distinct]).max()
    assert sums[edges.HASH] != 0
    assert sums[edges.OTHER_HASH] not in (0, sums[edges.HASH])
    before = sums.copy()
    assert not edges.survey(np.array([0, 1, 4]), np.array([1, 2, 0, 1], types[1]), 0, sums)
    assert sums.tolist() == before.tolist()
    # Its mirror takes the hashes back to 0.
    turned = sp.csr_array((np.ones(rows.size), (indices, rows)), shape=(60, 60))
    assert edges.survey(turned.indptr.astype(np.int64), turned.indices.astype(types[1]), 0, sums)
    assert sums[edges.BELOW] == sums[edges.ABOVE] == len(distinct)
    assert sums[edges.HASH] == sums[edges.OTHER_HASH] == 0


@pytest.mark.parametrize("types", dtypes(edges.take_upper))
def test_upper_half(types):
    indptr, indices, rows = graph_example(types[1])
    pairs = set(zip(rows.tolist(), indices.tolist(), strict=True))
    expected = sorted((row, column) for row, column in pairs if row < column)
    for size in (1, 2, 13, 1000):
        assert written(edges.take_upper, edge_blocks(indptr, indices), size) == expected


def written(kernel, blocks, size, *more):
    """Every pair that a kernel writes, `size` at a time."""
    state, found = np.zeros(edges.STATE, np.int64), []
    sources, destinations = np.empty(size, np.uint32), np.empty(size, np.uint32)

    def take():
        count = state[edges.WRITTEN]
        found.extend(zip(sources[:count].tolist(), destinations[:count].tolist(), strict=True))
        state[edges.WRITTEN] = 0

    for block in blocks:
        state[edges.ROW], state[edges.ENTRY] = 0, -1
        while not kernel(*block, *more, state, sources, destinations):
            assert state[edges.WRITTEN] == size
            take()
    take()
    return found if kernel is edges.take_upper else (found, state[edges.MOST])


@pytest.mark.parametrize("types", dtypes(edges.place_below))
def test_entries_below_the_diagonal(types):
    indptr, indices, rows = graph_example(types[1])
    n = indptr.size - 1
    lower = sorted({(column, row) for row, column in zip(rows.tolist(), indices.tolist(), strict=True) if column < row})
    counts = np.zeros(n, np.uint32)
    for block in edge_blocks(indptr, indices):
        edges.count_below(*block, counts)
    assert counts.tolist() == np.bincount([column for column, _ in lower], minlength=n).tolist()
    base, found, ranges = 0, [], 0
    while base < n:
        stop, size = edges.make_starts(counts, base, 30)
        assert size <= 30
        below = np.empty(size, np.uint32)
        for block in edge_blocks(indptr, indices):
            edges.place_below(*block, base, stop, counts, below)
        columns = np.repeat(np.arange(base, stop), np.diff(counts[base:stop].astype(int), prepend=0))
        found += zip(columns.tolist(), below.tolist(), strict=True)
        base, ranges = stop, ranges + 1
    assert found == lower
    assert ranges > 3


def test_no_start_for_more_than_there_is_room_for():
    counts = np.array([2, 3, 0, 9, 1], np.uint32)
    assert edges.make_starts(counts, 0, 5) == (3, 5)
    assert counts.tolist() == [0, 2, 5, 9, 1]
    assert edges.make_starts(counts, 3, 8) == (3, 0)
    assert edges.make_starts(counts, 3, 10) == (5, 10)
    assert counts.tolist() == [0, 2, 5, 0, 9]


@pytest.mark.parametrize("types", dtypes(edges.place_below))
def test_places_that_are_not_there_are_not_written_to(types):
    indptr, indices = np.array([0, 0, 1, 2]), np.array([0, 0], types[1])
    starts, below = np.array([0, 0, 0], np.uint32), np.full(1, 9, np.uint32)
    edges.place_below(indptr, indices, 0, 0, 3, starts, below)
    assert (starts.tolist(), below.tolist()) == ([1, 0, 0], [1])


@pytest.mark.parametrize("types", dtypes(edges.merge))
def test_edges(types):
    indptr, indices, rows = graph_example(types[1])
    n = indptr.size - 1
    pattern = sp.coo_array((np.ones(rows.size), (rows, indices)), shape=(n, n))
    both = sp.triu(pattern + pattern.T, k=1).tocsr()
    both.sort_indices()
    expected = list(zip(*(end.tolist() for end in both.nonzero()), strict=True))
    for size in (1, 2, 13, 1000):
        ends, extra = np.zeros(n, np.uint32), np.zeros(n, np.uint32)
        edges.count_below(indptr, indices, 0, ends)
        below = np.empty(edges.make_starts(ends, 0, 1000)[1], np.uint32)
        edges.place_below(indptr, indices, 0, 0, n, ends, below)
        found, most = written(edges.merge, edge_blocks(indptr, indices), size, 0, ends, below, extra)
        assert found == expected
        assert most == np.bincount(np.ravel(expected), minlength=n).max()


# ---------------------------------------------------------------- all


def test_kernels_were_compiled_for_declared_types_only():
    """Must stay last: everything above has run."""
    modules = (crc, csr, edges, groups, gzip, quantize)
    kernels = [one for one in Kernel.registry if any(one in vars(module).values() for module in modules)]
    assert len(kernels) >= 15
    assert {one.name: one.undeclared() for one in kernels if one.undeclared()} == {}
    for one in (csr.group, csr.append):  # tested with the temporary files that they are for
        for signature in one.signatures:
            one.compile(signature)
    unused = {one.name: len(one.signatures) - len(one._dispatcher.signatures) for one in kernels}
    assert {name: n for name, n in unused.items() if n > 0} == {}
