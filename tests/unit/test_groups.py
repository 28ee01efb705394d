"""Centroids and outlier quantiles: the same, bit for bit, whatever room there is and wherever the coordinates are."""

import errno
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from atlaswriter.formats.cellucid import groups, ranks
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.kernels import groups as kernels
from atlaswriter.sinks import fs

# Beside arrays that depend on the data: what Python keeps of objects, and the list of centroids.
SLACK = 96 << 10


class FromDisk:
    """A lazy array: gives copies of rows, and keeps an account of them."""

    speed = 1e9

    def __init__(self, array, grain=1, overhead=0):
        self._array, self.grain, self.overhead = array, grain, overhead
        self.shape, self.dtype = array.shape, array.dtype
        self.largest = self.n_read = 0

    def __getitem__(self, rows):
        part = np.ascontiguousarray(self._array[rows]).copy()
        self.largest, self.n_read = max(self.largest, len(part)), self.n_read + len(part)
        assert rows.start % self.grain == 0
        return part


@pytest.fixture
def small(monkeypatch):
    """Blocks and runs so small that a few thousand cells are many."""
    monkeypatch.setattr(groups, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(ranks, "_LEAST_RUN", 3)
    monkeypatch.setattr(ranks, "_PIECE", 200)


def cells_of(sizes, codes, n_without=777, seed=0):
    """Codes in any order, of categories of these sizes; some cells have a code past the last."""
    labels = np.repeat(np.arange(len(sizes) + 1), [*sizes, n_without])
    labels[labels == len(sizes)] = np.iinfo(codes).max
    return np.random.default_rng(seed).permutation(labels).astype(codes), np.array(sizes)


# One larger than everything else, empty ones, and ones with too few cells.
SIZES = [300, 0, 7000, 1, 9, 10, 11, 900, 0, 1200, 30, 0]


def example(dtype=np.float32, codes=np.uint8, dim=3, seed=1, sizes=SIZES):
    """Cells of which some share their place."""
    labels, counts = cells_of(sizes, codes)
    rng = np.random.default_rng(seed)
    coords = rng.normal(size=(labels.size, dim)) * rng.choice([0.1, 1, 30], (labels.size, 1))
    coords[rng.random(labels.size) < 0.2] = coords[0]
    return (coords * 10).astype(dtype), labels, counts


def centres(coords, codes, counts, room, **options):
    options = {"quantile": 0.95, "min_points": 10, **options}
    names = [f"c{one}" for one in range(counts.size)]
    frame = Frame(np.arange(coords.shape[1]) / 8, 3.0)
    return groups.centroids(coords, frame, codes, counts, names, room=room, **options)


def never():
    raise AssertionError("there is room")


def rooms(pair, n=5):
    """Some rooms, from the least to more than the whole."""
    least, whole = pair
    return [*np.geomspace(1, whole - least + 1, n).astype(int) + least - 1, 3 * whole]


arrays = pytest.mark.parametrize("codes", [np.uint8, np.uint16])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, ">f4"])


@arrays
@dtypes
def test_outlier_quantiles_do_not_depend_on_room_or_place(small, tmp_path, dtype, codes):
    latent, labels, counts = example(dtype, codes, dim=6)
    pair = groups.outlier_rooms(latent, counts.size)
    expected = groups.outlier_quantiles(latent, labels, counts, min_points=10, room=pair.whole, spill=never)
    assert (~np.isnan(expected)).sum() == counts[counts >= 10].sum()
    for array in (latent, np.asfortranarray(latent), FromDisk(latent), FromDisk(latent, grain=900, overhead=10**6)):
        for room in rooms(groups.outlier_rooms(array, counts.size)):
            found = groups.outlier_quantiles(
                array, labels, counts, min_points=10, room=int(room), spill=lambda: tmp_path
            )
            assert found.tobytes() == expected.tobytes()
            assert not list(tmp_path.iterdir())


@arrays
@dtypes
def test_centroids_do_not_depend_on_room_or_place(small, dtype, codes):
    coords, labels, counts = example(dtype, codes)
    expected = centres(coords, labels, counts, 1 << 30)
    assert [one["category"] for one in expected] == [f"c{one}" for one in np.flatnonzero(counts >= 10)]
    assert any(one["n_points"] < counts[int(one["category"][1:])] for one in expected)
    for array in (coords, np.asfortranarray(coords), FromDisk(coords), FromDisk(coords, grain=900, overhead=10**6)):
        for room in rooms(groups.centroid_rooms(array, counts.size)):
            assert centres(array, labels, counts, int(room)) == expected


def exact_example(codes, dim):
    """Means and squared distances of which are exact: whole numbers, categories of 2**k cells. Many ties."""
    labels, counts = cells_of([4096, 2048, 0, 1024, 1, 8, 2, 256], codes)
    return np.random.default_rng(2).integers(-9, 10, (labels.size, dim)).astype(np.float32), labels, counts


def squared(coords, members):
    mine = coords[members].astype(np.float64)
    return ((mine - mine.mean(axis=0)) ** 2).sum(axis=1)


