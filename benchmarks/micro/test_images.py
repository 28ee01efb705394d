"""Pixels: to 8 bit, to half their size, to tiles; labels; drawings."""
# ruff: noqa: ANN001, ANN201 - fixtures, as in tests

from __future__ import annotations

import numpy as np
import pytest

from atlaswriter.codecs import webp
from atlaswriter.kernels import draw, labels, pixels

SIDE, TILE = 2048, 512
N = SIDE * SIDE
# Cells on a square grid, in pixels of the image; a drawing has half as many pixels on a side.
PITCH, RADIUS, N_VERTICES = 32, 12.0, 25
N_LABELS = (SIDE // PITCH) ** 2
# Of the tables of labels.
N_SLOTS, SEED = 1 << 14, np.uint64(1)


@pytest.fixture(scope="module")
def image():
    """uint16: smooth, with some noise."""
    row, column = np.mgrid[:SIDE, :SIDE]
    smooth = 20_000 * (np.sin(row / 40) + np.cos(column / 60) + 2) / 2
    return (smooth + np.random.default_rng(0).integers(0, 200, (SIDE, SIDE))).astype(np.uint16)


@pytest.fixture(scope="module")
def grey(image):
    return (image >> 8).astype(np.uint8)


@pytest.fixture(scope="module")
def cells():
    """Labels of squares of the grid, half as wide as it, int32."""
    row, column = np.mgrid[:SIDE, :SIDE]
    numbers = row // PITCH * (SIDE // PITCH) + column // PITCH + 1
    return (numbers * ((row % PITCH < PITCH // 2) & (column % PITCH < PITCH // 2))).astype(np.int32)


@pytest.fixture(scope="module")
def centers():
    x, y = np.meshgrid(np.arange(PITCH / 2, SIDE, PITCH), np.arange(PITCH / 2, SIDE, PITCH))
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.fixture(scope="module")
def circles(centers):
    """Closed rings around the centers, and where each begins."""
    angle = np.arange(N_VERTICES) * 2 * np.pi / (N_VERTICES - 1)
    around = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centers[:, None] + around).reshape(-1, 2), np.arange(len(centers) + 1) * N_VERTICES


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_look_up(measure, image, grey, dtype):
    values = (grey if dtype == "u1" else image).ravel()
    table = (np.arange(1 << 8 * values.itemsize) * 7 % 256).astype(np.uint8)
    out = np.empty(N, np.uint8)
    measure({"pixel": N, "byte": values.nbytes}, pixels.look_up, values, table, out)
    assert np.array_equal(out, table[values])


def test_stretch(measure, image):
    values, limit, out = image.ravel().astype(np.uint32), np.float32(30_000), np.empty(N, np.uint8)
    measure({"pixel": N, "byte": values.nbytes}, pixels.stretch, values, limit, out)
    expected = np.minimum(values.astype(np.float32), limit) / limit * np.float32(255)
    assert np.array_equal(out, expected.astype(np.uint8))


@pytest.mark.parametrize("dtype", ["i4", "u4", "f4", "f8"])
def test_spread(measure, image, dtype):
    values, out = image.ravel().astype(dtype), np.empty(N, np.uint8)
    measure({"pixel": N, "byte": values.nbytes}, pixels.spread, values, 1000.0, 30_000.0, out)
    expected = np.clip((values.astype(np.float64) - 1000) / 29_000 * 255 + 0.5, 0, 255)
    assert np.array_equal(out, expected.astype(np.uint8))


def test_triple(measure, grey):
    out = np.empty(3 * N, np.uint8)
    measure({"pixel": N, "byte": N}, pixels.triple, grey.ravel(), out)
    assert np.array_equal(out, np.repeat(grey.ravel(), 3))


def halved(image):
    """Rounded means of 2 × 2, by NumPy."""
    half = image.shape[0] // 2
    sums = image.astype(np.uint16).reshape(half, 2, half, 2, -1).sum(axis=(1, 3), dtype=np.uint16)
    return ((sums + 2) >> 2).astype(np.uint8)


def test_halve_grey(measure, grey):
    out = np.empty((SIDE // 2, SIDE // 2), np.uint8)
    measure({"pixel": N, "byte": N}, pixels.halve_grey, grey, out)
    assert np.array_equal(out, halved(grey)[..., 0])


def test_halve_colour(measure, grey):
    colours = np.ascontiguousarray(np.stack([grey, grey[::-1], 255 - grey], axis=2))
    out = np.empty((SIDE // 2, SIDE // 2, 3), np.uint8)
    measure({"pixel": N, "byte": 3 * N}, pixels.halve_colour, colours, out)
    assert np.array_equal(out, halved(colours))


@pytest.mark.parametrize("what", ["grey", "plain"])
def test_webp_encode(measure, grey, what):
    tile = grey[:TILE, :TILE] if what == "grey" else np.zeros((TILE, TILE), np.uint8)
    content = measure({"pixel": tile.size, "byte": tile.size}, webp.encode, tile)
    assert abs(webp.decode(content).astype(int) - tile[..., None]).mean() < 1


def test_webp_decode(measure, grey):
    tile = grey[:TILE, :TILE]
    found = measure({"pixel": tile.size, "byte": 3 * tile.size}, webp.decode, webp.encode(tile))
    assert abs(found.astype(int) - tile[..., None]).mean() < 1


def test_distinct(measure_fresh, cells):
    block = cells.ravel()
    n, given = measure_fresh(
        {"pixel": N, "byte": block.nbytes}, labels.distinct, lambda: (block, np.zeros(N_SLOTS, np.int32), SEED, 0)
    )
    assert n == N_LABELS
    assert np.array_equal(np.sort(given[1])[-n:], np.arange(1, n + 1))


def table_of(keys, new):
    return keys, new, np.zeros(N_SLOTS, np.int32), np.zeros(N_SLOTS, np.int32), SEED


def test_label_table(measure_fresh):
    keys = np.arange(1, N_LABELS + 1, dtype=np.int32)
    _, given = measure_fresh({"label": keys.size}, labels.fill, lambda: table_of(keys, -keys))
    slots, places = given[2:4]
    assert np.array_equal(np.sort(slots)[-keys.size :], keys)
    assert np.array_equal(places, -slots)


def test_replace(measure, cells):
    """All labels but the first get other numbers."""
    keys = np.arange(2, N_LABELS + 1, dtype=np.int32)
    table = table_of(keys, keys[::-1].copy())
    labels.fill(*table)
    block, out = cells.ravel(), np.empty(N, np.int32)
    removed = measure({"pixel": N, "byte": block.nbytes}, labels.replace, block, *table[2:], out)
    assert removed == (PITCH // 2) ** 2
    expected = np.r_[0, 0, keys[::-1]]
    assert np.array_equal(out, expected[block])


def test_strokes(measure_fresh, circles):
    """Lines that are 2 pixels wide, in half the size."""
    xy, offsets = circles
    half = SIDE // 2
    _, given = measure_fresh(
        {"vertex": len(xy)},
        draw.strokes,
        lambda: (xy, offsets, 0.0, 0.0, 0.5, 1.0, np.zeros((half, half), np.float32)),
    )
    column, row = (xy / 2).astype(int).T
    assert given[-1][row, column].min() > 0.5
    assert given[-1][:: PITCH // 2].max() == 0  # between cells


def test_fill(measure_fresh, circles, centers):
    xy, offsets = circles
    numbers = np.arange(len(centers)) + 1
    _, given = measure_fresh(
        {"vertex": len(xy)},
        draw.fill,
        lambda: (xy, offsets, numbers, 0.0, 0.0, 1.0, np.zeros((SIDE, SIDE), np.int64)),
    )
    sizes = np.bincount(given[-1].ravel(), minlength=numbers.size + 1)[1:]
    polygon = RADIUS**2 * (N_VERTICES - 1) / 2 * np.sin(2 * np.pi / (N_VERTICES - 1))
    assert sizes.min() > 0.95 * polygon
    assert sizes.max() < 1.05 * polygon


def test_discs(measure_fresh, centers):
    x, y = (np.ascontiguousarray(axis) for axis in centers.T)
    numbers = np.arange(x.size)
    _, given = measure_fresh(
        {"disc": x.size},
        draw.discs,
        lambda: (x, y, numbers, 0.0, 0.0, 1.0, 8.0, 2.0, np.full((SIDE, SIDE), -1)),
    )
    row, column = np.mgrid[-12:13, -12:13]
    inside = (row**2 + column**2 <= 64).sum()
    assert (np.bincount(given[-1][given[-1] >= 0]) == inside).all()
    assert (given[-1] == -2).sum() == ((row**2 + column**2 <= 100).sum() - inside) * x.size


def test_tally(measure_fresh):
    x, y = np.random.default_rng(0).uniform(0, SIDE, (2, 1_000_000))
    side = SIDE // 4
    _, given = measure_fresh(
        {"point": x.size, "byte": 16 * x.size},
        draw.tally,
        lambda: (x, y, 0.0, 0.0, 0.25, np.zeros((side, side), np.int64)),
    )
    places = (y / 4).astype(int) * side + (x / 4).astype(int)
    assert np.array_equal(given[-1].ravel(), np.bincount(places, minlength=side * side))
