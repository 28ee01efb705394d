"""Kernels on generated data, against NumPy and SciPy."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atlaswriter.engine.columns import SparseColumns
from atlaswriter.formats.cellucid.graph import EdgeStream, least_room, whole_room
from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.sources.memory import matrix_of

moderate = settings(max_examples=150, derandomize=True, deadline=None)
TOP = {8: 254, 16: 65534}
bits = st.sampled_from([8, 16])
float32s = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32))
float64s = hnp.arrays(
    np.float64,
    st.integers(1, 30),
    elements=st.floats(-3.4028234e38, 3.4028234e38) | st.sampled_from([np.nan, np.inf, -np.inf]),
)
columns = float32s | float64s


def decode(codes, bounds, bits):
    low, high = bounds
    return low + codes.astype(np.float64) * ((high - low) / TOP[bits])


@moderate
@given(columns, bits)
def test_nearest(values, bits):
    result = ValueEncoder(values.size, bits, "nearest").encode_dense(values)
    codes = result.payload.whole()
    finite = np.isfinite(values)
    exact = values.astype(np.float64)
    assert result.n_missing == (~finite).sum()
    assert (codes[~finite] == TOP[bits] + 1).all()
    assert (codes[finite] <= TOP[bits]).all()
    if not finite.any():
        assert result.bounds == [0.0, 1.0]
        return
    low, high = result.bounds
    assert low == exact[finite].min()
    assert (codes[exact == low] == 0).all()
    if exact[finite].max() > low:
        assert high == exact[finite].max()
        assert (codes[exact == high] == TOP[bits]).all()
    step = (high - low) / TOP[bits]
    # Decoding rounds too: an ulp of the result, or a subnormal step that cannot be told apart.
    slack = 4 * np.spacing(np.maximum(np.abs(exact[finite]), max(-low, high))) + 255 * np.spacing(0.0)
    error = np.abs(decode(codes[finite], result.bounds, bits) - exact[finite])
    assert (error <= step / 2 + slack * (1 if step > 1e-300 else 65536)).all()


@moderate
@given(columns, bits)
def test_codes_keep_the_order_of_values(values, bits):
    codes = ValueEncoder(values.size, bits, "nearest").encode_dense(values).payload.whole()
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(codes[finite][order].astype(int)) >= 0).all()


@moderate
@given(float32s, bits)
def test_truncate_is_the_original_rule(values, bits):
    """cellucid 0.0.9, `_quantize_continuous`: float32 arithmetic, cut off."""
    valid = np.isfinite(values)
    expected = np.full(values.size, TOP[bits] + 1)
    if valid.any():
        low, high = float(values[valid].min()), float(values[valid].max())
        high = low + 1.0 if high == low else high
        if high == low:
            return  # ZeroDivisionError there
        with np.errstate(all="ignore"):
            scaled = (values[valid] - low) * (TOP[bits] / (high - low))
            clipped = np.clip(scaled, 0, TOP[bits])
        # What a cast makes of NaN depends on the processor; here it is 0.
        expected[valid] = np.where(np.isnan(clipped), 0, clipped)
    found = ValueEncoder(values.size, bits, "truncate").encode_dense(values).payload.whole()
    assert found.tolist() == expected.tolist()


@moderate
@given(
    st.lists(columns, min_size=1, max_size=4),
    st.sampled_from([None, 8, 16]),
    st.sampled_from(["nearest", "truncate"]),
    st.integers(0, 5),
    st.sampled_from([np.float32, np.float64]),
)
def test_sparse_is_dense(given, bits, quantizer, more, dtype):
    """Several columns in one call, as each alone in full; some are full, some are not."""
    with np.errstate(over="ignore"):
        given = [values.astype(dtype) for values in given]
    n = max(values.size for values in given) + more
    rows = [np.sort(np.random.default_rng(n).permutation(n)[: values.size]) for values in given]
    offsets = np.cumsum([0, *(values.size for values in given)])
    encoder = ValueEncoder(n, bits, quantizer)
    sparse = encoder.encode(SparseColumns(np.concatenate(rows).astype(np.uint32), np.concatenate(given), offsets))
    assert len(sparse) == len(given)
    for column, values in enumerate(given):
        dense = np.zeros(n, dtype)
        dense[rows[column]] = values
        plain = encoder.encode_dense(dense)
        codes = plain.payload.whole().copy()
        np.testing.assert_array_equal(encoder.dense(sparse, column), codes)
        assert (sparse.entries[offsets[column] : offsets[column + 1]] >> 32).tolist() == rows[column].tolist()
        assert sparse.n_missing[column] == plain.n_missing
        assert (sparse.rules.bounds is None) == (bits is None)
        assert bits is None or sparse.rules.bounds[column].tolist() == plain.bounds


@moderate
@given(
    hnp.arrays(np.float64, (24, 2), elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.uint8, 24, elements=st.sampled_from([0, 1, 2, 255])),
    st.floats(0.51, 0.99),
    st.integers(1, 12),
)
def test_centroids(coords, codes, quantile, min_points):
    frame = Frame.around(coords, "x")
    counts = np.bincount(codes, minlength=256)[:3]
    found = centroids(
        coords, frame, codes, counts, ["a", "b", "c"], quantile=quantile, min_points=min_points, room=1 << 20
    )
    points = (coords - frame.center) / frame.half
    assert [entry["category"] for entry in found] == [
        name for name, n in zip("abc", counts, strict=True) if n >= min_points
    ]
    for entry in found:
        mine = points[codes == "abc".index(entry["category"])]
        center, used = mine.mean(axis=0), len(mine)
        if used > min_points:
            distances = np.linalg.norm(mine - center, axis=1)
            reach = np.quantile(distances, quantile)
            if np.isclose(distances, reach, rtol=1e-9).any() and not (distances == reach).any():
                continue  # a cell on the very border: either answer is right
            near = mine[distances <= reach]
            if (np.abs(distances - reach) <= 1e-9 * max(reach, 1e-9)).any():
                continue
            if len(near) >= min_points:
                center, used = near.mean(axis=0), len(near)
        assert entry["n_points"] == used
        np.testing.assert_allclose(entry["position"], center, rtol=1e-9, atol=1e-9)


@moderate
@given(
    # Whole numbers and categories of one, two, four or eight cells: means and distances are exact.
    hnp.arrays(np.float32, (24, 2), elements=st.integers(-8, 8)),
    st.permutations([0] * 8 + [1] * 8 + [2] * 4 + [3] * 2 + [65535] * 2),
    st.integers(1, 9),
)
def test_outlier_quantiles(latent, codes, min_points):
    codes = np.array(codes, np.uint16)
    counts = np.array([8, 8, 4, 2])
    found = outlier_quantiles(latent, codes, counts, min_points=min_points, room=1 << 20, spill=Path)
    expected = np.full(24, np.nan, np.float32)
    for group, size in enumerate(counts):
        if size >= min_points:
            mine = latent[codes == group].astype(np.float64)
            squares = ((mine - mine.mean(axis=0)) ** 2).sum(axis=1)
            expected[codes == group] = (squares[:, None] >= squares[None, :]).sum(axis=1) / size
    np.testing.assert_array_equal(found, expected)


@moderate
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(
                st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.sampled_from([0.0, 1, -1, 2])), max_size=40
            ),
        )
    ),
    st.sampled_from(["csr", "csc", "coo", "dense", "unsorted"]),
)
def test_edges(graph, form):
    n, entries = graph
    rows, cols, weights = ([entry[i] for entry in entries] for i in range(3))
    pairs = {(min(a, b), max(a, b)) for a, b, weight in entries if weight and a != b}
    if form in ("csr", "csc", "unsorted"):
        # Built by hand, so that repeated and zero entries stay as they are.
        major, minor = (cols, rows) if form == "csc" else (rows, cols)
        order = sorted(range(len(entries)), key=lambda i: (major[i], 0 if form == "unsorted" else minor[i]))
        make = sp.csc_array if form == "csc" else sp.csr_array
        indptr = np.r_[0, np.cumsum(np.bincount(np.array(major, int), minlength=n))]
        matrix = make(
            (np.array(weights, float)[order], np.array(minor, np.int32)[order], indptr.astype(np.int32)), shape=(n, n)
        )
    else:
        total = sp.coo_array(
            (np.abs(np.array(weights, float)), (np.array(rows, int), np.array(cols, int))), shape=(n, n)
        )
        matrix = total if form == "coo" else total.toarray()
    given = matrix_of(matrix, "graph")
    degrees = np.bincount(np.array(sorted(pairs), int).ravel(), minlength=n)
    for room in (least_room(given), least_room(given) + 4, whole_room(given)):
        stream = EdgeStream(given, room)
        found = [pair for sources, destinations in stream for pair in zip(sources, destinations, strict=True)]
        assert found == sorted(pairs)
        assert (stream.n_edges, stream.max_neighbors) == (len(pairs), degrees.max())