@arrays
@pytest.mark.parametrize("min_points", [0, 1, 2, 9])
def test_outlier_quantiles_against_scipy(small, tmp_path, codes, min_points):
    latent, labels, counts = exact_example(codes, 5)
    expected = np.full(labels.size, np.nan, np.float32)
    for group, size in enumerate(counts):
        if size and size >= min_points:
            members = labels == group
            rank = stats.rankdata(squared(latent, members), method="max")
            expected[members] = rank.astype(np.float32) / np.float32(size)
    for room in rooms(groups.outlier_rooms(latent, counts.size)):
        found = groups.outlier_quantiles(
            latent, labels, counts, min_points=min_points, room=int(room), spill=lambda: tmp_path
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.51, 0.8, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("min_points", [0, 1, 5])
def test_centroids_against_numpy(small, quantile, min_points):
    coords, labels, counts = exact_example(np.uint8, 3)
    frame, names, expected = Frame(np.zeros(3), 1.0), [f"c{one}" for one in range(counts.size)], []
    for group, size in enumerate(counts):
        if size < min_points:
            continue
        mine, near = coords[labels == group].astype(np.float64), np.empty((0, 3))
        if size > min_points:
            distances = np.sqrt(squared(coords, labels == group))
            near = mine[distances <= np.quantile(distances, quantile)]
        used = near if size > min_points and len(near) >= min_points else mine
        position = (used.sum(axis=0) / max(len(used), 1)).tolist()
        expected.append({"category": names[group], "position": position, "n_points": len(used)})
    for room in rooms(groups.centroid_rooms(coords, counts.size)):
        found = groups.centroids(
            coords, frame, labels, counts, names, quantile=quantile, min_points=min_points, room=int(room)
        )
        assert found == expected


@pytest.mark.parametrize("room", ["least", "whole"])
@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.77, 0.95, 0.9999, 1.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda rng, n: rng.normal(size=(n, 3)),
        lambda rng, n: np.full((n, 3), 0.1),
        lambda rng, n: np.where(rng.random((n, 1)) < 0.97, 1.0, rng.normal(size=(n, 3))),
        lambda rng, n: 2.0 ** rng.normal(size=(n, 1), scale=60) * np.ones(3),
        lambda rng, n: np.r_[np.full((1, 3), 1e150), rng.normal(size=(n - 1, 3))],
        lambda rng, n: np.r_[np.full((1, 3), 1e200), rng.normal(size=(n - 1, 3))],
    ],
    ids=["normal", "equal", "mostly equal", "of every size", "one far away", "one too far away"],
)
def test_reach_is_the_quantile_of_numpy(small, make, quantile, room):
    """Bit for bit, of the distances that the kernels compute, also where a guess of where it lies is no good."""
    codes, counts = cells_of([5000, 1, 2, 60, 0, 33], np.uint8, 0)
    coords = make(np.random.default_rng(5), codes.size)
    cells = groups._Cells(coords, codes, np.zeros(3), 1.0)
    squares = np.zeros(counts.size)
    with np.errstate(all="ignore"):
        means = cells.sums(squares, counts.size) / np.maximum(counts, 1)[:, None]
        keys, starts = np.empty(codes.size, np.int64), np.cumsum([0, *counts])
        owners = np.empty(codes.size, np.uint32)
        kernels.distances(coords, codes, np.zeros(3), 1.0, means, starts[:-1].copy(), keys, owners, 0)
        distances = keys.view(np.float64)
        expected = [
            np.quantile(distances[first:last], quantile) if last > first else -1.0 for first, last in pairwise(starts)
        ]
        free = counts.size * groups._LEAST_SEARCH if room == "least" else 1 << 20
        spreads = groups._spreads(squares, means, counts)
        found = groups._reach(cells, means, counts > 0, counts, spreads, quantile, free)
    np.testing.assert_array_equal(found, expected)


def test_one_category_of_equal_distances_is_larger_than_the_room(small, tmp_path):
    for latent in (np.ones((20_000, 4), np.float32), np.tile([[1.0], [-1.0]], (10_000, 4))):
        codes, counts = np.zeros(len(latent), np.uint8), np.array([len(latent), 0])
        room = groups.outlier_rooms(latent, 2).least
        found = groups.outlier_quantiles(latent, codes, counts, min_points=1, room=room, spill=lambda: tmp_path)
        assert (found == 1).all()
        (centre,) = centres(latent, codes, counts, groups.centroid_rooms(latent, 2).least)
        assert centre["n_points"] == len(latent)


