"""Kernels of label images: distinct values and replacement equal what NumPy says, in tables of any state."""

import numpy as np
import pytest

from atlaswriter.errors import InputError, Problems
from atlaswriter.formats.deepcell import values as module
from atlaswriter.formats.deepcell.values import Present, Table, Values
from atlaswriter.kernels import labels as kernels

SEED = np.uint64(12345)
EXTREMES = np.array([2**31 - 1, -(2**31), -1, 1, 0, 2**30], np.int32)


def blobs(shape, n, seed=0):
    """Runs of labels with background between them."""
    rng = np.random.default_rng(seed)
    runs = rng.integers(0, n, shape[0] * shape[1] // 5)
    return np.repeat(runs, 5)[: shape[0] * shape[1]].reshape(shape).astype(np.int32)


def found(image, step=7):
    values = Values("frame 0")
    for row in range(0, image.shape[0], step):
        values.add(image[row : row + step])
    return values.sorted()


@pytest.mark.parametrize("n", [1, 2, 50, 5000])
def test_distinct_values_are_those_of_numpy(n):
    image = blobs((100, 200), n)
    expected = np.setdiff1d(image, [0])
    assert found(image).tolist() == expected.tolist()
    assert found(image).dtype == np.int32


def test_a_table_grows_and_loses_nothing():
    rng = np.random.default_rng(1)
    image = rng.integers(1, 2**31 - 1, (200, 300), dtype=np.int32)
    assert found(image, 1).tolist() == np.unique(image).tolist()
    assert found(image, 200).tolist() == np.unique(image).tolist()


def test_a_full_table_asks_to_grow_and_never_fills_up():
    slots = np.zeros(8, np.int32)
    block = np.arange(1, 10, dtype=np.int32)
    assert kernels.distinct(block, slots, SEED, 0) == -1
    assert (slots != 0).sum() == 4
    assert kernels.distinct(slots[slots != 0], slots, SEED, 4) == 4


@pytest.mark.parametrize("seed", range(5))
def test_values_that_share_slots(seed):
    """Eight slots for four values: some seeds put all of them into one."""
    keys = EXTREMES[EXTREMES != 0][:4].copy()
    slots, places = np.zeros(8, np.int32), np.zeros(8, np.int32)
    kernels.fill(keys, np.arange(10, 14, dtype=np.int32), slots, places, np.uint64(seed))
    out = np.empty(6, np.int32)
    n = kernels.replace(EXTREMES, slots, places, np.uint64(seed), out)
    assert out.tolist() == [10, 11, 12, 13, 0, 0]
    assert n == 1


def test_extremes_are_found_and_replaced():
    assert found(EXTREMES[None]).tolist() == sorted(set(EXTREMES.tolist()) - {0})
    table = Table(np.array([2**31 - 1, -1], np.int32), np.array([1, 2**31 - 1], np.int32))
    out = np.empty_like(EXTREMES)
    assert table.apply(EXTREMES, out) == 3
    assert out.tolist() == [1, 0, 2**31 - 1, 0, 0, 0]


@pytest.mark.parametrize("n", [1, 3, 4000])
def test_replace_equals_a_lookup(n):
    image = blobs((80, 90), n + 5, seed=n)
    keys = np.arange(1, n + 1, dtype=np.int32)
    new = np.random.default_rng(2).permutation(keys) + np.int32(7)
    lookup = np.zeros(n + 6, np.int32)
    lookup[keys] = new
    expected = lookup[image]
    out = np.empty_like(image)
    assert Table(keys, new).apply(image, out) == ((expected == 0) & (image != 0)).sum()
    np.testing.assert_array_equal(out, expected)
    Table(keys, new).apply(image, image)
    np.testing.assert_array_equal(image, expected)


def test_an_empty_table_removes_everything():
    image = np.array([[0, 3, 3, 4]], np.int32)
    nothing = np.empty(0, np.int32)
    assert Table(nothing, nothing).apply(image, image) == 3
    assert not image.any()


def test_read_only_pixels_are_taken_and_nothing_new_is_compiled():
    image = blobs((10, 10), 4)
    image.flags.writeable = False
    out = np.empty_like(image)
    keys = np.arange(1, 4, dtype=np.int32)
    Table(keys, keys).apply(image, out)
    np.testing.assert_array_equal(out, image)
    assert found(image).tolist() == np.setdiff1d(image, [0]).tolist()
    for kernel in (kernels.distinct, kernels.fill, kernels.replace):
        assert kernel.undeclared() == []


def test_too_many_values_look_like_an_image(monkeypatch):
    monkeypatch.setattr(module, "_MOST_VALUES", 1 << 12)
    image = np.arange(1, 1 + (1 << 12), dtype=np.int32)[None]
    assert found(image).size == 1 << 12
    with pytest.raises(InputError, match=r"frame 0: has more than 4,096 different values.*image"):
        found(np.append(image, np.int32(9999))[None])


def test_values_of_every_frame_and_feature():
    lists = [np.array(part, np.int32) for part in ([1, 2], [], [2, 7], [1])]
    present = Present.of(lists, 2)
    assert present.n_frames == 2
    assert [present.at(t, c).tolist() for t in range(2) for c in range(2)] == [[1, 2], [], [2, 7], [1]]
    assert present.places.tolist() == [0, 0, 2, 2, 3]
    asked = np.array([0, 0, 1, 2, 3, 3], np.int64), np.array([1, 7, 2, 7, 1, 2**31 - 1], np.int64)
    assert present.has(*asked).tolist() == [True, False, False, True, True, False]
    assert Present.of([np.empty(0, np.int32)], 1).has(np.array([0]), np.array([1])).tolist() == [False]


def test_negative_values_are_named():
    problems = Problems()
    Present.of([np.array([-3, 1], np.int32), np.array([-1], np.int32)], 1).refuse_negative("labels", problems)
    (problem,) = problems.found
    assert problem.found == "2 values are negative: -3 in frame 0, feature 0; -1 in frame 1, feature 0"
