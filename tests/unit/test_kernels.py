"""Every kernel in every declared type against a plain NumPy or SciPy twin."""

import re
import zlib
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

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
            entries, offsets, 2000, backgrounds, np.empty(0, np.uint8), 0, depth, thorough, crc.powers(), workspace,
            for_matches, files, ends,
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
        np.empty(0, np.int64), np.zeros(2, np.int64), 0, np.zeros(1, dtype), content, stride, 2, False, crc.powers(),
        workspace, for_matches, files, end,
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
    groups.add(coords, codes, center, scale, sums)
    scaled = (coords.astype(np.float64) - center) * scale
    expected = [scaled[codes == group].sum(axis=0) for group in range(6)]
    np.testing.assert_allclose(sums, expected, rtol=1e-13)


@pytest.mark.parametrize("cells_wanted", [True, False])
@pytest.mark.parametrize("types", dtypes(groups.distances))
def test_distances(types, cells_wanted):
    coords, codes = grouped_example(types[0], types[1], dim=7)
    center, scale = np.full(7, 0.5), 3.0
    means = np.random.default_rng(6).normal(size=(6, 7))
    wanted = [0, 3, 5]
    members = [np.flatnonzero(codes == group) for group in wanted]
    starts = np.cumsum([0] + [len(m) for m in members])
    cursor = np.full(6, -1)
    cursor[wanted] = starts[:-1]
    grouped, cells = np.empty(starts[-1]), np.empty(starts[-1] if cells_wanted else 0, np.uint32)
    groups.distances(coords, codes, center, scale, means, cursor, grouped, cells, 0)
    expected = [
        np.linalg.norm((coords[m].astype(np.float64) - center) * scale - means[g], axis=1)
        for g, m in zip(wanted, members, strict=True)
    ]
    np.testing.assert_allclose(grouped, np.concatenate(expected), rtol=1e-13)
    assert cells.tolist() == (np.concatenate(members).tolist() if cells_wanted else [])


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


def test_ranks_give_ties_the_highest():
    grouped = np.array([3.0, 1.0, 3.0, 0.0, 1.0, 3.0, 9.0])
    cells = np.array([10, 3, 4, 0, 6, 8, 1], np.uint32)
    quantiles = np.full(12, np.nan, np.float32)
    groups.ranks(grouped, np.argsort(grouped), cells, quantiles)
    expected = {cell: np.float32((grouped <= d).sum()) / np.float32(7) for cell, d in zip(cells, grouped, strict=True)}
    for cell in range(12):
        np.testing.assert_equal(quantiles[cell], expected.get(cell, np.float32(np.nan)))


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
        found = centroids(coords, frame, codes, counts, names, quantile=quantile, min_points=min_points)
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
    found = outlier_quantiles(latent, codes, counts, min_points=5)
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
    (found,) = centroids(coords, Frame(np.zeros(3), 1.0), codes, counts, ["x"], quantile=0.95, min_points=10)
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


@pytest.mark.parametrize("types", dtypes(edges.rows_ascend))
def test_rows_ascend(types):
    indptr = np.array([0, 2, 2, 4])
    for columns, expected in (([0, 2, 0, 1], True), ([2, 2, 1, 1], True), ([2, 0, 0, 1], False), ([0, 2, 1, 0], False)):
        assert edges.rows_ascend(indptr, np.array(columns, types[1])) is expected


@pytest.mark.parametrize("types", dtypes(edges.place_below))
def test_entries_below_the_diagonal(types):
    indptr, indices, rows = graph_example(types[1])
    n = indptr.size - 1
    starts = np.zeros(n + 1, np.int64)
    edges.count_below(indptr, indices, starts)
    lower = indices < rows
    assert starts[1:].tolist() == np.bincount(indices[lower], minlength=n).tolist()
    np.cumsum(starts, out=starts)
    below = np.empty(starts[-1], types[1])
    edges.place_below(indptr, indices, starts[:-1].copy(), below)
    for column in range(n):
        assert below[starts[column] : starts[column + 1]].tolist() == rows[lower & (indices == column)].tolist()


@pytest.mark.parametrize("types", dtypes(edges.merge))
def test_edges(types):
    indptr, indices, rows = graph_example(types[1])
    n = indptr.size - 1
    pattern = sp.coo_array((np.ones(rows.size), (rows, indices)), shape=(n, n))
    both = sp.triu(pattern + pattern.T, k=1).tocsr()
    both.sort_indices()
    expected = np.transpose(both.nonzero())
    starts = np.zeros(n + 1, np.int64)
    edges.count_below(indptr, indices, starts)
    np.cumsum(starts, out=starts)
    below = np.empty(starts[-1], types[1])
    edges.place_below(indptr, indices, starts[:-1].copy(), below)
    degrees = np.zeros(n, np.int64)
    sources, destinations = np.empty(indices.size, types[-1]), np.empty(indices.size, types[-1])
    found = edges.merge(indptr, indices, starts, below, degrees, sources, destinations)
    np.testing.assert_array_equal(np.stack([sources[:found], destinations[:found]], axis=1), expected)
    assert degrees.tolist() == np.bincount(expected.ravel(), minlength=n).tolist()


# ---------------------------------------------------------------- all


def test_kernels_were_compiled_for_declared_types_only():
    """Must stay last: everything above has run."""
    modules = (crc, csr, edges, groups, gzip, quantize)
    kernels = [one for one in Kernel.registry if any(one in vars(module).values() for module in modules)]
    assert len(kernels) >= 15
    assert {one.name: one.undeclared() for one in kernels if one.undeclared()} == {}
    unused = {one.name: len(one.signatures) - len(one._dispatcher.signatures) for one in kernels}
    assert {name: n for name, n in unused.items() if n > 0} == {}
