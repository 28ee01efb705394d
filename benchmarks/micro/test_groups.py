"""Cells by category: sums, distances, ranks and order statistics."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atlaswriter.formats.cellucid.groups import centroids, outlier_quantiles
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.kernels import groups


@pytest.fixture(scope="module")
def cells(atlas, codes):
    """What every kernel takes first: latent space, codes, center and scale."""
    latent = np.ascontiguousarray(atlas.obsm["X_pca"])
    return latent, codes, np.zeros(latent.shape[1]), 1.0


@pytest.fixture(scope="module")
def counts(codes):
    return np.bincount(codes).astype(np.int64)


@pytest.fixture(scope="module")
def means(cells, counts):
    latent, codes, _, _ = cells
    return np.array([latent[codes == code].mean(axis=0, dtype=np.float64) for code in range(counts.size)])


@pytest.fixture(scope="module")
def distance(cells, means):
    """Of each cell to the mean of its category."""
    latent, codes, _, _ = cells
    return np.linalg.norm(latent - means[codes], axis=1)


@pytest.fixture(scope="module")
def starts(counts):
    return np.r_[0, np.cumsum(counts)]


@pytest.fixture(scope="module")
def ungrouped(distance, codes):
    """Keys of distances and cells, category after category, not sorted."""
    order = np.argsort(codes, kind="stable")
    return distance[order].view(np.int64), order.astype(np.uint32)


def sorted_within(keys, starts):
    return np.concatenate([np.sort(part) for part in np.split(keys, starts[1:-1])])


def expected_shares(distance, codes, counts):
    shares = np.empty(codes.size, np.float32)
    for code, count in enumerate(counts):
        mine = distance[codes == code]
        rank = np.searchsorted(np.sort(mine), mine, side="right")
        shares[codes == code] = rank.astype(np.float32) / np.float32(count)
    return shares


def test_count(measure_fresh, codes, counts):
    units = {"cell": codes.size, "byte": codes.nbytes}
    _, given = measure_fresh(units, groups.count, lambda: (codes, np.zeros(counts.size, np.int64)))
    assert np.array_equal(given[1], counts)


def test_add(measure_fresh, cells, counts, means):
    def arguments():
        return *cells, np.zeros(means.shape), np.empty(0)

    _, given = measure_fresh({"cell": cells[1].size, "byte": cells[0].nbytes}, groups.add, arguments)
    assert np.allclose(given[4] / counts[:, None], means, atol=1e-6)


def test_distances(measure_fresh, cells, means, starts, ungrouped):
    keys, order = np.empty(cells[1].size, np.int64), np.empty(cells[1].size, np.uint32)

    def arguments():
        return *cells, means, starts[:-1].copy(), keys, order, 0

    measure_fresh({"cell": order.size, "byte": cells[0].nbytes}, groups.distances, arguments)
    assert np.array_equal(order, ungrouped[1])
    assert np.allclose(keys.view(np.float64), ungrouped[0].view(np.float64))


def test_add_near(measure_fresh, cells, counts, means, distance):
    codes, reach = cells[1], np.full(counts.size, np.median(distance))

    def arguments():
        return *cells, means, reach, np.zeros(counts.size, np.int64), np.zeros(means.shape)

    _, given = measure_fresh({"cell": codes.size, "byte": cells[0].nbytes}, groups.add_near, arguments)
    near = np.bincount(codes[distance <= reach[0]], minlength=counts.size)
    assert abs(given[6] - near).max() <= 1  # one may lie on the border


def test_sort(measure_fresh, ungrouped, starts):
    keys, cells = ungrouped
    wanted = np.ones(starts.size - 1, np.bool_)
    _, given = measure_fresh({"cell": keys.size}, groups.sort, lambda: (keys.copy(), cells.copy(), starts, wanted))
    assert np.array_equal(given[0], sorted_within(keys, starts))


def test_ranks(measure_fresh, ungrouped, starts, distance, codes, counts):
    keys, cells = ungrouped
    shares = np.empty(keys.size, np.float32)
    measure_fresh({"cell": keys.size}, groups.ranks, lambda: (keys.copy(), cells.copy(), starts, shares))
    assert np.array_equal(shares, expected_shares(distance, codes, counts))


def test_regroup(measure_fresh, distance, codes, starts, ungrouped):
    keys, cells = distance.view(np.int64), np.arange(codes.size, dtype=np.uint32)

    def arguments():
        return keys, cells, codes, starts[:-1].copy(), np.empty_like(keys), np.empty_like(cells)

    _, given = measure_fresh({"cell": keys.size}, groups.regroup, arguments)
    assert np.array_equal(given[4], ungrouped[0])
    assert np.array_equal(given[5], ungrouped[1])


def test_merge_ranks(measure_fresh, distance):
    """One category of all cells, in 8 sorted runs."""
    n_runs, size = 8, distance.size // 8 * 8
    runs = np.arange(size, dtype=np.uint32).reshape(n_runs, -1)
    runs = np.take_along_axis(runs, np.argsort(distance[runs], axis=1), axis=1)
    keys, shares = distance[runs].view(np.int64), np.empty(size, np.float32)

    def arguments():
        left, state = np.full(n_runs, size // n_runs), np.array([size, -1, 0])
        return keys, runs, left, np.zeros(n_runs, np.bool_), state, shares, size

    refill, _ = measure_fresh({"cell": size}, groups.merge_ranks, arguments)
    assert refill == -1
    one = np.zeros(size, np.uint8)
    assert np.array_equal(shares, expected_shares(distance[:size], one, np.array([size])))


def searched(counts, shift, n_bins):
    """A table of `probe` that looks at all distances, and the searches for their medians."""
    table = np.zeros((counts.size, groups.PROBE_COLUMNS), np.int64)
    table[:, groups.HIGH] = table[:, groups.ABOVE] = groups.TOP_KEY
    table[:, groups.SHIFT] = shift
    table[:, groups.AT] = np.arange(counts.size) * n_bins if n_bins else np.r_[0, np.cumsum(counts)[:-1]]
    searches = np.zeros((counts.size, groups.SEARCH_COLUMNS), np.int64)
    searches[:, groups.TO], searches[:, groups.SIZE], searches[:, groups.RANK] = groups.TOP_KEY, counts, counts // 2
    return table, searches


def test_probe(measure_fresh, cells, means, counts, ungrouped):
    """Keeping all distances."""
    kept = np.empty(cells[1].size, np.int64)

    def arguments():
        return *cells, means, searched(counts, groups.KEEP, 0)[0], np.empty(0, np.uint32), kept

    measure_fresh({"cell": kept.size, "byte": cells[0].nbytes}, groups.probe, arguments)
    assert np.allclose(kept.view(np.float64), ungrouped[0].view(np.float64))


def test_narrow(measure_fresh, cells, means, counts, ungrouped, starts):
    """4096 bins of each category."""
    bits = 12
    table, searches = searched(counts, 63 - bits, 1 << bits)
    bins = np.zeros(counts.size << bits, np.uint32)
    groups.probe(*cells, means, table, bins, np.empty(0, np.int64))
    _, given = measure_fresh({"bin": bins.size}, groups.narrow, lambda: (table, bins, searches.copy()))
    medians = sorted_within(ungrouped[0], starts)[starts[:-1] + counts // 2]
    assert (given[2][:, groups.FROM] <= medians).all()
    assert (medians <= given[2][:, groups.TO]).all()
    assert (given[2][:, groups.SIZE] < counts).all()


def test_select(measure_fresh, counts, ungrouped, starts):
    """The median of each category, of keys that were kept."""
    table, searches = searched(counts, groups.KEEP, 0)
    table[:, groups.AT] = starts[1:]
    found = np.zeros((counts.size, 2), np.int64)
    measure_fresh({"cell": ungrouped[0].size}, groups.select, lambda: (table, ungrouped[0].copy(), searches, found))
    assert np.array_equal(found[:, 0], sorted_within(ungrouped[0], starts)[starts[:-1] + counts // 2])


@pytest.mark.parametrize("dim", [2, 3])
def test_centroids(measure, atlas, codes, counts, dim):
    points = atlas.obsm[f"X_umap_{dim}d"]
    names = [str(name) for name in atlas.obs["cell_type"].cat.categories]
    frame = Frame.around(points, "points")

    def work():
        return centroids(points, frame, codes, counts, names, quantile=0.95, min_points=10, room=1 << 30)

    found = measure({"cell": codes.size}, work)
    mine = (points[codes == 0].astype(np.float64) - frame.center) * frame.scale
    away = np.linalg.norm(mine - mine.mean(axis=0), axis=1)
    assert np.allclose(found[0]["position"], mine[away <= np.quantile(away, 0.95)].mean(axis=0))


def test_outlier_quantiles(measure, cells, counts, distance):
    latent, codes, _, _ = cells
    shares = measure(
        {"cell": codes.size},
        lambda: outlier_quantiles(latent, codes, counts, min_points=10, room=1 << 30, spill=Path.cwd),
    )
    assert np.allclose(shares, expected_shares(distance, codes, counts), atol=1e-3)