def test_many_categories(small, tmp_path):
    """All that a uint16 can tell, far more than fit together."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 65_536, 200_000).astype(np.uint16)
    codes[:60_000] = 40_000
    counts = np.bincount(codes, minlength=65_536)[:65_534]
    latent = rng.normal(size=(codes.size, 2)).astype(np.float32)
    pair = groups.outlier_rooms(latent, counts.size)
    found = [
        groups.outlier_quantiles(latent, codes, counts, min_points=3, room=room, spill=lambda: tmp_path)
        for room in (pair.least, (pair.least + pair.whole) // 2, pair.whole)
    ]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    pair = groups.centroid_rooms(latent, counts.size)
    least, whole = (centres(latent, codes, counts, room, min_points=2) for room in pair)
    assert least == whole


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("n_categories", [30, 5000])
def test_memory_stays_within_the_room(tmp_path, lazy, n_categories):
    rng = np.random.default_rng(6)
    codes = rng.integers(0, n_categories, 400_000).astype(np.uint16)
    codes[::2] = 3
    counts = np.bincount(codes, minlength=n_categories)
    array = rng.normal(size=(codes.size, 8)).astype(np.float32)
    array = FromDisk(array) if lazy else array

    def peak(run):
        run()  # kernels are loaded
        tracemalloc.start()
        run()
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    for room in rooms(groups.outlier_rooms(array, n_categories), 3):
        taken = peak(
            lambda room=int(room): groups.outlier_quantiles(
                array, codes, counts, min_points=10, room=room, spill=lambda: tmp_path
            )
        )
        assert taken <= room + 4 * codes.size + SLACK
    for room in rooms(groups.centroid_rooms(array, n_categories), 3):
        result = n_categories * 1000
        assert peak(lambda room=int(room): centres(array, codes, counts, room)) <= room + result + SLACK
    if lazy:
        assert array.largest * 8 * 4 <= groups.BLOCK_BYTES


def test_rows_that_are_stored_together_are_read_together(small):
    coords, labels, counts = example()
    stored = FromDisk(coords, grain=1000)
    centres(stored, labels, counts, 1 << 30)
    assert stored.largest == 1000
    assert stored.n_read % len(coords) == 0


def test_too_little_room_is_refused(small):
    coords, labels, counts = example()
    with pytest.raises(ValueError, match="do not fit"):
        centres(coords, labels, counts, groups.centroid_rooms(coords, counts.size).least - 1)
    room = groups.outlier_rooms(coords, counts.size).least - 1
    with pytest.raises(ValueError, match="do not fit"):
        groups.outlier_quantiles(coords, labels, counts, min_points=1, room=room, spill=never)


@pytest.mark.parametrize("step", [0, 1, 5, "read", "second file"])
def test_nothing_stays_on_disk_after_an_error(small, tmp_path, monkeypatch, step):
    coords, labels, counts = example()
    n_written, append = [], fs.append

    def full(*args):
        n_written.append(1)
        if len(n_written) > step:
            raise OSError(errno.ENOSPC, "no space left")
        return append(*args)

    def broken(*args, calls=[]):  # noqa: B006 - counts
        calls.append(1)
        if len(calls) > (step == "second file"):
            raise OSError(errno.EIO, "broken")
        return column(*args)

    column = ranks._Column
    if step == "read":
        monkeypatch.setattr(ranks._Column, "read", broken)
    elif step == "second file":
        monkeypatch.setattr(ranks, "_Column", broken)
    else:
        monkeypatch.setattr(fs, "append", full)
    room = groups.outlier_rooms(coords, counts.size).least
    with pytest.raises(OSError, match=r"no space|broken"):
        groups.outlier_quantiles(coords, labels, counts, min_points=1, room=room, spill=lambda: tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_cut_short_is_noticed(tmp_path):
    with ranks.Spill(tmp_path) as spill:
        spill.append(ranks.Entries(np.arange(5), np.arange(5, dtype=np.uint32)))
        out = ranks.Entries.empty(3)
        spill.read(1, out)
        assert (out.keys.tolist(), out.cells.tolist()) == ([1, 2, 3], [1, 2, 3])
        with pytest.raises(OSError, match="shorter"):
            spill.read(3, out)


def test_no_cells_and_no_categories(tmp_path):
    coords, codes = np.empty((0, 2), np.float32), np.empty(0, np.uint8)
    for counts in (np.zeros(0, np.int64), np.zeros(3, np.int64)):
        assert centres(coords, codes, counts, 1 << 20) == []
        found = groups.outlier_quantiles(coords, codes, counts, min_points=0, room=1 << 20, spill=never)
        assert found.shape == (0,)


@arrays
@dtypes
def test_wanted_kernels_are_those_called(small, tmp_path, monkeypatch, dtype, codes):
    called = set()
    original = kernels.count.__class__.__call__

    def note(kernel, *args):
        called.add(kernel.name)
        return original(kernel, *args)

    monkeypatch.setattr(kernels.count.__class__, "__call__", note)
    coords, labels, counts = example(dtype, codes)
    centres(coords, labels, counts, groups.centroid_rooms(coords, counts.size).least)
    room = groups.outlier_rooms(coords, counts.size).least
    groups.outlier_quantiles(coords, labels, counts, min_points=1, room=room, spill=lambda: tmp_path)
    wanted = list(groups.wanted_kernels(coords.dtype, labels.dtype))
    assert {kernel.name for kernel, _ in wanted} == called
    assert all(signature in kernel.signatures for kernel, signature in wanted)
    assert not any(kernel.undeclared() for kernel, _ in wanted)
