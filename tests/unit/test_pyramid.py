"""Image pyramids: what is written, how values become 8 bit, memory, failures."""

import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile

from atlaswriter.codecs import webp
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.errors import BudgetError, InputError
from atlaswriter.formats.landscape import pyramid, scale
from atlaswriter.formats.landscape.layout import image_levels
from atlaswriter.formats.landscape.pyramid import dzi, make_pyramid, pyramid_room, write_pyramid
from atlaswriter.formats.landscape.scale import UNCHANGED, Scale, known_scale, measured_scale
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources.images import cropped, open_planes
from atlaswriter.sources.spatial import Plane

MIB = 1 << 20


def blobs(shape, dtype=np.uint16, seed=0):
    """Dark, with some noise and some bright blobs, as stained nuclei are."""
    rng = np.random.default_rng(seed)
    image = rng.poisson(40, shape).astype(np.float64)
    for y, x in rng.integers(0, shape[:2], (60, 2)):
        image[max(y - 9, 0) : y + 9, max(x - 9, 0) : x + 9] += 2000
    return image.clip(0, np.iinfo(dtype).max).astype(dtype)


def halved(image):
    """The rule of libvips, told slowly."""
    odd = [(0, size % 2) for size in image.shape[:2]] + [(0, 0)] * (image.ndim - 2)
    whole = np.pad(image, odd, mode="edge").astype(int)
    return ((whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2] + 2) // 4).astype(np.uint8)


def original_8_bit(image, limit):
    """celldega 0.27.0, `_process_image_channel`."""
    return (np.clip(image.astype(np.float32), 0, limit) / limit * 255).astype(np.uint8)


@pytest.fixture
def exact(monkeypatch):
    """Tiles as they are, instead of as WebP."""
    monkeypatch.setattr(pyramid, "encode", lambda tile: tile.shape[0].to_bytes(2, "big") + tile.tobytes())


def made(plane, chosen=None, workers=2, limit=None):
    tiles = {}
    with Team(workers, Budget(limit)) as team:
        summary = make_pyramid(plane, chosen, lambda *place: tiles.__setitem__(place[:3], place[3]), team)
    return summary, tiles


def assembled(tiles, level, width, height, values=()):
    out = np.zeros((height, width, *values), np.uint8)
    for (at, column, row), content in tiles.items():
        if at == level:
            rows = int.from_bytes(content[:2], "big")
            tile = np.frombuffer(content[2:], np.uint8).reshape(rows, -1, *values)
            target = out[row * 512 : row * 512 + 512, column * 512 : column * 512 + 512]
            assert target.shape == tile.shape
            target[...] = tile
    return out


