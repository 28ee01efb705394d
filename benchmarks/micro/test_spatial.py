"""Transcripts and outlines of cells on their way to tiles; names and geometries on their way in."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import numpy as np
import pytest

from atlaswriter.kernels import bins, names, rings, wkb

N, N_FEATURES, N_WANTED = 1_000_000, 500, 480
# Pixels of an image's side, hundredths of a pixel of a tile's, and tiles.
SIDE, EDGE = 5000, 25_000
N_TILES = SIDE * 100 // EDGE
TO_PX = np.array([4.0, 0, 10, 0, 4.0, 10])
N_CELLS, N_VERTICES = 20_000, 25


@pytest.fixture(scope="module")
def transcripts():
    """Positions in micrometres, features, and quality values."""
    random = np.random.default_rng(0)
    x, y = (random.uniform(0, (SIDE - 20) / 4, N).astype(np.float32) for _ in range(2))
    return x, y, random.integers(N_FEATURES, size=N, dtype=np.int32), random.uniform(0, 40, N)


@pytest.fixture(scope="module")
def located(transcripts):
    """Hundredths of a pixel, and genes."""
    x, y, features, _ = transcripts
    across, down = (np.rint((axis.astype(np.float64) * 4 + 10) * 100).astype(np.int32) for axis in (x, y))
    return across, down, features


@pytest.fixture(scope="module")
def tiles(located):
    x, y, _ = located
    return x // EDGE * N_TILES + y // EDGE


def test_locate(measure_fresh, transcripts, located):
    x, y, features, quality = transcripts
    genes = np.arange(N_FEATURES, dtype=np.int32)
    genes[N_WANTED:] = -1
    out = [np.empty(N, np.int32) for _ in range(3)]

    def arguments():
        found = np.zeros(bins.N_FOUND, np.int64)
        found[bins.FIRST_I : bins.LAST_I] = N_TILES
        return x, y, features, genes, quality, 20.0, TO_PX, np.empty(0), np.int32(EDGE), *out, found

    n, given = measure_fresh({"transcript": N, "byte": 20 * N}, bins.locate, arguments)
    kept = (quality >= 20) & (features < N_WANTED)
    assert n == kept.sum()
    assert all(np.array_equal(mine[:n], whole[kept]) for mine, whole in zip(out, located, strict=True))
    found = given[-1]
    assert found[[bins.FAR, bins.POOR, bins.UNWANTED]].tolist() == [
        0,
        (quality < 20).sum(),
        N - n - (quality < 20).sum(),
    ]
    assert found[bins.FIRST_I :].tolist() == [0, 0, N_TILES - 1, N_TILES - 1]


def test_count(measure_fresh, located, tiles):
    x, y, _ = located
    arguments = x, y, np.int32(EDGE), 0, 0, N_TILES
    _, given = measure_fresh(
        {"transcript": N, "byte": 8 * N}, bins.count, lambda: (*arguments, np.zeros(N_TILES**2, np.int64))
    )
    assert np.array_equal(given[-1], np.bincount(tiles, minlength=N_TILES**2))


def test_group(measure_fresh, located, tiles):
    x, y, genes = located
    starts = np.r_[0, np.cumsum(np.bincount(tiles, minlength=N_TILES**2))[:-1]]
    out = [np.empty(N, np.uint16) for _ in range(3)]
    arguments = x, y, genes, np.int32(EDGE), 0, 0, N_TILES
    measure_fresh({"transcript": N, "byte": 12 * N}, bins.group, lambda: (*arguments, starts.copy(), *out))
    order = np.argsort(tiles, kind="stable")
    for mine, values in zip(out, (x % EDGE, y % EDGE, genes), strict=True):
        assert np.array_equal(mine, values[order])


@pytest.mark.parametrize("steps", [0.0, 8.0])
def test_pairs(measure, located, steps):
    x, y = ((axis % EDGE).astype(np.uint16) for axis in located[:2])
    out = np.empty(2 * N, np.float32)
    measure({"transcript": N, "byte": 4 * N}, bins.pairs, x, y, 2 * EDGE, 3 * EDGE, steps, out)
    px = (x.astype(np.float64) + 2 * EDGE) / 100
    assert np.array_equal(out[::2], (np.rint(px * steps) / steps if steps else px).astype(np.float32))


def test_place(measure_fresh, tiles):
    """Values of one part that has all keys, into the first half of where each key's values go."""
    counts = np.bincount(tiles, minlength=N_TILES**2)
    offsets, values = np.r_[0, np.cumsum(counts)], np.arange(N, dtype=np.int32)
    keys, out = np.arange(counts.size), np.zeros(2 * N, np.int32)

    def arguments():
        return keys, offsets, keys, values, 2 * offsets[:-1], out

    measure_fresh({"entry": N, "byte": values.nbytes}, bins.place, arguments)
    assert np.array_equal(out[np.arange(N) + np.repeat(offsets[:-1], counts)], values)


