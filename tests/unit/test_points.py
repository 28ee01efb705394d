"""Normalised points and vectors against the rule, at the edges of float64."""

import numpy as np
import pandas as pd
import pytest

from atlaswriter import prepare
from atlaswriter.errors import InputError
from atlaswriter.formats.cellucid.points import Frame


def normalised(points):
    """The rule: centre of the bounding box to 0, widest side to 2, in float64, rounded once."""
    exact = np.asarray(points, np.float64)
    low, high = exact.min(axis=0), exact.max(axis=0)
    return ((exact - (low + high) / 2) * (2 / (high - low).max())).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1", "i1"])
def test_points(dim, dtype):
    raw = (np.random.default_rng(0).normal(size=(40_000, dim)) * 20 + 50).astype(dtype)
    before = raw.copy()
    found = Frame.around(raw, "x").points(raw).whole()
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, normalised(raw), atol=1.2e-7)
    assert np.abs(found).max() == 1.0
    np.testing.assert_array_equal(raw, before)


def test_memory_order_does_not_matter():
    raw = np.random.default_rng(0).normal(size=(100, 3))
    frame = Frame.around(raw, "x")
    np.testing.assert_array_equal(frame.points(np.asfortranarray(raw)).whole(), frame.points(raw).whole())
    np.testing.assert_array_equal(frame.points(raw[::-1]).whole()[::-1], frame.points(raw).whole())


@pytest.mark.parametrize(("offset", "extent"), [(1e8, 1), (0, 1e-10), (0, 1e-300), (1e15, 1e3), (0, 1e300)])
def test_far_or_tiny_embeddings_keep_their_shape(offset, extent):
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21)), axis=-1).reshape(-1, 2)
    raw = offset + grid * extent / 2
    found = Frame.around(raw, "x").points(raw).whole()
    np.testing.assert_allclose(found, grid, atol=1e-6)
    assert len(np.unique(found, axis=0)) == 441


@pytest.mark.parametrize("value", [0.0, 7.5, -1e300, 5e-324])
def test_all_cells_in_one_place(value):
    raw = np.full((5, 2), value)
    frame = Frame.around(raw, "x")
    assert frame.points(raw).whole().tolist() == [[0, 0]] * 5
    assert (frame.vectors(np.ones((5, 2))).whole() == 2).all()


def test_integers_at_their_limits():
    raw = np.array([[-(2**63), 0], [2**63 - 1, 1]])
    assert Frame.around(raw, "x").points(raw).whole()[:, 0].tolist() == [-1, 1]
    raw = np.array([[0], [255]], np.uint8)
    assert Frame.around(raw, "x").points(raw).whole().ravel().tolist() == [-1, 1]


def test_extent_beyond_float64_is_refused():
    with pytest.raises(InputError, match="X_umap_2d"):
        Frame.around(np.array([[-1.7e308, 0], [1.7e308, 0]]), "X_umap_2d")


def test_vectors_are_scaled_but_not_moved():
    raw = np.array([[0.0, 0], [4, 2]])
    vectors = np.array([[1.0, -1], [0, 2]], np.float32)
    before = vectors.copy()
    assert Frame.around(raw, "x").vectors(vectors).whole().tolist() == [[0.5, -0.5], [0, 1]]
    np.testing.assert_array_equal(vectors, before)


def test_vectors_beyond_float32_are_refused_before_anything_is_written(tmp_path):
    points = np.array([[0.0, 0], [1e-30, 0]])
    with pytest.raises(InputError, match="'velocity'"):
        prepare(
            latent_space=points,
            obs=pd.DataFrame({"x": [1, 2]}),
            X_umap_2d=points,
            vector_fields={"velocity_2d": np.array([[1e20, 0], [0, 0]])},
            out_dir=tmp_path / "out",
        )
    assert list(tmp_path.iterdir()) == []