def assert_levels(tiles, expected, values=()):
    sizes = image_levels(expected.shape[1], expected.shape[0])
    for level in range(len(sizes) - 1, -1, -1):
        assert sizes[level] == (expected.shape[1], expected.shape[0])
        np.testing.assert_array_equal(assembled(tiles, level, *sizes[level], values), expected)
        expected = halved(expected)
    n_tiles = sum(-(-width // 512) * -(-height // 512) for width, height in sizes)
    assert len(tiles) == n_tiles


def test_levels():
    assert image_levels(1, 1) == [(1, 1)]
    assert image_levels(3, 1) == [(1, 1), (2, 1), (3, 1)]
    assert len(image_levels(34155, 13770)) == 17
    assert image_levels(34155, 13770)[-2:] == [(17078, 6885), (34155, 13770)]


def test_dzi():
    """As libvips 8.18 wrote it for the original."""
    assert dzi(4096, 300) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Image xmlns="http://schemas.microsoft.com/deepzoom/2008"\n'
        b'  Format="webp"\n  Overlap="0"\n  TileSize="512"\n  >\n  <Size \n    Height="300"\n    Width="4096"\n'
        b"  />\n</Image>\n"
    )


def test_files(tmp_path):
    (plane,) = open_planes(blobs((1300, 700)))
    done = []
    with FolderSink(tmp_path / "out", force=False) as sink, Team(2, Budget()) as team:
        path = "pyramid_images/dapi_files/{}/{}_{}.webp".format
        summary = write_pyramid(plane, None, path, team, sink, done.append)
        sink.publish()
    files = {str(file.relative_to(tmp_path / "out")): file for file in (tmp_path / "out").rglob("*.webp")}
    assert (summary.width, summary.height, summary.levels) == (700, 1300, 12)
    assert summary.n_tiles == len(files) == 6 + 2 + 10
    assert summary.n_bytes == sum(file.stat().st_size for file in files.values())
    assert sum(done) == 1300 * 700 * 2
    eight_bit = original_8_bit(plane.pixels, summary.scale.display_max)
    for (column, row), file in {(c, r): files[path(11, c, r)] for c in range(2) for r in range(3)}.items():
        found = imagecodecs.webp_decode(file.read_bytes())[..., :3]
        expected = eight_bit[row * 512 : row * 512 + 512, column * 512 : column * 512 + 512]
        assert found.shape == (*expected.shape, 3)
        assert np.abs(found - expected[..., np.newaxis].astype(int)).mean() < 0.9
    assert imagecodecs.webp_decode(files[path(0, 0, 0)].read_bytes()).shape[:2] == (1, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_the_scale_is_the_originals(exact, dtype):
    image = blobs((900, 1100), dtype)
    (plane,) = open_planes(image)
    sample = image[::8, ::8]
    brightest = float(np.percentile(sample[sample > 0], 99.9))
    summary, tiles = made(plane)
    assert summary.scale.record() == {
        "method": "percentile_99.9",
        "lut_max": brightest,
        "display_max_factor": 5.0,
        "display_max": brightest * 5,
    }
    assert_levels(tiles, original_8_bit(image, brightest * 5))


@pytest.mark.parametrize("limit", [1.0, 7.3, 4505.857, 65535.0, 123456.7])
def test_every_value_is_mapped_as_by_the_original(limit):
    for dtype in (np.uint8, np.uint16, np.uint32):
        values = np.unique(np.geomspace(1, np.iinfo(dtype).max, 70000).astype(dtype))
        values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype) if values.itemsize < 4 else values
        out = np.empty(values.shape, np.uint8)
        Scale("given", limit / 5).convert(values, out)
        np.testing.assert_array_equal(out, original_8_bit(values, limit / 5 * 5.0))


def test_which_scale():
    plane = Plane("dapi", "DAPI", blobs((20, 20)), 1200.0)
    assert known_scale(plane) == Scale("lut_max", 1200.0)
    assert known_scale(plane, 55) == Scale("given", 55.0)
    assert known_scale(plane, 55).display_max == 275
    assert known_scale(Plane("dapi", "DAPI", plane.pixels)) is None
    assert known_scale(Plane("he", "H&E", np.zeros((4, 4, 3), np.uint8)), 55) == UNCHANGED
    assert UNCHANGED.record()["display_max"] is None
    assert made(plane)[0].scale == Scale("lut_max", 1200.0)


def test_a_blank_channel(exact):
    for dtype in (np.uint8, np.uint16, np.uint32):
        (plane,) = open_planes(np.zeros((30, 40), dtype))
        summary, tiles = made(plane)
        assert summary.scale == Scale("percentile_99.9", None)
        assert summary.scale.record()["lut_max"] is None
        assert_levels(tiles, np.zeros((30, 40), np.uint8))
    # Bright between the pixels that are looked at: the whole range is shown.
    image = np.zeros((30, 40), np.uint16)
    image[3, 3] = 65535
    assert_levels(made(open_planes(image)[0])[1], (image // 257).astype(np.uint8))


def test_colour(exact):
    image = blobs((1100, 600, 3), np.uint8)
    summary, tiles = made(open_planes(image)[0])
    assert summary.scale == UNCHANGED
    assert_levels(tiles, image, (3,))


@pytest.mark.parametrize(
    "layout", [{"tile": (256, 256)}, {"tile": (304, 208)}, {"rowsperstrip": 100}, {"rowsperstrip": 4000}], ids=str
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_however_it_is_stored_the_tiles_are_the_same(tmp_path, exact, layout, compression):
    image = blobs((2300, 1500))
    tifffile.imwrite(tmp_path / "a.tif", image, compression=compression, predictor=compression is not None, **layout)
    expected = made(open_planes(image)[0])
    for workers, limit in ((1, "4GiB"), (3, "4GiB")):
        (plane,) = open_planes(tmp_path / "a.tif")
        assert made(plane, None, workers, limit) == expected
    part = cropped(plane, slice(300, 2200), slice(100, 1207))
    expected = made(open_planes(np.ascontiguousarray(image[300:2200, 100:1207]))[0])
    assert made(part) == expected


@pytest.mark.parametrize("limits", [(1024, 4096, 1), (512, 512, 1 << 20), (512, 2048, 40000), (2048, 2048, 1 << 30)])
def test_blocks_of_any_size_make_the_same_tiles(exact, monkeypatch, limits):
    image = blobs((2049, 3100))
    expected = original_8_bit(image, 900 * 5)
    for name, value in zip(("_SMALLEST", "_LARGEST", "_REST_BYTES"), limits, strict=True):
        monkeypatch.setattr(pyramid, name, value)
    assert_levels(made(open_planes(image)[0], Scale("given", 900))[1], expected)


def test_a_measured_channel_is_decoded_once_where_there_is_room(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", blobs((1200, 1200)), tile=(256, 256), compression="zlib")
    (plane,) = open_planes(tmp_path / "a.tif")
    read = []
    original = type(plane.pixels)._segment
    monkeypatch.setattr(type(plane.pixels), "_segment", lambda self, at: read.append(at) or original(self, at))
    tiles = made(plane)[1]
    assert sorted(read) == list(range(25))
    read.clear()
    with Team(1, Budget()) as team:
        team.budget.limit = team.budget.held + pyramid_room(plane) + MIB
        again = {}
        make_pyramid(plane, None, lambda *place: again.__setitem__(place[:3], place[3]), team)
    assert sorted(read) == sorted([*range(25), *range(25)])
    assert again == tiles


@pytest.mark.parametrize("kind", ["tiles", "strips", "one strip", "png", "array"])
def test_the_room_is_enough_and_is_asked_for(tmp_path, kind):
    image = blobs((3000, 2500))
    if kind == "array":
        path = image
    elif kind == "png":
        path = tmp_path / "a.png"
        path.write_bytes(imagecodecs.png_encode(image))
    else:
        layout = {"tiles": {"tile": (512, 512)}, "strips": {"rowsperstrip": 64}, "one strip": {"rowsperstrip": 3000}}
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, image, compression="zlib", **layout[kind])
    (plane,) = open_planes(path)
    for workers in (1, 3):
        room = pyramid_room(plane, workers)
        with Team(workers, Budget()) as team:
            team.budget.limit = team.budget.held + room
            tracemalloc.start()
            make_pyramid(plane, None, lambda *_: None, team)
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert used < room + MIB
            assert team.budget.peak <= room
    with Team(1, Budget()) as team:
        team.budget.limit = team.budget.held + pyramid_room(plane) // 2
        with pytest.raises(BudgetError, match="image a"):
            make_pyramid(plane, None, lambda *_: None, team)
        assert team.budget._taken == 0


def test_damage_ends_the_work(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", blobs((1300, 1300)), tile=(256, 256), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[7]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + 50] = bytes(50)
    (tmp_path / "a.tif").write_bytes(content)
    (plane,) = open_planes(tmp_path / "a.tif")
    for workers in (1, 3):
        for chosen in (None, Scale("given", 9)):
            with pytest.raises(InputError, match=r"segment 7.*the file is damaged or incomplete"):
                made(plane, chosen, workers)


def test_a_tile_of_one_colour_is_exact_and_small():
    for tile in (np.full((512, 300), 37, np.uint8), np.full((1, 1), 255, np.uint8), np.full((9, 7, 3), 5, np.uint8)):
        content = webp.encode(tile)
        assert len(content) < 60
        decoded = webp.decode(content)
        assert decoded.shape == (*tile.shape[:2], 3)
        assert (decoded == tile.flat[0]).all()
    mixed = np.empty((20, 20, 3), np.uint8)
    mixed[...] = (200, 10, 90)
    np.testing.assert_array_equal(webp.decode(webp.encode(mixed)), mixed)


def test_strides_do_not_matter():
    image = blobs((300, 400), np.uint8)
    assert webp.encode(image[10:100, 20:200]) == webp.encode(image[10:100, 20:200].copy())
    image.flags.writeable = False
    assert webp.encode(image[:, ::2]) == webp.encode(image[:, ::2].copy())
    colour = blobs((30, 40, 3), np.uint8)
    assert webp.encode(colour[::2]) == webp.encode(colour[::2].copy())


def test_the_percentile_needs_no_more_than_its_counts():
    (plane,) = open_planes(blobs((900, 900)))
    with Team(1, Budget()) as team:
        assert measured_scale(plane, team).method == "percentile_99.9"
    assert scale._percentile([(np.array([0, 3]), np.array([5, 1]))]) == 3
    assert scale._percentile([(np.array([0]), np.array([5]))]) is None


def test_kernels_have_no_types_undeclared():
    from atlaswriter.kernels import pixels

    for one in (pixels.look_up, pixels.stretch, pixels.triple, pixels.halve_grey, pixels.halve_colour):
        assert one.undeclared() == []