@pytest.fixture(scope="module")
def outlines():
    """Circles that are not closed: offsets, and vertices in micrometres."""
    random = np.random.default_rng(0)
    angle = np.arange(N_VERTICES) * 2 * np.pi / N_VERTICES
    centers, radius = random.uniform(10, SIDE / 4 - 10, (N_CELLS, 2)), random.uniform(3, 6, (N_CELLS, 1))
    x, y = centers[:, :1] + radius * np.cos(angle), centers[:, 1:] + radius * np.sin(angle)
    return np.arange(N_CELLS + 1) * N_VERTICES, x.ravel(), y.ravel(), centers


def test_close(measure_fresh, outlines):
    offsets, x, y, centers = outlines
    per_ring = [np.empty(N_CELLS, np.int64) for _ in range(4)]
    x_out, y_out = (np.empty(x.size + N_CELLS, np.int32) for _ in range(2))

    def arguments():
        return offsets, x.copy(), y.copy(), TO_PX, EDGE, *per_ring, x_out, y_out

    measure_fresh({"vertex": x.size, "byte": 2 * x.nbytes}, rings.close, arguments)
    state, tile_i, _, sizes = per_ring
    assert (state == rings.GOOD).all()
    assert (sizes == N_VERTICES + 1).all()
    assert np.mean(tile_i == (centers[:, 0] * 4 + 10) * 100 // EDGE) > 0.999
    closed = x_out.reshape(N_CELLS, -1)
    assert np.array_equal(closed[:, :-1].ravel(), np.rint((x * 4 + 10) * 100))
    assert np.array_equal(closed[:, -1], closed[:, 0])


def test_reorder(measure):
    order = np.random.default_rng(0).permutation(N_CELLS)
    starts, sizes = order * N_VERTICES, np.full(N_CELLS, N_VERTICES)
    x = np.arange(N_CELLS * N_VERTICES, dtype=np.int32)
    x_out, y_out = np.empty_like(x), np.empty_like(x)
    measure({"vertex": x.size, "byte": 2 * x.nbytes}, rings.reorder, starts, sizes, x, -x, x_out, y_out)
    assert np.array_equal(x_out, x.reshape(N_CELLS, -1)[order].ravel())
    assert np.array_equal(y_out, -x_out)


@pytest.mark.parametrize("writing", [False, True])
def test_walk(measure_fresh, outlines, writing):
    """Polygons as well-known binary: counted, and written down."""
    _, x, y, _ = outlines
    shape = [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("count", "<u4"), ("xy", "<f8", (N_VERTICES, 2))]
    polygons = np.zeros(N_CELLS, shape)
    polygons["order"], polygons["type"], polygons["rings"], polygons["count"] = 1, wkb.POLYGON, 1, N_VERTICES
    polygons["xy"] = np.stack([x, y], axis=1).reshape(N_CELLS, N_VERTICES, 2)
    data, offsets = polygons.view(np.uint8), np.arange(N_CELLS + 1) * polygons.itemsize
    found = [np.zeros(N_CELLS + 1, np.int64) for _ in range(3)]
    out = [np.empty(x.size, np.uint64) for _ in range(2)]
    present = np.ones(N_CELLS, np.bool_)

    def arguments():
        return data, offsets, present, writing, *found, *out, np.zeros(3, np.int64)

    wrong, given = measure_fresh({"vertex": x.size, "byte": data.size}, wkb.walk, arguments)
    assert wrong == -1
    assert given[-1].tolist() == [N_CELLS, N_CELLS, x.size]
    if writing:
        assert np.array_equal(out[0].view(np.float64), x)
        assert np.array_equal(out[1].view(np.float64), y)


def test_hashes(measure):
    texts = [f"GENE{number}".encode() for number in range(100_000)]
    offsets = np.r_[0, np.cumsum([len(text) for text in texts])].astype(np.int32)
    content, out = np.frombuffer(bytearray(b"".join(texts)), np.uint8), np.empty(len(texts), np.uint64)
    measure({"name": len(texts), "byte": content.size}, names.hashes, offsets, content, out)
    expected = 0xCBF29CE484222325
    for byte in texts[-1]:
        expected = (expected ^ byte) * 0x100000001B3 % 2**64
    assert out[-1] == expected
    assert np.unique(out).size == len(texts)
