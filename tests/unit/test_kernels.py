"""Every kernel in every declared type against a plain NumPy or SciPy twin."""

import re

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.formats.cellucid.values import spread
from atlaswriter.kernels import csr, edges, groups, quantize
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
    low, high = spread(exact[finite].min(), exact[finite].max())
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


@pytest.mark.parametrize("types", dtypes(csr.count))
def test_count(types):
    indices = np.random.default_rng(0).integers(0, 7, 1000).astype(types[0])
    counts = np.full(8, 5, np.int64)
    csr.count(indices, counts)
    assert counts.tolist() == (5 + np.bincount(indices, minlength=8)).tolist()


@pytest.mark.parametrize("types", dtypes(csr.place))
def test_place(types):
    index, value = types[1], types[2]
    rng = np.random.default_rng(1)
    matrix = sp.random_array((40, 9), density=0.3, format="csr", rng=rng).astype(value)
    wanted = np.array([7, 0, 3])
    slot = np.full(9, -1, np.int32)
    slot[wanted] = [0, 1, 2]
    expected = [matrix[:, [gene]].tocoo() for gene in wanted]
    starts = np.cumsum([0] + [column.nnz for column in expected])
    rows, values = np.empty(starts[-1], np.uint32), np.empty(starts[-1], value)
    cursor = starts[:-1].astype(np.int64)
    indptr = matrix.indptr.astype(np.int64)
    for first, last in ((0, 15), (15, 40)):
        part = slice(indptr[first], indptr[last])
        indices = matrix.indices[part].astype(index)
        csr.place(
            indptr[first : last + 1], indices, matrix.data[part], first, indptr[first], slot, cursor, rows, values
        )
    assert cursor.tolist() == starts[1:].tolist()
    for start, end, column in zip(starts, starts[1:], expected, strict=False):
        assert rows[start:end].tolist() == column.row.tolist()
        assert values[start:end].tolist() == column.data.tolist()


# ---------------------------------------------------------------- quantize


@pytest.mark.parametrize("types", dtypes(quantize.bounds))
def test_bounds(types):
    values = np.random.default_rng(2).normal(size=500).astype(types[0])
    values[::7], values[1::50], values[2::50] = np.nan, np.inf, -np.inf
    finite = values[np.isfinite(values)]
    assert quantize.bounds(values) == (finite.min(), finite.max(), finite.size)
    assert quantize.bounds(np.array([np.nan, np.inf], types[0])) == (np.inf, -np.inf, 0)
    assert quantize.bounds(np.empty(0, types[0])) == (np.inf, -np.inf, 0)


@pytest.mark.parametrize("types", dtypes(quantize.ascending))
@pytest.mark.parametrize(
    ("rows", "expected"), [([], True), ([3], True), ([0, 1, 5], True), ([0, 1, 1], False), ([2, 1, 3], False)]
)
def test_ascending(types, rows, expected):
    assert quantize.ascending(np.array(rows, types[0])) is expected


def example_values(dtype):
    values = np.random.default_rng(3).normal(size=2000).astype(dtype)
    values[5], values[6], values[7] = np.nan, np.inf, -np.inf
    return values


@pytest.mark.parametrize("types", dtypes(quantize.nearest))
def test_nearest(types):
    bits = types[-1].itemsize * 8
    values = example_values(types[0])
    expected, (low, high) = nearest_by_hand(values, bits)
    codes = np.empty(values.size, types[-1])
    quantize.nearest(values, low, 1.0, TOP[bits] / (high - low), TOP[bits], codes)
    assert codes.tolist() == expected.tolist()


@pytest.mark.parametrize("types", dtypes(quantize.nearest_sparse))
def test_nearest_sparse(types):
    bits = types[-1].itemsize * 8
    values = example_values(types[1])
    rows = np.arange(values.size, dtype=types[0]) * 2
    dense = np.zeros(values.size * 2 + 5, types[1])
    dense[rows] = values
    expected, (low, high) = nearest_by_hand(dense, bits)
    codes = np.empty(dense.size, types[-1])
    quantize.nearest_sparse(rows, values, low, 1.0, TOP[bits] / (high - low), TOP[bits], codes)
    assert codes.tolist() == expected.tolist()


@pytest.mark.parametrize("types", dtypes(quantize.truncate))
def test_truncate(types):
    bits = types[-1].itemsize * 8
    values = example_values(np.float32)
    finite = values[np.isfinite(values)].astype(float)
    codes = np.empty(values.size, types[-1])
    scale = np.float32(TOP[bits] / (finite.max() - finite.min()))
    quantize.truncate(values, np.float32(finite.min()), scale, TOP[bits], codes)
    assert codes.tolist() == truncate_by_hand(values, bits).tolist()


@pytest.mark.parametrize("types", dtypes(quantize.scatter))
def test_scatter(types):
    rows = np.array([1, 4, 5], types[0])
    values = np.array([2.5, -1, np.nan], types[1])
    column = np.full(8, 9, np.float32)
    quantize.scatter(rows, values, column)
    np.testing.assert_array_equal(column, np.array([0, 2.5, 0, 0, -1, np.nan, 0, 0], np.float32))


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
    modules = (csr, edges, groups, quantize)
    kernels = [one for one in Kernel.registry if any(one in vars(module).values() for module in modules)]
    assert len(kernels) >= 15
    assert {one.name: one.undeclared() for one in kernels if one.undeclared()} == {}
    unused = {one.name: len(one.signatures) - len(one._dispatcher.signatures) for one in kernels}
    assert {name: n for name, n in unused.items() if n > 0} == {}
