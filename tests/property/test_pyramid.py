"""Pyramids of generated images against plain NumPy."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atlaswriter.codecs import webp
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.formats.landscape.layout import image_levels
from atlaswriter.formats.landscape.pyramid import make_pyramid
from atlaswriter.formats.landscape.scale import Scale, _percentile, _tallied, known_scale
from atlaswriter.kernels import pixels as kernels
from atlaswriter.sources.images import open_planes
from atlaswriter.sources.spatial import Plane

few = settings(max_examples=25, derandomize=True, deadline=None)
moderate = settings(max_examples=150, derandomize=True, deadline=None)

# Sides at and around the edges of tiles and blocks, and primes.
SIDES = st.sampled_from([1, 2, 3, 7, 61, 511, 512, 513, 523, 1021, 1024, 1025, 1531])
DTYPES = st.sampled_from([np.uint8, np.uint16, np.uint32, "colour"])


def image_of(height, width, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype == "colour":
        coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
        return np.ascontiguousarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width])
    smooth = 300 + 250 * np.sin(np.arange(height) / 40)[:, np.newaxis] * np.cos(np.arange(width) / 60)
    noisy = rng.poisson(smooth * (2 if dtype == np.uint32 else 1))
    return noisy.clip(0, np.iinfo(dtype).max).astype(dtype)


def halved(image):
    odd = [(0, size % 2) for size in image.shape[:2]] + [(0, 0)] * (image.ndim - 2)
    whole = np.pad(image, odd, mode="edge").astype(int)
    return ((whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2] + 2) // 4).astype(np.uint8)


def made(plane, scale, workers):
    tiles = {}
    with Team(workers, Budget()) as team:
        summary = make_pyramid(plane, scale, lambda *place: tiles.__setitem__(place[:3], place[3]), team)
    return summary, tiles


@few
@given(SIDES, SIDES, DTYPES, st.integers(0, 5))
@example(1, 1, np.uint16, 0)
@example(1, 1531, np.uint8, 0)
@example(1531, 1, "colour", 0)
def test_every_tile_is_its_part_of_its_level(height, width, dtype, seed):
    image = image_of(height, width, dtype, seed)
    (plane,) = open_planes(image)
    scale = known_scale(plane)
    summary, tiles = made(plane, scale, 1)
    assert made(plane, scale, 3) == (summary, tiles)
    if dtype == "colour":
        expected = image
    else:
        limit = summary.scale.display_max or float(np.iinfo(image.dtype).max)
        expected = (np.clip(image.astype(np.float32), 0, limit) / limit * 255).astype(np.uint8)
    sizes = image_levels(width, height)
    errors = n_tiles = 0
    for level in range(len(sizes) - 1, -1, -1):
        assert sizes[level] == expected.shape[1::-1]
        for row in range(-(-expected.shape[0] // 512)):
            for column in range(-(-expected.shape[1] // 512)):
                part = expected[row * 512 : row * 512 + 512, column * 512 : column * 512 + 512]
                found = webp.decode(tiles[level, column, row])
                assert found.shape == (*part.shape[:2], 3)
                n_tiles += 1
                if dtype != "colour":
                    # Grey: three equal colours, close to what they were.
                    difference = np.abs(found - part[..., np.newaxis].astype(int))
                    assert difference.max() <= 12
                    errors += difference.mean()
                else:
                    # Colours are stored at half resolution: brightness is what stays.
                    brightness = [0.299, 0.587, 0.114]
                    errors += np.abs(found @ brightness - part @ brightness).mean()
        expected = halved(expected)
    assert n_tiles == len(tiles) == summary.n_tiles
    assert errors / n_tiles < (4 if dtype == "colour" else 1)


@moderate
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=19)))
def test_halves(image):
    out = np.empty((-(-image.shape[0] // 2), -(-image.shape[1] // 2)), np.uint8)
    kernels.halve_grey(image, out)
    np.testing.assert_array_equal(out, halved(image))
    colour = np.ascontiguousarray(np.stack([image, 255 - image, image // 2], -1))
    out = np.empty((*out.shape, 3), np.uint8)
    kernels.halve_colour(colour, out)
    np.testing.assert_array_equal(out, halved(colour))


@moderate
@given(
    st.sampled_from([np.uint8, np.uint16, np.uint32]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=60))
    ),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_percentile(image, rows, columns):
    """To the last bit that of NumPy, however the image is divided."""
    plane = Plane("a", "a", image)
    parts = [
        (slice(top, min(top + rows, image.shape[0])), slice(left, min(left + columns, image.shape[1])))
        for top in range(0, image.shape[0], rows)
        for left in range(0, image.shape[1], columns)
    ]
    sample = image[::8, ::8]
    sample = sample[sample > 0]
    expected = float(np.percentile(sample, 99.9)) if sample.size else None
    assert _percentile(_tallied(plane, *part) for part in parts) == expected


@moderate
@given(
    st.sampled_from([np.uint8, np.uint16, np.uint32]).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 50))),
    st.floats(0.01, 1e6),
)
def test_eight_bit(values, brightest):
    out = np.empty(values.shape, np.uint8)
    Scale("given", brightest).convert(values, out)
    limit = brightest * 5.0
    np.testing.assert_array_equal(out, (np.clip(values.astype(np.float32), 0, limit) / limit * 255).astype(np.uint8))
