"""Transcripts and outlines to tiles: kernels beside the same in plain NumPy."""

from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaswriter.kernels import bins, rings

IDENTITY = np.array([1.0, 0, 0, 0, 1, 0])
TURNED = np.array([4.7, -0.31, -120.5, 0.29, 4.9, 33.125])
FAR = 2**31 - 1


def located(x, y, features=None, genes=None, quality=(), least=-np.inf, to_px=IDENTITY, region=(), edge=25_000):
    """What `locate` gives."""
    x, y = np.asarray(x), np.asarray(y)
    features = np.zeros(x.size, np.int32) if features is None else np.asarray(features, np.int32)
    genes = np.zeros(1, np.int32) if genes is None else np.asarray(genes, np.int32)
    found = np.zeros(bins.N_FOUND, np.int64)
    found[bins.FIRST_I :] = [*[np.iinfo(np.int64).max] * 2, *[np.iinfo(np.int64).min] * 2]
    out = [np.full(x.size, -7, np.int32) for _ in range(3)]
    n = bins.locate(
        x, y, features, genes, np.asarray(quality, np.float64), float(least), np.asarray(to_px, np.float64),
        100 * np.asarray(region, np.float64), np.int32(edge), *out, found,
    )  # fmt: skip
    assert all((array[n:] == -7).all() for array in out)
    return [array[:n] for array in out], found


def twin(x, y, features, genes, quality, least, to_px, region, edge):
    """The same with NumPy: kept positions and genes, and how many were left out and why, each for one reason."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        px, py = (row[0] * x + row[1] * y + row[2] for row in to_px.reshape(2, 3))
    across, down = np.rint(px * 100), np.rint(py * 100)
    rest = np.ones(x.size, bool)
    counts = []

    def leave_out(wrong):
        nonlocal rest
        counts.append(int((wrong & rest).sum()))
        rest &= ~wrong

    with np.errstate(invalid="ignore"):
        leave_out(~((np.abs(across) <= FAR) & (np.abs(down) <= FAR)))
        if len(region):
            left, top, right, bottom = (100 * bound for bound in region)
            leave_out(~((left <= across) & (across < right) & (top <= down) & (down < bottom)))
        else:
            leave_out(np.zeros(x.size, bool))
        leave_out(~(quality >= least) if len(quality) else np.zeros(x.size, bool))
    leave_out(genes[features] < 0)
    xy = np.column_stack([across, down])[rest].astype(np.int64)
    return xy, genes[features][rest], counts, np.floor_divide(xy, edge)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("to_px", [IDENTITY, TURNED])
@pytest.mark.parametrize("edge", [100, 700, 25_000, 65_536, 104_857_600])
@pytest.mark.parametrize("filtered", [False, True])
def test_positions_are_those_of_numpy(real, to_px, edge, filtered):
    rng = np.random.default_rng(edge)
    x, y = rng.uniform(-500, 3000, (2, 5000)).astype(real)
    x[:20], y[10:30] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e7], (2, 20))
    features = rng.integers(0, 7, x.size).astype(np.int32)
    genes = np.array([3, -1, 0, 70_000, 5, -1, 1], np.int32)
    quality = rng.uniform(0, 40, x.size) if filtered else np.empty(0)
    quality[1::50] = np.nan
    least = 20.0 if filtered else -np.inf
    region = (0, 0, 1000, 800) if filtered else ()
    (ours_x, ours_y, ours_gene), found = located(x, y, features, genes, quality, least, to_px, region, edge)
    xy, gene, counts, tiles = twin(x, y, features, genes, quality, least, to_px, region, edge)
    np.testing.assert_array_equal(np.column_stack([ours_x, ours_y]), xy)
    np.testing.assert_array_equal(ours_gene, gene)
    assert found[: bins.FIRST_I].tolist() == counts
    assert found[bins.FIRST_I : bins.LAST_I].tolist() == tiles.min(0).tolist()
    assert found[bins.LAST_I :].tolist() == tiles.max(0).tolist()
    assert counts[0] > 0
    assert len(xy) + sum(counts) == x.size


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.lists(st.floats(-2.1e7, 2.1e7), min_size=1, max_size=20),
    st.sampled_from([IDENTITY, TURNED]),
    st.integers(1, 1 << 20),
)
def test_rounding_is_that_of_numpy(values, to_px, tile):
    x = np.array(values)
    y = x[::-1].copy()
    (ours_x, ours_y, _), found = located(x, y, to_px=to_px, edge=100 * tile)
    none = np.empty(0)
    features = np.zeros(x.size, np.int32)
    xy, _, counts, _ = twin(x, y, features, np.zeros(1, np.int32), none, 0, to_px, (), 100 * tile)
    np.testing.assert_array_equal(np.column_stack([ours_x, ours_y]), xy)
    assert found[bins.FAR] == counts[0]


def test_ties_go_to_the_even_hundredth():
    """As of `numpy.round`, on what 100 times the pixel is in float64."""
    x = np.array([0.125, 0.375, -0.125, 1.005, 2.675, 0.005, 0.015, 0.025])
    (ours, _, _), _ = located(x, np.zeros(8))
    assert ours.tolist() == np.rint(x * 100).astype(int).tolist()
    assert ours[:3].tolist() == [12, 38, -12]
    np.testing.assert_array_equal(ours / 100, np.round(x, 2))


def test_the_last_position_that_counts():
    x = np.array([FAR / 100, FAR / 100 + 0.01, -FAR / 100, -FAR / 100 - 0.01])
    (ours, _, _), found = located(x, np.zeros(4))
    assert ours.tolist() == [FAR, -FAR]
    assert found[bins.FAR] == 2


def test_nothing_is_nothing():
    (ours, _, _), found = located(np.empty(0), np.empty(0))
    assert ours.size == 0
    assert found[: bins.FIRST_I].tolist() == [0] * 4


def test_a_region_holds_its_first_edges_and_not_its_last():
    """By the hundredths that are written: 9.999 is at 10."""
    x = np.array([0, -0.01, 9.99, 9.999, 10, 5, 5, 5, -0.001])
    y = np.array([0, 5, 5, 5, 5, 7.99, 8, -1e-9, 3])
    (ours, _, _), found = located(x, y, region=(0, 0, 10, 8))
    assert ours.tolist() == [0, 999, 500, 500, 0]
    assert found[bins.OUTSIDE] == 4


def test_quality_counts_where_it_is_given():
    quality = np.array([np.nextafter(20, 0), 20, 20.001, np.nan, np.inf, -np.inf])
    (ours, _, _), found = located(np.arange(6.0), np.zeros(6), quality=quality, least=20)
    assert ours.tolist() == [100, 200, 400]
    assert found[bins.POOR] == 3


# --- grouping


@pytest.mark.parametrize("local", [np.uint16, np.uint32])
@pytest.mark.parametrize("gene", [np.uint16, np.uint32])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("edge", [100, 25_000, 65_536])
def test_grouping(local, gene, real, edge):
    """Counted, put in order, and back in pixels: every position in its tile, in the order of the source."""
    rng = np.random.default_rng(edge)
    x, y = rng.integers(-3 * edge, 5 * edge, (2, 3000)).astype(np.int32)
    x[:4], y[:4] = [-1, 0, edge - 1, edge], [-edge, edge, -edge - 1, 0]
    genes = rng.integers(0, 60_000, x.size).astype(np.int32)
    i, j = x // edge, y // edge
    first_i, first_j, n_i, n_j = (int(value) for value in (i.min(), j.min(), np.ptp(i) + 1, np.ptp(j) + 1))
    counts = np.zeros(n_i * n_j, np.int64)
    bins.count(x, y, np.int32(edge), first_i, first_j, n_j, counts)
    tile = (i - first_i) * n_j + (j - first_j)
    np.testing.assert_array_equal(counts, np.bincount(tile, minlength=counts.size))
    ends = np.r_[0, np.cumsum(counts)]
    cursor = ends[:-1].copy()
    out = np.empty(x.size, local), np.empty(x.size, local), np.empty(x.size, gene)
    bins.group(x, y, genes, np.int32(edge), first_i, first_j, n_j, cursor, *out)
    np.testing.assert_array_equal(cursor, ends[1:])
    order = np.argsort(tile, kind="stable")
    np.testing.assert_array_equal(out[0], (x - i * edge)[order])
    np.testing.assert_array_equal(out[1], (y - j * edge)[order])
    np.testing.assert_array_equal(out[2], genes[order])
    for k in np.flatnonzero(counts)[:40]:
        here = slice(ends[k], ends[k + 1])
        xy = np.empty(2 * counts[k], real)
        left, top = (k // n_j + first_i) * edge, (k % n_j + first_j) * edge
        expected = np.column_stack([x, y])[order][here] / 100.0
        bins.pairs(out[0][here], out[1][here], left, top, 0.0, xy)
        np.testing.assert_array_equal(xy, expected.astype(real).ravel())
        bins.pairs(out[0][here], out[1][here], left, top, 128.0, xy)
        np.testing.assert_array_equal(xy, (np.rint(expected * 128) / 128).astype(real).ravel())
        if np.abs(expected).max() < 131_072:
            np.testing.assert_array_equal(np.rint(xy.astype(np.float64) * 100), np.rint(expected * 100).ravel())


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.int32])
def test_place(kind):
    wanted = np.array([-5, 0, 3, 2**40], np.int64)
    out, cursor = np.zeros(9, kind), np.array([0, 2, 2, 7], np.int64)
    # Offsets begin anywhere; a key without values moves nothing.
    bins.place(np.array([-5, 3, 2**40]), np.array([10, 12, 15, 15]), wanted, np.arange(1, 6).astype(kind), cursor, out)
    assert out.tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 0]
    assert cursor.tolist() == [2, 2, 5, 7]
    bins.place(np.array([3, 2**40]), np.array([0, 2, 4]), wanted, np.arange(6, 10).astype(kind), cursor, out)
    assert out.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


# --- outlines


def closed(outlines, to_px=IDENTITY, edge=25_000):
    """What `close` gives: state, tile and vertices of each ring."""
    sizes = [len(ring) for ring in outlines]
    offsets = np.r_[0, np.cumsum(sizes, dtype=np.int64)].astype(np.int64)
    joined = np.concatenate([np.asarray(ring, np.float64).reshape(-1, 2) for ring in outlines] or [np.empty((0, 2))])
    x, y = joined.T.copy()
    n = len(outlines)
    state, i, j, out_sizes = (np.full(n, -9, np.int64) for _ in range(4))
    x_out, y_out = (np.empty(x.size + n, np.int32) for _ in range(2))
    rings.close(offsets, x, y, np.asarray(to_px, np.float64), edge, state, i, j, out_sizes, x_out, y_out)
    ends = np.r_[0, np.cumsum(out_sizes)]
    points = [np.column_stack([x_out[a:b], y_out[a:b]]) for a, b in pairwise(ends)]
    return [SimpleNamespace(state=int(state[k]), tile=(int(i[k]), int(j[k])), points=points[k]) for k in range(n)]


def exact_centroid(ring):
    """In exact fractions of the floats; None without an area."""
    points = [(Fraction(float(x)), Fraction(float(y))) for x, y in ring]
    area = across = down = Fraction(0)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        cross = ax * by - bx * ay
        area, across, down = area + cross, across + (ax + bx) * cross, down + (ay + by) * cross
    return None if not area else (across / (3 * area), down / (3 * area))


def star(rng, n, center, radius):
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    far = radius * rng.uniform(0.3, 1, n)
    return np.asarray(center) + far[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


@pytest.mark.parametrize("to_px", [IDENTITY, TURNED])
@pytest.mark.parametrize("edge", [100, 1000, 25_000])
def test_rings_and_their_tiles(to_px, edge):
    """Of any direction, open or closed, left of and above the image, far from it."""
    rng = np.random.default_rng(edge)
    outlines = []
    for k in range(300):
        center = rng.uniform(-500, 2000, 2) if k % 10 else rng.uniform(-2e6, 2e6, 2)
        ring = star(rng, rng.integers(3, 40), center, rng.uniform(0.5, 60))[:: 1 if k % 2 else -1]
        outlines.append(np.vstack([ring, ring[:1]]) if k % 3 else ring)
    for ring, found in zip(outlines, closed(outlines, to_px, edge), strict=True):
        x, y = ring.T
        px = np.column_stack([row[0] * x + row[1] * y + row[2] for row in to_px.reshape(2, 3)])
        assert found.state == rings.GOOD
        whole = px if (px[0] == px[-1]).all() else np.vstack([px, px[:1]])
        np.testing.assert_array_equal(found.points, np.rint(whole * 100).astype(int))
        middle, box = exact_centroid(px), (px.min(0), px.max(0))
        if middle is None or not all(low <= c <= high for low, c, high in zip(box[0], middle, box[1], strict=True)):
            continue
        for ours, c in zip(found.tile, middle, strict=True):
            place = float(c * 100 / edge)
            near = abs(place - round(place)) < 1e-6
            assert ours == np.floor(place) or (near and ours in (round(place), round(place) - 1))


SQUARE = [(10, 10), (20, 10), (20, 30), (10, 30)]


@pytest.mark.parametrize(
    ("ring", "tile"),
    [
        (SQUARE, (15, 20)),
        ([*SQUARE, SQUARE[0]], (15, 20)),
        (SQUARE[::-1], (15, 20)),
        # A bow tie whose two halves cancel out: the middle of its box.
        ([(0, 0), (10, 10), (10, 0), (0, 10)], (5, 5)),
        # One that crosses itself, but with an area: the centroid by the formula, where it lies in the box.
        ([(0, 0), (10, 10), (10, 0), (0, 20)], None),
        # Three vertices on a line.
        ([(0, 0), (4, 4), (9, 9)], (4, 4)),
        ([(0, 0), (4, 0), (9, 0), (0, 0)], (4, 0)),
        # Vertices that repeat.
        ([(1, 1), (1, 1), (5, 1), (5, 5), (5, 5), (1, 5), (1, 1)], (3, 3)),
        # Left of and above the image.
        ([(-10, -10), (-8, -10), (-8, -6), (-10, -6)], (-9, -8)),
        # Exactly on the corner of a tile.
        ([(2, 2), (4, 2), (4, 4), (2, 4)], (3, 3)),
        ([(-1, -1), (1, -1), (1, 1), (-1, 1)], (0, 0)),
    ],
)
def test_tiles_of_rings_of_all_kinds(ring, tile):
    (found,) = closed([ring], edge=100)
    assert found.state == rings.GOOD
    assert (found.points[0] == found.points[-1]).all()
    middle = exact_centroid(ring)
    if tile is None:
        tile = tuple(int(np.floor(c)) for c in middle)
        low, high = np.min(ring, axis=0), np.max(ring, axis=0)
        if not all(a <= c <= b for a, c, b in zip(low, middle, high, strict=True)):
            tile = tuple(np.floor((low + high) / 2).astype(int))
    assert found.tile == tile


def test_a_centroid_outside_of_the_box_is_not_believed():
    """Of rings that cross themselves the formula may lead anywhere."""
    ring = [(0, 0), (100, 100), (100, 0), (0, 100.1)]
    middle = [float(c) for c in exact_centroid(ring)]
    assert not 0 <= middle[1] <= 100.1 or not 0 <= middle[0] <= 100
    (found,) = closed([ring], edge=100)
    assert found.tile == (50, 50)


def test_small_cells_far_from_the_origin_keep_their_tile():
    """Sums are taken from a vertex, not from the origin, where they would cancel out."""
    ring = np.array(SQUARE) / 100 + [1_000_000.3, 2_000_000.6]
    (found,) = closed([ring], edge=1)
    middle = exact_centroid(ring)
    assert all(abs(ours - float(c * 100)) < 1.001 for ours, c in zip(found.tile, middle, strict=True))


@pytest.mark.parametrize(
    "ring",
    [[], [(1, 1)], [(1, 1), (2, 2)], [(1, 1), (2, 2), (1, 1)], [(1, 1)] * 5, [(1, 1), (2, 2), (2, 2), (1, 1), (1, 1)]],
)
def test_degenerate_rings_have_no_vertices(ring):
    good = [(0, 0), (1, 0), (1, 1)]
    before, found, after = closed([good, ring, good])
    assert found.state == rings.DEGENERATE
    assert len(found.points) == 0
    assert before.points.tolist() == after.points.tolist() == [[0, 0], [100, 0], [100, 100], [0, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, FAR / 100 + 0.01])
@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("axis", [0, 1])
def test_rings_with_a_vertex_nowhere(bad, place, axis):
    ring = np.array([*SQUARE, SQUARE[0]], float)
    ring[place, axis] = bad
    found = closed([SQUARE, ring, SQUARE])
    assert [one.state for one in found] == [rings.GOOD, rings.FAR, rings.GOOD]
    assert len(found[1].points) == 0
    assert found[2].points.tolist() == found[0].points.tolist()


def test_short_rings_nowhere_are_far_not_degenerate():
    assert closed([[(np.nan, 1)]])[0].state == rings.FAR


def test_no_rings():
    assert closed([]) == []


def test_reorder():
    x, y = np.arange(10, dtype=np.int32), -np.arange(10, dtype=np.int32)
    out = np.empty(6, np.int32), np.empty(6, np.int32)
    rings.reorder(np.array([7, 0, 3]), np.array([3, 2, 1]), x, y, *out)
    assert out[0].tolist() == [7, 8, 9, 0, 1, 3]
    assert out[1].tolist() == [-7, -8, -9, 0, -1, -3]


@pytest.mark.parametrize(
    "kernel", [bins.locate, bins.count, bins.group, bins.pairs, bins.place, rings.close, rings.reorder]
)
def test_only_declared_types_were_compiled(kernel):
    assert kernel.undeclared() == []
